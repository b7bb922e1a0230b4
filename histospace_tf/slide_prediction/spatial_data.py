"""A prediction as SpatialData: the slide's picture, tiles or spots as shapes, values as a table; or
shapes and values added to the store that the slide is in.

SpatialData is an extra, imported only here: `pip install 'histospace-tf[spatialdata]'`.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import spatialdata_elements, spatialdata_zarr
from histospace_tf.data_pipelines.slides import zarr_images
from histospace_tf.slide_prediction.spatial_entries import Shapes, shapes_of
from histospace_tf.vocabulary import InputError, named

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

IMAGE, SHAPES, TABLE = "image", "places", "table"
_KINDS = ("images", "labels", "points", "shapes", "tables")  # folders of a store
_ROOT_FILES = ("zarr.json", ".zmetadata", ".zgroup", ".zattrs")
_ALIKE = 0.8  # correlation of two overviews of one slide; compression and smoothing leave more
PIXELS, MICRONS = "global", "microns"  # coordinate systems


def check_installed() -> None:
    """Refuses to go on without SpatialData.

    Raises:
        InputError: naming what to install.
    """
    spatialdata_elements.check_installed("`spatialdata`")


def replaced_folders(folder: Path, genes: Sequence[str] = ()) -> list[Path]:
    """What `write_spatial_data` replaces: nothing where it adds to others' store, which
    `refuse_other_store` checks."""
    return [] if is_others_store(folder) else [folder]


def as_spatial_data(table: anndata.AnnData) -> SpatialData:
    """A prediction of one slide as SpatialData, in memory.

    Returns:
        images["image"], an overview; shapes["places"], squares (tiles) or circles (spots), indexed
        by name; tables["table"], `table` with obs region and place, which link it to the shapes.
        Coordinate system "global" is full-resolution pixels from the image's top left corner;
        "microns" the same in microns, where the scale is known.
    Raises:
        InputError: SpatialData is absent, or the table has no slide.
    """
    check_installed()
    with warnings.catch_warnings():  # of the libraries below it, at their import
        warnings.simplefilter("ignore")
        from spatialdata import SpatialData
        from spatialdata.models import Image2DModel
        from spatialdata.transformations import BaseTransformation, Identity, Scale, Sequence

    shapes = shapes_of(table)
    to_pixels = Scale([shapes.scale, shapes.scale], axes=("x", "y"))
    of_image: dict[str, BaseTransformation] = {PIXELS: to_pixels}
    of_shapes: dict[str, BaseTransformation] = {PIXELS: Identity()}
    if shapes.mpp is not None:
        to_microns = Scale([shapes.mpp, shapes.mpp], axes=("x", "y"))
        of_image[MICRONS] = Sequence([to_pixels, to_microns])
        of_shapes[MICRONS] = to_microns
    image = Image2DModel.parse(
        np.moveaxis(shapes.image, -1, 0),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations=of_image,
    )
    drawn, linked = _linked(table, shapes, SHAPES, of_shapes)
    return SpatialData(images={IMAGE: image}, shapes={SHAPES: drawn}, tables={TABLE: linked})


def _linked(
    table: anndata.AnnData, shapes: Shapes, name: str, transformations: Mapping[str, Any]
) -> tuple[GeoDataFrame, anndata.AnnData]:
    """Tiles or spots as shapes called `name`, and a table that annotates them."""
    import geopandas
    import shapely
    from spatialdata.models import ShapesModel, TableModel

    names = [str(name) for name in table.obs_names]
    if shapes.square:
        drawn = geopandas.GeoDataFrame(geometry=shapely.polygons(shapes.polygons_px()), index=names)
    else:
        drawn = geopandas.GeoDataFrame(
            {"radius": np.full(len(names), shapes.size_px / 2)},
            geometry=shapely.points(shapes.corner_px),
            index=names,
        )
    linked = table.copy()
    del linked.uns["spatial"]  # the image is an element of its own
    linked.obs["region"] = name
    linked.obs["region"] = linked.obs["region"].astype("category")
    linked.obs["place"] = names
    return (
        ShapesModel.parse(drawn, transformations=dict(transformations)),
        TableModel.parse(linked, region=name, region_key="region", instance_key="place"),
    )


def write_spatial_data(table: anndata.AnnData, folder: Path, *, force: bool = False) -> list[Path]:
    """Writes `as_spatial_data` as a .zarr folder, whole or not at all; into a store that is there
    already and is none of ours, shapes and table are added.

    Raises:
        InputError: a finished folder without `force`, or as `as_spatial_data` and `added_to_store`.
    """
    if is_others_store(folder):
        return [added_to_store(table, folder, force=force)]
    outputs.refuse_finished(folder, force=force)
    data = as_spatial_data(table)
    with outputs.whole_folder(folder, force=force) as draft:
        draft.rmdir()  # SpatialData makes the folder itself and takes none that is there
        with warnings.catch_warnings():  # of its libraries about each other's next releases
            warnings.simplefilter("ignore")
            data.write(draft)
    return [folder]


def is_others_store(folder: Path) -> bool:
    """Whether a folder is a store with more in it than a prediction written here: it is added to,
    and never replaced."""
    if not spatialdata_zarr.recognises(folder):
        return False
    return not set(_elements(folder)) <= {("images", IMAGE), ("shapes", SHAPES), ("tables", TABLE)}


def refuse_other_store(
    folder: Path, slide: str, size: tuple[int, int], *, within_px: float = 1.0, force: bool = False
) -> str:
    """Refuses a store to which a slide's prediction cannot be added.

    Args:
        folder: the store.
        slide: name of the slide's file; size: its (width, height) in pixels, to `within_px`.
        force: a prediction of that slide that is in the store may be replaced.
    Returns:
        Name of the image in the store that the slide is.
    Raises:
        InputError: no image of the store, or several, may be the slide; or its prediction is there.
    """
    size_of = {
        name: slides.image_size(folder / kind / name)
        for kind, name in _elements(folder)
        if kind == "images" and not zarr_images.is_preview(name)
    }
    same = [n for n, of in size_of.items() if np.abs(np.subtract(of, size)).max() <= within_px]
    if slide in same:
        same = [slide]
    if len(same) != 1:
        sizes = ", ".join(f"{name!r} of {w} x {h} px" for name, (w, h) in size_of.items())
        raise InputError(
            f"`spatialdata` {str(folder)!r}: slide {slide!r} of {size[0]} x {size[1]} px is "
            f"{'none' if not same else 'not told apart'} among the store's images "
            f"({sizes or 'it has none'}); predict one of them, such as STORE.zarr/images/NAME, or "
            "name another .zarr"
        )
    names = {name.casefold() for name in added_names(same[0])}
    taken = [name for _, name in _elements(folder) if name.casefold() in names]
    if taken and not force:
        raise InputError(
            f"`spatialdata` {str(folder)!r} holds {named(taken)} already; `force` replaces these "
            "alone"
        )
    return same[0]


def added_names(image: str) -> tuple[str, str]:
    """Names of the shapes and the table that are added for an image of a store."""
    return f"{image}_predicted_places", f"{image}_predictions"


def added_to_store(table: anndata.AnnData, folder: Path, *, force: bool = False) -> Path:
    """Adds a prediction's shapes and table to a store, whole or not at all.

    The other elements are neither read nor written. The shapes have the coordinate systems of the
    slide's image.

    Raises:
        InputError: as `refuse_other_store`, or the store's image shows something else.
    """
    check_installed()
    shapes = shapes_of(table)
    height, width = (round(side * shapes.scale) for side in shapes.image.shape[:2])
    slide = str(table.uns["spatial"][shapes.slide].get("metadata", {}).get("source_image", ""))
    image = refuse_other_store(
        folder, slide, (width, height), within_px=shapes.scale + 1, force=force
    )
    _refuse_other_picture(folder / "images" / image, shapes)
    store = spatialdata_elements.read_elements(folder)
    with warnings.catch_warnings():  # of its libraries about each other's next releases
        warnings.simplefilter("ignore")
        from spatialdata import SpatialData
        from spatialdata.transformations import get_transformation

        names = added_names(image)
        systems = get_transformation(store.images[image], get_all=True)
        drawn, linked = _linked(table, shapes, names[0], systems)
        data = SpatialData(shapes={names[0]: drawn}, tables={names[1]: linked})
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as draft:
            data.write(Path(draft) / "new.zarr", **_format_of(folder))
            _put_in(Path(draft), folder, [("shapes", names[0]), ("tables", names[1])], store)
    return folder


def _put_in(draft: Path, folder: Path, elements: list[tuple[str, str]], store: SpatialData) -> None:
    """Moves elements of draft/new.zarr into a store; on any error it is as it was."""
    roots = [path for name in _ROOT_FILES if (path := folder / name).is_file()]
    before = {path: path.read_bytes() for path in roots}
    was_there = {name: (folder / kind / name).exists() for kind, name in elements}
    try:
        for kind, name in elements:
            new, target = draft / "new.zarr" / kind, folder / kind / name
            if not target.parent.exists():
                target.parent.mkdir()
                for file in new.iterdir():
                    if file.is_file():
                        shutil.copy(file, target.parent)
            if was_there[name]:
                (draft / kind).mkdir()
                os.replace(target, draft / kind / name)
            os.replace(new / name, target)
        if store.has_consolidated_metadata():
            store.write_consolidated_metadata()
    except BaseException:
        for kind, name in elements:
            target, old = folder / kind / name, draft / kind / name
            if old.exists() or not was_there[name]:
                shutil.rmtree(target, ignore_errors=True)
            if old.exists():
                os.replace(old, target)
        for path, content in before.items():
            path.write_bytes(content)
        raise


def _refuse_other_picture(image: Path, shapes: Shapes) -> None:
    """Refuses an image of a store that does not show the slide that was predicted."""
    height, width = shapes.image.shape[:2]
    with slides.open_slide(image) as opened:
        shown, _ = opened.overview(max(height, width))
    shown = slides.resampled(shown, (width, height))
    alike = np.corrcoef(shown.ravel(), shapes.image.ravel())[0, 1]
    if alike < _ALIKE:
        raise InputError(
            f"`spatialdata`: image {str(image)!r} has the slide's size but shows something else "
            f"(correlation {alike:.2f}); name the store of the slide that was predicted"
        )


def _format_of(folder: Path) -> dict[str, Any]:
    """What makes SpatialData write in the zarr format of a store."""
    if (folder / "zarr.json").is_file():
        return {}
    import zarr

    if int(zarr.__version__.split(".")[0]) < 3:  # it writes format 2 alone
        return {}
    from spatialdata import SpatialData
    from spatialdata._io.format import SpatialDataContainerFormatV01

    given = inspect.signature(SpatialData.write).parameters
    name = "sdata_formats" if "sdata_formats" in given else "format"  # of earlier releases
    return {name: SpatialDataContainerFormatV01()}


def _elements(folder: Path) -> list[tuple[str, str]]:
    """(kind, name) of a store's elements."""
    return [
        (kind, element.name)
        for kind in _KINDS
        if (folder / kind).is_dir()
        for element in sorted((folder / kind).iterdir())
        if element.is_dir()
    ]

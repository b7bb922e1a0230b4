"""A prediction as SpatialData: the slide's picture, the places as shapes, the values as a table.

SpatialData is an extra, imported only here: `pip install 'histospace-tf[spatialdata]'`.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np

from histospace_tf import outputs
from histospace_tf.prediction import places
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from spatialdata import SpatialData

IMAGE, SHAPES, TABLE = "image", "places", "table"
PIXELS, MICRONS = "global", "microns"  # coordinate systems


def check_installed() -> None:
    """Refuses where SpatialData is absent, without importing it.

    Raises:
        InputError: with the command that installs it.
    """
    if importlib.util.find_spec("spatialdata") is None:
        raise InputError(
            "--spatialdata needs the package spatialdata: pip install 'histospace-tf[spatialdata]'"
        )


def check_folder_name(folder: Path) -> None:
    """Refuses a folder that is not called .zarr.

    Raises:
        InputError: naming the ending that works.
    """
    if folder.suffix != ".zarr":
        raise InputError(f"--spatialdata {str(folder)!r}: a name that ends in .zarr is needed")


def as_spatial_data(table: anndata.AnnData) -> SpatialData:
    """A prediction of one slide as SpatialData, in memory.

    Returns:
        images["image"], an overview; shapes["places"], squares (tiles) or circles (spots), indexed
        by place; tables["table"], `table` with obs region and place, which link it to the shapes.
        Coordinate system "global" is full-resolution pixels from the image's top left corner;
        "microns" the same in microns, where the scale is known.
    Raises:
        InputError: SpatialData is absent, or the table has no slide.
    """
    check_installed()
    with warnings.catch_warnings():  # of the libraries below it, at their import
        warnings.simplefilter("ignore")
        import geopandas
        import shapely
        from spatialdata import SpatialData
        from spatialdata.models import Image2DModel, ShapesModel, TableModel
        from spatialdata.transformations import BaseTransformation, Identity, Scale, Sequence

    shapes = places.of_table(table)
    to_pixels = Scale([shapes.scale, shapes.scale], axes=("x", "y"))
    of_image: dict[str, BaseTransformation] = {PIXELS: to_pixels}
    of_shapes: dict[str, BaseTransformation] = {PIXELS: Identity()}
    if shapes.mpp is not None:
        to_microns = Scale([shapes.mpp, shapes.mpp], axes=("x", "y"))
        of_image[MICRONS] = Sequence([to_pixels, to_microns])
        of_shapes[MICRONS] = to_microns
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
    linked.obs["region"] = SHAPES
    linked.obs["region"] = linked.obs["region"].astype("category")
    linked.obs["place"] = names
    return SpatialData(
        images={
            IMAGE: Image2DModel.parse(
                np.moveaxis(shapes.image, -1, 0),
                dims=("c", "y", "x"),
                c_coords=["r", "g", "b"],
                transformations=of_image,
            )
        },
        shapes={SHAPES: ShapesModel.parse(drawn, transformations=of_shapes)},
        tables={
            TABLE: TableModel.parse(
                linked, region=SHAPES, region_key="region", instance_key="place"
            )
        },
    )


def write_spatial_data(table: anndata.AnnData, folder: Path, *, force: bool = False) -> Path:
    """Writes `as_spatial_data` as a .zarr folder, whole or not at all.

    Raises:
        InputError: another ending, a finished folder without `force`, or as `as_spatial_data`.
    """
    check_folder_name(folder)
    outputs.refuse_finished(folder, force=force)
    data = as_spatial_data(table)
    with outputs.whole_folder(folder, force=force) as draft:
        draft.rmdir()  # SpatialData makes the folder itself and takes none that is there
        with warnings.catch_warnings():  # of its libraries about each other's next releases
            warnings.simplefilter("ignore")
            data.write(draft)
    return folder

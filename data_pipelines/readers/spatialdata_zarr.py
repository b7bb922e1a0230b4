"""The layout of SpatialData stores (.zarr), as spatialdata-io writes them of Visium and Visium HD.

    tables/NAME     counts; its rows belong to shapes of one or several regions: a section each
    shapes/NAME     circles or polygons of spots or bins
    images/NAME     c, y, x; the finest one that is no preview (hires, lowres, cytassist)

Coordinates of spots are transformed to the image's pixels by a coordinate system that both have. Of
several tables of bins of one section those of 16 um are read, else of 8 um, else the largest; pass
STORE.zarr/tables/NAME to read another table.

Tried on stores that spatialdata-io wrote of made runs.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from histospace_tf.data_pipelines.readers import (
    anndata_files,
    anndata_obs,
    h5ad,
    measured,
    spatialdata_elements,
    visium_hd,
)
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.slides import zarr_images
from histospace_tf.data_pipelines.spots import previews
from histospace_tf.data_pipelines.spots.scale import StatedScale
from histospace_tf.vocabulary import InputError, Problem, named

if TYPE_CHECKING:
    from spatialdata import SpatialData

MAY_LACK_PATIENTS = True
LOOKS_FOR = "a SpatialData store .zarr with tables and shapes"
_TABLES = ("tables", "table")  # the second: of versions before 0.1
_BIN = re.compile(r"_?square_(\d+)um$")
_CELLS = re.compile(r"(cell|nucleus|nuclei)_?(segmentations?|boundaries|circles)|(^|_)cells$", re.I)
_OVERLAP = 0.1  # share of spots within the outline of another region: the same tissue twice


def recognises(path: Path) -> bool:
    """Whether a path is a store, or one table of a store."""
    return _store_and_table(path) is not None


def find_sections(path: Path) -> tuple[list[Source], list[Problem]]:
    """Finds one section per region of the store's tables, or of the one table that is passed.

    A single section has the store's name, several have those of their regions.

    Raises:
        InputError: SpatialData is absent, the store is damaged, or no table belongs to shapes.
    """
    split = _store_and_table(path)
    if split is None:
        raise InputError(f"{str(path)!r} is no SpatialData store: {LOOKS_FOR} is needed")
    store, asked = split
    spatialdata_elements.check_installed(f"{str(store)!r} is a SpatialData store; reading it")
    elements = spatialdata_elements.read_elements(store)
    regions, problems = _regions(store, elements, asked)
    sources: list[Source] = []
    on_image: dict[Path, tuple[Path, str]] = {}
    for table, region in regions:
        name = store.stem if len(regions) == 1 else _BIN.sub("", region) or region
        obs, _, _ = anndata_files.read_obs(table)
        own = obs[_of_region(obs, table, region)]
        patient, unclear = h5ad.patient_of(own, name)
        image, more = _image(store, elements, region, name)
        problems += more
        if image is not None:
            first = on_image.setdefault(image, (table, region))
            share = spatialdata_elements.overlap(elements, image.name, first[1], region)
            if first != (table, region) and share > _OVERLAP:
                raise InputError(
                    f"{str(store)!r}: shapes {first[1]!r} and {region!r} lie over each other on "
                    f"image {image.name!r} ({share:.0%} of the spots of one), so one tissue would "
                    f"be two sections. Pass one table: {str(first[0])!r} or {str(table)!r}"
                )
        sources.append(
            SpatialDataSection(
                name=name,
                patient=patient,
                image=image,
                unclear_patient=unclear,
                store=store,
                table=table,
                region=region,
                elements=elements,
            )
        )
    return sources, problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpatialDataSection(measured.MeasuredSource):
    """One section: the rows of a table that belong to one region.

    table: folder of the table; region: name of the shapes; elements: the store's images and shapes.
    unclear_patient: why `patient` is empty, where it is.
    """

    chooses_image: ClassVar[bool] = True

    store: Path
    table: Path
    region: str
    elements: Any = dataclasses.field(repr=False, compare=False)
    unclear_patient: str = ""

    def _measured(self, where: str, problems: list[Problem]) -> measured.Measured:
        if not self.patient:
            raise InputError(self.unclear_patient)
        data = anndata_files.read(self.table, needs_places=False)
        data = data[_of_region(data.obs, self.table, self.region)]
        shapes = self.elements.shapes[self.region]
        key = str(_attributes(self.table)["instance_key"])
        at = shapes.index.astype(str).get_indexer(
            list(map(str, anndata_obs.as_text(data.obs[key])))
        )
        if (at < 0).any():
            lost = [str(name) for name in data.obs_names[at < 0]]
            problems.append(
                Problem(
                    "warning",
                    where,
                    f"{len(lost)} of {len(at)} rows of table {self.table.name!r} have no shape in "
                    f"{self.region!r} ({named(lost, 3)}): left out.",
                )
            )
            data, at = data[at >= 0], at[at >= 0]
        if not len(at):
            raise InputError(f"no row of table {self.table.name!r} has a shape in {self.region!r}")
        shapes = shapes.iloc[at]
        centres, to_image = spatialdata_elements.xy(shapes), np.eye(3)
        if self.image is not None:
            to_image = spatialdata_elements.to_image(
                self.elements, self.region, self._image_name(), centres
            )
        data = data.copy()
        data.obsm["spatial"] = spatialdata_elements.moved(centres, to_image)
        bins = _BIN.search(self.region) or _BIN.search(self.table.name)
        size = spatialdata_elements.scale(to_image) * spatialdata_elements.diameter(shapes)
        is_visium = (zarr_images.zarr_attributes(self.store) or {}).get("spatialdata_io_reader")
        scales = previews.ScaleFactors(
            spot_diameter_px=size if is_visium == "visium" else None,
            shrunk={},
            bin_um=float(bins[1]) if bins else None,
            mpp=None,
        )
        spots = h5ad.measured_of(
            data,
            scales,
            where=where,
            problems=problems,
            file=self.table,
            stated=StatedScale(
                spatialdata_elements.stated_mpp(self.elements, self._image_name()),
                "from the image's transformation to microns",
            ),
        )
        copies = spatialdata_elements.shrunk_copies(self.elements, self.region, to_image)
        return dataclasses.replace(spots, shrunk=copies)

    def _image_name(self) -> str | None:
        """Name of `image` in the store; None where it is outside it, or there is none."""
        if self.image is None or self.image.parent.resolve() != (self.store / "images").resolve():
            return None
        return self.image.name


def _store_and_table(path: Path) -> tuple[Path, Path | None] | None:
    """The store that a path is or is in, and the table that it is (None for the store itself)."""
    if not path.is_dir():
        return None
    attributes = zarr_images.zarr_attributes(path)
    if attributes is None:
        return None
    if attributes.get("spatialdata-encoding-type") == "ngff:regions_table":
        return (path.parent.parent, path) if path.parent.name in _TABLES else None
    if {"encoding-type", "ome", "multiscales"} & set(attributes):
        return None
    has_parts = any((path / name).is_dir() for name in (*_TABLES, "shapes", "images"))
    return (path, None) if has_parts else None


def _attributes(table: Path) -> dict[str, Any]:
    return zarr_images.zarr_attributes(table) or {}


def _of_region(obs: Any, table: Path, region: str) -> np.ndarray:
    attributes = _attributes(table)
    return anndata_obs.as_text(obs[attributes["region_key"]]) == region


def _regions(
    store: Path, elements: SpatialData, asked: Path | None
) -> tuple[list[tuple[Path, str]], list[Problem]]:
    """(table, region) of each section, with one size of bins; and notes on what is left out."""
    folders = [folder for name in _TABLES if (folder := store / name).is_dir()]
    tables = [asked] if asked else [t for f in folders for t in sorted(f.iterdir()) if t.is_dir()]
    of_shapes, passed = [], []
    for table in tables:
        attributes = _attributes(table)
        regions = attributes.get("region")
        regions = [regions] if isinstance(regions, str) else list(regions or [])
        if attributes.get("encoding-type") != "anndata":
            continue
        if _is_prediction(table):
            passed.append(f"{table.name!r} holds predictions")
            continue
        shapes = [region for region in regions if region in elements.shapes]
        if any(_CELLS.search(name) for name in (table.name, *shapes)):
            passed.append(f"{table.name!r} holds cells, not spots or bins")
            continue
        if not shapes:
            passed.append(f"{table.name!r} belongs to no shapes ({named(regions, 3) or 'nothing'})")
        of_shapes += [(table, region) for region in shapes]
    if not of_shapes:
        raise InputError(
            f"{str(store)!r} has no table of spots: {'; '.join(passed) or 'it has no table'}. A "
            "table whose region are shapes (circles or polygons of spots or bins) is needed"
        )
    problems = [Problem("note", store.name, f"table {text}: not read.") for text in passed]
    of_section: dict[str, list[tuple[Path, str]]] = {}
    for table, region in of_shapes:
        of_section.setdefault(_BIN.sub("", region), []).append((table, region))
    chosen = []
    for name, group in of_section.items():
        pair, more = _one_size(store, name, group)
        chosen.append(pair)
        problems += more
    return chosen, problems


def _one_size(
    store: Path, name: str, group: list[tuple[Path, str]]
) -> tuple[tuple[Path, str], list[Problem]]:
    if len(group) == 1:
        return group[0], []
    by_um = {int(m[1]): pair for pair in group if (m := _BIN.search(pair[1]))}
    if len(by_um) < len(group):
        names = [str(table) for table, _ in group]
        raise InputError(
            f"{str(store)!r} has {len(group)} tables of the same shapes {group[0][1]!r}: "
            f"{named(names)}; pass one of them"
        )
    size = visium_hd.bin_um_to_read(by_um)
    others = named([str(table) for um, (table, _) in sorted(by_um.items()) if um != size], 3)
    text = f"bins of {size} um are read ({by_um[size][0].name})."
    return by_um[size], [Problem("note", store.name, text, f"To read others, pass {others}.")]


def _is_prediction(table: Path) -> bool:
    """Whether a table was added to a store by `predict --spatialdata`."""
    return any(
        (table / "var" / "unit" / name).exists() for name in (".zarray", ".zgroup", "zarr.json")
    )


def _image(
    store: Path, elements: SpatialData, region: str, section: str
) -> tuple[Path | None, list[Problem]]:
    """The finest image, previews aside, that shares a coordinate system with a region."""
    scale_of = {
        name: spatialdata_elements.scale(spatialdata_elements.affine(elements, region, name))
        for name in sorted(elements.images)
        if not zarr_images.is_preview(name)
        and spatialdata_elements.shared_systems(elements, region, name)
    }
    finest = [name for name, scale in scale_of.items() if scale > 0.99 * max(scale_of.values())]
    if len(finest) > 1:
        return None, [
            Problem(
                "error",
                f"section {section}",
                f"{len(finest)} images of one scale go with shapes {region!r}: {named(finest)}.",
                f"Name the H&E with `image` {store / 'images' / finest[0]}, or in the table "
                "sections.csv.",
            )
        ]
    return (store / "images" / finest[0] if finest else None), []

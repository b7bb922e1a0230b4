"""Slides that are named together: files, folders, patterns, and tables that list them.

    slide,mpp,patient,spots,regions,tissue
    scans/a.svs,,P1,,a.geojson,
    scans/b.tif,0.5,P2,b_spots.csv,,

Of a table's columns only `slide` is needed; an empty cell leaves a file's own microns per pixel, an
unknown patient, a grid, the whole slide, tissue to be found. Paths start at the table's folder, and
may be written as on Windows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
from collections.abc import Sequence
from pathlib import Path

from histospace_tf.data_pipelines import patients, slides, text_tables
from histospace_tf.data_pipelines.readers import table_cells
from histospace_tf.data_pipelines.readers.images import image_name, list_images
from histospace_tf.data_pipelines.slides import zarr_images
from histospace_tf.vocabulary import InputError, named

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
FILES = ("spots", "regions", "tissue")  # columns that name a file of a slide
COLUMNS = ("slide", "mpp", "patient", *FILES)
_ALSO = {"slide": ("slide_id", "image", "path", "file"), "patient": patients.COLUMNS[1:]}


@dataclasses.dataclass(frozen=True)
class ListedSlide:
    """A slide, and what a table says of it.

    name: of its outputs: its file's name without the suffix, below the folder that was named.
    mpp: microns per pixel; None: those that the file states.
    patient: "" where nothing names one.
    spots: a table of places; None: a grid.
    regions: that were drawn on it; None: nothing is said.
    tissue: its outline; None: nothing is said.
    why_not: why it cannot be predicted; "" where nothing is known against it.
    """

    name: str
    path: Path
    mpp: float | None = None
    patient: str = ""
    spots: Path | None = None
    regions: Path | None = None
    tissue: Path | None = None
    why_not: str = ""

    def mpp_or(self, given: float | None) -> float | None:
        """Microns per pixel to take: the table's; None, where the file states its own; `given`."""
        if self.mpp is not None or given is None:
            return self.mpp
        with contextlib.suppress(InputError):  # a scale that cannot be one, or no image
            if slides.stated_mpp(self.path) is not None:
                return None
        return given


def is_one_slide(path: Path) -> bool:
    """Whether a path names a single slide: no folder of slides, no table of them, no pattern."""
    if path.is_dir():
        return zarr_images.is_zarr(path)
    return path.suffix.lower() not in TABLE_SUFFIXES and (path.exists() or not _is_pattern(path))


def listed(paths: Sequence[Path]) -> tuple[ListedSlide, ...]:
    """The slides that paths name, in their order, each file once.

    Slides whose outputs would have one name are all listed with that as `why_not`.

    Args:
        paths: slides; folders, which are searched with all folders below them (other files in them
            are passed over); patterns, such as "scans/*.svs"; tables, .csv or .tsv.
    Raises:
        InputError: a path that does not exist, a pattern without a match, a folder without slides,
            a table that cannot be read; or no slide at all.
    """
    every: dict[Path | str, ListedSlide] = {}
    for path in paths:
        for slide in _named_by(path):
            key = slide.name if slide.why_not else slide.path.resolve()
            before = every.setdefault(key, slide)
            if _stated(before) != _stated(slide):
                why = f"slide {str(slide.path)!r} is listed twice, not alike; one row each works"
                every[key] = dataclasses.replace(before, why_not=why)
    if not every:
        raise InputError("no slide is named")
    by_name: dict[str, list[ListedSlide]] = {}
    for slide in every.values():
        by_name.setdefault(slide.name, []).append(slide)
    return tuple(_without_twin(slide, by_name[slide.name]) for slide in every.values())


def _stated(slide: ListedSlide) -> tuple[object, ...]:
    return slide.mpp, slide.patient, *(getattr(slide, column) for column in FILES)


def _named_by(path: Path) -> list[ListedSlide]:
    if is_one_slide(path):
        if not path.exists():
            raise InputError(f"slide {str(path)!r} does not exist")
        return [ListedSlide(image_name(path), path)]
    if path.is_dir():
        images = [image.path for image in list_images(path)]
        return [ListedSlide(_below(path, image), image) for image in images]
    if path.exists():
        return _rows(path)
    if not _is_pattern(path):
        raise InputError(f"table of slides {str(path)!r} does not exist")
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    matches = [match for match in matches if match.suffix.lower() not in TABLE_SUFFIXES]
    if not matches:
        raise InputError(f"no slide matches {str(path)!r}")
    return [slide for match in matches for slide in _named_by(match)]


def _is_pattern(path: Path) -> bool:
    return any(mark in str(path) for mark in "*?[")


def _below(folder: Path, image: Path) -> str:
    return (image.relative_to(folder).parent / image_name(image)).as_posix()


def _rows(path: Path) -> list[ListedSlide]:
    """The slides of a table; of a row that cannot be used, `why_not` says why."""
    table = text_tables.read_table(path, "table of slides")
    found = {name: table.column(name, *_ALSO.get(name, ())) for name in COLUMNS}
    columns = {name: column for name, column in found.items() if column is not None}
    if "slide" not in columns:
        raise InputError(
            f"table of slides {str(path)!r} has no column 'slide'; its columns are "
            f"{named(table.columns)}. slide is needed, {', '.join(COLUMNS[1:])} may stand there"
        )
    cells = {name: table.texts(column) for name, column in columns.items()}
    rows = [{name: cells[name][i].strip() for name in cells} for i in range(len(table))]
    return [_row(path.parent, row, table.at(i)) for i, row in enumerate(rows)]


def _row(folder: Path, row: dict[str, str], where: str) -> ListedSlide:
    cell = row["slide"]
    path = table_cells.place(folder, cell)
    name = image_name(path) if cell else where
    slide = ListedSlide(name, path, patient=patients.stated(row.get("patient", "")) or "")
    if not cell:
        return dataclasses.replace(slide, why_not=f"{where}: no slide is named")
    if not path.exists():
        return dataclasses.replace(slide, why_not=f"{where}: slide {cell!r} does not exist")
    try:
        mpp = table_cells.mpp(patients.stated(row.get("mpp", "")) or "", where)
    except InputError as error:
        return dataclasses.replace(slide, why_not=str(error))
    slide = dataclasses.replace(slide, mpp=mpp)
    files: dict[str, Path] = {}
    for column in FILES:
        if (stated := patients.stated(row.get(column, ""))) is None:
            continue
        file = table_cells.place(folder, stated)
        if not file.is_file():
            why = f"{where}: {column} {stated!r} do not exist"
            return dataclasses.replace(slide, why_not=why)
        files[column] = file
    spots, regions, tissue = (files.get(name) for name in FILES)
    return dataclasses.replace(slide, spots=spots, regions=regions, tissue=tissue)


def _without_twin(slide: ListedSlide, alike: Sequence[ListedSlide]) -> ListedSlide:
    """The slide, refused where another has its name."""
    others = [str(other.path) for other in alike if other.path != slide.path]
    if not others or slide.why_not:
        return slide
    why = (
        f"its outputs would be named {slide.name!r} as those of {others[0]!r}; rename one, or "
        "predict them apart"
    )
    return dataclasses.replace(slide, why_not=why)

"""The layout of a table sections.csv, which lists runs and files anywhere as one data set.

    section,path,image,patient,mpp
    A1,visium/A1/outs,scans/A1.tif,A,
    B1,b1.h5ad,scans/B1.svs,B,0.5

section and path are needed:

    path             a run of Space Ranger, a folder of Visium HD bins, or AnnData
    image            its full-resolution image; found beside it where the cell is empty
    patient          what a split keeps together
    mpp              microns per pixel, where the data do not state them
    section_column   column of AnnData's obs whose values are sections

Paths start at the table's folder, and may be written as on Windows. The table may have any dialect
of `text_records`; case in column names is ignored.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from histospace_tf.data_pipelines import patients, text_tables
from histospace_tf.data_pipelines.genes.lists import nearest_names
from histospace_tf.data_pipelines.readers import h5ad, run_folder, table_cells
from histospace_tf.data_pipelines.readers.sources import Source, unnamed_patients
from histospace_tf.data_pipelines.slides import zarr_images
from histospace_tf.vocabulary import InputError, Problem, named, repeats

LOOKS_FOR = "a sections.csv with columns section and path"
FILE = "sections.csv"
_NAME = re.compile(r"sections\.(csv|tsv|txt|xlsx?|ods)(\.(gz|txt))?", re.IGNORECASE)
_NEEDED = ("section", "path")
_KNOWN = (*_NEEDED, "image", "patient", "mpp", "section_column")
_ALSO = {"patient": patients.COLUMNS[1:]}
# Other names of columns -> the column that is probably meant; only a hint in messages.
_MEANT = {
    **dict.fromkeys(("sample", "sample_id", "id", "name", "library_id", "section_id"), "section"),
    **dict.fromkeys(("case", "case_id", "individual", "mouse", "animal"), "patient"),
    **dict.fromkeys(("folder", "file", "run", "data", "outs"), "path"),
    **dict.fromkeys(("slide", "he", "tif", "tiff", "wsi", "image_path"), "image"),
    **dict.fromkeys(("um_per_px", "microns_per_pixel", "pixel_size", "resolution"), "mpp"),
}
_KINDS = (*run_folder.RUNS, *run_folder.FILES)


def recognises(folder: Path) -> bool:
    """Whether a folder holds such a table."""
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    """Tables of sections in a folder, under any name; a workbook is refused when it is read."""
    if not folder.is_dir():
        return []
    return [file for file in sorted(folder.iterdir()) if _NAME.fullmatch(file.name)]


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds the sections of all rows; rows that cannot be used are errors.

    Raises:
        InputError: the file is not a table, lacks a column, has an unknown one, or names a section
            twice; or some rows name a patient and others do not.
    """
    files = _files(folder)
    if len(files) != 1:
        raise InputError(
            f"folder {str(folder)!r} holds {len(files)} tables of sections "
            f"({named([file.name for file in files])}); keep one, called {FILE}"
        )
    table = text_tables.read_table(files[0], "table")
    rows = _rows(table)
    sources: list[Source] = []
    unnamed: dict[str, int] = {}
    problems = [Problem("note", FILE, f"{note}.") for note in table.notes]
    for number, row in enumerate(rows):
        try:
            source, more, has_patient = _source(folder, row)
        except InputError as error:
            problems.append(Problem("error", f"section {row['section']}", str(error)))
            continue
        twin = next((other.name for other in sources if _is_same(other, source)), None)
        if twin is not None:
            fault = f"section {source.name}: it is the data of section {twin!r} again."
            problems.append(Problem("error", FILE, fault, "Leave one of them out."))
            continue
        if not has_patient:
            unnamed[source.name] = table.lines[number]
        sources.append(source)
        problems += more
    if sources and unnamed and len(unnamed) < len(sources):
        name, line = next(iter(unnamed.items()))
        raise InputError(
            f"table {str(table.path)!r}, line {line}: section {name!r} names no patient, and "
            f"{len(sources) - len(unnamed)} of {len(sources)} sections do. It may be of any of "
            "them, so fill the cell in, with a name of its own where the patient is another one"
        )
    problems += unnamed_patients(FILE, [(name, "") for name in unnamed])
    return sources, problems


def _rows(table: text_tables.TextTable) -> list[dict[str, str]]:
    """The cells of every row by column, one of _KNOWN."""
    columns = {
        name: column
        for name in _KNOWN
        if (column := table.column(name, *_ALSO.get(name, ()))) is not None
    }
    lacking = [name for name in _NEEDED if name not in columns]
    unknown = [name for name in table.columns if name not in columns.values()]
    if unknown or lacking:
        # What stands there under another name comes first: it is the likelier mistake.
        name = unknown[0] if unknown else ""
        meant = _MEANT.get(text_tables.folded(name))
        near = [meant] if meant else nearest_names(name, _KNOWN, 1)
        hint = f"; did you mean {near[0]!r} by {name!r}?" if near and near[0] not in columns else ""
        fault = f"an unknown column {named(unknown)}" if name else "a column without a name"
        fault = f"no column {named(lacking)}" if lacking else fault
        raise InputError(
            f"table {str(table.path)!r} has {fault}{hint}; section and path are needed, image, "
            "patient, mpp and section_column may stand there"
        )
    cells = {name: table.texts(column) for name, column in columns.items()}
    for name in ("image", "mpp", "section_column"):
        if name in cells:
            cells[name] = [patients.stated(cell) or "" for cell in cells[name]]  # NA of R
    rows = [{name: cells[name][i] for name in cells} for i in range(len(table))]
    names = [row["section"] for row in rows]
    if "" in names:
        raise InputError(f"{table.at(names.index(''))}: no section is named")
    twice = repeats(names)
    if twice:
        raise InputError(
            f"table {str(table.path)!r} names section {twice[0]!r} twice; one row each works"
        )
    return rows


def _is_same(one: Source, other: Source) -> bool:
    """Whether two sources are the same spots, whatever their names."""
    return type(one) is type(other) and one == dataclasses.replace(
        other, name=one.name, patient=one.patient, image=one.image, mpp=one.mpp
    )


def _source(folder: Path, row: Mapping[str, str]) -> tuple[Source, list[Problem], bool]:
    """The section of a row, problems, and whether the row or its data name a patient."""
    name, path = row["section"], table_cells.place(folder, row["path"])
    if not row["path"] or not path.exists():
        raise InputError(f"{FILE} names path {row['path']!r}, which does not exist")
    kind = next((kind for kind in _KINDS if kind.recognises(path)), None)
    if kind is None:
        raise InputError(
            f"{FILE} names path {row['path']!r}, which is nothing known here: "
            + "; or ".join(kind.LOOKS_FOR for kind in _KINDS)
        )
    column = row.get("section_column") or None
    if column is not None and kind is not h5ad:
        raise InputError(
            f"{FILE} names section_column {column!r}, but {row['path']!r} is no AnnData"
        )
    candidates, problems = (
        kind.find_sections(path)
        if column is None
        else h5ad.find_sections(path, section_column=column)
    )
    if len(candidates) > 1:
        candidates = [source for source in candidates if source.name == name]
        if not candidates:
            raise InputError(f"{row['path']!r} holds several sections, and none is named {name!r}")
    image = table_cells.place(folder, row["image"]) if row.get("image") else None
    if image is not None:
        if not image.is_file() and not zarr_images.is_zarr(image):
            raise InputError(f"{FILE} names image {row['image']!r}, which does not exist")
        # An image that is named settles which of several beside a run is meant.
        problems = [problem for problem in problems if problem.severity != "error"]
    patient = patients.stated(row.get("patient", "")) or (
        None if candidates[0].patient == candidates[0].name else candidates[0].patient
    )
    source = dataclasses.replace(
        candidates[0],
        name=name,
        patient=name if patient is None else patient,  # "": several, refused when read
        image=image or candidates[0].image,
        mpp=table_cells.mpp(row.get("mpp", ""), FILE),
    )
    if isinstance(source, h5ad.H5adSection):
        source = dataclasses.replace(source, key=source.key or candidates[0].name)
    renamed = [dataclasses.replace(problem, where=f"section {name}") for problem in problems]
    return source, renamed, patient is not None

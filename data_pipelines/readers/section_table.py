"""A table sections.csv that lists runs and files of any place as one data set.

    section,path,image,patient,mpp
    A1,visium/A1/outs,scans/A1.tif,A,
    B1,b1.h5ad,scans/B1.svs,B,0.5

section and path are needed. path: a run of Space Ranger, a folder of Visium HD bins, or
AnnData; image: its full-resolution image, found beside it where the cell is empty; patient: what a
split keeps together; mpp: microns per pixel, where the data do not tell; section_column: the column
of AnnData's obs whose values are sections. Paths start at the table's folder.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from histospace_tf.data_pipelines.readers import h5ad, visium, visium_hd
from histospace_tf.data_pipelines.readers.sources import Source, unnamed_patients
from histospace_tf.vocabulary import InputError, Problem, named, repeats

LOOKS_FOR = "a sections.csv with columns section and path"
FILE = "sections.csv"
_NEEDED = ("section", "path")
_KNOWN = (*_NEEDED, "image", "patient", "mpp", "section_column")
_KINDS = (visium_hd, visium, h5ad)


def recognises(folder: Path) -> bool:
    """Whether a folder holds such a table."""
    return (folder / FILE).is_file()


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """The sections of all rows; rows that cannot be used are errors.

    Raises:
        InputError: the table lacks a column, has an unknown one, or names a section twice.
    """
    rows = _rows(folder / FILE)
    sources: list[Source] = []
    problems = []
    for row in rows:
        try:
            source, more = _source(folder, row)
        except InputError as error:
            problems.append(Problem("error", f"section {row['section']}", str(error)))
            continue
        sources.append(source)
        problems += more
    if not any(row.get("patient") for row in rows):
        problems += unnamed_patients(FILE, [(row["section"], "") for row in rows])
    return sources, problems


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise InputError(f"table {str(path)!r} cannot be read ({error})") from None
    table.columns = [str(name).strip() for name in table.columns]
    lacking = [name for name in _NEEDED if name not in table]
    unknown = [name for name in table.columns if name not in _KNOWN]
    if lacking or unknown:
        fault = f"no column {named(lacking)}" if lacking else f"an unknown column {named(unknown)}"
        raise InputError(
            f"table {str(path)!r} has {fault}; section and path are needed, image, patient, mpp "
            "and section_column may stand there"
        )
    rows = [
        {str(name): str(value).strip() for name, value in row.items()}
        for row in table.to_dict("records")
    ]
    names = [row["section"] for row in rows]
    if not all(names):
        raise InputError(f"table {str(path)!r}, line {names.index('') + 2}: no section is named")
    twice = repeats(names)
    if twice:
        raise InputError(
            f"table {str(path)!r} names section {twice[0]!r} twice; one row each works"
        )
    return rows


def _source(folder: Path, row: dict[str, str]) -> tuple[Source, list[Problem]]:
    name, path = row["section"], folder / row["path"]
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
    found, problems = (
        kind.find_sections(path)
        if column is None
        else h5ad.find_sections(path, section_column=column)
    )
    if len(found) > 1:
        found = [source for source in found if source.name == name]
        if not found:
            raise InputError(f"{row['path']!r} holds several sections, and none is named {name!r}")
    image = folder / row["image"] if row.get("image") else None
    if image is not None:
        if not image.is_file():
            raise InputError(f"{FILE} names image {row['image']!r}, which does not exist")
        # An image that is named settles which of several beside a run is meant.
        problems = [problem for problem in problems if problem.severity != "error"]
    source = dataclasses.replace(
        found[0],
        name=name,
        patient=row.get("patient")
        or (name if found[0].patient == found[0].name else found[0].patient),
        image=image or found[0].image,
        mpp=_mpp(row.get("mpp", "")),
    )
    if isinstance(source, h5ad.H5adSection):
        source = dataclasses.replace(source, key=source.key or found[0].name)
    renamed = [dataclasses.replace(problem, where=f"section {name}") for problem in problems]
    return source, renamed


def _mpp(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 < value < 100:
        raise InputError(f"{FILE} has mpp {text!r}; microns per pixel, such as 0.5, are needed")
    return value

"""The layout of ST-Net's release (Mendeley Data 29ntw7sh4r): one flat folder, and a table of it.

    metadata.csv                      a row a section: type, patient, replicate, histology_image,
                                      spot_coordinates, count_matrix, tumor_annotation
    HE_BT23209_C1.jpg                 full-resolution H&E
    spots_BT23209_C1.csv.gz           index "XxY", columns X, Y: pixel column and row
    BC23209_C1_stdata.tsv.gz          spots x Ensembl ids, index "XxY", the whole array

File names are taken from the table alone, because their prefixes (BT, BC) are not consistent. The
tumour annotation is not read. Written from a description of the release and tried on files made
after it, not on the release itself.

Source of the data: He et al., Nature Biomedical Engineering 4:827-834, 2020.
"""

from __future__ import annotations

import csv
from pathlib import Path

from histospace_tf.data_pipelines.readers.legacy_st import SectionFiles
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem, named, repeats

ABSENT_IS_ZERO = True  # the releases leave out what a section has no counts of
CITATION = (
    "ST-Net's breast cancer sections, legacy Spatial Transcriptomics: He et al., Nature Biomedical "
    "Engineering 4:827-834, 2020; Mendeley Data 29ntw7sh4r."
)
LOOKS_FOR = "a metadata.csv with columns patient, spot_coordinates and count_matrix"
_NEEDED = ("patient", "replicate", "histology_image", "spot_coordinates", "count_matrix")


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    table = folder / "metadata.csv"
    if not table.is_file():
        return False
    try:
        with table.open(encoding="utf-8-sig") as lines:
            header = lines.readline()
    except (OSError, UnicodeDecodeError):
        return False
    return all(name in header for name in ("patient", "spot_coordinates", "count_matrix"))


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """The files of every section in metadata.csv; sections are named PATIENT_REPLICATE.

    Raises:
        InputError: metadata.csv lacks a column, or names a section twice.
    """
    with (folder / "metadata.csv").open(encoding="utf-8-sig", newline=None) as lines:
        rows = list(csv.DictReader(lines))
    lacking = [name for name in _NEEDED if rows and name not in rows[0]]
    if lacking:
        raise InputError(
            f"{str(folder / 'metadata.csv')!r} has no column {named(lacking)}; "
            f"{', '.join(_NEEDED)} are needed"
        )
    names = [f"{_cell(row, 'patient')}_{_cell(row, 'replicate')}" for row in rows]
    twice = repeats(names)
    if twice:
        raise InputError(
            f"{str(folder / 'metadata.csv')!r} names section {twice[0]!r} (patient and replicate) "
            "more than once; one row a section works"
        )
    sections: list[Source] = []
    problems = []
    for name, row in zip(names, rows, strict=True):
        missing = [
            f"{column} {_cell(row, column)!r}"
            for column in ("count_matrix", "spot_coordinates")
            if not _cell(row, column) or not (folder / _cell(row, column)).is_file()
        ]
        if missing:
            problems.append(
                Problem(
                    "warning",
                    f"section {name}",
                    f"metadata.csv names {' and '.join(missing)}, which is not in the folder: "
                    "section skipped.",
                    "Add the file, or correct its name in metadata.csv.",
                )
            )
            continue
        image = _cell(row, "histology_image")
        there = bool(image) and (folder / image).is_file()
        if image and not there:
            problems.append(
                Problem(
                    "note",
                    f"section {name}",
                    f"metadata.csv names histology_image {image!r}, which is not in the folder.",
                )
            )
        sections.append(
            SectionFiles(
                name=name,
                patient=_cell(row, "patient"),
                counts=folder / _cell(row, "count_matrix"),
                spots=folder / _cell(row, "spot_coordinates"),
                image=folder / image if there else None,
            )
        )
    return sections, problems


def _cell(row: dict[str, str], column: str) -> str:
    return (row[column] or "").strip()

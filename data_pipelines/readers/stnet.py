"""The layout of ST-Net's release (Mendeley Data 29ntw7sh4r): one flat folder, and a table of it.

    metadata.csv                      one row per section: type, patient, replicate,
                                      histology_image, spot_coordinates, count_matrix,
                                      tumor_annotation
    HE_BT23209_C1.jpg                 full-resolution H&E
    spots_BT23209_C1.csv.gz           index "XxY", columns X, Y: pixel column and row
    BC23209_C1_stdata.tsv.gz          spots x Ensembl ids, index "XxY", the whole array

File names are taken from the table alone, because their prefixes (BT, BC) are not consistent. The
tumour annotation is not read. Written from a description of the release and tried on files made
after it, not on the release itself.

Source of the data: He et al., Nature Biomedical Engineering 4:827-834, 2020.
"""

from __future__ import annotations

from pathlib import Path

from histospace_tf.data_pipelines import patients, text_tables
from histospace_tf.data_pipelines.readers.legacy_st import LegacySection
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem, named, repeats

ABSENT_IS_ZERO = True  # the releases leave out what a section has no counts of
CITATION = (
    "ST-Net's breast cancer sections, legacy Spatial Transcriptomics: He et al., Nature Biomedical "
    "Engineering 4:827-834, 2020; Mendeley Data 29ntw7sh4r."
)
LOOKS_FOR = "a metadata.csv with columns patient, spot_coordinates and count_matrix"
TABLE = "metadata.csv"
_NEEDED = ("patient", "replicate", "histology_image", "spot_coordinates", "count_matrix")
_MORE = ("tumor_annotation",)


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    if not (folder / TABLE).is_file():
        return False
    try:
        table = text_tables.read_table(folder / TABLE, "table")
    except InputError:  # another kind of file; reading says so where the layout is given
        return False
    return all(table.column(name) for name in ("patient", "spot_coordinates", "count_matrix"))


def metadata(folder: Path) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Reads the rows of metadata.csv by column, and notes on its text.

    A row's "section" is the section's name, PATIENT_REPLICATE.

    Raises:
        InputError: it is not a table, lacks a column, names no patient or replicate in a row, or a
            section twice.
    """
    table = text_tables.read_table(folder / TABLE, "table")
    columns = {name: table.column(name) for name in (*_NEEDED, *_MORE)}
    lacking = [name for name in _NEEDED if columns[name] is None]
    if lacking:
        raise InputError(
            f"{str(folder / TABLE)!r} has no column {named(lacking)}; {', '.join(_NEEDED)} are "
            "needed"
        )
    cells = {name: table.texts(column) for name, column in columns.items() if column is not None}
    rows = [{name: cells[name][i] for name in cells} for i in range(len(table))]
    for i, row in enumerate(rows):
        patient = patients.stated(row["patient"])
        if patient is None or not row["replicate"]:
            raise InputError(
                f"{table.at(i)}: patient {row['patient']!r}, replicate {row['replicate']!r}; both "
                "are needed, because sections of one patient must stay together"
            )
        row["section"] = f"{patient}_{row['replicate']}"
    twice = repeats([row["section"] for row in rows])
    if twice:
        raise InputError(
            f"{str(folder / TABLE)!r} names section {twice[0]!r} (patient and replicate) more than "
            "once; one row per section works"
        )
    return rows, table.notes


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds the files of every section in metadata.csv; sections are named PATIENT_REPLICATE.

    Raises:
        InputError: as `metadata`.
    """
    rows, notes = metadata(folder)
    problems = [Problem("note", TABLE, f"{note}.") for note in notes]
    sections: list[Source] = []
    for row in rows:
        name = row["section"]
        missing = [
            f"{column} {row[column]!r}"
            for column in ("count_matrix", "spot_coordinates")
            if not row[column] or not (folder / row[column]).is_file()
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
        image = row["histology_image"]
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
            LegacySection(
                name=name,
                patient=row["patient"],
                counts=folder / row["count_matrix"],
                spots=folder / row["spot_coordinates"],
                image=folder / image if there else None,
            )
        )
    return sections, problems

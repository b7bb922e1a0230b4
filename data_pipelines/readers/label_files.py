"""Reads a pathologist's labels of spots from the files of HER2ST and ST-Net.

    HER2ST    ST-pat/lbl/B1_labeled_coordinates.tsv   columns x, y, label ("invasive cancer", ...);
              its pixel_x and pixel_y belong to a smaller image and are not used
    ST-Net    metadata.csv's tumor_annotation         five columns: id, x, y, lab, "tumor" or "non",
              under four names, so that they are taken by position

In both, x and y are array coordinates of the place where the spot was really printed (9.004, 26.938
for spot 9x27). A label belongs to the nearest spot, at most half an array step away along either
axis: the array position that x and y round to. ST-Net's form is written from a description of the
release and tried on files made after it.

Sources of the data: Andersson et al., Nature Communications 12:6012, 2021; He et al., Nature
Biomedical Engineering 4:827-834, 2020.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.data_pipelines import text_records, text_tables
from histospace_tf.data_pipelines.readers import stnet
from histospace_tf.vocabulary import InputError, Problem, Section, named

# The label that clusters are matched to: cancer against everything else.
POSITIVE = {"her2st": "invasive cancer", "stnet": "tumor"}

_WHAT = "label file"
_NO_LABEL = ("", "na", "nan")
_STNET_COLUMNS = 5
_STNET_LABELS = ("tumor", "non")
_ARRAY_POSITION = re.compile(r"(\d+)x(\d+)")
_REACH = 0.5  # array steps, along either axis


@dataclasses.dataclass(frozen=True)
class SpotLabels:
    """Labels of one section.

    spots: names of the section's spots.
    labels: one per spot, in that order; "" where there is none.
    positive: the label that stands for cancer in this layout; None: every label counts.
    problems: labels without a spot, spots without a label, and the like.
    """

    spots: tuple[str, ...]
    labels: tuple[str, ...]
    positive: str | None
    problems: tuple[Problem, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a label file: (n, 2) array coordinates, nan where not given; n labels; notes."""

    array_xy: np.ndarray
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def label_file(data: Path, section: str, *, layout: str) -> Path | None:
    """Finds the file with a section's labels; None where the release has none.

    Args:
        data: the data set's folder; section: the section's name; layout: one of POSITIVE.
    Raises:
        InputError: an unknown layout, or ST-Net's metadata.csv names a file that is not there.
    """
    if layout not in POSITIVE:
        raise InputError(f"no labels are known for layout {layout!r}; {', '.join(POSITIVE)} work")
    if layout == "her2st":
        for name in (f"{section}_labeled_coordinates.tsv", f"{section}_labeled_coordinates.tsv.gz"):
            if (data / "ST-pat" / "lbl" / name).is_file():
                return data / "ST-pat" / "lbl" / name
        return None
    for row in stnet.metadata(data)[0]:
        if row["section"] == section:
            name = row.get("tumor_annotation", "")
            if name and not (data / name).is_file():
                raise InputError(
                    f"section {section!r}: metadata.csv names tumor_annotation {name!r}, which is "
                    "not in the folder; add the file, or leave its name out"
                )
            return data / name if name else None
    return None


def read_labels(data: Path, section: Section, *, layout: str) -> SpotLabels | None:
    """Reads the pathologist's label of every spot of a section; None where the release has none.

    Spots without a label, labels without a spot and two labels for one spot (the nearer one is
    taken) are named in the result's problems.

    Args:
        data: the data set's folder.
        section: one of its sections; spots are named "XxY" by their array positions.
        layout: one of POSITIVE.
    Raises:
        InputError: as `label_file`; the file is damaged, of another form or without labels; none of
            its labels lies at a spot; a spot is not named by its array position.
    """
    path = label_file(Path(data), section.name, layout=layout)
    if path is None:
        return None
    rows = _read_her2st(path) if layout == "her2st" else _read_stnet(path)
    labels, problems = _at_spots(rows, section, path)
    return SpotLabels(section.spots.names, labels, POSITIVE[layout], tuple(problems))


def _at_spots(rows: _Rows, section: Section, path: Path) -> tuple[tuple[str, ...], list[Problem]]:
    """Assigns labels to spots; those that fit no spot are named in problems."""
    spots = section.spots.names
    where = f"section {section.name}"
    problems = [Problem("note", where, f"{path.name}: {note}.") for note in rows.notes]
    usable = np.array([label != "" for label in rows.labels]) & ~np.isnan(rows.array_xy).any(axis=1)
    if not usable.all():
        problems.append(
            Problem(
                "note",
                where,
                f"{(~usable).sum()} of {len(usable)} rows of {path.name} have no coordinates or no "
                "label: skipped.",
            )
        )
    kept = np.flatnonzero(usable)
    distance, nearest = cKDTree(_array_positions(section)).query(rows.array_xy[kept], p=math.inf)
    at_spot = distance <= _REACH
    if not at_spot.any():
        raise InputError(
            f"section {section.name!r}: none of the {len(kept)} labels in {str(path)!r} lies at "
            f"one of its {len(spots)} spots ({named(spots, 3)}); x and y must be this section's "
            "array coordinates, column first"
        )
    if not at_spot.all():
        x, y = rows.array_xy[kept[int(np.argmin(at_spot))]]
        problems.append(
            Problem(
                "note",
                where,
                f"{(~at_spot).sum()} of {len(kept)} labels in {path.name} have no spot (first at "
                f"x {x:g}, y {y:g}): skipped.",
            )
        )
    labels = [""] * len(spots)
    twice = []
    for i in np.argsort(distance, kind="stable"):
        if at_spot[i] and labels[nearest[i]]:
            twice.append(spots[nearest[i]])
        elif at_spot[i]:
            labels[nearest[i]] = rows.labels[kept[i]]
    if twice:
        problems.append(
            Problem(
                "warning",
                where,
                f"{path.name} has more than one label for {len(twice)} spot(s) "
                f"({named(twice, 3)}): the nearest one is taken.",
            )
        )
    return tuple(labels), [*problems, *spots_without_label(section, labels, path.name)]


def spots_without_label(section: Section, labels: Sequence[str], source: str) -> list[Problem]:
    """A note on the spots of a section whose label is "".

    Args:
        section: of n spots; labels: n labels in their order.
        source: the file or column that they come from.
    """
    names = section.spots.names
    lacking = [name for name, label in zip(names, labels, strict=True) if not label]
    if not lacking:
        return []
    text = f"{len(lacking)} of {len(names)} spots have no label in {source} ({named(lacking, 3)})"
    where = f"section {section.name}"
    return [Problem("note", where, f"{text}: they count in no comparison with labels.")]


def _array_positions(section: Section) -> np.ndarray:
    """(n, 2) array column and row of a section's spots, from their names."""
    positions = []
    for name in section.spots.names:
        match = _ARRAY_POSITION.fullmatch(name)
        if match is None:
            raise InputError(
                f"section {section.name!r}: spot {name!r} is not named by its array position, such "
                'as "24x13", so labels cannot be placed'
            )
        positions.append((float(match[1]), float(match[2])))
    return np.array(positions)


def _read_her2st(path: Path) -> _Rows:
    table = text_tables.read_table(path, _WHAT)
    columns = {name: table.column(name) for name in ("x", "y", "label")}
    lacking = [name for name, column in columns.items() if column is None]
    if lacking:
        raise InputError(
            f"label file {str(path)!r} has no column {named(lacking)}; it has "
            f"{named(table.columns, 8)}, and x, y and label are needed"
        )
    at = [table.columns.index(column) for column in columns.values() if column is not None]
    rows = [tuple(row[i] for i in at) for row in table.cells]
    return _rows(path, table.lines, rows, table.notes)


def _read_stnet(path: Path) -> _Rows:
    records = text_records.read_records(path, _WHAT)
    for i, row in enumerate(records.cells[1:], start=1):
        if len(row) != _STNET_COLUMNS:
            raise InputError(
                f"{records.at(i)}: {len(row)} fields where {_STNET_COLUMNS} are needed; is the "
                "file cut off there?"
            )
    cells = [(row[1], row[2], row[4]) for row in records.cells[1:]]
    rows = _rows(path, records.lines[1:], cells, records.notes)
    other = sorted({label for label in rows.labels if label} - set(_STNET_LABELS))
    if other:
        raise InputError(
            f"label file {str(path)!r} has {named(other, 3)} in its fifth column; 'tumor' and "
            "'non' are known"
        )
    return rows


def _rows(
    path: Path, lines: Sequence[int], rows: Sequence[tuple[str, ...]], notes: tuple[str, ...]
) -> _Rows:
    """Converts cells of x, y and label."""
    places, labels = [], []
    for line, (x, y, label) in zip(lines, rows, strict=True):
        places.append([_coordinate(value, path, line) for value in (x, y)])
        labels.append("" if label.lower() in _NO_LABEL else label)
    if not any(labels):
        raise InputError(f"label file {str(path)!r} holds no labels")
    return _Rows(np.array(places), tuple(labels), notes)


def _coordinate(text: str, path: Path, line: int) -> float:
    """The number in a cell; nan for an empty one, as some rows of HER2ST have."""
    if text.lower() in _NO_LABEL:
        return math.nan
    value = text_tables.number(text, decimal=",")
    if value is None or math.isinf(value):
        raise InputError(f"label file {str(path)!r}, line {line}: {text!r} is not a coordinate")
    return value

"""A pathologist's labels of a section's spots, where a release has them.

    HER2ST    ST-pat/lbl/B1_labeled_coordinates.tsv   columns x, y, label ("invasive cancer", ...);
              its pixel_x and pixel_y belong to a smaller image and are not used
    ST-Net    metadata.csv's tumor_annotation         five columns: id, x, y, lab, "tumor" or "non",
              under four names, so that they are taken by position

In both, x and y are array coordinates moved to where the spot was really printed (9.004, 26.938 for
spot 9x27). A label goes to the nearest spot, at most half an array step away along either axis: the
array position that x and y round to. The line ends (LF, CR LF, CR) and the compression are seen
from the content. ST-Net's form is written from a description of the release and tried on files made
after it.

Sources of the data: Andersson et al., Nature Communications 12:6012, 2021; He et al., Nature
Biomedical Engineering 4:827-834, 2020.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.vocabulary import InputError, Problem, Section, named

# The label that clusters are matched to: cancer against everything else.
POSITIVE = {"her2st": "invasive cancer", "stnet": "tumor"}

_NO_LABEL = ("", "na", "nan")
_STNET_COLUMNS = 5
_STNET_LABELS = ("tumor", "non")
_ARRAY_POSITION = re.compile(r"(\d+)x(\d+)")
_REACH = 0.5  # array steps, along either axis


@dataclasses.dataclass(frozen=True)
class SpotLabels:
    """Labels of one section.

    spots: names of the section's spots.
    labels: one a spot, in that order; "" where there is none.
    positive: the label that stands for cancer in this layout.
    problems: labels without a spot, spots without a label, and the like.
    """

    spots: tuple[str, ...]
    labels: tuple[str, ...]
    positive: str
    problems: tuple[Problem, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """What a label file says: (n, 2) array coordinates, nan where not given, and n labels."""

    array_xy: np.ndarray
    labels: tuple[str, ...]


def label_file(data: Path, section: str, *, layout: str) -> Path | None:
    """The file that holds a section's labels; None where the release has none.

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
    with (data / "metadata.csv").open(encoding="utf-8-sig", newline=None) as lines:
        for row in csv.DictReader(lines):
            cell = {key: (value or "").strip() for key, value in row.items() if key is not None}
            if f"{cell['patient']}_{cell['replicate']}" == section:
                name = cell.get("tumor_annotation", "")
                if name and not (data / name).is_file():
                    raise InputError(
                        f"section {section!r}: metadata.csv names tumor_annotation {name!r}, which "
                        "is not in the folder; add the file, or leave its name out"
                    )
                return data / name if name else None
    return None


def read_labels(data: Path, section: Section, *, layout: str) -> SpotLabels | None:
    """The pathologist's label of every spot of a section; None where the release has none.

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
    """The label of each spot, and what did not fit."""
    spots = section.spots.names
    where = f"section {section.name}"
    problems: list[Problem] = []
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
    lacking = [spot for spot, label in zip(spots, labels, strict=True) if not label]
    if lacking:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(lacking)} of {len(spots)} spots have no label in {path.name} "
                f"({named(lacking, 3)}): they count in no comparison with labels.",
            )
        )
    return tuple(labels), problems


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
    header, *rows = _table(path)
    if rows and len(rows[0]) == len(header) + 1:  # written without a name for the index
        header = ["", *header]
    lacking = [name for name in ("x", "y", "label") if name not in header]
    if lacking:
        raise InputError(
            f"label file {str(path)!r} has no column {named(lacking)}; it has {named(header, 8)}, "
            "and x, y and label are needed"
        )
    return _rows(path, rows, len(header), tuple(header.index(n) for n in ("x", "y", "label")))


def _read_stnet(path: Path) -> _Rows:
    rows = _rows(path, _table(path)[1:], _STNET_COLUMNS, (1, 2, 4))
    other = sorted({label for label in rows.labels if label} - set(_STNET_LABELS))
    if other:
        raise InputError(
            f"label file {str(path)!r} has {named(other, 3)} in its fifth column; 'tumor' and "
            "'non' are known"
        )
    return rows


def _rows(path: Path, rows: list[list[str]], width: int, columns: tuple[int, ...]) -> _Rows:
    """Takes the columns of x, y and label out of a table's rows."""
    places, labels = [], []
    for number, row in enumerate(rows, start=2):
        if len(row) != width:
            raise InputError(
                f"label file {str(path)!r}, line {number}: {len(row)} fields where {width} are "
                "needed; is the file cut off there?"
            )
        x, y, label = (row[column] for column in columns)
        places.append([_coordinate(value, path, number) for value in (x, y)])
        labels.append("" if label.lower() in _NO_LABEL else label)
    if not any(labels):
        raise InputError(f"label file {str(path)!r} holds no labels")
    return _Rows(np.array(places), tuple(labels))


def _coordinate(text: str, path: Path, line: int) -> float:
    """A number; nan where the file gives none, as some rows of HER2ST do."""
    if text.lower() in _NO_LABEL:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise InputError(f"label file {str(path)!r}, line {line}: {text!r} is not a coordinate")
    return value


def _table(path: Path) -> list[list[str]]:
    """The fields of every line that is not blank, the header first."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"label file {str(path)!r} is truncated or damaged ({error}); copy it again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"label file {str(path)!r} cannot be read as text: {error}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"label file {str(path)!r} is empty")
    delimiter = "\t" if "\t" in lines[0] else ","
    return [[field.strip().strip('"') for field in line.split(delimiter)] for line in lines]

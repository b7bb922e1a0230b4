"""Text tables of legacy Spatial Transcriptomics: spots and counts, plain or gzipped.

The delimiter (tab or comma), the line ends (LF, CR LF or CR) and the compression are seen from the
content. Spots are named "XxY"; whole numbers are written without a point ("24.0x13.0" is "24x13").
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from scipy import sparse

from histospace_tf.vocabulary import InputError, named, repeats

_POSITION = re.compile(r"(\d+)(?:\.0*)?x(\d+)(?:\.0*)?")


@dataclasses.dataclass(frozen=True, eq=False)
class Spots:
    """A spot file.

    names: n names "XxY".
    array_xy: (n, 2) float64, position on the array, column first.
    pixel_xy: (n, 2) float64, full-resolution pixels, x first.
    unselected: how many more spots the file holds that are not selected.
    """

    names: tuple[str, ...]
    array_xy: np.ndarray
    pixel_xy: np.ndarray
    unselected: int


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """A count table, the wanted rows of it.

    names, matrix: the wanted rows that there are, in the file's order; (n, g) CSR float32.
    others: names of the other rows, whose values were not looked at.
    """

    names: tuple[str, ...]
    genes: tuple[str, ...]
    matrix: sparse.csr_matrix
    others: tuple[str, ...]


def read_spots(path: Path) -> Spots:
    """The selected spots of a file.

    Two forms: columns x, y, pixel_x, pixel_y and perhaps selected (0 or 1), as HER2ST has them; or
    an index "XxY" and columns X and Y (pixels), as ST-Net's release has them.

    Raises:
        InputError: the file is missing, damaged, of another form, without spots, names a spot
            twice, or a coordinate is not a number.
    """
    with _opened(path) as lines:
        header, delimiter = _header(path, lines)
        rows = [_fields(line, delimiter) for line in lines if line.strip()]
    if not rows:
        raise InputError(f"spot file {str(path)!r} holds no spots")
    if len(rows[0]) == len(header) + 1:  # written without a name for the index
        header = ["", *header]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(
                f"spot file {str(path)!r}, line {number}: {len(row)} fields under "
                f"{len(header)} column names"
            )
    at = {name: column for column, name in enumerate(header)}
    if {"x", "y", "pixel_x", "pixel_y"} <= at.keys():
        names = [f"{row[at['x']]}x{row[at['y']]}" for row in rows]
        pixel_columns = ("pixel_x", "pixel_y")
    elif {"X", "Y"} <= at.keys() and at["X"] > 0:
        names = [row[0] for row in rows]
        pixel_columns = ("X", "Y")
    else:
        raise InputError(
            f"spot file {str(path)!r} has columns {named(header)}; needed are x, y, pixel_x and "
            'pixel_y, or an index "XxY" with X and Y'
        )
    names = [_position(name, path) for name in names]
    twice = repeats(names)
    if twice:
        raise InputError(
            f"spot file {str(path)!r} names {len(twice)} spot(s) more than once (first: "
            f"{twice[0]!r}); keep one row a spot"
        )
    pixels = np.empty((len(rows), 2))
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        for j, column in enumerate(pixel_columns):
            pixels[i, j] = _number(row[at[column]], f"spot {name!r}, column {column}", path)
    keep = np.ones(len(rows), bool)
    if "selected" in at:
        flags = [
            _number(row[at["selected"]], f"spot {name!r}, column selected", path)
            for row, name in zip(rows, names, strict=True)
        ]
        keep = np.array(flags) != 0
    if not keep.any():
        raise InputError(
            f"spot file {str(path)!r}: none of its {len(rows)} spots is selected (column selected)"
        )
    kept = [name for name, k in zip(names, keep, strict=True) if k]
    return Spots(
        names=tuple(kept),
        array_xy=np.array([[float(v) for v in name.split("x")] for name in kept]),
        pixel_xy=pixels[keep],
        unselected=int((~keep).sum()),
    )


def read_counts(path: Path, *, wanted: Collection[str]) -> Counts:
    """A spots x genes table, one row at a time, so that memory holds counts above zero alone.

    The header has a name a gene, and perhaps one for the index before them.

    Args:
        path: the file.
        wanted: names of the rows to read; values of others are not looked at.
    Raises:
        InputError: the file is missing or damaged, a gene or spot stands twice, a row has too few
            or too many fields, or a count is not a number or negative; gene and spot are named.
    """
    wanted = set(wanted)
    names: list[str] = []
    others: list[str] = []
    columns, values, ends = [], [], [0]
    genes: list[str] | None = None
    with _opened(path) as lines:
        header, delimiter = _header(path, lines)
        for number, line in enumerate(lines, start=2):
            if not line.strip():
                continue
            first, _, rest = line.rstrip("\n").partition(delimiter)
            if genes is None:
                genes = _genes(path, header, 1 + rest.count(delimiter))
            name = _position(first.strip().strip('"'), path)
            if name not in wanted:
                others.append(name)
                continue
            row = _numbers(rest.split(delimiter), genes, path, name, number)
            found = np.flatnonzero(row)
            names.append(name)
            columns.append(found)
            values.append(row[found])
            ends.append(ends[-1] + len(found))
    if genes is None:
        raise InputError(f"count table {str(path)!r} holds no spots")
    twice = repeats([*names, *others])
    if twice:
        raise InputError(
            f"count table {str(path)!r} has {len(twice)} spot(s) more than once (first: "
            f"{twice[0]!r}); keep one row a spot"
        )
    matrix = sparse.csr_matrix(
        (
            np.concatenate(values) if values else np.zeros(0, np.float32),
            np.concatenate(columns) if columns else np.zeros(0, np.int64),
            np.array(ends),
        ),
        shape=(len(names), len(genes)),
        dtype=np.float32,
    )
    return Counts(tuple(names), tuple(genes), matrix, tuple(others))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The lines of a text file, gzipped or not; what goes wrong while reading names the file."""
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            content = gzip.GzipFile(fileobj=raw) if gzipped else raw
            # newline=None takes LF, CR LF and CR for line ends.
            with io.TextIOWrapper(content, encoding="utf-8-sig", newline=None) as lines:
                yield lines
    except FileNotFoundError:
        raise InputError(f"table {str(path)!r} does not exist") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"table {str(path)!r} is truncated or damaged ({error}); copy or download it again"
        ) from None
    except UnicodeDecodeError:
        raise InputError(
            f"table {str(path)!r} is no text; a tab- or comma-separated table works, plain or .gz"
        ) from None
    except OSError as error:
        raise InputError(f"table {str(path)!r} cannot be read: {error.strerror}") from None


def _header(path: Path, lines: TextIO) -> tuple[list[str], str]:
    first = lines.readline()
    if not first.strip():
        raise InputError(f"table {str(path)!r} is empty")
    delimiter = "\t" if "\t" in first else ","
    return _fields(first, delimiter), delimiter


def _fields(line: str, delimiter: str) -> list[str]:
    return [field.strip().strip('"') for field in line.rstrip("\n").split(delimiter)]


def _genes(path: Path, header: list[str], n_values: int) -> list[str]:
    """Gene names of a header above rows of `n_values` counts."""
    genes = header[1:] if len(header) == n_values + 1 else header
    if sum(_POSITION.fullmatch(name) is not None for name in genes) > len(genes) / 2:
        raise InputError(
            f"count table {str(path)!r} has spots as columns (first: {genes[0]!r}); rows must be "
            "spots and columns genes: transpose it"
        )
    twice = repeats(genes)
    if twice:
        raise InputError(
            f"count table {str(path)!r} has {len(twice)} gene(s) more than once (first: "
            f"{twice[0]!r}); keep or sum them into one column a gene"
        )
    if "" in genes:
        raise InputError(
            f"count table {str(path)!r}: column {genes.index('') + 2} has no gene name"
        )
    return genes


def _numbers(fields: list[str], genes: list[str], path: Path, spot: str, line: int) -> np.ndarray:
    """(g,) float32 counts of one row."""
    if len(fields) != len(genes):
        raise InputError(
            f"count table {str(path)!r}, line {line}, spot {spot!r}: {len(fields)} counts under "
            f"{len(genes)} gene names; is the file cut off there?"
        )
    try:
        row = np.array(fields, dtype=np.float32)
    except ValueError:
        row = np.array([_number_or_nan(field) for field in fields], np.float32)
    good = np.isfinite(row) & (row >= 0)
    if not good.all():
        bad = int(np.argmin(good))
        why = "is negative" if row[bad] < 0 else "is not a finite number"
        raise InputError(
            f"count table {str(path)!r}, spot {spot!r}, gene {genes[bad]!r}: "
            f"{fields[bad].strip()!r} {why}; raw counts of zero or more are needed"
        )
    return row


def _number_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _number(text: str, what: str, path: Path) -> float:
    value = _number_or_nan(text)
    if not np.isfinite(value):
        raise InputError(f"spot file {str(path)!r}, {what}: {text!r} is not a number")
    return value


def _position(text: str, path: Path) -> str:
    """A spot's name in its one form."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise InputError(
            f"table {str(path)!r}: {text!r} is not a spot's array position; "
            'column x row in whole numbers works, such as "24x13"'
        )
    return f"{int(match[1])}x{int(match[2])}"

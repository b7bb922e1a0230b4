"""Reads text tables of legacy Spatial Transcriptomics: spots and counts, plain or gzipped.

Tables may have any dialect of `text_records`. Spots are named "XxY" in whole numbers ("24.0x13.0"
is "24x13").
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
from scipy import sparse

from histospace_tf.data_pipelines import text_files, text_records, text_tables
from histospace_tf.vocabulary import InputError, named, repeats

_POSITION = re.compile(r"(\d+)(?:\.0*)?x(\d+)(?:\.0*)?")


@dataclasses.dataclass(frozen=True, eq=False)
class Spots:
    """Selected spots of a spot file.

    names: n names "XxY".
    array_xy: (n, 2) float64, position on the array, column first.
    pixel_xy: (n, 2) float64, full-resolution pixels, x first.
    unselected: number of spots in the file that are not selected.
    notes: what was guessed or left out in reading the file.
    """

    names: tuple[str, ...]
    array_xy: np.ndarray
    pixel_xy: np.ndarray
    unselected: int
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """The wanted rows of a count table.

    names, matrix: n wanted rows that the file has, in its order; (n, g) CSR float32.
    genes: g names. others: names of the other rows, whose values were not read.
    """

    names: tuple[str, ...]
    genes: tuple[str, ...]
    matrix: sparse.csr_matrix
    others: tuple[str, ...]


def read_spots(path: Path) -> Spots:
    """Reads the selected spots of a file.

    Two forms are known: columns x, y, pixel_x, pixel_y and perhaps selected (0 or 1), as in HER2ST;
    or an index "XxY" and columns X and Y (pixels), as in ST-Net's release.

    Raises:
        InputError: the file is missing, damaged, of another form, without spots, names a spot
            twice, or a coordinate is not a number.
    """
    table = text_tables.read_table(path, "spot file")
    if not len(table):
        raise InputError(f"spot file {str(path)!r} holds no spots")
    pixels = (table.column("pixel_x"), table.column("pixel_y"))
    places = (table.column("x"), table.column("y")) if all(pixels) else ()
    if all(pixels) and all(places):
        array = (table.texts(column) for column in places if column is not None)
        names = [f"{x}x{y}" for x, y in zip(*array, strict=True)]
    elif {"X", "Y"} <= set(table.columns) and (index := _index(table)) is not None:
        names, pixels = index, ("X", "Y")
    else:
        raise InputError(
            f"spot file {str(path)!r} has columns {named(table.columns)}; needed are x, y, pixel_x "
            'and pixel_y, or an index "XxY" with X and Y'
        )
    names = [_position(name, path) for name in names]
    twice = repeats(names)
    if twice:
        raise InputError(
            f"spot file {str(path)!r} names {len(twice)} spot(s) more than once (first: "
            f"{twice[0]!r}); keep one row per spot"
        )
    pixel_xy = table.numbers([column for column in pixels if column is not None])
    selected = table.column("selected")
    keep = np.ones(len(table), bool) if selected is None else table.flags(selected)
    if not keep.any():
        raise InputError(
            f"spot file {str(path)!r}: none of its {len(table)} spots is selected (column selected)"
        )
    kept = [name for name, k in zip(names, keep, strict=True) if k]
    return Spots(
        names=tuple(kept),
        array_xy=np.array([[float(v) for v in name.split("x")] for name in kept]),
        pixel_xy=pixel_xy[keep],
        unselected=int((~keep).sum()),
        notes=table.notes,
    )


def read_counts(path: Path, *, wanted: Collection[str]) -> Counts:
    """Reads a spots x genes table row by row, so that memory holds only counts above zero.

    The header has one name per gene, and perhaps one for the index before them.

    Args:
        path: the file.
        wanted: names of the rows to read.
    Raises:
        InputError: the file is missing or damaged, a gene or spot occurs twice, a row has too few
            or too many fields, or a count is not a whole number of zero or more; gene and spot are
            named.
    """
    wanted = set(wanted)
    names: list[str] = []
    others: list[str] = []
    columns, values, ends = [], [], [0]
    genes: list[str] | None = None
    lines = text_files.read_lines(path, "count table").lines
    start, stated = text_records.beginning(lines)
    if stated is None:
        stated = text_records.delimiter_of(lines[start:][:5], f"count table {str(path)!r}")
    delimiter = stated or "\t"
    header = [field.strip().strip('"') for field in lines[start].strip(" ").split(delimiter)]
    if len(header) > 1 and not header[-1]:
        header.pop()
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        if not line.strip(delimiter + " "):
            continue
        first, _, rest = line.strip(" ").removesuffix(delimiter).partition(delimiter)
        if genes is None:
            genes = _genes(path, header, 1 + rest.count(delimiter))
        name = _position(first.strip().strip('"'), path)
        if name not in wanted:
            others.append(name)
            continue
        fields = rest.replace('"', "").split(delimiter)
        row = _numbers(fields, genes, path, name, number)
        above_zero = np.flatnonzero(row)
        names.append(name)
        columns.append(above_zero)
        values.append(row[above_zero])
        ends.append(ends[-1] + len(above_zero))
    if genes is None:
        raise InputError(f"count table {str(path)!r} holds no spots")
    twice = repeats([*names, *others])
    if twice:
        raise InputError(
            f"count table {str(path)!r} has {len(twice)} spot(s) more than once (first: "
            f"{twice[0]!r}); keep one row per spot"
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


def _index(table: text_tables.TextTable) -> list[str] | None:
    """Row names: those without a column name, or the first column where that is not X."""
    if table.row_names is not None:
        return list(table.row_names)
    first = table.columns[0]
    return None if first in ("X", "Y") else table.texts(first)


def _genes(path: Path, header: list[str], n_values: int) -> list[str]:
    """Gene names of a header above rows of `n_values` counts."""
    genes = header[1:] if len(header) == n_values + 1 or not header[0] else header
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
        row = np.full(len(fields), np.nan, np.float32)
    if not np.isfinite(row).all() or "_" in "".join(fields):  # 1_0 is no 10
        values = [text_tables.number(field.strip()) for field in fields]
        row = np.array([np.nan if value is None else value for value in values], np.float32)
    good = np.isfinite(row) & (row >= 0)
    good[good] = row[good] % 1 == 0
    if not good.all():
        bad = int(np.argmin(good))
        why = "is not a finite number" if not np.isfinite(row[bad]) else "is not a whole number"
        why = "is negative" if row[bad] < 0 else why
        raise InputError(
            f"count table {str(path)!r}, spot {spot!r}, gene {genes[bad]!r}: "
            f"{fields[bad].strip()!r} {why}; raw counts of zero or more are needed"
        )
    return row


def _position(text: str, path: Path) -> str:
    """A spot's name in whole numbers, such as "24x13"."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise InputError(
            f"table {str(path)!r}: {text!r} is not a spot's array position; "
            'column x row in whole numbers works, such as "24x13"'
        )
    return f"{int(match[1])}x{int(match[2])}"

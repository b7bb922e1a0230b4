"""Reads positions of an array's spots, as Space Ranger, R and Seurat write them.

    tissue_positions.parquet, .csv    with a header: columns in any order
    tissue_positions_list.csv         without one: columns in Space Ranger's order

Files are recognised by their content: plain, gzipped or Parquet, under any name.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import text_files, text_records, text_tables
from histospace_tf.data_pipelines.spots import placement
from histospace_tf.vocabulary import InputError, named, repeats

_WHAT = "spot positions"
# Space Ranger's columns in its order -> their names there, in Seurat, and in older scripts.
_NAMES = {
    "barcode": ("barcode", "barcodes"),
    "in_tissue": ("in_tissue", "tissue"),
    "array_row": ("array_row", "row"),
    "array_col": ("array_col", "col"),
    "pxl_row_in_fullres": ("pxl_row_in_fullres", "imagerow"),
    "pxl_col_in_fullres": ("pxl_col_in_fullres", "imagecol"),
}
# Neighbouring rows of Visium are 0.87 of the pitch apart, columns 0.5: 3 where they are exchanged,
# 1.7 on a square array, 1 where all is right.
_EXCHANGED = 2.3
_FITS = 0.5  # of the pitch; where spots are farther from their fitted places the fit says nothing
_ROUNDING_PX = 1.0  # positions that differ by less are the same, written with fewer digits


@dataclasses.dataclass(frozen=True, eq=False)
class Positions:
    """Positions of all spots of an array.

    barcodes: n names; in_tissue: (n,) bool.
    array_xy: (n, 2) array column and row; pixel_xy: (n, 2) full-resolution pixels, x first.
    notes: what was guessed or left out in reading the file.
    """

    file: Path
    barcodes: tuple[str, ...]
    in_tissue: np.ndarray
    array_xy: np.ndarray
    pixel_xy: np.ndarray
    notes: tuple[str, ...] = ()


def agreeing_positions(files: Sequence[Path]) -> Positions:
    """Reads the positions of one run from the first of its files, if the other files agree.

    Args:
        files: position files of the run, the newest form first.
    Raises:
        InputError: as `read_positions`; or two of the files differ.
    """
    newest, *others = (read_positions(file) for file in files)
    for other in others:
        difference = _difference(newest, other)
        if difference:
            raise InputError(
                f"folder {str(newest.file.parent)!r} holds {newest.file.name} and "
                f"{other.file.name}, which differ: {difference}. Only one of them can belong to "
                "this run: move the other one away"
            )
    return newest


def recognises(path: Path, what: str = _WHAT) -> bool:
    """Whether a file holds spot positions, plain or gzipped, whatever its name.

    Args:
        path: the file; what: what messages call it.
    Raises:
        InputError: the file is damaged, or not a table.
    """
    if _parquet(path) is not None:
        return True
    records = text_records.read_records(path, what)
    header = list(map(text_tables.folded, records.cells[0]))
    if sum(any(name in header for name in names) for names in _NAMES.values()) >= 5:
        return True
    if all(text_tables.number(cell, decimal=",") is None for cell in records.cells[0]):
        return False  # names of other columns
    return len(header) == len(_NAMES) and _barcode_column(records.cells) is not None


def read_positions(path: Path) -> Positions:
    """Reads positions in any of the three forms, plain or gzipped, whatever the file's name.

    With a header, columns may be in any order and have Space Ranger's names or Seurat's; without
    one they must be in Space Ranger's order.

    Raises:
        InputError: the file is damaged, of another form, empty, names a barcode twice, or a
            coordinate is not a number.
    """
    parquet = _parquet(path)
    positions = _of_text(path) if parquet is None else _of_parquet(path, parquet)
    twice = repeats(positions.barcodes)
    if twice:
        raise InputError(
            f"{_WHAT} {str(path)!r} name {len(twice)} spot(s) more than once (first: "
            f"{twice[0]!r}); keep one row per spot"
        )
    if not positions.barcodes:
        raise InputError(f"{_WHAT} {str(path)!r} hold no spots")
    return positions


def _of_text(path: Path) -> Positions:
    records = text_records.read_records(path, _WHAT)
    if len(records.cells[0]) > len(_NAMES) and not any(row[-1] for row in records.cells):
        records = dataclasses.replace(records, cells=tuple(row[:-1] for row in records.cells))
    first = records.cells[0]
    known = {name for names in _NAMES.values() for name in names}
    has_header = bool(known & set(map(text_tables.folded, first)))
    if not has_header:
        is_standard = len(first) == len(_NAMES) and _barcode_column(records.cells) == 0
        if not is_standard or text_tables.flag(first[1]) is None:
            raise InputError(
                f"{records.at(0)}: {named(first, 7)}; without a header, the columns must be "
                f"{', '.join(_NAMES)}, in this order; a header settles any other order"
            )
        cells, lines = (tuple(_NAMES), *records.cells), (0, *records.lines)
        records = dataclasses.replace(records, cells=cells, lines=lines)
    table = text_tables.with_header(records)
    columns = {name: table.column(*names) for name, names in _NAMES.items()}
    barcodes = table.row_names  # R writes Seurat's coordinates so
    if columns["barcode"] is not None or barcodes is None:
        (column,) = _present(path, {"barcode": columns["barcode"]}, table.columns)
        barcodes = tuple(table.texts(column))
    del columns["barcode"]
    flag, *numbers = _present(path, columns, table.columns)
    row, col, pixel_row, pixel_col = table.numbers(numbers).T
    positions = _positions(path, barcodes, table.flags(flag), row, col, pixel_row, pixel_col)
    positions = dataclasses.replace(positions, notes=table.notes)
    _refuse_exchanged(positions, has_header=has_header)
    return positions


def _parquet(path: Path) -> bytes | None:
    """The content of a Parquet file, unpacked; None for another file or one that cannot be read."""
    try:
        content = text_files.read_bytes(path)
    except (InputError, OSError):  # the reader of text says what is wrong
        return None
    return content if content.startswith(b"PAR1") else None


def _of_parquet(path: Path, content: bytes) -> Positions:
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise InputError(
            f"{_WHAT} {str(path)!r} cannot be read ({str(error).splitlines()[0]}); copy or "
            "download them again"
        ) from None
    if table.index.name == "barcode":
        table = table.reset_index()
    own = {text_tables.folded(str(name)): str(name) for name in table.columns}
    columns = {
        name: next((own[other] for other in names if other in own), None)
        for name, names in _NAMES.items()
    }
    barcode, *others = _present(path, columns, list(map(str, table.columns)))
    barcodes = tuple(map(str, table[barcode]))
    values = [pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in others]
    for name, numbers in zip(others, values, strict=True):
        if not np.isfinite(numbers).all():
            bad = int(np.argmin(np.isfinite(numbers)))
            raise InputError(
                f"{_WHAT} {str(path)!r}, spot {barcodes[bad]!r}, {name}: "
                f"{table[name].iloc[bad]!r} is not a number"
            )
    return _positions(path, barcodes, values[0] != 0, *values[1:])


def _present(path: Path, columns: Mapping[str, str | None], own: Sequence[str]) -> tuple[str, ...]:
    """The columns of a file by needed name, refused where one is missing."""
    lacking = [name for name, column in columns.items() if column is None]
    if lacking:
        raise InputError(
            f"{_WHAT} {str(path)!r} lack {named(lacking, 6)}; they have columns {named(own, 7)}"
        )
    return tuple(column for column in columns.values() if column is not None)


def _positions(
    path: Path,
    barcodes: tuple[str, ...],
    in_tissue: np.ndarray,
    row: np.ndarray,
    col: np.ndarray,
    pixel_row: np.ndarray,
    pixel_col: np.ndarray,
) -> Positions:
    # The files name rows before columns; here x, the column, comes first.
    array_xy, pixel_xy = np.column_stack([col, row]), np.column_stack([pixel_col, pixel_row])
    return Positions(path, barcodes, in_tissue, array_xy, pixel_xy)


def _barcode_column(rows: Sequence[Sequence[str]]) -> int | None:
    """The only column without numbers; None where there is none or several."""
    width = min(map(len, rows))
    texts = [
        at
        for at in range(width)
        if not any(text_tables.number(row[at], decimal=",") is not None for row in rows)
        and any(text_tables.flag(row[at]) is None for row in rows)
    ]
    return texts[0] if len(texts) == 1 else None


def _refuse_exchanged(positions: Positions, *, has_header: bool) -> None:
    """Refuses rows in place of columns, as far as Visium's array shows it."""
    fit = placement.fit_array(
        positions.array_xy * (0.5, 0.75**0.5), positions.pixel_xy, pitch_um=1.0
    )
    if fit is None:
        return
    where, needed = f"{_WHAT} {str(positions.file)!r}", f"the columns must be {', '.join(_NAMES)}"
    along_x, along_y = fit.pitch_px
    if along_x / along_y > _EXCHANGED and np.median(fit.residual) < _FITS:
        raise InputError(
            f"{where}: array rows and columns look exchanged: neighbours would be "
            f"{along_x:.1f} px apart along array columns and {along_y:.1f} px along array rows; "
            f"without a header, {needed}"
        )
    if fit.transposed and not has_header:  # only the array distinguishes pixel rows from columns
        raise InputError(
            f"{where}: pixel rows and columns look exchanged: array rows run along the sixth "
            f"column, and array columns along the fifth. Without a header {needed}; if the image "
            "is mirrored and this is right, write that header"
        )


def _difference(one: Positions, other: Positions) -> str:
    """The first difference between two files of positions; "" where they agree."""
    place = {name: i for i, name in enumerate(other.barcodes)}
    alone = sorted(set(one.barcodes) ^ set(other.barcodes))
    if alone:
        return f"{len(alone)} spots stand in one alone (first: {alone[0]!r})"
    order = [place[name] for name in one.barcodes]
    far = np.abs(one.pixel_xy - other.pixel_xy[order]).max(axis=1)
    checks = (
        ("in_tissue", one.in_tissue, other.in_tissue[order], None),
        ("array positions", one.array_xy, other.array_xy[order], None),
        ("pixels", one.pixel_xy, other.pixel_xy[order], far > _ROUNDING_PX),
    )
    for what, mine, its, differs in checks:
        if differs is None:
            differs = (mine != its).reshape(len(order), -1).any(axis=1)
        if differs.any():
            i = int(np.argmax(differs))
            return (
                f"{what} of {differs.sum()} of {len(order)} spots, such as {one.barcodes[i]!r}: "
                f"{_shown(mine[i])} against {_shown(its[i])}"
            )
    return ""


def _shown(value: np.ndarray) -> str:
    return ", ".join(f"{float(number):g}" for number in np.atleast_1d(value))

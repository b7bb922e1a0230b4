"""Tables in text files, with columns by name.

Row names without a column name (R's write.table, pandas' index) are kept apart and never shift the
columns; a delimiter at the end of every line makes no column. Any other row that has more or fewer
fields than the header is refused with the number of its line. Cells are text, so that "007" and
"NA" stay as they are; `numbers` and `flags` convert them. `text_records` says which dialects are
read.
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histospace_tf.data_pipelines.text_records import Records, read_records, split_rows
from histospace_tf.vocabulary import InputError, named, repeats

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:[.,'\s][0-9]{3})+(?:[.,][0-9]*)?")
_EITHER = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # 1.234, or 1234 with its thousands apart
# A first field in quotes before one without: a name that R writes before numbers.
_QUOTED_ALONE = re.compile(r'\s*"[^"]*"\s*[\t;,| ]\s*[^"\s]')
_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n"), False),
}
# What programs write for a missing value, in lower case.
MISSING = frozenset(["", "na", "n/a", "nan", "none", "null", "<na>"])
# Columns that hold names: numbers under one of them show that a table's columns have shifted.
_OF_NAMES = ("spot", "name", "barcode", "section", "path", "patient", "image", "label", "gene")


@dataclasses.dataclass(frozen=True, eq=False)
class TextTable:
    """Rows under a header.

    columns: names as written; what, lines, cells: as in Records, every row as long as the header.
    row_names: of tables whose row names have no column name; else None.
    """

    path: Path
    what: str
    columns: tuple[str, ...]
    lines: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    row_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    def at(self, row: int) -> str:
        """The beginning of a message about a row."""
        return f"{self.what} {str(self.path)!r}, line {self.lines[row]}"

    def kept(self, keep: np.ndarray) -> TextTable:
        """The rows where the (n,) bool `keep` is True."""
        rows = [int(row) for row in np.flatnonzero(keep)]
        return dataclasses.replace(
            self,
            lines=tuple(self.lines[row] for row in rows),
            cells=tuple(self.cells[row] for row in rows),
            row_names=self.row_names and tuple(self.row_names[row] for row in rows),
        )

    def column(self, *names: str) -> str | None:
        """The column with one of these names, ignoring case, blanks and marks; None without one.

        Raises:
            InputError: several columns have one of these names.
        """
        wanted = {folded(name) for name in names}
        fitting = [name for name in self.columns if folded(name) in wanted]
        if len(fitting) > 1:
            raise InputError(
                f"{self.what} {str(self.path)!r} has {len(fitting)} columns for {names[0]!r}: "
                f"{named(fitting)}; leave or rename all but one"
            )
        return fitting[0] if fitting else None

    def texts(self, column: str) -> list[str]:
        """The cells of a column."""
        at = self.columns.index(column)
        return [row[at] for row in self.cells]

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """Converts columns that belong together; the decimal mark may be a point or a comma.

        Returns:
            (n, k) float64, in the order of `columns`.
        Raises:
            InputError: a cell is not a finite number, or can be read in two ways; line and column
                are named.
        """
        texts = [self.texts(column) for column in columns]
        decimal = self._decimal_mark(columns, texts)
        values = np.empty((len(self.cells), len(columns)))
        for j, (column, cells) in enumerate(zip(columns, texts, strict=True)):
            for i, cell in enumerate(cells):
                value = number(cell, decimal=decimal)
                if value is None or not math.isfinite(value):
                    raise InputError(f"{self.at(i)}, column {column}: {cell!r} {_why_none(cell)}")
                values[i, j] = value
        return values

    def _decimal_mark(self, columns: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
        with_comma = [
            (i, column, cell)
            for column, cells in zip(columns, texts, strict=True)
            for i, cell in enumerate(cells)
            if "," in cell and _NUMBER.fullmatch(cell)
        ]
        if not with_comma:
            return "."
        i, column, cell = with_comma[0]
        point = next(
            (c for cells in texts for c in cells if "." in c and _NUMBER.fullmatch(c)), None
        )
        if point is not None:
            raise InputError(
                f"{self.at(i)}, column {column}: {cell!r} has a comma and {point!r} a point; write "
                "all with one decimal mark, and thousands without any"
            )
        if all(_EITHER.fullmatch(cell) for _, _, cell in with_comma):
            raise InputError(
                f"{self.at(i)}, column {column}: {cell!r} may be {cell.replace(',', '.')} or "
                f"{cell.replace(',', '')}; write it with a decimal point, or without a comma"
            )
        return ","

    def flags(self, column: str) -> np.ndarray:
        """Converts 1 and 0, TRUE and FALSE, yes and no, or their first letters, to (n,) bool.

        Raises:
            InputError: a cell is none of these; its line is named.
        """
        cells = self.texts(column)
        values = [flag(cell) for cell in cells]
        if None in values:
            bad = values.index(None)
            raise InputError(
                f"{self.at(bad)}, column {column}: {cells[bad]!r} is neither yes nor no; 1 and 0, "
                "or TRUE and FALSE work"
            )
        return np.array(values, bool)


def read_table(path: Path, what: str) -> TextTable:
    """Reads a table whose first row names its columns.

    Args:
        path: the file; what: what messages call it ("spot table").
    Raises:
        InputError: as `read_records` and `with_header`.
    """
    return with_header(read_records(path, what))


def with_header(records: Records) -> TextTable:
    """Takes the first row of records for the column names.

    Raises:
        InputError: the first row holds numbers, or another row has more or fewer fields.
    """
    records = _commented_header(records)
    header, rows, lines = list(records.cells[0]), list(records.cells[1:]), records.lines[1:]
    if all(number(cell, decimal=",") is not None for cell in header if cell):
        raise InputError(
            f"{records.at(0)}: {' '.join(header[:6])!r} are numbers, not names of columns; write "
            "a first line that names them"
        )
    while len(header) > 1 and not header[-1] and not any(any(r[len(header) - 1 :]) for r in rows):
        header.pop()
    width = len(header)
    row_names: tuple[str, ...] | None = None
    if rows and all(len(row) == width + 1 for row in rows) and any(row[-1] for row in rows):
        _refuse_moved(records, header, rows)
        row_names, rows = tuple(row[0] for row in rows), [row[1:] for row in rows]
    for i, row in enumerate(rows):
        if len(row) != width and (len(row) < width or any(row[width:])):
            raise InputError(
                f"{records.at(i + 1)}: {len(row)} fields under {width} column names "
                f"({named(header, 6)}){_ragged_hint(records.delimiter, len(row), width)}"
            )
    rows = [row[:width] for row in rows]
    if width > 1 and row_names is None and folded(header[0]) in ("", "unnamed_0"):
        row_names, header = tuple(row[0] for row in rows), header[1:]
        rows = [row[1:] for row in rows]
    twice = repeats([name for name in header if name])
    if twice:
        raise InputError(
            f"{records.at(0)}: {len(twice)} column name(s) stand there more than once "
            f"(first: {twice[0]!r}); leave or rename all but one"
        )
    return TextTable(
        path=records.path,
        what=records.what,
        columns=tuple(header),
        lines=lines,
        cells=tuple(rows),
        row_names=row_names,
        notes=records.notes,
    )


def folded(name: str) -> str:
    """A column name without what programs change in it: case, blanks, brackets, points."""
    plain = unicodedata.normalize("NFKC", name).casefold().replace("â\u03bc", "u")
    return re.sub(r"[\W_]+", "_", plain.replace("\u03bc", "u")).strip("_")


def number(text: str, *, decimal: str = ".") -> float | None:
    """The number in a cell; None for other text, NaN and infinity."""
    if not _NUMBER.fullmatch(text) or ("," in text and decimal != ","):
        return None
    return float(text.replace(",", "."))


def flag(text: str) -> bool | None:
    """The truth value in a cell; None for other text."""
    known = _FLAGS.get(text.casefold())
    if known is None:
        value = number(text, decimal=",")
        return {1.0: True, 0.0: False}.get(value) if value is not None else None
    return known


def _commented_header(records: Records) -> Records:
    """Takes column names from a comment line above the first row, as np.savetxt writes them."""
    first = records.cells[0]
    if not records.above or all(number(cell, decimal=",") is None for cell in first):
        return records
    ((_, names),) = split_rows([records.above.removeprefix("#").strip()], records.delimiter)
    if len(names) != len(first) or not all(names):
        return records
    return dataclasses.replace(
        records, lines=(records.lines[0] - 1, *records.lines), cells=(names, *records.cells)
    )


def _refuse_moved(records: Records, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Refuses rows with one field more than the header, unless the first field can be row names."""
    first = [row[0] for row in rows]
    # R counts rows from 1. With commas it names this column, and 1,5 may be a number.
    may_count = records.delimiter != "," and (len(rows) > 2 or records.second.startswith('"'))
    counted = may_count and first == [str(i) for i in range(1, len(rows) + 1)]
    as_r_writes = counted or _QUOTED_ALONE.match(records.second) is not None
    has_number = any(number(cell, decimal=",") is not None for cell in first)
    then_numbers = all(
        number(row[1], decimal=",") is not None or flag(row[1]) is not None for row in rows
    )
    of_names = folded(header[0]) in _OF_NAMES
    if (
        repeats(first)
        or "" in first
        or (has_number and not as_r_writes)
        or (of_names and (then_numbers or not as_r_writes))  # numbers stand there for no name
        or not (as_r_writes or then_numbers)
    ):
        raise InputError(
            f"{records.at(1)}: {len(header) + 1} fields under {len(header)} column names "
            f"({named(header, 6)}), and {first[0]!r} is no row's name; name every column"
            f"{_ragged_hint(records.delimiter, len(header) + 1, len(header))}"
        )


def _ragged_hint(delimiter: str, fields: int, width: int) -> str:
    if delimiter == "," and fields > width:
        return "; a field with a comma inside, such as a decimal comma, needs quotes around it"
    return "; is the file cut off there?" if fields < width else ""


def _why_none(cell: str) -> str:
    if not cell:
        return "is empty; a number is needed"
    if cell.lower().lstrip("+-") in ("nan", "inf", "infinity", "na"):
        return "is not a finite number"
    if _GROUPED.fullmatch(cell):
        return "is not a number with thousands set apart; write it without these marks"
    return "is not a number"

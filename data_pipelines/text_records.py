"""Rows of text tables, in any dialect that a spreadsheet, R, QuPath or pandas writes.

The delimiter (tab, semicolon, comma, bar or blanks) is the one that gives every row as many fields
as the first; the file's name does not matter. Fields may be quoted, with delimiters and line ends
inside. Excel's line "sep=;", blank lines, rows of empty cells and lines that begin with "#" are
skipped.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from histospace_tf.data_pipelines import text_files
from histospace_tf.vocabulary import InputError

DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "blanks"}
_SAMPLE = 30  # rows that the delimiter is recognised by
_SEP_LINE = re.compile(r'\s*"?sep=(\\t|[\t;,| ])"?[\s;,]*', re.IGNORECASE)
_WORDS = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_EXCEL_TEXT = re.compile(r'="(.*)"')


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Rows of a file, the header among them.

    what: what messages call the file.
    delimiter: one of DELIMITERS; "" for one column.
    lines: number of the line that each row begins on, from 1.
    cells: fields of each row, stripped.
    above: the line above the first row, a comment or "".
    second: the line of the second row as written, with its quotes.
    notes: what was guessed or left out.
    """

    path: Path
    what: str
    delimiter: str
    lines: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    above: str = ""
    second: str = ""
    notes: tuple[str, ...] = ()

    def at(self, row: int) -> str:
        """The beginning of a message about a row."""
        return f"{self.what} {str(self.path)!r}, line {self.lines[row]}"


def read_records(path: Path, what: str) -> Records:
    """Reads the rows of a file, the header among them.

    Args:
        path: the file; what: what messages call it ("spot table").

    Raises:
        InputError: as `text_files.read_lines`; a quote that never ends; two delimiters that fit
            equally well.
    """
    file = text_files.read_lines(path, what)
    start, delimiter = beginning(file.lines)
    lines = file.lines[start:]
    where = f"{what} {str(path)!r}"
    if not any(_has_content(line) for line in lines):
        raise InputError(f"{where} is empty: it holds comments (#) alone")
    if delimiter is None:
        delimiter = delimiter_of(lines, where)
    numbers, cells, commented = [], [], []
    try:
        for at, row in split_rows(lines, delimiter):
            if lines[at].lstrip().startswith("#"):
                commented.append(start + at + 1)
            elif any(row):
                numbers.append(start + at + 1)
                cells.append(row)
    except csv.Error as error:
        line = numbers[-1] + 1 if numbers else start + 1
        raise InputError(f"{where}, from line {line} on: {error}; is a quote left open?") from None
    notes = [file.note] if file.note else []
    if commented:
        notes.append(
            f"{len(commented)} line(s) below the first row begin with # and are taken for comments "
            f"(first: line {commented[0]})"
        )
    return Records(
        path=path,
        what=what,
        delimiter=delimiter,
        lines=tuple(numbers),
        cells=tuple(cells),
        above=file.lines[start - 1].strip() if start else "",
        second=next((lines[n - 1 - start] for n in numbers[1:2]), ""),
        notes=tuple(notes),
    )


def delimiter_of(lines: Sequence[str], where: str) -> str:
    """Finds the delimiter that gives all rows as many fields as the first; "" for one column.

    Args:
        lines: of the table, the header first; where: the beginning of messages about the file.
    Raises:
        InputError: two delimiters fit equally well.
    """
    sample = [line for line in lines if _has_content(line)][:_SAMPLE]
    fields = {}
    for mark in DELIMITERS:
        try:
            widths = [len(row) for _, row in split_rows(sample, mark)]
            if max(widths) > 1:
                fields[mark] = widths
        except csv.Error:
            continue
    even = {mark: widths for mark, widths in fields.items() if _fit(widths)}
    if {mark for mark, widths in fields.items() if widths[0] > 1} | set(even) > {" "}:
        even.pop(" ", None)  # blanks stand within fields, too
    if even:
        most = max(widths[0] for widths in even.values())
        best = [mark for mark, widths in even.items() if widths[0] == most]
        if len(best) > 1:
            marks = " or ".join(DELIMITERS[mark] for mark in best)
            raise InputError(
                f"{where} can be read with {marks} between "
                f"its fields ({sample[0][:60]!r}); use one of them alone"
            )
        return best[0]
    fields = {mark: w for mark, w in fields.items() if w[0] > 1 and mark != " "}
    # The row that does not fit is named when rows are compared with the header.
    return max(
        fields, key=lambda mark: (fields[mark].count(fields[mark][0]), fields[mark][0]), default=""
    )


def split_rows(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields the line that each row begins on, from 0, and its fields.

    Raises:
        csv.Error: a quote does not end, or text follows its end within the field.
    """
    if delimiter == " ":
        for at, line in enumerate(lines):
            words = _WORDS.findall(line) if '"' in line else None
            yield (
                at,
                tuple([a.replace('""', '"') or b for a, b in words] if words else line.split()),
            )
    elif not any('"' in line for line in lines):
        for at, line in enumerate(lines):
            yield at, tuple(map(str.strip, line.split(delimiter) if delimiter else [line]))
    else:
        reader = csv.reader(
            (line + "\n" for line in lines),
            delimiter=delimiter or "\x1f",
            strict=True,
            skipinitialspace=delimiter != "\t",
        )
        at = 0
        for row in reader:
            yield at, tuple(_EXCEL_TEXT.sub(r"\1", cell.strip()) for cell in row)
            at = reader.line_num


def _fit(widths: Sequence[int]) -> bool:
    """Whether rows have a header's width, or one field more (a name, or a delimiter at the end)."""
    return set(widths[1:]) <= {widths[0]} or set(widths[1:]) <= {widths[0], widths[0] + 1}


def beginning(lines: Sequence[str]) -> tuple[int, str | None]:
    """Index of the first line that is neither blank nor a comment, and the delimiter that a line
    such as "sep=;" states (None without one)."""
    delimiter = None
    for at, line in enumerate(lines):
        stated = _SEP_LINE.fullmatch(line)
        if stated and delimiter is None:
            delimiter = stated[1].replace("\\t", "\t")
        elif _has_content(line):
            return at, delimiter
    return len(lines), delimiter


def _has_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")

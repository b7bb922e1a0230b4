"""Lists of genes that a user writes, and the nearest known names to a misspelt one."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from histospace_tf.data_pipelines import text_files, text_records, text_tables
from histospace_tf.vocabulary import InputError, named, repeats

# Names of a column of genes, as `text_tables.folded` leaves them.
_HEADERS = frozenset(
    [
        *("gene", "genes", "symbol", "symbols", "gene_symbol", "gene_name", "gene_names"),
        *("gene_id", "gene_ids", "ensembl", "ensembl_id", "hgnc_symbol", "hugo_symbol"),
        *("external_gene_name", "ensembl_gene_id", "feature", "feature_name"),
    ]
)
_DATE = re.compile(
    r"\d{1,2}-(MONTH)|(MONTH)-\d{1,2}|\d{4}-\d\d-\d\d".replace(
        "MONTH", "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
    ),
    re.IGNORECASE,
)


def read_gene_file(path: Path) -> tuple[str, ...]:
    """Reads gene names from a text file, in order; text behind a "#" is a comment.

    The file holds one gene per line, all genes in one line, or a table (any dialect of
    `text_records`) with a column gene, symbol or the like, or with one column beside row numbers.

    Raises:
        InputError: the file is missing, not text or empty; it has several columns and none is
            named for genes; it holds a gene twice, or numbers or dates where names are needed.
    """
    where = f"gene file {str(path)!r}"
    lines = text_files.read_lines(path, "gene file").lines
    bare = [line.partition("#")[0].rstrip() for line in lines]
    start, delimiter = text_records.beginning(bare)
    if start == len(bare):
        raise InputError(f"{where} names no gene; one a line is needed")
    if delimiter is None:
        delimiter = text_records.delimiter_of(bare[start:], where)
    try:
        rows = [
            (start + at + 1, cells)
            for at, cells in text_records.split_rows(bare[start:], delimiter)
            if any(cells)
        ]
    except csv.Error as error:
        raise InputError(f"{where}: {error}; is a quote left open?") from None
    genes = _genes(where, rows)
    for line, gene in genes:
        fault = _no_gene(gene)
        if fault:
            raise InputError(f"{where}, line {line}: {gene[:60]!r} {fault}")
    names = [gene for _, gene in genes]
    if not names:
        raise InputError(f"{where} names no gene; one a line is needed")
    repeated = repeats(names)
    if repeated:
        raise InputError(f"{where} holds {len(repeated)} gene(s) more than once: {named(repeated)}")
    return tuple(names)


def _genes(where: str, rows: Sequence[tuple[int, tuple[str, ...]]]) -> list[tuple[int, str]]:
    """(line, gene) of each gene, without a header."""
    line, first = rows[0]
    headed = [at for at, cell in enumerate(first) if text_tables.folded(cell) in _HEADERS]
    if len(rows) == 1 and not headed:  # all genes in one line
        return [(line, cell) for cell in first if cell]
    numbered = [] if headed else _numbered(rows)
    if numbered:
        return numbered
    body = rows[1:] if headed else rows
    if len(headed) > 1:
        raise InputError(
            f"{where} has {len(headed)} columns of genes ({named([first[at] for at in headed])}); "
            "one is needed"
        )
    widths = {len([cell for cell in cells if cell]) for _, cells in rows}
    at = headed[0] if headed else 0
    if headed and all(len(cells) == len(first) + 1 for _, cells in body):
        at += 1  # R's names of rows
    elif not headed and widths != {1}:
        bad = next((n, cells) for n, cells in rows if len([cell for cell in cells if cell]) != 1)
        raise InputError(
            f"{where}, line {bad[0]}: {' '.join(bad[1])[:60]!r} has several fields; one gene a "
            "line is needed, or a column named gene"
        )
    short = next((n for n, cells in body if len(cells) <= at or not cells[at]), None)
    if short is not None:
        raise InputError(f"{where}, line {short}: no gene stands there")
    return [(n, cells[at]) for n, cells in body]


def _numbered(rows: Sequence[tuple[int, tuple[str, ...]]]) -> list[tuple[int, str]]:
    """Genes beside their row numbers, as R and pandas write one column; [] for another form."""
    without = len(rows[0][1]) == 1 or rows[0][1][0] == ""  # a name above the genes, or none
    body = rows[1:] if without else rows
    numbers = [cells[0] for _, cells in body]
    counts = ([str(i + first) for i in range(len(body))] for first in (0, 1))
    if numbers in counts and all(len(cells) == 2 and cells[1] for _, cells in body):
        return [(line, cells[1]) for line, cells in body]
    return []


def _no_gene(name: str) -> str:
    """Why a text cannot be a gene's name; "" where it can."""
    if any(mark in name for mark in "\t,;|"):
        return "holds several names; one gene a line is needed"
    if name.isdigit():
        return "is a number, such as Entrez' ids are; symbols or Ensembl ids are needed"
    if _DATE.fullmatch(name):
        return "is a date: Excel makes them of SEPT2, MARCH1 and the like; write the gene's name"
    return ""


def nearest_names(name: str, known: Sequence[str], limit: int = 3) -> list[str]:
    """Known names most similar to `name`, best first, ignoring case."""
    by_lower = {other.lower(): other for other in reversed(known)}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=limit)
    return [by_lower[other] for other in near]

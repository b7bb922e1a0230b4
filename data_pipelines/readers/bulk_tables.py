"""Bulk expression of slides: a CSV or TSV with one row per slide and one column per gene.

Column "slide" names the image, with its suffix or without; a column of `patients.COLUMNS` names the
patient; every other column is a gene. Without a column of patients every slide is a patient of its
own. UNITS says what values may be. Whatever they are, a slide's values are scaled to one sum over
**all genes of the table** before anything is learned, so a table of a few genes tells only how they
share that sum.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from histospace_tf.data_pipelines import patients, text_tables
from histospace_tf.data_pipelines.readers.images import ImageFile
from histospace_tf.vocabulary import InputError, Problem, SpotTable, named, repeats

SLIDE_COLUMNS = ("slide", "slide_id", "image", "sample", "sample_id", "section")
_GENE_COLUMNS = ("gene", "genes", "gene_id", "gene_name", "gene_symbol", "symbol", "hugo_symbol")
# By unit, what turns its values into ones that can be summed.
UNITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "counts": lambda values: values,  # raw, whole numbers
    "linear": lambda values: values,  # TPM, FPKM, CPM, expected counts
    "log2": lambda values: np.exp2(values) - 1,  # of 1 + one of these
    "ln": np.expm1,
    "log10": lambda values: 10.0**values - 1,
}


@dataclasses.dataclass(frozen=True, eq=False)
class BulkTable:
    """Bulk expression of n slides.

    slides: one "spot" per slide, of linear values; its centres mean nothing.
    patients: (n,) names.
    problems: what was noticed on the way.
    """

    path: Path
    slides: SpotTable
    patients: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.slides)


def read(path: Path, *, unit: str) -> BulkTable:
    """Reads a table.

    Args:
        path: CSV or TSV, as `text_tables.read_table` reads it.
        unit: one of UNITS, of the values.
    Raises:
        InputError: no such file; no column of slides or no gene; genes in rows; a slide or a gene
            that comes twice; an empty patient; a value that is no number, negative, or, of
            "counts", not whole; a slide without any expression.
    """
    if unit not in UNITS:
        raise InputError(f"`bulk_unit` {unit!r}: one of {', '.join(UNITS)} works")
    if not path.is_file():
        raise InputError(f"bulk table {str(path)!r} does not exist")
    state = path.stat()
    return _read(path, unit, (state.st_ino, state.st_size, state.st_mtime_ns))


@functools.lru_cache(maxsize=2)  # refusals read it first, and such a table is large
def _read(path: Path, unit: str, state: tuple[int, int, int]) -> BulkTable:
    table = text_tables.read_table(path, "bulk table")
    where = f"bulk table {str(path)!r}"
    slide_column = table.column(*SLIDE_COLUMNS)
    if table.column(*_GENE_COLUMNS) is not None:
        raise InputError(
            f"{where} has a column {table.column(*_GENE_COLUMNS)!r}, so genes in rows; slides "
            "belong in rows and genes in columns: transpose it, and name the first column slide"
        )
    if slide_column is None and table.row_names is None:
        raise InputError(
            f"{where} has no column 'slide'; its columns begin with {named(table.columns, 3)}. One "
            "row per slide is needed, with the name of its image under slide, and a column per gene"
        )
    names = table.row_names or () if slide_column is None else table.texts(slide_column)
    names = tuple(" ".join(name.split()) for name in names)
    if not names:
        raise InputError(f"{where} has no row under its column names")
    if "" in names:
        raise InputError(f"{table.at(names.index(''))}: the slide's name is empty")
    if twice := repeats(names):
        rows = [i for i, name in enumerate(names) if name == twice[0]]
        raise InputError(
            f"{table.at(rows[1])}: slide {twice[0]!r} has a row already, in line "
            f"{table.lines[rows[0]]}; one row per slide is needed"
        )
    patient_column = table.column(*patients.COLUMNS)
    genes = tuple(name for name in table.columns if name not in (slide_column, patient_column))
    if not genes:
        raise InputError(f"{where} has no column of a gene")
    if "" in genes:
        raise InputError(f"{where}: a column between the genes has no name")
    values = _linear(table, names, genes, unit)
    who, problems = _patients(table, names, patient_column, where)
    return BulkTable(
        path,
        SpotTable(names, np.zeros((len(names), 2)), sparse.csr_matrix(values, dtype="f4"), genes),
        who,
        problems,
    )


def matched(
    table: BulkTable, images: Sequence[ImageFile]
) -> tuple[dict[str, Path], tuple[Problem, ...]]:
    """The image of every slide of a table, by its file's name, with its suffix or without.

    Args:
        images: of `images.list_images`.
    Returns:
        Slide -> image, in the order of the table; a warning of images that have no row.
    Raises:
        InputError: a slide without an image, or with several; or none matches, and genes are in
            rows.
    """
    by_name: dict[str, list[Path]] = {}
    for image in images:
        for name in dict.fromkeys((image.path.name, image.path.stem, _stem(image.path))):
            by_name.setdefault(name, []).append(image.path)
    where = f"bulk table {str(table.path)!r}"
    unknown = [name for name in table.slides.names if name not in by_name]
    if len(unknown) == len(table) and any(gene in by_name for gene in table.slides.genes):
        raise InputError(
            f"{where} has slides in columns and genes in rows; slides belong in rows: transpose it"
        )
    if unknown:
        raise InputError(
            f"{where}: no image is named as slide {named(unknown, 3)}; images are "
            f"{named([image.path.name for image in images], 3)}. A slide is named as its file, "
            "with the suffix or without; take rows of slides that are not there out of the table"
        )
    for name in table.slides.names:
        if len(by_name[name]) > 1:
            raise InputError(
                f"{where}: slide {name!r} may be {named([str(p) for p in by_name[name]], 3)}; "
                "images of different names are needed"
            )
    chosen = {name: by_name[name][0] for name in table.slides.names}
    shared = repeats([str(path) for path in chosen.values()])
    if shared:
        both = [name for name, path in chosen.items() if str(path) == shared[0]]
        raise InputError(f"{where}: slides {named(both)} are one image, {shared[0]!r}")
    left = [image.path.name for image in images if image.path not in chosen.values()]
    if not left:
        return chosen, ()
    note = f"{len(left)} of {len(images)} images have no row and are left out: {named(left, 3)}."
    return chosen, (Problem("warning", where, note),)


def _stem(path: Path) -> str:
    """A file's name without all that follows its first known suffix: a.ome.tif -> a."""
    return path.stem.removesuffix(".ome")


def _linear(
    table: text_tables.TextTable, names: Sequence[str], genes: Sequence[str], unit: str
) -> np.ndarray:
    """(n, g) values that can be summed."""
    values = table.numbers(genes)

    def refuse(bad: np.ndarray, why: str) -> None:
        if bad.any():
            slide, gene = np.argwhere(bad)[0]
            cell = table.texts(genes[gene])[slide]
            raise InputError(
                f"{table.at(int(slide))}: slide {names[slide]!r}, gene {genes[gene]!r} is "
                f"{cell}; {why}"
            )

    refuse(values < 0, "no expression is below zero; z scores and centred values do not work")
    if unit == "counts":
        why = "whole numbers are raw counts; `bulk_unit` says what others are"
        refuse(values != np.rint(values), f"{why}: {', '.join(list(UNITS)[1:])}")
    with np.errstate(over="ignore"):
        values = UNITS[unit](values)
    refuse(
        ~(values < np.finfo(np.float32).max), f"as `bulk_unit` {unit} that is beyond all numbers"
    )
    empty = np.flatnonzero(values.sum(axis=1) <= 0)
    if len(empty):
        raise InputError(f"{table.at(int(empty[0]))}: slide {names[empty[0]]!r} has no expression")
    return values


def _patients(
    table: text_tables.TextTable, names: Sequence[str], column: str | None, where: str
) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    if column is None:
        note = "no column 'patient': every slide is taken for a patient of its own."
        advice = "Where one has several, scores would be of slides that were half seen."
        return tuple(names), (Problem("warning", where, note, advice),)
    stated = [patients.stated(cell) for cell in table.texts(column)]
    if None in stated:
        row = stated.index(None)
        raise InputError(f"{table.at(row)}: slide {names[row]!r} has no patient")
    known = [name for name in stated if name is not None]
    same: Mapping[str, str] = patients.one_name_each(known)
    kept: dict[str, list[str]] = {}
    for other, first in same.items():
        kept.setdefault(first, []).append(other)
    problems = tuple(patients.joined_warning(one, rest, where) for one, rest in kept.items())
    return tuple(same.get(name, name) for name in known), problems

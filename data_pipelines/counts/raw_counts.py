"""Checks that every reader's counts pass: raw whole numbers of genes, identified by ids.

Kept are genes alone, of one genome (`gene_columns`), with counts that are whole numbers of zero or
more. Genes are identified by their ids wherever a file has them; Ensembl ids lose their versions.
What is left out is named in problems, and counts neither as a gene nor in library sizes.
`gene_axis` then gives every gene one name in all sections.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse

from histospace_tf.data_pipelines.counts import gene_columns, gene_identity
from histospace_tf.vocabulary import InputError, Problem, named, repeats

_MOST = 2**24  # whole numbers above it have no float32 of their own; no spot holds so many reads
_MISSING = {"nan", "none", "<na>", "null", "na"}  # of ids and kinds; "nan" is a gene of the fly
_MANY = 300  # genes a spot, on average: some of them have more than one count
_SPOT = re.compile(r"([ACGTN]{8,}(-\d+)?|s_\d{3}um_\d+_\d+(-\d+)?|\d+x\d+)")


class NoRawCounts(InputError):
    """Raised for values that are not raw counts; another layer may hold some.

    fault: which value is not a count, and where; advice: what it may be, and what would work.
    """

    def __init__(self, counts_from: str, fault: str, advice: str) -> None:
        super().__init__(f"{counts_from!r} holds no raw counts: {fault}. {advice}")
        self.fault, self.advice = fault, advice


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a file says about the columns of its counts.

    names: g symbols or ids. ids, kinds, genomes: g texts each, or () where the file has none.
    """

    names: Sequence[Any]
    ids: Sequence[Any] = ()
    kinds: Sequence[Any] = ()
    genomes: Sequence[Any] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class GeneCounts:
    """Gene counts that passed all checks.

    counts: (n, g) CSR float32, whole numbers.
    genes: g unique names; where a name stood for several genes, the second is NAME-1, and so on.
    gene_ids: g ids, "" for a gene without one; () where none has one.
    """

    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    problems: tuple[Problem, ...]

    def with_problems(self, *more: Problem) -> GeneCounts:
        """The same counts with more problems."""
        return dataclasses.replace(self, problems=(*self.problems, *more))


def gene_counts(
    where: str, counts_from: str, spots: Sequence[str], counts: Any, features: Features
) -> GeneCounts:
    """Checks the counts of one section and keeps those of genes.

    Args:
        where: the section, for problems; counts_from: the file or layer, for messages.
        spots: n names; counts: (n, features), sparse or dense, of any numeric type.
    Raises:
        NoRawCounts: values that are not raw counts (`fault`).
        InputError: shapes that do not agree, spots as columns, no genes, or several genomes of
            which none has most counts.
    """
    names = _texts(features.names)
    ids, kinds, genome = (
        ["" if text.casefold() in _MISSING else text for text in _texts(of)] or [""] * len(names)
        for of in (features.ids, features.kinds, features.genomes)
    )
    counts = _csr(counts)
    if counts.shape != (len(spots), len(names)) or not len(ids) == len(kinds) == len(names):
        raise InputError(
            f"{counts_from!r}: {counts.shape[0]} x {counts.shape[1]} counts for {len(spots)} spots "
            f"and {len(names)} features"
        )
    if names and sum(bool(_SPOT.fullmatch(name)) for name in names) > len(names) / 2:
        raise InputError(
            f"{counts_from!r} has spots as columns (first: {names[0]!r}); rows must be spots and "
            "columns genes: transpose it"
        )
    columns, problems = gene_columns.of_genes(
        where, counts_from, names, ids, kinds, _totals(counts)
    )
    absent = columns & _without_values(counts)
    if absent.any() and not (columns == absent).all():
        lost = [names[i] or ids[i] for i in np.flatnonzero(absent)]
        text = (
            f"{len(lost)} genes have NaN in every spot ({named(lost, 5)}): not measured, left out."
        )
        problems.append(Problem("warning", where, text))
        columns = columns & ~absent
    at = np.flatnonzero(columns)
    counts = counts if columns.all() else counts[:, at]
    wrong = fault(counts, spots, [names[i] or ids[i] for i in at])
    if wrong is not None:
        raise NoRawCounts(counts_from, *wrong)
    problems += _suspicious(where, counts)
    names, ids, genome = ([of[i] for i in at] for of in (names, ids, genome))
    kept, names, ids, more = gene_columns.of_one_genome(
        where, counts_from, names, ids, genome, _totals(counts)
    )
    problems += more
    if not kept.all():
        counts = counts[:, np.flatnonzero(kept)]
        names, ids = ([of[i] for i in np.flatnonzero(kept)] for of in (names, ids))
    names, ids, more = gene_identity.identified(where, names, ids)
    problems += more
    counts, names, ids, more = gene_identity.one_column_per_id(where, counts, names, ids)
    return GeneCounts(
        counts=sparse.csr_matrix(counts, dtype=np.float32),
        genes=tuple(map(str, make_index_unique(pd.Index(names)))) if repeats(names)
        else tuple(names),
        gene_ids=tuple(ids) if any(ids) else (),
        problems=(*problems, *more),
    )  # fmt: skip


def fault(counts: Any, spots: Sequence[str], genes: Sequence[str]) -> tuple[str, str] | None:
    """Why values are not raw counts, with the first spot and gene, and advice; None where they are.

    Whole numbers are counts, floats included. Negative, fractional and missing values are not, nor
    are numbers above 2**24 and booleans.

    Args:
        counts: (n, g), sparse or dense; spots, genes: n and g names.
    """
    table = _csr(counts)
    values = table.data
    if values.dtype.kind == "b":
        return "it says true or false, not how many", "The counts that it was made from work"
    if values.dtype.kind not in "iuf":
        return f"its values are of type {values.dtype}", "Numbers are needed"
    with np.errstate(invalid="ignore", over="ignore"):
        bad = ~((values >= 0) & (values <= _MOST) & (values % 1 == 0))
    if not bad.any():
        return None
    first = int(np.argmax(bad))
    spot = spots[int(np.searchsorted(table.indptr, first, side="right")) - 1]
    gene, value = genes[table.indices[first]], values[first]
    finite = values[np.isfinite(values)]
    largest = f"; the largest is {_number(finite.max())}" if len(finite) else ""
    return (
        f"spot {spot!r}, gene {gene!r} has {_number(value)} ({bad.sum()} of {len(values)} values "
        f"are no counts{largest})",
        _guess(value, finite),
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) and value % 1 == 0 else f"{value:.4g}"


def _guess(value: float, finite: np.ndarray) -> str:
    """What such a value may be, and what would work."""
    if not np.isfinite(value):
        return "A count that is missing is not zero: write the matrix again, without empty values"
    if value > _MOST:
        return "No spot holds so many reads; are they negative numbers in an unsigned type?"
    if (finite < 0).any():
        return "Counts are whole numbers of zero or more; scaled or centred values do not work"
    what = "normalised or logged values" if finite.max() < 20 else "corrected or normalised values"
    return (
        f"Counts are whole numbers; {what} do not work: give the matrix that the pipeline wrote, "
        "or corrected counts rounded to whole numbers"
    )


def _csr(counts: Any) -> sparse.csr_matrix:
    """As CSR, with the type of the values kept."""
    if not sparse.issparse(counts):
        counts = np.asarray(counts)
        if counts.dtype == object:
            raise InputError(f"counts of type {counts.dtype}; numbers are needed")
        if counts.dtype == np.float16:  # which sparse matrices do not have
            counts = counts.astype(np.float32)
    elif counts.format != "csr":
        counts = counts.tocsr()
    return sparse.csr_matrix(counts)


def _without_values(counts: sparse.csr_matrix) -> np.ndarray:
    """(g,) bool: columns that are NaN in every spot, as tables joined with gaps have them."""
    if counts.data.dtype.kind != "f" or not counts.shape[0]:
        return np.zeros(counts.shape[1], bool)
    missing = np.bincount(counts.indices[np.isnan(counts.data)], minlength=counts.shape[1])
    return missing == counts.shape[0]


def _totals(counts: sparse.csr_matrix) -> np.ndarray:
    """(g,) float64 sums of columns; values that are not finite count as zero."""
    values = np.nan_to_num(counts.data.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.bincount(counts.indices, weights=values, minlength=counts.shape[1])


def _texts(values: Sequence[Any]) -> list[str]:
    """Texts without surrounding blanks; "" for missing values."""
    texts = (
        value.decode(errors="replace") if isinstance(value, bytes) else value for value in values
    )
    return ["" if pd.isna(text) else str(text).strip() for text in texts]


def _suspicious(where: str, counts: sparse.csr_matrix) -> list[Problem]:
    """Warnings of whole numbers that are hardly raw counts: only ones, or one sum in every spot."""
    problems = []
    if counts.nnz >= _MANY * max(1, counts.shape[0]) and counts.data.max() == 1:
        problems.append(
            Problem(
                "warning",
                where,
                f"every count is 0 or 1, with {counts.nnz / counts.shape[0]:.0f} genes a spot: is "
                "it presence and absence?",
                "Raw counts are needed.",
            )
        )
    sums = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if len(sums) >= 10 and sums[0] >= _MANY and (sums == sums[0]).all():
        problems.append(
            Problem(
                "warning",
                where,
                f"the counts of each of {len(sums)} spots sum to {sums[0]:.0f}: were they made "
                "equal, and rounded?",
                "Raw counts are needed.",
            )
        )
    return problems

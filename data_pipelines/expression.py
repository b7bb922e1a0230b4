"""Counts -> expression: normalised and smoothed; `gene_panel` chooses genes and fits their scale.

The gene axis is the union over sections, by name: sections of one cohort call one gene by one name
(`counts.gene_axis`). A gene that a table lacks has zero counts there (legacy Spatial
Transcriptomics tables leave such genes out). So a gene without a table entry and a gene
with a column of zeros are the same thing here and in `gene_panel`.

Values are in the panel's unit: a spot's counts are divided by their sum over **all** genes of that
spot, multiplied by `target_sum`, and then log1p (natural logarithm of 1 + x) or log10(1 + x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from histospace_tf.vocabulary import NORMALISATIONS, InputError, SpotTable, named


def normalised(
    counts: sparse.csr_matrix, *, normalisation: str, target_sum: float
) -> sparse.csr_matrix:
    """Normalises counts to one library size over all genes, then takes the logarithm.

    Args:
        counts: (n, g) non-negative, every gene that was measured.
        normalisation: one of NORMALISATIONS.
        target_sum: sum that each spot's counts are scaled to.
    Returns:
        New (n, g) CSR float32; zeros stay zeros.
    Raises:
        InputError: a spot without counts (it has no library size), or an unknown normalisation.
    Source: the usual library-size normalisation, log(1 + target_sum * c_ij / sum_j c_ij).
    """
    if normalisation not in NORMALISATIONS:
        raise InputError(
            f"normalisation {normalisation!r}: one of {', '.join(NORMALISATIONS)} works"
        )
    if not (np.isfinite(target_sum) and target_sum > 0):
        raise InputError(f"target sum {target_sum!r}: a number above zero is needed")
    table = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    table.sum_duplicates()
    library = np.asarray(table.sum(axis=1)).ravel()
    if (library <= 0).any():
        first = int(np.argmax(library <= 0))
        raise InputError(
            f"{int((library <= 0).sum())} of {len(library)} spots have no counts (first: row "
            f"{first}); leave them out, their expression is unknown"
        )
    table.data *= np.repeat(target_sum / library, np.diff(table.indptr))
    np.log1p(table.data, out=table.data)
    if normalisation == "library_size_log10":
        table.data /= np.log(10.0)
    return table.astype(np.float32)


def targets(
    spots: SpotTable, genes: Sequence[str], *, normalisation: str, target_sum: float
) -> np.ndarray:
    """Expression of `genes` at every spot of one section.

    Returns:
        (n, len(genes)) float32 in the panel's unit; a gene that the table lacks is zero.
    Raises:
        InputError: a spot without counts, by name, or as `normalised`.
    """
    values = normalised_table(spots, normalisation, target_sum)
    return (values @ _selection(spots.genes, genes)).toarray().astype(np.float32)


def raw_counts(spots: SpotTable, genes: Sequence[str]) -> np.ndarray:
    """(n, len(genes)) float32 counts as measured; zero of a gene that the table lacks."""
    return (spots.counts @ _selection(spots.genes, genes)).toarray().astype(np.float32)


def counts_of(values: np.ndarray, *, normalisation: str) -> np.ndarray:
    """Values in the panel's unit as counts per `target_sum`: without the logarithm.

    Returns:
        New float64 array of the same shape; below zero, where no count can be, it is zero.
    """
    exact = np.asarray(values, np.float64)
    power = exact * np.log(10.0) if normalisation == "library_size_log10" else exact
    return np.maximum(np.expm1(power), 0.0)


def logged(counts: np.ndarray, *, normalisation: str) -> np.ndarray:
    """Counts per `target_sum` in the panel's unit: log1p, or log10 of 1 + x."""
    logs = np.log1p(np.asarray(counts, np.float64))
    return logs / np.log(10.0) if normalisation == "library_size_log10" else logs


def unit_of_logarithm(base: float, *, normalisation: str) -> float:
    """What turns log_base(1 + x) into the panel's unit: both are logarithms of the same numbers."""
    return math.log(base) / math.log(10.0 if normalisation == "library_size_log10" else math.e)


def smoothed(values: np.ndarray, centres_px: np.ndarray, *, radius_px: float) -> np.ndarray:
    """Averages every spot's values with those of the spots within a distance.

    Args:
        values: (n, g), one section.
        centres_px: (n, 2) full-resolution pixels, x first.
        radius_px: distance in the same pixels, inclusive; 0 changes nothing.
    Returns:
        New (n, g) float32.
    Raises:
        InputError: shapes that do not agree, a radius that is negative or not finite.
    """
    if not (np.isfinite(radius_px) and radius_px >= 0):
        raise InputError(f"smoothing radius {radius_px!r}: a distance of 0 or more is needed")
    if values.ndim != 2 or centres_px.shape != (len(values), 2):
        raise InputError(
            f"values of shape {values.shape} need as many centres, not {centres_px.shape}"
        )
    n = len(values)
    if radius_px == 0 or n == 0:
        return values.astype(np.float32)
    pairs = cKDTree(centres_px).query_pairs(radius_px, output_type="ndarray")
    rows = np.concatenate([np.arange(n), pairs[:, 0], pairs[:, 1]])
    cols = np.concatenate([np.arange(n), pairs[:, 1], pairs[:, 0]])
    near = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n))
    how_many = np.bincount(rows, minlength=n)[:, None]
    return ((near @ values.astype(np.float64)) / how_many).astype(np.float32)


def normalised_table(spots: SpotTable, normalisation: str, target_sum: float) -> sparse.csr_matrix:
    """`normalised` counts of one section.

    Returns:
        New (n, g) CSR float32, g genes of the table.
    Raises:
        InputError: spots without counts, by name, or as `normalised`.
    """
    library = np.asarray(spots.counts.sum(axis=1)).ravel()
    empty = [spots.names[at] for at in np.flatnonzero(library <= 0)]
    if empty:
        raise InputError(
            f"{len(empty)} of {len(spots)} spots have no counts: {named(empty)}; leave them out, "
            "their expression is unknown"
        )
    return normalised(spots.counts, normalisation=normalisation, target_sum=target_sum)


def _selection(have: Sequence[str], want: Sequence[str]) -> sparse.csr_matrix:
    """(len(have), len(want)) matrix of ones that selects columns; a missing gene has none."""
    column = {gene: at for at, gene in enumerate(have)}
    pairs = [(column[gene], at) for at, gene in enumerate(want) if gene in column]
    rows, cols = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    ones = np.ones(len(pairs), np.float32)
    return sparse.csr_matrix((ones, (rows, cols)), shape=(len(have), len(want)))

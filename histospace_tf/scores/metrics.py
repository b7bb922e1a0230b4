"""Scores of predicted against measured expression. Sums are in float64.

`predicted` and `measured` are (spots, genes) of **one section**, in the same unit. There are two
correlations, always shown together:

* `gene_r`: Pearson r over the spots of the section, gene by gene, then the mean over genes. A gene
  that is constant as measured is left out and counted; a constant prediction scores 0.
* `spot_r`: Pearson r over the genes, spot by spot, then the mean over spots, by the same rule. It
  is nearly all gene mean: a constant predictor scores 0.3 to 0.7.

"Constant" means a range within float32's rounding of the largest value (1e-6 of it), so that a
prediction which differs between spots only by rounding scores 0 and not the noise's r.
Where nothing is left to average, the score is NaN; rows for `scores.json` hold None instead.
Every function raises InputError where shapes differ or a value is not finite.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from histospace_tf.data_pipelines import expression
from histospace_tf.outputs import json_safe
from histospace_tf.vocabulary import InputError

_ROUNDING = 1e-6  # a few units in the last place of float32, relative

Row = dict[str, float | None]


def gene_r_each(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(g,) float64: Pearson r over spots of each gene.

    NaN where the measured gene is constant, 0 where only the prediction is.
    """
    predicted, measured = _checked_pair(predicted, measured)
    return _column_r(predicted, measured)


def spot_r_each(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n,) float64: Pearson r over genes of each spot; NaN and 0 as in `gene_r_each`."""
    predicted, measured = _checked_pair(predicted, measured)
    return _column_r(predicted.T, measured.T)


def gene_r(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean over genes of `gene_r_each`, constant measured genes left out."""
    return _mean_of_defined(gene_r_each(predicted, measured))


def spot_r(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean over spots of `spot_r_each`, spots that are constant as measured left out."""
    return _mean_of_defined(spot_r_each(predicted, measured))


def depth_r(values: np.ndarray, total_counts: np.ndarray) -> float:
    """Mean over genes of Spearman's r between a gene's values and the spots' total counts.

    Total counts say how much RNA a spot gave: cells, tissue, reagents, sequencing. They vary more
    than any gene's share of them, and darker, denser tissue gives more. Values that still follow
    them, as measured, let a model score by telling dense tissue from loose; a prediction that
    follows them more than the measured values do predicts depth and not genes. So this is shown
    beside every score, for the measured values and for predictions. Near 0 is what to hope for.
    Of ranks, so that it is the same for counts and for their logarithm.

    Args:
        values: (n, g) measured or predicted, of one section.
        total_counts: (n,) raw counts of a spot over all genes of its table.
    Returns:
        A gene with constant values scores 0; NaN where the totals are constant.
    Raises:
        InputError: shapes that do not agree.
    """
    totals = np.asarray(total_counts, np.float64)
    if totals.shape != np.shape(values)[:1]:
        raise InputError(f"values {np.shape(values)} need as many totals, not {totals.shape}")
    from scipy import stats  # not for --help

    ranks = stats.rankdata(totals)
    # Ranks of a constant's rounding errors would be noise.
    ranked = np.where(_is_constant(np.asarray(values)), 0.0, stats.rankdata(values, axis=0))
    return gene_r(ranked, np.broadcast_to(ranks[:, None], np.shape(values)))


class _Pair(NamedTuple):
    """A section's predicted and measured values, (n, g) float64, and their correlations."""

    predicted: np.ndarray
    measured: np.ndarray
    measured_smoothed: np.ndarray | None
    by_gene: np.ndarray
    by_spot: np.ndarray


def _smoothed(pair: _Pair) -> float | None:
    if pair.measured_smoothed is None:
        return None
    return gene_r(pair.predicted, pair.measured_smoothed)


@dataclasses.dataclass(frozen=True)
class Score:
    """A column of the tables of scores.

    of: a section's values -> the score.
    heading: in the terminal's table, at most 7 letters; label: in the report.
    """

    of: Callable[[_Pair], float | None]
    heading: str = ""
    label: str = ""


# By their keys in a row of scores.json, in its order.
SCORES = {
    "gene_r": Score(lambda pair: _mean_of_defined(pair.by_gene), "gene_r", "gene_r"),
    "gene_r_median": Score(lambda pair: _median_of_defined(pair.by_gene), "median", "median"),
    "spot_r": Score(lambda pair: _mean_of_defined(pair.by_spot), "spot_r", "spot_r"),
    # Over all spots and genes, in the unit (squared for mse).
    "mse": Score(lambda pair: _mean((pair.predicted - pair.measured) ** 2), "mse", "MSE"),
    "mae": Score(lambda pair: _mean(np.abs(pair.predicted - pair.measured)), "mae", "MAE"),
    # Against measured values with less counting noise.
    "gene_r_smoothed": Score(_smoothed, "smooth", "smoothed"),
    "constant_genes": Score(lambda pair: int(np.isnan(pair.by_gene).sum())),
    "constant_spots": Score(lambda pair: int(np.isnan(pair.by_spot).sum())),
}
# Those that tables show, in their order.
SHOWN = ("gene_r", "gene_r_median", "gene_r_smoothed", "spot_r", "mse", "mae")


def score_row(
    predicted: np.ndarray, measured: np.ndarray, *, measured_smoothed: np.ndarray | None = None
) -> Row:
    """One row of `scores.json`: every one of SCORES for one section, JSON-ready.

    Args:
        measured_smoothed: (n, g) measured, each spot averaged with its neighbours; without it
            `gene_r_smoothed` is None.
    """
    predicted, measured = _checked_pair(predicted, measured)
    each = gene_r_each(predicted, measured), spot_r_each(predicted, measured)
    pair = _Pair(predicted, measured, measured_smoothed, *each)
    return json_safe({key: score.of(pair) for key, score in SCORES.items()})


def mean_rows(rows: Sequence[Mapping[str, float | None]]) -> Row:
    """Mean of each score over the rows that have it (sections count alike); None where none has.

    Keys are those of SCORES; without rows, or with empty ones, the row is empty too.
    """
    filled = [row for row in rows if row]
    if not filled:
        return {}
    mean: dict[str, Any] = {}
    for key in SCORES:
        values = [value for row in filled if (value := row.get(key)) is not None]
        mean[key] = math.fsum(values) / len(values) if values else None
    return json_safe(mean)


def resampling_ceiling(
    counts: sparse.csr_matrix,
    columns: Sequence[int] | np.ndarray,
    *,
    normalisation: str,
    target_sum: float,
    seed: int,
    repeats: int = 5,
) -> Row:
    """The correlation that a perfect prediction would reach, given counting noise.

    Every count c is split into two halves, a ~ Binomial(c, 1/2) and c - a, whose noise is
    independent where counts are Poisson. Each half is normalised over all its genes. With r_half
    the Pearson r between the halves (mean over `repeats` splits):

        reliability at full depth   R = 2 r_half / (1 + r_half)    (Spearman-Brown)
        r of the truth with what was measured = sqrt(R)            (attenuation); R < 0 gives 0

    This is done gene by gene over spots (`gene_r`, `gene_r_median`), and spot by spot over genes
    (`spot_r`). A gene that is constant as measured is left out and counted, as for a model; one
    that is constant in a half only has r_half 0 there. A spot with an empty half sits that split
    out. Real variation between neighbouring spots counts as truth here, so a good image model may
    still stay far below this ceiling.

    Args:
        counts: (n, all genes) whole raw counts of one section; every spot has at least one.
        columns: the panel's columns in `counts`; -1 for a gene that the table lacks (zero).
        seed: decides the splits.
    Returns:
        A row of `scores.json`; scores that do not apply are None.
    Raises:
        InputError: counts that are not whole numbers, columns that do not exist, an empty spot.
    Source: Spearman, Am. J. Psychol. 15, 1904 (attenuation); Spearman and Brown, Br. J. Psychol. 3,
    1910 (doubled length); binomial thinning of Poisson counts gives independent Poisson halves.
    """
    table = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    table.sum_duplicates()
    columns = np.asarray(columns, np.intp)
    if columns.ndim != 1 or ((columns < -1) | (columns >= table.shape[1])).any():
        raise InputError(f"panel columns must be -1 or 0 to {table.shape[1] - 1}")
    if table.nnz and ((table.data < 0) | (table.data != np.rint(table.data))).any():
        raise InputError("the resampling ceiling needs raw counts: whole numbers, none negative")
    if repeats < 1:
        raise InputError(f"{repeats} repeats: at least 1 is needed")

    def unit(part: sparse.csr_matrix) -> np.ndarray:
        values = expression.normalised(part, normalisation=normalisation, target_sum=target_sum)
        chosen = values[:, np.maximum(columns, 0)].toarray().astype(np.float64)
        return chosen * (columns >= 0)

    measured = unit(table)
    constant_gene, constant_spot = _is_constant(measured), _is_constant(measured.T)
    random = np.random.default_rng(seed)
    gene_halves = np.zeros((repeats, measured.shape[1]))
    spot_halves = np.full((repeats, measured.shape[0]), np.nan)
    for at in range(repeats):
        first, second = table.copy(), table.copy()
        first.data = random.binomial(table.data.astype(np.int64), 0.5).astype(np.float64)
        second.data = table.data - first.data
        libraries = [np.asarray(half.sum(axis=1)).ravel() for half in (first, second)]
        full = (libraries[0] > 0) & (libraries[1] > 0)
        if not full.any():
            continue
        a, b = unit(first[full]), unit(second[full])
        gene_halves[at] = np.nan_to_num(_column_r(a, b))
        spot_halves[at, full] = np.nan_to_num(_column_r(a.T, b.T))
    by_gene = _truth_r(gene_halves.mean(axis=0))[~constant_gene]
    defined = ~constant_spot & ~np.isnan(spot_halves).all(axis=0)
    by_spot = _truth_r(np.nanmean(spot_halves[:, defined], axis=0))
    row: dict[str, Any] = dict.fromkeys(SCORES)
    row |= {
        "gene_r": _mean_of_defined(by_gene),
        "gene_r_median": _median_of_defined(by_gene),
        "spot_r": _mean_of_defined(by_spot),
        "constant_genes": int(constant_gene.sum()),
        "constant_spots": int(constant_spot.sum()),
    }
    return json_safe(row)


def _truth_r(r_half: np.ndarray) -> np.ndarray:
    """sqrt of Spearman-Brown's reliability at full depth; 0 where the halves do not agree."""
    positive = np.maximum(r_half, 0.0)
    return np.sqrt(2.0 * positive / (1.0 + positive))


def _column_r(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(g,) Pearson r of the columns of `a` with those of `b`; NaN: b constant; 0: a constant."""
    flat_a, flat_b = _is_constant(a), _is_constant(b)
    a, b = (values - values.mean(axis=0) if len(values) else values for values in (a, b))
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    usable = ~flat_a & ~flat_b & (size > 0)
    r = np.where(usable, (a * b).sum(axis=0) / np.where(usable, size, 1.0), 0.0)
    return np.where(flat_b, np.nan, np.clip(r, -1.0, 1.0))


def _is_constant(values: np.ndarray) -> np.ndarray:
    """(g,) bool: columns whose range is within rounding."""
    if not len(values):
        return np.ones(values.shape[1], bool)
    return np.ptp(values, axis=0) <= _ROUNDING * np.abs(values).max(axis=0)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else math.nan


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _median_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if len(defined) else math.nan


def _checked_pair(predicted: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # In one memory order, so that sums round alike however the arrays were cut out.
    predicted, measured = (
        np.ascontiguousarray(values, np.float64) for values in (predicted, measured)
    )
    if predicted.ndim != 2 or predicted.shape != measured.shape:
        raise InputError(
            f"predicted {predicted.shape} and measured {measured.shape}: the same (spots, genes) "
            "is needed"
        )
    for what, values in (("predicted", predicted), ("measured", measured)):
        if not np.isfinite(values).all():
            spot, gene = np.argwhere(~np.isfinite(values))[0]
            raise InputError(f"{what} value of spot {spot}, gene {gene} is not a finite number")
    return predicted, measured

"""Pseudo-bulk: one value per gene of a whole slide, from its tiles or spots. NumPy alone.

Bulk expression is a sum of counts over cells, so tiles are averaged as counts per `target_sum`,
without the logarithm that the panel's unit has. All tiles weigh alike: how many counts a tile would
give is not predicted. In measured bulk a spot weighs as its total counts.

A model learns means of logarithms, and the mean of a gene's counts is above the exponential of that
wherever the gene varies around its prediction. So predicted levels lie below measured ones, most
for patchy genes: compare a gene between slides, not two genes in one slide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from histospace_tf.data_pipelines import expression
from histospace_tf.scores import resampling
from histospace_tf.vocabulary import InputError, SpotTable

BOOTSTRAPS = 1000
LEAST_TILES = 2  # of an interval
_NUMBERS_AT_ONCE = 2**22  # of weights: bounds the memory


def predicted(values: np.ndarray, *, normalisation: str) -> np.ndarray:
    """The mean over tiles.

    Args:
        values: (n, g) in the panel's unit, n at least 1.
    Returns:
        (g,) float64 counts per `target_sum`.
    """
    return expression.counts_of(values, normalisation=normalisation).mean(axis=0)


def interval(
    values: np.ndarray, centres_px: np.ndarray, *, normalisation: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval of `predicted` over the slide's tiles.

    Blocks of neighbouring tiles are drawn (`resampling.block_weights`), since single ones, alike as
    neighbours are, give intervals that are too narrow. It says how far the mean hangs on which
    tissue lay on the slide, and nothing of the model's own error.

    Args:
        values: (n, g) in the panel's unit. centres_px: (n, 2), x first.
    Returns:
        (g,) 2.5th and 97.5th percentile; NaN of fewer than LEAST_TILES tiles.
    """
    n = len(values)
    if n < LEAST_TILES:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    counts = expression.counts_of(values, normalisation=normalisation)
    random = np.random.default_rng((seed, 4))
    at_once = max(1, min(BOOTSTRAPS, _NUMBERS_AT_ONCE // n))
    means = [
        resampling.block_weights(centres_px, min(at_once, BOOTSTRAPS - start), random) @ counts
        for start in range(0, BOOTSTRAPS, at_once)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return low, high


def measured(spots: SpotTable, genes: Sequence[str], *, target_sum: float) -> np.ndarray:
    """Bulk expression of a section: the sum of its spots' counts, scaled to `target_sum`.

    Returns:
        (g,) float64 counts per `target_sum`, over all genes of the table; a gene that the table
        lacks is zero.
    Raises:
        InputError: no counts at all.
    """
    total = np.asarray(spots.counts.sum(axis=0, dtype=np.float64)).ravel()
    if not total.sum() > 0:
        raise InputError("a section without any counts has no bulk expression")
    share = dict(zip(spots.genes, total / total.sum(), strict=True))
    return np.array([share.get(gene, 0.0) for gene in genes]) * target_sum

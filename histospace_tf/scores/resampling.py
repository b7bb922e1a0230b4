"""Chance and uncertainty of r between two maps whose spots are not independent. NumPy and SciPy.

The statistic is the mean over sections of Pearson's r over the spots of a section; a section that
does not score a gene takes no part in it. Random streams do not depend on the genes, so each gene's
result is the same whichever genes stand beside it. Results depend on `seed` alone.

**Expression is spatially autocorrelated**: two smooth maps that have nothing to do with each other
correlate by chance far more than shuffled spots do. Rates below were measured on made fields
without any relation on the spots of real sections (184 and 283 spots, correlation lengths of 2 to
8 spot distances, noise shares of 0 to 0.5, skewed and patchy ones too): the share with p < 0.05.

Two p values, both one-sided for r > 0 and (k + 1) / (B + 1):

* `p_shuffled_spots`: single spots shuffled within each section. 12 to 46 % instead of 5.
* `p_random_maps` keeps each map's autocorrelation (Moran spectral randomisation): the measured map
  is written in eigenvectors of the spots' centred distance matrix, from the coarsest pattern to the
  finest, and the sign of every coefficient is redrawn, so that the power at each scale stays. 5 to
  11 %. Where both maps are nothing but one straight gradient it is up to 25 %, with one round patch
  up to 15 %: a map of so few features cannot tell chance from a relation.
  Sections of one patient are cuts of one tissue and repeat a chance match: were they taken as
  independent, 23 to 35 % of unrelated genes would fall below 0.05 in four of them. So within a
  patient the null values are paired by rank, the worst case: 3 to 6 %, and nearly none where such
  sections are unrelated after all. Patients are independent.

`interval` is a bootstrap: sections are redrawn, and within each of them square blocks of
neighbouring spots (Poisson weights), since single spots give intervals that are too narrow. On made
data 95 % intervals hold the truth (the mean r of such sections) in 87 to 99 % with five sections,
in 69 to 97 % with two, in 49 to 95 % with one (benchmarks/p_values.py prints these rates), the
less the smoother the maps: a narrow interval from one or two sections promises too much.

Sources: Wagner & Dray, Methods Ecol. Evol. 6, 2015 (Moran spectral randomisation); Hanley &
MacGibbon, Comput. Methods Programs Biomed. 83, 2006 (Poisson weights); Hall, Stoch. Process. Appl.
20, 1985 (spatial blocks); Holm, Scand. J. Stat. 6, 1979.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree, distance

from histospace_tf.vocabulary import InputError

BLOCK_SPOTS = 6  # side of the bootstrap's blocks in spot distances: larger ones gain little
BLOCKS_A_SIDE = 3  # ... but so many to a side at least, or there is nothing to draw from
SPATIAL_SPOTS = 3000  # of a larger section p_random_maps takes as many: n^3 work, n^2 memory
GENES_AT_ONCE = 256  # bounds the memory of the null values
_CONSTANT = 1e-6  # range within float32's rounding of the largest value, as in metrics.py
_TIE = 1e-5  # float32 sums of unit vectors: nearer values are ties, and count against a gene


@dataclasses.dataclass(frozen=True, eq=False)
class SectionMaps:
    """Two maps a gene of one section.

    patient: whose section it is.
    centres_px: (n, 2) float, full-resolution pixels, x first.
    scored: (g,) bool, genes that this section scores.
    predicted, measured: (n, g) float32; each scored gene's column centred and of length one, so
        that r is the sum of a product. Other columns, and constant predictions, are zero and add
        nothing to a sum. `section_maps` makes them so.
    """

    patient: str
    centres_px: np.ndarray
    scored: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray


def section_maps(
    patient: str,
    centres_px: np.ndarray,
    predicted: np.ndarray,
    measured: np.ndarray,
    scored: np.ndarray,
) -> SectionMaps:
    """Maps in the form that this module works on.

    Args:
        patient: whose section it is.
        centres_px: (n, 2) finite.
        predicted, measured: (n, g), finite in every scored gene's column.
        scored: (g,) bool.
    Raises:
        InputError: shapes that do not fit, or a scored value that is not finite.
    """
    shape = (len(centres_px), len(scored))
    if predicted.shape != shape or measured.shape != shape or centres_px.shape != (shape[0], 2):
        raise InputError(
            f"patient {patient!r}: centres {centres_px.shape}, predicted {predicted.shape} and "
            f"measured {measured.shape} do not fit {shape[0]} spots and {shape[1]} genes"
        )
    pair = tuple(np.where(scored, values, 0.0) for values in (predicted, measured))
    if not all(np.isfinite(values).all() for values in (*pair, centres_px)):
        raise InputError(f"patient {patient!r}: a scored value or a centre is not a finite number")
    return SectionMaps(patient, centres_px, scored, _unit(pair[0]), _unit(pair[1]))


def interval(
    sections: Sequence[SectionMaps], *, seed: int, bootstraps: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval of the mean r.

    Returns:
        (g,) 2.5th and 97.5th percentile; NaN for a gene that no section scores. A resample without
        any section that scores a gene says nothing of it and is left out.
    Raises:
        InputError: no section, or no resamples.
    """
    scored = _scored(sections, bootstraps, "bootstraps")
    random = np.random.default_rng((seed, 1))
    share = np.full(len(sections), 1 / len(sections))
    drawn = random.multinomial(len(sections), share, size=bootstraps)
    total = np.zeros((bootstraps, scored.shape[1]))
    for section, times in zip(sections, drawn.T, strict=True):
        # A section that is drawn twice has its spots drawn twice.
        of_resample = np.repeat(np.arange(bootstraps), times)
        weights = block_weights(section.centres_px, len(of_resample), random)
        np.add.at(total, of_resample, _weighted_r(section.predicted, section.measured, weights))
    with np.errstate(invalid="ignore"):
        mean = total / (drawn @ scored)
    low, high = np.full((2, scored.shape[1]), np.nan)
    some = scored.any(axis=0)
    if some.any():
        low[some], high[some] = np.nanpercentile(mean[:, some], [2.5, 97.5], axis=0)
    return low, high


def block_weights(
    centres_px: np.ndarray, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """(resamples, n) weights that sum to 1, alike within blocks; each row lays their grid anew.

    Args:
        centres_px: (n, 2), n at least 1.
    """
    n = len(centres_px)
    nearest = cKDTree(centres_px).query(centres_px, k=2)[0][:, 1] if n > 1 else np.ones(1)
    side = max(1.0, min(BLOCK_SPOTS, np.sqrt(n) / BLOCKS_A_SIDE)) * max(np.median(nearest), 1e-9)
    start = random.uniform(0, side, (resamples, 1, 2))
    cell = ((centres_px - centres_px.min(axis=0) + start) // side).astype(np.intp)
    across = cell[..., 0].max(initial=0) + 1
    block = cell[..., 1] * across + cell[..., 0]
    kinds, block = np.unique(block, return_inverse=True)
    lots = random.poisson(1.0, (resamples, len(kinds))).astype(np.float64)
    weights = np.take_along_axis(lots, block.reshape(resamples, n), axis=1)
    weights[~weights.any(axis=1)] = 1.0  # nothing was drawn: all of it, once
    return weights / weights.sum(axis=1, keepdims=True)


def p_shuffled_spots(
    sections: Sequence[SectionMaps], *, seed: int, permutations: int
) -> np.ndarray:
    """(g,) p against single spots shuffled within sections; NaN where no section scores a gene.

    Raises:
        InputError: no section, or no permutations.
    """
    scored = _scored(sections, permutations, "permutations")
    random = np.random.default_rng((seed, 2))
    maps = [(section.predicted, section.measured) for section in sections]
    # Sums over sections: the mean, but for a factor that a gene's null values share.
    observed = np.sum([np.einsum("ng,ng->g", x, z) for x, z in maps], axis=0) - _TIE
    reached = np.zeros(len(observed), np.int64)
    for _ in range(permutations):
        null = [np.einsum("ng,ng->g", x[random.permutation(len(x))], z) for x, z in maps]
        reached += np.sum(null, axis=0) >= observed
    return np.where(scored.any(axis=0), (reached + 1) / (permutations + 1), np.nan)


def p_random_maps(sections: Sequence[SectionMaps], *, seed: int, permutations: int) -> np.ndarray:
    """(g,) p against maps of the same autocorrelation; NaN where no section scores a gene.

    With a and c the coefficients of both maps in the orthonormal patterns, r = sum(a c), and a
    random map has r = sum(s a c) with signs s: all null values are one matrix product.

    Raises:
        InputError: no section, or no permutations.
    """
    scored = _scored(sections, permutations, "permutations")
    random = np.random.default_rng((seed, 3))
    terms, signs = [], []
    for section in sections:
        centres, x, z = section.centres_px, section.predicted, section.measured
        if len(x) > SPATIAL_SPOTS:
            rows = np.sort(random.choice(len(x), SPATIAL_SPOTS, replace=False))
            centres, x, z = centres[rows], _unit(x[rows]), _unit(z[rows])
        patterns = _patterns(centres)
        terms.append((patterns.T @ x) * (patterns.T @ z))
        signs.append(random.integers(0, 2, (permutations, len(terms[-1])), np.int8))
    patients = list(dict.fromkeys(section.patient for section in sections))
    orders = {patient: random.permutation(permutations) for patient in patients}
    p = []
    for start in range(0, scored.shape[1], GENES_AT_ONCE):
        genes = slice(start, start + GENES_AT_ONCE)
        observed = np.sum([term[:, genes].sum(axis=0) for term in terms], axis=0) - _TIE
        null = np.zeros((permutations, len(observed)), np.float32)
        for patient in patients:
            worst = np.zeros_like(null)
            for section, term, sign in zip(sections, terms, signs, strict=True):
                if section.patient == patient:
                    each = (2 * sign.astype(np.float32) - 1) @ term[:, genes]
                    worst += np.sort(each, axis=0)
            null += worst[orders[patient]]
        p.append(((null >= observed).sum(axis=0) + 1) / (permutations + 1))
    return np.where(scored.any(axis=0), np.concatenate(p), np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down p values, (g,) in [0, 1], in the order of `p`.

    Raises:
        InputError: a value outside [0, 1].
    """
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("p values from 0 to 1 are needed")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _scored(sections: Sequence[SectionMaps], resamples: int, what: str) -> np.ndarray:
    """(sections, g) bool."""
    if resamples < 1:
        raise InputError(f"{resamples} {what}: at least 1 is needed")
    if not sections:
        raise InputError("no section to score")
    return np.stack([section.scored for section in sections])


def _unit(values: np.ndarray) -> np.ndarray:
    """(n, g) float32: columns centred and of length one; constant ones zero."""
    centred = values - values.mean(axis=0)
    constant = np.ptp(values, axis=0) <= _CONSTANT * np.abs(values).max(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, length)).astype(np.float32)


def _weighted_r(x: np.ndarray, z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resamples, g) Pearson r under each row of weights; 0 where a map is constant."""
    x, z = x.astype(np.float64), z.astype(np.float64)  # differences of nearly equal sums follow
    mean_x, mean_z, square_x, square_z = (weights @ part for part in (x, z, x**2, z**2))
    spread_x, spread_z = square_x - mean_x**2, square_z - mean_z**2
    usable = (spread_x > _CONSTANT * square_x) & (spread_z > _CONSTANT * square_z)
    size = np.sqrt(np.where(usable, spread_x * spread_z, 1.0))
    return np.where(usable, (weights @ (x * z) - mean_x * mean_z) / size, 0.0)


def _patterns(centres_px: np.ndarray) -> np.ndarray:
    """(n, n - 1) float32 orthonormal maps of mean zero, eigenvectors of the centred distances.

    Distances need no range to be chosen; neighbour graphs' vectors kept too little autocorrelation
    on made fields (up to 25 % below 0.05).
    """
    apart = distance.cdist(centres_px, centres_px)
    apart += apart.mean() - apart.mean(axis=0) - apart.mean(axis=1)[:, None]
    vectors = np.linalg.eigh(apart)[1]
    constant = np.abs(vectors.sum(axis=0)).argmax()
    return np.delete(vectors, constant, axis=1).astype(np.float32)

"""What a model must beat: no image, colour alone, and the measured neighbours.

Targets and predictions are (spots, genes) in the panel's unit. Every baseline but the neighbour
oracle is a function of the training side, and the ridge of the test tiles' pixels too.

`colour_statistics` describes a tile by 39 numbers, none of them learned (STATISTIC_NAMES):

=======  =====================================================================================
columns  what
=======  =====================================================================================
0-8      red, green, blue (0 to 255): mean, deviation, median of each
9-15     haematoxylin: mean, deviation, 5th, 25th, 50th, 75th and 95th percentile
16-22    eosin: the same seven
23-38    length of haematoxylin's gradient on the tile halved 0, 1, 2 and 3 times (so at
         1, 2, 4 and 8 px): mean, deviation, median and 90th percentile of each
=======  =====================================================================================

Haematoxylin and eosin are amounts in optical density, -log10((value + 1) / 256), unmixed with the
fixed vectors of Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 23, 2001: no fit, so that a tile's
numbers depend on that tile alone. The gradient is OpenCV's 3 x 3 Sobel filter. Percentiles are
taken over a regular sample of about 12,000 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy.spatial import cKDTree
from sklearn.model_selection import GroupKFold, KFold

from histospace_tf import metrics
from histospace_tf.vocabulary import InputError

_STAINS = ("haematoxylin", "eosin")
_STAIN_PERCENTILES = (5, 25, 50, 75, 95)
_GRADIENT_PERCENTILES = (50, 90)
_HALVINGS = 4
STATISTIC_NAMES: tuple[str, ...] = (
    *(
        f"{colour}_{what}"
        for colour in ("red", "green", "blue")
        for what in ("mean", "deviation", "p50")
    ),
    *(
        f"{stain}_{what}"
        for stain in _STAINS
        for what in ("mean", "deviation", *(f"p{q}" for q in _STAIN_PERCENTILES))
    ),
    *(
        f"gradient_{2**level}px_{what}"
        for level in range(_HALVINGS)
        for what in ("mean", "deviation", *(f"p{q}" for q in _GRADIENT_PERCENTILES))
    ),
)
# Ridge strengths to choose from, for standardised statistics.
RIDGE_STRENGTHS = np.logspace(-1, 6, 22)
_RIDGE_FOLDS = 5
_SAMPLED_PIXELS = 12_000


def colour_statistics(tiles: np.ndarray) -> np.ndarray:
    """Colour and gradient statistics of tiles.

    Args:
        tiles: (n, height, width, 3) uint8 RGB; a memory-mapped file is read tile by tile.
    Returns:
        (n, 39) float32, columns as STATISTIC_NAMES; finite for every tile, blank ones included.
    Raises:
        InputError: not uint8 RGB tiles, or tiles without pixels.
    """
    if tiles.ndim != 4 or tiles.shape[-1] != 3 or tiles.dtype != np.uint8:
        raise InputError(
            f"tiles need shape (n, height, width, 3) and dtype uint8, not {tiles.shape} "
            f"{tiles.dtype}"
        )
    if 0 in tiles.shape[1:3]:
        raise InputError(f"tiles of shape {tiles.shape} have no pixels")
    statistics = np.empty((len(tiles), len(STATISTIC_NAMES)), np.float32)
    for row, tile in zip(statistics, tiles, strict=True):
        row[:] = list(_tile_statistics(np.ascontiguousarray(tile)))
    return statistics


def colour_ridge(
    train_stats: np.ndarray,
    train_targets: np.ndarray,
    test_stats: np.ndarray,
    *,
    groups: np.ndarray,
) -> np.ndarray:
    """Ridge regression from colour statistics to expression: what colour alone explains.

    Statistics are standardised by the training spots. Targets are learned as differences from
    their section's mean (a ridge on the raw values spends itself on differences between sections),
    and the mean over all training spots is added back. One strength serves all genes: that of
    RIDGE_STRENGTHS with the highest `gene_r` on training sections left out in turn, at most 5
    folds, or on 5 runs of consecutive spots where the training side is one section.

    Args:
        train_stats: (n, s); train_targets: (n, g); test_stats: (m, s).
        groups: (n,) section name of every training spot.
    Returns:
        (m, g) float32 in the targets' unit. Nothing of the test side is fitted.
    Raises:
        InputError: shapes that do not agree, values that are not finite, no training spots.
    """
    targets = _checked_targets(train_targets)
    train, test = np.asarray(train_stats, np.float64), np.asarray(test_stats, np.float64)
    n = len(targets)
    if train.ndim != 2 or len(train) != n or test.shape[1:] != train.shape[1:]:
        raise InputError(
            f"training statistics {train.shape} and targets {targets.shape}, test statistics "
            f"{test.shape}: rows, then columns, must agree"
        )
    if np.shape(groups) != (n,):
        raise InputError(f"{n} training spots, but section names of shape {np.shape(groups)}")
    for what, values in (("training", train), ("test", test)):
        if not np.isfinite(values).all():
            raise InputError(f"a {what} statistic is not a finite number")
    _, member = np.unique(groups, return_inverse=True)
    strengths = RIDGE_STRENGTHS
    if n > 2:
        scores = np.zeros(len(strengths))
        for fit, validate in _ridge_folds(member):
            fold = _ridges(train[fit], targets[fit], train[validate], member[fit], strengths)
            score = [metrics.gene_r(predicted, targets[validate]) for predicted in fold]
            scores += np.nan_to_num(score)
        strengths = strengths[[int(np.argmax(scores))]]
    else:
        strengths = strengths[-1:]
    return next(_ridges(train, targets, test, member, strengths)).astype(np.float32)


def gene_mean(train_targets: np.ndarray, n: int) -> np.ndarray:
    """The mean of every gene over the training spots, for each of `n` spots: no image at all.

    Returns:
        (n, g) float32, all rows equal.
    Raises:
        InputError: no training spots.
    """
    targets = _checked_targets(train_targets)
    return np.tile(targets.mean(axis=0).astype(np.float32), (n, 1))


def patient_mean(
    train_targets: np.ndarray, train_patients: np.ndarray, patient: str, n: int
) -> np.ndarray | None:
    """`gene_mean` over the training spots of one patient; None where there is none of theirs.

    Where the split holds out patients this is always None; where it holds out sections it says how
    far knowing the patient alone goes.

    Raises:
        InputError: no training spots, or patients that do not go with them.
    """
    targets = _checked_targets(train_targets)
    if np.shape(train_patients) != (len(targets),):
        raise InputError(
            f"{len(targets)} training spots, but patients of shape {np.shape(train_patients)}"
        )
    of_patient = np.asarray(train_patients) == patient
    return gene_mean(targets[of_patient], n) if of_patient.any() else None


def neighbour_oracle(
    measured: np.ndarray, centres_px: np.ndarray, *, radius_px: float, neighbours: int = 8
) -> np.ndarray:
    """Measured mean of a spot's nearest neighbours: what smoothness of the tissue alone explains.

    It reads the held-out section's expression, so it is a mark to compare with and no predictor.

    Args:
        measured: (n, g) of one section; centres_px: (n, 2) full-resolution pixels.
        radius_px: farthest that a neighbour may be, inclusive, in the same pixels.
        neighbours: at most so many, the nearest; 8 surround a spot of a square grid.
    Returns:
        (n, g) float32. The spot itself is left out; one without neighbours gets the section's mean.
    Raises:
        InputError: shapes that do not agree, a radius that is not above zero.
    """
    measured = _checked_targets(measured)
    n = len(measured)
    if centres_px.shape != (n, 2):
        raise InputError(f"{n} spots need ({n}, 2) centres, not {centres_px.shape}")
    if not radius_px > 0 or neighbours < 1:
        raise InputError(
            f"radius of {radius_px!r} px and {neighbours} neighbours: both must be above zero"
        )
    nearest = range(1, min(neighbours + 1, n) + 1)  # a list of ranks keeps the answer 2-D
    distance, found = cKDTree(centres_px).query(centres_px, k=list(nearest))
    # A spot that shares its place with others need not come first among its own neighbours.
    near = (found != np.arange(n)[:, None]) & (distance <= radius_px)
    near &= np.cumsum(near, axis=1) <= neighbours
    total, how_many = np.zeros_like(measured), near.sum(axis=1)
    for is_near, index in zip(near.T, found.T, strict=True):
        total[is_near] += measured[index[is_near]]
    total[how_many == 0] = measured.mean(axis=0)
    return (total / np.maximum(how_many, 1)[:, None]).astype(np.float32)


# Optical density of every grey level, for OpenCV's table lookup.
_DENSITY = np.repeat(-np.log10((np.arange(256) + 1) / 256)[None, :, None], 3, axis=2).astype(
    np.float32
)


def _unmixing() -> np.ndarray:
    """(2, 3): optical density (R, G, B) -> haematoxylin, eosin; a third stain at right angles."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    other = np.cross(stains[0], stains[1])
    basis = np.vstack([stains, other / np.linalg.norm(other)])
    return np.linalg.inv(basis).T[:2].astype(np.float32)


_UNMIXING = _unmixing()


def _tile_statistics(tile: np.ndarray) -> Iterator[float]:
    """The numbers of one (height, width, 3) uint8 tile, in the order of STATISTIC_NAMES."""
    mean, deviation = (values.ravel() for values in cv2.meanStdDev(tile))
    for colour in range(3):
        yield from (mean[colour], deviation[colour])
        yield from _percentiles(tile[..., colour], (50,))
    stains = cv2.split(cv2.transform(cv2.LUT(tile, _DENSITY), _UNMIXING))
    for stain in stains:
        yield from _summary(stain, _STAIN_PERCENTILES)
    level = stains[0]
    for halving in range(_HALVINGS):
        if halving:
            size = (max(1, level.shape[1] // 2), max(1, level.shape[0] // 2))
            level = cv2.resize(level, size, interpolation=cv2.INTER_AREA)
        across = cv2.Sobel(level, cv2.CV_32F, 1, 0)
        down = cv2.Sobel(level, cv2.CV_32F, 0, 1)
        yield from _summary(cv2.magnitude(across, down), _GRADIENT_PERCENTILES)


def _summary(values: np.ndarray, percentiles: tuple[int, ...]) -> Iterator[float]:
    """Mean, deviation, percentiles."""
    mean, deviation = cv2.meanStdDev(values)
    yield from (float(mean[0, 0]), float(deviation[0, 0]))
    yield from _percentiles(values, percentiles)


def _percentiles(values: np.ndarray, percentiles: tuple[int, ...]) -> list[float]:
    # An odd step does not fall on the same columns of an even tile in every row.
    sample = values.ravel()[:: max(1, values.size // _SAMPLED_PIXELS) | 1]
    at = np.rint(np.asarray(percentiles) / 100 * (len(sample) - 1)).astype(np.intp)
    return [float(value) for value in np.partition(sample, at)[at]]


def _ridge_folds(member: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fit, validate) rows of the training side: sections apart, or consecutive spots of one."""
    n_groups = int(member.max()) + 1
    rows = np.zeros((len(member), 1))
    if n_groups > 1:
        return GroupKFold(min(_RIDGE_FOLDS, n_groups)).split(rows, groups=member)
    return KFold(min(_RIDGE_FOLDS, len(member))).split(rows)


def _ridges(
    train: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    member: np.ndarray,
    strengths: np.ndarray,
) -> Iterator[np.ndarray]:
    """Predictions (m, g) for every strength, from one decomposition.

    With X = U diag(s) V' the solution is V diag(s / (s^2 + strength)) U' Y: Hoerl & Kennard,
    Technometrics 12, 1970.
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1), deviation, 1.0)
    centred = targets.copy()
    for section in np.unique(member):
        centred[member == section] -= targets[member == section].mean(axis=0)
    left, s, right = np.linalg.svd((train - mean) / deviation, full_matrices=False)
    learned, seen = left.T @ centred, ((test - mean) / deviation) @ right.T
    for strength in strengths:
        yield targets.mean(axis=0) + (seen * (s / (s**2 + strength))) @ learned


def _checked_targets(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise InputError(f"targets of shape (spots, genes) are needed, not {values.shape}")
    if not np.isfinite(values).all():
        spot, gene = np.argwhere(~np.isfinite(values))[0]
        raise InputError(f"target of spot {spot}, gene {gene} is not a finite number")
    return values

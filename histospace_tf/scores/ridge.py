"""Ridge regression from a tile's statistics to expression, its strength chosen on sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError

# To choose from, for standardised statistics.
STRENGTHS = np.logspace(-1, 6, 22)
_FOLDS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge: (statistics - mean) / scale @ coefficients + intercept.

    statistic_mean, statistic_scale: (s,); coefficients: (s, g); intercept: (g,); all float64.
    strength: the penalty that was chosen.
    """

    statistic_mean: np.ndarray
    statistic_scale: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray
    strength: float

    def predict(self, statistics: np.ndarray) -> np.ndarray:
        """(m, g) float32 from (m, s) statistics.

        Raises:
            InputError: another number of statistics, or one that is not finite.
        """
        values = np.asarray(statistics, np.float64)
        if values.shape[1:] != self.statistic_mean.shape:
            raise InputError(
                f"test statistics {values.shape}: columns must agree with the "
                f"{len(self.statistic_mean)} of training"
            )
        if not np.isfinite(values).all():
            raise InputError("a test statistic is not a finite number")
        standard = (values - self.statistic_mean) / self.statistic_scale
        return (standard @ self.coefficients + self.intercept).astype(np.float32)


def fit(statistics: np.ndarray, targets: np.ndarray, *, groups: np.ndarray) -> Ridge:
    """Ridge regression from colour statistics to expression: what colour alone explains.

    Statistics are standardised by the training spots. Targets are learned as differences from
    their section's mean (a ridge on the raw values spends itself on differences between sections),
    and the mean over all training spots is added back. One strength serves all genes: that of
    STRENGTHS with the highest `gene_r` on training sections left out in turn, at most 5
    folds, or on 5 runs of consecutive spots where the training side is one section.

    Args:
        statistics: (n, s) of the training spots; targets: (n, g).
        groups: (n,) section name of every training spot.
    Raises:
        InputError: shapes that do not agree, values that are not finite, no training spots.
    """
    targets = checked_targets(targets)
    train = np.asarray(statistics, np.float64)
    n = len(targets)
    if train.ndim != 2 or len(train) != n:
        raise InputError(
            f"training statistics {train.shape} and targets {targets.shape}: rows must agree"
        )
    if np.shape(groups) != (n,):
        raise InputError(f"{n} training spots, but section names of shape {np.shape(groups)}")
    if not np.isfinite(train).all():
        raise InputError("a training statistic is not a finite number")
    _, member = np.unique(groups, return_inverse=True)
    strengths = STRENGTHS
    if n > 2:
        scores = np.zeros(len(strengths))
        for used, validate in _folds(member):
            fold = _ridges(train[used], targets[used], member[used], strengths)
            score = [
                metrics.gene_r(ridge.predict(train[validate]), targets[validate]) for ridge in fold
            ]
            scores += np.nan_to_num(score)
        strengths = strengths[[int(np.argmax(scores))]]
    else:
        strengths = strengths[-1:]
    return next(_ridges(train, targets, member, strengths))


def _folds(member: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fit, validate) rows of the training side: sections apart, or consecutive spots of one."""
    from sklearn.model_selection import GroupKFold, KFold  # not for --help

    n_groups = int(member.max()) + 1
    rows = np.zeros((len(member), 1))
    if n_groups > 1:
        return GroupKFold(min(_FOLDS, n_groups)).split(rows, groups=member)
    return KFold(min(_FOLDS, len(member))).split(rows)


def _ridges(
    train: np.ndarray, targets: np.ndarray, member: np.ndarray, strengths: np.ndarray
) -> Iterator[Ridge]:
    """A ridge for every strength."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1), deviation, 1.0)
    centred = targets.copy()
    for section in np.unique(member):
        centred[member == section] -= targets[member == section].mean(axis=0)
    kernels = coefficients((train - mean) / deviation, centred, strengths)
    for strength, kernel in zip(strengths, kernels, strict=True):
        yield Ridge(mean, deviation, kernel, targets.mean(axis=0), float(strength))


@dataclasses.dataclass(frozen=True, eq=False)
class Decomposed:
    """What the ridges of all strengths share.

    values: (r,) eigenvalues of X'X, which may be a little below 0.
    basis: (d, r) eigenvectors, orthogonal; their lengths are 1, or the roots of the values.
    learned: (r, g) X'Y by them.
    """

    values: np.ndarray
    basis: np.ndarray
    learned: np.ndarray

    def kernel(self, strength: float) -> np.ndarray:
        """(X'X + strength)^-1 X'Y: (d, g) float64."""
        penalised = np.maximum(self.values, 0.0) + strength
        return self.basis @ (self.learned / penalised[:, None])

    def round_coordinates(self, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates in which the ridge's objective has the same curvature in all directions.

        With D the directions, D'(X'X + strength)D is the identity, and `strength * D'D` is the
        diagonal matrix of the shares. Directions in which X does not vary are left out.

        Returns:
            (d, r) directions, (r,) shares of the penalty in the curvature, from 0 to 1, and the
            coordinates (r, g) of `kernel`: directions @ coordinates.
        """
        varies = self.values > np.finfo(np.float64).eps * len(self.basis) * self.values.max()
        basis, learned = self.basis[:, varies], self.learned[varies]
        length, penalised = np.linalg.norm(basis, axis=0), self.values[varies] + strength
        directions = basis / (length * np.sqrt(penalised))
        return directions, strength / penalised, learned * (length / np.sqrt(penalised))[:, None]


def coefficients(
    x: np.ndarray, y: np.ndarray, strengths: Sequence[float] | np.ndarray
) -> Iterator[np.ndarray]:
    """`Decomposed.kernel` of x and y for every strength, from one decomposition."""
    shared = decomposed(x, y)
    for strength in strengths:
        yield shared.kernel(strength)


def decomposed(x: np.ndarray, y: np.ndarray) -> Decomposed:
    """The ridges of x (n, d) on y (n, g), float64, both centred.

    Hoerl & Kennard, Technometrics 12, 1970. The smaller of X'X and XX' is decomposed.
    """
    if len(x) >= x.shape[1]:
        return normal(x.T @ x, x.T @ y)
    values, vectors = np.linalg.eigh(x @ x.T)
    return Decomposed(values, x.T @ vectors, vectors.T @ y)


def normal(gram: np.ndarray, cross: np.ndarray) -> Decomposed:
    """`decomposed` from X'X (d, d) and X'Y (d, g), which can be summed over blocks of rows."""
    values, vectors = np.linalg.eigh(gram)
    return Decomposed(values, vectors, vectors.T @ cross)


def checked_targets(values: np.ndarray) -> np.ndarray:
    """`values` as (n, g) float64.

    Raises:
        InputError: another shape, no rows, a value that is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise InputError(f"targets of shape (spots, genes) are needed, not {values.shape}")
    if not np.isfinite(values).all():
        spot, gene = np.argwhere(~np.isfinite(values))[0]
        raise InputError(f"target of spot {spot}, gene {gene} is not a finite number")
    return values

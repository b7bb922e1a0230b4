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


def coefficients(
    x: np.ndarray, y: np.ndarray, strengths: Sequence[float] | np.ndarray
) -> Iterator[np.ndarray]:
    """(X'X + strength)^-1 X'Y for every strength, from one decomposition.

    Hoerl & Kennard, Technometrics 12, 1970. The smaller of X'X and XX' is decomposed.

    Args:
        x: (n, d) and y: (n, g), float64, centred.
    Yields:
        (d, g) float64.
    """
    if len(x) >= x.shape[1]:
        yield from normal_solutions(x.T @ x, x.T @ y, strengths)
        return
    values, vectors = np.linalg.eigh(x @ x.T)
    basis, learned = x.T @ vectors, vectors.T @ y
    for strength in strengths:
        yield basis @ (learned / (np.maximum(values, 0.0) + strength)[:, None])


def normal_solutions(
    gram: np.ndarray, cross: np.ndarray, strengths: Sequence[float] | np.ndarray
) -> Iterator[np.ndarray]:
    """`coefficients` from X'X (d, d) and X'Y (d, g), which can be summed over blocks of rows."""
    values, vectors = np.linalg.eigh(gram)
    learned = vectors.T @ cross
    for strength in strengths:
        yield vectors @ (learned / (np.maximum(values, 0.0) + strength)[:, None])


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

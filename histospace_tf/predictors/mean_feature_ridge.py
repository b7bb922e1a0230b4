"""A ridge on the mean of a slide's tile features: what a network on slides must beat.

Scaler, components and ridge are `probe.ridges`, a slide in the place of a spot and the mean over
its tiles in the place of a tile's features: of more features than slides as many components are
kept as there are slides, at most `probe.COMPONENTS`. Targets are the panel's standardised unit.

The strength, one of `probe.STRENGTHS` for all genes, is that of the least mean squared error on
slides of inner groups, every slide alike: r of a gene over the few slides of a group is noise. The
strongest is all but the gene mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.predictors import probe
from histospace_tf.predictors.predictor import Fitted, Predictor
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from histospace_tf.data_pipelines.splits import Fold

MONITOR = "val_mse"


class MeanFeatureRidge(Predictor):
    """How tables show it."""

    name, label = "mean_feature_ridge", "mean feature ridge"
    note = "ridge on the mean of a slide's tile features, its strength chosen on inner groups"

    def fit(self, *_: object) -> Fitted:
        """Never: it learns from slides, and `fit` below fits it."""
        raise InputError(f"{self.label} learns from slides as a whole, not from spots")


@dataclasses.dataclass(frozen=True, eq=False)
class FittedRidge:
    """A ridge on means of slides.

    choice: what inner groups chose, as `Fitted.choice`. history: rows of history.csv.
    """

    ridge: Pipeline
    choice: dict[str, Any]
    history: list[dict[str, object]]

    def predict(self, means: np.ndarray) -> np.ndarray:
        """(n, f) means of slides -> (n, g) float32, standardised."""
        return np.asarray(self.ridge.predict(means), np.float32)


def means_of(features: Sequence[np.ndarray]) -> np.ndarray:
    """(tiles, f) of each slide -> (slides, f) float32."""
    return np.stack([part.mean(axis=0, dtype=np.float64) for part in features]).astype(np.float32)


def fit(
    means: np.ndarray, targets: np.ndarray, rows: np.ndarray, inner: Sequence[Fold], *, seed: int
) -> FittedRidge:
    """Fits it on some slides.

    Args:
        means: (slides, f) of all slides. targets: (slides, g) standardised; only `rows` are read.
        rows: the training side, at least two.
        inner: groups of it. One whose other slides are fewer than two takes no part; without any
            the strongest penalty is taken.
        seed: of a randomised decomposition.
    """
    name, strengths = MeanFeatureRidge.name, probe.STRENGTHS
    usable = [fold for fold in inner if len(fold.train) > 1]
    squares = np.zeros(len(strengths))  # summed over slides
    history: list[dict[str, object]] = []
    for number, fold in enumerate(usable, start=1):
        ridges = probe.ridges(means, targets, fold.train, strengths, seed=seed)
        for at, (strength, ridge) in enumerate(zip(strengths, ridges, strict=True)):
            error = float(np.mean((ridge.predict(means[fold.test]) - targets[fold.test]) ** 2))
            squares[at] += error * len(fold.test)
            history.append({"stage": f"{name}_inner{number}", "strength": strength, MONITOR: error})
    # Of equal ones the strongest.
    best = strengths[len(strengths) - 1 - int(np.argmin(squares[::-1]))]
    (ridge,) = probe.ridges(means, targets, rows, [best], seed=seed)
    choice = {
        "strength": float(best),
        "components": int(ridge["pca"].n_components_),
        "features": means.shape[1],
        "by": MONITOR if usable else "fixed",
    }
    return FittedRidge(ridge, choice, [*history, {"stage": name, "strength": best}])

"""A linear probe: PCA and ridge regression on any features of the cohort's spots, HEST's way.

HEST-1k's benchmark (Jaume et al., NeurIPS 2024) standardises features, keeps 256 principal
components and fits one ridge for all genes to log counts, all of it on the training side alone; so
does this, with scikit-learn. Spots count alike, and targets are the panel's unit as it is. HEST
fits no intercept, for correlations need none; here the training means are added, without which no
error could be told. Components are centred, so that no coefficient changes by it.

HEST's strength is 100 / (components x genes), a thousandth or so: all that holds such a ridge is
the number of components, too little on some thousand spots. A rival is run at its own best, so the
strength is chosen on inner groups of the training side by r per gene, HEST's own score, among
STRENGTHS and HEST's.

A spot without features (a row of NaN) takes no part in training and is predicted by the training
mean; how many there are is said and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.outputs import say
from histospace_tf.predictors.predictor import Fitted, Predictor
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from histospace_tf.cohort.encoders import EncodedSpots
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.config import Config
    from histospace_tf.training import Session

PREFIX = "probe:"  # of names
COMPONENTS = 256
# Of penalties, for components of standardised features, whose variance is the number of features.
STRENGTHS = tuple(10.0 ** np.arange(0.0, 7.01, 0.5))
_BLOCK_SPOTS = 4096  # looked at at once


class FittedProbe(Fitted):
    """features: of all spots; probe: of their values; mean: (g,) of the training spots."""

    def __init__(self, features: np.ndarray, probe: Pipeline, mean: np.ndarray) -> None:
        self.features, self.probe, self.mean = features, probe, mean

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32 in the panel's unit."""
        values = np.asarray(self.features[spots.rows], np.float32)
        known = has_features(values)
        out = np.tile(self.mean, (len(spots), 1)).astype(np.float32)
        if known.any():
            out[known] = self.probe.predict(values[known])
        return out


class Probe(Predictor):
    """PCA and ridge on features that anything made.

    title: of the features. features: gives those of all spots, (n, f) in the order of
        `encoded.spots`, a row of NaN where a spot has none, and keeps them: it is asked once per
        fold. None: one to be shown alone, in a table that was read.
    about: of them, for the manifest.
    """

    is_compared = True

    def __init__(
        self,
        title: str,
        features: Callable[[EncodedSpots], np.ndarray] | None = None,
        *,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.label = PREFIX + title, f"probe of {title}"
        self.note = "PCA and ridge on frozen features, HEST's way"
        self.title, self.features, self.about = title, features, about or {}

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedProbe:
        """Fits components and ridge, its strength chosen on inner groups.

        Raises:
            InputError: features that are not (spots, features), infinite ones, spots that have some
                and lack some, fewer than two training spots with features.
        """
        assert self.features is not None
        features = self.features(spots.encoded)
        known = checked(features, self.title, spots)
        rows = spots.rows[known[spots.rows]]
        if len(rows) < 2:
            raise InputError(
                f"{self.title}: {len(rows)} of {len(spots)} training spots have features; at least "
                "2 are needed"
            )
        inner = [
            (fold.train[known[fold.train]], fold.test[known[fold.test]])
            for fold in spots.inner_folds(settings.regressor.inner_folds)
        ]
        inner = [(train, test) for train, test in inner if len(train) > 1 and len(test) > 1]
        strength, history = self._chosen(spots, features, rows, inner, session.seed)
        (fitted,) = ridges(features, spots.measured, rows, [strength], seed=session.seed)
        lacking = int((~known).sum())
        say(
            f"{self.label}: ridge of strength {strength:.3g} on {fitted['pca'].n_components_} "
            f"components, "
            + (f"chosen on {len(inner)} inner group(s)." if inner else "HEST's: no inner group.")
        )
        if lacking:
            say(
                f"{self.label}: {lacking} of {len(known)} spots have no features "
                f"({len(spots) - len(rows)} of {len(spots)} in training); they are predicted by "
                "the training mean."
            )
        probe = FittedProbe(features, fitted, spots.measured[rows].mean(axis=0))
        probe.history = history
        probe.choice = {
            "strength": strength,
            "components": int(fitted["pca"].n_components_),
            "features": int(features.shape[1]),
            "spots_without_features": lacking,
            **self.about,
        }
        return probe

    def _chosen(
        self,
        spots: TrainingSpots,
        features: np.ndarray,
        rows: np.ndarray,
        inner: Sequence[tuple[np.ndarray, np.ndarray]],
        seed: int,
    ) -> tuple[float, list[dict[str, object]]]:
        """The strength of the highest r per gene on inner groups, and rows of history.csv."""
        from histospace_tf.predictors import epoch_choice, ridge_head  # with TensorFlow

        measured = spots.measured
        hests = 100 / (_components(features, rows) * measured.shape[1])
        if not inner:
            return hests, [{"stage": self.name, "strength": hests}]
        strengths = [hests, *STRENGTHS]
        scores: list[list[float]] = []
        history: list[dict[str, object]] = []
        for number, (train, test) in enumerate(inner, start=1):
            correlations = epoch_choice.validation_scores(spots.index.section[test])
            scores.append([])
            fitted = ridges(features, measured, train, strengths, seed=seed)
            for strength, probe in zip(strengths, fitted, strict=True):
                score = correlations(probe.predict(_values(features, test)), measured[test])
                scores[-1].append(score["val_gene_r"])
                history.append(
                    {"stage": f"{self.name}_inner{number}", "strength": strength, **score}
                )
        best = ridge_head.best_strength(scores, [len(test) for _, test in inner], strengths)
        return best, [*history, {"stage": self.name, "strength": best}]


def has_features(values: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that are not NaN throughout."""
    return ~np.isnan(values).all(axis=1)


def checked(features: np.ndarray, title: str, spots: TrainingSpots) -> np.ndarray:
    """Which spots have features: (n,) bool.

    Raises:
        InputError: as `Probe.fit`.
    """
    every = spots.encoded.spots
    n = len(every)
    if features.ndim != 2 or len(features) != n or not features.shape[1]:
        raise InputError(
            f"{title}: features of shape {features.shape}, where (spots, features) is ({n}, ...)"
        )
    known = np.empty(n, bool)
    for start in range(0, n, _BLOCK_SPOTS):
        block = np.asarray(features[start : start + _BLOCK_SPOTS])
        known[start : start + len(block)] = has_features(block)
        odd = known[start : start + len(block)] & ~np.isfinite(block).all(axis=1)
        if odd.any():
            at = start + int(np.argmax(odd))
            number = int(np.searchsorted(every.first, at, side="right")) - 1
            section, column = every.sections[number], int(np.argmin(np.isfinite(features[at])))
            raise InputError(
                f"{title}: feature {column + 1} of section {section.name!r}, spot "
                f"{section.spots.names[at - every.first[number]]!r}, is {features[at][column]}; "
                "a number is needed, or NaN in all features of a spot that has none"
            )
    return known


def _values(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.asarray(features[rows], np.float32)


def _components(features: np.ndarray, rows: np.ndarray) -> int:
    """As many as HEST keeps, or as there can be."""
    return min(COMPONENTS, len(rows), features.shape[1])


def ridges(
    features: np.ndarray,
    measured: np.ndarray,
    rows: np.ndarray,
    strengths: Sequence[float] | np.ndarray,
    *,
    seed: int,
) -> list[Pipeline]:
    """Scaler, components and the ridge of each strength, fitted to `rows` alone.

    Args:
        features: (n, f); measured: (n, g).
        rows: at least two.
        seed: of a randomised decomposition.
    Returns:
        (m, f) -> (m, g) by `predict`, one for each strength.
    """
    from sklearn.decomposition import PCA  # not for --help
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    values = _values(features, rows)
    scaler = StandardScaler().fit(values)
    pca = PCA(_components(features, rows), random_state=seed).fit(scaler.transform(values))
    components = pca.transform(scaler.transform(values)).astype(np.float64)
    wanted = measured[rows].astype(np.float64)
    return [
        Pipeline(
            [
                ("scaler", scaler),
                ("pca", pca),
                ("ridge", Ridge(alpha=strength).fit(components, wanted)),
            ]
        )
        for strength in strengths
    ]

"""What a model must beat: no image at all, and colour alone.

Values are (spots, genes) in the panel's unit. All of it is a function of the training side, and the
ridge of the test tiles' pixels too.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.predictors.predictor import BLACK, GREY, ORANGE, Fitted, Predictor
from histospace_tf.scores import ridge
from histospace_tf.scores.ridge import Ridge, checked_targets
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.config import Config
    from histospace_tf.training import Session


@dataclasses.dataclass(frozen=True, eq=False)
class FittedMean(Fitted):
    """mean: (g,) float32, of every gene over the training spots, or over patients."""

    mean: np.ndarray

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32, all rows equal."""
        return np.tile(self.mean, (len(spots), 1))

    def arrays(self) -> dict[str, Any]:
        """As `Fitted.arrays`."""
        return {"mean": self.mean}


class GeneMean(Predictor):
    """The training side's levels, such as a gene's mean over its spots: no image at all."""

    name, label, kind = "gene_mean", "gene mean", "baseline"
    note = "no image at all"
    looks_at_tiles = False
    is_constant = True
    colour, marker = BLACK, "x"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedMean:
        """Takes the means."""
        return FittedMean(spots.levels)

    def load(self, arrays: dict[str, Any]) -> FittedMean:
        """As `Predictor.load`."""
        return FittedMean(arrays["mean"])


@dataclasses.dataclass(frozen=True, eq=False)
class FittedPatientMean(Fitted):
    """patients: p names; means: (p, g) float32, of every patient's training spots."""

    patients: tuple[str, ...]
    means: np.ndarray

    def predict(self, spots: SpotsOfSection) -> np.ndarray | None:
        """(n, g) float32, all rows equal; None for a patient who was not trained on."""
        if spots.patient not in self.patients:
            return None
        return np.tile(self.means[self.patients.index(spots.patient)], (len(spots), 1))

    def arrays(self) -> dict[str, Any]:
        """As `Fitted.arrays`."""
        return {"patients": np.array(self.patients, str), "patient_means": self.means}


class PatientMean(Predictor):
    """The gene mean over the training spots of the same patient."""

    name, label, kind = "patient_mean", "patient mean", "baseline"
    looks_at_tiles = False
    is_constant = True
    knows_patient = True
    colour, marker = GREY, "+"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedPatientMean:
        """Takes the means of every patient."""
        measured, patients = spots.measured[spots.rows], spots.index.patient[spots.rows]
        names = tuple(str(name) for name in np.unique(patients))
        means = [patient_mean(measured, patients, name, 1) for name in names]
        return FittedPatientMean(
            names, np.concatenate([mean for mean in means if mean is not None])
        )

    def load(self, arrays: dict[str, Any]) -> FittedPatientMean:
        """As `Predictor.load`."""
        return FittedPatientMean(
            tuple(str(name) for name in arrays["patients"]), arrays["patient_means"]
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FittedColourRidge(Fitted):
    """ridge: from colour statistics to the panel's unit."""

    ridge: Ridge

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32."""
        return self.ridge.predict(spots.statistics)

    def arrays(self) -> dict[str, Any]:
        """As `Fitted.arrays`."""
        return {f"ridge_{f.name}": getattr(self.ridge, f.name) for f in dataclasses.fields(Ridge)}


class ColourRidge(Predictor):
    """Ridge regression on 39 colour and gradient statistics of a tile."""

    name, label, kind = "colour_ridge", "colour ridge", "baseline"
    colour, marker = ORANGE, "^"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedColourRidge:
        """Fits the standardised targets that the model learns, too."""
        learned = spots.targets[spots.rows]
        groups = spots.index.section[spots.rows]
        colour = ridge.fit(spots.statistics[spots.rows], learned, groups=groups)
        scale, mean = (
            np.asarray(values, np.float64) for values in (spots.panel.scale, spots.panel.mean)
        )
        return FittedColourRidge(
            dataclasses.replace(
                colour,
                coefficients=colour.coefficients * scale,
                intercept=colour.intercept * scale + mean,
            )
        )

    def load(self, arrays: dict[str, Any]) -> FittedColourRidge:
        """As `Predictor.load`."""
        kept = {f.name: arrays[f"ridge_{f.name}"] for f in dataclasses.fields(Ridge)}
        return FittedColourRidge(Ridge(**kept | {"strength": float(kept["strength"])}))


def colour_ridge(
    train_stats: np.ndarray,
    train_targets: np.ndarray,
    test_stats: np.ndarray,
    *,
    groups: np.ndarray,
) -> np.ndarray:
    """`ridge.fit` on the training side, applied to the test side.

    Args:
        train_stats: (n, s); train_targets: (n, g); test_stats: (m, s).
        groups: (n,) section name of every training spot.
    Returns:
        (m, g) float32 in the targets' unit. Nothing of the test side is fitted.
    Raises:
        InputError: as `ridge.fit` and `Ridge.predict`.
    """
    return ridge.fit(train_stats, train_targets, groups=groups).predict(test_stats)


def gene_mean(train_targets: np.ndarray, n: int) -> np.ndarray:
    """The mean of every gene over the training spots, for each of `n` spots: no image at all.

    Returns:
        (n, g) float32, all rows equal.
    Raises:
        InputError: no training spots.
    """
    targets = checked_targets(train_targets)
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
    targets = checked_targets(train_targets)
    if np.shape(train_patients) != (len(targets),):
        raise InputError(
            f"{len(targets)} training spots, but patients of shape {np.shape(train_patients)}"
        )
    of_patient = np.asarray(train_patients) == patient
    return gene_mean(targets[of_patient], n) if of_patient.any() else None

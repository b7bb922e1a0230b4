"""Marks to compare with: they read what was measured of the held-out section."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.predictors.predictor import GREEN, VERMILION, Fitted, Measured, Predictor
from histospace_tf.scores import metrics
from histospace_tf.scores.ridge import checked_targets
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.config import Config
    from histospace_tf.training import Session

NEIGHBOURS = 8  # that surround a spot of a square grid
NEIGHBOUR_PITCHES = 1.5  # the 8 lie within 1.42 pitches


@dataclasses.dataclass(frozen=True, eq=False)
class FittedOracle(Fitted):
    """neighbours, pitches: how many neighbours are averaged, and how far they lie at most."""

    neighbours: int = NEIGHBOURS
    pitches: float = NEIGHBOUR_PITCHES

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32: the measured mean of each spot's neighbours."""
        return neighbour_oracle(
            spots.measured,
            spots.centres_px,
            radius_px=self.pitches * spots.spot_pitch_px,
            neighbours=self.neighbours,
        )

    def arrays(self) -> dict[str, Any]:
        """As `Fitted.arrays`."""
        return {"neighbours": self.neighbours, "neighbour_pitches": self.pitches}


class NeighbourOracle(Predictor):
    """The measured mean of a spot's neighbours: what smoothness of the tissue alone explains."""

    name, label, kind = "neighbour_oracle", "neighbour oracle", "mark"
    reads_held_out = True
    looks_at_tiles = False
    colour, marker = GREEN, "D"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedOracle:
        """Learns nothing."""
        return FittedOracle()

    def load(self, arrays: dict[str, Any]) -> FittedOracle:
        """As `Predictor.load`."""
        return FittedOracle(int(arrays["neighbours"]), float(arrays["neighbour_pitches"]))


class Nothing(Fitted):
    """Of an entry that has a row of scores alone."""

    def predict(self, spots: SpotsOfSection) -> None:
        """None."""


class ResamplingCeiling(Predictor):
    """What a perfect prediction would score: `metrics.resampling_ceiling`."""

    name, label, kind = "resampling_ceiling", "resampling ceiling", "mark"
    note = "counting noise"
    reads_held_out = True
    looks_at_tiles = False
    predicts = False
    colour, marker = VERMILION, "v"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> Nothing:
        """Learns nothing."""
        return Nothing()

    def load(self, arrays: dict[str, Any]) -> Nothing:
        """As `Predictor.load`."""
        return Nothing()

    def row(self, predicted: np.ndarray | None, held_out: Measured) -> metrics.Row:
        """As `Predictor.row`, from the raw counts."""
        return metrics.resampling_ceiling(
            held_out.counts,
            held_out.columns,
            normalisation=held_out.normalisation,
            target_sum=held_out.target_sum,
            seed=held_out.seed,
        )


def neighbour_oracle(
    measured: np.ndarray, centres_px: np.ndarray, *, radius_px: float, neighbours: int = NEIGHBOURS
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
    measured = checked_targets(measured)
    n = len(measured)
    if centres_px.shape != (n, 2):
        raise InputError(f"{n} spots need ({n}, 2) centres, not {centres_px.shape}")
    if not radius_px > 0 or neighbours < 1:
        raise InputError(
            f"radius of {radius_px!r} px and {neighbours} neighbours: both must be above zero"
        )
    nearest = range(1, min(neighbours + 1, n) + 1)  # a list of ranks keeps the answer 2-D
    distance, nearby = cKDTree(centres_px).query(centres_px, k=list(nearest))
    # A spot that shares its place with others need not come first among its own neighbours.
    near = (nearby != np.arange(n)[:, None]) & (distance <= radius_px)
    near &= np.cumsum(near, axis=1) <= neighbours
    total, how_many = np.zeros_like(measured), near.sum(axis=1)
    for is_near, index in zip(near.T, nearby.T, strict=True):
        total[is_near] += measured[index[is_near]]
    total[how_many == 0] = measured.mean(axis=0)
    return (total / np.maximum(how_many, 1)[:, None]).astype(np.float32)

"""The paper's own head with the paper's own training, on the run's frozen encoder.

A rival is run at its own best: of the run it takes the encoder, the stain reference, the panel's
genes and the spots, and nothing else. Everything else is that of preset `paper`: tiles of 128 px at
each image's own scale, a convolution block, flatten, two linear dense layers, Huber loss (delta 1),
Adam at a constant rate of 1e-4, batches of 32, 50 epochs on the whole training side, one symmetry,
every spot alike. Its targets are log10(1 + counts per `target_sum`), neither centred nor scaled.

Both units that a panel may have are logarithms of one plus the same number, so that they differ by
a factor: what is measured is divided by it, what is predicted multiplied, and nothing is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from histospace_tf import presets
from histospace_tf.config import Config
from histospace_tf.data_pipelines import expression
from histospace_tf.outputs import say
from histospace_tf.predictors.predictor import PURPLE, Fitted, Predictor
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from histospace_tf.cohort.encoders import EncodedSpots
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.predictors.head_training import TrainedHead
    from histospace_tf.training import Session


class FittedPaperHead(Fitted):
    """The trained head. scale: what turns its output into the panel's unit."""

    def __init__(self, trained: TrainedHead, *, scale: float) -> None:
        self.head, self.scale = trained.head, scale
        self.history, self.choice = trained.history, trained.choice

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32 in the panel's unit."""
        from histospace_tf.cohort import features

        values = features.predicted(self.head, _maps(spots.encoded), rows=spots.rows)
        return (values * self.scale).astype(np.float32)


class PaperHead(Predictor):
    """The HistoSPACE paper's head, trained as the paper trained it."""

    name, label = "paper", "paper's head"
    note = (
        "the paper's training and tiles, 128 px at the image's own scale, on this run's frozen "
        "encoder: convolution, flatten, 256 linear units; Huber, Adam 1e-4, 50 epochs"
    )
    is_compared = True
    colour, marker = PURPLE, "P"

    def refuse(self, settings: Config) -> None:
        """Refuses a run whose own model it is."""
        own, papers = settings, presets.preset("paper")
        if (own.regressor, own.tiles, own.target.centre, own.target.scale) == (
            papers.regressor,
            papers.tiles,
            papers.target.centre,
            papers.target.scale,
        ):
            raise InputError(f"`compare` {self.name}: that head is trained and scored in any case")

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedPaperHead:
        """Trains it on the fold's training side."""
        from histospace_tf.predictors import head_data, head_training  # with TensorFlow

        scale = expression.unit_of_logarithm(10, normalisation=settings.target.normalisation)
        data = head_data.HeadData(
            _maps(spots.encoded), spots.measured / np.float32(scale), spots.index, spots.weights
        )
        trained = head_training.train_head(
            data,
            spots.rows,
            presets.preset("paper").regressor,
            session.within("compared"),
            stage=self.name,
        )
        say(f"The paper's head: {trained}.")
        return FittedPaperHead(trained, scale=scale)


def _maps(encoded: EncodedSpots) -> dict[str, np.ndarray]:
    """The paper's tiles of all spots as heads read them, encoded once and memory-mapped.

    Returns:
        "features" (n, 1, 16, 16, 128) float16.
    """
    from histospace_tf.cohort import features

    papers = presets.preset("paper")
    folder = encoded.folder / PaperHead.name
    folder.mkdir(parents=True, exist_ok=True)
    maps = features.tile_features(
        encoded.trunk(papers),
        encoded.tiles(tile_px=papers.tiles.tile_px, mpp="image"),
        symmetries=papers.regressor.symmetries,
        label="Features for the paper's head",
        store=folder / "features.npy",
        strategy=encoded.strategy,
    )
    return {"features": maps}

"""The recommended head, with slide context, on features that another tool made of patches.

It is fitted as our own model is, on the same training spots with the same settings: what differs is
what made the features. A spot without a patch takes no part in training and is predicted by the
training level of each gene.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from histospace_tf import presets
from histospace_tf.outputs import say
from histospace_tf.predictors.predictor import Fitted, Predictor
from histospace_tf.predictors.probe import Probe, has_features
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from histospace_tf.cohort.patch_inputs import PatchInputs
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.config import Config
    from histospace_tf.data_pipelines.gene_panel import GenePanel
    from histospace_tf.predictors.head_training import TrainedHead
    from histospace_tf.training import Session

PREFIX = "head:"  # of names


class FittedPatchHead(Fitted):
    """The fitted head. patches: of all spots. levels: (g,) in the panel's unit."""

    def __init__(
        self, trained: TrainedHead, patches: PatchInputs, panel: GenePanel, levels: np.ndarray
    ) -> None:
        self.head, self.patches, self.panel, self.levels = trained.head, patches, panel, levels
        self.history = trained.history
        lacking = int((~has_features(patches.features)).sum())
        self.choice = {**trained.choice, "spots_without_features": lacking}

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32 in the panel's unit."""
        from histospace_tf.cohort import features

        known = has_features(np.asarray(self.patches.features[spots.rows]))
        out = np.tile(self.levels, (len(spots), 1)).astype(np.float32)
        if known.any():
            rows = spots.rows[known]
            out[known] = self.panel.to_unit(
                features.predicted(self.head, self.patches.inputs, rows=rows)
            )
        return out


class PatchHead(Predictor):
    """The recommended head on other features.

    title: of the features. patches: those of all spots; None: one to be shown alone, in a table
    that was read.
    """

    is_compared = True
    note = "the recommended head, with slide context, on features that another tool made"

    def __init__(self, title: str, patches: PatchInputs | None = None) -> None:
        self.name, self.label = PREFIX + title, f"head on {title}"
        self.patches = patches

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedPatchHead:
        """Fits it on the training spots that have a patch.

        Raises:
            InputError: fewer than two of them.
        """
        from histospace_tf.predictors import head_data, head_training  # with TensorFlow

        assert self.patches is not None
        own = presets.with_architecture(settings, "context")
        rows = spots.rows[has_features(np.asarray(self.patches.features[spots.rows]))]
        if len(rows) < 2:
            raise InputError(
                f"{self.label}: {len(rows)} of {len(spots)} training spots have a patch; at least "
                "2 are needed"
            )
        data = head_data.HeadData(
            self.patches.inputs, spots.targets, spots.index, spots.weights_of(own), spots.axes
        )
        trained = head_training.train_head(
            data,
            rows,
            own.regressor,
            session,
            stage=self.name,
        )
        say(f"{self.label}: {trained}.")
        return FittedPatchHead(trained, self.patches, spots.panel, spots.levels)


def predictors(sets: Sequence[PatchInputs]) -> list[Predictor]:
    """What is scored on every set of features: a probe and the recommended head."""
    return [one for patches in sets for one in (_probe(patches), PatchHead(patches.title, patches))]


def _probe(patches: PatchInputs) -> Probe:
    return Probe(patches.title, lambda _: patches.features)


def names(title: str) -> tuple[str, ...]:
    """What `predictors` are called that are scored on features of this title."""
    return Probe(title).name, PatchHead(title).name

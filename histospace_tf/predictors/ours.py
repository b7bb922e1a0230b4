"""Our model: heads on the frozen encoder, in slide context, tile by tile, and for comparison."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf import presets
from histospace_tf.bundle_file import SINGLE_TILE, needs_context
from histospace_tf.config import Architecture, Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.outputs import say
from histospace_tf.predictors import peers
from histospace_tf.predictors.predictor import BLUE, PURPLE, SKY, Fitted, Predictor
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    import keras

    from histospace_tf.bundle import Bundle
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.data_pipelines import splits
    from histospace_tf.predictors.head_training import TrainedHead
    from histospace_tf.training import Session


class FittedHead(Fitted):
    """A head on the frozen encoder's features.

    settings: that its features were made with. symmetries: how many of a tile's are averaged; None:
    all that were kept. trained: how it came about; None for one that was loaded.
    """

    def __init__(
        self,
        head: keras.Model,
        panel: GenePanel,
        settings: Config,
        *,
        symmetries: int | None = None,
        trained: TrainedHead | None = None,
    ) -> None:
        self.head, self.panel, self.settings = head, panel, settings
        self.symmetries, self.trained = symmetries, trained
        self.choice = None if trained is None else trained.choice
        self.history = () if trained is None else trained.history

    @property
    def inner_folds(self) -> list[splits.Fold]:
        """The groups of the training side that its epoch or strength was chosen on."""
        return [] if self.trained is None else self.trained.inner

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32 in the panel's unit."""
        from histospace_tf.cohort import features

        values = features.predicted(
            self.head,
            spots.encoded.inputs(self.settings),
            rows=spots.rows,
            symmetries=self.symmetries,
        )
        return self.panel.to_unit(values)


class Model(Predictor):
    """The run's head: what `predict` uses."""

    name, label, kind = "model", "model", "ours"
    note = "what `predict` uses"
    colour, marker = BLUE, "o"

    def note_of(self, chosen: Mapping[str, Any]) -> str:
        """The note, and which published network it is where it is one."""
        network = peers.named(chosen.get("architecture"))
        if network is None:
            return self.note
        return f"{network.label}, {network.note_of(chosen)}; {self.note}"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedHead:
        """Fits the head of settings.regressor."""
        trained = _trained(spots, settings, session)
        return FittedHead(trained.head, spots.panel, settings, trained=trained)


class SingleTile(Predictor):
    """The head that needs no slide context: what exported models hold.

    Where the model's own needs none, it is the same one, of each tile as it is.
    """

    name, label, kind = "model_single_tile", "model single tile", "ours"
    note = "`serving_default`, .tflite"
    colour, marker = SKY, "s"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedHead:
        """Fits the single-tile head beside the model's; the same one is not trained twice."""
        own = settings.regressor.architecture
        single = dataclasses.replace(settings.regressor, architecture=SINGLE_TILE.get(own, own))
        is_new = single.architecture not in spots.heads
        trained = _trained(spots, dataclasses.replace(settings, regressor=single), session)
        fitted = FittedHead(trained.head, spots.panel, settings, symmetries=1, trained=trained)
        if not is_new:
            fitted.history = ()
        return fitted


class Head(Predictor):
    """Another head on the same encoder, tiles and targets, for comparison.

    ("flatten" is not among them: `paper.PaperHead` is that head, on its own tiles and targets.)
    """

    is_compared = True
    notes: typing.ClassVar[dict[Architecture, str]] = {
        "global": "the paper's head and training, with a mean over the map in place of flatten",
        "pooled": "pooled statistics of a tile, trained as preset `recommended`",
        "context": "`pooled` beside the slide's statistics and neighbours",
    }
    # Of the figures: one colour, a marker each.
    _markers: typing.ClassVar[dict[Architecture, str]] = {
        "global": "*",
        "pooled": "<",
        "context": ">",
    }

    def __init__(self, architecture: Architecture) -> None:
        self.name = self.label = self.architecture = architecture
        self.note = self.notes[architecture]
        self.colour, self.marker = PURPLE, self._markers[architecture]

    def refuse(self, settings: Config) -> None:
        """Refuses the run's own head."""
        own = settings.regressor.architecture
        if self.name in (own, SINGLE_TILE.get(own)):
            raise InputError(f"`compare` {self.name}: that head is trained and scored in any case")

    def uses_slide_context(self, settings: Config) -> bool:
        """Whether the architecture reads the slide's own statistics."""
        return needs_context(presets.with_architecture(settings, self.architecture))

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedHead:
        """Fits it with the run's settings, or those of the preset that was made for its kind."""
        own = presets.with_architecture(settings, self.architecture)
        trained = _trained(spots, own, session.within("compared"))
        return FittedHead(trained.head, spots.panel, own, trained=trained)


def of_bundle(model: Bundle) -> dict[str, Fitted]:
    """The predictors that a finished run's bundle holds, by name."""
    return {
        Model.name: FittedHead(model.head, model.panel, model.config),
        SingleTile.name: FittedHead(
            model.single_tile_head, model.panel, model.config, symmetries=1
        ),
    }


def _trained(spots: TrainingSpots, settings: Config, session: Session) -> TrainedHead:
    """The head of settings.regressor, trained on first call; a fold trains each once."""
    from histospace_tf.predictors import head_data, head_training  # with TensorFlow

    architecture = settings.regressor.architecture
    if architecture not in spots.heads:
        data = head_data.HeadData(
            spots.encoded.inputs(settings),
            spots.targets,
            spots.index,
            spots.weights_of(settings),
            spots.axes,
        )
        trained = head_training.train_head(data, spots.rows, settings.regressor, session)
        say(f'Head "{architecture}": {trained}.')
        spots.heads[architecture] = trained
    return spots.heads[architecture]

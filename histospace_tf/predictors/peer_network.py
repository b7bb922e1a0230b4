"""What all networks that others published share as predictors: size, training, inner groups, unit.

Of the run such a rival takes spots, the panel's genes, the stain reference, devices, seed and inner
groups, so that all are trained equally. The rest is its authors': tiles of its own size at each
image's own scale, flips, loss, optimizer, rate, batches. In three things it differs from them:

* its epochs are chosen on inner groups, as our own head's are, of at most as many as published
  (`epoch_choice`), and an inner training stops after `regressor.patience` epochs;
* its targets are log(1 + counts per `target_sum`), of library size over all genes, natural or
  common as published: scores are in the panel's unit, from which that one differs by a factor;
* `peers.size` "small" is a network of the same kind with few weights, for a laptop's processor. It
  sees the published piece of tissue in fewer pixels, and learns at a rate of its own: the published
  one is that of a large network, mostly trained before.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.config import Config, PeersConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.outputs import say
from histospace_tf.predictors.predictor import Fitted, Predictor

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    from tqdm import tqdm

    from histospace_tf.cohort.encoders import EncodedSpots, Scale
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.data_pipelines import splits
    from histospace_tf.data_pipelines.datasets import StainedTiles
    from histospace_tf.models.peers.published import Training
    from histospace_tf.training import Session, Trained


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network of one size, and how it is trained.

    size: the `Size` of its module; its `tile_px` is the side of the tiles that the network takes.
    cut_px: side of the published tiles, which those of a small one show in fewer pixels.
    weights: what its trunk starts from; None: random weights.
    mpp: microns per pixel of the tiles before that; "image": each image's own scale.
    """

    size: Any
    cut_px: int
    training: Training
    weights: str | None = None
    mpp: Scale = "image"

    def tiles(self, encoded: EncodedSpots) -> list[StainedTiles]:
        """All spots' tiles as the network takes them, by section."""
        return encoded.tiles(tile_px=self.cut_px, mpp=self.mpp, shown_px=self.size.tile_px)


class Examples(abc.ABC):
    """What a network learns from, by rows of the cohort's spots; those of the training side alone.

    recipe: of the network. section: (n,) name of every spot's section. loss: that it lowers.
    """

    loss: keras.losses.Loss

    def __init__(self, spots: TrainingSpots, recipe: Recipe) -> None:
        self.recipe, self.section = recipe, spots.index.section

    @abc.abstractmethod
    def build(self, rows: np.ndarray, *, synchronized: bool) -> keras.Model:
        """The network, untrained, with what it is told of `rows`, such as their mean.

        Args:
            synchronized: batch normalisation over all replicas.
        """

    @abc.abstractmethod
    def batches(self, rows: np.ndarray, seed: tuple[int, int] | None = None) -> tf.data.Dataset:
        """Global batches (inputs, targets); seed: of order and flips; None: in order, as they are.

        In order, predictions of all batches are those of `rows`, which are sorted.
        """

    @abc.abstractmethod
    def steps(self, rows: np.ndarray) -> int:
        """Batches of an epoch."""

    def expression(self, values: np.ndarray) -> np.ndarray:
        """The (n, g) predicted or measured expression in what the network gives or is given."""
        return values

    def train(
        self,
        session: Session,
        patience: int,
        rows: np.ndarray,
        *,
        held: np.ndarray | None,
        stage: str,
        epochs: int,
        bar: tqdm,
    ) -> Trained:
        """One training, as `epoch_choice.trained` asks for it; patience: of those with `held`."""
        import keras

        from histospace_tf import training
        from histospace_tf.predictors import epoch_choice

        def build() -> keras.Model:
            keras.utils.set_random_seed(session.seed)
            return self.build(rows, synchronized=session.strategy.num_replicas_in_sync > 1)

        validation = None
        if held is not None:
            of_sections = epoch_choice.validation_scores(self.section[held])

            def scores(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
                return of_sections(self.expression(predicted), self.expression(measured))

            validation = training.Validation(self.batches(held), scores, epoch_choice.MONITOR)
        published = self.recipe.training
        return training.train(
            build,
            lambda epoch: self.batches(rows, (session.seed, epoch)),
            training.Schedule(
                loss=self.loss,
                learning_rate=published.rate(self.steps(rows)),
                epochs=epochs,
                momentum=published.momentum if published.optimizer == "sgd" else None,
                patience=None if held is None else patience,
            ),
            session.within(stage),
            stage=stage,
            validation=validation,
            callbacks=[epoch_choice.Moving(bar)],
            verbose=0,
        )


class FittedNetwork(Fitted):
    """A trained network.

    scale: what turns its output into the panel's unit.
    inner_folds: the groups of the training side that its epochs were chosen on.
    """

    inner_folds: Sequence[splits.Fold] = ()

    def __init__(self, entry: PeerNetwork, network: keras.Model, recipe: Recipe, scale: float):
        self.entry, self.network, self.recipe, self.scale = entry, network, recipe, scale

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) float32 in the panel's unit."""
        return (self.entry.predicted(self.network, self.recipe, spots) * self.scale).astype(
            np.float32
        )


class PeerNetwork(Predictor):
    """A published network.

    name: of its module in `models.peers`: `Size`, `PUBLISHED`, `SMALL`, `TRAINING` and `build`.
    logarithm: base of its published targets.
    small: settings of `published.Training` that the small size has of its own.
    symmetries: of a tile, that predictions are averaged over: 1 or 8.
    """

    is_compared = True
    symmetries = 1

    def __init__(
        self, name: str, label: str, note: str, *, logarithm: float, small: Mapping[str, Any]
    ) -> None:
        self.name, self.label, self.note = name, label, note
        self.logarithm, self.small = logarithm, small

    @property
    def module(self) -> Any:
        """With Keras."""
        return importlib.import_module(f"histospace_tf.models.peers.{self.name}")

    @abc.abstractmethod
    def examples(self, spots: TrainingSpots, targets: np.ndarray, recipe: Recipe) -> Examples:
        """What it learns from.

        Args:
            targets: (n, g) float32 of all spots in its own unit; NaN off the training side.
        """

    @abc.abstractmethod
    def predicted(self, network: keras.Model, recipe: Recipe, spots: SpotsOfSection) -> np.ndarray:
        """(n, g) expression of a section's held-out spots in the unit that it was trained on."""

    def fit(
        self, spots: TrainingSpots, settings: Config, session: Session, *, mpp: Scale = "image"
    ) -> FittedNetwork:
        """Trains it on the fold's training side. mpp: of its tiles, as of `Recipe`."""
        from histospace_tf.predictors import epoch_choice  # with TensorFlow

        recipe = self.recipe(settings.peers, genes=len(spots.panel))
        recipe = dataclasses.replace(self.sized(recipe, spots.encoded), mpp=mpp)
        scale = self.factor(settings)
        inner = spots.inner_folds(settings.regressor.inner_folds)
        examples = self.examples(spots, spots.measured / np.float32(scale), recipe)
        trained = epoch_choice.trained(
            spots.rows,
            inner,
            functools.partial(
                examples.train, session.within("compared"), settings.regressor.patience
            ),
            epochs=recipe.training.epochs,
            name=self.name,
            label=self.label,
        )
        fitted = FittedNetwork(self, trained.model, recipe, scale)
        fitted.history, fitted.inner_folds = trained.history, inner
        fitted.choice = {
            **trained.choice,
            "size": settings.peers.size,
            "parameters": trained.model.count_params(),
            **self.facts(recipe),
        }
        say(f"{self.label}: {trained}; {fitted.choice['parameters']:,} weights.")
        return fitted

    def recipe(self, settings: PeersConfig, *, genes: int) -> Recipe:
        """What is trained, by `settings.size` and `settings.epochs`."""
        module = self.module
        training: Training = module.TRAINING
        if settings.size == "small":
            training = dataclasses.replace(training, **self.small)
        if settings.epochs:
            training = dataclasses.replace(training, epochs=settings.epochs)
        size = module.SMALL if settings.size == "small" else module.PUBLISHED
        return Recipe(size, module.PUBLISHED.tile_px, training)

    def sized(self, recipe: Recipe, encoded: EncodedSpots) -> Recipe:
        """The recipe, as large as the cohort's sections need the network."""
        return recipe

    def factor(self, settings: Config) -> float:
        """What turns its own unit into that of the run's panel."""
        return expression.unit_of_logarithm(
            self.logarithm, normalisation=settings.target.normalisation
        )

    def facts(self, recipe: Recipe) -> dict[str, Any]:
        """What the manifest records of it beside its epochs, size and parameters."""
        return {}

    def note_of(self, chosen: Mapping[str, Any]) -> str:
        """The note, with the size that was trained."""
        small = "; its small size, not the published network"
        return self.note + (small if chosen.get("size") == "small" else "")

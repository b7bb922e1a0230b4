"""HE2RNA's and hist2RNA's networks, trained on slides with bulk expression alone.

Trained with their published loss, rates, batches and patience. Features are standardised by the
training slides' tiles, which the published networks, on features of ReLUs, left as they were;
targets are the panel's standardised unit. What was published on thousands of slides must hold for
a dozen, too, hence two differences:

* The last layer starts at zero, so that an untrained network says the gene mean. One that starts
  at random needs its first hundred steps to get there: the highest of random scores lie above 0.
* Epochs are chosen on inner groups of the training side (`predictors.epoch_choice`) by MONITOR, the
  mean squared error, every slide alike. The published correlation is r of a gene over a group's
  slides, which is 1 or -1 over two of them and noise over five; and no correlation sees that a
  network is off in its levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import training
from histospace_tf.data_pipelines import datasets, splits
from histospace_tf.models import losses
from histospace_tf.models.peers import he2rna, hist2rna
from histospace_tf.models.peers.published import Training
from histospace_tf.predictors import epoch_choice
from histospace_tf.slide_level import WITH_TILE_SCORES
from histospace_tf.training import Schedule, Session, Validation
from histospace_tf.vocabulary import InputError

_NETWORKS: dict[str, ModuleType] = {"he2rna": he2rna, "hist2rna": hist2rna}
INNER_FOLDS = 4  # at most
KEPT_EPOCHS = 20  # an epoch on a dozen slides takes less time than writing its state of 50 MB
MONITOR = "val_loss"  # what epochs are chosen by, in the panel's standardised unit


@dataclasses.dataclass(frozen=True, eq=False)
class Slides:
    """What networks learn from.

    features: (tiles, f) of each slide; may be memory-mapped.
    targets: (slides, g) float32, standardised; rows that are not trained on are never read.
    index: one row per slide.
    """

    features: Sequence[np.ndarray]
    targets: np.ndarray
    index: splits.SpotIndex


@dataclasses.dataclass(frozen=True, eq=False)
class SlideNetwork:
    """A network with what its features are standardised by.

    model: of `models.peers`. mean, deviation: (f,) float32.
    """

    architecture: str
    model: keras.Model
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def n_parameters(self) -> int:
        return sum(int(np.prod(variable.shape)) for variable in self.model.trainable_variables)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(tiles, f) of a slide -> (g,) float32, in the panel's standardised unit."""
        tiles = self._standardised(features)[None]
        mask = np.ones(tiles.shape[:2], bool)
        return np.asarray(self.model({"features": tiles, "mask": mask}, training=False))[0]

    def predict_weighted(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """`predict` of drawings of a slide's tiles, each tile as often as its weight says.

        Args:
            features: (tiles, f). weights: (r, tiles), each row with the sum 1.
        Returns:
            (r, g) float32; equal weights give what `predict` gives.
        """
        if not self.scores_tiles:
            means = (weights @ self._standardised(features)).astype(np.float32)[:, None]
            mask = np.ones(means.shape[:2], bool)
            return np.asarray(self.model({"features": means, "mask": mask}, training=False))
        scores = np.asarray(self.tile_head()(np.asarray(features, np.float32), training=False))
        percents = np.array(self.model.get_layer("expression").percents)
        ks = he2rna.top_tiles(percents, len(scores))
        return np.stack([_mean_of_best(scores, row * len(scores), ks) for row in weights])

    @property
    def scores_tiles(self) -> bool:
        """Whether single tiles have scores: maps, of a kind."""
        return self.architecture in WITH_TILE_SCORES

    def tile_head(self) -> keras.Model:
        """(tiles, f) as they are -> scores (tiles, g), in the panel's standardised unit.

        Raises:
            InputError: a network that sees a slide's mean alone.
        """
        if not self.scores_tiles:
            raise InputError(f"{self.architecture} sees a slide's mean alone: no tile has scores")
        tiles = keras.Input((len(self.mean),), name="features")
        scale = keras.layers.Normalization(
            mean=self.mean, variance=np.square(self.deviation), name="standardised"
        )
        bag = keras.ops.expand_dims(scale(tiles), 0)
        scores = he2rna.tile_scores(self.model)(bag)
        return keras.Model(tiles, keras.ops.squeeze(scores, 0), name="tile_head")

    def _standardised(self, features: np.ndarray) -> np.ndarray:
        return ((np.asarray(features) - self.mean) / self.deviation).astype(np.float32)


def _mean_of_best(scores: np.ndarray, times: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """(g,) the mean of the k highest of (n, g) scores, averaged over `ks`, of which each is there
    (n,) `times` times; parts of a tile count as parts."""
    order = np.argsort(-scores, axis=0, kind="stable")
    best = np.take_along_axis(scores, order, axis=0)
    upto = np.cumsum(times[order], axis=0)
    before = upto - times[order]
    parts = [np.clip(k - before, 0, upto - before) for k in ks]
    return np.mean([(best * part).sum(axis=0) / part.sum(axis=0) for part in parts], axis=0)


def slide_index(names: Sequence[str], patients: Sequence[str]) -> splits.SpotIndex:
    """Slides as `splits` takes spots: each one a section of its own."""
    n = len(names)
    return splits.SpotIndex(np.array(names), np.array(patients), np.zeros((n, 2)), np.zeros(n))


def inner_groups(index: splits.SpotIndex, rows: np.ndarray) -> list[splits.Fold]:
    """Groups of training slides that settings are chosen on.

    Raises:
        InputError: a training side that cannot be split.
    """
    return splits.inner_folds(index, rows, folds=INNER_FOLDS)


def published(architecture: str) -> Training:
    """How its authors trained a network."""
    return _NETWORKS[architecture].TRAINING


def build(architecture: str, genes: int, *, features: int) -> keras.Model:
    """A network of the published size, weights random."""
    return _NETWORKS[architecture].build(genes, features=features)


def train(
    slides: Slides,
    rows: np.ndarray,
    architecture: str,
    session: Session,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> tuple[SlideNetwork, epoch_choice.ChosenTraining]:
    """Trains a network on `rows`, for as many epochs as inner groups of them choose.

    Args:
        slides: of all slides. rows: the training side, at least two.
        architecture: of `slide_level.ARCHITECTURES`.
        session: a folder of its checkpoints is taken for each training.
        epochs: at most; None: as published. batch_size: slides; None: as published.
    Raises:
        InputError: a training side that cannot be split.
    """
    settings = published(architecture)
    size = batch_size or settings.batch_size
    most = epochs or settings.epochs
    mean, deviation = _moments([slides.features[row] for row in rows])

    def batches(some: np.ndarray, **order: Any) -> tf.data.Dataset:
        return datasets.bag_dataset(
            slides.features,
            slides.targets,
            batch_size=size,
            rows=some,
            scale=(mean, deviation),
            **order,
        )

    def network() -> keras.Model:
        keras.utils.set_random_seed(session.seed)
        model = build(architecture, slides.targets.shape[1], features=len(mean))
        last = model.get_layer(_NETWORKS[architecture].LAST)
        last.kernel.assign(np.zeros(last.kernel.shape, np.float32))
        for variable in model.trainable_variables if settings.weight_decay else ():
            # PyTorch's Adam adds the decay times the weight to the gradient, biases included.
            variable.regularizer = keras.regularizers.L2(settings.weight_decay / 2)
        return model

    def train_once(
        some: np.ndarray, *, held: np.ndarray | None, stage: str, epochs: int, bar: tqdm
    ) -> training.Trained:
        validation = None
        if held is not None:
            validation = Validation(
                batches(held),
                epoch_choice.validation_scores(np.zeros(len(held))),
                MONITOR,
                training=(batches(some), epoch_choice.training_scores(np.zeros(len(some)))),
            )
        return training.train(
            network,
            lambda epoch: batches(some, order_seed=(session.seed, epoch)),
            Schedule(
                loss=losses.loss("mse"),
                learning_rate=settings.learning_rate,
                epochs=epochs,
                patience=None if held is None else settings.patience,
                kept_epochs=KEPT_EPOCHS,
            ),
            session.within(stage),
            stage=stage,
            validation=validation,
            callbacks=[epoch_choice.Moving(bar)],
            verbose=0,
        )

    inner = inner_groups(slides.index, rows) if most > 1 else []  # nothing to choose
    made = epoch_choice.trained(
        rows,
        inner,
        train_once,
        epochs=most,
        name=architecture,
        label=f"Network {architecture}",
        monitor=MONITOR,
    )
    return SlideNetwork(architecture, made.model, mean, deviation), made


def _moments(features: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (f,) float32 over all tiles of slides; a constant feature has 1."""
    n = sum(len(part) for part in features)
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in features) / n
    variance = sum(np.square(part - mean).sum(axis=0) for part in features) / n
    deviation = np.sqrt(variance)
    deviation = np.where(deviation > 1e-6 * (np.abs(mean) + 1e-6), deviation, 1.0)
    return mean.astype(np.float32), deviation.astype(np.float32)

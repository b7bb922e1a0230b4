"""HE2RNA's and hist2RNA's networks, trained on slides with bulk expression alone.

Trained with their published loss, rates, batches and patience; epochs are chosen on inner groups of
the training side (`predictors.epoch_choice`), where all held-out slides of a group count as one
section: `val_gene_r` is r of a gene over its slides. Features are standardised by the training
slides' tiles, which the published networks, on features of ReLUs, left as they were; targets are
the panel's standardised unit.
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
from histospace_tf.training import Schedule, Session, Validation

_NETWORKS: dict[str, ModuleType] = {"he2rna": he2rna, "hist2rna": hist2rna}
INNER_FOLDS = 4  # at most


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

    def _standardised(self, features: np.ndarray) -> np.ndarray:
        return ((np.asarray(features) - self.mean) / self.deviation).astype(np.float32)


def slide_index(names: Sequence[str], patients: Sequence[str]) -> splits.SpotIndex:
    """Slides as `splits` takes spots: each one a section of its own."""
    n = len(names)
    return splits.SpotIndex(np.array(names), np.array(patients), np.zeros((n, 2)), np.zeros(n))


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
                epoch_choice.MONITOR,
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
            ),
            session.within(stage),
            stage=stage,
            validation=validation,
            callbacks=[epoch_choice.Moving(bar)],
            verbose=0,
        )

    inner = splits.inner_folds(slides.index, rows, folds=INNER_FOLDS)
    made = epoch_choice.trained(
        rows, inner, train_once, epochs=most, name=architecture, label=f"Network {architecture}"
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

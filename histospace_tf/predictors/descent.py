"""A linear head that lowers Huber's loss, from the ridge's solution on.

With n spots of weights w (mean one), z the k gene factors of a spot (or its genes, where a head has
no factors) and the kernel V (d, k) the objective is

    mean over spots of w * mean over k of huber(error of z) + strength / (2 n k) * |V|^2

With an endless delta Huber's loss is half a square and this is the ridge's objective, so one
strength means the same to both. The penalty is part of the loss: AdamW's decoupled decay, which is
divided by no gradient's size, has its rest elsewhere than at the minimum of loss and penalty.

Errors are of factors, in their deviations, as the ridge's are, and not of the genes that are
decoded from them. A gene's counts are skewed, so that by genes the spots that express it much lose
their say (HER2ST, delta 1: a mean gene_r of 0.292 by genes, 0.300 by factors, 0.301 of the ridge).

The objective is convex, and Huber's loss curves nowhere more than half a square does. So a quadric
of the ridge's curvature that touches the objective lies above it elsewhere, and a step to that
one's minimum never raises the objective (majorisation: Hunter & Lange, The American Statistician
58, 2004). The training runs in coordinates in which that curvature is 1 / k in all directions: then
the step is plain gradient descent at a rate of k. There is no rate to choose, no momentum, no seed,
and by whole epochs no order of batches. Each epoch leaves of the distance about the share of errors
beyond delta: ten leave less than a thousandth where that is below a half.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import outputs, training
from histospace_tf.config import RegressorConfig
from histospace_tf.data_pipelines import datasets
from histospace_tf.models import losses, regressor
from histospace_tf.predictors import ridge_head
from histospace_tf.predictors.ridge_head import Ridges
from histospace_tf.training import Schedule, Session


def lower(
    head: keras.Model,
    ridges: Ridges,
    weights: np.ndarray,
    settings: RegressorConfig,
    session: Session,
    *,
    strength: float,
    stage: str,
) -> list[dict[str, Any]]:
    """Sets the head's learned layer to what settings.epochs of descent reach.

    Args:
        head: of `regressor.build_head`, linear, its feature scale and gene factors set.
        ridges: of the head, on the training spots.
        weights: (n,) of those spots, above 0; their scale has no effect.
        settings: loss, huber_delta, epochs, and batch_size, which tells on memory alone.
        session: devices; the folder `stage` of its checkpoints is this training's.
        strength: of the penalty.
        stage: its name in the history.
    Returns:
        Rows of history.csv; the loss of the first is the ridge's own.
    """
    n, units = ridges.wanted.shape
    directions, shares, start = ridges.centred.round_coordinates(strength)
    directions *= np.sqrt(n)

    def coordinates() -> Iterator[np.ndarray]:
        for part in ridges.blocks():
            yield (part - ridges.mean) @ directions

    def build() -> keras.Model:
        return regressor.build_linear(start / np.sqrt(n), ridges.level, shares / units)

    own = session.within(stage)
    with (
        outputs.scratch_folder(own.checkpoints / "coordinates.npy") as scratch,
        tqdm(total=settings.epochs, desc=f'Head "{stage}"', unit="epoch", delay=2) as bar,
    ):
        path = scratch / "coordinates.npy"
        outputs.write_npy(path, (n, len(shares)), np.float32, coordinates())
        inputs = {"features": np.load(path, mmap_mode="r")[:, None]}

        def batches(epoch: int) -> tf.data.Dataset:
            return datasets.feature_dataset(
                inputs,
                ridges.wanted,
                batch_size=settings.batch_size,
                rows=np.arange(n),
                weights=weights / weights.mean(),
            )

        trained = training.train(
            build,
            batches,
            Schedule(
                loss=losses.loss(settings.loss, huber_delta=settings.huber_delta),
                learning_rate=float(units),
                epochs=settings.epochs,
                whole_epochs=True,
            ),
            own,
            stage=stage,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update(1))],
            verbose=0,
        )
    learned = trained.model.get_layer("learned")
    kernel = directions @ np.asarray(learned.kernel, np.float64)
    bias = np.asarray(learned.bias, np.float64) - ridges.mean @ kernel
    ridge_head.set_solution(head, (kernel.astype(np.float32), bias.astype(np.float32)))
    return [{**row, "strength": strength} for row in trained.history]

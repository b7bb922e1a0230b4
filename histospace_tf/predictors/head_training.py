"""The regression stage: kept features and targets -> a head.

The strength of a ridge, or the epoch of a training, is chosen on inner groups of the training side,
each left out in turn; the head is then fitted on all of the training side with it. The held-out
spots take no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import bundle, training
from histospace_tf.cohort import features
from histospace_tf.config import Config, RegressorConfig
from histospace_tf.data_pipelines import datasets, splits
from histospace_tf.models import losses, regressor
from histospace_tf.outputs import say
from histospace_tf.predictors import ridge_head
from histospace_tf.scores import metrics

# What the epoch is chosen by: the loss would be ruled by spots and genes of many counts.
MONITOR = "val_gene_r"
INPUTS = ("features",)  # of every architecture but "context"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head and how it came about.

    epochs: that it was trained for; strength: of the ridge that it is. One of them is None.
    history: rows of history.csv.
    """

    head: keras.Model
    epochs: int | None
    strength: float | None
    history: list[dict[str, object]]
    inner: list[splits.Fold]

    @property
    def choice(self) -> dict[str, float]:
        """What the inner groups chose, by name."""
        chosen = {"epochs": self.epochs, "strength": self.strength}
        return {name: value for name, value in chosen.items() if value is not None}

    def __str__(self) -> str:
        count = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        how = count if self.epochs else f"ridge of strength {self.strength:.3g}"
        return f"{how}, chosen on {len(self.inner)} inner group(s)"


def train_head(
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    index: splits.SpotIndex,
    rows: np.ndarray,
    settings: RegressorConfig,
    *,
    seed: int,
    weights: np.ndarray,
    strategy: tf.distribute.Strategy,
    checkpoint: Path,
    resume: bool,
) -> TrainedHead:
    """Fits a head on `rows`, as settings.solver says.

    Args:
        inputs: "features" (n, symmetries, ...) and slide context (n, f), of all spots.
        targets: (n, g) float32 standardised, of all spots; only `rows` are read.
        index: section, patient and centre of all spots, for the inner split.
        rows: the training side.
        settings: architecture, loss, epochs, ...
        seed: order of spots, symmetries, initial weights and dropout.
        weights: (n,) of all spots; a training in epochs takes no notice of them.
        strategy: of `distribution.strategy`.
        checkpoint: folder that holds a folder a training.
        resume: go on from what stands there.
    """
    inputs = inputs_of(settings, inputs)
    name = settings.architecture
    folds = splits.inner_folds(index, rows, folds=settings.inner_folds)
    if settings.solver == "ridge":
        return _solve_head(inputs, targets, index, rows, settings, folds, weights, seed=seed)

    def run(
        train_rows: np.ndarray, held: np.ndarray | None, *, epochs: int, stage: str
    ) -> training.Trained:
        return train_epochs(
            inputs,
            targets,
            index,
            train_rows,
            held,
            settings,
            epochs=epochs,
            patience=settings.patience if held is not None else None,
            bar=bar,
            seed=seed,
            strategy=strategy,
            checkpoint=checkpoint / stage,
            resume=resume,
            stage=stage,
        )

    history: list[dict[str, object]] = []
    curves = []
    with tqdm(total=settings.epochs * (len(folds) + 1), unit="epoch", delay=2) as bar:
        for number, fold in enumerate(folds, start=1):
            bar.set_description(f'Head "{name}", inner group {number} of {len(folds)}')
            trained = run(
                fold.train, fold.test, epochs=settings.epochs, stage=f"{name}_inner{number}"
            )
            history += trained.history
            curves.append([float(row[MONITOR]) for row in trained.history])
            bar.update(settings.epochs * number - bar.n)  # epochs that early stopping saved
        epochs = best_epoch(curves, [len(fold.test) for fold in folds])
        bar.total = settings.epochs * len(folds) + epochs
        bar.set_description(f'Head "{name}", whole training side')
        trained = run(rows, None, epochs=epochs, stage=name)
    return TrainedHead(trained.model, epochs, None, history + trained.history, folds)


def train_epochs(
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    index: splits.SpotIndex,
    rows: np.ndarray,
    held: np.ndarray | None,
    settings: RegressorConfig,
    *,
    epochs: int,
    patience: int | None,
    bar: tqdm,
    seed: int,
    strategy: tf.distribute.Strategy,
    checkpoint: Path,
    resume: bool,
    stage: str,
) -> training.Trained:
    """One training of a head on `rows`, scored after every epoch on `held` where there is one.

    Args:
        inputs: those that the architecture takes.
        patience: epochs without a better MONITOR before it stops; None: all `epochs`.
        bar: moves on by one an epoch.
        stage: its name in the history.
    """

    def data(epoch: int) -> tf.data.Dataset:
        return datasets.feature_dataset(
            inputs,
            targets,
            batch_size=settings.batch_size,
            rows=rows,
            order_seed=(seed, epoch),
        )

    validation = None
    if held is not None:
        validation = datasets.feature_dataset(inputs, targets, batch_size=256, rows=held)
    return training.train(
        lambda: build(
            settings,
            inputs,
            targets,
            rows,
            seed=seed,
            synchronized=strategy.num_replicas_in_sync > 1,
        ),
        data,
        loss=losses.loss(settings.loss, huber_delta=settings.huber_delta),
        learning_rate=learning_rate(settings, len(rows)),
        weight_decay=settings.weight_decay,
        epochs=epochs,
        patience=patience,
        validation_data=validation,
        validation_scores=None if held is None else validation_scores(index.section[held]),
        monitor="val_loss" if held is None else MONITOR,
        strategy=strategy,
        checkpoint=checkpoint,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update(1))],
        verbose=0,
        resume=resume,
        stage=stage,
    )


def _solve_head(
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    index: splits.SpotIndex,
    rows: np.ndarray,
    settings: RegressorConfig,
    folds: list[splits.Fold],
    weights: np.ndarray,
    *,
    seed: int,
) -> TrainedHead:
    """A ridge whose strength the inner folds choose."""
    name = settings.architecture
    history: list[dict[str, object]] = []
    scores: list[list[float]] = []
    for number, fold in enumerate(tqdm(folds, desc=f'Head "{name}"', unit="group", delay=2), 1):
        head = build(settings, inputs, targets, fold.train, seed=seed, weights=weights)
        found = ridge_head.solved(
            head, inputs, targets, fold.train, weights[fold.train], ridge_head.STRENGTHS
        )
        correlations = validation_scores(index.section[fold.test])
        scores.append([])
        predicted = ridge_head.predictions(head, inputs, fold.test, found)
        for strength, values in zip(ridge_head.STRENGTHS, predicted, strict=True):
            score = correlations(values, targets[fold.test])
            scores[-1].append(score[MONITOR])
            history.append({"stage": f"{name}_inner{number}", "strength": strength, **score})
    strength = ridge_head.best_strength(
        scores, [len(fold.test) for fold in folds], ridge_head.STRENGTHS
    )
    head = build(settings, inputs, targets, rows, seed=seed, weights=weights)
    (solution,) = ridge_head.solved(head, inputs, targets, rows, weights[rows], [strength])
    ridge_head.set_solution(head, solution)
    history.append({"stage": name, "strength": strength})
    return TrainedHead(head, None, strength, history, folds)


def inputs_of(settings: RegressorConfig, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of `inputs` that the architecture takes."""
    in_context = settings.architecture == "context"
    return {name: inputs[name] for name in (regressor.CONTEXT_INPUTS if in_context else INPUTS)}


def build(
    settings: RegressorConfig,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    rows: np.ndarray,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """A head yet to fit, with feature scale and gene factors of the training spots `rows`."""
    keras.utils.set_random_seed(seed)
    head = regressor.build_head(
        inputs["features"].shape[2:], targets.shape[1], settings, synchronized=synchronized
    )
    if settings.architecture == "pooled":
        regressor.set_feature_scale(head, *features.moments(inputs["features"], rows))
    if settings.factors:
        wanted = targets[rows]
        if weights is not None:
            wanted = wanted * np.sqrt(weights[rows] / weights[rows].mean())[:, None]
        regressor.set_gene_factors(head, regressor.gene_factors(wanted, settings.factors))
    return head


def learning_rate(
    settings: RegressorConfig, spots: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The configured rate; its decay runs over all the epochs that there may be.

    So epoch k of the inner trainings and of the last one, which stops at the chosen epoch, learn at
    the same rate.
    """
    if settings.decay == "none":
        return settings.learning_rate
    batches = -(-spots // settings.batch_size)
    return keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * batches)


def best_epoch(curves: list[list[float]], spots: list[int]) -> int:
    """The epoch, from 1, of the highest score, averaged over inner folds by their spots.

    A fold that stopped early keeps its last score for the epochs that it did not run.
    """
    longest = max(len(curve) for curve in curves)
    filled = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
    return int(np.argmax(np.average(filled, axis=0, weights=spots))) + 1


def validation_scores(
    sections: np.ndarray,
) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """Both correlations of standardised values, averaged over the validation spots' sections."""

    def scores(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
        found = [
            (
                metrics.gene_r(predicted[sections == name], measured[sections == name]),
                metrics.spot_r(predicted[sections == name], measured[sections == name]),
            )
            for name in np.unique(sections)
        ]
        # A section whose every gene is constant, such as one of a single spot, says nothing.
        gene_r, spot_r = (
            float(np.mean([r for r in column if not np.isnan(r)] or [0.0]))
            for column in zip(*found, strict=True)
        )
        return {"val_gene_r": gene_r, "val_spot_r": spot_r}

    return scores


def train_heads(
    inputs: dict[str, np.ndarray],
    learned: np.ndarray,
    index: splits.SpotIndex,
    rows: np.ndarray,
    config: Config,
    *,
    weights: np.ndarray,
    strategy: tf.distribute.Strategy,
    checkpoint: Path,
    resume: bool,
) -> list[TrainedHead]:
    """The head and, where that needs slide context, the single-tile head after it."""
    heads = []
    own = config.regressor.architecture
    for architecture in dict.fromkeys((own, bundle.SINGLE_TILE.get(own, own))):
        trained = train_head(
            inputs,
            learned,
            index,
            rows,
            dataclasses.replace(config.regressor, architecture=architecture),
            seed=config.seed,
            weights=weights,
            strategy=strategy,
            checkpoint=checkpoint,
            resume=resume,
        )
        say(f'Head "{architecture}": {trained}.')
        heads.append(trained)
    return heads

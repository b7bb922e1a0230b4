"""The regression stage: kept features and targets -> a head.

The strength of a penalty, or the epoch of a training, is chosen on inner groups of the training
side, each left out in turn; the head is then fitted on all of the training side with it. An epoch
may also be fixed (`regressor.epoch_choice`): then there are no inner groups. The held-out spots
take no part.

An epoch is chosen as `epoch_choice` says; early stopping (`regressor.patience`) watches the same
column.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import training
from histospace_tf.config import RegressorConfig
from histospace_tf.data_pipelines import datasets, splits
from histospace_tf.models import losses
from histospace_tf.predictors import descent, epoch_choice, ridge_head
from histospace_tf.predictors.head_data import HeadData, build, inputs_of
from histospace_tf.training import Schedule, Session, Validation

STRENGTH_MONITOR = "val_gene_r"  # what a ridge's strength is chosen by


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head and how it came about.

    epochs: that it was trained for; None: it is a ridge's solution.
    strength: of the penalty of a ridge, or of a descent from one; None: it was trained by Adam.
    history: rows of history.csv.
    inner: groups that chose; empty where the number of epochs is fixed.
    most: epochs that there might have been.
    """

    head: keras.Model
    epochs: int | None
    strength: float | None
    history: list[dict[str, object]]
    inner: list[splits.Fold]
    most: int | None = None

    @property
    def choice(self) -> dict[str, Any]:
        """How long it was trained or how strong its penalty is, and what that was chosen by."""
        if self.epochs is None:
            return {"strength": self.strength}
        if self.strength is not None:
            epochs = {"epochs": self.epochs, "most": self.epochs, "by": "fixed"}
            return {"strength": self.strength, **epochs}
        by = epoch_choice.MONITOR if self.inner else "fixed"
        return {"epochs": self.epochs, "most": self.most, "by": by}

    def __str__(self) -> str:
        count = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        how = count if self.strength is None else f"ridge of strength {self.strength:.3g}"
        if not self.inner:
            return f"{how}, as set"
        how += f", chosen on {len(self.inner)} inner group(s)"
        descended = self.strength is not None and self.epochs is not None
        return f"{how}, then {count} of descent" if descended else how


def train_head(
    data: HeadData,
    rows: np.ndarray,
    settings: RegressorConfig,
    session: Session,
    *,
    stage: str | None = None,
) -> TrainedHead:
    """Fits a head on `rows`, as settings.solver says.

    Args:
        data: of all spots; only `rows` are read.
        rows: the training side.
        settings: architecture, loss, epochs, ...
        session: seed of order, symmetries, initial weights and dropout; devices, checkpoints.
        stage: its name in the history, with "_inner1" and so on for inner groups; None: the
            architecture.
    """
    data = dataclasses.replace(data, inputs=inputs_of(settings, data.inputs))
    name = stage or settings.architecture
    folds = []
    if settings.uses_inner_groups:
        folds = splits.inner_folds(data.index, rows, folds=settings.inner_folds)
    if settings.solver != "adam":
        return _solve_head(data, rows, settings, folds, session, stage=name)

    def train(some: np.ndarray, **given: Any) -> training.Trained:
        return train_epochs(data, some, settings, session, **given)

    trained = epoch_choice.trained(
        rows, folds, train, epochs=settings.epochs, name=name, label=f'Head "{name}"'
    )
    return TrainedHead(trained.model, trained.epochs, None, trained.history, folds, settings.epochs)


def train_epochs(
    data: HeadData,
    rows: np.ndarray,
    settings: RegressorConfig,
    session: Session,
    *,
    held: np.ndarray | None = None,
    stage: str,
    epochs: int | None = None,
    bar: tqdm,
) -> training.Trained:
    """One training of a head.

    Args:
        data: with those inputs that the architecture takes.
        rows: to train on.
        settings: architecture, loss, learning rate, patience, ...
        session: the folder `stage` of its checkpoints is this training's.
        held: rows to be scored on after every epoch; it stops early by them. The training rows'
            correlations then stand in the history, too, as gene_r and spot_r.
        stage: its name in the history.
        epochs: None: settings.epochs.
        bar: of `epoch_choice.progress`; it moves on with every batch.
    """

    def batches(epoch: int) -> tf.data.Dataset:
        return datasets.feature_dataset(
            data.inputs,
            data.targets,
            batch_size=settings.batch_size,
            rows=rows,
            order_seed=(session.seed, epoch),
        )

    def in_order(some: np.ndarray) -> tf.data.Dataset:
        return datasets.feature_dataset(data.inputs, data.targets, batch_size=256, rows=some)

    validation = None
    if held is not None:
        validation = Validation(
            in_order(held),
            epoch_choice.validation_scores(data.index.section[held]),
            epoch_choice.MONITOR,
            training=(
                in_order(rows),
                epoch_choice.training_scores(data.index.section[rows]),
            ),
        )
    return training.train(
        lambda: build(
            data,
            rows,
            settings,
            seed=session.seed,
            synchronized=session.strategy.num_replicas_in_sync > 1,
        ),
        batches,
        Schedule(
            loss=losses.loss(settings.loss, huber_delta=settings.huber_delta),
            learning_rate=learning_rate(settings, len(rows)),
            epochs=settings.epochs if epochs is None else epochs,
            weight_decay=settings.weight_decay,
            patience=None if held is None else settings.patience,
        ),
        session.within(stage),
        stage=stage,
        validation=validation,
        callbacks=[epoch_choice.Moving(bar)],
        verbose=0,
    )


def _solve_head(
    data: HeadData,
    rows: np.ndarray,
    settings: RegressorConfig,
    folds: list[splits.Fold],
    session: Session,
    *,
    stage: str,
) -> TrainedHead:
    """A ridge whose strength the inner folds choose, or what descent from it reaches."""
    seed, inputs, targets, weights = (
        session.seed,
        data.inputs,
        data.targets,
        data.weights,
    )
    history: list[dict[str, object]] = []
    scores: list[list[float]] = []
    for number, fold in enumerate(tqdm(folds, desc=f'Head "{stage}"', unit="group", delay=2), 1):
        head = build(data, fold.train, settings, seed=seed, weighted=True)
        solutions = ridge_head.solved(
            head, inputs, targets, fold.train, weights[fold.train], ridge_head.STRENGTHS
        )
        correlations = epoch_choice.validation_scores(data.index.section[fold.test])
        scores.append([])
        predicted = ridge_head.predictions(head, inputs, fold.test, solutions)
        for strength, values in zip(ridge_head.STRENGTHS, predicted, strict=True):
            score = correlations(values, targets[fold.test])
            scores[-1].append(score[STRENGTH_MONITOR])
            history.append({"stage": f"{stage}_inner{number}", "strength": strength, **score})
    strength = ridge_head.best_strength(
        scores, [len(fold.test) for fold in folds], ridge_head.STRENGTHS
    )
    head = build(data, rows, settings, seed=seed, weighted=True)
    if settings.solver == "ridge":
        (solution,) = ridge_head.solved(head, inputs, targets, rows, weights[rows], [strength])
        ridge_head.set_solution(head, solution)
        history.append({"stage": stage, "strength": strength})
        return TrainedHead(head, None, strength, history, folds)
    history += descent.lower(
        head,
        ridge_head.ridges(head, inputs, targets, rows, weights[rows]),
        weights[rows],
        settings,
        session,
        strength=strength,
        stage=stage,
    )
    return TrainedHead(head, settings.epochs, strength, history, folds)


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

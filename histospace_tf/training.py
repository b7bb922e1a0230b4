"""The one training loop: every model, every strategy, Keras callbacks, checkpoints, resume.

`keras.Model.fit` does not run under several workers, so the loop is our own; on one device it
gives what `fit` gives. A resumed run equals an undisturbed one bit by bit: a checkpoint holds
weights, optimizer, dropout's random state, best weights and the state of early stopping, and the
order of the data is a function of the epoch. (Not the state of callbacks that keep any.)
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import checkpoints, distribution, outputs, provenance
from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """What a job passes along from its first stage to its last.

    strategy: devices, of `distribution.strategy`.
    seed: of every random choice.
    resume: go on from what stands in `checkpoints`; from the start where there is nothing.
    checkpoints: folder of one training's state, or of a folder per training (`within`); every
        worker must see the same one.
    clock: books the seconds of each stage.
    """

    strategy: tf.distribute.Strategy
    seed: int
    resume: bool
    checkpoints: Path
    clock: provenance.Clock = dataclasses.field(default_factory=provenance.Clock)

    def within(self, folder: str) -> Session:
        """The same, with checkpoints in a folder of their own; the clock is shared."""
        return dataclasses.replace(self, checkpoints=self.checkpoints / outputs.file_name(folder))


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """What a training lowers, how fast and how long.

    loss: one value per example by its `call`; averaged over the examples of a global batch.
    learning_rate: of Adam. weight_decay: AdamW's, on kernels alone; 0: plain Adam.
    momentum: in place of Adam, stochastic gradient descent with it; None: Adam.
    epochs: at most.
    whole_epochs: in place of Adam, one step of gradient descent an epoch: the learning rate times
        the mean gradient of all its examples, whatever the batches; for convex losses.
    patience: epochs without a better `Validation.monitor` before it stops; None: never.
    kept_epochs: the state is kept after every so many epochs, and after the last.
    """

    loss: keras.losses.Loss
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    epochs: int
    weight_decay: float = 0.0
    momentum: float | None = None
    whole_epochs: bool = False
    patience: int | None = None
    kept_epochs: int = 1


# predictions, targets -> columns of the history
Scores = Callable[[np.ndarray, np.ndarray], dict[str, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class Validation:
    """What is scored after every epoch, to keep the best one's weights.

    data: batches as the training's, in a fixed order.
    scores: predictions, targets -> history columns, such as {"val_gene_r": 0.2}.
    monitor: the column that tells the best epoch; `is_lower_better` says which way.
    training: batches of training examples in a fixed order, and their scores, for curves alone.
    """

    data: tf.data.Dataset
    scores: Scores | None = None
    monitor: str = "val_loss"
    training: tuple[tf.data.Dataset, Scores] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and how it came about.

    model: with the weights of `best_epoch`.
    history: one row per epoch: stage, epoch (from 1), loss, learning_rate, seconds, and, with
        validation, val_loss (without the model's own losses) and the validation scores. A loss is
        that of the weights before each step; with whole_epochs, of those before the epoch.
    best_epoch: from 1; the last where there is no validation.
    stopped_early: before `epochs` were over.
    """

    model: keras.Model
    history: list[dict[str, Any]]
    best_epoch: int
    stopped_early: bool


def train(
    build_model: Callable[[], keras.Model],
    training_data: Callable[[int], tf.data.Dataset],
    schedule: Schedule,
    session: Session,
    *,
    stage: str,
    validation: Validation | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Trained:
    """Trains, with Adam or as `schedule` says, and keeps the best epoch's weights.

    Args:
        build_model: makes the model; called once, where the strategy's variables are made.
        training_data: epoch, from 0 -> global batches (inputs, targets) or (inputs, targets,
            weights), inputs an array or a dictionary by input name. Order and augmentation depend
            on the epoch alone. With a known cardinality the progress bar shows the time left in the
            first epoch, too.
        schedule: loss, learning rate, epochs.
        session: the state is kept in its checkpoints, which are this training's alone.
        stage: name of this training in the history.
        validation: None: the last epoch's weights are kept.
        verbose: 0 silent, 1 progress bar, 2 one line per epoch.
    Raises:
        InputError: no batches, a loss that is not finite, an unknown `monitor`, `patience` without
            validation, or a checkpoint that does not fit.
    """
    loss, epochs, patience = schedule.loss, schedule.epochs, schedule.patience
    if patience is not None and validation is None:
        raise InputError(f"{stage}: stopping early needs validation data")
    strategy, checkpoint = session.strategy, session.checkpoints
    with strategy.scope():
        model = build_model()
        optimizer = _optimizer(schedule)
        optimizer.build(model.trainable_variables)
        variables = {"model": list(model.variables), "optimizer": list(optimizer.variables)}
        model.compile(optimizer=optimizer, loss=loss)  # callbacks look for the optimizer there
    is_chief = distribution.is_chief(strategy)
    now = checkpoints.Progress()
    if session.resume:
        now = checkpoints.restore(checkpoint, variables) or now
    steps_of = distribution.steps(
        model,
        optimizer,
        loss,
        strategy=strategy,
        with_predictions=validation is not None and validation.scores is not None,
        whole_epochs=schedule.whole_epochs,
    )
    train_step: Callable | None = None
    end_epoch = tf.function(steps_of.end_epoch, autograph=False)
    if validation is not None:
        held_out = distribution.shared_out(validation.data, strategy)
        test_step = tf.function(
            steps_of.look, input_signature=[held_out.element_spec], autograph=False
        )

    bar = verbose if is_chief else 0
    shown: dict[str, Any] = {"verbose": bar, "epochs": epochs, "steps": None}
    watchers = keras.callbacks.CallbackList(
        list(callbacks), add_progbar=bar > 0, model=model, **shown
    )
    model.stop_training = False
    watchers.on_train_begin()
    while len(now.history) < epochs and not now.stopped:
        epoch, started = len(now.history), time.monotonic()
        whole = training_data(epoch)
        steps = int(whole.cardinality())
        watchers.set_params({**shown, "steps": steps if steps > 0 else None})
        watchers.on_epoch_begin(epoch)
        rate = float(np.asarray(optimizer.learning_rate))
        batches = distribution.shared_out(whole, strategy)
        # One trace for every batch size: a resumed run then computes by the same graph.
        train_step = train_step or tf.function(
            steps_of.learn, input_signature=[batches.element_spec], autograph=False
        )
        total, examples = 0.0, 0.0
        for step, batch in enumerate(batches):
            watchers.on_train_batch_begin(step)
            mean, n = (float(value) for value in train_step(batch))
            if not math.isfinite(mean):
                raise InputError(
                    f"{stage}: the loss is {mean} in batch {step + 1} of epoch {epoch + 1}; are "
                    f"all data finite? A learning rate below {rate:g} may help"
                )
            total, examples = total + mean * n, examples + n
            watchers.on_train_batch_end(step, {"loss": total / examples})
        if not examples:
            raise InputError(f"{stage}: nothing to train on; at least one example is needed")
        if schedule.whole_epochs:
            end_epoch(tf.constant(examples, tf.float32))
        logs = {"loss": total / examples}
        if validation is not None:
            monitor = validation.monitor
            watchers.on_test_begin()
            logs |= _validated(test_step, held_out, validation.scores)
            if validation.training is not None:
                again, scores = validation.training
                again = distribution.shared_out(again, strategy)
                own = _validated(test_step, again, scores)
                logs |= {name: value for name, value in own.items() if name != "val_loss"}
            watchers.on_test_end(logs)
            if monitor not in logs:
                raise InputError(f"{stage}: no {monitor!r} to monitor; one of {', '.join(logs)}")
            if _is_better(logs[monitor], now.best_value, monitor):
                now.best_epoch, now.best_value = epoch + 1, logs[monitor]
                now.best_weights = [np.asarray(weight).copy() for weight in model.weights]
        watchers.on_epoch_end(epoch, dict(logs))
        spent = {"learning_rate": rate, "seconds": round(time.monotonic() - started, 3)}
        now.history.append({"stage": stage, "epoch": epoch + 1, **logs, **spent})
        is_stale = patience is not None and epoch + 1 - now.best_epoch >= patience
        now.stopped = epoch + 1 < epochs and (is_stale or bool(model.stop_training))
        is_last = now.stopped or epoch + 1 == epochs
        if is_chief and (is_last or (epoch + 1) % schedule.kept_epochs == 0):
            checkpoints.save(checkpoint, variables, now)
    watchers.on_train_end()
    if now.best_weights:
        checkpoints.assign(model.weights, now.best_weights)
    return Trained(model, now.history, now.best_epoch or len(now.history), now.stopped)


def is_lower_better(monitor: str) -> bool:
    """Whether a column of the history is an error: its name ends with loss, mse or mae."""
    return monitor.endswith(("loss", "mse", "mae"))


def _is_better(value: float, best: float | None, monitor: str) -> bool:
    if best is None or not math.isfinite(value):
        return math.isfinite(value)
    return value < best if is_lower_better(monitor) else value > best


def _validated(
    test_step: Callable,
    batches: Any,
    scores: Scores | None,
) -> dict[str, float]:
    parts = []
    for batch in batches:
        weights, losses, *values = (value.numpy() for value in test_step(batch))
        parts.append([value[weights > 0] for value in (losses * weights, *values)])
    if not parts:
        raise InputError("validation data without an example; leave it out or give some")
    losses, *pairs = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return {"val_loss": float(losses.mean(dtype=np.float64)), **(scores(*pairs) if scores else {})}


def _optimizer(schedule: Schedule) -> keras.optimizers.Optimizer:
    if schedule.whole_epochs or schedule.momentum is not None:
        return keras.optimizers.SGD(schedule.learning_rate, momentum=schedule.momentum or 0.0)
    if not schedule.weight_decay:
        return keras.optimizers.Adam(schedule.learning_rate)
    optimizer = keras.optimizers.AdamW(schedule.learning_rate, weight_decay=schedule.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer

"""How many epochs a training takes: chosen on inner groups of the training side, or fixed.

Each inner group is left out in turn; the training on the whole training side then runs for the
epochs that scored best. The held-out spots take no part.

An epoch is chosen by MONITOR, the mean of both correlations over a group's sections, averaged over
the groups:

* gene_r alone is noise before a head on maps has learned, so that one lucky group picks epoch 1
  (the paper's head on HER2ST's C4: spot_r 0.277 then, 0.550 after 50 epochs);
* spot_r alone is nearly all gene mean where targets are not centred: it rises until levels are
  learned and says little from there on. Their mean needs levels first, maps then. Where targets are
  centred, a constant scores 0 on both, and two noisy readings of one thing are averaged;
* the loss is in units of the targets: the levels in which another patient's slides differ, which no
  image shows, and the genes of many counts would rule it. It also charges a head for the spread of
  its noise, which correlation does not see, and so stops while maps still get better.

Early stopping watches the same column. All of them stand in history.csv. Networks on slides as a
whole are chosen by another column, for a reason of their own (`slide_level.networks`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from histospace_tf.data_pipelines import splits
from histospace_tf.scores import metrics
from histospace_tf.training import Trained, is_lower_better

MONITOR = "val_mean_r"  # what epochs are chosen by: see above
_BAR = "{l_bar}{bar}| {n:.1f}/{total_fmt} epochs [{elapsed}<{remaining}]"


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenTraining:
    """A training on the whole training side, and how its epochs were chosen.

    epochs: that it ran for, of `most`.
    history: rows of history.csv, those of inner groups first.
    inner: groups that chose; empty where the number of epochs is fixed.
    monitor: the column of the history that they chose by.
    """

    model: keras.Model
    epochs: int
    history: list[dict[str, object]]
    inner: list[splits.Fold]
    most: int
    monitor: str = MONITOR

    @property
    def choice(self) -> dict[str, Any]:
        """How long it was trained, and what that was chosen by: `Fitted.choice`."""
        return {
            "epochs": self.epochs,
            "most": self.most,
            "by": self.monitor if self.inner else "fixed",
        }

    def __str__(self) -> str:
        count = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        if not self.inner:
            return f"{count}, as set"
        return f"{count}, chosen on {len(self.inner)} inner group(s)"


def trained(
    rows: np.ndarray,
    folds: Sequence[splits.Fold],
    train: Callable[..., Trained],
    *,
    epochs: int,
    name: str,
    label: str,
    monitor: str = MONITOR,
) -> ChosenTraining:
    """Trains on every inner group's other spots, then on `rows` for the best number of epochs.

    Args:
        rows: the training side.
        folds: inner groups of it; none: the number of epochs is fixed.
        train: one training: rows to train on, and by name `held`, rows that are scored after every
            epoch, into `monitor`, and may stop it early (None: none); `stage`, its name in the
            history; `epochs`, at most; `bar`, of `progress`, which `Moving` moves on.
        epochs: at most.
        name: of the last training in the history; those before are NAME_inner1 and so on.
        label: what the progress bar is called.
        monitor: the column of the history that epochs are chosen by; as in `training.Validation`,
            `training.is_lower_better` says which way.
    """
    history: list[dict[str, object]] = []
    curves = []
    sign = -1.0 if is_lower_better(monitor) else 1.0
    with progress(epochs * (len(folds) + 1), label) as bar:
        for number, fold in enumerate(folds, start=1):
            bar.set_description(f"{label}, inner group {number} of {len(folds)}")
            inner = train(
                fold.train,
                held=fold.test,
                stage=f"{name}_inner{number}",
                epochs=epochs,
                bar=bar,
            )
            history += inner.history
            curves.append([sign * float(row[monitor]) for row in inner.history])
            bar.update(epochs * number - bar.n)  # epochs that early stopping saved
        most = epochs
        if folds:
            epochs = best_epoch(curves, [len(fold.test) for fold in folds])
        bar.total = most * len(folds) + epochs
        bar.set_description(f"{label}, whole training side")
        last = train(rows, held=None, stage=name, epochs=epochs, bar=bar)
    history += last.history
    return ChosenTraining(last.model, epochs, history, list(folds), most, monitor)


def progress(epochs: int, label: str) -> tqdm:
    """A bar of epochs with the time left; it moves by parts of one, for one may take minutes."""
    return tqdm(total=epochs, desc=label, delay=2, bar_format=_BAR)


class Moving(keras.callbacks.Callback):
    """Moves a bar of `progress` on, batch by batch where an epoch's number of them is known."""

    def __init__(self, bar: tqdm) -> None:
        super().__init__()
        self.bar, self.finished = bar, bar.n

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if steps := self.params.get("steps"):
            self.bar.update(self.finished + (batch + 1) / steps - self.bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.finished += 1
        self.bar.update(self.finished - self.bar.n)


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
    """Both correlations of what is learned, averaged over the validation spots' sections, and the
    mean of the two.

    Args:
        sections: (n,) name of each validation spot's section.
    """

    def scores(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
        by_section = [
            (
                metrics.gene_r(predicted[sections == name], measured[sections == name]),
                metrics.spot_r(predicted[sections == name], measured[sections == name]),
            )
            for name in np.unique(sections)
        ]
        # A section whose every gene is constant, such as one of a single spot, says nothing.
        gene_r, spot_r = (
            float(np.mean([r for r in column if not np.isnan(r)] or [0.0]))
            for column in zip(*by_section, strict=True)
        )
        return {"val_gene_r": gene_r, "val_spot_r": spot_r, "val_mean_r": (gene_r + spot_r) / 2}

    return scores


def training_scores(
    sections: np.ndarray,
) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """Both correlations of training spots, for curves alone: columns gene_r and spot_r."""

    def scores(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
        values = validation_scores(sections)(predicted, measured)
        return {name.removeprefix("val_"): values[name] for name in ("val_gene_r", "val_spot_r")}

    return scores

"""How a published network was trained by its authors: facts, for whoever trains it here."""

from __future__ import annotations

import dataclasses
from typing import Literal

import keras


@dataclasses.dataclass(frozen=True)
class Training:
    """An optimizer and its settings.

    optimizer: "adam", or "sgd" with `momentum`.
    learning_rate: in the first step; `rate` says how it falls.
    batch_size: examples of a step: tiles, slides, or whole sections.
    epochs: at most. patience: epochs without a better validation score; None: all are run.
    weight_decay: as a penalty on all weights (L2 in the gradient, PyTorch's Adam).
    cosine: the learning rate falls to 0 along a cosine over all epochs.
    decay_epochs: after so many epochs, each time, it is multiplied by `decay_rate`; 0: never.
    """

    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    cosine: bool = False
    decay_epochs: int = 0
    decay_rate: float = 1.0

    def rate(self, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate of an optimizer that takes `steps` steps an epoch."""
        if self.cosine:
            return keras.optimizers.schedules.CosineDecay(self.learning_rate, self.epochs * steps)
        if self.decay_epochs:
            return keras.optimizers.schedules.ExponentialDecay(
                self.learning_rate, self.decay_epochs * steps, self.decay_rate, staircase=True
            )
        return self.learning_rate

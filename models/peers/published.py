"""How a published network was trained by its authors: facts, for whoever trains it here."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Training:
    """An optimizer and its settings.

    optimizer: "adam", or "sgd" with `momentum`.
    batch_size: examples of a step: tiles, slides, or whole sections.
    epochs: at most. patience: epochs without a better validation score; None: all are run.
    weight_decay: as a penalty on all weights (L2 in the gradient, PyTorch's Adam).
    """

    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0

"""What a job passes along from its first stage to its last."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tensorflow as tf

from histospace_tf import provenance


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """Devices, seed, checkpoints and the time that stages took.

    strategy: of `distribution.strategy`.
    seed: of every random choice.
    resume: go on from what stands in `checkpoints`.
    checkpoints: folder that holds a folder per training; every worker must see the same one.
    clock: books the seconds of each stage.
    """

    strategy: tf.distribute.Strategy
    seed: int
    resume: bool
    checkpoints: Path
    clock: provenance.Clock = dataclasses.field(default_factory=provenance.Clock)

    def within(self, folder: str) -> Session:
        """The same, with checkpoints in a folder of their own; the clock is shared."""
        return dataclasses.replace(self, checkpoints=self.checkpoints / folder)

"""hist2RNA: a slide's expression from the mean of its tiles' features.

Inputs and output are HE2RNA's (`he2rna`): `features` (slides, tiles, f) float32 of a frozen
encoder, `mask` (slides, tiles) bool, False where there is padding; output (slides, genes) float32
in the unit of the targets.

The mean over the tiles of a slide goes through three dense layers with ReLU and a linear one.

Source: Mondol et al., hist2RNA: An Efficient Deep Learning Architecture to Predict Gene Expression
from Breast Cancer Histopathology Images, Cancers 15(9):2569, 2023; sizes from
github.com/raktim-mondol/hist2RNA, step_2_model_training.py. Its first layer is a convolution over
five places of a sequence of one: four fifths of that kernel only ever meet padding, and are left
out here, where it is the dense layer that the rest amounts to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from histospace_tf.models.peers.published import Training

# Lowers the mean squared error of log2(1 + expression).
TRAINING = Training(
    "adam", learning_rate=1e-4, batch_size=12, epochs=500, patience=20, weight_decay=0.01
)
LAST = "expression"  # the layer whose weights are a gene's


@dataclasses.dataclass(frozen=True)
class Size:
    """Units of the hidden layers."""

    hidden: tuple[int, ...] = (256, 512, 512)


PUBLISHED = Size()
SMALL = Size(hidden=(64,))


def build(genes: int, size: Size = PUBLISHED, *, features: int) -> keras.Model:
    """The network of the module's top.

    Args:
        genes: of the output.
        features: f, numbers per tile (published: 2048 of ResNet-50, among others).
    """
    tiles = keras.Input((None, features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    hidden = MeanOfTiles(name="mean")(tiles, mask)
    for i, units in enumerate(size.hidden, start=1):
        hidden = keras.layers.Dense(units, activation="relu", name=f"hidden{i}")(hidden)
    expression = keras.layers.Dense(genes, name=LAST)(hidden)
    return keras.Model({"features": tiles, "mask": mask}, expression, name="hist2rna")


@keras.saving.register_keras_serializable(package="histospace_tf")
class MeanOfTiles(keras.layers.Layer):
    """Mean over a slide's tiles: (slides, tiles, f), (slides, tiles) bool -> (slides, f).

    A slide without a tile gives 0.
    """

    def call(self, tiles: Any, present: Any) -> Any:
        n = ops.sum(ops.cast(present, tiles.dtype), axis=1, keepdims=True)
        kept = ops.where(ops.expand_dims(present, -1), tiles, 0.0)
        return ops.sum(kept, axis=1) / ops.maximum(n, 1)

    def compute_output_shape(
        self, tiles_shape: Sequence[int | None], present_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (tiles_shape[0], tiles_shape[2])

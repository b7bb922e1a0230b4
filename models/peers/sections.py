"""What networks on whole sections share: places on the grid, and how spots see each other.

One example is a section: inputs (b, spots, ...), b sections with equally many spots; nothing is
padded, so b is 1 in practice.

Attention lets every spot see every other, means over neighbours those around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from histospace_tf.vocabulary import InputError

GREY_LEVELS = 255.0  # the published networks take pixels from 0 to 255; tiles here are in [0, 1]
_NORM_EPSILON = 1e-5


def check_positions(position: np.ndarray, places: int, *, section: str) -> None:
    """Whether a network has places for all spots of a section.

    Args:
        position: (spots, 2) column and row on the grid, whole numbers.
        places: columns and rows that the network knows, from 0.
    Raises:
        InputError: a spot lies beyond them.
    """
    beyond = ((position < 0) | (position >= places)).any(axis=1)
    if beyond.any():
        column, row = position[np.argmax(beyond)]
        raise InputError(
            f"section {section!r}: {beyond.sum()} of {len(position)} spots lie outside the "
            f"network's {places} columns and rows (first: column {column}, row {row}). A size of "
            f"at least {int(position.max()) + 1} places works, with both counted from 0"
        )


def linear() -> keras.initializers.Initializer:
    """PyTorch's start of a linear layer's kernel: uniform, up to 1 / the root of its inputs."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def transformer_block(spots: Any, name: str, *, heads: int, hidden: int, dropout: float) -> Any:
    """Attention over the spots, then two dense layers on each; both normalised first, and added.

    Args:
        spots: (b, spots, width).
        heads: of 64 numbers each.
        hidden: units between the two dense layers.
        dropout: after attention and after each dense layer.
    """
    width = spots.shape[-1]
    attended = SelfAttention(heads, name=f"{name}_attention")(normalised(spots, f"{name}_a"))
    attended = keras.layers.Dropout(dropout, name=f"{name}_attention_dropout")(attended)
    spots = keras.layers.Add(name=f"{name}_attended")([spots, attended])
    inner = normalised(spots, f"{name}_b")
    for units, activation in ((hidden, "gelu"), (width, None)):
        layer = "hidden" if activation else "out"
        inner = keras.layers.Dense(
            units, activation=activation, kernel_initializer=linear(), name=f"{name}_{layer}"
        )(inner)
        inner = keras.layers.Dropout(dropout, name=f"{name}_{layer}_dropout")(inner)
    return keras.layers.Add(name=f"{name}_added")([spots, inner])


def normalised(spots: Any, name: str) -> Any:
    """Each spot's numbers to mean 0 and deviation 1, then scaled and shifted as learned."""
    layer = keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, name=f"{name}_normalisation")
    return layer(spots)


@keras.saving.register_keras_serializable(package="histospace_tf")
class GridPlaces(keras.layers.Layer):
    """Learned numbers of a spot's column plus those of its row.

    (b, spots, 2) int32 column and row, each from 0 to `places` - 1 -> (b, spots, width).
    """

    def __init__(self, places: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.places, self.width = places, width

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.columns, self.rows = (
            self.add_weight(
                shape=(self.places, self.width),
                initializer=keras.initializers.RandomNormal(stddev=1.0),  # as PyTorch's embeddings
                name=name,
            )
            for name in ("columns", "rows")
        )

    def call(self, position: Any) -> Any:
        column, row = position[..., 0], position[..., 1]
        return ops.take(self.columns, column, axis=0) + ops.take(self.rows, row, axis=0)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "places": self.places, "width": self.width}


@keras.saving.register_keras_serializable(package="histospace_tf")
class SelfAttention(keras.layers.Layer):
    """Every spot's weighted mean over all spots, for each head: (b, spots, width) to the same.

    Query, key and value have no bias, the output has one, as in the published networks;
    `keras.layers.MultiHeadAttention` has all or none.
    """

    def __init__(self, heads: int, head_size: int = 64, **options: Any) -> None:
        super().__init__(**options)
        self.heads, self.head_size = heads, head_size

    def build(self, input_shape: Sequence[int | None]) -> None:
        inner = self.heads * self.head_size
        self.joined = keras.layers.Dense(
            3 * inner, use_bias=False, kernel_initializer=linear(), name="query_key_value"
        )
        self.joined.build(input_shape)
        self.out = keras.layers.Dense(input_shape[-1], kernel_initializer=linear(), name="out")
        self.out.build((*input_shape[:-1], inner))

    def call(self, spots: Any) -> Any:
        b, n = ops.shape(spots)[:2]
        parts = ops.reshape(self.joined(spots), (b, n, 3, self.heads, self.head_size))
        attended = ops.dot_product_attention(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2])
        return self.out(ops.reshape(attended, (b, n, self.heads * self.head_size)))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "head_size": self.head_size}


@keras.saving.register_keras_serializable(package="histospace_tf")
class EachSpot(keras.layers.Wrapper):
    """A model of one spot on all spots of sections: (b, spots, ...) -> (b, spots, ...)."""

    def call(self, inputs: Any) -> Any:
        b, n = ops.shape(inputs)[:2]
        outputs = self.layer(ops.reshape(inputs, (-1, *inputs.shape[2:])))
        return ops.reshape(outputs, (b, n, *outputs.shape[1:]))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:2], *self.layer.output_shape[1:])


@keras.saving.register_keras_serializable(package="histospace_tf")
class NeighbourMean(keras.layers.Layer):
    """GraphSAGE's step: a dense layer on the mean of a spot's neighbours, of length 1 (or 0).

    (b, spots, f), (b, spots, spots) -> (b, spots, units). A spot without neighbours gives zeros.
    """

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def build(
        self, spots_shape: Sequence[int | None], adjacency_shape: Sequence[int | None]
    ) -> None:
        self.kernel = self.add_weight(
            shape=(spots_shape[-1], self.units), initializer="glorot_uniform", name="kernel"
        )

    def call(self, spots: Any, adjacency: Any) -> Any:
        total = ops.sum(adjacency, axis=-1, keepdims=True)
        mean = ops.matmul(adjacency / ops.where(total > 0, total, 1.0), spots)
        gathered = ops.relu(ops.matmul(mean, self.kernel))
        # The root's slope at zero is infinite: the bound keeps the gradient of zeros at zero.
        square = ops.sum(ops.square(gathered), axis=-1, keepdims=True)
        return gathered / ops.sqrt(ops.maximum(square, 1e-24))

    def compute_output_shape(
        self, spots_shape: Sequence[int | None], adjacency_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*spots_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

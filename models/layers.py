"""Layers that Keras lacks: statistics of feature maps, and features on a common scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

# Of a channel over the whole tile, beside mean and deviation; a maximum is one pixel's accident.
QUANTILES = (0.1, 0.5, 0.9, 0.98)
# Quantiles come from a regular sample of at most about this many rows and columns of a map.
SAMPLED_SIDE = 28
STATISTICS = 2 + len(QUANTILES) + 2  # of every channel: those, and mean and deviation of the centre
# Feature deviations below this are noise of float32 arithmetic, or a channel that is switched off.
SMALLEST_DEVIATION = 1e-3
# Standardised features farther out than this say no more than "far out".
LARGEST_STANDARDISED = 3.0


@keras.saving.register_keras_serializable(package="histospace_tf")
class MapStatistics(keras.layers.Layer):
    """Statistics of each channel over a map and over its centre.

    (n, h, w, c) -> (n, STATISTICS * c): mean and deviation of the whole map, its QUANTILES, mean
    and deviation of the centre. The centre is 4/7 of the side (128 px of a 224 px tile), at least
    one pixel. A layer and not functional operations, because the sides are known only when it runs.
    """

    def call(self, maps: Any) -> Any:
        rows, columns = ops.shape(maps)[1:3]
        top, left = rows * 3 // 14, columns * 3 // 14
        centre = maps[:, top : rows - top, left : columns - left]
        quantiles = _quantiles(maps, self.ordered)
        return ops.concatenate([*_moments(maps), *quantiles, *_moments(centre)], axis=-1)

    def ordered(self, sample: Any) -> Any:
        """(n, m, c), each channel's m values in rising order."""
        return ops.sort(sample, axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        channels = input_shape[-1]
        assert channels is not None  # an encoder's channels are always known
        return (input_shape[0], STATISTICS * channels)


@keras.saving.register_keras_serializable(package="histospace_tf")
class FeatureScale(keras.layers.Layer):
    """Standardises features by a mean and a deviation that are set, not learned.

    `keras.layers.Normalization` does the same, but keeps using its old numbers after
    `set_weights`; this layer's two weights are all the state that it has.
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = (input_shape[-1],)
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.deviation = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="deviation"
        )

    def call(self, features: Any) -> Any:
        return standardised(features, self.mean, self.deviation)


def _moments(maps: Any) -> tuple[Any, Any]:
    mean = ops.mean(maps, axis=(1, 2), keepdims=True)
    variance = ops.mean(ops.square(maps - mean), axis=(1, 2))
    # The root's slope at zero is infinite: 1e-6 keeps the gradient of a blank tile finite.
    return ops.mean(maps, axis=(1, 2)), ops.sqrt(variance + 1e-6)


def _quantiles(maps: Any, ordered_by: Callable[[Any], Any]) -> list[Any]:
    """(n, c) for each of QUANTILES: the nearest rank in the sorted sample."""
    rows, columns = ops.shape(maps)[1:3]
    down, across = _stride(rows), _stride(columns)
    sample = maps[:, ::down, ::across]
    # Not from the sample's shape: a graph loses its rank where the strides are tensors.
    last = -(-rows // down) * -(-columns // across) - 1
    ordered = ordered_by(ops.reshape(sample, (-1, last + 1, maps.shape[-1])))
    if isinstance(last, int):
        return [ordered[:, round(q * last)] for q in QUANTILES]
    return [  # sides that are known only when it runs
        ordered[:, ops.cast(ops.round(q * ops.cast(last, "float32")), "int32")] for q in QUANTILES
    ]


def _stride(side: Any) -> Any:
    if isinstance(side, int):
        return max(side // SAMPLED_SIDE, 1)
    return ops.maximum(side // SAMPLED_SIDE, 1)


def standardised(features: Any, mean: Any, deviation: Any) -> Any:
    """(n, f) features less `mean`, in deviations, at most LARGEST_STANDARDISED from zero.

    Args:
        mean, deviation: of each feature, (f,) or (n, f).
    """
    scaled = (features - mean) / ops.maximum(deviation, SMALLEST_DEVIATION)
    return ops.clip(scaled, -LARGEST_STANDARDISED, LARGEST_STANDARDISED)


@keras.saving.register_keras_serializable(package="histospace_tf")
class PixelForm(keras.layers.Layer):
    """Pixels in [0, 1] as an encoder wants them: its channels by `order`, times `scale`, plus
    `offset`, three numbers each."""

    def __init__(
        self, order: Sequence[int], scale: Sequence[float], offset: Sequence[float], **given: Any
    ) -> None:
        super().__init__(**given)
        self.order, self.scale, self.offset = list(order), list(scale), list(offset)

    def call(self, tiles: Any) -> Any:
        channels = [
            tiles[..., channel : channel + 1] * scale + offset
            for channel, scale, offset in zip(self.order, self.scale, self.offset, strict=True)
        ]
        return ops.concatenate(channels, axis=-1)

    def get_config(self) -> dict[str, Any]:
        own = {"order": self.order, "scale": self.scale, "offset": self.offset}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="histospace_tf")
class TokenFeatures(keras.layers.Layer):
    """(n, t, c) tokens of a transformer -> (n, c): the first, which stands for the image, or the
    mean from number `mean_from` on; both, (n, 2 c), where both are asked for."""

    def __init__(self, with_class: bool, mean_from: int | None, **given: Any) -> None:
        super().__init__(**given)
        self.with_class, self.mean_from = with_class, mean_from

    def call(self, tokens: Any) -> Any:
        parts = [tokens[:, 0]] if self.with_class else []
        if self.mean_from is not None:
            parts.append(ops.mean(tokens[:, self.mean_from :], axis=1))
        return ops.concatenate(parts, axis=-1)

    def get_config(self) -> dict[str, Any]:
        own = {"with_class": self.with_class, "mean_from": self.mean_from}
        return super().get_config() | own

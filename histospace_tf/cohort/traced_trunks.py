"""A trunk as a graph that makes features of tiles: as fast as it gets, on one device or several."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from histospace_tf.data_pipelines import datasets
from histospace_tf.models import layers


class SortedByNumpy(layers.MapStatistics):
    """The same, in a third of the time: NumPy sorts eight times as fast as TensorFlow does.

    Exported models, which cannot call NumPy, have the layer itself.
    """

    def ordered(self, sample: tf.Tensor) -> tf.Tensor:
        values = tf.numpy_function(_sorted, [sample], tf.float32, stateful=False)
        values.set_shape(sample.shape)
        return values


def _sorted(sample: np.ndarray) -> np.ndarray:
    """(n, m, c) by its second axis; a channel's values lie side by side while it works."""
    rows = np.ascontiguousarray(sample.transpose(0, 2, 1))
    rows.sort(axis=-1)
    return rows.transpose(0, 2, 1)


@functools.lru_cache(maxsize=2)  # tracing takes as long as some forty tiles
def traced(trunk: keras.Model, side: int) -> Any:
    """(tiles, code of a symmetry) -> features of the turned tiles, for batches of any size."""

    def as_fast(layer: keras.Layer) -> keras.Layer:
        return _sorting_by_numpy(layer) or layer

    if any(isinstance(layer, layers.MapStatistics) for layer in trunk.layers):
        trunk = keras.models.clone_model(trunk, clone_function=as_fast)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, side, side, 3), tf.float32),
            tf.TensorSpec((), tf.int32),
        ]
    )
    def features_of(tiles: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
        return trunk(datasets.in_symmetry(tiles, code), training=False)

    return features_of


@functools.lru_cache(maxsize=2)
def traced_everywhere(trunk: keras.Model, strategy: tf.distribute.Strategy) -> Any:
    """`traced` of shares of tiles, by a copy of the trunk on every replica; gathered."""

    def anew(layer: keras.Layer) -> keras.Layer:
        return _sorting_by_numpy(layer) or type(layer).from_config(layer.get_config())

    weights = trunk.get_weights()
    with strategy.scope():
        copy = keras.models.clone_model(trunk, clone_function=anew)
        copy.set_weights(weights)

    def of_share(tiles: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
        return copy(datasets.in_symmetry(tiles, code), training=False)

    @tf.function(reduce_retracing=True)
    def features_of(tiles: Any, code: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(of_share, args=(tiles, code)), axis=0)

    return features_of


def _sorting_by_numpy(layer: keras.Layer) -> keras.Layer | None:
    sorts = isinstance(layer, layers.MapStatistics)
    return SortedByNumpy(name=layer.name) if sorts else None

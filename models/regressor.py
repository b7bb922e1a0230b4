"""Regression on a frozen encoder: a trunk makes features of tiles, a head makes expression of them.

    tile (n, s, s, 3) in [0, 1] --trunk--> features --head--> expression (n, genes)

The trunk holds a frozen copy of the encoder and learns nothing, so its features can be computed
once and kept; the head is all that is trained. Expression is in the gene panel's standardised unit.

| architecture | features | head |
|---|---|---|
| flatten | the encoder's last map | convolution blocks, flatten, two dense layers (the paper's) |
| global | the encoder's last map | the same, with the mean over the map in place of flatten |
| pooled | FEATURES_PER_TILE numbers | linear, or a dense layer more, on standardised features |
| context | FEATURES_PER_TILE numbers | the same, on the tile's and its neighbours' features |

"pooled" standardises features by the training tiles' statistics, "context" by the slide's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from histospace_tf.config import RegressorConfig
from histospace_tf.models.autoencoder import (
    BLOCK_CHANNELS,
    BLOCK_OUTPUTS,
    STATISTICS_MOMENTUM,
    frozen_copy,
)
from histospace_tf.vocabulary import InputError

ARCHITECTURES = ("flatten", "global", "pooled", "context")
# Of a channel over the whole tile, beside mean and deviation; a maximum is one pixel's accident.
QUANTILES = (0.1, 0.5, 0.9, 0.98)
# Quantiles come from a regular sample of at most about this many rows and columns of a map.
SAMPLED_SIDE = 28
STATISTICS = 2 + len(QUANTILES) + 2  # of every channel: those, and mean and deviation of the centre
FEATURES_PER_TILE = STATISTICS * sum(BLOCK_CHANNELS)
CONV_CHANNELS = 128
CONTEXT_INPUTS = ("features", "neighbour_features", "slide_mean", "slide_std")
# Feature deviations below this are noise of float32 arithmetic, or a channel that is switched off.
SMALLEST_DEVIATION = 1e-3
# Standardised features further out than this say no more than "far out".
LARGEST_STANDARDISED = 3.0


def build_trunk(encoder: keras.Model, *, architecture: str) -> keras.Model:
    """Tiles -> features, frozen: (n, h, w, 3) in [0, 1] of any size -> "features".

    Args:
        encoder: of `build_encoder`; it is copied and stays as it is.
        architecture: one of ARCHITECTURES. "flatten" and "global" give the encoder's last map,
            (n, h // 8, w // 8, 128); "pooled" and "context" give (n, FEATURES_PER_TILE).
    Raises:
        InputError: an unknown architecture, or an encoder without the named blocks.
    """
    _check_architecture(architecture)
    names = [layer.name for layer in encoder.layers]
    missing = [name for name in BLOCK_OUTPUTS if name not in names]
    if missing:
        raise InputError(
            f"encoder {encoder.name!r} has no layer {missing[0]!r} (its layers: "
            f"{', '.join(names)}); an encoder of build_encoder has"
        )
    encoder = frozen_copy(encoder)
    if architecture in ("flatten", "global"):
        features = encoder.output
    else:
        features = keras.layers.Concatenate(name="features")(
            [
                MapStatistics(name=f"{name}_statistics")(encoder.get_layer(name).output)
                for name in BLOCK_OUTPUTS
            ]
        )
    trunk = keras.Model(encoder.input, features, name="trunk")
    trunk.trainable = False
    return trunk


def build_head(
    feature_shape: Sequence[int],
    n_genes: int,
    config: RegressorConfig,
    *,
    synchronized: bool = False,
) -> keras.Model:
    """Features -> expression (n, n_genes), the part that is trained.

    Args:
        feature_shape: of one tile's features, without the batch: (rows, columns, channels) for
            "flatten" and "global", (f,) for "pooled" and "context".
        n_genes: at least 1.
        config: architecture, conv_blocks, hidden_units, hidden_activation, factors and dropout
            are read. Dropout comes before each dense layer. With factors, so many are predicted
            and decoded by loadings that `set_gene_factors` sets and training leaves alone.
        synchronized: as in `histospace_tf.models.autoencoder`, for the convolution blocks.
    Returns:
        A model of one input, "features"; for "context" of the four CONTEXT_INPUTS, a dictionary
        by name, all (n, f): the tile's own features, the mean of its neighbours', and mean and
        standard deviation of features over the slide. "pooled" standardises its features by what
        `set_feature_scale` sets.
    Raises:
        InputError: a feature shape that does not fit the architecture, or fewer than one gene.
    """
    shape = tuple(int(length) for length in feature_shape)
    architecture = config.architecture
    _check_architecture(architecture)
    if n_genes < 1:
        raise InputError(f"a head of {n_genes} genes; at least 1 works")
    if architecture in ("pooled", "context"):
        if len(shape) != 1:
            raise InputError(f"features of shape {shape}; {architecture!r} takes (f,), one vector")
        inputs, hidden = (_pooled if architecture == "pooled" else _in_context)(shape)
    else:
        smallest = 2**config.conv_blocks
        if len(shape) != 3 or min(shape[:2]) < smallest:
            raise InputError(
                f"features of shape {shape}; {architecture!r} with {config.conv_blocks} "
                f"convolution block(s) takes (rows, columns, channels), at least {smallest} x "
                f"{smallest} of them"
            )
        inputs = keras.Input(shape, name="features")
        hidden = _convolved(inputs, config.conv_blocks, synchronized=synchronized)
        pool = keras.layers.Flatten if architecture == "flatten" else _GLOBAL_MEAN
        hidden = pool(name=architecture)(hidden)
    if config.hidden_units:
        if config.dropout:
            hidden = keras.layers.Dropout(config.dropout, name="feature_dropout")(hidden)
        hidden = keras.layers.Dense(
            config.hidden_units, activation=config.hidden_activation, name="hidden"
        )(hidden)
    if config.dropout:
        hidden = keras.layers.Dropout(config.dropout, name="dropout")(hidden)
    if not config.factors:
        expression = keras.layers.Dense(n_genes, name="expression")(hidden)
        return keras.Model(inputs, expression, name="head")
    # A linear head starts at the mean of the training spots, where its targets are centred.
    start = "glorot_uniform" if config.hidden_units else "zeros"
    factors = keras.layers.Dense(
        min(config.factors, n_genes), kernel_initializer=start, name="factors"
    )(hidden)
    expression = keras.layers.Dense(n_genes, use_bias=False, trainable=False, name="expression")(
        factors
    )
    return keras.Model(inputs, expression, name="head")


def set_gene_factors(head: keras.Model, loadings: np.ndarray) -> None:
    """Gives a head with factors the fixed loadings that decode them, before it is trained.

    Args:
        loadings: (factors, n_genes), of `gene_factors`.
    Raises:
        InputError: a head without factors, or loadings of another shape.
    """
    if "factors" not in [layer.name for layer in head.layers]:
        raise InputError(f'model {head.name!r} has no layer "factors"; config.factors is 0')
    kernel = head.get_layer("expression").kernel
    if np.shape(loadings) != tuple(kernel.shape) or not np.isfinite(loadings).all():
        raise InputError(
            f"loadings of shape {np.shape(loadings)}: finite numbers of shape "
            f"{tuple(kernel.shape)} are needed"
        )
    kernel.assign(loadings)


def gene_factors(targets: np.ndarray, factors: int) -> np.ndarray:
    """Loadings of the factors that genes share: principal axes of the training targets.

    A gene by itself is mostly counting noise; what hundreds share is mostly tissue. A head that
    predicts the shared part learns from far cleaner numbers.

    Args:
        targets: (n, g) standardised values of training spots, each times the root of its weight
            where spots differ in weight.
        factors: how many, at least 1; at most g are given.
    Returns:
        (factors, g) float32: axes scaled so that a factor has unit deviation over the spots, each
        with its largest loading positive.
    """
    values = np.asarray(targets, np.float64)
    _, axes = np.linalg.eigh(values.T @ values)
    axes = axes[:, ::-1][:, : min(factors, values.shape[1])].T
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    deviation = (values @ axes.T).std(axis=0)
    return (axes * (np.sign(largest) * deviation)[:, None]).astype(np.float32)


def set_feature_scale(head: keras.Model, mean: np.ndarray, variance: np.ndarray) -> None:
    """Gives a "pooled" head the statistics of the training features, before it is trained.

    Args:
        mean, variance: (f,) of each feature over the training tiles.
    Raises:
        InputError: a head of another architecture, or statistics that do not fit it.
    """
    if "feature_scale" not in [layer.name for layer in head.layers]:
        raise InputError(
            f'model {head.name!r} has no layer "feature_scale"; only a "pooled" head has'
        )
    layer = head.get_layer("feature_scale")
    for what, values in (("mean", mean), ("variance", variance)):
        if np.shape(values) != tuple(layer.mean.shape) or not np.isfinite(values).all():
            raise InputError(
                f"feature {what} of shape {np.shape(values)}: finite numbers of shape "
                f"{tuple(layer.mean.shape)} are needed"
            )
    if np.min(variance) < 0:
        raise InputError(f"feature variance {np.min(variance):g}: none may be below zero")
    layer.mean.assign(mean)
    layer.deviation.assign(np.sqrt(variance))


def build_regressor(trunk: keras.Model, head: keras.Model, *, tile_px: int) -> keras.Model:
    """Trunk and head as one model: (n, tile_px, tile_px, 3) in [0, 1] -> (n, n_genes).

    Both are shared, not copied.

    Raises:
        InputError: a "context" head, which sees more than one tile, or features that do not fit.
    """
    if len(head.inputs) != 1:
        names = ", ".join(tensor.name for tensor in head.inputs)
        raise InputError(
            f"a head with the inputs {names} needs a slide; one of "
            '"flatten", "global" or "pooled" works on single tiles'
        )
    tile = keras.Input((tile_px, tile_px, 3), name="tile")
    features = trunk(tile)
    if tuple(features.shape) != tuple(head.inputs[0].shape):
        raise InputError(
            f"tiles of {tile_px} px have features of shape {tuple(features.shape[1:])}; "
            f"the head takes {tuple(head.inputs[0].shape[1:])}"
        )
    return keras.Model(tile, head(features), name="regressor")


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
        return _standardised(features, self.mean, self.deviation)


_GLOBAL_MEAN = keras.layers.GlobalAveragePooling2D


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


def _standardised(features: Any, mean: Any, deviation: Any) -> Any:
    scaled = (features - mean) / ops.maximum(deviation, SMALLEST_DEVIATION)
    return ops.clip(scaled, -LARGEST_STANDARDISED, LARGEST_STANDARDISED)


def _pooled(shape: tuple[int, ...]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    features = keras.Input(shape, name="features")
    return features, FeatureScale(name="feature_scale")(features)


def _in_context(
    shape: tuple[int, ...],
) -> tuple[dict[str, keras.KerasTensor], keras.KerasTensor]:
    inputs = {name: keras.Input(shape, name=name) for name in CONTEXT_INPUTS}
    scaled = [
        _standardised(inputs[name], inputs["slide_mean"], inputs["slide_std"])
        for name in ("features", "neighbour_features")
    ]
    return inputs, keras.layers.Concatenate(name="in_context")(scaled)


def _convolved(maps: keras.KerasTensor, blocks: int, *, synchronized: bool) -> keras.KerasTensor:
    for i in range(1, blocks + 1):
        maps = keras.layers.Conv2D(CONV_CHANNELS, 3, padding="same", name=f"head{i}_conv")(maps)
        maps = keras.layers.BatchNormalization(
            momentum=STATISTICS_MOMENTUM, synchronized=synchronized, name=f"head{i}_normalisation"
        )(maps)
        maps = keras.layers.ReLU(name=f"head{i}_relu")(maps)
        maps = keras.layers.MaxPooling2D(2, name=f"head{i}_pool")(maps)
    return maps


def _check_architecture(architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"architecture {architecture!r} is unknown; one of {', '.join(ARCHITECTURES)}"
        )

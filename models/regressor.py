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

import typing
from collections.abc import Sequence

import keras
import numpy as np

from histospace_tf.config import ON_MAPS, Architecture, RegressorConfig
from histospace_tf.models.autoencoder import (
    BLOCK_CHANNELS,
    BLOCK_OUTPUTS,
    STATISTICS_MOMENTUM,
    frozen_copy,
)
from histospace_tf.models.layers import STATISTICS, FeatureScale, MapStatistics, standardised
from histospace_tf.models.losses import SquaresByInput
from histospace_tf.vocabulary import InputError

ARCHITECTURES: tuple[str, ...] = typing.get_args(Architecture)
FEATURES_PER_TILE = STATISTICS * sum(BLOCK_CHANNELS)
CONV_CHANNELS = 128
CONTEXT_INPUTS = ("features", "neighbour_features", "slide_mean", "slide_std")


def build_trunk(encoder: keras.Model, *, architecture: str) -> keras.Model:
    """Tiles -> features, frozen: (n, h, w, 3) in [0, 1] of any size -> "features".

    Args:
        encoder: of `build_encoder`, which is copied and stays as it is; or a frozen one that gives
            vectors (n, f) already, and is the trunk.
        architecture: one of ARCHITECTURES. "flatten" and "global" give the encoder's last map,
            (n, h // 8, w // 8, 128); "pooled" and "context" give (n, FEATURES_PER_TILE).
    Raises:
        InputError: an unknown architecture, one on maps where the encoder gives vectors, or an
            encoder without the named blocks.
    """
    _check_architecture(architecture)
    if len(encoder.output_shape) == 2:
        if architecture in ON_MAPS:
            raise InputError(
                f"a head of architecture {architecture!r} reads maps, and the encoder gives "
                "vectors; context or pooled works"
            )
        return encoder
    names = [layer.name for layer in encoder.layers]
    missing = [name for name in BLOCK_OUTPUTS if name not in names]
    if missing:
        raise InputError(
            f"encoder {encoder.name!r} has no layer {missing[0]!r} (its layers: "
            f"{', '.join(names)}); an encoder of build_encoder has"
        )
    encoder = frozen_copy(encoder)
    if architecture in ON_MAPS:
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


def channel_means(features: np.ndarray) -> np.ndarray:
    """Tiles' features -> (n, c) means of the encoder's channels over a tile.

    Args:
        features: (n, ...) of a trunk. Of FEATURES_PER_TILE numbers those that are means; of maps
            their means; of another encoder's vectors all.
    """
    if features.ndim == 4:
        return np.asarray(features, np.float32).mean(axis=(1, 2))
    if features.shape[1] != FEATURES_PER_TILE:
        return np.asarray(features, np.float32)
    starts = STATISTICS * np.concatenate([[0], np.cumsum(BLOCK_CHANNELS)[:-1]])
    columns = [np.arange(at, at + c) for at, c in zip(starts, BLOCK_CHANNELS, strict=True)]
    return np.asarray(features[:, np.concatenate(columns)], np.float32)


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
        config: architecture, conv_blocks, hidden_width, hidden_activation, factors and dropout
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
        flatten, mean = keras.layers.Flatten, keras.layers.GlobalAveragePooling2D
        hidden = (flatten if architecture == "flatten" else mean)(name=architecture)(hidden)
    if config.hidden_width:
        if config.dropout:
            hidden = keras.layers.Dropout(config.dropout, name="feature_dropout")(hidden)
        hidden = keras.layers.Dense(
            config.hidden_width, activation=config.hidden_activation, name="hidden"
        )(hidden)
    if config.dropout:
        hidden = keras.layers.Dropout(config.dropout, name="dropout")(hidden)
    if not config.factors:
        expression = keras.layers.Dense(n_genes, name="expression")(hidden)
        return keras.Model(inputs, expression, name="head")
    # A linear head starts at the mean of the training spots, where its targets are centred.
    start = "glorot_uniform" if config.hidden_width else "zeros"
    factors = keras.layers.Dense(
        min(config.factors, n_genes), kernel_initializer=start, name="factors"
    )(hidden)
    expression = keras.layers.Dense(n_genes, use_bias=False, trainable=False, name="expression")(
        factors
    )
    return keras.Model(inputs, expression, name="head")


def build_linear(kernel: np.ndarray, bias: np.ndarray, penalty: np.ndarray) -> keras.Model:
    """A linear head's learned layer alone, with values to start from: (n, d) -> (n, k).

    Args:
        kernel, bias: (d, k) and (k,) to start from.
        penalty: (d,) factors of `losses.SquaresByInput` on the kernel.
    """
    learned = keras.layers.Dense(
        len(bias), kernel_regularizer=SquaresByInput(penalty.tolist()), name="learned"
    )
    taken = keras.Input((len(kernel),), name="coordinates")
    model = keras.Model(taken, learned(taken), name="linear")
    learned.set_weights([kernel, bias])
    return model


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


def gene_factors(
    targets: np.ndarray, factors: int, *, beside: np.ndarray | None = None
) -> np.ndarray:
    """Loadings of the factors that genes share: principal axes of the training targets.

    A gene by itself is mostly counting noise; what hundreds share is mostly tissue. A head that
    predicts the shared part learns from far cleaner numbers.

    Args:
        targets: (n, g) standardised values of training spots, each times the root of its weight
            where spots differ in weight.
        factors: how many, at least 1; at most g are given.
        beside: (g, g) of spots without an image, which join the axes: mean outer product of their
            targets, at the weight that they have beside `targets`.
    Returns:
        (factors, g) float32: axes scaled so that a factor has unit deviation over the spots, each
        with its largest loading positive.
    """
    values = np.asarray(targets, np.float64)
    products = values.T @ values
    if beside is not None:
        products = products / len(values) + beside
    _, axes = np.linalg.eigh(products)
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


def _pooled(shape: tuple[int, ...]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    features = keras.Input(shape, name="features")
    return features, FeatureScale(name="feature_scale")(features)


def _in_context(
    shape: tuple[int, ...],
) -> tuple[dict[str, keras.KerasTensor], keras.KerasTensor]:
    inputs = {name: keras.Input(shape, name=name) for name in CONTEXT_INPUTS}
    scaled = [
        standardised(inputs[name], inputs["slide_mean"], inputs["slide_std"])
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

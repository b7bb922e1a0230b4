"""EfficientNet-B0 on a spot's tile: the lightweight single-tile rival of 2026.

Input `tile` (n, tile_px, tile_px, 3) float32 RGB in [0, 1]; output (n, genes) float32, in the unit
of the targets that it is trained on. The first layer brings pixels to ImageNet's mean and
deviation, as the authors do. A hidden layer with dropout before and after it stands between the
trunk and the output, as in the authors' code.

The authors start from ImageNet's weights, train all layers, and flip, transpose, shift, scale and
turn tiles at random.

Source: From histology to spatial transcriptomics: establishing a lightweight single-patch baseline,
BMC Bioinformatics, 2026; settings from github.com/Medical-AI-GSE240429/Code,
20_train_effb0_sota_split8020.py. EfficientNet: Tan and Le, EfficientNet: Rethinking Model Scaling
for Convolutional Neural Networks, ICML 2019, table 1; blocks from Sandler et al., MobileNetV2, CVPR
2018, and Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras

from histospace_tf.models.autoencoder import STATISTICS_MOMENTUM
from histospace_tf.models.peers import image_weights
from histospace_tf.models.peers.published import Training

# Lowers the mean squared error of the expression; the learning rate is meant to follow a cosine.
TRAINING = Training("adam", learning_rate=3e-4, batch_size=32, epochs=30, cosine=True)

# Stages of EfficientNet-B0: side of the kernel, blocks, channels, expansion, stride of the first.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
_STEM, _LAST = 32, 1280  # channels
_SQUEEZE = 4  # a block's input channels to the units that weigh its channels
_DEPTH_DROPOUT = 0.2  # of the last block; of the others, by their place


@dataclasses.dataclass(frozen=True)
class Size:
    """An EfficientNet, scaled from B0.

    tile_px: side of a tile.
    width, depth: factors on channels (rounded to eights) and on blocks of a stage.
    hidden: units between trunk and output; 0: none.
    dropout: before the hidden layer and before the output.
    """

    tile_px: int = 224
    width: float = 1.0
    depth: float = 1.0
    hidden: int = 3000
    dropout: float = 0.5


PUBLISHED = Size()
SMALL = Size(tile_px=64, width=0.25, depth=0.25, hidden=64)


def build(
    genes: int,
    size: Size = PUBLISHED,
    *,
    weights: str | Path | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """The network of the module's top.

    Args:
        genes: of the output.
        weights: what the trunk starts from. None: random. "imagenet" or a file, as
            `image_weights.give_weights` says, for the published size alone; the model comes back
            with exactly these.
        synchronized: batch normalisation over all replicas, for training on several alone.
    Raises:
        InputError: weights that cannot be had or do not fit.
    """
    tile = keras.Input((size.tile_px, size.tile_px, 3), name="tile")
    features = _efficientnet(image_weights.standardised(tile), size)
    if weights is not None:
        trunk = keras.Model(tile, features)
        image_weights.give_weights(trunk, keras.applications.EfficientNetB0, weights)
    if size.hidden:
        features = keras.layers.Dropout(size.dropout, name="dropout_features")(features)
        features = keras.layers.Dense(size.hidden, activation="relu", name="hidden")(features)
    features = keras.layers.Dropout(size.dropout, name="dropout")(features)
    expression = keras.layers.Dense(genes, name="expression")(features)
    model = keras.Model(tile, expression, name="efficientnet_b0")
    if synchronized:
        image_weights.synchronize(model)
    return model


def _efficientnet(tile: Any, size: Size) -> Any:
    """Tiles -> (n, channels) means of the last maps."""
    maps = _convolution(tile, _channels(_STEM, size), 3, "stem", strides=2)
    counts = [math.ceil(size.depth * blocks) for _, blocks, *_ in _STAGES]
    done, total = 0, sum(counts)
    for i, (stage, blocks) in enumerate(zip(_STAGES, counts, strict=True), start=1):
        side, _, channels, expansion, strides = stage
        for j in range(1, blocks + 1):
            maps = _block(
                maps,
                _channels(channels, size),
                (side, expansion, strides if j == 1 else 1),
                f"stage{i}_block{j}",
                dropout=_DEPTH_DROPOUT * done / total,
            )
            done += 1
    maps = _convolution(maps, _channels(_LAST, size), 1, "last")
    return keras.layers.GlobalAveragePooling2D(name="pooled")(maps)


def _block(
    maps: Any, channels: int, shape: tuple[int, int, int], name: str, *, dropout: float
) -> Any:
    """Widened, mixed over places channel by channel, weighed by channel, narrowed; and added.

    Args:
        shape: side of the kernel, expansion, stride.
        dropout: share of tiles for which the block is passed by in training.
    """
    side, expansion, strides = shape
    before = maps.shape[-1]
    given = maps
    if expansion > 1:
        maps = _convolution(maps, expansion * before, 1, f"{name}_wide")
    maps = keras.layers.DepthwiseConv2D(
        side,
        strides=strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise",
    )(maps)
    maps = _normalised(maps, f"{name}_depthwise")
    maps = _weighed(maps, max(before // _SQUEEZE, 1), name)
    maps = _convolution(maps, channels, 1, f"{name}_narrow", activation=None)
    if strides == 1 and before == channels:
        if dropout:
            maps = keras.layers.Dropout(
                dropout, noise_shape=(None, 1, 1, 1), name=f"{name}_dropout"
            )(maps)
        maps = keras.layers.Add(name=f"{name}_added")([maps, given])
    return maps


def _weighed(maps: Any, units: int, name: str) -> Any:
    """Squeeze and excitation: each channel times a share that all channels' means decide."""
    shares = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_means")(maps)
    for channels, activation in ((units, "silu"), (maps.shape[-1], "sigmoid")):
        shares = keras.layers.Conv2D(
            channels,
            1,
            activation=activation,
            kernel_initializer=_initializer(),
            name=f"{name}_{activation}",
        )(shares)
    return keras.layers.Multiply(name=f"{name}_weighed")([maps, shares])


def _convolution(
    maps: Any,
    channels: int,
    side: int,
    name: str,
    *,
    strides: int = 1,
    activation: str | None = "silu",
) -> Any:
    maps = keras.layers.Conv2D(
        channels,
        side,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"{name}_conv",
    )(maps)
    return _normalised(maps, name, activation)


def _normalised(maps: Any, name: str, activation: str | None = "silu") -> Any:
    maps = keras.layers.BatchNormalization(
        momentum=STATISTICS_MOMENTUM, name=f"{name}_normalisation"
    )(maps)
    if activation is None:
        return maps
    return keras.layers.Activation(activation, name=f"{name}_activation")(maps)


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def _channels(channels: int, size: Size) -> int:
    """Channels times the width, to the nearest eight, at least 90 % of it."""
    wanted = channels * size.width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8

"""ST-Net: DenseNet-121 on a spot's tile, and one dense output.

Input `tile` (n, tile_px, tile_px, 3) float32 RGB in [0, 1]; output (n, genes) float32, in the unit
of the targets that it is trained on. The first layer brings pixels to ImageNet's mean and
deviation, on which the usual starting weights were trained; the authors used those of a sample of
their training tiles. The output starts at `mean` for every tile: its kernel starts at zero.

The authors start from ImageNet's weights, train all layers, flip and turn tiles at random, and
average their predictions over the eight symmetries of a tile.

Source: He et al., Integrating spatial gene expression and breast tumour morphology via deep
learning, Nature Biomedical Engineering 4:827-834, 2020; settings from github.com/bryanhe/ST-Net,
README.md and stnet/cmd/run_spatial.py. DenseNet: Huang et al., Densely Connected Convolutional
Networks, CVPR 2017, table 1.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf.models.autoencoder import STATISTICS_MOMENTUM
from histospace_tf.models.peers import image_weights
from histospace_tf.models.peers.published import Training
from histospace_tf.vocabulary import InputError

# Lowers the mean squared error of log counts; the published rate, 1e-6, is that of its sum over a
# batch of 32 tiles.
TRAINING = Training("sgd", learning_rate=32e-6, momentum=0.9, batch_size=32, epochs=50)

_EPSILON = 1e-5  # of batch normalisation
_BOTTLENECK = 4  # channels before a 3 x 3 convolution, in growths


@dataclasses.dataclass(frozen=True)
class Size:
    """A DenseNet.

    tile_px: side of a tile.
    stem: channels of the first convolution.
    blocks: layers of each dense block.
    growth: channels that a layer adds.
    """

    tile_px: int = 224
    stem: int = 64
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32


PUBLISHED = Size()
SMALL = Size(tile_px=64, stem=16, blocks=(2, 2, 2), growth=8)


def build(
    genes: int,
    size: Size = PUBLISHED,
    *,
    weights: str | Path | None = None,
    mean: np.ndarray | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """The network of the module's top.

    Args:
        genes: of the output.
        weights: what the DenseNet starts from. None: random. "imagenet" or a file, as
            `image_weights.give_weights` says, for the published size alone; the model comes back
            with exactly these.
        mean: (genes,) what predictions start at, as published: the training spots' mean. None: 0.
        synchronized: batch normalisation over all replicas, for training on several alone.
    Raises:
        InputError: weights that cannot be had or do not fit; `mean` of another length.
    """
    tile = keras.Input((size.tile_px, size.tile_px, 3), name="tile")
    features = _densenet(image_weights.standardised(tile), size)
    if weights is not None:
        trunk = keras.Model(tile, features)
        image_weights.give_weights(trunk, keras.applications.DenseNet121, weights)
    last = keras.layers.Dense(genes, kernel_initializer="zeros", name="expression")
    model = keras.Model(tile, last(features), name="st_net")
    if synchronized:
        image_weights.synchronize(model)
    if mean is not None:
        if np.shape(mean) != (genes,):
            raise InputError(f"`mean` has shape {np.shape(mean)}; ({genes},) works, one per gene")
        last.bias.assign(mean)
    return model


def _densenet(tile: Any, size: Size) -> Any:
    """Tiles -> (n, channels) means of the last maps."""
    maps = keras.layers.ZeroPadding2D(3, name="stem_padding")(tile)
    maps = _convolution(maps, size.stem, 7, "stem", strides=2, padding="valid")
    maps = _normalised(maps, "stem")
    maps = keras.layers.ZeroPadding2D(1, name="stem_pool_padding")(maps)
    maps = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(maps)
    for i, layers in enumerate(size.blocks, start=1):
        for j in range(1, layers + 1):
            name = f"block{i}_layer{j}"
            added = _normalised(maps, f"{name}_a")
            added = _convolution(added, _BOTTLENECK * size.growth, 1, f"{name}_a")
            added = _normalised(added, f"{name}_b")
            added = _convolution(added, size.growth, 3, f"{name}_b")
            maps = keras.layers.Concatenate(name=f"{name}_joined")([maps, added])
        if i < len(size.blocks):
            maps = _normalised(maps, f"transition{i}")
            maps = _convolution(maps, maps.shape[-1] // 2, 1, f"transition{i}")
            maps = keras.layers.AveragePooling2D(2, name=f"transition{i}_pool")(maps)
    return keras.layers.GlobalAveragePooling2D(name="pooled")(_normalised(maps, "last"))


def _convolution(
    maps: Any, channels: int, side: int, name: str, *, strides: int = 1, padding: str = "same"
) -> Any:
    return keras.layers.Conv2D(
        channels,
        side,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(maps)


def _normalised(maps: Any, name: str) -> Any:
    maps = keras.layers.BatchNormalization(
        momentum=STATISTICS_MOMENTUM, epsilon=_EPSILON, name=f"{name}_normalisation"
    )(maps)
    return keras.layers.ReLU(name=f"{name}_relu")(maps)

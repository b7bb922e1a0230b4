"""Convolutional autoencoders whose encoder, frozen, gives the features that heads learn from.

Three variants, in the paper's order: 1 convolutions and max pooling alone; 2 with ReLU; 3 with
ReLU and batch normalisation. A block of the encoder is convolution 3 x 3, then batch
normalisation, ReLU and 2 x 2 max pooling; 32, 64 and 128 channels. The decoder mirrors it.

Tiles are (n, height, width, 3) float32 RGB in [0, 1]. Encoders take every size of at least 8 px;
an autoencoder gives a tile of its input's size where both sides are multiples of 8.

`synchronized=True` makes batch normalisation use the statistics of the whole global batch. It is
for training on several TensorFlow replicas alone, and other Keras backends refuse it; a frozen
copy never holds it.

Source: HistoSPACE's AutoEncoder 1, 2 and 3.
"""

from __future__ import annotations

import typing

import keras
import numpy as np

from histospace_tf import config
from histospace_tf.vocabulary import InputError

VARIANTS: tuple[int, ...] = typing.get_args(config.Variant)
BLOCK_CHANNELS = (32, 64, 128)
# Of batch normalisation's moving statistics: Keras' 0.99 takes some 500 batches to forget where it
# started, and a short pre-training has no more than a hundred.
STATISTICS_MOMENTUM = 0.9
BLOCK_OUTPUTS = tuple(f"block{i}_pool" for i in range(1, len(BLOCK_CHANNELS) + 1))


def build_autoencoder(variant: int, *, synchronized: bool = False) -> keras.Model:
    """Encoder and decoder: tiles in [0, 1] -> tiles in [0, 1].

    Args:
        variant: one of VARIANTS.
    Raises:
        InputError: an unknown variant.
    """
    encoder = build_encoder(variant, synchronized=synchronized)
    decoder = _build_decoder(variant, synchronized=synchronized)
    tile = keras.Input((None, None, 3), name="tile")
    return keras.Model(tile, decoder(encoder(tile)), name="autoencoder")


def build_encoder(variant: int, *, synchronized: bool = False) -> keras.Model:
    """The encoder: (n, h, w, 3) in [0, 1] -> (n, h // 8, w // 8, 128).

    The layers named in BLOCK_OUTPUTS give the three blocks' pooled maps.

    Raises:
        InputError: an unknown variant.
    """
    _check_variant(variant)
    tile = keras.Input((None, None, 3), name="tile")
    maps = tile
    for i, channels in enumerate(BLOCK_CHANNELS, start=1):
        maps = _convolution(maps, channels, variant, f"block{i}", synchronized=synchronized)
        maps = keras.layers.MaxPooling2D(2, name=f"block{i}_pool")(maps)
    return keras.Model(tile, maps, name="encoder")


def encoder_of(autoencoder: keras.Model) -> keras.Model:
    """The encoder inside an autoencoder; it shares the autoencoder's weights.

    Raises:
        InputError: the model holds no encoder of `build_autoencoder`.
    """
    names = [layer.name for layer in autoencoder.layers]
    if "encoder" not in names:
        raise InputError(
            f'model {autoencoder.name!r} has no layer "encoder" (its layers: {", ".join(names)}); '
            "a model of build_autoencoder has one"
        )
    return autoencoder.get_layer("encoder")


def frozen_copy(encoder: keras.Model) -> keras.Model:
    """A copy that no training changes, its batch normalisation folded into the convolutions.

    It gives the same maps up to float32's rounding, in two thirds of the time. The caller's model
    stays as it is, trainable included.
    """
    names = [layer.name for layer in encoder.layers]
    copy = build_encoder(2 if "block1_relu" in names else 1)
    for block in (f"block{i}" for i in range(1, len(BLOCK_CHANNELS) + 1)):
        kernel, bias = encoder.get_layer(f"{block}_conv").get_weights()
        if f"{block}_normalisation" in names:
            layer = encoder.get_layer(f"{block}_normalisation")
            scale, shift, mean, variance = (w.astype(np.float64) for w in layer.get_weights())
            scale = scale / np.sqrt(variance + layer.epsilon)
            kernel, bias = kernel * scale, (bias - mean) * scale + shift
        copy.get_layer(f"{block}_conv").set_weights([kernel, bias])
    # Set on the layers too: models that are made of some of these layers stay frozen.
    copy.trainable = False
    return copy


def _build_decoder(variant: int, *, synchronized: bool) -> keras.Model:
    features = keras.Input((None, None, BLOCK_CHANNELS[-1]), name="features")
    maps = features
    for i, channels in reversed(list(enumerate(BLOCK_CHANNELS, start=1))):
        maps = _convolution(maps, channels, variant, f"mirror{i}", synchronized=synchronized)
        maps = keras.layers.UpSampling2D(2, name=f"mirror{i}_upsampling")(maps)
    tile = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="reconstruction")(
        maps
    )
    return keras.Model(features, tile, name="decoder")


def _convolution(
    maps: keras.KerasTensor, channels: int, variant: int, name: str, *, synchronized: bool
) -> keras.KerasTensor:
    maps = keras.layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv")(maps)
    if variant == 3:
        maps = keras.layers.BatchNormalization(
            momentum=STATISTICS_MOMENTUM, synchronized=synchronized, name=f"{name}_normalisation"
        )(maps)
    if variant >= 2:
        maps = keras.layers.ReLU(name=f"{name}_relu")(maps)
    return maps


def _check_variant(variant: int) -> None:
    if variant not in VARIANTS:
        raise InputError(
            f"autoencoder variant {variant!r}; 1 (pooling), 2 (with ReLU) or 3 (with ReLU and "
            "batch normalisation) works"
        )

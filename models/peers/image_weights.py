"""What convolutional networks share: ImageNet's pixel scale, and weights that were trained on it.

A trunk here has the layers of one of Keras' applications, in the same order, so that it can take
the application's weights, fetched by Keras or from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf import faults
from histospace_tf.vocabulary import InputError

# Of red, green and blue in [0, 1] over ImageNet's images, as torchvision and Keras use them.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
IMAGENET = "imagenet"


def standardised(tile: Any) -> Any:
    """Tiles in [0, 1] less ImageNet's mean, in its deviations."""
    # Not Normalization, which keeps its numbers as tensors that no converter to ONNX takes along.
    layer = keras.layers.Rescaling(
        scale=[1 / deviation for deviation in DEVIATION],
        offset=[-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)],
        name="standardised",
    )
    return layer(tile)


def synchronize(model: keras.Model) -> None:
    """Has its batch normalisation use the statistics of the whole global batch.

    For training on several TensorFlow replicas alone; a model that is saved must not have it.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def give_weights(
    trunk: keras.Model, application: Callable[..., keras.Model], weights: str | Path
) -> None:
    """Gives a trunk the weights of one of Keras' applications; all of them, or none and an error.

    Args:
        trunk: tiles -> features.
        application: such as `keras.applications.DenseNet121`.
        weights: "imagenet": Keras downloads them, or takes them from its cache. Else a file: `.h5`
            or `.weights.h5` of the application's weights, with its classifier or without, or
            `.keras` of a model that begins with the application's layers and ends with dense ones.
    Raises:
        InputError: no such file, it cannot be read or does not fit, or nothing could be fetched.
    """
    name = application.__name__
    if str(weights) == IMAGENET:
        try:
            source = application(include_top=False, weights=IMAGENET)
        except Exception as error:  # of sockets, HTTP, checksums and disks
            raise InputError(
                f"ImageNet weights of {name} cannot be fetched ({faults.in_words(error)}). Give a "
                "file of them, or no weights: the network then starts at random ones"
            ) from error
        values = _arrays(source)
    else:
        values = _read(Path(weights), application)
    wanted = list(_weights(trunk))
    kept, rest = values[: len(wanted)], values[len(wanted) :]
    shapes = [tuple(weight.shape) for weight in wanted]
    if [value.shape for value in kept] != shapes or any(value.ndim > 2 for value in rest):
        given = sum(value.size for value in values)
        needed = sum(int(np.prod(shape)) for shape in shapes)
        raise InputError(
            f"weights '{weights}' ({given:,} numbers in {len(values)} arrays) do not fit this "
            f"network's trunk ({needed:,} in {len(wanted)}). Those of Keras' {name} fit the "
            "published size alone"
        )
    for weight, value in zip(wanted, kept, strict=True):
        weight.assign(value)


def _read(path: Path, application: Callable[..., keras.Model]) -> list[np.ndarray]:
    name = application.__name__
    if not path.is_file():
        raise InputError(f"no file '{path}' with weights; '{IMAGENET}' has Keras fetch {name}'s")
    if path.suffix == ".keras":
        with faults.reading(f"model '{path}'"):
            return _arrays(keras.saving.load_model(path, compile=False))
    if path.suffix != ".h5":
        raise InputError(f"weights '{path}': .h5, .weights.h5 or .keras of Keras' {name} works")
    errors = []
    for with_classifier in (False, True):
        source = application(include_top=with_classifier, weights=None)
        try:
            source.load_weights(path)
        except Exception as error:  # of h5py and Keras, on unforeseen files
            errors.append(error)
        else:
            return _arrays(source)
    raise InputError(
        f"weights '{path}' are not those of Keras' {name} ({faults.in_words(errors[0])}). A file "
        f"that `keras.applications.{name}(...).save_weights` wrote works"
    ) from errors[0]


def _arrays(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in _weights(model)]


def _weights(model: keras.Model) -> Iterator[keras.Variable]:
    """In the order of the layers; without the pixel scale, which some applications hold."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _weights(layer)
        elif not isinstance(layer, keras.layers.Normalization):
            yield from layer.weights

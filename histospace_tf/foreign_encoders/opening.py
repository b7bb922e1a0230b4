"""Opens a stated encoder as a frozen Keras model: tile in [0, 1] -> one vector of features.

    tile (n, px, px, 3) --pixels as it wants them--> encoder --pooled--> features (n, f)

Layout (channels last or first), size and type are read from its input. Vectors stay as they are,
maps are averaged over their places, of tokens it must be said which. Every encoder is tried on two
made tiles first: each must give finite numbers, and the same alone as beside another.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import faults, provenance
from histospace_tf.foreign_encoders import onnx_layer
from histospace_tf.foreign_encoders.entrance import (
    Entrance,
    chosen_output,
    read_entrance,
    refuse_several,
    shape_words,
)
from histospace_tf.foreign_encoders.signature_layer import SignatureLayer
from histospace_tf.foreign_encoders.stated import PIXELS, StatedEncoder
from histospace_tf.models.layers import PixelForm, TokenFeatures
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named

# Of the largest feature, by which one tile's may differ beside another tile: rounding.
_SAME = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedEncoder:
    """stated: what was said of it. px: side of its tiles. trunk: frozen, tile in [0, 1] ->
    (n, features) float32. record: all that decides its features, for manifest and bundle.
    """

    stated: StatedEncoder
    px: int
    trunk: keras.Model
    record: dict[str, Any]


@functools.lru_cache(maxsize=2)  # as many as are worked with at once
def opened(stated: StatedEncoder) -> OpenedEncoder:
    """Opens an encoder.

    Raises:
        InputError: it cannot be read, lacks what the text does not say either, takes or gives what
            no features can be made of, or fails on two made tiles.
    """
    what = f"encoder {stated.source!r}"
    opener: Callable[[StatedEncoder, str], tuple[Entrance, Callable[[Any], Any]]] = {
        "application": _application,
        "keras": _keras_file,
        "saved_model": _saved_model,
        "onnx": _onnx_file,
    }[stated.kind]
    entrance, encoder = opener(stated, what)
    tile = keras.Input((entrance.px, entrance.px, 3), name="tile")
    pixels = _pixel_form(stated, entrance, what)(tile)
    if entrance.is_bytes:
        pixels = keras.ops.cast(keras.ops.round(pixels), "uint8")
    if entrance.channels_first:
        pixels = keras.layers.Permute((3, 1, 2), name="channels_first")(pixels)
    given = encoder(pixels)
    features = _pooled(given, stated, entrance, what)
    trunk = keras.Model(tile, features, name="trunk")
    trunk.trainable = False
    _try_out(trunk, entrance.px, what)
    path = stated.path
    record = dataclasses.asdict(stated) | {
        "px": entrance.px,
        "features": int(features.shape[-1]),
        "checksum": None if path is None else _checksum(path),
    }
    if stated.kind == "application" and Path(stated.weights).is_file():
        record["checksum"] = _checksum(Path(stated.weights))
    return OpenedEncoder(stated, entrance.px, trunk, record)


def _checksum(path: Path) -> str | dict[str, str]:
    """SHA-256 of a file or folder, and of the weights that a large .onnx keeps beside it."""
    beside = [path.with_name(path.name + end) for end in (".data", "_data")]
    weights = {one.name: provenance.file_checksum(one) for one in beside if one.is_file()}
    own = provenance.file_checksum(path)
    return {path.name: own, **weights} if weights else own


def _application(stated: StatedEncoder, what: str) -> tuple[Entrance, Callable[[Any], Any]]:
    build = getattr(keras.applications, stated.source, None)
    if not callable(build):
        names = [n for n in dir(keras.applications) if callable(getattr(keras.applications, n))]
        raise InputError(f"{what}: Keras has no application of that name; {', '.join(names)} work")
    assert stated.px is not None  # `stated` asks for it
    weights = None if stated.weights == "random" else stated.weights
    if weights is None:
        say(f"{what}: random weights, as `weights=random` says.")
        keras.utils.set_random_seed(0)
    try:
        model = build(include_top=False, weights=weights, input_shape=(stated.px, stated.px, 3))
    except Exception as error:  # of a download, of a file, of a size that it cannot take
        how = ""
        if stated.weights == "imagenet":
            how = "; weights=FILE takes Keras's file of it without the top, weights=random none"
        raise InputError(
            f"{what} at {stated.px} px with weights={stated.weights}: {faults.one_line(error)}{how}"
        ) from None
    model.trainable = False
    return Entrance(stated.px, False, False), lambda tiles: model(tiles, training=False)


def _keras_file(stated: StatedEncoder, what: str) -> tuple[Entrance, Callable[[Any], Any]]:
    try:
        model = keras.saving.load_model(stated.source, compile=False)
    except Exception as error:  # Keras raises many kinds for a cut, foreign or unsafe file
        raise InputError(f"{what} cannot be loaded by Keras: {faults.one_line(error)}") from None
    model.trainable = False
    inputs = getattr(model, "inputs", None) or []
    refuse_several([tensor.name for tensor in inputs], what)
    (tensor,) = inputs
    entrance = read_entrance(tensor.shape, str(tensor.dtype), stated, what)
    names = [str(name) for name in model.output_names]
    place = names.index(chosen_output(names, stated, what))
    one = keras.Model(model.inputs, model.outputs[place]) if len(names) > 1 else model

    def call(tiles: Any) -> Any:
        values = one(tiles, training=False)
        return next(iter(values.values())) if isinstance(values, dict) else values

    return entrance, call


def _saved_model(stated: StatedEncoder, what: str) -> tuple[Entrance, Callable[[Any], Any]]:
    try:
        signatures = tf.saved_model.load(stated.source).signatures
    except Exception as error:  # TensorFlow raises many kinds for a cut or foreign folder
        raise InputError(
            f"{what} cannot be loaded by TensorFlow: {faults.one_line(error)}"
        ) from None
    names = sorted(signatures)
    chosen = stated.signature or ("serving_default" if "serving_default" in names else None)
    if chosen is None or chosen not in signatures:
        wanted = "none is named" if chosen is None else f"there is no {chosen!r}"
        raise InputError(
            f"{what}: of its signatures {named(names) or '(none)'}, {wanted}; give signature=NAME"
        )
    run = signatures[chosen]
    inputs = run.structured_input_signature[1]
    refuse_several(list(inputs), what)
    (spec,) = inputs.values()
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    entrance = read_entrance(shape, spec.dtype.name, stated, what)
    output = chosen_output(sorted(run.structured_outputs), stated, what)
    return entrance, SignatureLayer(stated.source, chosen, output, name="encoder")


def _onnx_file(stated: StatedEncoder, what: str) -> tuple[Entrance, Callable[[Any], Any]]:
    file = onnx_layer.session(stated.source)
    inputs = file.get_inputs()
    refuse_several([one.name for one in inputs], what)
    (taken,) = inputs
    if taken.type not in onnx_layer.TYPES:
        raise InputError(f"{what} takes {taken.type}; float or uint8 tiles are needed")
    sizes = [size if isinstance(size, int) else None for size in taken.shape]
    entrance = read_entrance(
        sizes or None, np.dtype(onnx_layer.TYPES[taken.type]).name, stated, what
    )
    output = chosen_output([one.name for one in file.get_outputs()], stated, what)
    side = entrance.px
    one_tile = (3, side, side) if entrance.channels_first else (side, side, 3)
    # Shapes in files are often unknown: what one tile gives says it.
    shape = onnx_layer.run(stated.source, output, np.zeros((1, *one_tile), np.float32)).shape[1:]
    return entrance, onnx_layer.OnnxLayer(stated.source, output, shape, name="encoder")


def _pixel_form(stated: StatedEncoder, entrance: Entrance, what: str) -> PixelForm:
    if stated.kind == "application":
        return _keras_pixels(stated.source)
    mean, deviation = stated.mean, stated.deviation
    if entrance.is_bytes and mean is None:
        mean, deviation = PIXELS["0..255"]
    if mean is None or deviation is None:
        raise InputError(
            f"{what} does not say how it takes pixels; give pixels={', '.join(PIXELS)}, or "
            "R/G/B:R/G/B, mean and deviation of pixels in 0..1"
        )
    if entrance.is_bytes and (mean, deviation) != PIXELS["0..255"]:
        raise InputError(f"{what} takes bytes, which are pixels=0..255 and nothing else")
    scale = [1 / each for each in deviation]
    offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
    return PixelForm((0, 1, 2), scale, offset, name="pixels")


def _keras_pixels(application: str) -> PixelForm:
    """What the application's own `preprocess_input` does, read from what it makes of black and of
    the three primaries: some of them turn RGB round, all are linear."""
    preprocess = sys.modules[getattr(keras.applications, application).__module__].preprocess_input
    black = np.asarray(preprocess(np.zeros((1, 1, 3), np.float32)), np.float64).ravel()
    order, scale = [0, 0, 0], [0.0, 0.0, 0.0]
    for channel in range(3):
        primary = np.zeros((1, 1, 3), np.float32)
        primary[..., channel] = 255
        change = np.asarray(preprocess(primary), np.float64).ravel() - black
        place = int(np.argmax(np.abs(change)))
        order[place], scale[place] = channel, float(change[place])
    return PixelForm(order, scale, [float(value) for value in black], name="pixels")


def _pooled(given: Any, stated: StatedEncoder, entrance: Entrance, what: str) -> Any:
    """One vector per tile of whatever an encoder gives."""
    shape = tuple(given.shape)
    if len(shape) == 3 and stated.tokens is None:
        raise InputError(
            f"{what} gives tokens {shape_words(shape)}; say which are its features: "
            "tokens=class, mean or class+mean"
        )
    if len(shape) != 3 and stated.tokens is not None:
        raise InputError(
            f"{what} gives arrays {shape_words(shape)} and no tokens; leave `tokens` out"
        )
    if len(shape) == 3 and stated.tokens is not None:
        with_class, mean_from = stated.tokens
        if shape[1] is not None and (mean_from or 0) >= shape[1]:
            raise InputError(f"{what} gives {shape[1]} tokens; none is left from {mean_from} on")
        return TokenFeatures(with_class, mean_from, name="features")(given)
    if len(shape) == 4:
        layout = "channels_first" if entrance.channels_first else "channels_last"
        return keras.layers.GlobalAveragePooling2D(data_format=layout, name="features")(given)
    if len(shape) != 2 or shape[1] is None:
        raise InputError(
            f"{what} gives arrays {shape_words(shape)}; vectors (n, f), tokens (n, t, f) or maps "
            "(n, h, w, f) are needed"
        )
    return keras.layers.Identity(name="features")(given)


def _try_out(trunk: keras.Model, px: int, what: str) -> None:
    """Refuses an encoder that fails on two made tiles, or mixes them."""
    tiles = np.random.default_rng(0).random((2, px, px, 3), np.float32)
    try:
        both = np.asarray(trunk(tiles, training=False))
        alone = np.asarray(trunk(tiles[1:], training=False))
    except InputError:
        raise
    except Exception as error:  # whatever its graph does
        raise InputError(f"{what} fails on two made tiles: {faults.one_line(error)}") from None
    if both.shape != (2, trunk.output_shape[-1]) or alone.shape != (1, both.shape[-1]):
        raise InputError(f"{what} gives {both.shape} for two tiles, {alone.shape} for one")
    if not np.isfinite(both).all():
        raise InputError(f"{what} gives {np.isnan(both).sum()} NaN of {both.size} on made tiles")
    if np.abs(both[1:] - alone).max() > _SAME * max(float(np.abs(both).max()), 1e-6):
        raise InputError(
            f"{what} gives a tile other features beside another tile than alone; is it exported "
            "for training? (torch: model.eval())"
        )

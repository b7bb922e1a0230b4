"""Opens a stated encoder as a frozen Keras model: tile in [0, 1] -> one vector of features.

    tile (n, px, px, 3) --pixels as it wants them--> encoder --pooled--> features (n, f)

Layout (channels last or first), size and type are read from its input. Vectors stay as they are,
maps are averaged over their places, of tokens it must be said which. Every encoder is tried on two
made tiles first: each must give finite numbers, and the same alone as beside another.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf import faults, provenance
from histospace_tf.foreign_encoders import sources
from histospace_tf.foreign_encoders.entrance import Entrance, shape_words
from histospace_tf.foreign_encoders.stated import PIXELS, StatedEncoder, from_record
from histospace_tf.models.layers import PixelForm, TokenFeatures
from histospace_tf.vocabulary import InputError

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
    entrance, encoder, parameters = sources.loaded(stated, what)
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
        "source": stated.source if path is None else str(path.resolve()),
        "px": entrance.px,
        "features": int(features.shape[-1]),
        "parameters": parameters,
        "checksum": _weights_checksum(trunk) if path is None else _checksum(path),
    }
    if path is None and Path(stated.weights).is_file():
        record["weights"] = str(Path(stated.weights).resolve())
    return OpenedEncoder(stated, entrance.px, trunk, record)


def opened_again(record: Mapping[str, Any], folder: Path) -> OpenedEncoder:
    """The encoder that a model was trained with.

    Args:
        record: of its `OpenedEncoder`.
        folder: where a copy of its file may lie; else it is where it was.
    Raises:
        InputError: it is not there, is another, or as `opened`.
    """
    kept = from_record(record)

    def found(text: str) -> str:
        if not Path(text).is_absolute():  # a name that Keras knows
            return text
        copy = folder / Path(text).name
        if not copy.exists() and not Path(text).exists():
            raise InputError(
                f"encoder {kept.name!r}, which the model was trained on, is not at {text}; put "
                f"it back, or a copy into {folder}"
            )
        return str(copy) if copy.exists() else text

    again = opened(
        dataclasses.replace(kept, source=found(kept.source), weights=found(kept.weights))
    )
    if again.record["checksum"] != record["checksum"]:
        raise InputError(
            f"encoder {again.stated.source!r} is not the one that the model was trained on: its "
            f"checksum is {again.record['checksum']}, the other's {record['checksum']}"
        )
    return again


def _weights_checksum(trunk: keras.Model) -> str:
    """SHA-256 of a model's weights: Keras's own have no file that stays."""
    digest = hashlib.sha256()
    for weight in trunk.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _checksum(path: Path) -> str | dict[str, str]:
    """SHA-256 of a file or folder, and of the weights that a large .onnx keeps beside it."""
    beside = [path.with_name(path.name + end) for end in (".data", "_data")]
    weights = {one.name: provenance.file_checksum(one) for one in beside if one.is_file()}
    own = provenance.file_checksum(path)
    return {path.name: own, **weights} if weights else own


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

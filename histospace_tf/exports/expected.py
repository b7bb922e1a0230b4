"""What exports have to give, worked out in Keras, and the tiles that they are checked on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import stain, stain_graph
from histospace_tf.exports import parity, saved_model
from histospace_tf.vocabulary import InputError, StainReference

_BATCH_TILES = 16
_MADE_TILES = 8


def parity_tiles(path: Path, bundle: Bundle) -> dict[str, np.ndarray]:
    """Arrays of `paired.parity_tiles`: "tile", and those of the others that are there.

    Raises:
        InputError: no such file, or arrays that are not the model's.
    """
    side = bundle.config.tiles.tile_px
    try:
        with np.load(path, allow_pickle=False) as file:
            names = {"tile", *({"measured", "training_tile"} & set(file.files))}
            kept = {name: file[name] for name in names}
    except FileNotFoundError:
        raise InputError(f"parity tiles {str(path)!r} do not exist") from None
    except Exception as error:  # NumPy raises many kinds for a file that is no .npz
        raise InputError(
            f"parity tiles {str(path)!r}: an .npz file with an array `tile` works ({error})"
        ) from None
    for name in sorted(names - {"measured"}):
        tiles = kept[name]
        if tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3) or tiles.dtype != np.uint8:
            raise InputError(
                f"parity tiles {str(path)!r}: `{name}` is {tiles.dtype} {tiles.shape}; the model "
                f"takes uint8 (n, {side}, {side}, 3)"
            )
        if not len(tiles):
            raise InputError(
                f"parity tiles {str(path)!r}: `{name}` is empty; at least one tile works"
            )
    right = (len(kept["tile"]), len(bundle.panel))
    if "measured" in kept and (
        kept["measured"].shape != right or not np.isfinite(kept["measured"]).all()
    ):
        raise InputError(
            f"parity tiles {str(path)!r}: `measured` has shape {kept['measured'].shape}; finite "
            f"numbers of shape {right} are needed, a row a tile"
        )
    return kept


def made_tiles(tile_px: int) -> np.ndarray:
    """Smooth tiles of any colour, always the same: (n, tile_px, tile_px, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (_MADE_TILES, 6, 6, 3), np.uint8)
    side = (tile_px, tile_px)
    return np.stack([cv2.resize(c, side, interpolation=cv2.INTER_CUBIC) for c in coarse])


def keras_expression(bundle: Bundle, tiles: np.ndarray) -> np.ndarray:
    """Predictions of the single-tile model in Keras, on the CPU: exports are compared with them.

    Args:
        tiles: (n, s, s, 3) uint8, stain-normalised.
    Returns:
        (n, g) float32 in the panel's unit.
    """
    with tf.device("/CPU:0"):
        parts = [
            bundle.single_tile_head(bundle.trunk(part, training=False), training=False).numpy()
            for part in _batches(tiles)
        ]
    return bundle.panel.to_unit(np.concatenate(parts))


def keras_cases(bundle: Bundle, tiles: np.ndarray) -> list[parity.Case]:
    """A case of each signature of `saved_model.signature_names`, on the CPU.

    Args:
        tiles: (n, s, s, 3) uint8, stain-normalised, n at least 1.
    """
    png = np.array([tf.io.encode_png(tile).numpy() for tile in tiles], object)
    genes = np.array([gene.encode() for gene in bundle.panel.genes], object)
    with tf.device("/CPU:0"):
        features = _features(bundle, tiles)
        inputs = {"features": features}
        if bundle.needs_context:
            # As if they were one slide's, each the next one's neighbour.
            inputs["neighbour_features"] = np.roll(features, 1, axis=0)
            for name, values in (("slide_mean", features.mean(0)), ("slide_std", features.std(0))):
                inputs[name] = np.broadcast_to(values, features.shape)
        single = {"expression": _expression(bundle, bundle.single_tile_head, features)}
        in_slide = {"expression": _expression(bundle, bundle.head, inputs)}
        cases = [
            parity.Case("serving_default", {"tile": tiles}, single),
            parity.Case("predict_bytes", {"image_bytes": png}, single),
            parity.Case("embed", {"tile": tiles}, {"features": features}),
            parity.Case("predict_features", inputs, in_slide),
            parity.Case(
                "genes", {"index": np.arange(len(genes), dtype=np.int32)}, {"symbol": genes}
            ),
        ]
        if "predict_raw" in saved_model.signature_names(bundle):
            cases.append(_raw_case(bundle, tiles))
    return cases


def stain_inputs(stains: StainReference, rows: int) -> dict[str, np.ndarray]:
    """A slide's stains as `predict_raw` takes them, the same for each of so many tiles."""
    return {
        name: np.repeat(np.asarray(getattr(stains, name), np.float32)[np.newaxis], rows, axis=0)
        for name in stain_graph.SourceStains._fields
    }


def _raw_case(bundle: Bundle, tiles: np.ndarray) -> parity.Case:
    """The tiles as if they were a dim, yellowish and pale slide's.

    The graph's own operations recolour here too: that they agree with `recolouring.normalise`
    within a grey level, which is more than 1e-4 of expression, is a test of theirs.
    """
    slide = dataclasses.replace(
        stain.canonical_stains(bundle.reference.method),
        white_point=np.array([244.0, 238.0, 225.0]),
        luminosity=246.0,
        max_concentration=np.array([1.2, 0.7]),
    )
    inputs = stain_inputs(slide, len(tiles))
    source = stain_graph.SourceStains(**{k: tf.constant(v) for k, v in inputs.items()})
    recoloured = stain_graph.recoloured(tf.constant(tiles), source, bundle.reference).numpy()
    expression = _expression(bundle, bundle.single_tile_head, _features(bundle, recoloured))
    return parity.Case("predict_raw", {"tile": tiles, **inputs}, {"expression": expression})


def _batches(tiles: np.ndarray) -> list[np.ndarray]:
    """Tiles as a model takes them, some at a time: float32 in [0, 1]."""
    starts = range(0, len(tiles), _BATCH_TILES)
    return [tiles[start : start + _BATCH_TILES].astype(np.float32) / 255.0 for start in starts]


def _features(bundle: Bundle, tiles: np.ndarray) -> np.ndarray:
    return np.concatenate([bundle.trunk(part, training=False).numpy() for part in _batches(tiles)])


def _expression(
    bundle: Bundle, head: Any, inputs: dict[str, np.ndarray] | np.ndarray
) -> np.ndarray:
    if isinstance(inputs, dict) and len(inputs) == 1:
        (inputs,) = inputs.values()
    return bundle.panel.to_unit(head(inputs, training=False).numpy())

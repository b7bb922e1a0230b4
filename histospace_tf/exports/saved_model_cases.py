"""What each signature of a SavedModel has to give, worked out in Keras: for `parity` to check."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import stain, stain_graph
from histospace_tf.exports import parity, saved_model
from histospace_tf.vocabulary import StainReference

_BATCH_TILES = 16


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


def _features(bundle: Bundle, tiles: np.ndarray) -> np.ndarray:
    starts = range(0, len(tiles), _BATCH_TILES)
    parts = [tiles[start : start + _BATCH_TILES].astype(np.float32) / 255.0 for start in starts]
    return np.concatenate([bundle.trunk(part, training=False).numpy() for part in parts])


def _expression(
    bundle: Bundle, head: Any, inputs: dict[str, np.ndarray] | np.ndarray
) -> np.ndarray:
    if isinstance(inputs, dict) and len(inputs) == 1:
        (inputs,) = inputs.values()
    return bundle.panel.to_unit(head(inputs, training=False).numpy())

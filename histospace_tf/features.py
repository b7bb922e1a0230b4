"""Features of tiles on the frozen encoder, computed once and kept; slide context of tiles.

Kept features are (n, symmetries, ...): symmetry k of a tile is the one that
`datasets.with_symmetry` makes of code k; symmetry 0 is the tile as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import sparse
from scipy.spatial import cKDTree
from tqdm import tqdm

from histospace_tf import bundle
from histospace_tf.data_pipelines import datasets

BATCH_TILES = 32
BATCH_ROWS = 256  # of kept features, through a head


def tile_features(
    trunk: keras.Model,
    groups: Sequence[datasets.StainedTiles],
    *,
    symmetries: int,
    label: str,
    store: Path | None = None,
) -> np.ndarray:
    """Features of every tile in each of its symmetries.

    Args:
        trunk: of `regressor.build_trunk`: tile in [0, 1] -> features.
        groups: tiles by slide.
        symmetries: 1 or 8.
        label: what the progress bar is called.
        store: .npy file to keep them in, memory-mapped; one that is there already is read instead.
            None: kept in memory.
    Returns:
        (n, symmetries, ...): float32 vectors, or float16 feature maps.
    """
    if store is not None and store.is_file():
        return np.load(store, mmap_mode="r")
    n = sum(len(group) for group in groups)
    shape = (n, symmetries, *bundle.feature_shape(trunk, groups[0].tiles.shape[1]))
    kept_type = np.float32 if len(shape) == 3 else np.float16
    if n == 0:
        return np.zeros(shape, kept_type)
    draft = store.with_suffix(".draft.npy") if store is not None else None
    kept = (
        np.zeros(shape, kept_type)
        if draft is None
        else np.lib.format.open_memmap(draft, "w+", kept_type, shape)
    )

    @tf.function(reduce_retracing=True)
    def features_of(tiles: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
        turned = datasets.with_symmetry(tiles, tf.fill((tf.shape(tiles)[0],), code))
        return trunk(turned, training=False)

    batches = datasets.tile_dataset(groups, batch_size=BATCH_TILES)
    done = 0
    with tqdm(total=n * symmetries, desc=label, unit="tile", delay=2) as bar:
        for tiles in batches:
            for code in range(symmetries):
                kept[done : done + len(tiles), code] = features_of(tiles, tf.constant(code))
                bar.update(len(tiles))
            done += len(tiles)
    if draft is None or store is None:
        return kept
    if isinstance(kept, np.memmap):
        kept.flush()
    del kept
    os.replace(draft, store)
    return np.load(store, mmap_mode="r")


def slide_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a slide's tiles' features.

    Args:
        features: (m, f); one row is enough.
    Returns:
        (f,) mean and (f,) deviation, float32; a deviation may be zero.
    """
    return features.mean(axis=0).astype(np.float32), features.std(axis=0).astype(np.float32)


def neighbour_features(
    features: np.ndarray, centres_px: np.ndarray, *, radius_px: float
) -> np.ndarray:
    """Mean features of the other tiles within `radius_px`; a tile without any has its own.

    Args:
        features: (n, f).
        centres_px: (n, 2) full-resolution pixels of the same slide.
        radius_px: largest distance between centres.
    Returns:
        (n, f) float32.
    """
    pairs = cKDTree(centres_px).query_pairs(radius_px, output_type="ndarray")
    n = len(features)
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    near = sparse.csr_matrix((np.ones(len(ends), np.float32), (ends[:, 0], ends[:, 1])), (n, n))
    count = np.asarray(near.sum(axis=1)).ravel()
    mean = (near @ features) / np.maximum(count, 1)[:, None]
    return np.where(count[:, None] > 0, mean, features).astype(np.float32)


def context_inputs(
    features: np.ndarray,
    centres_px: np.ndarray,
    slide: tuple[np.ndarray, np.ndarray],
    *,
    radius_px: float,
) -> dict[str, np.ndarray]:
    """Inputs of the "context" head for the tiles of one slide.

    Args:
        features: (n, symmetries, f); neighbours are averaged over the symmetries.
        centres_px: (n, 2).
        slide: of `slide_statistics`.
        radius_px: of `neighbour_features`.
    Returns:
        "features" as given, "neighbour_features", "slide_mean", "slide_std", all (n, f).
    """
    mean, std = slide
    return {
        "features": features,
        "neighbour_features": neighbour_features(
            features.mean(axis=1), centres_px, radius_px=radius_px
        ),
        "slide_mean": np.broadcast_to(mean, (len(features), len(mean))),
        "slide_std": np.broadcast_to(std, (len(features), len(std))),
    }


def predicted(
    head: keras.Model, inputs: dict[str, np.ndarray], *, symmetries: int | None = None
) -> np.ndarray:
    """Output of a head, averaged over the kept symmetries.

    Args:
        head: of `regressor.build_head`.
        inputs: "features" (n, symmetries, ...) and what else the head takes.
        symmetries: how many of them to average; all by default.
    Returns:
        (n, g) float32, in the panel's standardised unit.
    """
    features = inputs["features"]
    used = range(features.shape[1] if symmetries is None else symmetries)
    wanted = [tensor.name for tensor in head.inputs]
    total = np.zeros((len(features), head.output.shape[-1]), np.float32)
    for code in used:
        for start in range(0, len(features), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            batch = {
                name: np.asarray(
                    inputs[name][rows, code] if name == "features" else inputs[name][rows],
                    np.float32,
                )
                for name in wanted
            }
            out = head(batch if len(wanted) > 1 else batch["features"], training=False)
            total[rows] += np.asarray(out)
    return total / len(used)

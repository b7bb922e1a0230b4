"""Features of tiles on the frozen encoder, computed once and kept.

Kept features are (n, symmetries, ...): symmetry k of a tile is the one that
`datasets.with_symmetry` makes of code k; symmetry 0 is the tile as it is.

A strategy shares every BATCH_TILES * replicas tiles out to its replicas, in order; each worker has
all features in the end. One replica runs by the trunk itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import bundle, distribution, outputs
from histospace_tf.cohort import traced_trunks
from histospace_tf.data_pipelines import datasets
from histospace_tf.scores import colour_statistics

BATCH_TILES = 8  # against 32: a fifth less processor time and 0.4 GiB less memory on 2 cores
BATCH_ROWS = 256  # of kept features, through a head


def tile_features(
    trunk: keras.Model,
    groups: Sequence[datasets.StainedTiles],
    *,
    symmetries: int,
    label: str,
    store: Path | None = None,
    colours: Callable[[np.ndarray], object] | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> np.ndarray:
    """Features of every tile in each of its symmetries.

    Args:
        trunk: of `regressor.build_trunk`: tile in [0, 1] -> features.
        groups: tiles by slide.
        symmetries: 1 or 8.
        label: what the progress bar is called.
        store: .npy file to keep them in, memory-mapped; one that is there already, on every worker,
            is read instead. None: kept in memory.
        colours, strategy: as of `feature_batches`.
    Returns:
        (n, symmetries, ...): float32 vectors, or float16 feature maps.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if store is not None and distribution.on_every_worker(store.is_file(), strategy):
        return np.load(store, mmap_mode="r")
    n = sum(len(group) for group in groups)
    shape = (n, symmetries, *bundle.feature_shape(trunk, groups[0].tiles.shape[1]))
    kept_type = np.float32 if len(shape) == 3 else np.float16
    if n == 0:
        return np.zeros(shape, kept_type)

    def batches() -> Iterator[np.ndarray]:
        with tqdm(total=n, desc=label, unit="tile", delay=2) as bar:
            for batch in feature_batches(
                trunk, groups, symmetries=symmetries, colours=colours, strategy=strategy
            ):
                bar.update(len(batch))
                yield batch

    if store is None:
        return np.concatenate([batch.astype(kept_type) for batch in batches()])
    outputs.write_npy(store, shape, kept_type, batches())
    return np.load(store, mmap_mode="r")


def features_and_colours(
    trunk: keras.Model,
    groups: Sequence[datasets.StainedTiles],
    *,
    symmetries: int,
    label: str,
    store: Path,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`tile_features` and the tiles' colour statistics; each tile is recoloured once for both.

    Args:
        trunk, groups, symmetries, label, store, strategy: as of `tile_features`. The statistics are
            kept in another file beside `store`, whose name ends in _colours.npy.
    Returns:
        (n, symmetries, ...) features, memory-mapped, and (n, 39) float32 of
        `colour_statistics.of_tiles`.
    """
    beside = store.with_name(f"{store.stem}_colours.npy")
    if not beside.is_file():
        store.unlink(missing_ok=True)
    statistics: list[np.ndarray] = []
    kept = tile_features(
        trunk,
        groups,
        symmetries=symmetries,
        label=label,
        store=store,
        colours=statistics.append,
        strategy=strategy,
    )
    if statistics:
        outputs.write_npy(beside, (len(kept), statistics[0].shape[1]), np.float32, statistics)
    return kept, np.load(beside)


def feature_batches(
    trunk: keras.Model,
    groups: Sequence[datasets.StainedTiles],
    *,
    symmetries: int,
    rows: np.ndarray | None = None,
    colours: Callable[[np.ndarray], object] | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Iterator[np.ndarray]:
    """Features of tiles, BATCH_TILES for each replica at a time: (b, symmetries, ...) float32.

    The next tiles are cut while the network works on these.

    Args:
        trunk, groups, symmetries: as of `tile_features`.
        rows: which tiles, counted through all groups, and their order; all by default.
        colours: called with the colour statistics of every batch of stain-normalised tiles, (b, 39)
            float32 of `colour_statistics.of_tiles`.
        strategy: whose replicas share the tiles; None: one device.
    """
    strategy = strategy or tf.distribute.get_strategy()
    side = groups[0].tiles.shape[1]
    if strategy.num_replicas_in_sync > 1:
        rows = np.arange(sum(len(group) for group in groups)) if rows is None else rows
        yield from _shared_batches(trunk, groups, symmetries, rows, colours, strategy)
        return
    features_of = traced_trunks.traced(trunk, side)
    for tiles in datasets.tile_dataset(groups, batch_size=BATCH_TILES, rows=rows):
        turned = [features_of(tiles, tf.constant(code)).numpy() for code in range(symmetries)]
        if colours is not None:
            colours(_colours_of(tiles.numpy()))
        yield np.stack(turned, axis=1)


def _shared_batches(
    trunk: keras.Model,
    groups: Sequence[datasets.StainedTiles],
    symmetries: int,
    rows: np.ndarray,
    colours: Callable[[np.ndarray], object] | None,
    strategy: tf.distribute.Strategy,
) -> Iterator[np.ndarray]:
    """`feature_batches` on several replicas, whose shares are gathered after every batch."""

    if not len(rows):
        return

    def tiles_of(some: np.ndarray, size: int) -> tf.data.Dataset:
        return datasets.tile_dataset(groups, batch_size=size, rows=some)

    def statistics_of(tiles: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(_colours_of, [tiles], tf.float32)

    @tf.function(reduce_retracing=True)
    def colours_of(tiles: Any) -> tf.Tensor:
        return strategy.gather(strategy.run(statistics_of, args=(tiles,)), axis=0)

    shares = distribution.shared_rows(rows, tiles_of, batch_size=BATCH_TILES, strategy=strategy)
    features_of = traced_trunks.traced_everywhere(trunk, strategy)
    left = len(rows)
    for tiles in shares:
        turned = [features_of(tiles, tf.constant(code)).numpy() for code in range(symmetries)]
        if colours is not None:
            colours(colours_of(tiles).numpy()[:left])
        yield np.stack(turned, axis=1)[:left]
        left -= len(turned[0])


def statistics(tiles: datasets.StainedTiles) -> np.ndarray:
    """(n, 39) float32 of `colour_statistics.of_tiles` of a slide's tiles, without a network."""
    blocks = [np.arange(len(tiles))[rows] for rows in row_blocks(len(tiles))]
    parts = [colour_statistics.of_tiles(datasets.normalised_rows([tiles], b)) for b in blocks]
    return np.concatenate(parts)


def _colours_of(tiles: np.ndarray) -> np.ndarray:
    """Colour statistics of tiles in [0, 1]; grey levels are exact: they were divided by 255."""
    return colour_statistics.of_tiles(np.rint(tiles * 255).astype(np.uint8))


def row_blocks(n: int) -> list[slice]:
    """`n` rows, BATCH_ROWS at a time."""
    return [slice(start, start + BATCH_ROWS) for start in range(0, n, BATCH_ROWS)]


def moments(features: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of kept features over the tiles `rows` and their symmetries.

    Args:
        features: (n, symmetries, f); may be memory-mapped, and is read in blocks.
        rows: (m,), at least one.
    Returns:
        (f,) and (f,) float64.
    """
    blocks, count = row_blocks(len(rows)), len(rows) * features.shape[1]
    mean = sum(features[rows[b]].sum(axis=(0, 1), dtype=np.float64) for b in blocks) / count
    apart = (np.square(features[rows[b]] - mean).sum(axis=(0, 1)) for b in blocks)
    return mean, sum(apart, np.zeros_like(mean)) / count


def predicted(
    head: keras.Model,
    inputs: dict[str, np.ndarray],
    *,
    rows: np.ndarray | None = None,
    symmetries: int | None = None,
) -> np.ndarray:
    """Output of a head, averaged over the kept symmetries.

    Args:
        head: of `regressor.build_head`.
        inputs: "features" (n, symmetries, ...) and what else the head takes; may be memory-mapped,
            and are read in blocks.
        rows: which of them; all by default.
        symmetries: how many of them to average; all by default.
    Returns:
        (m, g) float32, in the panel's standardised unit.
    """
    features = inputs["features"]
    rows = np.arange(len(features)) if rows is None else rows
    used = range(features.shape[1] if symmetries is None else symmetries)
    names = [tensor.name for tensor in head.inputs]
    total = np.zeros((len(rows), head.output.shape[-1]), np.float32)
    for block in row_blocks(len(rows)):
        batch = {name: np.asarray(inputs[name][rows[block]], np.float32) for name in names}
        turned = batch["features"]
        for code in used:
            batch["features"] = turned[:, code]
            out = head(batch if len(names) > 1 else batch["features"], training=False)
            total[block] += np.asarray(out)
    return total / len(used)

"""tf.data pipelines of tiles and of kept features; stain normalisation is a step of the pipeline.

Tiles stay raw (uint8, as cut from their slides) in memory or in memory-mapped files; a pipeline
carries row numbers, and NumPy and OpenCV enter in one place, where a batch of rows is read and
recoloured from its slide's stains. That is a hundred times faster than a network takes tiles, so
normalised tiles are not kept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from histospace_tf.data_pipelines import recolouring
from histospace_tf.vocabulary import InputError, StainReference


class Tiles(Protocol):
    """(n, s, s, 3) uint8 RGB tiles, read by rows: an array, or an object that behaves like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class StainedTiles:
    """Raw tiles of one slide, and how they are recoloured.

    tiles: (n, s, s, 3) uint8 RGB; may be memory-mapped, or cut when asked for.
    source, reference: stains of the slide, and those to recolour to.
    table: of `recolouring.colour_table`, up to 64 MB: for slides of many tiles. None: by formula.
    """

    tiles: Tiles
    source: StainReference
    reference: StainReference
    table: recolouring.ColourTable | None = None

    def __len__(self) -> int:
        return len(self.tiles)

    def normalised(self, rows: np.ndarray) -> np.ndarray:
        """Stain-normalised tiles at `rows`: (len(rows), s, s, 3) uint8."""
        raw = np.ascontiguousarray(self.tiles[rows])
        if self.table is None:
            return recolouring.normalise(raw, self.source, self.reference)
        return recolouring.apply_table(raw, self.table)


def normalised_rows(groups: Sequence[StainedTiles], rows: np.ndarray) -> np.ndarray:
    """Stain-normalised tiles at `rows`, counted through all groups: (len(rows), s, s, 3) uint8."""
    starts = np.cumsum([0, *(len(group) for group in groups)])
    which = np.searchsorted(starts, rows, side="right") - 1
    out = np.empty((len(rows), *groups[0].tiles.shape[1:]), np.uint8)
    for group in np.unique(which):
        here = which == group
        out[here] = groups[group].normalised(rows[here] - starts[group])
    return out


def tile_dataset(
    groups: Sequence[StainedTiles],
    *,
    batch_size: int,
    rows: np.ndarray | None = None,
    order_seed: tuple[int, int] | None = None,
    targets: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches of stain-normalised tiles, float32 (b, s, s, 3) in [0, 1].

    Args:
        groups: tiles by slide, all of one size.
        batch_size: tiles per batch; the last batch may be smaller.
        rows: which tiles, counted through all groups; all by default.
        order_seed: (seed, epoch): tiles are shuffled, and each is shown in one of its eight flips
            and rotations; both depend on this pair alone. None: in order, unchanged.
        targets: (all tiles, g) float32; with them, batches are pairs (tiles, targets).
    Raises:
        InputError: there is no tile.
    """
    total = sum(len(group) for group in groups)
    if total == 0:
        raise InputError("there is no tile to train on")
    side = groups[0].tiles.shape[1]
    rows = np.arange(total) if rows is None else np.asarray(rows)
    symmetry = np.zeros(len(rows), np.int32)
    if order_seed is not None:
        random = np.random.default_rng(order_seed)
        rows = random.permutation(rows)
        symmetry = random.integers(0, 8, len(rows), np.int32)

    def recoloured(at: np.ndarray) -> np.ndarray:
        return normalised_rows(groups, at)

    def normalised(at: tf.Tensor, turned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tiles = tf.numpy_function(recoloured, [at], tf.uint8)
        tiles.set_shape((None, side, side, 3))
        return tiles, turned

    def turned_and_scaled(tiles: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(tiles, tf.float32) / 255.0
        return scaled if order_seed is None else with_symmetry(scaled, turned)

    batches = (
        tf.data.Dataset.from_tensor_slices((rows.astype(np.int64), symmetry))
        .batch(batch_size)
        .map(normalised, num_parallel_calls=tf.data.AUTOTUNE)  # OpenCV, one call per batch
        .map(turned_and_scaled, num_parallel_calls=tf.data.AUTOTUNE)
    )
    if targets is not None:
        wanted = tf.data.Dataset.from_tensor_slices(targets[rows].astype(np.float32))
        batches = tf.data.Dataset.zip((batches, wanted.batch(batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


def with_symmetry(tiles: tf.Tensor, symmetry: tf.Tensor) -> tf.Tensor:
    """Shows each square tile in its own flip or rotation.

    Args:
        tiles: (n, s, s, 3).
        symmetry: (n,) int32 in 0..7: bit 0 mirrors left and right, bit 1 up and down, bit 2
            transposes; the eight together are the square's symmetries.
    """
    for bit, change in enumerate(_CHANGES):
        chosen = tf.reshape(tf.bitwise.bitwise_and(symmetry, 1 << bit) > 0, (-1, 1, 1, 1))
        tiles = tf.where(chosen, change(tiles), tiles)
    return tiles


def in_symmetry(tiles: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
    """Shows all tiles in one flip or rotation; `code`: () int32 as in `with_symmetry`."""
    for bit, change in enumerate(_CHANGES):
        chosen = tf.bitwise.bitwise_and(code, 1 << bit) > 0
        changed, same = functools.partial(change, tiles), functools.partial(tf.identity, tiles)
        tiles = tf.cond(chosen, changed, same)
    return tiles


def _mirrored(tiles: tf.Tensor) -> tf.Tensor:
    return tf.reverse(tiles, [2])


def _upside_down(tiles: tf.Tensor) -> tf.Tensor:
    return tf.reverse(tiles, [1])


def _transposed(tiles: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tiles, (0, 2, 1, 3))


_CHANGES = (_mirrored, _upside_down, _transposed)  # by bit of a symmetry's code


def autoencoder_dataset(tiles: tf.data.Dataset) -> tf.data.Dataset:
    """Pairs (input, target) for an autoencoder: both are the tile."""

    def doubled(tile: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tile, tile

    return tiles.map(doubled)


def feature_dataset(
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    *,
    batch_size: int,
    rows: np.ndarray,
    order_seed: tuple[int, int] | None = None,
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches of kept features and targets; inputs are a dict by name where there are several.

    Args:
        inputs: "features" (n, symmetries, ...) and anything else (n, ...), by input name.
        targets: (n, g) float32.
        batch_size: rows per batch.
        rows: which rows.
        order_seed: (seed, epoch): rows are shuffled, each with the features of a random symmetry;
            both depend on this pair alone. None: in order, tiles unchanged (symmetry 0).
        weights: (n,) of the rows; with them, batches are (inputs, targets, weights).
    """
    symmetry = np.zeros(len(rows), np.int64)
    if order_seed is not None:
        random = np.random.default_rng(order_seed)
        rows = random.permutation(rows)
        symmetry = random.integers(0, inputs["features"].shape[1], len(rows))
    names = list(inputs)
    beside = [targets] if weights is None else [targets, weights]
    shapes = [inputs[n].shape[2:] if n == "features" else inputs[n].shape[1:] for n in names]

    def picked_rows(at: np.ndarray, turned: np.ndarray) -> list[np.ndarray]:
        picked = [inputs[n][at, turned] if n == "features" else inputs[n][at] for n in names]
        picked += [values[at] for values in beside]
        return [np.asarray(p, np.float32) for p in picked]

    def gathered(at: tf.Tensor, turned: tf.Tensor) -> tuple[Any, ...]:
        found = tf.numpy_function(
            picked_rows, [at, turned], [tf.float32] * (len(names) + len(beside))
        )
        tensors, (wanted, *weighed) = found[: len(names)], found[len(names) :]
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape((None, *shape))
        wanted.set_shape((None, targets.shape[1]))
        for each in weighed:
            each.set_shape((None,))
        given = dict(zip(names, tensors, strict=True)) if len(names) > 1 else tensors[0]
        return given, wanted, *weighed

    return (
        tf.data.Dataset.from_tensor_slices((rows.astype(np.int64), symmetry))
        .batch(batch_size)
        .map(gathered, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def bag_dataset(
    features: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    batch_size: int,
    rows: np.ndarray,
    scale: tuple[np.ndarray, np.ndarray],
    order_seed: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of slides: ({"features": (b, tiles, f), "mask": (b, tiles)}, targets (b, g)).

    Slides are padded to the most tiles of their batch; "mask" is False there.

    Args:
        features: (tiles, f) of each slide; may be memory-mapped.
        targets: (slides, g) float32.
        batch_size: slides per batch.
        rows: which slides.
        scale: mean and deviation (f,) that features are standardised by.
        order_seed: (seed, epoch): slides are shuffled by this pair alone. None: in order.
    """
    if order_seed is not None:
        rows = np.random.default_rng(order_seed).permutation(rows)
    mean, deviation = scale

    def read(slide: np.ndarray) -> np.ndarray:
        return ((features[int(slide)] - mean) / deviation).astype(np.float32)

    def bag(slide: tf.Tensor, wanted: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        tiles = tf.numpy_function(read, [slide], tf.float32)
        tiles.set_shape((None, len(mean)))
        return {"features": tiles, "mask": tf.ones(tf.shape(tiles)[:1], tf.bool)}, wanted

    return (
        tf.data.Dataset.from_tensor_slices(
            (rows.astype(np.int64), targets[rows].astype(np.float32))
        )
        .map(bag, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )

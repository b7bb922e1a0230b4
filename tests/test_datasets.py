"""Tiles and features as tf.data: order, symmetries, stain step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.data_pipelines import datasets, recolouring
from histospace_tf.vocabulary import InputError
from made.tiles import group, tiles


def all_of(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([batch.numpy() for batch in dataset])


def test_tiles_come_normalised_in_order_and_in_unit_range() -> None:
    groups = [group(3), group(4, seed=1)]
    found = all_of(datasets.tile_dataset(groups, batch_size=2))
    wanted = np.concatenate(
        [recolouring.normalise(np.asarray(g.tiles), g.source, g.reference) for g in groups]
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted / 255.0, atol=1e-6)


def test_colour_table_and_formula_give_the_same_tiles() -> None:
    by_table = all_of(datasets.tile_dataset([group(5, table=True)], batch_size=2))
    by_formula = all_of(datasets.tile_dataset([group(5)], batch_size=5))
    # One grey level: the table's promise.
    np.testing.assert_allclose(by_table, by_formula, atol=1.001 / 255)


def test_order_and_symmetries_are_functions_of_seed_and_epoch() -> None:
    groups = [group(16)]

    def epoch(pair: tuple[int, int]) -> np.ndarray:
        return all_of(datasets.tile_dataset(groups, batch_size=4, order_seed=pair))

    np.testing.assert_array_equal(epoch((3, 1)), epoch((3, 1)))
    assert not np.array_equal(epoch((3, 1)), epoch((3, 2)))
    assert not np.array_equal(epoch((3, 1)), epoch((4, 1)))


def test_shuffled_tiles_are_the_same_tiles_up_to_a_symmetry() -> None:
    groups = [group(16)]
    plain = all_of(datasets.tile_dataset(groups, batch_size=4))
    shuffled = all_of(datasets.tile_dataset(groups, batch_size=4, order_seed=(0, 0)))
    # Sums of pixels survive flips and rotations (float32 sums of 192 values: 1e-3).
    np.testing.assert_allclose(
        np.sort(plain.sum(axis=(1, 2, 3))), np.sort(shuffled.sum(axis=(1, 2, 3))), atol=1e-3
    )


def test_rows_choose_tiles_across_groups() -> None:
    groups = [group(3), group(4, seed=1)]
    every = all_of(datasets.tile_dataset(groups, batch_size=8))
    some = all_of(datasets.tile_dataset(groups, batch_size=2, rows=np.array([6, 0, 3])))
    np.testing.assert_array_equal(some, every[[6, 0, 3]])


@pytest.mark.parametrize("code", range(8))
def test_all_tiles_in_one_symmetry_are_each_tile_in_it(code: int) -> None:
    tiles = tf.random.stateless_uniform((2, 5, 5, 3), seed=(0, 1))
    together = datasets.in_symmetry(tiles, tf.constant(code))
    np.testing.assert_array_equal(together, datasets.with_symmetry(tiles, tf.fill((2,), code)))


def test_the_eight_symmetries_differ_and_keep_the_pixels() -> None:
    tile = tf.constant(tiles(1)[0].astype(np.float32))
    turned = datasets.with_symmetry(tf.stack([tile] * 8), tf.range(8)).numpy()
    assert len({picture.tobytes() for picture in turned}) == 8
    np.testing.assert_array_equal(turned[0], tile)
    np.testing.assert_array_equal(turned[1], tile.numpy()[:, ::-1])
    np.testing.assert_array_equal(turned[2], tile.numpy()[::-1])
    np.testing.assert_array_equal(turned[4], tile.numpy().transpose(1, 0, 2))
    for picture in turned:
        np.testing.assert_array_equal(np.sort(picture.ravel()), np.sort(tile.numpy().ravel()))


def test_no_tiles_are_refused() -> None:
    with pytest.raises(InputError, match="no tile"):
        datasets.tile_dataset([group(0)], batch_size=2)


def test_features_alone_come_as_a_tensor_and_with_context_by_name() -> None:
    kept = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    targets = np.zeros((4, 5), np.float32)
    alone = datasets.feature_dataset(
        {"features": kept}, targets, batch_size=3, rows=np.array([2, 0])
    )
    ((found, wanted),) = list(alone)
    np.testing.assert_array_equal(found, kept[[2, 0], 0])
    assert wanted.shape == (2, 5)
    slide = np.ones((4, 3), np.float32)
    both = datasets.feature_dataset(
        {"features": kept, "slide_mean": slide}, targets, batch_size=3, rows=np.arange(4)
    )
    assert set(next(iter(both))[0]) == {"features", "slide_mean"}


def test_shuffled_features_pair_with_their_targets_in_some_symmetry() -> None:
    kept = np.arange(40, dtype=np.float32).reshape(10, 4, 1)
    targets = np.arange(10, dtype=np.float32)[:, None]
    shuffled = datasets.feature_dataset(
        {"features": kept}, targets, batch_size=10, rows=np.arange(10), order_seed=(1, 1)
    )
    ((found, wanted),) = list(shuffled)
    np.testing.assert_array_equal(found.numpy() // 4, wanted.numpy())
    assert len(set((found.numpy() % 4).ravel())) > 1

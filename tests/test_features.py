"""Kept features and slide context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.cohort import features, head_inputs, traced_trunks
from histospace_tf.config import RegressorConfig
from histospace_tf.data_pipelines import datasets
from histospace_tf.models import autoencoder, layers, regressor
from histospace_tf.scores import colour_statistics
from made.tiles import group


@pytest.fixture(scope="module")
def trunk() -> regressor.keras.Model:
    regressor.keras.utils.set_random_seed(0)
    return regressor.build_trunk(autoencoder.build_encoder(3), architecture="pooled")


def test_kept_features_are_the_trunks_output_of_every_symmetry(
    trunk: regressor.keras.Model,
) -> None:
    tiles = [group(5)]
    kept = features.tile_features(trunk, tiles, symmetries=8, label="tiles")
    assert kept.shape == (5, 8, regressor.FEATURES_PER_TILE)
    (batch,) = list(datasets.tile_dataset(tiles, batch_size=5))
    for code in range(8):
        turned = datasets.with_symmetry(batch, tf.fill((5,), code))
        # Batches of other sizes may add up in another order: float32 noise.
        np.testing.assert_allclose(kept[:, code], trunk(turned), atol=1e-4)


def test_statistics_sorted_by_numpy_are_those_of_the_trunks_own_layer() -> None:
    maps = tf.random.stateless_normal((3, 28, 28, 7), seed=(0, 1))
    mine = traced_trunks.SortedByNumpy(name="mine")
    np.testing.assert_array_equal(mine(maps), layers.MapStatistics()(maps))
    traced = tf.function(mine.__call__, input_signature=[tf.TensorSpec((None, 28, 28, 7))])
    np.testing.assert_allclose(traced(maps), layers.MapStatistics()(maps), atol=1e-6)


def test_stored_features_are_read_again_and_not_computed(
    trunk: regressor.keras.Model, tmp_path: Path
) -> None:
    store = tmp_path / "features.npy"
    first = features.tile_features(trunk, [group(3)], symmetries=1, label="tiles", store=store)
    assert isinstance(first, np.memmap)
    other_tiles = [group(3, seed=9)]
    again = features.tile_features(trunk, other_tiles, symmetries=1, label="tiles", store=store)
    np.testing.assert_array_equal(first, again)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npy"]


def test_each_tile_is_recoloured_once_for_features_and_colour_statistics(
    trunk: regressor.keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [group(7), group(6, seed=1)]
    alone = features.tile_features(trunk, groups, symmetries=8, label="tiles")
    tiles = datasets.normalised_rows(groups, np.arange(13))
    recoloured: list[int] = []
    real = datasets.normalised_rows

    def counted(groups: list[datasets.StainedTiles], rows: np.ndarray) -> np.ndarray:
        recoloured.extend(rows)
        return real(groups, rows)

    monkeypatch.setattr(datasets, "normalised_rows", counted)
    for _ in range(2):  # the second time, both are read again
        kept, colours = features.features_and_colours(
            trunk, groups, symmetries=8, label="tiles", store=tmp_path / "features.npy"
        )
        np.testing.assert_array_equal(kept, alone)
        np.testing.assert_array_equal(colours, colour_statistics.of_tiles(tiles))
    assert sorted(recoloured) == list(range(13))  # batches are recoloured at the same time
    (tmp_path / "features_colours.npy").unlink()  # cut off between the two files
    features.features_and_colours(
        trunk, groups, symmetries=8, label="tiles", store=tmp_path / "features.npy"
    )
    assert len(recoloured) == 26
    assert (tmp_path / "features_colours.npy").is_file()


def test_feature_maps_are_kept_in_half_precision() -> None:
    trunk = regressor.build_trunk(autoencoder.build_encoder(2), architecture="flatten")
    kept = features.tile_features(trunk, [group(2)], symmetries=1, label="tiles")
    assert kept.dtype == np.float16
    assert kept.shape == (2, 1, 1, 1, 128)


def test_neighbours_are_averaged_within_the_radius() -> None:
    values = np.array([[1.0], [2.0], [4.0], [100.0]], np.float32)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [500.0, 500.0]])
    found = head_inputs.neighbour_features(values, centres, radius_px=11)
    np.testing.assert_allclose(found.ravel(), [3.0, 1.0, 1.0, 100.0])  # the lonely one: its own


def test_blocks_change_neither_neighbours_nor_moments_nor_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    kept = random.normal(3, 2, (11, 8, 4)).astype(np.float32)
    centres, rows = random.uniform(0, 30, (11, 2)), np.array([9, 0, 3, 4, 10])
    head = regressor.build_head((4,), 2, RegressorConfig(architecture="pooled"))

    def everything() -> list[np.ndarray]:
        near = head_inputs.neighbour_features(kept.mean(axis=1), centres, radius_px=9)
        given = features.predicted(head, {"features": kept}, rows=rows)
        return [near, *features.moments(kept, rows), given]

    at_once = everything()
    np.testing.assert_allclose(at_once[1], kept[rows].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(at_once[2], kept[rows].var(axis=(0, 1)), rtol=1e-5)
    every = features.predicted(head, {"features": kept})
    np.testing.assert_allclose(at_once[3], every[rows], atol=1e-6)
    monkeypatch.setattr(features, "BATCH_ROWS", 2)
    for whole, in_blocks in zip(at_once, everything(), strict=True):
        np.testing.assert_allclose(in_blocks, whole, rtol=1e-6, atol=1e-6)


def test_a_grid_and_spots_at_the_same_places_have_the_same_context() -> None:
    random = np.random.default_rng(0)
    kept = random.normal(size=(6, 8, 4)).astype(np.float32)
    centres = random.uniform(0, 30, (6, 2))
    slide = head_inputs.slide_statistics(kept[:, 0])
    whole = head_inputs.context_inputs(kept, centres, slide, radius_px=20)
    order = random.permutation(6)
    shuffled = head_inputs.context_inputs(kept[order], centres[order], slide, radius_px=20)
    for name, values in whole.items():
        np.testing.assert_allclose(values[order], shuffled[name], rtol=1e-5, err_msg=name)


def test_a_slide_of_one_tile_has_finite_predictions() -> None:
    kept = np.random.default_rng(0).normal(size=(1, 1, 16)).astype(np.float32)
    inputs = head_inputs.context_inputs(
        kept, np.zeros((1, 2)), head_inputs.slide_statistics(kept[:, 0]), radius_px=10
    )
    head = regressor.build_head((16,), 3, RegressorConfig(hidden_units=4, factors=0))
    assert np.isfinite(features.predicted(head, inputs)).all()


def test_predictions_are_averaged_over_symmetries() -> None:
    kept = np.random.default_rng(0).normal(size=(5, 8, 16)).astype(np.float32)
    head = regressor.build_head((16,), 3, RegressorConfig(architecture="pooled", factors=0))
    every = features.predicted(head, {"features": kept})
    one_by_one = [features.predicted(head, {"features": kept[:, k : k + 1]}) for k in range(8)]
    np.testing.assert_allclose(every, np.mean(one_by_one, axis=0), atol=1e-5)
    first = features.predicted(head, {"features": kept}, symmetries=1)
    np.testing.assert_allclose(first, one_by_one[0], atol=1e-6)

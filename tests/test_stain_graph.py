"""Stain normalisation in a graph agrees with OpenCV and NumPy within one grey level."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.data_pipelines import recolouring, stain, stain_graph
from histospace_tf.vocabulary import InputError, StainReference
from made.pictures import read_picture


def made_stains(method: str, seed: int) -> StainReference:
    """Stains of any slide that `fit_stains` could give, and some that it could not."""
    rng = np.random.default_rng(seed)
    matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]) + rng.uniform(0, 0.25, (2, 3))
    return dataclasses.replace(
        stain.canonical_stains(method),
        white_point=rng.uniform(stain.MIN_WHITE, 255, 3) if seed % 3 else np.full(3, 255.0),
        luminosity=float(rng.uniform(stain.MIN_WHITE, 255)) if seed % 2 else 255.0,
        stain_matrix=matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
        max_concentration=rng.uniform(stain.MIN_CONCENTRATION, 3, 2),
    )


def rows(*sources: StainReference) -> stain_graph.SourceStains:
    return stain_graph.SourceStains(
        *(
            tf.constant(np.stack([getattr(one, name) for one in sources]), tf.float32)
            for name in stain_graph.SourceStains._fields
        )
    )


def many_colours(seed: int) -> np.ndarray:
    """(64, 64, 3) uint8: random colours, greys, the corners of the cube and its edges."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (4096, 3))
    colours[:256] = np.arange(256)[:, None]
    colours[256:1024] *= rng.integers(0, 2, (768, 3))
    colours[1024:1536] = rng.choice([0, 1, 254, 255], (512, 3))
    return colours.reshape(64, 64, 3).astype(np.uint8)


@pytest.mark.parametrize("method", stain_graph.METHODS)
def test_graph_agrees_with_the_formula_within_a_grey_level(method: str) -> None:
    sources = [made_stains(method, seed) for seed in range(24)]
    reference = made_stains(method, 100)
    tiles = np.stack([many_colours(seed) for seed in range(24)])
    got = stain_graph.recoloured(tf.constant(tiles), rows(*sources), reference).numpy()
    right = [recolouring.normalise(t, s, reference) for t, s in zip(tiles, sources, strict=True)]
    gap = np.abs(got.astype(int) - np.stack(right).astype(int))
    assert got.dtype == np.uint8
    assert gap.max() <= 1
    assert (gap > 0).mean() < 1e-3  # where rounding falls the other way


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_real_tissue_agrees_within_a_grey_level(method: str, test_data: Path) -> None:
    files = sorted((test_data / "stain").glob("*.[jp][pn]g"))[:6]
    assert len(files) > 1
    images = [cv2.resize(read_picture(file), (160, 96)) for file in files]
    fits = [stain.fit_stains(image, method=method) for image in images]
    got = stain_graph.recoloured(tf.constant(np.stack(images)), rows(*fits), fits[0]).numpy()
    for image, fit, found in zip(images, fits, got, strict=True):
        right = recolouring.normalise(np.ascontiguousarray(image), fit, fits[0])
        assert np.abs(found.astype(int) - right.astype(int)).max() <= 1


def test_no_tile_gives_none() -> None:
    source = rows(made_stains("macenko", 1))
    none = stain_graph.SourceStains(*(values[:0] for values in source))
    tiles = tf.zeros((0, 8, 8, 3), tf.uint8)
    got = stain_graph.recoloured(tiles, none, made_stains("macenko", 2))
    assert got.shape == (0, 8, 8, 3)


def test_reinhard_is_refused() -> None:
    source = rows(made_stains("macenko", 1))
    with pytest.raises(InputError, match="'reinhard' are not worked out in a graph"):
        stain_graph.recoloured(
            tf.zeros((1, 8, 8, 3), tf.uint8), source, stain.canonical_stains("reinhard")
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"white_point": np.zeros((1, 3))}, "white_point: finite numbers above 0"),
        ({"luminosity": np.array([np.nan])}, "luminosity: finite numbers above 0"),
        ({"max_concentration": np.array([[1.0, -1.0]])}, "max_concentration: finite"),
        ({"stain_matrix": np.ones((1, 2, 3)) / np.sqrt(3)}, "two unit rows that are not parallel"),
        ({"stain_matrix": np.eye(2, 3)[None] * 2}, "two unit rows"),
        ({"luminosity": np.full(2, 255.0)}, "luminosity: as many rows as tiles"),
    ],
)
def test_stains_out_of_range_are_refused(changes: dict[str, np.ndarray], message: str) -> None:
    source = rows(made_stains("macenko", 1))._replace(
        **{name: tf.constant(values, tf.float32) for name, values in changes.items()}
    )
    tile = tf.zeros((1, 8, 8, 3), tf.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        stain_graph.recoloured(tile, source, made_stains("macenko", 2))

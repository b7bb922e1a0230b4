"""Tiles with the stain of their slide, as `datasets` takes them."""

from __future__ import annotations

import numpy as np

from histospace_tf.data_pipelines import datasets, recolouring, stain


def tiles(n: int, *, seed: int = 0, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


def group(n: int, *, seed: int = 0, table: bool = False) -> datasets.StainedTiles:
    """Tiles whose slide has one stain, to be taken to another."""
    source = stain.canonical_stains("macenko")
    reference = stain.average_stains([source])
    source = type(source)(**{**source.__dict__, "max_concentration": np.array([0.8, 0.9])})
    return datasets.StainedTiles(
        tiles(n, seed=seed),
        source,
        reference,
        recolouring.colour_table(source, reference) if table else None,
    )

"""What heads read of every spot: its features, and in slide context its slide's and neighbours'.

Slide context of a tile: statistics of its slide's features, and the mean of its neighbours'.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import sparse
from scipy.spatial import cKDTree

from histospace_tf import bundle_file, distribution, outputs
from histospace_tf.cohort import paired, preparing
from histospace_tf.cohort.features import features_and_colours, row_blocks, tile_features
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.config import Config
from histospace_tf.models import regressor
from histospace_tf.vocabulary import Section, StainReference


def slide_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a slide's tiles' features.

    Args:
        features: (m, f); one row is enough.
    Returns:
        (f,) mean and (f,) deviation, float32; a deviation may be zero.
    """
    return features.mean(axis=0).astype(np.float32), features.std(axis=0).astype(np.float32)


def near(tree: cKDTree, rows: np.ndarray, *, radius_px: float) -> sparse.csr_matrix:
    """Which other tiles are neighbours: (len(rows), n) float32, 1 within `radius_px`, else 0.

    Args:
        tree: of the (n, 2) centres of all tiles of a slide, full-resolution pixels.
        rows: the tiles whose neighbours are asked for.
        radius_px: largest distance between centres.
    """
    within = tree.query_ball_point(tree.data[rows], radius_px, return_sorted=True)
    columns = np.concatenate([np.zeros(0, np.int64), *(np.asarray(w, np.int64) for w in within)])
    lines = np.repeat(np.arange(len(rows)), [len(w) for w in within])
    others = columns != np.asarray(rows)[lines]
    lines, columns = lines[others], columns[others]
    ones = np.ones(len(lines), np.float32)
    return sparse.csr_matrix((ones, (lines, columns)), (len(rows), tree.n))


def neighbour_mean(total: np.ndarray, count: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean of neighbours' features, (n, f) float32; a tile without any has its own.

    Args:
        total: (n, f) sum of them.
        count: (n,) how many they are.
        own: (n, f).
    """
    mean = total / np.maximum(count, 1)[:, None]
    return np.where(count[:, None] > 0, mean, own).astype(np.float32)


def neighbour_features(
    features: np.ndarray,
    centres_px: np.ndarray,
    *,
    radius_px: float,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Mean features of the other tiles within `radius_px`; a tile without any has its own.

    Args:
        features: (n, f).
        centres_px: (n, 2) full-resolution pixels of the same slide.
        radius_px: largest distance between centres.
        rows: (m,) the tiles that are asked for, in any order; None: all of them.
    Returns:
        (m, f) float32.
    """
    rows = np.arange(len(features)) if rows is None else rows
    tree, means = cKDTree(centres_px), np.empty((len(rows), features.shape[1]), np.float32)
    for block in row_blocks(len(rows)):  # dense spots have thousands of neighbours
        pairs = near(tree, rows[block], radius_px=radius_px)
        count = np.asarray(pairs.sum(axis=1)).ravel()
        means[block] = neighbour_mean(pairs @ features, count, features[rows[block]])
    return means


def context_inputs(
    features: np.ndarray,
    centres_px: np.ndarray,
    slide: tuple[np.ndarray, np.ndarray],
    *,
    radius_px: float,
) -> dict[str, np.ndarray]:
    """Inputs of the "context" head for all tiles of one slide.

    Args:
        features: (n, symmetries, f); neighbours are averaged over the symmetries.
        centres_px: (n, 2).
        slide: of `slide_statistics`.
        radius_px: of `neighbour_features`.
    Returns:
        "features" as given, "neighbour_features", "slide_mean", "slide_std", all (n, f).
    """
    blocks = row_blocks(len(features))
    means = np.concatenate([features[rows].mean(axis=1) for rows in blocks])
    neighbours = neighbour_features(means, centres_px, radius_px=radius_px)
    return in_context(features, neighbours, slide)


def in_context(
    features: np.ndarray, neighbours: np.ndarray, slide: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """`context_inputs` from the neighbours' mean, (n, f)."""
    mean, std = slide
    return {
        "features": features,
        "neighbour_features": neighbours,
        "slide_mean": np.broadcast_to(mean, (len(features), len(mean))),
        "slide_std": np.broadcast_to(std, (len(features), len(std))),
    }


def of_spots(
    spots: PairedSpots,
    trunk: keras.Model,
    reference: StainReference,
    config: Config,
    folder: Path,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of the heads for all spots, and the colour statistics of their tiles.

    Inputs are memory-mapped files of `folder`, read again where they are there already: 57 kB per
    spot with eight symmetries of "pooled" features, 79 kB with slide context. Memory holds no more
    than two vectors of features per spot of the largest section, 14 kB. The replicas of a strategy
    share the tiles; None: one device.
    """
    strategy = strategy or tf.distribute.get_strategy()
    folder.mkdir(parents=True, exist_ok=True)
    names = regressor.CONTEXT_INPUTS if bundle_file.needs_context(config) else ("features",)
    stored = {name: folder / f"{name}.npy" for name in (*names, "colours")}
    work = folder / "sections"
    is_kept = all(path.is_file() for path in stored.values())
    if not distribution.on_every_worker(is_kept, strategy):
        work.mkdir(exist_ok=True)
        parts = [
            _section_inputs(section, ready, trunk, reference, config, work, strategy)
            for section, ready in zip(spots.sections, spots.prepared, strict=True)
        ]
        for name, path in stored.items():
            first = parts[0][name]
            pieces = (p for part in parts for p in np.array_split(part[name], _pieces(part[name])))
            shape = (len(spots), *first.shape[1:])
            outputs.write_npy(path, shape, first.dtype.type, pieces)
        del parts, first
    shutil.rmtree(work, ignore_errors=True)
    statistics = np.load(stored.pop("colours"))
    return {name: np.load(path, mmap_mode="r") for name, path in stored.items()}, statistics


def _pieces(values: np.ndarray) -> int:
    """In how many pieces of about 16 MB an array is copied."""
    return max(1, values.nbytes // 2**24)


def _section_inputs(
    section: Section,
    ready: PreparedSection,
    trunk: keras.Model,
    reference: StainReference,
    config: Config,
    work: Path,
    strategy: tf.distribute.Strategy,
) -> dict[str, np.ndarray]:
    """Inputs of the heads for one section's spots, and under "colours" their tiles' statistics.

    What is large is kept in files of `work`.
    """
    stem = outputs.file_name(section.name)
    own, colours = features_and_colours(
        trunk,
        [preparing.stained(ready.spot_tiles, ready.stains, reference)],
        symmetries=config.regressor.symmetries,
        label=f"Features of {section.name}",
        store=work / f"{stem}_spots.npy",
        strategy=strategy,
    )
    if not bundle_file.needs_context(config):
        return {"features": own, "colours": colours}
    slide = tile_features(
        trunk,
        [preparing.stained(ready.slide_tiles, ready.stains, reference)],
        symmetries=1,
        label=f"Slide statistics of {section.name}",
        store=work / f"{stem}_slide.npy",
        strategy=strategy,
    )
    pitch = paired.spot_pitch_px(section, config)
    part = context_inputs(
        own,
        section.spots.centres_px,
        slide_statistics(slide[:, 0]),
        radius_px=paired.neighbour_radius_px(ready.mpp, pitch, config),
    )
    path = work / f"{stem}_neighbours.npy"
    np.save(path, part["neighbour_features"])
    return part | {"neighbour_features": np.load(path, mmap_mode="r"), "colours": colours}

"""Stains of H&E slides: estimated from a slide's pixels, averaged, or textbook values.

A slide's colours are estimated once, from pixels sampled over the whole of it (`fit_stains`);
`recolouring` then brings every pixel of its tiles to a reference.

Sources: Macenko et al., ISBI 2009; Vahadane et al., IEEE TMI 35(8), 2016; Reinhard et al., IEEE
CG&A 21(5), 2001; Ruifrok and Johnston, Anal Quant Cytol Histol 23(4), 2001.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from histospace_tf.data_pipelines import recolouring
from histospace_tf.vocabulary import STAIN_METHODS, InputError, StainReference

MIN_TISSUE_PIXELS = 100  # fewer say nothing about stains
MIN_WHITE = 50.0  # a darker "white" is no glass: cast and luminosity stay off
MIN_STAIN_ANGLE = np.radians(6.0)  # rows closer than this cannot be separated
MIN_CONCENTRATION = 0.2  # a stain that is all but absent is not amplified
MIN_LAB_STD = 2.0  # nor is the contrast of an image that has none
SPARSITY = 0.02  # Vahadane's lambda; his 0.1 draws the stains together on slides brought to white
VAHADANE_ROUNDS = 300


def canonical_stains(method: str = "vahadane") -> StainReference:
    """Textbook H&E stains, used where a slide has no tissue to fit or no reference is given.

    Haematoxylin and eosin are Ruifrok and Johnston's vectors, white is white, and the rest are
    rounded numbers near the medians over breast H&E of four public sources.
    """
    matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    return StainReference(
        method=method,
        white_point=np.full(3, 255.0),
        luminosity=255.0,
        stain_matrix=matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
        max_concentration=np.array([1.6, 0.9]),
        lab_mean=np.array([165.0, 150.0, 107.0]),
        lab_std=np.array([32.0, 7.0, 7.0]),
    )


def is_canonical(stains: StainReference) -> bool:
    """Whether stains are those of `canonical_stains`: nothing was fitted, or nothing usable."""
    stand_in = canonical_stains(stains.method)
    return bool(
        np.array_equal(stains.stain_matrix, stand_in.stain_matrix)
        and np.array_equal(stains.lab_mean, stand_in.lab_mean)
    )


def fit_stains(
    pixels: np.ndarray,
    *,
    method: str,
    cast: bool = True,
    luminosity: bool = True,
    seed: int = 0,
    sample: int = 20_000,
) -> StainReference:
    """Estimates the stains of one slide.

    Args:
        pixels: (n, 3) or (..., 3) uint8 RGB from all over the slide, tissue and glass mixed.
        method: one of STAIN_METHODS.
        cast, luminosity: False turns that step off (white point 255, luminosity 255).
        seed: of the random choice of tissue pixels where there are more than `sample`.
        sample: how many tissue pixels stains are estimated from, at most.
    Returns:
        The slide's stains. Where fewer than MIN_TISSUE_PIXELS are tissue, or their colours do not
        separate two stains: `canonical_stains`, with cast and luminosity off, so that a blank tile
        stays as it is. The row that absorbs more red is haematoxylin and comes first.
    Raises:
        InputError: no pixels, not uint8 RGB, or an unknown method.
    """
    _check_method(method)
    recolouring.check_image(pixels)
    flat = pixels.reshape(-1, 3)
    if not len(flat):
        raise InputError("no pixels to estimate stains from; at least one is needed")
    neutral = canonical_stains(method)

    drawn = _drawn(flat, 8 * sample, seed)
    white = _white_point(flat) if cast else neutral.white_point
    level = _luminosity(drawn, white) if luminosity else neutral.luminosity
    bright = dataclasses.replace(neutral, white_point=white, luminosity=level)

    colours = recolouring.bright_colours(drawn, bright)
    density = recolouring.optical_density(colours)
    is_tissue = density.mean(axis=1) >= recolouring.TISSUE_DENSITY
    tissue = _drawn(np.flatnonzero(is_tissue), sample, seed)
    if len(tissue) < MIN_TISSUE_PIXELS:
        return neutral
    density = density[tissue].astype(np.float64)

    if method == "none":
        return bright
    if method == "reinhard":
        lab = recolouring.lab8(colours[tissue]).astype(np.float64)
        if lab[:, 0].std() < MIN_LAB_STD:
            return neutral
        return dataclasses.replace(
            bright, lab_mean=lab.mean(axis=0), lab_std=np.maximum(lab.std(axis=0), MIN_LAB_STD)
        )
    matrix = _macenko(density)
    if method == "vahadane" and matrix is not None:
        matrix = _vahadane(density, matrix)
    if matrix is None:
        return neutral
    strength = np.percentile(recolouring.concentrations(density, matrix), 99, axis=0)
    return dataclasses.replace(
        bright, stain_matrix=matrix, max_concentration=np.maximum(strength, MIN_CONCENTRATION)
    )


def average_stains(references: Sequence[StainReference]) -> StainReference:
    """Averages the stains of several slides into one reference.

    Stain vectors are averaged and scaled back to unit length; other values are medians.

    Raises:
        InputError: no references, or references of different methods.
    """
    if not references:
        raise InputError("no stains to average; at least one slide's are needed")
    methods = sorted({stains.method for stains in references})
    if len(methods) > 1:
        raise InputError(f"stains of one method can be averaged, not of {' and '.join(methods)}")
    matrix = np.mean([stains.stain_matrix for stains in references], axis=0)

    def middle(name: str) -> np.ndarray:
        return np.median([getattr(stains, name) for stains in references], axis=0)

    return StainReference(
        method=methods[0],
        white_point=middle("white_point"),
        luminosity=float(middle("luminosity")),
        stain_matrix=matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
        max_concentration=middle("max_concentration"),
        lab_mean=middle("lab_mean"),
        lab_std=middle("lab_std"),
    )


def _white_point(pixels: np.ndarray) -> np.ndarray:
    """(3,) levels of glass; 255 where even the brightest pixels are too dark to be glass."""
    white = np.percentile(pixels, 99, axis=0)
    return white if white.min() >= MIN_WHITE else np.full(3, 255.0)


def _luminosity(pixels: np.ndarray, white_point: np.ndarray) -> float:
    """95th percentile of lightness without colour cast, 255 at most; 255 where it is too dark."""
    light = recolouring.lab8(recolouring.without_cast(pixels, white_point))[:, 0]
    level = float(np.percentile(light, 95))
    return min(level, 255.0) if level >= MIN_WHITE else 255.0


# Estimating the stain matrix: (n, 3) float64 optical density of tissue -> (2, 3), or None where
# two stains cannot be separated.


def _macenko(density: np.ndarray) -> np.ndarray | None:
    """The directions at the 1st and 99th percentile of the angle within the plane of the two
    largest principal components."""
    _, axes = np.linalg.eigh(np.cov(density.T))
    plane = axes[:, [2, 1]]
    # An eigenvector's sign is arbitrary: turn the plane so that the pixels lie around angle 0.
    plane = plane * np.where(density.mean(axis=0) @ plane < 0, -1, 1)
    along = density @ plane
    low, high = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [1, 99])
    return _two_stains(np.array([plane @ [np.cos(t), np.sin(t)] for t in (low, high)]))


def _vahadane(density: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """Sparse non-negative factorisation (Vahadane et al. 2016, eq. 4), begun at Macenko's stains.

    Alternates the codes' exact solution with one sweep of block coordinate descent over the
    stains (Mairal et al., JMLR 11, 2010, algorithm 2); with two stains both are plain formulas.
    """
    matrix = matrix.copy()
    for _ in range(VAHADANE_ROUNDS):
        before = matrix.copy()
        codes = recolouring.concentrations(density, matrix, SPARSITY)
        gram, cross = codes.T @ codes, codes.T @ density
        for j in range(2):
            if gram[j, j] <= 0:
                return None
            row = np.maximum(matrix[j] + (cross[j] - gram[j] @ matrix) / gram[j, j], 0)
            length = np.linalg.norm(row)
            if length <= 0:
                return None
            matrix[j] = row / length
        if matrix[0] @ matrix[1] > np.cos(MIN_STAIN_ANGLE):
            return None
        if np.abs(matrix - before).max() < 1e-6:
            break
    return _two_stains(matrix)


def _two_stains(matrix: np.ndarray) -> np.ndarray | None:
    """Unit, non-negative rows, haematoxylin first: the one that absorbs more red."""
    matrix = np.maximum(matrix, 0)
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.isfinite(matrix).all() or (length < 1e-6).any():
        return None
    matrix = matrix / length
    if matrix[0] @ matrix[1] > np.cos(MIN_STAIN_ANGLE):
        return None
    return matrix if matrix[0, 0] >= matrix[1, 0] else matrix[::-1].copy()


def _drawn(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """A random choice of at most `most` rows, in their order, the same for the same seed."""
    if len(rows) <= most:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return rows[np.sort(chosen)]


def _check_method(method: str) -> None:
    if method not in STAIN_METHODS:
        raise InputError(f"stain method {method!r} is unknown; one of {', '.join(STAIN_METHODS)}")

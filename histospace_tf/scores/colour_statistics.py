"""A tile's colours and gradients as 39 numbers, none of them learned (STATISTIC_NAMES):

=======  =====================================================================================
columns  what
=======  =====================================================================================
0-8      red, green, blue (0 to 255): mean, deviation, median of each
9-15     haematoxylin: mean, deviation, 5th, 25th, 50th, 75th and 95th percentile
16-22    eosin: the same seven
23-38    length of haematoxylin's gradient on the tile halved 0, 1, 2 and 3 times (so at
         1, 2, 4 and 8 px): mean, deviation, median and 90th percentile of each
=======  =====================================================================================

Haematoxylin and eosin are amounts in optical density, -log10((value + 1) / 256), unmixed with the
fixed vectors of Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 23, 2001: no fit, so that a tile's
numbers depend on that tile alone. The gradient is OpenCV's 3 x 3 Sobel filter. Percentiles are
taken over a regular sample of about 12,000 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from histospace_tf.vocabulary import InputError

_STAINS = ("haematoxylin", "eosin")
_STAIN_PERCENTILES = (5, 25, 50, 75, 95)
_GRADIENT_PERCENTILES = (50, 90)
_HALVINGS = 4
STATISTIC_NAMES: tuple[str, ...] = (
    *(
        f"{colour}_{what}"
        for colour in ("red", "green", "blue")
        for what in ("mean", "deviation", "p50")
    ),
    *(
        f"{stain}_{what}"
        for stain in _STAINS
        for what in ("mean", "deviation", *(f"p{q}" for q in _STAIN_PERCENTILES))
    ),
    *(
        f"gradient_{2**level}px_{what}"
        for level in range(_HALVINGS)
        for what in ("mean", "deviation", *(f"p{q}" for q in _GRADIENT_PERCENTILES))
    ),
)
_SAMPLED_PIXELS = 12_000


def of_tiles(tiles: np.ndarray) -> np.ndarray:
    """Colour and gradient statistics of tiles.

    Args:
        tiles: (n, height, width, 3) uint8 RGB; a memory-mapped file is read tile by tile.
    Returns:
        (n, 39) float32, columns as STATISTIC_NAMES; finite for every tile, blank ones included.
    Raises:
        InputError: not uint8 RGB tiles, or tiles without pixels.
    """
    if tiles.ndim != 4 or tiles.shape[-1] != 3 or tiles.dtype != np.uint8:
        raise InputError(
            f"tiles need shape (n, height, width, 3) and dtype uint8, not {tiles.shape} "
            f"{tiles.dtype}"
        )
    if 0 in tiles.shape[1:3]:
        raise InputError(f"tiles of shape {tiles.shape} have no pixels")
    statistics = np.empty((len(tiles), len(STATISTIC_NAMES)), np.float32)
    for row, tile in zip(statistics, tiles, strict=True):
        row[:] = list(_tile_statistics(np.ascontiguousarray(tile)))
    return statistics


# Optical density of every grey level, for OpenCV's table lookup.
_DENSITY = np.repeat(-np.log10((np.arange(256) + 1) / 256)[None, :, None], 3, axis=2).astype(
    np.float32
)


def _unmixing() -> np.ndarray:
    """(2, 3): optical density (R, G, B) -> haematoxylin, eosin; a third stain at right angles."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    other = np.cross(stains[0], stains[1])
    basis = np.vstack([stains, other / np.linalg.norm(other)])
    return np.linalg.inv(basis).T[:2].astype(np.float32)


_UNMIXING = _unmixing()


def _tile_statistics(tile: np.ndarray) -> Iterator[float]:
    """The numbers of one (height, width, 3) uint8 tile, in the order of STATISTIC_NAMES."""
    mean, deviation = (values.ravel() for values in cv2.meanStdDev(tile))
    for colour in range(3):
        yield from (mean[colour], deviation[colour])
        yield from _percentiles(tile[..., colour], (50,))
    stains = cv2.split(cv2.transform(cv2.LUT(tile, _DENSITY), _UNMIXING))
    for stain in stains:
        yield from _summary(stain, _STAIN_PERCENTILES)
    level = stains[0]
    for halving in range(_HALVINGS):
        if halving:
            size = (max(1, level.shape[1] // 2), max(1, level.shape[0] // 2))
            level = cv2.resize(level, size, interpolation=cv2.INTER_AREA)
        across = cv2.Sobel(level, cv2.CV_32F, 1, 0)
        down = cv2.Sobel(level, cv2.CV_32F, 0, 1)
        # Not cv2.magnitude: Intel IPP's rounds by where in memory the result happens to lie.
        yield from _summary(np.sqrt(across**2 + down**2), _GRADIENT_PERCENTILES)


def _summary(values: np.ndarray, percentiles: tuple[int, ...]) -> Iterator[float]:
    """Mean, deviation, percentiles."""
    mean, deviation = cv2.meanStdDev(values)
    yield from (float(mean[0, 0]), float(deviation[0, 0]))
    yield from _percentiles(values, percentiles)


def _percentiles(values: np.ndarray, percentiles: tuple[int, ...]) -> list[float]:
    # An odd step does not fall on the same columns of an even tile in every row.
    sample = values.ravel()[:: max(1, values.size // _SAMPLED_PIXELS) | 1]
    at = np.rint(np.asarray(percentiles) / 100 * (len(sample) - 1)).astype(np.intp)
    return [float(value) for value in np.partition(sample, at)[at]]

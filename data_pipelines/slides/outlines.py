"""Masks as outlines, and outlines as masks.

A mask is (h, w) bool, a picture of a slide at low resolution, with `scale` full-resolution pixels
per pixel. An outline is a polygon or several, with holes, in full-resolution pixels with the
image's top left corner at (0, 0), x first. A pixel belongs to an outline that its centre lies in,
so a mask that is outlined without simplification comes back unchanged.
"""

from __future__ import annotations

import numpy as np
import shapely


def outlined(mask: np.ndarray, scale: float, *, tolerance_px: float = 0.0) -> shapely.Geometry:
    """The outline of a mask; empty where it holds nothing.

    Args:
        tolerance_px: how far, in the mask's pixels, the outline may lie from the pixels' edges;
            with one it has few corners.
    """
    rows, ends = _runs(mask)
    boxes = shapely.box(ends[:, 0], rows, ends[:, 1], rows + 1)
    whole = shapely.union_all(boxes)
    if tolerance_px:
        whole = shapely.make_valid(shapely.simplify(whole, tolerance_px, preserve_topology=True))
    return shapely.transform(whole, lambda corners: corners * scale)


def masked(outline: shapely.Geometry, size: tuple[int, int], scale: float) -> np.ndarray:
    """The mask of an outline: (h, w) bool of the pixels whose centres lie in it.

    Args:
        size: (h, w).
    """
    height, width = size
    # Even-odd rule: right of an edge a row changes sides.
    flips = np.zeros((height, width + 1), np.int64)
    for part in shapely.get_parts(outline):
        for ring in shapely.get_rings(part):
            corners = shapely.get_coordinates(ring) / scale
            row, x = _crossings(corners[:-1], corners[1:], height)
            np.add.at(flips, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return flips.cumsum(axis=1)[:, :width] % 2 == 1


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows, and (n, 2) first and last-but-one columns of the runs in a mask."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    row, column = np.nonzero(np.diff(padded, axis=1))  # starts and ends in turn
    return row[::2], column.reshape(-1, 2)


def _crossings(start: np.ndarray, end: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose centre line edges cross, and where on it."""
    low, high = (f(start[:, 1], end[:, 1]) for f in (np.minimum, np.maximum))
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (low, high))
    edge = np.repeat(np.arange(len(start)), last - first)
    before = np.repeat(np.cumsum(last - first) - (last - first), last - first)
    row = np.arange(len(edge)) - before + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    return row, x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)

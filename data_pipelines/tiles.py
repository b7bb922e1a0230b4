"""Where tissue is on a slide, and tiles cut from it.

A tile has `tile_px` x `tile_px` pixels at `mpp` microns per pixel. On a slide whose own scale is
known and differs by more than 3 % it is resampled from the part of the slide that covers the same
microns; otherwise (or with mpp None) it is cut pixel for pixel.

Centres are full-resolution pixels of the slide, x first, pixel centres at whole numbers. A tile of
s slide pixels around x covers the s whole pixels from ceil(x - s / 2) on, so its middle is within
half a pixel of x.

Of a slide with a white field tiles come evenly lit: each is divided by the field at its centre, one
share per channel, so that a tile and its white point are all that a served model needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.slides.white_field import evened
from histospace_tf.vocabulary import InputError

BORDERS = (*slides.BORDERS, "drop")
SAME_SCALE = 0.03  # relative difference of scale below which a tile is not resampled


def grid_centres(
    slide: slides.SlideImage,
    *,
    tile_px: int,
    mpp: float | None,
    min_tissue: float,
    step_px: float | None = None,
) -> np.ndarray:
    """Finds the centres of the tiles of an even grid that hold enough tissue.

    Args:
        slide: an open slide.
        tile_px, mpp: size and scale of a tile; see the module's beginning.
        min_tissue: share of a tile that must be tissue, 0 (every tile counts) to 1.
        step_px: distance between centres in the slide's pixels; None: one tile, so that tiles touch
            and do not overlap.
    Returns:
        (n, 2) float64, row by row from the top left. Only tiles wholly inside the slide count; the
        grid stands in the middle of it. (0, 2) where there is no tissue, or no room for one tile.
    Raises:
        InputError: a size, step or share out of range.
    """
    side = slide_px(slide, tile_px=tile_px, mpp=mpp)
    step = float(side) if step_px is None else float(step_px)
    if not step >= 1 or not 0 <= min_tissue <= 1:
        raise InputError(
            f"a grid step of {step:g} px and a tissue share of {min_tissue:g}: at least 1 px and "
            "0 to 1 work"
        )
    lefts = _grid_line(slide.width_px, side, step)
    tops = _grid_line(slide.height_px, side, step)
    if not len(lefts) or not len(tops):
        return np.zeros((0, 2))
    longest_px = overview_px(slide, side)
    _, scale = slide.overview(longest_px)
    share = _shares(slide.tissue(longest_px), scale, lefts, tops[:, None], side)
    rows, columns = np.nonzero(share >= min_tissue)
    middle = (side - 1) / 2
    return np.stack([lefts[columns] + middle, tops[rows] + middle], axis=1)


def overview_px(slide: slides.SlideImage, side_px: float) -> int:
    """Longer side of the overview on which squares of a size are judged."""
    # Eight pixels a square judge its tissue well enough.
    return int(np.clip(8 * max(slide.width_px, slide.height_px) / side_px, 1024, 4096))


def tissue_shares(slide: slides.SlideImage, centres_px: np.ndarray, *, side_px: int) -> np.ndarray:
    """Shares of squares that are tissue, as `grid_centres` judges them.

    Args:
        centres_px: (n, 2), see the module's beginning; side_px: of the squares.
    Returns:
        (n,) float64, 0 to 1, of the part of each that lies on the slide.
    """
    longest_px = overview_px(slide, side_px)
    _, scale = slide.overview(longest_px)
    return mask_shares(slide.tissue(longest_px), scale, centres_px, side_px=side_px)


def mask_shares(
    mask: np.ndarray, scale: float, centres_px: np.ndarray, *, side_px: int
) -> np.ndarray:
    """Shares of squares that a mask holds.

    Args:
        mask: (h, w) bool, an overview; scale: full-resolution pixels per pixel of it.
        centres_px, side_px: as of `tissue_shares`.
    """
    lefts, tops = (np.asarray(centres_px, np.float64).reshape(-1, 2) - (side_px - 1) / 2).T
    return _shares(mask, scale, lefts, tops, side_px)


def _shares(
    mask: np.ndarray, scale: float, lefts: np.ndarray, tops: np.ndarray, side: int
) -> np.ndarray:
    """Shares in squares, of `lefts` and `tops` that go together as NumPy has it."""
    sums = cv2.integral(mask.astype(np.uint8)).astype(np.int64)

    def edges(starts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        low = np.clip(np.round(starts / scale).astype(int), 0, size - 1)
        high = np.round((starts + side) / scale).astype(int)
        return low, np.clip(high, low + 1, size)

    x0, x1 = edges(lefts, mask.shape[1])
    y0, y1 = edges(tops, mask.shape[0])
    held = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.asarray(held / ((y1 - y0) * (x1 - x0)))


def cut_tiles(
    slide: slides.SlideImage,
    centres_px: np.ndarray,
    *,
    tile_px: int,
    mpp: float | None,
    border: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts tiles around points of a slide.

    Args:
        slide: an open slide.
        centres_px: (n, 2), see the module's beginning.
        tile_px, mpp: size and scale of a tile.
        border: for tiles that reach over the slide's edge: "reflect" (mirrored about the outermost
            pixel), "white", or "drop" (left out).
    Returns:
        (m, tile_px, tile_px, 3) uint8 RGB, and (n,) bool: which centres have a tile. All of them,
        except with "drop"; tiles stand in the order of their centres.
    Raises:
        InputError: an unknown border policy, or a centre that lies off the slide (its number is
            named).
    """
    corners, kept = _corners(slide, centres_px, tile_px=tile_px, mpp=mpp, border=border)
    side = slide_px(slide, tile_px=tile_px, mpp=mpp)
    policy = "reflect" if border == "drop" else border
    tiles = np.empty((int(kept.sum()), tile_px, tile_px, 3), np.uint8)
    out_px = None if side == tile_px else tile_px
    squares: Iterator[np.ndarray] = slide.squares(corners[kept], side, out_px=out_px, border=policy)
    if slide.white_field is not None:
        shares = slide.white_field.at(np.asarray(centres_px, np.float64).reshape(-1, 2)[kept])
        squares = map(evened, squares, shares)
    for tile, square in zip(tiles, squares, strict=True):
        tile[:] = square
    return tiles, kept


def have_tiles(
    slide: slides.SlideImage,
    centres_px: np.ndarray,
    *,
    tile_px: int,
    mpp: float | None,
    border: str,
) -> np.ndarray:
    """Finds the centres that `cut_tiles` cuts a tile around.

    Args:
        slide: an open slide.
        centres_px: (n, 2), see the module's beginning.
        tile_px, mpp: size and scale of a tile.
        border: "reflect" and "white" cut every tile, "drop" those inside the slide.
    Returns:
        (n,) bool.
    Raises:
        InputError: an unknown border policy, or a centre that lies off the slide.
    """
    return _corners(slide, centres_px, tile_px=tile_px, mpp=mpp, border=border)[1]


def _corners(
    slide: slides.SlideImage,
    centres_px: np.ndarray,
    *,
    tile_px: int,
    mpp: float | None,
    border: str,
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) int64 left and top of every tile, and (n,) bool: which are cut."""
    if border not in BORDERS:
        raise InputError(f"tile border {border!r} is unknown; one of {', '.join(BORDERS)} works")
    centres = np.asarray(centres_px, np.float64).reshape(-1, 2)
    side = slide_px(slide, tile_px=tile_px, mpp=mpp)
    far = np.array([slide.width_px, slide.height_px]) - 0.5
    inside = (centres >= -0.5) & (centres <= far)
    off = ~(inside[:, 0] & inside[:, 1])
    if off.any():
        at = int(np.argmax(off))
        raise InputError(
            f"slide {str(slide.path)!r}: {off.sum()} of {len(off)} tile centres lie outside its "
            f"{slide.width_px} x {slide.height_px} px (first: number {at}, x {centres[at, 0]:g}, "
            f"y {centres[at, 1]:g}). Are they full-resolution pixels, x first?"
        )
    corners = np.ceil(centres - side / 2).astype(np.int64)
    kept = np.ones(len(centres), bool)
    if border == "drop":
        room = np.array([slide.width_px, slide.height_px]) - side
        fits = (corners >= 0) & (corners <= room)
        kept = fits[:, 0] & fits[:, 1]
    return corners, kept


@dataclasses.dataclass(frozen=True, eq=False)
class LazyTiles:
    """Tiles of a slide that behave like an array and are cut when its rows are read."""

    slide: slides.SlideImage
    centres: np.ndarray
    tile_px: int
    mpp: float | None
    border: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.centres), self.tile_px, self.tile_px, 3)

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        cut, _ = cut_tiles(
            self.slide,
            self.centres[rows],
            tile_px=self.tile_px,
            mpp=self.mpp,
            border=self.border,
        )
        return cut


@dataclasses.dataclass(frozen=True, eq=False)
class ShrunkTiles:
    """Tiles in fewer pixels, each the mean of what it covers; shrunk when rows are read.

    tiles: (n, s, s, 3) uint8, an array or an object that behaves like one. tile_px: below s.
    """

    tiles: Any
    tile_px: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.tiles), self.tile_px, self.tile_px, 3)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        size = (self.tile_px, self.tile_px)
        shrunk = [cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in self.tiles[rows]]
        return np.stack(shrunk) if shrunk else np.zeros((0, *self.shape[1:]), np.uint8)


def slide_px(slide: slides.SlideImage, *, tile_px: int, mpp: float | None) -> int:
    """Side, in the slide's own pixels, of a tile of `tile_px` pixels at `mpp` microns per pixel.

    Raises:
        InputError: `tile_px` below 1, or `mpp` not above zero.
    """
    if tile_px < 1 or (mpp is not None and not mpp > 0):
        raise InputError(f"a tile of {tile_px} px at {mpp} microns per pixel is not possible")
    if mpp is None or slide.mpp is None or abs(mpp / slide.mpp - 1) <= SAME_SCALE:
        return tile_px
    return max(1, round(tile_px * mpp / slide.mpp))


def _grid_line(length: int, side: int, step: float) -> np.ndarray:
    """Whole-number starts of tiles along one axis, the row of tiles in the middle of it."""
    if length < side:
        return np.zeros(0)
    times = math.floor((length - side) / step) + 1
    start = (length - side - step * (times - 1)) / 2
    return np.floor(start + step * np.arange(times))

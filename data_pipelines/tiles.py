"""Where tissue is on a slide, and tiles cut from it.

A tile has `tile_px` x `tile_px` pixels at `mpp` microns per pixel. On a slide whose own scale is
known and differs by more than 3 % it is resampled from the part of the slide that covers the same
microns; otherwise (or with mpp None) it is cut pixel for pixel.

Centres are full-resolution pixels of the slide, x first, pixel centres at whole numbers. A tile of
s slide pixels around x covers the s whole pixels from ceil(x - s / 2) on, so its middle is within
half a pixel of x.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError

BORDERS = (*slides.BORDERS, "drop")
SAME_SCALE = 0.03  # relative difference of scale below which a tile is not resampled

# Of an overview whose glass is scaled to 255. Glass and smeared stain are smooth (a standard
# deviation of 0.5 to 3 on the slides tried), tissue is textured (pale collagen 4 and more) or,
# where it is smooth, coloured.
_TEXTURE = 3.5  # local standard deviation of brightness, grey levels
_COLOUR = 36.0  # largest minus smallest channel, grey levels
_DARKEST_GLASS = 180.0  # darker than this, the brightest pixels are not taken for glass
_WINDOW_SIGMA_PX = 3.0  # of the Gaussian window in which texture is measured
_HALO_PX = 4  # how far that window carries tissue over its edge
_SPECK_SHARE = 5e-4  # specks and holes of less than this share of the overview are removed


def tissue_mask(overview: np.ndarray) -> np.ndarray:
    """Where an overview shows tissue.

    The rule: divide each channel by its 99th percentile (by 180 if that is lower); tissue is where
    the brightness varies within a few pixels by a standard deviation above 3.5 of 255, or where the
    channels differ by more than 36. The halo of that window is taken off again, specks and holes
    below 0.05 % of the picture are removed. Thresholds are fixed, so that a picture of glass alone
    has no tissue and one of tissue alone is all tissue. Pen marks count as tissue.

    Args:
        overview: (h, w, 3) uint8 RGB, about 1000 px a side for a whole slide.
    Returns:
        (h, w) bool.
    Raises:
        ValueError: `overview` is not (h, w, 3) uint8.
    """
    if overview.ndim != 3 or overview.shape[2] != 3 or overview.dtype != np.uint8:
        raise ValueError(f"(h, w, 3) uint8 is needed, not {overview.shape} {overview.dtype}")
    smooth = cv2.GaussianBlur(overview, (0, 0), 1).astype(np.float32)
    channels = cv2.split(smooth)  # NumPy's reductions over an axis of three are ten times slower
    white = np.maximum([np.percentile(channel, 99) for channel in channels], _DARKEST_GLASS)
    red, green, blue = cv2.split(np.minimum(smooth * (255 / white).astype(np.float32), 255))
    spread = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    coloured: np.ndarray = spread > _COLOUR
    # Near zero, so that squares keep their precision.
    brightness = (red + green + blue) / np.float32(3) - 128
    mean = cv2.GaussianBlur(brightness, (0, 0), _WINDOW_SIGMA_PX)
    square = cv2.GaussianBlur(brightness**2, (0, 0), _WINDOW_SIGMA_PX)
    textured = (square - mean**2 > _TEXTURE**2).astype(np.uint8)
    # Holes first: eroding a pitted area would make its pits meet.
    smallest = _SPECK_SHARE * textured.size
    textured = _filled(textured | coloured, smallest)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _HALO_PX + 1, 2 * _HALO_PX + 1))
    core = cv2.erode(textured, disc)  # outside the picture counts as tissue
    tissue = _filled(core | coloured, smallest)
    return ~_filled(1 - tissue, smallest).astype(bool)


def grid_centres(
    slide: slides.SlideImage,
    *,
    tile_px: int,
    mpp: float | None,
    min_tissue: float,
    step_px: float | None = None,
) -> np.ndarray:
    """Centres of the tiles of an even grid that hold enough tissue.

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
    # Eight overview pixels a tile judge its tissue well enough.
    longest = max(slide.width_px, slide.height_px)
    overview, scale = slide.overview(max_px=int(np.clip(8 * longest / side, 1024, 4096)))
    sums = cv2.integral(tissue_mask(overview).astype(np.uint8))

    def edges(starts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        low = np.minimum(np.round(starts / scale).astype(int), size - 1)
        high = np.round((starts + side) / scale).astype(int)
        return low, np.clip(high, low + 1, size)

    x0, x1 = edges(lefts, overview.shape[1])
    y0, y1 = edges(tops, overview.shape[0])
    tissue = sums[y1][:, x1].astype(np.int64) - sums[y0][:, x1] - sums[y1][:, x0] + sums[y0][:, x0]
    share = tissue / np.outer(y1 - y0, x1 - x0)
    rows, columns = np.nonzero(share >= min_tissue)
    middle = (side - 1) / 2
    return np.stack([lefts[columns] + middle, tops[rows] + middle], axis=1)


def cut_tiles(
    slide: slides.SlideImage,
    centres_px: np.ndarray,
    *,
    tile_px: int,
    mpp: float | None,
    border: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Tiles around points of a slide.

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
    squares = slide.squares(corners[kept], side, out_px=out_px, border=policy)
    for tile, square in zip(tiles, squares, strict=True):
        tile[:] = square
    return tiles, kept


def that_fit(
    slide: slides.SlideImage,
    centres_px: np.ndarray,
    *,
    tile_px: int,
    mpp: float | None,
    border: str,
) -> np.ndarray:
    """Which centres `cut_tiles` gives a tile, (n,) bool; arguments and errors are its own."""
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
class CutWhenAsked:
    """Tiles of a slide that pass for an array and are cut when rows of it are asked for."""

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


def _filled(mask: np.ndarray, smallest: float) -> np.ndarray:
    """(h, w) uint8 mask whose holes of fewer than `smallest` pixels are closed."""
    _, labels, sizes, _ = cv2.connectedComponentsWithStats((mask == 0).astype(np.uint8))
    small = sizes[:, cv2.CC_STAT_AREA] < smallest
    small[0] = True  # label 0: the mask itself
    return small[labels].astype(np.uint8)

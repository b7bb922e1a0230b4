"""Pen marks on a slide, and places that are out of focus: what a model should not be asked about.

Both are judged by fixed thresholds, so that a clean slide loses nothing; `benchmarks/marks.py`
measures what they take from real slides, and find of drawn and blurred ones.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from histospace_tf.data_pipelines import slides, tiles

# Optical densities above the glass (natural logarithm). Haematoxylin and eosin take away most in
# green and least in blue: on the 100 H&E images of the test data an opening by INK_RADIUS_UM leaves
# no square of tissue above any of these.
_COOL, _COOL_RED = 0.2, 0.4  # blue and green ink: red beyond green, and red itself
# Blue ink over dense eosin: red as a multiple of blue, 2.6 at most in all but a thousandth of dark
# pixels of HER2ST and CMU-1, and red itself.
_BLUE_RATIO, _BLUE_RED = 3.0, 0.8
_BLACK = 1.0  # black ink: every channel; a fold of tissue passes it in blue in single cells alone
_RED, _RED_SHARE = 0.8, 0.5  # red ink: blue, and red as a share of blue
INK_RADIUS_UM = 40.0  # a stroke of a pen is wider than 80 um; nuclei, dust and pigment are not
INK_SHARE = 0.1  # of a square: its tile, which is larger, would show the stroke
_DARKEST_GLASS = 180.0  # as `tissue.tissue_mask`
# Variance of the Laplacian, of squares of 100 um in grey levels at 1.4 um a pixel, glass at 255.
# It is 74 and more in 99 of 100 squares of HER2ST (median of a section 471 to 1,429), and 4 to 8
# once they are blurred by 4 um. It also falls with contrast: a pale square that is sharp keeps it
# above this share of its grey levels' own variance.
BLUR_SIDE_UM, _BLUR_MPP = 100.0, 1.4
_LEAST_DETAIL, _LEAST_SHARE = 10.0, 0.05
_COARSEST_MPP = 2.8  # a coarser slide does not show whether it is in focus


@dataclasses.dataclass(frozen=True, eq=False)
class Marked:
    """Which places are not fit to be predicted: (n,) bool each, none in both."""

    inked: np.ndarray
    blurred: np.ndarray

    @property
    def either(self) -> np.ndarray:
        return self.inked | self.blurred


def find(slide: slides.SlideImage, centres_px: np.ndarray, *, side_px: int) -> Marked:
    """Which squares hold ink, and which of the others show no detail.

    Args:
        slide: an open slide. Blur is not looked for where its scale is unknown, or above 2.8 um
            per pixel, where nothing looks sharp.
        centres_px: (n, 2) full-resolution pixels, x first, on the slide; side_px: of the squares.
    """
    overview, scale = slide.overview(tiles.overview_px(slide, side_px))
    # Of unknown scale, squares are taken for 100 um.
    um_per_px = scale * (slide.mpp or BLUR_SIDE_UM / side_px)
    ink = ink_mask(overview, um_per_px=um_per_px)
    inked = tiles.mask_shares(ink, scale, centres_px, side_px=side_px) >= INK_SHARE
    no_detail = np.zeros(len(inked), bool)
    no_detail[~inked] = blurred(slide, np.asarray(centres_px)[~inked])
    return Marked(inked, no_detail)


def ink_mask(overview: np.ndarray, *, um_per_px: float) -> np.ndarray:
    """Where blue, green, black or red ink covers a slide.

    Args:
        overview: (h, w, 3) uint8 RGB of the whole slide.
        um_per_px: of it; fine enough for a stroke of 80 um to be a few pixels wide.
    Returns:
        (h, w) bool.
    """
    smooth = cv2.GaussianBlur(overview, (0, 0), 1).astype(np.float32)
    glass = np.maximum(np.percentile(smooth.reshape(-1, 3), 99, axis=0), _DARKEST_GLASS)
    red, green, blue = cv2.split(-np.log(np.clip(smooth / glass, 1 / 255, 1)).astype(np.float32))
    cool = (red - green > _COOL) & (red > _COOL_RED)
    cool |= (red > _BLUE_RATIO * blue) & (red > _BLUE_RED)
    black = cv2.min(cv2.min(red, green), blue) > _BLACK
    warm = (blue > _RED) & (red < _RED_SHARE * blue)
    radius = max(1, round(INK_RADIUS_UM / um_per_px))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    ink = (cool | black | warm).astype(np.uint8)
    opened: np.ndarray = cv2.morphologyEx(ink, cv2.MORPH_OPEN, disc) > 0
    return opened


def detail(square: np.ndarray, *, white: float) -> tuple[float, float]:
    """How sharp a square is: variance of the Laplacian, and its share of the variance of the grey
    levels, which are scaled so that `white` is 255.

    Args:
        square: (s, s, 3) uint8 RGB; s at least 3.
    """
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY).astype(np.float32) * np.float32(255 / white)
    edges = cv2.Laplacian(grey, cv2.CV_32F)[1:-1, 1:-1]
    return float(edges.var()), float(edges.var() / max(grey.var(), 1e-6))


def blurred(slide: slides.SlideImage, centres_px: np.ndarray) -> np.ndarray:
    """Which places show no detail in 100 um around them: (n,) bool.

    Args:
        slide, centres_px: as of `find`.
    """
    found = np.zeros(len(centres_px), bool)
    if slide.mpp is None or slide.mpp > _COARSEST_MPP or not len(centres_px):
        return found
    side = round(BLUR_SIDE_UM / slide.mpp)
    out_px = round(BLUR_SIDE_UM / max(_BLUR_MPP, slide.mpp))
    grey = cv2.cvtColor(slide.overview()[0], cv2.COLOR_RGB2GRAY)
    white = max(float(np.percentile(grey, 99)), _DARKEST_GLASS)
    corners = np.ceil(np.asarray(centres_px) - side / 2).astype(np.int64)
    for i, square in enumerate(slide.squares(corners, side, out_px=out_px)):
        variance, share = detail(square, white=white)
        found[i] = variance < _LEAST_DETAIL and share < _LEAST_SHARE
    return found

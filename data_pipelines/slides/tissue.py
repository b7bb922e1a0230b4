"""Where a picture of a slide shows tissue."""

from __future__ import annotations

import cv2
import numpy as np

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
        overview: (h, w, 3) uint8 RGB, about 1000 px per side for a whole slide.
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


def _filled(mask: np.ndarray, smallest: float) -> np.ndarray:
    """(h, w) uint8 mask whose holes of fewer than `smallest` pixels are closed."""
    _, labels, sizes, _ = cv2.connectedComponentsWithStats((mask == 0).astype(np.uint8))
    small = sizes[:, cv2.CC_STAT_AREA] < smallest
    small[0] = True  # label 0: the mask itself
    return small[labels].astype(np.uint8)

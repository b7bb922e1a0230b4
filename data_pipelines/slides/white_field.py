"""The white of a slide from place to place: shadows, vignettes and gradients, estimated from glass.

One white point says how bright glass is on a slide; a white field says it for every place. Pixels
divided by it come out as if the whole slide were lit like its brightest glass.

It is estimated on an overview of at most OVERVIEW_PX: glass is what is no tissue, nor near it, of
at least DARKEST_GLASS of the slide's white in each channel, and not pure white (of such pixels
nothing is known: a scanner fills with it, or the sensor was at its end). The slide is divided into
CELLS cells along its longer side; a cell's colour is the median of its glass. Through the cells
goes a thin-plate spline that is smoothed (Wahba 1990), once, and again without the cells that lie
further than OUTLIER_LEVELS from it: dust, pen, bubbles. Between the cells, under tissue above all,
it goes no further beyond the levels that were measured than half of their range, per channel.

Sources: Wahba, Spline Models for Observational Data, SIAM, 1990 (smoothing by thin plates); Smith
et al., Nature Methods 12, 2015, and Peng et al., Nature Communications 8, 2017 (multiplicative
shading fields in microscopy).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Self

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import Delaunay

OVERVIEW_PX = 1024
CELLS = 32  # along the slide's longer side
DARKEST_GLASS = 0.6  # of the 99th percentile of its channel
OUTLIER_LEVELS = 12.0  # grey levels
MIN_GLASS_SHARE = 0.1  # of the slide; with less, the field is off
MIN_REACH = 0.9  # share of the slide that lies between its cells of glass
MOST_COLOUR = 15.0  # grey levels; where half of the glass has more, it is taken for pale tissue
_GLASS_IN_CELL = 0.25  # share of a cell that must be glass
_SMOOTHING = 0.3
_SLACK = 0.5  # of the range of the cells' levels: how far the field may go beyond it
_MARGIN = 128  # 1 / so much of the longer side around tissue is not taken for glass


@dataclasses.dataclass(frozen=True, eq=False)
class WhiteField:
    """How bright glass is from place to place on one slide.

    width_px, height_px: full-resolution size of the slide.
    shares: (rows, columns, 3) float64 in (0, 1], RGB: brightness of glass as a share of the
        brightest glass of its channel, at the nodes of an even grid from the middle of the slide's
        first pixel to the middle of its last, linear between them. All 1 where the field is off.
    levels: (3,) float64, that brightest glass in grey levels.
    glass_share: share of the slide that is glass, 0 to 1.
    why_off: why the field is off, in words; empty where it is on.
    """

    width_px: int
    height_px: int
    shares: np.ndarray
    levels: np.ndarray
    glass_share: float
    why_off: str = ""

    @property
    def largest(self) -> float:
        """How far the darkest place lies below the brightest, grey levels, of any channel."""
        return float(((1 - self.shares) * self.levels).max())

    def at(self, places_px: np.ndarray) -> np.ndarray:
        """(n, 2) full-resolution pixels, x first -> (n, 3) shares in (0, 1]."""
        rows, columns = self._weights(places_px[:, 1], places_px[:, 0])
        return np.einsum("nr,rcx,nc->nx", rows, self.shares, columns)

    def over(self, x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
        """(w,) and (h,) full-resolution pixels -> (h, w, 3) float32 shares in (0, 1]."""
        rows, columns = (part.astype(np.float32) for part in self._weights(y_px, x_px))
        shares = self.shares.astype(np.float32)
        return np.stack([rows @ shares[..., c] @ columns.T for c in range(3)], axis=-1)

    def lit(self, part: np.ndarray, left: int, top: int) -> np.ndarray:
        """A part of the slide at full resolution, (h, w, 3) uint8, from `left` and `top` on ->
        the same, evenly lit."""
        height, width = part.shape[:2]
        return evened(part, self.over(left + np.arange(width), top + np.arange(height)))

    def over_picture(self, shape: tuple[int, ...]) -> np.ndarray:
        """Shares in (0, 1] for each pixel of a picture of the whole slide: (h, w, 3) float32."""
        x = (np.arange(shape[1]) + 0.5) * self.width_px / shape[1] - 0.5
        y = (np.arange(shape[0]) + 0.5) * self.height_px / shape[0] - 0.5
        return self.over(x, y)

    def _weights(self, y_px: np.ndarray, x_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, rows) and (m, columns): how much of each node a place is."""
        found = []
        for places, size, nodes in zip(
            (y_px, x_px), (self.height_px, self.width_px), self.shares.shape, strict=False
        ):
            at = np.clip(np.asarray(places, np.float64) / max(size - 1, 1), 0, 1) * (nodes - 1)
            found.append(np.maximum(1 - np.abs(at[:, None] - np.arange(nodes)), 0))
        return found[0], found[1]

    def record(self) -> dict[str, Any]:
        """What the field is, for a manifest."""
        about = {"on": not self.why_off, "glass_share": round(self.glass_share, 3)}
        if self.why_off:
            return about | {"why": self.why_off}
        return about | {"largest_grey_levels": round(self.largest, 1)}

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "shares": self.shares.tolist(),
            "levels": self.levels.tolist(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        arrays = {name: np.asarray(values[name], np.float64) for name in ("shares", "levels")}
        return cls(**{**values, **arrays})


def evened(pixels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Divides pixels by their shares of the brightest glass.

    Args:
        pixels: (..., 3) uint8 RGB.
        shares: (3,), the same for all of them, or one for each; in (0, 1].
    Returns:
        New (..., 3) uint8 RGB, 255 at most.
    """
    if shares.ndim == 1:
        levels = np.minimum(np.arange(256)[:, None] / shares, 255)
        flat = np.ascontiguousarray(pixels).reshape(1, -1, 3)
        table = np.rint(levels).astype(np.uint8)[np.newaxis]
        return cv2.LUT(flat, table).reshape(pixels.shape)
    return np.rint(np.minimum(pixels / shares, 255)).astype(np.uint8)


def estimated(overview: np.ndarray, tissue: np.ndarray, *, size_px: tuple[int, int]) -> WhiteField:
    """Estimates a slide's white field.

    Args:
        overview: (h, w, 3) uint8 RGB, the whole slide.
        tissue: (h, w) bool, where it shows tissue.
        size_px: (width, height) of the slide at full resolution.
    Returns:
        The field; off (`why_off`) where glass is too little, or lies on one side of the slide, so
        that the rest would be guessed.
    """
    glass = glass_mask(overview, tissue)
    share = float(glass.mean())

    def off(why: str) -> WhiteField:
        return WhiteField(*size_px, np.ones((1, 1, 3)), np.full(3, 255.0), share, why)

    if share < MIN_GLASS_SHARE:
        return off(f"{share:.1%} of it is glass; at least {MIN_GLASS_SHARE:.0%} is needed")
    places, colours, everywhere = cells(overview, glass)
    reach = reach_of(places, everywhere)
    if reach < MIN_REACH:
        return off(
            f"its glass surrounds {reach:.0%} of it; at least {MIN_REACH:.0%} is needed, or the "
            "rest would be guessed"
        )
    colour = _median_colour(colours)
    if colour > MOST_COLOUR:
        return off(
            f"half of its glass differs in colour from the brightest by {colour:.0f} grey levels "
            f"or more; above {MOST_COLOUR:.0f} it is taken for pale tissue"
        )
    height, width = overview.shape[:2]
    nodes = np.stack(
        np.meshgrid(
            np.linspace(0, width - 1, _nodes(width, max(width, height))),
            np.linspace(0, height - 1, _nodes(height, max(width, height))),
        ),
        axis=-1,
    )
    whites = _smoothed(places, colours, nodes.reshape(-1, 2), max(width, height))
    whites = whites.reshape(*nodes.shape[:2], 3)
    brightest = whites.max(axis=(0, 1))
    return WhiteField(*size_px, np.round(whites / brightest, 5), np.round(brightest, 2), share)


def glass_mask(overview: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Where an overview shows glass, away from tissue: (h, w) bool; see the module's beginning."""
    margin = max(1, round(max(tissue.shape) / _MARGIN))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    near = cv2.dilate(tissue.astype(np.uint8), disc).astype(bool)
    white = np.percentile(overview, 99, axis=(0, 1))
    is_bright = (overview >= DARKEST_GLASS * white).all(axis=-1)
    return ~near & is_bright & (overview.min(axis=-1) < 255)


def _nodes(side: int, longer: int) -> int:
    return max(2, round(CELLS * side / longer) + 1)


def cells(overview: np.ndarray, glass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of glass: (n, 2) middles in the overview's pixels, x first, and (n, 3) colours; and
    (m, 2) middles of all cells."""
    height, width = glass.shape
    longer = max(height, width)
    y = np.linspace(0, height, _nodes(height, longer)).round().astype(int)
    x = np.linspace(0, width, _nodes(width, longer)).round().astype(int)
    places, colours, everywhere = [], [], []
    for top, bottom in itertools.pairwise(y):
        for left, right in itertools.pairwise(x):
            here = glass[top:bottom, left:right]
            everywhere.append(((left + right - 1) / 2, (top + bottom - 1) / 2))
            if here.size and here.mean() >= _GLASS_IN_CELL:
                places.append(everywhere[-1])
                colours.append(np.median(overview[top:bottom, left:right][here], axis=0))
    return np.array(places).reshape(-1, 2), np.array(colours).reshape(-1, 3), np.array(everywhere)


def reach_of(places: np.ndarray, everywhere: np.ndarray) -> float:
    """Share of `everywhere` that lies between `places`."""
    if len(places) < 4 or np.linalg.matrix_rank(places - places.mean(axis=0)) < 2:
        return 0.0
    return float((Delaunay(places).find_simplex(everywhere) >= 0).mean())


def _median_colour(colours: np.ndarray) -> float:
    """The median of largest minus smallest channel, once the brightest tenth is made grey."""
    brightest = np.percentile(colours, 90, axis=0)
    return float(np.median(np.ptp(255 * colours / brightest, axis=1)))


def _smoothed(
    places: np.ndarray, colours: np.ndarray, nodes: np.ndarray, longer: int
) -> np.ndarray:
    """(n, 2) places of glass, (n, 3) colours, (m, 2) nodes -> (m, 3) white there."""

    def spline(kept: np.ndarray) -> RBFInterpolator:
        return RBFInterpolator(
            places[kept] * (2 / longer), colours[kept], smoothing=_SMOOTHING, degree=1
        )

    everything = np.ones(len(places), bool)
    apart = np.abs(spline(everything)(places * (2 / longer)) - colours).max(axis=1)
    kept = apart <= OUTLIER_LEVELS
    whites = spline(kept)(nodes * (2 / longer))
    low, high = colours[kept].min(axis=0), colours[kept].max(axis=0)
    slack = _SLACK * (high - low)
    return np.clip(whites, low - slack, np.minimum(high + slack, 255))

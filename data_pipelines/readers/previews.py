"""Shrunk copies of an image, which must not pass for the full-resolution one.

Spot coordinates are full-resolution pixels. Space Ranger keeps a high- and a low-resolution copy
with its output, AnnData files carry such copies along; the image itself is the user's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines.readers import placement
from histospace_tf.vocabulary import Problem

_NUCLEUS_UM = 8.0
# Coarser than this, a nucleus has under 4 px and a tile shows colour and density alone.
COARSEST_MPP = 2.0
_SAME_SIZE = 0.02  # relative; a copy of 600 px says its original's size to 0.2 %


@dataclasses.dataclass(frozen=True)
class Preview:
    """A shrunk copy.

    name: "hires", "lowres", ...; scale: its pixels per full-resolution pixel.
    size_px: (width, height); None where the copy itself is not there.
    black: nothing is to be seen on it.
    """

    name: str
    scale: float
    size_px: tuple[int, int] | None = None
    black: bool = False

    @property
    def full_px(self) -> tuple[int, int] | None:
        """Size of the full-resolution image, to a pixel or two of the copy."""
        if self.size_px is None:
            return None
        width, height = self.size_px
        return round(width / self.scale), round(height / self.scale)


def without_image(where: str, found: Sequence[Preview], mpp: float | None) -> Problem:
    """What to say where no full-resolution image is at hand."""
    there = [preview for preview in found if preview.size_px is not None]
    if not there:
        return Problem(
            "warning",
            where,
            "there is no full-resolution image: its counts are read, no tile can be cut.",
            "Give the image with --image, or in the table sections.csv.",
        )
    said = "; ".join(_described(preview, mpp) for preview in there)
    best = there[0]
    return Problem(
        "warning",
        where,
        f"there is no full-resolution image, only {said}. They are not used.",
        f"Give the original image{_about(best)} with --image, or in the table sections.csv.",
    )


def passed_as_image(
    where: str,
    image: Path,
    size: tuple[int, int],
    found: Sequence[Preview],
    pixel_xy: np.ndarray,
    mpp: float | None,
) -> Problem | None:
    """An error where an image is not the one that the spots' coordinates belong to.

    Args:
        where: the section, for the problem.
        image, size: the file and its (width, height) in pixels.
        found: the previews that are known.
        pixel_xy: (n, 2) spots in full-resolution pixels.
        mpp: microns per full-resolution pixel, if known.
    """
    width, height = size
    what = f"image {image.name} has {width} x {height} px"
    for preview in found:
        small = size == preview.size_px
        if preview.size_px is None and placement.outside(pixel_xy, size).any():
            there = pixel_xy * preview.scale  # do spots fit it, and fill it, at this scale?
            fills = (np.ptp(there, axis=0) > 0.25 * np.array(size)).any()
            small = bool(fills and not placement.outside(there, size).any())
        if small:
            return Problem(
                "error",
                where,
                f"{what}: it is {_described(preview, mpp)}, not the image that the spots' "
                "coordinates belong to.",
                f"Give the full-resolution image{_about(preview)}.",
            )
    for preview in found:
        full = preview.full_px
        if full is None:
            continue
        ratio = np.array(size) / full
        if abs(ratio[0] / ratio[1] - 1) <= _SAME_SIZE < abs(ratio.mean() - 1):
            return Problem(
                "error",
                where,
                f"{what}: it is a copy at {ratio.mean():.3g} times the size of the image that the "
                f"spots' coordinates belong to (about {full[0]} x {full[1]} px, as the "
                f"{preview.name} preview and its scale factor tell).",
                "Give the full-resolution image.",
            )
    return None


def _about(preview: Preview) -> str:
    full = preview.full_px
    return "" if full is None else f" (about {full[0]} x {full[1]} px)"


def _described(preview: Preview, mpp: float | None) -> str:
    size = "" if preview.size_px is None else f" of {preview.size_px[0]} x {preview.size_px[1]} px"
    text = f"the {preview.name} preview{size}"
    if preview.black:
        text = f"the black {preview.name} preview{size}"
    if mpp is None:
        return text
    tile = TileConfig()
    own, side_um = mpp / preview.scale, tile.tile_px * (tile.mpp or mpp)
    sense = (
        "tiles would still make sense"
        if own <= COARSEST_MPP
        else f"a nucleus {_NUCLEUS_UM / own:.1g} px, too coarse for tiles"
    )
    return (
        f"{text} ({own:.3g} um per pixel: a tile of {side_um:.0f} um would have "
        f"{side_um / own:.0f} px, {sense})"
    )

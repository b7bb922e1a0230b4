"""What an image shows at low resolution, and whether that can be H&E."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path

import cv2
import numpy as np
import openslide

from histospace_tf.data_pipelines import (
    image_files,
    slides,
    tiffs,
    tiles,
    whole_slides,
    zarr_images,
)
from histospace_tf.vocabulary import Problem

# Of 8-bit values. H&E tissue tried here (HER2ST, TNBC, BreCaHAD, BCSS, CMU-1, CAMELYON) has a mean
# difference of 16 or more between a pixel's largest and smallest channel.
_GREY_BELOW = 5.0
_BLACK_BELOW = 12.0
_DIM_BELOW = 140.0  # 99th percentile of the whole picture, glass included
_MARGIN = 4.0  # by how much green may exceed red or blue on average; in H&E it is the lowest
_NEAR_BLACK, _NEAR_WHITE = 30, 225
COARSE_MPP = 2.0  # from here on a nucleus of 8 um has under 4 px
H_AND_E = "An H&E image in colour is needed."


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """An image at low resolution.

    kind: "jpeg", "png", "tiff", "ome-tiff", or OpenSlide's name of a scanner's format ("aperio").
    size_px: (width, height) at full resolution; levels: how many resolutions are stored.
    stated_mpp: microns per pixel that the file states, None if it does not.
    overview: (h, w, 3) uint8 RGB; scale: full-resolution pixels per overview pixel.
    tissue: (h, w) bool.
    """

    path: Path
    kind: str
    size_px: tuple[int, int]
    levels: int
    stated_mpp: float | None
    overview: np.ndarray
    scale: float
    tissue: np.ndarray

    def on_tissue(self, centres_px: np.ndarray) -> np.ndarray:
        """(n,) bool: which of (n, 2) full-resolution points, x first, lie on tissue.

        A point off the image does not."""
        at = np.floor(centres_px / self.scale).astype(int)
        size = np.array(self.tissue.shape)[::-1]
        last = size - 1
        inside = ((at >= 0) & (at <= last)).all(axis=1)
        column, row = np.clip(at, 0, last).T
        return inside & self.tissue[row, column]


def look_at(path: Path) -> Look:
    """Opens an image and looks at it.

    Raises:
        InputError: as `slides.open_slide`.
    """
    kind, levels = _format(path)
    with slides.open_slide(path) as slide:
        overview, scale = slide.overview()
        return Look(
            path=path,
            kind=kind,
            size_px=(slide.width_px, slide.height_px),
            levels=levels,
            stated_mpp=slide.mpp,
            overview=overview,
            scale=scale,
            tissue=tiles.tissue_mask(overview),
        )


def picture_problems(
    where: str, name: str, picture: np.ndarray, tissue: np.ndarray
) -> list[Problem]:
    """Whether an image is black, empty, grey, or coloured by something other than H&E.

    Args:
        where, name: the section (or image) and the file, as problems name them.
        picture: (h, w, 3) uint8 RGB, the whole image at low resolution.
        tissue: (h, w) bool, as `tiles.tissue_mask`.
    """
    if picture.mean() < _BLACK_BELOW:
        return [Problem("error", where, f"{name} is black.", H_AND_E)]
    if not tissue.any():
        return [Problem("error", where, f"no tissue found in {name}.", H_AND_E)]
    problems = []
    channels = cv2.split(picture)
    spread = functools.reduce(cv2.max, channels) - functools.reduce(cv2.min, channels)
    if float(spread[tissue].mean()) < _GREY_BELOW:
        value = picture.mean(axis=2)
        extreme = float(((value < _NEAR_BLACK) | (value > _NEAR_WHITE)).mean())
        what = "black and white alone" if extreme > 0.95 else "grey"
        problems.append(
            Problem(
                "warning",
                where,
                f"{name} is {what}: most of what a model reads in H&E is colour.",
                H_AND_E,
            )
        )
    else:
        red, green, blue = (float(channel[tissue].mean()) for channel in channels)
        if green > min(red, blue) + _MARGIN:
            problems.append(
                Problem(
                    "warning",
                    where,
                    f"the tissue in {name} is not coloured like H&E (mean red, green, blue "
                    f"{red:.0f}, {green:.0f}, {blue:.0f}; in H&E green is the lowest).",
                    "Is it another stain, or are the channels exchanged?",
                )
            )
    brightest = float(np.percentile(picture, 99))
    if brightest < _DIM_BELOW:
        problems.append(
            Problem(
                "note",
                where,
                f"{name} is dark: its brightest parts are at {brightest:.0f} of 255.",
                "Stain normalisation scales it up.",
            )
        )
    return problems


def _format(path: Path) -> tuple[str, int]:
    """Kind of a file, and how many resolutions it stores."""
    if zarr_images.is_zarr(path):
        return "ome-zarr", len(zarr_images.ZarrImage(path).levels)
    slide = whole_slides.opened(path)
    if slide is not None:
        with slide:
            return slide.properties.get(openslide.PROPERTY_NAME_VENDOR, "slide"), slide.level_count
    if tiffs.is_tiff(path):
        with contextlib.closing(tiffs.Tiff(path)) as tiff:
            return "ome-tiff" if tiffs.is_ome(path) else "tiff", len(tiff.levels)
    return image_files.header(path).kind, 1

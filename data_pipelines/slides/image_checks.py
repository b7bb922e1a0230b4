"""Thumbnails of images, and checks whether what they show can be H&E."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError, Problem

# Of 8-bit values. H&E tissue tried here (HER2ST, TNBC, BreCaHAD, BCSS, CMU-1, CAMELYON) has a mean
# difference of 16 or more between a pixel's largest and smallest channel.
_GREY_BELOW = 5.0
_BLACK_BELOW = 12.0
_DIM_BELOW = 140.0  # 99th percentile of the whole picture, glass included
_MARGIN = 4.0  # by how much green may exceed red or blue on average; in H&E it is the lowest
_NEAR_BLACK, _NEAR_WHITE = 30, 225
# Light that a stain takes away leaves dark parts coloured and glass bright; light that a dye sends
# out makes bright parts coloured, on dark. So colourfulness falls with brightness in H&E (Pearson r
# of -0.2 to -1 on what was tried here, underexposed copies included) and rises in fluorescence (0.7
# to 1 on made images).
_GLOWS_ABOVE = 0.3
_BORDER_BELOW = 20  # of the largest channel: a scanner's black border, or nothing at all
_DARK_BELOW, _DARK_SHARE = 60, 0.4
_NEVER_BRIGHT = 100.0  # 99th percentile of the smallest channel; 198 and more in H&E tried here
# Optical densities of haematoxylin and eosin are highest in green. Shares of stained pixels beyond
# these ratios to it are 0.02 (red) and 0.04 (blue) at most in H&E tried here, 0.25 with pen marks
# over a quarter of it, and 0.5 to 1 in fluorescence that was inverted.
_RED_TO_GREEN, _BLUE_TO_GREEN, _OTHER_SHARE = 1.4, 1.6, 0.35
_STAINED_OD = 0.3  # sum of the three optical densities
_LITTLE_TISSUE = 0.01  # share of the picture
COARSE_MPP = 2.0  # from here on a nucleus of 8 um has under 4 px
H_AND_E = "An H&E image in colour is needed."


@dataclasses.dataclass(frozen=True, eq=False)
class Thumbnail:
    """An image at low resolution, with its tissue and what its file states.

    kind: "jpeg", "png", "tiff", "ome-tiff", or OpenSlide's name of a scanner's format ("aperio").
    size_px: (width, height) at full resolution; levels: how many resolutions are stored.
    stated_mpp: microns per pixel that the file states, None if it does not.
    overview: (h, w, 3) uint8 RGB; scale: full-resolution pixels per overview pixel.
    tissue: (h, w) bool.
    notes: as in `SlideImage`.
    """

    path: Path
    kind: str
    size_px: tuple[int, int]
    levels: int
    stated_mpp: float | None
    overview: np.ndarray
    scale: float
    tissue: np.ndarray
    notes: tuple[Problem, ...] = ()

    def on_tissue(self, centres_px: np.ndarray) -> np.ndarray:
        """(n,) bool: which of (n, 2) full-resolution points, x first, lie on tissue.

        Points off the image do not.
        """
        at = np.floor(centres_px / self.scale).astype(int)
        size = np.array(self.tissue.shape)[::-1]
        last = size - 1
        inside = ((at >= 0) & (at <= last)).all(axis=1)
        column, row = np.clip(at, 0, last).T
        return inside & self.tissue[row, column]


def read_thumbnail(path: Path, *, needs_scale: bool = True) -> Thumbnail:
    """Reads a thumbnail from an image file.

    Args:
        path: the image.
        needs_scale: refuse a file whose scales along x and y differ; otherwise it states none.
    Raises:
        InputError: as `slides.open_slide`.
    """
    with slides.open_slide(path, mpp=1.0) as slide:  # whatever the file states
        thumbnail = thumbnail_of(slide, needs_scale=needs_scale)
    slides.refuse_implausible(thumbnail.stated_mpp)
    return thumbnail


def thumbnail_of(slide: slides.SlideImage, *, needs_scale: bool = False) -> Thumbnail:
    """The thumbnail of an open image.

    Raises:
        InputError: its scales along x and y differ, and `needs_scale`.
    """
    try:
        stated = slide.stated_mpp
    except InputError:
        if needs_scale:
            raise
        stated = None
    overview, scale = slide.overview()
    return Thumbnail(
        path=slide.path,
        kind=slide.kind,
        size_px=(slide.width_px, slide.height_px),
        levels=len(slide.levels),
        stated_mpp=stated,
        overview=overview,
        scale=scale,
        tissue=slide.tissue(),
        notes=slide.notes,
    )


def thumbnail_problems(where: str, thumbnail: Thumbnail) -> list[Problem]:
    """Notes of the file, and problems where the image cannot be H&E.

    Args:
        where: the section or image, as problems name it.
    """
    return [
        *thumbnail.notes,
        *picture_problems(where, thumbnail.path.name, thumbnail.overview, thumbnail.tissue),
    ]


def slide_problems(where: str, slide: slides.SlideImage) -> list[Problem]:
    """`thumbnail_problems` of an open image."""
    return thumbnail_problems(where, thumbnail_of(slide))


def refuse_errors(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, all of which are notes or warnings.

    Raises:
        InputError: the first error among them.
    """
    for problem in problems:
        if problem.severity == "error":
            raise InputError(str(problem).rstrip("."))
    return list(problems)


def picture_problems(
    where: str, name: str, picture: np.ndarray, tissue: np.ndarray
) -> list[Problem]:
    """Problems of an image that is black, empty, grey, or not coloured like H&E.

    Args:
        where, name: the section (or image) and the file, as problems name them.
        picture: (h, w, 3) uint8 RGB, the whole image at low resolution.
        tissue: (h, w) bool, as `tissue.tissue_mask`.
    """
    if _glows(picture):
        return [
            Problem(
                "error",
                where,
                f"{name} is not H&E: its bright parts are coloured on a dark ground, as in "
                "fluorescence.",
                H_AND_E,
            )
        ]
    if picture.mean() < _BLACK_BELOW:
        return [Problem("error", where, f"{name} is black.", H_AND_E)]
    if not tissue.any():
        return [Problem("error", where, f"no tissue found in {name}.", H_AND_E)]
    problems = []
    if tissue.mean() < _LITTLE_TISSUE:
        problems.append(
            Problem(
                "warning",
                where,
                f"tissue covers only {tissue.mean():.2%} of {name}.",
                "Is it the right image, and is the tissue stained?",
            )
        )
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
        elif (other := _other_stain(picture, tissue)) > _OTHER_SHARE:
            problems.append(
                Problem(
                    "warning",
                    where,
                    f"{other:.0%} of the stained parts of {name} have colours that haematoxylin "
                    "and eosin do not give.",
                    "Is it another stain, or inverted fluorescence?",
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


def _glows(picture: np.ndarray) -> bool:
    """Whether bright parts are the coloured ones, on a dark background."""
    channels = cv2.split(picture)
    highest, lowest = functools.reduce(cv2.max, channels), functools.reduce(cv2.min, channels)
    lit = highest >= _BORDER_BELOW
    dark = float((highest < _DARK_BELOW).mean()) > _DARK_SHARE
    if not lit.any() or not (dark or np.percentile(lowest, 99) < _NEVER_BRIGHT):
        return False
    chroma = (highest - lowest)[lit].astype(np.float64)
    brightness = picture.mean(axis=2)[lit]
    if chroma.std() == 0 or brightness.std() == 0:
        return False
    return float(np.corrcoef(chroma, brightness)[0, 1]) > _GLOWS_ABOVE


def _other_stain(picture: np.ndarray, tissue: np.ndarray) -> float:
    """Share of the stained pixels that take away more red or blue light than H&E does."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 1).astype(np.float32)
    glass = np.maximum(np.percentile(smooth.reshape(-1, 3), 99, axis=0), _DARK_BELOW)
    density = -np.log(np.clip(smooth[tissue] / glass, 1 / 255, 1))
    red, green, blue = density[density.sum(axis=1) > _STAINED_OD].T
    other = (red > _RED_TO_GREEN * green) | (blue > _BLUE_TO_GREEN * green)
    return float(other.mean()) if len(other) else 0.0

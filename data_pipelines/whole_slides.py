"""Whole-slide files through OpenSlide: opening, pixels, microns per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide

from histospace_tf.data_pipelines import image_files
from histospace_tf.vocabulary import InputError

SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".dcm")


def opened(path: Path) -> openslide.OpenSlide | None:
    """The file opened by OpenSlide, or None where it is for `image_files` to read or refuse.

    Raises:
        InputError: a whole-slide file that is damaged, or of a kind that nothing here can read.
    """
    if not path.is_file():
        return None
    try:
        vendor = openslide.OpenSlide.detect_format(path)
        return None if vendor is None else openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        # A tiled TIFF that OpenSlide cannot decode may still be an ordinary one that tifffile can.
        try:
            image_files.header(path)
        except InputError as plain:
            raise InputError(
                f"slide {str(path)!r} cannot be opened. OpenSlide: {error}. As a plain image: "
                f"{plain}"
            ) from None
        return None


def stated_mpp(path: Path, slide: openslide.OpenSlide) -> float | None:
    """Microns per pixel that a whole-slide file states, if it can be meant as such.

    Raises:
        InputError: the scales along x and y differ by more than 5 %.
    """
    stated = []
    for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y):
        try:
            stated.append(float(slide.properties[name]))
        except (KeyError, ValueError):
            return None
    x, y = stated
    # A generic TIFF states a print resolution as often as a scanner's.
    generic = slide.properties.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff"
    highest = image_files.FINEST_PRINT_UM if generic else 100
    if not (0.01 < x < highest and 0.01 < y < highest):
        return None
    if abs(x - y) > 0.05 * max(x, y):
        raise InputError(
            f"slide {str(path)!r} states {x:g} microns per pixel along x and {y:g} along y; give "
            "the scale with --mpp"
        )
    return (x + y) / 2


def pixels(
    path: Path,
    slide: openslide.OpenSlide,
    corner: tuple[int, int],
    level: int,
    size: tuple[int, int],
) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a part of a slide, laid on white.

    Args:
        path: the file, for messages.
        slide: the opened slide.
        corner: left and top in full-resolution pixels, whatever the level.
        level: which stored resolution, 0 the finest.
        size: width and height in the level's pixels.
    Raises:
        InputError: the file is damaged there.
    """
    try:
        picture = slide.read_region(corner, level, size)
    except openslide.OpenSlideError as error:
        raise InputError(
            f"slide {str(path)!r} is damaged near x {corner[0]}, y {corner[1]}: {error}. "
            "Copy or download it again"
        ) from None
    return image_files.on_white(np.asarray(picture))

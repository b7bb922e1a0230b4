"""Scanners' own formats through OpenSlide: opening, pixels, microns per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import tifffile

from histospace_tf.data_pipelines.slides import plain_images, tiffs
from histospace_tf.vocabulary import InputError

SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".dcm")


def opened(path: Path) -> openslide.OpenSlide | None:
    """The file opened by OpenSlide; None where `tiffs` or `plain_images` is to read or refuse it.

    Raises:
        InputError: a whole-slide file that is damaged, or of a kind that nothing here can read.
    """
    if not path.is_file() or tiffs.is_ome(path):
        return None
    try:
        vendor = openslide.OpenSlide.detect_format(path)
        # OpenSlide reads ordinary tiled TIFF without its ExtraSamples, and mirrors each tile in
        # itself where Orientation says that the picture is to be mirrored.
        if vendor is None or vendor == "generic-tiff":
            return None
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        # A TIFF that OpenSlide cannot decode may still be an ordinary one that tifffile can.
        if tiffs.is_tiff(path):
            try:
                tiffs.Tiff(path).close()
                return None
            except InputError as plain:
                other = f" As a plain image: {plain}"
        else:
            other = " Copy or download it again, with all files that belong to it"
        raise InputError(
            f"slide {str(path)!r} cannot be opened. OpenSlide: {error}.{other}"
        ) from None
    try:
        _refuse_tags(path)
    except InputError:
        slide.close()
        raise
    return slide


def _refuse_tags(path: Path) -> None:
    """Refuses what OpenSlide would pass over without a word in a scanner's TIFF."""
    if not tiffs.is_tiff(path):
        return
    try:
        with tifffile.TiffFile(path) as tiff:
            first = tiff.pages.first
            turned, bits = first.tags.valueof(274, default=1), first.bitspersample
    except tiffs.ERRORS:
        return  # OpenSlide knows formats that tifffile does not
    plain_images.refuse_turned(path, turned)
    if isinstance(bits, int) and bits > 8:
        raise plain_images.too_deep(path, bits)


def stated_mpp(slide: openslide.OpenSlide) -> tuple[float, float] | None:
    """(x, y) microns per pixel that a whole-slide file states, if it can be meant as such."""
    stated = []
    for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y):
        try:
            stated.append(float(slide.properties[name]))
        except (KeyError, ValueError):
            return None
    return (stated[0], stated[1]) if min(stated) > 0.01 and max(stated) < 100 else None


def pixels(
    path: Path,
    slide: openslide.OpenSlide,
    level: int,
    left: int,
    top: int,
    width: int,
    height: int,
) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a part of a slide, laid on white.

    Args:
        path: the file, for messages.
        slide: the opened slide.
        level: which stored resolution, 0 the finest.
        left, top, width, height: in the level's pixels.
    Raises:
        InputError: the file is damaged there.
    """
    # OpenSlide wants the corner in level 0's pixels.
    scale_x, scale_y = np.divide(slide.dimensions, slide.level_dimensions[level])
    corner = (round(left * scale_x), round(top * scale_y))
    try:
        picture = slide.read_region(corner, level, (width, height))
    except openslide.OpenSlideError as error:
        raise InputError(
            f"slide {str(path)!r} is damaged near x {corner[0]}, y {corner[1]}: {error}. "
            "Copy or download it again"
        ) from None
    return plain_images.on_white(np.asarray(picture))

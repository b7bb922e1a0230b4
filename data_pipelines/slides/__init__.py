"""Pixels of H&E images of any size, and their microns per pixel.

JPEG and PNG are decoded once and held until `close` (a 9270 x 9920 px JPEG takes 276 MB, and no
second copy is made; decoding a PNG takes twice its pixels for a moment). Scanners' formats that
OpenSlide knows (.svs, .ndpi, .mrxs, .scn, DICOM, ...), OME-TIFF, other TIFF and OME-Zarr are read
as needed. Every picture that comes out is (height, width, 3) uint8 RGB; transparent parts and
missing tiles are white.

Coordinates are full-resolution pixels, x (column) first, origin at the top left corner, of the
pixels as stored. An image whose Orientation tag says that it is to be shown turned or mirrored is
refused (`plain_images.refuse_turned` says why).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from histospace_tf.data_pipelines.slides import files, plain_images, scanner_files
from histospace_tf.data_pipelines.slides.image import BORDERS, SlideImage, resampled
from histospace_tf.data_pipelines.slides.tiff_metadata import HIGHEST_MPP, LOWEST_MPP
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError, Section

__all__ = [
    "BORDERS",
    "SUFFIXES",
    "Overview",
    "OverviewOf",
    "SlideImage",
    "image_size",
    "open_slide",
    "resampled",
    "stated_mpp",
]

# Longer sides of the pictures that a run publishes of its sections.
ENTRY_PX = 600  # in predictions.h5ad, as Space Ranger's "lowres"
VIEWER_PX = 1200  # in the report's viewer and maps
SUFFIXES = (*plain_images.SUFFIXES, *scanner_files.SUFFIXES)


class Overview(NamedTuple):
    """A whole image at low resolution.

    picture: (h, w, 3) uint8 RGB.
    scale: full-resolution pixels per pixel of it.
    mpp: microns per full-resolution pixel; None if unknown.
    """

    picture: np.ndarray
    scale: float
    mpp: float | None


OverviewOf = Callable[[Section, int], Overview]  # by section and longest side in pixels


def open_slide(path: str | Path, *, mpp: float | None = None) -> SlideImage:
    """Opens an image of any supported format.

    Args:
        path: JPEG, PNG, TIFF, a format of OpenSlide or a folder of OME-Zarr; recognised by content.
        mpp: microns per pixel; wins over what the file says.
    Raises:
        InputError: the file is missing, empty, truncated, damaged or no image; has more than
            8 bits a channel, or another tag that cannot be honoured; is to be shown turned; states
            scales along x and y that differ by more than 5 % while `mpp` is not given; or `mpp` is
            not between 0.01 and 100.
    """
    path = Path(path)
    refuse_implausible(mpp)
    with reading(f"image {str(path)!r}"):
        file = files.opened(path)
        if isinstance(file, plain_images.PlainImage):
            file.decode()
        image = SlideImage(path, file)
    try:
        image.mpp = mpp if mpp is not None else image.stated_mpp
    except InputError:
        image.close()
        raise
    return image


def is_plausible(mpp: float) -> bool:
    """Whether a slide may have that many microns per pixel."""
    return LOWEST_MPP < mpp < HIGHEST_MPP


def refuse_implausible(mpp: float | None) -> None:
    """Refuses microns per pixel, given by a user, that no slide has.

    Raises:
        InputError: not between 0.01 and 100.
    """
    if mpp is not None and not is_plausible(mpp):
        raise InputError(
            f"`mpp` {mpp:g}: no plausible scale; slides have between 0.1 and 10 microns per pixel"
        )


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in full-resolution pixels, without decoding the image.

    Raises:
        InputError: as `open_slide`, except for damage that only decoding shows.
    """
    return files.header(Path(path))[0]


def stated_mpp(path: str | Path) -> float | None:
    """Microns per pixel that an image file states; None where it states none.

    Raises:
        InputError: as `open_slide`, except for damage that only decoding shows.
    """
    return files.agreed_mpp(Path(path), files.header(Path(path))[1])

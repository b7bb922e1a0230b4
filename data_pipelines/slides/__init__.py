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

import contextlib
import functools
from pathlib import Path

import numpy as np

from histospace_tf.data_pipelines.slides import plain_images, scanner_files, tiffs, zarr_images
from histospace_tf.data_pipelines.slides.image import BORDERS, SlideImage, resampled
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError, Problem

__all__ = [
    "BORDERS",
    "SUFFIXES",
    "SlideImage",
    "image_size",
    "open_slide",
    "resampled",
    "stated_mpp",
]

SUFFIXES = (*plain_images.SUFFIXES, *scanner_files.SUFFIXES)


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
        image, stated = _opened(path)
    try:
        image.mpp = mpp if mpp is not None else _agreed(path, stated)
    except InputError:
        image.close()
        raise
    return image


def _opened(path: Path) -> tuple[SlideImage, tuple[float, float] | None]:
    """An image, and (x, y) microns per pixel where its file states them."""
    if zarr_images.is_zarr(path):
        of_zarr = zarr_images.ZarrImage(path)
        return SlideImage(path, of_zarr.levels, of_zarr.pixels, of_zarr.close), of_zarr.mpp
    slide = scanner_files.opened(path)
    if slide is not None:
        read = functools.partial(scanner_files.pixels, path, slide)
        image = SlideImage(path, slide.level_dimensions, read, slide.close)
        return image, scanner_files.stated_mpp(slide)
    if tiffs.is_tiff(path):
        tiff = tiffs.Tiff(path)
        return SlideImage(path, tiff.levels, tiff.pixels, tiff.close, tiff.notes), tiff.mpp
    return _held(path), None


def _held(path: Path) -> SlideImage:
    """A plain image, decoded at once and held until closed."""
    picture, header = plain_images.decode(path)

    def read(_: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        return picture[top : top + height, left : left + width]

    height, width = picture.shape[:2]
    said = [Problem("note", f"image {path.name}", f"{note}.") for note in header.notes]
    return SlideImage(path, ((width, height),), read, lambda: None, said)


def is_plausible(mpp: float) -> bool:
    """Whether a slide may have that many microns per pixel."""
    return 0.01 < mpp < 100


def refuse_implausible(mpp: float | None) -> None:
    """Refuses microns per pixel, given by a user, that no slide has.

    Raises:
        InputError: not between 0.01 and 100.
    """
    if mpp is not None and not is_plausible(mpp):
        raise InputError(
            f"--mpp {mpp:g}: no plausible scale; slides have between 0.1 and 10 microns per pixel"
        )


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in full-resolution pixels, without decoding the image.

    Raises:
        InputError: as `open_slide`, except for damage that only decoding shows.
    """
    path = Path(path)
    with reading(f"image {str(path)!r}"):
        if zarr_images.is_zarr(path):
            return zarr_images.ZarrImage(path).levels[0]
        slide = scanner_files.opened(path)
        if slide is not None:
            with slide:
                width, height = slide.dimensions
                return width, height
        if tiffs.is_tiff(path):
            with contextlib.closing(tiffs.Tiff(path)) as tiff:
                return tiff.levels[0]
        header = plain_images.header(path)
        return header.width_px, header.height_px


def _agreed(path: Path, stated: tuple[float, float] | None) -> float | None:
    """One scale for x and y.

    Raises:
        InputError: they differ by more than 5 %.
    """
    if stated is None:
        return None
    x, y = stated
    if abs(x - y) > 0.05 * max(x, y):
        raise InputError(
            f"slide {str(path)!r} states {x:g} microns per pixel along x and {y:g} along y; give "
            "the scale with --mpp"
        )
    return (x + y) / 2


def stated_mpp(path: str | Path) -> float | None:
    """Microns per pixel that an image file states; None where it states none.

    Raises:
        InputError: as `open_slide`, except for damage that only decoding shows.
    """
    path = Path(path)
    with reading(f"image {str(path)!r}"):
        if zarr_images.is_zarr(path):
            return _agreed(path, zarr_images.ZarrImage(path).mpp)
        slide = scanner_files.opened(path)
        if slide is not None:
            with slide:
                return _agreed(path, scanner_files.stated_mpp(slide))
        if tiffs.is_tiff(path):
            with contextlib.closing(tiffs.Tiff(path)) as tiff:
                return _agreed(path, tiff.mpp)
        plain_images.header(path)  # JPEG and PNG state none
        return None

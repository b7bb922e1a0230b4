"""Scanners' own formats through OpenSlide: opening, pixels, microns per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide

from histospace_tf.data_pipelines.slides import plain_images, tiffs
from histospace_tf.data_pipelines.slides.tiff_metadata import HIGHEST_MPP, LOWEST_MPP
from histospace_tf.vocabulary import InputError

SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".dcm")


class ScannerFile:
    """One slide that OpenSlide reads, as `image.OpenedFile`."""

    notes = ()

    def __init__(self, path: Path, slide: openslide.OpenSlide) -> None:
        self.path = path
        self._slide = slide
        self.kind = slide.properties.get(openslide.PROPERTY_NAME_VENDOR, "slide")
        self.levels = slide.level_dimensions
        self.mpp = _stated_mpp(slide)

    def pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a part, laid on white; in the level's pixels.

        Raises:
            InputError: the file is damaged there.
        """
        # OpenSlide wants the corner in level 0's pixels.
        scale_x, scale_y = np.divide(self._slide.dimensions, self.levels[level])
        corner = (round(left * scale_x), round(top * scale_y))
        try:
            picture = self._slide.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise InputError(
                f"slide {str(self.path)!r} is damaged near x {corner[0]}, y {corner[1]}: {error}. "
                "Copy or download it again"
            ) from None
        return plain_images.on_white(np.asarray(picture))

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()


def opened(path: Path, tags: tiffs.FirstTags | None) -> ScannerFile | None:
    """The file opened by OpenSlide; None where `tiffs` or `plain_images` is to read or refuse it.

    Args:
        tags: of `tiffs.first_tags`; None: the file is no TIFF.
    Raises:
        InputError: a whole-slide file that is damaged, or of a kind that nothing here can read.
    """
    if not path.is_file() or (tags is not None and tags.is_ome):
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
        if tags is not None:
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
        if tags is not None:
            _refuse(path, tags)
    except InputError:
        slide.close()
        raise
    return ScannerFile(path, slide)


def properties(path: Path) -> dict[str, str]:
    """What OpenSlide knows of a file, by the names of its properties; empty where it reads none."""
    try:
        if path.is_file() and openslide.OpenSlide.detect_format(path) is not None:
            with openslide.OpenSlide(path) as slide:
                return dict(slide.properties)
    except openslide.OpenSlideError:
        pass  # who opens it for its pixels says what is wrong
    return {}


def _refuse(path: Path, tags: tiffs.FirstTags) -> None:
    """Refuses tags of a scanner's TIFF that OpenSlide would ignore without an error."""
    plain_images.refuse_turned(path, tags.orientation)
    if isinstance(tags.bits, int) and tags.bits > 8:
        raise plain_images.too_deep(path, tags.bits)


def _stated_mpp(slide: openslide.OpenSlide) -> tuple[float, float] | None:
    """(x, y) microns per pixel that a whole-slide file states, if it can be meant as such."""
    stated = []
    for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y):
        try:
            stated.append(float(slide.properties[name]))
        except (KeyError, ValueError):
            return None
    is_plausible = min(stated) > LOWEST_MPP and max(stated) < HIGHEST_MPP
    return (stated[0], stated[1]) if is_plausible else None

"""Pixels of H&E images of any size, and their microns per pixel.

JPEG and PNG are decoded once and held until `close` (a 9270 x 9920 px JPEG takes 276 MB, and no
second copy is made; decoding a PNG takes twice its pixels for a moment). Whole-slide formats of
OpenSlide (.svs, .ndpi, .mrxs, .scn, tiled TIFF, DICOM, ...), OME-TIFF and other TIFF are read as
needed. Every picture that comes out is (height, width, 3) uint8 RGB; transparent parts and missing
tiles are white.

Coordinates are full-resolution pixels, x (column) first, origin at the top left corner, in the
file's own orientation: an Exif orientation tag is ignored.
"""

from __future__ import annotations

import abc
import contextlib
import operator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import openslide

from histospace_tf.data_pipelines import image_files, tiffs, whole_slides
from histospace_tf.vocabulary import InputError

BORDERS = ("reflect", "white")
SUFFIXES = (*image_files.SUFFIXES, *whole_slides.SUFFIXES)
_PATCH_PX = 8  # side of the patches that `sample_pixels` takes
_BAND_PX = 2**24  # of a stored resolution, read at once for an overview


class SlideImage(abc.ABC):
    """One opened image; made by `open_slide`, closed by `close` or a `with` block.

    path: the file.
    width_px, height_px: full-resolution size.
    mpp: microns per pixel, None if neither the user nor the file says.
    """

    def __init__(self, path: Path, levels: tuple[tuple[int, int], ...]) -> None:
        self.path = path
        self.width_px, self.height_px = levels[0]
        self.mpp: float | None = None
        self._levels = levels  # (width, height) of each resolution, finest first

    @abc.abstractmethod
    def _pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) RGB of a part that lies inside the image, in the level's pixels."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the pixels or the file; nothing can be read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def region(
        self,
        left: int,
        top: int,
        width: int,
        height: int,
        *,
        out_px: tuple[int, int] | None = None,
        border: str = "reflect",
    ) -> np.ndarray:
        """A part of the image as a new (height, width, 3) uint8 RGB array.

        Args:
            left, top, width, height: whole full-resolution pixels; the part may lie over the edge.
            out_px: (width, height) to resample to: averaged over areas when smaller (from the
                coarsest stored resolution that is fine enough, whose pixels the part is rounded
                to), cubic when larger. None: as stored.
            border: what stands outside the image: "reflect", its mirror image about the outermost
                pixel, or "white".
        Raises:
            InputError: an unknown border policy, or the file is damaged there.
            ValueError: a size below 1.
        """
        left, top, width, height = (operator.index(v) for v in (left, top, width, height))
        if border not in BORDERS:
            raise InputError(f"border {border!r} is unknown; one of {', '.join(BORDERS)} works")
        if min(width, height, *(out_px or (1, 1))) < 1:
            raise ValueError(f"a region of {width} x {height} px, resampled to {out_px}: too small")
        if out_px is None:
            return np.array(self._with_border(0, left, top, width, height, border))
        level, scale_x, scale_y = self._level_for(min(width / out_px[0], height / out_px[1]))
        part = self._with_border(
            level,
            round(left / scale_x),
            round(top / scale_y),
            max(1, round(width / scale_x)),
            max(1, round(height / scale_y)),
            border,
        )
        return np.array(part) if out_px == part.shape[1::-1] else resampled(part, out_px)

    def overview(self, max_px: int = 1024) -> tuple[np.ndarray, float]:
        """The whole image, its longer side at most `max_px`, and its scale.

        Returns:
            (h, w, 3) uint8 RGB, and full-resolution pixels per overview pixel (1 or more).
        """
        scale = max(1.0, max(self.width_px, self.height_px) / max_px)
        width, height = (
            max(1, round(self.width_px / scale)),
            max(1, round(self.height_px / scale)),
        )
        level, _, _ = self._level_for(min(self.width_px / width, self.height_px / height))
        # A slide without small stored resolutions is read in bands, or it would not fit memory.
        bands = min(height, -(-self._levels[level][0] * self._levels[level][1] // _BAND_PX))
        rows = np.linspace(0, height, bands + 1).astype(int)
        edges = np.round(rows * (self.height_px / height)).astype(int)
        parts = [
            self.region(0, top, self.width_px, bottom - top, out_px=(width, int(n)))
            for top, bottom, n in zip(edges[:-1], edges[1:], np.diff(rows), strict=True)
        ]
        return (parts[0] if bands == 1 else np.concatenate(parts)), scale

    def sample_pixels(self, n: int, *, seed: int) -> np.ndarray:
        """(m, 3) uint8 pixels from small patches spread evenly over the whole image.

        Background is included. m is `n`, or all the image has where that is less. The same seed
        gives the same pixels.
        """
        if self.width_px * self.height_px <= n or min(self.width_px, self.height_px) <= _PATCH_PX:
            every = self.region(0, 0, self.width_px, self.height_px).reshape(-1, 3)
            rng = np.random.default_rng(seed)
            return every if len(every) <= n else every[rng.permutation(len(every))[:n]]
        rng = np.random.default_rng(seed)
        patches = max(1, -(-n // _PATCH_PX**2))
        columns = max(1, round(np.sqrt(patches * self.width_px / self.height_px)))
        rows = -(-patches // columns)
        found = []
        for row in range(rows):
            for column in range(columns):
                # One patch a cell of an even grid, anywhere in its cell.
                x, y = rng.random(2)
                left = int((column + x) / columns * (self.width_px - _PATCH_PX + 1))
                top = int((row + y) / rows * (self.height_px - _PATCH_PX + 1))
                patch = self._pixels(0, left, top, _PATCH_PX, _PATCH_PX)
                found.append(patch.reshape(-1, 3))
        pixels = np.concatenate(found)
        return pixels[rng.permutation(len(pixels))[:n]]

    def _level_for(self, downsample: float) -> tuple[int, float, float]:
        """(coarsest level not coarser than `downsample`, its scale along x and along y)."""
        best = (0, 1.0, 1.0)
        for level, (width, height) in enumerate(self._levels):
            scale_x, scale_y = self.width_px / width, self.height_px / height
            if max(scale_x, scale_y) <= downsample * 1.01:
                best = (level, scale_x, scale_y)
        return best

    def _with_border(
        self, level: int, left: int, top: int, width: int, height: int, border: str
    ) -> np.ndarray:
        """A part in the level's pixels; may be a view of the image, to be copied or read alone."""
        level_width, level_height = self._levels[level]
        inside_x = left >= 0 and left + width <= level_width
        inside_y = top >= 0 and top + height <= level_height
        if inside_x and inside_y:
            return self._pixels(level, left, top, width, height)
        if border == "reflect":
            columns = _mirrored(np.arange(left, left + width), level_width)
            rows = _mirrored(np.arange(top, top + height), level_height)
            x, y = int(columns.min()), int(rows.min())
            part = self._pixels(level, x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1)
            return part[rows - y][:, columns - x]
        out = np.full((height, width, 3), 255, np.uint8)
        x, y = max(left, 0), max(top, 0)
        right, bottom = min(left + width, level_width), min(top + height, level_height)
        if x < right and y < bottom:
            out[y - top : bottom - top, x - left : right - left] = self._pixels(
                level, x, y, right - x, bottom - y
            )
        return out


class _PlainImage(SlideImage):
    """Decoded at once, held until closed."""

    def __init__(self, path: Path) -> None:
        self._image: np.ndarray | None = image_files.decode(path)
        height, width = self._image.shape[:2]
        super().__init__(path, ((width, height),))

    def _pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        if self._image is None:
            raise ValueError(f"image {str(self.path)!r} is closed")
        return self._image[top : top + height, left : left + width]

    def close(self) -> None:
        self._image = None


class _TiffImage(SlideImage):
    """Read through tifffile as needed."""

    def __init__(self, path: Path, tiff: tiffs.Tiff) -> None:
        self._tiff: tiffs.Tiff | None = tiff
        super().__init__(path, tiff.levels)

    def _pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        if self._tiff is None:
            raise ValueError(f"image {str(self.path)!r} is closed")
        return self._tiff.pixels(level, left, top, width, height)

    def close(self) -> None:
        if self._tiff is not None:
            self._tiff.close()
        self._tiff = None


class _WholeSlide(SlideImage):
    """Read through OpenSlide as needed."""

    def __init__(self, path: Path, slide: openslide.OpenSlide) -> None:
        self._slide: openslide.OpenSlide | None = slide
        super().__init__(path, slide.level_dimensions)

    def _pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        if self._slide is None:
            raise ValueError(f"image {str(self.path)!r} is closed")
        scale_x = self.width_px / self._levels[level][0]
        scale_y = self.height_px / self._levels[level][1]
        corner = (round(left * scale_x), round(top * scale_y))  # OpenSlide wants level 0's pixels
        return whole_slides.pixels(self.path, self._slide, corner, level, (width, height))

    def close(self) -> None:
        if self._slide is not None:
            self._slide.close()
        self._slide = None


def open_slide(path: str | Path, *, mpp: float | None = None) -> SlideImage:
    """Opens an image of any supported format.

    Args:
        path: JPEG, PNG, TIFF or a format of OpenSlide; recognised by content.
        mpp: microns per pixel; wins over what the file says.
    Raises:
        InputError: the file is missing, empty, truncated, damaged or no image; has more than
            8 bits a channel; states scales along x and y that differ by more than 5 % while `mpp`
            is not given; or `mpp` is not between 0.01 and 100.
    """
    path = Path(path)
    refuse_implausible(mpp)
    slide = whole_slides.opened(path)
    image: SlideImage
    stated = None
    if slide is not None:
        image, stated = _WholeSlide(path, slide), whole_slides.stated_mpp(slide)
    elif tiffs.is_tiff(path):
        tiff = tiffs.Tiff(path)
        image, stated = _TiffImage(path, tiff), tiff.mpp
    else:
        image = _PlainImage(path)
    try:
        image.mpp = mpp if mpp is not None else _agreed(path, stated)
    except InputError:
        image.close()
        raise
    return image


def refuse_implausible(mpp: float | None) -> None:
    """Refuses microns per pixel, given by a user, that no slide has.

    Raises:
        InputError: not between 0.01 and 100.
    """
    if mpp is not None and not 0.01 < mpp < 100:
        raise InputError(
            f"--mpp {mpp:g}: no plausible scale; slides have between 0.1 and 10 microns per pixel"
        )


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in full-resolution pixels, without decoding the image.

    Raises:
        InputError: as `open_slide`, except for damage that only decoding shows.
    """
    path = Path(path)
    slide = whole_slides.opened(path)
    if slide is not None:
        with slide:
            width, height = slide.dimensions
            return width, height
    if tiffs.is_tiff(path):
        with contextlib.closing(tiffs.Tiff(path)) as tiff:
            return tiff.levels[0]
    header = image_files.header(path)
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
    slide = whole_slides.opened(path)
    if slide is not None:
        with slide:
            return _agreed(path, whole_slides.stated_mpp(slide))
    if tiffs.is_tiff(path):
        with contextlib.closing(tiffs.Tiff(path)) as tiff:
            return _agreed(path, tiff.mpp)
    image_files.header(path)  # JPEG and PNG state none
    return None


def resampled(picture: np.ndarray, out_px: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 picture at `out_px` (width, height): area average down, cubic up."""
    height, width = picture.shape[:2]
    if (width, height) == tuple(out_px):
        return picture
    shrinks = out_px[0] <= width and out_px[1] <= height
    return cv2.resize(picture, out_px, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Indices folded into 0..size-1 about the outermost pixels, however far out they are."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.minimum(folded, period - folded)

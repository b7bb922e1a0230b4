"""One opened image, whatever its format: parts of it, an overview, a sample of its pixels.

The contract of coordinates and pixels is in `slides`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import shapely

from histospace_tf.data_pipelines.slides.files import OpenedFile, agreed_mpp
from histospace_tf.data_pipelines.slides.outlines import masked
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.data_pipelines.slides.white_field import OVERVIEW_PX, WhiteField, estimated
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError

BORDERS = ("reflect", "white")
_PATCH_PX = 8  # side of the patches that `sample_pixels` takes
_BAND_PX = 2**24  # of a stored resolution, read at once for an overview
_BLOCK_PX = 2**22  # of the finest resolution, read at once for squares that overlap


class SlideImage:
    """One opened image; made by `slides.open_slide`, closed by `close` or a `with` block.

    path: the file.
    kind, levels: as in `OpenedFile`.
    width_px, height_px: full-resolution size.
    mpp: microns per pixel, None if neither the user nor the file says.
    notes: what was ignored when the file was opened: other pictures in it, tags, ...
    white_field: with one, tiles and sampled pixels come evenly lit; None: as stored. Regions,
        squares and overviews are as stored, always.
    outline: where a person says that tissue is, as in `outlines`; None: it is found.

    Overviews and where they show tissue are made once, and kept until it is closed.
    """

    def __init__(self, path: Path, file: OpenedFile) -> None:
        """Takes over an opened file."""
        self.path = path
        self.kind, self.levels = file.kind, tuple(file.levels)
        self.width_px, self.height_px = self.levels[0]
        self.mpp: float | None = None
        self.white_field: WhiteField | None = None
        self.outline: shapely.Geometry | None = None
        self.notes = tuple(file.notes)
        self._stated = file.mpp
        self._file: OpenedFile | None = file
        self._overviews: dict[int, np.ndarray] = {}
        self._tissue: dict[int, np.ndarray] = {}

    @property
    def stated_mpp(self) -> float | None:
        """Microns per pixel that the file states; None where it states none.

        Raises:
            InputError: they differ by more than 5 % along x and y.
        """
        return agreed_mpp(self.path, self._stated)

    def _pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        if self._file is None:
            raise ValueError(f"image {str(self.path)!r} is closed")
        with reading(f"image {str(self.path)!r}"):
            return self._file.pixels(level, left, top, width, height)

    def close(self) -> None:
        """Releases the pixels or the file; nothing can be read afterwards."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._overviews.clear()
        self._tissue.clear()

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
        _check_border(border)
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

    def squares(
        self, corners: np.ndarray, side: int, *, out_px: int | None = None, border: str = "reflect"
    ) -> Iterator[np.ndarray]:
        """Reads square parts as `region` does; those that overlap are read together.

        Args:
            corners: (n, 2) int64, left and top of each, in full-resolution pixels.
            side: of all of them, in the same.
            out_px: side to resample to; None: as stored.
            border: "reflect" or "white"; checked when the first square is requested.
        Yields:
            (s, s, 3) uint8 RGB in the order of `corners`; may be a view of others' pixels.
        """
        _check_border(border)
        size = (out_px or side,) * 2
        if self._level_for(side / size[0])[0]:  # coarser pixels are few, and need rounding
            for left, top in corners:
                yield self.region(left, top, side, side, out_px=size, border=border)
            return
        for block in _overlapping(corners, side):
            left, top = (int(v) for v in corners[block].min(axis=0))
            width, height = (int(v) for v in corners[block].max(axis=0) + side - (left, top))
            picture = self._with_border(0, left, top, width, height, border)
            for x, y in corners[block] - (left, top):
                yield resampled(picture[y : y + side, x : x + side], size)

    def overview(self, max_px: int = 1024) -> tuple[np.ndarray, float]:
        """Reads the whole image with at most `max_px` on its longer side.

        Returns:
            (h, w, 3) uint8 RGB, and full-resolution pixels per overview pixel (1 or more).
        """
        scale = max(1.0, max(self.width_px, self.height_px) / max_px)
        if max_px not in self._overviews:
            self._overviews[max_px] = self._whole(scale)
        return self._overviews[max_px].copy(), scale

    def tissue(self, max_px: int = 1024) -> np.ndarray:
        """Where `overview` shows tissue: (h, w) bool, as `outline` or `tissue.tissue_mask`."""
        if self.outline is not None:
            picture, scale = self.overview(max_px)
            return masked(self.outline, picture.shape[:2], scale)
        if max_px not in self._tissue:
            self._tissue[max_px] = tissue_mask(self.overview(max_px)[0])
        return self._tissue[max_px].copy()

    def light_evenly(self) -> WhiteField:
        """Estimates the slide's white field, and lights tiles and sampled pixels evenly by it."""
        size = self.width_px, self.height_px
        overview, _ = self.overview(OVERVIEW_PX)
        self.white_field = estimated(overview, tissue_mask(overview), size_px=size)
        return self.white_field

    def _whole(self, scale: float) -> np.ndarray:
        """The whole image, so many times smaller."""
        width, height = (
            max(1, round(self.width_px / scale)),
            max(1, round(self.height_px / scale)),
        )
        level, _, _ = self._level_for(min(self.width_px / width, self.height_px / height))
        # A slide without small stored resolutions is read in bands, or it would not fit memory.
        bands = min(height, -(-self.levels[level][0] * self.levels[level][1] // _BAND_PX))
        rows = np.linspace(0, height, bands + 1).astype(int)
        edges = np.round(rows * (self.height_px / height)).astype(int)
        parts = [
            self.region(0, top, self.width_px, bottom - top, out_px=(width, int(n)))
            for top, bottom, n in zip(edges[:-1], edges[1:], np.diff(rows), strict=True)
        ]
        return parts[0] if bands == 1 else np.concatenate(parts)

    def sample_pixels(self, n: int, *, seed: int) -> np.ndarray:
        """(m, 3) uint8 pixels from small patches spread evenly over the whole image.

        Background is included. m is `n`, or all the image has where that is less. The same seed
        gives the same pixels.
        """
        if self.width_px * self.height_px <= n or min(self.width_px, self.height_px) <= _PATCH_PX:
            every = self._lit(self.region(0, 0, self.width_px, self.height_px), 0, 0).reshape(-1, 3)
            rng = np.random.default_rng(seed)
            return every if len(every) <= n else every[rng.permutation(len(every))[:n]]
        rng = np.random.default_rng(seed)
        patches = max(1, -(-n // _PATCH_PX**2))
        columns = max(1, round(np.sqrt(patches * self.width_px / self.height_px)))
        rows = -(-patches // columns)
        sampled = []
        for row in range(rows):
            for column in range(columns):
                # One patch a cell of an even grid, anywhere in its cell.
                x, y = rng.random(2)
                left = int((column + x) / columns * (self.width_px - _PATCH_PX + 1))
                top = int((row + y) / rows * (self.height_px - _PATCH_PX + 1))
                patch = self._pixels(0, left, top, _PATCH_PX, _PATCH_PX)
                sampled.append(self._lit(patch, left, top).reshape(-1, 3))
        pixels = np.concatenate(sampled)
        return pixels[rng.permutation(len(pixels))[:n]]

    def _lit(self, part: np.ndarray, left: int, top: int) -> np.ndarray:
        return part if self.white_field is None else self.white_field.lit(part, left, top)

    def _level_for(self, downsample: float) -> tuple[int, float, float]:
        """(coarsest level not coarser than `downsample`, its scale along x and along y)."""
        best = (0, 1.0, 1.0)
        for level, (width, height) in enumerate(self.levels):
            scale_x, scale_y = self.width_px / width, self.height_px / height
            if max(scale_x, scale_y) <= downsample * 1.01:
                best = (level, scale_x, scale_y)
        return best

    def _with_border(
        self, level: int, left: int, top: int, width: int, height: int, border: str
    ) -> np.ndarray:
        """A part in the level's pixels; may be a view of the image, to be copied or read alone."""
        level_width, level_height = self.levels[level]
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


def _overlapping(corners: np.ndarray, side: int) -> Iterator[slice]:
    """Runs of squares whose bounding box has no more pixels than they have together."""
    start = 0
    for end in range(1, len(corners) + 1):
        if end < len(corners):
            run = corners[start : end + 1]
            box = int(np.prod(run.max(axis=0) - run.min(axis=0) + side))
            if box <= min(len(run) * side**2, _BLOCK_PX):
                continue
        yield slice(start, end)
        start = end


def _check_border(border: str) -> None:
    if border not in BORDERS:
        raise InputError(f"border {border!r} is unknown; one of {', '.join(BORDERS)} works")

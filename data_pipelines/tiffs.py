"""TIFF files read piece by piece, whatever their size: OME-TIFF, and what OpenSlide does not open.

Strips and tiles are decoded when a part of the image asks for them; the last ones are kept.
OME-TIFF comes here even where OpenSlide would open it: OpenSlide takes neither the pyramid in its
SubIFDs, nor the pixel size in its XML, nor a picture whose colours are stored as a plane each.
"""

from __future__ import annotations

import collections
import contextlib
import struct
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from histospace_tf.data_pipelines import image_files
from histospace_tf.vocabulary import InputError

FINEST_PRINT_UM = 5.0  # a print or screen resolution is never finer than this (5080 dpi)
_KEPT_BYTES = 96 * 2**20  # of decoded strips and tiles
_UNITS_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3}
_ERRORS = (
    tifffile.TiffFileError,
    OSError,
    RuntimeError,  # imagecodecs' errors
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    ZeroDivisionError,
    struct.error,
)
Segment = tuple[int, int, int]  # level, page of it, number of the strip or tile


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF or BigTIFF; one that is absent or unreadable does not."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    return False


def is_ome(path: Path) -> bool:
    """Whether a file is an OME-TIFF."""
    if not is_tiff(path):
        return False
    try:
        with tifffile.TiffFile(path) as tiff:
            return bool(tiff.is_ome)
    except _ERRORS:
        return False


class Tiff:
    """One opened TIFF: the first picture in it, at every resolution that is stored.

    levels: (width, height) of each resolution, finest first.
    mpp: (x, y) microns per pixel that the file states, if it can be meant as such: an OME-TIFF's
        physical size, else resolution tags finer than FINEST_PRINT_UM. Else None.
    """

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            InputError: the file is truncated, damaged, compressed in an unknown way, has more than
                8 bits a channel, or holds something other than one RGB or grey picture.
        """
        self.path = path
        try:
            self._file = tifffile.TiffFile(path)
        except _ERRORS as error:
            raise _unreadable(path, error) from None
        try:
            self._open()
        except InputError:
            self._file.close()
            raise
        except _ERRORS as error:
            self._file.close()
            raise _unreadable(path, error) from None
        self._kept: collections.OrderedDict[Segment, np.ndarray] = collections.OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()  # tiles are cut in several threads

    def _open(self) -> None:
        series = self._file.series[0]
        page = series.keyframe
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        size = self.path.stat().st_size
        if not ends or max(ends) > size:
            raise image_files.truncated(self.path, size, "TIFF")
        tifffile.COMPRESSION(int(page.compression))  # raises where it is unknown
        _refuse_other(self.path, series)
        self._inverted = int(page.photometric) == 0  # 0 is white
        self._pages = list(_levels(self._file, series))
        self._planes: list[np.ndarray] | None = None
        first = self._pages[0]
        samples = _samples(series)
        if sum(p.keyframe.samplesperpixel for p in first if p is not None) != samples:
            # Planes that stand behind each other without a directory of their own.
            whole = np.squeeze(series.asarray())
            self._planes = list(whole) if samples > 1 else [whole]
            self._pages = [first[:1]]
        self.levels = tuple(
            (int(p[0].keyframe.imagewidth), int(p[0].keyframe.imagelength)) for p in self._pages
        )
        self.mpp = _ome_mpp(self._file) if self._file.is_ome else _tag_mpp(page)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self._kept.clear()

    def pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a part inside the image, in the level's pixels.

        Raises:
            InputError: the file is damaged there.
        """
        box = (left, top, width, height)
        if self._planes is not None:
            planes = [p[top : top + height, left : left + width, None] for p in self._planes]
        else:
            planes = [
                part
                for number, page in enumerate(self._pages[level])
                for part in self._page_planes(level, number, page, box)
            ]
        part = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        if part.shape[2] == 1:
            return np.repeat(255 - part if self._inverted else part, 3, axis=2)
        return image_files.on_white(part) if part.shape[2] == 4 else np.ascontiguousarray(part)

    def _page_planes(
        self, level: int, number: int, page: Any, box: tuple[int, int, int, int]
    ) -> Iterator[np.ndarray]:
        """A part of a page, colour by colour where they are stored apart, else all at once."""
        left, top, width, height = box
        key = page.keyframe
        tile_width = int(key.tilewidth if key.is_tiled else key.imagewidth)
        tile_height = int(key.tilelength if key.is_tiled else key.rowsperstrip)
        across = -(-int(key.imagewidth) // tile_width)
        down = -(-int(key.imagelength) // tile_height)
        apart = int(key.planarconfig) == 2
        samples = 1 if apart else int(key.samplesperpixel)
        white = 0 if self._inverted else 255
        for plane in range(int(key.samplesperpixel) if apart else 1):
            out = np.full((height, width, samples), white, np.uint8)
            for row in range(top // tile_height, -(-(top + height) // tile_height)):
                for column in range(left // tile_width, -(-(left + width) // tile_width)):
                    segment = self._segment(
                        (level, number, (plane * down + row) * across + column), page
                    )
                    x, y = column * tile_width, row * tile_height
                    part = segment[max(top - y, 0) : top + height - y]
                    part = part[:, max(left - x, 0) : left + width - x]
                    at_y, at_x = max(y - top, 0), max(x - left, 0)
                    out[at_y : at_y + part.shape[0], at_x : at_x + part.shape[1]] = part
            yield out

    def _segment(self, name: Segment, page: Any) -> np.ndarray:
        """(h, w, samples) of one strip or tile, (0, 0, samples) where it was left out."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        key, index = page.keyframe, name[2]
        tables: dict[str, Any] = {}
        if int(key.compression) in (6, 7, 33007, 34892):  # kinds of JPEG
            tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        try:
            length = page.databytecounts[index]
            with self._lock:
                self._file.filehandle.seek(page.dataoffsets[index])
                data = self._file.filehandle.read(length)
            if len(data) < length:
                raise image_files.truncated(self.path, self.path.stat().st_size, "TIFF")
            found = key.decode(data, index, **tables)[0] if length else None
        except _ERRORS as error:
            raise image_files.broken(self.path, f"its pixels cannot be decoded: {error}") from None
        # A copy, because what was decoded may be a view of more.
        segment = np.zeros((0, 0, 1), np.uint8) if found is None else np.array(found[0])
        with self._lock:
            if name not in self._kept:
                self._kept[name] = segment
                self._kept_bytes += segment.nbytes
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return segment


def _levels(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Iterator[list[Any]]:
    """Pages of each resolution, finest first."""
    for level in series.levels:
        yield list(level.pages)
    if len(series.levels) > 1 or tiff.is_ome or len(series.pages) > 1:
        return
    # Other writers put smaller copies behind the picture, marked as such.
    first: Any = series.keyframe
    for page in tiff.pages:
        key: Any = page.keyframe
        ratio = first.imagewidth / key.imagewidth
        fits = abs(key.imagelength * ratio / first.imagelength - 1) < 0.02
        if key.is_reduced and fits and key.samplesperpixel == first.samplesperpixel and ratio > 1:
            yield [page]


def _samples(series: tifffile.TiffPageSeries) -> int:
    sides = [n for a, n in zip(series.axes, series.shape, strict=True) if a in "SC" and n > 1]
    return int(sides[0]) if sides else 1


def _refuse_other(path: Path, series: tifffile.TiffPageSeries) -> None:
    if series.dtype != np.uint8:
        raise image_files.too_deep(path, str(series.dtype))
    kept = "".join(
        a for a, n in zip(series.axes, series.shape, strict=True) if a in "YX" or n > 1
    ).replace("C", "S")
    # 0 and 1: grey; 2: RGB; 6: YCbCr, which tifffile turns into RGB
    known = int(series.keyframe.photometric) in (0, 1, 2, 6)
    if not known or kept not in ("YX", "YXS", "SYX") or _samples(series) not in (1, 3, 4):
        raise InputError(
            f"image {str(path)!r} is a TIFF of shape {tuple(series.shape)} ({series.axes}, "
            f"photometric {int(series.keyframe.photometric)}); one RGB or grey picture of 8 bits a "
            "channel works"
        )


def _tag_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    unit_um = {2: 25_400.0, 3: 10_000.0}.get(int(page.resolutionunit or 1))
    x, y = page.resolution
    if unit_um is None or x <= 0 or y <= 0:
        return None
    found = (unit_um / x, unit_um / y)
    return found if min(found) > 0.01 and max(found) < FINEST_PRINT_UM else None


def _ome_mpp(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    """The first image's physical pixel size."""
    try:
        root = ET.fromstring(tiff.ome_metadata or "")
    except ET.ParseError:
        return None
    pixels = root.find(".//{*}Pixels")
    found = []
    for axis in "XY":
        value = None if pixels is None else pixels.get(f"PhysicalSize{axis}")
        unit = "µm" if pixels is None else pixels.get(f"PhysicalSize{axis}Unit", "µm")
        try:
            found.append(float(value or "") * _UNITS_UM[unit])
        except (ValueError, KeyError):
            return None
    x, y = found
    return (x, y) if min(found) > 0.01 and max(found) < 100 else None


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"image {str(path)!r} cannot be read as a TIFF: {error}. If it is not damaged, a copy "
        "that is uncompressed or has LZW, Deflate or JPEG compression works"
    )

"""Reads TIFF files piece by piece, whatever their size, except those of scanners' own formats.

Strips and tiles are decoded when a part of the image asks for them; the last ones are kept. Which
picture of a file is read is chosen in `tiff_pictures`; `tiff_tags` reads its tags. Tiled TIFF and
OME-TIFF are read here even where OpenSlide would open them: it ignores Orientation and
ExtraSamples, and the SubIFDs, pixel sizes and channels of OME-TIFF.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from histospace_tf.data_pipelines.slides import plain_images, tiff_metadata, tiff_pictures
from histospace_tf.vocabulary import InputError

_KEPT_BYTES = 96 * 2**20  # of decoded strips and tiles
ERRORS = (  # what tifffile raises of a file that it cannot read
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


@dataclasses.dataclass(frozen=True)
class FirstTags:
    """What decides who reads a TIFF, of its first page; None where tifffile cannot tell.

    orientation: value of tag 274; bits: of each channel.
    """

    is_ome: bool = False
    orientation: object = None
    bits: object = None


def first_tags(path: Path) -> FirstTags | None:
    """The first page's tags; None where a file is no TIFF."""
    if not is_tiff(path):
        return None
    is_ome = False
    try:
        with tifffile.TiffFile(path) as tiff:
            is_ome = bool(tiff.is_ome)
            first = tiff.pages.first
            return FirstTags(is_ome, first.tags.valueof(274, default=1), first.bitspersample)
    except ERRORS:
        return FirstTags(is_ome)  # OpenSlide knows formats that tifffile does not


class Tiff:
    """One opened TIFF: one picture in it, at every resolution that is stored.

    kind: "tiff" or "ome-tiff".
    levels: (width, height) of each resolution, finest first.
    mpp: (x, y) microns per pixel that the file states, as `tiff_metadata.stated_mpp`.
    notes: which pictures were not taken, and which tags change nothing here.
    """

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            InputError: the file is truncated or damaged, or as `tiff_pictures.choose`.
        """
        self.path = path
        try:
            self._file = tifffile.TiffFile(path)
        except ERRORS as error:
            raise _unreadable(path, error) from None
        try:
            self._open()
        except InputError:
            self._file.close()
            raise
        except ERRORS as error:
            self._file.close()
            raise _unreadable(path, error) from None
        self._kept: collections.OrderedDict[Segment, np.ndarray] = collections.OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()  # tiles are cut in several threads

    def _open(self) -> None:
        chosen = tiff_pictures.choose(self.path, self._file)
        page = chosen.picture.key
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        size = self.path.stat().st_size
        if not ends or max(ends) > size:
            raise plain_images.truncated(self.path, size, "TIFF")
        self.kind = "ome-tiff" if self._file.is_ome else "tiff"
        self.notes = chosen.notes
        self._pages, self._colours, self._order = chosen.levels, chosen.colours, chosen.order
        self._planes: list[np.ndarray] | None = None
        channels = chosen.picture.sizes.get("C", 1)
        if channels > 1 and channels != len(self._pages[0]) * self._colours[0].samples:
            # Planes that stand behind each other without a directory of their own.
            self._planes = list(np.squeeze(chosen.picture.series.asarray()))
            self._pages, self._colours = self._pages[:1], self._colours[:1]
        self.levels = tuple(
            (int(p[0].keyframe.imagewidth), int(p[0].keyframe.imagelength)) for p in self._pages
        )
        self.mpp = tiff_metadata.stated_mpp(self._file, page, chosen.picture.number)

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
        colours = self._colours[level]
        missing: list[tuple[slice, slice]] = []
        if self._planes is not None:
            planes = [p[top : top + height, left : left + width, None] for p in self._planes]
        else:
            planes = [
                part
                for number, page in enumerate(self._pages[level])
                for part in self._page_planes((level, number), page, box, missing)
            ]
        if len(planes) == 3 and colours.base == 1:  # channels, a page each
            planes = [colours.rgb(plane)[..., :1] for plane in planes]
            rgb = np.concatenate(planes, axis=2)
        else:
            rgb = colours.rgb(planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))
        if self._order is not None:
            rgb = np.ascontiguousarray(rgb[..., list(self._order)])
        for rows, columns in missing:
            rgb[rows, columns] = 255
        return rgb

    def _page_planes(
        self,
        name: tuple[int, int],
        page: Any,
        box: tuple[int, int, int, int],
        missing: list[tuple[slice, slice]],
    ) -> Iterator[np.ndarray]:
        """A part of a page as stored, sample by sample where they are apart, else all at once.

        Parts that the file leaves out are 0, and are added to `missing`.
        """
        left, top, width, height = box
        key = page.keyframe
        tile_width = int(key.tilewidth if key.is_tiled else key.imagewidth)
        tile_height = int(key.tilelength if key.is_tiled else key.rowsperstrip)
        across = -(-int(key.imagewidth) // tile_width)
        down = -(-int(key.imagelength) // tile_height)
        apart = int(key.planarconfig) == 2
        samples = 1 if apart else int(key.samplesperpixel)
        for plane in range(int(key.samplesperpixel) if apart else 1):
            out = np.zeros((height, width, samples), np.uint8)
            for row in range(top // tile_height, -(-(top + height) // tile_height)):
                for column in range(left // tile_width, -(-(left + width) // tile_width)):
                    segment = self._segment((*name, (plane * down + row) * across + column), page)
                    x, y = column * tile_width, row * tile_height
                    at_y, at_x = max(y - top, 0), max(x - left, 0)
                    if not segment.size:
                        rows = slice(at_y, y + tile_height - top)
                        missing.append((rows, slice(at_x, x + tile_width - left)))
                        continue
                    part = segment[max(top - y, 0) : top + height - y]
                    part = part[:, max(left - x, 0) : left + width - x]
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
        if int(key.compression) in (7, 33007, 34892):  # kinds of JPEG
            tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        try:
            length = page.databytecounts[index]
            with self._lock:
                self._file.filehandle.seek(page.dataoffsets[index])
                data = self._file.filehandle.read(length)
            if len(data) < length:
                raise plain_images.truncated(self.path, self.path.stat().st_size, "TIFF")
            decoded = key.decode(data, index, **tables)[0] if length else None
        except ERRORS as error:
            if "requires the 'imagecodecs'" in str(error):  # a codec that it was built without
                raise _unreadable(self.path, error) from None
            raise plain_images.broken(self.path, f"its pixels cannot be decoded: {error}") from None
        # A copy, because what was decoded may be a view of more.
        segment = (
            np.zeros((0, 0, 1), np.uint8) if decoded is None else np.array(decoded[0], np.uint8)
        )
        with self._lock:
            if name not in self._kept:
                self._kept[name] = segment
                self._kept_bytes += segment.nbytes
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return segment


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"image {str(path)!r} cannot be read as a TIFF: {error}. If it is not damaged, a copy "
        "that is uncompressed or has LZW, Deflate or JPEG compression works"
    )

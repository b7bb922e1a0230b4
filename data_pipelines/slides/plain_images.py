"""Plain image files that are decoded whole: JPEG and PNG.

Pixels come out as (height, width, 3) uint8 RGB as they are stored. Grey and palettes become RGB,
transparency is laid on white; gamma (gAMA) and colour profiles are not applied. More than 8 bits a
channel are refused: only the user knows how to scale them. So are CMYK, whose RGB depends on an
ink profile, and an Exif Orientation that turns or mirrors the picture.

A file is recognised by its first bytes, never by its name. Truncation is checked here, because
decoders fill the missing part with grey without an error.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from histospace_tf.vocabulary import InputError, Problem

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png"),
    *(".tif", ".tiff", ".btf", ".tf2", ".tf8", ".tif8", ".tiff8", ".qptiff", ".ptif", ".ptiff"),
)
PROFILE = "its ICC colour profile is not sRGB's and is not applied"
_TURNS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along its diagonal",
    6: "turned clockwise by 90 degrees",
    7: "mirrored along its other diagonal",
    8: "turned anticlockwise by 90 degrees",
}
_JPEG_KINDS = {0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic, progressive"}
_MAX_PIXELS = 2**30  # held whole; larger images belong in a tiled format
_STRIP = 256  # rows that are converted at once, so that no second copy of an image is made


class PlainImage:
    """One JPEG or PNG, as `image.OpenedFile`; it is read once, and decoded when `decode` is called.

    Their dots per inch are never microns per pixel.
    """

    mpp = None

    def __init__(self, path: Path) -> None:
        """Reads the file; one that is truncated is refused.

        Raises:
            InputError: the file is missing, empty, truncated, no JPEG or PNG, has more than 8 bits
                a channel or other colours than grey and RGB, or is to be shown turned.
        """
        data = _content(path)
        if data.startswith(b"\xff\xd8\xff"):
            self.kind, (size, notes) = "jpeg", _jpeg_header(path, data)
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            self.kind, (size, notes) = "png", _png_header(path, data)
        else:
            raise InputError(
                f"image {str(path)!r} is not an image that can be read here (it begins with "
                f"{data[:8]!r}). JPEG, PNG, TIFF and the whole-slide formats of OpenSlide work"
            )
        self.path, self.levels = path, (size,)
        self.notes = [Problem("note", f"image {path.name}", f"{note}.") for note in notes]
        self._content: bytes | None = data
        self._picture: np.ndarray | None = None

    def decode(self) -> None:
        """Decodes the pixels, which are held until `close`.

        Raises:
            InputError: they are damaged, or too many.
        """
        assert self._content is not None
        ((width, height),) = self.levels
        if width * height > _MAX_PIXELS:
            raise InputError(
                f"image {str(self.path)!r} has {width} x {height} px, too many to hold at once; a "
                "tiled pyramidal TIFF (for instance `vips tiffsave --tile --pyramid`) works"
            )
        decoded = _jpeg_pixels if self.kind == "jpeg" else _png_pixels
        self._picture, self._content = decoded(self.path, self._content), None
        height, width = self._picture.shape[:2]
        self.levels = ((width, height),)

    def pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """A view of a part of the decoded picture."""
        assert self._picture is not None
        return self._picture[top : top + height, left : left + width]

    def close(self) -> None:
        """Releases the bytes and the pixels."""
        self._content = self._picture = None


def on_white(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: (h, w, 4) pixels with straight alpha, laid on white."""
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), _STRIP):
        strip = pixels[top : top + _STRIP]
        if cv2.extractChannel(strip, 3).min() == 255:
            out[top : top + _STRIP] = cv2.cvtColor(strip, cv2.COLOR_RGBA2RGB)
            continue
        colour, alpha = strip[:, :, :3], strip[:, :, 3:]
        alpha16 = alpha.astype(np.uint16)
        mixed = (colour * alpha16 + 255 * (255 - alpha16) + 127) // 255
        out[top : top + _STRIP] = mixed.astype(np.uint8)
    return out


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"image {str(path)!r} is a folder; name one image file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"image {str(path)!r} does not exist") from None
    except OSError as error:
        raise InputError(f"image {str(path)!r} cannot be read: {error.strerror}") from None
    if not data:
        raise InputError(f"image {str(path)!r} is empty (0 bytes); copy or download it again")
    return data


_Said = tuple[tuple[int, int], list[str]]  # (width, height), and what is passed over


def _jpeg_header(path: Path, data: bytes) -> _Said:
    size: tuple[int, int] | None = None
    notes = []
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise broken(path, f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        block = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(block) >= 6:
            depth, height, width, channels = struct.unpack(">BHHB", block[:6])
            _refuse_jpeg(path, marker, depth, channels)
            size = (width, height)
        elif marker == 0xE1 and block.startswith(b"Exif\0\0"):
            refuse_turned(path, _exif_orientation(block[6:]))
        elif marker == 0xE2 and block.startswith(b"MPF\0"):
            notes.append("it holds further pictures (MPO); the first is read")
        elif marker == 0xE2 and block.startswith(b"ICC_PROFILE\0\1") and not is_srgb(block):
            notes.append(PROFILE)
        if marker == 0xDA:
            # Compressed data follows; an end marker cannot occur inside it, only behind it. (One
            # before it may belong to a thumbnail.)
            if size is None or min(size) == 0 or data.find(b"\xff\xd9", at) < 0:
                break
            return size, notes
        at += 2 + length
    raise truncated(path, len(data), "JPEG")


def _refuse_jpeg(path: Path, marker: int, depth: int, channels: int) -> None:
    if depth != 8:
        raise too_deep(path, depth)
    if marker > 0xC2:
        kind = _JPEG_KINDS.get(marker, "unusual")
        raise InputError(
            f"image {str(path)!r} is a JPEG of a kind that few programs read "
            f"(SOF{marker - 0xC0}, {kind}); a baseline or progressive JPEG works"
        )
    if channels not in (1, 3):
        colours = "CMYK or YCCK" if channels == 4 else f"{channels} colour channels"
        raise InputError(
            f"image {str(path)!r} is a JPEG in {colours}; save a copy in RGB (sRGB), which works"
        )


def _exif_orientation(block: bytes) -> int:
    """Orientation in the first directory of an Exif block, a small TIFF; 1 where it has none."""
    order = "<" if block.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, at)
            if tag == 274:
                return int(value)
    except struct.error:
        pass  # a damaged block says nothing
    return 1


def _jpeg_pixels(path: Path, data: bytes) -> np.ndarray:
    # Not OpenCV: its decoder takes twice as long and twice the memory for the same pixels.
    try:
        return imagecodecs.jpeg8_decode(data, outcolorspace="RGB")
    except RuntimeError as error:
        raise broken(path, f"its JPEG data cannot be decoded as RGB ({error})") from None


def _png_pixels(path: Path, data: bytes) -> np.ndarray:
    # Not OpenCV: it reads grey without its transparent value (tRNS), takes the first frame of an
    # animation where a picture of its own stands before it, and lets libpng print its errors.
    try:
        pixels = imagecodecs.png_decode(data)
    except RuntimeError as error:
        raise broken(path, f"its PNG data cannot be decoded ({error})") from None
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 2:  # grey and alpha
        pixels = cv2.merge([*[cv2.extractChannel(pixels, 0)] * 3, cv2.extractChannel(pixels, 1)])
    return on_white(pixels) if pixels.shape[2] == 4 else pixels


def _png_header(path: Path, data: bytes) -> _Said:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise truncated(path, len(data), "PNG")
    width, height, depth = struct.unpack(">IIB", data[16:25])
    notes = []
    at = 8
    while (kind := data[at + 4 : at + 8]) != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            refuse_turned(path, _exif_orientation(data[at + 8 : at + 8 + length]))
        elif kind == b"acTL":
            notes.append("it is animated; the first picture is read")
        elif kind == b"iCCP" and not is_srgb(_png_profile(data[at + 8 : at + 8 + length])):
            notes.append(PROFILE)
        at += 12 + length
        if at + 12 > len(data):
            raise truncated(path, len(data), "PNG")
    if depth > 8:
        raise too_deep(path, depth)
    return (width, height), notes


def _png_profile(block: bytes) -> bytes:
    """The profile of an iCCP chunk: behind a name, a zero and the number of its compression."""
    name, _, rest = block.partition(b"\0")
    try:
        return name + zlib.decompress(rest[1:])
    except zlib.error:
        return b""


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile calls itself one of sRGB."""
    return b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile


def refuse_turned(path: Path, orientation: object) -> None:
    """Refuses an image that is to be shown otherwise than it is stored.

    Programs disagree on which of the two pixel coordinates mean: Pillow turns TIFF and leaves JPEG
    as it is stored, tifffile leaves TIFF, OpenCV turns JPEG. So neither reading is safe for
    coordinates that a user brings or takes away.

    Args:
        orientation: value of the Orientation tag (274) of TIFF or Exif; other values than 1 to 8
            mean nothing.
    Raises:
        InputError: it is one of 2 to 8.
    """
    for value, shown in _TURNS.items():
        if orientation == value:
            raise InputError(
                f"image {str(path)!r} has Orientation {value}: it is to be shown {shown}, and "
                "programs disagree on whether pixel coordinates are those before or after. Save a "
                "turned copy without the tag (`vips autorot`, or ImageMagick's -auto-orient); or, "
                "where coordinates are those of the pixels as stored, take the tag away "
                "(`exiftool -Orientation= FILE`, or `tiffset -s 274 1 FILE`)"
            )


def broken(path: Path, why: str) -> InputError:
    return InputError(f"image {str(path)!r} is damaged: {why}. Copy or download it again")


def truncated(path: Path, size: int, kind: str) -> InputError:
    return InputError(
        f"image {str(path)!r} is truncated: its {kind} data end before they should ({size} bytes). "
        "Copy or download it again"
    )


def too_deep(path: Path, depth: int | str) -> InputError:
    bits = f"{depth} bits" if isinstance(depth, int) else f"values of type {depth}"
    return InputError(
        f"image {str(path)!r} has {bits} a channel; 8-bit RGB works. Convert it first, so that the "
        "scaling is yours (for instance `vips cast in.tif out.tif uchar --shift`)"
    )

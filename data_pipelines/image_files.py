"""Plain image files that are decoded whole: JPEG and PNG.

Pixels come out as (height, width, 3) uint8 RGB in the file's own orientation: an Exif orientation
tag is ignored, so that pixel coordinates stay the file's. Grey becomes RGB, transparency is laid
on white. More than 8 bits a channel is refused: how to scale them is the user's to say.

A file is recognised by its first bytes, never by its name. Truncation is looked for here, because
decoders fill the missing part with grey without a word.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from histospace_tf.vocabulary import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_MAX_PIXELS = 2**30  # what OpenCV decodes; larger images belong in a tiled format
_STRIP = 256  # rows that are converted at once, so that no second copy of an image is made


@dataclasses.dataclass(frozen=True)
class Header:
    """What a plain image says about itself before it is decoded.

    kind: "jpeg" or "png"; their dots per inch are never microns per pixel.
    """

    kind: str
    width_px: int
    height_px: int


def header(path: Path) -> Header:
    """Size of a plain image, without decoding it; a truncated file is refused.

    Raises:
        InputError: the file is missing, empty, truncated, no JPEG or PNG, or has more than 8 bits
            a channel.
    """
    data = _content(path)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(path, data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_header(path, data)
    raise InputError(
        f"image {str(path)!r} is not an image that can be read here (it begins with "
        f"{data[:8]!r}). JPEG, PNG, TIFF and the whole-slide formats of OpenSlide work"
    )


def decode(path: Path) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a plain image.

    Raises:
        InputError: as `header`, or the pixels cannot be decoded.
    """
    found = header(path)
    if found.width_px * found.height_px > _MAX_PIXELS:
        raise InputError(
            f"image {str(path)!r} has {found.width_px} x {found.height_px} px, too many to hold at "
            "once; a tiled pyramidal TIFF (for instance `vips tiffsave --tile --pyramid`) works"
        )
    return _jpeg_pixels(path) if found.kind == "jpeg" else _png_pixels(path)


def on_white(pixels: np.ndarray, *, bgr: bool = False) -> np.ndarray:
    """(h, w, 3) uint8: (h, w, 4) pixels with straight alpha, laid on white.

    bgr: the colours of `pixels` stand in the order blue, green, red.
    """
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), _STRIP):
        strip = pixels[top : top + _STRIP]
        if cv2.extractChannel(strip, 3).min() == 255:
            order = cv2.COLOR_BGRA2RGB if bgr else cv2.COLOR_RGBA2RGB
            out[top : top + _STRIP] = cv2.cvtColor(strip, order)
            continue
        colour = strip[:, :, 2::-1] if bgr else strip[:, :, :3]
        alpha = strip[:, :, 3:]
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


def _jpeg_header(path: Path, data: bytes) -> Header:
    size: tuple[int, int] | None = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise broken(path, f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            depth, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
            if depth != 8:
                raise too_deep(path, depth)
            size = (width, height)
        if marker == 0xDA:
            # Compressed data follows; an end marker cannot occur inside it, only behind it. (One
            # before it may belong to a thumbnail.)
            if size is None or min(size) == 0 or data.find(b"\xff\xd9", at) < 0:
                break
            return Header("jpeg", *size)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise truncated(path, len(data), "JPEG")


def _jpeg_pixels(path: Path) -> np.ndarray:
    # Not OpenCV: its decoder takes twice as long and twice the memory for the same pixels.
    try:
        return imagecodecs.jpeg8_decode(_content(path), outcolorspace="RGB")
    except RuntimeError as error:
        raise broken(path, f"its JPEG data cannot be decoded as RGB ({error})") from None


def _png_pixels(path: Path) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(_content(path), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise broken(path, f"its PNG data cannot be decoded ({error})") from None
    if pixels is None:
        raise broken(path, "its PNG data cannot be decoded")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        return on_white(pixels, bgr=True)
    for top in range(0, len(pixels), _STRIP):
        strip = pixels[top : top + _STRIP]
        strip[:] = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
    return pixels


def _png_header(path: Path, data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise truncated(path, len(data), "PNG")
    width, height, depth = struct.unpack(">IIB", data[16:25])
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at + 12 > len(data):
            raise truncated(path, len(data), "PNG")
    if depth > 8:
        raise too_deep(path, depth)
    return Header("png", width, height)


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

"""Plain image files: JPEG, PNG and TIFF that is no whole-slide format.

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
import tifffile

from histospace_tf.vocabulary import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
FINEST_PRINT_UM = 5.0  # a print or screen resolution is never finer than this (5080 dpi)
_MAX_PIXELS = 2**30  # what OpenCV decodes; larger images belong in a tiled format
_STRIP = 256  # rows that are converted at once, so that no second copy of an image is made


@dataclasses.dataclass(frozen=True)
class Header:
    """What a plain image says about itself before it is decoded.

    kind: "jpeg", "png" or "tiff".
    mpp: microns per pixel from a TIFF's resolution tags, where they can only be meant as such
        (finer than FINEST_PRINT_UM and the same along x and y within 5 %); else None. The dots per
        inch of a JPEG or PNG are never microns per pixel.
    """

    kind: str
    width_px: int
    height_px: int
    mpp: float | None = None


def header(path: Path) -> Header:
    """Size of a plain image, without decoding it; a truncated file is refused.

    Raises:
        InputError: the file is missing, empty, truncated, no JPEG, PNG or TIFF, has more than
            8 bits a channel, or holds something other than one RGB or grey picture.
    """
    data = _content(path)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(path, data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_header(path, data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff_header(path)
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
    if found.kind == "tiff":
        return _tiff_pixels(path)
    return _jpeg_pixels(path) if found.kind == "jpeg" else _png_pixels(path)


def on_white(pixels: np.ndarray, *, bgr: bool = False) -> np.ndarray:
    """(h, w, 3) uint8: (h, w, 4) pixels with straight alpha, laid on white.

    bgr: the colours of `pixels` stand in the order blue, green, red.
    """
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), _STRIP):
        strip = pixels[top : top + _STRIP]
        colour = strip[:, :, 2::-1] if bgr else strip[:, :, :3]
        alpha = strip[:, :, 3:]
        if (alpha == 255).all():
            out[top : top + _STRIP] = colour
            continue
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
            raise _broken(path, f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            depth, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
            if depth != 8:
                raise _too_deep(path, depth)
            size = (width, height)
        if marker == 0xDA:
            # Compressed data follows; an end marker cannot occur inside it, only behind it. (One
            # before it may belong to a thumbnail.)
            if size is None or min(size) == 0 or data.find(b"\xff\xd9", at) < 0:
                break
            return Header("jpeg", *size)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise _truncated(path, len(data), "JPEG")


def _jpeg_pixels(path: Path) -> np.ndarray:
    # Not OpenCV: its decoder takes twice as long and twice the memory for the same pixels.
    try:
        return imagecodecs.jpeg8_decode(_content(path), outcolorspace="RGB")
    except RuntimeError as error:
        raise _broken(path, f"its JPEG data cannot be decoded as RGB ({error})") from None


def _png_pixels(path: Path) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(_content(path), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _broken(path, f"its PNG data cannot be decoded ({error})") from None
    if pixels is None:
        raise _broken(path, "its PNG data cannot be decoded")
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
        raise _truncated(path, len(data), "PNG")
    width, height, depth = struct.unpack(">IIB", data[16:25])
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at + 12 > len(data):
            raise _truncated(path, len(data), "PNG")
    if depth > 8:
        raise _too_deep(path, depth)
    return Header("png", width, height)


def _tiff_header(path: Path) -> Header:
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.series[0].keyframe
            size = path.stat().st_size
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if not ends or max(ends) > size:
                raise _truncated(path, size, "TIFF")
            tifffile.COMPRESSION(int(page.compression))  # raises where it is unknown
            _refuse_other_tiff(path, tiff.series[0])
            _, height, width = _tiff_axes(tiff.series[0])
            return Header("tiff", width, height, _tiff_mpp(page))
    except InputError:
        raise
    except _TIFF_ERRORS as error:
        raise InputError(
            f"image {str(path)!r} cannot be read as a TIFF: {error}. If it is not damaged, a copy "
            "that is uncompressed or has LZW, Deflate or JPEG compression works"
        ) from None


def _tiff_pixels(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            channels_first = _tiff_axes(series)[0]
            inverted = int(series.keyframe.photometric) == 0  # 0 is white
            pixels = np.squeeze(series.asarray())
    except _TIFF_ERRORS as error:
        raise _broken(path, f"its pixels cannot be decoded: {error}") from None
    if pixels.ndim == 2:
        return cv2.cvtColor(255 - pixels if inverted else pixels, cv2.COLOR_GRAY2RGB)
    if channels_first:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape[2] == 4:
        return on_white(pixels)
    return np.ascontiguousarray(pixels)


def _tiff_axes(series: tifffile.TiffPageSeries) -> tuple[bool, int, int]:
    """(channels stand first, height, width) of a picture that `_refuse_other_tiff` lets through."""
    kept = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if a in "YX" or n > 1]
    names = "".join(a for a, _ in kept)
    shape = dict(kept)
    return len(names) == 3 and names[0] not in "YX", shape.get("Y", 1), shape.get("X", 1)


def _refuse_other_tiff(path: Path, series: tifffile.TiffPageSeries) -> None:
    if series.dtype != np.uint8:
        raise _too_deep(path, series.dtype.name)
    kept = "".join(
        a for a, n in zip(series.axes, series.shape, strict=True) if a in "YX" or n > 1
    ).replace("C", "S")
    samples = [n for a, n in zip(series.axes, series.shape, strict=True) if a in "SC" and n > 1]
    # 0 and 1: grey; 2: RGB; 6: YCbCr, which tifffile turns into RGB
    known = int(series.keyframe.photometric) in (0, 1, 2, 6)
    if not known or kept not in ("YX", "YXS", "SYX") or (samples and samples[0] not in (3, 4)):
        raise InputError(
            f"image {str(path)!r} is a TIFF of shape {tuple(series.shape)} ({series.axes}, "
            f"photometric {int(series.keyframe.photometric)}); one RGB or grey picture of 8 bits a "
            "channel works"
        )


def _tiff_mpp(page: tifffile.TiffPage) -> float | None:
    unit_um = {2: 25_400.0, 3: 10_000.0}.get(int(page.resolutionunit or 1))
    x, y = page.resolution
    if unit_um is None or x <= 0 or y <= 0 or abs(x - y) > 0.05 * max(x, y):
        return None
    mpp = unit_um / ((x + y) / 2)
    return mpp if 0.01 < mpp < FINEST_PRINT_UM else None


_TIFF_ERRORS = (
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


def _broken(path: Path, why: str) -> InputError:
    return InputError(f"image {str(path)!r} is damaged: {why}. Copy or download it again")


def _truncated(path: Path, size: int, kind: str) -> InputError:
    return InputError(
        f"image {str(path)!r} is truncated: its {kind} data end before they should ({size} bytes). "
        "Copy or download it again"
    )


def _too_deep(path: Path, depth: int | str) -> InputError:
    bits = f"{depth} bits" if isinstance(depth, int) else f"values of type {depth}"
    return InputError(
        f"image {str(path)!r} has {bits} a channel; 8-bit RGB works. Convert it first, so that the "
        "scaling is yours (for instance `vips cast in.tif out.tif uchar --shift`)"
    )

"""Tags of a TIFF page that describe its pixels: each is applied, or refused by its name.

Source of the tags' meaning: TIFF 6.0 (Adobe, 1992). Tests compare with libtiff, through Pillow.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from histospace_tf.data_pipelines.slides import plain_images
from histospace_tf.vocabulary import InputError

_JPEG = (7, 34892)  # JPEG, and the lossy one of DNG
_COLOUR_KINDS = {
    0: "grey, 0 is white",
    1: "grey, 0 is black",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "separated, mostly CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_ALPHA = {1: "associated", 2: "straight"}  # values of ExtraSamples; 0 is "unspecified"
_NOT_READ = {
    2: "CCITT, black and white",
    3: "CCITT, black and white",
    4: "CCITT, black and white",
    6: "old-style JPEG, which programs read differently",
    33003: "Aperio's JPEG 2000 in YCbCr",
    33004: "Aperio's lossy JPEG 2000",
}
_IN_RGB = "a copy in 8-bit RGB works"
_COMPRESSED = "a copy that is uncompressed or has LZW, Deflate or JPEG compression works"


@dataclasses.dataclass(frozen=True, eq=False)
class Colours:
    """How the stored samples of a page become RGB.

    samples: stored for each pixel; base: how many of them, the first ones, are colour.
    bits: of each sample. inverted: 0 is white. palette: (2**bits, 3) uint8, else None.
    alpha: "straight" or "associated" (colours already multiplied by it), of the sample after the
        colours; None: later samples are no part of the picture.
    """

    samples: int
    base: int
    bits: int
    inverted: bool
    palette: np.ndarray | None
    alpha: str | None

    def rgb(self, part: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB, transparency laid on white, of (h, w, samples) uint8 as stored."""
        if self.base == 3:
            if self.alpha == "straight":
                return plain_images.on_white(np.ascontiguousarray(part[..., :4]))
            colour = np.ascontiguousarray(part[..., :3])
        elif self.palette is not None:
            colour = self.palette[part[..., 0]]
        else:
            grey = part[..., :1] * np.uint8(255 // (2**self.bits - 1))
            colour = np.repeat(255 - grey if self.inverted else grey, 3, axis=2)
        if self.alpha == "straight":
            return plain_images.on_white(np.concatenate([colour, part[..., 1:2]], axis=2))
        if self.alpha == "associated":
            glass = 255 - part[..., self.base : self.base + 1].astype(np.uint16)
            return np.minimum(colour + glass, 255).astype(np.uint8)
        return colour


def colours(path: Path, page: Any) -> Colours:
    """Reads how the samples of a page become RGB from its tags.

    Args:
        path: the file, for messages.
        page: a tifffile.TiffPage.
    Raises:
        InputError: a tag cannot be applied; it is named with its value.
    """
    photometric, compression = int(page.photometric), int(page.compression)
    try:
        tifffile.COMPRESSION(compression)
    except ValueError:
        raise _refused(path, "Compression", compression, "is unknown", _COMPRESSED) from None
    if compression in _NOT_READ:
        why = f"({_NOT_READ[compression]})"
        raise _refused(path, "Compression", compression, why, _COMPRESSED)
    if 274 in page.tags:
        plain_images.refuse_turned(path, page.tags[274].value)
    bits = page.bitspersample
    if isinstance(bits, tuple) and len(set(bits)) > 1:
        raise _refused(path, "BitsPerSample", bits, "differs between samples")
    bits = int(bits[0] if isinstance(bits, tuple) else bits)
    sample_format = int(page.sampleformat)
    if sample_format not in (1, 4):  # 4: "undefined", read as unsigned
        kind = {2: "signed whole numbers", 3: "floating-point numbers"}.get(sample_format, "")
        if bits > 8 and page.dtype is not None:
            raise plain_images.too_deep(path, str(page.dtype))
        raise _refused(path, "SampleFormat", sample_format, kind)
    if bits > 8:
        raise plain_images.too_deep(path, bits)
    base = 3 if photometric in (2, 6) else 1
    samples = int(page.samplesperpixel)
    planar = int(page.planarconfig)
    if planar not in (1, 2):
        raise _refused(path, "PlanarConfiguration", planar, "is neither 1 (together) nor 2 (apart)")
    apart = planar == 2
    _refuse_colours(path, page, photometric, compression, samples)
    if photometric == 1 and samples == 3:
        base = 3  # colours whose writer did not say so
    if samples < base or bits not in (1, 2, 4, 8) or (bits != 8 and (base == 3 or samples > 1)):
        raise InputError(
            f"image {str(path)!r} has {samples} sample(s) a pixel of {bits} bit(s) for "
            f"PhotometricInterpretation {photometric} ({_COLOUR_KINDS[photometric]}); {_IN_RGB}"
        )
    if compression in _JPEG and ((apart and photometric == 6) or (not apart and samples > base)):
        raise _refused(
            path, "Compression", compression, f"(JPEG) of {samples} samples, planes apart: {apart}"
        )
    extra = tuple(int(value) for value in page.extrasamples) if samples > base else ()
    return Colours(
        samples=samples,
        base=base,
        bits=bits,
        inverted=photometric == 0,
        palette=_palette(path, page, bits) if photometric == 3 else None,
        alpha=_ALPHA.get(extra[0]) if extra else None,
    )


def _refuse_colours(
    path: Path, page: Any, photometric: int, compression: int, samples: int
) -> None:
    """Refuses colours that a program may turn into RGB in more than one way."""
    kind = _COLOUR_KINDS.get(photometric, "unknown")
    if 262 not in page.tags:  # programs take it for grey, inverted grey or RGB
        raise _refused(path, "PhotometricInterpretation", "(262)", "is missing")
    if photometric == 0 and samples == 3:
        raise _refused(path, "PhotometricInterpretation", 0, f"({kind}) with 3 samples a pixel")
    if photometric not in (0, 1, 2, 3, 6):
        raise _refused(path, "PhotometricInterpretation", photometric, f"({kind})")
    if photometric in (0, 1) and samples > 3:
        raise InputError(
            f"image {str(path)!r} is not H&E in RGB: it has {samples} grey channels. "
            "Fluorescence cannot be read; an H&E image is needed"
        )
    if photometric == 6 and compression not in _JPEG:
        raise _refused(
            path, "PhotometricInterpretation", photometric, f"({kind}) without JPEG compression"
        )


def _palette(path: Path, page: Any, bits: int) -> np.ndarray:
    """(2**bits, 3) uint8 of the ColorMap tag."""
    table = page.colormap
    if table is None or np.shape(table) != (3, 2**bits):
        raise _refused(path, "ColorMap", np.shape(table), f"does not go with {bits} bits")
    values = np.asarray(table, np.uint16).T
    # 16 bits are stored; some writers put 8-bit values there (libtiff takes them so, too).
    return (values if values.max() < 256 else values >> 8).astype(np.uint8)


def remarks(page: Any) -> list[str]:
    """Notes on tags of a readable page that are not applied."""
    base = 3 if int(page.photometric) in (2, 6) else 1
    samples = int(page.samplesperpixel)
    notes = []
    if base == 1 and samples == 3:
        notes.append("its three samples are marked as grey, and are taken as red, green and blue")
    elif samples > base:
        extra = tuple(int(value) for value in page.extrasamples)
        alpha = bool(extra) and extra[0] in _ALPHA
        if alpha:
            notes.append("its alpha channel is laid on white")
        left_out = samples - base - alpha
        if left_out:
            notes.append(
                f"{left_out} sample(s) a pixel beside the colours, of no stated meaning "
                f"(ExtraSamples {extra or 'missing'}), are left out"
            )
    profile = page.tags.get(34675)
    if profile is not None and not plain_images.is_srgb(bytes(profile.value)):
        notes.append(plain_images.PROFILE)
    return notes


def _refused(path: Path, tag: str, value: object, why: str, works: str = _IN_RGB) -> InputError:
    return InputError(
        f"image {str(path)!r} cannot be read as it is meant: its tag {tag} {value} {why}".rstrip()
        + f"; {works}"
    )

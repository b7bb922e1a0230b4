"""Every tag that changes pixels, in tiles, strips and OME-TIFF: as libtiff reads it, or refused."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError
from made.pictures import picture, smooth_picture

HEIGHT, WIDTH = 50, 70  # no multiples of a tile
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled": {"tile": (16, 32)},
    "stripped": {"rowsperstrip": 16},
    "ome": {"tile": (32, 16), "ome": True},
}
COLOURS = picture(HEIGHT, WIDTH)
GREY = picture(HEIGHT, WIDTH, channels=1)[..., 0]
SMOOTH = smooth_picture(HEIGHT, WIDTH)
ALPHA = np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8)[:, None], (HEIGHT, WIDTH, 1))
MASK = np.broadcast_to(np.array([0] * 9 + [255], np.uint8).repeat(7)[:, None], (HEIGHT, WIDTH, 1))
MAP = np.random.default_rng(3).integers(0, 2**16, (3, 256), dtype=np.uint16)
JPEG: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg"}


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """How a file is written, and which of its tags are overwritten afterwards.

    within: grey levels by which decoders of lossy compression may differ.
    """

    pixels: np.ndarray
    options: dict[str, Any]
    tags: dict[str, Any] = dataclasses.field(default_factory=dict)
    within: int = 0
    alpha: bool = False


def rgba(kind: str, alpha: np.ndarray = ALPHA, colours: np.ndarray = COLOURS) -> Kind:
    associated = kind == "ASSOCALPHA"
    if associated:
        colours = (colours.astype(int) * alpha // 255).astype(np.uint8)
    options = {"photometric": "rgb", "extrasamples": [kind]}
    pixels = np.concatenate([colours, alpha], axis=2)
    return Kind(pixels, options, alpha=kind != "UNSPECIFIED", within=1)


RGB = {"photometric": "rgb"}
HONOURED = {
    "RGB": Kind(COLOURS, RGB),
    "0 is black": Kind(GREY, {"photometric": "minisblack"}),
    "0 is white": Kind(GREY, {"photometric": "miniswhite"}),
    "1 bit, 0 is black": Kind(GREY > 99, {"photometric": "minisblack"}),
    "1 bit, 0 is white": Kind(GREY > 99, {"photometric": "miniswhite"}),
    "palette": Kind(GREY, {"photometric": "palette", "colormap": MAP}),
    "palette of 8-bit values": Kind(GREY, {"photometric": "palette", "colormap": MAP >> 8}),
    "planes apart": Kind(np.moveaxis(COLOURS, 2, 0), {**RGB, "planarconfig": "separate"}),
    "LZW, predictor": Kind(COLOURS, {**RGB, "compression": "lzw", "predictor": True}),
    "Deflate": Kind(COLOURS, {**RGB, "compression": "deflate"}),
    "PackBits": Kind(COLOURS, {**RGB, "compression": "packbits"}),
    "zstd": Kind(COLOURS, {**RGB, "compression": "zstd"}),
    "LZMA": Kind(COLOURS, {**RGB, "compression": "lzma"}),
    "big-endian": Kind(COLOURS, {**RGB, "byteorder": ">"}),
    "BigTIFF": Kind(COLOURS, {**RGB, "bigtiff": True}),
    "FillOrder 2, LZW": Kind(COLOURS, {**RGB, "compression": "lzw"}, {"FillOrder": 2}),
    "JPEG 4:4:4": Kind(SMOOTH, {**JPEG, "subsampling": (1, 1)}, within=3),
    "JPEG 4:2:0": Kind(SMOOTH, {**JPEG, "subsampling": (2, 2)}, within=3),
    "JPEG 4:2:2": Kind(SMOOTH, {**JPEG, "subsampling": (2, 1)}, within=3),
    "JPEG, coded as RGB": Kind(
        SMOOTH, {**JPEG, "compressionargs": {"outcolorspace": "rgb"}}, within=3
    ),
    "JPEG, grey": Kind(
        SMOOTH[..., 0], {"photometric": "minisblack", "compression": "jpeg"}, within=3
    ),
    "JPEG, planes apart": Kind(
        np.moveaxis(SMOOTH, 2, 0), {**JPEG, "planarconfig": "separate"}, within=3
    ),
    "unspecified sample": rgba("UNSPECIFIED"),
    "unspecified sample, mostly 0": rgba("UNSPECIFIED", MASK),
    "straight alpha": rgba("UNASSALPHA"),
    "straight alpha, mostly 0": rgba("UNASSALPHA", MASK),
    "associated alpha": rgba("ASSOCALPHA"),
    "alpha and an unspecified sample": Kind(
        np.concatenate([COLOURS, ALPHA, MASK], axis=2),
        {**RGB, "extrasamples": ["UNASSALPHA", "UNSPECIFIED"]},
        alpha=True,
        within=1,
    ),
    "Orientation 1": Kind(COLOURS, {**RGB, "extratags": [(274, "H", 1, 1, True)]}),
}
FOUR = picture(HEIGHT, WIDTH, channels=4)
REFUSED = {
    **{
        f"Orientation {n}": (
            Kind(COLOURS, {**RGB, "extratags": [(274, "H", 1, n, True)]}),
            f"Orientation {n}: it is to be shown",
        )
        for n in range(2, 9)
    },
    "YCbCr without JPEG": (
        Kind(COLOURS, RGB, {"PhotometricInterpretation": 6}),
        r"PhotometricInterpretation 6 \(YCbCr\) without JPEG",
    ),
    "CMYK": (
        Kind(FOUR, {"photometric": "separated"}),
        r"PhotometricInterpretation 5 \(separated, mostly CMYK\)",
    ),
    "CIELab": (
        Kind(COLOURS, RGB, {"PhotometricInterpretation": 8}),
        r"PhotometricInterpretation 8 \(CIELab\)",
    ),
    "mask": (
        Kind(GREY > 99, {"photometric": "minisblack"}, {"PhotometricInterpretation": 4}),
        r"PhotometricInterpretation 4 \(transparency mask\)",
    ),
    "colour filter array": (
        Kind(GREY, {"photometric": "minisblack"}, {"PhotometricInterpretation": 32803}),
        "PhotometricInterpretation 32803",
    ),
    "16 bits": (Kind(COLOURS.astype(np.uint16), RGB), "16 bits a channel; 8-bit RGB works"),
    "32-bit float": (Kind(COLOURS.astype(np.float32), RGB), "type float32 a channel"),
    "signed": (Kind(COLOURS.astype(np.int8), RGB), "SampleFormat 2 signed"),
    "unlike bits": (
        Kind(COLOURS, RGB, {"BitsPerSample": (5, 6, 5)}),
        r"BitsPerSample \(5, 6, 5\) differs between samples",
    ),
    "12 bits": (Kind(COLOURS, RGB, {"BitsPerSample": (12, 12, 12)}), "12 bits a channel"),
    "4 bits a colour": (Kind(COLOURS, RGB, {"BitsPerSample": (4, 4, 4)}), r"of 4 bit\(s\)"),
    "four grey samples": (
        Kind(FOUR, {"photometric": "minisblack", "planarconfig": "contig"}),
        "is not H&E",
    ),
    "old JPEG": (Kind(COLOURS, RGB, {"Compression": 6}), r"Compression 6 \(old-style JPEG"),
    "Aperio's YCbCr JPEG 2000": (Kind(COLOURS, RGB, {"Compression": 33003}), "Compression 33003"),
    "unknown compression": (Kind(COLOURS, RGB, {"Compression": 52479}), "52479 is unknown"),
    "unknown predictor": (
        Kind(COLOURS, {**RGB, "compression": "lzw", "predictor": True}, {"Predictor": 77}),
        "(?i)predictor.* 77|77.*predictor",
    ),
    "JPEG of four samples": (
        Kind(SMOOTH, JPEG, {"SamplesPerPixel": 4}),
        r"Compression 7 \(JPEG\) of 4 samples",
    ),
}


def write(path: Path, kind: Kind, layout: str) -> Path:
    options = {**LAYOUTS[layout], **kind.options}
    pixels = kind.pixels
    file = {name: options.pop(name) for name in ("ome", "bigtiff", "byteorder") if name in options}
    with tifffile.TiffWriter(path, **file) as tiff:
        axes = "SYX" if options.get("planarconfig") == "separate" else "YXS"[: pixels.ndim]
        if "FillOrder" in kind.tags:
            options["extratags"] = [
                (264, "H", 1, 2, True)
            ]  # becomes 266, which tifffile leaves out
        tiff.write(pixels, metadata={"axes": axes} if file.get("ome") else None, **options)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page: Any = tiff.pages[0]
        for name, value in kind.tags.items():
            if name != "FillOrder":
                page.tags[name].overwrite(value)
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        code_at = page.tags[264].offset if "FillOrder" in kind.tags else None
    if code_at is not None:
        content = bytearray(path.read_bytes())
        content[code_at : code_at + 2] = (266).to_bytes(2, "little")
        for start, length in parts:
            part = bytes(content[start : start + length])
            content[start : start + length] = imagecodecs.bitorder_encode(part)
        path.write_bytes(content)
    return path


def by_libtiff(path: Path, *, alpha: bool) -> np.ndarray:
    """(h, w, 3) uint8 RGB on white. libtiff multiplies straight alpha in."""
    pixels = imagecodecs.tiff_decode(path.read_bytes(), asrgb=True).astype(int)
    colours = pixels[..., :3] + (255 - pixels[..., 3:] if alpha else 0)
    return np.clip(colours, 0, 255)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", HONOURED)
def test_a_picture_is_what_libtiff_reads(tmp_path: Path, name: str, layout: str) -> None:
    kind = HONOURED[name]
    path = write(tmp_path / "a.tif", kind, layout)
    expected = by_libtiff(path, alpha=kind.alpha)
    assert expected.std() > 20
    assert slides.image_size(path) == (WIDTH, HEIGHT)
    with slides.open_slide(path) as slide:
        parts = [(0, 0, WIDTH, HEIGHT), (5, 7, 1, 1), (30, 13, 40, 33), (WIDTH - 9, 47, 9, 3)]
        for left, top, width, height in parts:
            found = slide.region(left, top, width, height).astype(int)
            part = expected[top : top + height, left : left + width]
            assert np.abs(found - part).max() <= kind.within, (left, top)
        corners = np.array([(3, 1), (20, 9), (41, 18)])
        for square, (left, top) in zip(slide.squares(corners, 28), corners, strict=True):
            part = expected[top : top + 28, left : left + 28]
            assert np.abs(square.astype(int) - part).max() <= kind.within


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "jpegxr", "webp", "png", "lerc"])
def test_lossless_compressions_that_libtiff_lacks(
    tmp_path: Path, compression: str, layout: str
) -> None:
    options: dict[str, Any] = {**RGB, "compression": compression}
    if compression == "webp":
        options["compressionargs"] = {"lossless": True}
    path = write(tmp_path / "a.tif", Kind(COLOURS, options), layout)
    with slides.open_slide(path) as slide:
        np.testing.assert_array_equal(slide.region(0, 0, WIDTH, HEIGHT), COLOURS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grey_with_alpha_is_what_pillow_reads(tmp_path: Path, layout: str) -> None:
    options = {
        "photometric": "minisblack",
        "extrasamples": ["UNASSALPHA"],
        "planarconfig": "contig",
    }
    path = write(tmp_path / "a.tif", Kind(np.dstack([GREY, ALPHA]), options), layout)
    expected = Image.new("RGBA", (WIDTH, HEIGHT), "white")
    expected.alpha_composite(Image.open(path).convert("RGBA"))
    with slides.open_slide(path) as slide:
        found = slide.region(0, 0, WIDTH, HEIGHT)
    assert np.abs(found.astype(int) - np.asarray(expected)[..., :3]).max() <= 1


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *itertools.product(
            ("RGB", "L", "P", "RGBA", "LA"), (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        ("RGB", "jpeg"),
        ("L", "jpeg"),
    ],
)
def test_what_pillow_writes_is_what_pillow_reads(
    tmp_path: Path, mode: str, compression: str | None
) -> None:
    made = Image.fromarray(SMOOTH)
    made = made.quantize(64) if mode == "P" else made.convert(mode)
    if mode.endswith("A"):
        made.putalpha(Image.fromarray(ALPHA[..., 0]))
    made.save(tmp_path / "a.tif", compression=compression)
    expected = Image.new("RGBA", (WIDTH, HEIGHT), "white")
    expected.alpha_composite(Image.open(tmp_path / "a.tif").convert("RGBA"))
    with slides.open_slide(tmp_path / "a.tif") as slide:
        found = slide.region(0, 0, WIDTH, HEIGHT)
    within = 3 if compression == "jpeg" else 1
    assert np.abs(found.astype(int) - np.asarray(expected)[..., :3]).max() <= within


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compression_is_refused_by_its_name(tmp_path: Path, compression: str) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "a.tif", compression=compression)
    with pytest.raises(InputError, match=r"Compression \d \(CCITT"):
        slides.open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    tmp_path: Path, name: str, layout: str
) -> None:
    kind, message = REFUSED[name]
    path = write(tmp_path / "a.tif", kind, layout)
    with pytest.raises(InputError, match=message), slides.open_slide(path) as slide:
        slide.region(0, 0, 8, 8)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("photometric", [0, 1, 3])
def test_few_bits_a_sample_are_scaled(tmp_path: Path, bits: int, photometric: int) -> None:
    digits = np.unpackbits(GREY[..., None], axis=2)[..., :bits]
    packed = np.packbits(digits.reshape(HEIGHT, -1), axis=1)  # rows end on whole bytes
    colours = [(320, "H", 3 * 2**bits, MAP[:, : 2**bits].ravel().tolist(), True)]
    path = tmp_path / "a.tif"
    extra = colours if photometric == 3 else []
    tifffile.imwrite(path, packed, photometric="minisblack", metadata=None, extratags=extra)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[0].tags  # type: ignore[union-attr]
        tags["ImageWidth"].overwrite(WIDTH)
        tags["BitsPerSample"].overwrite(bits)
        tags["PhotometricInterpretation"].overwrite(photometric)
    expected = by_libtiff(path, alpha=False)
    with slides.open_slide(path) as slide:
        found = slide.region(0, 0, WIDTH, HEIGHT)
        np.testing.assert_array_equal(slide.region(5, 6, 9, 8), found[6:14, 5:14])
    np.testing.assert_array_equal(found, expected)
    assert found.std() > 20


def test_three_samples_that_are_called_inverted_grey_or_nothing_are_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tag = tiff.pages.first.tags[262]
        at, value_at = tag.offset, tag.valueoffset
    stored = bytearray((tmp_path / "a.tif").read_bytes())
    stored[value_at] = 0
    (tmp_path / "inverted.tif").write_bytes(stored)
    stored[at : at + 2] = (65000).to_bytes(2, "little")  # a tag that nobody knows
    (tmp_path / "without.tif").write_bytes(stored)
    for name, why in (("inverted", "with 3 samples a pixel"), ("without", "is missing")):
        with pytest.raises(InputError, match=f"PhotometricInterpretation.*{why}"):
            slides.open_slide(tmp_path / f"{name}.tif")


def test_an_unknown_planar_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, COLOURS, photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.tags["PlanarConfiguration"].valueoffset
    data = bytearray(path.read_bytes())
    data[at : at + 2] = (3).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="PlanarConfiguration 3 is neither"):
        slides.open_slide(path)

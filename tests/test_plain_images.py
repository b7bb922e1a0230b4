"""JPEG and PNG of every kind against Pillow, and what is refused by its name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.slides import plain_images
from histospace_tf.vocabulary import InputError
from made.pictures import opened, picture, smooth_picture

HEIGHT, WIDTH = 50, 70  # no multiples of a block of JPEG
COLOURS = Image.fromarray(picture(HEIGHT, WIDTH))
SMOOTH = Image.fromarray(smooth_picture(HEIGHT, WIDTH))
ALPHA = Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1)))


def with_alpha(mode: str) -> Image.Image:
    made = COLOURS.convert(mode)
    made.putalpha(ALPHA)
    return made


def turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


PALETTE = COLOURS.quantize(64)
HONOURED: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
    "JPEG": ("JPEG", SMOOTH, {}),
    "JPEG 4:4:4": ("JPEG", SMOOTH, {"subsampling": "4:4:4"}),
    "JPEG 4:1:1": ("JPEG", SMOOTH, {"subsampling": "4:1:1"}),
    "JPEG, progressive": ("JPEG", SMOOTH, {"progressive": True}),
    "JPEG, coded as RGB": ("JPEG", SMOOTH, {"keep_rgb": True}),
    "JPEG, grey": ("JPEG", SMOOTH.convert("L"), {}),
    "JPEG, restart markers": ("JPEG", SMOOTH, {"restart_marker_rows": 1}),
    "JPEG, upright": ("JPEG", SMOOTH, {"exif": turned(1)}),
    "PNG": ("PNG", COLOURS, {}),
    "PNG, grey": ("PNG", COLOURS.convert("L"), {}),
    "PNG, palette": ("PNG", PALETTE, {}),
    "PNG, palette of 4 bits": ("PNG", COLOURS.quantize(16), {"bits": 4}),
    "PNG, palette of 2 bits": ("PNG", COLOURS.quantize(4), {"bits": 2}),
    "PNG, palette with transparency": ("PNG", PALETTE, {"transparency": 3}),
    "PNG, palette with alphas": ("PNG", PALETTE, {"transparency": bytes(range(0, 256, 4))}),
    "PNG, 1 bit": ("PNG", COLOURS.convert("1"), {}),
    "PNG, RGBA": ("PNG", with_alpha("RGB"), {}),
    "PNG, grey and alpha": ("PNG", with_alpha("L"), {}),
    "PNG, a transparent colour": ("PNG", COLOURS, {"transparency": COLOURS.getpixel((3, 4))}),
    "PNG, grey with a transparent value": ("PNG", COLOURS.convert("L"), {"transparency": 120}),
    "PNG, upright": ("PNG", COLOURS, {"exif": turned(1)}),
}


def saved(path: Path, form: str, image: Image.Image, options: dict[str, Any]) -> Path:
    image.save(path, form, **({"quality": 95} if form == "JPEG" else {}), **options)
    return path


def by_pillow(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB on white."""
    with Image.open(path) as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
    return np.asarray(white)[..., :3]


@pytest.mark.parametrize("name", HONOURED)
def test_a_picture_is_what_pillow_reads(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "a.image", *HONOURED[name])
    assert slides.image_size(path) == (WIDTH, HEIGHT)
    found, expected = opened(path), by_pillow(path)
    # Both decode JPEG with libjpeg-turbo; alpha is rounded to whole grey levels.
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert found.std() > 20


@pytest.mark.parametrize("value", range(2, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_orientation_is_refused_by_its_number(tmp_path: Path, form: str, value: int) -> None:
    path = saved(tmp_path / "a.image", form, SMOOTH, {"exif": turned(value)})
    for function in (slides.image_size, slides.open_slide):
        with pytest.raises(InputError, match=f"Orientation {value}: it is to be shown"):
            function(path)


def test_cmyk_is_refused_by_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", "JPEG", SMOOTH.convert("CMYK"), {})
    with pytest.raises(InputError, match="JPEG in CMYK or YCCK; save a copy in RGB"):
        slides.image_size(path)


@pytest.mark.parametrize(("marker", "kind"), [(0xC3, "lossless"), (0xC9, "arithmetic")])
def test_unusual_kinds_of_jpeg_are_refused_by_their_name(
    tmp_path: Path, marker: int, kind: str
) -> None:
    path = saved(tmp_path / "a.jpg", "JPEG", SMOOTH, {})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xff\xc0\0\x11\x08", bytes([255, marker, 0, 17, 8])))
    with pytest.raises(InputError, match=kind):
        slides.image_size(path)


def test_12_bits_of_jpeg_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", "JPEG", SMOOTH, {})
    path.write_bytes(path.read_bytes().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"))
    with pytest.raises(InputError, match="12 bits a channel"):
        slides.image_size(path)


def png_with(chunk: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    buffer = io.BytesIO()
    COLOURS.save(buffer, "PNG")
    whole = buffer.getvalue()
    checksum = struct.pack(">I", zlib.crc32(chunk + data))
    return whole[:33] + struct.pack(">I", len(data)) + chunk + data + checksum + whole[33:]


def test_gamma_of_png_is_not_applied(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with(b"gAMA", struct.pack(">I", 100_000)))
    np.testing.assert_array_equal(opened(tmp_path / "a.png"), np.asarray(COLOURS))


def test_an_interlaced_png_is_read(tmp_path: Path) -> None:
    """Adam7, written here: Pillow reads it and does not write it."""
    rgb = np.asarray(COLOURS)
    rows = b""
    for x, y, dx, dy in [
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in rgb[y::dy, x::dx])
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    np.testing.assert_array_equal(by_pillow(tmp_path / "a.png"), rgb)
    np.testing.assert_array_equal(opened(tmp_path / "a.png"), rgb)


def notes(path: Path) -> list[str]:
    return [note.message for note in plain_images.PlainImage(path).notes]


def test_what_is_passed_over_is_noted(tmp_path: Path) -> None:
    profile = b"\0" * 100 + b"Display P3"
    for form in ("JPEG", "PNG"):
        path = saved(tmp_path / "a.image", form, SMOOTH, {"icc_profile": profile})
        assert notes(path) == [f"{plain_images.PROFILE}."]
        path = saved(tmp_path / "a.image", form, SMOOTH, {"icc_profile": profile + b"sRGB"})
        assert notes(path) == []
    more: dict[str, Any] = {"save_all": True, "append_images": [SMOOTH.rotate(180)]}
    SMOOTH.save(tmp_path / "a.jpg", "MPO", **more)
    assert "further pictures" in notes(tmp_path / "a.jpg")[0]
    COLOURS.save(tmp_path / "a.png", **more)
    assert "animated" in notes(tmp_path / "a.png")[0]
    np.testing.assert_array_equal(opened(tmp_path / "a.png"), np.asarray(COLOURS))
    with slides.open_slide(tmp_path / "a.png") as slide:
        assert [note.where for note in slide.notes] == ["image a.png"]


def test_an_animation_behind_a_picture_of_its_own_is_not_read(tmp_path: Path) -> None:
    frames = [COLOURS.rotate(180), COLOURS.rotate(90)]
    COLOURS.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True)
    np.testing.assert_array_equal(opened(tmp_path / "a.png"), np.asarray(COLOURS))


def test_a_damaged_png_is_refused_without_output_of_libpng(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "a.png", "PNG", COLOURS, {})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged: its PNG data cannot be decoded"):
        opened(path)
    assert capfd.readouterr() == ("", "")

"""TIFF files read piece by piece: every form against what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.slides import image, tiffs
from histospace_tf.vocabulary import InputError
from made.pictures import picture, smooth_picture

OME = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}


def write_ome(path: Path, made: np.ndarray, *, levels: int = 1, **metadata: Any) -> Path:
    """An OME-TIFF; a smaller resolution, in a SubIFD, is 50 times its number all over."""
    options: dict[str, Any] = {"photometric": "rgb", "tile": (32, 32)}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(made, subifds=levels - 1, metadata={**OME, **metadata}, **options)
        for level in range(1, levels):
            small = np.full((made.shape[0] >> level, made.shape[1] >> level, 3), 50 * level)
            tiff.write(small.astype(np.uint8), subfiletype=1, **options)
    return path


def parts(made: np.ndarray) -> list[tuple[int, int, int, int]]:
    height, width = made.shape[:2]
    return [(0, 0, width, height), (5, 7, 1, 1), (30, 20, 40, 33), (width - 9, height - 3, 9, 3)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
        {"tile": (32, 48), "compression": "zstd"},  # OpenSlide does not know this compression
        {"planarconfig": "separate", "rowsperstrip": 16},
        {"planarconfig": "separate", "tile": (32, 32)},
        {"tile": (16, 16), "bigtiff": True},
        {"byteorder": ">"},
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_part_is_what_was_written(
    tmp_path: Path, options: dict[str, Any], channels: int
) -> None:
    if channels == 1:  # one channel has no arrangement of channels
        options = {name: value for name, value in options.items() if name != "planarconfig"}
    made = picture(70, 90, channels=channels)
    if channels == 4:
        made[..., 3] = 255
    stored = np.moveaxis(made, 2, 0) if "planarconfig" in options else made
    kind: dict[str, Any] = {"photometric": "minisblack" if channels == 1 else "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", np.squeeze(stored), **kind, **options)
    tiff = tiffs.Tiff(tmp_path / "a.tif")
    assert tiff.levels == ((90, 70),)
    expected = np.repeat(made, 3, axis=2) if channels == 1 else made[..., :3]
    for left, top, width, height in parts(made):
        found = tiff.pixels(0, left, top, width, height)
        np.testing.assert_array_equal(
            found, expected[top : top + height, left : left + width], err_msg=str((left, top))
        )


def test_jpeg_tiles_come_back_nearly_as_written(tmp_path: Path) -> None:
    made = smooth_picture(96, 128)
    tifffile.imwrite(tmp_path / "a.ome.tif", made, tile=(64, 64), compression="jpeg")
    with slides.open_slide(tmp_path / "a.ome.tif") as slide:
        found = slide.region(10, 20, 100, 70)
    # A smooth picture moves by a few grey levels, subsampled colours included.
    assert np.abs(found.astype(int) - made[20:90, 10:110]).max() <= 10


def test_ome_tiff_has_its_pyramid_and_pixel_size(tmp_path: Path) -> None:
    made = picture(256, 256)
    with slides.open_slide(write_ome(tmp_path / "a.ome.tif", made, levels=3)) as slide:
        assert slide.mpp == 0.25
        np.testing.assert_array_equal(slide.region(3, 5, 100, 90), made[5:95, 3:103])
        assert (slide.region(0, 0, 128, 128, out_px=(64, 64)) == 50).all()
        assert (slide.region(0, 0, 128, 128, out_px=(32, 32)) == 100).all()
        assert (slide.overview(max_px=64)[0] == 100).all()
    assert slides.image_size(tmp_path / "a.ome.tif") == (256, 256)


@pytest.mark.parametrize(
    ("metadata", "mpp"),
    [
        ({"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}, 0.25),
        ({"PhysicalSizeX": 0.00025, "PhysicalSizeXUnit": "mm"}, 0.25),
        ({"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel"}, None),
        ({"PhysicalSizeX": 0.0}, None),
    ],
)
def test_ome_units_are_heeded(tmp_path: Path, metadata: dict[str, Any], mpp: float | None) -> None:
    path = write_ome(tmp_path / "a.ome.tif", picture(64, 64), **metadata)
    with slides.open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


def test_ome_tiff_of_unlike_scales_needs_the_user(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", picture(64, 64), PhysicalSizeY=0.5)
    with pytest.raises(InputError, match="`mpp`"):
        slides.open_slide(path)
    with slides.open_slide(path, mpp=0.3) as slide:
        assert slide.mpp == 0.3


def test_colours_stored_as_a_plane_each_are_put_together(tmp_path: Path) -> None:
    made = picture(64, 80)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.moveaxis(made, 2, 0),
        photometric="minisblack",
        tile=(32, 32),
        metadata={"axes": "CYX"},
    )
    with slides.open_slide(tmp_path / "a.ome.tif") as slide:
        np.testing.assert_array_equal(slide.region(0, 0, 80, 64), made)


def test_smaller_copies_behind_a_plain_picture_are_its_resolutions(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"photometric": "rgb", "tile": (32, 32), "compression": "zstd"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(picture(128, 192), **kind)
        tiff.write(np.full((32, 48, 3), 9, np.uint8), subfiletype=1, **kind)
        tiff.write(np.full((20, 20, 3), 1, np.uint8), subfiletype=1, **kind)
    tiff_read = tiffs.Tiff(tmp_path / "a.tif")
    assert tiff_read.levels == ((192, 128), (48, 32))  # the last one shows something else
    assert "20 x 20 px (a smaller copy)" in tiff_read.notes[0].message
    assert (tiff_read.pixels(1, 0, 0, 48, 32) == 9).all()


def test_tiles_that_were_left_out_are_white(tmp_path: Path) -> None:
    def tiles() -> Iterator[np.ndarray | None]:
        yield from (np.full((32, 32, 3), 7, np.uint8), None, None, None)

    tifffile.imwrite(
        tmp_path / "a.tif",
        tiles(),
        shape=(64, 64, 3),
        dtype=np.uint8,
        tile=(32, 32),
        photometric="rgb",
        compression="zstd",
    )
    with slides.open_slide(tmp_path / "a.tif") as slide:
        found = slide.region(0, 0, 64, 64)
    assert (found[:32, :32] == 7).all()
    assert (found[32:] == 255).all()


def test_grey_where_zero_is_white_is_turned_round(tmp_path: Path) -> None:
    made = picture(40, 50, channels=1)
    tifffile.imwrite(tmp_path / "a.tif", made[..., 0], photometric="miniswhite")
    found = tiffs.Tiff(tmp_path / "a.tif").pixels(0, 0, 0, 50, 40)
    np.testing.assert_array_equal(found, 255 - np.repeat(made, 3, axis=2))


def test_no_more_is_kept_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiffs, "_KEPT_BYTES", 5 * 32 * 32 * 3)
    made = picture(128, 128)
    tiff = tiffs.Tiff(write_ome(tmp_path / "a.ome.tif", made))
    for _ in range(2):
        np.testing.assert_array_equal(tiff.pixels(0, 0, 0, 128, 128), made)
    assert len(tiff._kept) == 5
    assert tiff._kept_bytes == 5 * 32 * 32 * 3


def test_an_overview_read_in_bands_is_the_one_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", smooth_picture(600, 400), photometric="rgb")
    with slides.open_slide(tmp_path / "a.tif") as slide:
        at_once, scale = slide.overview(max_px=150)
        monkeypatch.setattr(image, "_BAND_PX", 20_000)
        banded, same = slide.overview(max_px=150)
    assert scale == same
    assert at_once.shape == banded.shape
    assert np.abs(at_once.astype(int) - banded).max() <= 1  # bands end on whole pixels


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_tiles_are_refused_and_not_cut_down(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((64, 64), dtype), tile=(32, 32))
    with pytest.raises(InputError, match="8-bit RGB works"):
        slides.open_slide(tmp_path / "a.tif")


def test_many_channels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.zeros((7, 64, 64), np.uint8),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    with pytest.raises(InputError, match=r"shape \(7, 64, 64\) \(CYX"):
        slides.open_slide(tmp_path / "a.ome.tif")


def test_damage_is_named_where_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture(64, 64), tile=(32, 32), compression="zstd", photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[2]
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    tiff_read = tiffs.Tiff(path)
    tiff_read.pixels(0, 0, 0, 64, 32)
    with pytest.raises(InputError, match="damaged: its pixels cannot be decoded"):
        tiff_read.pixels(0, 0, 0, 64, 64)

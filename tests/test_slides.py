"""Opening images: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError
from made.pictures import opened, picture, read_picture, smooth_picture
from made.tissue import write_picture


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an Exif block that says how to turn it."""
    tiff = b"MM\0*\0\0\0\x08\0\x01" + b"\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0])
    block = b"Exif\0\0" + tiff + b"\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]


def test_png_pixels_come_back_as_rgb(tmp_path: Path) -> None:
    made = picture()
    np.testing.assert_array_equal(opened(write_picture(tmp_path / "a.png", made)), made)


def test_jpeg_pixels_come_back_as_rgb(tmp_path: Path) -> None:
    made = smooth_picture(64, 96)
    found = opened(write_picture(tmp_path / "a.jpg", made))
    # A smooth picture at OpenCV's default quality (95) moves by a few grey levels.
    assert np.abs(found.astype(int) - made).max() <= 8


def test_a_format_is_recognised_by_content_not_by_name(tmp_path: Path) -> None:
    made = picture()
    misnamed = write_picture(tmp_path / "a.png", made).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(opened(misnamed), made)


def test_an_image_that_is_to_be_shown_turned_is_refused(tmp_path: Path) -> None:
    plain = write_picture(tmp_path / "a.jpg", smooth_picture(64, 96))
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_exif_orientation(plain.read_bytes(), 6))
    # The made block is a real one: OpenCV turns the picture by it.
    assert read_picture(turned).shape == (96, 64, 3)
    for function in (slides.image_size, slides.open_slide, slides.stated_mpp):
        with pytest.raises(InputError, match="Orientation 6: it is to be shown turned clockwise"):
            function(turned)
    for harmless in (0, 1, 9):
        turned.write_bytes(with_exif_orientation(plain.read_bytes(), harmless))
        np.testing.assert_array_equal(opened(turned), opened(plain))


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = picture(channels=1)
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), grey)
        np.testing.assert_array_equal(opened(tmp_path / name), np.repeat(grey, 3, axis=2))
    cv2.imwrite(str(tmp_path / "a.jpg"), grey)
    found = opened(tmp_path / "a.jpg")
    assert found.shape == (60, 90, 3)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_transparency_is_laid_on_white(tmp_path: Path, suffix: str) -> None:
    rgba = picture(channels=4)
    rgba[:20, :, 3], rgba[20:40, :, 3] = 0, 255
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        cv2.imwrite(str(path), rgba[:, :, [2, 1, 0, 3]])
    else:
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])
    found = opened(path)
    assert (found[:20] == 255).all()
    np.testing.assert_array_equal(found[20:40], rgba[20:40, :, :3])
    alpha = rgba[..., 3:] / 255
    np.testing.assert_array_equal(found, np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)))


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"planarconfig": "separate"}])
def test_stripped_tiff_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    made = picture()
    stored = np.moveaxis(made, 2, 0) if "planarconfig" in options else made
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    assert slides.image_size(tmp_path / "a.tif") == (90, 60)
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), made)


@pytest.mark.parametrize(
    ("per_cm", "unit", "mpp"),
    [
        (20_000.0, "CENTIMETER", 0.5),
        (50_800.0, "INCH", 0.5),
        (72.0, "INCH", None),  # a screen's
        (28.35, "CENTIMETER", None),  # the same in other words
        (20_000.0, "NONE", None),
    ],
)
def test_tiff_resolution_counts_only_where_it_can_be_a_microscopes(
    tmp_path: Path, per_cm: float, unit: str, mpp: float | None
) -> None:
    options: dict[str, Any] = {
        "photometric": "rgb",
        "resolution": (per_cm, per_cm),
        "resolutionunit": unit,
    }
    tifffile.imwrite(tmp_path / "strips.tif", picture(), **options)
    tifffile.imwrite(tmp_path / "tiles.tif", picture(64, 64), tile=(32, 32), **options)
    for name in ("strips.tif", "tiles.tif"):  # read by tifffile, and by OpenSlide
        with slides.open_slide(tmp_path / name) as slide:
            assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-6))


def test_microns_per_pixel_of_the_user_win(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture(), resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    with slides.open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25
    with pytest.raises(InputError, match="plausible"):
        slides.open_slide(path, mpp=0)


def test_a_tiled_tiff_with_unlike_scales_needs_the_user(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    scale: dict[str, Any] = {"resolution": (2e4, 1e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture(64, 64), tile=(32, 32), photometric="rgb", **scale)
    with pytest.raises(InputError, match=r"0\.5 microns per pixel along x and 1 along y.*`mpp`"):
        slides.open_slide(path)
    with slides.open_slide(path, mpp=0.5) as slide:
        assert slide.mpp == 0.5


@pytest.mark.parametrize("border", ["reflect", "white"])
@pytest.mark.parametrize("tiled", [False, True])
def test_border_agrees_with_opencv(tmp_path: Path, border: str, tiled: bool) -> None:
    made = picture(64, 96)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, made, photometric="rgb", tile=(32, 32) if tiled else None)
    kind = cv2.BORDER_REFLECT_101 if border == "reflect" else cv2.BORDER_CONSTANT
    around = cv2.copyMakeBorder(made, 40, 40, 40, 40, kind, value=(255, 255, 255))
    with slides.open_slide(path) as slide:
        for left, top, width, height in [(-40, -40, 176, 144), (80, -7, 30, 20), (3, 50, 5, 54)]:
            found = slide.region(left, top, width, height, border=border)
            expected = around[top + 40 : top + 40 + height, left + 40 : left + 40 + width]
            np.testing.assert_array_equal(found, expected)


def test_a_region_far_outside_is_filled_by_the_policy(tmp_path: Path) -> None:
    with slides.open_slide(write_picture(tmp_path / "a.png", picture())) as slide:
        assert (slide.region(-500, 900, 20, 10, border="white") == 255).all()
        assert slide.region(-500, 900, 20, 10, border="reflect").shape == (10, 20, 3)


def test_changing_a_region_leaves_the_slide_unchanged(tmp_path: Path) -> None:
    made = picture()
    with slides.open_slide(write_picture(tmp_path / "a.png", made)) as slide:
        slide.region(0, 0, 90, 60)[:] = 0
        slide.region(0, 0, 90, 60, out_px=(90, 60))[:] = 0
        slide.overview()[0][:] = 0
        np.testing.assert_array_equal(slide.region(0, 0, 90, 60), made)


def test_region_is_averaged_down(tmp_path: Path) -> None:
    made = picture(60, 90)
    with slides.open_slide(write_picture(tmp_path / "a.png", made)) as slide:
        found = slide.region(0, 0, 90, 60, out_px=(30, 20))
        assert slide.region(10, 10, 20, 20, out_px=(33, 41)).shape == (41, 33, 3)
    expected = made.reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 0.5 + 1e-6  # rounding to whole grey levels


def test_a_coarse_region_comes_from_a_coarse_level(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    fine, coarse = np.zeros((256, 256, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(fine, tile=(64, 64), photometric="rgb")
        tiff.write(coarse, tile=(64, 64), photometric="rgb", subfiletype=1)
    with slides.open_slide(path) as slide:
        assert (slide.region(0, 0, 128, 128) == 0).all()
        assert (slide.region(0, 0, 128, 128, out_px=(64, 64)) == 0).all()
        assert (slide.region(-16, 0, 128, 128, out_px=(32, 32)) == 200).all()
        assert (slide.overview(max_px=32)[0] == 200).all()


def test_overview_states_its_scale(tmp_path: Path) -> None:
    with slides.open_slide(write_picture(tmp_path / "a.png", picture(60, 90))) as slide:
        small, scale = slide.overview(max_px=45)
        assert small.shape == (30, 45, 3)
        assert scale == 2
        assert slide.overview()[1] == 1


def test_sampled_pixels_follow_the_seed_and_cover_the_image(tmp_path: Path) -> None:
    made = np.zeros((200, 300, 3), np.uint8)
    made[:, 150:] = 200
    with slides.open_slide(write_picture(tmp_path / "a.png", made)) as slide:
        first = slide.sample_pixels(5000, seed=1)
        assert first.shape == (5000, 3)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, slide.sample_pixels(5000, seed=1))
        # One patch a cell: each half holds half of the patches, give or take a column of cells.
        assert 0.4 < (first[:, 0] == 200).mean() < 0.6
        assert len(slide.sample_pixels(10**6, seed=1)) == 200 * 300
        assert len(slide.sample_pixels(1, seed=1)) == 1


@pytest.mark.parametrize("border", ["reflect", "white"])
@pytest.mark.parametrize("out_px", [None, 20])
def test_squares_read_together_are_what_each_is_alone(
    tmp_path: Path, border: str, out_px: int | None
) -> None:
    write_picture(tmp_path / "a.png", picture(200, 300))
    tiled: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg"}
    tifffile.imwrite(tmp_path / "a.tif", smooth_picture(200, 300), **tiled)
    # Rows of squares that overlap, some over the edge, and one far from its neighbours.
    corners = np.array([(x, y) for y in (-9, 17, 140) for x in (-20, 5, 29, 60)] + [(260, 2)])
    for name in ("a.png", "a.tif"):
        with slides.open_slide(tmp_path / name) as slide:
            found = list(slide.squares(corners, 50, out_px=out_px, border=border))
            assert len(found) == len(corners)
            size = None if out_px is None else (out_px, out_px)
            for square, (left, top) in zip(found, corners, strict=True):
                alone = slide.region(left, top, 50, 50, out_px=size, border=border)
                np.testing.assert_array_equal(square, alone)
            assert not list(slide.squares(corners[:0], 50))


def test_overlapping_squares_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "a.png", picture(200, 300))
    read = []
    with slides.open_slide(tmp_path / "a.png") as slide:
        real = slide._pixels

        def recorded(*box: int) -> np.ndarray:
            read.append(box)
            return real(*box)

        monkeypatch.setattr(slide, "_pixels", recorded)
        list(slide.squares(np.array([(0, 0), (20, 0), (40, 0), (200, 100)]), 50))
    assert read == [(0, 0, 0, 90, 50), (0, 200, 100, 50, 50)]


def test_squares_with_an_unknown_border_are_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", picture())
    with slides.open_slide(tmp_path / "a.png") as slide, pytest.raises(InputError, match="border"):
        next(slide.squares(np.array([(0, 0)]), 8, border="wrap"))


def test_a_tiny_image_gives_all_its_pixels(tmp_path: Path) -> None:
    made = picture(1, 3)
    with slides.open_slide(write_picture(tmp_path / "a.png", made)) as slide:
        np.testing.assert_array_equal(slide.sample_pixels(100, seed=0), made[0])
        assert slide.region(-2, -2, 7, 5).shape == (5, 7, 3)
        assert slide.overview()[0].shape == (1, 3, 3)


def test_misuse_of_a_region_is_refused(tmp_path: Path) -> None:
    slide = slides.open_slide(write_picture(tmp_path / "a.png", picture()))
    with pytest.raises(InputError, match="'wrap' is unknown"):
        slide.region(0, 0, 5, 5, border="wrap")
    with pytest.raises(ValueError, match="too small"):
        slide.region(0, 0, 0, 5)
    with pytest.raises(TypeError):
        slide.region(0.5, 0, 5, 5)  # type: ignore[arg-type]
    slide.close()
    with pytest.raises(ValueError, match="closed"):
        slide.region(0, 0, 5, 5)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, picture(300, 300), photometric="rgb")
    else:
        write_picture(path, picture(300, 300))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for function in (slides.image_size, slides.open_slide):
        with pytest.raises(InputError, match=rf"cut\{suffix}.*truncated"):
            function(path)


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_refused(tmp_path: Path) -> None:
    thumbnail = write_picture(tmp_path / "small.jpg", picture(8, 8)).read_bytes()
    whole = write_picture(tmp_path / "cut.jpg", picture(300, 300)).read_bytes()
    block = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "cut.jpg").write_bytes(whole[:2] + block + whole[2 : len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        slides.open_slide(tmp_path / "cut.jpg")


def test_damaged_png_data_are_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", picture(300, 300))
    content = bytearray(path.read_bytes())
    content[5000:5400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png.*damaged"):
        slides.open_slide(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"hello, this is no picture", "not an image"),
        ("web.html", b"<html>404</html>", "not an image"),
        ("half.dcm", b"\0" * 128 + b"DICM" + b"\0" * 50, "half.dcm"),
    ],
)
def test_a_file_that_is_no_image_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    for function in (slides.image_size, slides.open_slide):
        with pytest.raises(InputError, match=message):
            function(tmp_path / name)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.svs' does not exist"):
        slides.open_slide(tmp_path / "gone.svs")
    with pytest.raises(InputError, match="is a folder"):
        slides.open_slide(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_more_than_8_bits_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    deep = picture().astype(np.uint16) * 200
    if suffix == ".tif":
        tifffile.imwrite(path, deep, photometric="rgb")
    else:
        cv2.imwrite(str(path), deep)
    for function in (slides.image_size, slides.open_slide):
        with pytest.raises(InputError, match="8-bit RGB works"):
            function(path)


def test_a_stack_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 40, 50), np.uint8))
    with pytest.raises(InputError, match=r"shape \(5, 40, 50\)"):
        slides.open_slide(tmp_path / "stack.tif")


def test_real_slides_open(test_data: Path) -> None:
    folder = test_data / "slides"
    with slides.open_slide(folder / "CMU-1-Small-Region.svs") as slide:
        assert (slide.width_px, slide.height_px) == (2220, 2967)
        assert slide.mpp == pytest.approx(0.499)
        assert slide.region(-10, 2900, 100, 100).shape == (100, 100, 3)
        overview, scale = slide.overview()
        assert max(overview.shape) == 1024
        assert scale == pytest.approx(2967 / 1024)
        # Samples spread over the slide have its mean colour, within a few grey levels.
        mean = slide.sample_pixels(20_000, seed=0).mean(axis=0)
        np.testing.assert_allclose(mean, overview.mean(axis=(0, 1)), atol=6)
    with slides.open_slide(folder / "camelyon_lowres.dcm") as slide:
        assert slide.mpp == pytest.approx(28.9685)
        assert slide.region(0, 0, 50, 40).shape == (40, 50, 3)
    with slides.open_slide(folder / "boxes.tiff") as slide:
        assert slide.mpp is None  # its tag says 72 dots per inch
    with pytest.raises(InputError, match=r"unopenable\.tiff.*52479"):
        slides.open_slide(folder / "unopenable.tiff")


def test_a_truncated_svs_is_refused(test_data: Path, tmp_path: Path) -> None:
    whole = (test_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[:1_000_000])

    def read() -> None:
        with slides.open_slide(tmp_path / "cut.svs") as slide:
            slide.region(0, 0, slide.width_px, slide.height_px)

    with pytest.raises(InputError, match=r"cut\.svs"):
        read()

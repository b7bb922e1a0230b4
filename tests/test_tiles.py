"""Tissue, grids and tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from histospace_tf.data_pipelines import slides, tiles
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.vocabulary import InputError


def glass(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Slightly pinkish and noisy, as scanners give it."""
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return np.clip(np.array([236, 228, 235]) + noise, 0, 255).astype(np.uint8)


def tissue(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Pink with dark blobs."""
    coarse = np.random.default_rng(seed).random((height // 6 + 2, width // 6 + 2))
    dark = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    return (np.array([225, 150, 195]) - 110 * dark * np.array([1, 0.9, 0.5])).astype(np.uint8)


def slide_of(folder: Path, rgb: np.ndarray, *, mpp: float | None = None) -> slides.SlideImage:
    tifffile.imwrite(folder / "slide.tif", rgb, photometric="rgb")
    return slides.open_slide(folder / "slide.tif", mpp=mpp)


def island(height: int = 600, width: int = 800) -> np.ndarray:
    """Glass with tissue in columns 200 to 600, rows 150 to 450."""
    picture = glass(height, width)
    picture[150:450, 200:600] = tissue(300, 400)
    return picture


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose pixels say where they are: red 2 x, green 2 y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, 0 * x], axis=2).astype(np.uint8)


def test_all_glass_has_no_tissue() -> None:
    assert not tissue_mask(glass(300, 400)).any()
    for grey in (0, 128, 255):
        assert not tissue_mask(np.full((80, 90, 3), grey, np.uint8)).any()


def test_all_tissue_is_tissue() -> None:
    assert tissue_mask(tissue(300, 400)).all()
    assert tissue_mask(np.full((80, 90, 3), (225, 150, 195), np.uint8)).all()


def test_mask_follows_the_tissue() -> None:
    picture = island()
    truth = np.zeros(picture.shape[:2], bool)
    truth[150:450, 200:600] = True
    found = tissue_mask(picture)
    # Within about 5 px of the outline, which is 1400 px long: the window reaches over it.
    assert (found != truth).sum() < 6 * 1400


def test_smooth_stain_on_glass_is_no_tissue() -> None:
    y, x = np.mgrid[:400, :400]
    smear = np.exp(-((x - 200) ** 2 + (y - 200) ** 2) / 100**2)[..., None]
    picture = (glass(400, 400) - smear * np.array([0, 25, 12])).astype(np.uint8)
    assert not tissue_mask(picture).any()


def test_specks_and_holes_are_removed() -> None:
    picture = island()
    cv2.circle(picture, (700, 80), 3, (120, 60, 140), -1)
    cv2.circle(picture, (400, 300), 4, (236, 228, 235), -1)
    mask = tissue_mask(picture)
    assert not mask[60:100, 680:720].any()
    assert mask[280:320, 380:420].all()


def test_mask_refuses_what_is_no_rgb_picture() -> None:
    with pytest.raises(ValueError, match="uint8"):
        tissue_mask(np.zeros((5, 5, 3)))
    with pytest.raises(ValueError, match="uint8"):
        tissue_mask(np.zeros((5, 5), np.uint8))


def test_grid_tiles_do_not_overlap_stay_inside_and_hold_tissue(tmp_path: Path) -> None:
    with slide_of(tmp_path, island()) as slide:
        centres = tiles.grid_centres(slide, tile_px=32, mpp=None, min_tissue=0.5)
    assert centres.dtype == np.float64
    corners = centres - 31 / 2
    assert (corners == np.round(corners)).all()
    assert (corners >= 0).all()
    assert (corners + 32 <= (800, 600)).all()
    apart = np.abs(centres[:, None] - centres[None]).max(axis=2)
    assert apart[~np.eye(len(centres), dtype=bool)].min() == 32
    assert ((centres > (195, 145)) & (centres < (605, 455))).all()
    # 400 x 300 px hold about 117 tiles of 32 px, those at the outline counting by halves.
    assert 95 < len(centres) < 140
    order = centres[:, 1] * 1000 + centres[:, 0]
    assert (np.diff(order) > 0).all()


def test_min_tissue_orders_grids(tmp_path: Path) -> None:
    with slide_of(tmp_path, island()) as slide:
        counts = [
            len(tiles.grid_centres(slide, tile_px=64, mpp=None, min_tissue=share))
            for share in (0, 0.1, 0.5, 1)
        ]
    assert counts[0] == (800 // 64) * (600 // 64)
    assert counts == sorted(counts, reverse=True)
    assert counts[3] > 0


def test_grid_tiles_are_cut_where_the_grid_says(tmp_path: Path) -> None:
    picture = tissue(200, 300)
    with slide_of(tmp_path, picture) as slide:
        centres = tiles.grid_centres(slide, tile_px=50, mpp=None, min_tissue=0.5)
        cut, kept = tiles.cut_tiles(slide, centres, tile_px=50, mpp=None, border="drop")
    assert kept.all()
    expected = picture.reshape(4, 50, 6, 50, 3).swapaxes(1, 2).reshape(24, 50, 50, 3)
    np.testing.assert_array_equal(cut, expected)


def test_grid_step_and_scale(tmp_path: Path) -> None:
    with slide_of(tmp_path, tissue(400, 400), mpp=0.5) as slide:
        coarse = tiles.grid_centres(slide, tile_px=50, mpp=1.0, min_tissue=0.5)
        assert len(coarse) == 16  # 50 px at 1 um are 100 px here
        stepped = tiles.grid_centres(slide, tile_px=50, mpp=1.0, min_tissue=0.5, step_px=50)
        assert len(stepped) == 49
        assert len(tiles.grid_centres(slide, tile_px=100, mpp=0.51, min_tissue=0.5)) == 16


def test_no_tissue_or_no_room_gives_an_empty_grid(tmp_path: Path) -> None:
    with slide_of(tmp_path, glass(300, 300)) as slide:
        assert tiles.grid_centres(slide, tile_px=32, mpp=None, min_tissue=0.1).shape == (0, 2)
    with slide_of(tmp_path, tissue(50, 300)) as slide:
        assert tiles.grid_centres(slide, tile_px=64, mpp=None, min_tissue=0.1).shape == (0, 2)
        empty, kept = tiles.cut_tiles(
            slide, np.zeros((0, 2)), tile_px=64, mpp=None, border="reflect"
        )
    assert empty.shape == (0, 64, 64, 3)
    assert kept.shape == (0,)


def test_a_grid_out_of_range_is_refused(tmp_path: Path) -> None:
    with slide_of(tmp_path, tissue(100, 100)) as slide:
        with pytest.raises(InputError, match="tissue share of 2"):
            tiles.grid_centres(slide, tile_px=32, mpp=None, min_tissue=2)
        with pytest.raises(InputError, match="step of 0 px"):
            tiles.grid_centres(slide, tile_px=32, mpp=None, min_tissue=0.5, step_px=0)
        with pytest.raises(InputError, match="tile of 0 px"):
            tiles.grid_centres(slide, tile_px=0, mpp=None, min_tissue=0.5)


@pytest.mark.parametrize("side", [8, 9])
def test_a_tile_stands_around_its_centre(tmp_path: Path, side: int) -> None:
    centres = np.array([[40, 30], [40.4, 30.6], [60.5, 20.49]])
    with slide_of(tmp_path, coordinates(80, 100)) as slide:
        cut, _ = tiles.cut_tiles(slide, centres, tile_px=side, mpp=None, border="reflect")
    middles = cut[..., :2].astype(float).mean(axis=(1, 2)) / 2
    assert np.abs(middles - centres).max() <= 0.5


def test_border_policies(tmp_path: Path) -> None:
    picture = tissue(80, 100)
    centres = np.array([[0, 0], [50, 40], [99, 40]])
    around = cv2.copyMakeBorder(picture, 20, 20, 20, 20, cv2.BORDER_REFLECT_101)
    with slide_of(tmp_path, picture) as slide:
        reflected, kept = tiles.cut_tiles(slide, centres, tile_px=20, mpp=None, border="reflect")
        assert kept.all()
        np.testing.assert_array_equal(reflected[0], around[10:30, 10:30])
        white, kept = tiles.cut_tiles(slide, centres, tile_px=20, mpp=None, border="white")
        assert kept.all()
        assert (white[0, :10] == 255).all()
        assert (white[0, :, :10] == 255).all()
        np.testing.assert_array_equal(white[0, 10:, 10:], picture[:10, :10])
        dropped, kept = tiles.cut_tiles(slide, centres, tile_px=20, mpp=None, border="drop")
        assert kept.tolist() == [False, True, False]
        np.testing.assert_array_equal(dropped, white[1:2])
        with pytest.raises(InputError, match="'crop' is unknown; one of reflect, white, drop"):
            tiles.cut_tiles(slide, centres, tile_px=20, mpp=None, border="crop")


def test_what_fits_is_what_is_cut(tmp_path: Path) -> None:
    centres = np.array([[5.0, 40.0], [50.0, 40.0], [96.0, 40.0]])
    with slide_of(tmp_path, coordinates(80, 100)) as slide:
        for border in tiles.BORDERS:
            settings: dict[str, Any] = {"tile_px": 16, "mpp": None, "border": border}
            _, kept = tiles.cut_tiles(slide, centres, **settings)
            np.testing.assert_array_equal(tiles.have_tiles(slide, centres, **settings), kept)
        with pytest.raises(InputError, match="number 1"):
            tiles.have_tiles(slide, centres + np.array([(0, 0), (0, 80), (0, 0)]), **settings)


def test_a_tile_of_the_slides_own_size_is_not_dropped(tmp_path: Path) -> None:
    picture = tissue(32, 32)
    with slide_of(tmp_path, picture) as slide:
        centres = tiles.grid_centres(slide, tile_px=32, mpp=None, min_tissue=0.5)
        cut, kept = tiles.cut_tiles(slide, centres, tile_px=32, mpp=None, border="drop")
    assert kept.tolist() == [True]
    np.testing.assert_array_equal(cut[0], picture)


@pytest.mark.parametrize(
    ("slide_mpp", "mpp", "side"),
    [
        (0.5, 1.0, 40),
        (1.0, 0.5, 10),
        (0.5, 0.51, 20),
        (0.5, 0.52, 21),
        (None, 0.5, 20),
        (1, None, 20),
    ],
)
def test_a_tile_covers_the_same_microns_on_every_slide(
    tmp_path: Path, slide_mpp: float | None, mpp: float | None, side: int
) -> None:
    with slide_of(tmp_path, coordinates(100, 120), mpp=slide_mpp) as slide:
        assert tiles.slide_px(slide, tile_px=20, mpp=mpp) == side
        cut, _ = tiles.cut_tiles(
            slide, np.array([[60.0, 50.0]]), tile_px=20, mpp=mpp, border="white"
        )
    assert cut.shape == (1, 20, 20, 3)
    across = cut[0, :, :, 0].astype(float) / 2
    # One tile pixel is side / 20 slide pixels, by the slope of the picture of coordinates.
    slope = np.polyfit(np.arange(20), across.mean(axis=0), 1)[0]
    assert slope == pytest.approx(side / 20, rel=0.02)
    assert abs(across.mean() - 60) <= 1


def test_a_centre_off_the_slide_is_refused_by_number(tmp_path: Path) -> None:
    centres = np.array([[5, 5], [5, 90], [700, 5]])
    with (
        slide_of(tmp_path, tissue(80, 100)) as slide,
        pytest.raises(InputError, match=r"2 of 3 .*100 x 80 px \(first: number 1, x 5, y 90\)"),
    ):
        tiles.cut_tiles(slide, centres, tile_px=8, mpp=None, border="reflect")


def test_tissue_of_real_slides(test_data: Path) -> None:
    for name, lowest, highest in [
        ("slides/CMU-1-Small-Region.svs", 0.35, 0.5),
        ("breast_he/bcss/1008.jpg", 0.99, 1),
        ("breast_he/tnbc/01_1.png", 0.7, 1),  # pale collagen without glass
        ("breast_he/tnbc/09_4.png", 0.55, 0.75),  # fat
    ]:
        with slides.open_slide(test_data / name) as slide:
            assert lowest <= tissue_mask(slide.overview()[0]).mean() <= highest, name

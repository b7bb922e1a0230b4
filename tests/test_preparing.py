"""Tiles of sections and of images alone: cut once, kept in files, refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from histospace_tf.cohort import preparing, pretraining_images
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import slides, tiles
from histospace_tf.vocabulary import InputError, Section
from made.configs import tiny_config
from made.pictures import fluorescence, overview_of
from made.tissue import he_picture, section, spot_table, write_picture

SIDE, PRETRAIN_SIDE = 32, 16


@pytest.fixture(scope="module")
def config() -> Config:
    return tiny_config(
        tiles__tile_px=SIDE,
        tiles__mpp=1.0,
        autoencoder__tile_px=PRETRAIN_SIDE,
        autoencoder__tiles=30,
        context__slide_tiles=5,
        stain__sample_pixels=500,
    )


@pytest.fixture
def made(tmp_path: Path) -> Section:
    return section("A1", "A", folder=tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Images that were opened since."""
    seen: list[Path] = []
    real = slides.open_slide

    def counting(path: Path, *, mpp: float | None = None) -> slides.SlideImage:
        seen.append(Path(path))
        return real(path, mpp=mpp)

    monkeypatch.setattr(slides, "open_slide", counting)
    return seen


def cut(made: Section, centres: np.ndarray, side: int, *, mpp: float | None) -> np.ndarray:
    assert made.image is not None
    with slides.open_slide(made.image, mpp=made.mpp) as slide:
        return tiles.cut_tiles(slide, centres, tile_px=side, mpp=mpp, border="reflect")[0]


@pytest.mark.parametrize("mpp", [None, 1.0, 2.0])
def test_spot_tiles_are_what_cut_tiles_gives(
    made: Section, config: Config, work: Path, mpp: float | None
) -> None:
    config = dataclasses.replace(config, tiles=dataclasses.replace(config.tiles, mpp=mpp))
    ready = preparing.prepare_section(made, config, work, pretrain_tiles=0)
    np.testing.assert_array_equal(ready.spot_tiles, cut(made, made.spots.centres_px, SIDE, mpp=mpp))
    assert ready.spots.names == made.spots.names
    assert (ready.name, ready.patient, ready.mpp, ready.spot_pitch_px) == ("A1", "A", 1.0, 40.0)
    assert ready.problems == ()


def test_slide_and_pretraining_tiles_are_tissue_of_the_grid(
    made: Section, config: Config, work: Path
) -> None:
    ready = preparing.prepare_section(made, config, work, pretrain_tiles=12)
    assert ready.slide_tiles.shape == (5, SIDE, SIDE, 3)
    assert ready.pretrain_tiles.shape == (12, PRETRAIN_SIDE, PRETRAIN_SIDE, 3)
    assert made.image is not None
    with slides.open_slide(made.image, mpp=made.mpp) as slide:
        grid = tiles.grid_centres(slide, tile_px=PRETRAIN_SIDE, mpp=1.0, min_tissue=0.5)
    every = {tile.tobytes() for tile in cut(made, grid, PRETRAIN_SIDE, mpp=1.0)}
    assert len(grid) > 12
    assert {tile.tobytes() for tile in ready.pretrain_tiles} < every


def test_tiles_that_a_run_does_not_need_are_not_cut(
    made: Section, config: Config, work: Path
) -> None:
    config = changed(config, regressor__architecture="pooled")
    ready = preparing.prepare_section(made, config, work, pretrain_tiles=0)
    assert len(ready.slide_tiles) == len(ready.pretrain_tiles) == 0


def test_image_is_opened_once_and_its_files_are_read_again(
    made: Section, config: Config, work: Path, opened: list[Path]
) -> None:
    first = preparing.prepare_section(made, config, work, pretrain_tiles=4)
    assert opened == [made.image]
    again = preparing.prepare_section(made, config, work, pretrain_tiles=4)
    assert opened == [made.image]
    for name in ("spot_tiles", "slide_tiles", "pretrain_tiles"):
        assert isinstance(getattr(again, name), np.memmap)
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.stains.to_json() == again.stains.to_json()
    assert first.mpp == again.mpp
    kept_overview = preparing.kept_overview([again])
    kept = {px: kept_overview(made, px) for px in preparing.PUBLISHED_PX}
    assert opened == [made.image]
    for px, (picture, *scales) in kept.items():
        expected, *of_image = overview_of(made, px)
        np.testing.assert_array_equal(picture, expected)
        assert scales == of_image


def test_a_cut_off_preparation_starts_over(
    made: Section, config: Config, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "slide_stains", stopped)
        with pytest.raises(KeyboardInterrupt):
            preparing.prepare_section(made, config, work, pretrain_tiles=4)
    np.save(work / "A1_spots.npy", np.zeros(1))  # as a write that was cut off may leave it
    ready = preparing.prepare_section(made, config, work, pretrain_tiles=4)
    assert ready.spot_tiles.shape == (6, SIDE, SIDE, 3)


def test_border_drop_leaves_spots_out_with_a_warning(
    made: Section, config: Config, work: Path
) -> None:
    centres = np.array([[5.0, 50.0], [100.0, 50.0], [140.0, 195.0], [140.0, 100.0]])
    made = dataclasses.replace(made, spots=spot_table(centres))
    dropping = changed(config, tiles__border="drop")
    ready = preparing.prepare_section(made, dropping, work, pretrain_tiles=0)
    assert ready.spots.names == ("s1", "s3")
    np.testing.assert_array_equal(ready.spots.centres_px, centres[[1, 3]])
    np.testing.assert_array_equal(ready.spot_tiles, cut(made, centres[[1, 3]], SIDE, mpp=1.0))
    (problem,) = ready.problems
    assert str(problem).startswith("section A1: 2 of 4 spots (first: 's0')")
    # Said again where the files are read again.
    again = preparing.prepare_section(made, dropping, work, pretrain_tiles=0)
    assert [str(p) for p in again.problems] == [str(problem)]


def test_a_section_with_every_tile_over_the_edge_is_refused(
    made: Section, config: Config, work: Path
) -> None:
    made = dataclasses.replace(made, spots=spot_table(np.array([[3.0, 3.0]])))
    with pytest.raises(InputError, match=r"section 'A1': no spot's tile of 32 px fits"):
        preparing.prepare_section(
            made, changed(config, tiles__border="drop"), work, pretrain_tiles=0
        )
    assert preparing.prepare_section(made, config, work, pretrain_tiles=0).problems == ()


def test_glass_alone_is_refused_by_the_sections_name(
    made: Section, config: Config, work: Path
) -> None:
    assert made.image is not None
    write_picture(made.image, np.full((200, 240, 3), 240, np.uint8))
    with pytest.raises(InputError, match=r"section 'A1': no tissue found in .*A1.png"):
        preparing.prepare_section(made, config, work, pretrain_tiles=0)
    assert not (work / "A1.json").exists()


def test_fluorescence_is_refused_by_the_sections_name(
    made: Section, config: Config, work: Path
) -> None:
    assert made.image is not None
    write_picture(made.image, fluorescence((0, 0, 1), (0, 1, 0)))
    with pytest.raises(InputError, match=r"section 'A1': A1.png is not H&E"):
        preparing.prepare_section(made, config, work, pretrain_tiles=0)


def test_a_section_without_an_image_is_refused(config: Config, work: Path) -> None:
    with pytest.raises(InputError, match="section 'A1' has no image"):
        preparing.prepare_section(section("A1", "A"), config, work, pretrain_tiles=0)


def test_a_missing_image_is_refused_by_its_name(made: Section, config: Config, work: Path) -> None:
    assert made.image is not None
    made.image.unlink()
    with pytest.raises(InputError, match=r"A1\.png"):
        preparing.prepare_section(made, config, work, pretrain_tiles=0)


def test_spread_draws_rows_in_their_order_with_the_seed() -> None:
    centres = np.arange(40.0).reshape(20, 2)
    drawn = preparing.random_subset(centres, 7, seed=1)
    assert len(drawn) == len(np.unique(drawn[:, 0])) == 7
    assert (np.diff(drawn[:, 0]) > 0).all()
    np.testing.assert_array_equal(drawn, preparing.random_subset(centres, 7, seed=1))
    assert not np.array_equal(drawn, preparing.random_subset(centres, 7, seed=2))
    np.testing.assert_array_equal(preparing.random_subset(centres, 20, seed=1), centres)


def test_stains_are_estimated_as_the_configuration_says(made: Section, config: Config) -> None:
    assert made.image is not None
    with slides.open_slide(made.image) as slide:
        plain = preparing.slide_stains(
            slide,
            changed(config, stain__method="macenko", stain__cast=False, stain__luminosity=False),
        )
        stretched = preparing.slide_stains(slide, changed(config, stain__method="macenko"))
    assert plain.method == "macenko"
    np.testing.assert_array_equal(plain.white_point, [255, 255, 255])
    assert (stretched.white_point < 250).all()


def test_a_table_takes_tiles_to_the_reference(made: Section, config: Config, work: Path) -> None:
    ready = preparing.prepare_section(made, config, work, pretrain_tiles=0)
    group = preparing.stained(ready.spot_tiles, ready.stains, ready.stains)
    assert len(group) == 6
    assert group.table is not None
    assert group.normalised(np.array([4, 1])).shape == (2, SIDE, SIDE, 3)


@pytest.fixture
def images(tmp_path: Path) -> Callable[[int], list[tuple[Path, str]]]:
    """Images of two sources in turn."""

    def write(n: int) -> list[tuple[Path, str]]:
        return [
            (write_picture(tmp_path / f"{i}.png", he_picture(seed=i)), f"source{i % 2}")
            for i in range(n)
        ]

    return write


def test_images_give_tissue_tiles_and_keep_their_sources(
    images: Callable[[int], list[tuple[Path, str]]], config: Config, opened: list[Path]
) -> None:
    seen: list[int] = []
    found = pretraining_images.prepare_images(images(3), config, progress=seen.append)
    assert [image.source for image in found] == ["source0", "source1", "source0"]
    assert seen == [1, 1, 1]
    assert len(opened) == 3
    for image, (path, _) in zip(found, images(3), strict=True):
        with slides.open_slide(path) as slide:
            grid = tiles.grid_centres(slide, tile_px=PRETRAIN_SIDE, mpp=1.0, min_tissue=0.5)
            every, _ = tiles.cut_tiles(
                slide, grid, tile_px=PRETRAIN_SIDE, mpp=1.0, border="reflect"
            )
        assert {t.tobytes() for t in image.tiles} <= {t.tobytes() for t in every}


@pytest.mark.parametrize(("most", "total"), [(30, 30), (2, 2), (10_000, None)])
def test_tiles_of_images_are_at_most_so_many(
    images: Callable[[int], list[tuple[Path, str]]],
    config: Config,
    most: int,
    total: int | None,
) -> None:
    found = pretraining_images.prepare_images(images(3), changed(config, autoencoder__tiles=most))
    sizes = [len(image.tiles) for image in found]
    assert min(sizes) > 0
    if total is None:
        assert len(sizes) == 3
        assert sum(sizes) > 100
    else:
        assert sum(sizes) == total


def test_images_that_are_not_h_and_e_are_left_out_with_a_warning(
    images: Callable[[int], list[tuple[Path, str]]],
    config: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_picture(tmp_path / "dapi.png", fluorescence((0, 0, 1)))
    found = pretraining_images.prepare_images([(other, "dapi"), *images(2)], config)
    assert [image.source for image in found] == ["source0", "source1"]
    assert "1 of 3 images are not H&E" in capsys.readouterr().err


def test_images_without_tissue_are_passed_over_with_a_warning(
    images: Callable[[int], list[tuple[Path, str]]],
    config: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    glass = write_picture(tmp_path / "glass.png", np.full((200, 240, 3), 240, np.uint8))
    found = pretraining_images.prepare_images([(glass, "glass"), *images(2)], config)
    said = capsys.readouterr().err
    assert "1 of 3 images hold no tissue tile of" in said
    assert "'glass.png'" in said
    assert "3 of 3 images do not state their microns per pixel" in said
    assert [image.source for image in found] == ["source0", "source1"]
    with pytest.raises(InputError, match=r"1 image\(s\) to pre-train on hold 0 tissue tile"):
        pretraining_images.prepare_images([(glass, "glass")], config)


def test_images_that_do_not_state_their_scale_are_taken_at_the_given_one(
    config: Config, tmp_path: Path
) -> None:
    image = write_picture(tmp_path / "he.png", he_picture(size=(480, 400)))
    given = changed(config, autoencoder__images_mpp=0.5)
    (found,) = pretraining_images.prepare_images([(image, "he")], given)
    assert found.mpp == 0.5
    with slides.open_slide(image, mpp=0.5) as slide:
        grid = tiles.grid_centres(slide, tile_px=PRETRAIN_SIDE, mpp=1.0, min_tissue=0.5)
    assert len(found.tiles) == min(len(grid), 30)


def test_images_that_state_their_scale_are_brought_to_the_common_one(
    config: Config, tmp_path: Path
) -> None:
    picture = he_picture(size=(480, 400))
    tifffile.imwrite(
        tmp_path / "fine.tif",
        picture,
        photometric="rgb",
        resolution=(2e4, 2e4),  # pixels a centimetre: 0.5 microns a pixel
        resolutionunit="CENTIMETER",
    )
    config = changed(config, autoencoder__images_mpp=2.0)  # the file's word wins
    (found,) = pretraining_images.prepare_images([(tmp_path / "fine.tif", "fine")], config)
    assert found.mpp == pytest.approx(0.5)
    with slides.open_slide(tmp_path / "fine.tif") as slide:
        assert slide.mpp == pytest.approx(0.5)
        grid = tiles.grid_centres(slide, tile_px=PRETRAIN_SIDE, mpp=1.0, min_tissue=0.5)
    assert len(found.tiles) == min(len(grid), 30)
    assert found.tiles.shape[1:] == (PRETRAIN_SIDE, PRETRAIN_SIDE, 3)

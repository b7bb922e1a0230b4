"""The white of a slide from place to place: known fields are found, and taken away."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from histospace_tf.cohort import paired, preparing, pretraining_images
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import recolouring, slides, stain, tiles
from histospace_tf.data_pipelines.slides import white_field
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.data_pipelines.slides.white_field import WhiteField
from histospace_tf.vocabulary import Section
from made.configs import tiny_config
from made.lighting import HEIGHT, WHITE, WIDTH, known_field, made_slide
from made.tissue import spot_table, write_picture

CENTRES = np.array([(100.0, 100), (240, 200), (380, 300), (150, 280)])


def field_of(picture: np.ndarray) -> WhiteField:
    size = picture.shape[1], picture.shape[0]
    return white_field.estimated(picture, tissue_mask(picture), size_px=size)


@pytest.mark.parametrize("kind", ["none", "gradient", "vignette", "pink corner"])
def test_a_known_field_is_found_on_glass_and_under_tissue(kind: str) -> None:
    known = known_field(kind)
    field = field_of(made_slide(kind))
    assert not field.why_off
    came_out = known / field.over_picture(known.shape)
    apart = WHITE * np.abs(came_out / np.median(came_out, axis=(0, 1)) - 1)
    assert apart.mean() < 0.7  # grey levels
    assert np.percentile(apart, 99) < 2.5
    assert apart.max() < 6  # at the corners, half a cell beyond the last cell's middle
    # An even slide stays as it is, within a grey level; elsewhere 30 levels and more are at stake.
    darkest = ((1 - known) * WHITE).max()
    assert field.largest == pytest.approx(darkest, abs=1 if kind == "none" else 5)
    np.testing.assert_allclose(field.levels, WHITE, atol=4 if kind == "vignette" else 1)
    assert field.shares.max() == 1
    assert 0.3 < field.glass_share < 0.5


def test_dust_pen_and_fill_do_not_move_the_field() -> None:
    clean = made_slide("gradient")
    dirty = clean.copy()
    for x, y, grey in ((30, 30, 60), (200, 20, 190), (450, 200, 90), (300, 385, 150)):
        cv2.circle(dirty, (x, y), 9, (grey, grey, grey), -1)
    cv2.line(dirty, (10, 390), (160, 350), (40, 60, 190), 4)  # pen
    dirty[:, -12:] = 0  # a scanner's fill, black and white
    dirty[:14] = 255
    moved = field_of(dirty).over_picture(dirty.shape) - field_of(clean).over_picture(dirty.shape)
    assert 255 * np.abs(moved[20:, :-20]).max() < 2.5


def pale_tissue() -> np.ndarray:
    """Smooth pink tissue all over, with holes through which glass is seen."""
    picture = np.full((HEIGHT, WIDTH, 3), (238, 212, 230), np.uint8)
    picture[np.indices((HEIGHT, WIDTH)).sum(axis=0) % 120 < 30] = (240, 238, 239)
    return picture


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (pale_tissue(), "differs in colour from the brightest by 26 grey levels or more; above 15"),
        (made_slide("gradient")[80:-80, 80:-80], "0.0% of it is glass; at least 10%"),
        (made_slide("gradient", (160, 0, WIDTH, HEIGHT)), "its glass surrounds 2.%"),
        (np.full((200, 300, 3), 255, np.uint8), "0.0% of it is glass"),  # nothing to measure
        (np.full((1, 1, 3), 240, np.uint8), "its glass surrounds 0% of it"),
    ],
    ids=["pale tissue", "tissue alone", "glass on one side", "pure white", "one pixel"],
)
def test_it_is_off_where_glass_says_too_little(picture: np.ndarray, words: str) -> None:
    field = field_of(picture)
    assert field.record()["on"] is False
    assert field.largest == 0
    (share,) = field.at(np.zeros((1, 2)))
    np.testing.assert_array_equal(field.lit(picture, 0, 0), picture)
    np.testing.assert_array_equal(white_field.evened(picture, share), picture)
    assert words.split("2.%")[0] in field.why_off
    assert field.record()["why"] == field.why_off


def test_it_reads_the_same_at_a_place_over_a_part_and_from_json() -> None:
    field = field_of(made_slide("vignette"))
    again = WhiteField.from_json(json.loads(json.dumps(field.to_json())))
    assert (
        again.record()
        == field.record()
        == {
            "on": True,
            "glass_share": round(field.glass_share, 3),
            "largest_grey_levels": round(field.largest, 1),
        }
    )
    np.testing.assert_array_equal(again.shares, field.shares)
    x, y = np.arange(WIDTH), np.arange(HEIGHT)
    over = field.over(x, y)
    np.testing.assert_allclose(
        over[CENTRES[:, 1].astype(int), CENTRES[:, 0].astype(int)], field.at(CENTRES), atol=1e-6
    )
    np.testing.assert_allclose(field.over_picture(over.shape), over, atol=1e-6)
    corners = np.array([(0.0, 0.0), (WIDTH - 1, HEIGHT - 1), (-0.5, -0.5)])
    np.testing.assert_array_equal(field.at(corners), field.shares[[0, -1, 0], [0, -1, 0]])
    picture = made_slide("vignette")
    parts = [field.lit(picture[top : top + 70], 0, top) for top in range(0, HEIGHT, 70)]
    np.testing.assert_array_equal(np.concatenate(parts), field.lit(picture, 0, 0))


@pytest.fixture
def config() -> Config:
    return tiny_config(
        tiles__tile_px=32,
        tiles__mpp=1.0,
        autoencoder__tile_px=16,
        autoencoder__tiles=20,
        stain__method="macenko",
        stain__white_field=True,
    )


@pytest.fixture
def made(tmp_path: Path) -> Section:
    image = write_picture(tmp_path / "A1.png", made_slide("gradient"))
    return Section(name="A1", patient="A", image=image, spots=spot_table(CENTRES), mpp=1.0)


def test_tiles_and_stains_are_those_of_an_evenly_lit_slide(
    made: Section, config: Config, tmp_path: Path
) -> None:
    even = write_picture(tmp_path / "even.png", made_slide("none"))
    for folder in ("lit", "plain", "even"):
        (tmp_path / folder).mkdir()
    lit = preparing.prepare_section(made, config, tmp_path / "lit", pretrain_tiles=5)
    plain_config = changed(config, stain__white_field=False)
    plain = preparing.prepare_section(made, plain_config, tmp_path / "plain", pretrain_tiles=5)
    right = preparing.prepare_section(
        dataclasses.replace(made, image=even), plain_config, tmp_path / "even", pretrain_tiles=5
    )
    assert plain.white_field is None
    assert lit.white_field is not None
    assert lit.problems == ()
    means = [np.asarray(part.spot_tiles).mean(axis=(1, 2)) for part in (lit, plain, right)]
    assert np.abs(means[0] - means[2]).max() < 1.5  # grey levels
    assert np.abs(means[1] - means[2]).max() > 15
    gained = np.asarray(lit.pretrain_tiles).astype(int) - plain.pretrain_tiles
    assert gained.min() >= 0
    assert gained.max() > 15
    np.testing.assert_allclose(lit.stains.white_point, right.stains.white_point, atol=2)
    np.testing.assert_allclose(lit.stains.stain_matrix, right.stains.stain_matrix, atol=0.03)
    # Tiles of another size, cut later, are of the same light.
    further = preparing.further_tiles(made, config, tmp_path, tile_px=48, mpp=1.0)
    inner = np.asarray(further)[:, 8:-8, 8:-8]
    np.testing.assert_array_equal(inner, lit.spot_tiles)

    spots = paired.PairedSpots.of([made], config, prepared=[lit])
    assert spots.white_fields() == {"A1": lit.white_field.record()}
    assert paired.PairedSpots.of([made], config, prepared=[plain]).white_fields() == {}


def test_a_raw_tile_with_the_white_point_of_its_place_comes_out_the_same(
    made: Section, config: Config, tmp_path: Path
) -> None:
    """A served model, which is given raw tiles, needs no more than one white point per tile."""
    lit = preparing.prepare_section(made, config, tmp_path, pretrain_tiles=0)
    assert lit.white_field is not None
    with slides.open_slide(made.image) as slide:  # type: ignore[arg-type]
        raw, _ = tiles.cut_tiles(slide, CENTRES, tile_px=32, mpp=None, border="reflect")
    # Without the stain step, which amplifies a rounding: an evenly lit tile is rounded once more.
    goal = stain.canonical_stains("none")
    own = dataclasses.replace(lit.stains, method="none")
    for tile, even, share in zip(raw, lit.spot_tiles, lit.white_field.at(CENTRES), strict=True):
        at_its_place = dataclasses.replace(own, white_point=own.white_point * share)
        assert at_its_place.white_point.max() <= 255
        came_out = recolouring.normalise(tile, at_its_place, goal).astype(int)
        assert np.abs(came_out - recolouring.normalise(np.asarray(even), own, goal)).max() <= 1


def test_a_section_or_image_without_a_field_says_so(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_sided = made_slide("gradient", (160, 0, WIDTH, HEIGHT))
    image = write_picture(tmp_path / "B1.png", one_sided)
    made = Section(name="B1", patient="B", image=image, spots=spot_table(CENTRES[1:3]), mpp=1.0)
    (tmp_path / "work").mkdir()
    for _ in range(2):  # cut, and read again
        ready = preparing.prepare_section(made, config, tmp_path / "work", pretrain_tiles=0)
        (problem,) = ready.problems
        assert "B1" in str(problem)
        assert "stain.white_field is off here" in str(problem)
        assert "its glass surrounds" in str(problem)
    with slides.open_slide(image) as slide:
        raw, _ = tiles.cut_tiles(slide, CENTRES[1:3], tile_px=32, mpp=None, border="reflect")
    np.testing.assert_array_equal(ready.spot_tiles, raw)

    other = write_picture(tmp_path / "A1.png", made_slide("gradient"))
    images = [(image, "B1"), (other, "A1")]
    cut = pretraining_images.prepare_images(images, config)
    assert [part.has_white_field for part in cut] == [False, True]
    assert "stain.white_field is off in 1 of 2 images" in capsys.readouterr().err
    pretraining_images.prepare_images(images, changed(config, stain__white_field=False))
    assert "white_field" not in capsys.readouterr().err

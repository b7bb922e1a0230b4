"""Tissue's outline: masks and polygons, the command, and its file given back to `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from click.testing import CliRunner

import histospace_tf
from histospace_tf.cli import main
from histospace_tf.data_pipelines import regions, slides
from histospace_tf.data_pipelines.slides import outlines
from histospace_tf.presets import preset
from histospace_tf.slide_prediction import places
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import InputError
from made.regions import feature, polygon, square, write_geojson
from made.tissue import write_picture

SIZE = 1600  # of the made slide, in pixels of 1 um


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc of tissue with a hole, and a second piece."""
    path = tmp_path_factory.mktemp("slide") / "slide.png"
    random = np.random.default_rng(0)
    picture = np.clip(random.normal((236, 228, 235), 2, (SIZE, SIZE, 3)), 0, 255)
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = np.hypot(x - 700, y - 800)
    tissue = ((disc < 550) & (disc > 200)) | ((abs(x - 1450) < 100) & (abs(y - 400) < 300))
    coarse = random.uniform((150, 60, 130), (230, 140, 200), (SIZE // 4, SIZE // 4, 3))
    picture[tissue] = coarse.repeat(4, axis=0).repeat(4, axis=1)[tissue]
    write_picture(path, picture.astype(np.uint8))
    return path


def test_mask_comes_back_from_its_outline() -> None:
    mask = np.random.default_rng(0).random((40, 60)) > 0.5
    outline = outlines.outlined(mask, 3.7)
    assert outline.is_valid
    assert outline.area == pytest.approx(mask.sum() * 3.7**2)
    np.testing.assert_array_equal(outlines.masked(outline, mask.shape, 3.7), mask)
    nothing = outlines.outlined(np.zeros((4, 5), bool), 2.0)
    assert nothing.is_empty
    assert not outlines.masked(nothing, (4, 5), 2.0).any()


def test_pixel_belongs_to_the_outline_that_its_centre_lies_in() -> None:
    ring = shapely.Point(100, 70).buffer(60).difference(shapely.Point(110, 70).buffer(20))
    both = shapely.union(ring, shapely.box(180, -30, 400, 50))  # over the edges, too
    x, y = (np.arange(60) + 0.5) * 3.7, (np.arange(40) + 0.5) * 3.7
    inside = shapely.contains_xy(both, *np.meshgrid(x, y))
    np.testing.assert_array_equal(outlines.masked(both, (40, 60), 3.7), inside)


def test_simplified_outline_stays_near() -> None:
    y, x = np.mgrid[:200, :200]
    mask = (np.hypot(x - 100, y - 100) < 80) & (np.hypot(x - 90, y - 100) > 30)
    exact, few = (outlines.outlined(mask, 2.0, tolerance_px=t) for t in (0.0, 1.0))
    assert shapely.get_num_coordinates(few) < shapely.get_num_coordinates(exact) / 4
    assert len(few.interiors) == 1
    assert shapely.hausdorff_distance(exact, few) < 2 * 2.0


def test_command_writes_what_predict_would_use_and_takes_back(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "tissue.geojson"
    ended = CliRunner().invoke(
        main, ["tissue", str(slide), "--geojson", str(out), "--mpp", "1", "--step-um", "50"]
    )
    assert ended.exit_code == 0, ended.output
    assert "2 pieces of tissue" in ended.output
    assert f"--tissue {out}" in ended.output
    written = json.loads(out.read_text())
    assert [one["properties"]["classification"]["name"] for one in written["features"]] == [
        "Tissue",
        "Tissue",
    ]
    assert [len(one["geometry"]["coordinates"]) for one in written["features"]] == [2, 1]
    read = regions.read_tissue(out, slide, (SIZE, SIZE))
    assert read.problems == ()
    with slides.open_slide(slide, mpp=1.0) as image:
        found = places.find(image, preset("recommended"), Where(step_um=50))
        image.outline = regions.joined(read.regions)
        back = places.find(image, preset("recommended"), Where(step_um=50))
    assert len(set(found.names)) > 300
    both = {tuple(one) for one in found.centres_px} ^ {tuple(one) for one in back.centres_px}
    assert len(both) <= 0.02 * len(found.names)


def test_outline_by_hand_replaces_what_is_found(slide: Path, tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "t.geojson",
        feature(polygon(square(200, 200, 400), square(300, 300, 200)), None, "Tissue"),
    )
    with slides.open_slide(slide, mpp=1.0) as image:
        lit = image.light_evenly()
        image.outline = regions.joined(regions.read_tissue(path, slide, (SIZE, SIZE)).regions)
        by_hand = places.find(image, preset("recommended"), Where(step_um=100))
        np.testing.assert_array_equal(image.light_evenly().levels, lit.levels)  # glass stays glass
    assert len(by_hand.names) == 12
    assert (by_hand.tissue_share == 1).all()


def test_python_gives_the_same_and_mistakes_are_refused(slide: Path, tmp_path: Path) -> None:
    result = histospace_tf.tissue(slide, geojson=tmp_path / "a.geojson", mpp=1.0)
    disc = np.pi * (550**2 - 200**2)
    assert result.mm2 == pytest.approx((disc + 200 * 600) * 1e-6, rel=0.05)
    for options, words in (
        ({"geojson": tmp_path / "a.geojson", "mpp": 1.0}, "exists already"),
        ({"geojson": tmp_path / "b.txt", "mpp": 1.0}, r"ends in \.geojson or \.json"),
        ({"geojson": tmp_path / "b.geojson"}, "microns per pixel; .* `mpp`"),
        ({"geojson": tmp_path / "b.geojson", "mpp": 1.0, "step_um": 0.0}, "a distance above 0"),
    ):
        with pytest.raises(InputError, match=words):
            histospace_tf.tissue(slide, **options)
    write_picture(tmp_path / "glass.png", np.full((200, 200, 3), 235, np.uint8))
    with pytest.raises(InputError, match="no tissue found"):
        histospace_tf.tissue(tmp_path / "glass.png", geojson=tmp_path / "b.geojson", mpp=1.0)

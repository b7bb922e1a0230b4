"""Places of a slide: its tissue's grid or given spots, within regions; the table of regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from histospace_tf.config import changed
from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.regions import Region
from histospace_tf.presets import preset
from histospace_tf.slide_prediction import places, region_table
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import InputError
from made.predictions import prediction
from made.tissue import write_picture

CONFIG = changed(preset("recommended"), tiles__min_tissue=0.5)
LEFT = Region("left", "Tumor", shapely.box(0, 0, 100, 300))
INNER = Region("inner", "", shapely.box(40, 40, 100, 100))
SPECK = Region("speck", "Fat", shapely.box(0, 0, 1, 1))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 x 300 px; tissue in columns 0 to 180."""
    path = tmp_path_factory.mktemp("slide") / "slide.png"
    random = np.random.default_rng(0)
    picture = np.clip(random.normal((236, 228, 235), 2, (300, 300, 3)), 0, 255)
    picture[:, :180] = random.uniform((150, 60, 130), (230, 140, 200), (300, 180, 3))
    write_picture(path, picture.astype(np.uint8))
    return path


def test_grid_covers_tissue_and_knows_its_share(slide: Path) -> None:
    with slides.open_slide(slide, mpp=1.0) as image:
        found = places.find(image, CONFIG, Where(step_um=20))
    assert found.is_grid
    assert found.size_px == found.pitch_px == 20
    x = found.centres_px[:, 0]
    assert 160 < x.max() < 200
    assert (found.tissue_share >= 0.5).all()
    assert (found.tissue_share[x < 150] == 1).all()
    assert (found.region == -1).all()
    assert found.warnings == ()


def test_regions_restrict_and_say_which_holds_no_place(slide: Path) -> None:
    with slides.open_slide(slide, mpp=1.0) as image:
        every = places.find(image, CONFIG, Where(step_um=20))
        found = places.find(image, CONFIG, Where(step_um=20, regions=(LEFT, INNER, SPECK)))
        with pytest.raises(InputError, match=r"none of \d+ places .*'speck'.*`step_um`"):
            places.find(image, CONFIG, Where(step_um=20, regions=(SPECK,)))
    np.testing.assert_array_equal(found.centres_px, every.centres_px)
    assert list(found.names) == list(every.names)  # a place has one name, whatever is drawn
    corner = found.centres_px + 0.5
    inner = ((corner >= 40) & (corner <= 100)).all(axis=1)
    np.testing.assert_array_equal(found.region == 1, inner)
    np.testing.assert_array_equal(found.region == 0, (corner[:, 0] <= 100) & ~inner)
    assert "region 'speck'" in found.warnings[0]
    wanted = found.region >= 0
    near = found.near(wanted, 20)
    np.testing.assert_array_equal(near, corner[:, 0] <= 120)
    kept = found.those(wanted)
    assert len(kept.names) == len(kept.tissue_share) == wanted.sum()


def test_given_spots_have_a_share_of_tissue_too(slide: Path, tmp_path: Path) -> None:
    table = tmp_path / "spots.csv"
    table.write_text("spot,x_px,y_px\na,50,50\nb,90,50\nc,180,150\n")
    with slides.open_slide(slide, mpp=1.0) as image:
        found = places.find(image, CONFIG, Where(spots=table, regions=(LEFT,)))
    assert list(found.region) == [0, 0, -1]
    assert found.size_px == found.pitch_px / 2 == 20
    assert list(found.tissue_share[:2]) == [1, 1]
    assert 0.3 < found.tissue_share[2] < 0.8


def test_table_of_regions_has_a_row_each_and_agrees_with_obs(tmp_path: Path) -> None:
    table = prediction()
    table.obs["region"] = pd.Categorical(["left"] * 4 + ["inner"] * 2)
    table.uns[region_table.KEY] = region_table.described((LEFT, INNER, SPECK), mpp=2.0)
    (path,) = region_table.write(table, tmp_path / "slide.regions.csv")
    read = pd.read_csv(path, index_col="region", keep_default_na=False)
    assert list(read.index) == ["left", "inner", "speck"]
    assert list(read["class"]) == ["Tumor", "", "Fat"]
    assert list(read["places"]) == [4, 2, 0]
    np.testing.assert_allclose(read["mm2"], np.array([30_000 - 3601, 3600, 1]) * 4e-6)
    means = read.loc[["left", "inner"], list(table.var_names)].astype(float)
    np.testing.assert_allclose(means.loc["left"], table.X[:4].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(means.loc["inner"], table.X[4:].mean(axis=0), rtol=1e-5)
    assert set(read.loc["speck", list(table.var_names)]) == {""}
    with pytest.raises(InputError, match="exists already"):
        region_table.write(table, path)
    table.var_names = ["mm2", *table.var_names[1:]]
    with pytest.raises(InputError, match="gene 'mm2'"):
        region_table.of_prediction(table)
    assert np.isnan(region_table.described((LEFT,), None)["mm2"]).all()

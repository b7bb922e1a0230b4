"""Prediction on new images: grid, given spots, AnnData, maps, refusals."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import anndata
import cv2
import numpy as np
import pandas as pd
import pytest

from histospace_tf import bundle, outputs, predicting
from histospace_tf import config as configuration
from histospace_tf.cohort import features
from histospace_tf.data_pipelines import readers, slides
from histospace_tf.requests import PredictRequest
from histospace_tf.slide_prediction import GRID_STEP_UM
from histospace_tf.slide_prediction.one_slide import predict_slide
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import InputError
from made import visium as made_visium
from made.bundles import device_bundle
from made.lighting import made_slide
from made.pictures import fluorescence, read_picture
from made.regions import feature, polygon, square, write_geojson
from made.tissue import write_picture

MPP = 0.69


@pytest.fixture(scope="module")
def slide(small_tissue: Path) -> Path:
    (image,) = (small_tissue / "ST-imgs" / "B").glob("*/*.jpg")
    return image


@pytest.fixture(scope="module")
def predicted(
    slide: Path, small_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> predicting.PredictResult:
    folder = tmp_path_factory.mktemp("predicted")
    return predicting.predict(
        PredictRequest(
            slide,
            model=small_run,
            out=folder / "grid.h5ad",
            mpp=MPP,
            maps=folder / "maps",
            aggregate=True,
            intervals=0.9,
        )
    )


def test_grid_prediction_is_an_anndata_in_the_panels_unit(
    predicted: predicting.PredictResult, small_run: Path, slide: Path
) -> None:
    table = anndata.read_h5ad(predicted.out)
    panel = bundle.load(small_run).panel
    assert tuple(table.var_names) == panel.genes
    assert set(table.var["unit"]) == {"ln(1 + counts per 10,000)"}
    assert np.isfinite(np.asarray(table.X)).all()
    height, width = read_picture(slide).shape[:2]
    assert (table.obsm["spatial"] >= 0).all()
    assert (table.obsm["spatial"] < [width, height]).all()
    assert table.uns["histospace_tf"]["architecture"] == "context"
    assert "held-out spots of" in table.uns["histospace_tf"]["trust_from"]


def test_places_have_microns_and_a_share_of_tissue(predicted: predicting.PredictResult) -> None:
    obs = anndata.read_h5ad(predicted.out).obs
    assert list(obs.columns) == ["x_um", "y_um", "tissue_share", "familiarity"]
    assert obs["familiarity"].between(0, 1).all()
    said = f"The slide is {predicted.table.uns['histospace_tf']['familiarity']}."
    assert said in predicted.summary()
    assert "of new patients' tiles" in said or "of other sections' tiles" in said
    np.testing.assert_allclose(
        obs[["x_um", "y_um"]], predicted.table.obsm["spatial"] * MPP, rtol=1e-9
    )
    assert obs["tissue_share"].between(0.5, 1).all()


def test_intervals_of_the_runs_held_out_spots_stand_in_layers(
    predicted: predicting.PredictResult, slide: Path, small_run: Path, tmp_path: Path
) -> None:
    table = anndata.read_h5ad(predicted.out)
    half = (
        pd.read_csv(small_run / "intervals.csv").set_index("gene").loc[table.var_names, "width_90"]
    )
    np.testing.assert_allclose(
        table.layers["upper"] - table.X,
        half.to_numpy()[None].repeat(table.n_obs, axis=0),
        atol=1e-5,
    )
    assert (table.layers["lower"] >= 0).all()
    said = table.uns["histospace_tf"]["intervals"]
    assert said == "90% intervals from one held-out patient; what they reach is not known"
    assert f'layers["lower"] and layers["upper"]: {said}.' in predicted.summary()
    request = PredictRequest(slide, model=small_run, out=tmp_path / "p.h5ad", mpp=MPP)
    with pytest.raises(InputError, match=r"`intervals` 0\.7"):
        predicting.predict(dataclasses.replace(request, intervals=0.7))


def test_regions_give_the_whole_slides_values_within_them(
    predicted: predicting.PredictResult, small_run: Path, slide: Path, tmp_path: Path
) -> None:
    """The tiny run's head reads neighbours: those outside a region count, and are not written."""
    whole = predicted.table
    left, top = np.median(whole.obsm["spatial"], axis=0)
    drawn = write_geojson(
        tmp_path / "drawn.geojson",
        feature(polygon(square(left, top, 600)), "core", "Tumor"),
        feature(polygon(square(left, top, 150)), "part"),
        feature({"type": "Point", "coordinates": [1, 1]}, "mark"),
    )
    request = PredictRequest(
        slide, model=small_run, out=tmp_path / "r.h5ad", mpp=MPP, regions=drawn
    )
    result = predicting.predict(request)
    table = anndata.read_h5ad(result.out)
    assert 0 < table.n_obs < whole.n_obs
    np.testing.assert_allclose(table.X, whole[table.obs_names].X, atol=1e-4)
    inside = ((whole.obsm["spatial"] + 0.5 >= (left, top)) &
              (whole.obsm["spatial"] + 0.5 <= (left + 600, top + 600))).all(axis=1)  # fmt: skip
    assert list(table.obs_names) == list(whole.obs_names[inside])
    assert set(table.obs["region"]) == {"core", "part"}
    assert set(table.obs["region_class"]) == {"Tumor", ""}
    assert "'mark': left out" in table.uns["histospace_tf"]["warnings"]
    assert result.written == (tmp_path / "r.regions.csv",)
    rows = pd.read_csv(result.written[0], index_col="region")
    assert list(rows["places"]) == [(table.obs["region"] == name).sum() for name in rows.index]
    result.out.unlink()
    with pytest.raises(InputError, match=r"r\.regions\.csv' exists already"):
        predicting.predict(request)


def test_tissue_by_hand_is_where_the_grid_lies(
    small_run: Path, slide: Path, tmp_path: Path
) -> None:
    drawn = write_geojson(
        tmp_path / "tissue.geojson",
        feature(polygon(square(400, 400, 450)), None, "Tissue"),
        feature(polygon(square(0, 0, 9)), "no tissue", "Other"),
    )
    request = PredictRequest(
        slide, model=small_run, out=tmp_path / "t.h5ad", mpp=MPP, tissue=drawn, fast=True
    )
    table = predicting.predict(request).table
    side = GRID_STEP_UM / MPP
    assert 4 <= table.n_obs <= 16
    assert (table.obsm["spatial"] > 400 - side / 2).all()
    assert (table.obsm["spatial"] < 850 + side / 2).all()
    assert table.uns["histospace_tf"]["tissue"] == str(drawn)


def test_spatial_entry_is_what_scanpy_and_squidpy_read(
    predicted: predicting.PredictResult, slide: Path
) -> None:
    table = anndata.read_h5ad(predicted.out)
    library = table.uns["spatial"][slide.stem]
    scale = library["scalefactors"]["tissue_hires_scalef"]
    image = library["images"]["hires"]
    height, width = read_picture(slide).shape[:2]
    assert image.shape[1] == pytest.approx(width * scale, abs=1)
    assert image.shape[0] == pytest.approx(height * scale, abs=1)
    # Squares touch: the drawn side is the distance of neighbours, whose starts are whole pixels.
    x = np.unique(table.obsm["spatial"][:, 0])
    side = library["scalefactors"]["spot_diameter_fullres"]
    assert side == pytest.approx(GRID_STEP_UM / MPP)
    assert np.diff(x).min() == pytest.approx(side, abs=1)


def test_maps_are_pictures_of_the_three_genes_that_vary_most(
    predicted: predicting.PredictResult,
) -> None:
    *drawn, _ = predicted.written
    assert len(drawn) == 3
    for path in drawn:
        picture = read_picture(path)
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 10


def test_pseudo_bulk_is_the_mean_of_counts_over_tiles_beside_the_prediction_and_in_it(
    predicted: predicting.PredictResult, slide: Path, small_run: Path, tmp_path: Path
) -> None:
    file = predicted.out.parent / "grid.bulk.csv"
    assert predicted.written[-1] == file
    bulk = pd.read_csv(file, keep_default_na=False).set_index("gene")
    table = anndata.read_h5ad(predicted.out)
    assert list(bulk.index) == list(table.var_names)
    counts = np.maximum(np.expm1(np.asarray(table.X, np.float64)), 0).mean(axis=0)
    np.testing.assert_allclose(bulk["mean"], counts, rtol=1e-6)
    np.testing.assert_allclose(bulk["log_mean"], np.log1p(counts), rtol=1e-6)
    assert (bulk["low"] < bulk["mean"]).all()
    assert (bulk["mean"] < bulk["high"]).all()
    assert set(bulk["unit"]) == {"counts per 10,000"}
    assert list(bulk["trust"]) == list(table.var["trust"])
    assert set(bulk["tiles"]) == {table.n_obs}
    kept = table.uns["pseudo_bulk"]
    np.testing.assert_allclose(kept["high"], bulk["high"])
    assert list(kept.index) == list(bulk.index)
    shutil.copy(file, tmp_path)
    again = PredictRequest(
        slide, model=small_run, out=tmp_path / "grid.h5ad", mpp=MPP, aggregate=True
    )
    with pytest.raises(InputError, match=r"grid\.bulk\.csv' exists already"):
        predicting.predict(again)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.bulk.csv"]


def test_runs_gene_table_is_written_beside_each_gene_and_summed_up(
    slide: Path, small_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run / "bundle", run / "bundle")
    genes = bundle.load(run).panel.genes
    evaluated = pd.DataFrame(
        {"gene": genes[:3], "gene_r": [0.5, 0.1, -0.2], "trust": ["yes", "weak", "no"]}
    )
    evaluated.iloc[::-1].to_csv(run / "genes.csv", index=False)
    found = predicting.predict(
        PredictRequest(slide, model=run / "bundle", out=tmp_path / "p.h5ad", mpp=MPP)
    )
    var = anndata.read_h5ad(found.out).var
    assert var["trust"].tolist() == ["yes", "weak", "no"] + ["unknown"] * 9
    np.testing.assert_allclose(var["gene_r"][:3], [0.5, 0.1, -0.2])
    assert var["gene_r"][3:].isna().all()
    assert found.table.uns["histospace_tf"]["trust_from"] == ""  # no scores beside it
    assert "1 of 12 genes are trusted" in found.summary()
    assert "weak 1, no 1, unknown 9" in found.summary()
    pd.testing.assert_frame_equal(  # the run folder and its bundle folder mean the same
        predicting._trust(run, genes)[0], predicting._trust(run / "bundle", genes)[0]
    )
    (run / "genes.csv").unlink()
    assert predicting._trust(run, genes)[0] is None
    found.table.var = found.table.var[["unit"]]
    assert "no genes.csv" in found.summary()


def test_broken_gene_table_is_refused_before_anything_is_predicted(
    slide: Path, small_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run / "bundle", tmp_path / "run" / "bundle")
    (tmp_path / "run" / "genes.csv").write_text("gene,gene_r\nA,0.1\n")
    with pytest.raises(InputError, match="'trust' is missing"):
        predicting.predict(
            PredictRequest(slide, model=tmp_path / "run", out=tmp_path / "p.h5ad", mpp=MPP)
        )
    assert not (tmp_path / "p.h5ad").exists()


def test_given_spots_and_a_grid_agree_at_the_same_places(
    predicted: predicting.PredictResult, slide: Path, small_run: Path, tmp_path: Path
) -> None:
    places = pd.DataFrame(predicted.table.obsm["spatial"], columns=["pixel_x", "pixel_y"])
    places["spot"] = [f"p{i}" for i in range(len(places))]
    places.iloc[::-1].to_csv(tmp_path / "spots.tsv", sep="\t", index=False)
    spots = predicting.predict(
        PredictRequest(
            slide, model=small_run, out=tmp_path / "s.h5ad", spots=tmp_path / "spots.tsv", mpp=MPP
        )
    )
    assert spots.table.obs_names[0] == f"p{len(places) - 1}"
    # Batches of other tiles may add up in another order: float32 noise.
    np.testing.assert_allclose(
        np.asarray(spots.table.X)[::-1], np.asarray(predicted.table.X), atol=1e-3
    )


def test_held_out_spots_of_the_run_are_predicted_alike(
    small_run: Path, small_tissue: Path, slide: Path, tmp_path: Path
) -> None:
    held = anndata.read_h5ad(small_run / "predictions.h5ad")
    (section,) = (s for s in readers.read_cohort(small_tissue).sections if s.name == "B1")
    places = pd.DataFrame(section.spots.centres_px, columns=["x", "y"])
    places["name"] = section.spots.names
    places.to_csv(tmp_path / "spots.csv", index=False)
    again = predicting.predict(
        PredictRequest(
            slide,
            model=small_run,
            out=tmp_path / "s.h5ad",
            spots=tmp_path / "spots.csv",
            mpp=section.mpp,
        )
    )
    np.testing.assert_allclose(np.asarray(again.table.X), np.asarray(held.X), atol=1e-3)


def test_finer_grid_has_more_places(small_run: Path, slide: Path) -> None:
    model = bundle.load(small_run)
    with slides.open_slide(slide, mpp=MPP) as image:
        coarse, fine = (predict_slide(image, model, where=Where(step_um=um)) for um in (140, 70))
    assert fine.n_obs > 2 * coarse.n_obs
    x = np.unique(fine.obsm["spatial"][:, 0])
    assert np.diff(x).min() == pytest.approx(70 / MPP, abs=1)  # starts are whole pixels


def test_whole_slide_file_states_its_own_scale(
    small_run: Path, test_data: Path, tmp_path: Path
) -> None:
    found = predicting.predict(
        PredictRequest(
            test_data / "slides" / "CMU-1-Small-Region.svs",
            model=small_run,
            out=tmp_path / "cmu.h5ad",
        )
    )
    (library,) = found.table.uns["spatial"].values()
    assert library["metadata"]["mpp"] == pytest.approx(0.499)
    assert found.table.n_obs > 50  # 1.1 x 1.5 mm, about half of it tissue, a place per 100 um


def test_interrupted_prediction_goes_on_and_refuses_what_has_changed(
    predicted: predicting.PredictResult,
    slide: Path,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "new" / "p.h5ad"
    with monkeypatch.context() as patched:
        patched.setattr(outputs, "write_h5ad", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predicting.predict(PredictRequest(slide, model=small_run, out=out, mpp=MPP))
    assert [path.name for path in out.parent.iterdir()] == ["p.h5ad.partial"]
    with pytest.raises(InputError, match="`resume` goes on"):
        predicting.predict(PredictRequest(slide, model=small_run, out=out, mpp=MPP))
    other = tmp_path / "copy.jpg"
    shutil.copy(slide, other)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"fast": True}, "--fast"),
        ({"mpp": 0.7}, "--mpp"),
        ({"step_um": 80.0}, "--step-um"),
        ({"slide": other}, "another slide"),
    ]
    for changed, name in changes:
        given: dict[str, Any] = {"slide": slide, "out": out, "mpp": MPP, **changed}
        with pytest.raises(InputError, match=name):
            predicting.predict(PredictRequest(model=small_run, **given, resume=True))
    run = tmp_path / "run"
    shutil.copytree(small_run / "bundle", run)
    (run / "bundle.json").write_text((run / "bundle.json").read_text() + "\n")
    with pytest.raises(InputError, match="another model"):
        predicting.predict(PredictRequest(slide, model=run, out=out, mpp=MPP, resume=True))
    monkeypatch.setattr(features, "feature_batches", interrupted)  # nothing is left to compute
    found = predicting.predict(
        PredictRequest(slide, model=small_run, out=out, mpp=MPP, resume=True)
    )
    np.testing.assert_array_equal(np.asarray(found.table.X), np.asarray(predicted.table.X))
    assert [path.name for path in out.parent.iterdir()] == ["p.h5ad"]


def test_fast_prediction_uses_each_tile_once_and_reports_it(
    predicted: predicting.PredictResult, slide: Path, small_run: Path
) -> None:
    with slides.open_slide(slide, mpp=MPP) as image:
        fast = predict_slide(image, bundle.load(small_run), fast=True)
    assert fast.uns["histospace_tf"]["symmetries"] == 1
    assert predicted.table.uns["histospace_tf"]["symmetries"] == 8
    close = np.corrcoef(np.asarray(fast.X).ravel(), np.asarray(predicted.table.X).ravel())[0, 1]
    assert 0.9 < close < 1  # nearly the same, and not the same
    known, again = (table.obs["familiarity"] for table in (fast, predicted.table))
    np.testing.assert_allclose(known, again, atol=1e-3)  # of the tile as it is, by both


def test_finished_maps_are_refused_before_anything_is_predicted(
    predicted: predicting.PredictResult, slide: Path, small_run: Path, tmp_path: Path
) -> None:
    folder = predicted.written[0].parent
    for show in ((), (predicted.written[0].stem,)):
        with pytest.raises(InputError, match="`force`"):
            predicting.predict(
                PredictRequest(
                    slide, model=small_run, out=tmp_path / "p.h5ad", mpp=MPP, show=show, maps=folder
                )
            )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mpp": None}, "`mpp`"),
        ({"mpp": 8.0}, "too coarse"),
        ({"show": ("NOTAGENE",), "maps": Path("maps")}, "NOTAGENE"),
        ({"show": ("ERBB2",)}, "`maps` DIR"),
        ({"table": Path("table.xlsx")}, ".parquet"),
        ({"spots": Path("nowhere.csv")}, "nowhere.csv"),
        ({"slide": Path("nowhere.jpg")}, "nowhere.jpg"),
        ({"model": Path("nowhere")}, "'nowhere' is no folder that"),
        ({"out": Path("table.csv")}, ".h5ad"),
    ],
)
def test_mistakes_are_named_and_write_nothing(
    slide: Path, small_run: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    given = {"slide": slide, "model": small_run, "out": tmp_path / "p.h5ad", "mpp": MPP, **options}
    with pytest.raises(InputError, match=message):
        predicting.predict(PredictRequest(**given))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_glass_alone_is_refused(small_run: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "glass.png"), np.full((400, 400, 3), 245, np.uint8))
    with pytest.raises(InputError, match="no tissue"):
        predicting.predict(
            PredictRequest(
                tmp_path / "glass.png", model=small_run, out=tmp_path / "p.h5ad", mpp=MPP
            )
        )
    assert not (tmp_path / "p.h5ad").exists()


def test_fluorescence_is_refused(small_run: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dapi.png"), fluorescence((0, 0, 1))[..., ::-1])
    with pytest.raises(InputError, match=r"dapi\.png is not H&E"):
        predicting.predict(
            PredictRequest(tmp_path / "dapi.png", model=small_run, out=tmp_path / "p.h5ad", mpp=MPP)
        )
    assert not (tmp_path / "p.h5ad").exists()


def test_doubts_about_an_image_are_said_and_kept(
    small_run: Path, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey, out = tmp_path / "grey.png", tmp_path / "grey.h5ad"
    cv2.imwrite(str(grey), cv2.cvtColor(read_picture(slide), cv2.COLOR_RGB2GRAY))
    table = predicting.predict(
        PredictRequest(grey, model=small_run, out=out, mpp=2.5, fast=True)
    ).table
    said = capsys.readouterr().err
    for words in ("grey.png is grey", "2.5 microns per pixel a nucleus is under 4 px"):
        assert words in said
        assert words in table.uns["histospace_tf"]["warnings"]
    with slides.open_slide(slide, mpp=MPP) as image:
        assert predicting._doubts(slide, image, None) == []


def test_a_scale_that_the_file_contradicts_is_reported(test_data: Path) -> None:
    slide = test_data / "slides" / "CMU-1-Small-Region.svs"
    with slides.open_slide(slide, mpp=0.5) as image:
        assert predicting._doubts(slide, image, None) == []
    with slides.open_slide(slide, mpp=1.5) as image:
        (doubt,) = predicting._doubts(slide, image, None)
    assert "states 0.499 microns per pixel, and 1.5 of `mpp`" in doubt


def test_a_scale_that_the_spots_array_contradicts_is_reported(slide: Path, tmp_path: Path) -> None:
    picture = np.full((400, 400, 3), 120, np.uint8)
    spots = made_visium.made_spots(picture, mpp=MPP)
    made_visium.write_spatial(tmp_path, spots, picture, positions="csv", mpp=MPP, bin_um=None)
    positions = tmp_path / made_visium.POSITIONS["csv"]
    with slides.open_slide(slide, mpp=MPP) as image:
        assert predicting._doubts(slide, image, positions) == []
    with slides.open_slide(slide, mpp=0.25) as image:
        (doubt,) = predicting._doubts(slide, image, positions)
    assert "0.25 microns per pixel are taken" in doubt
    assert "0.69" in doubt


def test_with_a_white_field_a_slide_under_a_gradient_is_predicted_as_an_even_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = device_bundle()
    with_field = configuration.changed(model.config, stain__white_field=True)
    tables = {}
    for light, config in (("none", model.config), ("gradient", model.config), ("lit", with_field)):
        kind = "none" if light == "none" else "gradient"
        path = write_picture(tmp_path / f"{kind}.png", made_slide(kind))
        with slides.open_slide(path) as slide:
            tables[light] = predict_slide(
                slide, dataclasses.replace(model, config=config), fast=True
            )
    even, plain, lit = (np.asarray(tables[name].X) for name in ("none", "gradient", "lit"))
    assert np.abs(lit - even).max() < 0.3 * np.abs(plain - even).max()
    record = tables["lit"].uns["histospace_tf"]["white_field"]
    assert record["on"]
    assert record["largest_grey_levels"] == pytest.approx(47, abs=2)
    assert tables["none"].uns["histospace_tf"]["white_field"]["why"] == "not asked for"
    assert "white_field" not in capsys.readouterr().err

    one_sided = write_picture(tmp_path / "side.png", made_slide("gradient", (160, 0, 480, 400)))
    with slides.open_slide(one_sided) as slide:
        table = predict_slide(slide, dataclasses.replace(model, config=with_field), fast=True)
    assert not table.uns["histospace_tf"]["white_field"]["on"]
    assert "side.png: stain.white_field is off here" in capsys.readouterr().err
    outputs.write_h5ad(table, tmp_path / "side.h5ad")

"""Many slides predicted together: outcomes, the cohort's table, resume, processes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import predicting_slides
from histospace_tf.cli import main
from histospace_tf.predicting_slides import FAILED, KEPT, SlidesResult
from histospace_tf.requests import PredictRequest, PredictSlidesRequest
from histospace_tf.requests.prediction import prediction_of
from histospace_tf.vocabulary import InputError
from made import workers
from made.regions import feature, polygon, square, write_geojson

pytestmark = pytest.mark.slow
MPP = 0.69


@pytest.fixture(scope="module")
def scans(small_tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, a broken one and a file that is none."""
    folder = tmp_path_factory.mktemp("cohort") / "scans"
    (folder / "more").mkdir(parents=True)
    one, other, *_ = sorted(small_tissue.glob("ST-imgs/*/*/*.jpg"))
    shutil.copy(one, folder / "a.jpg")
    shutil.copy(other, folder / "more" / "c.jpg")
    (folder / "broken.jpg").write_bytes(one.read_bytes()[:2000])
    (folder / "notes.txt").write_text("notes\n")
    return folder


@pytest.fixture(scope="module")
def predicted(scans: Path, small_run: Path) -> SlidesResult:
    genes = pd.read_csv(small_run / "genes.csv")["gene"]
    (scans.parent / "sets.gmt").write_text("\t".join(["PANEL", "na", *genes]))
    return histospace_tf.predict_slides(
        scans,
        model=small_run,
        out=scans.parent / "out",
        gene_sets=scans.parent / "sets.gmt",
        mpp=MPP,
        fast=True,
        table=scans.parent / "tables",
        maps=scans.parent / "maps",
        page=scans.parent / "pages",
    )


def test_broken_slide_is_an_outcome_and_leaves_the_rest(
    predicted: SlidesResult, scans: Path
) -> None:
    summary = pd.read_csv(predicted.out / "summary.csv", keep_default_na=False).set_index("name")
    assert list(summary.index) == ["a", "broken", "more/c"]
    assert list(summary["state"]) == ["predicted", "failed", "predicted"]
    assert "broken.jpg" in summary.loc["broken", "why"]
    assert "2 predicted, 1 failed" in predicted.summary()
    assert predicted.summary().count(str(scans / "broken.jpg")) == 1
    for name in ("a", "more/c"):
        assert (predicted.out / f"{name}.h5ad").is_file()
        assert (scans.parent / "tables" / f"{name}.csv").is_file()
        assert (scans.parent / "pages" / f"{name}.html").is_file()
        assert len(list((scans.parent / "maps" / name).glob("*.png"))) == 3
    assert predicted.index == scans.parent / "pages" / "index.html"
    listed = predicted.index.read_text(encoding="utf-8")
    assert re.findall('href="([^"]*html)"', listed) == ["a.html", "more/c.html"]
    assert "2 predicted, 1 failed" in listed
    assert str(predicted.index) in predicted.summary()


def test_cohorts_table_has_one_row_per_slide(predicted: SlidesResult) -> None:
    table = anndata.read_h5ad(predicted.out / "cohort.h5ad")
    assert list(table.obs_names) == ["a", "more/c"]
    each = [anndata.read_h5ad(predicted.out / f"{name}.h5ad") for name in table.obs_names]
    values = [np.asarray(one.X) for one in each]
    np.testing.assert_allclose(table.X, [v.mean(axis=0) for v in values], rtol=1e-5)
    np.testing.assert_allclose(
        table.layers["upper"], [np.quantile(v, 0.9, axis=0) for v in values], rtol=1e-4
    )
    above = [(v > table.var["high_above"].to_numpy()).mean(axis=0) for v in values]
    np.testing.assert_allclose(table.layers["share_high"], above, atol=1e-6)
    # A quarter of all places, were both slides of one size; each weighs the same.
    assert np.mean(above) == pytest.approx(0.25, abs=0.03)
    assert list(table.obs["places"]) == [one.n_obs for one in each]
    np.testing.assert_allclose(table.obs["tissue_mm2"], table.obs["places"] * 0.01)
    assert list(table.var["unit"]) == list(each[0].var["unit"])
    assert "test patients, not places" in table.uns["histospace_tf"]["worth"]
    sets = [one.obsm["gene_sets"]["PANEL"].mean() for one in each]
    np.testing.assert_allclose(table.obsm["gene_sets"]["PANEL"], sets, rtol=1e-4)
    standard = (each[0].to_df() - each[0].var["centre"]) / each[0].var["scale"]
    np.testing.assert_allclose(
        each[0].obsm["gene_sets"]["PANEL"], standard.mean(axis=1), rtol=1e-4, atol=1e-5
    )
    assert each[0].uns["gene_sets"]["trust"]["PANEL"] == "unknown"  # the run has no sets
    means = pd.read_csv(predicted.out / "cohort.csv", index_col="name")
    np.testing.assert_allclose(means["PANEL"], sets, rtol=1e-4)
    np.testing.assert_allclose(means[table.var_names], table.X, rtol=1e-5)


def test_resumed_folder_keeps_what_is_finished_and_makes_the_rest(
    predicted: SlidesResult, scans: Path, small_run: Path, tmp_path: Path
) -> None:
    out, slides = tmp_path / "out", tmp_path / "scans"
    shutil.copytree(predicted.out, out)
    shutil.copytree(scans, slides)
    shutil.copy(scans / "a.jpg", slides / "broken.jpg")  # mended
    table = tmp_path / "slides.csv"
    table.write_text(f"slide,patient\n{scans / 'a.jpg'},P1\n{slides / 'broken.jpg'},P2\n")
    asked: Any = {"model": small_run, "out": out, "mpp": MPP, "fast": True}
    with pytest.raises(InputError, match=r"had another (gene_sets|--gene-sets)"):
        histospace_tf.predict_slides(table, **asked, resume=True)
    asked["gene_sets"] = scans.parent / "sets.gmt"
    with pytest.raises(InputError, match="`resume` keeps them"):
        histospace_tf.predict_slides(table, **asked)
    with pytest.raises(InputError, match=r"had another (step_um|--step-um)"):
        histospace_tf.predict_slides(table, **asked, step_um=50, resume=True)
    result = histospace_tf.predict_slides(table, **asked, resume=True)
    assert [one.state for one in result.outcomes] == [KEPT, "predicted"]
    assert (out / "a.h5ad").stat().st_mtime_ns == (predicted.out / "a.h5ad").stat().st_mtime_ns
    assert result.table is not None
    assert list(result.table.obs["patient"]) == ["P1", "P2"]
    np.testing.assert_array_equal(result.table.X[0], result.table.X[1])  # one picture
    (out / "a.h5ad").unlink()
    shutil.copy(scans / "more" / "c.jpg", slides / "broken.jpg")  # changed since
    again = histospace_tf.predict_slides(table, **asked, resume=True)
    assert [one.state for one in again.outcomes] == ["predicted", "predicted"]
    assert again.table is not None
    np.testing.assert_array_equal(again.table.X[0], result.table.X[0])
    assert not np.array_equal(again.table.X[1], result.table.X[1])


def test_each_slide_has_its_regions_and_all_share_a_table(
    scans: Path, small_run: Path, tmp_path: Path
) -> None:
    drawn, out = tmp_path / "drawn", tmp_path / "out"
    write_geojson(drawn / "more" / "c.json", feature(polygon(square(200, 200, 400)), "core"))
    asked: Any = {"model": small_run, "out": out, "mpp": MPP, "fast": True}
    with pytest.raises(InputError, match="`regions` 'no' is no folder"):
        histospace_tf.predict_slides(scans, **asked, regions="no")
    result = histospace_tf.predict_slides(scans, **asked, regions=drawn)
    assert [one.state for one in result.outcomes] == [FAILED, FAILED, "predicted"]
    assert "a.geojson' does not exist" in result.outcomes[0].why
    rows = pd.read_csv(out / "regions.csv", keep_default_na=False)
    each = pd.read_csv(out / "more" / "c.regions.csv", keep_default_na=False)
    assert list(rows.columns) == ["name", "patient", *each.columns]
    assert rows.loc[0, ["name", "patient", "region"]].tolist() == ["more/c", "", "core"]
    assert str(out / "regions.csv") in result.summary()
    # Other regions, and a slide of a table that has none: `resume` sees both.
    inner = write_geojson(drawn / "inner.geojson", feature(polygon(square(200, 200, 250)), "core"))
    table = tmp_path / "slides.csv"
    table.write_text(f"slide,regions\n{scans / 'more' / 'c.jpg'},{inner}\n")
    (out / "more" / "c.h5ad").rename(out / "c.h5ad")
    record = json.loads((out / "cohort.json").read_text())
    record["slides"]["c.h5ad"] = record["slides"]["more/c.h5ad"]
    (out / "cohort.json").write_text(json.dumps(record))
    again = histospace_tf.predict_slides(table, **asked, resume=True)
    assert [one.state for one in again.outcomes] == ["predicted"]
    assert pd.read_csv(out / "regions.csv")["places"].sum() < rows["places"].sum()


def test_two_processes_give_what_one_gives(
    predicted: SlidesResult, scans: Path, small_run: Path, tmp_path: Path
) -> None:
    flags = ["--model", small_run, "--out", tmp_path / "out", "--mpp", MPP, "--fast", "--jobs", 2]
    ended = CliRunner().invoke(main, ["predict", str(scans), *map(str, flags)])
    assert ended.exit_code == 1, ended.output
    assert "2 predicted, 1 failed" in ended.output
    table = anndata.read_h5ad(tmp_path / "out" / "cohort.h5ad")
    assert predicted.table is not None
    np.testing.assert_allclose(table.X, predicted.table.X, rtol=1e-4, atol=1e-5)


def test_every_slide_that_is_refused_has_its_own_row(
    scans: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting_slides, "_predicted", lambda asked, jobs: iter(()))
    for name in ("a.jpg", "more/a.jpg", "cohort.jpg", "b.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scans / "a.jpg", tmp_path / "in" / name)
    slides = [tmp_path / "in" / name for name in ("a.jpg", "more/a.jpg", "cohort.jpg", "b.jpg")]
    result = histospace_tf.predict_slides(slides, model=small_run, out=tmp_path / "out", mpp=MPP)
    assert [one.slide for one in result.outcomes] == list(map(str, slides))
    assert [bool(one.why) for one in result.outcomes] == [True, True, True, False]
    assert "the table of all" in result.outcomes[2].why


def test_slide_that_ends_its_process_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting_slides, "_outcome", workers.ends_on_b)
    asked = {name: PredictRequest(tmp_path / f"{name}.svs") for name in "abc"}
    found = dict(predicting_slides._predicted(asked, 2))
    assert {name: one["state"] == FAILED for name, one in found.items()} == {
        "a": False,
        "b": True,
        "c": False,
    }
    assert "ended from outside" in found["b"]["why"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "x.h5ad"}, "several slides go into a folder"),
        ({"out": None}, "`out` is needed"),
        ({"jobs": 0}, "`jobs` 0"),
        ({"spots": "spots.csv"}, "columns slide and spots"),
        ({"mpp": None}, "no slide can be predicted.*give them with `mpp`"),
        ({"show": ["ABSENT1"], "maps": "maps"}, "ABSENT1"),
    ],
)
def test_what_no_slide_could_meet_is_refused_at_once(
    scans: Path,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: Any = {"model": small_run, "out": "out", "mpp": MPP, **options}
    with pytest.raises(InputError, match=words):
        histospace_tf.predict_slides([scans / "a.jpg", scans / "more" / "c.jpg"], **asked)
    assert not (tmp_path / "out").exists()


def test_one_slide_and_a_file_mean_a_single_prediction(scans: Path) -> None:
    assert isinstance(prediction_of(scans / "a.jpg", out="a.h5ad", mpp=MPP), PredictRequest)
    for slides, out in (
        (scans, "out"),
        (scans / "a.jpg", "out"),
        ([scans / "a.jpg"] * 2, "o.h5ad"),
    ):
        assert isinstance(prediction_of(slides, out=out), PredictSlidesRequest)

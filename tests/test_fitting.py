"""The main job on small simulated tissue: what it writes, refuses and leaves behind."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import anndata
import cv2
import numpy as np
import pandas as pd
import pytest

from histospace_tf import bundle, fitting, training
from histospace_tf.cohort import reading
from histospace_tf.config import Config, changed
from histospace_tf.predictors import ridge_head
from histospace_tf.requests import FitRequest
from histospace_tf.vocabulary import InputError
from made import sections as made_sections

pytestmark = pytest.mark.slow

FILES = {
    "MODEL_CARD.md",
    "baselines.npz",
    "bundle",
    "clusters.json",
    "config.json",
    "figures",
    "gene_scores.csv",
    "genes.csv",
    "held_out_maps.png",
    "history.csv",
    "intervals.csv",
    "manifest.json",
    "overviews",
    "parity_tiles.npz",
    "predictions.h5ad",
    "report.html",
    "saved_model",
    "scores.json",
    "stain_panel.png",
    "tflite",
}


def test_run_folder_holds_what_the_design_promises(small_run: Path) -> None:
    assert {path.name for path in small_run.iterdir()} == FILES
    assert (small_run / "saved_model" / "1" / "saved_model.pb").is_file()
    assert (small_run / "tflite" / "histospace_float32.tflite").is_file()
    assert not small_run.with_name("run.partial").exists()


def test_clusters_of_the_held_out_section_stand_beside_its_predictions(small_run: Path) -> None:
    clusters = json.loads((small_run / "clusters.json").read_text())
    assert list(clusters["sections"]) == ["B1"]
    assert "predicted_against_measured" in clusters["sections"]["B1"]
    table = anndata.read_h5ad(small_run / "predictions.h5ad")
    assert set(table.obs["cluster_predicted"]) == set(table.obs["cluster_measured"]) == {"0", "1"}
    assert "spatial" in table.uns


def test_scores_hold_every_baseline_beside_the_model(small_run: Path) -> None:
    scores = json.loads((small_run / "scores.json").read_text())
    assert scores["split"]["outer"] == "patient"
    assert scores["split"]["held_out"] == ["B"]
    assert scores["split"]["patient_on_both_sides"] == []
    (section,) = scores["sections"].values()
    rows = section["rows"]
    assert rows["gene_mean"]["gene_r"] == 0
    assert rows["patient_mean"] is None  # the patient was never trained on
    for name in ("model", "model_single_tile", "colour_ridge", "neighbour_oracle"):
        assert -1 <= rows[name]["gene_r"] <= 1
        assert {"gene_r_median", "spot_r", "mse", "mae", "gene_r_smoothed"} <= set(rows[name])
    assert scores["mean"]["model"]["gene_r"] == pytest.approx(rows["model"]["gene_r"])


def test_scores_follow_from_the_written_predictions(small_run: Path) -> None:
    table = anndata.read_h5ad(small_run / "predictions.h5ad")
    rows = json.loads((small_run / "scores.json").read_text())["sections"]["B1"]["rows"]
    predicted, measured = np.asarray(table.X), np.asarray(table.layers["measured"])
    r = [np.corrcoef(p, m)[0, 1] for p, m in zip(predicted.T, measured.T, strict=True)]
    # float32 predictions against float64 sums
    assert np.mean(r) == pytest.approx(rows["model"]["gene_r"], abs=1e-5)
    assert ((predicted - measured) ** 2).mean() == pytest.approx(rows["model"]["mse"], rel=1e-4)
    assert table.obs_names[0].startswith("B1_")
    assert table.var["unit"].iloc[0] == "ln(1 + counts per 10,000)"


def test_gene_scores_and_history_are_tables(small_run: Path) -> None:
    genes = pd.read_csv(small_run / "gene_scores.csv")
    assert {"gene", "section", "model", "colour_ridge", "neighbour_oracle"} <= set(genes)
    history = pd.read_csv(small_run / "history.csv")
    assert {"stage", "epoch", "loss", "val_loss", "val_gene_r", "val_spot_r"} <= set(history)
    assert {"autoencoder", "context", "pooled"} <= set(history["stage"])
    inner = history[history["stage"] == "context_inner1"]
    assert list(inner["strength"]) == pytest.approx(list(ridge_head.STRENGTHS))
    assert inner["val_gene_r"].between(-1, 1).all()


def test_manifest_says_how_the_run_came_about(small_run: Path, small_tissue: Path) -> None:
    manifest = json.loads((small_run / "manifest.json").read_text())
    assert set(manifest["data"]["checksums"]) == {"A1", "B1", "C1"}
    assert manifest["trained_on"]["sections"] == ["A1", "C1"]
    assert len(manifest["panel"]) == 12
    assert manifest["versions"]["tensorflow"]
    assert manifest["request"]["data"] == str(small_tissue)
    assert manifest["request"]["hold_out"] == ["B"]
    assert manifest["inner_folds"][0]["kind"] == "patient"
    assert set(manifest["chosen"]) == {"head", "single_tile_head"}
    for chosen in manifest["chosen"].values():
        assert chosen["strength"] in ridge_head.STRENGTHS


def test_bundle_gives_back_the_held_out_predictions(small_run: Path) -> None:
    model = bundle.load(small_run)
    assert model.config.tiles.tile_px == 64
    tiles = np.load(small_run / "parity_tiles.npz")["tile"]
    features = model.trunk(tiles[:2] / np.float32(255))
    assert model.single_tile_head(features).shape == (2, 12)


@pytest.mark.usefixtures("unpublished")
def test_same_seed_and_a_changed_held_out_section_leave_everything_fitted_unchanged(
    small_tissue: Path, small_config: Config, small_run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_tissue, data)
    counts = data / "ST-cnts" / "B1.tsv.gz"
    table = pd.read_csv(counts, sep="\t", index_col=0)
    (image,) = (data / "ST-imgs" / "B").glob("*/*.jpg")
    picture = cv2.imread(str(image))
    assert picture is not None
    cv2.imwrite(str(image), picture[::-1] // 2)
    table.iloc[:, :] = np.random.default_rng(1).integers(0, 99, table.shape)
    with gzip.open(counts, "wt") as file:
        table.to_csv(file, sep="\t")
    fitting.fit(FitRequest(data, tmp_path / "run", config=small_config, hold_out=["B"]))
    first, second = (bundle.load(run) for run in (small_run, tmp_path / "run"))
    assert first.panel.genes == second.panel.genes
    np.testing.assert_array_equal(first.panel.mean, second.panel.mean)
    for name in ("encoder", "head", "single_tile_head"):
        for one, other in zip(
            getattr(first, name).get_weights(), getattr(second, name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.usefixtures("unpublished")
def test_interrupted_run_goes_on_and_equals_an_undisturbed_one(
    small_tissue: Path,
    small_config: Config,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A head that is trained in epochs: the interrupt comes between its inner trainings.
    config = changed(
        small_config,
        regressor__solver="adam",
        regressor__spot_weights="equal",
        regressor__architecture="pooled",
        regressor__epochs=2,
    )
    out, real, calls = tmp_path / "run", training.train, []

    def interrupted(*arguments: object, **options: object) -> training.Trained:
        calls.append(options["stage"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitting.fit(FitRequest(small_tissue, out, config=config, hold_out=["B"]))
    assert calls == ["autoencoder", "pooled_inner1", "pooled_inner2"]
    assert not out.exists()
    with pytest.raises(InputError, match="`resume` goes on"):
        fitting.fit(FitRequest(small_tissue, out, config=config, hold_out=["B"]))
    with pytest.raises(InputError, match="had another config"):
        fitting.fit(
            FitRequest(
                small_tissue, out, config=changed(config, seed=5), hold_out=["B"], resume=True
            )
        )
    fitting.fit(FitRequest(small_tissue, out, config=config, hold_out=["B"], resume=True))
    # Undisturbed; its encoder is the same, of a run with the same settings and training side.
    fitting.fit(
        FitRequest(
            small_tissue, tmp_path / "whole", config=config, hold_out=["B"], encoder=small_run
        )
    )
    first = anndata.read_h5ad(tmp_path / "whole" / "predictions.h5ad")
    again = anndata.read_h5ad(out / "predictions.h5ad")
    np.testing.assert_array_equal(np.asarray(first.X), np.asarray(again.X))
    chosen = json.loads((out / "manifest.json").read_text())["chosen"]
    assert set(chosen["head"]) == {"epochs", "most", "by"}
    assert (chosen["head"]["most"], chosen["head"]["by"]) == (2, "val_mean_r")
    pictures = {"figures", "held_out_maps.png", "overviews", "report.html", "stain_panel.png"}
    assert {path.name for path in out.iterdir()} == FILES - pictures - {"saved_model", "tflite"}


@pytest.mark.usefixtures("unpublished")
def test_paper_preset_fits_and_another_run_lends_its_encoder(
    small_tissue: Path, small_run: Path, tmp_path: Path
) -> None:
    from histospace_tf.presets import preset

    config = changed(preset("paper"), tiles__tile_px=64, target__genes=5, regressor__epochs=1)
    # The donor's encoder variant and tile scale go with it.
    fitting.fit(
        FitRequest(small_tissue, tmp_path / "run", config=config, hold_out=["B"], encoder=small_run)
    )
    lent = bundle.load(tmp_path / "run")
    for one, other in zip(
        bundle.load(small_run).encoder.get_weights(), lent.encoder.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert lent.head is lent.single_tile_head
    assert lent.panel.normalisation == "library_size_log10"
    # A fixed number of epochs: no inner groups, and both say so.
    manifest, scores = (
        json.loads((tmp_path / "run" / name).read_text())
        for name in ("manifest.json", "scores.json")
    )
    assert (manifest["inner_folds"], scores["split"]["inner"]) == ([], None)
    fixed = {"epochs": 1, "most": 1, "by": "fixed"}
    assert manifest["chosen"] == {"head": fixed, "single_tile_head": fixed}
    assert scores["chosen"][0] == {"predictor": "model", "held_out": ["B"], **fixed}
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert list(history["stage"]) == ["flatten"]


@pytest.mark.usefixtures("unpublished")
def test_one_section_alone_holds_out_a_block_of_its_spots(
    small_tissue: Path, small_config: Config, tmp_path: Path
) -> None:
    data = tmp_path / "one"
    shutil.copytree(small_tissue, data)
    for other in ("A1", "C1"):
        (data / "ST-cnts" / f"{other}.tsv.gz").unlink()
        (data / "ST-spotfiles" / f"{other}_selection.tsv").unlink()
        shutil.rmtree(data / "ST-imgs" / other[0])
    config = changed(small_config, regressor__architecture="pooled")
    fitting.fit(FitRequest(data, tmp_path / "run", config=config))
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["split"]["outer"] == "block"
    assert scores["split"]["patient_on_both_sides"] == ["B"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold_out": ["Z9"]}, "Z9"),
        ({"hold_out": ["A", "B", "C"]}, "leaves nothing"),
        ({"hold_out": ["A"], "no_hold_out": True}, "exclude each other"),
        ({"pretrain": Path("x"), "encoder": Path("y")}, "pass one of them"),
        ({"encoder": Path("nowhere")}, "nor a packaged model"),
        ({"pretrain": Path("nowhere")}, "does not exist"),
    ],
)
def test_mistakes_end_with_a_clear_line_and_leave_no_run(
    small_tissue: Path,
    small_config: Config,
    tmp_path: Path,
    options: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        fitting.fit(FitRequest(small_tissue, tmp_path / "run", config=small_config, **options))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_finished_run_is_not_overwritten(
    small_tissue: Path, small_config: Config, small_run: Path
) -> None:
    with pytest.raises(InputError, match="`force`"):
        fitting.fit(FitRequest(small_tissue, small_run, config=small_config))


def test_unknown_gene_in_a_panel_file_is_named(
    small_tissue: Path, small_config: Config, tmp_path: Path
) -> None:
    genes = tmp_path / "genes.txt"
    genes.write_text("ERBB2\nNOSUCHGENE1\n")
    config = changed(small_config, target__panel=str(genes))
    with pytest.raises(InputError, match="NOSUCHGENE1"):
        fitting.fit(FitRequest(small_tissue, tmp_path / "run", config=config))


def test_a_name_of_one_patients_section_and_of_another_patient_cannot_be_held_out(
    tmp_path: Path,
) -> None:
    one, other = made_sections.made_section("A", "B"), made_sections.made_section("B2", "A", seed=1)
    data = made_sections.write_her2st(tmp_path / "data", one, other)
    with pytest.raises(InputError, match="`hold_out` A: it is a section of patient 'B' and the na"):
        reading.read_cohort(data, tmp_path, config=Config(), hold_out=["A"])


def test_a_section_that_is_left_out_cannot_be_held_out(tmp_path: Path) -> None:
    bad, sound = made_sections.made_section("A1", "A"), made_sections.made_section("B1", "B")
    bad.counts[0][0] = "-1"
    other = made_sections.made_section("C1", "C", seed=1)
    data = made_sections.write_her2st(tmp_path / "data", bad, sound, other)
    cohort = reading.read_cohort(data, tmp_path, config=Config(), hold_out=["B1"])
    assert [one.name for one in cohort.left_out] == ["A1"]
    with pytest.raises(InputError, match=r"B1, C leaves nothing to train on, .*section A1: .*-1"):
        reading.read_cohort(data, tmp_path, config=Config(), hold_out=["B1", "C"])
    for name in ("A1", "A"):
        with pytest.raises(InputError, match=f"`hold_out` {name}: section A1 cannot be used .*-1"):
            reading.read_cohort(data, tmp_path, config=Config(), hold_out=[name])

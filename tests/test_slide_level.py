"""Networks on slides with bulk expression alone: what they learn, and `fit` with `bulk`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

import histospace_tf
from histospace_tf import bulk_fitting, cli, predicting, training
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets
from histospace_tf.foreign_encoders import opening
from histospace_tf.reports import page
from histospace_tf.requests import BulkRequest, FitRequest, PredictRequest, refusals
from histospace_tf.requests.bulk import fitting_of
from histospace_tf.slide_level import networks, slide_model, slide_tiles
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made import encoders as made_encoders
from made.bulk import write_slides
from made.tissue import GENES, panel


def session(folder: Path) -> Session:
    return Session(tf.distribute.get_strategy(), 0, False, folder)


def made_slides(n: int = 24) -> networks.Slides:
    """Slides of which a few tiles alone say what the bulk is."""
    rng = np.random.default_rng(4)
    features, targets = [], np.zeros((n, 2), np.float32)
    for slide in range(n):
        tiles = rng.normal(0, 0.3, (rng.integers(8, 16), 6)).astype(np.float32)
        amount = rng.uniform(-1, 1)
        tiles[:3, 0] += 2 + 2 * amount
        tiles[:, 1] += amount
        features.append(tiles)
        targets[slide] = amount, -amount
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    names = [f"s{i}" for i in range(n)]
    patients = [f"P{i % 2}" for i in range(n)]
    return networks.Slides(features, targets, networks.slide_index(names, patients))


def test_batches_of_slides_are_padded_and_masked_in_an_order_of_the_epoch_alone() -> None:
    slides = made_slides(5)
    mean, deviation = np.full(6, 0.5, np.float32), np.full(6, 2.0, np.float32)

    def read(**order: tuple[int, int]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        batches = datasets.bag_dataset(
            slides.features,
            slides.targets,
            batch_size=2,
            rows=np.array([4, 0, 2]),
            scale=(mean, deviation),
            **order,
        )
        return [({k: v.numpy() for k, v in x.items()}, y.numpy()) for x, y in batches]

    (first, targets), (last, _) = read()
    sizes = [len(slides.features[row]) for row in (4, 0, 2)]
    np.testing.assert_array_equal(first["mask"].sum(axis=1), sizes[:2])
    np.testing.assert_array_equal(last["mask"].sum(axis=1), sizes[2:])
    np.testing.assert_allclose(
        first["features"][1, : sizes[1]], (slides.features[0] - 0.5) / 2, rtol=1e-6
    )
    np.testing.assert_array_equal(targets, slides.targets[[4, 0]])
    orders = [[y.tolist() for _, y in read(order_seed=(0, epoch))] for epoch in (1, 1, 2, 3, 4)]
    assert orders[0] == orders[1]
    assert any(order != orders[0] for order in orders[2:])


@pytest.mark.parametrize("architecture", ["he2rna", "hist2rna"])
def test_a_network_learns_bulk_from_tiles_and_says_how_long(
    architecture: str, tmp_path: Path
) -> None:
    slides = made_slides()
    rows = np.arange(18)
    network, made = networks.train(
        slides, rows, architecture, session(tmp_path), epochs=5, batch_size=6
    )
    held = np.stack([network.predict(tiles) for tiles in slides.features[18:]])
    for gene in range(2):
        assert np.corrcoef(held[:, gene], slides.targets[18:, gene])[0, 1] > 0.8
    assert made.choice["by"] == "val_loss"
    assert 1 <= made.choice["epochs"] <= 5
    assert {row["stage"] for row in made.history} == {
        architecture,
        *(f"{architecture}_inner{i}" for i in (1, 2)),
    }
    # Standardised by the training slides alone.
    known = np.concatenate(slides.features[:18])
    np.testing.assert_allclose(network.mean, known.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(network.deviation, known.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("architecture", ["he2rna", "hist2rna"])
def test_a_network_begins_as_the_gene_mean_and_one_epoch_is_not_chosen(
    architecture: str, tmp_path: Path
) -> None:
    slides = made_slides(8)
    network, made = networks.train(
        slides, np.arange(8), architecture, session(tmp_path), epochs=1, batch_size=8
    )
    said = np.stack([network.predict(tiles) for tiles in slides.features])
    # After one step; the gene mean is zero, and a target's deviation one.
    assert 0 < np.abs(said).max() < 0.3
    assert made.choice == {"epochs": 1, "most": 1, "by": "fixed"}
    assert {row["stage"] for row in made.history} == {architecture}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six simulated slides of three patients, and the sum of their spots."""
    folder = tmp_path_factory.mktemp("slides")
    return write_slides(folder, patients=3, sections_per_patient=2)


@pytest.fixture(scope="module")
def bulk_run(slides: Path, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fit --bulk` on them, from the command line."""
    out = tmp_path_factory.mktemp("bulk") / "run"
    given = ["--bulk", slides / "bulk.csv", "--encoder", small_run, "--genes", 10, "--epochs", 2]
    arguments = ["fit", slides / "slides", *given, "--mpp", 0.69, "--out", out]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(networks, "INNER_FOLDS", 1)
        done = CliRunner().invoke(cli.main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert "bulk of 6 slides" in done.output
    assert "  mean feature ridge  " in done.output
    assert "mean feature ridge: ridge on the mean of a slide's tile features" in done.output
    assert "6 slides are of 3 patients" in done.output.replace("\n  ", " ")
    return out


def test_a_run_on_slides_holds_scores_of_patients_left_out(bulk_run: Path, slides: Path) -> None:
    scores = json.loads((bulk_run / "scores.json").read_text())
    bulk = scores["bulk"]
    assert (bulk["slides"], bulk["patients"]) == (6, 3)
    assert sorted(scores["split"]["held_out"]) == [["A"], ["B"], ["C"]]
    assert scores["split"]["inner"] == "patient"
    table = anndata.read_h5ad(bulk_run / "slide_predictions.h5ad")
    counts = pd.read_csv(slides / "bulk.csv").set_index("slide").drop(columns="patient")
    share = counts.div(counts.sum(axis=1), axis=0).loc[table.obs_names, table.var_names]
    np.testing.assert_allclose(
        np.asarray(table.layers["measured"]), np.log1p(1e4 * share), rtol=1e-4
    )
    # The gene mean of a fold is that of the other patients' slides.
    others = np.asarray(table.layers["measured"])[table.obs["patient"] != "B"].mean(axis=0)
    np.testing.assert_allclose(
        np.asarray(table[table.obs["patient"] == "B"].layers["gene_mean"]),
        np.stack([others, others]),
        rtol=1e-4,
    )
    assert np.isfinite(np.asarray(table.layers["mean_feature_ridge"])).all()
    ridges = [one for one in scores["chosen"] if one["predictor"] == "mean_feature_ridge"]
    assert sorted(one["held_out"] for one in ridges) == [["A"], ["B"], ["C"]]
    assert all(one["by"] == "val_mse" for one in ridges)
    genes = pd.read_csv(bulk_run / "bulk_scores.csv")
    by_hand = [
        np.corrcoef(np.asarray(table[:, gene].X).ravel(), table[:, gene].layers["measured"].ravel())
        for gene in genes["gene"]
    ]
    np.testing.assert_allclose(genes["model"], [r[0, 1] for r in by_hand], atol=1e-4)
    assert bulk["rows"]["model"]["gene_r"] == pytest.approx(genes["model"].mean())
    assert bulk["rows"]["gene_mean"]["gene_r"] < 0
    assert bulk["rows"]["mean_feature_ridge"]["gene_r"] == pytest.approx(
        genes["mean_feature_ridge"].mean()
    )
    manifest = json.loads((bulk_run / "manifest.json").read_text())
    assert manifest["trained_on"]["bulk"]["unit"] == "counts"
    assert all(tiles > 0 for tiles in manifest["tiles"].values())
    history = pd.read_csv(bulk_run / "history.csv")
    assert set(history["fold"].fillna("")) == {"", "fold1", "fold2", "fold3"}
    assert not (bulk_run / "features").exists()
    html = (bulk_run / "report.html").read_text()
    assert "6 slides of 3 patients, of each of which bulk expression alone was known" in html
    names = ["model", "mean_feature_ridge", "gene_mean"]
    assert list(bulk["rows"]) == names
    assert page.scores_table("bulk of 6 slides", bulk["rows"], names) in html
    assert "ridge on the mean of a slide&#x27;s tile features" in html
    assert "0 held-out spots" not in html
    assert "Networks on slides as a whole" in html
    assert "he2rna head" not in html


def test_fit_on_slides_refuses_what_it_cannot_use(
    slides: Path, small_run: Path, tmp_path: Path
) -> None:
    images, table = slides / "slides", slides / "bulk.csv"
    cases: list[tuple[dict[str, object], str]] = [
        (
            {"hold_out": ["A"], "counts": ["x"]},
            "slides without spots; leave out `hold_out`, `counts`",
        ),
        ({"architecture": "pooled"}, "`architecture` pooled learns from spots; with `bulk` one of"),
        ({"bulk": None, "architecture": "he2rna"}, "he2rna learns from slides: `bulk` TABLE"),
        ({"bulk": None, "bulk_unit": "ln"}, "`bulk_unit` says what `bulk` holds"),
        ({"data": None}, "`bulk` needs `data`"),
        ({"mpp": None}, "`mpp`"),
        ({"mpp": 9.0}, "too coarse"),
        ({"epochs": 0}, "`epochs` 0"),
        ({"encoder": "nowhere"}, "'nowhere' is no folder"),
    ]
    for changed, message in cases:
        given: dict[str, object] = {
            "data": images,
            "out": tmp_path / "run",
            "bulk": table,
            "mpp": 0.69,
            "encoder": small_run,
            **changed,
        }
        with pytest.raises(InputError, match=message):
            refusals.refuse(fitting_of(**given))
    frame = pd.read_csv(table)
    frame[frame["patient"] != "A"].to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(InputError, match=r"two\.csv': 2 patient\(s\), 'B', 'C'; at least 3"):
        histospace_tf.fit(images, tmp_path / "run", bulk=tmp_path / "two.csv", mpp=0.69)
    shutil.copytree(images, tmp_path / "slides")
    (tmp_path / "slides" / "A1.jpg").unlink()
    with pytest.raises(InputError, match="no image is named as slide 'A1'"):
        histospace_tf.fit(tmp_path / "slides", tmp_path / "run", bulk=table, mpp=0.69)
    assert not (tmp_path / "run").exists()


def test_fit_asks_for_slides_where_bulk_is_given() -> None:
    request = fitting_of("slides", "run", bulk="bulk.csv")
    assert isinstance(request, BulkRequest)
    assert request.network == "he2rna"
    assert isinstance(fitting_of("her2st", "run"), FitRequest)


def untrained(architecture: str, genes: int, features: int = 6) -> networks.SlideNetwork:
    rng = np.random.default_rng(8)
    keras.utils.set_random_seed(8)
    model = networks.build(architecture, genes, features=features)
    mean = rng.normal(0, 1, features).astype(np.float32)
    return networks.SlideNetwork(architecture, model, mean, np.full(features, 1.5, np.float32))


@pytest.mark.parametrize("architecture", ["he2rna", "hist2rna"])
def test_drawings_of_a_slides_tiles_are_predicted_as_slides_of_those_tiles(
    architecture: str,
) -> None:
    network = untrained(architecture, 3)
    tiles = np.random.default_rng(5).normal(0, 1, (12, 6)).astype(np.float32)
    times = np.array([2, 0, 1, 1, 3, 0, 0, 1, 1, 1, 1, 1])
    drawn = network.predict_weighted(tiles, np.stack([np.full(12, 1 / 12), times / 12]))
    np.testing.assert_allclose(drawn[0], network.predict(tiles), rtol=1e-4, atol=1e-5)
    again = network.predict(np.repeat(tiles, times, axis=0))
    np.testing.assert_allclose(drawn[1], again, rtol=1e-4, atol=1e-5)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


def test_scores_of_tiles_are_what_a_slides_value_is_the_mean_of() -> None:
    network = untrained("he2rna", 2)
    tile = np.random.default_rng(6).normal(0, 1, (1, 6)).astype(np.float32)
    # A slide of one tile is that tile.
    np.testing.assert_allclose(
        np.asarray(network.tile_head()(tile))[0], network.predict(tile), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InputError, match="hist2rna sees a slide's mean alone"):
        untrained("hist2rna", 2).tile_head()


def written_model(run: Path, architecture: str, encoder: str, config: Config) -> Path:
    """An untrained model of four genes on an encoder."""
    own = slide_tiles.slide_encoder(encoder, config)
    network = untrained(architecture, len(GENES), features=int(own.trunk.output.shape[-1]))
    about = {"slides": ["a", "b"], "encoder": own.trained_on}
    slide_model.save(slide_model.SlideModel(network, panel(), own, about), run)
    return run


def test_an_encoder_that_is_brought_stays_in_its_file_and_is_found_again(
    slides: Path, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.keras"
    made_encoders.keras_model().save(file)
    text = f"{file},mpp=2,pixels=imagenet"
    request = BulkRequest(slides / "slides", bulk=slides / "bulk.csv", encoder=text, mpp=0.69)
    assert request.settings.tiles.mpp == 2
    refusals.refuse(request)
    run = written_model(tmp_path / "run", "he2rna", text, request.settings)
    assert not (run / "slide_model" / "encoder.weights.h5").exists()
    model = slide_model.load(run)
    tile_px = model.encoder.config.tiles.tile_px
    assert (tile_px, model.encoder.config.stain.method) == (made_encoders.SIDE, "none")
    tiles = np.random.default_rng(0).random((2, tile_px, tile_px, 3), np.float32)
    form = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    by_hand = made_encoders.by_hand((tiles - form[0]) / form[1])
    np.testing.assert_allclose(np.asarray(model.encoder.trunk(tiles)), by_hand, atol=1e-5)
    image = slides / "slides" / "B1.jpg"
    found = predicting.predict(PredictRequest(image, model=run, out=tmp_path / "b.h5ad", mpp=0.69))
    assert found.table.n_obs > 10
    assert np.isfinite(np.asarray(found.table.X)).all()
    opening.opened.cache_clear()  # as a new process begins
    file.write_bytes(b"another")
    with pytest.raises(InputError, match=r"theirs\.keras"):
        slide_model.load(run)


def test_predict_takes_he2rnas_run_and_gives_the_slide_and_scores_of_places(
    bulk_run: Path, slides: Path, tmp_path: Path
) -> None:
    image, out = slides / "slides" / "B1.jpg", tmp_path / "b.h5ad"
    given = ["--model", bulk_run, "--mpp", 0.69, "--aggregate", "--table", tmp_path / "b.csv"]
    done = CliRunner().invoke(cli.main, list(map(str, ["predict", image, "--out", out, *given])))
    assert done.exit_code == 0, done.output
    assert "no place was ever measured" in done.output.replace("\n", " ")
    table = anndata.read_h5ad(out)
    model = slide_model.load(bulk_run)
    assert tuple(table.var_names) == model.panel.genes
    assert table.n_obs > 10
    assert np.asarray(table.X).std() > 0
    bulk = pd.read_csv(tmp_path / "b.bulk.csv").set_index("gene")
    tiles = slide_tiles.slide_features(
        image, model.encoder, session(tmp_path), name="B1", mpp=0.69, store=tmp_path / "f.npy"
    )
    level = np.maximum(model.panel.to_unit(model.network.predict(tiles)), 0)
    np.testing.assert_allclose(bulk["log_mean"], level, atol=1e-4)
    np.testing.assert_allclose(bulk["mean"], np.expm1(level), rtol=1e-3, atol=1e-3)
    assert set(bulk["tiles"]) == {len(tiles)}
    assert (bulk["low"] <= bulk["high"]).all()
    np.testing.assert_allclose(table.uns["pseudo_bulk"]["mean"], bulk["mean"])
    assert table.uns["histospace_tf"]["architecture"] == "he2rna"
    assert len(table.uns["histospace_tf"]["trained_on_slides"]) == 6
    with pytest.raises(InputError, match="learned from slides as a whole; `predict` takes it"):
        histospace_tf.load(bulk_run)


@pytest.fixture(scope="module")
def hist2rna_run(slides: Path, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fit --bulk --architecture hist2rna` on them, interrupted in its third training, resumed."""
    out = tmp_path_factory.mktemp("hist2rna") / "run"
    request = BulkRequest(
        slides / "slides",
        out,
        bulk=slides / "bulk.csv",
        architecture="hist2rna",
        encoder=str(small_run),
        genes=4,
        epochs=2,
        mpp=0.69,
    )
    real, trained = training.train, []

    def train(*given: Any, **named: Any) -> training.Trained:
        trained.append(named["stage"])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*given, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(networks, "INNER_FOLDS", 1)
        patched.setattr(training, "train", train)
        with pytest.raises(KeyboardInterrupt):
            bulk_fitting.fit(request)
        assert trained == ["hist2rna_inner1", "hist2rna", "hist2rna_inner1"]
        assert not out.exists()
        with pytest.raises(InputError, match="`resume` goes on"):
            bulk_fitting.fit(request)
        with pytest.raises(InputError, match="had another epochs"):
            bulk_fitting.fit(dataclasses.replace(request, epochs=3, resume=True))
        # What is done is not done again.
        epochs: list[tuple[int, int]] = []
        bags = datasets.bag_dataset

        def counted(*given: Any, **named: Any) -> tf.data.Dataset:
            if named.get("order_seed"):
                epochs.append(named["order_seed"])
            return bags(*given, **named)

        patched.setattr(datasets, "bag_dataset", counted)
        patched.delattr(slide_tiles, "read_tiles")
        bulk_fitting.fit(dataclasses.replace(request, resume=True))
    history = pd.read_csv(out / "history.csv")
    first = history[(history["fold"] == "fold1") & history["epoch"].notna()]
    assert len(epochs) == history["epoch"].notna().sum() - len(first)
    return out


def test_predict_takes_hist2rnas_run_and_gives_the_slide_alone(
    hist2rna_run: Path, slides: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(hist2rna_run, tmp_path / "run")
    scores = json.loads((run / "scores.json").read_text())
    assert list(scores["bulk"]["rows"]) == ["model", "mean_feature_ridge", "gene_mean"]
    assert {one["predictor"] for one in scores["chosen"]} == {"hist2rna", "mean_feature_ridge"}
    image = slides / "slides" / "B1.jpg"
    request = PredictRequest(image, model=run, out=tmp_path / "b.h5ad", mpp=0.69, aggregate=True)
    result = predicting.predict(request)
    table = anndata.read_h5ad(request.out)
    assert table.shape == (1, 4)
    assert list(table.obs_names) == ["B1"]
    assert "says nothing of places" in result.summary()
    np.testing.assert_allclose(
        table.uns["pseudo_bulk"]["log_mean"], np.maximum(np.asarray(table.X)[0], 0), atol=1e-4
    )
    assert (tmp_path / "b.bulk.csv").is_file()
    for places in ({"maps": tmp_path / "maps"}, {"step_um": 50.0}):
        with pytest.raises(InputError, match=f"hist2rna predicts a slide .*`{next(iter(places))}`"):
            refusals.refuse(dataclasses.replace(request, force=True, **places))
    with pytest.raises(InputError, match="`server` serves no hist2rna"):
        refusals.refuse(dataclasses.replace(request, force=True, server="localhost:8500"))
    (run / "slide_model" / "network.weights.h5").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"network\.weights\.h5 cannot be read"):
        slide_model.load(run)
    (run / "slide_model" / "slide_model.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match="has format 9; this version"):
        refusals.refuse(dataclasses.replace(request, force=True))

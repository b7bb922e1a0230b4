"""Published networks as a run's model: `fit --architecture`, and what takes such a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import anndata
import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import bundle, bundle_file, fitting, network_model, predicting, scoring
from histospace_tf.cli import main
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import simulation, stain
from histospace_tf.models.peers import efficientnet_b0, hist2st, histogene, st_net
from histospace_tf.predictors import run_network, section_networks
from histospace_tf.reports import figures, gene_maps, stain_figure
from histospace_tf.requests import (
    EvaluateRequest,
    ExportRequest,
    FeaturesRequest,
    FitRequest,
    PredictRequest,
    ScoreRequest,
)
from histospace_tf.requests.refusals import refuse
from histospace_tf.vocabulary import InputError
from made import regions
from made.configs import tiny_config
from made.tissue import panel

TINY_NET = st_net.Size(tile_px=32, stem=4, blocks=(1, 1), growth=2)
TINY_HISTOGENE = histogene.Size(tile_px=8, width=8, places=5, blocks=1, heads=1, hidden=8)
CONFIG = tiny_config(peers__epochs=2)


def test_architecture_of_fit_names_a_published_network_and_its_size_and_epochs() -> None:
    settings = FitRequest(
        "data", "out", config=CONFIG, architecture="st_net", peer_size="published", epochs=3
    ).settings
    assert (
        settings.peers
        == changed(
            CONFIG, peers__architecture="st_net", peers__size="published", peers__epochs=3
        ).peers
    )
    assert settings.regressor.epochs == CONFIG.regressor.epochs
    assert settings.regressor.architecture == "pooled"
    kept = FitRequest("data", "out", config=settings).settings
    assert kept == settings
    ours = FitRequest("data", "out", config=settings, architecture="context", epochs=4).settings
    assert ours.peers.architecture == "none"
    assert (ours.regressor.architecture, ours.regressor.epochs) == ("context", 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "breast-her2st"}, "`encoder`: of no use to `architecture` st_net"),
        ({"batch_size": 4, "pretrain_epochs": 2}, "`pretrain_epochs`, `batch_size`: of no use"),
        ({"counts": ["c"]}, "`counts`: of no use"),
        ({"architecture": "pooled", "peer_size": "small"}, "`peer_size` is of published networks"),
    ],
)
def test_options_without_a_part_in_it_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse(FitRequest(None, "out", config=CONFIG, **{"architecture": "st_net", **options}))


def test_an_evaluation_compares_such_networks_and_has_none_as_its_model(tmp_path: Path) -> None:
    config = changed(CONFIG, peers__architecture="st_net")
    with pytest.raises(InputError, match=r"is of `fit`; `compare` st_net trains it on the folds"):
        refuse(EvaluateRequest(tmp_path, tmp_path / "out", config=config))


def test_windows_overlap_by_half_and_hold_every_spot() -> None:
    grid = np.stack(np.meshgrid(np.arange(23), np.arange(9)), axis=-1).reshape(-1, 2)
    (whole,) = section_networks.windows(grid, 23)
    np.testing.assert_array_equal(whole, np.arange(len(grid)))
    inside = section_networks.windows(grid, 10)
    assert set(np.concatenate(inside)) == set(range(len(grid)))
    corners = [grid[rows].min(axis=0).tolist() for rows in inside]
    assert corners == [[0, 0], [4, 0], [9, 0], [13, 0]]
    assert all((np.ptp(grid[rows], axis=0) < 10).all() for rows in inside)
    # Two groups of spots with nothing between them.
    apart = np.concatenate([grid[grid[:, 0] < 2], grid[grid[:, 0] > 20]])
    assert [len(rows) for rows in section_networks.windows(apart, 10)] == [18, 18]
    assert section_networks.windows(grid[:0], 10) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["st_net", "efficientnet_b0", "histogene", "hist2st"])
def test_a_network_comes_back_from_its_folder_and_one_of_tiles_is_a_bundle(
    name: str, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {
        "st_net": TINY_NET,
        "efficientnet_b0": efficientnet_b0.Size(tile_px=32, width=0.1, depth=0.1, hidden=4),
        "histogene": TINY_HISTOGENE,
        "hist2st": hist2st.Size(
            tile_px=14, channels=8, mixers=1, blocks=1, heads=1, graphs=1, views=1
        ),
    }
    record = bundle_file.NetworkRecord(
        name=name,
        label=name,
        size=dataclasses.asdict(sizes[name]),
        cut_px=224,
        mpp=0.5,
        pitch_um=100.0,
        symmetries=1,
        factor=2.0,
    )
    genes = dataclasses.replace(
        panel(), mean=np.zeros(len(panel()), np.float32), scale=np.ones(len(panel()), np.float32)
    )
    keras.utils.set_random_seed(1)
    network = network_model.build(record, len(genes))
    noise = np.random.default_rng(0)
    for weights in network.trainable_variables:  # the last layers may begin at zero
        weights.assign(weights + noise.normal(0, 0.1, weights.shape))
    reference = stain.canonical_stains("macenko")
    made = network_model.NetworkModel(CONFIG, genes, reference, {}, record, network)
    network_model.save(made, tmp_path / "bundle", unit="u")
    back = network_model.load(tmp_path)
    assert back.network == record
    assert back.n_parameters == made.n_parameters
    tiles = noise.uniform(0, 1, (3, record.tile_px, record.tile_px, 3)).astype(np.float32)
    asked = [run_network.fitted(one) for one in (made, back)]
    if record.sees_sections:
        entry = asked[0].entry
        assert isinstance(entry, section_networks.SectionNetwork)
        inputs = {"tile": tiles, **entry.places(np.array([[0, 0], [1, 0], [1, 1]], np.int32))}
        of_one = {key: values[None] for key, values in inputs.items()}
        said = [np.asarray(entry.for_prediction(one.network)(of_one)) for one in asked]
        with pytest.raises(InputError, match="sees all places of a section at once"):
            bundle.load(tmp_path)
    else:
        said = [np.asarray(one.network(tiles, training=False)) for one in asked]
        whole = bundle.load(tmp_path)
        by_parts = np.asarray(whole.head(whole.trunk(tiles, training=False)))
        np.testing.assert_allclose(by_parts, 2 * said[0], rtol=1e-4, atol=1e-5)
        assert whole.architecture == name
        assert whole.config.tiles.mpp == pytest.approx(0.5 * 224 / 32)
    np.testing.assert_array_equal(said[0], said[1])
    assert said[0].std() > 0
    (tmp_path / "bundle" / "network.weights.h5").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"network\.weights\.h5 cannot be read"):
        network_model.load(tmp_path)


def blank(figure: Any, folder: Path, name: str) -> None:
    """In place of `figures.save`, which takes longer than these fits."""
    cv2.imwrite(str(folder / f"{name}.png"), np.zeros((2, 2, 3), np.uint8))
    (folder / f"{name}.svg").write_text("<svg/>")


def fitted(data: Path, out: Path, config: Config, name: Any, network: Any, size: Any) -> Path:
    """A run with its page and exports; figures are blank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "SMALL", size)
        patch.setattr(figures, "save", blank)
        patch.setattr(stain_figure, "stain_panel", lambda *_, **__: None)
        patch.setattr(gene_maps, "write_held_out", lambda *_, **__: None)
        fitting.fit(FitRequest(data, out, config=config, architecture=name, hold_out=["B"]))
    return out


@pytest.fixture(scope="module")
def st_net_run(small_tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("st_net") / "run"
    return fitted(small_tissue, out, CONFIG, "st_net", st_net, TINY_NET)


@pytest.fixture(scope="module")
def histogene_run(small_tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("histogene") / "run"
    config = changed(CONFIG, target__normalisation="library_size_log10")
    return fitted(small_tissue, out, config, "histogene", histogene, TINY_HISTOGENE)


@pytest.fixture(scope="module")
def slide(small_tissue: Path) -> Path:
    (image,) = (small_tissue / "ST-imgs" / "B").glob("*/*.jpg")
    return image


def predicted_again(run: Path, slide: Path, folder: Path) -> None:
    """`predict` at the held-out spots says what the run said of them."""
    held_out = anndata.read_h5ad(run / "predictions.h5ad")
    spots = pd.DataFrame(held_out.obsm["spatial"], columns=["pixel_x", "pixel_y"])
    spots.to_csv(folder / "spots.csv", index=False)
    request = PredictRequest(
        slide, model=run, out=folder / "b.h5ad", spots=folder / "spots.csv", mpp=simulation.MPP
    )
    table = predicting.predict(request).table
    assert list(table.var_names) == list(held_out.var_names)
    apart = np.abs(np.asarray(table.X) - np.asarray(held_out.X)).max()
    assert apart < 0.05 * np.asarray(held_out.X).std(axis=0).max()


def scored_again(run: Path, data: Path, out: Path) -> None:
    """`evaluate --model` on the run's own data gives the held-out section's scores again."""
    again = scoring.score(ScoreRequest(data, out, model=run))
    own = json.loads((run / "scores.json").read_text())
    assert list(again.scores["sections"]) == list(own["sections"]) == ["B1"]
    rows = own["sections"]["B1"]["rows"]
    assert "model_single_tile" not in rows
    assert {"model", "gene_mean", "colour_ridge", "neighbour_oracle"} <= set(rows)
    for row, values in rows.items():
        wanted = None if values is None else pytest.approx(values, abs=2e-3)
        assert again.scores["sections"]["B1"]["rows"][row] == wanted, row
    assert "model" in again.summary()


def recorded(run: Path, name: str) -> dict[str, Any]:
    """What manifest, table and model card of a run say of its network."""
    manifest = json.loads((run / "manifest.json").read_text())
    chosen = manifest["chosen"]["network"]
    assert chosen["architecture"] == name
    assert (chosen["size"], chosen["most"]) == ("small", 2)
    assert chosen["mpp"] == pytest.approx(simulation.MPP, rel=0.01)
    assert manifest["trained_on"]["network"] == chosen
    card = (run / "MODEL_CARD.md").read_text()
    assert f"(`{name}`)" in card
    assert "its small size, not the published network" in card
    assert "its small size" in (run / "report.html").read_text()
    return dict(chosen)


@pytest.mark.slow
@pytest.mark.usefixtures("unpublished")
def test_a_run_of_st_net_is_scored_predicts_and_is_exported(
    st_net_run: Path, small_tissue: Path, slide: Path, tmp_path: Path
) -> None:
    chosen = recorded(st_net_run, "st_net")
    assert chosen["weights"] == "random"
    assert "started from random weights" in (st_net_run / "MODEL_CARD.md").read_text()
    assert {"bundle.json", "network.weights.h5"} == {
        path.name for path in (st_net_run / "bundle").iterdir()
    }
    predicted_again(st_net_run, slide, tmp_path)
    scored_again(st_net_run, small_tissue, tmp_path / "external")

    assert (st_net_run / "saved_model" / "1" / "saved_model.pb").is_file()
    assert list((st_net_run / "tflite").glob("*.tflite"))
    model = histospace_tf.load(st_net_run)
    with np.load(st_net_run / "parity_tiles.npz") as kept:
        tiles = kept["tile"]
    assert tiles.shape[1:] == (32, 32, 3)
    own = network_model.load(st_net_run)
    said = np.asarray(own.model(tiles.astype(np.float32) / 255, training=False))
    np.testing.assert_allclose(
        model.predict_tiles(tiles, stain_normalised=True), said, rtol=1e-4, atol=1e-5
    )
    assert model.mpp == pytest.approx(simulation.MPP * 224 / 32, rel=0.01)
    assert model.bundle.n_parameters == own.n_parameters
    with pytest.raises(InputError, match=r"features: the model .* is ST-Net, one network"):
        refuse(FeaturesRequest(slide, out=tmp_path / "features", model=st_net_run))
    with pytest.raises(InputError, match=r"`encoder`: the model .* is ST-Net, one network"):
        refuse(FitRequest(small_tissue, tmp_path / "o", config=CONFIG, encoder=st_net_run))


@pytest.mark.slow
def test_the_colour_ridge_beside_a_network_is_the_one_beside_our_model(
    st_net_run: Path, small_run: Path
) -> None:
    ours, theirs = (
        json.loads((run / "scores.json").read_text())["sections"]["B1"]["rows"]["colour_ridge"]
        for run in (small_run, st_net_run)
    )
    assert theirs == pytest.approx(ours, abs=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("unpublished")
def test_a_run_of_histogene_predicts_all_places_at_once_and_says_why_it_has_no_exports(
    histogene_run: Path,
    small_tissue: Path,
    slide: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded(histogene_run, "histogene")
    assert not (histogene_run / "saved_model").exists()
    with pytest.raises(InputError, match="nothing can be exported: HisToGene sees all places"):
        refuse(ExportRequest(histogene_run, out=tmp_path / "exported"))
    with pytest.raises(InputError, match="HisToGene sees all places of a section at once"):
        bundle.load(histogene_run)
    out = tmp_path / "b.h5ad"
    request = PredictRequest(slide, model=histogene_run, out=out, server="localhost:8500", mpp=0.69)
    with pytest.raises(InputError, match="`server` serves no HisToGene"):
        refuse(request)
    predicted_again(histogene_run, slide, tmp_path)
    scored_again(histogene_run, small_tissue, tmp_path / "external")

    kept = bundle_file.read(histogene_run).network
    assert kept is not None
    assert kept.size["places"] == 5
    capsys.readouterr()
    grid = predicting.predict(PredictRequest(slide, model=histogene_run, mpp=simulation.MPP)).table
    assert grid.uns["histospace_tf"]["architecture"] == "histogene"
    assert grid.uns["histospace_tf"]["windows"] == 1
    step = np.diff(np.unique(grid.obsm["spatial"][:, 0])).min()
    assert step == pytest.approx(kept.pitch_um / simulation.MPP, abs=1)
    # Within a region it sees the places around it, too: values are those of the whole slide.
    middle_px = float(np.median(grid.obsm["spatial"][:, 0])) + 1
    drawn = regions.feature(regions.polygon(regions.square(0, 0, middle_px)))
    only = regions.write_geojson(tmp_path / "drawn.geojson", drawn)
    request = PredictRequest(slide, model=histogene_run, mpp=simulation.MPP, regions=only)
    part = predicting.predict(request).table
    assert 0 < part.n_obs < grid.n_obs
    np.testing.assert_allclose(part.X, grid[part.obs_names].X, rtol=1e-5)
    capsys.readouterr()
    done = CliRunner().invoke(
        main,
        [
            *("predict", str(slide), "--model", str(histogene_run)),
            *("--out", str(tmp_path / "fine.h5ad"), "--mpp", str(simulation.MPP)),
            *("--step-um", str(kept.pitch_um / 2)),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "HisToGene knows 5 columns and rows" in done.output
    fine = anndata.read_h5ad(tmp_path / "fine.h5ad")
    assert fine.uns["histospace_tf"]["windows"] > 1
    assert np.isfinite(np.asarray(fine.X)).all()

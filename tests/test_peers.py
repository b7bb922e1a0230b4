"""Published networks as rivals: trained on a fold, in the panel's unit, at their own best."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

from histospace_tf import training
from histospace_tf.cli import main
from histospace_tf.cohort import paired, plans
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
from histospace_tf.config import changed
from histospace_tf.data_pipelines import datasets, simulation, stain
from histospace_tf.models import autoencoder
from histospace_tf.models.peers import efficientnet_b0, hist2st, histogene, st_net
from histospace_tf.predictors import epoch_choice, registry, section_networks, tile_networks
from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.reports import score_table
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config
from made.tissue import panel, section

pytestmark = pytest.mark.slow

TINY_NET = st_net.Size(tile_px=32, stem=4, blocks=(1, 1), growth=2)
TINY_HISTOGENE = histogene.Size(tile_px=8, width=8, blocks=1, heads=1, hidden=8)
TINY_HIST2ST = hist2st.Size(tile_px=14, channels=8, mixers=1, blocks=1, heads=1, graphs=1, views=1)
CONFIG = tiny_config(
    tiles__tile_px=48,
    tiles__mpp=2.0,
    stain__method="macenko",
    regressor__architecture="pooled",
    regressor__inner_folds=1,
    peers__epochs=2,
)
TRAIN = np.arange(24)  # A1 and B1; C1 is held out


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st_net, "SMALL", TINY_NET)
    monkeypatch.setattr(histogene, "SMALL", TINY_HISTOGENE)
    monkeypatch.setattr(hist2st, "SMALL", TINY_HIST2ST)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedSpots:
    folder = tmp_path_factory.mktemp("encoded")
    sections = [
        section(name, name[0], folder=folder, seed=seed, spots_xy=(4, 3))
        for seed, name in enumerate(("A1", "B1", "C1"))
    ]
    uncut = paired.PairedSpots.of(sections, CONFIG)
    spots = paired.cut_tiles(uncut, CONFIG, folder / "work", pretrain_on=[])
    keras.utils.set_random_seed(0)
    encoder = TrainedEncoder(
        autoencoder.build_encoder(3), stain.canonical_stains("macenko"), [], {}
    )
    return EncodedSpots(spots, encoder, CONFIG, folder)


@pytest.fixture
def side(encoded: EncodedSpots) -> TrainingSpots:
    measured = np.full((36, len(panel())), np.nan, np.float32)
    measured[TRAIN] = np.random.default_rng(0).uniform(0, 4, (24, len(panel())))
    nothing = np.zeros((0, 0))
    return TrainingSpots(encoded, TRAIN, panel(), measured, nothing, nothing, nothing)


def entry(name: str) -> PeerNetwork:
    one = registry.entry(name)
    assert isinstance(one, PeerNetwork)
    return one


def session(folder: Path) -> Session:
    return Session(tf.distribute.get_strategy(), 0, False, folder)


def test_st_net_learns_its_own_unit_as_published_and_answers_in_the_panels(
    encoded: EncodedSpots,
    side: TrainingSpots,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []
    train = training.train

    def watched(build: Any, data: Any, schedule: Any, *given: Any, **named: Any) -> Any:
        batches = list(data(0))
        asked.append((schedule, batches, named))
        return train(build, data, schedule, *given, **named)

    monkeypatch.setattr(training, "train", watched)
    # The panel's unit is log10: ST-Net's logarithm is natural.
    settings = changed(CONFIG, target__normalisation="library_size_log10")
    fitted = entry("st_net").fit(side, settings, session(tmp_path))

    assert [named["stage"] for _, _, named in asked] == ["st_net_inner1", "st_net"]
    for schedule, _, named in asked:
        assert (schedule.momentum, schedule.learning_rate) == (0.9, 0.1)
        assert schedule.loss.name == "mse"
        has_inner = named["validation"] is not None
        assert schedule.patience == (settings.regressor.patience if has_inner else None)
    inner, whole = (np.concatenate([wanted for _, wanted in batches]) for _, batches, _ in asked)
    assert (len(inner), len(whole)) == (12, 24)
    own_unit = side.measured[TRAIN] * math.log(10)
    order = np.lexsort(whole.T), np.lexsort(own_unit.T)
    np.testing.assert_allclose(whole[order[0]], own_unit[order[1]], rtol=1e-6)
    assert asked[0][1][0][0].shape == (12, 32, 32, 3)

    assert fitted.choice is not None
    assert {**fitted.choice, "epochs": 0, "parameters": 0} == {
        "epochs": 0,
        "most": 2,
        "by": epoch_choice.MONITOR,
        "size": "small",
        "parameters": 0,
        "weights": "random",
    }
    assert {"loss", "val_loss", "val_gene_r", "val_spot_r"} <= set(fitted.history[0])
    printed = capsys.readouterr()
    assert "random weights, not ImageNet's: there are none for its small size" in (
        printed.out + printed.err
    )

    # Its prediction: eight symmetries of the published 224 px, shrunk, by hand.
    (group,) = [encoded.tiles(tile_px=224, mpp="image", shown_px=32)[2]]
    tiles = tf.constant(group.normalised(np.arange(12)).astype(np.float32) / 255)
    each = [
        np.asarray(fitted.network(datasets.in_symmetry(tiles, tf.constant(code)), training=False))
        for code in range(8)
    ]
    spots = SpotsOfSection(encoded, 2, np.arange(24, 36), panel())
    np.testing.assert_allclose(
        fitted.predict(spots), np.mean(each, axis=0) / math.log(10), rtol=1e-4, atol=1e-5
    )


def test_untrained_st_net_says_the_training_mean(side: TrainingSpots) -> None:
    one = entry("st_net")
    recipe = one.recipe(changed(CONFIG, peers__epochs=7).peers, genes=len(panel()))
    assert (recipe.training.epochs, recipe.cut_px, recipe.size) == (7, 224, TINY_NET)
    network = one.examples(side, side.measured, recipe).build(TRAIN[:5], synchronized=False)
    np.testing.assert_allclose(
        network(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)),
        np.broadcast_to(side.measured[:5].mean(axis=0), (2, len(panel()))),
        rtol=1e-5,
    )


def test_published_settings_are_those_of_the_publication() -> None:
    settings = changed(CONFIG, peers__size="published", peers__epochs=0, peers__weights="random")
    for name, module, epochs in (("st_net", st_net, 50), ("efficientnet_b0", efficientnet_b0, 30)):
        recipe = entry(name).recipe(settings.peers, genes=3)
        assert recipe.training == module.TRAINING
        assert (recipe.size, recipe.training.epochs) == (module.PUBLISHED, epochs)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refused(*_: object, **__: object) -> None:
        raise InputError("ImageNet weights cannot be fetched (no network)")

    tile_networks._why_not_fetched.cache_clear()
    monkeypatch.setattr(st_net, "build", refused)
    yield
    tile_networks._why_not_fetched.cache_clear()


def test_weights_that_cannot_be_fetched_are_random_and_that_is_said(
    unreachable: None, capsys: pytest.CaptureFixture[str]
) -> None:
    one = entry("st_net")
    recipe = one.recipe(changed(CONFIG, peers__size="published").peers, genes=3)
    assert recipe.weights is None
    printed = capsys.readouterr()
    assert "random weights, not ImageNet's: ImageNet weights cannot be fetched" in (
        printed.out + printed.err
    )
    scores = {
        "sections": {"C1": {"rows": {"st_net": {"gene_r": 0.1}}}},
        "chosen": [{"predictor": "st_net", "size": "published", **one.facts(recipe)}],
    }
    (line,) = score_table.trained(scores)
    assert line.startswith("ST-Net: He et al. 2020")
    assert line.endswith("; started from random weights.")
    assert "small" not in line
    scores["chosen"] = [{"predictor": "st_net", "size": "small", "weights": "imagenet"}]
    (line,) = score_table.trained(scores)
    assert "its small size, not the published network; started from ImageNet's weights." in line


def test_weights_that_cannot_be_used_are_refused_early(tmp_path: Path) -> None:
    one, file = entry("efficientnet_b0"), tmp_path / "weights.h5"
    with pytest.raises(InputError, match=r'"peers.weights" is .*no such file; "imagenet", "random'):
        one.refuse(changed(CONFIG, peers__weights=str(file)))
    file.touch()
    with pytest.raises(InputError, match=r'"peers.size" is \'small\'.*fit "published" alone'):
        one.refuse(changed(CONFIG, peers__weights=str(file)))
    one.refuse(changed(CONFIG, peers__weights=str(file), peers__size="published"))
    one.refuse(CONFIG)


def test_a_spots_place_on_the_grid_comes_from_the_image_alone() -> None:
    square = np.stack(np.meshgrid(np.arange(5), np.arange(3)), axis=-1).reshape(-1, 2)
    shifted = square[[0, *range(2, 15)]] * 290.0 + [1000, 77]  # one spot is missing
    jittered = shifted + np.random.default_rng(0).uniform(-40, 40, shifted.shape)
    places = section_networks.grid_positions(jittered)
    np.testing.assert_array_equal(places, square[[0, *range(2, 15)]])
    assert section_networks.grid_positions(np.array([[3.0, 4.0]])).tolist() == [[0, 0]]


def test_more_spots_in_a_line_than_places_are_refused(
    side: TrainingSpots, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entry("histogene")
    monkeypatch.setattr(histogene, "SMALL", dataclasses.replace(TINY_HISTOGENE, places=3))
    recipe = one.recipe(CONFIG.peers, genes=len(panel()))
    with pytest.raises(InputError, match=r"section 'A1': 3 of 12 spots lie outside .* 3 columns"):
        one.examples(side, side.measured, recipe)


def test_a_network_has_columns_and_rows_for_the_largest_section_and_the_published_at_least(
    encoded: EncodedSpots, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entry("histogene")
    recipe = one.recipe(CONFIG.peers, genes=len(panel()))
    assert one.sized(recipe, encoded).size == recipe.size
    monkeypatch.setattr(histogene, "SMALL", dataclasses.replace(TINY_HISTOGENE, places=3))
    sized = one.sized(one.recipe(CONFIG.peers, genes=len(panel())), encoded)
    assert sized.size == dataclasses.replace(TINY_HISTOGENE, places=4)
    assert one.facts(sized) == {"places": 4}
    assert "78 columns and rows, for the published 64 are few" in one.note_of({"places": 78})
    assert "columns" not in one.note_of({"places": 64})


def test_a_section_beyond_the_places_is_predicted_in_windows_as_if_each_were_a_section(
    encoded: EncodedSpots,
) -> None:
    one = entry("histogene")
    assert isinstance(one, section_networks.SectionNetwork)
    small = dataclasses.replace(TINY_HISTOGENE, places=3)
    recipe = dataclasses.replace(one.recipe(CONFIG.peers, genes=len(panel())), size=small)
    keras.utils.set_random_seed(0)
    network = histogene.build(len(panel()), small)
    tiles, rows = recipe.tiles(encoded), np.arange(24, 36)
    places = section_networks.grid_positions(encoded.spots.index.centres_px[rows])
    assert places.max(axis=0).tolist() == [3, 2]
    values = one.predicted_at(network, recipe, tiles, rows, places)
    left, right = places[:, 0] < 3, places[:, 0] > 0

    def alone(inside: np.ndarray, shift: int) -> np.ndarray:
        at = places[inside] - [shift, 0]
        return one.predicted_at(network, recipe, tiles, rows[inside], at)

    both = np.zeros((12, 2, len(panel())))
    both[left, 0], both[right, 1] = alone(left, 0), alone(right, 1)
    np.testing.assert_allclose(values[~right], both[~right, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values[~left], both[~left, 1], rtol=1e-4, atol=1e-5)
    middle = left & right
    np.testing.assert_allclose(values[middle], both[middle].mean(axis=1), rtol=1e-4, atol=1e-5)


def test_hist2st_takes_a_section_a_batch_with_its_counts_and_neighbours(
    side: TrainingSpots,
) -> None:
    one = entry("hist2st")
    recipe = one.recipe(CONFIG.peers, genes=len(panel()))
    examples = one.examples(side, side.measured, recipe)
    assert isinstance(examples.loss, hist2st.Hist2STLoss)
    rows = np.arange(3, 24)  # nine spots of A1 and B1
    first, second = examples.batches(rows)
    assert examples.steps(rows) == 2
    inputs, targets = first
    assert {name: part.shape.as_list() for name, part in inputs.items()} == {
        "tile": [1, 9, 14, 14, 3],
        "position": [1, 9, 2],
        "neighbours": [1, 9, 9],
    }
    genes = len(panel())
    np.testing.assert_array_equal(examples.expression(targets.numpy()[0]), side.measured[3:12])
    table = side.encoded.spots.spots_of(0, rows)
    counts = table.counts[:, [table.genes.index(gene) for gene in panel().genes]].toarray()
    np.testing.assert_array_equal(targets[0, :, genes : 2 * genes], counts)
    assert second[0]["tile"].shape[1] == 12
    shuffled = {
        tuple(int(batch[1].shape[1]) for batch in examples.batches(rows, (0, epoch)))
        for epoch in range(8)
    }
    assert shuffled == {(9, 12), (12, 9)}


@pytest.mark.parametrize("name", ["histogene", "hist2st"])
def test_networks_of_sections_are_asked_about_all_spots_at_once(
    name: str, encoded: EncodedSpots, side: TrainingSpots
) -> None:
    one = entry(name)
    recipe = one.recipe(CONFIG.peers, genes=len(panel()))
    keras.utils.set_random_seed(0)
    network = one.examples(side, side.measured, recipe).build(TRAIN, synchronized=False)

    def said(rows: np.ndarray) -> np.ndarray:
        return one.predicted(network, recipe, SpotsOfSection(encoded, 2, rows, panel()))

    every = np.arange(24, 36)
    values = said(every)
    assert values.shape == (12, len(panel()))
    np.testing.assert_array_equal(values, said(every))
    # Another spot's tile has a say.
    assert not np.allclose(said(every[:6]), values[:6], atol=1e-4)
    if name == "histogene":  # Hist2ST's neighbours of equal distance are taken in order
        np.testing.assert_allclose(said(every[::-1])[::-1], values, rtol=1e-3, atol=1e-4)


def test_they_stand_in_tables_curves_and_maps_of_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line on simulated tissue, one fold of two."""
    simulation.simulate(tmp_path / "tissue", patients=2, spots_xy=(4, 4), seed=7)
    folds = plans.outer_folds
    monkeypatch.setattr(plans, "outer_folds", lambda *given: folds(*given)[:1])
    settings = tmp_path / "config.json"
    config = tiny_config(
        tiles__tile_px=32,
        target__genes=4,
        regressor__architecture="pooled",
        regressor__inner_folds=1,
        autoencoder__tiles=8,
        peers__epochs=2,
    )
    settings.write_text(json.dumps(config.to_json()))
    names = ("st_net", "histogene", "hist2st")
    out = tmp_path / "out"
    done = CliRunner().invoke(
        main,
        [
            *("evaluate", str(tmp_path / "tissue"), "--out", str(out), "--no-complexities"),
            *("--config", str(settings)),
            *(word for name in names for word in ("--compare", name)),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "ST-Net: He et al. 2020" in done.output
    assert "started from random weights" in done.output.replace("\n  ", " ")
    scores = json.loads((out / "scores.json").read_text())
    assert all(scores["mean"][name]["mse"] > 0 for name in names)
    chosen = {one["predictor"]: one for one in scores["chosen"]}
    assert {name: chosen[name]["size"] for name in names} == dict.fromkeys(names, "small")
    history = pd.read_csv(out / "history.csv")
    for name in names:
        for stage, column in ((f"{name}_inner1", "val_gene_r"), (name, "loss")):
            assert np.isfinite(history.loc[history["stage"] == stage, column]).all(), stage
    assert set(names) <= set(anndata.read_h5ad(out / "predictions.h5ad").layers)
    assert set(names) <= set(pd.read_csv(out / "gene_scores.csv"))
    assert "Hist2ST" in (out / "figures" / "learning_heads.svg").read_text()
    groups = pd.read_csv(out / "figures" / "expression_by_group.csv")
    assert {"measured", "predicted", *names} == set(groups["values"])

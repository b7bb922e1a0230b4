"""Published networks as rivals: trained on a fold, in the panel's unit, at their own best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import training
from histospace_tf.cohort import paired
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
from histospace_tf.config import changed
from histospace_tf.data_pipelines import datasets, stain
from histospace_tf.models import autoencoder
from histospace_tf.models.peers import efficientnet_b0, st_net
from histospace_tf.predictors import epoch_choice, registry, tile_networks
from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.reports import score_table
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config
from made.tissue import panel, section

pytestmark = pytest.mark.slow

TINY_NET = st_net.Size(tile_px=32, stem=4, blocks=(1, 1), growth=2)
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

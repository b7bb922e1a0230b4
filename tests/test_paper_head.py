"""The paper's head as a rival: its own training, tiles and unit on the run's frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import presets
from histospace_tf.cohort import paired
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
from histospace_tf.config import changed
from histospace_tf.data_pipelines import datasets, stain
from histospace_tf.models import autoencoder
from histospace_tf.predictors import head_training, paper, registry
from histospace_tf.predictors.head_training import TrainedHead
from histospace_tf.presets import preset
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config
from made.tissue import panel, section

pytestmark = pytest.mark.slow

CONFIG = tiny_config(tiles__tile_px=72, tiles__mpp=2.0, stain__method="macenko")
TRAIN = np.arange(12)  # A1; B1 is held out


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedSpots:
    folder = tmp_path_factory.mktemp("encoded")
    sections = [
        section(name, name[0], folder=folder, seed=seed, spots_xy=(4, 3))
        for seed, name in enumerate(("A1", "B1"))
    ]
    uncut = paired.PairedSpots.of(sections, CONFIG)
    spots = paired.cut_tiles(uncut, CONFIG, folder / "work", pretrain_on=[])
    keras.utils.set_random_seed(0)
    encoder = TrainedEncoder(
        autoencoder.build_encoder(3), stain.canonical_stains("macenko"), [], {}
    )
    return EncodedSpots(spots, encoder, CONFIG, folder)


def training_spots(encoded: EncodedSpots, measured: np.ndarray) -> TrainingSpots:
    known = np.full_like(measured, np.nan)
    known[TRAIN] = measured[TRAIN]
    nothing = np.zeros((0, 0))
    return TrainingSpots(encoded, TRAIN, panel(), known, nothing, nothing, nothing)


def test_tiles_of_an_images_own_scale_are_cut_pixel_for_pixel(encoded: EncodedSpots) -> None:
    """Not at the run's scale, which None stands for."""
    (first, _) = encoded.tiles(tile_px=24, mpp="image")
    (same, _) = encoded.tiles(tile_px=24, mpp=encoded.spots.prepared[0].mpp)
    (run, _) = encoded.tiles(tile_px=24)
    np.testing.assert_array_equal(np.asarray(first.tiles), np.asarray(same.tiles))
    assert not np.array_equal(np.asarray(first.tiles), np.asarray(run.tiles))


@pytest.mark.parametrize("unit", ["library_size_log1p", "library_size_log10"])
def test_it_learns_the_papers_unit_with_the_papers_settings_and_answers_in_the_panels(
    encoded: EncodedSpots, unit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions = np.random.default_rng(0).uniform(0, 1e-2, (24, len(panel())))
    logarithm = {"library_size_log1p": np.log, "library_size_log10": np.log10}[unit]
    measured = logarithm(1 + 1e4 * fractions).astype(np.float32)
    seen: list[Any] = []

    def pretended(
        data: Any, rows: np.ndarray, settings: Any, session: Session, **given: Any
    ) -> Any:
        seen.append((data, rows, settings, session.checkpoints, given))
        maps = keras.Input(data.inputs["features"].shape[2:], name="features")
        flat = keras.layers.Flatten()(maps)
        # It says 0.5 of every gene, in the paper's unit.
        half = keras.initializers.Constant(0.5)
        constant = keras.layers.Dense(
            len(panel()), kernel_initializer="zeros", bias_initializer=half
        )
        return TrainedHead(keras.Model(maps, constant(flat)), 50, None, [], [], 50)

    monkeypatch.setattr(head_training, "train_head", pretended)
    session = Session(tf.distribute.get_strategy(), 0, False, tmp_path)
    settings = changed(CONFIG, target__normalisation=unit)
    fitted = paper.PaperHead().fit(training_spots(encoded, measured), settings, session)
    ((data, rows, used, checkpoints, given),) = seen
    assert used == preset("paper").regressor
    assert (used.loss, used.huber_delta, used.learning_rate, used.decay) == (
        "huber",
        1,
        1e-4,
        "none",
    )
    assert (used.batch_size, used.epochs, used.epoch_choice) == (32, 50, "fixed")
    assert (used.hidden_width, used.hidden_activation, used.factors) == (256, "linear", 0)
    assert (given, checkpoints) == ({"stage": "paper"}, tmp_path / "compared")
    np.testing.assert_array_equal(rows, TRAIN)
    # float32 logarithms
    np.testing.assert_allclose(data.targets[TRAIN], np.log10(1 + 1e4 * fractions[TRAIN]), rtol=1e-5)
    assert np.isnan(data.targets[len(TRAIN) :]).all()  # nothing of the held-out side

    # 128 px at the image's own scale, recoloured, through the run's encoder: by hand.
    (tiles, _) = encoded.tiles(tile_px=128, mpp="image")
    by_hand = datasets.normalised_rows([tiles], np.arange(2)).astype(np.float32) / 255
    encoder = encoded.encoder.encoder
    assert encoder is not None
    wanted = np.asarray(encoder(by_hand, training=False))
    assert data.inputs["features"].shape == (24, 1, 16, 16, 128)
    # kept as float16
    np.testing.assert_allclose(data.inputs["features"][:2, 0], wanted, rtol=2e-3, atol=2e-3)

    spots = SpotsOfSection(encoded, 1, np.arange(12, 24), panel())
    assert fitted.predict(spots) == pytest.approx(float(logarithm(10**0.5)), rel=1e-6)
    assert fitted.choice == {"epochs": 50, "most": 50, "by": "fixed"}


def test_a_run_whose_own_head_it_is_refuses_it() -> None:
    rival = registry.entry("paper")
    assert rival is not None
    papers = preset("paper")
    with pytest.raises(InputError, match="`compare` paper: that head is trained"):
        rival.refuse(changed(papers, seed=3, target__genes=7))
    for other in (
        preset("recommended"),
        presets.with_architecture(preset("recommended"), "flatten"),
        changed(papers, target__scale=True),
        changed(papers, regressor__epochs=3),
    ):
        rival.refuse(other)

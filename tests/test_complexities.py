"""Learning curves of three autoencoders and three heads: what they see, and what is recorded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.cohort import paired, pretraining
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.sides import TrainingSpots
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import datasets, recolouring, stain
from histospace_tf.folds import complexities
from histospace_tf.folds.complexities import Budget
from histospace_tf.models import autoencoder
from histospace_tf.presets import preset
from histospace_tf.requests import EvaluateRequest
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config
from made.tissue import panel, section

pytestmark = pytest.mark.slow

CONFIG = tiny_config(
    seed=2,
    tiles__tile_px=72,
    tiles__mpp=1.0,
    stain__method="macenko",
    autoencoder__tile_px=16,
    autoencoder__tiles=60,
)
BUDGET = Budget(tiles=24, autoencoder_epochs=2, spots=16, head_epochs=2, patience=2, shown=3)
STAGES = [f"{kind}_{number}" for kind in ("autoencoder", "head") for number in (1, 2, 3)]
SECTIONS = ("A1", "A2", "B1", "C1")


@dataclasses.dataclass
class Made:
    """What a run has at hand when it calls a study; section C1 is held out."""

    tiles: pretraining.PretrainingTiles
    spots: paired.PairedSpots
    targets: np.ndarray
    rows: np.ndarray
    encoder: keras.Model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    sections = [
        section(name, name[0], folder=folder, seed=seed, spots_xy=(4, 3))
        for seed, name in enumerate(SECTIONS)
    ]
    uncut = paired.PairedSpots.of(sections, CONFIG)
    spots = paired.cut_tiles(uncut, CONFIG, folder / "work", pretrain_on=[0, 1, 2])
    keras.utils.set_random_seed(0)
    return Made(
        tiles=pretraining.collect_tiles(CONFIG, None, spots.prepared[:3]),
        spots=spots,
        targets=np.random.default_rng(0).normal(size=(len(spots), 4)).astype(np.float32),
        rows=np.arange(36),
        encoder=autoencoder.build_encoder(3),
    )


def studied(
    made: Made,
    folder: Path,
    *,
    config: Config = CONFIG,
    tiles: pretraining.PretrainingTiles | str | None = "made",
    budget: Budget = BUDGET,
    resume: bool = False,
    **changes: Any,
) -> complexities.Study:
    """`changes` are of the training side: spots, targets, rows."""
    given = {"spots": made.spots, "targets": made.targets, "rows": made.rows, **changes}
    encoder = pretraining.TrainedEncoder(made.encoder, made.tiles.reference, [], {})
    nothing = np.zeros((0, 0))
    side = TrainingSpots(
        EncodedSpots(given["spots"], encoder, config, folder),
        rows=given["rows"],
        panel=panel(),
        measured=nothing,
        targets=given["targets"],
        weights=nothing,
        levels=nothing,
    )
    session = Session(tf.distribute.get_strategy(), config.seed, resume, folder)
    chosen = made.tiles if isinstance(tiles, str) else tiles
    return complexities.study(config, chosen, side, session, budget=budget)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def study(made: Made, folder: Path) -> complexities.Study:
    return studied(made, folder)


def test_every_stage_has_a_whole_curve(study: complexities.Study) -> None:
    stages = [row["stage"] for row in study.history]
    assert stages == [stage for stage in STAGES for _ in range(2)]
    for row in study.history:
        assert {"epoch", "loss", "val_loss", "learning_rate", "seconds"} <= set(row)
        assert np.isfinite([row["loss"], row["val_loss"]]).all()
        for name in ("gene_r", "spot_r", "val_gene_r", "val_spot_r"):
            assert (name in row) == row["stage"].startswith("head")
            assert -1 <= row.get(name, 0) <= 1


def test_summary_is_json_and_names_its_data(study: complexities.Study) -> None:
    summary = json.loads(json.dumps(study.summary, allow_nan=False))
    assert list(summary["autoencoders"]) == list(summary["heads"]) == ["1", "2", "3"]
    for number in (1, 2, 3):
        rows = [row for row in study.history if row["stage"] == f"autoencoder_{number}"]
        error = summary["autoencoders"][str(number)]["validation_mse"]
        assert error == min(row["val_loss"] for row in rows)
        rows = [row for row in study.history if row["stage"] == f"head_{number}"]
        head = summary["heads"][str(number)]
        best = max(rows, key=lambda row: row["val_mean_r"])  # as `epoch_choice` "inner" chooses
        assert head["best_epoch"] == best["epoch"]
        assert head["best_val_gene_r"] == best["val_gene_r"]
    assert summary["budget"] == dataclasses.asdict(BUDGET)
    assert summary["tiles"]["tiles"] == 24
    spots = summary["spots"]
    assert spots["train"] + spots["validation"] == 16
    assert spots["kind"] == "patient"
    assert set(spots["validation_groups"]) <= {"A", "B"}  # C is held out
    assert spots["tile_px"] == 72


def test_parameters_are_the_papers_three_complexities(study: complexities.Study) -> None:
    # A map of 9 x 9: convolution blocks of 3 x 3 x 128 x 128 weights, biases and batch
    # normalisation's four vectors; flattened; a dense layer that widens; four genes.
    for blocks, side, width in ((1, 4, 256), (2, 2, 1024), (3, 1, 4096)):
        convolutions = blocks * (9 * 128 * 128 + 128 + 4 * 128)
        wanted = convolutions + side * side * 128 * width + width + width * 4 + 4
        head = study.summary["heads"][str(blocks)]
        assert (head["parameters"], head["hidden_units"]) == (wanted, width)
        assert (head["epochs"], head["turned"]) == (2, False)


def test_reconstructions_are_of_validation_tiles(
    made: Made, study: complexities.Study, tmp_path: Path
) -> None:
    study.write(tmp_path)
    with np.load(tmp_path / complexities.RECONSTRUCTIONS) as file:
        kept = dict(file)
    assert sorted(kept) == ["tiles", "variant_1", "variant_2", "variant_3"]
    for images in kept.values():
        assert images.shape == (3, 16, 16, 3)
        assert images.dtype == np.uint8
    held = study.summary["tiles"]["validation_sources"]
    groups = [
        group
        for group, source in zip(made.tiles.groups, made.tiles.sources, strict=True)
        if source in held
    ]
    rows = np.arange(sum(len(group) for group in groups))
    known = {tile.tobytes() for tile in datasets.normalised_rows(groups, rows)}
    assert {tile.tobytes() for tile in kept["tiles"]} <= known
    assert not np.array_equal(kept["variant_1"], kept["variant_2"])


def test_held_out_spots_change_nothing(
    made: Made, study: complexities.Study, tmp_path: Path
) -> None:
    targets = made.targets.copy()
    targets[36:] += 5
    other = studied(made, tmp_path, spots=with_other_held_out(made), targets=targets)
    assert without_times(study) == without_times(other)
    np.testing.assert_array_equal(study.tiles, other.tiles)
    assert study.summary == other.summary


def with_other_held_out(made: Made) -> paired.PairedSpots:
    held = made.spots.prepared[3]
    other = dataclasses.replace(held, spot_tiles=255 - np.asarray(held.spot_tiles))
    return dataclasses.replace(made.spots, prepared=(*made.spots.prepared[:3], other))


def test_a_finished_study_is_read_again(
    made: Made, study: complexities.Study, folder: Path
) -> None:
    again = studied(made, folder, resume=True)
    assert again.history == study.history  # the times, too: nothing was trained
    for variant, images in study.reconstructions.items():
        np.testing.assert_array_equal(again.reconstructions[variant], images)


def test_encoder_and_arguments_stay_as_they_are(made: Made, study: complexities.Study) -> None:
    assert made.encoder.trainable
    keras.utils.set_random_seed(0)
    for mine, fresh in zip(
        made.encoder.get_weights(), autoencoder.build_encoder(3).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, fresh)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records the settings of every training and lets none happen."""
    seen: list[Any] = []

    def pretended(build: Any, data: Any, schedule: Any, session: Any, **given: Any) -> Any:
        seen.append((build(), schedule, session.checkpoints))
        row = {"val_gene_r": 0.1, "val_spot_r": 0.2, "val_mean_r": 0.15, "val_loss": 0.3}
        return complexities.training.Trained(seen[-1][0], [row], 1, False)

    monkeypatch.setattr(complexities.training, "train", pretended)
    return seen


def test_without_tiles_the_centres_of_training_spots_are_taken(
    made: Made, no_training: list[Any], tmp_path: Path
) -> None:
    found = studied(made, tmp_path, tiles=None)
    assert found.summary["tiles"]["images"] == "the training spots"
    assert found.summary["tiles"]["tiles"] == BUDGET.tiles
    (held,) = found.summary["tiles"]["validation_sources"]
    known = {
        recolouring.normalise(
            np.ascontiguousarray(tile[28:44, 28:44]), part.stains, made.tiles.reference
        ).tobytes()
        for part in made.spots.prepared[:3]
        if part.patient == held
        for tile in part.spot_tiles
    }
    assert {tile.tobytes() for tile in found.tiles} <= known


def test_heads_that_do_not_fit_small_tiles_are_left_out(
    made: Made, no_training: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small = [
        dataclasses.replace(part, spot_tiles=np.asarray(part.spot_tiles)[:, :40, :40])
        for part in made.spots.prepared
    ]
    config = changed(CONFIG, tiles__tile_px=40)
    found = studied(
        made, tmp_path, config=config, spots=dataclasses.replace(made.spots, prepared=tuple(small))
    )
    assert list(found.summary["heads"]) == ["1", "2"]
    assert "room for 2 convolution block(s)" in capsys.readouterr().err


def test_a_flatten_head_of_the_configuration_is_the_one_that_is_studied(
    made: Made, no_training: list[Any], tmp_path: Path
) -> None:
    config = changed(
        CONFIG,
        regressor=dataclasses.replace(
            preset("paper").regressor, hidden_units=8, learning_rate=0.5, conv_blocks=3, patience=1
        ),
    )
    studied(made, tmp_path, config=config)
    for head, schedule, _ in no_training[3:]:
        assert head.get_layer("hidden").units == 8
        assert (schedule.learning_rate, schedule.epochs, schedule.patience) == (0.5, 2, 2)
    assert [checkpoints for *_, checkpoints in no_training] == [tmp_path / s for s in STAGES]


def test_tiles_are_drawn_from_all_groups() -> None:
    stains = stain.canonical_stains("macenko")
    numbered = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    groups = [
        datasets.StainedTiles(part, stains, stains) for part in np.split(numbered, [2, 12, 12])
    ]
    tiles = pretraining.PretrainingTiles(groups, ["a", "b", "none", "c"], stains, "made")
    few = pretraining.limited(tiles, 15, seed=1)
    values = np.concatenate([np.asarray(group.tiles)[:, 0, 0, 0] for group in few.groups])
    assert len(values) == 15
    assert list(values) == sorted(set(values.tolist()))
    for group, source in zip(few.groups, few.sources, strict=True):
        inside = {"a": range(2), "b": range(2, 12), "c": range(12, 30)}[source]
        assert set(np.asarray(group.tiles)[:, 0, 0, 0].tolist()) <= set(inside)
    assert pretraining.limited(tiles, 100, seed=1).sources == ["a", "b", "c"]
    with pytest.raises(InputError, match="at least 2"):
        pretraining.limited(dataclasses.replace(tiles, groups=[], sources=[]), 5, seed=0)


def test_curves_end_where_they_turned(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head's by both correlations and an autoencoder's by its loss, whole in history."""
    real = complexities.training.train
    worse = iter([0.9, 0.5, 0.7, 0.6, *[0.1] * 99])

    def declining(*arguments: Any, validation: Any, **given: Any) -> Any:
        if given["stage"].startswith("head"):
            scores = lambda *_: dict.fromkeys(  # noqa: E731
                ("val_gene_r", "val_spot_r", "val_mean_r"), next(worse)
            )
            validation = dataclasses.replace(validation, scores=scores)
        return real(*arguments, validation=validation, **given)

    monkeypatch.setattr(complexities.training, "train", declining)
    monkeypatch.setattr(complexities, "CONV_BLOCKS", (1,))
    budget = dataclasses.replace(BUDGET, autoencoder_epochs=1, head_epochs=9, patience=3)
    found = studied(made, tmp_path, budget=budget)
    curve = [row["val_mean_r"] for row in found.history if row["stage"] == "head_1"]
    assert curve == [0.9, 0.5, 0.7, 0.6]
    head = found.summary["heads"]["1"]
    assert (head["epochs"], head["turned"], head["best_epoch"]) == (4, True, 1)
    assert not found.summary["autoencoders"]["1"]["turned"]


def test_epochs_that_are_asked_for_bound_autoencoders_and_heads_alike() -> None:
    assert Budget.of(None) == Budget()
    assert Budget.of(7) == Budget(autoencoder_epochs=7, head_epochs=7)
    (asked,) = (option for option in EvaluateRequest.listed() if option.name == "study_epochs")
    own = Budget()
    assert asked.unset == f"{own.autoencoder_epochs} of autoencoders, {own.head_epochs} of heads"


@pytest.mark.parametrize(
    "setting", ["tiles", "spots", "head_epochs", "autoencoder_epochs", "patience"]
)
def test_a_budget_of_nothing_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match=f'"budget.{setting}" is 0'):
        Budget(**{setting: 0})


def test_a_training_side_of_one_spot_is_refused(
    made: Made, no_training: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be split"):
        studied(made, tmp_path, rows=np.array([3]))


def without_times(study: complexities.Study) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in study.history]

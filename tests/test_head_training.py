"""Training of heads: the epoch is chosen on inner groups, and held-out spots take no part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import head_training, training
from histospace_tf.config import Config, RegressorConfig, changed, preset
from histospace_tf.data_pipelines import splits
from histospace_tf.models import regressor
from histospace_tf.vocabulary import InputError

F, GENES, EACH = 5, 3, 8
SECTIONS = ("A1", "A2", "B1", "C1")
N = EACH * len(SECTIONS)
TRAIN = np.arange(N - EACH)  # C1 is held out
SETTINGS = RegressorConfig(
    architecture="pooled", hidden_units=4, epochs=3, batch_size=8, inner_folds=2, patience=2
)
CONFIG = changed(
    preset("recommended"),
    seed=4,
    regressor=dataclasses.replace(SETTINGS, architecture="context", inner_folds=1, epochs=2),
)


@pytest.fixture(scope="module")
def index() -> splits.SpotIndex:
    return splits.SpotIndex(
        section=np.repeat(SECTIONS, EACH),
        patient=np.repeat([name[0] for name in SECTIONS], EACH),
        centres_px=np.random.default_rng(0).uniform(0, 900, (N, 2)),
        gap_px=np.full(N, 10.0),
    )


def made_inputs(*, held_out_seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and targets of all spots; `held_out_seed` changes those of C1 alone."""
    shapes = {
        "features": (8, F),
        **{name: (F,) for name in regressor.CONTEXT_INPUTS if name != "features"},
        "targets": (GENES,),
    }
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        own, other = np.random.default_rng(number), np.random.default_rng((number, held_out_seed))
        made[name] = np.concatenate(
            [own.uniform(0.5, 2, (len(TRAIN), *shape)), other.uniform(0.5, 2, (EACH, *shape))]
        ).astype(np.float32)
    targets = made.pop("targets")
    return made, targets


def heads(index: splits.SpotIndex, folder: Path, **options: Any) -> list[head_training.TrainedHead]:
    inputs, targets = made_inputs(**options)
    return head_training.train_heads(
        inputs,
        targets,
        index,
        TRAIN,
        CONFIG,
        strategy=tf.distribute.get_strategy(),
        checkpoint=folder,
        resume=False,
    )


@pytest.fixture(scope="module")
def trained(
    index: splits.SpotIndex, tmp_path_factory: pytest.TempPathFactory
) -> list[head_training.TrainedHead]:
    return heads(index, tmp_path_factory.mktemp("heads"))


def test_a_head_in_context_has_a_single_tile_head_beside_it(
    trained: list[head_training.TrainedHead],
) -> None:
    own, single = trained
    assert {tensor.name for tensor in own.head.inputs} == set(regressor.CONTEXT_INPUTS)
    assert [tensor.name for tensor in single.head.inputs] == ["features"]
    for made in trained:
        assert made.head.output.shape == (None, GENES)


def test_history_names_each_training_and_scores_inner_spots(
    trained: list[head_training.TrainedHead],
) -> None:
    for made, name in zip(trained, ("context", "pooled"), strict=True):
        inner = [row for row in made.history if row["stage"] == f"{name}_inner1"]
        last = [row for row in made.history if row["stage"] == name]
        assert len(inner) + len(last) == len(made.history)
        assert len(last) == made.epochs <= CONFIG.regressor.epochs
        for row in inner:
            assert {"val_loss", "val_gene_r", "val_spot_r"} <= set(row)
            assert -1 <= row["val_gene_r"] <= 1
        assert all("val_loss" not in row for row in last)


def test_held_out_features_and_targets_leave_the_heads_bytewise_unchanged(
    index: splits.SpotIndex, trained: list[head_training.TrainedHead], tmp_path: Path
) -> None:
    inputs, targets = made_inputs(held_out_seed=1)
    assert not np.array_equal(targets, made_inputs()[1])
    assert not np.array_equal(inputs["slide_mean"], made_inputs()[0]["slide_mean"])
    again = heads(index, tmp_path, held_out_seed=1)
    for one, other in zip(trained, again, strict=True):
        assert one.epochs == other.epochs
        for mine, theirs in zip(one.head.get_weights(), other.head.get_weights(), strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_feature_scale_is_that_of_the_training_spots(
    trained: list[head_training.TrainedHead],
) -> None:
    known = made_inputs()[0]["features"][TRAIN].reshape(-1, F)
    layer = trained[1].head.get_layer("feature_scale")
    # float64 moments kept as float32
    np.testing.assert_allclose(np.asarray(layer.mean), known.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(layer.deviation), known.std(axis=0), rtol=1e-5)


@dataclasses.dataclass
class Run:
    """What one call of the training loop was given."""

    rows: set[int]
    held: set[int]
    scale: float
    epochs: int
    stage: str
    patience: int | None


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[list[float]]], list[Run]]:
    """Puts a training loop in place that trains nothing, records, and gives these curves."""

    def put(curves: list[list[float]]) -> list[Run]:
        seen: list[Run] = []

        def rows_in(dataset: tf.data.Dataset | None) -> set[int]:
            batches = [] if dataset is None else dataset
            return {int(value) for _, targets in batches for value in targets.numpy()[:, 0]}

        def pretended(
            build: Callable[[], keras.Model], data: Callable[[int], tf.data.Dataset], **given: Any
        ) -> training.Trained:
            model = build()
            seen.append(
                Run(
                    rows=rows_in(data(0)),
                    held=rows_in(given["validation_data"]),
                    scale=float(np.asarray(model.get_layer("feature_scale").mean)[0]),
                    epochs=given["epochs"],
                    stage=given["stage"],
                    patience=given["patience"],
                )
            )
            curve = curves[len(seen) - 1] if len(seen) <= len(curves) else []
            history = [{"stage": given["stage"], head_training.MONITOR: value} for value in curve]
            return training.Trained(model, history, 1, False)

        monkeypatch.setattr(training, "train", pretended)
        return seen

    return put


def pretend(
    index: splits.SpotIndex, rows: np.ndarray, settings: RegressorConfig
) -> head_training.TrainedHead:
    """Features and targets that say which row they are of."""
    numbers = np.arange(N, dtype=np.float32)
    return head_training.train_head(
        {"features": np.broadcast_to(numbers[:, None, None], (N, 8, F))},
        np.broadcast_to(numbers[:, None], (N, GENES)),
        index,
        rows,
        settings,
        seed=0,
        strategy=tf.distribute.get_strategy(),
        checkpoint=Path("unused"),
        resume=False,
    )


def test_inner_trainings_keep_patients_apart_and_never_see_held_out_rows(
    index: splits.SpotIndex, runs: Callable[[list[list[float]]], list[Run]]
) -> None:
    seen = runs([[0.1, 0.3, 0.2], [0.1, 0.2, 0.5]])
    made = pretend(index, TRAIN, SETTINGS)
    assert [run.stage for run in seen] == ["pooled_inner1", "pooled_inner2", "pooled"]
    for run in seen:
        assert not (run.rows | run.held) - set(TRAIN.tolist())
        # The scale of the features is that of the rows that this training learns from.
        assert run.scale == pytest.approx(np.mean(list(run.rows)), rel=1e-5)
    for run in seen[:2]:
        patients = [set(index.patient[list(rows)]) for rows in (run.rows, run.held)]
        assert not patients[0] & patients[1]
        assert (run.epochs, run.patience) == (SETTINGS.epochs, SETTINGS.patience)
    assert seen[2].rows == set(TRAIN.tolist())
    assert seen[2].held == set()
    assert seen[2].patience is None
    # Weighted by A's 16 and B's 8 spots, whichever comes first: epoch 3.
    assert seen[2].epochs == made.epochs == 3
    assert [fold.kind for fold in made.inner] == ["patient", "patient"]


def test_one_patients_sections_are_left_out_in_turn(
    index: splits.SpotIndex, runs: Callable[[list[list[float]]], list[Run]]
) -> None:
    seen = runs([[1.0], [1.0]])
    made = pretend(index, np.flatnonzero(index.patient == "A"), SETTINGS)
    assert [fold.kind for fold in made.inner] == ["section", "section"]
    assert {frozenset(index.section[list(run.held)]) for run in seen[:2]} == {
        frozenset({"A1"}),
        frozenset({"A2"}),
    }


def test_one_inner_fold_leaves_the_smallest_group_out(
    index: splits.SpotIndex, runs: Callable[[list[list[float]]], list[Run]]
) -> None:
    seen = runs([[0.1, 0.4, 0.3]])
    made = pretend(index, TRAIN, dataclasses.replace(SETTINGS, inner_folds=1))
    assert len(seen) == 2
    assert set(index.patient[list(seen[0].held)]) == {"B"}
    assert made.epochs == 2


def test_heads_without_context_are_trained_once(
    index: splits.SpotIndex, runs: Callable[[list[list[float]]], list[Run]]
) -> None:
    seen = runs([[1.0]])
    config: Config = changed(CONFIG, regressor__architecture="pooled")
    inputs, targets = made_inputs()
    made = head_training.train_heads(
        {"features": inputs["features"]},
        targets,
        index,
        TRAIN,
        config,
        strategy=tf.distribute.get_strategy(),
        checkpoint=Path("unused"),
        resume=False,
    )
    assert len(made) == 1
    assert [run.stage for run in seen] == ["pooled_inner1", "pooled"]


@pytest.mark.parametrize(
    ("curves", "spots", "wanted"),
    [
        ([[0.1, 0.2, 0.3]], [5], 3),
        ([[0.1, 0.3, 0.2]], [5], 2),
        ([[-0.2, -0.1]], [5], 2),
        ([[0.4]], [5], 1),
        ([[0.2, 0.2, 0.2]], [5], 1),  # the earliest of equals
        ([[0.4, 0.1], [0.1, 0.3]], [1, 1], 1),
        ([[0.4, 0.1], [0.1, 0.3]], [1, 2], 2),  # a fold counts by its spots
        ([[0.4, 0.3], [0.1, 0.2, 0.3, 0.4]], [1, 1], 4),  # an early stop keeps its last score
        ([[0.4, 0.1], [0.1, 0.2, 0.3, 0.4]], [3, 1], 1),
    ],
)
def test_best_epoch(curves: list[list[float]], spots: list[int], wanted: int) -> None:
    assert head_training.best_epoch(curves, spots) == wanted


def test_a_training_side_of_one_spot_is_refused(index: splits.SpotIndex) -> None:
    with pytest.raises(InputError, match="cannot be split further"):
        pretend(index, np.array([3]), SETTINGS)

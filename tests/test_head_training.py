"""Heads: strength or epoch is chosen on inner groups, and held-out spots take no part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import Ridge
from tqdm import tqdm

from histospace_tf import training
from histospace_tf.config import Config, RegressorConfig
from histospace_tf.data_pipelines import splits
from histospace_tf.models import layers, regressor
from histospace_tf.predictors import epoch_choice, head_training, ridge_head
from histospace_tf.predictors.head_data import HeadData
from histospace_tf.scores import metrics
from histospace_tf.training import Schedule, Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config

pytestmark = pytest.mark.slow

F, GENES, EACH = 5, 3, 8
SECTIONS = ("A1", "A2", "B1", "C1")
N = EACH * len(SECTIONS)
TRAIN = np.arange(N - EACH)  # C1 is held out
SETTINGS = RegressorConfig(
    architecture="pooled",
    hidden_units=4,
    factors=2,
    solver="adam",
    spot_weights="equal",
    epochs=3,
    batch_size=8,
    inner_folds=2,
    patience=2,
)
RIDGE = dataclasses.replace(SETTINGS, hidden_units=0, solver="ridge", spot_weights="sqrt_counts")
CONFIG = dataclasses.replace(
    tiny_config(seed=4),
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


def made_inputs(*, held_out_seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Inputs, targets and weights of all spots; `held_out_seed` changes those of C1 alone."""
    shapes: dict[str, tuple[int, ...]] = {
        "features": (8, F),
        **{name: (F,) for name in regressor.CONTEXT_INPUTS if name != "features"},
        "targets": (GENES,),
        "weights": (),
    }
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        own, other = np.random.default_rng(number), np.random.default_rng((number, held_out_seed))
        made[name] = np.concatenate(
            [own.uniform(0.5, 2, (len(TRAIN), *shape)), other.uniform(0.5, 2, (EACH, *shape))]
        ).astype(np.float32)
    targets, weights = made.pop("targets"), made.pop("weights")
    return made, targets, weights


def heads(
    index: splits.SpotIndex, folder: Path, solver: str, **options: Any
) -> list[head_training.TrainedHead]:
    inputs, targets, weights = made_inputs(**options)
    data = HeadData(inputs, targets, index, weights)
    config = CONFIG if solver == "adam" else with_ridge(CONFIG, solver)
    return [
        head_training.train_head(
            data,
            TRAIN,
            dataclasses.replace(config.regressor, architecture=architecture),
            session(folder, seed=config.seed),
        )
        for architecture in ("context", "pooled")
    ]


def session(folder: Path = Path("unused"), *, seed: int = 0) -> Session:
    return Session(tf.distribute.get_strategy(), seed, False, folder)


def with_ridge(config: Config, solver: str) -> Config:
    own = config.regressor
    ridge = dataclasses.replace(RIDGE, architecture=own.architecture, inner_folds=own.inner_folds)
    ridge = dataclasses.replace(ridge, solver=solver)  # type: ignore[arg-type]
    return dataclasses.replace(config, regressor=ridge)


@pytest.fixture(scope="module", params=["adam", "ridge", "descent"])
def solver(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(
    index: splits.SpotIndex, solver: str, tmp_path_factory: pytest.TempPathFactory
) -> list[head_training.TrainedHead]:
    return heads(index, tmp_path_factory.mktemp("heads"), solver)


def test_a_head_in_context_has_a_single_tile_head_beside_it(
    trained: list[head_training.TrainedHead],
) -> None:
    own, single = trained
    assert {tensor.name for tensor in own.head.inputs} == set(regressor.CONTEXT_INPUTS)
    assert [tensor.name for tensor in single.head.inputs] == ["features"]
    for made in trained:
        assert made.head.output.shape == (None, GENES)


def test_history_names_each_training_and_scores_inner_spots(
    solver: str, trained: list[head_training.TrainedHead]
) -> None:
    for made, name in zip(trained, ("context", "pooled"), strict=True):
        inner = [row for row in made.history if row["stage"] == f"{name}_inner1"]
        last = [row for row in made.history if row["stage"] == name]
        assert len(inner) + len(last) == len(made.history)
        for row in inner:
            assert {"val_gene_r", "val_spot_r", "val_mean_r"} <= set(row)
            assert -1 <= float(str(row["val_gene_r"])) <= 1
        assert all("val_gene_r" not in row for row in last)
        if solver == "adam":
            most = CONFIG.regressor.epochs
            assert made.choice == {"epochs": len(last), "most": most, "by": "val_mean_r"}
            assert len(last) <= CONFIG.regressor.epochs
            assert all("val_loss" in row for row in inner)
            count = "1 epoch" if len(last) == 1 else f"{len(last)} epochs"
            assert str(made) == f"{count}, chosen on 1 inner group(s)"
            continue
        assert [row["strength"] for row in inner] == list(ridge_head.STRENGTHS)
        assert {row["strength"] for row in last} == {made.strength}
        how = f"ridge of strength {made.strength:.3g}, chosen on 1 inner group(s)"
        if solver == "ridge":
            assert made.choice == {"strength": made.strength}
            assert (len(last), str(made)) == (1, how)
        else:
            epochs = {"epochs": 3, "most": 3, "by": "fixed"}
            assert made.choice == {"strength": made.strength, **epochs}
            assert str(made) == f"{how}, then {RIDGE.epochs} epochs of descent"
            assert [row["epoch"] for row in last] == [1, 2, 3]
            assert all(np.diff([float(str(row["loss"])) for row in last]) < 0)


def test_held_out_features_targets_and_weights_leave_the_heads_bytewise_unchanged(
    index: splits.SpotIndex,
    solver: str,
    trained: list[head_training.TrainedHead],
    tmp_path: Path,
) -> None:
    inputs, targets, weights = made_inputs(held_out_seed=1)
    assert not np.array_equal(targets, made_inputs()[1])
    assert not np.array_equal(inputs["slide_mean"], made_inputs()[0]["slide_mean"])
    assert not np.array_equal(weights, made_inputs()[2])
    again = heads(index, tmp_path, solver, held_out_seed=1)
    for one, other in zip(trained, again, strict=True):
        assert one.choice == other.choice
        assert [known(row) for row in one.history] == [known(row) for row in other.history]
        for mine, theirs in zip(one.head.get_weights(), other.head.get_weights(), strict=True):
            assert mine.tobytes() == theirs.tobytes()


def known(row: dict[str, object]) -> dict[str, object]:
    """A row of history without its time."""
    return {name: value for name, value in row.items() if name != "seconds"}


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
            build: Callable[[], keras.Model],
            data: Callable[[int], tf.data.Dataset],
            schedule: Schedule,
            session: Session,
            **given: Any,
        ) -> training.Trained:
            model, validation = build(), given["validation"]
            seen.append(
                Run(
                    rows=rows_in(data(0)),
                    held=rows_in(None if validation is None else validation.data),
                    scale=float(np.asarray(model.get_layer("feature_scale").mean)[0]),
                    epochs=schedule.epochs,
                    stage=given["stage"],
                    patience=schedule.patience,
                )
            )
            curve = curves[len(seen) - 1] if len(seen) <= len(curves) else []
            history = [{"stage": given["stage"], epoch_choice.MONITOR: value} for value in curve]
            return training.Trained(model, history, 1, False)

        monkeypatch.setattr(training, "train", pretended)
        return seen

    return put


def pretend(
    index: splits.SpotIndex, rows: np.ndarray, settings: RegressorConfig
) -> head_training.TrainedHead:
    """Features and targets that say which row they are of."""
    numbers = np.arange(N, dtype=np.float32)
    data = HeadData(
        {"features": np.broadcast_to(numbers[:, None, None], (N, 8, F))},
        np.broadcast_to(numbers[:, None], (N, GENES)),
        index,
        np.ones(N),
    )
    return head_training.train_head(data, rows, settings, session())


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


def test_a_fixed_number_of_epochs_takes_the_whole_training_side_and_no_inner_groups(
    index: splits.SpotIndex, runs: Callable[[list[list[float]]], list[Run]]
) -> None:
    seen = runs([])
    fixed = dataclasses.replace(SETTINGS, epoch_choice="fixed")
    made = pretend(index, TRAIN, fixed)
    (run,) = seen
    assert (run.stage, run.rows, run.held) == ("pooled", set(TRAIN.tolist()), set())
    assert (run.epochs, run.patience) == (fixed.epochs, None)
    assert made.inner == []
    assert made.choice == {"epochs": 3, "most": 3, "by": "fixed"}
    assert str(made) == "3 epochs, as set"
    assert pretend(index, np.array([3]), fixed).epochs == 3  # nothing has to be split


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
    assert epoch_choice.best_epoch(curves, spots) == wanted


def test_a_training_side_of_one_spot_is_refused(index: splits.SpotIndex) -> None:
    with pytest.raises(InputError, match="cannot be split further"):
        pretend(index, np.array([3]), SETTINGS)


def solve(
    index: splits.SpotIndex,
    rows: np.ndarray,
    settings: RegressorConfig,
    *,
    targets: np.ndarray | None = None,
    seed: int = 0,
) -> head_training.TrainedHead:
    inputs, drawn, weights = made_inputs()
    data = HeadData(inputs, drawn if targets is None else targets, index, weights)
    return head_training.train_head(data, rows, settings, session(seed=seed))


def test_ridges_of_the_inner_groups_keep_patients_apart_and_never_see_held_out_rows(
    index: splits.SpotIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen, strengths, scales, loadings = ridge_head.solved, [], [], [], []

    def recorded(head: keras.Model, *arguments: Any) -> Any:
        seen.append(set(arguments[2].tolist()))
        np.testing.assert_array_equal(arguments[3], made_inputs()[2][arguments[2]])
        strengths.append(list(arguments[4]))
        scales.append(np.asarray(head.get_layer("feature_scale").mean))
        loadings.append(np.asarray(head.get_layer("expression").kernel))
        return real(head, *arguments)

    monkeypatch.setattr(ridge_head, "solved", recorded)
    made = solve(index, TRAIN, RIDGE)
    assert seen[:2] == [set(fold.train.tolist()) for fold in made.inner]
    assert seen[2] == set(TRAIN.tolist())
    assert strengths == [list(ridge_head.STRENGTHS)] * 2 + [[made.strength]]
    inputs, targets, weights = made_inputs()
    for rows, scale, axes in zip(seen, scales, loadings, strict=True):
        at = sorted(rows)
        wanted = targets[at] * np.sqrt(weights[at] / weights[at].mean())[:, None]
        # float64 moments kept as float32
        np.testing.assert_allclose(scale, inputs["features"][at].mean(axis=(0, 1)), rtol=1e-5)
        np.testing.assert_allclose(axes, regressor.gene_factors(wanted, 2), rtol=1e-4, atol=1e-5)
    for fold in made.inner:
        assert not set(index.patient[fold.train]) & set(index.patient[fold.test])
        assert set(fold.test) <= set(TRAIN)


def test_strength_is_the_one_that_predicts_the_inner_groups_best(index: splits.SpotIndex) -> None:
    # scikit-learn's ridge on features standardised by hand, group by group.
    settings = dataclasses.replace(RIDGE, factors=0)
    inputs, noise, weights = made_inputs()
    slopes = np.random.default_rng(5).normal(size=(F, GENES))
    targets = (inputs["features"].mean(axis=1) @ slopes + noise).astype(np.float32)
    targets -= targets[TRAIN].mean(axis=0)
    made = solve(index, TRAIN, settings, targets=targets)
    rows = iter(made.history)
    scores = np.zeros((len(made.inner), len(ridge_head.STRENGTHS)))
    for number, fold in enumerate(made.inner):
        known = inputs["features"][fold.train].astype(np.float64)
        scaled = (inputs["features"] - known.mean(axis=(0, 1))) / known.std(axis=(0, 1))
        furthest = layers.LARGEST_STANDARDISED
        seen = np.clip(scaled, -furthest, furthest).mean(axis=1)
        for place, strength in enumerate(ridge_head.STRENGTHS):
            ridge = Ridge(alpha=strength).fit(
                seen[fold.train],
                targets[fold.train],
                sample_weight=weights[fold.train] / weights[fold.train].mean(),
            )
            predicted = ridge.predict(seen[fold.test])
            by_section = [
                metrics.gene_r(predicted[at], targets[fold.test][at])
                for at in (
                    index.section[fold.test] == name for name in np.unique(index.section[fold.test])
                )
            ]
            row = next(rows)
            scores[number, place] = np.mean(by_section)
            assert (row["stage"], row["strength"]) == (f"pooled_inner{number + 1}", strength)
            # Correlations of float32 predictions, which the strongest penalty shrinks a lot.
            assert row["val_gene_r"] == pytest.approx(scores[number, place], abs=1e-4)
    mean = np.average(scores, axis=0, weights=[len(fold.test) for fold in made.inner])
    assert made.strength == ridge_head.STRENGTHS[int(mean.argmax())]
    assert next(rows) == {"stage": "pooled", "strength": made.strength}


def test_a_solved_head_has_no_seed_and_the_settings_of_a_training_no_part(
    index: splits.SpotIndex,
) -> None:
    other = dataclasses.replace(RIDGE, epochs=9, learning_rate=0.5, loss="huber", batch_size=3)
    first, again = solve(index, TRAIN, RIDGE), solve(index, TRAIN, other, seed=99)
    assert first.strength == again.strength
    assert first.epochs is None
    for one, two in zip(first.head.get_weights(), again.head.get_weights(), strict=True):
        assert one.tobytes() == two.tobytes()


def test_a_training_in_epochs_takes_no_notice_of_weights(
    index: splits.SpotIndex, runs: Callable[[list[list[float]]], list[Run]]
) -> None:
    runs([[1.0], [1.0]])
    made = solve(index, TRAIN, SETTINGS)
    assert made.strength is None
    assert made.choice == {"epochs": 1, "most": SETTINGS.epochs, "by": "val_mean_r"}


def test_training_spots_are_scored_as_the_validation_spots_are(
    index: splits.SpotIndex, tmp_path: Path
) -> None:
    inputs, targets, weights = made_inputs()
    data = HeadData({"features": inputs["features"]}, targets, index, weights)
    rows, held = TRAIN[:16], TRAIN[16:]
    settings = dataclasses.replace(SETTINGS, epochs=1, patience=1)
    bar = tqdm(disable=True)
    trained = head_training.train_epochs(
        data, rows, settings, session(tmp_path), held=held, stage="head_1", bar=bar
    )
    (row,) = trained.history
    for some, prefix in ((rows, ""), (held, "val_")):
        predicted = np.asarray(trained.model(inputs["features"][some, 0]))
        wanted = epoch_choice.validation_scores(index.section[some])(predicted, targets[some])
        for name in ("gene_r", "spot_r"):
            assert row[prefix + name] == pytest.approx(wanted[f"val_{name}"], abs=1e-6)


def test_a_section_that_is_constant_as_measured_says_nothing() -> None:
    sections = np.array(["a", "a", "b", "b"])
    measured = np.array([[0.0, 1], [1, 0], [2, 2], [2, 2]])
    scores = epoch_choice.validation_scores(sections)
    assert scores(measured, measured)["val_gene_r"] == pytest.approx(1)
    alone = epoch_choice.validation_scores(sections[2:])(measured[2:], measured[2:])
    assert alone == {"val_gene_r": 0, "val_spot_r": 0, "val_mean_r": 0}
    noisy = scores(measured[:, ::-1] * [[1], [-1], [1], [1]], measured)
    assert noisy["val_mean_r"] == pytest.approx((noisy["val_gene_r"] + noisy["val_spot_r"]) / 2)

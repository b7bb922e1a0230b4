from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import checkpoints, config, distribution, presets, training
from histospace_tf.cohort import features
from histospace_tf.models import autoencoder, losses, regressor
from histospace_tf.predictors import descent, ridge_head
from histospace_tf.training import Schedule, Session, Validation
from histospace_tf.vocabulary import InputError
from made.heads import made_head
from made.tiles import group

pytestmark = pytest.mark.slow

N, BATCH, FEATURES, GENES = 17, 8, 6, 3  # the last batch has one example
HUBER = losses.loss("huber")
TILES = [group(17), group(6, seed=1)]


def _numbers(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(n, FEATURES)).astype(np.float32)
    return inputs, (inputs @ draw.normal(size=(FEATURES, GENES))).astype(np.float32)


def _data(epoch: int) -> tf.data.Dataset:
    """Another order every epoch."""
    inputs, targets = _numbers()
    order = np.random.default_rng((7, epoch)).permutation(N)
    pairs = ({"features": inputs[order]}, targets[order])
    return tf.data.Dataset.from_tensor_slices(pairs).batch(BATCH)


def _validation() -> tf.data.Dataset:
    inputs, targets = _numbers(N + 10)
    pairs = ({"features": inputs[N:]}, targets[N:])
    return tf.data.Dataset.from_tensor_slices(pairs).batch(4)


def _model(dropout: float = 0.4, *, synchronized: bool = False) -> keras.Model:
    keras.utils.set_random_seed(3)
    features = keras.Input((FEATURES,), name="features")
    hidden = keras.layers.Dense(8, activation="gelu")(features)
    hidden = keras.layers.BatchNormalization(synchronized=synchronized)(hidden)
    hidden = keras.layers.Dropout(dropout)(hidden) if dropout else hidden
    return keras.Model({"features": features}, keras.layers.Dense(GENES)(hidden))


def _trained(
    build: Callable[[], keras.Model] = _model,
    data: Callable[[int], tf.data.Dataset] = _data,
    *,
    strategy: tf.distribute.Strategy | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    validation_data: tf.data.Dataset | None = None,
    validation_scores: Callable[[np.ndarray, np.ndarray], dict[str, float]] | None = None,
    monitor: str = "val_loss",
    **settings: Any,
) -> training.Trained:
    """`settings` are of the schedule, or of `training.train` itself."""
    own = {
        name: settings.pop(name) for name in ("stage", "callbacks", "verbose") if name in settings
    }
    schedule = {"loss": HUBER, "learning_rate": 0.05, "epochs": 4, **settings}
    with tempfile.TemporaryDirectory() as scratch:
        return training.train(
            build,
            data,
            Schedule(**schedule),
            Session(
                strategy or tf.distribute.get_strategy(), 0, resume, checkpoint or Path(scratch)
            ),
            validation=(
                None
                if validation_data is None
                else Validation(validation_data, validation_scores, monitor)
            ),
            **{"stage": "head", "verbose": 0, **own},
        )


def _values(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(variable).copy() for variable in model.variables]


def _assert_bitwise_equal(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert [value.tobytes() for value in a] == [value.tobytes() for value in b]


def _without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key != "seconds"} for row in history]


class _StopAt(keras.callbacks.Callback):
    """Raises in the middle of an epoch, or at its end."""

    def __init__(self, epoch: int, *, at_end: bool) -> None:
        super().__init__()
        self.epoch, self.at_end, self.now = epoch, at_end, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.epoch and not self.at_end and batch == 1:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and self.at_end:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at_end", [False, True])
def test_resumed_run_equals_an_undisturbed_one(tmp_path: Path, at_end: bool) -> None:
    settings = {"validation_data": _validation(), "patience": 3, "weight_decay": 0.01}
    whole = _trained(checkpoint=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        _trained(checkpoint=tmp_path / "cut", callbacks=[_StopAt(2, at_end=at_end)], **settings)
    again = _trained(checkpoint=tmp_path / "cut", resume=True, **settings)
    _assert_bitwise_equal(_values(again.model), _values(whole.model))
    _assert_bitwise_equal(
        [np.asarray(value) for value in again.model.optimizer.variables],
        [np.asarray(value) for value in whole.model.optimizer.variables],
    )
    assert _without_time(again.history) == _without_time(whole.history)
    assert (again.best_epoch, again.stopped_early) == (whole.best_epoch, whole.stopped_early)
    # The files too: last weights, optimizer, dropout's state, best weights.
    files = [np.load(tmp_path / name / "state.npz") for name in ("whole", "cut")]
    names = [name for name in files[0].files if name != "record"]
    _assert_bitwise_equal(*([file[name] for name in names] for file in files))
    assert sum(name.startswith("best/") for name in names) == len(whole.model.weights)


def test_state_is_kept_every_so_many_epochs_and_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, save = [], checkpoints.save

    def counted(folder: Path, variables: Any, progress: checkpoints.Progress) -> None:
        kept.append(len(progress.history))
        save(folder, variables, progress)

    monkeypatch.setattr(checkpoints, "save", counted)
    settings: dict[str, Any] = {"checkpoint": tmp_path, "epochs": 5, "kept_epochs": 2}
    with pytest.raises(KeyboardInterrupt):
        _trained(callbacks=[_StopAt(3, at_end=False)], **settings)
    again = _trained(resume=True, **settings)
    assert kept == [2, 4, 5]
    _assert_bitwise_equal(_values(again.model), _values(_trained(epochs=5).model))


def test_finished_run_resumed_comes_back_at_once(tmp_path: Path) -> None:
    first = _trained(checkpoint=tmp_path, epochs=2, validation_data=_validation())

    def no_data(epoch: int) -> tf.data.Dataset:
        raise AssertionError("nothing is left to train")

    again = _trained(
        data=no_data, checkpoint=tmp_path, epochs=2, validation_data=_validation(), resume=True
    )
    _assert_bitwise_equal(_values(again.model), _values(first.model))
    assert again.history == first.history


def test_resume_without_a_checkpoint_starts_and_more_epochs_go_on(tmp_path: Path) -> None:
    _trained(checkpoint=tmp_path, epochs=2, resume=True)
    more = _trained(checkpoint=tmp_path, epochs=3, resume=True)
    _assert_bitwise_equal(_values(more.model), _values(_trained(epochs=3).model))


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_one_device_gives_what_keras_fit_gives(momentum: float | None) -> None:
    # Without dropout, whose draws differ; one order, as fit would keep.
    ours = _trained(
        lambda: _model(0),
        lambda epoch: _data(0),
        validation_data=_validation(),
        momentum=momentum,
    )
    model = _model(0)
    adam = keras.optimizers.Adam(0.05)
    model.compile(adam if momentum is None else keras.optimizers.SGD(0.05, momentum), HUBER)
    fitted = model.fit(_data(0), epochs=4, validation_data=_validation(), verbose=0)
    # The same sums in another order; Adam's division carries float32's last digits on.
    for column in ("loss", "val_loss"):
        found = [row[column] for row in ours.history]
        np.testing.assert_allclose(found, fitted.history[column], rtol=1e-4)
    assert ours.best_epoch == 1 + int(np.argmin(fitted.history["val_loss"]))


@pytest.mark.parametrize("whole_epochs", [False, True])
def test_weights_and_penalties_count_as_in_keras_fit(whole_epochs: bool) -> None:
    inputs, targets = _numbers()
    weights = np.random.default_rng(1).uniform(0.2, 3, N).astype(np.float32)
    size = N if whole_epochs else BATCH  # fit has a step a batch
    given = tf.data.Dataset.from_tensor_slices(({"features": inputs}, targets, weights))

    def build() -> keras.Model:
        keras.utils.set_random_seed(3)
        features = keras.Input((FEATURES,), name="features")
        penalty = losses.SquaresByInput([0.1 * i for i in range(FEATURES)])
        learned = keras.layers.Dense(GENES, kernel_regularizer=penalty)(features)
        return keras.Model({"features": features}, learned)

    ours = _trained(build, lambda epoch: given.batch(BATCH), whole_epochs=whole_epochs)
    model = build()
    chosen = keras.optimizers.SGD if whole_epochs else keras.optimizers.Adam
    model.compile(chosen(0.05), HUBER)
    fitted = model.fit(given.batch(size), epochs=4, verbose=0)
    for mine, theirs in zip(ours.model.weights, model.weights, strict=True):
        # The same sums in another order, in float32.
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-4, atol=1e-5)
    found = [row["loss"] for row in ours.history]
    if whole_epochs:
        np.testing.assert_allclose(found, fitted.history["loss"], rtol=1e-4)
    assert all(np.diff(found) < 0)


def test_best_epochs_weights_are_kept() -> None:
    def worse_each_epoch(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        assert predicted.shape == targets.shape == (10, GENES)
        return {"val_gene_r": scores.pop(0)}

    scores = [0.1, 0.3, 0.2, 0.25]
    settings = {"validation_data": _validation(), "monitor": "val_gene_r"}
    found = _trained(validation_scores=worse_each_epoch, **settings)
    assert (found.best_epoch, found.stopped_early) == (2, False)
    assert [row["val_gene_r"] for row in found.history] == [0.1, 0.3, 0.2, 0.25]
    _assert_bitwise_equal(
        [np.asarray(weight) for weight in found.model.weights],
        [np.asarray(weight) for weight in _trained(epochs=2).model.weights],
    )


def test_training_stops_after_patience_epochs_without_a_better_one() -> None:
    # Constant score: the first epoch stays the best.
    found = _trained(
        epochs=9,
        patience=2,
        validation_data=_validation(),
        validation_scores=lambda predicted, targets: {"val_spot_r": 0.5},
        monitor="val_spot_r",
    )
    assert (len(found.history), found.best_epoch, found.stopped_early) == (3, 1, True)


def test_history_has_a_row_an_epoch() -> None:
    rows = _trained(epochs=2, stage="head", validation_data=_validation()).history
    columns = {"stage", "epoch", "loss", "val_loss", "learning_rate", "seconds"}
    assert [set(row) for row in rows] == [columns] * 2
    assert [(row["stage"], row["epoch"]) for row in rows] == [("head", 1), ("head", 2)]
    assert rows[0]["learning_rate"] == pytest.approx(0.05)
    assert json.loads(json.dumps(rows)) == rows


def test_keras_callbacks_see_what_fit_shows_them() -> None:
    seen: list[Any] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append((epoch, sorted(logs)))
            self.model.optimizer.learning_rate = 0.01
            if epoch == 1:
                self.model.stop_training = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append((batch, sorted(logs)))

    found = _trained(callbacks=[Watch()], validation_data=_validation())
    epoch = [(0, ["loss"]), (1, ["loss"]), (2, ["loss"])]
    columns = ["loss", "val_loss"]
    assert seen == [*epoch, (0, columns), *epoch, (1, columns)]
    assert found.stopped_early
    assert [row["learning_rate"] for row in found.history] == pytest.approx([0.05, 0.01])


def test_progress_bar_counts_batches_from_the_first_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _trained(epochs=2, verbose=1)
    shown = capsys.readouterr().out
    assert "Epoch 2/2" in shown
    assert "1/3" in shown
    _trained(epochs=1, verbose=0)
    assert not capsys.readouterr().out


def test_weight_decay_spares_biases_and_normalisation() -> None:
    # Inputs of zeros and targets that are met: only decay moves anything.
    zeros = (np.zeros((8, FEATURES), np.float32), np.zeros((8, GENES), np.float32))
    data = tf.data.Dataset.from_tensor_slices(zeros).batch(8)

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                keras.Input((FEATURES,)),
                keras.layers.Dense(GENES),
                keras.layers.BatchNormalization(),
            ]
        )

    before = [np.asarray(weight) for weight in build().trainable_weights]
    after = _trained(build, lambda epoch: data, weight_decay=0.1, epochs=1).model.trainable_weights
    for old, new in zip(before, after, strict=True):
        kept = 1 - 0.05 * 0.1 if new.name == "kernel" else 1.0
        np.testing.assert_allclose(np.asarray(new), kept * old, rtol=1e-6)


def test_assembled_regressor_leaves_the_encoder_bytewise_unchanged() -> None:
    keras.utils.set_random_seed(0)
    encoder = autoencoder.build_encoder(3)
    tiles = np.random.default_rng(0).random((6, 32, 32, 3), np.float32)
    encoder(tiles, training=True)  # statistics that are not the initial ones
    trunk = regressor.build_trunk(encoder, architecture="global")
    before = [_values(encoder), _values(trunk)]
    settings = config.changed(presets.preset("paper"), regressor__architecture="global").regressor

    def build() -> keras.Model:
        head = regressor.build_head((4, 4, 128), GENES, settings)
        tile = keras.Input((32, 32, 3))
        return keras.Model(tile, head(trunk(tile)))

    targets = np.random.default_rng(1).normal(size=(6, GENES)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((tiles, targets)).batch(4)
    head_before = [np.asarray(weight) for weight in build().get_layer("head").weights]
    model = _trained(build, lambda epoch: data, epochs=2).model
    assert any("moving_mean" in weight.path for weight in encoder.weights)
    for frozen, values in zip((encoder, trunk), before, strict=True):
        _assert_bitwise_equal(_values(frozen), values)
    head_after = [np.asarray(weight) for weight in model.get_layer("head").weights]
    assert all((a != b).any() for a, b in zip(head_before, head_after, strict=True))


def test_autoencoder_learns_tiles() -> None:
    shades = np.random.default_rng(0).random((12, 1, 1, 3), np.float32)
    tiles = np.broadcast_to(shades, (12, 16, 16, 3)).copy()
    data = tf.data.Dataset.from_tensor_slices((tiles, tiles)).batch(4)

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return autoencoder.build_autoencoder(2)

    rows = _trained(
        build,
        lambda epoch: data,
        loss=losses.loss("mse"),
        learning_rate=1e-3,
        epochs=15,
        validation_data=data,
    ).history
    assert rows[-1]["val_loss"] < 0.7 * rows[0]["val_loss"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_loss_that_is_not_finite_stops_with_the_epoch_and_batch(bad: float) -> None:
    def data(epoch: int) -> tf.data.Dataset:
        inputs, targets = _numbers()
        if epoch == 1:
            targets[BATCH] = bad
        pairs = ({"features": inputs}, targets)
        return tf.data.Dataset.from_tensor_slices(pairs).batch(BATCH)

    with pytest.raises(InputError, match="batch 2 of epoch 2"):
        _trained(data=data)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        _trained(data=lambda epoch: _data(epoch).take(0))
    with pytest.raises(InputError, match="validation data without an example"):
        _trained(validation_data=_validation().take(0))


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(InputError, match="validation"):
        _trained(patience=1)


def test_unknown_column_to_monitor_is_refused() -> None:
    with pytest.raises(InputError, match=r"'val_r'.*loss, val_loss"):
        _trained(monitor="val_r", validation_data=_validation())


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    _trained(checkpoint=tmp_path, epochs=1)
    with pytest.raises(InputError, match="another training"):
        _trained(lambda: _model(0), checkpoint=tmp_path, resume=True)

    def wider() -> keras.Model:
        features = keras.Input((FEATURES,), name="features")
        hidden = keras.layers.BatchNormalization()(keras.layers.Dense(9)(features))
        hidden = keras.layers.Dropout(0.4)(hidden)
        return keras.Model({"features": features}, keras.layers.Dense(GENES)(hidden))

    with pytest.raises(InputError, match=r"shape \(6, 8\), not \(6, 9\)"):
        _trained(wider, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize("keep", [0, 100])
def test_damaged_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    _trained(checkpoint=tmp_path, epochs=1)
    file = tmp_path / "state.npz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"state\.npz' cannot be read"):
        _trained(checkpoint=tmp_path, resume=True)


def _cut(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}_cut")


class _CopyOf(keras.callbacks.Callback):
    """Copies the checkpoint that stands after two epochs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            shutil.copytree(self.folder, _cut(self.folder))


# Run as a program: one process of a training on several replicas. TensorFlow's devices and workers
# are settled once a process, so each takes one of its own.
def _replica(name: str, out: str) -> None:
    if name == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    strategy = distribution.strategy(name)
    assert strategy.num_replicas_in_sync == 2
    assert distribution.described(strategy)["workers"] == (2 if name == "multiworker" else 1)
    settings: dict[str, Any] = {
        "strategy": strategy,
        "validation_data": _validation(),
        "validation_scores": _mean_score,
        "weight_decay": 0.01,
        "verbose": 1,
    }

    def trained_and_resumed(dropout: float) -> training.Trained:
        folder = Path(out).parent / f"{name}{dropout}"
        whole = _trained(
            lambda: _model(dropout, synchronized=True),
            checkpoint=folder,
            callbacks=[_CopyOf(folder)] if distribution.is_chief(strategy) else [],
            **settings,
        )
        # Workers wait for the chief when a model is built: the copy is there when it is read.
        copy = _cut(folder)
        again = _trained(
            lambda: _model(dropout, synchronized=True), checkpoint=copy, resume=True, **settings
        )
        _assert_bitwise_equal(_values(again.model), _values(whole.model))
        return whole

    if name == "mirrored":
        trained_and_resumed(0.4)  # dropout's state on replicas, too
        found = _trained(lambda: _model(0, synchronized=True), **settings)
    else:
        found = trained_and_resumed(0)
    lowered = _lowered(strategy, Path(out).parent / f"{name}_lowered")
    # Workers of a run that goes on may have kept different files: then all compute.
    store = Path(out).with_suffix(".features.npy")
    for _ in range(2):
        kept, colours = features.features_and_colours(
            _trunk(), TILES, symmetries=2, label="tiles", store=store, strategy=strategy
        )
        if not distribution.is_chief(strategy):
            store.unlink()
    record = np.asarray(json.dumps(found.history))
    learned, score = _of_sections(strategy)
    arrays = {"features": kept, "colours": colours, "lowered": lowered}
    arrays |= {"sections": learned, "section_score": np.asarray(score)}
    weights = {str(i): np.asarray(weight) for i, weight in enumerate(found.model.weights)}
    np.savez(out, record=record, chief=distribution.is_chief(strategy), **weights, **arrays)  # type: ignore[arg-type]


def _lowered(strategy: tf.distribute.Strategy, folder: Path) -> np.ndarray:
    """Predictions of a head that is lowered from the ridge; its last batch has one spot."""
    these = made_head(n=38, f=7, factors=2, architecture="context")
    rows = descent.lower(
        these.head,
        ridge_head.ridges(these.head, these.inputs, these.targets, these.rows, these.weights),
        these.weights,
        config.changed(
            presets.preset("recommended"), regressor__batch_size=8, regressor__huber_delta=0.7
        ).regressor,
        Session(strategy, 0, False, folder),
        strength=20.0,
        stage="head",
    )
    assert rows[-1]["loss"] < rows[0]["loss"]
    return features.predicted(these.head, these.inputs)


def _sections() -> list[tuple[np.ndarray, np.ndarray]]:
    """Three sections of 2, 5 and 3 spots: features and targets."""
    random = np.random.default_rng(0)
    return [
        (random.normal(size=(n, 3)).astype(np.float32), random.normal(size=(n, 2)).astype("f"))
        for n in (2, 5, 3)
    ]


def _of_sections(strategy: tf.distribute.Strategy) -> tuple[np.ndarray, float]:
    """Weights after two epochs of gradient descent, a section on each replica, and a score."""

    def batches(epoch: int) -> tf.data.Dataset:
        def read(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            values = tf.numpy_function(lambda i: _sections()[i], [at], [tf.float32] * 2)
            for value, width in zip(values, (3, 2), strict=True):
                value.set_shape((None, width))
            return values[0], values[1]

        each = tf.data.Dataset.range(3).map(read)
        replicas = strategy.num_replicas_in_sync
        return each.batch(1) if replicas == 1 else each.ragged_batch(replicas)

    def build() -> keras.Model:
        spots = keras.Input((None, 3))
        return keras.Model(spots, keras.layers.Dense(2, kernel_initializer="zeros")(spots))

    trained = _trained(
        build,
        batches,
        strategy=strategy,
        loss=losses.loss("mse"),
        momentum=0.0,
        epochs=2,
        validation_data=batches(0),
        validation_scores=lambda predicted, targets: {
            **_mean_score(predicted, targets),
            "val_spot_r": float(len(targets)),
        },
        monitor="val_spot_r",  # the first of equals is kept
    )
    return np.asarray(trained.model.weights[0]), trained.history[0]["val_gene_r"]


def _trunk() -> keras.Model:
    keras.utils.set_random_seed(0)
    return regressor.build_trunk(autoencoder.build_encoder(3), architecture="pooled")


def _mean_score(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Depends on the order of examples, so that a shuffled one would be seen."""
    order = np.arange(1, len(targets) + 1)[:, None]
    return {"val_gene_r": float((order * predicted * targets).mean())}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str]]:
    """What each process found and printed: two mirrored CPU devices, and two workers of one."""
    folder = tmp_path_factory.mktemp("replicas")
    with socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in (a, b)]
    started = {}
    for name, index in (("mirrored", 0), ("multiworker", 0), ("multiworker", 1)):
        settings = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        settings.pop("TF_CONFIG", None)
        if name == "multiworker":
            task = {"type": "worker", "index": index}
            settings["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
        started[f"{name}{index}"] = subprocess.Popen(
            [sys.executable, __file__, name, str(folder / f"{name}{index}.npz")],
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = {}
    try:
        for key, process in started.items():
            shown, errors = process.communicate(timeout=400)
            assert process.returncode == 0, f"{key}: {errors[-3000:]}"
            with np.load(folder / f"{key}.npz") as file:
                found[key] = ({name: file[name] for name in file.files}, shown)
    finally:
        for process in started.values():
            process.kill()
    return found


@pytest.mark.parametrize("key", ["mirrored0", "multiworker0", "multiworker1"])
def test_two_replicas_give_what_one_device_gives(
    replicas: dict[str, tuple[dict[str, Any], str]], key: str
) -> None:
    one = _trained(
        lambda: _model(0),
        validation_data=_validation(),
        validation_scores=_mean_score,
        weight_decay=0.01,
    )
    values, _ = replicas[key]
    # The same sums in another order, in float32; the statistics of batch normalisation from sums
    # of squares. Steps of Adam carry that on, in one of twelve steps with a batch of one example.
    for row, expected in zip(json.loads(str(values["record"])), one.history, strict=True):
        for column in ("loss", "val_loss", "val_gene_r"):
            assert row[column] == pytest.approx(expected[column], rel=1e-3)
    for i, weight in enumerate(one.model.weights):
        np.testing.assert_allclose(values[str(i)], np.asarray(weight), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("key", ["", "mirrored0", "multiworker0", "multiworker1"])
def test_sections_are_shared_out_one_a_replica_whatever_their_spots(
    replicas: dict[str, tuple[dict[str, Any], str]], key: str
) -> None:
    """By hand: the mean over a step's sections of their mean squared error falls by its slope."""
    steps = [[0, 1], [2]] if key else [[0], [1], [2]]
    weights, bias = np.zeros((3, 2)), np.zeros(2)
    for step in steps:
        slopes = [
            (x, 2 * (x @ weights + bias - y) / y.size) for x, y in (_sections()[i] for i in step)
        ]
        weights -= 0.05 * np.mean([x.T @ slope for x, slope in slopes], axis=0)
        bias -= 0.05 * np.mean([slope.sum(axis=0) for _, slope in slopes], axis=0)
    if key:
        values, _ = replicas[key]
        learned, score = values["sections"], float(values["section_score"])
    else:
        learned, score = _of_sections(tf.distribute.get_strategy())
    np.testing.assert_allclose(learned, weights, rtol=1e-4, atol=1e-6)
    features, targets = (np.concatenate(parts) for parts in zip(*_sections(), strict=True))
    wanted = _mean_score(features @ weights + bias, targets)["val_gene_r"]  # every spot once
    assert score == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("key", ["mirrored0", "multiworker0", "multiworker1"])
def test_two_replicas_make_the_features_of_one_device_in_its_order(
    replicas: dict[str, tuple[dict[str, Any], str]], key: str, tmp_path: Path
) -> None:
    values, _ = replicas[key]
    kept, colours = features.features_and_colours(
        _trunk(), TILES, symmetries=2, label="tiles", store=tmp_path / "features.npy"
    )
    # Batches of other sizes may add up in another order: float32 noise.
    np.testing.assert_allclose(values["features"], kept, atol=1e-5)
    np.testing.assert_array_equal(values["colours"], colours)


@pytest.mark.parametrize("key", ["mirrored0", "multiworker0", "multiworker1"])
def test_two_replicas_lower_a_head_as_one_device_does(
    replicas: dict[str, tuple[dict[str, Any], str]], key: str, tmp_path: Path
) -> None:
    values, _ = replicas[key]
    alone = _lowered(tf.distribute.get_strategy(), tmp_path)
    # Standardised values of order 1; the same float32 sums in another order, ten times.
    np.testing.assert_allclose(values["lowered"], alone, atol=1e-4)


def test_workers_end_with_the_same_weights_and_one_shows_progress(
    replicas: dict[str, tuple[dict[str, Any], str]],
) -> None:
    (first, shown), (second, silent) = replicas["multiworker0"], replicas["multiworker1"]
    assert (bool(first["chief"]), bool(second["chief"])) == (True, False)
    for name in first:
        if name.isdigit():
            np.testing.assert_array_equal(first[name], second[name])
    assert "Epoch 4/4" in shown
    assert "Epoch" not in silent


if __name__ == "__main__":
    _replica(*sys.argv[1:])

"""Linear heads lowered from the ridge's solution, against SciPy's optimum of the objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from histospace_tf.predictors import descent, ridge_head
from histospace_tf.training import Session
from made.heads import SETTINGS, MadeHead, made_head

STRENGTH = 20.0


def lowered(
    these: MadeHead, folder: Path, *, resume: bool = False, **settings: Any
) -> list[dict[str, Any]]:
    return descent.lower(
        these.head,
        ridge_head.ridges(these.head, these.inputs, these.targets, these.rows, these.weights),
        these.weights,
        dataclasses.replace(SETTINGS, **settings),
        Session(tf.distribute.get_strategy(), 0, resume, folder),
        strength=STRENGTH,
        stage="head",
    )


def learned(these: MadeHead) -> np.ndarray:
    layer = ridge_head.learned_layer(these.head)
    kernel, bias = (np.asarray(values, np.float64) for values in (layer.kernel, layer.bias))
    return np.concatenate([kernel.ravel(), bias])


def objective(these: MadeHead, delta: float) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Value and slope by kernel and bias, written as in the module's docstring, in float64."""
    x = ridge_head.layer_inputs(these.head, these.inputs, these.rows).astype(np.float64)
    y, w = these.targets[these.rows].astype(np.float64), these.weights / these.weights.mean()
    if "factors" in [layer.name for layer in these.head.layers]:
        loadings = np.asarray(these.head.get_layer("expression").kernel, np.float64)
        y = np.linalg.lstsq(loadings.T, y.T, rcond=None)[0].T
    n, k = y.shape
    penalty = STRENGTH / (2 * n * k)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = flat[:-k].reshape(-1, k), flat[-k:]
        error = x @ kernel + bias - y
        far = np.abs(error) > delta
        each = np.where(far, delta * (np.abs(error) - delta / 2), error**2 / 2)
        slope = np.clip(error, -delta, delta) * w[:, None] / (n * k)
        return (
            float((w * each.mean(axis=1)).mean() + (penalty * kernel**2).sum()),
            np.concatenate([(x.T @ slope + 2 * penalty * kernel).ravel(), slope.sum(axis=0)]),
        )

    return value


CASES = pytest.mark.parametrize(
    ("n", "f", "factors", "architecture"),
    [(90, 7, 2, "context"), (90, 7, 0, "pooled"), (24, 40, 2, "pooled"), (24, 40, 0, "context")],
)


@CASES
def test_a_ridge_is_stationary_where_no_error_is_beyond_delta(
    n: int, f: int, factors: int, architecture: str
) -> None:
    these = made_head(n=n, f=f, factors=factors, architecture=architecture)
    value = objective(these, 1e6)
    slope_at_zero = np.abs(value(0 * learned(these))[1]).max()
    (solution,) = ridge_head.solved(
        these.head, these.inputs, these.targets, these.rows, these.weights, [STRENGTH]
    )
    ridge_head.set_solution(these.head, solution)
    # The kernel is kept in float32.
    assert np.abs(value(learned(these))[1]).max() < 1e-5 * slope_at_zero


@CASES
def test_ten_epochs_reach_the_optimum_and_none_raises_the_loss(
    n: int, f: int, factors: int, architecture: str, tmp_path: Path
) -> None:
    these = made_head(n=n, f=f, factors=factors, architecture=architecture)
    delta = 0.7  # about a third of the errors lie beyond
    history = lowered(these, tmp_path, huber_delta=delta, epochs=10)
    value, losses = objective(these, delta), [row["loss"] for row in history]
    reached = value(learned(these))[0]
    (solution,) = these.solved()[1:2]
    ridge_head.set_solution(these.head, solution)
    started = value(learned(these))[0]
    best = optimize.minimize(
        value, learned(these), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-10}
    ).fun
    assert losses[0] == pytest.approx(started, rel=1e-5)  # float32
    assert all(np.diff(losses) < 1e-6 * started)
    assert reached - best < 0.001 * (started - best) + 1e-6 * started
    assert started - best > 0.002 * started
    assert [row["epoch"] for row in history] == list(range(1, 11))
    assert {row["strength"] for row in history} == {STRENGTH}
    # Coordinates of the spots were on disk, and are no more.
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["state.npz"]


def test_a_ridges_head_stays_where_no_error_is_beyond_delta(tmp_path: Path) -> None:
    these = made_head(n=60, f=9, factors=2)
    lowered(these, tmp_path, huber_delta=1e6, epochs=3)
    found = learned(these)
    ridge_head.set_solution(these.head, these.solved()[1])
    np.testing.assert_allclose(found, learned(these), rtol=1e-4, atol=1e-5)  # float32 rounding


def test_batches_and_the_scale_of_weights_have_no_effect_and_weights_have(tmp_path: Path) -> None:
    these = made_head(n=60, f=9, factors=2, architecture="context")
    lowered(these, tmp_path / "whole", huber_delta=0.7)
    whole = learned(these)
    these.weights = 1000 * these.weights
    lowered(these, tmp_path / "batches", huber_delta=0.7, batch_size=7)
    np.testing.assert_allclose(learned(these), whole, rtol=1e-3, atol=1e-5)  # float32 sums
    these.weights = np.ones(len(these.rows))
    lowered(these, tmp_path / "equal", huber_delta=0.7)
    assert np.abs(learned(these) - whole).max() > 1e-3


def test_a_resumed_descent_equals_an_undisturbed_one(tmp_path: Path) -> None:
    these = made_head(n=60, f=9, factors=2)
    options: dict[str, Any] = {"huber_delta": 0.7, "batch_size": 16}
    rows = lowered(these, tmp_path / "whole", epochs=6, **options)
    whole = learned(these)
    lowered(these, tmp_path / "cut", epochs=2, **options)
    again = lowered(these, tmp_path / "cut", epochs=6, resume=True, **options)
    assert learned(these).tobytes() == whole.tobytes()
    assert [row["loss"] for row in again] == [row["loss"] for row in rows]

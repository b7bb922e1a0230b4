from __future__ import annotations

import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.config import RegressorConfig
from histospace_tf.models import losses
from histospace_tf.vocabulary import InputError

RNG = np.random.default_rng(1)
MEASURED = RNG.normal(size=(5, 7)).astype(np.float32)
PREDICTED = (2 * RNG.normal(size=(5, 7))).astype(np.float32)


def _expected(name: str, delta: float) -> np.ndarray:
    error = np.abs(PREDICTED.astype(np.float64) - MEASURED)
    if name == "huber":
        each = np.where(error <= delta, error**2 / 2, delta * (error - delta / 2))
        return each.mean(axis=1)
    mean = (error**2).mean(axis=1)
    return mean if name == "mse" else np.sqrt(mean)


@pytest.mark.parametrize(
    ("name", "delta"), [("huber", 1.0), ("huber", 0.3), ("mse", 1), ("rmse", 1)]
)
def test_loss_follows_its_formula_spot_by_spot(name: str, delta: float) -> None:
    loss = losses.loss(name, huber_delta=delta)
    expected = _expected(name, delta)
    # float32 sums of seven terms: a few units in the seventh digit.
    np.testing.assert_allclose(np.asarray(loss.call(MEASURED, PREDICTED)), expected, rtol=1e-5)
    np.testing.assert_allclose(float(loss(MEASURED, PREDICTED)), expected.mean(), rtol=1e-5)


def test_a_configuration_may_name_every_loss_and_no_other() -> None:
    hint = typing.get_type_hints(RegressorConfig)["loss"]
    assert typing.get_args(hint) == tuple(losses.LOSSES)


def test_huber_is_half_of_mse_for_small_errors() -> None:
    near = MEASURED + np.float32(0.01)
    half = float(losses.loss("mse")(MEASURED, near)) / 2
    assert float(losses.loss("huber")(MEASURED, near)) == pytest.approx(half, rel=1e-5)


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_exact_fit_has_no_loss_and_a_finite_gradient(name: str) -> None:
    predicted = tf.Variable(MEASURED)
    with tf.GradientTape() as tape:
        value = losses.loss(name)(MEASURED, predicted)
    gradient = tape.gradient(value, predicted).numpy()
    assert float(value) <= 1e-6  # the floor under the root
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_root_loss_comes_back_from_its_configuration() -> None:
    loss = losses.loss("rmse")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(MEASURED, PREDICTED)) == float(loss(MEASURED, PREDICTED))


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(InputError, match=r"'log'.*huber, mse, rmse"):
        losses.loss("log")


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan")])
def test_huber_delta_that_is_not_above_zero_is_refused(delta: float) -> None:
    with pytest.raises(InputError, match="huber_delta"):
        losses.loss("huber", huber_delta=delta)


def test_squares_of_a_kernel_count_by_their_inputs_factors() -> None:
    penalty = losses.SquaresByInput([0.0, 2.0, 0.5])
    kernel = np.array([[9.0, 9.0], [1.0, 3.0], [2.0, 0.0]], np.float32)
    assert float(penalty(kernel)) == pytest.approx(2.0 * 10 / 2 + 0.5 * 4 / 2)
    saved = keras.saving.serialize_keras_object(penalty)
    assert keras.saving.deserialize_keras_object(saved).factors == penalty.factors

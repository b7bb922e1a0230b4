"""Losses of expression, (n, genes) against (n, genes), in the unit that the head learns.

Each gives one value per spot through `.call`, and the mean over spots when called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from histospace_tf.vocabulary import InputError


@keras.saving.register_keras_serializable(package="histospace_tf")
class RootMeanSquaredErrorPerSpot(keras.losses.Loss):
    """Root of the mean square over genes, spot by spot."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = ops.convert_to_tensor(y_pred) - ops.cast(y_true, y_pred.dtype)
        # The root's slope at zero is infinite: 1e-12 keeps the gradient of an exact fit at zero.
        return ops.sqrt(ops.mean(ops.square(error), axis=-1) + 1e-12)


@keras.saving.register_keras_serializable(package="histospace_tf")
class SquaresByInput(keras.regularizers.Regularizer):
    """Penalty of a kernel (inputs, units): half the sum of its squares, each input's with a factor.

    factors: (inputs,), at least 0.
    """

    def __init__(self, factors: Sequence[float]) -> None:
        self.factors = [float(factor) for factor in factors]

    def __call__(self, x: Any) -> Any:
        factors = ops.expand_dims(ops.convert_to_tensor(self.factors, x.dtype), -1)
        return 0.5 * ops.sum(factors * ops.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"factors": self.factors}


def _huber(delta: float) -> keras.losses.Loss:
    if not delta > 0:
        raise InputError(f"huber_delta is {delta!r}; a number above 0 works")
    return keras.losses.Huber(delta=delta, name="huber")


# By the names that `config.RegressorConfig.loss` may have; each is made of huber_delta.
LOSSES: dict[str, Callable[[float], keras.losses.Loss]] = {
    # Half the square of an error up to huber_delta, linear beyond, mean over genes (Huber 1964,
    # eq. 2.3).
    "huber": _huber,
    "mse": lambda _: keras.losses.MeanSquaredError(name="mse"),
    "rmse": lambda _: RootMeanSquaredErrorPerSpot(name="rmse"),
}


def loss(name: str, *, huber_delta: float = 1.0) -> keras.losses.Loss:
    """A loss by name.

    Args:
        name: one of LOSSES.
        huber_delta: where Huber's loss turns linear, in the targets' unit; above zero.
    Raises:
        InputError: an unknown name, or a delta that is not above zero.
    """
    if name not in LOSSES:
        raise InputError(f"loss {name!r} is unknown; one of {', '.join(LOSSES)}")
    return LOSSES[name](huber_delta)

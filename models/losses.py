"""Losses of expression, (n, genes) against (n, genes), in the unit that the head learns.

Each gives one value a spot through `.call`, and the mean over spots when called.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from histospace_tf.vocabulary import InputError

NAMES = ("huber", "mse", "rmse")


def loss(name: str, *, huber_delta: float = 1.0) -> keras.losses.Loss:
    """A loss by name.

    Args:
        name: "huber": half the square of an error up to `huber_delta`, linear beyond (Huber 1964,
            eq. 2.3), mean over genes; "mse": mean square over genes; "rmse": the root of that.
        huber_delta: where Huber's loss turns linear, in the targets' unit; above zero.
    Raises:
        InputError: an unknown name, or a delta that is not above zero.
    """
    if name == "huber":
        if not huber_delta > 0:
            raise InputError(f"huber_delta is {huber_delta!r}; a number above 0 works")
        return keras.losses.Huber(delta=huber_delta, name="huber")
    if name == "mse":
        return keras.losses.MeanSquaredError(name="mse")
    if name == "rmse":
        return RootMeanSquaredErrorPerSpot(name="rmse")
    raise InputError(f"loss {name!r} is unknown; one of {', '.join(NAMES)}")


@keras.saving.register_keras_serializable(package="histospace_tf")
class RootMeanSquaredErrorPerSpot(keras.losses.Loss):
    """Root of the mean square over genes, spot by spot."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = ops.convert_to_tensor(y_pred) - ops.cast(y_true, y_pred.dtype)
        # The root's slope at zero is infinite: 1e-12 keeps the gradient of an exact fit at zero.
        return ops.sqrt(ops.mean(ops.square(error), axis=-1) + 1e-12)

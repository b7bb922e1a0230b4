"""Predicting with the network on a TF Serving server, in place of this machine's.

The slide is read, cut and normalised here, in the run's own way; a `Bundle` whose trunk and head
ask the server's signatures `embed` and `predict_features` does the rest, so that `predict` is one
code for both. Flips and rotations are made here too: `embed` is asked for each of them, and the
mean is taken of the predictions, as `features.predicted` does.

Needs tensorflow-serving-api (extra `serving`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import bundle as bundles
from histospace_tf.bundle import Bundle
from histospace_tf.exports import saved_model
from histospace_tf.slide_prediction import server_address
from histospace_tf.vocabulary import InputError

REQUEST_ROWS = 16  # at most, so that a server works on one request while the next is on its way
TIMEOUT_S = 300.0
# gRPC's own retries: up to four more times after about 0.5, 1, 2 and 4 seconds.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.5s",
                "maxBackoff": "8s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
# A request that is longer than what gRPC keeps of it (256 kB by default) is never sent again.
_RETRY_BYTES = 256 << 20
# Local and served numbers of one model differ by rounding alone.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Server:
    """A model on a server.

    name: host and port, for messages.
    model: its name there; version: None for the server's choice.
    stub: PredictionServiceStub of an open channel.
    """

    name: str
    model: str
    version: int | None
    stub: Any

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The one output of a signature, a row for each row of the inputs, in their order.

        Raises:
            InputError: the server cannot be reached, or refuses the request.
        """
        import grpc
        from tensorflow_serving.apis import predict_pb2

        rows = len(next(iter(inputs.values())))
        asked = []
        for start in range(0, rows, REQUEST_ROWS):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = self.model
            if self.version is not None:
                request.model_spec.version.value = self.version
            request.model_spec.signature_name = signature
            for name, values in inputs.items():
                part = values[start : start + REQUEST_ROWS]
                request.inputs[name].CopyFrom(tf.make_tensor_proto(part))
            asked.append(self.stub.Predict.future(request, timeout=TIMEOUT_S))
        try:
            parts = [tf.make_ndarray(*answer.result().outputs.values()) for answer in asked]
        except grpc.RpcError as error:
            for answer in asked:
                answer.cancel()
            raise self._refused(signature, error) from None
        return np.concatenate(parts)

    def _refused(self, signature: str, error: Any) -> InputError:
        said = " ".join(str(error.details()).split())[:300]
        advice = {
            "UNAVAILABLE": "; is TF Serving running there, and is this its gRPC port?",
            "UNIMPLEMENTED": "; what answers there is not TF Serving's gRPC (a proxy, perhaps)",
            "NOT_FOUND": "; `server` HOST:PORT/NAME/versions/N says which model it is, and which "
            "version",
            "DEADLINE_EXCEEDED": f"; no answer within {TIMEOUT_S:.0f} seconds",
        }.get(error.code().name, "")
        return InputError(
            f"server {self.name!r}, signature {signature!r}: {error.code().name}: {said}{advice}"
        )


@contextlib.contextmanager
def connected(address: str, model: Bundle) -> Iterator[Bundle]:
    """Yields the model with trunk and head on a server, once that is known to hold this model.

    Args:
        address: HOST:PORT of TF Serving's gRPC; HOST:PORT/NAME where the model's name there is
            not `saved_model.MODEL_NAME`; HOST:PORT/NAME/versions/N for another than the newest.
        model: of the run whose export is served. Its settings, panel and stain reference are used,
            and its weights for one tile, to see that the server's are the same.
    Raises:
        InputError: tensorflow-serving-api is not installed, the address has another form, the
            server cannot be reached or refuses, or its model is another than this.
    """
    try:
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc
    except ImportError:
        raise InputError(
            '`server` needs tensorflow-serving-api; pip install "histospace-tf[serving]"'
        ) from None
    at = server_address(address)
    options = [
        ("grpc.service_config", json.dumps(_RETRIES)),
        ("grpc.max_receive_message_length", -1),  # features of a batch pass gRPC's 4 MB
        ("grpc.max_send_message_length", -1),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BYTES),
    ]
    with grpc.insecure_channel(at.host_port, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        server = Server(at.host_port, at.model or saved_model.MODEL_NAME, at.version, stub)
        _check_same(server, model)
        failed: list[InputError] = []
        try:
            yield _served(server, model, failed)
        except Exception:
            # TensorFlow and Keras pass on what is raised inside a model as an error of their own,
            # with a traceback as its text.
            if failed:
                raise failed[0] from None
            raise


def _check_same(server: Server, model: Bundle) -> None:
    """Raises InputError where genes or weights are not the model's."""
    panel = model.panel
    index = np.arange(len(panel), dtype=np.int32)
    genes = tuple(symbol.decode() for symbol in server.call("genes", {"index": index}))
    side = model.config.tiles.tile_px
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (1, side, side, 3), np.uint8)
    features = np.asarray(model.trunk(tile.astype(np.float32) / 255, training=False))
    # A slide and neighbours unlike the tile: where all are equal, a head that takes differences
    # shows nothing of its weights.
    around = {
        "neighbour_features": features * _between(rng, 0.5, 1.5, features.shape),
        "slide_mean": features * _between(rng, 0.5, 1.5, features.shape),
        "slide_std": np.abs(features) * _between(rng, 0.3, 0.7, features.shape) + np.float32(0.1),
    }
    inputs = {tensor.name: around.get(tensor.name, features) for tensor in model.head.inputs}
    right = model.head(inputs if len(inputs) > 1 else features, training=False)
    pairs = (
        (server.call("embed", {"tile": tile}), features),
        (server.call("predict_features", inputs), panel.to_unit(np.asarray(right))),
    )
    if genes != panel.genes or not all(
        got.shape == own.shape and np.allclose(got, own, rtol=_TOLERANCE, atol=_TOLERANCE)
        for got, own in pairs
    ):
        what = "genes" if genes != panel.genes else "weights"
        raise InputError(
            f"server {server.name!r}: the {what} of its model {server.model!r} are not those of "
            "the run that `model` names; serve that run's saved_model folder"
        )


def _between(
    rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]
) -> np.ndarray:
    return rng.uniform(low, high, shape).astype(np.float32)


def _served(server: Server, model: Bundle, failed: list[InputError]) -> Bundle:
    """The bundle, its trunk and head replaced by models of the same form that ask the server.

    Args:
        failed: an error is kept here as it was raised.
    """

    def call(signature: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            return server.call(signature, inputs)
        except InputError as error:
            failed.append(error)
            raise

    def embed(scaled: np.ndarray) -> np.ndarray:
        return call("embed", {"tile": np.rint(scaled * 255).astype(np.uint8)})

    names = [tensor.name for tensor in model.head.inputs]

    def predict_features(*values: np.ndarray) -> np.ndarray:
        in_unit = call("predict_features", dict(zip(names, values, strict=True)))
        return model.panel.standardise(in_unit)

    side = model.config.tiles.tile_px
    shape = bundles.feature_shape(model.trunk, side)
    tile = keras.Input((side, side, 3), name="tile")
    inputs = {name: keras.Input(shape, name=name) for name in names}
    features = _OnServer(embed, shape, name="features")([tile])
    expression = _OnServer(predict_features, (len(model.panel),), name="expression")(
        list(inputs.values())
    )
    head_inputs = inputs if len(inputs) > 1 else inputs["features"]
    return dataclasses.replace(
        model,
        trunk=keras.Model(tile, features, name="trunk"),
        head=keras.Model(head_inputs, expression, name="head"),
    )


class _OnServer(keras.layers.Layer):
    """A layer that is a function of NumPy arrays, (n, ...) each -> (n, *row_shape) float32."""

    def __init__(self, function: Any, row_shape: tuple[int, ...], *, name: str) -> None:
        super().__init__(name=name)
        self.function, self.row_shape = function, row_shape

    def call(self, inputs: list[Any]) -> Any:
        out = tf.numpy_function(self.function, inputs, tf.float32)
        out.set_shape((None, *self.row_shape))
        return out

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0][0], *self.row_shape)

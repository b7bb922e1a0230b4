"""An .onnx file as a Keras layer: onnxruntime, of the extra `onnx`, does its work."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import faults
from histospace_tf.vocabulary import InputError

# Of a tensor's element, as onnxruntime names it.
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


@functools.lru_cache(maxsize=4)  # a model of gigabytes is read once
def session(path: str) -> Any:
    """The onnxruntime session of a file.

    Raises:
        InputError: the extra `onnx` is missing, or the file cannot be read.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError(f'encoder {path!r} needs onnxruntime (pip install "histospace-tf[onnx]")')
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime has a kind for each of its stages, and no common one
        raise InputError(
            f"encoder {path!r} cannot be read as ONNX: {faults.one_line(error)}"
        ) from None


class OnnxLayer(keras.layers.Layer):
    """(n, ...) float32 -> one output of an .onnx file, float32.

    path: of the file. output: name of it. shape: of one tile's, as `trunk` tries it out.
    """

    def __init__(self, path: str, output: str, shape: tuple[int, ...], **given: Any) -> None:
        super().__init__(**given)
        self.file, self.output_name, self.one = path, output, tuple(shape)

    def call(self, tiles: Any) -> Any:
        values = tf.numpy_function(self._run, [tiles], tf.float32, stateful=False)
        values.set_shape((None, *self.one))
        return values

    def _run(self, tiles: np.ndarray) -> np.ndarray:
        return run(self.file, self.output_name, tiles)

    def compute_output_spec(self, tiles: Any) -> keras.KerasTensor:
        return keras.KerasTensor((None, *self.one), "float32")

    def get_config(self) -> dict[str, Any]:
        own = {"path": self.file, "output": self.output_name, "shape": self.one}
        return super().get_config() | own


def parameters(path: str) -> int | None:
    """How many weights a file holds; None where `onnx`, of the same extra, is missing."""
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    held = onnx.load(path, load_external_data=False).graph.initializer
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return sum(int(np.prod(list(each.dims))) for each in held if each.data_type in kinds)


def run(path: str, output: str, tiles: np.ndarray) -> np.ndarray:
    """One output of a file for a batch, float32.

    Raises:
        InputError: onnxruntime cannot run it.
    """
    opened = session(path)
    (entrance,) = opened.get_inputs()
    given = {entrance.name: np.ascontiguousarray(tiles, TYPES[entrance.type])}
    try:
        (values,) = opened.run([output], given)
    except Exception as error:  # as above
        raise InputError(
            f"encoder {path!r} cannot be run on {len(tiles)} tiles: {faults.one_line(error)}"
        ) from None
    return np.asarray(values, np.float32)

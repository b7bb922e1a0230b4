"""A signature of a SavedModel as a Keras layer.

`keras.layers.TFSMLayer` does the same, but refuses to be copied, which replicas need.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class SignatureLayer(keras.layers.Layer):
    """(n, ...) -> one output of a signature of a SavedModel, which has one input.

    path: its folder. signature, output: their names. Its weights are the SavedModel's own, and none
    of the layer's.
    """

    def __init__(self, path: str, signature: str, output: str, **given: Any) -> None:
        super().__init__(**given)
        self.folder, self.signature, self.output_name = path, signature, output
        self.loaded = tf.saved_model.load(path)  # kept: a signature does not hold its variables

    def call(self, tiles: Any) -> Any:
        return self.loaded.signatures[self.signature](tiles)[self.output_name]

    def get_config(self) -> dict[str, Any]:
        own = {"path": self.folder, "signature": self.signature, "output": self.output_name}
        return super().get_config() | own

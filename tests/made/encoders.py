"""Encoders as others would bring them: small, with known weights, in each form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SIDE, CHANNELS = 32, 5
# Of a convolution of 4 x 4 px: (rows, columns, in, out).
KERNEL = np.random.default_rng(3).normal(size=(4, 4, 3, CHANNELS)).astype(np.float32) / 7
BIAS = np.linspace(-0.2, 0.2, CHANNELS, dtype=np.float32)


def by_hand(pixels: np.ndarray) -> np.ndarray:
    """What they all compute: (n, SIDE, SIDE, 3) as they take it -> (n, CHANNELS), means of maps."""
    n, side = len(pixels), pixels.shape[1] // 4
    patches = pixels.reshape(n, side, 4, side, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    maps = np.tensordot(patches, KERNEL, 3) + BIAS
    return np.maximum(maps, 0).mean(axis=(1, 2))


def keras_model(*, side: int | None = SIDE, pooled: bool = False) -> Any:
    """The convolution, its maps averaged or as they are."""
    import keras

    tile = keras.Input((side, side, 3), name="tile")
    maps = keras.layers.Conv2D(CHANNELS, 4, strides=4, activation="relu", name="conv")(tile)
    out = keras.layers.GlobalAveragePooling2D()(maps) if pooled else maps
    model = keras.Model(tile, out)
    model.get_layer("conv").set_weights([KERNEL, BIAS])
    return model


def saved_model(folder: Path) -> Path:
    keras_model(pooled=True).export(folder, verbose=False)
    return folder


def onnx_file(
    path: Path,
    *,
    gives: str = "maps",
    batch: int | str = "n",
    inputs: int = 1,
    outputs: int = 1,
    channels_last: bool = False,
    element: str = "FLOAT",
) -> Path:
    """The convolution as .onnx.

    Args:
        gives: "maps", "vectors", "tokens" (the places of maps after a token of ones), "nan", "cube"
            (one axis more than maps) or "mixed" (maps less their mean over the batch).
        batch: first size of the input.
        inputs, outputs: how many; further ones are no good.
        channels_last: (n, SIDE, SIDE, 3).
        element: of the input, as `onnx.TensorProto` names it.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    def constant(name: str, values: np.ndarray) -> Any:
        return numpy_helper.from_array(values, name)

    kind = getattr(TensorProto, element)
    shape = [batch, SIDE, SIDE, 3] if channels_last else [batch, 3, SIDE, SIDE]
    taken = [helper.make_tensor_value_info("pixels", kind, shape)]
    taken += [helper.make_tensor_value_info(f"more{i}", kind, shape) for i in range(inputs - 1)]
    nodes, at = [], "pixels"
    if element != "FLOAT":
        nodes.append(helper.make_node("Cast", [at], ["cast"], to=TensorProto.FLOAT))
        at = "cast"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [at], ["first"], perm=[0, 3, 1, 2]))
        at = "first"
    nodes += [
        helper.make_node("Conv", [at, "kernel", "bias"], ["conv"], strides=[4, 4]),
        helper.make_node("Relu", ["conv"], ["maps"]),
    ]
    constants = [
        constant("kernel", np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1))),
        constant("bias", BIAS),
    ]
    if gives == "vectors":
        nodes.append(helper.make_node("ReduceMean", ["maps"], [gives], axes=[2, 3], keepdims=0))
    elif gives == "tokens":
        places = (SIDE // 4) ** 2
        constants += [
            constant("flat", np.array([0, CHANNELS, places], np.int64)),
            constant("ends", np.array([1], np.int64)),
            constant("zero", np.array([0], np.int64)),
            constant("one", np.array(1, np.float32)),
        ]
        nodes += [
            helper.make_node("Reshape", ["maps", "flat"], ["rows"]),
            helper.make_node("Transpose", ["rows"], ["places"], perm=[0, 2, 1]),
            helper.make_node("Slice", ["places", "zero", "ends", "ends"], ["some"]),
            helper.make_node("Mul", ["some", "zero_f"], ["none"]),
            helper.make_node("Add", ["none", "one"], ["class"]),
            helper.make_node("Concat", ["class", "places"], [gives], axis=1),
        ]
        constants.append(constant("zero_f", np.array(0, np.float32)))
    elif gives == "nan":
        constants.append(constant("minus", np.array(-1, np.float32)))
        nodes += [
            helper.make_node("Sub", ["minus", "maps"], ["below"]),
            helper.make_node("Log", ["below"], [gives]),
        ]
    elif gives == "cube":
        constants.append(constant("last", np.array([4], np.int64)))
        nodes.append(helper.make_node("Unsqueeze", ["maps", "last"], [gives]))
    elif gives == "mixed":
        nodes += [
            helper.make_node("ReduceMean", ["maps"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["maps", "mean"], [gives]),
        ]
    given = [helper.make_tensor_value_info(gives, TensorProto.FLOAT, None)]
    if outputs > 1:
        given.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "encoder", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, str(path))
    return path

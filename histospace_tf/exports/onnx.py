"""A SavedModel -> an .onnx file for runtimes that read ONNX, with its metadata inside.

It takes `tile` uint8 [n, s, s, 3], stain-normalised, and gives `expression` float32 [n, genes] in
the panel's unit, any n: what `serving_default` takes and gives. Its metadata_props are those of a
.tflite (`tflite.metadata`), the value of each key as JSON:

    session = onnxruntime.InferenceSession("histospace.onnx")
    about = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}

tf2onnx converts; `parity` checks with onnxruntime. Both are of the extra `onnx`.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from histospace_tf.bundle import Bundle
from histospace_tf.exports import tflite

# The operations need no later one, and runtimes since 2022 know it.
OPSET = 17
_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def why_not() -> str | None:
    """Why no .onnx can be made and checked here, as a message; None if one can."""
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f'ONNX needs {", ".join(absent)} (pip install "histospace-tf[onnx]")'


def write(saved_model: Path, file: Path, bundle: Bundle, *, signature: str) -> None:
    """Writes one signature of a SavedModel as .onnx, unchecked; `file`'s folder may be new.

    Args:
        bundle: for the metadata.
        signature: of `tile` alone to `expression` alone.
    """
    import onnx
    import tf2onnx

    served = tf.saved_model.load(str(saved_model))  # kept: its functions do not hold its variables
    run = served.signatures[signature]
    (spec,) = run.structured_input_signature[1].values()
    model, _ = tf2onnx.convert.from_function(
        tf.function(lambda tile: run(tile=tile)),
        input_signature=[spec],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    values = tflite.metadata(bundle, variant="float32")
    onnx.helper.set_model_props(
        model, {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(file))


def _erfc(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """GELU's Erfc, which neither ONNX nor tf2onnx has, as 1 - Erf."""
    one = graph.make_const(f"{name}/one", np.float32(1))
    erf = graph.make_node("Erf", list(node.input))
    kept = {"outputs": node.output, "shapes": node.output_shapes, "dtypes": node.output_dtypes}
    graph.remove_node(name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, **kept)

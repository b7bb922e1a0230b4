"""The four kinds of source that an encoder comes in, each loaded and looked at.

Raises:
    InputError: each, where it cannot be loaded or takes or gives what no tile or feature is. `what`
        is the encoder, for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import faults
from histospace_tf.foreign_encoders import onnx_layer
from histospace_tf.foreign_encoders.entrance import (
    Entrance,
    chosen_output,
    read_entrance,
    refuse_several,
)
from histospace_tf.foreign_encoders.signature_layer import SignatureLayer
from histospace_tf.foreign_encoders.stated import Kind, StatedEncoder
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named

# What it takes, what makes of such tiles what the encoder gives, and its weights' number if known.
Parts: TypeAlias = tuple[Entrance, Callable[[Any], Any], int | None]


def loaded(stated: StatedEncoder, what: str) -> Parts:
    """An encoder of any kind, frozen."""
    loaders: dict[Kind, Callable[[StatedEncoder, str], Parts]] = {
        "application": _application,
        "keras": _keras_file,
        "saved_model": _saved_model,
        "onnx": _onnx_file,
    }
    return loaders[stated.kind](stated, what)


def _application(stated: StatedEncoder, what: str) -> Parts:
    build = getattr(keras.applications, stated.source, None)
    if not callable(build):
        names = [n for n in dir(keras.applications) if callable(getattr(keras.applications, n))]
        raise InputError(f"{what}: Keras has no application of that name; {', '.join(names)} work")
    assert stated.px is not None  # `stated` asks for it
    weights = None if stated.weights == "random" else stated.weights
    if weights is None:
        say(f"{what}: random weights, as `weights=random` says.")
        keras.utils.set_random_seed(0)
    try:
        model = build(include_top=False, weights=weights, input_shape=(stated.px, stated.px, 3))
    except Exception as error:  # of a download, of a file, of a size that it cannot take
        how = ""
        if stated.weights == "imagenet":
            how = "; weights=FILE takes Keras's file of it without the top, weights=random none"
        raise InputError(
            f"{what} at {stated.px} px with weights={stated.weights}: {faults.one_line(error)}{how}"
        ) from None
    parameters = _count(model.trainable_variables)
    model.trainable = False
    entrance = Entrance(stated.px, False, False)
    return entrance, lambda tiles: model(tiles, training=False), parameters


def _count(variables: Sequence[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def _keras_file(stated: StatedEncoder, what: str) -> Parts:
    try:
        model = keras.saving.load_model(stated.source, compile=False)
    except Exception as error:  # Keras raises many kinds for a cut, foreign or unsafe file
        raise InputError(f"{what} cannot be loaded by Keras: {faults.one_line(error)}") from None
    parameters = _count(model.trainable_variables)
    model.trainable = False
    inputs = getattr(model, "inputs", None) or []
    refuse_several([tensor.name for tensor in inputs], what)
    (tensor,) = inputs
    entrance = read_entrance(tensor.shape, str(tensor.dtype), stated, what)
    names = [str(name) for name in model.output_names]
    place = names.index(chosen_output(names, stated, what))
    one = keras.Model(model.inputs, model.outputs[place]) if len(names) > 1 else model

    def call(tiles: Any) -> Any:
        values = one(tiles, training=False)
        return next(iter(values.values())) if isinstance(values, dict) else values

    return entrance, call, parameters


def _saved_model(stated: StatedEncoder, what: str) -> Parts:
    try:
        held = tf.saved_model.load(stated.source)  # kept: signatures do not hold its variables
    except Exception as error:  # TensorFlow raises many kinds for a cut or foreign folder
        raise InputError(
            f"{what} cannot be loaded by TensorFlow: {faults.one_line(error)}"
        ) from None
    signatures = held.signatures
    names = sorted(signatures)
    chosen = stated.signature or ("serving_default" if "serving_default" in names else None)
    if chosen is None or chosen not in signatures:
        wanted = "none is named" if chosen is None else f"there is no {chosen!r}"
        raise InputError(
            f"{what}: of its signatures {named(names) or '(none)'}, {wanted}; give signature=NAME"
        )
    run = signatures[chosen]
    inputs = run.structured_input_signature[1]
    refuse_several(list(inputs), what)
    (spec,) = inputs.values()
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    entrance = read_entrance(shape, spec.dtype.name, stated, what)
    output = chosen_output(sorted(run.structured_outputs), stated, what)
    layer = SignatureLayer(stated.source, chosen, output, name="encoder")
    return entrance, layer, _count(run.variables)


def _onnx_file(stated: StatedEncoder, what: str) -> Parts:
    file = onnx_layer.session(stated.source)
    inputs = file.get_inputs()
    refuse_several([one.name for one in inputs], what)
    (taken,) = inputs
    if taken.type not in onnx_layer.TYPES:
        raise InputError(f"{what} takes {taken.type}; float or uint8 tiles are needed")
    sizes = [size if isinstance(size, int) else None for size in taken.shape]
    entrance = read_entrance(
        sizes or None, np.dtype(onnx_layer.TYPES[taken.type]).name, stated, what
    )
    output = chosen_output([one.name for one in file.get_outputs()], stated, what)
    side = entrance.px
    one_tile = (3, side, side) if entrance.channels_first else (side, side, 3)
    # Shapes in files are often unknown: what one tile gives says it.
    shape = onnx_layer.run(stated.source, output, np.zeros((1, *one_tile), np.float32)).shape[1:]
    layer = onnx_layer.OnnxLayer(stated.source, output, shape, name="encoder")
    return entrance, layer, onnx_layer.parameters(stated.source)

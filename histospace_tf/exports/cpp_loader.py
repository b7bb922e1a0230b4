"""A SavedModel in TensorFlow's C++ loader, the one that TF Serving uses, called from Python.

Through the C API of the installed wheel (tensorflow/c/c_api.h) by ctypes: no Keras, no Python
function of the model's own. It refuses SavedModels that `tf.saved_model.load` takes.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2


class NotHere(Exception):
    """This platform or installation lacks what is needed."""


class CppModel:
    """A loaded SavedModel; it stays loaded until the process ends. Threads may share it.

    signatures: TensorFlow's SignatureDef by name: inputs and outputs with their types and shapes.
    """

    def __init__(self, folder: Path) -> None:
        """Raises: RuntimeError with TensorFlow's own words where the loader refuses the folder."""
        self._api = api = _c_api()
        self._graph = api.TF_NewGraph()
        options, meta = api.TF_NewSessionOptions(), api.TF_NewBuffer()
        tags = (ctypes.c_char_p * 1)(b"serve")
        with self._status() as status:
            self._session = api.TF_LoadSessionFromSavedModel(
                options, None, str(folder).encode(), tags, 1, self._graph, meta, status
            )
        api.TF_DeleteSessionOptions(options)
        content = ctypes.string_at(meta.contents.data, meta.contents.length)
        self.signatures = meta_graph_pb2.MetaGraphDef.FromString(content).signature_def
        api.TF_DeleteBuffer(meta)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a signature by name; strings go and come as arrays of bytes objects.

        Raises:
            RuntimeError: TensorFlow's own words, where it refuses the inputs.
        """
        api, definition = self._api, self.signatures[signature]
        names = sorted(definition.outputs)
        fed = [self._output(definition.inputs[name].name) for name in inputs]
        asked = [self._output(definition.outputs[name].name) for name in names]
        tensors = [self._tensor(value) for value in inputs.values()]
        got = (ctypes.c_void_p * len(names))()
        try:
            with self._status() as status:
                api.TF_SessionRun(
                    *(self._session, None),
                    *((_Output * len(fed))(*fed), (ctypes.c_void_p * len(fed))(*tensors), len(fed)),
                    *((_Output * len(asked))(*asked), got, len(asked)),
                    *(None, 0, None, status),
                )
            return {name: self._array(t) for name, t in zip(names, got, strict=True)}
        finally:
            for tensor in tensors:
                self._delete(tensor)
            for tensor in filter(None, got):
                api.TF_DeleteTensor(tensor)

    @contextlib.contextmanager
    def _status(self) -> Iterator[int]:
        status = self._api.TF_NewStatus()
        try:
            yield status
            if self._api.TF_GetCode(status):
                raise RuntimeError(self._api.TF_Message(status).decode(errors="replace"))
        finally:
            self._api.TF_DeleteStatus(status)

    def _output(self, tensor_name: str) -> _Output:
        operation, _, index = tensor_name.partition(":")
        operation_in_graph = self._api.TF_GraphOperationByName(self._graph, operation.encode())
        return _Output(operation_in_graph, int(index))

    def _tensor(self, values: np.ndarray) -> int:
        """A tensor of numbers, or of bytes objects as strings; of `_delete`'s kind to let go."""
        values = np.ascontiguousarray(values)
        sides = (ctypes.c_int64 * values.ndim)(*values.shape)
        is_text = values.dtype == object
        code = tf.string if is_text else tf.as_dtype(values.dtype)
        size = values.size * _STRING_BYTES if is_text else values.nbytes
        tensor = self._api.TF_AllocateTensor(code.as_datatype_enum, sides, values.ndim, size)
        data = self._api.TF_TensorData(tensor)
        if is_text:
            for at, content in zip(_strings(data, values.size), values.ravel(), strict=True):
                self._api.TF_StringInit(at)
                self._api.TF_StringCopy(at, content, len(content))
        else:
            ctypes.memmove(data, values.ctypes.data, size)
        return tensor

    def _delete(self, tensor: int) -> None:
        """Lets a tensor go, and what its strings hold beside it."""
        if tf.as_dtype(self._api.TF_TensorType(tensor)) == tf.string:
            count = self._api.TF_TensorByteSize(tensor) // _STRING_BYTES
            for at in _strings(self._api.TF_TensorData(tensor), count):
                self._api.TF_StringDealloc(at)
        self._api.TF_DeleteTensor(tensor)

    def _array(self, tensor: int) -> np.ndarray:
        api = self._api
        shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
        data, dtype = api.TF_TensorData(tensor), tf.as_dtype(api.TF_TensorType(tensor))
        if dtype != tf.string:
            content = ctypes.string_at(data, api.TF_TensorByteSize(tensor))
            return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
        strings = [
            ctypes.string_at(api.TF_StringGetDataPointer(at), api.TF_StringGetSize(at))
            for at in _strings(data, math.prod(shape))
        ]
        return np.array(strings, dtype=object).reshape(shape)


def _strings(data: int | None, count: int) -> range:
    """Where the strings of a tensor are."""
    start = data or 0
    return range(start, start + count * _STRING_BYTES, _STRING_BYTES)


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


# sizeof(TF_TString), tensorflow/core/platform/ctstring.h.
_STRING_BYTES = 24
_POINTER, _TEXT, _WHOLE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
# Functions whose results or arguments ctypes would guess wrongly: result, then arguments.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "TF_NewGraph": (_POINTER,),
    "TF_NewSessionOptions": (_POINTER,),
    "TF_DeleteSessionOptions": (None, _POINTER),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer),),
    "TF_DeleteBuffer": (None, ctypes.POINTER(_Buffer)),
    "TF_NewStatus": (_POINTER,),
    "TF_DeleteStatus": (None, _POINTER),
    "TF_GetCode": (_WHOLE, _POINTER),
    "TF_Message": (_TEXT, _POINTER),
    "TF_GraphOperationByName": (_POINTER, _POINTER, _TEXT),
    "TF_AllocateTensor": (_POINTER, _WHOLE, _POINTER, _WHOLE, ctypes.c_size_t),
    "TF_DeleteTensor": (None, _POINTER),
    "TF_TensorData": (_POINTER, _POINTER),
    "TF_TensorType": (_WHOLE, _POINTER),
    "TF_TensorByteSize": (ctypes.c_size_t, _POINTER),
    "TF_NumDims": (_WHOLE, _POINTER),
    "TF_Dim": (ctypes.c_int64, _POINTER, _WHOLE),
    "TF_StringGetDataPointer": (_POINTER, _POINTER),
    "TF_StringGetSize": (ctypes.c_size_t, _POINTER),
    "TF_StringInit": (None, _POINTER),
    "TF_StringCopy": (None, _POINTER, _TEXT, ctypes.c_size_t),
    "TF_StringDealloc": (None, _POINTER),
    "TF_LoadSessionFromSavedModel": (
        *(_POINTER, _POINTER, _POINTER, _TEXT, _POINTER, _WHOLE, _POINTER),
        *(ctypes.POINTER(_Buffer), _POINTER),
    ),
    "TF_SessionRun": (
        *(None, _POINTER, _POINTER, _POINTER, _POINTER, _WHOLE, _POINTER, _POINTER, _WHOLE),
        *(_POINTER, _WHOLE, _POINTER, _POINTER),
    ),
}


def _c_api() -> Any:
    """The installed wheel's C API; its library's name depends on platform and version."""
    root = Path(tf.sysconfig.get_lib())
    patterns = ("libtensorflow_cc*", "python/*pywrap_tensorflow_internal*", "libtensorflow.*")
    for file in (file for pattern in patterns for file in sorted(root.glob(pattern))):
        try:
            library = ctypes.CDLL(str(file))
            for name, (result, *arguments) in _PROTOTYPES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return library
    raise NotHere("not run: this TensorFlow's library has no C API that Python can reach")

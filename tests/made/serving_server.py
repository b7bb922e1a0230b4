"""A stand-in for TF Serving on loopback: PredictionService over gRPC, and predict over REST.

The SavedModel is run by TensorFlow's C++ loader. Neither Keras nor the package under test is
imported; the wrapper of the C API is one file, which is loaded by its path.

    python tests/made/serving_server.py CPP_LOADER.py SAVED_MODEL NAME [BUSY,BUSY,...]

Prints its two ports as JSON when it is ready, and ends when its standard input does. The gRPC
requests whose numbers are given as BUSY are refused, as an overloaded or restarting server does.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import re
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.modules["keras"] = None  # type: ignore[assignment]  # else TensorFlow itself imports it
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: Any, name: str, busy: set[int]) -> None:
        self.model, self.name, self.busy = model, name, busy
        self.numbers = itertools.count(1)

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        number = next(self.numbers)
        if number in self.busy:
            code = grpc.StatusCode.UNAVAILABLE if number % 2 else grpc.StatusCode.RESOURCE_EXHAUSTED
            context.abort(code, "busy")
        if number % 2:
            time.sleep(0.02)  # answers come in another order than requests
        spec = request.model_spec
        signature = spec.signature_name or "serving_default"
        version = spec.version.value if spec.HasField("version") else 1
        if (spec.name, version) != (self.name, 1):
            which = f"Servable not found for request: Specific({spec.name}, {version})"
            context.abort(grpc.StatusCode.NOT_FOUND, which)
        if signature not in self.model.signatures:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no signature {signature}")
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        try:
            outputs = self.model.run(signature, inputs)
        except RuntimeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        for name, values in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response


def rest_predict(model: Any, body: dict[str, Any]) -> dict[str, Any]:
    """TF Serving's row form ("instances") and column form ("inputs"), and their answers."""
    signature = body.get("signature_name", "serving_default")
    if signature not in model.signatures:
        raise ValueError(f"Serving signature name: {signature!r} not found in signature def")
    specs = model.signatures[signature].inputs
    if "instances" in body:
        rows = body["instances"]
        if isinstance(rows[0], dict) and set(rows[0]) != {"b64"}:
            columns = {name: [row[name] for row in rows] for name in rows[0]}
        else:
            (only,) = specs
            columns = {only: rows}
    else:
        columns = body["inputs"]
        if not isinstance(columns, dict):
            (only,) = specs
            columns = {only: columns}
    outputs = model.run(signature, {n: as_array(v, specs[n].dtype) for n, v in columns.items()})
    listed = {
        name: [v.decode() for v in values] if values.dtype == object else values.tolist()
        for name, values in outputs.items()
    }
    if "instances" not in body:
        return {"outputs": next(iter(listed.values())) if len(listed) == 1 else listed}
    if len(listed) == 1:
        return {"predictions": next(iter(listed.values()))}
    rows = [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]
    return {"predictions": rows}


def as_array(values: list[Any], dtype: int) -> np.ndarray:
    if dtype != tf.string:
        return np.array(values, tf.as_dtype(dtype).as_numpy_dtype)
    texts = [base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode() for v in values]
    return np.array(texts, object)


def handler(model: Any, name: str) -> type[BaseHTTPRequestHandler]:
    class Rest(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(
                200, {"modules": sorted(name for name, module in sys.modules.items() if module)}
            )

        def do_POST(self) -> None:
            if not re.fullmatch(rf"/v1/models/{re.escape(name)}(/versions/1)?:predict", self.path):
                self.answer(404, {"error": f"Malformed request: POST {self.path}"})
                return
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.answer(200, rest_predict(model, body))
            except (RuntimeError, ValueError) as error:
                self.answer(400, {"error": str(error)})

        def answer(self, code: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            pass

    return Rest


def main(loader: Path, folder: str, name: str, busy: str = "") -> None:
    spec = importlib.util.spec_from_file_location("cpp_loader", loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.CppModel(folder)
    service = PredictionService(model, name, {int(n) for n in busy.split(",") if n})
    # TF Serving takes messages of any size too.
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), handler(model, name))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    print(json.dumps({"grpc": port, "rest": rest.server_address[1]}), flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

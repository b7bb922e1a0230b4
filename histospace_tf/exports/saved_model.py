"""A trained model as a SavedModel for TF Serving: variables once, nothing but TensorFlow's own.

| signature | inputs (first axis: batch, free) | outputs |
|---|---|---|
| serving_default | `tile` uint8 [n, s, s, 3], stain-normalised | `expression` float32 [n, genes] |
| predict_bytes | `image_bytes` string [n], PNG or JPEG of such tiles | `expression` |
| predict_raw | `tile` uint8, not normalised, and the slide's `white_point` [n, 3], `luminosity` [n], `stain_matrix` [n, 2, 3], `max_concentration` [n, 2], all float32 | `expression` |
| embed | `tile`, stain-normalised | `features` float32 [n, f] |
| predict_features | `features`, and for a head with slide context `neighbour_features`, `slide_mean`, `slide_std`, all float32 [n, f] | `expression` |
| genes | `index` int32 [n] | `symbol` string [n] |

The first three hold the head that needs no slide context, `predict_features` the head that
`predict` uses. Expression is in the panel's unit. Each takes a tile as it is given; averaging
over flips and rotations is the client's. For heads on feature maps, f is (rows, columns, channels).

A tile of another side, bytes that are no image, stains out of range or a gene index outside the
panel are refused with a status that names the value.

    assets/genes.txt                                  the panel, one gene per line, in output order
    assets/model_card.json                            of `model_card`
    assets.extra/tf_serving_warmup_requests           one request per signature (extra `serving`)
"""  # noqa: E501 (a table's row is one line)

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import histospace_tf
from histospace_tf import bundle as bundles
from histospace_tf import network_model
from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import stain_graph
from histospace_tf.models import regressor

# As `--server` asks for it.
MODEL_NAME = "histospace_tf"


def write(bundle: Bundle, folder: Path) -> list[str]:
    """Writes a SavedModel into a new folder, unchecked.

    Returns:
        A line for the user on each thing that had to be left out.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in ("genes.txt", "model_card.json")}
        files["genes.txt"].write_text("\n".join(bundle.panel.genes) + "\n", encoding="utf-8")
        card = json.dumps(model_card(bundle), indent=1, ensure_ascii=False)
        files["model_card.json"].write_text(card + "\n", encoding="utf-8")
        served = _Served(bundle, list(files.values()))
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(served, str(folder), signatures=served.functions, options=options)
    left_out = _write_warmup(bundle, folder / "assets.extra" / "tf_serving_warmup_requests")
    if "predict_raw" not in signature_names(bundle):
        left_out.append(
            f"No signature predict_raw in the SavedModel: stains of method "
            f"{bundle.reference.method!r} are not worked out in a graph. Clients normalise tiles."
        )
    return left_out


def signature_names(bundle: Bundle) -> list[str]:
    """The signatures that a model's SavedModel has."""
    names = ["serving_default", "predict_bytes", "predict_raw", "embed", "predict_features"]
    if bundle.reference.method not in stain_graph.METHODS:
        names.remove("predict_raw")
    return [*names, "genes"]


def model_card(bundle: Bundle) -> dict[str, Any]:
    """What a client needs to know about the model, as JSON."""
    config = bundle.config
    return {
        "name": MODEL_NAME,
        "version": histospace_tf.__version__,
        "what": "gene expression of an H&E tile, predicted",
        "use": "research only; predictions say nothing about a patient",
        "genes": len(bundle.panel),
        "unit": bundles.unit(bundle.panel),
        "tile_px": config.tiles.tile_px,
        "microns_per_pixel": config.tiles.mpp,
        "architecture": bundle.architecture,
        "symmetries": config.regressor.symmetries,
        "parameters": bundle.n_parameters,
        "preset": config.preset,
        "stain_reference": bundle.reference.to_json(),
        "trained_on": bundle.trained_on,
    }


class _Served(tf.Module):
    """What the SavedModel holds: plain variables, assets and traced functions.

    No Keras object is an attribute: with one, TF Serving's C++ loader refuses the SavedModel.
    """

    def __init__(self, bundle: Bundle, assets: list[Path]) -> None:
        super().__init__(name="histospace_tf")
        with tf.device("/CPU:0"):
            models = _plain_copies(bundle)
        # By identity: a head that needs no context is both heads.
        variables = {id(variable): variable.value for m in models for variable in m.weights}
        self.weights = list(variables.values())
        self.assets = [tf.saved_model.Asset(str(path)) for path in assets]
        functions, specs = _functions(bundle, *models), _inputs(bundle, models[-1])
        self.functions = {
            name: tf.function(functions[name]).get_concrete_function(**specs[name])
            for name in signature_names(bundle)
        }


def _plain_copies(bundle: Bundle) -> tuple[Any, Any, Any]:
    """Trunk, single-tile head and head anew, off any distribution strategy and accelerator."""
    config = bundle.config
    if bundle.network is not None:
        network = network_model.build(bundle.network, len(bundle.panel))
        trunk, last = network_model.parts(network)
        trunk.set_weights(bundle.trunk.get_weights())
        last.set_weights(bundle.head.get_weights())
        return trunk, last, last
    trunk = regressor.build_trunk(bundle.encoder, architecture=config.regressor.architecture)
    shape = bundles.feature_shape(trunk, config.tiles.tile_px)
    single = bundles.build_single_tile_head(shape, len(bundle.panel), config)
    single.set_weights(bundle.single_tile_head.get_weights())
    if not bundle.needs_context:
        return trunk, single, single
    head = regressor.build_head(shape, len(bundle.panel), config.regressor)
    head.set_weights(bundle.head.get_weights())
    return trunk, single, head


def _functions(bundle: Bundle, trunk: Any, single: Any, head: Any) -> dict[str, Callable[..., Any]]:
    side, panel = bundle.config.tiles.tile_px, bundle.panel

    # A function of its own: traced, written and loaded once, however many signatures call it.
    @tf.function(input_signature=[tf.TensorSpec([None, side, side, 3], tf.uint8)])
    def features(tile: tf.Tensor) -> tf.Tensor:
        # The C++ runtime does not hold what it is fed against the signature; this does.
        tile = tf.raw_ops.EnsureShape(input=tile, shape=[None, side, side, 3])
        return trunk(tf.cast(tile, tf.float32) / 255.0, training=False)

    def in_unit(standardised: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"expression": standardised * panel.scale + panel.mean}

    def serve(tile: tf.Tensor) -> dict[str, tf.Tensor]:
        return in_unit(single(features(tile), training=False))

    def decoded(content: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([_rgb_check(content)]):
            image = tf.io.decode_png(content, channels=3)  # takes JPEG too
        return tf.raw_ops.EnsureShape(input=image, shape=[side, side, 3])

    def predict_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        tile = tf.TensorSpec([side, side, 3], tf.uint8)
        return serve(tf.map_fn(decoded, image_bytes, fn_output_signature=tile))

    def predict_raw(tile: tf.Tensor, **stains: tf.Tensor) -> dict[str, tf.Tensor]:
        tile = tf.raw_ops.EnsureShape(input=tile, shape=[None, side, side, 3])
        source = stain_graph.SourceStains(**stains)
        return serve(stain_graph.recoloured(tile, source, bundle.reference))

    def embed(tile: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": features(tile)}

    def predict_features(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        shapes = {tensor.name: tensor.shape for tensor in head.inputs}
        inputs = {
            name: tf.raw_ops.EnsureShape(input=inputs[name], shape=shape)
            for name, shape in shapes.items()
        }
        return in_unit(head(inputs if len(inputs) > 1 else inputs["features"], training=False))

    def genes(index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"symbol": tf.gather(tf.constant(panel.genes), index, name="gene_index")}

    return {
        "serving_default": serve,
        "predict_bytes": predict_bytes,
        "predict_raw": predict_raw,
        "embed": embed,
        "predict_features": predict_features,
        "genes": genes,
    }


def _rgb_check(content: tf.Tensor) -> tf.Operation:
    """Refuses bytes that are neither PNG nor JPEG, and pictures in grey, with a palette or CMYK.

    Decoding alone would change their colours silently.
    """
    begin = tf.strings.substr(content, 0, 3)
    is_png, is_jpeg = tf.equal(begin, b"\x89PN"), tf.equal(begin, b"\xff\xd8\xff")
    known = tf.debugging.Assert(
        is_png | is_jpeg, ["image_bytes: PNG or JPEG is needed; these begin with", begin]
    )

    def colour_type() -> tf.Tensor:  # of the header: 2 is RGB, 6 has transparency beside
        kind = tf.io.decode_raw(tf.strings.substr(content, 25, 1), tf.uint8)[0]
        return tf.where((kind == 2) | (kind == 6), 3, 0)

    def channels() -> tf.Tensor:
        return tf.cond(is_png, colour_type, lambda: tf.io.extract_jpeg_shape(content)[2])

    with tf.control_dependencies([known]):
        n_channels = channels()
    words = "image_bytes: an RGB picture is needed, not one in grey, with a palette or CMYK"
    return tf.debugging.Assert(tf.equal(n_channels, 3), [words])


def _inputs(bundle: Bundle, head: Any) -> dict[str, dict[str, tf.TensorSpec]]:
    """Inputs by signature."""
    side = bundle.config.tiles.tile_px

    def spec(name: str, *shape: int, dtype: tf.DType = tf.float32) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([None, *shape], dtype, name)}

    tile = spec("tile", side, side, 3, dtype=tf.uint8)
    stains = spec("white_point", 3) | spec("luminosity") | spec("stain_matrix", 2, 3)
    features = [spec(tensor.name, *tensor.shape[1:]) for tensor in head.inputs]
    return {
        "serving_default": tile,
        "predict_bytes": spec("image_bytes", dtype=tf.string),
        "predict_raw": tile | stains | spec("max_concentration", 2),
        "embed": tile,
        "predict_features": {name: value for one in features for name, value in one.items()},
        "genes": spec("index", dtype=tf.int32),
    }


def _write_warmup(bundle: Bundle, file: Path) -> list[str]:
    """One request of one row for each signature: a server is ready only after them."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        return [
            "No warm-up requests in the SavedModel: they need tensorflow-serving-api "
            '(pip install "histospace-tf[serving]"). It serves all the same.'
        ]
    side, stains = bundle.config.tiles.tile_px, bundle.reference
    blank = np.full((side, side, 3), 255, np.uint8)
    values = {
        "image_bytes": np.array(tf.io.encode_png(blank).numpy(), object),
        "tile": blank,
        "index": np.zeros((), np.int32),
        **{
            name: np.asarray(getattr(stains, name), np.float32)
            for name in stain_graph.SourceStains._fields
        },
    }
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as records:
        for signature, inputs in _inputs(bundle, bundle.head).items():
            if signature not in signature_names(bundle):
                continue
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = signature
            for name, spec in inputs.items():
                row = np.asarray(values.get(name, np.zeros(spec.shape[1:], np.float32)))[np.newaxis]
                # One number where all are equal: a tenth of a megabyte less for each tile.
                only = row.size and row.dtype != object and (row == row.flat[0]).all()
                proto = tf.make_tensor_proto(
                    row.flat[0] if only else row, dtype=spec.dtype, shape=row.shape
                )
                request.inputs[name].CopyFrom(proto)
            records.write(log.SerializeToString())
    return []

"""A SavedModel -> .tflite files for devices, each with its metadata inside.

    histospace_float32.tflite    the numbers of the model itself
    histospace_float16.tflite    weights of 16 bits, arithmetic of 32
    histospace_dynamic.tflite    weights of 8 bits; what a layer takes is rounded when it runs
    histospace_int8.tflite       convolutions in 8-bit arithmetic, ranges taken from training tiles

All take `tile` uint8 [n, s, s, 3], stain-normalised, and give `expression` float32 [n, genes] in
the panel's unit, any n. In "int8" statistics of the feature maps (mean, deviation, quantiles), the
head on them and the panel's unit stay float32: put into one 8-bit scale with each other they lose
what the model reads from them. A head on the maps themselves has its dense layers in 8 bits, too.

The end of each file is a zip archive, which runtimes do not read:

    unzip -p histospace_int8.tflite metadata.json
    unzip -p histospace_int8.tflite genes.txt
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import histospace_tf
from histospace_tf import bundle as bundles
from histospace_tf.bundle import Bundle

VARIANTS = ("float32", "float16", "dynamic", "int8")
METADATA, GENES = "metadata.json", "genes.txt"
LICENCE = (
    "The software is licensed under Apache-2.0. Terms of the data that the model was trained on "
    "may apply to the model: ask their publisher. For research, not for diagnosis."
)
# What stays float32 in "int8"; _DENSE, too, where the head reads statistics.
_FLOAT_OPERATIONS = (
    *("ADD", "CAST", "CONCATENATION", "MAXIMUM", "MEAN", "MINIMUM", "MUL", "NEG", "RESHAPE"),
    *("SQRT", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "TOPK_V2", "TRANSPOSE"),
)
_DENSE = "FULLY_CONNECTED"


def file_name(variant: str) -> str:
    """Name of a variant's file."""
    return f"histospace_{variant}.tflite"


def write_variants(
    saved_model: Path,
    folder: Path,
    bundle: Bundle,
    *,
    signature: str,
    training_tiles: np.ndarray | None,
) -> dict[str, str]:
    """Writes every variant that can be made of a SavedModel into `folder`, new or not.

    Args:
        bundle: for the metadata.
        signature: which of the SavedModel's to convert.
        training_tiles: (n, s, s, 3) uint8, stain-normalised, for "int8"; None: it is left out.
    Returns:
        Variant -> why it could not be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Any], bytes]] = {
        "float32": lambda converter: converter.convert(),
        "float16": _float16,
        "dynamic": _dynamic,
    }
    left_out = {}
    if training_tiles is not None:
        tiles = training_tiles
        shape = bundles.feature_shape(bundle.trunk, bundle.config.tiles.tile_px)
        floats = [*_FLOAT_OPERATIONS, *([_DENSE] if len(shape) == 1 else [])]
        makers["int8"] = lambda converter: _int8(converter, tiles, floats)
    else:
        left_out["int8"] = "no training tiles to take its ranges from; a run of `fit` keeps some"
    for variant, make in makers.items():
        # From the SavedModel: converting the functions themselves gives a file that answers NaN.
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(saved_model), signature_keys=[signature]
        )
        with warnings.catch_warnings():
            # The quantiser runs tf.lite.Interpreter, which announces its successor.
            warnings.simplefilter("ignore")
            content = make(converter)
        (folder / file_name(variant)).write_bytes(content)
        append_metadata(folder / file_name(variant), metadata(bundle, variant=variant))
    return left_out


def metadata(bundle: Bundle, *, variant: str) -> dict[str, Any]:
    """What a program that runs the file needs to know, as JSON-ready values."""
    config, trained_on = bundle.config, bundle.trained_on
    side = config.tiles.tile_px
    return {
        "format": 1,
        "package": "histospace-tf",
        "version": histospace_tf.__version__,
        "variant": variant,
        "input": {"name": "tile", "dtype": "uint8", "shape": [None, side, side, 3]},
        "output": {"name": "expression", "dtype": "float32", "shape": [None, len(bundle.panel)]},
        "genes": list(bundle.panel.genes),
        "unit": bundles.unit(bundle.panel),
        "tile_px": side,
        "microns_per_pixel": config.tiles.mpp,
        "min_tissue": config.tiles.min_tissue,
        "symmetries": config.regressor.symmetries,
        "stain": {
            "cast": config.stain.cast,
            "luminosity": config.stain.luminosity,
            "white_field": config.stain.white_field,
            "sample_pixels": config.stain.sample_pixels,
            "reference": bundle.reference.to_json(),
        },
        "trained_on": {
            name: trained_on[name]
            for name in ("sections", "patients", "simulated")
            if name in trained_on
        },
        "licence": LICENCE,
    }


def append_metadata(file: Path, values: dict[str, Any]) -> None:
    """Appends a zip archive of METADATA and GENES; equal values give equal bytes."""
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in (
            (METADATA, json.dumps(values, indent=1, ensure_ascii=False)),
            (GENES, "\n".join(values["genes"]) + "\n"),
        ):
            # Of a fixed date: a name alone would take the clock's.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.encode("utf-8"))


def _float16(converter: Any) -> bytes:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _dynamic(converter: Any) -> bytes:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _int8(converter: Any, tiles: np.ndarray, floats: list[str]) -> bytes:
    def representative() -> Iterator[dict[str, np.ndarray]]:
        for tile in tiles:
            yield {"tile": tile[np.newaxis]}

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    quantiser = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=representative,
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=floats),
    )
    return quantiser.get_nondebug_quantized_model()

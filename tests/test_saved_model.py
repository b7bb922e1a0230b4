"""The SavedModel holds the serving contract, in every runtime, and refuses what it cannot take."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow_serving.apis import prediction_log_pb2

from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.exports import expected, parity, saved_model
from histospace_tf.exports.cpp_loader import CppModel
from made.bundles import GENES, TILE_PX, tiny_bundle
from made.exports import coarse_tiles
from made.pictures import read_picture

pytestmark = pytest.mark.slow

SIGNATURES = ["serving_default", "predict_bytes", "predict_raw", "embed", "predict_features"]
OPENVINO = """
import sys, numpy as np, openvino
kept = np.load(sys.argv[2])
core = openvino.Core()
model = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
got = [model({"tile": tile})[0] for tile in (kept["tile"], kept["tile"][:1])]
assert "tensorflow" not in sys.modules
np.save(sys.argv[3], np.concatenate(got))
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
    bundle: Bundle
    folder: Path
    cpp: CppModel


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written") / "saved_model" / "1"
    bundle = with_stains(tiny_bundle("context"), "vahadane")
    saved_model.write(bundle, folder)
    return Written(bundle, folder, CppModel(folder))


def with_stains(bundle: Bundle, method: str) -> Bundle:
    return dataclasses.replace(bundle, reference=stain.canonical_stains(method))


@pytest.fixture(scope="module")
def tissue(test_data: Path) -> np.ndarray:
    """(6, TILE_PX, TILE_PX, 3) of a real section."""
    file = sorted((test_data / "breast_he" / "tnbc").glob("*.png"))[0]
    image = read_picture(file)
    corners = [(y, x) for y in (0, 128, 256) for x in (64, 320)]
    return np.stack([image[y : y + TILE_PX, x : x + TILE_PX] for y, x in corners])


def specs(folder: Path) -> dict[str, tuple[dict[str, object], dict[str, object]]]:
    def shapes(infos: Mapping[str, object]) -> dict[str, object]:
        return {
            name: (tf.as_dtype(info.dtype).name, [d.size for d in info.tensor_shape.dim])  # type: ignore[attr-defined]
            for name, info in infos.items()
        }

    return {
        name: (shapes(one.inputs), shapes(one.outputs))
        for name, one in CppModel(folder).signatures.items()
        if not name.startswith("__")
    }


def test_signatures_are_the_contracts(written: Written) -> None:
    side, f = TILE_PX, int(written.bundle.trunk.output_shape[-1])
    tile = {"tile": ("uint8", [-1, side, side, 3])}
    features = ("float32", [-1, f])
    expression = {"expression": ("float32", [-1, len(GENES)])}
    assert specs(written.folder) == {
        "serving_default": (tile, expression),
        "predict_bytes": ({"image_bytes": ("string", [-1])}, expression),
        "predict_raw": (
            {
                **tile,
                "white_point": ("float32", [-1, 3]),
                "luminosity": ("float32", [-1]),
                "stain_matrix": ("float32", [-1, 2, 3]),
                "max_concentration": ("float32", [-1, 2]),
            },
            expression,
        ),
        "embed": (tile, {"features": features}),
        "predict_features": (
            dict.fromkeys(["features", "neighbour_features", "slide_mean", "slide_std"], features),
            expression,
        ),
        "genes": ({"index": ("int32", [-1])}, {"symbol": ("string", [-1])}),
    }


def test_single_tile_model_takes_features_alone_and_reinhard_leaves_raw_tiles_out(
    tmp_path: Path,
) -> None:
    bundle = with_stains(tiny_bundle("pooled"), "reinhard")
    (left_out,) = saved_model.write(bundle, tmp_path / "1")
    found = specs(tmp_path / "1")
    assert list(found["predict_features"][0]) == ["features"]
    assert set(found) == {*SIGNATURES, "genes"} - {"predict_raw"}
    assert "No signature predict_raw in the SavedModel: stains of method 'reinhard'" in left_out
    parity.write_cases(tmp_path / "expected.npz", expected.keras_cases(bundle, coarse_tiles(3)))
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "1").rename(tmp_path / "saved_model" / "1")
    checks = parity.run_checks(tmp_path)
    assert [check.agrees for check in checks] == [True] * 10, parity.table(checks)


def test_variables_are_written_once(written: Written) -> None:
    models = (written.bundle.trunk, written.bundle.single_tile_head, written.bundle.head)
    needed = sum(values.nbytes for model in models for values in model.get_weights())
    (file,) = (written.folder / "variables").glob("variables.data-*")
    assert needed <= file.stat().st_size < needed + 20_000


def test_nothing_in_it_is_python_or_custom(written: Written) -> None:
    content = saved_model_pb2.SavedModel.FromString(
        (written.folder / "saved_model.pb").read_bytes()
    )
    (graph,) = content.meta_graphs
    nodes = [node.op for node in graph.graph_def.node]
    own = {function.signature.name for function in graph.graph_def.library.function}
    nodes += [n.op for function in graph.graph_def.library.function for n in function.node_def]
    operations = set(nodes) - own
    assert not [name for name in operations if "py" in name.lower() and "func" in name.lower()]
    assert [name for name in operations if op_def_registry.get(name) is None] == []
    assert not any(node.HasField("user_object") and "keras" in node.user_object.identifier.lower()
                   for node in graph.object_graph_def.nodes)  # fmt: skip


def test_assets_hold_the_genes_in_order_and_what_a_client_has_to_know(written: Written) -> None:
    text = (written.folder / "assets" / "genes.txt").read_text(encoding="utf-8")
    assert tuple(text.splitlines()) == GENES
    card = json.loads((written.folder / "assets" / "model_card.json").read_text(encoding="utf-8"))
    assert card["unit"] == "ln(1 + counts per 10,000)"
    assert (card["tile_px"], card["genes"]) == (TILE_PX, len(GENES))
    assert card["microns_per_pixel"] == written.bundle.config.tiles.mpp
    assert card["stain_reference"] == written.bundle.reference.to_json()
    assert card["symmetries"] == 8


def test_warmup_requests_run_and_reach_every_signature(written: Written) -> None:
    file = written.folder / "assets.extra" / "tf_serving_warmup_requests"
    assert file.stat().st_size < 5_000
    seen = []
    for record in tf.data.TFRecordDataset(str(file)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        (output,) = written.cpp.run(request.model_spec.signature_name, inputs).values()
        assert len(output) == 1
        seen.append(request.model_spec.signature_name)
        assert request.model_spec.name == "histospace_tf"
    assert seen == [*SIGNATURES, "genes"]


def test_without_the_extra_warmup_is_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    (line,) = saved_model._write_warmup(tiny_bundle("pooled"), tmp_path / "extra" / "requests")
    assert list(tmp_path.iterdir()) == []
    assert 'pip install "histospace-tf[serving]"' in line


def test_real_tissue_agrees_in_fresh_processes(
    written: Written, tissue: np.ndarray, tmp_path: Path
) -> None:
    # Python and C++ by the package's own check; OpenVINO, which shares no code with TensorFlow;
    # and the command that TensorFlow ships.
    parity.write_cases(
        written.folder.parents[1] / "expected.npz",
        expected.keras_cases(written.bundle, tissue),
    )
    right = expected.keras_expression(written.bundle, tissue)
    assert (right.std(axis=0) > 1e-3).all()
    np.savez(tmp_path / "tiles.npz", tile=tissue)
    folder, tiles = str(written.folder), str(tmp_path / "tiles.npz")
    run = [sys.executable, "-m", "histospace_tf.exports.parity", str(written.folder.parents[1])]
    started(run)
    checks = json.loads((written.folder.parents[1] / "parity.json").read_text())
    assert len(checks) == 12
    assert all(check["agrees"] for check in checks), checks
    started([sys.executable, "-c", OPENVINO, folder, tiles, str(tmp_path / "openvino.npy")])
    got = np.load(tmp_path / "openvino.npy")
    np.testing.assert_allclose(got, [*right, right[0]], rtol=1e-4, atol=1e-4)
    started(
        [
            *(str(Path(sys.executable).with_name("saved_model_cli")), "run", "--dir", folder),
            *("--tag_set", "serve", "--signature_def", "serving_default"),
            *("--inputs", f"tile={tiles}[tile]", "--outdir", str(tmp_path)),
        ]
    )
    got = np.load(tmp_path / "expression.npy")
    np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-4)


def started(command: list[str]) -> None:
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_raw_tiles_give_what_normalised_ones_give(written: Written) -> None:
    tiles = coarse_tiles(3)
    slide = dataclasses.replace(
        stain.canonical_stains("vahadane"),
        white_point=np.array([240.0, 235.0, 250.0]),
        luminosity=245.0,
        max_concentration=np.array([1.1, 1.3]),
    )
    normalised = recolouring.normalise(tiles, slide, written.bundle.reference)
    right = expected.keras_expression(written.bundle, normalised)
    inputs = {"tile": tiles, **expected.stain_inputs(slide, len(tiles))}
    got = written.cpp.run("predict_raw", inputs)["expression"]
    # A few pixels of a tile may be one grey level apart.
    np.testing.assert_allclose(got, right, atol=0.01)
    assert np.abs(expected.keras_expression(written.bundle, tiles) - right).max() > 0.1


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".png", cv2.COLOR_RGB2BGR), (".png", cv2.COLOR_RGB2BGRA), (".jpg", cv2.COLOR_RGB2BGR)],
)
def test_images_may_be_png_or_jpeg(written: Written, suffix: str, mode: int) -> None:
    tiles = coarse_tiles(3)
    files = [cv2.imencode(suffix, cv2.cvtColor(tile, mode))[1] for tile in tiles]
    content = np.array([file.tobytes() for file in files], object)
    got = written.cpp.run("predict_bytes", {"image_bytes": content})["expression"]
    read = np.stack([np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)) for file in files])
    right = expected.keras_expression(written.bundle, read)
    # JPEG decoders may differ by a grey level.
    np.testing.assert_allclose(got, right, atol=1e-4 if suffix == ".png" else 0.05)


def test_genes_are_gathered_and_an_index_outside_is_refused(written: Written) -> None:
    got = written.cpp.run("genes", {"index": np.array([3, 0, 3], np.int32)})["symbol"]
    assert [symbol.decode() for symbol in got] == [GENES[3], GENES[0], GENES[3]]
    for index in (len(GENES), -1):
        with pytest.raises(RuntimeError, match=rf"{index} is not in \[0, {len(GENES)}\)"):
            written.cpp.run("genes", {"index": np.array([index], np.int32)})


def picture(kind: str, mode: str = "RGB") -> bytes:
    """A tile as bytes of another format or colour mode."""
    content = io.BytesIO()
    Image.fromarray(coarse_tiles(1)[0]).convert(mode).save(content, kind)
    return content.getvalue()


def test_a_png_with_transparency_is_read_without_it(written: Written) -> None:
    both = np.array([picture("PNG"), picture("PNG", "RGBA")], object)
    plain, transparent = written.cpp.run("predict_bytes", {"image_bytes": both})["expression"]
    np.testing.assert_array_equal(plain, transparent)


@pytest.mark.parametrize("signature", ["serving_default", "embed"])
@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (np.zeros((2, 24, TILE_PX, 3), np.uint8), r"\[2,24,32,3\].*expected shape \[\?,32,32,3\]"),
        (np.zeros((2, 40, 40, 3), np.uint8), r"\[2,40,40,3\].*expected shape \[\?,32,32,3\]"),
        (np.zeros((TILE_PX, TILE_PX, 3), np.uint8), r"expected shape \[\?,32,32,3\]"),
        (np.zeros((1, TILE_PX, TILE_PX, 3), np.float32), "uint8"),
    ],
)
def test_other_tiles_are_refused(
    written: Written, signature: str, tile: np.ndarray, message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        written.cpp.run(signature, {"tile": tile})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image_bytes: PNG or JPEG is needed"),
        (b"no image at all", "image_bytes: PNG or JPEG is needed"),
        (b"\x89PNG", "(?i)pos 25 out of range"),
        (picture("BMP"), "image_bytes: PNG or JPEG is needed"),
        (picture("GIF"), "image_bytes: PNG or JPEG is needed"),
        (picture("PNG", "L"), "image_bytes: an RGB picture is needed"),
        (picture("PNG", "P"), "image_bytes: an RGB picture is needed"),
        (picture("PNG", "LA"), "image_bytes: an RGB picture is needed"),
        (picture("JPEG", "L"), "image_bytes: an RGB picture is needed"),
        (picture("JPEG", "CMYK"), "image_bytes: an RGB picture is needed"),
        (cv2.imencode(".png", coarse_tiles(1)[0])[1].tobytes()[:-200], "(?i)png"),
        (cv2.imencode(".png", coarse_tiles(1)[0][:20])[1].tobytes(), r"\[20,32,3\].*\[32,32,3\]"),
    ],
)
def test_garbage_and_images_of_another_size_are_refused(
    written: Written, content: bytes, message: str
) -> None:
    good = cv2.imencode(".png", coarse_tiles(1)[0])[1].tobytes()
    with pytest.raises(RuntimeError, match=message):
        written.cpp.run("predict_bytes", {"image_bytes": np.array([good, content], object)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("white_point", 0.0, "white_point: finite numbers above 0 are needed"),
        ("white_point", 1000.0, "white_point: finite numbers above 0 are needed, 255 at most"),
        ("luminosity", np.nan, "luminosity: finite numbers above 0 are needed"),
        ("luminosity", 256.0, "luminosity: finite numbers above 0 are needed, 255 at most"),
        ("max_concentration", -1.0, "max_concentration: finite numbers above 0 are needed"),
        ("stain_matrix", 0.5, "stain_matrix: two unit rows that are not parallel"),
    ],
)
def test_stains_out_of_range_are_refused(
    written: Written, name: str, value: float, message: str
) -> None:
    inputs = expected.stain_inputs(written.bundle.reference, 2)
    inputs[name] = np.full_like(inputs[name], value)
    with pytest.raises(RuntimeError, match=message):
        written.cpp.run("predict_raw", {"tile": coarse_tiles(2), **inputs})


def test_features_of_another_length_are_refused(written: Written) -> None:
    names = ("features", "neighbour_features", "slide_mean", "slide_std")
    with pytest.raises(RuntimeError, match=r"\[2,7\] is not compatible with expected shape"):
        written.cpp.run("predict_features", dict.fromkeys(names, np.zeros((2, 7), np.float32)))


def test_cpp_loader_refuses_a_folder_without_a_saved_model(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not find SavedModel"):
        CppModel(tmp_path)

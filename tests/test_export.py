"""Exports give what Keras gives, in whatever loads them, and appear whole or not at all."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import exporting
from histospace_tf.bundle import Bundle
from histospace_tf.config import Architecture
from histospace_tf.exports import (
    cpp_loader,
    expected,
    gate,
    onnx,
    parity,
    tflite,
)
from histospace_tf.models import layers
from histospace_tf.vocabulary import InputError
from made.bundles import GENES, TILE_PX, tiny_bundle
from made.exports import Exported, checked_here, compared_here, made_tiles

pytestmark = pytest.mark.slow

HAS_ONNX = onnx.why_not() is None
CHECKS = 6 * 2 + HAS_ONNX  # signatures by loaders, and the .onnx


@pytest.fixture
def without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the fresh process, for tests of what surrounds it."""
    monkeypatch.setattr(gate, "checked", lambda cases, draft: ())
    monkeypatch.setattr(gate, "passed", lambda folder, **settings: gate.LiteReport((), {}, {}))


def test_every_loader_in_a_fresh_process_agrees_with_keras(exported: Exported) -> None:
    checks = {(check.format, check.loader): check for check in exported.report.checks}
    assert ("saved_model", "python") in checks
    assert ("saved_model", "c++") in checks
    assert len(checks) == CHECKS
    for check in checks.values():
        assert check.agrees, check
        assert check.max_difference is not None
        # Values are of size 1 to 10: float32 keeps 1e-6 of that through some ten layers.
        assert check.max_difference < 5e-5
    assert exported.report.lite is not None
    lite_check = exported.report.lite.checks[0]
    assert lite_check.variant == "float32"
    assert lite_check.exact
    assert lite_check.max_difference is not None
    assert lite_check.max_difference < 5e-5
    assert "8 tiles of parity_tiles.npz" in exported.report.summary()


@pytest.mark.parametrize(
    ("architecture", "tile_px"),
    [
        ("flatten", TILE_PX),
        ("global", TILE_PX),
        ("pooled", TILE_PX),
        ("pooled", 4 * layers.SAMPLED_SIDE),  # whose first map is sampled for its quantiles
    ],
)
def test_every_architecture_agrees_with_keras(
    architecture: Architecture,
    tile_px: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_bundle(architecture, tile_px=tile_px)
    tiles = np.stack([cv2.resize(tile, (tile_px, tile_px)) for tile in made_tiles()])

    for rounded in ("_float16", "_dynamic"):  # other tests'
        monkeypatch.setattr(tflite, rounded, lambda converter: b"")

    monkeypatch.setattr(gate, "checked", checked_here)
    monkeypatch.setattr(gate, "compared", compared_here)
    np.savez(tmp_path / "tiles.npz", tile=tiles)
    report = exporting.export(
        model, tmp_path / "out", parity_tiles=tmp_path / "tiles.npz", timed=False
    )
    assert all(check.agrees for check in report.checks), report.summary()
    assert len(report.checks) == CHECKS
    assert report.lite is not None
    (float32,) = (check for check in report.lite.checks if check.variant == "float32")
    assert float32.exact, report.summary()
    assert "int8" in report.lite.left_out  # no training tiles


def write_expected(folder: Path, bundle: Bundle, tiles: np.ndarray) -> None:
    cases = expected.keras_cases(bundle, tiles)
    (served,) = (case for case in cases if case.signature == parity.SIGNATURE)
    parity.write_cases(
        folder / "expected.npz", [*cases, dataclasses.replace(served, signature="onnx")]
    )


def test_keras_expression_is_the_single_tile_model_in_the_panels_unit(
    exported: Exported,
) -> None:
    model = exported.bundle
    features = model.trunk.predict_on_batch(exported.tiles.astype(np.float32) / 255)
    standardised = model.single_tile_head.predict_on_batch(features)
    right = standardised * model.panel.scale + model.panel.mean
    np.testing.assert_allclose(expected.keras_expression(model, exported.tiles), right, atol=1e-4)


def test_expression_differs_from_tile_to_tile(exported: Exported) -> None:
    # Agreement would say little about a model that gives one answer to everything.
    expression = expected.keras_expression(exported.bundle, exported.tiles)
    assert (expression.std(axis=0) > 0.01).all()


def test_report_names_what_was_written(exported: Exported) -> None:
    written = [path for path, _ in exported.report.files]
    variants = {exported.out / "tflite" / tflite.file_name(name) for name in tflite.VARIANTS}
    others = {
        exported.saved_model,
        *([exported.out / "onnx" / "histospace.onnx"] if HAS_ONNX else []),
    }
    assert set(written) == others | variants
    for path, size in exported.report.files:
        assert size > 0
        assert str(path) in exported.report.summary()
    folders = {"saved_model", "tflite", *(["onnx"] if HAS_ONNX else [])}
    assert {path.name for path in exported.out.iterdir()} == folders
    beside = {path.name for path in (exported.out / "tflite").iterdir()} - {
        v.name for v in variants
    }
    assert beside == {"export_report.json"}
    report = json.loads((exported.out / "tflite" / "export_report.json").read_text())
    assert [row["variant"] for row in report["variants"]] == list(tflite.VARIANTS)
    assert set(report["variants"][0]["genes"]) == set(GENES)


@pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated")
def test_tflite_takes_any_batch_of_uint8_tiles_and_gives_float32(exported: Exported) -> None:
    run = lite_run(exported.tflite)
    right = expected.keras_expression(exported.bundle, exported.tiles)
    for n in (1, 4, 3):
        got = run(exported.tiles[:n])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, right[:n], rtol=1e-4, atol=1e-4)
    with pytest.raises((RuntimeError, ValueError), match="value 32 to 40"):
        run(np.zeros((1, 40, 40, 3), np.uint8))
    with pytest.raises(ValueError, match="Got value of type FLOAT32 but expected type UINT8"):
        run(exported.tiles.astype(np.float32))


def lite_run(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    interpreter = tf.lite.Interpreter(model_path=str(file))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["tile"], "outputs": ["expression"]}
    }
    (tile,), (expression,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(tiles: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(tile["index"], tiles.shape, strict=True)
        interpreter.allocate_tensors()
        interpreter.set_tensor(tile["index"], tiles)
        interpreter.invoke()
        return interpreter.get_tensor(expression["index"]).copy()

    return run


def test_real_tissue_agrees_with_keras(exported: Exported, test_data: Path) -> None:
    file = sorted((test_data / "breast_he" / "tnbc").glob("*.png"))[0]
    image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    assert image is not None, file
    corners = [(y, x) for y in (0, 128, 256) for x in (64, 320)]
    tiles = np.stack([image[y : y + TILE_PX, x : x + TILE_PX] for y, x in corners])
    write_expected(exported.out, exported.bundle, tiles)
    try:
        checks = parity.run_checks(exported.out)
    finally:
        (exported.out / "expected.npz").unlink()
    assert all(check.agrees for check in checks), parity.table(checks)
    assert len(checks) == CHECKS


def test_a_difference_is_found_and_named_in_every_loader(
    exported: Exported,
) -> None:
    cases = {case.signature: case for case in expected.keras_cases(exported.bundle, exported.tiles)}
    (right,) = cases["serving_default"].outputs.values()
    right[2, 1] += 0.01
    (symbols,) = cases["genes"].outputs.values()
    symbols[:2] = symbols[1::-1]
    file = exported.out / "expected.npz"
    parity.write_cases(file, [cases["serving_default"], cases["genes"]])
    try:
        checks = parity.run_checks(exported.out)
    finally:
        file.unlink()
    assert [check.agrees for check in checks] == [False] * 4
    for check in checks:
        if check.format == "saved_model genes":
            assert "gene list" in check.note
        else:
            assert check.max_difference == pytest.approx(0.01, abs=1e-4)
            assert check.mean_difference == pytest.approx(0.01 / (9 * len(GENES)), rel=0.2)
    assert parity.table(checks).count("NO") == 4


@pytest.mark.parametrize(("shift", "agrees"), [(0.004, True), (0.2, False)])
def test_predict_raw_may_differ_by_what_a_grey_levels_rounding_moves(
    shift: float, agrees: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    cases = [
        parity.Case(name, {"tile": tile}, {"expression": tile + np.float32(shift)})
        for name in ("serving_default", "predict_raw")
    ]
    loaders = {  # each gives back what it is given
        loader: lambda folder: lambda name: lambda fed: {"expression": fed["tile"]}
        for loader in ("python", "c++")
    }
    form = dataclasses.replace(parity.FORMATS["saved_model"], loaders=loaders)
    monkeypatch.setitem(parity.FORMATS, "saved_model", form)
    (tmp_path / "saved_model" / "1").mkdir(parents=True)
    parity.write_cases(tmp_path / "expected.npz", cases)
    checks = parity.run_checks(tmp_path)
    assert len(checks) == 4
    for check in checks:
        if check.format == "saved_model predict_raw":
            assert (check.agrees, check.atol) == (agrees, parity.ROUNDED["predict_raw"])
        else:
            assert (check.agrees, check.atol) == (False, parity.TOLERANCE)


def test_export_that_differs_from_keras_is_not_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked_here(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, parity.main(Path(command[-1])), "", "")

    right = expected.keras_cases

    def off_by_one(bundle: Bundle, tiles: np.ndarray) -> list[parity.Case]:
        first, *others = right(bundle, tiles)
        outputs = {name: values + 1 for name, values in first.outputs.items()}
        return [dataclasses.replace(first, outputs=outputs), *others]

    monkeypatch.setattr(expected, "keras_cases", off_by_one)
    monkeypatch.setattr(subprocess, "run", checked_here)
    message = "'saved_model', loaded by python, does not agree .* largest difference is 1"
    with pytest.raises(parity.ParityError, match=message):
        exporting.export(
            exported.bundle, tmp_path / "a" / "b", parity_tiles=None, formats=["saved_model"]
        )
    assert list(tmp_path.iterdir()) == []


def test_export_is_not_kept_where_the_checking_process_dies(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, -9, "", "out of memory")

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(parity.ParityError, match="ended with code -9: out of memory"):
        exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model"])
    assert list(tmp_path.iterdir()) == []


def test_model_that_gives_nan_is_not_exported(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = {"expression": np.full((8, len(GENES)), np.nan, np.float32)}
    case = parity.Case("serving_default", {"tile": exported.tiles}, nan)
    monkeypatch.setattr(expected, "keras_cases", lambda bundle, tiles: [case])
    with pytest.raises(parity.ParityError, match="the model itself gives numbers that are not"):
        exporting.export(
            exported.bundle, tmp_path / "out", parity_tiles=None, formats=["saved_model"]
        )
    assert list(tmp_path.iterdir()) == []


def test_interrupted_export_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "checked", interrupted)
    (tmp_path / "kept.txt").write_text("the user's own")
    with pytest.raises(KeyboardInterrupt):
        exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model"])
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.usefixtures("without_checks")
def test_finished_export_is_replaced_only_by_force(exported: Exported, tmp_path: Path) -> None:
    saved_model = tmp_path / "saved_model" / "1"
    saved_model.mkdir(parents=True)
    (saved_model / "earlier.txt").write_text("an earlier export")
    other_version = tmp_path / "saved_model" / "2"
    other_version.mkdir()
    for formats in (["saved_model"], ["tflite", "saved_model"]):
        with pytest.raises(InputError, match=r"saved_model/1.* exists already.*`force`"):
            exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=formats)
    assert [path.name for path in saved_model.iterdir()] == ["earlier.txt"]
    report = exporting.export(
        exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model"], force=True
    )
    assert (saved_model / "saved_model.pb").is_file()
    assert not (saved_model / "earlier.txt").exists()
    assert other_version.is_dir()
    assert "random tiles (none were given)" in report.summary()


@pytest.mark.usefixtures("without_checks")
def test_tflite_alone_writes_no_saved_model_and_nothing_to_standard_error(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=["tflite"])
    assert [path.name for path in tmp_path.iterdir()] == ["tflite"]
    written = [path.relative_to(tmp_path) for path, _ in report.files]
    # Without training tiles there is no int8.
    names = [tflite.file_name(variant) for variant in ("dynamic", "float16", "float32")]
    assert written == [Path("tflite") / name for name in names]
    for path in written:
        assert (tmp_path / path).read_bytes() == (exported.out / path).read_bytes()
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("without_checks")
def test_what_the_saved_model_lacks_is_reported(
    exported: Exported,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model"])
    (line,) = capfd.readouterr().err.splitlines()
    assert "No warm-up requests in the SavedModel" in line


def test_what_tensorflow_says_is_shown_when_export_fails(
    exported: Exported,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*arguments: object, **settings: object) -> None:
        os.write(2, b"why it failed\n")
        raise OSError("no space left on device")

    monkeypatch.setattr(tf.saved_model, "save", failing)
    with pytest.raises(OSError, match="no space left"):
        exporting.export(exported.bundle, tmp_path, parity_tiles=None)
    assert "why it failed" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("formats", [["tfjs"], ["saved_model", "coreml"], []])
def test_unknown_format_is_refused(exported: Exported, tmp_path: Path, formats: list[str]) -> None:
    with pytest.raises(InputError, match=r"export format .* saved_model or tflite or onnx works"):
        exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=formats)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"tiles": np.zeros((1, 32, 32, 3), np.uint8)}, "an array `tile`"),
        ({"tile": np.zeros((1, 40, 40, 3), np.uint8)}, r"uint8 \(1, 40, 40, 3\).*\(n, 32, 32, 3\)"),
        ({"tile": np.zeros((1, 32, 32, 3), np.float32)}, "float32"),
        ({"tile": np.zeros((0, 32, 32, 3), np.uint8)}, "empty"),
        (
            {
                "tile": np.zeros((1, 32, 32, 3), np.uint8),
                "training_tile": np.zeros((1, 8, 8, 3), np.uint8),
            },
            "`training_tile` is uint8 ",
        ),
        (
            {"tile": np.zeros((1, 32, 32, 3), np.uint8), "measured": np.zeros((1, 4), np.float32)},
            r"`measured` has shape \(1, 4\); .* \(1, 5\) are needed",
        ),
    ],
)
def test_unusable_parity_tiles_are_refused(
    exported: Exported, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "tiles.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        exporting.export(
            exported.bundle, tmp_path / "out", parity_tiles=tmp_path / "tiles.npz", force=True
        )
    assert not (tmp_path / "out").exists()


def test_file_in_place_of_the_output_folder_is_refused(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("the user's own")
    with pytest.raises(InputError, match="is a file"):
        exporting.export(exported.bundle, tmp_path / "out", parity_tiles=None)


def test_missing_or_foreign_parity_tiles_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no_such\.npz' do not exist"):
        exporting.export(exported.bundle, tmp_path / "out", parity_tiles=tmp_path / "no_such.npz")
    (tmp_path / "note.npz").write_text("not an archive")
    with pytest.raises(InputError, match=r"note\.npz': an \.npz file"):
        exporting.export(exported.bundle, tmp_path / "out", parity_tiles=tmp_path / "note.npz")


def test_parity_names_what_it_misses(tmp_path: Path) -> None:
    with pytest.raises(parity.ParityError, match=r"expected\.npz is not readable"):
        parity.run_checks(tmp_path)
    tile = {"tile": np.zeros((1, 4, 4, 3), np.uint8)}
    parity.write_cases(tmp_path / "expected.npz", [])
    parity.write_cases(tmp_path / "expected.npz", [parity.Case("serving_default", tile, tile)])
    with pytest.raises(
        parity.ParityError, match=r"holds no saved_model/1 or onnx/histospace\.onnx"
    ):
        parity.run_checks(tmp_path)


def test_the_checking_process_imports_no_model_and_no_builder() -> None:
    own = set()
    for module in (parity, cpp_loader):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                own |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                own.add(str(node.module))
    assert {name for name in own if name.startswith("histospace_tf")} == {
        "histospace_tf.exports.cpp_loader",
        "histospace_tf.vocabulary",
    }
    assert "keras" not in {name.partition(".")[0] for name in own}

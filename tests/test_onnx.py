"""The .onnx gives what Keras gives, carries its metadata, and is left out with a word."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histospace_tf import exporting
from histospace_tf.exports import expected, gate, parity
from histospace_tf.exports import onnx as onnx_export
from histospace_tf.vocabulary import InputError
from made.bundles import GENES, TILE_PX
from made.exports import Exported, checked_here, tflite_metadata

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
FILE = parity.FORMATS["onnx"].path


def session(exported: Exported) -> Any:
    file = exported.out / FILE
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_any_batch_of_uint8_tiles_gives_float32_expression(exported: Exported) -> None:
    run = session(exported)
    ((tile,), (expression,)) = (run.get_inputs(), run.get_outputs())
    assert (tile.name, tile.type) == ("tile", "tensor(uint8)")
    assert tile.shape == ["n", TILE_PX, TILE_PX, 3]
    assert (expression.name, expression.type) == ("expression", "tensor(float)")
    assert expression.shape == ["n", len(GENES)]
    right = expected.keras_expression(exported.bundle, exported.tiles)
    for n in (1, 3, 8):
        (got,) = run.run(None, {"tile": exported.tiles[:n]})
        np.testing.assert_allclose(got, right[:n], rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="Got: 40 Expected: 32"):
        run.run(None, {"tile": np.zeros((1, 40, 40, 3), np.uint8)})


def test_the_standards_own_evaluator_agrees_with_keras(exported: Exported) -> None:
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(exported.out / FILE))
    onnx.checker.check_model(model, full_check=True)
    (got,) = ReferenceEvaluator(model).run(None, {"tile": exported.tiles[2:4]})
    right = expected.keras_expression(exported.bundle, exported.tiles[2:4])
    np.testing.assert_allclose(np.asarray(got), right, rtol=1e-4, atol=1e-4)
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx.ml"}


def test_metadata_is_that_of_the_tflite(exported: Exported) -> None:
    kept = session(exported).get_modelmeta().custom_metadata_map
    values = {name: json.loads(text) for name, text in kept.items()}
    assert values == tflite_metadata(exported.tflite)
    assert values["genes"] == list(GENES)


def test_checks_name_a_difference_and_a_broken_file(exported: Exported, tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.parent.mkdir()
    file.write_bytes((exported.out / FILE).read_bytes())
    right = expected.keras_expression(exported.bundle, exported.tiles)
    right[2, 1] += 0.01
    case = parity.Case("onnx", {"tile": exported.tiles}, {"expression": right})
    parity.write_cases(tmp_path / "expected.npz", [case])
    (check,) = parity.run_checks(tmp_path)
    assert (check.format, check.loader, check.agrees) == ("onnx", "onnxruntime", False)
    assert check.max_difference == pytest.approx(0.01, abs=1e-4)
    file.write_bytes(b"no model")
    (check,) = parity.run_checks(tmp_path)
    assert check.agrees is False
    assert check.max_difference is None


def test_onnx_alone_writes_nothing_else(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "checked", checked_here)
    report = exporting.export(exported.bundle, tmp_path, parity_tiles=None, formats=["onnx"])
    assert [path for path, _ in report.files] == [tmp_path / FILE]
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    (check,) = report.checks
    assert check.agrees
    assert "onnxruntime" in report.summary()


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else found(name)
    )


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_onnx_alone_is_refused(exported: Exported, tmp_path: Path) -> None:
    reason = r'ONNX needs tf2onnx \(pip install "histospace-tf\[onnx\]"\)'
    assert onnx_export.why_not() is not None
    with pytest.raises(InputError, match=reason):
        exporting.export(exported.bundle, tmp_path / "out", parity_tiles=None, formats=["onnx"])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_it_is_left_out_and_reported(
    exported: Exported,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "checked", lambda cases, draft: ())
    report = exporting.export(
        exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model", "onnx"]
    )
    assert [path for path, _ in report.files] == [tmp_path / "saved_model" / "1"]
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "ONNX" in line)
    assert "No .onnx: ONNX needs tf2onnx" in line

"""Variants carry their metadata and keep running; those that lose too much are left out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from histospace_tf.exports import expected, gate, tflite, tflite_checks
from histospace_tf.exports.tflite_checks import LiteCheck, LiteModel
from histospace_tf.vocabulary import CheckError
from made.bundles import GENES, TILE_PX
from made.exports import Exported, compared_here, tflite_metadata


@pytest.mark.parametrize("variant", tflite.VARIANTS)
def test_every_variant_takes_any_batch_of_uint8_and_gives_float32(
    exported: Exported, variant: str
) -> None:
    file = exported.out / "tflite" / tflite.file_name(variant)
    run = LiteModel(file)
    assert run.tile_px == TILE_PX
    right = expected.keras_expression(exported.bundle, exported.tiles)
    whole = run(exported.tiles)
    assert whole.dtype == np.float32
    for n in (1, 3):
        np.testing.assert_allclose(run(exported.tiles[:n]), whole[:n], rtol=1e-4, atol=1e-4)
    # Rounded to 8 bits, an untrained model still orders the tiles much as it did.
    r = [np.corrcoef(whole[:, g], right[:, g])[0, 1] for g in range(len(GENES))]
    assert np.mean(r) > (0.9 if variant == "int8" else 0.99)


def test_smaller_types_make_smaller_files(exported: Exported) -> None:
    size = {row.variant: row.bytes for row in exported.report.lite.checks}  # type: ignore[union-attr]
    assert size["float16"] < 0.7 * size["float32"]
    assert size["dynamic"] < 0.7 * size["float16"]
    assert size["int8"] < 0.8 * size["float16"]  # its head stays float32


def test_int8_rounds_weights_and_says_so_in_its_operations(exported: Exported) -> None:
    from tensorflow.lite.python.interpreter import Interpreter

    file = exported.out / "tflite" / tflite.file_name("int8")
    with pytest.warns(UserWarning, match=r"tf.lite.Interpreter is deprecated"):
        interpreter = Interpreter(model_path=str(file))
    types = {tuple(d["shape"]): d["dtype"] for d in interpreter.get_tensor_details()}
    assert types[(128, 3, 3, 64)] is np.int8
    assert types[(len(GENES), len(GENES))] is np.float32  # the head on statistics


@pytest.mark.parametrize("variant", tflite.VARIANTS)
def test_metadata_lies_in_the_file_and_unzip_reads_it(exported: Exported, variant: str) -> None:
    file = exported.out / "tflite" / tflite.file_name(variant)
    values = tflite_metadata(file)
    config = exported.bundle.config
    assert values["variant"] == variant
    assert values["genes"] == list(GENES)
    assert values["unit"] == "ln(1 + counts per 10,000)"
    assert values["microns_per_pixel"] == config.tiles.mpp
    assert values["tile_px"] == TILE_PX
    assert values["stain"]["reference"] == exported.bundle.reference.to_json()
    assert values["version"]
    assert "publisher" in values["licence"]
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.read("genes.txt").decode("utf-8").splitlines() == list(GENES)


def checked(**settings: object) -> LiteCheck:
    plain = LiteCheck("dynamic", 100, "litert", 0.1, 0.01, 0.999, -0.001)
    return dataclasses.replace(plain, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"change_of_r": -0.0101}, "loses 0.01010 of mean r per gene; 0.01 is the most"),
        ({"change_of_r": 0.02, "r_with_keras": 0.9}, None),
        ({"change_of_r": None, "r_with_keras": 0.995}, None),
        ({"change_of_r": None, "r_with_keras": 0.98}, "loses 0.02000 of r with Keras"),
        ({"change_of_r": None, "r_with_keras": None}, "r says nothing"),
        ({"change_of_r": None, "r_with_keras": None, "exact": True}, None),
        ({"max_difference": None, "note": "does not run: OSError"}, "does not run"),
    ],
)
def test_a_variant_is_left_out_for_more_than_a_hundredth_of_r(
    settings: dict[str, object], reason: str | None
) -> None:
    objection = gate.objection(checked(**settings))
    assert objection is None if reason is None else reason in str(objection)


@pytest.fixture
def judged(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of float32 and float16, compared in this process."""
    monkeypatch.setattr(gate, "compared", compared_here)
    for variant in ("float32", "float16"):
        name = tflite.file_name(variant)
        (tmp_path / name).write_bytes((exported.out / "tflite" / name).read_bytes())
    return tmp_path


def expect(exported: Exported, folder: Path, measured: np.ndarray | None, shift: float = 0) -> None:
    tflite_checks.write_expected(
        folder / "expected.npz",
        tile=exported.tiles,
        expression=expected.keras_expression(exported.bundle, exported.tiles) + np.float32(shift),
        genes=GENES,
        measured=measured,
    )


def test_change_of_r_is_that_of_each_gene_with_its_measured_values(
    exported: Exported, judged: Path
) -> None:
    right = expected.keras_expression(exported.bundle, exported.tiles)
    measured = right + np.random.default_rng(0).normal(0, 0.5, right.shape)
    measured[:, 2] = 1.5  # a gene that is constant as measured says nothing
    expect(exported, judged, measured)
    report = gate.passed(judged, keep_all=False)
    (_, float16) = report.checks
    got = LiteModel(judged / tflite.file_name("float16"))(exported.tiles)
    for g, gene in enumerate(GENES):
        if gene == "HLA-B":
            assert float16.genes[gene] is None
            continue
        r = [np.corrcoef(values[:, g], measured[:, g])[0, 1] for values in (got, right)]
        assert float16.genes[gene] == pytest.approx(r[0] - r[1], abs=1e-9)
    each = [value for value in float16.genes.values() if value is not None]
    assert float16.change_of_r == pytest.approx(np.mean(each))


def test_what_falls_short_is_deleted_unless_all_is_kept(
    exported: Exported, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MOST_LOST_R", -1.0)
    monkeypatch.setattr(tflite_checks, "TOLERANCE", 1e-4)  # that float16 is not exact here
    expect(exported, judged, None)
    report = gate.passed(judged, keep_all=True)
    assert report.left_out == {}
    report = gate.passed(judged, keep_all=False)
    assert set(report.left_out) == {"float16"}
    assert [file.name for file in judged.glob("*.tflite")] == [tflite.file_name("float32")]
    (line,) = (line for line in report.table().splitlines() if line.startswith("float16"))
    assert "left out: loses" in line


def test_float32_that_differs_ends_the_export(exported: Exported, judged: Path) -> None:
    expect(exported, judged, None, shift=0.01)
    with pytest.raises(CheckError, match=r"histospace_float32.*largest difference is 0\.01"):
        gate.passed(judged, keep_all=True)


def test_broken_file_is_left_out_even_if_all_is_kept(exported: Exported, judged: Path) -> None:
    (judged / tflite.file_name("float16")).write_bytes(b"TFL3" * 20)
    expect(exported, judged, None)
    report = gate.passed(judged, keep_all=True)
    assert "does not run" in report.left_out["float16"]
    json.dumps(report.to_json(), allow_nan=False)


def test_speed_is_measured_in_a_fresh_process(exported: Exported) -> None:
    speed = gate.speed(exported.tflite, threads=1, rounds=2)
    assert speed.threads == 1
    assert speed.milliseconds > 0
    assert speed.megabytes is None or 0 < speed.megabytes < 500


def test_process_that_dies_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="ended with code 1"):
        gate.speed(tmp_path / "no.tflite", threads=1)


def test_running_a_file_imports_no_tensorflow() -> None:
    code = (
        "import sys, histospace_tf.exports.tflite_checks as checks; name = checks._runtime()[0]; "
        "print(name, 'tensorflow' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split()[-2:] == ["litert", "False"]

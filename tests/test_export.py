"""Exports give what Keras gives, in whatever loads them, and appear whole or not at all."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import bundle as bundles
from histospace_tf import config as configuration
from histospace_tf import cpp_loader, export, lite, lite_checks, lite_gate, parity
from histospace_tf.bundle import Bundle
from histospace_tf.config import Architecture
from histospace_tf.cpp_loader import CppModel
from histospace_tf.models import autoencoder, regressor
from histospace_tf.vocabulary import GenePanel, InputError, StainReference

TILE_PX = 32
GENES = ("ERBB2", "EPCAM", "HLA-B", "Ünusual gene", "IGKC")


def tiny_bundle(architecture: Architecture, *, tile_px: int = TILE_PX) -> Bundle:
    """An untrained model whose every number matters: statistics and units are not 0 and 1."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    config = configuration.with_architecture(
        configuration.changed(configuration.preset("recommended"), tiles__tile_px=tile_px),
        architecture,
    )
    encoder = autoencoder.build_encoder(3)
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_mean.shape))
    trunk = regressor.build_trunk(encoder, architecture=architecture)
    shape = bundles.feature_shape(trunk, tile_px)
    head = regressor.build_head(shape, len(GENES), config.regressor)
    single = head
    if bundles.needs_context(config):
        single = bundles.build_single_tile_head(shape, len(GENES), config)
    if len(shape) == 1:
        mean, variance = rng.normal(0.2, 0.1, shape), rng.uniform(0.01, 0.1, shape)
        regressor.set_feature_scale(single, mean, variance)
        loadings = rng.normal(0, 0.5, (len(GENES), len(GENES)))
        for made in (head, single):  # which start at zero
            regressor.set_gene_factors(made, loadings)
            factors = made.get_layer("factors")
            factors.kernel.assign(rng.normal(0, 0.03, factors.kernel.shape))
            factors.bias.assign(rng.normal(0, 1, factors.bias.shape))
    return Bundle(
        config=config,
        panel=GenePanel(
            genes=GENES,
            normalisation="library_size_log1p",
            target_sum=1e4,
            mean=rng.uniform(1, 3, len(GENES)).astype(np.float32),
            scale=rng.uniform(0.3, 2, len(GENES)).astype(np.float32),
        ),
        reference=StainReference(
            method="none",
            white_point=np.full(3, 255.0),
            luminosity=255.0,
            stain_matrix=np.eye(2, 3),
            max_concentration=np.ones(2),
            lab_mean=np.zeros(3),
            lab_std=np.ones(3),
        ),
        encoder=encoder,
        trunk=trunk,
        head=head,
        single_tile_head=single,
        trained_on={},
    )


@dataclasses.dataclass(frozen=True)
class Exported:
    bundle: Bundle
    out: Path
    report: export.ExportReport
    tiles: np.ndarray

    @property
    def saved_model(self) -> Path:
        return self.out / "saved_model" / "1"

    @property
    def tflite(self) -> Path:
        return self.out / "tflite" / "histospace_float32.tflite"


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """(8, TILE_PX, TILE_PX, 3): pink and violet spots and gradients, one blank, one black."""
    made = np.random.default_rng(5).integers(90, 256, (8, 8, 8, 3)).astype(np.uint8)
    grown = np.stack([cv2.resize(tile, (TILE_PX, TILE_PX)) for tile in made])
    grown[0], grown[1] = 255, 0
    return grown


@pytest.fixture(scope="module")
def exported(tiles: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The recommended architecture, exported and checked as a user's."""
    folder = tmp_path_factory.mktemp("export")
    np.savez(folder / "parity_tiles.npz", tile=tiles, training_tile=tiles)
    model, out = tiny_bundle("context"), folder / "new" / "run"
    # An untrained model's features lie anywhere, so its int8 variant may lose a good deal.
    report = export.export(
        model, out, parity_tiles=folder / "parity_tiles.npz", keep_all=True, timed=False
    )
    return Exported(model, out, report, tiles)


@pytest.fixture
def without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the fresh process, for tests of what surrounds it."""
    monkeypatch.setattr(export, "_checked", lambda bundle, tiles, draft: ())
    monkeypatch.setattr(
        lite_gate, "passed", lambda folder, **settings: lite_gate.LiteReport((), {}, {})
    )


def test_every_loader_in_a_fresh_process_agrees_with_keras(exported: Exported) -> None:
    checks = {(check.format, check.loader): check for check in exported.report.checks}
    assert ("saved_model", "python") in checks
    assert ("saved_model", "c++") in checks
    assert {name for name, _ in checks} == {"saved_model"}
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
        ("pooled", 4 * regressor.SAMPLED_SIDE),  # whose first map is sampled for its quantiles
    ],
)
def test_every_architecture_agrees_with_keras(
    architecture: Architecture,
    tile_px: int,
    tiles: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_bundle(architecture, tile_px=tile_px)
    tiles = np.stack([cv2.resize(tile, (tile_px, tile_px)) for tile in tiles])

    def checked_here(bundle: Bundle, tiles: np.ndarray, draft: Path) -> tuple[parity.Check, ...]:
        write_expected(draft, bundle, tiles)
        return tuple(parity.run_checks(draft))

    monkeypatch.setattr(export, "_checked", checked_here)
    monkeypatch.setattr(lite_checks, "compared", compared_here)
    np.savez(tmp_path / "tiles.npz", tile=tiles)
    report = export.export(
        model, tmp_path / "out", parity_tiles=tmp_path / "tiles.npz", timed=False
    )
    assert [check.agrees for check in report.checks] == [True, True], report.summary()
    assert report.lite is not None
    assert report.lite.checks[0].exact, report.summary()
    assert "int8" in report.lite.left_out  # no training tiles


def compared_here(folder: Path) -> list[lite_checks.LiteCheck]:
    with np.load(folder / "expected.npz") as kept:
        expected = dict(kept)
    return [lite_checks.compare(file, expected) for file in sorted(folder.glob("*.tflite"))]


def write_expected(folder: Path, bundle: Bundle, tiles: np.ndarray) -> None:
    expression = export.keras_expression(bundle, tiles)
    genes = np.array(bundle.panel.genes)
    np.savez(folder / "expected.npz", tile=tiles, expression=expression, genes=genes)


def test_keras_expression_is_the_single_tile_model_in_the_panels_unit(
    exported: Exported, tiles: np.ndarray
) -> None:
    model = exported.bundle
    whole = regressor.build_regressor(model.trunk, model.single_tile_head, tile_px=TILE_PX)
    standardised = whole.predict_on_batch(tiles.astype(np.float32) / 255)
    right = standardised * model.panel.scale + model.panel.mean
    np.testing.assert_allclose(export.keras_expression(model, tiles), right, atol=1e-4)


def test_expression_differs_from_tile_to_tile(exported: Exported) -> None:
    # Agreement would say little about a model that gives one answer to everything.
    expression = export.keras_expression(exported.bundle, exported.tiles)
    assert (expression.std(axis=0) > 0.01).all()


def test_signatures_have_the_contracts_names_types_and_free_batch(exported: Exported) -> None:
    signatures = tf.saved_model.load(str(exported.saved_model)).signatures
    assert set(signatures) == {"serving_default", "genes"}
    (serve, genes) = signatures["serving_default"], signatures["genes"]
    assert serve.structured_input_signature[1] == {
        "tile": tf.TensorSpec([None, TILE_PX, TILE_PX, 3], tf.uint8, "tile")
    }
    assert genes.structured_input_signature[1] == {
        "index": tf.TensorSpec([None], tf.int32, "index")
    }
    ((name, value),) = serve.structured_outputs.items()
    assert (name, value.dtype, value.shape.as_list()) == (
        "expression",
        tf.float32,
        [None, len(GENES)],
    )
    ((name, value),) = genes.structured_outputs.items()
    assert (name, value.dtype, value.shape.as_list()) == ("symbol", tf.string, [None])


def test_variables_are_written_once(exported: Exported) -> None:
    model = exported.bundle
    weights = [*model.trunk.get_weights(), *model.single_tile_head.get_weights()]
    needed = sum(values.nbytes for values in weights)
    (file,) = (exported.saved_model / "variables").glob("variables.data-*")
    assert needed <= file.stat().st_size < 1.2 * needed
    # The float32 .tflite holds the same numbers, less those that fold into others.
    assert exported.tflite.stat().st_size < 1.2 * needed


def test_genes_file_lists_the_panel_in_order(exported: Exported) -> None:
    text = (exported.saved_model / "assets" / "genes.txt").read_text(encoding="utf-8")
    assert tuple(text.splitlines()) == GENES


def test_report_names_what_was_written(exported: Exported) -> None:
    written = [path for path, _ in exported.report.files]
    variants = [exported.out / "tflite" / lite.file_name(name) for name in lite.VARIANTS]
    assert written[0] == exported.saved_model
    assert set(written[1:]) == set(variants)
    for path, size in exported.report.files:
        assert size > 0
        assert str(path) in exported.report.summary()
    assert {path.name for path in exported.out.iterdir()} == {"saved_model", "tflite"}
    others = {path.name for path in (exported.out / "tflite").iterdir()} - {
        v.name for v in variants
    }
    assert others == {"export_report.json"}
    report = json.loads((exported.out / "tflite" / "export_report.json").read_text())
    assert [row["variant"] for row in report["variants"]] == list(lite.VARIANTS)
    assert set(report["variants"][0]["genes"]) == set(GENES)


def test_cpp_loader_looks_genes_up_and_refuses_an_index_outside(exported: Exported) -> None:
    model = CppModel(exported.saved_model)
    got = model.run("genes", {"index": np.array([3, 0, 3], np.int32)})["symbol"]
    assert [symbol.decode() for symbol in got] == [GENES[3], GENES[0], GENES[3]]
    for index in (len(GENES), -1):
        with pytest.raises(RuntimeError, match=rf"{index} is not in \[0, {len(GENES)}\)"):
            model.run("genes", {"index": np.array([index], np.int32)})


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (np.zeros((2, 24, TILE_PX, 3), np.uint8), r"\[2,24,32,3\].*expected shape \[\?,32,32,3\]"),
        (np.zeros((2, 40, 40, 3), np.uint8), r"\[2,40,40,3\].*expected shape \[\?,32,32,3\]"),
        (np.zeros((TILE_PX, TILE_PX, 3), np.uint8), r"expected shape \[\?,32,32,3\]"),
        (np.zeros((1, TILE_PX, TILE_PX, 3), np.float32), "uint8"),
    ],
)
def test_cpp_loader_refuses_other_tiles(exported: Exported, tile: np.ndarray, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        CppModel(exported.saved_model).run("serving_default", {"tile": tile})


def test_cpp_loader_refuses_a_folder_without_a_saved_model(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not find SavedModel"):
        CppModel(tmp_path)


@pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated")
def test_tflite_takes_any_batch_of_uint8_tiles_and_gives_float32(exported: Exported) -> None:
    run = lite_run(exported.tflite)
    right = export.keras_expression(exported.bundle, exported.tiles)
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
    assert [check.agrees for check in checks] == [True, True], parity.table(checks)


def test_a_difference_is_found_and_named_in_every_loader(
    exported: Exported, tiles: np.ndarray
) -> None:
    right = export.keras_expression(exported.bundle, tiles)
    right[2, 1] += 0.01
    file = exported.out / "expected.npz"
    np.savez(file, tile=tiles, expression=right, genes=np.array(GENES))
    swapped = np.array(GENES[::-1])
    try:
        checks = parity.run_checks(exported.out)
        np.savez(file, tile=tiles, expression=right, genes=swapped)
        with_other_genes = parity.run_checks(exported.out)
    finally:
        file.unlink()
    assert [check.agrees for check in checks] == [False, False]
    for check in checks:
        assert check.max_difference == pytest.approx(0.01, abs=1e-4)
        assert check.mean_difference == pytest.approx(0.01 / (9 * len(GENES)), rel=0.2)
    assert "gene list" in with_other_genes[0].note
    assert "gene list" in with_other_genes[1].note
    assert parity.table(checks).count("NO") == 2


def test_export_that_differs_from_keras_is_not_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked_here(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, parity.main(Path(command[-1])), "", "")

    right = export.keras_expression
    monkeypatch.setattr(export, "keras_expression", lambda bundle, tiles: right(bundle, tiles) + 1)
    monkeypatch.setattr(subprocess, "run", checked_here)
    message = "'saved_model', loaded by python, does not agree .* largest difference is 1"
    with pytest.raises(parity.ParityError, match=message):
        export.export(
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
        export.export(exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model"])
    assert list(tmp_path.iterdir()) == []


def test_model_that_gives_nan_is_not_exported(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = np.full((8, len(GENES)), np.nan, np.float32)
    monkeypatch.setattr(export, "keras_expression", lambda bundle, tiles: nan)
    with pytest.raises(parity.ParityError, match="the model itself gives numbers that are not"):
        export.export(exported.bundle, tmp_path / "out", parity_tiles=None, formats=["saved_model"])
    assert list(tmp_path.iterdir()) == []


def test_interrupted_export_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_checked", interrupted)
    (tmp_path / "kept.txt").write_text("the user's own")
    with pytest.raises(KeyboardInterrupt):
        export.export(exported.bundle, tmp_path, parity_tiles=None, formats=["saved_model"])
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.usefixtures("without_checks")
def test_finished_export_is_replaced_only_by_force(exported: Exported, tmp_path: Path) -> None:
    saved_model = tmp_path / "saved_model" / "1"
    saved_model.mkdir(parents=True)
    (saved_model / "earlier.txt").write_text("an earlier export")
    other_version = tmp_path / "saved_model" / "2"
    other_version.mkdir()
    for formats in (["saved_model"], ["tflite", "saved_model"]):
        with pytest.raises(InputError, match=r"saved_model/1.* exists already.*--force"):
            export.export(exported.bundle, tmp_path, parity_tiles=None, formats=formats)
    assert [path.name for path in saved_model.iterdir()] == ["earlier.txt"]
    report = export.export(
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
    report = export.export(exported.bundle, tmp_path, parity_tiles=None, formats=["tflite"])
    assert [path.name for path in tmp_path.iterdir()] == ["tflite"]
    written = [path.relative_to(tmp_path) for path, _ in report.files]
    # Without training tiles there is no int8.
    names = [lite.file_name(variant) for variant in ("dynamic", "float16", "float32")]
    assert written == [Path("tflite") / name for name in names]
    for path in written:
        assert (tmp_path / path).read_bytes() == (exported.out / path).read_bytes()
    assert capfd.readouterr().err == ""


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
        export.export(exported.bundle, tmp_path, parity_tiles=None)
    assert "why it failed" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("formats", [["onnx"], ["saved_model", "coreml"], []])
def test_unknown_format_is_refused(exported: Exported, tmp_path: Path, formats: list[str]) -> None:
    with pytest.raises(InputError, match=r"export format .* saved_model or tflite works"):
        export.export(exported.bundle, tmp_path, parity_tiles=None, formats=formats)


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
        export.export(
            exported.bundle, tmp_path / "out", parity_tiles=tmp_path / "tiles.npz", force=True
        )
    assert not (tmp_path / "out").exists()


def test_file_in_place_of_the_output_folder_is_refused(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("the user's own")
    with pytest.raises(InputError, match="is a file"):
        export.export(exported.bundle, tmp_path / "out", parity_tiles=None)


def test_missing_or_foreign_parity_tiles_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no_such\.npz' do not exist"):
        export.export(exported.bundle, tmp_path / "out", parity_tiles=tmp_path / "no_such.npz")
    (tmp_path / "note.npz").write_text("not an archive")
    with pytest.raises(InputError, match=r"note\.npz': an \.npz file"):
        export.export(exported.bundle, tmp_path / "out", parity_tiles=tmp_path / "note.npz")


def test_parity_names_what_it_misses(tmp_path: Path) -> None:
    with pytest.raises(parity.ParityError, match=r"expected\.npz is not readable"):
        parity.run_checks(tmp_path)
    np.savez(tmp_path / "expected.npz", tile=1, expression=1, genes=1)
    with pytest.raises(parity.ParityError, match="holds no saved_model/1"):
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
        "histospace_tf.cpp_loader",
        "histospace_tf.vocabulary",
    }
    assert "keras" not in {name.partition(".")[0] for name in own}

"""What is refused before TensorFlow is loaded: each refusal, and that it was not imported."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from histospace_tf import bundle, bundle_file, first_checks
from histospace_tf.config import Config, changed, preset
from histospace_tf.vocabulary import InputError
from made.bundles import tiny_bundle
from made.tissue import he_picture, write_picture

CONFIG = preset("recommended")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    bundle.save(tiny_bundle("context"), folder / "bundle")
    return folder


@pytest.fixture
def here(tmp_path: Path, small_tissue: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, run, slide.png (no scale), table.h5ad, done/ and cut/'s .partial."""
    (tmp_path / "data").symlink_to(small_tissue)
    (tmp_path / "run").symlink_to(run)
    write_picture(tmp_path / "slide.png", he_picture())
    anndata.AnnData(np.ones((1, 1), np.float32)).write_h5ad(tmp_path / "theirs.h5ad")
    (tmp_path / "text.h5ad").write_text("spot,gene")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "scores.json").write_text("{}")
    (tmp_path / "done.h5ad").write_text("")
    (tmp_path / "cut.partial").mkdir()
    (tmp_path / "cut.h5ad.partial").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.txt").write_text("ERBB2\nERBB2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def panel(name: str) -> Config:
    return changed(CONFIG, target__panel=name)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((CONFIG, "nowhere", "out"), {}, "'nowhere' does not exist"),
        ((CONFIG, "empty", "out"), {}, "no layout that is known"),
        ((CONFIG, "data", "out"), {"layout": "visium"}, "does not have the layout 'visium'"),
        ((CONFIG, "data", "out"), {"image": Path("no.svs")}, "'no.svs' does not exist"),
        ((CONFIG, "data", "out"), {"mpp": 500.0}, "plausible"),
        ((CONFIG, "data", "out"), {"pretrain": Path("no")}, "'no' does not exist"),
        ((CONFIG, "data", "out"), {"encoder": Path("no")}, "'no' is no folder that"),
        ((CONFIG, "data", "out"), {"pretrain": Path("a"), "encoder": Path("b")}, "one of them"),
        ((panel("no.txt"), "data", "out"), {}, "'no.txt' is neither mean"),
        ((panel("twice.txt"), "data", "out"), {}, "more than once"),
        ((CONFIG, "data", "done"), {}, "'done' exists already"),
        ((CONFIG, "data", "cut"), {}, "interrupted run stands in 'cut.partial'"),
    ],
)
@pytest.mark.usefixtures("here")
def test_trainings_are_refused(
    arguments: tuple[Config, str, str], options: dict[str, Any], message: str
) -> None:
    config, data, out = arguments
    for verb in (first_checks.fit, first_checks.evaluate):
        with pytest.raises(InputError, match=message):
            verb(config, Path(data), Path(out), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold_out": ["A"], "no_hold_out": True}, "exclude each other"),
        ({"evaluations": [Path("no")]}, "goes with --no-hold-out"),
        ({"no_hold_out": True, "evaluations": [Path("no")]}, "--evaluation 'no': not a folder"),
        ({"hold_out": ["Z"]}, "named 'Z'.*'A', 'B', 'C', 'D', 'E'"),
        ({"hold_out": list("ABCDE")}, "leaves nothing"),
        ({"mpp": 0.5}, "none is given"),
    ],
)
def test_fits_without_data_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        first_checks.fit(CONFIG, None, Path("out"), **options)


def test_simulated_sections_have_the_names_that_may_be_held_out(small_tissue: Path) -> None:
    first_checks.fit(CONFIG, None, Path("out"), hold_out=["B", "C1"])
    assert {path.name.partition(".")[0] for path in (small_tissue / "ST-cnts").iterdir()} == {
        "A1",
        "B1",
        "C1",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "spot"}, "one of patient, section"),
        ({"clusters": 1}, "at least 2"),
        ({"compare": ["pooled"]}, "in any case"),
        ({"compare": ["global"], "predictions": {"global": Path("theirs.h5ad")}}, "both name"),
        ({"predictions": {"theirs": Path("no.h5ad")}}, "'no.h5ad' do not exist"),
        ({"predictions": {"theirs": Path("text.h5ad")}}, "cannot be read as AnnData"),
    ],
)
@pytest.mark.usefixtures("here")
def test_evaluations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        first_checks.evaluate(CONFIG, Path("data"), Path("out"), **options)


@pytest.mark.parametrize(
    ("data", "model", "out", "message"),
    [
        ("nowhere", "run", "out", "'nowhere' does not exist"),
        ("data", "nowhere", "out", "'nowhere' holds no model"),
        ("data", "slide.png", "out", "'slide.png' holds no model"),
        ("data", "run", "done", "'done' exists already"),
    ],
)
@pytest.mark.usefixtures("here")
def test_evaluations_of_a_run_are_refused(data: str, model: str, out: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        first_checks.evaluate_run(Path(data), Path(model), Path(out))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slide": Path("no.svs")}, "'no.svs' does not exist"),
        ({"slide": Path("text.h5ad")}, "is not an image"),
        ({"run": Path("no")}, "'no' holds no model"),
        ({"out": Path("table.csv")}, "ends in .h5ad"),
        ({"out": Path("done.h5ad")}, "exists already"),
        ({"out": Path("cut.h5ad")}, "--resume goes on with it"),
        ({"spots": Path("no.csv")}, "'no.csv' does not exist"),
        ({"mpp": None}, "give them with --mpp"),
        ({"mpp": 9.0}, "too coarse"),
        ({"mpp": 0.0}, "plausible"),
        ({"step_um": 0.0}, "--step-um 0: a distance above 0"),
        ({"step_um": -5.0}, "--step-um -5: a distance above 0"),
        ({"step_um": float("nan")}, "a distance above 0"),
        ({"step_um": 50.0, "spots": Path("slide.png")}, "pass one of them"),
        ({"server": "localhost"}, "--server 'localhost': HOST:PORT"),
    ],
)
@pytest.mark.usefixtures("here")
def test_predictions_are_refused(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "slide": Path("slide.png"),
        "run": Path("run"),
        "out": Path("p.h5ad"),
        "mpp": 1.0,
    }
    first_checks.predict(**given)
    with pytest.raises(InputError, match=message):
        first_checks.predict(**{**given, **options})


@pytest.mark.usefixtures("here")
def test_exports_are_refused() -> None:
    first_checks.export(Path("run"), Path("out"), formats=["saved_model", "tflite"])
    with pytest.raises(InputError, match="'no' holds no model"):
        first_checks.export(Path("no"), Path("out"), formats=["tflite"])
    with pytest.raises(InputError, match="is a file"):
        first_checks.export(Path("run"), Path("slide.png"), formats=["tflite"])
    for finished in ("saved_model/1/saved_model.pb", "tflite/a.tflite"):
        file = Path("exported", finished)
        file.parent.mkdir(parents=True)
        file.write_text("")
        with pytest.raises(InputError, match="exists already"):
            first_checks.export(Path("run"), Path("exported"), formats=[finished.split("/")[0]])
    first_checks.export(Path("run"), Path("exported"), formats=["tflite"], force=True)


def test_a_check_takes_what_its_verb_takes() -> None:
    from histospace_tf import evaluation, fitting, predicting, scoring

    pairs: list[tuple[Callable[..., object], Callable[..., object]]] = [
        (first_checks.fit, fitting.fit),
        (first_checks.evaluate, evaluation.evaluate),
        (first_checks.evaluate_run, scoring.evaluate_run),
        (first_checks.predict, predicting.predict),
    ]
    for check, verb in pairs:
        assert inspect.signature(check).parameters == inspect.signature(verb).parameters


@pytest.mark.usefixtures("here")
def test_the_command_line_refuses_before_tensorflow_is_loaded() -> None:
    code = """
import sys
from click.testing import CliRunner
from histospace_tf.cli import main
for line in sys.argv[1:]:
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 2 and result.output.count("Error: ") == 1, (line, result.output)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules, line
"""
    lines = [
        "fit nowhere --out out",
        "fit data --out done",
        "fit --hold-out Z --out out",
        "fit data --out out --no-hold-out --evaluation no",
        "evaluate nowhere --out out",
        "evaluate data --out out --predictions theirs=no.h5ad",
        "evaluate data --out out --model nowhere",
        "predict no.svs --model run --out p.h5ad --mpp 1",
        "predict slide.png --model run --out p.h5ad --mpp 1 --show NOTAGENE --maps maps",
        "predict slide.png --model run --out p.h5ad --mpp 1 --server localhost",
        "export nowhere --out out",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr


def test_bundle_file_is_what_a_bundle_holds(run: Path) -> None:
    file, whole = bundle_file.read(run), bundle.load(run)
    assert file.folder == run / "bundle"
    assert file.config == whole.config
    assert file.panel.to_json() == whole.panel.to_json()
    assert file.trained_on == whole.trained_on
    assert bundle_file.needs_context(file.config) == whole.needs_context
    with pytest.raises(InputError, match="holds no model"):
        bundle_file.read(run / "nowhere")


def test_scale_of_a_slide_goes_with_the_model() -> None:
    wanted = CONFIG.tiles.mpp
    assert wanted is not None
    first_checks.refuse_scale(Path("a.png"), first_checks.COARSEST * wanted, CONFIG)
    first_checks.refuse_scale(Path("a.png"), None, preset("paper"))  # at every image's own scale
    with pytest.raises(InputError, match=r"a\.png: .*too coarse"):
        first_checks.refuse_scale(Path("a.png"), first_checks.COARSEST * wanted * 1.01, CONFIG)

"""What may be asked for, and what is refused before TensorFlow is loaded."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import click
import numpy as np
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import api, bundle, bundle_file, requests
from histospace_tf.cli import main
from histospace_tf.commands import options
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import simulation
from histospace_tf.presets import preset
from histospace_tf.request_options import OnePath, Options, option, unchanged
from histospace_tf.requests import (
    CheckRequest,
    ConvertRequest,
    EvaluateRequest,
    ExportRequest,
    FeaturesRequest,
    FitRequest,
    NormalizeRequest,
    PredictRequest,
    PredictSlidesRequest,
    ScoreRequest,
    SimulateRequest,
    ViewRequest,
)
from histospace_tf.requests.refusals import refuse
from histospace_tf.requests.slide_refusals import COARSEST, refuse_scale
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
    for kind in (FitRequest, EvaluateRequest):
        with pytest.raises(InputError, match=message):
            refuse(kind(data, out, config=config, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold_out": ["A"], "no_hold_out": True}, "exclude each other"),
        ({"evaluations": [Path("no")]}, "`evaluations` goes with `no_hold_out`"),
        ({"no_hold_out": True, "evaluations": [Path("no")]}, "`evaluations` 'no': not a folder"),
        ({"no_hold_out": True, "gene_sets": "no.gmt"}, "with `no_hold_out` nothing is"),
        ({"gene_sets": "no.gmt"}, "'no.gmt' does not exist"),
        ({"hold_out": ["Z"]}, "named 'Z'.*'A', 'B', 'C', 'D', 'E'"),
        ({"hold_out": list("ABCDE")}, "leaves nothing"),
        ({"mpp": 0.5}, "none is given"),
    ],
)
def test_fits_without_data_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse(FitRequest(None, "out", config=CONFIG, **options))


def test_simulated_sections_have_the_names_that_may_be_held_out(small_tissue: Path) -> None:
    refuse(FitRequest(None, "out", config=CONFIG, hold_out=["B", "C1"]))
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
        ({"study_epochs": 0}, "`study_epochs` is 0; at least 1"),
        ({"peer_size": "small", "compare": ["paper"]}, "`peer_size` is of published .* st_net"),
        ({"study_epochs": 3, "with_complexities": False}, "of curves that are left out"),
        (
            {"compare": ["unknown"]},
            "'unknown': one of paper, global, pooled, context, st_net, efficientnet_b0, histogene, "
            "hist2st, probe",
        ),
        ({"compare": ["global"], "predictions": {"global": Path("theirs.h5ad")}}, "both name"),
        ({"predictions": {"theirs": Path("no.h5ad")}}, "'no.h5ad' do not exist"),
        ({"predictions": {"theirs": Path("text.h5ad")}}, "cannot be read as AnnData"),
    ],
)
@pytest.mark.usefixtures("here")
def test_evaluations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse(EvaluateRequest("data", "out", config=CONFIG, **options))


@pytest.mark.parametrize(
    ("data", "model", "out", "message"),
    [
        ("nowhere", "run", "out", "'nowhere' does not exist"),
        ("data", "nowhere", "out", "'nowhere' is no folder that"),
        ("data", "slide.png", "out", "'slide.png' holds no model"),
        ("data", "run", "done", "'done' exists already"),
    ],
)
@pytest.mark.usefixtures("here")
def test_evaluations_of_a_run_are_refused(data: str, model: str, out: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse(ScoreRequest(data, out, model=model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slide": Path("no.svs")}, "'no.svs' does not exist"),
        ({"slide": Path("text.h5ad")}, "is not an image"),
        ({"model": "no"}, "'no' is no folder that"),
        ({"model": "empty"}, "'empty' holds no model"),
        ({"out": Path("table.csv")}, "ends in .h5ad"),
        ({"out": Path("done.h5ad")}, "exists already"),
        ({"out": Path("cut.h5ad")}, "`resume` goes on with it"),
        ({"spots": Path("no.csv")}, "'no.csv' does not exist"),
        ({"mpp": None}, "give them with `mpp`"),
        ({"mpp": 9.0}, "too coarse"),
        ({"mpp": 0.0}, "plausible"),
        ({"step_um": 0.0}, "`step_um` 0: a distance above 0"),
        ({"step_um": -5.0}, "`step_um` -5: a distance above 0"),
        ({"step_um": float("nan")}, "a distance above 0"),
        ({"step_um": 50.0, "spots": Path("slide.png")}, "pass one of them"),
        ({"server": "localhost"}, "`server` 'localhost': HOST:PORT"),
        ({"regions": Path("no.geojson")}, "regions 'no.geojson' does not exist"),
        ({"tissue": Path("no.geojson")}, "outline of tissue 'no.geojson' does not exist"),
        ({"regions": Path("twice.txt")}, "regions 'twice.txt' is neither JSON nor XML"),
    ],
)
@pytest.mark.usefixtures("here")
def test_predictions_are_refused(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "slide": Path("slide.png"),
        "model": "run",
        "out": Path("p.h5ad"),
        "mpp": 1.0,
    }
    refuse(PredictRequest(**given))
    with pytest.raises(InputError, match=message):
        refuse(PredictRequest(**{**given, **options}))


@pytest.mark.usefixtures("here")
def test_exports_are_refused() -> None:
    refuse(ExportRequest("run", out="out", formats=["saved_model", "tflite"]))
    with pytest.raises(InputError, match="'empty' holds no model"):
        refuse(ExportRequest("empty", out="out", formats=["tflite"]))
    with pytest.raises(InputError, match="is a file"):
        refuse(ExportRequest("run", out="slide.png", formats=["tflite"]))
    for finished in ("saved_model/1/saved_model.pb", "tflite/a.tflite"):
        file = Path("exported", finished)
        file.parent.mkdir(parents=True)
        file.write_text("")
        with pytest.raises(InputError, match="exists already"):
            refuse(ExportRequest("run", out="exported", formats=[finished.split("/")[0]]))
    refuse(ExportRequest("run", out="exported", formats=["tflite"], force=True))


@pytest.mark.slow
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
        "predict slide.png --model run --out p.h5ad --mpp 1 --regions twice.txt",
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
    refuse_scale(Path("a.png"), COARSEST * wanted, wanted)
    refuse_scale(Path("a.png"), None, preset("paper").tiles.mpp)  # at every image's own scale
    with pytest.raises(InputError, match=r"a\.png: .*too coarse"):
        refuse_scale(Path("a.png"), COARSEST * wanted * 1.01, wanted)


def test_without_options_it_is_the_recommended_preset() -> None:
    assert FitRequest("data").settings == preset("recommended")


def test_options_replace_the_presets_values() -> None:
    found = FitRequest(
        "data", preset="paper", genes=7, seed=3, pretrain_epochs=2, epochs=4, batch_size=5
    ).settings
    assert (found.preset, found.target.genes, found.seed) == ("paper", 7, 3)
    assert (found.autoencoder.epochs, found.regressor.epochs) == (2, 4)
    assert found.regressor.batch_size == 5


@pytest.mark.parametrize("genes", [40, "40"])
def test_genes_may_be_a_number_or_a_file(genes: int | str) -> None:
    assert FitRequest("data", genes=genes).settings.target.genes == 40
    assert FitRequest("data", genes="panel.txt").settings.target.panel == "panel.txt"


def test_configuration_may_be_given_or_lie_in_a_file(tmp_path: Path) -> None:
    wanted = changed(preset("paper"), seed=9)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(wanted.to_json()))
    assert (
        FitRequest("data", config=wanted).settings
        == FitRequest("data", config=file).settings
        == wanted
    )
    with pytest.raises(InputError, match="exclude each other"):
        refuse(FitRequest("data", preset="paper", config=wanted))


def test_a_first_look_is_short() -> None:
    found = FitRequest(seed=2).settings
    assert (found.autoencoder.epochs, found.tiles.mpp, found.seed) == (1, 0.69, 2)


def test_epochs_of_a_head_without_any_are_said_to_have_no_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert FitRequest("data", epochs=3).settings.regressor.epochs == 3
    assert not capsys.readouterr().err  # the preset's descent has some
    solved = changed(preset("recommended"), regressor__solver="ridge")
    assert FitRequest("data", config=solved, epochs=3).settings.regressor.epochs == 3
    assert "`epochs` has no part" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("fit --out r", FitRequest(out="r")),
        ("evaluate d --out e", EvaluateRequest("d", "e")),
        ("predict a.svs b.svs --out p", PredictSlidesRequest(["a.svs", "b.svs"], out="p")),
        ("convert p.h5ad", ConvertRequest("p.h5ad")),
        ("view p.h5ad", ViewRequest("p.h5ad")),
        ("export run --out e", ExportRequest("run", out="e")),
        ("features d --out f", FeaturesRequest("d", out="f")),
        ("check d", CheckRequest("d")),
        ("normalize d --out n", NormalizeRequest("d", out="n")),
        ("simulate --out s", SimulateRequest(out="s")),
    ],
)
def test_a_command_without_options_asks_for_the_defaults(line: str, request_: Any) -> None:
    name, *arguments = line.split()
    given = main.commands[name].make_context(name, arguments).params
    assert type(request_)(**options.values(type(request_), given)) == request_


def test_a_resumed_run_has_the_data_the_labels_and_the_folds_in_common() -> None:
    begun = EvaluateRequest("d", "o", labels="layer").resumed()
    for change in (
        {"labels": "region"},
        {"split": "section"},
        {"compare": ["global"]},
        {"features": {"uni": "other"}},
    ):
        other = EvaluateRequest("d", "o", **{"labels": "layer", **change})  # type: ignore[arg-type]
        assert [name for name in begun if other.resumed()[name] != begun[name]] == list(change)
    later = EvaluateRequest("d", "o", labels="layer", clusters=3, resume=True).resumed()
    assert later == begun


def test_requests_can_be_pickled() -> None:
    asked = EvaluateRequest("d", "o", genes="7", predictions={"theirs": "a.h5ad"}, config=CONFIG)
    assert asked.settings.target.genes == 7
    assert pickle.loads(pickle.dumps(asked)) == asked


def test_a_record_is_ready_for_json() -> None:
    asked = EvaluateRequest("d", Path("o"), compare=["paper"], predictions={"theirs": "a.h5ad"})
    found = json.loads(json.dumps(asked.record()))
    assert found["data"] == "d"
    assert found["compare"] == ["paper"]
    assert found["predictions"] == {"theirs": "a.h5ad"}
    assert found["with_complexities"] is True
    assert set(found) == {option.name for option in EvaluateRequest.listed()}


def test_python_says_arguments_and_the_command_line_flags() -> None:
    with pytest.raises(InputError) as error:
        refuse(FitRequest(hold_out=["A"], no_hold_out=True))
    assert str(error.value) == "`hold_out` and `no_hold_out` exclude each other"
    told = requests.with_flags(f"{error.value} `nothing` `data`")
    assert told == "--hold-out and --no-hold-out exclude each other `nothing` DATA"
    with pytest.raises(InputError) as error:
        FitRequest(resume=True)
    assert str(error.value) == "`resume` needs `out=RUN`, the run to go on with"
    told = requests.with_flags(str(error.value))
    assert told == "--resume needs --out RUN, the run to go on with"


def test_help_of_python_functions_names_every_option() -> None:
    for function, kind in (
        (histospace_tf.fit, FitRequest),
        (histospace_tf.evaluate, EvaluateRequest),
        (histospace_tf.predict, PredictRequest),
        (histospace_tf.predict_slides, PredictSlidesRequest),
    ):
        names = [option.name for option in kind.listed()]
        assert list(inspect.signature(function).parameters) == names
        for name in names:
            assert f"\n        {name}: " in str(function.__doc__)
        assert max(map(len, str(function.__doc__).splitlines())) <= 100


def test_a_new_field_is_an_option_everywhere() -> None:
    class Asked(Options):
        data: OnePath = option(help="What is asked about.", flag="DATA", kw_only=False)
        width_um: float | None = option(
            default=None, help="Width of `data`.", unset="all of it", unit="um", resumed=unchanged
        )

    asked: list[Any] = []
    command = click.command()(options.asks(Asked)(asked.append))
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "--width-um FLOAT  Width of DATA. [default: all of it]" in shown
    CliRunner().invoke(command, ["her2st", "--width-um", "3"])

    @api.of_options(Asked)
    def width(request: Asked) -> float | None:
        """Says how wide.

        Returns:
            The width.
        """
        asked.append(request)
        return request.width_um

    assert width("her2st", width_um=3) == 3
    assert asked[0] == asked[1] == Asked(Path("her2st"), width_um=3.0)
    assert "width_um: Width of `data`. In um. None: all of it.\n    Returns:" in str(width.__doc__)
    assert asked[0].resumed() == {"width_um": 3.0}
    assert asked[0].record() == {"data": "her2st", "width_um": 3.0}


def test_what_fit_simulates_is_what_simulate_makes() -> None:
    assert SimulateRequest(out="s").patients == simulation.DEFAULT_PATIENTS

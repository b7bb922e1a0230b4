"""The command line: every command runs, and mistakes end in one line without a traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import histospace_tf
from histospace_tf.cli import main
from histospace_tf.commands.session import user_errors

TOP = Path(__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", [[], *[[name] for name in sorted(main.commands)]])
def test_help_has_an_example_and_no_internal_words(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    if command:
        assert f"histospace-tf {command[0]}" in result.output.split("Example:")[1]


def test_version() -> None:
    said = run("--version").output
    assert said.startswith(f"histospace-tf {histospace_tf.__version__} (tensorflow 2.")
    for file in ("CITATION.cff", "CHANGELOG.md"):
        assert histospace_tf.__version__ in (TOP / file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_simulate_then_check(tmp_path: Path) -> None:
    options = ["--patients", "2", "--seed", "3", "--same-levels"]
    made = run("simulate", "--out", tmp_path / "tissue", *options)
    assert made.exit_code == 0, made.output
    assert json.loads((tmp_path / "tissue" / "truth.json").read_text())["same_levels"] is True
    assert "histospace-tf fit" in made.output
    report = run("check", tmp_path / "tissue", "--json")
    values = json.loads(report.output[report.output.index("{") :])
    assert report.exit_code in (0, 1)
    assert len(values["sections"]) == 2
    again = run("simulate", "--out", tmp_path / "tissue")
    assert again.exit_code == 2
    assert "--force" in again.output


def test_predict_and_export_from_a_run(small_run: Path, small_tissue: Path, tmp_path: Path) -> None:
    (image,) = (small_tissue / "ST-imgs" / "A").glob("*/*.jpg")
    gene = json.loads((small_run / "manifest.json").read_text())["panel"][0]
    done = run(
        *("predict", image, "--model", small_run, "--out", tmp_path / "a.h5ad", "--mpp", "0.69"),
        *("--step-um", "100", "--show", gene, "--maps", tmp_path / "maps"),
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.h5ad").is_file()
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [f"{gene}.png"]
    exported = run("export", small_run, "--out", tmp_path / "exported", "--format", "tflite")
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "exported" / "tflite" / "histospace_float32.tflite").is_file()
    assert not (tmp_path / "exported" / "saved_model").exists()
    assert (tmp_path / "exported" / "tflite" / "export_report.json").is_file()
    assert "change of r" in exported.output
    assert "1 thread" in exported.output


def test_model_excludes_what_only_a_training_uses() -> None:
    result = run("evaluate", "d", "--out", "x", "--model", "r", "--split", "patient", "--seed", "1")
    assert "--split, --seed" in result.output


def test_report_is_rendered_again(small_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(small_run, copy)
    (copy / "report.html").unlink()
    gene = json.loads((copy / "manifest.json").read_text())["panel"][0]
    done = run("report", copy, "--genes", gene)
    assert done.exit_code == 0, done.output
    assert gene in (copy / "report.html").read_text(encoding="utf-8")


def test_evaluate_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from histospace_tf import evaluation
    from histospace_tf.requests import EvaluateRequest, refusals

    asked = []

    class Result:
        def summary(self) -> str:
            return "the tables"

    def evaluate(request: EvaluateRequest) -> Result:
        asked.append(request)
        return Result()

    monkeypatch.setattr(refusals, "refuse", lambda _: None)  # nothing is there
    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    done = run(
        *("evaluate", tmp_path, "--out", tmp_path / "x", "--split", "section", "--clusters", "3"),
        *("--architecture", "flatten", "--genes", "7", "--compare", "context", "--compare"),
        *("global", "--no-complexities", "--predictions", "theirs=a.h5ad", "--resume"),
        *("--image", "he.svs", "--mpp", "0.5", "--pretrain-mpp", "0.42"),
    )
    assert "the tables" in done.output
    (request,) = asked
    assert request == EvaluateRequest(
        tmp_path,
        tmp_path / "x",
        split="section",
        clusters=3,
        architecture="flatten",
        genes=7,
        compare=("context", "global"),
        with_complexities=False,
        predictions={"theirs": Path("a.h5ad")},
        image=Path("he.svs"),
        mpp=0.5,
        pretrain_mpp=0.42,
        resume=True,
    )
    settings = request.settings
    assert settings.regressor.architecture == "flatten"
    assert settings.regressor.hidden_width == 256  # the paper's, where the preset has none
    assert settings.target.genes == 7
    assert settings.autoencoder.images_mpp == 0.42


def test_normalize_writes_images_and_the_panel(test_data: Path, tmp_path: Path) -> None:
    done = run("normalize", test_data / "stain" / "source.png", "--out", tmp_path / "n")
    assert done.exit_code == 0, done.output
    assert {"source.png", "stain_panel.png"} <= {p.name for p in (tmp_path / "n").iterdir()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "nowhere"],
        ["fit", "nowhere", "--config", "nowhere.json"],
        ["fit", "nowhere", "--preset", "paper", "--config", "nowhere.json"],
        ["fit", "nowhere", "--epochs", "0"],
        ["fit", "--resume"],
        ["evaluate", "nowhere", "--out", "x"],
        ["evaluate", "nowhere", "--out", "x", "--clusters", "1"],
        ["evaluate", "nowhere", "--out", "x", "--predictions", "theirs.h5ad"],
        ["evaluate", "nowhere", "--out", "x", "--predictions", "a=b", "--predictions", "a=c"],
        ["evaluate", "nowhere", "--out", "x", "--preset", "paper", "--config", "nowhere.json"],
        ["evaluate", "nowhere", "--out", "x", "--model", "nowhere"],
        ["evaluate", "nowhere", "--out", "x", "--model", "nowhere", "--split", "patient"],
        ["report", "nowhere"],
        ["predict", "nowhere.svs", "--model", "nowhere", "--out", "x.h5ad"],
        ["export", "nowhere", "--out", "x"],
        ["check", "nowhere"],
        ["fit", "--image", "nowhere.svs", "--out", "x"],
        ["normalize", "nowhere", "--out", "x"],
        ["simulate", "--out", "x", "--patients", "1"],
        ["simulate", "--out", "x", "--patients", "27"],
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_check_draws_no_bar_where_there_is_no_terminal(tmp_path: Path) -> None:
    result = run("check", tmp_path / "nowhere")
    assert result.output.startswith("Error: ")
    assert "\r" not in result.output


def test_a_typo_in_a_setting_names_its_neighbour(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"regressor": {"learning_rte": 0.1}}')
    result = run("fit", tmp_path, "--config", file)
    assert 'did you mean "learning_rate"?' in result.output


def test_unknown_rival_is_told_every_form_that_works(tmp_path: Path) -> None:
    result = run("evaluate", tmp_path, "--out", tmp_path / "o", "--compare", "stnet")
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "'stnet' is not one of" in said
    assert "'hist2st', and not probe:ENCODER." in said


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(27, "File too large"),
        OSError("614400 requested and 155520 written"),  # NumPy
        RuntimeError("parent/x.data; No space left on device [Op:SaveV2]"),  # TensorFlow
    ],
)
def test_full_disk_ends_in_one_line_that_names_the_output(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histospace_tf.data_pipelines import simulation

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(simulation, "simulate", full)
    result = run("simulate", "--out", tmp_path / "tissue")
    assert result.exit_code == 3
    assert "the disk is full" in result.output
    assert str(tmp_path / "tissue") in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("a bug\nin two lines"), "ZeroDivisionError: a bug (data.py, line"),
        (RecursionError("too deep"), "a fault of histospace-tf"),
        (KeyError("gene"), "KeyError: 'gene'"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("OOM when allocating tensor"), "not enough memory"),
        (PermissionError(13, "Permission denied", "a/b"), "'a/b': Permission denied"),
    ],
)
def test_a_fault_ends_in_one_line_and_debug_shows_the_trace(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histospace_tf.data_pipelines import simulation

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(simulation, "simulate", broken)
    monkeypatch.delenv("HISTOSPACE_DEBUG", raising=False)
    plain = run("simulate", "--out", tmp_path / "x")
    assert plain.exit_code == 3
    (line,) = plain.output.splitlines()
    assert line.startswith("Error: ")
    assert said in line
    for arguments in (["--debug", "simulate"], ["simulate", "--debug"]):
        traced = run(*arguments, "--out", tmp_path / "x")
        assert traced.exit_code == 3
        assert traced.output.startswith("Traceback")
        assert "in broken" in traced.output
        assert traced.output.splitlines()[-1] == line
    monkeypatch.setenv("HISTOSPACE_DEBUG", "1")
    assert "Traceback" in run("simulate", "--out", tmp_path / "x").output
    monkeypatch.setenv("HISTOSPACE_DEBUG", "0")
    assert "Traceback" not in run("simulate", "--out", tmp_path / "x").output


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "histospace_tf", "models", "breast-her2st"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("argument", [["nothing"], ["check"], ["check", "x", "--mpp", "y"]])
def test_a_command_line_that_is_none_ends_with_2(argument: list[str]) -> None:
    assert run(*argument).exit_code == 2


def test_interrupt_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from histospace_tf.data_pipelines import simulation

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "simulate", stopped)
    result = run("simulate", "--out", tmp_path / "x")
    assert result.exit_code == 130
    assert "Interrupted" in result.output


@pytest.mark.parametrize("before", [None, "an older one"])
def test_interrupt_after_the_table_is_written_says_that_it_is_there(
    before: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, draft = tmp_path / "p.h5ad", tmp_path / "draft"
    if before is not None:
        out.write_text(before)
    draft.write_text("finished")

    def stopped(*, written: bool) -> None:
        with user_errors(out=out):
            if written:
                draft.replace(out)
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        stopped(written=True)
    assert f"{out} is finished" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stopped(written=False)
    assert "no finished output was written" in capsys.readouterr().err


def test_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "histospace_tf", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert histospace_tf.__version__ in done.stdout


def test_a_stopped_job_ends_like_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main.callback is not None
        main.callback(debug=False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

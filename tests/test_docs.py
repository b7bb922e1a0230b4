"""The pages in docs/: Python blocks run on small made data, command lines are parsed by click.

Blocks of a page run one after another in one namespace, in a folder that holds

    her2st/, other_her2st/   small simulated tissue      slide.jpg    an image of it, 0.69 um/px
    run/                     a small finished run        slide.h5ad
    slide.parquet, slide.zarr, heat/                     written from slide.h5ad
    outs/                    a small made run of Space Ranger
    predicted.h5ad           a prediction at some of its spots
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import matplotlib
import numpy as np
import pytest

from histospace_tf import outputs, presets
from histospace_tf.cli import main
from histospace_tf.config import Config
from histospace_tf.slide_prediction import OutputFiles, written_files
from made import visium as made_visium
from made.predictions import prediction, with_trust

matplotlib.use("Agg")
DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, *kinds: str) -> list[str]:
    """A page's fenced blocks of these kinds."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [found["text"] for found in BLOCK.finditer(text) if found["kind"] in kinds]


def commands(page: str) -> list[list[str]]:
    """A page's command lines, split; a line that ends in a backslash goes on."""
    text = "\n".join(blocks(page, "console", "bash", "")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("histospace-tf ")]


COMMANDS = [(page, line) for page in PAGES for line in commands(page)]
# Those of serving.md need a server: tests/test_serving_client.py runs them beside one.
WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page != "serving.md"]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: str(value)[:60])
def test_command_line_is_one_that_click_takes(page: str, line: list[str]) -> None:
    command = main.commands[line[1]]
    try:
        command.make_context(line[1], list(line[2:])).close()
    except click.ClickException as error:
        raise AssertionError(f"{page}: {shlex.join(line)}: {error.message}") from None


@pytest.fixture
def desk(
    tmp_path: Path,
    small_tissue: Path,
    small_run: Path,
    small_config: Config,
    unpublished: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder that blocks run in; the recommended preset is cut down to seconds."""
    shutil.copytree(small_tissue, tmp_path / "her2st")
    shutil.copytree(small_tissue, tmp_path / "other_her2st")
    (image,) = (small_tissue / "ST-imgs" / "B").glob("*/*.jpg")
    shutil.copy(image, tmp_path / "slide.jpg")
    table = with_trust(prediction())
    outputs.write_h5ad(table, tmp_path / "slide.h5ad")
    files = OutputFiles(
        show=("all",),
        heatmaps=tmp_path / "heat",
        table=tmp_path / "slide.parquet",
        spatialdata=tmp_path / "slide.zarr",
    )
    written_files.write_all(table, files)
    picture = np.random.default_rng(3).integers(90, 180, (600, 600, 3), dtype=np.uint8)
    made_visium.write_run(tmp_path / "outs", picture)
    at_spots = with_trust(prediction())
    at_spots.obs_names = list(made_visium.made_spots(picture)["barcode"][: at_spots.n_obs])
    outputs.write_h5ad(at_spots, tmp_path / "predicted.h5ad")
    shutil.copytree(small_run, tmp_path / "run")
    monkeypatch.setitem(presets.PRESETS, "recommended", small_config)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_blocks_run(page: str, desk: Path, small_run: Path) -> None:
    written = blocks(page, "python")
    if any(".fit(" in block for block in written):
        shutil.rmtree(desk / "run")  # the page makes its own
    namespace: dict[str, object] = {}
    for number, block in enumerate(written):
        exec(compile(block, f"{page}, block {number + 1}", "exec"), namespace)
        if ".fit(" in block:  # what export leaves, which stands still here
            shutil.copy(small_run / "parity_tiles.npz", desk / "run")


def test_blocks_are_found() -> None:
    tasks = ("own-data", "visium", "whole-slides", "evaluation", "device", "serving", "scale")
    assert {f"{task}.md" for task in (*tasks, "python", "formats")} <= set(PAGES)
    assert len(COMMANDS) > 5
    assert "python.md" in WITH_PYTHON

"""The Python API: equal to the commands, light to import, refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import api, presets
from histospace_tf import config as configuration
from histospace_tf.cli import main
from histospace_tf.requests import refusals
from histospace_tf.vocabulary import InputError

MPP = 0.69


def command(*arguments: object) -> None:
    """Runs a command, which has to end well."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


class Recorded:
    """Stands for a verb: keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, request: object) -> Recorded:
        self.calls.append(request)
        return self

    def summary(self) -> str:
        return "done"

    @property
    def table(self) -> Recorded:
        return self


def nothing_is_wrong(*_: object, **__: object) -> None:
    """Stands for a check: the paths here exist nowhere."""


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, histospace_tf; assert histospace_tf.fit; heavy = {'tensorflow', 'keras', "
        "'numpy', 'pandas', 'anndata', 'click'} & set(sys.modules); print(sorted(heavy))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"


def test_fit_calls_what_its_command_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from histospace_tf import fitting

    verb = Recorded()
    monkeypatch.setattr(refusals, "refuse", nothing_is_wrong)
    monkeypatch.setattr(fitting, "fit", verb)
    command(
        *("fit", "her2st", "--out", "run", "--hold-out", "B", "--hold-out", "C", "--genes", "500"),
        *("--seed", "1", "--preset", "paper", "--pretrain", "he", "--pretrain-epochs", "2"),
        *("--epochs", "3", "--batch-size", "8", "--strategy", "single", "--layout", "her2st"),
        *("--architecture", "global", "--force"),
    )
    histospace_tf.fit(
        "her2st",
        Path("run"),
        hold_out=("B", "C"),
        genes=500,
        seed=1,
        preset="paper",
        pretrain="he",
        pretrain_epochs=2,
        epochs=3,
        batch_size=8,
        strategy="single",
        layout="her2st",
        architecture="global",
        force=True,
    )
    assert verb.calls[0] == verb.calls[1]
    panel = tmp_path / "panel.txt"
    panel.write_text("ERBB2\n")
    command(
        *("fit", "--genes", panel, "--encoder", "donor", "--no-hold-out", "--out", "run"),
        *("--evaluation", "by_patient", "--evaluation", "by_section"),
    )
    histospace_tf.fit(
        genes=panel,
        encoder="donor",
        no_hold_out=True,
        evaluations=["by_patient", "by_section"],
        out="run",
    )
    assert verb.calls[2] == verb.calls[3]


def test_evaluate_calls_what_its_command_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histospace_tf import evaluation, scoring

    verb = Recorded()
    monkeypatch.setattr(refusals, "refuse", nothing_is_wrong)
    monkeypatch.setattr(evaluation, "evaluate", verb)
    monkeypatch.setattr(scoring, "score", verb)
    settings = configuration.changed(presets.preset("recommended"), seed=5)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings.to_json()))
    command(
        *("evaluate", "d", "--out", "o", "--split", "section", "--config", file, "--compare"),
        *("paper", "--clusters", "3", "--no-complexities", "--predictions", "theirs=a.h5ad"),
    )
    for config in (settings, str(file)):
        histospace_tf.evaluate(
            "d",
            "o",
            split="section",
            config=config,
            compare=("paper",),
            clusters=3,
            with_complexities=False,
            predictions={"theirs": "a.h5ad"},
        )
        # A configuration may be given itself, or as a file.
        assert verb.calls[0].settings == verb.calls[-1].settings
        same = dataclasses.replace(verb.calls[-1], config=verb.calls[0].config)
        assert verb.calls[0] == same
    run = tmp_path / "run"
    run.mkdir()
    command("evaluate", "d", "--out", "o", "--model", run, "--clusters", "3", "--force")
    histospace_tf.evaluate("d", "o", model=run, clusters=3, force=True)
    assert verb.calls[-2] == verb.calls[-1]


def test_predict_gives_what_its_command_writes(
    small_run: Path, small_tissue: Path, tmp_path: Path
) -> None:
    (image,) = (small_tissue / "ST-imgs" / "B").glob("*/*.jpg")
    out = tmp_path / "a.h5ad"
    command("predict", image, "--model", small_run, "--out", out, "--mpp", MPP)
    written = anndata.read_h5ad(out)
    table = histospace_tf.predict(
        str(image), model=str(small_run), mpp=MPP, table=tmp_path / "b.csv"
    )
    np.testing.assert_array_equal(np.asarray(table.X), np.asarray(written.X))
    np.testing.assert_array_equal(table.obsm["spatial"], written.obsm["spatial"])
    assert list(table.var_names) == list(written.var_names)
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5ad", "b.csv", "b.genes.csv"}


def test_predict_calls_what_its_command_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histospace_tf import predicting

    verb = Recorded()
    monkeypatch.setattr(refusals, "refuse", nothing_is_wrong)
    monkeypatch.setattr(predicting, "predict", verb)
    command(
        *("predict", "slide.svs", "--model", tmp_path, "--out", "a.h5ad", "--spots", "spots.csv"),
        *("--mpp", "0.5", "--step-um", "50", "--show", "ERBB2, GNAS", "--maps", "maps"),
        *("--heatmaps", "heat", "--geojson", "a.json", "--table", "a.csv", "--spatialdata"),
        *("a.zarr", "--force"),
    )
    histospace_tf.predict(
        "slide.svs",
        model=tmp_path,
        out="a.h5ad",
        spots="spots.csv",
        mpp=0.5,
        step_um=50,
        show=["ERBB2", "GNAS"],
        maps="maps",
        heatmaps="heat",
        geojson="a.json",
        table="a.csv",
        spatialdata="a.zarr",
        force=True,
    )
    assert verb.calls[0] == verb.calls[1]


def test_runs_predictions_carry_their_sections_picture(small_run: Path) -> None:
    held = anndata.read_h5ad(small_run / "predictions.h5ad")
    assert list(held.uns["spatial"]) == ["B1"]
    assert max(held.uns["spatial"]["B1"]["images"]["hires"].shape) <= 600


def test_loaded_model_predicts_tiles_as_the_exported_one(small_run: Path) -> None:
    import tensorflow as tf

    model = histospace_tf.load(str(small_run))
    with np.load(small_run / "parity_tiles.npz") as kept:
        tiles = kept["tile"]
    assert tiles.shape[1:] == (model.tile_px, model.tile_px, 3)
    found = model.predict_tiles(tiles, stain_normalised=True)
    exported = tf.saved_model.load(str(small_run / "saved_model" / "1"))
    expected = exported.signatures["serving_default"](tile=tf.constant(tiles))["expression"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert found.dtype == np.float32
    assert found.shape == (len(tiles), len(model.genes))
    assert (model.unit, model.mpp) == ("ln(1 + counts per 10,000)", 1.38)


def test_raw_tiles_are_recoloured_from_their_slides_stains(
    small_run: Path, small_tissue: Path
) -> None:
    from histospace_tf.cohort import preparing
    from histospace_tf.data_pipelines import recolouring, slides
    from histospace_tf.data_pipelines import tiles as tiling

    model = histospace_tf.load(small_run)
    (image,) = (small_tissue / "ST-imgs" / "B").glob("*/*.jpg")
    with slides.open_slide(image, mpp=MPP) as slide:
        stains = preparing.slide_stains(slide, model.bundle.config)
        cut: dict[str, object] = {"tile_px": model.tile_px, "mpp": model.mpp}
        centres = tiling.grid_centres(slide, min_tissue=0.5, **cut)[:3]  # type: ignore[arg-type]
        raw, _ = tiling.cut_tiles(slide, centres, border="reflect", **cut)  # type: ignore[arg-type]
    normalised = recolouring.normalise(raw, stains, model.bundle.reference)
    np.testing.assert_array_equal(
        model.predict_tiles(raw, stains=stains),
        model.predict_tiles(normalised, stain_normalised=True),
    )
    own = model.predict_tiles(raw)
    assert own.shape == (3, len(model.genes))
    assert np.isfinite(own).all()
    assert model.predict_tiles(raw[:0]).shape == (0, len(model.genes))
    with pytest.raises(InputError, match="need no stains"):
        model.predict_tiles(raw, stains=stains, stain_normalised=True)
    with pytest.raises(InputError, match=r"float32 .*takes uint8 \(n, 64, 64, 3\)"):
        model.predict_tiles(raw.astype(np.float32))


def test_mistakes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        histospace_tf.fit(tmp_path, preset="paper", config=tmp_path / "c.json")
    with pytest.raises(InputError, match="`resume` needs `out=RUN`"):
        histospace_tf.fit(tmp_path, resume=True)
    with pytest.raises(InputError, match="leave out `split`, `seed`"):
        histospace_tf.evaluate(tmp_path, "o", model="r", split="patient", seed=0)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="no preset 'papr'"):
        histospace_tf.evaluate(tmp_path, "o", preset="papr")
    with pytest.raises(InputError, match="holds no model"):
        histospace_tf.load(tmp_path)
    with pytest.raises(InputError, match="holds no model"):
        histospace_tf.predict("slide.svs", model=tmp_path)
    with pytest.raises(InputError, match="'nowhere' does not exist"):
        histospace_tf.fit("nowhere", tmp_path / "out")


@pytest.mark.parametrize("loaded", [True, False])
def test_settings_that_come_too_late_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    name = "TF_ENABLE_ONEDNN_OPTS"
    monkeypatch.setenv(name, "0")  # so that it is put back
    monkeypatch.delenv(name)
    if loaded:
        monkeypatch.setitem(sys.modules, "tensorflow", object())
    else:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    api.prepare_tensorflow()
    assert os.environ.get(name) == (None if loaded else "1")

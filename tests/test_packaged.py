"""The packaged models: what is there, what is said of it, and how it is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import bundle, packaged
from histospace_tf.cli import main
from histospace_tf.predictors import registry
from histospace_tf.reports import packaged_models
from histospace_tf.scores import gene_table
from histospace_tf.vocabulary import InputError
from made.exports import tflite_metadata

pytestmark = pytest.mark.slow

ALL = [pytest.param(name, id=name) for name in packaged.names()]


def folder_of(name: str) -> Path:
    return packaged.FOLDER / name


def test_the_default_is_there_and_all_models_together_are_small() -> None:
    assert packaged.DEFAULT in packaged.names()
    size = sum(model.bytes for model in packaged_models.models())
    assert size == sum(p.stat().st_size for p in packaged.FOLDER.rglob("*") if p.is_file())
    assert size < 2_000_000  # the wheel, gene names included, stays below 3 MB


@pytest.mark.parametrize("name", ALL)
def test_files_of_a_model_agree_with_each_other(name: str) -> None:
    folder = folder_of(name)
    model = bundle.load(folder)
    (described,) = (one for one in packaged_models.models() if one.name == name)
    assert described.genes == len(model.panel)
    assert described.unit == bundle.unit(model.panel)
    assert described.parameters == model.n_parameters
    trust = gene_table.trust_of(model.panel.genes, folder / "genes.csv")
    assert described.trust == trust["trust"].value_counts().to_dict()
    (tflite,) = folder.glob("tflite/*.tflite")
    values = tflite_metadata(tflite)
    assert values["genes"] == list(model.panel.genes)
    assert values["variant"] == "dynamic"


@pytest.mark.parametrize("name", ALL)
def test_trust_comes_from_patients_that_were_held_out(name: str) -> None:
    folder = folder_of(name)
    evaluations = json.loads((folder / "evaluations.json").read_text())
    assert next(iter(evaluations)) == "patient"
    assert evaluations["patient"]["split"]["patient_on_both_sides"] == []
    trained = bundle.load(folder).trained_on
    for scores in evaluations.values():
        assert set(scores["sections"]) == set(trained["sections"])


@pytest.mark.parametrize("name", ALL)
def test_card_gives_the_scores_of_both_heads_and_every_gene(name: str) -> None:
    folder = folder_of(name)
    card, evaluations = packaged.card(name), json.loads((folder / "evaluations.json").read_text())
    for scores in evaluations.values():
        for row in ("model", "model_single_tile", "gene_mean", "colour_ridge"):
            mean = scores["mean"][row]
            entry = registry.entry(row)
            assert entry is not None
            label = registry.label(row, note=entry.note)
            assert f"| {label} | {mean['gene_r']:.3f} |" in card
            assert f"| {mean['spot_r']:.3f} | {mean['mse']:.3f} |" in card
    genes = pd.read_csv(folder / "genes.csv", keep_default_na=False).set_index("gene")
    for gene, trust in genes["trust"].items():
        assert re.search(rf"^\| {re.escape(str(gene))} \| (-?\d\.\d+|-) \| {trust} \|", card, re.M)
    for needed in ("Not for diagnosis", "patients", "icence", "Andersson"):
        assert needed in card


@pytest.mark.parametrize("name", ALL)
def test_no_path_of_a_machine_is_in_a_model(name: str) -> None:
    for path in folder_of(name).rglob("*"):
        if path.suffix in (".json", ".md", ".csv"):
            assert not re.search(r"(?<![\w.])/\w+/", path.read_text()), path  # absolute ones


def test_a_path_a_name_and_nothing_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    default = folder_of(packaged.DEFAULT)
    assert packaged.run_folder(tmp_path) == tmp_path
    assert packaged.run_folder(packaged.DEFAULT) == default
    assert packaged.name_of(default) == packaged.DEFAULT
    assert packaged.name_of(tmp_path) == str(tmp_path)
    assert capsys.readouterr().err == ""
    assert packaged.run_folder(None) == default
    assert packaged.DEFAULT in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    (tmp_path / packaged.DEFAULT).mkdir()  # what the user made comes first
    assert packaged.run_folder(packaged.DEFAULT) == Path(packaged.DEFAULT)


def test_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=packaged.DEFAULT):
        packaged.run_folder("no_such_model")
    with pytest.raises(InputError, match=packaged.DEFAULT):
        packaged.card("../secret")
    done = CliRunner().invoke(main, ["predict", "x.svs", "--model", "nope", "--out", "x.h5ad"])
    assert done.exit_code == 2
    assert packaged.DEFAULT in done.output


def test_models_command_lists_prints_json_and_cards() -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["models", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    listed = run()
    (first,) = (model for model in packaged_models.models() if model.name == packaged.DEFAULT)
    for row in ("model", "model_single_tile", "gene_mean"):
        assert f"{first.scores['patient'][row]['gene_r']:.3f}" in listed
    assert "research only" in listed
    values = json.loads(run("--json"))
    assert [value["name"] for value in values] == packaged.names()
    assert run(packaged.DEFAULT) == packaged.card(packaged.DEFAULT)
    assert [value["name"] for value in json.loads(run(packaged.DEFAULT, "--json"))] == [
        packaged.DEFAULT
    ]


def test_a_slide_is_predicted_without_a_model_of_ones_own(test_data: Path, tmp_path: Path) -> None:
    slide, out = test_data / "slides" / "CMU-1-Small-Region.svs", tmp_path / "x.h5ad"
    done = CliRunner().invoke(main, ["predict", str(slide), "--out", str(out), "--fast"])
    assert done.exit_code == 0, done.output
    assert packaged.DEFAULT in done.output
    table = anndata.read_h5ad(out)
    assert table.uns["histospace_tf"]["model"] == packaged.DEFAULT
    assert np.isfinite(table.X).all()
    assert set(table.var["trust"]) <= set(gene_table.TRUST)
    assert (table.var["trust"] == "yes").sum() > 10


def test_python_loads_a_packaged_model_by_name() -> None:
    model = histospace_tf.load(packaged.DEFAULT)
    assert model.run == folder_of(packaged.DEFAULT)
    assert model.predict_tiles(np.full((1, model.tile_px, model.tile_px, 3), 200, np.uint8)).shape

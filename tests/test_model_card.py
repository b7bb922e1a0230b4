"""The model card of a run says what the run's own files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from histospace_tf import bundle
from histospace_tf.reports import model_card
from histospace_tf.scores import gene_table


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_fit_writes_a_card_with_its_scores_and_what_is_simulated(small_run: Path) -> None:
    card = (small_run / model_card.FILE).read_text()
    scores = json.loads((small_run / "scores.json").read_text())
    model = bundle.load(small_run)
    assert card.startswith("# run\n")
    assert "simulated" in card
    assert "Andersson" not in card  # its layout, not its tissue
    for row in ("model", "model_single_tile", "gene_mean", "colour_ridge"):
        mean = scores["mean"][row]
        shown = f"| {mean['gene_r']:.3f} | {mean['gene_r']:.3f} | {mean['spot_r']:.3f} |"
        assert shown in card  # mean, its only section, r per spot
    trust = gene_table.trust_of(model.panel.genes, small_run / "genes.csv")["trust"]
    for gene in model.panel.genes:
        assert f"| {gene} | " in card
    assert f"yes {(trust == 'yes').sum()}" in card
    for name in model.trained_on["sections"]:
        assert name in card
    assert f"{model.n_parameters:,} parameters" in card


def test_sources_and_a_name_are_added(run: Path) -> None:
    model_card.write(run, name="a_name", sources=["Somebody 2020, CC BY 4.0."])
    card = (run / model_card.FILE).read_text()
    assert card.startswith("# a_name\n")
    assert "* Somebody 2020, CC BY 4.0." in card


def test_a_patient_on_both_sides_is_reported(run: Path) -> None:
    path = run / "scores.json"
    values = json.loads(path.read_text())
    values["split"]["patient_on_both_sides"] = ["Q"]
    path.write_text(json.dumps(values))
    model_card.write(run, name="x")
    assert "Patient Q is on both sides" in (run / model_card.FILE).read_text()


def test_a_model_without_scores_says_so(run: Path) -> None:
    values = json.loads((run / "scores.json").read_text())
    (run / "scores.json").write_text(json.dumps(values | {"sections": {}}))
    (run / "genes.csv").unlink()
    model_card.write(run, name="x")
    card = (run / model_card.FILE).read_text()
    assert model_card.held_out_scores(run) == {}
    assert "nothing was held out" in card
    assert "Held-out r is not known" in card

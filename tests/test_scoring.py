"""Rows of the score table: complete, honest about the gene mean, and readable."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from made_tissue import GENES, panel, section

from histospace_tf import metrics, scoring
from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.vocabulary import InputError

PANEL = panel()
UNIT = {"normalisation": PANEL.normalisation, "target_sum": PANEL.target_sum}
SPLIT = {"outer": "patient", "inner": "patient", "held_out": ["C"]}


def training_side(*, patients: tuple[str, str] = ("A", "B")) -> scoring.TrainingSide:
    """Two sections of twelve spots."""
    rng = np.random.default_rng(3)
    parts = [section(f"{p}{i}", p, seed=i, spots_xy=(4, 3)) for i, p in enumerate(patients, 1)]
    measured = np.concatenate([expression.targets(part.spots, GENES, **UNIT) for part in parts])
    return scoring.TrainingSide(
        measured=measured,
        learned=PANEL.standardise(measured),
        statistics=rng.normal(size=(24, 39)).astype(np.float32),
        patients=np.repeat(list(patients), 12),
        sections=np.repeat([part.name for part in parts], 12),
    )


def held_out(name: str = "C1", patient: str = "C", *, seed: int = 9) -> scoring.HeldOutSection:
    rng = np.random.default_rng(seed)
    spots = section(name, patient, seed=seed, spots_xy=(4, 4)).spots
    return scoring.HeldOutSection(
        name=name,
        patient=patient,
        spots=spots,
        spot_pitch_px=40.0,
        statistics=rng.normal(size=(len(spots), 39)).astype(np.float32),
        model=rng.normal(2, 1, (len(spots), len(GENES))).astype(np.float32),
        model_single_tile=rng.normal(2, 1, (len(spots), len(GENES))).astype(np.float32),
    )


def scores_of(*sections: scoring.HeldOutSection, train: scoring.TrainingSide | None = None) -> dict:
    entries = {
        held.name: scoring.score_section(held, train or training_side(), PANEL, seed=0)[0]
        for held in sections
    }
    return scoring.scores(entries, TargetConfig(), PANEL, SPLIT)


def test_every_row_has_every_score() -> None:
    entry, _ = scoring.score_section(held_out(), training_side(), PANEL, seed=0)
    assert (entry["patient"], entry["spots"]) == ("C", 16)
    assert tuple(entry["rows"]) == scoring.ROWS
    for name, row in entry["rows"].items():
        if name != "patient_mean":
            assert set(row) == set(metrics.ROW_KEYS), name
    for name in ("model", "model_single_tile", "gene_mean", "colour_ridge", "neighbour_oracle"):
        assert None not in entry["rows"][name].values(), name


def test_the_models_row_is_that_of_its_predictions() -> None:
    held = held_out()
    entry, genes = scoring.score_section(held, training_side(), PANEL, seed=0)
    measured = expression.targets(held.spots, GENES, **UNIT)
    r = [np.corrcoef(p, m)[0, 1] for p, m in zip(held.model.T, measured.T, strict=True)]
    # float32 predictions against float64 sums
    assert entry["rows"]["model"]["gene_r"] == pytest.approx(np.mean(r), abs=1e-6)
    np.testing.assert_allclose(genes["model"], r, atol=1e-6)
    assert list(genes["gene"]) == list(GENES)
    assert set(genes["section"]) == {"C1"}
    assert set(genes) == {"gene", "section", *scoring.ROWS[:-1]}


def test_baselines_know_the_training_side_alone() -> None:
    held, other = held_out(seed=9), held_out(seed=10)
    other = dataclasses.replace(other, model=held.model, statistics=held.statistics)
    one, another = (
        scoring.score_section(h, training_side(), PANEL, seed=0)[0]["rows"] for h in (held, other)
    )
    # Same pixels and predictions, other expression: constants differ by their distance to it.
    measured = expression.targets(held.spots, GENES, **UNIT)
    mean = training_side().measured.mean(axis=0)
    assert one["gene_mean"]["mse"] == pytest.approx(((measured - mean) ** 2).mean(), rel=1e-5)
    assert one["gene_mean"]["gene_r"] == another["gene_mean"]["gene_r"] == 0
    assert one["model"]["mse"] != another["model"]["mse"]


def test_patient_mean_is_null_for_a_new_patient_and_scored_for_a_known_one() -> None:
    new, _ = scoring.score_section(held_out(), training_side(), PANEL, seed=0)
    assert new["rows"]["patient_mean"] is None
    train = training_side(patients=("A", "C"))
    known, genes = scoring.score_section(held_out(), train, PANEL, seed=0)
    mean = train.measured[train.patients == "C"].mean(axis=0)
    measured = expression.targets(held_out().spots, GENES, **UNIT)
    assert known["rows"]["patient_mean"]["mae"] == pytest.approx(
        np.abs(measured - mean).mean(), rel=1e-5
    )
    assert list(genes["patient_mean"]) == [0] * len(GENES)


def test_a_gene_that_the_section_lacks_is_zero_there_and_left_out() -> None:
    held = held_out()
    spots = dataclasses.replace(held.spots, counts=held.spots.counts[:, :3], genes=GENES[:3])
    entry, genes = scoring.score_section(
        dataclasses.replace(held, spots=spots), training_side(), PANEL, seed=0
    )
    assert entry["rows"]["model"]["constant_genes"] == 1
    assert np.isnan(genes.set_index("gene").loc[GENES[3], "model"])
    assert np.isfinite(entry["rows"]["model"]["gene_r"])


def test_scores_are_json_and_their_mean_is_over_sections() -> None:
    scores = scores_of(held_out("C1"), held_out("C2", seed=4))
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["target"] == {
        "normalisation": "library_size_log1p",
        "target_sum": 10_000,
        "genes": 4,
        "smooth_um": 0,
    }
    assert scores["split"] == SPLIT
    each = [entry["rows"]["model"]["gene_r"] for entry in scores["sections"].values()]
    assert scores["mean"]["model"]["gene_r"] == pytest.approx(np.mean(each))
    assert scores["mean"]["patient_mean"] is None


def test_scores_of_nothing_held_out_have_null_means() -> None:
    assert set(scoring.scores({}, TargetConfig(), PANEL, SPLIT)["mean"].values()) == {None}


def test_table_shows_both_correlations_and_the_gene_mean_beside_the_model() -> None:
    scores = scores_of(held_out("C1"), held_out("C2", seed=4))
    blocks = scoring.table(scores).strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == ["C1", "C2", "mean"]
    for block, rows in zip(
        blocks, [*(e["rows"] for e in scores["sections"].values()), scores["mean"]], strict=True
    ):
        heading, *lines = block.splitlines()
        columns = heading.split()[-5:]
        assert columns == ["gene_r", "median", "smooth", "spot_r", "mse"]
        cells = {line[:34].strip(): line[34:].split() for line in lines}
        for name in ("model", "gene_mean"):
            shown = dict(zip(columns, cells[name.replace("_", " ")], strict=True))
            for key in ("gene_r", "spot_r"):
                assert shown[key] == f"{rows[name][key]:.3f}"
        assert "patient mean" not in cells
        # Rows that read the held-out expression are marked.
        marked = {name for name in cells if name.endswith("*")}
        assert marked == {"neighbour oracle *", "resampling ceiling *"}
    assert scoring.FOOTNOTE.startswith("*")


def test_table_of_one_section_has_no_mean() -> None:
    text = scoring.table(scores_of(held_out()))
    assert "C1 (patient C, 16 spots)" in text
    assert "mean over sections" not in text


def test_prediction_table_has_names_layers_and_coordinates() -> None:
    held = held_out()
    measured = expression.targets(held.spots, GENES, **UNIT)
    table = scoring.prediction_table(held, measured, PANEL, "some unit")
    np.testing.assert_array_equal(table.X, held.model)
    np.testing.assert_array_equal(table.layers["measured"], measured)
    assert list(table.obs_names) == [f"C1_{spot}" for spot in held.spots.names]
    assert list(table.var_names) == list(GENES)
    assert set(table.var["unit"]) == {"some unit"}
    np.testing.assert_array_equal(table.obsm["spatial"], held.spots.centres_px)
    wanted = pd.DataFrame({"section": "C1", "patient": "C", "spot": list(held.spots.names)})
    assert table.obs.reset_index(drop=True).astype(str).equals(wanted)


def test_joined_tables_keep_every_spot_and_the_unit() -> None:
    tables = []
    for held in (held_out("C1"), held_out("C2", seed=4)):
        measured = expression.targets(held.spots, GENES, **UNIT)
        tables.append(scoring.prediction_table(held, measured, PANEL, "some unit"))
    whole = scoring.joined(tables)
    assert list(whole.obs_names) == [*tables[0].obs_names, *tables[1].obs_names]
    assert list(whole.var.columns) == ["unit"]  # r per gene is a section's own
    np.testing.assert_array_equal(whole.layers["measured"][16:], tables[1].layers["measured"])
    assert whole.obsm["spatial"].shape == (32, 2)


def test_predictions_that_do_not_fit_the_spots_are_refused() -> None:
    held = held_out()
    with pytest.raises(InputError):
        scoring.score_section(
            dataclasses.replace(held, model=held.model[:-1]), training_side(), PANEL, seed=0
        )

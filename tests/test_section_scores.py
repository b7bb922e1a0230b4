"""Rows of the score table: complete, honest about the gene mean, and readable."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.predictors import registry, saved_baselines, section_scores
from histospace_tf.predictors.held_out import joined, table_of
from histospace_tf.reports import score_table
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError
from made.scoring import (
    PANEL,
    ROWS,
    SPLIT,
    UNIT,
    TrainingSide,
    entry_and_genes,
    held_out,
    predicted,
    scored,
    scores_of,
    training_side,
)
from made.tissue import GENES, section


def test_every_row_has_every_score() -> None:
    entry, _ = entry_and_genes(held_out(), training_side())
    assert (entry["patient"], entry["spots"]) == ("C", 16)
    assert tuple(entry["rows"]) == ROWS
    for name, row in entry["rows"].items():
        if name != "patient_mean":
            assert set(row) == set(metrics.SCORES), name
    for name in ("model", "model_single_tile", "gene_mean", "colour_ridge", "neighbour_oracle"):
        assert None not in entry["rows"][name].values(), name


def test_the_models_row_is_that_of_its_predictions() -> None:
    held = held_out()
    entry, genes = entry_and_genes(held, training_side())
    measured = expression.targets(held.spots, GENES, **UNIT)
    r = [np.corrcoef(p, m)[0, 1] for p, m in zip(held.model.T, measured.T, strict=True)]
    # float32 predictions against float64 sums
    assert entry["rows"]["model"]["gene_r"] == pytest.approx(np.mean(r), abs=1e-6)
    np.testing.assert_allclose(genes["model"], r, atol=1e-6)
    assert list(genes["gene"]) == list(GENES)
    assert set(genes["section"]) == {"C1"}
    assert set(genes) == {"gene", "section", *ROWS[:-1]}


def test_baselines_know_the_training_side_alone() -> None:
    held, other = held_out(seed=9), held_out(seed=10)
    other = dataclasses.replace(other, model=held.model, statistics=held.statistics)
    one, another = (entry_and_genes(h, training_side())[0]["rows"] for h in (held, other))
    # Same pixels and predictions, other expression: constants differ by their distance to it.
    measured = expression.targets(held.spots, GENES, **UNIT)
    mean = training_side().measured.mean(axis=0)
    assert one["gene_mean"]["mse"] == pytest.approx(((measured - mean) ** 2).mean(), rel=1e-5)
    assert one["gene_mean"]["gene_r"] == another["gene_mean"]["gene_r"] == 0
    assert one["model"]["mse"] != another["model"]["mse"]


def test_patient_mean_is_null_for_a_new_patient_and_scored_for_a_known_one() -> None:
    new, _ = entry_and_genes(held_out(), training_side())
    assert new["rows"]["patient_mean"] is None
    train = training_side(patients=("A", "C"))
    known, genes = entry_and_genes(held_out(), train)
    mean = train.measured[train.patients == "C"].mean(axis=0)
    measured = expression.targets(held_out().spots, GENES, **UNIT)
    assert known["rows"]["patient_mean"]["mae"] == pytest.approx(
        np.abs(measured - mean).mean(), rel=1e-5
    )
    assert list(genes["patient_mean"]) == [0] * len(GENES)


def test_a_gene_that_the_section_lacks_is_zero_there_and_left_out() -> None:
    held = held_out()
    spots = dataclasses.replace(held.spots, counts=held.spots.counts[:, :3], genes=GENES[:3])
    entry, genes = entry_and_genes(dataclasses.replace(held, spots=spots), training_side())
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
    assert set(section_scores.scores({}, TargetConfig(), PANEL, SPLIT)["mean"].values()) == {None}


def test_table_shows_both_correlations_and_the_gene_mean_beside_the_model() -> None:
    scores = scores_of(held_out("C1"), held_out("C2", seed=4))
    blocks = score_table.table(scores).strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == ["C1", "C2", "mean"]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 100
    for block, rows in zip(
        blocks, [*(e["rows"] for e in scores["sections"].values()), scores["mean"]], strict=True
    ):
        heading, *lines = block.splitlines()
        columns = heading.split()[-7:]
        assert columns == ["gene_r", "median", "smooth", "spot_r", "mse", "mae", "depth"]
        cells = {line[:34].strip(): line[34:].split() for line in lines}
        for name in ("model", "gene_mean"):
            shown = dict(zip(columns, cells[name.replace("_", " ")], strict=True))
            for key in ("gene_r", "spot_r"):
                assert shown[key] == f"{rows[name][key]:.3f}"
        assert "patient mean" not in cells
        # Rows that read the held-out expression are marked.
        marked = {name for name in cells if name.endswith("*")}
        assert marked == {"neighbour oracle *", "resampling ceiling *"}
    assert registry.FOOTNOTE.startswith("*")


def test_table_of_one_section_has_no_mean() -> None:
    text = score_table.table(scores_of(held_out()))
    assert "C1 (patient C, 16 spots)" in text
    assert "mean over sections" not in text


def test_a_long_name_has_a_line_of_its_own_above_its_scores() -> None:
    scores = scores_of(held_out())
    rows = scores["sections"]["C1"]["rows"]
    name = "predictions of somebody else, of March"
    rows[name] = rows["model"]
    lines = score_table.table(scores).splitlines()
    (at,) = (at for at, line in enumerate(lines) if line.strip() == name)
    (own,) = (line for line in lines if line.startswith("  model  "))
    assert lines[at + 1][:34].strip() == ""
    assert lines[at + 1][34:].split()[:-1] == own[34:].split()[:-1]  # depth is the model's alone
    assert len(lines[at + 1]) == len(own)


def test_prediction_table_has_names_layers_and_coordinates() -> None:
    held = held_out()
    measured = expression.targets(held.spots, GENES, **UNIT)
    table = table_of(predicted(held, train={}), "some unit")
    np.testing.assert_array_equal(table.X, held.model)
    np.testing.assert_array_equal(table.layers["measured"], measured)
    assert list(table.obs_names) == [f"C1_{spot}" for spot in held.spots.names]
    assert list(table.var_names) == list(GENES)
    assert set(table.var["unit"]) == {"some unit"}
    np.testing.assert_array_equal(table.obsm["spatial"], held.spots.centres_px)
    wanted = pd.DataFrame({"section": "C1", "patient": "C", "spot": list(held.spots.names)})
    assert table.obs.reset_index(drop=True)[list(wanted)].astype(str).equals(wanted)
    np.testing.assert_array_equal(
        table.obs["total_counts"], held.spots.counts.toarray().sum(axis=1)
    )
    assert set(table.obs["fold"]) == {""}
    np.testing.assert_array_equal(table.layers["model_single_tile"], held.model_single_tile)
    assert "colour_ridge" not in table.layers
    given = predicted(held)
    table = table_of(given, "some unit")
    np.testing.assert_array_equal(table.layers["colour_ridge"], given.predictions["colour_ridge"])
    # Neither constants nor marks; what a file brings is there, and NaN where it says nothing.
    assert set(table.layers) == {"measured", "model_single_tile", "colour_ridge"}
    theirs = table_of(given.with_predictor("theirs", held.model + 1), "some unit")
    np.testing.assert_array_equal(theirs.layers["theirs"], theirs.X + 1)
    alone = table_of(predicted(held_out("C2", seed=4)), "some unit")
    whole = joined([theirs, alone])
    assert np.isnan(whole.layers["theirs"][16:]).all()
    assert np.isfinite(whole.layers["theirs"][:16]).all()


def test_joined_tables_keep_every_spot_and_the_unit() -> None:
    tables = []
    for held in (held_out("C1"), held_out("C2", seed=4)):
        tables.append(table_of(predicted(held, train={}), "some unit"))
    whole = joined(tables)
    assert list(whole.obs_names) == [*tables[0].obs_names, *tables[1].obs_names]
    assert list(whole.var.columns) == ["unit"]  # r per gene is a section's own
    np.testing.assert_array_equal(whole.layers["measured"][16:], tables[1].layers["measured"])
    assert whole.obsm["spatial"].shape == (32, 2)


def test_predictions_that_do_not_fit_the_spots_are_refused() -> None:
    held = held_out()
    with pytest.raises(InputError):
        entry_and_genes(dataclasses.replace(held, model=held.model[:-1]))


def test_scoring_all_at_once_gives_the_entries_of_each_section() -> None:
    one, two = held_out("C1"), held_out("C2", seed=4)
    found = scored(predicted(one), predicted(two))
    for held in (one, two):
        entry, genes = entry_and_genes(held, training_side())
        assert found.scores["sections"][held.name] == entry
        rows = found.genes[found.genes["section"] == held.name].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, genes)
    assert [t.obs_names[0] for t in found.tables] == ["C1_s0", "C2_s0"]
    assert json.loads(json.dumps(found.scores, allow_nan=False)) == found.scores


def test_baselines_read_back_from_a_run_give_the_same_rows(tmp_path: Path) -> None:
    saved_baselines.save(training_side().fitted(), GENES, tmp_path / saved_baselines.FILE)
    assert saved_baselines.load(tmp_path).genes == GENES
    again = entry_and_genes(held_out(), saved_baselines.load(tmp_path).fitted)
    first = entry_and_genes(held_out(), training_side())
    assert again[0] == first[0]
    pd.testing.assert_frame_equal(again[1], first[1])


def test_a_further_predictor_has_a_row_in_every_table() -> None:
    one, two = held_out("C1"), held_out("C2", seed=4)
    found = scored(
        predicted(one, others={"their net": one.model}),
        predicted(two, others={"their net": two.model}),
    )
    blocks = [*(e["rows"] for e in found.scores["sections"].values())]
    blocks += [found.scores["mean"], found.scores["pooled"]]
    for rows in blocks:
        assert rows["their net"] == rows["model"] != rows["model_single_tile"]
        assert [name for name in rows if name not in ROWS] == ["their net"]
    for entry in found.scores["sections"].values():
        assert entry["depth"]["their net"] == entry["depth"]["model"]
    np.testing.assert_array_equal(found.genes["their net"], found.genes["model"])
    text = score_table.table(found.scores)
    assert text.count("  their net ") == 4
    # It stands after the model's rows, before the baselines.
    names = [line[:34].strip() for line in text.splitlines()]
    assert names.index("model single tile") + 1 == names.index("their net")


def test_a_further_predictor_of_some_sections_alone_is_not_pooled() -> None:
    one = held_out("C1")
    found = scored(predicted(one, others={"theirs": one.model}), predicted(held_out("C2", seed=4)))
    assert found.scores["pooled"]["theirs"] is None
    assert found.scores["mean"]["theirs"] == found.scores["sections"]["C1"]["rows"]["theirs"]


@pytest.mark.parametrize("name", ["model", "measured", "gene", "section", "resampling_ceiling", ""])
def test_a_further_predictor_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(InputError, match=r"taken|needs a name"):
        predicted(held_out(), others={name: held_out().model})


def test_depth_is_the_mean_r_with_total_counts() -> None:
    held = held_out()
    totals = held.spots.counts.toarray().sum(axis=1)
    exact = np.stack([totals * (gene + 1) for gene in range(len(GENES))], axis=1)
    entry, _ = entry_and_genes(
        dataclasses.replace(held, model=exact, model_single_tile=-exact), training_side()
    )
    measured = expression.targets(held.spots, GENES, **UNIT)
    assert set(entry["depth"]) == {"measured", "model", "model_single_tile", "colour_ridge"}
    assert entry["depth"]["model"] == pytest.approx(1)
    assert entry["depth"]["model_single_tile"] == pytest.approx(-1)
    r = [stats.spearmanr(values, totals).statistic for values in measured.T]
    assert entry["depth"]["measured"] == pytest.approx(np.mean(r))


def test_depth_of_predictions_is_over_the_genes_that_vary_as_measured() -> None:
    held = held_out()
    spots = dataclasses.replace(held.spots, counts=held.spots.counts[:, :3], genes=GENES[:3])
    totals = spots.counts.toarray().sum(axis=1)
    model = np.stack([totals, totals, totals, -totals], axis=1)
    entry, _ = entry_and_genes(dataclasses.replace(held, spots=spots, model=model), training_side())
    assert entry["depth"]["model"] == pytest.approx(1)


def test_the_table_shows_the_depth_of_what_was_measured_and_its_mean() -> None:
    found = scored(predicted(held_out("C1")), predicted(held_out("C2", seed=4)))
    lines = score_table.table(found.scores).splitlines()
    shown = [line.split()[-1] for line in lines if line.startswith("  measured")]
    depths = [entry["depth"]["measured"] for entry in found.scores["sections"].values()]
    assert shown == [f"{value:.3f}" for value in (*depths, np.mean(depths))]


def test_pooled_rows_are_the_scores_of_all_spots_as_one_section() -> None:
    held = [held_out("C1"), held_out("C2", seed=4), held_out("C3", seed=5)]
    found = scored(*(predicted(one) for one in held))
    measured = np.concatenate([expression.targets(one.spots, GENES, **UNIT) for one in held])
    model = np.concatenate([one.model for one in held])
    row = found.scores["pooled"]["model"]
    assert row["gene_r"] == pytest.approx(metrics.gene_r(model, measured))
    assert row["spot_r"] == pytest.approx(metrics.spot_r(model, measured))
    assert row["mae"] == pytest.approx(np.abs(model - measured).mean(), rel=1e-6)
    # Equal sections: spot by spot, pooled and mean over sections agree.
    assert row["spot_r"] == pytest.approx(found.scores["mean"]["model"]["spot_r"])
    assert set(found.scores["pooled"]) == set(ROWS)
    assert found.scores["pooled"]["patient_mean"] is None
    for name, values in found.scores["pooled"].items():
        assert values is None or set(values) == set(metrics.SCORES), name
    lines = score_table.table(found.scores).splitlines()
    at = [n for n, line in enumerate(lines) if line.startswith("all 48 spots pooled")]
    assert len(at) == 1
    assert lines[at[0] + 1].split()[:2] == ["model", f"{row['gene_r']:.3f}"]


def test_pooled_scores_of_one_section_are_its_own() -> None:
    found = scored(predicted(held_out()))
    rows = found.scores["sections"]["C1"]["rows"]
    for name in ("model", "colour_ridge", "neighbour_oracle", "resampling_ceiling"):
        assert found.scores["pooled"][name] == pytest.approx(rows[name]), name
    assert "pooled" not in score_table.table(found.scores)


def test_pooled_gene_mean_of_sections_left_out_in_turn_is_negative_by_construction() -> None:
    parts = [section(f"{p}1", p, seed=i, spots_xy=(4, 3)) for i, p in enumerate("ABCD")]
    # Section n has more of gene n: real differences between sections and nothing else to learn.
    for number, part in enumerate(parts):
        part.spots.counts.data.reshape(-1, len(GENES))[:, number] *= 20
    rng = np.random.default_rng(0)
    cases = []
    for out in parts:
        others = [part for part in parts if part is not out]
        measured = np.concatenate([expression.targets(o.spots, GENES, **UNIT) for o in others])
        side = TrainingSide(
            measured=measured,
            targets=PANEL.standardise(measured),
            statistics=rng.normal(size=(36, 39)),
            patients=np.repeat([o.patient for o in others], 12),
            sections=np.repeat([o.name for o in others], 12),
        )
        held = dataclasses.replace(
            held_out(out.name, out.patient),
            spots=out.spots,
            statistics=rng.normal(size=(12, 39)),
            model=np.zeros((12, 4), np.float32) + 1,
            model_single_tile=np.zeros((12, 4), np.float32) + 1,
        )
        cases.append(predicted(held, train=side))
    rows = section_scores.pooled_rows(cases, seed=0)
    assert rows is not None
    assert rows["gene_mean"]["gene_r"] < -0.9
    assert scored(*cases).scores["mean"]["gene_mean"]["gene_r"] == 0


def test_pooled_genes_are_those_of_every_fold() -> None:
    cases = [
        predicted(held_out("C1"), genes=GENES[:3]),
        predicted(held_out("C2", seed=4), genes=GENES[:0:-1]),
    ]
    rows = section_scores.pooled_rows(cases, seed=0)
    narrow = section_scores.pooled_rows([one.on_genes(GENES[1:3]) for one in cases], seed=0)
    assert rows == narrow
    apart = [predicted(held_out("C1"), genes=GENES[:2]), predicted(held_out("C2"), genes=GENES[2:])]
    assert section_scores.pooled_rows(apart, seed=0) is None
    assert section_scores.pooled_rows([], seed=0) is None


def test_a_case_on_some_genes_scores_as_these_columns_alone() -> None:
    whole = predicted(held_out(), others={"theirs": held_out().model_single_tile})
    some = ("IGKC", "ERBB2")
    r = scored(whole).genes.set_index("gene").loc[list(some)]
    found = scored(whole.on_genes(some))
    pd.testing.assert_frame_equal(found.genes.set_index("gene"), r)
    ceiling = found.scores["sections"]["C1"]["rows"]["resampling_ceiling"]
    assert ceiling["gene_r"] is not None  # library sizes stay those of all genes
    with pytest.raises(InputError, match="NOPE"):
        whole.on_genes(("NOPE",))
    with pytest.raises(InputError, match="none"):
        whole.on_genes(())


def test_folds_with_other_panels_are_joined_with_nan_where_a_gene_is_not_theirs() -> None:
    found = scored(
        predicted(held_out("C1"), genes=GENES[:3], fold="C1"),
        predicted(held_out("C2", seed=4), genes=GENES[:0:-1], fold="C2"),
    )
    whole = joined(found.tables)
    assert list(whole.var_names) == list(GENES)
    assert list(whole.obs["fold"].astype(str)) == ["C1"] * 16 + ["C2"] * 16
    assert set(whole.layers) == {"measured", "model_single_tile", "colour_ridge"}
    for values in (whole.X, *whole.layers.values()):
        assert values.dtype == np.float32
        unknown = np.isnan(values)
        assert unknown[:16, 3].all()
        assert unknown[16:, 0].all()
        assert unknown.sum() == 32
    np.testing.assert_array_equal(whole.X[16:, 1:], held_out("C2", seed=4).model[:, 1:])
    assert set(whole.var["unit"]) == {"some unit"}
    assert [e["fold"] for e in found.scores["sections"].values()] == ["C1", "C2"]


def test_score_refuses_a_section_twice_other_genes_and_nothing_at_all() -> None:
    with pytest.raises(InputError, match="'C1' is held out twice"):
        scored(predicted(held_out()), predicted(held_out()))
    with pytest.raises(InputError, match="nothing is held out"):
        scored()
    empty = section_scores.score([], TargetConfig(), SPLIT, unit="u", seed=0, panel=PANEL)
    assert (empty.scores["sections"], empty.scores["pooled"]) == ({}, None)

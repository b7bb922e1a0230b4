"""Pseudo-bulk of slides: means in counts, intervals over blocks of tiles, sums of spots."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histospace_tf import outputs, publishing
from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.predictors import bulk_scores, external_predictions
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.predictors.predictor import Fitted
from histospace_tf.reports import bulk, parts, score_table
from histospace_tf.reports.data import Results
from histospace_tf.scores import pseudo_bulk
from histospace_tf.slide_prediction import OutputFiles, aggregation, written_files
from histospace_tf.vocabulary import InputError, SpotTable
from made import scoring
from made.predictions import prediction
from made.tissue import GENES

LN, LOG10 = "library_size_log1p", "library_size_log10"
GRID = np.stack(np.meshgrid(np.arange(24.0), np.arange(24.0)), axis=-1).reshape(-1, 2) * 100


@pytest.mark.parametrize("normalisation", [LN, LOG10])
def test_counts_and_logarithms_are_inverse_and_below_zero_there_are_no_counts(
    normalisation: str,
) -> None:
    counts = np.array([[0.0, 1.0, 250.0, 9999.0]])
    logs = expression.logged(counts, normalisation=normalisation)
    base = {LN: np.e, LOG10: 10.0}[normalisation]
    np.testing.assert_allclose(base**logs - 1, counts, atol=1e-9)
    again = expression.counts_of(logs, normalisation=normalisation)
    np.testing.assert_allclose(again, counts, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(
        expression.counts_of(np.array([-0.5, -9.0]), normalisation=normalisation), 0.0
    )


@pytest.mark.parametrize("normalisation", [LN, LOG10])
def test_spots_of_one_depth_have_the_mean_that_their_summed_counts_have(
    normalisation: str,
) -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(3, (30, 5)).astype(np.float32)
    counts[:, 4] = 40 - counts[:, :4].sum(axis=1)  # 40 counts in every spot
    genes = ("A", "B", "C", "D", "E")
    spots = SpotTable(
        names=tuple(f"s{i}" for i in range(30)),
        centres_px=GRID[:30],
        counts=sparse.csr_matrix(counts),
        genes=genes,
    )
    asked = ["B", "E", "not there"]
    values = expression.targets(spots, asked, normalisation=normalisation, target_sum=1e4)
    bulk = pseudo_bulk.measured(spots, asked, target_sum=1e4)
    np.testing.assert_allclose(
        pseudo_bulk.predicted(values, normalisation=normalisation), bulk, rtol=1e-4
    )
    np.testing.assert_allclose(bulk, [*(counts[:, [1, 4]].sum(axis=0) / 1200 * 1e4), 0.0])


def test_a_section_without_counts_has_no_bulk() -> None:
    empty = SpotTable(
        names=("s",), centres_px=GRID[:1], counts=sparse.csr_matrix((1, 2)), genes=("A", "B")
    )
    with pytest.raises(InputError, match="without any counts"):
        pseudo_bulk.measured(empty, ["A"], target_sum=1e4)


def test_interval_is_wider_than_that_of_independent_tiles_where_neighbours_agree() -> None:
    rng = np.random.default_rng(2)
    smooth = 2 + np.sin(GRID[:, 0] / 500) + np.cos(GRID[:, 1] / 700)
    values = np.stack([rng.permutation(smooth), smooth, np.full(len(GRID), 1.5)], axis=1)
    low, high = pseudo_bulk.interval(values, GRID, normalisation=LN, seed=0)
    mean = pseudo_bulk.predicted(values, normalisation=LN)
    independent = 2 * 1.96 * np.expm1(smooth).std() / np.sqrt(len(GRID))
    # 1000 resamples know a width to a few percent; blocks of equal weights add some.
    assert high[0] - low[0] == pytest.approx(independent, rel=0.25)
    assert high[1] - low[1] > 2 * independent
    assert low[0] < mean[0] < high[0]
    np.testing.assert_allclose([low[2], high[2]], mean[2])
    again = pseudo_bulk.interval(values[:, :1], GRID, normalisation=LN, seed=0)
    np.testing.assert_allclose(again, [low[:1], high[:1]])  # whichever genes stand beside it


def test_one_tile_has_a_mean_and_no_interval() -> None:
    low, high = pseudo_bulk.interval(np.ones((1, 2)), GRID[:1], normalisation=LN, seed=0)
    assert np.isnan([low, high]).all()


def test_a_finished_prediction_gives_its_table_later(tmp_path: Path) -> None:
    table = prediction()
    table.var["unit"] = "ln(1 + counts per 10,000)"
    outputs.write_h5ad(table, tmp_path / "a.h5ad")
    (written,) = written_files.convert(tmp_path / "a.h5ad", OutputFiles(aggregate=True))
    assert written == tmp_path / "a.bulk.csv"
    bulk = pd.read_csv(written)
    pd.testing.assert_frame_equal(
        bulk.drop(columns="gene_id"),
        aggregation.of_prediction(table).reset_index().drop(columns="gene_id"),
    )
    assert set(bulk["trust"]) == {"unknown"}
    with pytest.raises(InputError, match=r"a\.bulk\.csv' exists already"):
        written_files.convert(tmp_path / "a.h5ad", OutputFiles(aggregate=True))
    written_files.convert(tmp_path / "a.h5ad", OutputFiles(aggregate=True), force=True)


def test_values_of_another_unit_are_refused() -> None:
    with pytest.raises(InputError, match="'some unit' cannot be averaged as counts"):
        aggregation.of_prediction(prediction())


@functools.cache
def baselines() -> dict[str, Fitted]:
    """Of one training side: they are the same for every slide."""
    return scoring.training_side().fitted()


def held_slides(n: int) -> list[PredictedSection]:
    """Slides of as many patients, with their baselines."""
    return [
        scoring.predicted(scoring.held_out(f"S{i}", f"P{i}", seed=i), train=baselines())
        for i in range(n)
    ]


def test_slides_are_scored_by_r_of_a_gene_between_mean_counts_and_summed_counts() -> None:
    sections = held_slides(5)
    entry, table = bulk_scores.score(sections)
    assert (entry["slides"], entry["patients"], entry["genes"]) == (5, 5, len(GENES))
    genes = list(scoring.PANEL.genes)
    for gene in ("GNAS", "IGKC"):
        at = genes.index(gene)
        sums = [np.float64(s.spots.counts.toarray()).sum(axis=0) for s in sections]
        truth = [
            np.log1p(1e4 * one[s.spots.genes.index(gene)] / one.sum())
            for s, one in zip(sections, sums, strict=True)
        ]
        said = [
            np.log1p(
                np.maximum(
                    np.expm1(np.asarray(s.predictions["model"], np.float64)[:, at]), 0
                ).mean()
            )
            for s in sections
        ]
        r = table.set_index("gene").loc[gene]
        assert r["model"] == pytest.approx(np.corrcoef(said, truth)[0, 1])
        assert r["gene_mean"] == 0.0  # of one training side: a constant
    row = entry["rows"]["model"]
    assert row["gene_r"] == pytest.approx(table["model"].mean())
    assert "neighbour_oracle" not in entry["rows"]
    assert "patient_mean" not in entry["rows"]  # knows none of these patients


def test_a_perfect_prediction_of_spots_of_one_depth_scores_one_over_slides() -> None:
    sections = []
    for section in held_slides(5):
        counts = section.spots.counts.toarray()
        deep = counts.sum(axis=1).max() + 1
        extra = np.append(counts, deep - counts.sum(axis=1, keepdims=True), axis=1)
        spots = dataclasses.replace(
            section.spots,
            counts=sparse.csr_matrix(extra),
            genes=(*section.spots.genes, "rest"),
        )
        truth = section.panel.measured(spots)
        sections.append(dataclasses.replace(section, spots=spots, predictions={"model": truth}))
    entry, table = bulk_scores.score(sections)
    assert entry["rows"]["model"]["gene_r"] == pytest.approx(1, abs=1e-6)
    assert entry["rows"]["model"]["mse"] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(table["model"], 1, atol=1e-6)


def test_too_few_slides_are_not_scored_and_few_patients_are_warned_of() -> None:
    entry, table = bulk_scores.score(held_slides(4))
    assert entry["rows"] is None
    assert table.empty
    (line,) = bulk.sentences({"bulk": entry})
    assert "not scored: 4 held out, and r of a gene over fewer than 5" in line
    of_two = [
        dataclasses.replace(section, patient="AB"[i % 2])
        for i, section in enumerate(held_slides(6))
    ]
    entry, _ = bulk_scores.score(of_two)
    rows = {"model": {"mse": 0.237}, "gene_mean": {"mse": 0.208}}
    _, worse, warning = bulk.sentences({"bulk": {**entry, "rows": rows}})
    assert "MSE of the model, 0.237, is above the gene mean's, 0.208" in worse
    rows = {"model": {"mse": 0.2}, "gene_mean": {"mse": 0.2}, "mean_feature_ridge": {"mse": 0.2}}
    assert len(bulk.sentences({"bulk": {**entry, "rows": rows}})) == 2
    rows["mean_feature_ridge"] = {"mse": 0.1}
    _, worse, _ = bulk.sentences({"bulk": {**entry, "rows": rows}})
    assert "MSE of the model, 0.200, is above that of a ridge on the mean of a slide's" in worse
    assert "the 6 slides are of 2 patients" in warning
    assert bulk.sentences({}) == []  # scores of an older release


def test_scores_over_slides_stand_in_scores_table_and_files(tmp_path: Path) -> None:
    found = external_predictions.score_beside(
        held_slides(5), {}, TargetConfig(), scoring.SPLIT, unit="some unit", seed=0
    )
    publishing.scores(found, tmp_path)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["bulk"]["rows"]["model"]["gene_r"] == pytest.approx(
        pd.read_csv(tmp_path / "bulk_scores.csv")["model"].mean()
    )
    assert "pseudo-bulk of 5 slides" in score_table.table(written)
    assert "The gene mean's gene_r is below 0" in " ".join(score_table.notes(written)).replace(
        "\n ", ""
    )
    _, _, html = parts.score_tables(Results(tmp_path, written))
    assert "pseudo-bulk of 5 slides" in html
    assert "Slides as a whole" in html
    few = external_predictions.score_beside(
        held_slides(2), {}, TargetConfig(), scoring.SPLIT, unit="some unit", seed=0
    )
    assert "pseudo-bulk" not in score_table.table(few.scores)
    assert "not scored: 2 held out" in "\n".join(score_table.notes(few.scores))
    (tmp_path / "few").mkdir()
    publishing.scores(few, tmp_path / "few")
    assert not (tmp_path / "few" / "bulk_scores.csv").exists()

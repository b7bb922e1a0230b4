"""Scores against NumPy's and SciPy's own, and against a simulation whose truth is known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from scipy import sparse, stats

from histospace_tf import outputs
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError

UNIT: dict[str, Any] = {"normalisation": "library_size_log1p", "target_sum": 10_000.0}


def made_pair(seed: int = 0, n: int = 20, g: int = 7) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    measured = random.normal(size=(n, g)) + np.arange(g)
    return measured * 0.3 + random.normal(size=(n, g)), measured


def test_r_each_agrees_with_numpy_and_scipy() -> None:
    predicted, measured = made_pair()
    by_gene = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, measured.T, strict=True)]
    by_spot = [scipy.stats.pearsonr(a, b)[0] for a, b in zip(predicted, measured, strict=True)]
    np.testing.assert_allclose(metrics.gene_r_each(predicted, measured), by_gene, atol=1e-12)
    np.testing.assert_allclose(metrics.spot_r_each(predicted, measured), by_spot, atol=1e-12)
    assert metrics.gene_r(predicted, measured) == pytest.approx(np.mean(by_gene), abs=1e-12)
    assert metrics.spot_r(predicted, measured) == pytest.approx(np.mean(by_spot), abs=1e-12)


def test_gene_r_ignores_each_genes_scale_and_offset_and_the_order_of_spots() -> None:
    predicted, measured = made_pair()
    order = np.random.default_rng(1).permutation(len(measured))
    changed = predicted * np.linspace(0.1, 50, 7) + np.arange(7)
    assert metrics.gene_r(changed[order], measured[order]) == pytest.approx(
        metrics.gene_r(predicted, measured), abs=1e-12
    )
    assert metrics.gene_r(-predicted, measured) == pytest.approx(
        -metrics.gene_r(predicted, measured), abs=1e-12
    )


def test_perfect_prediction_scores_one_on_both_axes() -> None:
    _, measured = made_pair()
    row = metrics.score_row(measured, measured, measured_smoothed=measured)
    assert row == {
        "gene_r": pytest.approx(1),
        "gene_r_median": pytest.approx(1),
        "spot_r": pytest.approx(1),
        "mse": 0,
        "mae": 0,
        "gene_r_smoothed": pytest.approx(1),
        "constant_genes": 0,
        "constant_spots": 0,
    }
    assert tuple(row) == tuple(metrics.SCORES)


def test_constant_measured_gene_is_left_out_and_counted() -> None:
    predicted, measured = made_pair()
    measured[:, 2] = 3.1
    each = metrics.gene_r_each(predicted, measured)
    assert np.flatnonzero(np.isnan(each)).tolist() == [2]
    rest = [0, 1, 3, 4, 5, 6]
    row = metrics.score_row(predicted, measured)
    assert row["constant_genes"] == 1
    assert row["gene_r"] == metrics.gene_r(predicted[:, rest], measured[:, rest])
    assert row["gene_r_median"] == np.median(each[rest])


def test_constant_prediction_scores_zero_on_genes_and_high_on_spots() -> None:
    _, measured = made_pair()
    gene_mean = np.tile(measured.mean(axis=0), (len(measured), 1))
    assert (metrics.gene_r_each(gene_mean, measured) == 0).all()
    assert metrics.spot_r(gene_mean, measured) > 0.7  # genes differ by up to 6, noise is 1


def test_prediction_that_differs_by_float32_rounding_alone_is_constant() -> None:
    _, measured = made_pair()
    jitter = np.float32(5.3) + np.spacing(np.float32(5.3)) * (
        measured > np.median(measured, axis=0)
    )
    assert metrics.gene_r(jitter, measured) == 0


def test_small_but_real_differences_are_not_taken_for_constant() -> None:
    _, measured = made_pair()
    assert metrics.gene_r(1 + 1e-4 * measured, measured) == pytest.approx(1, abs=1e-6)


def test_errors_agree_with_their_definition() -> None:
    predicted, measured = made_pair()
    row = metrics.score_row(predicted, measured)
    assert row["mse"] == pytest.approx(np.square(predicted - measured).mean())
    assert row["mae"] == pytest.approx(np.abs(predicted - measured).mean())


def test_all_constant_measurement_gives_null_in_json_never_nan() -> None:
    row = metrics.score_row(np.random.default_rng(0).normal(size=(4, 3)), np.ones((4, 3)))
    assert row["gene_r"] is None
    assert row["spot_r"] is None
    assert row["constant_genes"] == 3
    json.dumps(row, allow_nan=False)
    assert math.isnan(metrics.gene_r(np.ones((4, 3)), np.ones((4, 3))))


def test_single_spot_and_single_gene_are_defined() -> None:
    assert metrics.score_row(np.ones((1, 3)), np.array([[1.0, 2, 3]]))["gene_r"] is None
    one_gene = metrics.score_row(np.arange(4.0)[:, None], np.arange(4.0)[:, None])
    assert one_gene["gene_r"] == pytest.approx(1)
    assert one_gene["spot_r"] is None


@pytest.mark.parametrize(
    "score",
    [
        metrics.gene_r_each,
        metrics.spot_r_each,
        metrics.gene_r,
        metrics.spot_r,
        metrics.score_row,
    ],
)
def test_other_shapes_and_values_that_are_not_finite_are_refused(score: object) -> None:
    predicted, measured = made_pair()
    with pytest.raises(InputError, match=r"\(20, 6\).*\(20, 7\)"):
        score(predicted[:, :6], measured)  # type: ignore[operator]
    predicted[4, 5] = np.inf
    with pytest.raises(InputError, match="predicted value of spot 4, gene 5"):
        score(predicted, measured)  # type: ignore[operator]


def test_mean_of_rows_skips_what_a_row_does_not_have() -> None:
    rows: list[metrics.Row] = [
        {"gene_r": 0.2, "mse": None, "mae": 1.0},
        {"gene_r": 0.4, "mse": 3.0},
        {},
    ]
    mean = metrics.mean_rows(rows)
    assert mean["gene_r"] == pytest.approx(0.3)
    assert mean["mse"] == 3.0
    assert mean["mae"] == 1.0
    assert mean["spot_r"] is None
    assert metrics.mean_rows([{}, {}]) == metrics.mean_rows([]) == {}


def test_json_safe_follows_nested_values_and_leaves_its_argument_alone() -> None:
    value: dict[str, Any] = {
        "a": [np.float32(1.5), math.nan, (np.int64(2), math.inf)],
        "b": np.array([1.0, np.nan]),
    }
    safe = outputs.json_safe(value)
    assert safe == {"a": [1.5, None, [2, None]], "b": [1.0, None]}
    assert math.isnan(value["a"][1])
    json.dumps(safe, allow_nan=False)
    assert outputs.json_safe(True) is True


def poisson_section(
    seed: int, *, depth: float, n: int = 300, g: int = 40
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts, and the normalised truth behind them: noise is Poisson and nothing else."""
    random = np.random.default_rng(seed)
    profile = random.gamma(2, size=g) * np.exp(random.normal(0, 0.5, (n, g)))
    profile /= profile.sum(axis=1, keepdims=True)
    return sparse.csr_matrix(random.poisson(depth * profile)), np.log1p(10_000 * profile)


@pytest.mark.parametrize("depth", [2000.0, 8000.0])
def test_ceiling_is_what_the_truth_itself_scores(depth: float) -> None:
    counts, truth = poisson_section(0, depth=depth)
    measured = np.log1p(10_000 * counts.toarray() / counts.sum(axis=1))
    row = metrics.resampling_ceiling(counts, np.arange(40), seed=0, **UNIT)
    # 300 spots give r a standard error of at most 0.06 a gene, 0.01 over 40 genes; halves of the
    # counts bend the logarithm a little more than the whole.
    assert row["gene_r"] == pytest.approx(metrics.gene_r(truth, measured), abs=0.03)
    assert row["spot_r"] == pytest.approx(metrics.spot_r(truth, measured), abs=0.03)
    assert row["mse"] is None


def test_ceiling_rises_with_depth_and_falls_to_nearly_nothing_without_signal() -> None:
    shallow, deep = (
        metrics.resampling_ceiling(poisson_section(1, depth=d)[0], range(40), seed=0, **UNIT)
        for d in (200, 5000)
    )
    assert shallow["gene_r"] < deep["gene_r"] < 1  # type: ignore[operator]
    same = np.random.default_rng(2).poisson(np.full((2000, 60), 20.0))
    flat = metrics.resampling_ceiling(sparse.csr_matrix(same), range(60), seed=0, **UNIT)
    # r_half is at most about 1/sqrt(2000); the root of twice that, and 0 for the negative half.
    assert flat["gene_r"] < 0.2  # type: ignore[operator]


def test_ceiling_is_a_function_of_its_seed_and_leaves_the_counts_alone() -> None:
    counts, _ = poisson_section(3, depth=500, n=50, g=10)
    before = counts.toarray()
    rows = [metrics.resampling_ceiling(counts, range(10), seed=s, **UNIT) for s in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    np.testing.assert_array_equal(counts.toarray(), before)


def test_ceiling_takes_absent_genes_and_spots_of_a_single_count() -> None:
    counts = sparse.csr_matrix(np.vstack([np.eye(3, dtype=int), [[9, 5, 2], [3, 9, 4], [1, 2, 9]]]))
    row = metrics.resampling_ceiling(counts, [0, -1, 2], seed=0, **UNIT)
    assert row["constant_genes"] == 1
    assert 0 <= row["gene_r"] <= 1  # type: ignore[operator]
    ones = metrics.resampling_ceiling(sparse.csr_matrix(np.eye(3)), [0, 1, 2], seed=0, **UNIT)
    assert ones["gene_r"] == 0
    json.dumps(ones, allow_nan=False)


def test_ceiling_refuses_counts_that_are_not_whole_and_columns_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="whole numbers"):
        metrics.resampling_ceiling(sparse.csr_matrix([[0.5, 1.0]]), [0], seed=0, **UNIT)
    with pytest.raises(InputError, match="-1 or 0 to 1"):
        metrics.resampling_ceiling(sparse.csr_matrix([[2.0, 1.0]]), [2], seed=0, **UNIT)
    with pytest.raises(InputError, match="no counts"):
        metrics.resampling_ceiling(sparse.csr_matrix([[0.0, 0.0]]), [0], seed=0, **UNIT)
    with pytest.raises(InputError, match="at least 1"):
        metrics.resampling_ceiling(sparse.csr_matrix([[2.0]]), [0], seed=0, repeats=0, **UNIT)


def test_depth_r_is_the_mean_rank_r_with_total_counts() -> None:
    rng = np.random.default_rng(0)
    values, totals = rng.normal(size=(30, 5)), rng.integers(50, 900, 30)
    r = [stats.spearmanr(column, totals).statistic for column in values.T]
    assert metrics.depth_r(values, totals) == pytest.approx(np.mean(r))
    assert metrics.depth_r(values, np.log(totals)) == metrics.depth_r(values, totals)
    values[:, 2] = 3 + 1e-9 * totals  # a constant gene follows nothing, nor do its roundings
    r[2] = 0
    assert metrics.depth_r(values, totals) == pytest.approx(np.mean(r))
    assert math.isnan(metrics.depth_r(values, np.full(30, 7)))


def test_depth_r_refuses_totals_of_other_spots() -> None:
    with pytest.raises(InputError, match="totals"):
        metrics.depth_r(np.ones((3, 2)), np.ones(4))

"""Linear heads in closed form: they are scikit-learn's weighted ridge, intercept and all."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from histospace_tf.cohort import features
from histospace_tf.models import layers
from histospace_tf.predictors import ridge_head
from made.heads import GENES, STRENGTHS, SYMMETRIES, MadeHead, made_head

FAR = layers.LARGEST_STANDARDISED


def taken(these: MadeHead) -> np.ndarray:
    """What the learned layer takes of all spots, by hand: standardised, cut off, then averaged."""
    known = {name: values.astype(np.float64) for name, values in these.inputs.items()}
    if "slide_mean" not in known:
        layer = these.head.get_layer("feature_scale")
        scaled = (known["features"] - np.asarray(layer.mean)) / np.asarray(layer.deviation)
        return np.clip(scaled, -FAR, FAR).mean(axis=1)
    mean, std = known["slide_mean"], known["slide_std"]
    own = np.clip((known["features"] - mean[:, None]) / std[:, None], -FAR, FAR).mean(axis=1)
    near = np.clip((known["neighbour_features"] - mean) / std, -FAR, FAR)
    return np.concatenate([own, near], axis=1)


@pytest.mark.parametrize("architecture", ["pooled", "context"])
@pytest.mark.parametrize("factors", [0, 2])
@pytest.mark.parametrize(("n", "f"), [(90, 7), (24, 40)])  # fewer inputs than spots, and more
def test_solutions_are_scikit_learns_weighted_ridges(
    n: int, f: int, factors: int, architecture: str
) -> None:
    these = made_head(n=n, f=f, architecture=architecture, factors=factors)
    x, wanted = taken(these)[these.rows], these.targets[these.rows].astype(np.float64)
    if factors:
        loadings = np.asarray(these.head.get_layer("expression").kernel, np.float64)
        wanted = np.linalg.lstsq(loadings.T, wanted.T, rcond=None)[0].T
    weights = these.weights / these.weights.mean()
    for strength, (kernel, bias) in zip(STRENGTHS, these.solved(), strict=True):
        ridge = Ridge(alpha=strength, solver="cholesky").fit(x, wanted, sample_weight=weights)
        assert kernel.dtype == bias.dtype == np.float32
        # Features are standardised in float32; slopes and levels are of order 1 and less.
        np.testing.assert_allclose(kernel, ridge.coef_.T, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(bias, ridge.intercept_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["pooled", "context"])
@pytest.mark.parametrize("factors", [0, 2])
def test_the_head_predicts_what_the_closed_form_says(factors: int, architecture: str) -> None:
    these = made_head(n=60, f=9, architecture=architecture, factors=factors)
    for kernel, bias in these.solved():
        ridge_head.set_solution(these.head, (kernel, bias))
        expected = taken(these) @ kernel + bias
        if factors:
            expected = expected @ np.asarray(these.head.get_layer("expression").kernel)
        # float32 sums of values of order 1
        found = features.predicted(these.head, these.inputs)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_loadings_stay_and_as_many_factors_as_genes_lose_nothing() -> None:
    plain, decoded = made_head(n=80, f=5), made_head(n=80, f=5, factors=GENES)
    before = np.asarray(decoded.head.get_layer("expression").kernel)
    for one, other in zip(plain.solved(), decoded.solved(), strict=True):
        ridge_head.set_solution(plain.head, one)
        ridge_head.set_solution(decoded.head, other)
        np.testing.assert_array_equal(
            np.asarray(decoded.head.get_layer("expression").kernel), before
        )
        # The penalty is one for all genes, so a change of their axes has no effect: only rounding.
        np.testing.assert_allclose(
            features.predicted(decoded.head, decoded.inputs),
            features.predicted(plain.head, plain.inputs),
            atol=1e-4,
        )


@pytest.mark.parametrize(("n", "f"), [(60, 5), (15, 30)])
def test_scale_of_the_weights_has_no_effect_and_weights_have(n: int, f: int) -> None:
    these = made_head(n=n, f=f)
    solutions, scaled = these.solved(), these.solved(weights=1000 * these.weights)
    equal = these.solved(weights=np.ones(len(these.rows)))
    for one, other, plain in zip(solutions, scaled, equal, strict=True):
        for mine, theirs, unweighted in zip(one, other, plain, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)  # float32 rounding
            assert np.abs(mine - unweighted).max() > 1e-4


def test_only_the_training_rows_are_read() -> None:
    these = made_head(n=50, f=6, architecture="context", factors=2)
    solutions = these.solved()
    held = np.setdiff1d(np.arange(50), these.rows)
    for values in (*these.inputs.values(), these.targets):
        values[held] = np.nan
    for one, other in zip(solutions, these.solved(), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_order_of_symmetries_has_no_effect() -> None:
    these = made_head(n=50, f=6)
    solutions = these.solved()
    order = np.random.default_rng(1).permuted(np.tile(np.arange(SYMMETRIES), (50, 1)), axis=1)
    kept = these.inputs["features"]
    these.inputs["features"] = np.take_along_axis(kept, order[:, :, None], axis=1)
    for one, other in zip(solutions, these.solved(), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)  # float32 rounding


@pytest.mark.parametrize("architecture", ["pooled", "context"])
@pytest.mark.parametrize("factors", [0, 2])
def test_predictions_with_each_solution_are_the_heads(
    factors: int, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge_head, "_BLOCK_SPOTS", 7)
    these = made_head(n=60, f=9, architecture=architecture, factors=factors)
    solutions, rows = these.solved(), np.array([3, 50, 4, *range(20, 30)])
    found = ridge_head.predictions(these.head, these.inputs, rows, solutions)
    for solution, values in zip(solutions, found, strict=True):
        ridge_head.set_solution(these.head, solution)
        expected = features.predicted(these.head, these.inputs, rows=rows)
        np.testing.assert_allclose(values, expected, atol=1e-4)  # float32 sums of order 1


@pytest.mark.parametrize("spots", [1, 7, 1000])
def test_blocks_change_no_solution(spots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    these = made_head(n=90, f=7, architecture="context", factors=2)
    at_once = these.solved()
    monkeypatch.setattr(ridge_head, "_BLOCK_SPOTS", spots)
    for (kernel, bias), (wanted, level) in zip(these.solved(), at_once, strict=True):
        np.testing.assert_allclose(kernel, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bias, level, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["pooled", "context"])
def test_inputs_are_averaged_over_symmetries_in_the_order_of_rows(architecture: str) -> None:
    n = features.BATCH_ROWS + 9
    these = made_head(n=n, f=4, architecture=architecture)
    rows = np.random.default_rng(0).permutation(n)
    found = ridge_head.layer_inputs(these.head, these.inputs, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, taken(these)[rows], atol=1e-5)  # float32 rounding


def test_an_endless_penalty_leaves_the_weighted_mean() -> None:
    these = made_head(n=40, f=5)
    ((kernel, bias),) = ridge_head.solved(
        these.head, these.inputs, these.targets, these.rows, these.weights, [1e12]
    )
    assert np.abs(kernel).max() < 1e-8
    mean = np.average(these.targets[these.rows], axis=0, weights=these.weights)
    np.testing.assert_allclose(bias, mean, rtol=1e-5)


def test_features_that_repeat_each_other_have_a_finite_solution() -> None:
    these = made_head(n=60, f=4)
    these.inputs["features"][..., 1:] = these.inputs["features"][..., :1]
    for kernel, bias in these.solved():
        assert np.isfinite(kernel).all()
        assert np.isfinite(bias).all()


def test_learned_layer_is_that_of_the_factors_or_of_the_genes() -> None:
    assert ridge_head.learned_layer(made_head(n=3, f=4).head).units == GENES
    layer = ridge_head.learned_layer(made_head(n=3, f=4, factors=2).head)
    assert (layer.name, layer.units) == ("factors", 2)
    assert layer.trainable


def test_strengths_rise_from_weak_to_strong() -> None:
    assert all(np.diff(ridge_head.STRENGTHS) > 0)
    assert ridge_head.STRENGTHS[0] > 0


@pytest.mark.parametrize(
    ("scores", "spots", "wanted"),
    [
        ([[0.1, 0.3, 0.2]], [5], 2.0),
        ([[-0.3, -0.2, -0.1]], [5], 3.0),
        ([[0.2, 0.2, 0.2]], [5], 3.0),  # the strongest of equals
        ([[0.3, 0.3, 0.1]], [5], 2.0),
        ([[0.4, 0.1, 0.0], [0.1, 0.3, 0.0]], [1, 1], 1.0),
        ([[0.4, 0.1, 0.0], [0.1, 0.3, 0.0]], [1, 2], 2.0),  # a group counts by its spots
    ],
)
def test_best_strength(scores: list[list[float]], spots: list[int], wanted: float) -> None:
    assert ridge_head.best_strength(scores, spots, (1.0, 2.0, 3.0)) == wanted

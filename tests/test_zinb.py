"""Zero-inflated negative binomial likelihoods against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from histospace_tf.models.peers import zinb

MEANS = [1e-5, 0.3, 2.0, 40.0, 1e6]
DISPERSIONS = [1e-4, 0.5, 3.0, 100.0, 1e4]
COUNTS = [0, 1, 2, 7, 50, 3000]
DROPOUTS = [0.0, 0.2, 0.999]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-9)])
def test_log_gamma_is_scipys_from_tiny_numbers_to_large_ones(dtype: str, tolerance: float) -> None:
    x = np.concatenate([np.logspace(-30, 8, 500), np.arange(1, 200) / 10]).astype(dtype)
    expected = scipy.special.gammaln(x.astype(np.float64))
    error = np.abs(zinb.log_gamma(tf.constant(x)).numpy() - expected)
    # Near 1 and 2, where it is 0, numbers near 10 are subtracted.
    assert (error / np.maximum(np.abs(expected), 10)).max() < tolerance


def test_slope_of_log_gamma_is_the_digamma_function() -> None:
    x = tf.constant(np.logspace(-6, 6, 200))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(zinb.log_gamma(x))
    expected = scipy.special.digamma(x.numpy())
    np.testing.assert_allclose(tape.gradient(total, x), expected, rtol=1e-7, atol=1e-7)


def _grid(dtype: str) -> list[np.ndarray]:
    grid = np.meshgrid(COUNTS, MEANS, DISPERSIONS, DROPOUTS, indexing="ij")
    return [values.ravel().astype(dtype) for values in grid]


def test_likelihood_of_counts_is_scipys() -> None:
    counts, mean, dispersion, dropout = _grid("float64")
    probability = (1 - dropout) * scipy.stats.nbinom.pmf(
        counts, dispersion, dispersion / (dispersion + mean)
    )
    probability += dropout * (counts == 0)
    given = zinb.negative_log_likelihood(*(tf.constant(part) for part in _grid("float64")))
    plain = probability > 1e-8  # the published bounds of logarithms, 1e-10, count below
    assert plain.sum() > 60
    np.testing.assert_allclose(given[plain], -np.log(probability[plain]), rtol=1e-3, atol=1e-3)
    # In float32, of a dispersion of 10,000, numbers near 80,000 are subtracted.
    rough = zinb.negative_log_likelihood(*(tf.constant(part) for part in _grid("float32")))
    np.testing.assert_allclose(rough, given, rtol=1e-3, atol=2e-2)


def test_likelihoods_over_all_counts_add_up_to_one() -> None:
    counts = tf.constant(np.arange(2000.0))
    given = tf.constant([7.0, 2.0, 0.3], tf.float64)
    likelihood = np.exp(-zinb.negative_log_likelihood(counts, *given).numpy())
    assert likelihood.sum() == pytest.approx(1, abs=1e-6)


def test_likelihoods_and_their_slopes_are_finite_within_all_bounds() -> None:
    counts, *parameters = (tf.constant(values) for values in _grid("float32"))
    raw = tf.constant([-1e30, -200.0, -1.0, 0.0, 1.0, 200.0, 1e30])
    with tf.GradientTape() as tape:
        tape.watch([*parameters, raw])
        values = zinb.negative_log_likelihood(counts, *parameters)
        mean, dispersion = zinb.bounded_exp(raw), zinb.bounded_softplus(raw)
        total = tf.reduce_sum(values) + tf.reduce_sum(mean) + tf.reduce_sum(dispersion)
    assert np.isfinite(values).all()
    for gradient in tape.gradient(total, [*parameters, raw]):
        assert np.isfinite(gradient.numpy()).all()
    np.testing.assert_allclose([mean[0], mean[-1]], zinb.MEANS, rtol=1e-4)
    np.testing.assert_allclose([dispersion[0], dispersion[-1]], zinb.DISPERSIONS, rtol=1e-6)
    assert float(mean[4]) == pytest.approx(np.e, rel=1e-5)
    assert float(dispersion[3]) == pytest.approx(np.log(2), rel=1e-5)

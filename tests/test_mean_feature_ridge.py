"""The ridge on the mean of a slide's features: what it is, and how its strength is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from histospace_tf.data_pipelines import splits
from histospace_tf.predictors import mean_feature_ridge, probe, registry
from histospace_tf.vocabulary import InputError

SLIDES, F, GENES = 12, 4, 3


def made(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Means of slides and targets that follow them but for noise."""
    rng = np.random.default_rng(2)
    means = (rng.normal(size=(SLIDES, F)) * [1, 5, 0.1, 2] + 3).astype(np.float32)
    standard = (means - means.mean(axis=0)) / means.std(axis=0)
    targets = standard @ rng.normal(size=(F, GENES)) + noise * rng.normal(size=(SLIDES, GENES))
    return means, targets.astype(np.float32)


def groups(rows: np.ndarray, folds: int = 3) -> list[splits.Fold]:
    names = np.array([f"s{i}" for i in range(SLIDES)])
    index = splits.SpotIndex(names, names, np.zeros((SLIDES, 2)), np.zeros(SLIDES))
    return splits.inner_folds(index, rows, folds=folds)


def by_hand(
    means: np.ndarray, targets: np.ndarray, rows: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centre, scale, kernel and level of a ridge on standardised means, without components."""
    centre, scale = means[rows].mean(axis=0), means[rows].std(axis=0)
    x = ((means[rows] - centre) / scale).astype(np.float64)
    level = targets[rows].mean(axis=0)
    kernel = np.linalg.solve(x.T @ x + strength * np.eye(F), x.T @ (targets[rows] - level))
    return centre, scale, kernel, level


def said(ridge: tuple[np.ndarray, ...], means: np.ndarray) -> np.ndarray:
    centre, scale, kernel, level = ridge
    return (means - centre) / scale @ kernel + level


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_it_is_the_ridge_of_least_error_on_slides_of_inner_groups(noise: float) -> None:
    means, targets = made(noise)
    rows = np.arange(9)
    hidden = targets.copy()
    hidden[9:] = np.nan  # never read
    inner = groups(rows)
    fitted = mean_feature_ridge.fit(means, hidden, rows, inner, seed=0)
    errors = [
        sum(
            float(
                (
                    (said(by_hand(means, targets, f.train, a), means[f.test]) - targets[f.test])
                    ** 2
                ).sum()
            )
            for f in inner
        )
        for a in probe.STRENGTHS
    ]
    assert fitted.choice["strength"] == probe.STRENGTHS[int(np.argmin(errors))]
    assert (fitted.choice["features"], fitted.choice["by"]) == (F, "val_mse")
    expected = said(by_hand(means, targets, rows, fitted.choice["strength"]), means[9:])
    np.testing.assert_allclose(fitted.predict(means[9:]), expected, rtol=1e-4, atol=1e-4)
    tried = [row for row in fitted.history if row["stage"] == "mean_feature_ridge_inner1"]
    assert [row["strength"] for row in tried] == list(probe.STRENGTHS)


def test_features_that_say_nothing_leave_the_gene_mean_and_ones_that_do_are_used() -> None:
    means, targets = made(0.0)
    rows = np.arange(9)
    knows = mean_feature_ridge.fit(means, targets, rows, groups(rows), seed=0).predict(means[9:])
    level = targets[rows].mean(axis=0)
    # The weakest penalty, 1, still shrinks what nine slides say.
    assert ((knows - targets[9:]) ** 2).mean() < 0.5 * ((level - targets[9:]) ** 2).mean()
    errors = []  # of the ridge and of the gene mean, where features belong to other slides
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(targets)
        fitted = mean_feature_ridge.fit(means, shuffled, rows, groups(rows), seed=0)
        guesses = fitted.predict(means[9:]), shuffled[rows].mean(axis=0)
        errors.append([((guess - shuffled[9:]) ** 2).mean() for guess in guesses])
    ridge, constant = np.mean(errors, axis=0)
    assert ridge < 1.1 * constant


def test_more_features_than_slides_are_their_components() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(size=(SLIDES, 40)).astype(np.float32)
    targets = rng.normal(size=(SLIDES, GENES)).astype(np.float32)
    rows = np.arange(9)
    fitted = mean_feature_ridge.fit(means, targets, rows, groups(rows), seed=0)
    assert fitted.choice["components"] == 9
    centre, scale = means[rows].mean(axis=0), means[rows].std(axis=0)
    x, new = ((part - centre) / scale for part in (means[rows], means[9:]))
    level = targets[rows].mean(axis=0)
    # The kernel form: all components together are the features.
    dual = np.linalg.solve(x @ x.T + fitted.choice["strength"] * np.eye(9), targets[rows] - level)
    np.testing.assert_allclose(
        fitted.predict(means[9:]), new @ x.T @ dual + level, rtol=1e-3, atol=1e-3
    )


def test_two_slides_leave_nothing_to_choose_by_and_the_strongest_penalty() -> None:
    means, targets = made(0.0)
    rows = np.array([0, 1])
    fitted = mean_feature_ridge.fit(means, targets, rows, groups(rows), seed=0)
    assert (fitted.choice["strength"], fitted.choice["by"]) == (probe.STRENGTHS[-1], "fixed")
    np.testing.assert_allclose(fitted.predict(means[2:3])[0], targets[rows].mean(axis=0), atol=1e-3)


def test_means_are_over_tiles_and_a_spot_has_no_such_ridge() -> None:
    tiles = [np.arange(6.0).reshape(3, 2), np.ones((1, 2))]
    np.testing.assert_array_equal(mean_feature_ridge.means_of(tiles), [[2, 3], [1, 1]])
    entry = registry.entry("mean_feature_ridge")
    assert entry is not None
    assert "mean_feature_ridge" not in registry.comparable()
    with pytest.raises(InputError, match="slides as a whole"):
        entry.fit()  # type: ignore[call-arg]

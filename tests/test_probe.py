"""PCA and ridge on features that anything made: HEST's way, on the training side alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
from histospace_tf.folds import held_out_predictions
from histospace_tf.predictors import registry
from histospace_tf.predictors.probe import STRENGTHS, Probe
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config
from made.tissue import GENES, panel, section

CONFIG = tiny_config(tiles__mpp=None)
SPOTS, WIDTH = 20, 30  # of a section; of features
TRAIN = np.arange(3 * SPOTS)  # A1, B1, C1; D1 is held out
N = 4 * SPOTS


@pytest.fixture(scope="module")
def encoded() -> EncodedSpots:
    """Four sections without tiles."""
    sections = [section(f"{name}1", name, spots_xy=(5, 4)) for name in "ABCD"]
    spots = PairedSpots.of(sections, CONFIG)
    return EncodedSpots(spots, cast(Any, None), CONFIG, Path("unused"))


def made(*, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and measured values that are linear in three directions that vary most."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N, 3))
    features = 5 + factors @ rng.normal(size=(3, WIDTH)) + 0.1 * rng.normal(size=(N, WIDTH))
    values = 2 + factors @ rng.normal(size=(3, len(GENES))) + noise * rng.normal(size=(N, 4))
    return features.astype(np.float32), values.astype(np.float32)


def training_spots(encoded: EncodedSpots, measured: np.ndarray) -> TrainingSpots:
    known = np.full_like(measured, np.nan)
    known[TRAIN] = measured[TRAIN]
    nothing = np.zeros((0, 0))
    return TrainingSpots(encoded, TRAIN, panel(), known, nothing, nothing, nothing)


def fitted(
    encoded: EncodedSpots, features: np.ndarray, measured: np.ndarray, folder: Path
) -> tuple[np.ndarray, Any]:
    """What it says of D1, and the fitted probe."""
    session = Session(tf.distribute.get_strategy(), 0, False, folder)
    probe = Probe("made", lambda _: features)
    one = probe.fit(training_spots(encoded, measured), CONFIG, session)
    return one.predict(SpotsOfSection(encoded, 3, np.arange(60, 80), panel())), one


def test_it_is_the_ridge_on_principal_components_of_the_training_side(
    encoded: EncodedSpots, tmp_path: Path
) -> None:
    features, measured = made(noise=0.5)
    said, one = fitted(encoded, features, measured, tmp_path)
    exact = features.astype(np.float64)
    mean, deviation = exact[TRAIN].mean(axis=0), exact[TRAIN].std(axis=0)
    standard = (exact - mean) / deviation
    _, _, directions = np.linalg.svd(standard[TRAIN], full_matrices=False)
    components = standard @ directions.T
    learned, level = components[TRAIN], measured[TRAIN].mean(axis=0)
    gram = learned.T @ learned + one.choice["strength"] * np.eye(WIDTH)
    by_hand = components[60:] @ np.linalg.solve(gram, learned.T @ (measured[TRAIN] - level)) + level
    np.testing.assert_allclose(said, by_hand, rtol=1e-3, atol=1e-3)  # float32 features
    assert said.shape == (SPOTS, 4)
    assert said.dtype == np.float32
    correlations = [np.corrcoef(said[:, g], measured[60:, g])[0, 1] for g in range(4)]
    assert min(correlations) > 0.7
    assert one.choice["components"] == one.choice["features"] == WIDTH
    assert one.choice["strength"] in (100 / (WIDTH * 4), *STRENGTHS)
    assert one.choice["spots_without_features"] == 0


def test_inner_groups_choose_the_strength_by_r_per_gene(
    encoded: EncodedSpots, tmp_path: Path
) -> None:
    """Noise needs a strong penalty, an exact relation a weak one."""
    features, exact = made()
    noisy = exact + 4 * np.random.default_rng(1).normal(size=exact.shape).astype(np.float32)
    weak, strong = (
        fitted(encoded, features, values, tmp_path)[1].choice["strength"]
        for values in (exact, noisy)
    )
    assert weak < strong
    history = fitted(encoded, features, exact, tmp_path)[1].history
    inner = [row for row in history if str(row["stage"]).startswith("probe:made_inner")]
    assert len(inner) == 2 * (len(STRENGTHS) + 1)  # inner groups
    mean = {
        row["strength"]: np.mean(
            [r["val_gene_r"] for r in inner if r["strength"] == row["strength"]]
        )
        for row in inner
    }
    # Groups of one and two sections: the mean weighs them by their spots.
    assert mean[weak] > np.median(list(mean.values()))
    assert history[-1] == {"stage": "probe:made", "strength": weak}


def test_nothing_of_the_held_out_side_is_fitted(encoded: EncodedSpots, tmp_path: Path) -> None:
    """Held-out features may be anything: other held-out spots' predictions stay what they were."""
    features, measured = made(noise=0.5)
    before, _ = fitted(encoded, features, measured, tmp_path)
    features, measured = features.copy(), measured.copy()
    features[70:] *= 1e3
    measured[60:] = 1e6
    after, _ = fitted(encoded, features, measured, tmp_path)
    np.testing.assert_array_equal(before[:10], after[:10])
    assert not np.allclose(before[10:], after[10:])


def test_spots_without_features_take_no_part_and_get_the_training_mean(
    encoded: EncodedSpots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, measured = made(noise=0.5)
    features[[0, 5, 62]] = np.nan
    said, one = fitted(encoded, features, measured, tmp_path)
    with_them = np.setdiff1d(TRAIN, [0, 5])
    np.testing.assert_allclose(said[2], measured[with_them].mean(axis=0), rtol=1e-5)
    assert one.choice["spots_without_features"] == 3
    assert "3 of 80 spots have no features (2 of 60 in training)" in capsys.readouterr().err
    measured[[0, 5]] = 1e6  # of spots that take no part
    again, _ = fitted(encoded, features, measured, tmp_path)
    np.testing.assert_array_equal(said, again)


def test_more_features_than_spots_leave_as_many_components_as_spots(
    encoded: EncodedSpots, tmp_path: Path
) -> None:
    wide = np.random.default_rng(0).normal(size=(N, 500)).astype(np.float32)
    said, one = fitted(encoded, wide, made()[1], tmp_path)
    assert one.choice["components"] == 60
    assert np.isfinite(said).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f[1:], r"made: features of shape \(79, 30\), where .* is \(80, \.\.\.\)"),
        (lambda f: f[:, 0], r"features of shape \(80,\)"),
        (lambda f: _with(f, (21, 3), np.inf), "feature 4 of section 'B1', spot 's1', is inf"),
        (lambda f: _with(f, (79, 0), np.nan), "feature 1 of section 'D1', spot 's19', is nan"),
        (lambda f: _with(f, slice(1, 60), np.nan), "1 of 60 training spots have features"),
    ],
)
def test_features_that_do_not_fit_are_refused_by_name(
    encoded: EncodedSpots,
    spoil: Callable[[np.ndarray], np.ndarray],
    message: str,
    tmp_path: Path,
) -> None:
    features, measured = made()
    with pytest.raises(InputError, match=message):
        fitted(encoded, spoil(features), measured, tmp_path)


def _with(features: np.ndarray, at: Any, value: float) -> np.ndarray:
    changed = features.copy()
    changed[at] = value
    return changed


def test_one_that_the_registry_does_not_hold_is_asked_and_shown_by_its_name(
    encoded: EncodedSpots, tmp_path: Path
) -> None:
    features, measured = made()
    _, one = fitted(encoded, features, measured, tmp_path)
    (predicted,) = held_out_predictions.predicted(
        encoded, np.arange(60, 80), {"probe:made": one}, panel()
    )
    assert list(predicted.predictions) == ["probe:made"]
    assert registry.label("probe:made") == "probe of made"
    probe = Probe("made", lambda _: features)
    names = [each.name for each in registry.of_fold([probe])]
    assert names.index("model_single_tile") < names.index("probe:made") < names.index("gene_mean")

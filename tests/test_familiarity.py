"""How like the training tissue a tile is: distances calibrated on groups that were left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from histospace_tf.data_pipelines import splits
from histospace_tf.scores import familiarity
from histospace_tf.scores.familiarity import Familiarity
from histospace_tf.vocabulary import InputError

CHANNELS = 24
PATIENTS = np.repeat(["A", "B", "C", "D"], 100)


def described(seed: int, n: int = 400) -> np.ndarray:
    """Tiles that vary along three axes, and a little in all directions."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).normal(size=(3, CHANNELS))
    noise = rng.normal(0, 0.1, (n, CHANNELS))
    return 5 + rng.normal(size=(n, 3)) @ axes + noise


@pytest.fixture(scope="module")
def known() -> Familiarity:
    rows = np.arange(400)
    index = splits.SpotIndex(PATIENTS, PATIENTS, np.zeros((400, 2)), np.zeros(400))
    groups = splits.inner_folds(index, rows, folds=4)
    return familiarity.learned(described(1), rows, groups)


def test_new_tiles_of_the_same_kind_have_tail_shares_spread_evenly(known: Familiarity) -> None:
    new = known.of(described(2))
    assert known.left_out == "patient"
    assert new.dtype == np.float32
    assert new.min() >= 0
    assert new.max() <= 1
    assert 0.02 < (new < familiarity.STRANGE).mean() < 0.09
    assert np.quantile(new, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.1)


def test_what_the_training_tiles_never_varied_in_is_strange(known: Familiarity) -> None:
    tiles = described(3)
    off = np.random.default_rng(4).normal(size=CHANNELS)
    assert (known.of(tiles + 0.5 * off) < familiarity.STRANGE).mean() > 0.95
    # As far along an axis that they vary in is usual.
    axis = np.random.default_rng(0).normal(size=(3, CHANNELS))[0]
    along = 0.5 * axis * np.linalg.norm(off) / np.linalg.norm(axis)
    assert (known.of(tiles + along) < familiarity.STRANGE).mean() < 0.3


def test_tiles_off_the_training_side_are_not_read() -> None:
    tiles, rows = described(1), np.arange(200)
    index = splits.SpotIndex(PATIENTS, PATIENTS, np.zeros((400, 2)), np.zeros(400))
    groups = splits.inner_folds(index, rows, folds=4)
    found = familiarity.learned(tiles, rows, groups)
    tiles[200:] = np.nan
    again = familiarity.learned(tiles, rows, groups)
    np.testing.assert_array_equal(found.of(described(2)), again.of(described(2)))


def test_few_tiles_and_dead_channels_give_numbers() -> None:
    tiles = described(1, 6)
    tiles[:, 3] = 0.25
    index = splits.SpotIndex(
        np.array(list("AABBCC")), np.array(["P"] * 6), np.zeros((6, 2)), np.zeros(6)
    )
    groups = splits.inner_folds(index, np.arange(6), folds=4)
    found = familiarity.learned(tiles, np.arange(6), groups)
    assert found.left_out == "section"
    values = found.of(described(2, 9))
    assert np.isfinite(values).all()


def test_it_is_kept_in_a_small_file(known: Familiarity, tmp_path: Path) -> None:
    path = tmp_path / familiarity.FILE
    known.save(path)
    assert path.stat().st_size < 10_000
    np.testing.assert_array_equal(Familiarity.load(path).of(described(2)), known.of(described(2)))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"familiarity\.npz cannot be read"):
        Familiarity.load(path)


@pytest.mark.parametrize(
    ("strange", "words", "unlike"),
    [(1, "like the training", False), (5, "partly unlike", False), (10, "unlike the", True)],
)
def test_a_slides_verdict(strange: int, words: str, unlike: bool) -> None:
    values = np.where(np.arange(16) < strange, 0.01, 0.6)
    said = familiarity.verdict(values, "patient")
    assert said.startswith(words)
    assert f"{strange} of 16 places" in said
    assert "5% of new patients' tiles" in said
    assert familiarity.is_unlike(values) is unlike

"""Folds: what they keep apart, in every combination of patients, sections and spots."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from histospace_tf.data_pipelines import splits
from histospace_tf.data_pipelines.splits import Fold, SpotIndex
from histospace_tf.vocabulary import InputError


def made_index(sizes: dict[str, int], gap: float = 150.0, seed: int = 0) -> SpotIndex:
    """Sections by name with their numbers of spots; a section's first letter is its patient."""
    random = np.random.default_rng(seed)
    section = np.repeat(list(sizes), list(sizes.values()))
    n = len(section)
    return SpotIndex(
        section=section,
        patient=np.array([name[0] for name in section]),
        centres_px=random.uniform(0, [1000, 3000], (n, 2)),
        gap_px=np.full(n, gap),
    )


COHORT = {"B4": 30, "C2": 20, "C3": 12, "C4": 25, "D1": 18, "D2": 17}


def names_of(index: SpotIndex, rows: np.ndarray) -> set[str]:
    return set(index.section[rows].tolist())


def test_a_held_out_section_is_the_test_side_and_everything_else_is_trained_on() -> None:
    index = made_index(COHORT)
    fold = splits.outer_fold(index, ["C4"])
    assert names_of(index, fold.test) == {"C4"}
    assert names_of(index, fold.train) == set(COHORT) - {"C4"}
    assert len(fold.train) + len(fold.test) == len(index)
    assert (fold.kind, fold.held_out) == ("section", ("C4",))
    assert splits.leaking_patients(index, fold) == ("C",)


def test_a_held_out_patient_takes_all_its_sections_along() -> None:
    index = made_index(COHORT)
    fold = splits.outer_fold(index, ["C"])
    assert names_of(index, fold.test) == {"C2", "C3", "C4"}
    assert (fold.kind, fold.held_out) == ("patient", ("C",))
    assert splits.leaking_patients(index, fold) == ()


def test_kind_says_what_is_true_of_the_named_sections() -> None:
    index = made_index(COHORT)
    assert splits.outer_fold(index, ["B4"]).kind == "patient"
    assert splits.outer_fold(index, ["D1", "D2", "D1"]).kind == "patient"
    assert splits.outer_fold(index, ["D1", "D2", "D1"]).held_out == ("D1", "D2")
    assert splits.outer_fold(index, ["B", "C2"]).kind == "section"


def test_a_name_that_is_patient_and_section_means_the_section() -> None:
    index = SpotIndex(
        section=np.array(["A", "A2", "B1"]),
        patient=np.array(["A", "A", "B"]),
        centres_px=np.zeros((3, 2)),
        gap_px=np.zeros(3),
    )
    assert splits.outer_fold(index, ["A"]).test.tolist() == [0]


def test_unknown_name_is_refused_with_its_nearest_and_all_known() -> None:
    index = made_index(COHORT)
    with pytest.raises(InputError, match=r"named 'c5'.*'B', 'C', 'D'.*'B4', 'C2'"):
        splits.outer_fold(index, ["c5"])
    with pytest.raises(InputError, match="did you mean 'C4'"):
        splits.outer_fold(index, ["c4"])


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(InputError, match=r"leaves nothing to train on: .* 3 patient"):
        splits.outer_fold(made_index(COHORT), ["B", "C", "D"])
    with pytest.raises(InputError, match="leaves nothing to train on"):
        splits.outer_fold(made_index({"C4": 9}), ["C4"])
    with pytest.raises(InputError, match="no spots"):
        splits.outer_fold(made_index({}), [])


@pytest.mark.parametrize(
    ("sizes", "kind", "held_out"),
    [
        (COHORT, "patient", "B"),
        ({"C2": 9, "C3": 5, "C4": 7}, "section", "C3"),
        ({"A1": 5, "B1": 5}, "patient", "A"),
        ({"C4": 40}, "block", "C4 block 5 of 5"),
    ],
)
def test_without_names_the_smallest_group_is_held_out(
    sizes: dict[str, int], kind: str, held_out: str
) -> None:
    fold = splits.outer_fold(made_index(sizes), [])
    assert (fold.kind, fold.held_out) == (kind, (held_out,))


def test_a_default_block_holds_out_a_fifth() -> None:
    index = made_index({"C4": 200})
    fold = splits.outer_fold(index, [])
    assert len(fold.test) == 40
    assert 100 < len(fold.train) < 160  # the gap takes some
    splits.refuse_leak(index, fold, by="block")


INDEXES = {
    "patients": made_index(COHORT),
    "sections": made_index({"C2": 20, "C3": 12, "C4": 25}),
    "one section": made_index({"C4": 120}),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("folds", [1, 2, 3, 4, 10])
def test_inner_folds_never_overlap_and_stay_within_the_training_side(name: str, folds: int) -> None:
    index = INDEXES[name]
    rows = np.arange(len(index))[::-1][: len(index) - 3]
    made = splits.inner_folds(index, rows, folds=folds)
    assert 1 <= len(made) <= folds
    for fold in made:
        assert len(fold.train)
        assert len(fold.test)
        assert not set(fold.train) & set(fold.test)
        assert set(fold.train) | set(fold.test) <= set(rows.tolist())
        assert (np.diff(fold.train) > 0).all()
        assert (np.diff(fold.test) > 0).all()
        splits.refuse_leak(index, fold, by=fold.kind)
    for one, other in itertools.combinations(made, 2):
        assert not set(one.test) & set(other.test)
    if folds > 1:
        assert set(np.concatenate([fold.test for fold in made])) == set(rows.tolist())


@pytest.mark.parametrize("seed", range(10))
def test_patient_folds_never_share_a_patient(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = {f"{p}{s}": int(random.integers(1, 30)) for p in "ABCDEFG" for s in range(3)}
    index = made_index(sizes, seed=seed)
    for fold in splits.inner_folds(index, np.arange(len(index)), folds=int(random.integers(1, 9))):
        assert fold.kind == "patient"
        assert splits.leaking_patients(index, fold) == ()
        assert not set(index.patient[fold.train]) & set(index.patient[fold.test])
        assert set(fold.held_out) == set(index.patient[fold.test].tolist())


def test_inner_kind_follows_the_rows_and_not_the_whole_index() -> None:
    index = made_index(COHORT)
    for rows_of, kind in ((set(COHORT), "patient"), ({"C2", "C3"}, "section"), ({"C4"}, "block")):
        rows = np.flatnonzero([name in rows_of for name in index.section])
        made = splits.inner_folds(index, rows, folds=4)
        assert {fold.kind for fold in made} == {kind}
        assert len(made) == {"patient": 3, "section": 2, "block": 4}[kind]


def test_more_groups_than_folds_are_merged_into_about_equal_parts() -> None:
    index = made_index({f"{p}1": 10 for p in "ABCDEFGH"} | {"Z1": 40})
    made = splits.inner_folds(index, np.arange(len(index)), folds=3)
    assert sorted(len(fold.test) for fold in made) == [40, 40, 40]


def test_a_single_inner_fold_holds_out_the_smallest_group() -> None:
    (fold,) = splits.inner_folds(made_index(COHORT), np.arange(122), folds=1)
    assert fold.held_out == ("B",)
    (fold,) = splits.inner_folds(made_index({"C4": 100}), np.arange(100), folds=1)
    assert len(fold.test) == 20


@pytest.mark.parametrize("gap", [0.0, 100.0, 200.0])
def test_block_folds_are_contiguous_and_keep_the_gap(gap: float) -> None:
    index, left_out = made_index({"C4": 150}, gap=gap), 0
    for fold in splits.inner_folds(index, np.arange(150), folds=4):
        test, train = index.centres_px[fold.test], index.centres_px[fold.train]
        apart = np.abs(test[:, None] - train[None]).max(axis=2)  # tiles are squares
        assert apart.min() > gap
        # The longer side is y: no training spot lies between two held-out ones.
        low, high = test[:, 1].min(), test[:, 1].max()
        assert not ((train[:, 1] > low) & (train[:, 1] < high)).any()
        left_out += 150 - len(fold.train) - len(fold.test)
    assert (left_out > 0) == (gap > 0)


def test_blocks_of_a_regular_grid_have_equal_sizes() -> None:
    x, y = np.meshgrid(np.arange(10), np.arange(10))
    index = SpotIndex(
        section=np.full(100, "S"),
        patient=np.full(100, "P"),
        centres_px=np.stack([x.ravel(), y.ravel()], axis=1) * 290.0,
        gap_px=np.full(100, 224.0),
    )
    made = splits.inner_folds(index, np.arange(100), folds=4)
    assert [len(fold.test) for fold in made] == [25, 25, 25, 25]
    assert all(len(fold.train) <= 75 for fold in made)


def test_splits_do_not_depend_on_the_order_of_sections() -> None:
    index = made_index(COHORT)
    order = np.random.default_rng(3).permutation(len(index))
    shuffled = SpotIndex(
        index.section[order], index.patient[order], index.centres_px[order], index.gap_px[order]
    )
    for one, other in zip(
        splits.inner_folds(index, np.arange(len(index)), folds=2),
        splits.inner_folds(shuffled, np.arange(len(index)), folds=2),
        strict=True,
    ):
        assert one.held_out == other.held_out
        assert set(one.test) == set(order[other.test])


def test_changed_spots_of_the_held_out_side_leave_inner_folds_unchanged() -> None:
    index = made_index(COHORT)
    outer = splits.outer_fold(index, ["C4"])
    centres = index.centres_px.copy()
    centres[outer.test] = centres[outer.test] * 7 + 1
    changed = SpotIndex(index.section, index.patient, centres, index.gap_px)
    for one, other in zip(
        splits.inner_folds(index, outer.train, folds=4),
        splits.inner_folds(changed, outer.train, folds=4),
        strict=True,
    ):
        assert one.train.tobytes() == other.train.tobytes()
        assert one.test.tobytes() == other.test.tobytes()


def test_inner_folds_refuse_what_cannot_be_split() -> None:
    index = made_index(COHORT)
    with pytest.raises(InputError, match="at least 1"):
        splits.inner_folds(index, np.arange(9), folds=0)
    with pytest.raises(InputError, match="at least 2"):
        splits.inner_folds(index, np.array([3]), folds=2)
    with pytest.raises(InputError, match="between 0 and 121"):
        splits.inner_folds(index, np.array([0, 122]), folds=2)
    dense = made_index({"C4": 20}, gap=1e6)
    with pytest.raises(InputError, match=r"section 'C4': its 20 spot.* add a section"):
        splits.inner_folds(dense, np.arange(20), folds=2)


def test_refuse_leak_names_the_patient_the_section_and_the_spot() -> None:
    index = made_index(COHORT)
    by_section = splits.outer_fold(index, ["C4"])
    splits.refuse_leak(index, by_section, by="section")
    with pytest.raises(InputError, match="patient 'C' would be on both sides"):
        splits.refuse_leak(index, by_section, by="patient")
    half = Fold(np.arange(10), np.arange(10, 30), "block", ("B4",))
    with pytest.raises(InputError, match="section 'B4' would be on both sides"):
        splits.refuse_leak(index, half, by="section")
    with pytest.raises(InputError, match=r"section 'B4': .* within 150 px"):
        splits.refuse_leak(index, half, by="block")
    twice = Fold(np.arange(10), np.arange(9, 30), "block", ("B4",))
    with pytest.raises(InputError, match=r"1 spots \(first: row 9\) are on both sides"):
        splits.refuse_leak(index, twice, by="section")
    with pytest.raises(InputError, match="patient, section, block"):
        splits.refuse_leak(index, half, by="spot")


def test_spot_index_refuses_shapes_that_do_not_agree_and_a_shared_section_name() -> None:
    index = made_index(COHORT)
    with pytest.raises(InputError, match="gap_px of shape"):
        SpotIndex(index.section, index.patient, index.centres_px, index.gap_px[:3])
    with pytest.raises(InputError, match="finite"):
        SpotIndex(index.section, index.patient, index.centres_px * np.nan, index.gap_px)
    patients = index.patient.copy()
    patients[0] = "X"
    with pytest.raises(InputError, match="section 'B4' belongs to 2 patients: 'B', 'X'"):
        SpotIndex(index.section, patients, index.centres_px, index.gap_px)

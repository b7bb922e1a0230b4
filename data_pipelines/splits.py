"""Splits of spots into training and held-out spots, and checks against leaks.

A fold's `train` and `test` are sorted row numbers of one SpotIndex that never overlap. Three kinds:

* "patient": no patient has spots on both sides. Scores hold for new patients.
* "section": no section has spots on both sides, some patient has: more tissue of known patients.
* "block": one section is cut across its longer side. Spots whose tiles could share pixels with a
  held-out tile (both coordinates within `gap_px`) are on neither side.

Groups with equal numbers of spots are ordered by name, so a split depends on the data alone, not
on the order of its sections, and there is no seed. Expression is never used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.data_pipelines.genes.lists import nearest_names
from histospace_tf.data_pipelines.patients import same_as
from histospace_tf.vocabulary import InputError, named

KINDS = ("patient", "section", "block")
# What a patient on both sides means, wherever that is said.
LEAK = (
    "the scores hold for more tissue of patients that were trained on, not for patients never seen"
)
_BLOCKS = 5  # where one block of a section is held out: about 20 % of its spots


@dataclasses.dataclass(frozen=True, eq=False)
class SpotIndex:
    """What a split needs of n spots, one row per spot.

    section, patient: (n,) names; a section belongs to one patient.
    centres_px: (n, 2) full-resolution pixels of the spot's own image, x first.
    gap_px: (n,) distance to keep between spots of two sides of one section: a tile's side.
    """

    section: np.ndarray
    patient: np.ndarray
    centres_px: np.ndarray
    gap_px: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.section)
        for name, shape in {"patient": (n,), "centres_px": (n, 2), "gap_px": (n,)}.items():
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"spot index: {n} spots need {name} of shape {shape}, not "
                    f"{getattr(self, name).shape}"
                )
        if not (np.isfinite(self.centres_px).all() and (self.gap_px >= 0).all()):
            raise InputError("spot index: centres must be finite and gaps 0 or more")
        for section in np.unique(self.section):
            patients = np.unique(self.patient[self.section == section])
            if len(patients) > 1:
                raise InputError(
                    f"section {str(section)!r} belongs to {len(patients)} patients: "
                    f"{named([str(p) for p in patients])}; section names must be unique"
                )

    def __len__(self) -> int:
        return len(self.section)


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """Rows to train on and rows held out.

    train: (k,) int; test: (m,) int; kind: one of KINDS; held_out: names of what is in `test`.
    """

    train: np.ndarray
    test: np.ndarray
    kind: str
    held_out: tuple[str, ...]


def outer_fold(index: SpotIndex, hold_out: Sequence[str] = ()) -> Fold:
    """Splits off the spots that nothing is fitted or chosen on.

    Args:
        hold_out: names of sections or patients; a patient may be written in any way that
            `patients.same_as` takes for the same. A name that is both means the section. Without
            names: of two or more patients the one with fewest spots; else of two or more sections
            the one with fewest spots; else a block of about a fifth of the only section.
    Returns:
        A fold whose `kind` says what is true of it: "patient" where the named sections are all
        that their patients have, else "section" (or "block").
    Raises:
        InputError: a name that is no section or patient; nothing left to train on.
    """
    names = list(dict.fromkeys([hold_out] if isinstance(hold_out, str) else hold_out))
    if not len(index):
        raise InputError("there are no spots to split")
    if not names:
        kind, groups = _groups(index, np.arange(len(index)))
        if kind == "block":
            return _block_folds(index, np.arange(len(index)), _BLOCKS)[-1]
        names = [_smallest(groups)]
    sections, patients = set(index.section.tolist()), set(index.patient.tolist())
    held = np.zeros(len(index), bool)
    names = list(dict.fromkeys(_as_written(name, sections, patients) for name in names))
    for name in names:
        if name not in sections | patients:
            near = nearest_names(name, sorted(sections | patients), 1)
            raise InputError(
                f"nothing to hold out is named {name!r}"
                + (f"; did you mean {near[0]!r}? " if near else ". ")
                + f"Patients: {named(sorted(patients), 20)}. Sections: "
                f"{named(sorted(sections), 20)}."
            )
        held |= (index.section if name in sections else index.patient) == name
    if held.all():
        raise InputError(
            f"holding out {named(names)} leaves nothing to train on: the data have "
            f"{len(patients)} patient(s) and {len(sections)} section(s); hold out fewer"
        )
    fold = Fold(np.flatnonzero(~held), np.flatnonzero(held), "patient", tuple(names))
    return dataclasses.replace(fold, kind="section") if leaking_patients(index, fold) else fold


def _as_written(name: str, sections: set[str], patients: set[str]) -> str:
    """The data's name of a patient that is written in another way; any other name unchanged."""
    if name in sections | patients:
        return name
    same = [patient for patient in patients if same_as(patient) == same_as(name)]
    return same[0] if len(same) == 1 else name


def inner_folds(index: SpotIndex, rows: np.ndarray, *, folds: int) -> list[Fold]:
    """Splits the training side again, to choose epochs and settings on.

    By patient where `rows` have two or more, else by section where two or more, else by blocks.

    Args:
        rows: row numbers of `index` that belong to the training side; only these are used.
        folds: at most so many. Where there are more groups, they are merged into `folds` parts of
            about equal numbers of spots; 1 holds out the group with fewest spots alone (of one
            section: a block of about a fifth).
    Returns:
        At least one fold; row numbers are those of `index`. Test sides do not overlap.
    Raises:
        InputError: fewer than two rows, rows that are not in the index, `folds` below 1, or a
            section so small that the gap leaves nothing beside a block.
    """
    rows = np.unique(np.asarray(rows, np.intp))
    if folds < 1:
        raise InputError(f"{folds} inner folds: at least 1 is needed")
    if len(rows) and not (rows[0] >= 0 and rows[-1] < len(index)):
        raise InputError(f"training rows must lie between 0 and {len(index) - 1}")
    if len(rows) < 2:
        raise InputError(
            f"{len(rows)} training spot(s) cannot be split further; at least 2 are needed"
        )
    kind, groups = _groups(index, rows)
    if kind == "block":
        made = _block_folds(index, rows, _BLOCKS if folds == 1 else folds)
        return made[-1:] if folds == 1 else made
    parts = [[_smallest(groups)]] if folds == 1 else _merged(groups, folds)
    made = []
    for names in parts:
        test = np.sort(np.concatenate([groups[name] for name in names]))
        made.append(Fold(np.setdiff1d(rows, test), test, kind, tuple(names)))
    return made


def leaking_patients(index: SpotIndex, fold: Fold) -> tuple[str, ...]:
    """Patients with spots on both sides of `fold`, sorted."""
    return _on_both_sides(index.patient, fold)


def refuse_leak(index: SpotIndex, fold: Fold, *, by: str) -> None:
    """Refuses a fold that is not of the kind that it is called.

    Args:
        by: "patient" or "section": none may be on both sides; "block": no training spot may lie
            within the gap of a held-out one of its section.
    Raises:
        InputError: naming what is on both sides; or `by` is not one of KINDS.
    """
    if by not in KINDS:
        raise InputError(f"no split by {by!r}; one of {', '.join(KINDS)} works")
    twice = np.intersect1d(fold.train, fold.test)
    if len(twice):
        raise InputError(f"{len(twice)} spots (first: row {twice[0]}) are on both sides of a fold")
    if by == "block":
        near = np.intersect1d(fold.train, _near(index, fold.test))
        if len(near):
            section = str(index.section[near[0]])
            raise InputError(
                f"section {section!r}: {len(near)} training spots (first: row {near[0]}) lie "
                f"within {index.gap_px[near[0]]:g} px of a held-out spot"
            )
        return
    leaks = _on_both_sides(index.patient if by == "patient" else index.section, fold)
    if leaks:
        hint = "; hold out all of their sections, or split by section" if by == "patient" else ""
        raise InputError(f"{by} {named(leaks)} would be on both sides of the split{hint}")


def _on_both_sides(names: np.ndarray, fold: Fold) -> tuple[str, ...]:
    """Names of spots that stand on both sides of a fold, sorted."""
    both = np.intersect1d(names[fold.train], names[fold.test])
    return tuple(str(name) for name in both)


def _groups(index: SpotIndex, rows: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    """The coarsest kind of group that `rows` have two or more of, and each group's rows by name."""
    for kind, names in (("patient", index.patient), ("section", index.section)):
        unique = np.unique(names[rows])
        if len(unique) > 1:
            return kind, {str(name): rows[names[rows] == name] for name in unique}
    return "block", {}


def _smallest(groups: dict[str, np.ndarray]) -> str:
    """The group with fewest spots; of equal ones the first by name."""
    return min(groups, key=lambda name: (len(groups[name]), name))


def _merged(groups: dict[str, np.ndarray], parts: int) -> list[list[str]]:
    """Names in at most `parts` lists: the largest first, each to the list with fewest spots."""
    lists: list[list[str]] = [[] for _ in range(min(parts, len(groups)))]
    sizes = [0] * len(lists)
    for name in sorted(groups, key=lambda name: (-len(groups[name]), name)):
        at = sizes.index(min(sizes))
        lists[at].append(name)
        sizes[at] += len(groups[name])
    return sorted(sorted(names) for names in lists)


def _block_folds(index: SpotIndex, rows: np.ndarray, blocks: int) -> list[Fold]:
    """`rows`, all of one section, cut across the longer side into blocks of equal numbers."""
    section, centres = str(index.section[rows[0]]), index.centres_px[rows]
    long = int(np.argmax(np.ptp(centres, axis=0)))
    order = rows[np.lexsort((rows, centres[:, 1 - long], centres[:, long]))]
    pieces = np.array_split(order, min(blocks, len(rows)))
    made = []
    for number, piece in enumerate(pieces, start=1):
        train = np.setdiff1d(rows, _near(index, piece))
        if len(train):
            name = f"{section} block {number} of {len(pieces)}"
            made.append(Fold(train, np.sort(piece), "block", (name,)))
    if not made:
        raise InputError(
            f"section {section!r}: its {len(rows)} spot(s) lie within {index.gap_px[rows[0]]:g} px "
            "of each other, so holding out a block leaves nothing to train on; add a section"
        )
    return made


def _near(index: SpotIndex, test: np.ndarray) -> np.ndarray:
    """Rows whose tile could share pixels with a tile of `test`, these rows included."""
    rows = [np.asarray(test, np.intp)]
    for section in np.unique(index.section[test]):
        here = np.flatnonzero(index.section == section)
        held = np.intersect1d(here, test)
        gap = index.gap_px[here].max()
        # Tiles are squares: they are apart once one coordinate differs by more than their side.
        distance, _ = cKDTree(index.centres_px[held]).query(index.centres_px[here], p=np.inf)
        rows.append(here[distance <= gap])
    return np.unique(np.concatenate(rows))

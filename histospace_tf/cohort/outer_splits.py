"""The outer folds of an evaluation: which groups are held out in turn, and what leaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from histospace_tf.data_pipelines import splits
from histospace_tf.data_pipelines.splits import LEAK
from histospace_tf.vocabulary import InputError


def default_split(index: splits.SpotIndex) -> str:
    """By patient where there are two or more, else by section."""
    return "patient" if len(np.unique(index.patient)) > 1 else "section"


def outer_folds(index: splits.SpotIndex, by: str) -> list[splits.Fold]:
    """A fold for every patient, with all of its sections, or for every section.

    Raises:
        InputError: fewer than two of them.
    """
    names = index.patient if by == "patient" else index.section
    groups = dict.fromkeys(str(name) for name in names)
    if len(groups) < 2:
        other = (
            "`split` section works with two or more sections"
            if by == "patient"
            else "`histospace-tf fit` holds out a part of one section"
        )
        raise InputError(
            f"evaluate `split` {by} needs two {by}s or more; there is only {next(iter(groups))!r}. "
            f"{other}"
        )
    folds = []
    for name in groups:
        # By their names: a patient may be called like a section.
        sections = dict.fromkeys(str(section) for section in index.section[names == name])
        fold = splits.outer_fold(index, list(sections))
        folds.append(dataclasses.replace(fold, held_out=(name,)))
    return folds


def leaking(index: splits.SpotIndex, folds: Sequence[splits.Fold]) -> list[str]:
    """Patients that some fold has on both sides, sorted."""
    return sorted({name for fold in folds for name in splits.leaking_patients(index, fold)})


def leak_warning(patients: Sequence[str]) -> str:
    """What a split by section means for patients with several sections."""
    of_several = f"patient {', '.join(patients)}"
    return (
        f"Warning: split by section, {of_several} leaks: sections of the same patient are trained "
        f"on when one is held out; {LEAK}."
    )

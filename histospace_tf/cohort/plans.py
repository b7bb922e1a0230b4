"""What a job works on: its spots, their tiles once they are cut, and its folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from histospace_tf import provenance
from histospace_tf.cohort import paired, reading
from histospace_tf.cohort.count_sections import CountSection
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import gene_panel, splits
from histospace_tf.vocabulary import Cohort, InputError, ids_by_name


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A job, laid out.

    cohort: as read, with sections that have no image.
    spots: of the sections with an image, beside those that teach by counts alone; `with_tiles` cuts
        the former's tiles.
    choose: spots -> folds; folds: of `spots`.
    checksums: of every section's files, for manifests.
    """

    cohort: Cohort
    spots: PairedSpots
    choose: Callable[[PairedSpots], list[splits.Fold]]
    folds: list[splits.Fold]
    checksums: dict[str, dict[str, str]]


def planned(
    config: Config,
    cohort: Cohort,
    *,
    counts: Sequence[CountSection],
    choose: Callable[[PairedSpots], list[splits.Fold]],
) -> Plan:
    """Lays out a job's spots and folds, and tries all that may fail in them later.

    Args:
        config: of the run.
        cohort: of `reading.read_cohort`; counts: of `count_sections.read`.
        choose: spots -> folds.
    Raises:
        InputError: a mistake in the names of the split or of the panel; a training side that cannot
            be split further; no scale to smooth at.
    """
    spots = PairedSpots.of(reading.usable_sections(cohort, config), config, counts=counts)
    folds = choose(spots)
    for fold in folds:
        training_panel(spots, fold, config)
        if config.regressor.uses_inner_groups:
            splits.inner_folds(spots.index, fold.train, folds=config.regressor.inner_folds)
        if config.target.smooth_um:
            for number in spots.sections_in(fold.train):
                paired.smoothing_px(spots.sections[number], config)
    # Of what was read: cutting tiles may leave out spots at an image's edge.
    checksums = provenance.checksums(spots.sections)
    checksums |= {one.section.name: one.checksum for one in counts}
    return Plan(cohort, spots, choose, folds, checksums)


def with_tiles(
    plan: Plan, config: Config, work: Path, *, own_encoders: bool, slide_context: bool = False
) -> Plan:
    """Cuts every section's tiles once, for all folds.

    Args:
        plan: of `planned`.
        config: of the run.
        work: tiles are kept in its folder "tiles".
        own_encoders: each fold trains an encoder on its training sections' tiles.
        slide_context: something reads the slides' tissue tiles, though the run's own head may not.
    Raises:
        InputError: an image that cannot be read.
    """
    spots = plan.spots
    per_fold = [spots.sections_in(fold.train) for fold in plan.folds] if own_encoders else []
    spots = paired.cut_tiles(
        spots,
        changed(config, regressor__architecture="context") if slide_context else config,
        work / "tiles",
        pretrain_on=sorted({number for numbers in per_fold for number in numbers}),
        # As many as the fold with the fewest training sections takes of each.
        share=max((paired.pretrain_share(len(n), config) for n in per_fold), default=0),
    )
    return dataclasses.replace(plan, spots=spots, folds=plan.choose(spots))


def training_panel(spots: PairedSpots, fold: splits.Fold, config: Config) -> tuple[str, ...]:
    """The genes that the training side chooses."""
    tables = [spots.spots_of(number, fold.train) for number in spots.sections_in(fold.train)]
    return gene_panel.choose_panel(tables, config.target)


def shared_panel(plan: Plan, config: Config) -> tuple[tuple[str, ...], dict[str, str], int]:
    """The genes that every fold predicts, in the first one's order; their ids by name; how many the
    smallest panel has."""
    panels = [training_panel(plan.spots, fold, config) for fold in plan.folds]
    genes = [gene for gene in panels[0] if all(gene in panel for panel in panels)]
    tables = [section.spots for section in plan.spots.sections]
    ids = gene_panel.gene_ids(tables, genes)
    return tuple(genes), ids_by_name(genes, ids), min(map(len, panels))


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
        f"on when one is held out; {splits.LEAK}."
    )

"""The paired data of a run: read, noted, checked; sections and spots that can be worked on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.config import Config
from histospace_tf.data_pipelines import readers, simulation
from histospace_tf.data_pipelines.genes import species
from histospace_tf.outputs import say
from histospace_tf.vocabulary import Cohort, InputError, Section

FEW_COUNTS = 20  # a spot with fewer says next to nothing about any gene


def read_cohort(
    data: Path | None,
    work: Path,
    *,
    config: Config,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    hold_out: Sequence[str] = (),
) -> Cohort:
    """The data of a run; without `data`, tissue is simulated into `work`/simulated_tissue.

    Args:
        data: folder or file; None: simulated tissue.
        work: folder of the run.
        config: its seed is the simulation's.
        layout, image, mpp, section_column: as of `readers.read_cohort`.
        hold_out: patients or sections that must be there.
    Raises:
        InputError: as `readers.read_cohort`; a section that is left out for an error is in
            `hold_out`, is all that a patient in it has, or all that would be left to train on; a
            name in `hold_out` is one patient's section and another patient.
    """
    if data is None:
        data = work / "simulated_tissue"
        if not data.exists():
            say("No DATA given: tissue is simulated, of patients that never were.")
            n = simulation.DEFAULT_PATIENTS
            with tqdm(total=n, desc="Simulating", unit="patient", delay=2) as bar:
                simulation.simulate(data, patients=n, seed=config.seed, progress=bar.update)
    cohort = readers.read_cohort(
        data,
        layout=layout,
        image=image,
        mpp=mpp,
        section_column=section_column,
        tile=config.tiles,
    )
    for problem in cohort.problems:
        say(str(problem))
    _refuse_hold_out(cohort, hold_out)
    whose = species.finding(cohort.sections)
    for unlike in (cohort_genes.mixed_kinds(cohort.sections), whose):
        if unlike is not None and unlike.severity == "error":
            raise InputError(str(unlike))
    if whose is not None:
        say(str(whose))
    cohort, lacking = cohort_genes.on_shared_genes(cohort)
    if lacking is not None and lacking.severity == "error":
        raise InputError(str(lacking))
    if lacking is not None:
        say(str(lacking))
    return cohort


def _refuse_hold_out(cohort: Cohort, hold_out: Sequence[str]) -> None:
    """Refuses what cannot be held out, or could be meant in two ways."""
    for name in hold_out:
        owners = {section.patient for section in cohort.sections if section.name == name}
        if owners and name in cohort.patients and name not in owners:
            raise InputError(
                f"`hold_out` {name}: it is a section of patient {min(owners)!r} and the name of "
                "another patient; name that patient's sections, or rename one of the two"
            )
    there = {section.name for section in cohort.sections} | set(cohort.patients)
    for section in cohort.left_out:
        for name in (section.name, section.patient):
            if name in hold_out and name not in there:
                raise InputError(
                    f"`hold_out` {name}: section {section.name} cannot be used ({section.why})"
                )
    held = set(hold_out)
    if cohort.left_out and all({s.name, s.patient} & held for s in cohort.sections):
        reasons = "; ".join(f"section {s.name}: {s.why}" for s in cohort.left_out)
        raise InputError(
            f"`hold_out` {', '.join(hold_out)} leaves nothing to train on, because "
            f"{len(cohort.left_out)} section(s) cannot be used ({reasons})"
        )


def usable_sections(cohort: Cohort, config: Config) -> list[Section]:
    """Sections with an image, and their spots with `min_counts`.

    Raises:
        InputError: no section, or no spot of a section, is left.
    """
    usable = [_with_counts(section, config.target.min_counts) for section in cohort.with_image()]
    if not usable:
        raise InputError(
            f"{cohort.source}: none of {len(cohort.sections)} section(s) has an image; "
            "full-resolution H&E images are needed"
        )
    return usable


def _with_counts(section: Section, least: int) -> Section:
    """The section without spots that have fewer counts than `least`."""
    totals, where = section.spots.total_counts, f"section {section.name}"
    kept = totals >= least
    if not kept.any():
        raise InputError(
            f"{where}: none of {len(kept)} spots has {least} counts (most: {totals.max():g}); "
            "target.min_counts must be lower"
        )
    if not kept.all():
        say(
            f"{where}: {(~kept).sum()} of {len(kept)} spots have fewer than {least} counts: skipped"
        )
    few = int((totals[kept] < FEW_COUNTS).sum())
    if few:
        say(
            f"{where}: {few} of {kept.sum()} spots have fewer than {FEW_COUNTS} counts, whose "
            "values are noise; target.min_counts (`config`) leaves such spots out"
        )
    return dataclasses.replace(section, spots=section.spots.subset(kept))

"""The folder of a run, from its first file to its last.

While a run goes on, everything lies in RUN.partial beside RUN; that folder becomes RUN when all is
done. `resume` goes on from RUN.partial: finished parts are read, a cut-off training goes on at its
epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import distribution, metrics, outputs
from histospace_tf.checks import gene_checks
from histospace_tf.config import Config
from histospace_tf.data_pipelines import readers, simulation
from histospace_tf.data_pipelines.genes import species
from histospace_tf.outputs import say
from histospace_tf.vocabulary import Cohort, InputError, Section

FEW_COUNTS = 20  # a spot with fewer says next to nothing about any gene
# Parts of a partial run that a finished one does not keep.
SCRATCH = ("tiles", "features", "checkpoints", "held_out", "tfds_images", "started.json")


HISTORY = (
    "stage",
    "epoch",
    "strength",
    "loss",
    "val_loss",
    "val_gene_r",
    "val_spot_r",
    "learning_rate",
    "seconds",
)


@contextlib.contextmanager
def filled(
    out: Path,
    started: dict[str, Any],
    *,
    strategy: tf.distribute.Strategy,
    resume: bool,
    force: bool,
) -> Iterator[Path]:
    """Yields the folder to fill; when the block ends without an error it becomes `out`.

    What SCRATCH names is left out. After an error the folder stays for `resume`, unless the user
    made a mistake before any training began, in a run that was not taken up again. Workers beside
    the chief, who compute the same for their share of every batch, fill a folder that nobody keeps.

    Args:
        out: the run folder.
        started: what a resumed run must have in common with the one that was cut off.
    Raises:
        InputError: an interrupted run stands there and neither `resume` nor `force` is set, or it
            was started with other settings.
    """
    missing = [folder for folder in out.parents if not folder.exists()]
    is_chief = distribution.is_chief(strategy)
    is_new = True
    if is_chief:
        work = outputs.partial(out)
        is_new = take_up(out, started, resume=resume, force=force)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.worker.", dir=out.parent))
    try:
        yield work
    except InputError:
        if is_new and not (work / "checkpoints").exists():  # nothing yet to go on from
            shutil.rmtree(work, ignore_errors=True)
            with contextlib.suppress(OSError):
                for folder in missing:
                    folder.rmdir()
        raise
    finally:
        if not is_chief:
            shutil.rmtree(work, ignore_errors=True)
    if is_chief:
        for name in SCRATCH:
            path = work / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        outputs.put_in_place(work, out)


def take_up(out: Path, started: dict[str, Any], *, resume: bool, force: bool) -> bool:
    """Makes OUT.partial, or takes it up again.

    Args:
        out, started, resume, force: as of `filled`.
    Returns:
        Whether it was made.
    Raises:
        InputError: as `filled`.
    """
    outputs.refuse_interrupted(out, resume=resume, force=force)
    work = outputs.partial(out)
    mark = work / "started.json"
    if work.exists() and not resume:
        shutil.rmtree(work)
    is_new = not work.exists()
    if resume and is_new:
        say(f"Nothing to resume: there is no {work}. Beginning at the start.")
    if work.exists() and mark.is_file():
        before = json.loads(mark.read_text(encoding="utf-8"))
        changed = [name for name in started if before.get(name) != started[name]]
        if changed:
            raise InputError(
                f"the interrupted run in {str(work)!r} had another {', '.join(changed)}; "
                "resume it with the settings that it was started with, or pass --force"
            )
        say(f"Going on with {work}.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(mark, started)
    return is_new


def read_cohort(
    data: Path | None,
    work: Path,
    *,
    layout: str | None,
    seed: int,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    hold_out: Sequence[str] = (),
) -> Cohort:
    """The data of a run; without `data`, tissue is simulated into `work`/simulated_tissue.

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
                simulation.simulate(data, patients=n, seed=seed, progress=bar.update)
    cohort = readers.read_cohort(
        data, layout=layout, image=image, mpp=mpp, section_column=section_column
    )
    for problem in cohort.problems:
        say(str(problem))
    _refuse_hold_out(cohort, hold_out)
    whose = species.finding(cohort.sections)
    for unlike in (gene_checks.mixed_kinds(cohort.sections), whose):
        if unlike is not None and unlike.severity == "error":
            raise InputError(str(unlike))
    if whose is not None:
        say(str(whose))
    cohort, lacking = gene_checks.on_shared_genes(cohort)
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
                f"--hold-out {name}: it is a section of patient {min(owners)!r} and the name of "
                "another patient; name that patient's sections, or rename one of the two"
            )
    there = {section.name for section in cohort.sections} | set(cohort.patients)
    for section in cohort.left_out:
        for name in (section.name, section.patient):
            if name in hold_out and name not in there:
                raise InputError(
                    f"--hold-out {name}: section {section.name} cannot be used ({section.why})"
                )
    held = set(hold_out)
    if cohort.left_out and all({s.name, s.patient} & held for s in cohort.sections):
        reasons = "; ".join(f"section {s.name}: {s.why}" for s in cohort.left_out)
        raise InputError(
            f"--hold-out {', '.join(hold_out)} leaves nothing to train on, because "
            f"{len(cohort.left_out)} section(s) cannot be used ({reasons})"
        )


def usable_sections(cohort: Cohort, config: Config) -> list[Section]:
    """Sections with an image, and their spots with `min_counts`; others are skipped, with a note.

    Raises:
        InputError: no section, or no spot of a section, is left.
    """
    found = []
    for section in cohort.sections:
        if section.image is None:
            say(f"section {section.name}: no image, skipped ({len(section.spots)} spots)")
        else:
            found.append(_with_counts(section, config.target.min_counts))
    if not found:
        raise InputError(
            f"{cohort.source}: none of {len(cohort.sections)} section(s) has an image; "
            "full-resolution H&E images are needed"
        )
    return found


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
            "values are noise; target.min_counts (--config) leaves such spots out"
        )
    return dataclasses.replace(section, spots=section.spots.subset(kept))


def write_json(path: Path, values: Any) -> None:
    """Writes values as JSON, numbers that are not finite as null."""
    path.write_text(json.dumps(metrics.json_safe(values), indent=1) + "\n", encoding="utf-8")


def write_history(history: pd.DataFrame, folder: Path) -> None:
    """Writes history.csv: HISTORY columns first, empty where a stage has no such number."""
    more = [name for name in history.columns if name not in HISTORY]
    history.reindex(columns=[*HISTORY, *more]).to_csv(folder / "history.csv", index=False)


def listed(out: Path) -> list[str]:
    """The files of a finished run, a line each."""
    files = sorted(out.iterdir()) if out.is_dir() else []  # none yet, on a worker
    return [f"  {path}{'/' * path.is_dir()}" for path in files]

"""The folder of a run, from its first file to its last.

While a run goes on, everything lies in RUN.partial beside RUN; that folder becomes RUN when all is
done. `resume` goes on from RUN.partial: finished parts are read, a cut-off training goes on at its
epoch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from histospace_tf import distribution, outputs
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named

DATA = "data.json"  # checksums of a partial run's data
# Parts of a partial run that a finished one does not keep.
SCRATCH = ("tiles", "features", "checkpoints", "held_out", "tfds_images", "started.json", DATA)


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
    done: str = "checkpoints",
) -> Iterator[Path]:
    """Yields the folder to fill; when the block ends without an error it becomes `out`.

    What SCRATCH names is left out. After an error the folder stays for `resume`, unless the user
    made a mistake before anything in it was worth keeping, in a run that was not taken up again.
    Workers beside the chief, who compute the same for their share of every batch, fill a folder
    that is deleted.

    Args:
        out: the run folder.
        started: what a resumed run must have in common with the one that was cut off.
        done: pattern of files in the folder that are worth going on from.
    Raises:
        InputError: there is an interrupted run and neither `resume` nor `force` is set, or it
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
        if is_new and not any(work.glob(done)):
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
        out, started, resume, force: as in `filled`.
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
        outputs.refuse_changed(json.loads(mark.read_text(encoding="utf-8")), started, work)
        say(f"Going on with {work}.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(mark, started)
    return is_new


def refuse_other_data(work: Path, checksums: Mapping[str, Mapping[str, str]]) -> None:
    """Keeps the checksums of a run's data, or compares them with those that it began with.

    Args:
        work: the folder of the partial run.
        checksums: of every section's files, of `provenance.checksums`.
    Raises:
        InputError: naming the sections that are more, fewer or changed.
    """
    path = work / DATA
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(
            name
            for name in {*before, *checksums}
            if before.get(name) != dict(checksums.get(name, {}))
        )
        if other:
            raise InputError(
                f"section {named(other)}: not as it was when the interrupted run in {str(work)!r} "
                "began, whose tiles and folds would not fit; resume with the same data, or pass "
                "`force`"
            )
    write_json(path, checksums)


def write_json(path: Path, values: Any) -> None:
    """Writes values as JSON, numbers that are not finite as null."""
    path.write_text(json.dumps(outputs.json_safe(values), indent=1) + "\n", encoding="utf-8")


def write_history(history: pd.DataFrame, folder: Path) -> None:
    """Writes history.csv: HISTORY columns first, empty where a stage has no such number."""
    more = [name for name in history.columns if name not in HISTORY]
    history.reindex(columns=[*HISTORY, *more]).to_csv(folder / "history.csv", index=False)


def listed(out: Path) -> list[str]:
    """The files of a finished run, a line each."""
    files = sorted(out.iterdir()) if out.is_dir() else []  # none yet, on a worker
    return [f"  {path}{'/' * path.is_dir()}" for path in files]

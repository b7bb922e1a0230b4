"""The layout of Visium HD, Space Ranger 3 and 4: folders square_002um, square_008um, ... of bins.

They are in binned_outputs/, and each has the form of a run (`visium`). Bins of 16 um are read where
there are some: a tile covers many bins, and smaller ones hold fewer counts. Pass one of the folders
to read that one. Cells that Space Ranger 4 segments (segmented_outputs/) are not read.

Tried on made runs and on a real one without counts, not on a whole real one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from pathlib import Path

from histospace_tf.data_pipelines.readers import run_files, visium
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.spots import previews
from histospace_tf.vocabulary import InputError, Problem

MAY_LACK_PATIENTS = True
LOOKS_FOR = "folders square_016um and the like, one of them, or binned_outputs with them"
CELLS = "segmented_outputs"
_BIN = re.compile(rf"(?:(?P<prefix>.+){run_files.SEPARATOR})?square_(?P<um>\d+)um", re.IGNORECASE)


def recognises(folder: Path) -> bool:
    """Whether a folder holds folders of bins, or is one.

    They are in the folder itself, in binned_outputs/ or in outs/binned_outputs/. A folder of bins
    may have any name: its scale factors state their size.
    """
    return bool(_bins(folder))


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds one section per sample, of its bins of 16 um, else of 8 um, else of the largest."""
    chosen: dict[Path, list[run_files.Run]] = {}
    notes = []
    for sample, bins in _bins(folder).items():
        size = bin_um_to_read(bins)
        run = bins[size]
        chosen.setdefault(run.folder, []).append(run)
        others = ", ".join(_called(bins[um]) for um in sorted(bins) if um != size)
        where = f"section {run.prefix or sample or visium.section_name(run.folder)}"
        notes.append(
            Problem(
                "note",
                where,
                f"bins of {size} um are read ({_called(run)}).",
                f"To read {others}, pass {'its folder' if run.is_flat else 'that folder'}."
                if others
                else "",
            )
        )
        notes += _cells_beside(where, run.folder)
    sources: list[Source] = []
    problems: list[Problem] = []
    for runs in chosen.values():
        sections, more = visium.sections_of(runs)
        sources += sections
        problems += more
    return sources, [*notes, *problems]


def bin_um_to_read(sizes: Collection[int]) -> int:
    """The size of bins, in microns, that is read where there are several."""
    return next((um for um in (16, 8) if um in sizes), max(sizes))


def _called(run: run_files.Run) -> str:
    return run.prefix if run.is_flat and run.prefix else run.folder.name


def _cells_beside(where: str, bins: Path) -> list[Problem]:
    """A note on Space Ranger 4's cells beside the bins."""
    for folder in visium.image_folders(bins)[0]:
        if (folder / CELLS).is_dir():
            return [
                Problem(
                    "note", where, f"{CELLS} lies beside: its cells are not read, the bins are."
                )
            ]
    return []


def _bins(folder: Path) -> dict[str, dict[int, run_files.Run]]:
    """Runs of bins by sample ("" without a prefix) and size of the bins in microns."""
    runs_of: dict[str, dict[int, run_files.Run]] = {}
    for inside in (folder, folder / "binned_outputs", folder / "outs" / "binned_outputs"):
        for path in run_files.listed(inside):
            match = _BIN.fullmatch(path.name)
            if match and path.is_dir():
                for run in visium.runs_of(path):
                    named = dataclasses.replace(run, prefix=run.prefix or match["prefix"] or "")
                    runs_of.setdefault(_sample(named.prefix), {})[int(match["um"])] = named
        if runs_of:
            return runs_of
    for run in visium.runs_of(folder):
        size = _bin_um(run)
        if size is not None:
            runs_of.setdefault(_sample(run.prefix), {})[size] = run
    return runs_of


def _sample(prefix: str) -> str:
    """A prefix without the bins' size."""
    match = _BIN.fullmatch(prefix)
    return match["prefix"] or "" if match else prefix


def _bin_um(run: run_files.Run) -> int | None:
    """Size of a run's bins in microns; None where it has spots."""
    named = _BIN.fullmatch(run.prefix or run.folder.name)
    if named:
        return int(named["um"])
    try:
        stated = previews.read_scale_factors(run.scales).bin_um
    except InputError:  # refused when the section is read
        return None
    return None if stated is None else round(stated)

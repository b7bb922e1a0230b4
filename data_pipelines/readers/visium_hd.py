"""Visium HD output of Space Ranger 3: folders square_002um, square_008um, ... in binned_outputs/.

Each has the form of a run (`visium`). Bins of 16 um are read where there are some: a tile covers
many bins, and smaller ones hold fewer counts. Pass one of the folders to read that one.

Tried on made runs and on a real one without counts, not on a whole real one.
"""

from __future__ import annotations

import re
from pathlib import Path

from histospace_tf.data_pipelines.readers import tissue_positions, visium
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem

LOOKS_FOR = "folders square_016um and the like, one of them, or binned_outputs with them"
_BIN = re.compile(r"square_(\d+)um")
_WANTED = (16, 8)


def recognises(folder: Path) -> bool:
    """Whether a folder holds bins, in itself, in binned_outputs/ or in outs/binned_outputs/; or is
    one of them, whatever its name: its scale factors state the bins' size."""
    return bool(_bins(folder))


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """One section, of the bins of 16 um, else of 8 um, else of the largest ones."""
    bins = _bins(folder)
    size = next((um for um in _WANTED if um in bins), max(bins))
    sources, problems = visium.find_sections(bins[size])
    others = ", ".join(bins[um].name for um in sorted(bins) if um != size)
    note = Problem(
        "note",
        f"section {sources[0].name}",
        f"bins of {size} um are read ({bins[size].name}).",
        f"To read {others}, pass that folder." if others else "",
    )
    return sources, [note, *problems]


def _bins(folder: Path) -> dict[int, Path]:
    """Folders of bins by their size in microns."""
    for inside in (folder, folder / "binned_outputs", folder / "outs" / "binned_outputs"):
        found = {
            int(match[1]): path
            for path in sorted(inside.glob("square_*um"))
            if (match := _BIN.fullmatch(path.name)) and visium.recognises(path)
        }
        if found:
            return found
    run = visium.run_folder(folder)
    size = None if run is None else _bin_um(run)
    return {} if run is None or size is None else {size: run}


def _bin_um(run: Path) -> int | None:
    """Size of a run's bins; None where it has spots."""
    named = _BIN.fullmatch(run.resolve().name)
    if named:
        return int(named[1])
    try:
        stated = tissue_positions.read_scales(run / "spatial").bin_um
    except InputError:  # told when the section is read
        return None
    return None if stated is None else round(stated)

"""The layout of runs of 10x Genomics' Space Ranger 1 to 4: a folder outs/, or one that holds it.

    filtered_feature_bc_matrix.h5     or the folder of that name; or raw_..., where those lack
    spatial/tissue_positions_list.csv or tissue_positions.csv, or tissue_positions.parquet
    spatial/scalefactors_json.json
    <any name>.tif                    the full-resolution image, put by the user into outs/ or the
                                      folder that holds it

The same under GEO's names: gzipped, with one prefix per sample, in one flat folder or sorted into
folders (`run_files`). Each prefix is a section. A folder square_016um of Visium HD has the same
form, with square bins side by side.

Tried on real output of Space Ranger 1 (two runs cut to 50 and 100 barcodes) and made runs of all
three forms; Visium HD on made runs and a real one without counts.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from histospace_tf.data_pipelines.readers import (
    feature_matrix,
    images,
    measured,
    position_tables,
    run_files,
)
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.spots import platforms, previews
from histospace_tf.data_pipelines.spots.scale import StatedScale
from histospace_tf.vocabulary import InputError, Problem, named

LOOKS_FOR = (
    "a matrix (filtered_feature_bc_matrix.h5) and, in spatial/, tissue_positions.csv, "
    "tissue_positions_list.csv or tissue_positions.parquet"
)

MAY_LACK_PATIENTS = True
_STEP = re.compile(
    rf"(?:(?P<prefix>.+){run_files.SEPARATOR})?(?:outs|binned_outputs|square_\d+um)", re.IGNORECASE
)


def recognises(folder: Path) -> bool:
    """Whether a folder holds runs, or has an outs/ that does."""
    return bool(runs_of(folder))


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds one section per run, named by its files' prefix, else by its folder.

    Raises:
        InputError: the folder holds no run.
    """
    runs = runs_of(folder)
    if not runs:
        raise InputError(f"folder {str(folder)!r} is no run of Space Ranger: {LOOKS_FOR} is needed")
    return sections_of(runs)


def sections_of(runs: Sequence[run_files.Run]) -> tuple[list[Source], list[Problem]]:
    """Finds the sections of runs in one folder; incomplete runs there are named in problems."""
    folder = runs[0].folder
    names = [run.prefix or section_name(folder) for run in runs]
    left = [
        run
        for run in run_files.runs_in(folder)
        if not (run.positions and run.matrices) and run not in runs
    ]
    own, shared = image_folders(folder)
    if len(runs) == 1 and not (left and runs[0].prefix):
        prefix = runs[0].prefix or _prefix(own[-1])
        image, problems = images.image_beside(names[0], own, shared, prefix)
        image_of = {names[0]: image}
    else:
        skipped = [run.prefix for run in left if run.prefix]
        image_of, problems = images.images_by_prefix(names, own, skipped)
    problems += [_left_over(run) for run in left]
    problems += [
        Problem(
            "warning",
            f"section {name}",
            f"its spot positions ({run.positions[0].name}) and its matrix "
            f"({run.matrices[0].file.name}) have different prefixes: taken as of one sample.",
            "Are they? Barcodes are the same on every slide, so that nothing else tells.",
        )
        for name, run in zip(names, runs, strict=True)
        if run.matrices and run.prefix and run.matrices[0].prefix not in ("", run.prefix.lower())
    ]
    sources: list[Source] = [
        VisiumRun(name=name, patient=name, image=image_of[name], run=run)
        for name, run in zip(names, runs, strict=True)
    ]
    return sources, problems


def runs_of(folder: Path) -> tuple[run_files.Run, ...]:
    """Finds the runs in the folder itself or in its outs/, the first that holds some.

    Positions in a folder spatial/ make a run even where its matrix is missing; in a flat folder
    both are needed.
    """
    for inside in (folder, folder / "outs", folder / "outs" / "outs"):
        placed = [run for run in run_files.runs_in(inside) if run.positions]
        whole = [run for run in placed if run.matrices]
        runs = whole or [run for run in placed if not run.is_flat]
        if runs:
            return tuple(runs)
    return ()


def section_name(run: Path) -> str:
    """Name of the folder above outs/, binned_outputs/ and square_.../; links are not resolved."""
    return image_folders(run)[0][-1].name or "section"


def image_folders(run: Path) -> tuple[list[Path], list[Path]]:
    """The folders where a run's image may be.

    Returns:
        The run's own folders: its folder and those above outs/, square_.../ and the like; and
        folders that other runs may share: those above one with a prefix (A1_outs/). Links are not
        resolved.
    """
    own: list[Path] = [Path(os.path.abspath(run))]
    shared: list[Path] = []
    step = _STEP.fullmatch(own[0].name)
    while step is not None:
        above = (shared or own)[-1].parent
        (shared if shared or step["prefix"] else own).append(above)
        step = _STEP.fullmatch(above.name)
    return own, shared


def _prefix(folder: Path) -> str:
    """The prefix before outs and the like in a folder's name; else the name itself."""
    step = _STEP.fullmatch(folder.name)
    return step["prefix"] or folder.name if step is not None else folder.name


def _left_over(left: run_files.Run) -> Problem:
    """A warning of a matrix without positions, or positions without a matrix, beside runs."""
    if left.positions:
        files, has, lacks = left.positions[:1], "spot positions", "matrix"
    else:
        files = tuple(matrix.file for matrix in left.matrices[:1])
        has, lacks = "a matrix", "spot positions"
    return Problem(
        "warning",
        f"section {left.prefix or section_name(left.folder)}",
        f"it has {has} ({files[0].name}) but no {lacks} with the same prefix: section skipped.",
        f"Add {'tissue_positions.csv' if left.matrices else 'filtered_feature_bc_matrix.h5'} with "
        "the prefix, or sort the files into one folder per run.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisiumRun(measured.MeasuredSource):
    """One run of Space Ranger."""

    chooses_image: ClassVar[bool] = True

    run: run_files.Run

    def _measured(self, where: str, problems: list[Problem]) -> measured.Measured:
        if not self.run.matrices:
            raise InputError(
                f"folder {str(self.run.folder)!r} has no matrix: filtered_feature_bc_matrix.h5 or "
                "the folder filtered_feature_bc_matrix (or raw_...) is looked for"
            )
        if len(self.run.matrices) > 1:
            files = [matrix.file.name for matrix in self.run.matrices]
            raise InputError(
                f"folder {str(self.run.folder)!r} holds {len(files)} matrices "
                f"({named(files, 3)}) for one set of spot positions; one run a folder works"
            )
        positions = position_tables.agreeing_positions(self.run.positions)
        file = positions.file
        problems += [Problem("note", where, f"{file.name}: {note}.") for note in positions.notes]
        scales = previews.read_scale_factors(self.run.scales)
        matrix = feature_matrix.read_matrix(self.run.matrices[0], where)
        problems += matrix.problems
        if not matrix.counts.count_nonzero():
            spots = "spots" if scales.bin_um is None else f"bins of {scales.bin_um:g} um"
            others = "" if scales.bin_um is None else ", or bins of another size (square_016um)"
            raise InputError(
                f"matrix {str(matrix.file)!r} is empty: {len(matrix.barcodes)} {spots} and "
                f"{len(matrix.genes)} genes without a count. The whole run's matrix is "
                f"needed{others}"
            )
        place_of = {name: i for i, name in enumerate(positions.barcodes)}
        at = np.array([place_of.get(name, -1) for name in matrix.barcodes], int)
        placed = at >= 0
        if not placed.any():
            raise InputError(
                f"none of {len(at)} barcodes of {str(matrix.file)!r} "
                f"({named(matrix.barcodes[:1])}) is in {str(file)!r} "
                f"({named(positions.barcodes[:1])}); are they of one run?"
            )
        if not placed.all():
            lost = [n for n, is_there in zip(matrix.barcodes, placed, strict=True) if not is_there]
            problems.append(
                Problem(
                    "warning",
                    where,
                    f"{len(lost)} of {len(at)} barcodes with counts have no place in {file.name} "
                    f"({named(lost, 3)}): skipped.",
                )
            )
        rows = np.flatnonzero(placed)
        in_tissue = positions.in_tissue[at[rows]]
        if not in_tissue.any():
            raise InputError(
                f"none of {len(rows)} spots of {str(file)!r} is under tissue (in_tissue is 0)"
            )
        if not in_tissue.all():
            problems.append(
                Problem(
                    "note",
                    where,
                    f"{(~in_tissue).sum()} of {len(rows)} spots with counts are not under tissue "
                    "(in_tissue is 0): skipped.",
                )
            )
        without = int(positions.in_tissue.sum() - in_tissue.sum())
        if without:
            problems.append(
                Problem(
                    "note",
                    where,
                    f"{without} of {positions.in_tissue.sum()} spots under tissue have no row in "
                    f"{matrix.file.name}: skipped.",
                )
            )
        rows = rows[in_tissue]
        platform = platforms.VISIUM if scales.bin_um is None else platforms.visium_hd(scales.bin_um)
        return measured.Measured(
            names=tuple(matrix.barcodes[i] for i in rows),
            pixel_xy=positions.pixel_xy[at[rows]],
            array_xy=positions.array_xy[at[rows]],
            counts=matrix.counts[rows],
            counts_from=matrix.file.name,
            genes=matrix.genes,
            gene_ids=matrix.gene_ids,
            platform=platform,
            stated=StatedScale(scales.mpp, "from microns_per_pixel in scalefactors_json.json"),
            # The array gives the scale better; the nominal diameter is used without it.
            spot_diameter_px=scales.spot_diameter_px if scales.bin_um is None else None,
            shrunk=previews.of_run(dict(self.run.previews), scales),
        )

"""A run of 10x Genomics' Space Ranger, versions 1 to 3: its folder outs/, or one that holds it.

    filtered_feature_bc_matrix.h5     or the folder of that name; or raw_..., where those lack
    spatial/tissue_positions_list.csv or tissue_positions.csv, or tissue_positions.parquet
    spatial/scalefactors_json.json
    <any name>.tif                    the full-resolution image, put there by the user: outs/ and
                                      the folder that holds it are looked into

Spots measure 55 um and stand 100 um apart in a hexagonal array (10x Genomics, Visium). A folder
square_016um of Visium HD has the same form, with square bins side by side.

Tried on real output of Space Ranger 1 (two runs cut to 50 and 100 barcodes) and made runs of all
three forms; Visium HD on made runs and a real one without counts.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import feature_matrix, measured, tissue_positions
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem, named

LOOKS_FOR = f"a folder spatial with {', '.join(tissue_positions.FILES)}"


def recognises(folder: Path) -> bool:
    """Whether a folder is a run, or holds one in outs/."""
    return run_folder(folder) is not None


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """The run's one section, named by its folder.

    Raises:
        InputError: the folder is no run.
    """
    run = run_folder(folder)
    if run is None:
        raise InputError(f"folder {str(folder)!r} is no run of Space Ranger: {LOOKS_FOR} is needed")
    name = section_name(run)
    image, problems = image_beside(name, _image_folders(run))
    return [VisiumRun(name=name, patient=name, image=image, folder=run)], problems


def run_folder(folder: Path) -> Path | None:
    """The folder itself or its outs/, whichever holds spatial/ with positions."""
    for inside in (folder, folder / "outs"):
        if tissue_positions.position_file(inside / "spatial") is not None:
            return inside
    return None


def section_name(run: Path) -> str:
    """Name of the folder above outs/, binned_outputs/ and square_.../."""
    folder = run.resolve()
    while folder.name in ("outs", "binned_outputs") or folder.name.startswith("square_"):
        folder = folder.parent
    return folder.name or "section"


def image_beside(name: str, folders: list[Path]) -> tuple[Path | None, list[Problem]]:
    """The one image in these folders (not below them), and an error where there are more."""
    found = sorted(
        file
        for folder in folders
        for file in folder.iterdir()
        if file.is_file()
        and file.suffix.lower() in slides.SUFFIXES
        and not file.name.startswith(".")
    )
    if len(found) > 1:
        return None, [
            Problem(
                "error",
                f"section {name}",
                f"{len(found)} images stand beside the run: "
                f"{named([file.name for file in found])}.",
                "Leave the full-resolution H&E alone there, or name it with --image.",
            )
        ]
    return (found[0] if found else None), []


def _image_folders(run: Path) -> list[Path]:
    folders = [run.resolve()]
    while folders[-1].name in ("outs", "binned_outputs") or folders[-1].name.startswith("square_"):
        folders.append(folders[-1].parent)
    return folders


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisiumRun(measured.MeasuredSource):
    """One run of Space Ranger; `folder` holds its matrix and spatial/."""

    folder: Path

    def _measured(self, where: str, problems: list[Problem]) -> measured.Measured:
        spatial = self.folder / "spatial"
        file = tissue_positions.position_file(spatial)
        assert file is not None  # or there would be no such source
        positions = tissue_positions.read_positions(file)
        scales = tissue_positions.read_scales(spatial)
        matrix = feature_matrix.read_matrix(self.folder, where)
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
        platform = measured.VISIUM if scales.bin_um is None else measured.visium_hd(scales.bin_um)
        return measured.Measured(
            names=tuple(matrix.barcodes[i] for i in rows),
            pixel_xy=positions.pixel_xy[at[rows]],
            array_xy=positions.array_xy[at[rows]],
            counts=matrix.counts[rows],
            counts_from=matrix.file.name,
            genes=matrix.genes,
            gene_ids=matrix.gene_ids,
            platform=platform,
            stated_mpp=scales.mpp,
            stated_by="microns_per_pixel in scalefactors_json.json",
            # The array tells the scale better; without it, the nominal diameter has to do.
            spot_diameter_px=scales.spot_diameter_px if scales.bin_um is None else None,
            shrunk=tissue_positions.previews_in(spatial, scales),
        )

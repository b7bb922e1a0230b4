"""What is in a data folder, what is wrong with it, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from scipy import spatial

from histospace_tf import faults
from histospace_tf.checks.overlay import write_overlay
from histospace_tf.checks.report import CheckReport, FolderRow, ImageRow, SectionRow
from histospace_tf.checks.sections import CHECKS
from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import readers, slides
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.vocabulary import InputError, Problem, Section, named


def check(
    path: str | Path,
    *,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    overlay: Path | None = None,
    show_progress: bool = True,
) -> CheckReport:
    """Reads everything in a data folder and reports on it; errors are listed, not raised.

    Args:
        path: a folder or file of sections in a known layout, a folder of H&E images without counts,
            or one image.
        layout: one of readers.LAYOUTS; None: recognised by content.
        image, mpp, section_column: as for `readers.read_cohort`.
        overlay: a folder to draw every section's spots over its image into.
        show_progress: a bar on standard error.
    Raises:
        InputError: no such path or layout, or nothing in it that can be read here.
    """
    path = Path(path)
    with faults.reading(repr(str(path))):
        is_images = layout is None and (_is_image(path) or _holds_images_alone(path))
    if is_images:
        if overlay is not None:
            raise InputError(f"`overlay` draws spots over images; {str(path)!r} has no spots")
        return _check_images(path, show_progress)
    with tqdm.tqdm(desc="reading sections", disable=not show_progress, leave=False) as bar:

        def progress(done: int, every: int, name: str) -> None:
            bar.total = every
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        cohort = readers.read_cohort(
            path,
            layout=layout,
            image=image,
            mpp=mpp,
            section_column=section_column,
            strict=False,
            progress=progress,
        )
    sections = cohort.sections
    genes = [set(section.spots.genes) for section in sections]
    return CheckReport(
        source=path,
        layout=cohort.layout,
        sections=tuple(_section_row(section) for section in sections),
        folders=(),
        images=(),
        genes=len(set().union(*genes)),
        shared_genes=len(set.intersection(*genes)) if genes else 0,
        absent_is_zero=cohort.absent_is_zero,
        problems=(
            *cohort.problems,
            *(problem for check in CHECKS for problem in check(cohort)),
        ),
        overlays=() if overlay is None else _overlays(sections, overlay, show_progress),
    )


def _overlays(sections: Sequence[Section], folder: Path, show_progress: bool) -> tuple[Path, ...]:
    """Draws the sections whose image can be read."""
    drawn = []
    for section in tqdm.tqdm(sections, "drawing", disable=not show_progress, leave=False):
        if section.image is None:
            continue
        with faults.working_on(f"section {section.name!r}"), contextlib.suppress(InputError):
            thumbnail = image_checks.read_thumbnail(section.image, needs_scale=False)
            drawn.append(write_overlay(section, thumbnail, folder))
    return tuple(drawn)


def overlapping_tiles(centres_px: np.ndarray, mpp: float, *, tile_px: int, tile_mpp: float) -> int:
    """How many of (n, 2) centres have a square tile that overlaps another centre's tile.

    Args:
        centres_px: full-resolution pixels of an image.
        mpp: microns per pixel of that image.
        tile_px, tile_mpp: side of a tile, and microns per pixel of a tile.
    Raises:
        ValueError: a scale or size not above zero.
    """
    if not min(mpp, tile_px, tile_mpp) > 0:
        raise ValueError(f"tiles of {tile_px} px at {tile_mpp} um/px, image at {mpp} um/px")
    if len(centres_px) < 2:
        return 0
    # Squares of one size overlap where their centres are nearer than a side along both axes.
    nearest, _ = spatial.cKDTree(centres_px).query(centres_px, k=2, p=np.inf)
    return int((nearest[:, 1] < tile_px * tile_mpp / mpp).sum())


def _section_row(section: Section) -> SectionRow:
    tile = TileConfig()
    overlapping = None
    if section.mpp is not None:
        overlapping = overlapping_tiles(
            section.spots.centres_px,
            section.mpp,
            tile_px=tile.tile_px,
            tile_mpp=tile.mpp or section.mpp,
        )
    return SectionRow(
        name=section.name,
        patient=section.patient,
        spots=len(section.spots),
        genes=len(section.spots.genes),
        median_counts=float(np.median(np.asarray(section.spots.counts.sum(axis=1)))),
        image_px=None if section.image is None else slides.image_size(section.image),
        mpp=section.mpp,
        spot_pitch_px=section.spot_pitch_px,
        overlapping=overlapping,
    )


def _is_image(path: Path) -> bool:
    return path.is_file() and readers.layout_of(path) is None and not readers.what_lies_in(path)


def _holds_images_alone(path: Path) -> bool:
    """Whether a folder has images, and neither it nor a folder in it has other data."""
    if not path.is_dir() or readers.layouts_below(path) or _is_data(path):
        return False
    try:
        readers.list_images(path)
    except InputError:
        return False
    return True


def _is_data(path: Path) -> bool:
    """Whether a folder holds data that somebody meant to be read as more than images."""
    return any(problem.severity == "error" for problem in readers.what_lies_in(path))


def _check_images(path: Path, show_progress: bool) -> CheckReport:
    folders: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    rows: list[ImageRow] = []
    problems = [problem for problem in readers.what_lies_in(path) if problem.severity != "error"]
    images = readers.list_images(path)
    for image in tqdm.tqdm(images, desc="reading images", disable=not show_progress, leave=False):
        name = image.path.name if path.is_file() else str(image.path.relative_to(path))
        try:
            thumbnail = image_checks.read_thumbnail(image.path)
        except InputError as error:
            problems.append(Problem("error", name, f"{error}."))
            continue
        problems += image_checks.thumbnail_problems(name, thumbnail)
        rows.append(
            ImageRow(
                name=name,
                kind=thumbnail.kind,
                size_px=thumbnail.size_px,
                levels=thumbnail.levels,
                mpp=thumbnail.stated_mpp,
                tissue=float(thumbnail.tissue.mean()),
            )
        )
        parent = image.path.parent
        folder = "." if path.is_file() else str(parent.relative_to(path))
        folders.setdefault(folder, []).append((image.source, thumbnail.size_px))
    limit = image_checks.COARSE_MPP
    coarse = [f"{row.name}: {row.mpp:g}" for row in rows if row.mpp and row.mpp > limit]
    if coarse:
        problems.append(
            Problem(
                "warning",
                "pixel size",
                f"{len(coarse)} of {len(rows)} image(s) have over {limit:g} microns per "
                f"pixel ({named(coarse, 3)}): a nucleus is under 4 px.",
                "Take the full-resolution files.",
            )
        )
    unstated = [row.name for row in rows if row.mpp is None]
    if unstated:
        problems.append(
            Problem(
                "note",
                "pixel size",
                f"{len(unstated)} of {len(rows)} image(s) state no microns per pixel "
                f"({named(unstated, 3)}).",
                "Give them with `mpp` where a model is used on such an image.",
            )
        )
    return CheckReport(
        source=path,
        layout="images",
        sections=(),
        folders=tuple(
            FolderRow(
                name=name,
                images=len(images_of),
                sources=len({source for source, _ in images_of}),
                smallest_px=min((size for _, size in images_of), key=np.prod),
                largest_px=max((size for _, size in images_of), key=np.prod),
            )
            for name, images_of in sorted(folders.items())
        ),
        images=tuple(rows),
        genes=0,
        shared_genes=0,
        absent_is_zero=False,
        problems=tuple(problems),
    )

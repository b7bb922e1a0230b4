"""What is in a data folder, what is wrong with it, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tqdm
from scipy import spatial

from histospace_tf.check_report import CheckReport, FolderRow, SectionRow
from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import readers, slides, tiles
from histospace_tf.vocabulary import Cohort, InputError, Problem, Section, named

MOST_OFF_TISSUE = 0.25  # share of spots off the tissue mask that is nothing unusual


def check(
    path: str | Path,
    *,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    show_progress: bool = True,
) -> CheckReport:
    """Reads everything in a data folder and reports on it; errors are listed, not raised.

    Args:
        path: a folder or file of sections in a known layout, a folder of H&E images without counts,
            or one image.
        layout: one of readers.LAYOUTS; None: recognised by content.
        image, mpp: as for `readers.read_cohort`.
        show_progress: a bar on standard error.
    Raises:
        InputError: no such path or layout, or nothing in it that can be read here.
    """
    path = Path(path)
    is_image = path.is_file() and readers.layout_of(path) is None
    if layout is None and (is_image or _holds_images_alone(path)):
        return _check_images(path, show_progress)
    with tqdm.tqdm(desc="reading sections", disable=not show_progress, leave=False) as bar:

        def progress(done: int, every: int, name: str) -> None:
            bar.total = every
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        cohort = readers.read_cohort(
            path, layout=layout, image=image, mpp=mpp, strict=False, progress=progress
        )
    genes = [set(section.spots.genes) for section in cohort.sections]
    return CheckReport(
        source=path,
        layout=cohort.layout,
        sections=tuple(_section_row(section) for section in cohort.sections),
        folders=(),
        genes=len(set().union(*genes)),
        shared_genes=len(set.intersection(*genes)) if genes else 0,
        problems=(*cohort.problems, *_cohort_problems(cohort)),
    )


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


def _tissue_problems(section: Section) -> list[Problem]:
    """Whether the image shows tissue, and the spots lie on it."""
    assert section.image is not None
    where = f"section {section.name}"
    try:
        with slides.open_slide(section.image, mpp=section.mpp) as slide:
            overview, scale = slide.overview()
    except InputError as error:
        return [Problem("error", where, str(error))]
    mask = tiles.tissue_mask(overview)
    if not mask.any():
        return [
            Problem(
                "error",
                where,
                f"no tissue found in {section.image.name}.",
                "An H&E image at full resolution is needed.",
            )
        ]
    last = np.array(mask.shape)[::-1] - 1
    at = np.clip((section.spots.centres_px / scale).astype(int), 0, last)
    off = ~mask[at[:, 1], at[:, 0]]
    if off.mean() <= MOST_OFF_TISSUE:
        return []
    first = section.spots.names[int(np.argmax(off))]
    return [
        Problem(
            "warning",
            where,
            f"{off.sum()} of {len(off)} spots (first: {first!r}) lie off the tissue.",
            "Are the coordinates full-resolution pixels of this image, x first?",
        )
    ]


def _cohort_problems(cohort: Cohort) -> list[Problem]:
    """What shows only when all sections are looked at together."""
    problems = []
    broken = any(problem.severity == "error" for problem in cohort.problems)
    if not cohort.with_image() and not broken:
        problems.append(
            Problem(
                "error",
                str(cohort.source),
                "no section has an image: there is nothing to train on.",
                "Add the H&E images.",
            )
        )
    elif len(cohort.with_image()) == 1 and not broken:
        problems.append(
            Problem(
                "warning",
                str(cohort.source),
                "one section alone has an image: a block of its spots is held out.",
                "Scores of new sections or patients need more of them.",
            )
        )
    for section in cohort.with_image():
        problems += _tissue_problems(section)
    for patient in cohort.patients:
        of_patient = [s.name for s in cohort.sections if s.patient == patient]
        if len(of_patient) > 1:
            problems.append(
                Problem(
                    "note",
                    f"patient {patient}",
                    f"has {len(of_patient)} sections ({named(of_patient)}).",
                    "Scores of one of them, trained on the others, are not those of a new patient.",
                )
            )
    return problems


def _holds_images_alone(path: Path) -> bool:
    """Whether a folder has images and neither has a known layout nor holds a folder with one."""
    if not path.is_dir() or readers.layout_of(path) is not None:
        return False
    if any(readers.layout_of(inside) for inside in path.iterdir()):
        return False
    try:
        readers.list_images(path)
    except InputError:
        return False
    return True


def _check_images(path: Path, show_progress: bool) -> CheckReport:
    folders: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    problems = []
    images = readers.list_images(path)
    for image in tqdm.tqdm(images, desc="reading images", disable=not show_progress, leave=False):
        try:
            size = slides.image_size(image.path)
        except InputError as error:
            problems.append(Problem("error", image.path.name, f"{error}."))
            continue
        parent = image.path.parent
        name = "." if path.is_file() else str(parent.relative_to(path))
        folders.setdefault(name, []).append((image.source, size))
    return CheckReport(
        source=path,
        layout="images",
        sections=(),
        folders=tuple(
            FolderRow(
                name=name,
                images=len(found),
                sources=len({source for source, _ in found}),
                smallest_px=min((size for _, size in found), key=np.prod),
                largest_px=max((size for _, size in found), key=np.prod),
            )
            for name, found in sorted(folders.items())
        ),
        genes=0,
        shared_genes=0,
        problems=tuple(problems),
    )

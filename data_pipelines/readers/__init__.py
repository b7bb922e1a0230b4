"""Readers of paired data (images, spots, counts): one module per layout, all of them give Sections.

`read_cohort` recognises a layout by the content of a folder or file, or takes its name (`layouts`).

    layouts                               which layout a folder has; advice where it has none
    section_table, her2st, stnet, hest,   the layouts
    visium, visium_hd, h5ad,
    spatialdata_zarr, run_folder
    sources, measured                     what a layout finds; spots and counts -> a Section
    legacy_st, legacy_tables              legacy Spatial Transcriptomics: HER2ST, ST-Net
    run_files, feature_matrix,            files of Space Ranger
    position_tables
    anndata_files, anndata_counts,        parts of AnnData
    anndata_obs
    spatialdata_elements                  shapes and images of SpatialData
    images                                images by a section's name, and beside a run
    label_files, spot_labels              labels of spots
    slide_lists                           slides that are named together
    table_cells                           cells of tables that users write
    folder_content                        what a folder of unknown layout holds
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.counts import gene_axis
from histospace_tf.data_pipelines.readers import (
    h5ad,
    section_table,
)
from histospace_tf.data_pipelines.readers.folder_content import what_lies_in
from histospace_tf.data_pipelines.readers.images import ImageFile, list_images
from histospace_tf.data_pipelines.readers.layouts import (
    LAYOUTS,
    chosen_layout,
    citation,
    layout_of,
    layouts_below,
)
from histospace_tf.data_pipelines.readers.sources import (
    Source,
    checked_names,
    files_of,
    unnamed_patients,
)
from histospace_tf.faults import reading
from histospace_tf.vocabulary import (
    Cohort,
    InputError,
    LeftOut,
    Problem,
    Section,
    named,
    printable,
)

__all__ = [
    "LAYOUTS",
    "ImageFile",
    "Progress",
    "chosen_layout",
    "citation",
    "layout_of",
    "layouts_below",
    "list_images",
    "read_cohort",
    "what_lies_in",
]

Progress = Callable[[int, int, str], object]  # sections done, sections in all, the next one's name


def read_cohort(
    path: str | Path,
    *,
    layout: str | None = None,
    image: Path | Literal[False] | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    tile: TileConfig | None = None,
    strict: bool = True,
    progress: Progress | None = None,
) -> Cohort:
    """Reads all sections in a folder or file.

    Spots without counts, spots with zero counts in all genes, and files without their counterpart
    are skipped and named in the cohort's problems. A section without an image is kept with image
    None. A gene has one name in all sections (`counts.gene_axis`).

    Args:
        path: the folder, or a file .h5ad.
        layout: one of LAYOUTS; None: recognised by content.
        image: full-resolution image of the only section; None: the layout's own; False: counts are
            wanted alone, and no image is opened, missed or kept.
        mpp: microns per pixel of every image; None: as spots, data or image state it.
        section_column: column of AnnData's obs whose values are sections; None: as uns["spatial"]
            names them.
        tile: what a run cuts, for sizes in problems; None: the default.
        strict: leave out sections with an error, with a warning that says why, as long as one with
            an image remains. False: every error is a problem of the cohort, and sections are kept
            that can be shown, though not used.
        progress: called before each section with (done, all, name), and once at the end.
    Raises:
        InputError: no such path or layout, no section in it, or `image` for several; with
            `strict`, an error about the whole data set, or the first error of a section (counts
            that are not numbers or negative or all zero, duplicate genes or spots, spots off the
            image, swapped axes, another section's image, damage, ...) where no section with an
            image is without one.
    """
    path = Path(path)
    layout = chosen_layout(path, layout)
    with reading(f"{str(path)!r}, whose layout is {layout!r},"):
        sources, problems = _sources(path, layout, section_column)
    sources = _with_competing_images(sources, problems)
    if image is False:
        sources = [dataclasses.replace(s, image=None, image_is_missed=False) for s in sources]
    if getattr(LAYOUTS[layout], "MAY_LACK_PATIENTS", False):
        patients = [(source.name, source.patient) for source in sources]
        problems = [*problems, *unnamed_patients(str(path), patients)]
    sources, problems = _with_given(path, sources, problems, image=image or None, mpp=mpp)
    if tile is not None:
        sources = [dataclasses.replace(source, tile=tile) for source in sources]
    sources, of_names = checked_names(sources)
    if strict:
        whole = [problem for problem in problems if not problem.where.startswith("section ")]
        _raise_first_error([*of_names, *whole])
    problems = [*problems, *of_names]
    if not sources and not any(problem.severity == "error" for problem in problems):
        first = f" ({problems[0]})" if problems else ""
        raise InputError(
            f"folder {str(path)!r} has the layout {layout!r} but holds no section with both counts "
            f"and spots{first}"
        )
    sections = []
    for done, source in enumerate(sources):
        if progress is not None:
            progress(done, len(sources), source.name)
        section, more = _read(source)
        problems = [*problems, *more]
        if section is not None:
            sections.append(section)
    if progress is not None:
        progress(len(sources), len(sources), "")
    problems = [*problems, *_same_counts(sections)]
    absent_is_zero = getattr(LAYOUTS[layout], "ABSENT_IS_ZERO", False)
    cohort = Cohort(path, layout, tuple(sections), tuple(problems), absent_is_zero)
    if strict:
        cohort = _without_bad_sections(cohort, sources, needs_image=image is not False)
    aligned, more = gene_axis.aligned(cohort.sections, absent_is_zero=absent_is_zero)
    if strict:
        _raise_first_error(more)
    return dataclasses.replace(cohort, sections=aligned, problems=(*cohort.problems, *more))


def _same_counts(sections: Sequence[Section]) -> list[Problem]:
    """A warning for each section that has the same counts as an earlier one, spot by spot.

    That happens with two paths to one folder, a link or a copy, never with two sections of tissue.
    Names of genes and spots, and the image, may differ.

    Args:
        sections: as they were read, before genes are left out.
    """
    first: dict[str, Section] = {}
    problems = []
    for section in sections:
        earlier = first.setdefault(_digest(section), section)
        if earlier is not section:
            problems.append(
                Problem(
                    "warning",
                    f"section {section.name}",
                    f"its counts are those of section {earlier.name!r}, spot by spot: the same "
                    "data twice. Scores of one that the other was trained on say nothing.",
                    "Leave one of them out.",
                )
            )
    return problems


def _digest(section: Section) -> str:
    counts = section.spots.counts.sorted_indices()
    digest = hashlib.sha256(repr(counts.shape).encode())
    for part in (counts.indptr, counts.indices):
        digest.update(part.astype(np.int64).tobytes())
    digest.update(counts.data.astype(np.float32).tobytes())
    return digest.hexdigest()


def _without_bad_sections(
    cohort: Cohort, sources: Sequence[Source], *, needs_image: bool
) -> Cohort:
    """Leaves out the sections with an error, each with a warning that says why.

    Raises:
        InputError: the first error, where no section (with an image) would remain.
    """
    why: dict[str, Problem] = {}
    for problem in cohort.problems:
        if problem.severity == "error":
            why.setdefault(problem.where.removeprefix("section "), problem)
    if not why:
        return cohort
    sound = tuple(section for section in cohort.sections if section.name not in why)
    if not any(section.image is not None or not needs_image for section in sound):
        _raise_first_error(list(cohort.problems))
    names = {*why, *(source.name for source in sources)}
    remain = f"This section is left out; {len(sound)} of {len(names)} remain."
    problems = [
        problem
        if problem.severity != "error"
        else dataclasses.replace(
            problem, severity="warning", advice=f"{problem.advice} {remain}".strip()
        )
        for problem in cohort.problems
    ]
    patient_of = {source.name: source.patient for source in sources}
    left_out = tuple(
        LeftOut(name, patient_of.get(name, name), problem.message) for name, problem in why.items()
    )
    return dataclasses.replace(cohort, sections=sound, problems=tuple(problems), left_out=left_out)


def _read(source: Source) -> tuple[Section | None, list[Problem]]:
    """Calls `source.read`; an unexpected exception becomes an error that names the files."""
    try:
        with reading(named(files_of(source), 4)):
            section, problems = source.read()
    except InputError as error:
        return None, [Problem("error", f"section {source.name}", str(error))]
    if section is not None:  # names come from file names, which need not be Unicode
        section = dataclasses.replace(
            section, name=printable(section.name), patient=printable(section.patient)
        )
    return section, problems


def _sources(
    path: Path, layout: str, section_column: str | None
) -> tuple[list[Source], list[Problem]]:
    if section_column is None:
        return LAYOUTS[layout].find_sections(path)
    if layout != "h5ad":
        raise InputError(
            f"`section_column` {section_column!r} is about AnnData's obs, and {str(path)!r} has "
            f"the layout {layout!r}"
            + ("; a column section_column works" if layout == "table" else "")
            + ("; a sections.csv with that column works" if layout == "runs" else "")
        )
    return h5ad.find_sections(path, section_column=section_column)


def _with_competing_images(files: list[Source], problems: list[Problem]) -> list[Source]:
    """Sources without an image, marked where an error says that several images compete."""
    unclear = {problem.where for problem in problems if problem.severity == "error"}
    return [
        dataclasses.replace(source, image_is_missed=f"section {source.name}" not in unclear)
        if source.image is None
        else source
        for source in files
    ]


def _with_given(
    path: Path,
    files: list[Source],
    problems: list[Problem],
    *,
    image: Path | None,
    mpp: float | None,
) -> tuple[list[Source], list[Problem]]:
    """Sources with the image and the scale that the user gives."""
    if image is not None and files:
        if len(files) > 1:
            names = named([source.name for source in files], 3)
            raise InputError(
                f"`image` {str(image)!r}: one image for {len(files)} sections ({names}) of "
                f"{str(path)!r}; a {section_table.FILE} (section, path, image) names one each"
            )
        if files[0].chooses_image:
            problems = [problem for problem in problems if problem.severity != "error"]
        files = [dataclasses.replace(files[0], image=Path(image))]
    if mpp is not None:
        slides.refuse_implausible(mpp)
        files = [dataclasses.replace(source, mpp=mpp) for source in files]
    return files, problems


def _raise_first_error(problems: list[Problem]) -> None:
    for problem in problems:
        if problem.severity == "error":
            raise InputError(str(problem))

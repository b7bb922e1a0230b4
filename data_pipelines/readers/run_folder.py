"""The layout of several runs of Space Ranger, files .h5ad or stores .zarr in one folder.

    DATA/A1/outs/...                  or any other form of a run (`visium`, `visium_hd`)
    DATA/B1/...
    DATA/B1.tif                       the image of B1, where there is none in its own folder

A table sections.csv (`section_table`) can also name other places, images and patients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from histospace_tf.data_pipelines.readers import (
    folder_content,
    h5ad,
    images,
    run_files,
    spatialdata_zarr,
    visium,
    visium_hd,
)
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem, named, repeats

MAY_LACK_PATIENTS = True
LOOKS_FOR = "two or more runs of Space Ranger in folders of their own, or two or more files .h5ad"
# What one section or more may come as, among others in a folder or a table of sections.
RUNS = (visium_hd, visium)
FILES = (spatialdata_zarr, h5ad)


def recognises(folder: Path) -> bool:
    """Whether a folder holds two or more runs, or files; not both, as they may be the same data."""
    runs, files = _of_kinds(folder, RUNS), _of_kinds(folder, FILES)
    return (len(runs) > 1 and not files) or (len(files) > 1 and not runs)


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds the sections of every run or file; a section has the name of its run.

    Raises:
        InputError: two sections have one name.
    """
    inside = _of_kinds(folder, RUNS) or _of_kinds(folder, FILES)
    read_from: list[tuple[Path, Source]] = []
    problems = _left_out(folder, [path for path, _ in inside])
    for path, kind in inside:
        try:
            sources, more = kind.find_sections(path)
        except InputError as error:
            problems.append(Problem("error", f"section {path.name}", str(error)))
            continue
        read_from += [(path, source) for source in sources]
        problems += more
    faulty = {problem.where for problem in problems if problem.severity == "error"}
    sources = []
    for source in _apart(folder, read_from):
        if source.image is None and f"section {source.name}" not in faulty:
            image, more = images.image_named(folder, source.name)
            source = dataclasses.replace(source, image=image)
            problems += more
        sources.append(source)
    return sources, problems


def _of_kinds(folder: Path, kinds: Sequence[ModuleType]) -> list[tuple[Path, ModuleType]]:
    """Entries of a folder that one of some layouts recognises, with that layout."""
    known = []
    for path in run_files.listed(folder):
        if not path.is_dir() and path.suffix.lower() != ".h5ad":
            continue  # of folders with thousands of images
        kind = next((kind for kind in kinds if kind.recognises(path)), None)
        if kind is not None:
            known.append((path, kind))
    return known


def _left_out(folder: Path, taken: Sequence[Path]) -> list[Problem]:
    """Warnings of folders with data that are not read."""
    problems = []
    for path in run_files.listed(folder):
        if path in taken or not path.is_dir():
            continue
        for data in folder_content.what_lies_in(path):
            if data.severity == "error":
                problems.append(
                    dataclasses.replace(
                        data,
                        severity="warning",
                        where=path.name,
                        message=f"{data.message} It is not read.",
                    )
                )
                break
    return problems


def _apart(folder: Path, read_from: Sequence[tuple[Path, Source]]) -> list[Source]:
    """Sources with names of their own: AnnData of equal names are named by their file as well.

    Raises:
        InputError: two sections still have the same name.
    """
    names = [source.name for _, source in read_from]
    sources = []
    for path, source in read_from:
        if isinstance(source, h5ad.H5adSection) and names.count(source.name) > 1:
            name = f"{path.stem}_{source.name}"
            patient = name if source.patient == source.name else source.patient
            key = source.key or source.name
            source = dataclasses.replace(source, name=name, patient=patient, key=key)
        sources.append(source)
    twice = repeats([source.name for source in sources])
    if twice:
        where = [path.name for path, source in read_from if source.name == twice[0]]
        raise InputError(
            f"folder {str(folder)!r} holds section {twice[0]!r} {len(where)} times (in "
            f"{named(where, 3)}): is it the same tissue? Leave one, or name them apart in a "
            "sections.csv (section, path, image)"
        )
    return sources

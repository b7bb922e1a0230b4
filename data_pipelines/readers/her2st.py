"""The layout of the HER2ST repository (legacy Spatial Transcriptomics), also written by `simulate`.

    ST-cnts/C4.tsv.gz                 spots x genes, row ids "XxY"
    ST-spotfiles/C4_selection.tsv     x, y (array), pixel_x, pixel_y (full resolution), selected
    ST-imgs/C/C4/<any name>.jpg       full-resolution H&E; the folders name patient and section

Source of the layout: Andersson et al., Nature Communications 12:6012, 2021.
"""

from __future__ import annotations

import re
from pathlib import Path

from histospace_tf.data_pipelines.readers.legacy_st import LegacySection
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.slides import plain_images
from histospace_tf.vocabulary import InputError, Problem, named

LOOKS_FOR = "folders ST-cnts and ST-spotfiles"
ABSENT_IS_ZERO = True  # the releases leave out what a section has no counts of
CITATION = (
    "HER2ST, legacy Spatial Transcriptomics of HER2-positive breast tumours: Andersson et al., "
    "Nature Communications 12:6012, 2021; Zenodo 4751624."
)
_COUNTS = re.compile(r"(?P<name>[^.].*?)\.tsv(\.gz)?")
_SPOTS = re.compile(r"(?P<name>[^.].*?)_selection\.tsv(\.gz)?")


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / "ST-cnts").is_dir() and (folder / "ST-spotfiles").is_dir()


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds the files of every section that has counts and spots.

    Raises:
        InputError: two files claim to be the same table of one section.
    """
    counts = _by_name(folder / "ST-cnts", _COUNTS)
    spots = _by_name(folder / "ST-spotfiles", _SPOTS)
    images, patients = _images(folder / "ST-imgs")
    problems = []
    for name in sorted({*counts, *spots, *images}):
        have = [
            what
            for what, names in (("counts", counts), ("spots", spots), ("an image", images))
            if name in names
        ]
        if name not in counts or name not in spots:
            lacking = "ST-cnts" if name not in counts else "ST-spotfiles"
            problems.append(
                Problem(
                    "warning",
                    f"section {name}",
                    f"it has {' and '.join(have)} but no table in {lacking}: section skipped.",
                    f"Add {lacking}/{name}{'.tsv.gz' if lacking == 'ST-cnts' else '_selection.tsv'}"
                    " to use it.",
                )
            )
    sections: list[Source] = []
    for name in sorted(counts.keys() & spots.keys()):
        candidates = images.get(name, [])
        if len(candidates) > 1:
            problems.append(
                Problem(
                    "error",
                    f"section {name}",
                    f"there are {len(candidates)} images: "
                    f"{named([str(c.relative_to(folder)) for c in candidates])}.",
                    "Leave the full-resolution H&E alone in that folder.",
                )
            )
            continue
        sections.append(
            LegacySection(
                name=name,
                patient=patients.get(name) or _patient(name, set(patients.values())),
                counts=counts[name],
                spots=spots[name],
                image=candidates[0] if candidates else None,
            )
        )
    return sections, problems


def _by_name(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Tables in a folder by the name of their section."""
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        match = pattern.fullmatch(file.name)
        if match is None:
            continue
        name = match["name"]
        if name in files:
            raise InputError(
                f"section {name!r} has two tables, {str(files[name])!r} and {str(file)!r}; keep one"
            )
        files[name] = file
    return files


def _images(folder: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Images by section, and patients by section, from ST-imgs/<patient>/<section>/."""
    images: dict[str, list[Path]] = {}
    patients = {}
    for file in sorted(folder.glob("*/*/*")):
        if file.name.startswith(".") or file.suffix.lower() not in plain_images.SUFFIXES:
            continue
        section, patient = file.parent.name, file.parent.parent.name
        images.setdefault(section, []).append(file)
        patients[section] = patient
    return images, patients


def _patient(name: str, known: set[str]) -> str:
    """The patient of a section without an image.

    A known patient that its name begins with, else its leading letters, else the section itself.
    """
    fitting = [patient for patient in known if name.startswith(patient)]
    if fitting:
        return max(fitting, key=len)
    letters = re.match(r"[A-Za-z]+", name)
    return letters.group() if letters else name

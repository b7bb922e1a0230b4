"""Sources: where the files of each section are, before anything is read; and checks of names."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import patients
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.outputs import file_name
from histospace_tf.vocabulary import InputError, Problem, Section, named

_KEY = frozenset("/\\\n\t")  # HDF5 and zarr take a slash in a name for a group within a group
_LONGEST = 150  # letters of a section's name; file systems take 255 bytes


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """The files of one section.

    image: full-resolution image; None where there is none.
    chooses_image: whether it takes one of the images that it finds; an image that the user gives
        then settles which is meant.
    mpp: its microns per pixel, where the user gives them; takes precedence over other sources.
    image_is_missed: where there is no image, a problem says so; not where several may be it, which
        an error says already, nor where none is wanted.
    tile: what is cut from it, for sizes in problems.
    """

    chooses_image: ClassVar[bool] = False

    name: str
    patient: str
    image: Path | None = None
    mpp: float | None = None
    image_is_missed: bool = dataclasses.field(default=True, kw_only=True)
    tile: TileConfig = dataclasses.field(default=TileConfig(), kw_only=True)

    def read(self) -> tuple[Section | None, list[Problem]]:
        """Reads the section and its image, and collects all problems, errors included.

        Returns:
            The section, None where an error leaves none; and problems. A section with an error can
            be shown and must not be used.
        """
        where = f"section {self.name}"
        problems: list[Problem] = []
        thumbnail = None
        if self.image is not None:
            try:
                thumbnail = image_checks.read_thumbnail(self.image, needs_scale=False)
            except InputError as error:
                problems.append(Problem("error", where, str(error)))
        try:
            section = self._read(where, thumbnail, problems)
        except InputError as error:
            return None, [*problems, Problem("error", where, str(error))]
        if thumbnail is not None:
            problems += image_checks.thumbnail_problems(where, thumbnail)
        return section, problems

    @abc.abstractmethod
    def _read(
        self, where: str, thumbnail: image_checks.Thumbnail | None, problems: list[Problem]
    ) -> Section | None:
        """Reads the section; problems are added to `problems`.

        Args:
            where: the section, for problems.
            thumbnail: its image at low resolution; None where there is none, or none that opens.
        Raises:
            InputError: an error that leaves no section.
        """


def files_of(part: Any) -> list[str]:
    """All paths in a source or a part of one, as text."""
    if isinstance(part, Path):
        return [str(part)]
    if dataclasses.is_dataclass(part):
        part = [getattr(part, field.name) for field in dataclasses.fields(part)]
    if not isinstance(part, list | tuple):
        return []
    return [file for inside in part for file in files_of(inside)]


def unnamed_patients(where: str, sections: Sequence[tuple[str, str]]) -> list[Problem]:
    """A warning of sections without a named patient, each of which counts as a patient of its own.

    Args:
        where: the table or folder that does not name patients.
        sections: (name, patient) of each; an unnamed patient is "" or the section's name.
    """
    unnamed = [name for name, patient in sections if patient in ("", name)]
    if not unnamed or len(sections) < 2:
        return []
    message = (
        f"no patients are named: each of {len(sections)} sections counts as one of its own."
        if len(unnamed) == len(sections)
        else f"no patient is named for {len(unnamed)} of {len(sections)} sections "
        f"({named(unnamed, 3)}): each counts as one of its own."
    )
    return [
        Problem(
            "warning",
            where,
            message,
            "With a column patient in a sections.csv, no split has one patient on both sides.",
        )
    ]


def checked_names(sources: Sequence[Source]) -> tuple[list[Source], list[Problem]]:
    """Gives every patient one name, and removes sections whose names outputs cannot have.

    Returns:
        The sources; and problems: a warning for each patient that was written in several ways, an
        error for each section whose files would have an impossible name or that of another section.
    """
    kept: list[Source] = []
    problems = []
    owner: dict[str, str] = {}
    for source in sources:
        if len(source.name) > _LONGEST:
            problems.append(_bad_name(source, f"its name has more than {_LONGEST} letters"))
            continue
        if not _KEY.isdisjoint(source.name):
            problems.append(_bad_name(source, "its name has a slash or a line end in it"))
            continue
        # Names of files that differ in capitals are one on Windows and macOS.
        other = owner.setdefault(file_name(source.name).casefold(), source.name)
        if other != source.name:
            problems.append(
                _bad_name(source, f"its files would be called as those of section {other!r}")
            )
        else:
            kept.append(source)
    in_one_way = patients.one_name_each([source.patient for source in kept])
    for first in dict.fromkeys(in_one_way.values()):
        others = [name for name, shared in in_one_way.items() if shared == first]
        sections = [source.name for source in kept if source.patient in (first, *others)]
        where = f"sections {named(sections, 6)}"
        problems.append(patients.joined_warning(first, others, where))
    return [
        dataclasses.replace(source, patient=in_one_way.get(source.patient, source.patient))
        for source in kept
    ], problems


def _bad_name(source: Source, why: str) -> Problem:
    return Problem(
        "error",
        f"section {source.name[:60]}",
        f"{why}, which runs and outputs cannot have.",
        "Give the section another name.",
    )

"""What a layout finds before anything is read: one source per section, names checked over all."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import patients
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.outputs import file_name
from histospace_tf.vocabulary import InputError, Problem, Section, named

_KEY = frozenset("/\\\n\t")  # HDF5 and zarr take a slash in a name for a group within a group
_LONGEST = 150  # letters of a section's name; file systems take 255 bytes


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """Where one section's parts are.

    image: full-resolution image; None where there is none.
    mpp: microns per pixel of it, where somebody says; it wins over what the spots tell.
    images_compete: there is none because several may be it, which an error says already.
    tile: what is to be cut from it, for what problems say of sizes.
    """

    name: str
    patient: str
    image: Path | None = None
    mpp: float | None = None
    images_compete: bool = dataclasses.field(default=False, kw_only=True)
    tile: TileConfig = dataclasses.field(default=TileConfig(), kw_only=True)

    def read(self) -> tuple[Section | None, list[Problem]]:
        """The section, its image looked at once, and everything noticed, errors included.

        None where an error leaves no section; where a section comes with an error, it can be shown
        and must not be used.
        """
        where = f"section {self.name}"
        problems: list[Problem] = []
        look = None
        if self.image is not None:
            try:
                look = image_checks.look_at(self.image, needs_scale=False)
            except InputError as error:
                problems.append(Problem("error", where, str(error)))
        try:
            section = self._read(where, look, problems)
        except InputError as error:
            return None, [*problems, Problem("error", where, str(error))]
        if look is not None:
            problems += image_checks.look_problems(where, look)
        return section, problems

    @abc.abstractmethod
    def _read(
        self, where: str, look: image_checks.Look | None, problems: list[Problem]
    ) -> Section | None:
        """The section; what is noticed goes into `problems`.

        Args:
            where: the section, for problems.
            look: at its image; None where it has none, or none that opens.
        Raises:
            InputError: an error that leaves nothing to go on with.
        """


def files_of(part: Any) -> list[str]:
    """Every path that a source, or a part of one, names."""
    if isinstance(part, Path):
        return [str(part)]
    if dataclasses.is_dataclass(part):
        part = [getattr(part, field.name) for field in dataclasses.fields(part)]
    if not isinstance(part, list | tuple):
        return []
    return [file for inside in part for file in files_of(inside)]


def unnamed_patients(where: str, sections: Sequence[tuple[str, str]]) -> list[Problem]:
    """A warning where several sections, or some of them, count as patients of their own.

    Args:
        where: the table or folder that names none.
        sections: name and patient ("" or the section's name: nobody said whose it is).
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
    """Sources with one name per patient, without those whose outputs could not be told apart.

    Returns:
        The sources; a warning for each patient that was written in several ways; an error for each
        section whose files would have the name of another's, or no possible name.
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
        others = [name for name, one in in_one_way.items() if one == first]
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

"""Names over all sections of a data set: one name per patient, one file name per section."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from histospace_tf.data_pipelines import patients
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.outputs import file_name
from histospace_tf.vocabulary import Problem, named

_KEY = frozenset("/\\\n\t")  # HDF5 and zarr take a slash in a name for a group within a group
_LONGEST = 150  # letters of a section's name; file systems take 255 bytes


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
            problems.append(_error(source, f"its name has more than {_LONGEST} letters"))
            continue
        if not _KEY.isdisjoint(source.name):
            problems.append(_error(source, "its name has a slash or a line end in it"))
            continue
        # Names of files that differ in capitals are one on Windows and macOS.
        other = owner.setdefault(file_name(source.name).casefold(), source.name)
        if other != source.name:
            problems.append(
                _error(source, f"its files would be called as those of section {other!r}")
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


def _error(source: Source, why: str) -> Problem:
    return Problem(
        "error",
        f"section {source.name[:60]}",
        f"{why}, which runs and outputs cannot have.",
        "Give the section another name.",
    )

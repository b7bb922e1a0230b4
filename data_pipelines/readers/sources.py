"""What a layout finds before anything is read: one source a section."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from histospace_tf.vocabulary import Problem, Section, named


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """Where one section's parts are.

    image: full-resolution image; None where there is none.
    mpp: microns per pixel of it, where somebody says; it wins over what the spots tell.
    """

    name: str
    patient: str
    image: Path | None = None
    mpp: float | None = None

    @abc.abstractmethod
    def read(self) -> tuple[Section | None, list[Problem]]:
        """The section, None where an error makes it unusable, and everything noticed, errors
        included."""


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

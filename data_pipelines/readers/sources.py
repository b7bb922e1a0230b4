"""What a layout finds before anything is read: one source a section."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path

from histospace_tf.vocabulary import Problem, Section


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


def unnamed_patients(where: str, sections: int) -> Problem:
    """A warning that each of several sections counts as a patient of its own.

    where: the table or folder that names none.
    """
    return Problem(
        "warning",
        where,
        f"no patients are named: each of {sections} sections counts as one of its own.",
        "With a column patient in a sections.csv, no split has one patient on both sides.",
    )

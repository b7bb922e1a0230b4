"""What a reader gives, as tests ask it: its messages, and its one section."""

from __future__ import annotations

from typing import Protocol

from histospace_tf.vocabulary import Cohort, Problem, Section


class WithProblems(Protocol):
    @property
    def problems(self) -> tuple[Problem, ...]: ...


def messages(read: WithProblems, *severities: str) -> str:
    """Messages of these severities, or without any given of all, a line each."""
    return "\n".join(str(p) for p in read.problems if not severities or p.severity in severities)


def only(cohort: Cohort) -> Section:
    (section,) = cohort.sections
    return section

"""Sections that hold the same counts: one section under two names, on both sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from histospace_tf.vocabulary import Problem, Section


def same_counts(sections: Sequence[Section]) -> list[Problem]:
    """A warning for each section whose counts are those of an earlier one, spot by spot.

    Two paths to one folder, a link or a copy look so; two sections of tissue never do. Genes and
    spots may have other names, and the image another place.

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

"""Spots of a section one by one: whose counts are few, and which lie where none should.

Whether spots, image and scale belong together is found where a section is read, for every command
(`readers.spots_on_image`, `readers.preview_match`, `readers.scale`).
"""

from __future__ import annotations

import numpy as np

from histospace_tf.data_pipelines.slides.image_checks import Look
from histospace_tf.data_pipelines.spots import placement, spacing
from histospace_tf.vocabulary import Problem, Section, named

_FEWEST_COUNTS, _FEWEST_SHARE = 10, 0.05  # of the section's median
_MOST_FEW_COUNTS = 0.1  # share of spots with few counts that is nothing unusual
STATUSES = ("sound", "few counts", "off tissue", "far from all others", "off the image")


def spot_statuses(section: Section, look: Look | None) -> np.ndarray:
    """(n,) of STATUSES, the worst that holds for each spot."""
    spots = section.spots
    found = np.full(len(spots), STATUSES[0], dtype=object)
    found[_few_counts(spots.total_counts)] = STATUSES[1]
    if look is not None:
        found[~look.on_tissue(spots.centres_px)] = STATUSES[2]
    found[spacing.far_off(spots.centres_px)] = STATUSES[3]
    if look is not None:
        found[placement.outside(spots.centres_px, look.size_px)] = STATUSES[4]
    return found


def counts_problems(section: Section) -> list[Problem]:
    """Spots without counts, or with so few that they say little."""
    where = f"section {section.name}"
    total, names = section.spots.total_counts, section.spots.names
    problems = []
    empty = total == 0
    if empty.any():
        which = [names[i] for i in np.flatnonzero(empty)]
        problems.append(
            Problem(
                "error",
                where,
                f"{empty.sum()} of {len(total)} spots have zero counts in all genes "
                f"({named(which, 3)}): their expression is unknown.",
                "Leave them out.",
            )
        )
    few = _few_counts(total) & ~empty
    if few.any():
        who = [f"{names[i]}: {total[i]:.0f}" for i in np.flatnonzero(few)]
        many = few.mean() > _MOST_FEW_COUNTS
        problems.append(
            Problem(
                "warning" if many else "note",
                where,
                f"{few.sum()} of {len(total)} spots have very few counts "
                f"({named(who, 3)}; the section's median is {np.median(total):.0f}).",
                "What stands there is mostly counting noise; consider leaving them out.",
            )
        )
    return problems


def _few_counts(total: np.ndarray) -> np.ndarray:
    return total < max(_FEWEST_COUNTS, _FEWEST_SHARE * float(np.median(total)))

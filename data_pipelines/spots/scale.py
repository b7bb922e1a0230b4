"""Microns per pixel of a section's image, chosen among the sources that state them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from histospace_tf.vocabulary import Problem

# Coordinates of a copy of half or twice the size differ by 2; rounding, bent arrays and shrinking
# tissue by a few hundredths.
_NEVER_ROUNDING = 1.5
AGREES_WITHIN = 0.1  # relative difference of two statements that is not worth a word


@dataclasses.dataclass(frozen=True)
class StatedScale:
    """A scale that one source states.

    mpp: microns per pixel; None where it states none.
    origin: part of a sentence, "from the image file".
    within: relative difference from other sources that is usual.
    settles: given by the user, so that contradictions are only warnings.
    is_firm: a source that differs by _NEVER_ROUNDING cannot be right as well.
    """

    mpp: float | None
    origin: str
    within: float = AGREES_WITHIN
    settles: bool = False
    is_firm: bool = True


def chosen_scale(where: str, stated: Sequence[StatedScale]) -> tuple[float | None, list[Problem]]:
    """Takes the first scale that a source states, and names sources that contradict it.

    Args:
        where: the section, for problems.
        stated: in the order of trust: the user's word, what the data states, the array's fitted
            pitch, the image's own statement, the nominal diameter of a spot.
    """
    known = [source for source in stated if source.mpp is not None]
    if not known:
        return None, [
            Problem(
                "warning",
                where,
                "microns per pixel are unknown: tiles are cut pixel for pixel.",
                "Give them with `mpp`.",
            )
        ]
    taken, *others = known
    assert taken.mpp is not None
    problems = [Problem("note", where, f"{taken.mpp:.4g} microns per pixel, {taken.origin}.")]
    for other in others:
        assert other.mpp is not None
        ratio = other.mpp / taken.mpp
        if abs(ratio - 1) <= max(taken.within, other.within):
            continue
        wrong = max(ratio, 1 / ratio) > _NEVER_ROUNDING and taken.is_firm and other.is_firm
        problems.append(
            Problem(
                "error" if wrong and not taken.settles else "warning",
                where,
                f"{taken.mpp:.4g} microns per pixel ({taken.origin}) are taken; they would be "
                f"{other.mpp:.4g} {other.origin}.",
                "Do image, coordinates and scale factors belong together? `mpp` settles it.",
            )
        )
    return taken.mpp, problems

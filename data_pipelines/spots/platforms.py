"""How platforms print spots, and whether spots stand as far from each other as theirs does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.vocabulary import Problem, named

FEW = 0.02  # share of spots that are named one by one, and at least one spot
_FAR = 8.0  # times the typical distance of neighbours: such a spot stands alone by mistake
_SPARSE = 1.5  # spread of the distances to the nearest spot; on a whole array all are one pitch
_PITCH_WITHIN = 0.2  # printed arrays are bent: legacy spots' nearest neighbours are 7 % too near
_DIAMETER_WITHIN = 0.15


@dataclasses.dataclass(frozen=True)
class Platform:
    """A platform's printed array; all in microns.

    spot_um, pitch_um: diameter (of a square bin: side) and distance of neighbours' centres.
    step_um: length of a step of one array column, and of one array row.
    """

    spot_um: float
    pitch_um: float
    step_um: tuple[float, float]


def visium_hd(bin_um: float) -> Platform:
    """Square bins side by side, of a side in microns."""
    return Platform(spot_um=bin_um, pitch_um=bin_um, step_um=(bin_um, bin_um))


LEGACY_ST = Platform(spot_um=100.0, pitch_um=200.0, step_um=(200.0, 200.0))  # Stahl et al., 2016
# Neighbours in a row are two columns apart; the next row is shifted by one column.
VISIUM = Platform(spot_um=55.0, pitch_um=100.0, step_um=(50.0, 50.0 * 3**0.5))
BINS_UM = (2.0, 8.0, 16.0)  # of Visium HD
PLATFORMS = (LEGACY_ST, VISIUM, *map(visium_hd, BINS_UM))


def spacing_problems(
    where: str,
    names: Sequence[str],
    centres_px: np.ndarray,
    *,
    mpp: float | None,
    spot_um: float | None,
    pitch_um: float | None,
) -> list[Problem]:
    """Checks distances between spots against scale and spot size, and finds spots far from others.

    Args:
        where: the section, for problems.
        names, centres_px: n spots and their (n, 2) places in full-resolution pixels, x first.
        mpp: microns per pixel; spot_um, pitch_um: diameter and printed distance; None: unknown.
    """
    if len(centres_px) < 4:
        return []
    nearest = _nearest_px(centres_px)
    pitch_px = float(np.median(nearest))
    if pitch_px == 0:
        return [
            Problem("error", where, "most spots stand on one another.", "Check their coordinates.")
        ]
    problems = []
    far = far_off(centres_px)
    if far.any():
        who = [
            f"{names[i]} at x {centres_px[i, 0]:g}, y {centres_px[i, 1]:g}"
            for i in map(int, np.flatnonzero(far))
        ]
        problems.append(
            Problem(
                "warning",
                where,
                f"{far.sum()} of {len(far)} spots stand far from all others ({named(who, 3)}).",
                "Correct their coordinates or leave them out; the others are judged without them.",
            )
        )
    if mpp is None or array_pitch_px(centres_px) is None:
        return problems
    apart_um = pitch_px * mpp
    if pitch_um is not None and not 1 - _PITCH_WITHIN < apart_um / pitch_um < 1 + _PITCH_WITHIN:
        problems.append(
            Problem(
                "warning",
                where,
                f"neighbouring spots are {pitch_px:.4g} px apart, {apart_um:.4g} um at {mpp:.3g} "
                f"microns per pixel; {pitch_um:g} um are printed.",
                "Are pixel size and coordinates those of this image?",
            )
        )
    elif spot_um is not None and not _is_known(spot_um / apart_um):
        problems.append(
            Problem(
                "warning",
                where,
                f"a spot of {spot_um / mpp:.4g} px ({spot_um:.3g} um) among spots {pitch_px:.4g} "
                f"px apart {no_platform()}.",
                "Check spot diameter and pixel size.",
            )
        )
    return problems


def array_pitch_px(centres_px: np.ndarray) -> float | None:
    """Typical distance of neighbours; None where spots are too few or too sparse for a pitch."""
    if len(centres_px) < 4:
        return None
    nearest = _nearest_px(centres_px)
    low, high = np.percentile(nearest, [10, 90])
    return float(np.median(nearest)) if low > 0 and high <= _SPARSE * low else None


def is_square_grid(centres_px: np.ndarray, pitch_px: float) -> bool:
    """Whether spots are arranged in squares.

    Diagonals of squares are 1.41 of the distance; in Visium's hexagons no two spots are so far
    apart: the next distance is 1.73.
    """
    tree = cKDTree(centres_px)
    near, far = (tree.count_neighbors(tree, r * pitch_px) - len(centres_px) for r in (1.25, 1.55))
    return bool(far > 1.3 * near)


def no_platform() -> str:
    """Part of a sentence about spots of unknown size and distance."""
    pairs = ", ".join(f"{each.spot_um:g}/{each.pitch_um:g}" for each in PLATFORMS)
    return f"fits no known platform (diameter and pitch in um: {pairs})"


def far_off(centres_px: np.ndarray) -> np.ndarray:
    """(n,) bool: spots that are far from all others; none where they would be more than a few."""
    if len(centres_px) < 4:
        return np.zeros(len(centres_px), bool)
    nearest = _nearest_px(centres_px)
    far = nearest > _FAR * np.median(nearest)
    return far if far.sum() <= max(1, FEW * len(far)) else np.zeros(len(far), bool)


def _nearest_px(centres_px: np.ndarray) -> np.ndarray:
    """(n,) distance of every spot to its nearest neighbour."""
    return np.asarray(cKDTree(centres_px).query(centres_px, k=2)[0][:, 1])


def _is_known(share: float) -> bool:
    """Whether a platform has this ratio of spot diameter to distance."""
    known = {each.spot_um / each.pitch_um for each in PLATFORMS}
    return any(abs(share / one - 1) <= _DIAMETER_WITHIN for one in known)

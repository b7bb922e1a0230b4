"""Pixel positions of spots fitted to their printed array, and the image's scale that follows.

Spots are printed on an array of known pitch (`platforms`). Pixel coordinates are fitted to array
coordinates; the pitch divided by the fitted distance of two array positions is the image's number
of microns per pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from histospace_tf.data_pipelines.spots.scale import StatedScale
from histospace_tf.vocabulary import Problem, named

_PLAUSIBLE_MPP = (0.05, 20.0)
_WIDEST_MM = 20.0  # of an image; arrays have 6.5 to 11 mm


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayFit:
    """Pixel coordinates as an affine function of array coordinates.

    pitch_px: distance of neighbouring array positions, in pixels, along the array's x and y.
    residual: (n,) distance of each spot from its fitted place, in units of the pitch.
    transposed: the array's x runs along the image's y and the other way round, as if mirrored
        about the diagonal: what swapped columns look like. (A turned image does not.)
    pitch_um: distance of neighbouring array positions in microns.
    """

    pitch_px: tuple[float, float]
    residual: np.ndarray
    transposed: bool
    pitch_um: float

    @property
    def mpp(self) -> float:
        """Microns per pixel."""
        return self.pitch_um / float(np.mean(self.pitch_px))

    def stated_scale(self) -> StatedScale:
        """The scale that the fit gives, and where it is from."""
        return StatedScale(
            self.mpp,
            f"from the array: {np.mean(self.pitch_px):.1f} px between spots that are "
            f"{self.pitch_um:g} um apart",
        )

    @property
    def is_plausible(self) -> bool:
        """Whether a microscope image can have this scale."""
        return _PLAUSIBLE_MPP[0] < self.mpp < _PLAUSIBLE_MPP[1]


def fit_array(array_xy: np.ndarray, pixel_xy: np.ndarray, *, pitch_um: float) -> ArrayFit | None:
    """Fits pixel coordinates as an affine function of array coordinates.

    Args:
        array_xy: (n, 2) array column and row, in units of the pitch.
        pixel_xy: (n, 2) full-resolution pixels, x first.
        pitch_um: distance of neighbouring array positions.
    Returns:
        None where there are too few spots, or all are in one line.
    """
    if len(array_xy) < 4:
        return None
    design = np.column_stack([array_xy, np.ones(len(array_xy))])
    rows = _agreeing(array_xy, pixel_xy)
    solution, _, rank, _ = np.linalg.lstsq(design[rows], pixel_xy[rows], rcond=None)
    if rank < 3:
        return None
    matrix = solution[:2].T  # columns: what one step along the array's x, and y, is in pixels
    pitch = np.linalg.norm(matrix, axis=0)
    if not (pitch > 0).all():
        return None
    across = abs(matrix[0, 1]) + abs(matrix[1, 0]) > abs(matrix[0, 0]) + abs(matrix[1, 1])
    residual = np.linalg.norm(design @ solution - pixel_xy, axis=1) / pitch.mean()
    # Where most spots are far from their fitted places, the axes' directions mean nothing.
    fits = np.median(residual) < 0.5
    return ArrayFit(
        pitch_px=(float(pitch[0]), float(pitch[1])),
        residual=residual,
        transposed=bool(fits and across and np.linalg.det(matrix) < 0),
        pitch_um=pitch_um,
    )


def array_problems(
    where: str,
    names: Sequence[str],
    fit: ArrayFit | None,
    *,
    size: tuple[int, int] | None,
    may_be_mirrored: bool = False,
) -> list[Problem]:
    """Checks the positions of a section's spots against their array.

    Args:
        where: the section, for problems; names: of n spots.
        fit: from `fit_array`; None where the array is unknown.
        size: (width, height) of the image in pixels; None where there is none.
        may_be_mirrored: mirrored images are usual (Space Ranger 2 and later accept them), so a
            transposed array does not show that columns are swapped.
    """
    if fit is None:
        return []
    problems = []
    if fit.transposed and not may_be_mirrored:
        problems.append(
            Problem(
                "error",
                where,
                "x and y look swapped: the array's x runs along the image's y and its y along the "
                "image's x.",
                "Pixel x is the column, pixel y the row, and so are array x and y.",
            )
        )
    if not fit.is_plausible:
        lowest, highest = _PLAUSIBLE_MPP
        problems.append(
            Problem(
                "error",
                where,
                f"neighbouring spots are {np.mean(fit.pitch_px):.3g} px apart, so a pixel would "
                f"measure {fit.mpp:.3g} um; {lowest:g} to {highest:g} um are plausible.",
                "Are the coordinates full-resolution pixels?",
            )
        )
    elif size is not None and min(size) * fit.mpp / 1000 > _WIDEST_MM:
        width, height = (side * fit.mpp / 1000 for side in size)
        problems.append(
            Problem(
                "warning",
                where,
                f"at the fitted {fit.mpp:.3g} um a pixel the image would be {width:.0f} x "
                f"{height:.0f} mm; an array has 6.5 to 11 mm a side.",
                "Are the coordinates those of a smaller copy of the image?",
            )
        )
    x, y = fit.pitch_px
    if abs(x - y) > 0.05 * max(x, y):
        problems.append(
            Problem(
                "warning",
                where,
                f"neighbouring spots are {x:.1f} px apart along x and {y:.1f} px along y.",
                "The image's width and height may have been scaled differently.",
            )
        )
    strays = np.flatnonzero(fit.residual > 1)
    if len(strays):
        problems.append(
            Problem(
                "error" if 2 * len(strays) > len(fit.residual) else "warning",
                where,
                f"{len(strays)} of {len(fit.residual)} spots stand more than one spot distance "
                f"from where the array puts them ({named([names[int(i)] for i in strays], 3)}).",
                "Check their pixel coordinates.",
            )
        )
    return problems


def outside(pixel_xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,) bool: which of (n, 2) points, x first, lie off an image of `size` (width, height)."""
    inside = (pixel_xy >= -0.5) & (pixel_xy <= np.array(size) - 0.5)
    return ~(inside[:, 0] & inside[:, 1])


def _agreeing(array_xy: np.ndarray, pixel_xy: np.ndarray) -> np.ndarray:
    """(n,) bool: the spots to fit, without the few that are far from a fit of most spots.

    That first fit has the least median residual, so stray spots do not affect it.
    """
    all_spots = np.ones(len(array_xy), bool)
    first, _ = cv2.estimateAffine2D(array_xy, pixel_xy, method=cv2.LMEDS)
    if first is None:
        return all_spots
    far = np.linalg.norm(array_xy @ first[:, :2].T + first[:, 2] - pixel_xy, axis=1)
    near = far < np.linalg.norm(first[:, :2], axis=0).mean()
    return near if near.mean() > 0.5 else all_spots

"""From counts and places to a Section: what layouts with spots in a matrix have in common."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import placement, previews
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem, Section, SpotTable, named

# What Space Ranger writes as spot_diameter_fullres spans 65 um, although a spot measures 55 um.
_NOMINAL_SPOT_UM = 65.0
_MANY_SPOTS = 15_000  # more than the largest Visium array has


@dataclasses.dataclass(frozen=True)
class Platform:
    """How spots are printed.

    spot_um, pitch_um: diameter (of a square bin: side) and distance of neighbours' centres.
    step_um: what a step of one in array column, and in array row, is in microns.
    """

    spot_um: float
    pitch_um: float
    step_um: tuple[float, float]


# Neighbours in a row are two columns apart; the next row is shifted by one column.
VISIUM = Platform(spot_um=55.0, pitch_um=100.0, step_um=(50.0, 50.0 * 3**0.5))


def visium_hd(bin_um: float) -> Platform:
    """Square bins side by side."""
    return Platform(spot_um=bin_um, pitch_um=bin_um, step_um=(bin_um, bin_um))


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Spots of one section before they are checked.

    names: n barcodes; pixel_xy: (n, 2) full-resolution pixels, x first.
    counts: (n, g) CSR; genes: g unique names; gene_ids: their ids, or ().
    counts_from: the file or layer of the counts, for messages.
    array_xy: (n, 2) array column and row; None if unknown.
    platform: None if unknown.
    stated_mpp, stated_by: microns per pixel that the data itself states, and where.
    spot_diameter_px: spot_diameter_fullres of the scale factors.
    shrunk: previews of the image, which must not pass for it.
    labels: column -> n labels, "" where a spot has none, as `Section.labels`.
    """

    names: tuple[str, ...]
    pixel_xy: np.ndarray
    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    counts_from: str
    gene_ids: tuple[str, ...] = ()
    array_xy: np.ndarray | None = None
    platform: Platform | None = None
    stated_mpp: float | None = None
    stated_by: str = ""
    spot_diameter_px: float | None = None
    shrunk: tuple[previews.Preview, ...] = ()
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


class MeasuredSource(Source):
    """A section whose spots stand in a matrix."""

    @abc.abstractmethod
    def _measured(self, where: str, problems: list[Problem]) -> Measured:
        """The spots as the data has them; what is noticed on the way goes into `problems`.

        Raises:
            InputError: a file is damaged or lacks a part.
        """

    def read(self) -> tuple[Section | None, list[Problem]]:
        where = f"section {self.name}"
        problems: list[Problem] = []
        try:
            section, more = section_of(self, self._measured(where, problems))
        except InputError as error:
            return None, [*problems, Problem("error", where, str(error))]
        return section, [*problems, *more]


def section_of(source: Source, found: Measured) -> tuple[Section | None, list[Problem]]:
    """A section, None where an error makes it unusable, and everything noticed.

    Raises:
        InputError: all counts are zero, negative, or names repeat.
    """
    where = f"section {source.name}"
    fit = _array_fit(found)
    has_counts, problems = with_counts(where, found.names, found.counts, found.counts_from)
    mpp, more = _scale(where, source, found, fit)
    problems += more
    size = None
    if source.image is None:
        problems.append(previews.without_image(where, found.shrunk, mpp))
    else:
        try:
            size = slides.image_size(source.image)
            preview = previews.passed_as_image(
                where, source.image, size, found.shrunk, found.pixel_xy, mpp
            )
        except InputError as error:
            preview = Problem("error", where, str(error))
        if preview is not None:
            problems.append(preview)
            size = None  # where spots lie on it tells nothing more
    problems += placement.misplaced(
        where, found.names, found.pixel_xy, fit=fit, size=size, may_be_mirrored=True
    )
    table = SpotTable(
        names=found.names,
        centres_px=found.pixel_xy,
        counts=found.counts,
        genes=found.genes,
        gene_ids=found.gene_ids,
    )
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    if len(found.names) > _MANY_SPOTS:
        problems.append(_many(where, len(found.names)))
    platform = found.platform
    section = Section(
        name=source.name,
        patient=source.patient,
        image=source.image,
        spots=table.subset(has_counts),
        mpp=mpp,
        spot_diameter_um=platform.spot_um if platform else None,
        spot_pitch_um=platform.pitch_um if platform else None,
        labels={
            column: dict(zip(found.names, labels, strict=True))
            for column, labels in found.labels.items()
        },
    )
    return section, problems


def with_counts(
    where: str, names: Sequence[str], counts: sparse.csr_matrix, counts_from: str
) -> tuple[np.ndarray, list[Problem]]:
    """(n,) bool: the spots with counts above zero; the others are named in a problem.

    Raises:
        InputError: there is none.
    """
    total = np.asarray(counts.sum(axis=1)).ravel()
    if not total.any():
        raise InputError(
            f"all counts in {counts_from!r} are zero ({counts.shape[0]} spots, {counts.shape[1]} "
            "genes); raw counts are needed"
        )
    empty = [name for name, n in zip(names, total, strict=True) if n == 0]
    problems = []
    if empty:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(empty)} of {len(names)} spots have zero counts in all genes "
                f"({named(empty, 3)}): skipped.",
            )
        )
    return total > 0, problems


def _many(where: str, spots: int) -> Problem:
    tile_px = TileConfig().tile_px
    return Problem(
        "warning",
        where,
        f"{spots} spots: their tiles of {tile_px} px take {spots * tile_px**2 * 3 / 1e9:.0f} GB of "
        "disk while a model is fitted, their features at most as much again.",
        "Larger bins, or a part of the section, take less.",
    )


def _array_fit(found: Measured) -> placement.ArrayFit | None:
    if found.array_xy is None or found.platform is None:
        return None
    in_pitches = found.array_xy * np.array(found.platform.step_um) / found.platform.pitch_um
    return placement.fit_array(in_pitches, found.pixel_xy, pitch_um=found.platform.pitch_um)


def _scale(
    where: str, source: Source, found: Measured, fit: placement.ArrayFit | None
) -> tuple[float | None, list[Problem]]:
    """Microns per pixel of the full-resolution image, and a word on where they come from.

    The user's word first, then what the data states, the array's pitch, the nominal spot diameter,
    and at last what the image file states.
    """
    fitted = fit.mpp if fit is not None and fit.is_plausible else None
    of_image = None
    if source.image is not None:
        try:
            of_image = slides.stated_mpp(source.image)
        except InputError:
            of_image = None  # said where the image's size is read
    diameter = found.spot_diameter_px
    choices = [
        (source.mpp, "as given", 0.1),
        (found.stated_mpp, f"from {found.stated_by}", 0.1),
        (fitted, _from_pitch(fit), 0.1),
        (
            _NOMINAL_SPOT_UM / diameter if diameter else None,
            f"from spot_diameter_fullres ({diameter or 0:.1f} px), which Space Ranger writes for "
            f"{_NOMINAL_SPOT_UM:g} um",
            0.25,  # other tools write a spot's own 55 um there
        ),
        (of_image, "from the image file", 0.1),
    ]
    known = [(mpp, origin, within) for mpp, origin, within in choices if mpp is not None]
    if not known:
        return None, [
            Problem(
                "warning",
                where,
                "microns per pixel are unknown: tiles are cut pixel for pixel.",
                "Give them with --mpp.",
            )
        ]
    mpp, origin, _ = known[0]
    problems = [Problem("note", where, f"{mpp:.4g} microns per pixel, {origin}.")]
    for other, its_origin, within in known[1:]:
        if abs(other / mpp - 1) > within:
            problems.append(
                Problem(
                    "warning",
                    where,
                    f"{mpp:.4g} microns per pixel ({origin}) are taken; they would be {other:.4g} "
                    f"{its_origin}.",
                    "Do image, coordinates and scale factors belong together? --mpp settles it.",
                )
            )
    return mpp, problems


def _from_pitch(fit: placement.ArrayFit | None) -> str:
    if fit is None:
        return ""
    return (
        f"from the array: {np.mean(fit.pitch_px):.1f} px between spots that are "
        f"{fit.pitch_um:g} um apart"
    )

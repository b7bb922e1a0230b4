"""Checks spots with counts and positions and makes them a Section, for layouts with a matrix."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.spots import (
    placement,
    platforms,
    preview_match,
    previews,
    scale,
    tissue_overlap,
)
from histospace_tf.vocabulary import InputError, Problem, Section, SpotTable, named

# What Space Ranger writes as spot_diameter_fullres spans 65 um, although a spot measures 55 um.
_NOMINAL_SPOT_UM = 65.0
_VISIUM_SHARES = (0.52, 0.75)  # diameter over distance of neighbours, as written of Visium's spots
_SIDE_BY_SIDE = 0.15  # by which a bin's side may differ from its distance
_MANY_SPOTS = 15_000  # more than the largest Visium array has


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Spots of one section before they are checked.

    names: n barcodes; pixel_xy: (n, 2) full-resolution pixels, x first.
    counts: (n, g) CSR; genes: g unique names; gene_ids: their ids, or ().
    counts_from: the file or layer of the counts, for messages.
    array_xy: (n, 2) array column and row; None if unknown.
    platform: None if unknown.
    stated: the scale that the data themselves state.
    spot_diameter_px: spot_diameter_fullres of the scale factors.
    shrunk: previews of the image, which must not be used in its place.
    labels: column -> n labels, "" where a spot has none, as in `Section.labels`.
    """

    names: tuple[str, ...]
    pixel_xy: np.ndarray
    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    counts_from: str
    stated: scale.StatedScale
    gene_ids: tuple[str, ...] = ()
    array_xy: np.ndarray | None = None
    platform: platforms.Platform | None = None
    spot_diameter_px: float | None = None
    shrunk: tuple[previews.Preview, ...] = ()
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


class MeasuredSource(Source):
    """Source of a section with a matrix of counts."""

    @abc.abstractmethod
    def _measured(self, where: str, problems: list[Problem]) -> Measured:
        """Reads the spots as the data have them; problems are added to `problems`.

        Raises:
            InputError: a file is damaged or lacks a part.
        """

    def _read(
        self, where: str, thumbnail: image_checks.Thumbnail | None, problems: list[Problem]
    ) -> Section | None:
        section, more = section_of(self, self._measured(where, problems), thumbnail)
        problems += more
        return section


def section_of(
    source: Source, spots: Measured, thumbnail: image_checks.Thumbnail | None
) -> tuple[Section | None, list[Problem]]:
    """Checks spots and makes them a section.

    Args:
        thumbnail: the image at low resolution; None where there is no image, or none that opens.
    Returns:
        The section, None where its image cannot be the one that the spots belong to; and problems.
        Where they hold another error, the section can be shown and must not be used.
    Raises:
        InputError: all counts are zero, negative, or names repeat.
    """
    where = f"section {source.name}"
    problems: list[Problem] = []
    on_image = np.isfinite(spots.pixel_xy).all(axis=1)
    platform, nominal, more = _platform(where, source, spots, thumbnail)
    fit = _array_fit(spots, on_image)
    mpp, of_scale = scale.chosen_scale(
        where, _stated_scales(source, spots, fit, thumbnail, nominal)
    )
    problems += [*more, *of_scale]
    if source.image is None and source.image_is_missed:
        problems.append(previews.without_image(where, spots.shrunk, mpp, source.tile))
    if thumbnail is not None:
        wrong_image = preview_match.preview_problems(
            where, thumbnail, spots.shrunk, spots.pixel_xy[on_image], mpp, source.tile
        )
        problems += wrong_image
        if any(problem.severity == "error" for problem in wrong_image):
            return None, problems  # positions on another image say nothing
    on_image, more = tissue_overlap.on_image(where, spots.names, spots.pixel_xy, thumbnail)
    problems += more
    if any(problem.severity == "error" for problem in more):  # all that have a place are shown
        on_image = np.isfinite(spots.pixel_xy).all(axis=1)
    kept = np.flatnonzero(on_image)
    if not len(kept):
        return None, problems
    has_counts, more = with_counts(
        where, [spots.names[i] for i in kept], spots.counts[kept], spots.counts_from
    )
    problems += more
    table = SpotTable(
        names=tuple(spots.names[i] for i in kept),
        centres_px=spots.pixel_xy[kept],
        counts=spots.counts[kept],
        genes=spots.genes,
        gene_ids=spots.gene_ids,
    ).subset(has_counts)
    size = None if thumbnail is None else thumbnail.size_px
    problems += placement.array_problems(where, spots.names, fit, size=size, may_be_mirrored=True)
    section = Section(
        name=source.name,
        patient=source.patient,
        image=source.image,
        spots=table,
        mpp=mpp,
        spot_diameter_um=platform.spot_um if platform else None,
        spot_pitch_um=platform.pitch_um if platform else None,
        labels={
            column: dict(zip(spots.names, labels, strict=True))
            for column, labels in spots.labels.items()
        },
    )
    if not any(problem.severity == "error" for problem in problems):
        problems += tissue_overlap.section_placement(section, thumbnail)
    if len(table) > _MANY_SPOTS:
        problems.append(_many(where, len(table), source.tile.tile_px))
    return section, problems


def with_counts(
    where: str, names: Sequence[str], counts: sparse.csr_matrix, counts_from: str
) -> tuple[np.ndarray, list[Problem]]:
    """Finds spots with counts above zero; the others are named in a problem.

    Args:
        where, counts_from: the section, and the file or layer, for messages.
        names, counts: n spots and their (n, g) counts.
    Returns:
        (n,) bool: which spots have counts; and problems.
    Raises:
        InputError: no spot has counts.
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


def _many(where: str, spots: int, tile_px: int) -> Problem:
    """A warning of the disk space that many spots take."""
    return Problem(
        "warning",
        where,
        f"{spots} spots: their tiles of {tile_px} px take {spots * tile_px**2 * 3 / 1e9:.0f} GB of "
        "disk while a model is fitted, their features at most as much again.",
        "Larger bins, or a part of the section, take less.",
    )


def _array_fit(spots: Measured, placed: np.ndarray) -> placement.ArrayFit | None:
    """Fits the spots that have a position; the residuals are those of all spots."""
    if spots.array_xy is None or spots.platform is None:
        return None
    in_pitches = spots.array_xy * np.array(spots.platform.step_um) / spots.platform.pitch_um
    placed = placed & np.isfinite(in_pitches).all(axis=1)
    pitch_um, pixel_xy = spots.platform.pitch_um, spots.pixel_xy[placed]
    fit = placement.fit_array(in_pitches[placed], pixel_xy, pitch_um=pitch_um)
    if fit is None:
        return None
    residual = np.zeros(len(placed))
    residual[placed] = fit.residual
    return dataclasses.replace(fit, residual=residual)


def _platform(
    where: str, source: Source, spots: Measured, thumbnail: image_checks.Thumbnail | None
) -> tuple[platforms.Platform | None, scale.StatedScale | None, list[Problem]]:
    """The platform of the spots, and the scale that follows from their nominal diameter.

    Where the data do not name the platform, it follows from diameter and distance of neighbours:
    Space Ranger's diameter is 0.65 of the distance in Visium's hexagons, and other tools write the
    spot's own 0.55; Visium HD's bins are side by side, and their size in microns follows from the
    scale alone.
    """
    diameter, platform = spots.spot_diameter_px, spots.platform
    if not diameter:
        return platform, None, []
    nominal = scale.StatedScale(
        _NOMINAL_SPOT_UM / diameter,
        f"from spot_diameter_fullres ({diameter:.1f} px), which Space Ranger writes for "
        f"{_NOMINAL_SPOT_UM:g} um",
        within=0.25,  # other tools write a spot's own 55 um there
        is_firm=False,  # and some a size that suits a plot
    )
    if platform is not None:
        return platform, nominal, []
    finite = spots.pixel_xy[np.isfinite(spots.pixel_xy).all(axis=1)]
    pitch = platforms.array_pitch_px(finite)
    is_square = pitch is not None and platforms.is_square_grid(finite, pitch)
    low, high = _VISIUM_SHARES
    if pitch is None or (low < diameter / pitch < high and not is_square):
        return platforms.VISIUM, nominal, []
    text = f"spot_diameter_fullres is {diameter:.4g} px and neighbours are {pitch:.4g} px apart"
    if abs(diameter / pitch - 1) > _SIDE_BY_SIDE:
        squares = "in squares (as in legacy Spatial Transcriptomics), not in Visium's hexagons"
        text += f", {squares if is_square else f'which {platforms.no_platform()}'}"
        advice = "Give microns per pixel with `mpp` where neither data nor image state them."
        text += ": the diameter tells no scale."
        return None, None, [Problem("warning", where, text, advice)]
    mpp = (
        source.mpp or spots.stated.mpp or (thumbnail.stated_mpp if thumbnail is not None else None)
    )
    if mpp is None:
        options = ", ".join(f"{um / pitch:.3g} for {um:g} um" for um in platforms.BINS_UM)
        text += ": bins side by side, as Visium HD has them, of unknown size."
        advice = f"Give microns per pixel with `mpp` ({options})."
        return None, None, [Problem("warning", where, text, advice)]
    side_um = pitch * mpp
    known = min(platforms.BINS_UM, key=lambda um: abs(um - side_um))
    bin_um = known if abs(side_um / known - 1) < _SIDE_BY_SIDE else side_um
    return platforms.visium_hd(bin_um), None, []


def _stated_scales(
    source: Source,
    spots: Measured,
    fit: placement.ArrayFit | None,
    thumbnail: image_checks.Thumbnail | None,
    nominal: scale.StatedScale | None,
) -> list[scale.StatedScale]:
    """Scales of the full-resolution image that sources state, the most trusted first."""
    stated = [
        scale.StatedScale(source.mpp, "as given", settles=True),
        spots.stated,
        *([] if fit is None or not fit.is_plausible else [fit.stated_scale()]),
        scale.StatedScale(
            thumbnail.stated_mpp if thumbnail is not None else None, "from the image file"
        ),
    ]
    return [*stated, nominal] if nominal is not None else stated

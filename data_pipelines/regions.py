"""Regions of a slide: areas that a person drew, mended and cut to the image.

Shapes are polygons or several of them, with holes, in full-resolution pixels with the image's top
left corner at (0, 0), x first. Centres of places have pixel centres at whole numbers, as
everywhere.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from histospace_tf.data_pipelines.readers import region_files
from histospace_tf.data_pipelines.readers.region_files import Drawing
from histospace_tf.vocabulary import InputError, printable

TISSUE = "Tissue"  # the class of tissue's outline
_OVER_EDGE = 1e-3  # share of a region that may lie off the image without a word
_TOLD = 3  # of what is wrong, in an error


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """An area of a slide.

    name: unique in its file; the drawing's own, or its class, or "region", with a number where it
        would not be. kind: its class, "" without one.
    shape: a valid Polygon or MultiPolygon that lies on the image.
    """

    name: str
    kind: str
    shape: shapely.Geometry


@dataclasses.dataclass(frozen=True, eq=False)
class SlideRegions:
    """The regions of a file, in its order, and a line on each drawing that was left out, mended or
    cut."""

    path: Path
    regions: tuple[Region, ...]
    problems: tuple[str, ...] = ()


def read(path: Path, slide: Path, size_px: tuple[int, int], what: str = "regions") -> SlideRegions:
    """The regions that a person drew on a slide.

    Points, lines, detections and what lies off the image are left out, outlines that cross
    themselves are mended (both sides of a crossing and what is enclosed twice belong to the
    region), and what reaches over the image's edge is cut off there; `problems` says each.

    Args:
        path, slide, size_px, what: as of `region_files.read`.
    Raises:
        InputError: as `region_files.read`; or no region is left.
    """
    with np.errstate(invalid="ignore"):  # coordinates that are no numbers are told below
        drawings = region_files.read(path, slide, size_px, what)
    where = f"{what} {str(path)!r}"
    if not drawings:
        raise InputError(f"{where}: nothing is drawn in it")
    regions, problems = [], []
    for name, drawing in zip(_names(drawings), drawings, strict=True):
        shape, problem = _on_image(drawing, size_px)
        if problem:
            problems.append(f"{where}: region {name!r}: {problem}")
        if shape is not None:
            regions.append(Region(name, printable(drawing.kind), shape))
    if not regions:
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        raise InputError(f"{'; '.join(problems[:_TOLD])}{more}. No region is left")
    return SlideRegions(path, tuple(regions), tuple(problems))


def region_of(regions: Sequence[Region], centres_px: np.ndarray) -> np.ndarray:
    """Which region each place lies in by its centre: (n,) int, -1 for none.

    A place in several belongs to the smallest of them, so that a part may be drawn within a whole.

    Args:
        centres_px: (n, 2), pixel centres at whole numbers.
    """
    x, y = (np.asarray(centres_px, np.float64).reshape(-1, 2) + 0.5).T
    owner = np.full(len(x), -1)
    for i in _smallest_first(regions):
        shapely.prepare(regions[i].shape)
        owner[(owner < 0) & shapely.intersects_xy(regions[i].shape, x, y)] = i
    return owner


def own_areas_px(regions: Sequence[Region]) -> np.ndarray:
    """(n,) areas in square pixels, each without what belongs to smaller regions."""
    areas, taken = np.zeros(len(regions)), shapely.Polygon()
    for i in _smallest_first(regions):
        areas[i] = shapely.area(shapely.difference(regions[i].shape, taken))
        taken = shapely.union(taken, regions[i].shape)
    return areas


def read_tissue(path: Path, slide: Path, size_px: tuple[int, int]) -> SlideRegions:
    """Where a person says that tissue is: the regions of class "Tissue", or all where none has it.

    Raises:
        InputError: as `read`.
    """
    drawn = read(path, slide, size_px, "outline of tissue")
    tissue = [one for one in drawn.regions if one.kind.lower() == TISSUE.lower()]
    return dataclasses.replace(drawn, regions=tuple(tissue or drawn.regions))


def joined(drawn: Sequence[Region]) -> shapely.Geometry:
    """All that regions cover."""
    return shapely.union_all([region.shape for region in drawn])


def _smallest_first(regions: Sequence[Region]) -> np.ndarray:
    return np.argsort([region.shape.area for region in regions], kind="stable")


def _names(drawings: Sequence[Drawing]) -> list[str]:
    """A name of its own for each drawing."""
    stated = [printable(one.name or one.kind or "region") for one in drawings]
    times, taken = Counter(stated), set(stated)
    names = []
    for name in stated:
        number = 1
        if times[name] > 1:
            while f"{name} {number}" in taken:
                number += 1
            name = f"{name} {number}"
            taken.add(name)
        names.append(name)
    return names


def _on_image(drawing: Drawing, size_px: tuple[int, int]) -> tuple[shapely.Geometry | None, str]:
    """A drawing as an area on the image, None where it is none; and what was amiss."""
    shape = drawing.shape
    if shape is None:
        return None, f"left out: {drawing.why_not}"
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        return None, "left out: a coordinate is no number"
    areas = _areas(shape)
    if not areas:
        return None, f"left out: a {shape.geom_type} encloses no area"
    problem = ""
    whole = shapely.MultiPolygon(areas) if len(areas) > 1 else areas[0]
    if not whole.is_valid:
        problem = f"mended, for its outline is not simple ({shapely.is_valid_reason(whole)})"
        mended = shapely.make_valid(whole, method="structure", keep_collapsed=False)
        whole = shapely.union_all(_areas(mended))
    if whole.area <= 0:
        return None, "left out: it encloses no area"
    width, height = size_px
    inside = shapely.union_all(
        _areas(shapely.intersection(whole, shapely.box(0, 0, width, height)))
    )
    left, top, right, bottom = (f"{value:.0f}" for value in whole.bounds)
    reach = f"x {left} to {right}, y {top} to {bottom}, of an image of {width} x {height} px"
    if inside.area <= 0:
        return None, (
            f"left out: it lies off the slide ({reach}); was it drawn on this slide, in "
            "full-resolution pixels?"
        )
    if inside.area < (1 - _OVER_EDGE) * whole.area:
        cut = f"cut off at the slide's edge ({reach})"
        problem = f"{problem}; {cut}" if problem else cut
    return inside, problem


def _areas(shape: shapely.Geometry) -> list[shapely.Polygon]:
    """The polygons of a geometry."""
    if isinstance(shape, shapely.Polygon):
        return [] if shape.is_empty else [shape]
    return [area for part in getattr(shape, "geoms", ()) for area in _areas(part)]

"""Drawings on a slide: QuPath's GeoJSON, Hamamatsu's NDPA and ASAP's XML, told apart by content.

Coordinates come out as full-resolution pixels with the image's top left corner at (0, 0), x first,
which is QuPath's frame; a pixel's centre has halves in it.

    GeoJSON     a FeatureCollection, a bare array of features, a feature or a geometry; name and
                classification as QuPath writes them; detections and cells are left out
    NDPA        nanometres from the slide's centre, as NDP.view writes them; the slide's own
                properties turn them into pixels. Titles are names
    ASAP        Annotations with Type Polygon, Rectangle or Spline (its points, joined by lines);
                a group's name is the class

Sources: QuPath's QuPathTypeAdapters.java and ROITypeAdapters.java; RFC 7946; OpenSlide's page on
Hamamatsu (XOffsetFromSlideCentre, in nanometres); ASAP's AnnotationList.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import shapely
from shapely.geometry import shape as shape_of_geojson

from histospace_tf.data_pipelines import text_files
from histospace_tf.data_pipelines.slides import scanner_files
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".ndpa", ".ndpi.ndpa", ".xml")
_BEFORE_TEXT = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"  # byte order marks and blanks
_WORKS = "QuPath's GeoJSON, Hamamatsu's .ndpa or ASAP's .xml works"
_OF_CELLS = ("detection", "cell", "tile")  # QuPath's object types that are no region
_CIRCLE = 16  # corners of a quarter of it


class Drawing(NamedTuple):
    """One drawing of a file.

    name, kind: its own and its class's; "" without. shape: as drawn, perhaps invalid; None where
    there is none. why_not: why it cannot be an area, where that is known.
    """

    name: str
    kind: str
    shape: shapely.Geometry | None
    why_not: str = ""


def read(path: Path, slide: Path, size_px: tuple[int, int], what: str) -> list[Drawing]:
    """The drawings of a file, in its order.

    Args:
        path: the file, plain or gzipped.
        slide: that they were drawn on; its properties are read for NDPA alone.
        size_px: its (width, height).
        what: the file is called in messages ("regions").
    Raises:
        InputError: no such file, an empty one, another format; NDPA beside a slide that does not
            say where its centre is.
    """
    where = f"{what} {str(path)!r}"
    content = text_files.read_bytes(path, what)
    start = content.lstrip(_BEFORE_TEXT)[:1]
    if not start:
        raise InputError(f"{where}: the file is empty")
    if start in (b"{", b"["):
        with reading(where):
            return list(_of_geojson(where, json.loads(content)))
    if start != b"<":
        raise InputError(f"{where} is neither JSON nor XML; {_WORKS}")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(f"{where} is no whole XML ({error}); is it cut?") from None
    if root.tag == "annotations" or root.find(".//ndpviewstate") is not None:
        to_pixels = _from_slides_centre(where, slide, size_px)
        with reading(where):
            return [_of_ndpa(where, state, to_pixels) for state in root.iter("ndpviewstate")]
    if root.tag == "ASAP_Annotations":
        with reading(where):
            return [_of_asap(annotation) for annotation in root.iter("Annotation")]
    hint = " (ImageScope's XML opens in QuPath, which exports GeoJSON)" * (
        root.tag == "Annotations"
    )
    raise InputError(f"{where} is XML of another kind, <{root.tag}>{hint}; {_WORKS}")


def _of_geojson(where: str, content: Any) -> Iterator[Drawing]:
    if isinstance(content, dict):
        kind = content.get("type")
        if kind == "FeatureCollection":
            content = content.get("features")
        elif kind == "Feature":
            content = [content]
        elif "coordinates" in content or "geometries" in content:
            content = [{"type": "Feature", "geometry": content}]
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise InputError(
            f"{where} is JSON, but no GeoJSON of features; export annotations from "
            "QuPath as a FeatureCollection"
        )
    for feature in content:
        properties = feature.get("properties") or {}
        name, kind = _text(properties.get("name")), _class_of(properties.get("classification"))
        if str(properties.get("objectType", "")).lower() in _OF_CELLS:
            yield Drawing(name, kind, None, f"it is a {properties['objectType']}, no annotation")
            continue
        if feature.get("geometry") is None:
            yield Drawing(name, kind, None, "it has no geometry")
            continue
        try:
            yield Drawing(name, kind, shape_of_geojson(feature["geometry"]))
        except Exception as error:  # of shapely, on geometries that are none
            yield Drawing(name, kind, None, f"its geometry cannot be read ({error})")


def _class_of(stated: Any) -> str:
    """A classification as QuPath writes it: an object with a name, or with names."""
    if isinstance(stated, dict):
        names = stated.get("names")
        return ": ".join(map(str, names)) if names else _text(stated.get("name"))
    return _text(stated)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


Points = list[tuple[float, float]]


def _from_slides_centre(
    where: str, slide: Path, size_px: tuple[int, int]
) -> Callable[[Points], Points]:
    """Nanometres from a slide's centre as pixels from its image's corner.

    Raises:
        InputError: the slide does not say its scale and how far its image lies off that centre.
    """
    stated = scanner_files.properties(slide)
    names = [
        "openslide.mpp-x",
        "openslide.mpp-y",
        "hamamatsu.XOffsetFromSlideCentre",
        "hamamatsu.YOffsetFromSlideCentre",
    ]
    try:
        mpp_x, mpp_y, from_x, from_y = (float(stated[name]) for name in names)
    except (KeyError, ValueError):
        absent = [name for name in names if name not in stated] or names
        raise InputError(
            f"{where} are in nanometres from the centre of the glass, and the slide "
            f"{str(slide)!r} lacks {', '.join(absent)}; take the .ndpi itself, or export the "
            "regions as GeoJSON from QuPath"
        ) from None
    width, height = size_px

    def to_pixels(points: Points) -> Points:
        return [
            ((x - from_x) / 1000 / mpp_x + width / 2, (y - from_y) / 1000 / mpp_y + height / 2)
            for x, y in points
        ]

    return to_pixels


def _of_ndpa(
    where: str, state: ElementTree.Element, to_pixels: Callable[[Points], Points]
) -> Drawing:
    name = (state.findtext("title") or "").strip()
    unit = (state.findtext("coordformat") or "nanometers").strip()
    if unit != "nanometers":
        raise InputError(f"{where}: coordinates in {unit!r}; nanometers are known")
    annotation = state.find("annotation")
    if annotation is None:
        return Drawing(name, "", None, "it holds no annotation")
    kind = annotation.get("type", "")
    if kind == "circle":
        x, y, radius = (float(annotation.findtext(part) or "nan") for part in ("x", "y", "radius"))
        ((left, top), (right, _)) = to_pixels([(x, y), (x + radius, y)])
        return Drawing(name, "", shapely.Point(left, top).buffer(right - left, quad_segs=_CIRCLE))
    if kind != "freehand" or annotation.findtext("closed", "1").strip() == "0":
        return Drawing(name, "", None, f"it is a {kind or 'mark'} that encloses no area")
    points = [
        (float(point.findtext("x") or "nan"), float(point.findtext("y") or "nan"))
        for point in annotation.iter("point")
    ]
    return _polygon(name, "", to_pixels(points))


def _of_asap(annotation: ElementTree.Element) -> Drawing:
    name, group = annotation.get("Name", "").strip(), annotation.get("PartOfGroup", "").strip()
    group = "" if group == "None" else group
    kind = annotation.get("Type", "")
    if kind not in ("Polygon", "Rectangle", "Spline"):
        return Drawing(name, group, None, f"it is a {kind or 'mark'} that encloses no area")
    corners = sorted(annotation.iter("Coordinate"), key=lambda one: float(one.get("Order", 0)))
    return _polygon(
        name, group, [(float(c.get("X", "nan")), float(c.get("Y", "nan"))) for c in corners]
    )


def _polygon(name: str, kind: str, points: Points) -> Drawing:
    if len(points) < 3:
        return Drawing(name, kind, None, f"it has {len(points)} corners; an area has three or more")
    return Drawing(name, kind, shapely.Polygon(points))

"""Files of regions, as QuPath, NDP.view and ASAP write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Ring = Sequence[tuple[float, float]]


def square(left: float, top: float, side: float) -> list[tuple[float, float]]:
    """A closed ring."""
    right, bottom = left + side, top + side
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def polygon(*rings: Ring) -> dict[str, Any]:
    """A GeoJSON geometry: an outline, then holes."""
    return {"type": "Polygon", "coordinates": [list(map(list, ring)) for ring in rings]}


def feature(
    geometry: dict[str, Any] | None, name: str | None = None, kind: str | None = None, **more: Any
) -> dict[str, Any]:
    """An annotation as QuPath exports it."""
    properties: dict[str, Any] = {"objectType": "annotation", **more}
    if name is not None:
        properties["name"] = name
    if kind is not None:
        properties["classification"] = {"name": kind, "color": [200, 0, 0]}
    return {"type": "Feature", "id": "0-0", "geometry": geometry, "properties": properties}


def write_geojson(path: Path, *features: dict[str, Any], bare: bool = False) -> Path:
    """A FeatureCollection, or a bare array."""
    every = list(features)
    whole = every if bare else {"type": "FeatureCollection", "features": every}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def ndpa(*annotations: str) -> str:
    """NDP.view's file of (title, annotation) elements."""
    start = '<?xml version="1.0" encoding="utf-8"?>'
    return f"{start}\n<annotations>{''.join(annotations)}</annotations>"


def ndpa_ring(title: str, ring_nm: Ring, *, closed: int = 1) -> str:
    """A freehand annotation."""
    points = "".join(f"<point><x>{x:g}</x><y>{y:g}</y></point>" for x, y in ring_nm)
    return (
        f'<ndpviewstate id="1"><title>{title}</title><coordformat>nanometers</coordformat>'
        f'<x>0</x><y>0</y><annotation type="freehand" displayname="AnnotateFreehand">'
        f"<closed>{closed}</closed><pointlist>{points}</pointlist></annotation></ndpviewstate>"
    )


def asap(*annotations: tuple[str, str, str, Ring]) -> str:
    """ASAP's file of (name, type, group, ring)."""
    written = ""
    for name, kind, group, ring in annotations:
        corners = "".join(
            f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(ring)
        )
        written += (
            f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{corners}</Coordinates></Annotation>"
        )
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{written}</Annotations>'
        '<AnnotationGroups><Group Name="Tumor"/></AnnotationGroups></ASAP_Annotations>'
    )

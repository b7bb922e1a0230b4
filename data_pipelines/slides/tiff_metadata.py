"""Scale and channel names of a picture, from the metadata of OME-TIFF, ImageJ and QPTIFF.

`page` is the one whose tags hold for a picture, `number` that of its series (of OME-TIFF alone).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import tifffile

LOWEST_MPP, HIGHEST_MPP = 0.01, 100.0  # microns per pixel that a slide may have
FINEST_PRINT_UM = 5.0  # a print or screen resolution is never finer than this (5080 dpi)
_UNITS_UM = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "um": 1.0,
    "nm": 1e-3,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
    "inch": 25_400.0,
}
_TAG_UNITS_UM = {2: 25_400.0, 3: 10_000.0}  # of ResolutionUnit; 1 is none


def stated_mpp(tiff: tifffile.TiffFile, page: Any, number: int) -> tuple[float, float] | None:
    """(x, y) microns per pixel of a picture, if they can be meant as such, else None.

    An OME-TIFF's physical size; else the resolution in ImageJ's unit; else resolution tags in
    inches or centimetres that are finer than FINEST_PRINT_UM.
    """
    if tiff.is_ome:
        return _of_ome(_ome_image(tiff, page, number))
    x, y = page.resolution
    if not (x > 0 and y > 0):
        return None
    unit = (tiff.imagej_metadata or {}).get("unit") if tiff.is_imagej else None
    unit_um = _UNITS_UM.get(_plain(str(unit)))
    highest = HIGHEST_MPP
    if unit_um is None or unit in ("inch", "cm"):
        unit_um, highest = _TAG_UNITS_UM.get(int(page.resolutionunit or 1)), FINEST_PRINT_UM
    if unit_um is None:
        return None
    return _plausible(unit_um / x, unit_um / y, highest)


def channel_names(tiff: tifffile.TiffFile, page: Any, number: int) -> list[str]:
    """Names of a picture's channels, "" for one without a name; [] where none are stated."""
    if tiff.is_ome:
        image = _ome_image(tiff, page, number)
        channels = [] if image is None else image.findall(".//{*}Channel")
        return [channel.get("Name", "") for channel in channels]
    if tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels", [])
        return [next(iter(str(label).splitlines()), "") for label in labels]
    names = []
    if tiff.is_qpi:
        for other in tiff.pages:
            key: Any = other.keyframe
            name = re.search(r"<Name>([^<]+)</Name>", str(key.description or ""))
            if name and (key.imagewidth, key.imagelength) == (page.imagewidth, page.imagelength):
                names.append(name.group(1))
    return names


def _ome_image(tiff: tifffile.TiffFile, page: Any, number: int) -> ET.Element | None:
    """The element of OME-XML that describes a picture, None where none does."""
    try:
        root = ET.fromstring(tiff.ome_metadata or "")
    except ET.ParseError:
        return None
    images = root.findall("./{*}Image")
    if len(images) == len(tiff.series):
        return images[number]
    for image in images:  # images without pixels in this file are no series
        pixels = image.find("./{*}Pixels")
        size = (str(page.imagewidth), str(page.imagelength))
        if pixels is not None and (pixels.get("SizeX"), pixels.get("SizeY")) == size:
            return image
    return None


def _of_ome(image: ET.Element | None) -> tuple[float, float] | None:
    pixels = None if image is None else image.find("./{*}Pixels")
    if pixels is None:
        return None
    scale = []
    for axis in "XY":
        unit = _plain(pixels.get(f"PhysicalSize{axis}Unit", "um"))
        try:
            scale.append(float(pixels.get(f"PhysicalSize{axis}", "")) * _UNITS_UM[unit])
        except (ValueError, KeyError):
            return None
    return _plausible(scale[0], scale[1], HIGHEST_MPP)


def _plain(unit: str) -> str:
    """A unit with the micro sign (either of Unicode's two, or ImageJ's escape) written as u."""
    return unit.strip().lower().replace("\\u00b5", "u").replace("µ", "u").replace("μ", "u")


def _plausible(x: float, y: float, highest: float) -> tuple[float, float] | None:
    return (x, y) if min(x, y) > LOWEST_MPP and max(x, y) < highest else None

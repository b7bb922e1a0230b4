"""Shapes and images of a SpatialData store, and the transformations between them.

SpatialData is an extra, imported only here and in `slide_prediction.spatial_data`. All its
transformations of x and y are affine: (3, 3) matrices here.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.data_pipelines.slides import zarr_images
from histospace_tf.data_pipelines.spots import previews
from histospace_tf.faults import in_words
from histospace_tf.vocabulary import InputError, named

if TYPE_CHECKING:
    from spatialdata import SpatialData

_MICRONS = ("microns", "micron", "micrometers", "micrometer", "um")  # names of coordinate systems
_SAME_PX = 1.0  # two ways from a spot to its image must end this near to each other


def check_installed(what: str) -> None:
    """Refuses to go on without the package spatialdata, which is not imported here.

    Args:
        what: what needs it, for the message.
    Raises:
        InputError: it is not installed; the message has the command that installs it.
    """
    if importlib.util.find_spec("spatialdata") is None:
        raise InputError(
            f"{what} needs the package spatialdata: pip install 'histospace-tf[spatialdata]'"
        )


def read_elements(store: Path) -> SpatialData:
    """Reads images and shapes of a store; pixels are read later, when they are needed.

    Raises:
        InputError: the store is damaged.
    """
    with warnings.catch_warnings():  # of the libraries below it, about each other
        warnings.simplefilter("ignore")
        try:
            import spatialdata

            return spatialdata.read_zarr(store, selection=("images", "shapes"))
        except Exception as error:  # zarr, dask and geopandas raise many kinds for damaged stores
            raise InputError(
                f"{str(store)!r} cannot be read as SpatialData ({in_words(error)})"
            ) from None


def shared_systems(elements: SpatialData, region: str, image: str) -> list[str]:
    """Coordinate systems that shapes and an image both have."""
    of_image = _transformations(elements.images[image])
    return [name for name in _transformations(elements.shapes[region]) if name in of_image]


def _transformations(element: Any) -> Mapping[str, Any]:
    from spatialdata.transformations import get_transformation

    transformations = get_transformation(element, get_all=True)
    return transformations if isinstance(transformations, Mapping) else {}


def _matrix(transformation: Any) -> np.ndarray:
    """A transformation of x and y as a (3, 3) matrix."""
    return np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), np.float64)


def affine(elements: SpatialData, region: str, image: str, through: int = 0) -> np.ndarray:
    """(3, 3) from a region's coordinates to an image's pixels, by shared system `through`."""
    name = shared_systems(elements, region, image)[through]
    to_system = _matrix(_transformations(elements.shapes[region])[name])
    of_image = _matrix(_transformations(elements.images[image])[name])
    return np.linalg.solve(of_image, to_system)


def to_image(elements: SpatialData, region: str, image: str | None, xy: np.ndarray) -> np.ndarray:
    """The transformation from a region's coordinates to the pixels of its image.

    Args:
        image: of the store; None for a file outside it.
        xy: (n, 2) centres of the shapes.
    Returns:
        (3, 3) matrix.
    Raises:
        InputError: image and shapes share no coordinate system, or two that disagree; or the image
            is outside the store, and no coordinate system has the shapes' coordinates unchanged.
    """
    if image is None:
        systems = _transformations(elements.shapes[region])
        if any(np.allclose(_matrix(way), np.eye(3)) for way in systems.values()):
            return np.eye(3)
        raise InputError(
            f"shapes {region!r} are scaled or moved in every coordinate system "
            f"({named(list(systems))}): their pixels are known on an image of the store alone, not "
            "on another file"
        )
    shared = shared_systems(elements, region, image)
    if not shared:
        raise InputError(f"image {image!r} and shapes {region!r} share no coordinate system")
    matrices = [affine(elements, region, image, i) for i in range(len(shared))]
    for name, matrix in zip(shared[1:], matrices[1:], strict=True):
        apart = np.abs(moved(xy, matrix) - moved(xy, matrices[0])).max()
        if not apart <= _SAME_PX:
            raise InputError(
                f"shapes {region!r} lie {apart:.4g} px elsewhere on image {image!r} by coordinate "
                f"system {name!r} than by {shared[0]!r}; correct the transformations"
            )
    return matrices[0]


def moved(xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, 2) points transformed by a (3, 3) matrix."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def scale(matrix: np.ndarray) -> float:
    """The scale of a transformation: the square root of its change of area."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def xy(shapes: Any) -> np.ndarray:
    """(n, 2) centres of shapes, in their own coordinates."""
    centres = shapes.geometry.centroid
    return np.column_stack([centres.x, centres.y]).astype(np.float64)


def overlap(elements: SpatialData, image: str, one: str, other: str) -> float:
    """How far two regions overlap on an image.

    The share of one region's shapes within the bounding box of the other, the larger of both.
    """
    places = []
    for region in (one, other):
        centres = xy(elements.shapes[region])
        places.append(moved(centres, to_image(elements, region, image, centres)))
    return max(
        float(((inner >= outer.min(axis=0)) & (inner <= outer.max(axis=0))).all(axis=1).mean())
        for inner, outer in (places, places[::-1])
    )


def diameter(shapes: Any) -> float:
    """Median diameter of circles; for polygons the side of a square of the median area."""
    if "radius" in shapes:
        return float(2 * np.median(shapes["radius"]))
    return float(np.sqrt(np.median(shapes.geometry.area)))


def stated_mpp(elements: SpatialData, image: str | None) -> float | None:
    """Microns per pixel of an image with a coordinate system of microns; else None."""
    if image is None:
        return None
    systems = _transformations(elements.images[image])
    return next((scale(_matrix(systems[name])) for name in _MICRONS if name in systems), None)


def shrunk_copies(
    elements: SpatialData, region: str, to_pixels: np.ndarray
) -> tuple[previews.Preview, ...]:
    """Reads the previews that are shrunk copies of a region's image, finest first.

    Args:
        to_pixels: (3, 3) from the region's coordinates to the image's pixels. A preview that is
            turned or moved against the image is left out.
    """
    copies = []
    for name in elements.images:
        if not zarr_images.is_preview(name) or not shared_systems(elements, region, name):
            continue
        to_copy = affine(elements, region, name) @ np.linalg.inv(to_pixels)
        shrunk = np.diag([to_copy[0, 0], to_copy[0, 0], 1.0])
        if to_copy[0, 0] > 0 and np.allclose(to_copy, shrunk, atol=0.02 * to_copy[0, 0]):
            kind = next(word for word in zarr_images.PREVIEWS if word in name)
            file = Path(elements.path) / "images" / name
            copies.append(previews.of_file(kind, float(to_copy[0, 0]), file))
    return tuple(sorted(copies, key=lambda preview: -preview.scale))

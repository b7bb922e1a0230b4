"""Images in zarr folders: OME-Zarr, as SpatialData, bioformats2raw and others write it.

A folder is an image where its attributes have `multiscales` (OME-NGFF 0.4 and 0.5); its datasets
are the stored resolutions, finest first. A store of SpatialData stands for its one full-resolution
image. Parts are read block by block, a block being a chunk of the file; the last ones are kept.

Source: Moore et al., OME-Zarr, Histochemistry and Cell Biology 160, 2023.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from histospace_tf.data_pipelines.slides import plain_images
from histospace_tf.faults import in_words
from histospace_tf.vocabulary import InputError, named

PREVIEWS = ("hires", "lowres", "cytassist")  # in the names of images that spatialdata-io writes
_KEPT_BYTES = 2**28  # of decoded blocks
_GENERIC = re.compile(r"(channel|c)?[ _:-]*\d*")  # names of channels that say nothing
_MICRONS = {"micrometer": 1.0, "millimeter": 1e3, "nanometer": 1e-3, "meter": 1e6}


def is_zarr(path: Path) -> bool:
    """Whether a path is a zarr group."""
    return zarr_attributes(path) is not None


def zarr_attributes(folder: Path) -> dict[str, Any] | None:
    """Attributes of a zarr group, of format 2 or 3; None where a folder is none."""
    try:
        if (folder / "zarr.json").is_file():
            content = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
            return dict(content.get("attributes", {})) if content["node_type"] == "group" else None
        if (folder / ".zgroup").is_file():
            file = folder / ".zattrs"
            return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return None


def image_in(path: Path) -> Path:
    """The folder of an image: the path itself, or the only image of a store.

    Raises:
        InputError: no image, or several that may be meant.
    """
    if _multiscales(path):
        return path
    inside = sorted((path / "images").iterdir()) if (path / "images").is_dir() else []
    every = [folder for folder in inside if folder.is_dir() and _multiscales(folder)]
    full = [folder for folder in every if not is_preview(folder.name)]
    if len(full) == 1:
        return full[0]
    if not every:
        raise InputError(f"zarr folder {str(path)!r} holds no image (OME-Zarr)")
    what = "only previews" if not full else f"{len(full)} images"
    shown = full or every
    raise InputError(
        f"zarr folder {str(path)!r} holds {what}: {named([folder.name for folder in shown])}; name "
        f"one, such as {str(shown[0])!r}"
    )


def is_preview(name: str) -> bool:
    """Whether an image is called as the previews that spatialdata-io takes from Space Ranger."""
    return any(word in name for word in PREVIEWS)


class ZarrImage:
    """One opened image.

    levels: (width, height) of each stored resolution, finest first.
    mpp: (x, y) microns per pixel, where the axes have a unit of length.
    """

    kind = "ome-zarr"
    notes = ()

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            InputError: the folder is damaged, or no picture of 8-bit RGB or RGBA.
        """
        self.path = path
        folder = image_in(path)
        attributes = zarr_attributes(folder) or {}
        scales = _multiscales(folder)[0]
        try:
            import zarr  # takes half a second, for folders alone

            group = zarr.open_group(str(folder), mode="r")
            self._arrays: list[Any] = [group[entry["path"]] for entry in scales["datasets"]]
            axes = [a if isinstance(a, str) else a["name"] for a in scales.get("axes", "tczyx")]
            shapes = [tuple(array.shape) for array in self._arrays]
            if any(len(shape) != len(axes) for shape in shapes) or not {"y", "x"} <= set(axes):
                raise InputError(f"axes {axes} do not go with shape {shapes[0]}; c, y, x works")
            self.mpp = _mpp(scales, axes)
        except InputError as error:
            raise InputError(f"image {str(path)!r}: {error}") from None
        except Exception as error:  # zarr raises many kinds for damaged folders
            raise InputError(
                f"image {str(path)!r} cannot be read as OME-Zarr ({in_words(error)})"
            ) from None
        self._order = [axes.index(name) for name in ("y", "x", "c") if name in axes]
        self._refuse_other(axes, shapes[0], _labels(attributes))
        self.levels = tuple((s[axes.index("x")], s[axes.index("y")]) for s in shapes)
        chunks = [array.chunks for array in self._arrays]
        self._block_px = [(c[axes.index("x")], c[axes.index("y")]) for c in chunks]
        largest = max(w * h for w, h in self._block_px) * 4
        self._block = functools.lru_cache(maxsize=max(4, _KEPT_BYTES // largest))(self._decoded)

    def _refuse_other(self, axes: list[str], shape: tuple[int, ...], labels: list[str]) -> None:
        sizes = dict(zip(axes, shape, strict=True))
        more = [name for name in axes if name not in ("c", "y", "x") and sizes[name] != 1]
        if more:
            raise InputError(
                f"image {str(self.path)!r} has {sizes[more[0]]} planes along axis {more[0]!r}; a "
                "picture of one plane is needed"
            )
        if sizes.get("c", 1) not in (1, 3, 4) or (sizes.get("c") == 4 and labels[3:] != ["a"]):
            shown = f" ({named(labels, 4)})" if labels else ""
            raise InputError(
                f"image {str(self.path)!r} has {sizes['c']} channels{shown}; H&E has three: red, "
                "green and blue"
            )
        if self._arrays[0].dtype != np.uint8:
            raise plain_images.too_deep(self.path, str(self._arrays[0].dtype))
        wanted = ["r", "g", "b"]
        named_otherwise = [label for label in labels if not _GENERIC.fullmatch(label)]
        if sizes.get("c", 1) > 1 and not set(wanted) <= set(labels) and named_otherwise:
            raise InputError(
                f"image {str(self.path)!r} has channels {named(labels, 4)}: no H&E, whose channels "
                "are red, green and blue"
            )
        self._channels = [labels.index(c) for c in wanted] if set(wanted) <= set(labels) else None

    def pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a part, in the level's pixels.

        Raises:
            InputError: the folder is damaged there.
        """
        across, down = self._block_px[level]
        out = np.empty((height, width, 3), np.uint8)
        for row in range(top // down, math.ceil((top + height) / down)):
            for column in range(left // across, math.ceil((left + width) / across)):
                block = self._block(level, column, row)
                x, y = column * across - left, row * down - top
                part = block[max(0, -y) : height - y, max(0, -x) : width - x]
                x, y = max(0, x), max(0, y)
                out[y : y + part.shape[0], x : x + part.shape[1]] = part
        return out

    def close(self) -> None:
        """Releases the blocks that are kept."""
        self._block.cache_clear()

    def _decoded(self, level: int, column: int, row: int) -> np.ndarray:
        across, down = self._block_px[level]
        array = self._arrays[level]
        where: list[Any] = [0] * array.ndim
        where[self._order[0]] = slice(row * down, (row + 1) * down)
        where[self._order[1]] = slice(column * across, (column + 1) * across)
        if len(self._order) > 2:
            where[self._order[2]] = slice(None)
        try:
            values = np.asarray(array[tuple(where)])
        except Exception as error:  # zarr and its codecs raise many kinds
            raise InputError(
                f"image {str(self.path)!r} is damaged near x {column * across}, y {row * down} of "
                f"level {level}: {' '.join(str(error).split())[:200]}. Copy or download it again"
            ) from None
        kept = sorted(self._order)
        picture = values.transpose([kept.index(axis) for axis in self._order])
        if picture.ndim == 2 or picture.shape[2] == 1:
            return np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
        if self._channels is not None and self._channels != [0, 1, 2]:
            picture = picture[..., [*self._channels, *range(3, picture.shape[2])]]
        if picture.shape[2] == 4:
            return plain_images.on_white(np.ascontiguousarray(picture))
        return np.ascontiguousarray(picture)


def _multiscales(folder: Path) -> list[dict[str, Any]]:
    attributes = zarr_attributes(folder) or {}
    inside = attributes.get("ome")
    scales = (inside if isinstance(inside, dict) else attributes).get("multiscales")
    return scales if isinstance(scales, list) else []


def _labels(attributes: dict[str, Any]) -> list[str]:
    inside = attributes.get("ome")
    omero = (inside if isinstance(inside, dict) else attributes).get("omero") or {}
    short = {"red": "r", "green": "g", "blue": "b", "alpha": "a"}
    labels = [str(channel.get("label", "")).lower() for channel in omero.get("channels", [])]
    return [short.get(label, label) for label in labels]


def _mpp(scales: dict[str, Any], axes: list[str]) -> tuple[float, float] | None:
    """Microns per pixel of the finest resolution along x and y."""
    units = {a["name"]: a.get("unit") for a in scales.get("axes", []) if isinstance(a, dict)}
    size = dict.fromkeys(("x", "y"), 1.0)
    steps = [
        *scales["datasets"][0].get("coordinateTransformations", []),
        *[step for step in scales.get("coordinateTransformations", []) if "output" not in step],
    ]
    for step in steps:
        if step.get("type") == "scale":
            for name in size:
                size[name] *= float(step["scale"][axes.index(name)])
    mpp = [size[name] * _MICRONS.get(str(units.get(name)), 0.0) for name in ("x", "y")]
    return (mpp[0], mpp[1]) if min(mpp) > 0 else None

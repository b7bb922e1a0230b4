"""Files of features that other tools made of a slide's patches, one file per slide.

    NAME.h5             TRIDENT: features (n, f) or (1, n, f), coords (n, 2) with the attributes
                        patch_size_level0, or patch_size, level0_magnification and
                        target_magnification
    h5_files/NAME.h5    CLAM: features (n, f), coords (n, 2) without attributes, which stand at the
                        coords of patches/NAME.h5: patch_size, patch_level, downsample
    NAME.h5             HEST: embeddings (n, f), barcodes (n,) or (n, 1) of spots
    NAME.npz            plain: features (n, f), coords (n, 2), patch_size; or features, barcodes

Coordinates are the patches' top left corners in full-resolution pixels ("level 0"), x first. Side
and corner give the centre by the convention of `vocabulary`: pixel centres at whole numbers. The
side is never guessed: where no attribute tells it, a file is refused.

Layouts: mahmoodlab/TRIDENT (trident/IO.py, wsi_objects/WSI.py), mahmoodlab/CLAM
(extract_features_fp.py, wsi_core/WholeSlideImage.py), mahmoodlab/HEST (bench/benchmark.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histospace_tf import faults
from histospace_tf.vocabulary import InputError, named, repeats

HDF5, PLAIN = (".h5", ".hdf5"), ".npz"
SUFFIXES = (*HDF5, PLAIN)
CLAM_FEATURES, CLAM_PATCHES = "h5_files", "patches"
_VALUES = ("features", "embeddings")
_BARCODES = ("barcodes", "barcode")
_ARRAYS = (*_VALUES, *_BARCODES, "coords")


@dataclasses.dataclass(frozen=True, eq=False)
class PatchFeatures:
    """Features of one slide's patches.

    path: the file.
    values: (n, f) float32, finite.
    corners_px: (n, 2) float64, left and top, full-resolution pixels, each once; None where the file
        names spots.
    side_px: of every patch in full-resolution pixels; None where the file names spots.
    barcodes: n names of spots, each once; empty where the file has coordinates alone.
    size_px: (width, height) of the slide as the file states it; None if it does not.
    twice: patches that stood in the file more than once, and are held once.
    """

    path: Path
    values: np.ndarray
    corners_px: np.ndarray | None
    side_px: float | None
    barcodes: tuple[str, ...] = ()
    size_px: tuple[int, int] | None = None
    twice: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def centres_px(self) -> np.ndarray | None:
        """(n, 2) float64, full-resolution pixels, x first; None where the file names spots."""
        if self.corners_px is None or self.side_px is None:
            return None
        return self.corners_px + (self.side_px - 1) / 2


def read_file(path: Path) -> PatchFeatures:
    """Reads one file of any of the layouts.

    A file with barcodes is matched by them, and its coordinates, whose place in the patch such
    files do not state, are not read.

    Raises:
        InputError: naming the file: it cannot be read, holds no features or no patch, has neither
            coordinates nor barcodes or not one for each patch, a value that is not a finite number,
            no patch size, a patch twice with different features, or a barcode twice.
    """
    where = f"features {str(path)!r}"
    with faults.reading(where):
        arrays, attributes = _npz(path) if path.suffix.lower() == PLAIN else _hdf5(path)
    values = _values(arrays, where)
    barcodes = _barcodes(arrays, len(values), where)
    if barcodes:
        return PatchFeatures(path, values, None, None, barcodes)
    corners = _corners(arrays, len(values), where)
    side = side_px(
        _with_patches_of_clam(attributes, path), where, plain=path.suffix.lower() == PLAIN
    )
    values, corners, twice = _once(values, corners, where)
    width, height = (_number(attributes, f"level0_{side}", where) for side in ("width", "height"))
    size = None if width is None or height is None else (round(width), round(height))
    return PatchFeatures(path, values, corners, side, size_px=size, twice=twice)


def side_px(attributes: Mapping[str, Any], where: str, *, plain: bool = False) -> float:
    """Side of the patches in full-resolution pixels, from a file's attributes.

    Args:
        attributes: of the dataset coords.
        where: the file, for errors.
        plain: the file is an .npz, whose patch_size is in full-resolution pixels.
    Raises:
        InputError: it cannot be known, or is not above zero; the attribute is named.
    """
    side = _number(attributes, "patch_size_level0", where)
    if side is None:
        size = _number(attributes, "patch_size", where)
        if size is None:
            raise InputError(
                f"{where}: how large its patches are is not stated. TRIDENT's coords have the "
                f"attribute 'patch_size_level0', CLAM's 'patch_size' in {CLAM_PATCHES}/NAME.h5 "
                f"(put that folder beside {CLAM_FEATURES}); an .npz needs 'patch_size', in "
                "full-resolution pixels"
            )
        side = size * (1.0 if plain else _times_level0(attributes, where))
    if not 0 < side < np.inf:
        raise InputError(f"{where}: patches of {side:g} px are not possible")
    return side


def _times_level0(attributes: Mapping[str, Any], where: str) -> float:
    """Full-resolution pixels per pixel of a patch."""
    finest = _number(attributes, "level0_magnification", where)
    target = _number(attributes, "target_magnification", where)
    if finest and target:
        return finest / target
    further = _number(attributes, "custom_downsample", where) or 1.0
    downsample = _number(attributes, "downsample", where)
    if downsample is not None:
        return downsample * further
    if _number(attributes, "patch_level", where) == 0:
        return further
    raise InputError(
        f"{where}: its attribute 'patch_size' is of a level whose scale is not stated; "
        "'patch_size_level0', 'downsample', or 'level0_magnification' with "
        "'target_magnification' is needed beside it"
    )


def _hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with h5py.File(path, "r") as file:
        known = {name: file[name] for name in _ARRAYS if name in file}
        if not known:
            raise InputError(_no_features(path, list(file)))
        arrays = {name: np.asarray(held[()]) for name, held in known.items()}
        attributes = dict(known["coords"].attrs) if "coords" in known else {}
    return arrays, attributes


def _npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    known = {name: arrays[name] for name in _ARRAYS if name in arrays}
    if not known:
        raise InputError(_no_features(path, list(arrays)))
    return known, {name: value for name, value in arrays.items() if name not in known}


def _no_features(path: Path, names: list[str]) -> str:
    holds = f"it holds {named(names)}" if names else "it is empty"
    return (
        f"features {str(path)!r}: no 'features' (TRIDENT, CLAM, .npz) and no 'embeddings' (HEST); "
        f"{holds}"
    )


def _with_patches_of_clam(attributes: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """`attributes`, or those of CLAM's file of the same slide's patches where there are none."""
    if "patch_size_level0" in attributes or "patch_size" in attributes:
        return attributes
    for folder in (path.parent, path.parent.parent):
        patches = folder / CLAM_PATCHES / path.name
        if patches.is_file() and patches != path:
            with faults.reading(f"patches {str(patches)!r}"), h5py.File(patches, "r") as file:
                if "coords" in file:
                    return dict(file["coords"].attrs)
    return attributes


def _values(arrays: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    name = next((name for name in _VALUES if name in arrays), None)
    if name is None:
        raise InputError(f"{where}: it has {named(list(arrays))}, and no 'features' beside them")
    values = arrays[name]
    if values.ndim == 3 and len(values) == 1:  # a batch of one slide
        values = values[0]
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
        raise InputError(
            f"{where}: {name!r} of shape {values.shape} and type {values.dtype}; numbers of shape "
            "(patches, features) work, not one vector for a slide"
        )
    if not values.size:
        raise InputError(
            f"{where}: {name!r} of shape {values.shape} hold no patch: make them again"
        )
    values = values.astype(np.float32)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise InputError(
            f"{where}: {bad.sum()} of {len(values)} patches (first: number {int(np.argmax(bad))}) "
            "have a feature that is not a finite number; make them again, or leave those patches "
            "out with their coords"
        )
    return values


def _corners(arrays: Mapping[str, np.ndarray], n: int, where: str) -> np.ndarray:
    if "coords" not in arrays:
        raise InputError(
            f"{where}: neither 'coords' nor 'barcodes' say where its patches are; one is needed"
        )
    corners = arrays["coords"]
    if corners.ndim == 3 and len(corners) == 1:
        corners = corners[0]
    if corners.shape != (n, 2) or not np.issubdtype(corners.dtype, np.number):
        raise InputError(
            f"{where}: {n} patches and 'coords' of shape {corners.shape}; ({n}, 2) is needed"
        )
    corners = corners.astype(np.float64)
    if not np.isfinite(corners).all():
        at = int(np.argmin(np.isfinite(corners).all(axis=1)))
        raise InputError(f"{where}: 'coords' of patch number {at} are not finite numbers")
    return corners


def _barcodes(arrays: Mapping[str, np.ndarray], n: int, where: str) -> tuple[str, ...]:
    name = next((name for name in _BARCODES if name in arrays), None)
    if name is None:
        return ()
    texts = arrays[name].ravel()
    barcodes = tuple(
        b.decode("utf-8", "replace") if isinstance(b, bytes) else str(b) for b in texts
    )
    if len(barcodes) != n:
        raise InputError(f"{where}: {n} patches and {len(barcodes)} {name!r}; one each is needed")
    twice = repeats(barcodes)
    if twice:
        raise InputError(f"{where}: {len(twice)} of its {name!r} stand twice: {named(twice, 2)}")
    return barcodes


def _once(
    values: np.ndarray, corners: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Every patch once, in the file's order, and how many stood there again."""
    _, first, of = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(corners):
        return values, corners, 0
    owner = first[of.ravel()]
    again = np.flatnonzero(owner != np.arange(len(corners)))
    differ = [row for row in again if not np.array_equal(values[row], values[owner[row]])]
    if differ:
        x, y = corners[differ[0]]
        raise InputError(
            f"{where}: {len(differ)} patches (first: x {x:g}, y {y:g}) stand there again with "
            "other features; each patch once is needed. Were two runs written into one file?"
        )
    kept = np.sort(first)
    return values[kept], corners[kept], len(again)


def _number(attributes: Mapping[str, Any], name: str, where: str) -> float | None:
    """An attribute that is a number; None where it is absent, or TRIDENT's 'None'.

    Of two equal numbers, such as CLAM's downsample along x and y, the one.
    """
    value = attributes.get(name)
    if value is None or (isinstance(value, str | bytes) and value in ("None", b"None")):
        return None
    try:
        numbers = np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    # Levels of odd sizes have factors that differ in their last digits: 4.0002 and 4.0.
    if not len(numbers) or not np.allclose(numbers, numbers[0], rtol=0.01, atol=0):
        raise InputError(f"{where}: attribute {name!r} is {value!r}, where one number is needed")
    return float(numbers.mean())

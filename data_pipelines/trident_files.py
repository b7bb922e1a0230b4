"""Features of a slide's patches, written in TRIDENT's form, so that its users and ours read them.

The layout is that of mahmoodlab/TRIDENT (trident/IO.py, save_h5 and coords_to_h5), as of 2026:

    features    (n, f) float32; attributes name, savetodir, and what made them
    coords      (n, 2) int64, top left corners in full-resolution pixels, x first; attributes
                patch_size, patch_size_level0, level0_magnification, target_magnification,
                overlap, name, savetodir, level0_width, level0_height

TRIDENT states scales as magnifications, of which 10 is 1 micron per pixel. Here they may be broken
numbers; where a slide's scale is unknown they are "None", as TRIDENT writes what it does not know.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from histospace_tf import outputs
from histospace_tf.data_pipelines.readers.images import image_name, list_images
from histospace_tf.vocabulary import InputError, printable

_MAGNIFICATION_MPP = 10.0  # magnification times microns per pixel


@dataclasses.dataclass(frozen=True)
class Patches:
    """How the patches of a slide were cut.

    patch_px: side of a patch as the encoder sees it; side_px: in full-resolution pixels.
    step_px: distance of their corners in full-resolution pixels.
    slide_px: (width, height) of the slide. mpp: its microns per pixel; None if unknown.
    """

    patch_px: int
    side_px: int
    step_px: float
    slide_px: tuple[int, int]
    mpp: float | None


def images_by_file(path: Path) -> dict[str, Path]:
    """The images that `path` is or holds, by the name of each one's file of features.

    Raises:
        InputError: as `list_images`; two images of one name.
    """
    images: dict[str, Path] = {}
    for image in list_images(path):
        own = image_name(image.path)
        if own in images:
            raise InputError(
                f"images {str(images[own])!r} and {str(image.path)!r} would both be written as "
                f"{own}.h5: rename one, or write their folders apart"
            )
        images[own] = image.path
    return images


def shape(path: Path) -> tuple[int, int]:
    """Tiles and features for each of them in a file that `write` wrote."""
    with h5py.File(path) as file:
        tiles, width = file["features"].shape
    return int(tiles), int(width)


def write(
    path: Path,
    features: np.ndarray,
    corners_px: np.ndarray,
    patches: Patches,
    *,
    saved_to: Path,
    about: Mapping[str, str],
) -> None:
    """Writes NAME.h5 of a slide; it appears whole or not at all.

    Args:
        path: its stem is the slide's name.
        features: (n, f) float32.
        corners_px: (n, 2) top left corners, full-resolution pixels, x first, whole numbers.
        patches: how they were cut.
        saved_to: folder that the file will stand in, which TRIDENT notes in it.
        about: what made the features, as attributes of them.
    """
    unknown = patches.mpp is None
    finest = None if patches.mpp is None else _MAGNIFICATION_MPP / patches.mpp
    target = None if finest is None else finest * patches.patch_px / patches.side_px
    share = 1 - patches.step_px / patches.side_px
    own = {"name": printable(path.stem), "savetodir": printable(str(saved_to))}
    cut = {
        "patch_size": patches.patch_px,
        "patch_size_level0": patches.side_px,
        "level0_magnification": "None" if unknown else finest,
        "target_magnification": "None" if unknown else target,
        "overlap": max(0, round(share * patches.patch_px)),
        "level0_width": patches.slide_px[0],
        "level0_height": patches.slide_px[1],
    }
    # By way of memory: HDF5 keeps a file open that it could not finish on a full disk.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values, attributes in (
            ("features", np.asarray(features, np.float32), {**own, **about}),
            ("coords", np.asarray(corners_px, np.int64), {**own, **cut}),
        ):
            made = file.create_dataset(
                name, data=values, maxshape=(None, values.shape[1]), chunks=(1, values.shape[1])
            )
            made.attrs.update(attributes)
    with outputs.whole_file(path) as draft:
        draft.write_bytes(buffer.getvalue())

"""Files of patch features in the layouts that other tools write, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histospace_tf.data_pipelines import readers, slides

PATCH_PX = 40


def grid(width: int, height: int, *, side: int = PATCH_PX, step: int | None = None) -> np.ndarray:
    """(n, 2) int64 top left corners of patches that cover an image."""
    xs, ys = (np.arange(0, size, step or side) for size in (width, height))
    return np.stack([axis.ravel() for axis in np.meshgrid(xs, ys)], axis=1)


def values(n: int, width: int = 6, *, seed: int = 0) -> np.ndarray:
    """(n, width) float32."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def write_hdf5(path: Path, attributes: dict[str, Any] | None = None, **arrays: np.ndarray) -> Path:
    """Data sets as TRIDENT's and CLAM's save functions make them; attributes are of coords."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            made = file.create_dataset(
                name, data=array, maxshape=(None, *array.shape[1:]), chunks=(1, *array.shape[1:])
            )
            if name == "coords":
                made.attrs.update(attributes or {})
    return path


def write_trident(path: Path, corners: np.ndarray, features: np.ndarray, **attributes: Any) -> Path:
    """features_ENCODER/NAME.h5 at 20x of a slide scanned at 40x; `attributes` replace its own."""
    own = {
        "patch_size": PATCH_PX // 2,
        "patch_size_level0": PATCH_PX,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": path.stem,
        "savetodir": "somewhere",
    }
    return write_hdf5(path, {**own, **attributes}, features=features, coords=corners)


def write_clam(
    folder: Path, name: str, corners: np.ndarray, features: np.ndarray, **attributes: Any
) -> Path:
    """h5_files/NAME.h5, whose coords have no attributes, and patches/NAME.h5, whose coords have."""
    own = {
        "patch_size": PATCH_PX // 4,
        "patch_level": 1,
        "downsample": (4.0, 4.0),
        "downsampled_level_dim": (75, 65),
        "level_dim": (75, 65),
        "name": name,
        "save_path": "somewhere",
    }
    write_hdf5(folder / "patches" / f"{name}.h5", {**own, **attributes}, coords=corners)
    return write_hdf5(folder / "h5_files" / f"{name}.h5", features=features, coords=corners)


def write_cohort(folder: Path, data: Path, *, side: int = 100, width: int = 8) -> Path:
    """TRIDENT's file of every section of a data folder, at 20x of 40x; returns `folder`."""
    for section in readers.read_cohort(data).sections:
        assert section.image is not None
        corners = grid(*slides.image_size(section.image), side=side)
        write_trident(
            folder / f"{section.name}.h5",
            corners,
            values(len(corners), width),
            patch_size=side // 2,
            patch_size_level0=side,
        )
    return folder


def write_hest(path: Path, barcodes: list[str], features: np.ndarray) -> Path:
    """HEST's embeddings of the patches around its spots."""
    texts = np.array([[name.encode()] for name in barcodes])
    coords = np.zeros((len(barcodes), 2), np.int64)  # not said of what point of a patch
    return write_hdf5(path, embeddings=features, barcodes=texts, coords=coords)

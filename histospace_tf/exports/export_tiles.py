"""Tiles that exports are held against Keras on: those that a run kept, or made ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from histospace_tf.bundle import Bundle
from histospace_tf.vocabulary import InputError

_MADE = 8


def read(path: Path, bundle: Bundle) -> dict[str, np.ndarray]:
    """Arrays of `paired.parity_tiles`: "tile", and those of the others that are there.

    Raises:
        InputError: no such file, or arrays that are not the model's.
    """
    side = bundle.config.tiles.tile_px
    try:
        with np.load(path, allow_pickle=False) as file:
            names = {"tile", *({"measured", "training_tile"} & set(file.files))}
            kept = {name: file[name] for name in names}
    except FileNotFoundError:
        raise InputError(f"parity tiles {str(path)!r} do not exist") from None
    except Exception as error:  # NumPy raises many kinds for a file that is no .npz
        raise InputError(
            f"parity tiles {str(path)!r}: an .npz file with an array `tile` works ({error})"
        ) from None
    for name in sorted(names - {"measured"}):
        tiles = kept[name]
        if tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3) or tiles.dtype != np.uint8:
            raise InputError(
                f"parity tiles {str(path)!r}: `{name}` is {tiles.dtype} {tiles.shape}; the model "
                f"takes uint8 (n, {side}, {side}, 3)"
            )
        if not len(tiles):
            raise InputError(
                f"parity tiles {str(path)!r}: `{name}` is empty; at least one tile works"
            )
    right = (len(kept["tile"]), len(bundle.panel))
    if "measured" in kept and (
        kept["measured"].shape != right or not np.isfinite(kept["measured"]).all()
    ):
        raise InputError(
            f"parity tiles {str(path)!r}: `measured` has shape {kept['measured'].shape}; finite "
            f"numbers of shape {right} are needed, a row a tile"
        )
    return kept


def made(tile_px: int) -> np.ndarray:
    """Smooth tiles of any colour, always the same: (n, tile_px, tile_px, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (_MADE, 6, 6, 3), np.uint8)
    side = (tile_px, tile_px)
    return np.stack([cv2.resize(c, side, interpolation=cv2.INTER_CUBIC) for c in coarse])

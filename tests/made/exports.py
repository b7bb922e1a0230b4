"""An untrained model's exports, for tests of what is in them."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from histospace_tf import exporting
from histospace_tf.bundle import Bundle
from histospace_tf.exports import parity, tflite_checks
from made.bundles import TILE_PX, tiny_bundle


@dataclasses.dataclass(frozen=True)
class Exported:
    """tiles: (8, TILE_PX, TILE_PX, 3) uint8 that the exports were checked on."""

    bundle: Bundle
    out: Path
    report: exporting.ExportReport
    tiles: np.ndarray

    @property
    def saved_model(self) -> Path:
        return self.out / "saved_model" / "1"

    @property
    def tflite(self) -> Path:
        return self.out / "tflite" / "histospace_float32.tflite"


def made_export(folder: Path) -> Exported:
    """The recommended architecture in every format, checked as a user's."""
    tiles = made_tiles()
    np.savez(folder / "parity_tiles.npz", tile=tiles, training_tile=tiles)
    model, out = tiny_bundle("context"), folder / "new" / "run"
    # An untrained model's features lie anywhere, so its int8 variant may lose a good deal.
    report = exporting.export(
        model, out, parity_tiles=folder / "parity_tiles.npz", keep_all=True, timed=False
    )
    return Exported(model, out, report, tiles)


def coarse_tiles(n: int) -> np.ndarray:
    """(n, TILE_PX, TILE_PX, 3) uint8: pink and violet spots and gradients."""
    coarse = np.random.default_rng(5).integers(90, 256, (n, 8, 8, 3)).astype(np.uint8)
    return np.stack([cv2.resize(tile, (TILE_PX, TILE_PX)) for tile in coarse]).astype(np.uint8)


def made_tiles() -> np.ndarray:
    """(8, TILE_PX, TILE_PX, 3) uint8: as `coarse_tiles`, but one blank and one black."""
    tiles = coarse_tiles(8)
    tiles[0], tiles[1] = 255, 0
    return tiles


def checked_here(cases: list[parity.Case], draft: Path) -> tuple[parity.Check, ...]:
    """What `gate.checked` asks another process for."""
    parity.write_cases(draft / "expected.npz", cases)
    return tuple(parity.run_checks(draft))


def tflite_metadata(file: Path) -> dict[str, Any]:
    """What a .tflite file says of itself, read as a user reads it."""
    with zipfile.ZipFile(file) as archive:
        return dict(json.loads(archive.read("metadata.json")))


def compared_here(folder: Path) -> list[tflite_checks.LiteCheck]:
    """What `gate.compared` asks another process for."""
    with np.load(folder / "expected.npz") as kept:
        expected = dict(kept)
    return [tflite_checks.compare(file, expected) for file in sorted(folder.glob("*.tflite"))]


def tiled_picture(file: Path, *, tiles: int) -> pd.DataFrame:
    """Draws made tissue of `tiles` x `tiles` tiles with some glass; gives the tiles' centres."""
    rng = np.random.default_rng(tiles)
    side = tiles * TILE_PX
    amounts = cv2.resize(rng.uniform(0, 1.6, (4 * tiles, 4 * tiles, 2)), (side, side))
    amounts[: side // 8, : side // 8] = 0
    optical = amounts @ np.array([[0.6, 0.7, 0.35], [0.15, 0.95, 0.25]])
    image = np.array([236, 228, 232]) * np.exp(-optical) + rng.normal(0, 2, (side, side, 3))
    cv2.imwrite(str(file), np.clip(image, 0, 255).astype(np.uint8)[:, :, ::-1])
    middle = TILE_PX * np.arange(tiles) + (TILE_PX - 1) / 2
    y, x = np.meshgrid(middle, middle, indexing="ij")
    return pd.DataFrame({"pixel_x": x.ravel(), "pixel_y": y.ravel()})

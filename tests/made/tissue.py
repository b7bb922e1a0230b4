"""Tiny sections in memory, their H&E made up, for tests of what comes after the readers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.vocabulary import Section, SpotTable

SIZE_PX = (240, 200)  # width, height
TISSUE_PX = (40, 30, 200, 170)  # left, top, right, bottom of the tissue on the glass
GENES = ("ERBB2", "GNAS", "ACTB", "IGKC")


def he_picture(*, seed: int = 0, size: tuple[int, int] = SIZE_PX) -> np.ndarray:
    """(height, width, 3) uint8 RGB: glass with an island of pink tissue and violet blobs on it."""
    rng = np.random.default_rng(seed)
    width, height = size
    picture = np.clip(np.array([236, 230, 236]) + rng.normal(0, 2, (height, width, 3)), 0, 255)
    left, top, right, bottom = TISSUE_PX
    amounts = rng.random(((bottom - top) // 6, (right - left) // 6))
    blobs = cv2.resize(amounts, (right - left, bottom - top), interpolation=cv2.INTER_CUBIC)
    pink = np.array([225, 150, 195]) - 120 * np.clip(blobs, 0, 1)[..., None] * [1, 0.9, 0.5]
    picture[top:bottom, left:right] = pink
    return picture.astype(np.uint8)


def write_picture(path: Path, picture: np.ndarray) -> Path:
    cv2.imwrite(str(path), picture[..., ::-1])
    return path


def spot_table(centres: np.ndarray, *, seed: int = 0, genes: tuple[str, ...] = GENES) -> SpotTable:
    """Spots with counts of a few units each, none of them empty."""
    counts = np.random.default_rng(seed).poisson(4, (len(centres), len(genes))) + 1
    return SpotTable(
        names=tuple(f"s{i}" for i in range(len(centres))),
        centres_px=np.asarray(centres, np.float64),
        counts=sparse.csr_matrix(counts.astype(np.float32)),
        genes=genes,
    )


def section(
    name: str,
    patient: str,
    *,
    folder: Path | None = None,
    seed: int = 0,
    mpp: float | None = 1.0,
    spots_xy: tuple[int, int] = (3, 2),
) -> Section:
    """A section with 40 px between spots, its first at (60, 50); with `folder`, with an image."""
    columns, rows = spots_xy
    centres = [(60.0 + 40 * x, 50.0 + 40 * y) for y in range(rows) for x in range(columns)]
    image = None
    if folder is not None:
        image = write_picture(folder / f"{name}.png", he_picture(seed=seed))
    return Section(
        name=name,
        patient=patient,
        image=image,
        spots=spot_table(np.array(centres), seed=seed),
        mpp=mpp,
        spot_diameter_um=20.0,
        spot_pitch_um=40.0,
    )


def panel(*, genes: tuple[str, ...] = GENES, seed: int = 0) -> GenePanel:
    """A panel whose mean and scale are not zero and one."""
    rng = np.random.default_rng(seed)
    return GenePanel(
        genes=genes,
        normalisation="library_size_log1p",
        target_sum=1e4,
        mean=rng.uniform(1, 3, len(genes)).astype(np.float32),
        scale=rng.uniform(0.5, 2, len(genes)).astype(np.float32),
    )

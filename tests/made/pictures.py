"""Pictures: noise, a smooth one, fluorescence and H&E by the law of Beer and Lambert."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import Section

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
SIZE = 300


def overview_of(section: Section, max_px: int) -> slides.Overview:
    """An overview of a section's image, which is opened for it."""
    assert section.image is not None
    with slides.open_slide(section.image, mpp=section.mpp) as slide:
        return slides.Overview(*slide.overview(max_px), slide.mpp)


def overview_at(max_px: int) -> slides.OverviewOf:
    """`overview_of`, always of that size."""
    return lambda section, _: overview_of(section, max_px)


def picture(height: int = 60, width: int = 90, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def blurred_noise(height: int, width: int) -> np.ndarray:
    """Differs everywhere, and little between neighbouring pixels."""
    noise = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2).astype(np.uint8)


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Differs along x, y and channel, and survives JPEG nearly unchanged."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) / 2], axis=2).astype(np.uint8)


def stained_squares(
    matrix: np.ndarray,
    *,
    seed: int = 0,
    strength: float = 1.0,
    white: float | np.ndarray = 255.0,
    size: int = 96,
) -> np.ndarray:
    """(size, size, 3) uint8: squares of nuclei with haematoxylin alone, stroma with eosin alone,
    cytoplasm with both, and a quarter glass."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, (size // 4, size // 4)).repeat(4, axis=0).repeat(4, axis=1)
    amounts = np.array([[1.2, 0.0], [0.0, 0.9], [0.5, 0.5], [0.0, 0.0]])[kinds]
    amounts = amounts * rng.uniform(0.4, 1.2, (size, size, 2)) * strength
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.rint(white * np.exp(-amounts @ unit)).astype(np.uint8)


def opened(path: Path) -> np.ndarray:
    """All of an image, as the package reads it."""
    with slides.open_slide(path) as slide:
        return slide.region(0, 0, slide.width_px, slide.height_px)


def read_picture(path: Path) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    read = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert read is not None, path
    return read


def blobs(seed: int, *, number: int = 150) -> np.ndarray:
    """(h, w) float32 in 0 to 1: soft round spots."""
    rng = np.random.default_rng(seed)
    made = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(number):
        x, y = (int(value) for value in rng.integers(0, SIZE, 2))
        cv2.circle(made, (x, y), int(rng.integers(3, 8)), float(rng.uniform(0.2, 1)), -1)
    return cv2.GaussianBlur(made, (0, 0), 1.5)


def fluorescence(*dyes: tuple[int, int, int], ground: float = 6.0) -> np.ndarray:
    """Light of dyes, added up, on a dark ground with a camera's noise."""
    light = np.abs(np.random.default_rng(9).normal(ground, 2, (SIZE, SIZE, 3)))
    for seed, dye in enumerate(dyes):
        light += 255 * blobs(seed)[..., None] * np.array(dye)
    return np.clip(light, 0, 255).astype(np.uint8)


def stained(*, tissue: int = SIZE) -> np.ndarray:
    """H&E as Beer and Lambert have it; tissue on the left, glass right of it."""
    density = 1.6 * blobs(0)[..., None] * np.array(HAEMATOXYLIN) + (
        0.1 + 0.5 * blobs(1, number=300)[..., None]
    ) * np.array(EOSIN)
    density[:, tissue:] = 0
    grain = np.random.default_rng(2).normal(0, 2, (SIZE, SIZE, 3))
    return np.clip(240 * np.exp(-density) + grain, 0, 255).astype(np.uint8)

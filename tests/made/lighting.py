"""Slides under shadows and gradients that are known."""

from __future__ import annotations

import cv2
import numpy as np

WIDTH, HEIGHT = 480, 400
WHITE = np.array([236.0, 228, 238])
IN_THE_MIDDLE = (60, 60, WIDTH - 60, HEIGHT - 60)  # left, top, right, bottom


def known_field(kind: str) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) shares of white, 1 at the brightest place."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    x, y = x / WIDTH, y / HEIGHT
    even = np.ones((HEIGHT, WIDTH, 3))
    if kind == "gradient":
        return even * (1 - 0.2 * x)[..., None]
    if kind == "vignette":
        return even * (1 - 0.4 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    if kind == "pink corner":
        return even - np.exp(-(x**2 + y**2) / 0.2)[..., None] * np.array([0.02, 0.15, 0.07])
    assert kind == "none"
    return even


def made_slide(kind: str, tissue: tuple[int, int, int, int] = IN_THE_MIDDLE) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: blobs of tissue on glass, a camera's noise, under a known field."""
    rng = np.random.default_rng(0)
    left, top, right, bottom = tissue
    even = np.ones((HEIGHT, WIDTH, 3))
    blobs = cv2.resize(
        rng.random(((bottom - top) // 6, (right - left) // 6)), (right - left, bottom - top)
    )
    even[top:bottom, left:right] = np.exp(-0.2 - blobs[..., None] * np.array([0.7, 1.1, 0.5]))
    noisy = WHITE * even * known_field(kind) + rng.normal(0, 1.5, even.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)

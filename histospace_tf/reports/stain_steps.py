"""The steps of stain normalisation as pictures, and what they leave of shadows on glass."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.data_pipelines.slides.white_field import WhiteField, evened, glass_mask
from histospace_tf.vocabulary import StainReference

_SMOOTH = 100  # 1 / so much of the longer side: glass is averaged over it, so that shadows show


def steps(
    scanned: np.ndarray,
    source: StainReference,
    reference: StainReference,
    *,
    alone: StainReference | None = None,
    shares: np.ndarray | None = None,
) -> list[tuple[str, np.ndarray]]:
    """A picture as scanned, after each step of `recolouring` in turn, and after one step alone.

    A step that is switched off leaves the picture as it was.

    Args:
        scanned: (..., 3) uint8 RGB.
        source: stains of the picture's slide.
        reference: stains to recolour to.
        alone: the slide's stains, fitted with cast and luminosity off; None: that picture is left
            out.
        shares: of the slide's white field, (3,) or (..., 3): shadows go with the cast. None: one
            white point.
    Returns:
        (name, picture) pairs: original, cast removed, luminosity; and, but with method "none",
        stain alone and all steps.
    Raises:
        InputError: not uint8 RGB, or two methods.
    """
    lit = scanned if shares is None else evened(scanned, shares)
    neutral = stain.canonical_stains("none")
    cast = dataclasses.replace(neutral, white_point=source.white_point)
    bright = dataclasses.replace(cast, luminosity=source.luminosity)
    whole = recolouring.normalise(lit, source, reference)
    made = [
        ("original", scanned),
        (cast_name(shares is not None), recolouring.normalise(lit, cast, neutral)),
        ("+ luminosity", recolouring.normalise(lit, bright, neutral)),
    ]
    if source.method == "none":
        return made
    if alone is not None:
        name = f"stain alone ({source.method})"
        made.append((name, recolouring.normalise(scanned, alone, reference)))
    return [*made, ("all steps", whole)]


def cast_name(has_field: bool) -> str:
    return "colour cast, shadows removed" if has_field else "colour cast removed"


def shadows(overview: np.ndarray, field: WhiteField | None = None) -> np.ndarray:
    """How far glass lies below white once the colour cast is removed.

    Args:
        overview: (h, w, 3) uint8 RGB, a whole slide as scanned; its white point is the 99th
            percentile of each channel.
        field: the slide's white field, whose shares are taken off first; None: one white point.
    Returns:
        (h, w) float32 grey levels of the channel that is furthest from white, averaged over a
        hundredth of the slide; NaN where there is no glass.
    """
    lit = overview
    if field is not None:
        lit = evened(overview, field.over_picture(overview.shape))
    white_point = np.maximum(np.percentile(lit, 99, axis=(0, 1)), 1)
    below = 255 - recolouring.without_cast(lit.reshape(-1, 3), white_point).reshape(lit.shape)
    glass = glass_mask(overview, tissue_mask(overview)).astype(np.float32)
    sigma = max(overview.shape) / _SMOOTH
    weight = cv2.GaussianBlur(glass, (0, 0), sigma)
    sums = cv2.GaussianBlur(below * glass[..., None], (0, 0), sigma)
    mean = sums.max(axis=-1) / np.maximum(weight, 1e-6)
    return np.where(glass > 0, mean, np.nan).astype(np.float32)

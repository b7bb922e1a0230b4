"""Colour standardisation of H&E images. Floor 1: NumPy and OpenCV.

A slide's colours are estimated once, from pixels sampled over the whole of it (`fit_stains`), and
every pixel of its tiles is then recoloured by a formula of that pixel alone, written out in
`stain_formula`: colour cast, luminosity, stains. `normalise` works it out; `apply_table` looks it
up, with the same result.

Images are (..., 3) uint8 RGB, one tile or a batch; results are new arrays of the same shape.

Sources: Macenko et al., ISBI 2009; Vahadane et al., IEEE TMI 35(8), 2016; Reinhard et al., IEEE
CG&A 21(5), 2001; Ruifrok and Johnston, Anal Quant Cytol Histol 23(4), 2001.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from histospace_tf.data_pipelines import stain_formula
from histospace_tf.vocabulary import STAIN_METHODS, InputError, StainReference

MIN_TISSUE_PIXELS = 100  # fewer say nothing about stains
MIN_WHITE = 50.0  # a darker "white" is no glass: cast and luminosity stay off
MIN_STAIN_ANGLE = np.radians(6.0)  # rows closer than this cannot be told apart
MIN_CONCENTRATION = 0.2  # a stain that is all but absent is not amplified
MIN_LAB_STD = 2.0  # nor is the contrast of an image that has none
SPARSITY = 0.02  # Vahadane's lambda; his 0.1 draws the stains together on slides brought to white
VAHADANE_ROUNDS = 300

_FORMULA_ROWS = 1 << 13  # pixels worked on at once: small enough for the cache
_TABLE_ROWS = 1 << 16
_RGB = 0xFFFFFF  # the bits of a packed pixel that are colour; the highest byte says "known"


def canonical_stains(method: str = "vahadane") -> StainReference:
    """Textbook H&E: what stands in where a slide has no tissue to fit, or no reference is given.

    Haematoxylin and eosin are Ruifrok and Johnston's vectors, white is white, and the rest are
    rounded numbers near the medians over breast H&E of four public sources.
    """
    matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    return StainReference(
        method=method,
        white_point=np.full(3, 255.0),
        luminosity=255.0,
        stain_matrix=matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
        max_concentration=np.array([1.6, 0.9]),
        lab_mean=np.array([165.0, 150.0, 107.0]),
        lab_std=np.array([32.0, 7.0, 7.0]),
    )


def is_canonical(stains: StainReference) -> bool:
    """Whether these are the stand-in's stains: the fit found no usable tissue, or none was made."""
    stand_in = canonical_stains(stains.method)
    return bool(
        np.array_equal(stains.stain_matrix, stand_in.stain_matrix)
        and np.array_equal(stains.lab_mean, stand_in.lab_mean)
    )


def fit_stains(
    pixels: np.ndarray,
    *,
    method: str,
    cast: bool = True,
    luminosity: bool = True,
    seed: int = 0,
    sample: int = 20_000,
) -> StainReference:
    """Estimates one slide's colours.

    Args:
        pixels: (n, 3) or (..., 3) uint8 RGB from all over the slide, tissue and glass mixed.
        method: one of STAIN_METHODS.
        cast, luminosity: False leaves that step off (white point 255, luminosity 255).
        seed: which tissue pixels are drawn where there are more than `sample`.
        sample: tissue pixels to estimate stains from, at most.
    Returns:
        The slide's stains. Where fewer than MIN_TISSUE_PIXELS are tissue, or their colours do not
        tell two stains apart: `canonical_stains`, with cast and luminosity off, so that a blank
        tile stays as it is. The row that absorbs more red is haematoxylin and comes first.
    Raises:
        InputError: no pixels, not uint8 RGB, or an unknown method.
    """
    _check_method(method)
    _check_image(pixels)
    flat = pixels.reshape(-1, 3)
    if not len(flat):
        raise InputError("no pixels to estimate stains from; at least one is needed")
    neutral = canonical_stains(method)

    drawn = _drawn(flat, 8 * sample, seed)
    white = _white_point(flat) if cast else neutral.white_point
    level = _luminosity(drawn, white) if luminosity else neutral.luminosity
    bright = dataclasses.replace(neutral, white_point=white, luminosity=level)

    colours = stain_formula.bright_colours(drawn, bright)
    density = stain_formula.optical_density(colours)
    is_tissue = density.mean(axis=1) >= stain_formula.TISSUE_DENSITY
    tissue = _drawn(np.flatnonzero(is_tissue), sample, seed)
    if len(tissue) < MIN_TISSUE_PIXELS:
        return neutral
    density = density[tissue].astype(np.float64)

    if method == "none":
        return bright
    if method == "reinhard":
        lab = stain_formula.lab8(colours[tissue]).astype(np.float64)
        if lab[:, 0].std() < MIN_LAB_STD:
            return neutral
        return dataclasses.replace(
            bright, lab_mean=lab.mean(axis=0), lab_std=np.maximum(lab.std(axis=0), MIN_LAB_STD)
        )
    matrix = _macenko(density)
    if method == "vahadane" and matrix is not None:
        matrix = _vahadane(density, matrix)
    if matrix is None:
        return neutral
    strength = np.percentile(stain_formula.concentrations(density, matrix), 99, axis=0)
    return dataclasses.replace(
        bright, stain_matrix=matrix, max_concentration=np.maximum(strength, MIN_CONCENTRATION)
    )


def average_stains(references: Sequence[StainReference]) -> StainReference:
    """One reference for several slides: the mean of the stains' unit rows, scaled back to unit
    length, and the median of every other value.

    Raises:
        InputError: no references, or references of different methods.
    """
    if not references:
        raise InputError("no stains to average; at least one slide's are needed")
    methods = sorted({stains.method for stains in references})
    if len(methods) > 1:
        raise InputError(f"stains of one method can be averaged, not of {' and '.join(methods)}")
    matrix = np.mean([stains.stain_matrix for stains in references], axis=0)

    def middle(name: str) -> np.ndarray:
        return np.median([getattr(stains, name) for stains in references], axis=0)

    return StainReference(
        method=methods[0],
        white_point=middle("white_point"),
        luminosity=float(middle("luminosity")),
        stain_matrix=matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
        max_concentration=middle("max_concentration"),
        lab_mean=middle("lab_mean"),
        lab_std=middle("lab_std"),
    )


def normalise(image: np.ndarray, source: StainReference, reference: StainReference) -> np.ndarray:
    """Recolours an image from its slide's stains to the reference's, pixel by pixel.

    Args:
        image: (..., 3) uint8 RGB.
        source: stains of the slide that the image was cut from.
        reference: stains to recolour to, of the same method.
    Returns:
        New (..., 3) uint8 RGB.
    Raises:
        InputError: `image` is not uint8 RGB, or the two methods differ.
    """
    _check_image(image)
    _check_pair(source, reference)
    flat = image.reshape(-1, 3)
    recoloured = np.empty_like(flat)
    for start in range(0, len(flat), _FORMULA_ROWS):
        rows = slice(start, start + _FORMULA_ROWS)
        recoloured[rows] = stain_formula.recoloured(flat[rows], source, reference)
    return recoloured.reshape(image.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ColourTable:
    """What `normalise` makes of each of the 256^3 colours, worked out when a colour is first seen.

    packed: (2^24,) uint32, indexed by r + 256 g + 65536 b: the new colour in the same form, and
        255 in the highest byte once it is known. 64 MiB of address space; the system lends
        memory only for the parts that are written to.
    """

    source: StainReference
    reference: StainReference
    packed: np.ndarray


def colour_table(source: StainReference, reference: StainReference) -> ColourTable:
    """An empty table for the tiles of one slide; keep one a slide while its tiles are read.

    Raises:
        InputError: the two methods differ.
    """
    _check_pair(source, reference)
    return ColourTable(source, reference, np.zeros(_RGB + 1, np.uint32))


def apply_table(image: np.ndarray, table: ColourTable) -> np.ndarray:
    """`normalise`, looked up: equal to it, and several times as fast on colours seen before.

    Several threads may share a table: two that meet the same new colour write the same value.

    Raises:
        InputError: `image` is not uint8 RGB.
    """
    _check_image(image)
    if not image.size:
        return image.copy()
    flat = np.ascontiguousarray(image).reshape(1, -1, 3)
    recoloured = np.empty_like(flat)
    for start in range(0, flat.shape[1], _TABLE_ROWS):
        part = flat[:, start : start + _TABLE_ROWS]
        colour = (cv2.cvtColor(part, cv2.COLOR_RGB2RGBA).view(np.uint32).ravel() & _RGB).astype(
            np.intp
        )
        new = table.packed.take(colour, mode="clip")
        if new.min() <= _RGB:
            _learn(colour[new <= _RGB], table)
            new = table.packed.take(colour, mode="clip")
        recoloured[:, start : start + _TABLE_ROWS] = cv2.cvtColor(
            new.view(np.uint8).reshape(1, -1, 4), cv2.COLOR_RGBA2RGB
        )
    return recoloured.reshape(image.shape)


def _learn(colour: np.ndarray, table: ColourTable) -> None:
    # Each colour once: sorting short integers is many times as fast as np.unique.
    colour = np.sort(colour.astype(np.uint32))
    colour = colour[np.append(True, colour[1:] != colour[:-1])]
    levels = np.stack([colour & 255, colour >> 8 & 255, colour >> 16], axis=-1).astype(np.uint8)
    new = normalise(levels, table.source, table.reference)
    rgba = cv2.cvtColor(new[np.newaxis], cv2.COLOR_RGB2RGBA)
    table.packed[colour] = rgba.view(np.uint32).ravel()


def _white_point(pixels: np.ndarray) -> np.ndarray:
    white = np.percentile(pixels, 99, axis=0)
    return white if white.min() >= MIN_WHITE else np.full(3, 255.0)


def _luminosity(pixels: np.ndarray, white_point: np.ndarray) -> float:
    light = stain_formula.lab8(stain_formula.without_cast(pixels, white_point))[:, 0]
    level = float(np.percentile(light, 95))
    return min(level, 255.0) if level >= MIN_WHITE else 255.0


# Estimating the stain matrix: (n, 3) float64 optical density of tissue -> (2, 3), or None where
# two stains cannot be told apart.


def _macenko(density: np.ndarray) -> np.ndarray | None:
    """The directions at the 1st and 99th percentile of the angle within the plane of the two
    largest principal components."""
    _, axes = np.linalg.eigh(np.cov(density.T))
    plane = axes[:, [2, 1]]
    # An eigenvector's sign is arbitrary: turn the plane so that the pixels lie around angle 0.
    plane = plane * np.where(density.mean(axis=0) @ plane < 0, -1, 1)
    along = density @ plane
    low, high = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [1, 99])
    return _two_stains(np.array([plane @ [np.cos(t), np.sin(t)] for t in (low, high)]))


def _vahadane(density: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """Sparse non-negative factorisation (Vahadane et al. 2016, eq. 4), begun at Macenko's stains.

    Alternates the codes' exact solution with one sweep of block coordinate descent over the
    stains (Mairal et al., JMLR 11, 2010, algorithm 2); with two stains both are plain formulas.
    """
    matrix = matrix.copy()
    for _ in range(VAHADANE_ROUNDS):
        before = matrix.copy()
        codes = stain_formula.concentrations(density, matrix, SPARSITY)
        gram, cross = codes.T @ codes, codes.T @ density
        for j in range(2):
            if gram[j, j] <= 0:
                return None
            row = np.maximum(matrix[j] + (cross[j] - gram[j] @ matrix) / gram[j, j], 0)
            length = np.linalg.norm(row)
            if length <= 0:
                return None
            matrix[j] = row / length
        if matrix[0] @ matrix[1] > np.cos(MIN_STAIN_ANGLE):
            return None
        if np.abs(matrix - before).max() < 1e-6:
            break
    return _two_stains(matrix)


def _two_stains(matrix: np.ndarray) -> np.ndarray | None:
    """Unit, non-negative rows, haematoxylin first: the one that absorbs more red."""
    matrix = np.maximum(matrix, 0)
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.isfinite(matrix).all() or (length < 1e-6).any():
        return None
    matrix = matrix / length
    if matrix[0] @ matrix[1] > np.cos(MIN_STAIN_ANGLE):
        return None
    return matrix if matrix[0, 0] >= matrix[1, 0] else matrix[::-1].copy()


def _drawn(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the rows, in their order, the same for the same seed."""
    if len(rows) <= most:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return rows[np.sort(chosen)]


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"pixels of type {found}: uint8 RGB with levels 0 to 255 is needed")
    if image.ndim < 1 or image.shape[-1] != 3:
        raise InputError(f"pixels of shape {image.shape}: RGB with a last axis of 3 is needed")


def _check_method(method: str) -> None:
    if method not in STAIN_METHODS:
        raise InputError(f"stain method {method!r} is unknown; one of {', '.join(STAIN_METHODS)}")


def _check_pair(source: StainReference, reference: StainReference) -> None:
    if source.method != reference.method:
        raise InputError(
            f"stains fitted by {source.method!r} cannot be recoloured to a reference fitted by "
            f"{reference.method!r}; fit both with one method"
        )

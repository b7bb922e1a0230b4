"""Recolouring of pixels from their slide's stains to a reference's, by formula or by table.

`stain` estimates the stains of a slide. `normalise` works the formula out for every pixel;
`apply_table` looks it up, with the same result. Images are (..., 3) uint8 RGB, one tile or a batch;
results are new arrays of the same shape.

The formula, in floating point throughout, for a pixel of 8-bit sRGB levels x = (r, g, b). "Source"
are the stains of the pixel's own slide, "reference" those to recolour to. Each slide is brought to
neutral white by its own `white_point` and `luminosity`; the reference serves what step 3 needs.

1. Colour cast (source.white_point; 255, 255, 255 is off):
       x = min(x * 255 / white_point, 255)
2. Luminosity (source.luminosity; 255 is off), in CIE Lab of sRGB under D65:
       linear = v / 12.92 where v <= 0.04045, else ((v + 0.055) / 1.055) ** 2.4, with v = x / 255
       (X/Xn, Y/Yn, Z/Zn) = LINEAR_TO_XYZ @ linear
       f(t) = cbrt(t) where t > 0.008856, else 7.787 t + 16 / 116
       L = min((116 f(Y/Yn) - 16) * 255 / luminosity, 100), a and b as they are: with
       shift = (L + 16) / 116 - f(Y/Yn), f of X/Xn, Y/Yn and Z/Zn each grow by `shift`,
       and the way back is the inverse of each line; linear is clipped to [0, 1]
3. Stains, Macenko and Vahadane (Ruifrok and Johnston 2001 for optical density):
       od = -ln(max(x, 1) / 255)
       d = source.stain_matrix @ od, k = row 0 . row 1
       c = (d0 - k d1, d1 - k d0) / (1 - k k); where one of them is negative it is 0 and the
       other is its d, clipped at 0: the least squares solution with c >= 0
       x = 255 exp(-(c * reference.max_concentration / source.max_concentration)
                   @ reference.stain_matrix)
   Reinhard instead (Lab as in 2, in OpenCV's 8-bit units: 255 L / 100, a + 128, b + 128):
       lab = (lab - source.lab_mean) / source.lab_std * reference.lab_std + reference.lab_mean
       mixed with the unchanged pixel by its mean optical density, all of it from TISSUE_DENSITY on
       and none at 0, so that glass stays glass
   Method "none" ends after step 2.
4. x is clipped to [0, 255] and rounded to the nearest whole number (halves to even).

Here colours are (n, 3) float32 in [0, 255] and a step is a function, so that a graph can repeat it.

Sources: Macenko et al., ISBI 2009; Vahadane et al., IEEE TMI 35(8), 2016; Reinhard et al., IEEE
CG&A 21(5), 2001; Ruifrok and Johnston, Anal Quant Cytol Histol 23(4), 2001.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from histospace_tf.vocabulary import InputError, StainReference

TISSUE_DENSITY = 0.15  # mean optical density over R, G, B from which a pixel counts as tissue

# sRGB to CIE XYZ under D65 (ITU-R BT.709 primaries), each row divided by white's, so white is 1.
_RGB_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
LINEAR_TO_XYZ = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(axis=1, keepdims=True)
XYZ_TO_LINEAR = np.linalg.inv(LINEAR_TO_XYZ)

_FORMULA_ROWS = 1 << 13  # pixels worked on at once: small enough for the cache
_TABLE_ROWS = 1 << 16
_RGB = 0xFFFFFF  # the bits of a packed pixel that are colour; the highest byte says "known"


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
    check_image(image)
    _check_pair(source, reference)
    flat = image.reshape(-1, 3)
    out = np.empty_like(flat)
    for start in range(0, len(flat), _FORMULA_ROWS):
        rows = slice(start, start + _FORMULA_ROWS)
        out[rows] = recoloured(flat[rows], source, reference)
    return out.reshape(image.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ColourTable:
    """Results of `normalise` for each of the 256^3 colours, computed when a colour first occurs.

    packed: (2^24,) uint32, indexed by r + 256 g + 65536 b: the new colour in the same form, and
        255 in the highest byte once it is known. 64 MiB of address space; memory is used only
        for the parts that are written to.
    """

    source: StainReference
    reference: StainReference
    packed: np.ndarray


def colour_table(source: StainReference, reference: StainReference) -> ColourTable:
    """An empty table for the tiles of one slide; keep one per slide while its tiles are read.

    Raises:
        InputError: the two methods differ.
    """
    _check_pair(source, reference)
    return ColourTable(source, reference, np.zeros(_RGB + 1, np.uint32))


def apply_table(image: np.ndarray, table: ColourTable) -> np.ndarray:
    """`normalise` by a table: the same result, several times as fast on colours met before.

    Several threads may share a table: two that meet the same new colour write the same value.

    Raises:
        InputError: `image` is not uint8 RGB.
    """
    check_image(image)
    if not image.size:
        return image.copy()
    flat = np.ascontiguousarray(image).reshape(1, -1, 3)
    out = np.empty_like(flat)
    for start in range(0, flat.shape[1], _TABLE_ROWS):
        part = flat[:, start : start + _TABLE_ROWS]
        colour = (cv2.cvtColor(part, cv2.COLOR_RGB2RGBA).view(np.uint32).ravel() & _RGB).astype(
            np.intp
        )
        new = table.packed.take(colour, mode="clip")
        if new.min() <= _RGB:
            _learn(colour[new <= _RGB], table)
            new = table.packed.take(colour, mode="clip")
        out[:, start : start + _TABLE_ROWS] = cv2.cvtColor(
            new.view(np.uint8).reshape(1, -1, 4), cv2.COLOR_RGBA2RGB
        )
    return out.reshape(image.shape)


def _learn(colour: np.ndarray, table: ColourTable) -> None:
    """Adds colours, (n,) packed, to a table."""
    # Each colour once: sorting short integers is many times as fast as np.unique.
    colour = np.sort(colour.astype(np.uint32))
    colour = colour[np.append(True, colour[1:] != colour[:-1])]
    levels = np.stack([colour & 255, colour >> 8 & 255, colour >> 16], axis=-1).astype(np.uint8)
    new = normalise(levels, table.source, table.reference)
    rgba = cv2.cvtColor(new[np.newaxis], cv2.COLOR_RGB2RGBA)
    table.packed[colour] = rgba.view(np.uint32).ravel()


def recoloured(levels: np.ndarray, source: StainReference, reference: StainReference) -> np.ndarray:
    """All steps: (n, 3) uint8 -> (n, 3) uint8; n at least 1."""
    colours = bright_colours(levels, source)
    if source.method == "reinhard":
        share = np.minimum(optical_density(colours).mean(axis=1) / TISSUE_DENSITY, 1)[:, None]
        contrast = _single(reference.lab_std / source.lab_std)
        lab = (lab8(colours) - _single(source.lab_mean)) * contrast + _single(reference.lab_mean)
        colours = colours + share * (_from_lab8(lab) - colours)
    elif source.method != "none":
        concentration = concentrations(optical_density(colours), source.stain_matrix)
        ratio = reference.max_concentration / source.max_concentration
        colours = 255 * np.exp(-_mixed(concentration, (ratio[:, None] * reference.stain_matrix).T))
    return np.rint(np.clip(colours, 0, 255)).astype(np.uint8)


def bright_colours(levels: np.ndarray, source: StainReference) -> np.ndarray:
    """Steps 1 and 2: (n, 3) uint8 -> (n, 3) float32 in [0, 255]."""
    if source.luminosity == 255:
        return without_cast(levels, source.white_point)
    # Up to linear light each channel is independent and has 256 levels: a table is enough.
    all_levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 3)
    lights = linear_light(without_cast(all_levels, source.white_point))
    f = _f(_mixed(cv2.LUT(levels[np.newaxis], lights[np.newaxis])[0], LINEAR_TO_XYZ))
    light = 116 * f[:, 1:2] - 16
    f += (np.minimum(light * (255 / source.luminosity), 100) + 16) / 116 - f[:, 1:2]
    return _levels(_mixed(_f_inverse(f), XYZ_TO_LINEAR))


def without_cast(levels: np.ndarray, white_point: np.ndarray) -> np.ndarray:
    """Step 1: (n, 3) uint8 -> (n, 3) float32 in [0, 255]."""
    return np.minimum(levels * _single(255 / white_point), np.float32(255))


def linear_light(colours: np.ndarray) -> np.ndarray:
    """(n, 3) levels in [0, 255] -> (n, 3) linear light in [0, 1]."""
    v = colours / 255
    return _split(v, 0.04045, v / 12.92, cv2.pow((v + 0.055) / 1.055, 2.4))


def lab8(colours: np.ndarray) -> np.ndarray:
    """(n, 3) levels in [0, 255] -> (n, 3) CIE Lab in OpenCV's 8-bit units, not rounded."""
    f = _f(_mixed(linear_light(colours), LINEAR_TO_XYZ))
    x, y, z = f.T
    return np.stack([2.55 * (116 * y - 16), 500 * (x - y) + 128, 200 * (y - z) + 128], axis=1)


def optical_density(colours: np.ndarray) -> np.ndarray:
    """(n, 3) levels in [0, 255] -> (n, 3) optical density, 0 for white."""
    return -cv2.log(np.maximum(colours, 1) / 255)


def concentrations(density: np.ndarray, matrix: np.ndarray, sparsity: float = 0) -> np.ndarray:
    """(n, 3) optical density -> (n, 2) concentrations c >= 0 that minimise
    |density - c @ matrix|^2 / 2 + sparsity * (c0 + c1), for unit rows of `matrix`."""
    d0, d1 = (_mixed(density, matrix) - density.dtype.type(sparsity)).T
    k = float(matrix[0] @ matrix[1])
    c0, c1 = (d0 - k * d1) / (1 - k * k), (d1 - k * d0) / (1 - k * k)
    # Where one comes out negative it is 0, and the other stands alone.
    c0, c1 = np.where(c1 < 0, d0, c0), np.where(c0 < 0, d1, c1)
    return np.maximum(np.stack([c0, c1], axis=1), 0)


def _from_lab8(lab: np.ndarray) -> np.ndarray:
    light, a, b = lab.T
    y = (np.clip(light / 2.55, 0, 100) + 16) / 116
    f = np.stack([y + (a - 128) / 500, y, y - (b - 128) / 200], axis=1)
    return _levels(_mixed(_f_inverse(f), XYZ_TO_LINEAR))


def _levels(linear: np.ndarray) -> np.ndarray:
    v = np.clip(linear, 0, 1)
    return 255 * _split(v, 0.0031308, 12.92 * v, 1.055 * cv2.pow(v, 1 / 2.4) - 0.055)


def _f(t: np.ndarray) -> np.ndarray:
    # OpenCV's power is many times as fast as NumPy's, and as exact.
    return _split(t, 0.008856, 7.787 * t + 16 / 116, cv2.pow(t, 1 / 3))


def _f_inverse(f: np.ndarray) -> np.ndarray:
    return _split(f, 6 / 29, (f - 16 / 116) / 7.787, f * f * f)


def _split(values: np.ndarray, at: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`low` where `values` <= `at`, else `high`; written into `high`, which is several times as
    fast as a new array."""
    np.copyto(high, low, where=values <= at)
    return high


def _mixed(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`matrix` times each row of `values`, in the precision of `values`."""
    return cv2.transform(np.ascontiguousarray(values)[:, None], matrix.astype(values.dtype))[:, 0]


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def check_image(image: np.ndarray) -> None:
    """Refuses what is not (..., 3) uint8 RGB.

    Raises:
        InputError: another type or shape, which is named.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"pixels of type {kind}: uint8 RGB with levels 0 to 255 is needed")
    if image.ndim < 1 or image.shape[-1] != 3:
        raise InputError(f"pixels of shape {image.shape}: RGB with a last axis of 3 is needed")


def _check_pair(source: StainReference, reference: StainReference) -> None:
    if source.method != reference.method:
        raise InputError(
            f"stains fitted by {source.method!r} cannot be recoloured to a reference fitted by "
            f"{reference.method!r}; fit both with one method"
        )

"""`recolouring` as TensorFlow operations, for a model that is given raw tiles. Floor 2.

The steps, the constants and their names are those of `recolouring`, whose docstring holds the
formulas; the two agree within one grey level. Reinhard's method is not here: it has no optical
density, and what it takes from a slide does not fit the four inputs below.

Here colours are (n, pixels, 3) float32 in [0, 255], and every tile has its own source stains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from histospace_tf.data_pipelines.recolouring import LINEAR_TO_XYZ, XYZ_TO_LINEAR
from histospace_tf.vocabulary import InputError, StainReference

METHODS = ("none", "macenko", "vahadane")


class SourceStains(NamedTuple):
    """Stains of the slides that tiles were cut from, one row per tile; all float32.

    white_point: (n, 3), above 0. luminosity: (n,), above 0; 255 is off. Neither is above 255.
    stain_matrix: (n, 2, 3), unit rows that are not parallel. max_concentration: (n, 2), above 0.
    """

    white_point: tf.Tensor
    luminosity: tf.Tensor
    stain_matrix: tf.Tensor
    max_concentration: tf.Tensor


def recoloured(tile: tf.Tensor, source: SourceStains, reference: StainReference) -> tf.Tensor:
    """Recolours tiles from their slides' stains to the reference's as `recolouring.normalise`.

    Args:
        tile: (n, height, width, 3) uint8 RGB.
        source: one row per tile.
        reference: stains to recolour to; its method decides which steps are taken.
    Returns:
        (n, height, width, 3) uint8 RGB.
    Raises:
        InputError: a reference of a method that is not one of METHODS.
        tf.errors.InvalidArgumentError: when it runs, the numbers of rows and tiles differ, or
            values are outside the ranges above.
    """
    if reference.method not in METHODS:
        raise InputError(
            f"stains of method {reference.method!r} are not worked out in a graph; "
            f"one of {', '.join(METHODS)} is"
        )
    with tf.control_dependencies(_checks(tile, source)):
        colours = tf.cast(tf.reshape(tile, (tf.shape(tile)[0], -1, 3)), tf.float32)
    colours = tf.minimum(colours * (255 / source.white_point[:, None]), 255.0)
    colours = _with_luminosity(colours, source.luminosity)
    if reference.method != "none":
        concentration = _concentrations(_optical_density(colours), source.stain_matrix)
        ratio = reference.max_concentration.astype(np.float32) / source.max_concentration
        density = _mixed(concentration * ratio[:, None], reference.stain_matrix.T)
        colours = 255 * tf.exp(-density)
    levels = tf.cast(tf.round(tf.clip_by_value(colours, 0.0, 255.0)), tf.uint8)
    return tf.reshape(levels, tf.shape(tile))


def _checks(tile: tf.Tensor, source: SourceStains) -> list[tf.Operation]:
    """Assertions of the ranges; without them results would be NaN or wrong colours."""
    rows = tf.shape(tile)[0]
    checks = []
    for name, values in source._asdict().items():
        n_rows = tf.shape(values)[0]
        words = f"{name}: as many rows as tiles are needed"
        checks.append(tf.debugging.Assert(tf.equal(n_rows, rows), [words, n_rows, rows]))
        if name != "stain_matrix":
            most = np.inf if name == "max_concentration" else 255.0
            fine = tf.reduce_all(tf.math.is_finite(values) & (values > 0) & (values <= most))
            words = f"{name}: finite numbers above 0 are needed"
            words += "" if most == np.inf else ", 255 at most"
            checks.append(tf.debugging.Assert(fine, [words, values]))
    matrix = source.stain_matrix
    length, between = tf.norm(matrix, axis=-1), tf.reduce_sum(matrix[:, 0] * matrix[:, 1], axis=-1)
    fine = tf.reduce_all(tf.abs(length - 1) < 1e-3) & tf.reduce_all(tf.abs(between) < 0.9999)
    words = "stain_matrix: two unit rows that are not parallel are needed"
    checks.append(tf.debugging.Assert(fine, [words, matrix]))
    return checks


def _with_luminosity(colours: tf.Tensor, luminosity: tf.Tensor) -> tf.Tensor:
    """Step 2; where luminosity is 255 colours stay as they are."""
    v = colours / 255
    linear = tf.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    t = _mixed(linear, LINEAR_TO_XYZ)
    f = tf.where(t <= 0.008856, 7.787 * t + 16 / 116, t ** (1 / 3))
    light = 116 * f[..., 1:2] - 16
    gain = 255 / luminosity[:, None, None]
    f += (tf.minimum(light * gain, 100.0) + 16) / 116 - f[..., 1:2]
    t = tf.where(f <= 6 / 29, (f - 16 / 116) / 7.787, f**3)
    v = tf.clip_by_value(_mixed(t, XYZ_TO_LINEAR), 0.0, 1.0)
    brighter = 255 * tf.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    return tf.where(luminosity[:, None, None] == 255, colours, brighter)


def _optical_density(colours: tf.Tensor) -> tf.Tensor:
    return -tf.math.log(tf.maximum(colours, 1.0) / 255)


def _concentrations(density: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """(n, pixels, 3) -> (n, pixels, 2): the non-negative least squares solution."""
    d = tf.linalg.matmul(density, matrix, transpose_b=True)
    d0, d1 = d[..., 0], d[..., 1]
    k = tf.reduce_sum(matrix[:, 0] * matrix[:, 1], axis=-1)[:, None]
    c0, c1 = (d0 - k * d1) / (1 - k * k), (d1 - k * d0) / (1 - k * k)
    c0, c1 = tf.where(c1 < 0, d0, c0), tf.where(c0 < 0, d1, c1)
    return tf.maximum(tf.stack([c0, c1], axis=-1), 0.0)


def _mixed(values: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """`matrix` times each pixel of `values`."""
    return tf.tensordot(values, matrix.T.astype(np.float32), axes=1)

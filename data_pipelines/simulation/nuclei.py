"""Nuclei and cytoplasm of simulated cells: small drawings, stamped where the plan has cells.

Nuclei differ by cell type in size, shape and grain: tumour nuclei are large and irregular, open,
with a rim and nucleoli; lymphocytes small, round and dense; fibroblasts spindles along the fibres.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage, spatial

from histospace_tf.data_pipelines.simulation.plan import (
    BACKGROUND_PX,
    CELL_TYPES,
    FAT,
    GLAND,
    IMMUNE,
    IMMUNE_RADIUS_PX,
    PLAN_PX,
    STROMA,
    STROMA_RADIUS_PX,
    TUMOUR,
    TUMOUR_RADIUS_PX,
    TUMOUR_SPACING_PX,
    Plan,
    values_at,
)

TURNS = 24  # directions of a nucleus
VARIANTS = 8  # nuclei drawn in each direction, for each kind and level of atypia
SPRITE_SEED = 1
# Haematoxylin of a nucleus, by cell type: lymphocytes are dense, tumour nuclei open.
NUCLEUS_DENSITY = {TUMOUR: 0.86, STROMA: 0.84, IMMUNE: 0.95, FAT: 0.8, GLAND: 0.9}


def stamp_cells(
    rng: np.random.Generator,
    plan: Plan,
    cells_px: np.ndarray,
    kinds: np.ndarray,
    atypia: np.ndarray,
    hyper: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws nuclei, (h, w) float32, and cytoplasm, float32 on cells of BACKGROUND_PX."""
    shape = plan.edge.shape
    height, width = shape[0] * PLAN_PX, shape[1] * PLAN_PX
    d_down, d_right = np.gradient(plan.across)
    direction = np.arctan2(-values_at(d_right, cells_px), values_at(d_down, cells_px))
    direction = np.where(kinds == STROMA, direction, rng.uniform(0, np.pi, len(kinds)))
    turn = np.round(direction / np.pi * TURNS).astype(int) % TURNS

    size = np.round(atypia * 4).astype(int)
    variant = rng.integers(VARIANTS, size=len(kinds))
    gain = np.exp(rng.normal(0, 0.13, len(kinds))) * [NUCLEUS_DENSITY[k] for k in kinds]
    gain *= values_at(hyper, cells_px)
    sprites = {
        (kind, level): _sprites(kind, level)
        for kind in range(len(CELL_TYPES))
        for level in (range(5) if kind == TUMOUR else (0,))
    }
    pad = 24
    nuclei = np.zeros((height + 2 * pad, width + 2 * pad), np.float32)
    at = np.round(cells_px).astype(int) + pad
    if (kinds == FAT).any():  # an adipocyte's nucleus lies at its wall, not in its middle
        centres = cells_px[kinds == FAT]
        _, near = spatial.cKDTree(centres).query(centres, k=min(2, len(centres)))
        wall = (centres + centres[near.reshape(len(centres), -1)[:, -1]]) / 2
        at[kinds == FAT] = np.round(wall).astype(int) + pad
    for (x, y), kind, level, t, v, g in zip(
        at.tolist(), kinds.tolist(), size.tolist(), turn.tolist(), variant.tolist(), gain.tolist(),
        strict=True,
    ):  # fmt: skip
        sprite = sprites[kind, level][t, v]
        r = sprite.shape[0] // 2
        place = nuclei[y - r : y + r + 1, x - r : x + r + 1]
        np.maximum(place, g * sprite, out=place)

    rows, columns = height // BACKGROUND_PX, width // BACKGROUND_PX
    body = np.zeros((rows + 2 * pad, columns + 2 * pad), np.float32)
    bodies = {level: _disc(0.62 * np.interp(level / 4, (0, 1), TUMOUR_SPACING_PX) / 2 + 1)
              for level in range(5)}  # fmt: skip
    epithelial = (kinds == TUMOUR) | (kinds == GLAND)
    shades = rng.uniform(0.6, 1.1, len(kinds))
    half = np.round(cells_px / BACKGROUND_PX).astype(int) + pad
    for (x, y), level, shade in zip(
        half[epithelial].tolist(), size[epithelial].tolist(), shades[epithelial].tolist(),
        strict=True,
    ):  # fmt: skip
        disc = bodies[level]
        r = disc.shape[0] // 2
        place = body[y - r : y + r + 1, x - r : x + r + 1]
        np.maximum(place, shade * disc, out=place)
    inner = slice(pad, -pad)
    return np.ascontiguousarray(nuclei[inner, inner]), body[inner, inner]


@functools.cache
def _sprites(kind: int, level: int) -> np.ndarray:
    """Nuclei of one kind and one of the levels of atypia 0, 1/4, ... 1; the same for every section.

    Returns:
        (TURNS, VARIANTS, s, s) float32: about 1 at the rim, 0 outside; long axis along the turn.
    """
    rng = np.random.default_rng([SPRITE_SEED, kind, level])
    n, atypia = TURNS * VARIANTS, level / 4
    radius = {
        TUMOUR: float(np.interp(atypia, (0, 1), TUMOUR_RADIUS_PX)),
        STROMA: STROMA_RADIUS_PX,
        IMMUNE: IMMUNE_RADIUS_PX,
        FAT: 2.6,
        GLAND: 4.9,
    }[kind]
    stretch = {
        TUMOUR: rng.uniform(1.0, 1.35 + 0.25 * atypia, n),
        STROMA: rng.uniform(2.0, 3.6, n),
        IMMUNE: rng.uniform(1.0, 1.15, n),
        FAT: rng.uniform(2.2, 3.2, n),
        GLAND: rng.uniform(1.2, 1.6, n),
    }[kind]
    lumps = {TUMOUR: 0.07 + 0.06 * atypia, STROMA: 0.08, IMMUNE: 0.04, FAT: 0.04, GLAND: 0.05}[kind]
    size = radius * np.exp(rng.normal(0, 0.06 + 0.10 * (kind == TUMOUR) * (0.3 + atypia), n))
    reach = int(np.ceil((size * np.sqrt(stretch)).max() * 1.45)) + 2
    reach = min(reach, 22)
    yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    angle = np.repeat(np.arange(TURNS) / TURNS * np.pi, VARIANTS) + rng.normal(0, 0.12, n)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = xx * cos + yy * sin, yy * cos - xx * sin
    root = np.sqrt(stretch)[:, None, None]
    u, v = u / root, v * root
    theta, r = np.arctan2(v, u), np.hypot(u, v)
    outline = np.ones_like(r)
    for wave in (2, 3, 4):
        phase = rng.uniform(0, 2 * np.pi, n)[:, None, None]
        outline += (lumps * rng.normal(0, 1, n))[:, None, None] * np.cos(wave * theta + phase)
    depth = (size[:, None, None] * outline - r) / 1.0  # pixels inside the rim
    mask = np.clip(depth / 1.3 + 0.5, 0, 1)
    coarse = 1.2 if kind == IMMUNE else 1.5
    clumps = ndimage.gaussian_filter(rng.normal(0, 1, r.shape), (0, coarse, coarse))
    clumps /= clumps.std()
    rim = np.exp(-((depth / 1.6) ** 2))
    if kind == TUMOUR:
        inner = 0.80 - 0.10 * atypia + (0.10 + 0.05 * atypia) * clumps + 0.20 * rim
        cx, cy = rng.normal(0, 0.25, (2, n, 1, 1)) * radius
        nucleolus = np.exp(-((xx - cx) ** 2 + (yy - cy) ** 2) / (2 * (0.9 + 0.7 * atypia) ** 2))
        inner += (0.25 + 0.35 * atypia) * nucleolus
    elif kind == IMMUNE:
        inner = 0.95 + 0.10 * clumps
    else:
        inner = 0.85 + 0.10 * clumps + 0.15 * rim
    return (mask * inner).astype(np.float32).reshape(TURNS, VARIANTS, *mask.shape[1:])


def _disc(radius: float) -> np.ndarray:
    reach = int(np.ceil(radius)) + 2
    yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.clip((radius - np.hypot(xx, yy)) / 2 + 0.5, 0, 1).astype(np.float32)

"""The plan of a simulated section, which `histology` paints: regions, and where cells are.

A plan is a coarse map of smooth random fields (tissue, regions, tears, fibre direction, nuclear
atypia) and the cells that are scattered over it. Lengths are full-resolution pixels, points (x, y).
"""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
from scipy import ndimage

CELL_TYPES = ("tumour", "stroma", "immune", "fat", "gland")
TUMOUR, STROMA, IMMUNE, FAT, GLAND = range(len(CELL_TYPES))

PLAN_PX = 8  # side of one cell of the coarse map
BACKGROUND_PX = (
    2  # side of one cell of the background between nuclei, which is soft and painted coarser
)

# Shares of the tissue, each varied by a factor of exp(N(0, SHARE_SPREAD)) a section.
FAT_SHARE = 0.08
TUMOUR_SHARE = 0.60  # of what is not fat; nests with septa of stroma between them
IMMUNE_SHARE = 0.16  # of what is not fat, densest at the tumour's edge
SHARE_SPREAD = 0.25
GLANDS = 5  # normal ducts a section of the default size

# Nuclei: radius and distance between neighbours. Tumour nuclei grow with atypia (0 to 1) while the
# area that they cover stays the same, so that mean colour does not give atypia away.
TUMOUR_RADIUS_PX = (5.2, 8.6)
TUMOUR_SPACING_PX = (15.6, 25.6)
IMMUNE_RADIUS_PX = 4.3
IMMUNE_SPACING_PX = 12.8
STROMA_RADIUS_PX = 3.9  # of a disc of the same area; spindles are 2 to 3.6 times as long as wide
STROMA_SPACING_PX = 14.5
ADIPOCYTE_PX = 88.0
CROWDING = (0.66, 0.32)  # share of the places that are filled: mean, standard deviation
CROWDING_PX = 380.0
# Tears: the field that is torn where it is above this level, and the swing of the level.
GAP_LEVEL = 1.8
GAP_SWING = 0.9


@dataclasses.dataclass(frozen=True)
class Plan:
    """The coarse maps, all (h / PLAN_PX, w / PLAN_PX) float32; `regions` has CELL_TYPES first."""

    edge: np.ndarray  # above 0: tissue
    regions: np.ndarray  # 0 or 1, one of them a place
    nest: np.ndarray  # 0 at a tumour nest's border, negative outside
    lumen: np.ndarray  # of glands, 0 to 1
    atypia: np.ndarray
    gap: np.ndarray  # above 0: torn open, whatever the region
    along: np.ndarray  # coordinates along and across the fibres, in full-resolution pixels
    across: np.ndarray


def draw_plan(rng: np.random.Generator, width: int, height: int) -> Plan:
    """Draws the coarse maps of a section of `width` x `height` px, both multiples of PLAN_PX."""
    shape = (height // PLAN_PX, width // PLAN_PX)
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * PLAN_PX

    # Outline: a rounded box, bent; its corners cut by the same bending.
    reach = np.sqrt(
        ((xx - width / 2) / (0.475 * width)) ** 4 + ((yy - height / 2) / (0.475 * height)) ** 4
    )
    bend = 0.16 * smooth_field(rng, shape, 1500) + 0.05 * smooth_field(rng, shape, 300)
    bend = np.clip(bend, -0.5, 0.2)  # never over the image's edge
    edge = 1 - reach - 0.10 + bend + 0.012 * smooth_field(rng, shape, 40)
    inside = edge > 0

    def share(value: float) -> float:
        return float(np.clip(value * np.exp(rng.normal(0, SHARE_SPREAD)), 0.02, 0.8))

    def top(field: np.ndarray, where: np.ndarray, part: float) -> np.ndarray:
        """`field` less the level that `part` of `where` lies above."""
        return field - np.quantile(field[where] if where.any() else field, 1 - part)

    fat = top(
        smooth_field(rng, shape, 1300) + 0.35 * smooth_field(rng, shape, 350),
        inside,
        share(FAT_SHARE),
    )
    lean = inside & (fat < 0)
    zone = top(
        smooth_field(rng, shape, 1300) + 0.3 * smooth_field(rng, shape, 300),
        lean,
        share(TUMOUR_SHARE),
    )
    septa = smooth_field(rng, shape, 260) + 0.5 * smooth_field(rng, shape, 100)
    nest = np.minimum(1.6 * zone, septa + 0.5)
    infiltrate = top(
        smooth_field(rng, shape, 700) + 0.45 * smooth_field(rng, shape, 160) - 0.8 * np.abs(zone),
        lean,
        share(IMMUNE_SHARE),
    )
    ring, lumen = _draw_glands(rng, xx, yy, (zone < 0) & lean)

    regions = np.zeros((len(CELL_TYPES), *shape), np.float32)
    kind = np.full(shape, STROMA)
    kind[nest > 0] = TUMOUR
    kind[infiltrate > 0] = IMMUNE
    kind[fat > 0] = FAT
    kind[ring | (lumen > 0.5)] = GLAND
    for at in range(len(CELL_TYPES)):
        regions[at] = kind == at
    nest = np.where(kind == TUMOUR, np.maximum(nest, 0), np.minimum(nest, 0))

    turn = rng.uniform(0, np.pi)
    across = (
        yy * np.cos(turn)
        - xx * np.sin(turn)
        + 150 * smooth_field(rng, shape, 1300)
        + 22 * smooth_field(rng, shape, 330)
        + 6 * smooth_field(rng, shape, 110)
    )
    along = xx * np.cos(turn) + yy * np.sin(turn) + 120 * smooth_field(rng, shape, 900)
    atypia = 1 / (1 + np.exp(-1.7 * smooth_field(rng, shape, 800)))
    gap = smooth_field(rng, shape, 110) + 0.3 * smooth_field(rng, shape, 45)
    gap += GAP_SWING * smooth_field(rng, shape, 520) - GAP_LEVEL
    return Plan(edge, regions, nest, lumen, atypia, gap, along, across)


def _draw_glands(
    rng: np.random.Generator, xx: np.ndarray, yy: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normal ducts in stroma: (epithelium bool, lumen 0 to 1), both of the plan's shape."""
    ring, lumen = np.zeros(xx.shape, bool), np.zeros(xx.shape, np.float32)
    n = int(np.ceil(GLANDS * xx.size * PLAN_PX**2 / (3000 * 3300)))
    places = np.argwhere(ndimage.binary_erosion(room, iterations=6))
    if not len(places):
        return ring, lumen
    for row, column in places[rng.integers(len(places), size=n)]:
        dx, dy = xx - xx[row, column], yy - yy[row, column]
        turn, wide = rng.uniform(0, np.pi), rng.uniform(60, 105)
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        angle = np.arctan2(v, u)
        wave = 1 + 0.16 * np.cos(3 * angle + rng.uniform(0, 6)) + 0.1 * np.cos(5 * angle)
        radius = np.hypot(u, v * rng.uniform(1.2, 1.9)) / wave
        ring |= radius < wide
        lumen = np.maximum(lumen, np.clip((0.55 * wide - radius) / 8 + 0.5, 0, 1))
    return ring, lumen


def scatter_cells(
    rng: np.random.Generator, plan: Plan
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scatters cells over a plan.

    Returns:
        (c, 2) places, (c,) index into CELL_TYPES, and (v, 2) places of the adipocytes' vacuoles.
    """
    inside = (plan.edge > 0.015) & (plan.gap < 0)
    places, kinds = [], []

    def add(kind: int, spacing: float, share: np.ndarray, jitter: float = 0.3) -> np.ndarray:
        points = _jittered_grid(rng, plan.edge.shape, spacing, jitter)
        points = points[rng.random(len(points)) < values_at(share * inside, points)]
        places.append(points)
        kinds.append(np.full(len(points), kind))
        return points

    def uneven() -> np.ndarray:
        """How full a region is, varied from place to place: crowding must not name the region."""
        field = smooth_field(rng, plan.edge.shape, CROWDING_PX)
        field += 0.5 * smooth_field(rng, plan.edge.shape, 130)
        return np.clip(CROWDING[0] + CROWDING[1] * field, 0.12, 1)

    # Atypia sets the spacing, so nests are filled level by level.
    crowding = uneven()
    for low, high in itertools.pairwise(np.linspace(0, 1, 6)):
        level = plan.regions[TUMOUR] * (plan.atypia >= low) * (plan.atypia < high + 1e-6)
        spacing = np.interp((low + high) / 2, (0, 1), TUMOUR_SPACING_PX)
        add(TUMOUR, float(spacing), crowding * level)
    add(IMMUNE, IMMUNE_SPACING_PX, uneven() * plan.regions[IMMUNE], 0.5)
    stray = np.exp(0.9 * smooth_field(rng, plan.edge.shape, 350) - 2.2)
    add(IMMUNE, 20.0, stray * (plan.regions[STROMA] + 0.3 * plan.regions[TUMOUR]), 0.5)
    add(STROMA, STROMA_SPACING_PX, uneven() * plan.regions[STROMA], 0.5)
    add(STROMA, 60.0, 0.6 * plan.regions[IMMUNE] + 0.35 * plan.regions[TUMOUR], 0.45)
    add(GLAND, 14.0, plan.regions[GLAND] * (plan.lumen < 0.3), 0.22)
    vacuoles = add(FAT, ADIPOCYTE_PX, plan.regions[FAT], 0.33)
    return np.concatenate(places), np.concatenate(kinds), vacuoles


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], wavelength_px: float
) -> np.ndarray:
    """A smooth random field of mean 0 and deviation 1, (rows, columns) float32.

    `wavelength_px`: rough distance from one hill to the next, on a map whose cells are PLAN_PX.
    """
    step = max(wavelength_px / PLAN_PX / 2.2, 1.0)
    rows, columns = (int(np.ceil(s / step)) + 4 for s in shape)
    nodes = rng.standard_normal((rows, columns)).astype(np.float32)
    shift_y, shift_x = rng.random(2)
    yy = ((np.arange(shape[0]) / step) + 1 + shift_y).astype(np.float32)
    xx = ((np.arange(shape[1]) / step) + 1 + shift_x).astype(np.float32)
    columns_at, rows_at = np.meshgrid(xx, yy)
    field = np.asarray(cv2.remap(nodes, columns_at, rows_at, cv2.INTER_CUBIC))
    # Deviation of cubic interpolation of unit noise, not of this field: a section smaller than a
    # wavelength keeps little variation.
    return field / 0.75


def _jittered_grid(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_px: float, jitter: float
) -> np.ndarray:
    """A hexagonal grid over the plan's area, each point moved by N(0, jitter / 2 * spacing)."""
    height, width = shape[0] * PLAN_PX, shape[1] * PLAN_PX
    yy, xx = np.mgrid[0 : height : spacing_px * 0.866, 0:width:spacing_px]
    xx[1::2] += spacing_px / 2
    points = np.stack([xx.ravel(), yy.ravel()], 1)
    points += rng.normal(0, jitter / 2 * spacing_px, points.shape)
    keep = ((points >= 0) & (points < [width - 1, height - 1])).all(axis=1)
    return points[keep].astype(np.float32)


def values_at(coarse: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Values of a map of the plan under (n, 2) full-resolution points."""
    columns, rows = (points_px / PLAN_PX).astype(int).T
    return coarse[rows, columns]

"""Drawn H&E sections with known cells: the picture half of `simulation`.

A section is planned on a coarse map (regions, fibre direction, nuclear atypia: smooth random
fields), cells are scattered over the plan, and stains are painted as concentrations: nuclei in
haematoxylin, cytoplasm, fibres and membranes in eosin. Colours follow from Beer-Lambert's law with
the patient's stain vectors, then come the scanner's white point, blur and noise.

Regions differ in texture (size, shape, crowding and grain of nuclei, fibres, vacuoles) more than in
mean colour: thickness and both stains drift over a section as they do on glass.

Lengths are full-resolution pixels, points are (x, y).
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from scipy import ndimage, spatial

CELL_TYPES = ("tumour", "stroma", "immune", "fat", "gland")
TUMOUR, STROMA, IMMUNE, FAT, GLAND = range(len(CELL_TYPES))

PLAN_PX = 8  # side of one cell of the coarse map
GROUND_PX = 2  # side of one cell of the ground between nuclei, which is soft and painted coarser
TEXTURE = 512  # side of the noise that is repeated over a section, in cells

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

# Haematoxylin of a nucleus, by cell type: lymphocytes are dense, tumour nuclei open.
NUCLEUS_DENSITY = {TUMOUR: 0.86, STROMA: 0.84, IMMUNE: 0.95, FAT: 0.8, GLAND: 0.9}
# Ground between nuclei: eosin, haematoxylin haze, strength of fibres in the eosin.
GROUND = {
    TUMOUR: (0.27, 0.07, 0.30),
    STROMA: (0.37, 0.06, 0.42),
    IMMUNE: (0.33, 0.07, 0.36),
    FAT: (0.10, 0.02, 0.20),
    GLAND: (0.34, 0.09, 0.10),
}
CYTOPLASM_EOSIN = 0.14  # added around each tumour and gland cell
# Drift of a stain over a section: standard deviation of the logarithm, and its wavelength.
STAIN_DRIFT = 0.31
STAIN_DRIFT_PX = 380.0
HAZE_DRIFT = 0.10  # haematoxylin between nuclei, added here and there
CHROMATIN_DRIFT = 0.28  # the same for nuclei alone

# Stain vectors in optical density, RGB: haematoxylin, eosin. A patient's are turned a little.
STAIN_VECTORS = ((0.66, 0.69, 0.30), (0.19, 0.93, 0.31))
STAIN_TURN = 0.045  # standard deviation added to each component
STAIN_STRENGTH = (1.75, 1.05)  # optical density of concentration 1
STAIN_STRENGTH_SPREAD = 0.14  # standard deviation of the logarithm, a patient
WHITE_POINT = (232.0, 221.0, 234.0)  # glass as the scanner sees it
WHITE_SPREAD = 9.0
BLUR_PX = (0.65, 1.0)
DEFOCUS_PX = 2.1  # blur where focus is lost, standard deviation
FOCUS_LOST = 0.70  # how much of a section loses some of its focus; 0 none, 1 half
FOCUS_PX = 600.0
NOISE_LEVELS = 2.2  # grey levels of sensor noise
GLARE = 0.035  # share of light scattered in the objective: nothing is quite black


@dataclasses.dataclass(frozen=True)
class Look:
    """Stain and scanner of one patient.

    stains: (2, 3) optical density of concentration 1, haematoxylin first; white: (3,) RGB levels.
    """

    stains: np.ndarray
    white: np.ndarray
    blur_px: float


@dataclasses.dataclass(frozen=True)
class Tissue:
    """A drawn section.

    image: (h, w, 3) uint8 RGB. cells_px: (c, 2) float32. kinds: (c,) index into CELL_TYPES.
    atypia: (c,) float32 in [0, 1], 0 for cells that are not tumour.
    covered: (h / PLAN_PX, w / PLAN_PX) bool, where tissue lies.
    """

    image: np.ndarray
    cells_px: np.ndarray
    kinds: np.ndarray
    atypia: np.ndarray
    covered: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The coarse maps, all (h / PLAN_PX, w / PLAN_PX) float32; `regions` has CELL_TYPES first."""

    edge: np.ndarray  # above 0: tissue
    regions: np.ndarray  # 0 or 1, one of them a place
    nest: np.ndarray  # 0 at a tumour nest's border, negative outside
    lumen: np.ndarray  # of glands, 0 to 1
    atypia: np.ndarray
    gap: np.ndarray  # above 0: torn open, whatever the region
    along: np.ndarray  # coordinates along and across the fibres, in full-resolution pixels
    across: np.ndarray


def draw_look(rng: np.random.Generator) -> Look:
    """A patient's stain and scanner."""
    vectors = np.abs(np.array(STAIN_VECTORS) + rng.normal(0, STAIN_TURN, (2, 3)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.array(STAIN_STRENGTH) * np.exp(rng.normal(0, STAIN_STRENGTH_SPREAD, 2))
    white = np.array(WHITE_POINT) + rng.normal(0, WHITE_SPREAD, 3) + rng.normal(0, WHITE_SPREAD)
    return Look(
        stains=vectors * strength[:, None],
        white=np.clip(white, 170, 252),
        blur_px=float(rng.uniform(*BLUR_PX)),
    )


def draw_tissue(rng: np.random.Generator, *, width: int, height: int, look: Look) -> Tissue:
    """One section, `width` x `height` px, both multiples of PLAN_PX."""
    plan = _draw_plan(rng, width, height)
    cells_px, kinds, vacuoles_px = _scatter_cells(rng, plan)
    atypia = np.where(kinds == TUMOUR, _at(plan.atypia, cells_px), 0).astype(np.float32)
    concentrations = _paint(rng, plan, cells_px, kinds, atypia, vacuoles_px)
    image = _develop(rng, concentrations, look)
    return Tissue(image, cells_px, kinds, atypia, plan.edge > 0)


def _draw_plan(rng: np.random.Generator, width: int, height: int) -> _Plan:
    shape = (height // PLAN_PX, width // PLAN_PX)
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * PLAN_PX

    # Outline: a rounded box, bent; its corners cut by the same bending.
    reach = np.sqrt(
        ((xx - width / 2) / (0.46 * width)) ** 4 + ((yy - height / 2) / (0.46 * height)) ** 4
    )
    bend = 0.20 * _field(rng, shape, 1500) + 0.05 * _field(rng, shape, 300)
    edge = 1 - reach - 0.10 + bend + 0.012 * _field(rng, shape, 40)
    inside = edge > 0

    def share(value: float) -> float:
        return float(np.clip(value * np.exp(rng.normal(0, SHARE_SPREAD)), 0.02, 0.8))

    def top(field: np.ndarray, where: np.ndarray, part: float) -> np.ndarray:
        """`field` less the level that `part` of `where` lies above."""
        return field - np.quantile(field[where] if where.any() else field, 1 - part)

    fat = top(_field(rng, shape, 1300) + 0.35 * _field(rng, shape, 350), inside, share(FAT_SHARE))
    lean = inside & (fat < 0)
    zone = top(
        _field(rng, shape, 1300) + 0.3 * _field(rng, shape, 300), lean, share(TUMOUR_SHARE)
    )
    septa = _field(rng, shape, 260) + 0.5 * _field(rng, shape, 100)
    nest = np.minimum(1.6 * zone, septa + 0.5)
    infiltrate = top(
        _field(rng, shape, 700) + 0.45 * _field(rng, shape, 160) - 0.8 * np.abs(zone),
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
        + 150 * _field(rng, shape, 1300)
        + 22 * _field(rng, shape, 330)
        + 6 * _field(rng, shape, 110)
    )
    along = xx * np.cos(turn) + yy * np.sin(turn) + 120 * _field(rng, shape, 900)
    atypia = 1 / (1 + np.exp(-1.7 * _field(rng, shape, 800)))
    gap = _field(rng, shape, 110) + 0.3 * _field(rng, shape, 45)
    gap += GAP_SWING * _field(rng, shape, 520) - GAP_LEVEL
    return _Plan(edge, regions, nest, lumen, atypia, gap, along, across)


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


def _scatter_cells(
    rng: np.random.Generator, plan: _Plan
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells: (c, 2) places, (c,) kinds; and the places of the adipocytes' vacuoles."""
    inside = (plan.edge > 0.015) & (plan.gap < 0)
    places, kinds = [], []

    def add(kind: int, spacing: float, share: np.ndarray, jitter: float = 0.3) -> np.ndarray:
        points = _jittered_grid(rng, plan.edge.shape, spacing, jitter)
        points = points[rng.random(len(points)) < _at(share * inside, points)]
        places.append(points)
        kinds.append(np.full(len(points), kind))
        return points

    def uneven() -> np.ndarray:
        """How full a region is, varied from place to place: crowding must not name the region."""
        field = _field(rng, plan.edge.shape, CROWDING_PX)
        field += 0.5 * _field(rng, plan.edge.shape, 130)
        return np.clip(CROWDING[0] + CROWDING[1] * field, 0.12, 1)

    # Atypia sets the spacing, so nests are filled level by level.
    crowding = uneven()
    levels = np.linspace(0, 1, 6)
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        level = plan.regions[TUMOUR] * (plan.atypia >= low) * (plan.atypia < high + 1e-6)
        spacing = np.interp((low + high) / 2, (0, 1), TUMOUR_SPACING_PX)
        add(TUMOUR, float(spacing), crowding * level)
    add(IMMUNE, IMMUNE_SPACING_PX, uneven() * plan.regions[IMMUNE], 0.5)
    stray = np.exp(0.9 * _field(rng, plan.edge.shape, 350) - 2.2)
    add(IMMUNE, 20.0, stray * (plan.regions[STROMA] + 0.3 * plan.regions[TUMOUR]), 0.5)
    add(STROMA, STROMA_SPACING_PX, uneven() * plan.regions[STROMA], 0.5)
    add(STROMA, 60.0, 0.6 * plan.regions[IMMUNE] + 0.35 * plan.regions[TUMOUR], 0.45)
    add(GLAND, 14.0, plan.regions[GLAND] * (plan.lumen < 0.3), 0.22)
    vacuoles = add(FAT, ADIPOCYTE_PX, plan.regions[FAT], 0.33)
    return np.concatenate(places), np.concatenate(kinds), vacuoles


def _paint(
    rng: np.random.Generator,
    plan: _Plan,
    cells_px: np.ndarray,
    kinds: np.ndarray,
    atypia: np.ndarray,
    vacuoles_px: np.ndarray,
) -> np.ndarray:
    """Concentrations of haematoxylin and eosin, (h, w, 2) float32."""
    hyper = np.exp(CHROMATIN_DRIFT * _field(rng, plan.edge.shape, STAIN_DRIFT_PX))
    nuclei, cytoplasm = _stamp_cells(rng, plan, cells_px, kinds, atypia, hyper)
    haze, eosin = _paint_ground(rng, plan, cytoplasm, vacuoles_px)
    shape = plan.edge.shape
    size = (shape[1] * PLAN_PX, shape[0] * PLAN_PX)
    thickness = 0.5 * _field(rng, shape, STAIN_DRIFT_PX)
    drifts = [
        np.exp(STAIN_DRIFT * (0.85 * _field(rng, shape, STAIN_DRIFT_PX) + thickness))
        for _ in range(2)
    ]
    concentrations = [
        cv2.resize(ground, size, interpolation=cv2.INTER_LINEAR) for ground in (haze, eosin)
    ]
    concentrations[0] = cv2.max(concentrations[0], nuclei)
    concentrations[1] *= 1 - 0.35 * cv2.min(nuclei, 1.0)
    for stain, drift in zip(concentrations, drifts, strict=True):
        cv2.multiply(stain, cv2.resize(drift, size, interpolation=cv2.INTER_LINEAR), dst=stain)
    # Focus is lost here and there: the sharp picture fades into a blurred one.
    lost = np.clip(0.5 * _field(rng, shape, FOCUS_PX) + FOCUS_LOST - 0.5, 0, 1)
    share = cv2.resize(lost, size, interpolation=cv2.INTER_LINEAR)
    for stain in concentrations:
        dull = cv2.GaussianBlur(stain, (0, 0), DEFOCUS_PX)
        stain += share * (dull - stain)
    return cv2.merge(concentrations)


def _paint_ground(
    rng: np.random.Generator, plan: _Plan, cytoplasm: np.ndarray, vacuoles_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What lies between nuclei, on cells of GROUND_PX: (haematoxylin haze, eosin) float32."""
    shape = plan.edge.shape
    height, width = cytoplasm.shape

    def fine(coarse: np.ndarray) -> np.ndarray:
        return cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )

    soft = np.stack([cv2.GaussianBlur(region, (0, 0), 1.0) for region in plan.regions])
    ground = np.tensordot(np.array([GROUND[k] for k in range(len(CELL_TYPES))]).T, soft, 1)

    # Fibres: noise stretched along u, looked up through the plan's bent coordinates.
    fibre, slit = _fibres(rng, fine(plan.along / GROUND_PX), fine(plan.across / GROUND_PX))
    grain = _tiled(_noise(rng, 0.7) + 0.8 * _noise(rng, 1.8), height, width)

    # Matter: 1 tissue, 0 nothing there (glass, vacuoles, lumen, slits, clefts around nests).
    cleft = np.exp(-(((plan.nest + 0.10) / 0.10) ** 2)) * soft[STROMA]
    cleft *= np.clip(0.5 + _field(rng, shape, 200), 0, 1)
    slit_level = 2.2 - 0.55 * soft[STROMA] - 0.25 * soft[IMMUNE] - 0.35 * soft[TUMOUR]
    matter = np.clip((fine(slit_level) - slit) * 2.5, 0, 1)
    matter *= np.clip(fine(plan.edge * 40) + 0.35 * fibre, 0, 1)
    matter *= 1 - fine(np.maximum(0.85 * cleft, plan.lumen))
    matter *= np.clip(0.5 - 4 * fine(plan.gap), 0, 1)
    membrane = _membranes(rng, plan, vacuoles_px)
    fat = fine(soft[FAT])
    matter *= 1 - fat * (1 - membrane)

    strands = ground[2] * np.clip(1 + 0.55 * _field(rng, shape, 420), 0.1, 2.2)
    eosin = fine(ground[0]) * (1 + fine(strands) * fibre + 0.14 * grain)
    eosin += CYTOPLASM_EOSIN * cytoplasm * (1 + 0.25 * grain)
    eosin += 0.30 * fat * membrane
    veil = HAZE_DRIFT * np.abs(_field(rng, shape, STAIN_DRIFT_PX))
    haze = fine(ground[1] + veil) * (1 + 0.35 * grain) + 0.10 * cytoplasm
    return haze * matter, np.maximum(eosin, 0.03) * matter


def _fibres(
    rng: np.random.Generator, along: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(fibre, slit), both of deviation 1 and the coordinates' shape: strands, and wide gaps.

    along, across: float32, in cells of GROUND_PX.
    """
    strands = _noise(rng, 0.7, 13) + 0.9 * _noise(rng, 1.6, 27) + 0.5 * _noise(rng, 4.5, 30)
    gaps = _noise(rng, 2.5, 20) + 0.35 * _noise(rng, 1.0, 7)
    looked_up = cv2.remap(
        np.dstack([strands / strands.std(), gaps / gaps.std()]),
        np.mod(along, TEXTURE),
        np.mod(across, TEXTURE),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    fibre, slit = cv2.split(looked_up)
    return fibre, slit


def _membranes(rng: np.random.Generator, plan: _Plan, vacuoles_px: np.ndarray) -> np.ndarray:
    """Walls between adipocytes, 0 to 1, on cells of GROUND_PX: where two centres are equally far."""
    height, width = (side * PLAN_PX // GROUND_PX for side in plan.edge.shape)
    fat = cv2.resize(plan.regions[FAT], (width, height), interpolation=cv2.INTER_LINEAR) > 0.01
    gap = np.full((height, width), 1e3, np.float32)
    if len(vacuoles_px) > 1:
        rows, columns = np.nonzero(fat[::2, ::2])
        points = np.stack([columns, rows], 1) * (2.0 * GROUND_PX)
        bend = [_at(5 * _field(rng, plan.edge.shape, 90), points) for _ in range(2)]
        near, _ = spatial.cKDTree(vacuoles_px).query(points + np.stack(bend, 1), k=2)
        coarse = np.full((-(-height // 2), -(-width // 2)), 1e3, np.float32)
        coarse[rows, columns] = near[:, 1] - near[:, 0]
        gap = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    thick = cv2.resize(
        7.0 + 1.5 * _field(rng, plan.edge.shape, 90), (width, height), interpolation=cv2.INTER_LINEAR
    )
    return np.clip((thick - gap) / 4 + 0.5, 0, 1)


def _stamp_cells(
    rng: np.random.Generator,
    plan: _Plan,
    cells_px: np.ndarray,
    kinds: np.ndarray,
    atypia: np.ndarray,
    hyper: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei, (h, w) float32, and cytoplasm, float32 on cells of GROUND_PX."""
    shape = plan.edge.shape
    height, width = shape[0] * PLAN_PX, shape[1] * PLAN_PX
    d_down, d_right = np.gradient(plan.across)
    direction = np.arctan2(-_at(d_right, cells_px), _at(d_down, cells_px))
    direction = np.where(kinds == STROMA, direction, rng.uniform(0, np.pi, len(kinds)))
    turns = 24  # directions that sprites are drawn in
    turn = np.round(direction / np.pi * turns).astype(int) % turns

    size = np.round(atypia * 4).astype(int)
    variant = rng.integers(8, size=len(kinds))
    gain = np.exp(rng.normal(0, 0.13, len(kinds))) * [NUCLEUS_DENSITY[k] for k in kinds]
    gain *= _at(hyper, cells_px)
    sprites = {
        (kind, level): _sprites(rng, kind, level / 4, turns)
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

    rows, columns = height // GROUND_PX, width // GROUND_PX
    body = np.zeros((rows + 2 * pad, columns + 2 * pad), np.float32)
    bodies = {level: _disc(0.62 * np.interp(level / 4, (0, 1), TUMOUR_SPACING_PX) / 2 + 1)
              for level in range(5)}  # fmt: skip
    epithelial = (kinds == TUMOUR) | (kinds == GLAND)
    shades = rng.uniform(0.6, 1.1, len(kinds))
    half = np.round(cells_px / GROUND_PX).astype(int) + pad
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


def _sprites(rng: np.random.Generator, kind: int, atypia: float, turns: int) -> np.ndarray:
    """Nuclei of one kind, (turns, 8, s, s) float32: 1 at the rim's darkness, 0 outside."""
    n = turns * 8
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
    angle = np.repeat(np.arange(turns) / turns * np.pi, 8) + rng.normal(0, 0.12, n)
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
    return (mask * inner).astype(np.float32).reshape(turns, 8, *mask.shape[1:])


def _disc(radius: float) -> np.ndarray:
    reach = int(np.ceil(radius)) + 2
    yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.clip((radius - np.hypot(xx, yy)) / 2 + 0.5, 0, 1).astype(np.float32)


def _develop(rng: np.random.Generator, concentrations: np.ndarray, look: Look) -> np.ndarray:
    """(h, w, 2) concentrations -> (h, w, 3) uint8 RGB: Beer-Lambert, white point, blur, noise."""
    blurred = cv2.GaussianBlur(concentrations, (0, 0), look.blur_px)
    # light = white * exp(-concentrations @ stains), the white point inside the exponent.
    to_log = np.column_stack([-look.stains.T, np.log(look.white * (1 - GLARE))])
    band = 256
    noise = NOISE_LEVELS * rng.standard_normal((band, 2 * band, 3), np.float32)
    height, width = concentrations.shape[:2]
    noise = np.tile(noise, (1, -(-width // (2 * band)), 1))[:, :width]
    noise += (look.white * GLARE).astype(np.float32)
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, band):
        light = cv2.exp(cv2.transform(blurred[top : top + band], to_log))
        light = cv2.max(cv2.add(light, noise[: len(light)]), 0.0)
        out[top : top + band] = cv2.convertScaleAbs(light)
    return out


def _field(
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
    field = cv2.remap(nodes, *np.meshgrid(xx, yy), cv2.INTER_CUBIC)
    # Deviation of cubic interpolation of unit noise, not of this field: a section smaller than a
    # wavelength keeps little variation.
    return field / 0.75


def _noise(rng: np.random.Generator, across: float, along: float | None = None) -> np.ndarray:
    """Blurred noise that repeats without a seam, (TEXTURE, TEXTURE) float32, deviation 1.

    across, along: standard deviations of the blur, in cells.
    """
    along = across if along is None else along
    white = rng.standard_normal((TEXTURE, TEXTURE), np.float32)
    pad = int(3 * max(across, along)) + 1
    blurred = cv2.GaussianBlur(
        np.pad(white, pad, mode="wrap"), (0, 0), sigmaX=along, sigmaY=across
    )[pad:-pad, pad:-pad]
    return blurred / blurred.std()


def _tiled(texture: np.ndarray, height: int, width: int) -> np.ndarray:
    down, across = (-(-side // TEXTURE) for side in (height, width))
    return np.tile(texture, (down, across))[:height, :width]


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


def _at(coarse: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """The plan's values under points."""
    columns, rows = (points_px / PLAN_PX).astype(int).T
    return coarse[rows, columns]

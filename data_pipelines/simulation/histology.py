"""Draws H&E sections with known cells: the images of `simulation`.

`plan` says where tissue and cells are. Stains are painted over it as concentrations: nuclei in
haematoxylin, cytoplasm, fibres and membranes in eosin. Colours follow from Beer-Lambert's law with
the patient's stain vectors, then come the scanner's white point, blur and noise.

Regions differ in texture (size, shape and grain of nuclei, fibres, vacuoles) more than in mean
colour: thickness, both stains, crowding and focus drift over a section, as they do on glass.

Lengths are full-resolution pixels, points are (x, y).
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from scipy import spatial

from histospace_tf.data_pipelines.simulation.nuclei import stamp_cells
from histospace_tf.data_pipelines.simulation.plan import (
    BACKGROUND_PX,
    CELL_TYPES,
    FAT,
    GLAND,
    IMMUNE,
    PLAN_PX,
    STROMA,
    TUMOUR,
    Plan,
    draw_plan,
    scatter_cells,
    smooth_field,
    values_at,
)

TEXTURE = 512  # side of the noise that is repeated over a section, in cells

# Background between nuclei: eosin, haematoxylin haze, strength of fibres in the eosin.
BACKGROUND = {
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
WHITE_SPREAD = (8.0, 5.0)  # standard deviation of brightness, and of each channel beside it
BLUR_PX = (0.65, 1.0)
DEFOCUS_PX = 2.1  # blur where focus is lost, standard deviation
FOCUS_LOST = 0.70  # how much of a section loses some of its focus; 0 none, 1 half
FOCUS_PX = 600.0
NOISE_LEVELS = 2.2  # grey levels of sensor noise
GLARE = 0.035  # share of light scattered in the objective: nothing is quite black


@dataclasses.dataclass(frozen=True)
class Appearance:
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


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Draws stain and scanner of a patient."""
    vectors = np.abs(np.array(STAIN_VECTORS) + rng.normal(0, STAIN_TURN, (2, 3)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.array(STAIN_STRENGTH) * np.exp(rng.normal(0, STAIN_STRENGTH_SPREAD, 2))
    brightness, tint = WHITE_SPREAD
    white = np.array(WHITE_POINT) + rng.normal(0, brightness) + rng.normal(0, tint, 3)
    return Appearance(
        stains=vectors * strength[:, None],
        white=np.clip(white, 170, 252),
        blur_px=float(rng.uniform(*BLUR_PX)),
    )


def draw_tissue(
    rng: np.random.Generator, *, width: int, height: int, appearance: Appearance
) -> Tissue:
    """Draws one section of `width` x `height` px, both multiples of PLAN_PX."""
    plan = draw_plan(rng, width, height)
    cells_px, kinds, vacuoles_px = scatter_cells(rng, plan)
    atypia = np.where(kinds == TUMOUR, values_at(plan.atypia, cells_px), 0).astype(np.float32)
    concentrations = _paint(rng, plan, cells_px, kinds, atypia, vacuoles_px)
    image = _develop(rng, concentrations, appearance)
    return Tissue(image, cells_px, kinds, atypia, (plan.edge > 0) & (plan.gap < 0))


def _paint(
    rng: np.random.Generator,
    plan: Plan,
    cells_px: np.ndarray,
    kinds: np.ndarray,
    atypia: np.ndarray,
    vacuoles_px: np.ndarray,
) -> np.ndarray:
    """Concentrations of haematoxylin and eosin, (h, w, 2) float32."""
    hyper = np.exp(CHROMATIN_DRIFT * smooth_field(rng, plan.edge.shape, STAIN_DRIFT_PX))
    nuclei, cytoplasm = stamp_cells(rng, plan, cells_px, kinds, atypia, hyper)
    haze, eosin = _paint_background(rng, plan, cytoplasm, vacuoles_px)
    shape = plan.edge.shape
    size = (shape[1] * PLAN_PX, shape[0] * PLAN_PX)
    thickness = 0.5 * smooth_field(rng, shape, STAIN_DRIFT_PX)
    drifts = [
        np.exp(STAIN_DRIFT * (0.85 * smooth_field(rng, shape, STAIN_DRIFT_PX) + thickness))
        for _ in range(2)
    ]
    concentrations = [
        cv2.resize(background, size, interpolation=cv2.INTER_LINEAR) for background in (haze, eosin)
    ]
    concentrations[0] = cv2.max(concentrations[0], nuclei)
    concentrations[1] *= 1 - 0.35 * np.minimum(nuclei, 1)
    for stain, drift in zip(concentrations, drifts, strict=True):
        cv2.multiply(stain, cv2.resize(drift, size, interpolation=cv2.INTER_LINEAR), dst=stain)
    # Focus is lost here and there: the sharp picture fades into a blurred one.
    lost = np.clip(0.5 * smooth_field(rng, shape, FOCUS_PX) + FOCUS_LOST - 0.5, 0, 1)
    share = cv2.resize(lost, size, interpolation=cv2.INTER_LINEAR)
    for stain in concentrations:
        dull = cv2.GaussianBlur(stain, (0, 0), DEFOCUS_PX)
        stain += share * (dull - stain)
    return cv2.merge(concentrations)


def _paint_background(
    rng: np.random.Generator, plan: Plan, cytoplasm: np.ndarray, vacuoles_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The tissue between nuclei, on cells of BACKGROUND_PX: (haematoxylin haze, eosin) float32."""
    shape = plan.edge.shape
    height, width = cytoplasm.shape

    def fine(coarse: np.ndarray) -> np.ndarray:
        return cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )

    soft = np.stack([cv2.GaussianBlur(region, (0, 0), 1.0) for region in plan.regions])
    background = np.tensordot(np.array([BACKGROUND[k] for k in range(len(CELL_TYPES))]).T, soft, 1)

    # Fibres: noise stretched along u, looked up through the plan's bent coordinates.
    fibre, slit = _fibres(rng, fine(plan.along / BACKGROUND_PX), fine(plan.across / BACKGROUND_PX))
    grain = _tiled(_noise(rng, 0.7) + 0.8 * _noise(rng, 1.8), height, width)

    # Matter: 1 tissue, 0 nothing there (glass, vacuoles, lumen, slits, clefts around nests).
    cleft = np.exp(-(((plan.nest + 0.10) / 0.10) ** 2)) * soft[STROMA]
    cleft *= np.clip(0.5 + smooth_field(rng, shape, 200), 0, 1)
    slit_level = 2.2 - 0.55 * soft[STROMA] - 0.25 * soft[IMMUNE] - 0.35 * soft[TUMOUR]
    matter = np.clip((fine(slit_level) - slit) * 2.5, 0, 1)
    matter *= np.clip(fine(plan.edge * 40) + 0.35 * fibre, 0, 1)
    matter *= 1 - fine(np.maximum(0.85 * cleft, plan.lumen))
    matter *= np.clip(0.5 - 4 * fine(plan.gap), 0, 1)
    membrane = _membranes(rng, plan, vacuoles_px)
    fat = fine(soft[FAT])
    matter *= 1 - fat * (1 - membrane)

    strands = background[2] * np.clip(1 + 0.55 * smooth_field(rng, shape, 420), 0.1, 2.2)
    eosin = fine(background[0]) * (1 + fine(strands) * fibre + 0.14 * grain)
    eosin += CYTOPLASM_EOSIN * cytoplasm * (1 + 0.25 * grain)
    eosin += 0.30 * fat * membrane
    veil = HAZE_DRIFT * np.abs(smooth_field(rng, shape, STAIN_DRIFT_PX))
    haze = fine(background[1] + veil) * (1 + 0.35 * grain) + 0.10 * cytoplasm
    return haze * matter, np.maximum(eosin, 0.03) * matter


def _fibres(
    rng: np.random.Generator, along: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(fibre, slit), both of deviation 1 and the coordinates' shape: strands, and wide gaps.

    along, across: float32, in cells of BACKGROUND_PX.
    """
    strands = _noise(rng, 0.7, 13) + 0.9 * _noise(rng, 1.6, 27) + 0.5 * _noise(rng, 4.5, 30)
    gaps = _noise(rng, 2.5, 20) + 0.35 * _noise(rng, 1.0, 7)
    bent = cv2.remap(
        np.dstack([strands / strands.std(), gaps / gaps.std()]),
        np.mod(along, TEXTURE),
        np.mod(across, TEXTURE),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    fibre, slit = cv2.split(bent)
    return fibre, slit


def _membranes(rng: np.random.Generator, plan: Plan, vacuoles_px: np.ndarray) -> np.ndarray:
    """Walls between adipocytes, 0 to 1, on cells of BACKGROUND_PX: as far from two centres."""
    height, width = (side * PLAN_PX // BACKGROUND_PX for side in plan.edge.shape)
    fat = cv2.resize(plan.regions[FAT], (width, height), interpolation=cv2.INTER_LINEAR) > 0.01
    gap = np.full((height, width), 1e3, np.float32)
    if len(vacuoles_px) > 1:
        rows, columns = np.nonzero(fat[::2, ::2])
        points = np.stack([columns, rows], 1) * (2.0 * BACKGROUND_PX)
        bend = [values_at(5 * smooth_field(rng, plan.edge.shape, 90), points) for _ in range(2)]
        near, _ = spatial.cKDTree(vacuoles_px).query(points + np.stack(bend, 1), k=2)
        coarse = np.full((-(-height // 2), -(-width // 2)), 1e3, np.float32)
        coarse[rows, columns] = near[:, 1] - near[:, 0]
        gap = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    thick = cv2.resize(
        7.0 + 1.5 * smooth_field(rng, plan.edge.shape, 90),
        (width, height),
        interpolation=cv2.INTER_LINEAR,
    )
    return np.clip((thick - gap) / 4 + 0.5, 0, 1)


def _develop(
    rng: np.random.Generator, concentrations: np.ndarray, appearance: Appearance
) -> np.ndarray:
    """(h, w, 2) concentrations -> (h, w, 3) uint8 RGB: Beer-Lambert, white point, blur, noise."""
    blurred = cv2.GaussianBlur(concentrations, (0, 0), appearance.blur_px)
    # light = white * exp(-concentrations @ stains), the white point inside the exponent.
    to_log = np.column_stack([-appearance.stains.T, np.log(appearance.white * (1 - GLARE))])
    band = 256
    noise = NOISE_LEVELS * rng.standard_normal((band, 2 * band, 3), np.float32)
    height, width = concentrations.shape[:2]
    noise = np.tile(noise, (1, -(-width // (2 * band)), 1))[:, :width]
    noise += (appearance.white * GLARE).astype(np.float32)
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, band):
        light = cv2.exp(cv2.transform(blurred[top : top + band], to_log))
        light = np.maximum(cv2.add(light, noise[: len(light)]), 0)
        out[top : top + band] = cv2.convertScaleAbs(light)
    return out


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

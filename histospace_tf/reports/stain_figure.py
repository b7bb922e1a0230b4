"""The steps of stain normalisation on tiles of the data, drawn beside the colours they go to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histospace_tf import outputs
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.vocabulary import InputError, StainReference

MOST_SECTIONS = 8  # rows at most
CANDIDATES = 32  # tiles of a section that the drawn one is chosen from
STAINS = ("haematoxylin", "eosin")
_STEPS = 128  # colours in a strip


def stain_panel(
    prepared: Sequence[PreparedSection],
    reference: StainReference,
    *,
    path: Path,
    mpp: float | None = None,
) -> None:
    """Draws one row per section: one tile raw and after each step, and the slide's own colours.

    Args:
        prepared: sections with spot tiles; of more than MOST_SECTIONS, so many spread over them.
        reference: stains that the run recolours to; the last row shows its colours.
        path: PNG to write, whole or not at all.
        mpp: microns per pixel of the tiles, for the words below; None: unknown.
    Raises:
        InputError: no section, or stains of another method than the reference's.
    """
    if not prepared:
        raise InputError("no section to draw the steps of stain normalisation of")
    at = np.unique(np.linspace(0, len(prepared) - 1, MOST_SECTIONS).astype(int))
    shown = [prepared[number] for number in at]
    own = [part.stains for part in shown]
    pictures = [steps(chosen_tile(part.spot_tiles), part.stains, reference) for part in shown]
    up_to = max(float(one.max_concentration.max()) for one in [reference, *own])
    columns = len(pictures[0]) + 1
    figure = Figure(figsize=(2.3 * columns + 1, 2.2 * len(shown) + 1.3), layout="constrained")
    grid = figure.add_gridspec(
        len(shown) + 1,
        columns,
        height_ratios=[1.0] * len(shown) + [0.6],
        width_ratios=[1.0] * (columns - 1) + [1.25],
    )
    for row, (part, drawn) in enumerate(zip(shown, pictures, strict=True)):
        for column, (title, picture) in enumerate(drawn):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[], title=title if row == 0 else "")
            if column == 0:
                axes.set_ylabel(f"{part.name} (patient {part.patient})", fontsize=11)
        axes = figure.add_subplot(grid[row, -1])
        show_colours(axes, part.stains, up_to=up_to)
        axes.set_title("the slide's own colours" if row == 0 else "")
    words = figure.add_subplot(grid[-1, :-1])
    words.set_axis_off()
    text = "The colours that all slides are brought to:"
    if reference.method == "none":
        text = "Each slide is brought to white by its own cast and luminosity."
    side = shown[0].spot_tiles.shape[1]
    text += f"\n(tiles of {side} px" + (f", {side * mpp:.0f} µm" if mpp is not None else "")
    text += f"; {len(shown)} of {len(prepared)} sections)" if len(shown) < len(prepared) else ")"
    words.text(1.0, 0.6, text, ha="right", va="center", fontsize=11)
    axes = figure.add_subplot(grid[-1, -1])
    show_colours(axes, reference, up_to=up_to)
    axes.set_xlabel(_axis_name(reference.method), fontsize=9)
    with outputs.whole_file(path) as draft:
        figure.savefig(draft, dpi=130)


def steps(
    tile: np.ndarray, source: StainReference, reference: StainReference
) -> list[tuple[str, np.ndarray]]:
    """A tile as cut, and after each step of `recolouring` in turn, with the steps' names.

    A step that is switched off leaves the tile as it was.

    Args:
        tile: (..., 3) uint8 RGB.
        source: stains of the tile's slide.
        reference: stains to recolour to.
    Returns:
        Four (name, picture) pairs; with method "none" three.
    Raises:
        InputError: not uint8 RGB, or two methods.
    """
    neutral = stain.canonical_stains("none")
    cast = dataclasses.replace(neutral, white_point=source.white_point)
    bright = dataclasses.replace(cast, luminosity=source.luminosity)
    whole = recolouring.normalise(tile, source, reference)
    made = [
        ("raw", tile),
        ("colour cast removed", recolouring.normalise(tile, cast, neutral)),
        ("+ luminosity", recolouring.normalise(tile, bright, neutral)),
    ]
    return made if source.method == "none" else [*made, (f"+ stain ({source.method})", whole)]


def chosen_tile(tiles: np.ndarray) -> np.ndarray:
    """The tile that shows most: of CANDIDATES spread over `tiles`, the one of the widest colours.

    Args:
        tiles: (n, s, s, 3) uint8, n at least 1; may be memory-mapped.
    """
    rows = np.unique(np.linspace(0, len(tiles) - 1, CANDIDATES).astype(int))
    some = np.asarray(tiles[rows])
    spread = some.reshape(len(some), -1, 3).std(axis=1, dtype=np.float64).sum(axis=1)
    return some[int(np.argmax(spread))]


def show_colours(axes: Axes, stains: StainReference, *, up_to: float = 0.0) -> None:
    """The colours that a slide's stains make.

    Macenko and Vahadane: one strip per stain, by its optical density, up to the slide's strongest.
    Reinhard: the tissue's mean colour, by lightness, a deviation to each side. "none": nothing.

    Args:
        up_to: end of the axis of optical densities, so that several slides compare; at least the
            strongest stain's.
    """
    axes.tick_params(labelsize=8)
    if stains.method == "none":
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no stains are fitted", ha="center", va="center", fontsize=9)
    elif stains.method == "reinhard":
        low, high = (stains.lab_mean[0] + side * stains.lab_std[0] for side in (-1, 1))
        lab = np.tile(stains.lab_mean, (1, _STEPS, 1))
        lab[..., 0] = np.linspace(low, high, _STEPS)
        colours = cv2.cvtColor(np.rint(np.clip(lab, 0, 255)).astype(np.uint8), cv2.COLOR_LAB2RGB)
        axes.imshow(colours, extent=(low / 2.55, high / 2.55, -0.4, 0.4), aspect="auto")
        axes.set(xlim=(0, 100), ylim=(-0.6, 0.6), yticks=[0], yticklabels=["tissue"])
    else:
        names = zip(stains.stain_matrix, stains.max_concentration, strict=True)
        for place, (row, strongest) in enumerate(names):
            density = np.linspace(0, strongest, _STEPS)[:, None] * row
            axes.imshow(
                np.exp(-density)[None],
                extent=(0, strongest, -place - 0.4, -place + 0.4),
                aspect="auto",
            )
        end = max(up_to, *stains.max_concentration) * 1.03
        axes.set(xlim=(0, end), ylim=(-1.6, 0.6), yticks=[0, -1], yticklabels=STAINS)
    axes.spines[["top", "right"]].set_visible(False)


def _axis_name(method: str) -> str:
    if method == "none":
        return ""
    return "CIE L" if method == "reinhard" else "optical density (natural logarithm)"

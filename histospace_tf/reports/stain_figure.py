"""Figures of stain normalisation: its steps, what shadows are left, the colours it goes to."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides, stain
from histospace_tf.data_pipelines.slides.white_field import WhiteField
from histospace_tf.reports import maps, stain_steps
from histospace_tf.vocabulary import InputError, StainReference

if TYPE_CHECKING:  # which imports TensorFlow, that `normalize` does without
    from histospace_tf.cohort.preparing import PreparedSection

MOST_SECTIONS = 8  # rows at most
CANDIDATES = 32  # tiles of a section that the drawn one is chosen from
STAINS = ("haematoxylin", "eosin")
SHADOW_LEVELS = 30  # end of the scale of shadows, grey levels
SHADOW_NAME = "glass below white (grey levels)"
_STEPS = 128  # colours in a strip
_TITLE = 12  # size of titles
_ONE_POINT, _WITH_FIELD = "shadows left: one white point", "shadows left: white field"
_BAR: dict[str, Any] = {"shrink": 0.8, "location": "bottom", "panchor": False}


def stain_panel(
    prepared: Sequence[PreparedSection],
    reference: StainReference,
    *,
    path: Path,
    mpp: float | None = None,
) -> None:
    """Draws one row per section: a tile after each step, the slide's shadows and its own colours.

    Args:
        prepared: sections with spot tiles; of more than MOST_SECTIONS, so many spread over them.
        reference: stains that the run recolours to; the last row shows its colours.
        path: PNG to write, whole or not at all.
        mpp: microns per pixel of the tiles, for the scale bars; None: unknown.
    Raises:
        InputError: no section, or stains of another method than the reference's.
    """
    if not prepared:
        raise InputError("no section to draw the steps of stain normalisation of")
    at = np.unique(np.linspace(0, len(prepared) - 1, MOST_SECTIONS).astype(int))
    shown = [prepared[number] for number in at]
    pictures = [_tile_steps(part, reference) for part in shown]
    up_to = max(
        float(one.max_concentration.max()) for one in [reference, *(p.stains for p in shown)]
    )
    has_fields = any(part.white_field is not None for part in shown)
    n_tiles, n_maps = len(pictures[0]), 1 + has_fields
    columns = n_tiles + n_maps + 1
    figure = Figure(figsize=(2.1 * columns + 1, 2.4 * len(shown) + 1.3), layout="constrained")
    grid = figure.add_gridspec(
        len(shown) + 1,
        columns,
        height_ratios=[1.0] * len(shown) + [0.6],
        width_ratios=[1.0] * (columns - 1) + [1.25],
    )
    map_axes = []
    for row, (part, drawn) in enumerate(zip(shown, pictures, strict=True)):
        for column, (title, picture) in enumerate(drawn):
            axes = figure.add_subplot(grid[row, column])
            maps.show_image(axes, picture, 1, mpp if column == 0 else None)
            if row == 0:
                axes.set_title(textwrap.fill(title, 18), fontsize=_TITLE)
            if column == 0:
                axes.set_ylabel(f"{part.name} (patient {part.patient})", fontsize=11)
        map_axes += [figure.add_subplot(grid[row, n_tiles + n]) for n in range(n_maps)]
        drawn_map = _show_shadows(map_axes[-n_maps:], part, with_titles=row == 0)
        axes = figure.add_subplot(grid[row, -1])
        show_colours(axes, part.stains, up_to=up_to)
        axes.set_title("the slide's own colours" if row == 0 else "", fontsize=_TITLE)
    below = figure.add_subplot(grid[-1, n_tiles:-1])
    below.set_axis_off()
    bar = below.inset_axes((0, 0.7, 1, 0.15))
    figure.colorbar(drawn_map, cax=bar, orientation="horizontal", extend="max")
    bar.set_xlabel(textwrap.fill(SHADOW_NAME, 18 * n_maps), fontsize=9)
    words = figure.add_subplot(grid[-1, :n_tiles])
    words.set_axis_off()
    text = "The colours that all slides are brought to stand at the lower right."
    if reference.method == "none":
        text = "Each slide is brought to white by its own cast and luminosity."
    side = shown[0].spot_tiles.shape[1]
    text += f"\n(tiles of {side} px" + (f", {side * mpp:.0f} µm" if mpp is not None else "")
    text += f"; {len(shown)} of {len(prepared)} sections)" if len(shown) < len(prepared) else ")"
    words.text(0.0, 0.6, text, ha="left", va="center", fontsize=11)
    axes = figure.add_subplot(grid[-1, -1])
    show_colours(axes, reference, up_to=up_to)
    axes.set_xlabel(_axis_name(reference.method), fontsize=9)
    with outputs.whole_file(path) as draft:
        figure.savefig(draft, dpi=130)


def slide_panel(
    overview: slides.Overview,
    source: StainReference,
    reference: StainReference,
    *,
    name: str,
    alone: StainReference | None,
    field: WhiteField | None,
) -> Figure:
    """One whole slide after each step, and the shadows on its glass before and after.

    Args:
        overview: the slide as scanned.
        source: its own stains; reference: stains to recolour to.
        name: of the slide.
        alone: its stains, fitted with cast and luminosity off; None: not drawn.
        field: its white field; None: none was asked for.
    """
    picture, scale, mpp = overview
    if field is not None and field.why_off:
        name, field = f"{name} (white field off: {field.why_off})", None
    shares = None if field is None else field.over_picture(picture.shape)
    drawn = stain_steps.steps(picture, source, reference, alone=alone, shares=shares)
    n_pictures = len(drawn) + (1 if field is None else 3)
    columns = 3 if n_pictures <= 6 else 4
    rows = -(-n_pictures // columns)
    aspect = min(max(picture.shape[0] / picture.shape[1], 0.3), 2.5)
    figure = Figure(figsize=(4 * columns, (4 * aspect + 0.5) * rows + 1), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one, (title, step) in zip(axes, drawn, strict=False):
        maps.show_image(one, step, scale, mpp if title == "original" else None)
        one.set_title(title, fontsize=_TITLE)
    rest = axes[len(drawn) :]
    shadow = _draw_shadow(rest[0], stain_steps.shadows(picture), _ONE_POINT)
    if field is not None:
        _draw_shadow(rest[1], stain_steps.shadows(picture, field), _WITH_FIELD)
        _draw_field(figure, rest[2], field)
    for one in axes:
        one.set_anchor("N")  # rows stand level though colour bars take room below
    for one in axes[n_pictures:]:
        one.set_axis_off()
    figure.colorbar(
        shadow, ax=rest[: 1 if field is None else 2], label=SHADOW_NAME, extend="max", **_BAR
    )
    figure.suptitle(textwrap.fill(name, 40 * columns), fontsize=11, parse_math=False)
    return figure


def _tile_steps(part: PreparedSection, reference: StainReference) -> list[tuple[str, np.ndarray]]:
    """The steps of the section's tile of the widest colours."""
    rows, number = _candidates(part.spot_tiles), chosen_tile(part.spot_tiles)
    some, tile = (np.asarray(part.spot_tiles[at]) for at in (rows, number))
    field, shares, alone = part.white_field, None, None
    if field is not None and not field.why_off:
        (shares,) = field.at(part.spots.centres_px[[number]])
        tile = _as_scanned(tile, shares)
        some = _as_scanned(some, field.at(part.spots.centres_px[rows])[:, None, None])
    if part.stains.method != "none":
        alone = stain.fit_stains(some, method=part.stains.method, cast=False, luminosity=False)
    return stain_steps.steps(tile, part.stains, reference, alone=alone, shares=shares)


def _as_scanned(lit: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Tiles as they were before `white_field.evened`; exact, for shares are 1 at most."""
    return np.rint(lit * shares).astype(np.uint8)


def chosen_tile(tiles: np.ndarray) -> int:
    """The row of the tile that shows most: of CANDIDATES spread over `tiles`, the one of the widest
    colours.

    Args:
        tiles: (n, s, s, 3) uint8, n at least 1; may be memory-mapped.
    """
    rows = _candidates(tiles)
    some = np.asarray(tiles[rows])
    spread = some.reshape(len(some), -1, 3).std(axis=1, dtype=np.float64).sum(axis=1)
    return int(rows[np.argmax(spread)])


def _candidates(tiles: np.ndarray) -> np.ndarray:
    return np.unique(np.linspace(0, len(tiles) - 1, CANDIDATES).astype(int))


def _show_shadows(axes: Sequence[Axes], part: PreparedSection, *, with_titles: bool) -> AxesImage:
    """A section's shadows with one white point and, in the second of two `axes`, with its field."""
    picture, _, _ = part.overviews[slides.ENTRY_PX]
    titles = [textwrap.fill(t, 18) if with_titles else "" for t in (_ONE_POINT, _WITH_FIELD)]
    image = _draw_shadow(axes[0], stain_steps.shadows(picture), titles[0])
    if len(axes) > 1:
        field = part.white_field
        assert field is not None  # of one run: asked for in all sections or in none
        if field.why_off:
            axes[1].set_axis_off()
            text = textwrap.fill(f"white field off: {field.why_off}", 24)
            axes[1].text(0.5, 0.5, text, ha="center", va="center", fontsize=9)
        else:
            _draw_shadow(axes[1], stain_steps.shadows(picture, field), titles[1])
    return image


def _draw_shadow(axes: Axes, levels: np.ndarray, title: str) -> AxesImage:
    image = axes.imshow(levels, cmap="cividis_r", vmin=0, vmax=SHADOW_LEVELS)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=_TITLE)
    return image


def _draw_field(figure: Figure, axes: Axes, field: WhiteField) -> None:
    """The channel of a white field that differs most over the slide."""
    channel = int(np.argmin(field.shares.min(axis=(0, 1))))
    share = 100 * field.over_picture((300, 300, 3))[..., channel]
    image = axes.imshow(
        share, cmap="cividis", extent=(0, field.width_px, field.height_px, 0), vmax=100
    )
    axes.set(xticks=[], yticks=[])
    colour = ("red", "green", "blue")[channel]
    axes.set_title(f"white field ({colour})", fontsize=_TITLE)
    figure.colorbar(image, ax=axes, label="% of the brightest glass", **_BAR)


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

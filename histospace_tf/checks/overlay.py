"""One picture per section: spots over the image, coloured by counts, the odd ones marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from histospace_tf import outputs
from histospace_tf.checks.sections import has_few_counts
from histospace_tf.data_pipelines.slides.image_checks import Thumbnail
from histospace_tf.data_pipelines.spots import placement, platforms
from histospace_tf.reports import maps
from histospace_tf.vocabulary import Section

STATUSES = ("sound", "few counts", "off tissue", "far from all others", "off the image")
# Marks by status: Okabe and Ito's colours, which colour-blind people tell apart, and shapes.
_MARKS = dict(zip(STATUSES[1:], [("#E69F00", "s"), ("#D55E00", "o"), ("#CC79A7", "D"), ("k", "X")],
                  strict=True))  # fmt: skip


def spot_statuses(section: Section, thumbnail: Thumbnail | None) -> np.ndarray:
    """(n,) of STATUSES, the worst that holds for each spot."""
    spots = section.spots
    statuses = np.full(len(spots), STATUSES[0], dtype=object)
    statuses[has_few_counts(spots.total_counts)] = STATUSES[1]
    if thumbnail is not None:
        statuses[~thumbnail.on_tissue(spots.centres_px)] = STATUSES[2]
    statuses[platforms.far_off(spots.centres_px)] = STATUSES[3]
    if thumbnail is not None:
        statuses[placement.outside(spots.centres_px, thumbnail.size_px)] = STATUSES[4]
    return statuses


def write_overlay(section: Section, thumbnail: Thumbnail, folder: Path) -> Path:
    """Draws a section's spots over its image as PNG; an existing picture is replaced.

    Colour is log10 of 1 + a spot's total counts; a spot of another status than "sound" has a mark
    around it. Spots off the image widen the picture, at most to three times the image.
    """
    centres = section.spots.centres_px
    width, height = thumbnail.size_px
    statuses = spot_statuses(section, thumbnail)
    mpp = section.mpp or thumbnail.stated_mpp
    diameter = maps.spot_diameter_px(section.spot_diameter_um, mpp, centres)
    figure = Figure(
        figsize=(9, 0.9 + 7.5 * float(np.clip(height / width, 0.4, 1.8))), layout="constrained"
    )
    axes = figure.subplots()
    maps.show_image(axes, thumbnail.overview, thumbnail.scale, mpp)
    values = np.log10(1 + section.spots.total_counts)
    drawn = maps.draw_spots(axes, centres, values, diameter, maps.colour_limits(values))
    drawn.set(alpha=0.75)
    figure.colorbar(drawn, ax=axes, label="log10(1 + counts of a spot)", shrink=0.7)
    shown = []
    for status, (colour, shape) in _MARKS.items():
        these = centres[statuses == status]
        if len(these):
            axes.plot(*these.T, shape, mfc="none", mec=colour, mew=1.4, ms=8, clip_on=True)
            label = f"{status} ({len(these)})"
            shown.append(
                Line2D([], [], ls="", marker=shape, mfc="none", mec=colour, mew=1.4, label=label)
            )
    if shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=4, frameon=False)
    for limit, values_px, size in ((axes.set_xlim, centres[:, 0], width),
                                   (axes.set_ylim, centres[:, 1], height)):  # fmt: skip
        low = max(min(0.0, float(values_px.min()) - diameter), -size)
        high = min(max(float(size), float(values_px.max()) + diameter), 2 * size)
        limit((low, high) if limit == axes.set_xlim else (high, low))
    scale = "scale unknown" if mpp is None else f"{mpp:.3g} µm/px"
    axes.set_title(f"{section.name}: {len(centres)} spots on {thumbnail.path.name}, {scale}")
    path = folder / f"{section.name.replace('/', '_')}.png"
    with outputs.whole_file(path) as draft:
        figure.savefig(draft, dpi=110)
    return path

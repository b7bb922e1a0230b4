"""Measured expression over the H&E beside what every predictor says of it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import cast

import anndata
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure, FigureBase
from matplotlib.transforms import Affine2DBase, ScaledTranslation, blended_transform_factory

from histospace_tf.data_pipelines import slides
from histospace_tf.predictors import registry
from histospace_tf.reports import data, maps, page
from histospace_tf.reports.data import MODEL, Overview
from histospace_tf.reports.figures import DPI, plain
from histospace_tf.scores import metrics

MAP_SECTIONS = 6  # at most so many sections in one gene's figure; the viewer holds all
MAPS_BESIDE = 6  # at most so many maps in a line; a section with more has several lines
WIDTH = 11.6  # inches
VECTOR_DISCS = 3000  # of one gene; more are pixels in its SVG, which would be tens of megabytes
SHARPNESS = 1.2  # pixels of the H&E under a map, per pixel that is drawn


def predictors(table: anndata.AnnData) -> tuple[str, ...]:
    """Predictors that a table of predictions holds, in the order of tables; X is the model's."""
    return tuple(registry.in_order([MODEL, *_layers(table)]))


def figure(
    predictions: anndata.AnnData,
    overviews: Mapping[str, Overview],
    titles: Mapping[str, str],
    names: Sequence[str] = (),
) -> Figure:
    """Genes over the H&E, measured and predicted: one block per gene, one line per section.

    Args:
        predictions: X predicted, layers["measured"] and of each predictor, obs["section"],
            obsm["spatial"]; a section in which a gene was not predicted (NaN) is left out of its
            block.
        overviews: of the sections; one without an overview is drawn on white.
        titles: gene -> what stands above its maps, followed by its unit. Every map has its own
            colour scale, whose ends stand below it: what is predicted varies less than what was
            measured, and on one scale its pattern would not be seen.
        names: predictors with a map each, of `predictors`, and with r below it; none: the model
            alone, as "predicted".
    """
    sections = {gene: _sections_of(predictions, gene) for gene in titles}
    shown = set().union(*sections.values())
    first = ["H&E", "measured"] if shown & set(overviews) else ["measured"]
    layout = _Layout.of(names or (MODEL,), first, with_r=bool(names))
    heights = [0.5 + layout.height(predictions, sections[gene]) for gene in titles]
    small = {
        name: reduced(overview, round(SHARPNESS * DPI * layout.map_width))
        for name, overview in overviews.items()
        if name in shown
    }
    whole = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    blocks: Sequence[FigureBase] = [whole]
    if len(titles) > 1:
        rows = whole.add_gridspec(len(titles), 1, height_ratios=heights)
        blocks = [whole.add_subfigure(rows[at, 0]) for at in range(len(titles))]
    for block, (gene, title) in zip(blocks, titles.items(), strict=True):
        _draw_gene(block, predictions, small, gene, sections[gene], layout)
        var = predictions.var
        unit = str(var.loc[gene, "unit"]) if "unit" in var else "expression"
        block.suptitle(plain(f"{title}, {unit}"), fontweight="bold")
    return whole


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a section's maps stand: `lines` lines of `beside` each, `first` before predictors'."""

    names: tuple[str, ...]
    first: list[str]
    beside: int
    lines: int
    with_r: bool

    @classmethod
    def of(cls, names: Sequence[str], first: list[str], *, with_r: bool) -> _Layout:
        maps_each = len(names) + len(first)
        lines = -(-maps_each // MAPS_BESIDE)
        return cls(tuple(names), first, -(-maps_each // lines), lines, with_r)

    @property
    def map_width(self) -> float:
        """Inches."""
        return WIDTH / self.beside

    @property
    def titles(self) -> list[str]:
        """What stands above the maps."""
        words = [textwrap.fill(registry.label(name), 24) for name in self.names]
        return [*self.first, *(words if self.with_r else ["predicted"])]

    def height(self, table: anndata.AnnData, sections: Mapping[str, np.ndarray]) -> float:
        """Inches that a gene's maps need."""
        spans = [np.ptp(table.obsm["spatial"][rows], axis=0) for rows in sections.values()]
        shape = float(np.clip(max(high / max(wide, 1.0) for wide, high in spans), 0.3, 2.0))
        words = 0.58
        return len(sections) * self.lines * (self.map_width * shape + words)


def _sections_of(predictions: anndata.AnnData, gene: str) -> dict[str, np.ndarray]:
    """Rows of the first MAP_SECTIONS sections in which the gene was predicted."""
    predicted, _ = data.both(predictions[:, gene])
    rows = data.section_rows(predictions).items()
    there = [(name, rows) for name, rows in rows if np.isfinite(predicted[rows]).any()]
    return dict(there[:MAP_SECTIONS])


def _layers(table: anndata.AnnData) -> list[str]:
    return [name for name in table.layers if name not in (None, "measured")]


def _draw_gene(
    block: FigureBase,
    predictions: anndata.AnnData,
    overviews: Mapping[str, Overview],
    gene: str,
    sections: Mapping[str, np.ndarray],
    layout: _Layout,
) -> None:
    one = predictions[:, gene]
    values = {"measured": data.both(one)[1][:, 0]}
    for name in layout.names:
        values[name] = np.asarray(one.X if name == MODEL else one.layers[name])[:, 0]
    grid = block.subplots(len(sections) * layout.lines, layout.beside, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    many = sum(map(len, sections.values())) * len(values) > VECTOR_DISCS
    for place, (section, rows) in enumerate(sections.items()):
        lines = grid[place * layout.lines : (place + 1) * layout.lines].ravel()
        panels = _section_panels(
            lines, layout, section, predictions.obsm["spatial"][rows], overviews.get(section)
        )
        for axes, (name, of_all) in zip(panels[-len(values) :], values.items(), strict=True):
            there = of_all[rows][np.isfinite(of_all[rows])]
            drawn = maps.draw_spots(
                axes,
                predictions.obsm["spatial"][rows],
                of_all[rows],
                data.spot_px(overviews.get(section), predictions.obsm["spatial"][rows]),
                maps.colour_limits(there if len(there) else np.zeros(1)),
            )
            drawn.set_rasterized(many)
            has_r = layout.with_r and name != "measured"
            words = _r(of_all[rows], values["measured"][rows]) if has_r else ""
            _below(axes, drawn if len(there) else None, words)


def _below(axes: Axes, drawn: Collection | None, words: str) -> None:
    """Below a map, its own colours, their ends in numbers, and words between them."""
    # Along the map as it is wide; inches below it, so that the layout knows how many it needs.
    corner = ScaledTranslation(0.0, 0.0, cast(Affine2DBase, axes.transAxes))
    below = axes.figure.dpi_scale_trans + corner
    inches = blended_transform_factory(axes.transAxes, below)
    low = high = ""
    if drawn is not None:
        bar = axes.inset_axes((0.0, -0.16, 1.0, 0.08), transform=inches)
        bar.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=drawn.get_cmap())
        bar.set_axis_off()
        low, high = (page.number(end, 2) for end in drawn.get_clim())
        low, high = f"≤ {low}", f"≥ {high}"
    for x, text, side in ((0.0, low, "left"), (0.5, words, "center"), (1.0, high, "right")):
        axes.text(x, -0.19, text, transform=inches, fontsize=8, ha=side, va="top")


def _r(predicted: np.ndarray, measured: np.ndarray) -> str:
    if not np.isfinite(predicted).all():
        return "not predicted"
    (r,) = metrics.gene_r_each(predicted[:, None], measured[:, None])
    return f"r {page.number(float(r), 2)}"


def _section_panels(
    line: np.ndarray,
    layout: _Layout,
    section: str,
    centres: np.ndarray,
    overview: Overview | None,
) -> list[Axes]:
    """Axes of one section, on faded H&E but for the first, cropped to its spots."""
    titles = layout.titles
    panels = list(line[: len(titles)])
    margin = data.spot_px(overview, centres)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        if overview is not None:
            maps.show_image(
                axes,
                overview.picture,
                overview.px_per_overview_px,
                overview.mpp,
                faded=title != "H&E",
            )
        axes.set_xlim(*maps.around(centres[:, 0], margin))
        axes.set_ylim(*maps.around(centres[:, 1], margin)[::-1])
        axes.set_aspect("equal")
        axes.set_title(plain(title), fontsize=9)
    panels[0].set_ylabel(plain(section), fontsize=10)
    return panels


def reduced(overview: Overview, longest: int) -> Overview:
    """The same picture, its longer side at most `longest` pixels."""
    height, width = overview.picture.shape[:2]
    smaller = max(1.0, max(height, width) / longest)
    size = (max(1, round(width / smaller)), max(1, round(height / smaller)))
    return dataclasses.replace(
        overview,
        picture=slides.resampled(overview.picture, size),
        px_per_overview_px=overview.px_per_overview_px * smaller,
    )

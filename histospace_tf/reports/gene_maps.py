"""Measured expression over the H&E beside what every predictor says of it, and the genes that are
drawn so.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.predictors import registry
from histospace_tf.reports import data, maps, page
from histospace_tf.reports.data import MODEL, Overview, Results
from histospace_tf.reports.figures import DPI, plain
from histospace_tf.reports.page import Part
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError, named

# Genes that the field looks at first in breast tumours, where the panel holds them.
FIRST_GENES = ("GNAS", "ERBB2", "HLA-B")
BEST_GENES = 5  # shown beside FIRST_GENES where no genes are named
HELD_OUT_GENES = 4  # of them in `write_held_out`
MAP_SECTIONS = 6  # at most so many sections in one gene's figure; the viewer holds all
MAPS_BESIDE = 6  # at most so many maps in a line; a section with more has several lines
WIDTH = 11.6  # inches, of which COLOUR_BAR are the bar's
COLOUR_BAR = 1.3
SHARPNESS = 1.5  # pixels of the H&E under a map, per pixel that is drawn


def first_genes(r: pd.Series, known: Collection[str]) -> list[str]:
    """FIRST_GENES that are known, then the BEST_GENES that are predicted best besides.

    Args:
        r: index gene; NaN stands last.
        known: genes that can be drawn.
    """
    first = [gene for gene in FIRST_GENES if gene in known]
    best = r.sort_values(ascending=False, kind="stable").index
    return [*first, *[gene for gene in best if gene in known and gene not in first][:BEST_GENES]]


def genes_to_show(results: Results, genes: Sequence[str] | None = None) -> list[str]:
    """Genes that get a map: those named, else `first_genes` by the model's mean r.

    Raises:
        InputError: a gene that was not predicted, or genes named where nothing was.
    """
    if results.predictions is None:
        if genes:
            raise InputError(
                f"{str(results.folder)!r} has no predictions.h5ad, so no map of "
                f"{named(list(genes))} can be drawn"
            )
        return []
    known = [str(name) for name in results.predictions.var_names]
    if genes is not None:
        maps.check_genes(genes, known)
        return list(dict.fromkeys(genes))
    return first_genes(data.mean_gene_r(results)[MODEL], known)


def part(results: Results, shown: Sequence[str], folder: Path) -> Part | None:
    """The report's part on `shown` genes; one figure per gene is written into `folder`."""
    table = results.predictions
    if table is None or not shown:
        return None
    sections = data.section_rows(table)
    names = predictors(table)
    listed = ", ".join(registry.label(name) for name in names)
    words = [
        f"A section's H&E, what was measured, and what each predictor says: {listed}.",
        "One colour scale per gene, from the 1st to the 99th percentile of all its maps; r: "
        "Pearson's, over the section's spots.",
    ]
    if len(sections) > MAP_SECTIONS:
        words.append(
            f"The first {MAP_SECTIONS} of {len(sections)} sections; the viewer has the model's "
            "maps of all."
        )
    body = [page.paragraph(*words)]
    for gene in shown:
        if not np.isfinite(np.asarray(table[:, gene].X)).any():
            body.append(page.paragraph(f"{gene} was in no fold's panel."))
            continue
        body.append(
            page.drawn(
                figure(table, results.overviews, {gene: gene}, names),
                folder,
                f"map_{outputs.file_name(gene)}",
                raster=True,
                alt=f"{gene} measured and as each predictor says, over the H&E of each section",
                caption=f"{gene}, measured beside predicted; one colour scale for all its maps.",
            )
        )
    return "chosen", "Maps of chosen genes", "".join(body)


def predictors(table: anndata.AnnData) -> tuple[str, ...]:
    """Predictors that a table of predictions holds, in the order of tables; X is the model's."""
    return tuple(registry.in_order([MODEL, *_layers(table)]))


def write_held_out(results: Results, path: Path) -> None:
    """Writes measured beside predicted expression of the first held-out section as PNG.

    Args:
        results: with predictions.
        path: where to, whole or not at all.
    """
    assert results.predictions is not None
    section, rows = next(iter(data.section_rows(results.predictions).items()))
    r = data.section_gene_r(results, section)
    titles = {
        gene: f"{gene} (r {r.get(gene, np.nan):.2f})"
        for gene in genes_to_show(results)[:HELD_OUT_GENES]
    }
    with outputs.whole_file(path) as draft:
        figure(results.predictions[rows], results.overviews, titles).savefig(draft, dpi=DPI)


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
        titles: gene -> what stands above its maps. All maps of a gene share one colour scale.
        names: predictors with a map each, of `predictors`, and with r below it; none: the model
            alone, as "predicted".
    """
    layout = _Layout.of(names or (MODEL,), with_r=bool(names))
    sections = {gene: _sections_of(predictions, gene) for gene in titles}
    heights = [0.5 + layout.height(predictions, sections[gene]) for gene in titles]
    shown = set().union(*sections.values())
    small = {
        name: _reduced(overview, round(SHARPNESS * DPI * layout.map_width))
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
        block.suptitle(plain(title), fontweight="bold")
    return whole


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a section's maps stand: `lines` lines of `beside` each, H&E and measured first."""

    names: tuple[str, ...]
    beside: int
    lines: int
    with_r: bool

    @classmethod
    def of(cls, names: Sequence[str], *, with_r: bool) -> _Layout:
        maps_each = len(names) + 2
        lines = -(-maps_each // MAPS_BESIDE)
        return cls(tuple(names), -(-maps_each // lines), lines, with_r)

    @property
    def map_width(self) -> float:
        """Inches."""
        return (WIDTH - COLOUR_BAR) / self.beside

    @property
    def titles(self) -> list[str]:
        """What stands above the maps."""
        words = [textwrap.fill(registry.label(name), 24) for name in self.names]
        return ["H&E", "measured", *(words if self.with_r else ["predicted"])]

    def height(self, table: anndata.AnnData, sections: Mapping[str, np.ndarray]) -> float:
        """Inches that a gene's maps need."""
        spans = [np.ptp(table.obsm["spatial"][rows], axis=0) for rows in sections.values()]
        shape = float(np.clip(max(high / max(wide, 1.0) for wide, high in spans), 0.3, 2.0))
        words = 0.3 + 0.2 * self.with_r
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
    every = np.concatenate([v[rows] for rows in sections.values() for v in values.values()])
    limits = maps.colour_limits(every[np.isfinite(every)])
    grid = block.subplots(len(sections) * layout.lines, layout.beside, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for place, (section, rows) in enumerate(sections.items()):
        lines = grid[place * layout.lines : (place + 1) * layout.lines].ravel()
        panels = _section_panels(
            lines, layout, section, predictions.obsm["spatial"][rows], overviews.get(section)
        )
        for axes, (name, of_all) in zip(panels[1:], values.items(), strict=True):
            drawn = maps.draw_spots(
                axes,
                predictions.obsm["spatial"][rows],
                of_all[rows],
                data.spot_px(overviews.get(section), predictions.obsm["spatial"][rows]),
                limits,
            )
            if layout.with_r and name != "measured":
                axes.set_xlabel(_r(of_all[rows], values["measured"][rows]), fontsize=9, labelpad=2)
    unit = str(predictions.var.loc[gene, "unit"]) if "unit" in predictions.var else "expression"
    block.colorbar(
        drawn, ax=grid.ravel().tolist(), label=plain(unit), extend="both", shrink=0.8, pad=0.01
    )


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
    for at, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        if overview is not None:
            maps.show_image(
                axes, overview.picture, overview.px_per_overview_px, overview.mpp, faded=at > 0
            )
        axes.set_xlim(*maps.around(centres[:, 0], margin))
        axes.set_ylim(*maps.around(centres[:, 1], margin)[::-1])
        axes.set_aspect("equal")
        axes.set_title(plain(title), fontsize=9)
    panels[0].set_ylabel(plain(section), fontsize=10)
    return panels


def _reduced(overview: Overview, longest: int) -> Overview:
    """The same picture with no more pixels than a map shows."""
    height, width = overview.picture.shape[:2]
    smaller = max(1.0, max(height, width) / longest)
    size = (max(1, round(width / smaller)), max(1, round(height / smaller)))
    return dataclasses.replace(
        overview,
        picture=slides.resampled(overview.picture, size),
        px_per_overview_px=overview.px_per_overview_px * smaller,
    )

"""Measured beside predicted expression over the H&E, and the genes that are drawn so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.reports import data, maps, page
from histospace_tf.reports.data import MODEL, Overview, Results
from histospace_tf.reports.figures import DPI, plain
from histospace_tf.reports.page import Part
from histospace_tf.vocabulary import InputError, named

# Genes that the field looks at first in breast tumours, where the panel holds them.
FIRST_GENES = ("GNAS", "ERBB2", "HLA-B")
BEST_GENES = 5  # shown beside FIRST_GENES where no genes are named
HELD_OUT_GENES = 4  # of them in `write_held_out`
MAP_SECTIONS = 12  # at most so many sections in one gene's figure; the viewer holds all
MAP_PX = 600  # longer side of the H&E under a map


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
    words = "Measured beside predicted in each section, on one colour scale per gene."
    if len(sections) > MAP_SECTIONS:
        words += f" The first {MAP_SECTIONS} of {len(sections)} sections; the viewer has all."
    body = [page.paragraph(words)]
    for gene in shown:
        if not np.isfinite(np.asarray(table[:, gene].X)).any():
            body.append(page.paragraph(f"{gene} was in no fold's panel."))
            continue
        body.append(
            page.drawn(
                figure(table, results.overviews, {gene: gene}),
                folder,
                f"map_{outputs.file_name(gene)}",
                raster=True,
                alt=f"{gene} measured and predicted, over the H&E of each section",
                caption=f"{gene}, measured beside predicted; one colour scale for both.",
            )
        )
    return "chosen", "Maps of chosen genes", "".join(body)


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
    predictions: anndata.AnnData, overviews: Mapping[str, Overview], titles: Mapping[str, str]
) -> Figure:
    """Genes measured beside predicted over the H&E: one block per gene, two maps per section.

    Args:
        predictions: X predicted, layers["measured"], obs["section"], obsm["spatial"]; a section in
            which a gene was not predicted (NaN) is left out of its block.
        overviews: of the sections; one without an overview is drawn on white.
        titles: gene -> what stands above its maps. All maps of a gene share one colour scale.
    """
    sections = {gene: _sections_of(predictions, gene) for gene in titles}
    heights = [0.5 + _maps_height(predictions, sections[gene]) for gene in titles]
    whole = Figure(figsize=(11.6, sum(heights)), layout="constrained")
    blocks: Sequence[FigureBase] = [whole]
    if len(titles) > 1:
        rows = whole.add_gridspec(len(titles), 1, height_ratios=heights)
        blocks = [whole.add_subfigure(rows[at, 0]) for at in range(len(titles))]
    for block, (gene, title) in zip(blocks, titles.items(), strict=True):
        _draw_gene(block, predictions, overviews, gene, sections[gene])
        block.suptitle(plain(title), fontweight="bold")
    return whole


def _sections_of(predictions: anndata.AnnData, gene: str) -> dict[str, np.ndarray]:
    """Rows of the first MAP_SECTIONS sections in which the gene was predicted."""
    predicted, _ = data.both(predictions[:, gene])
    rows = data.section_rows(predictions).items()
    there = [(name, rows) for name, rows in rows if np.isfinite(predicted[rows]).any()]
    return dict(there[:MAP_SECTIONS])


def _draw_gene(
    block: FigureBase,
    predictions: anndata.AnnData,
    overviews: Mapping[str, Overview],
    gene: str,
    sections: Mapping[str, np.ndarray],
) -> None:
    predicted, measured = (values[:, 0] for values in data.both(predictions[:, gene]))
    every = np.concatenate([v[rows] for rows in sections.values() for v in (measured, predicted)])
    limits = maps.colour_limits(every[np.isfinite(every)])
    titles, beside, lines = _layout(len(sections))
    grid = block.subplots(lines, beside * len(titles), squeeze=False)
    panels = _section_panels(grid, predictions, overviews, sections)
    for name, rows in sections.items():
        centres = predictions.obsm["spatial"][rows]
        for axes, values in zip(panels[name], (measured[rows], predicted[rows]), strict=True):
            drawn = maps.draw_spots(
                axes, centres, values, data.spot_px(overviews.get(name), centres), limits
            )
    unit = str(predictions.var.loc[gene, "unit"]) if "unit" in predictions.var else "expression"
    block.colorbar(
        drawn, ax=grid.ravel().tolist(), label=plain(unit), extend="both", shrink=0.8, pad=0.01
    )


def _layout(n_sections: int) -> tuple[list[str], int, int]:
    """(titles of a section's maps, sections per line, lines); at most six maps per line."""
    titles = [*(["H&E"] if n_sections == 1 else []), "measured", "predicted"]
    beside = max(1, min(n_sections, 6 // len(titles)))
    return titles, beside, -(-n_sections // beside)


def _maps_height(predictions: anndata.AnnData, sections: Mapping[str, np.ndarray]) -> float:
    """Inches that a gene's maps need."""
    titles, beside, lines = _layout(len(sections))
    spans = [np.ptp(predictions.obsm["spatial"][rows], axis=0) for rows in sections.values()]
    shape = float(np.clip(max(high / max(wide, 1.0) for wide, high in spans), 0.3, 2.0))
    return lines * (10.3 / (beside * len(titles)) * shape + 0.3)


def _section_panels(
    grid: np.ndarray,
    predictions: anndata.AnnData,
    overviews: Mapping[str, Overview],
    sections: Mapping[str, np.ndarray],
) -> dict[str, list[Axes]]:
    """Axes of each section's measured and predicted map, on faded H&E, cropped to its spots."""
    titles, beside, _ = _layout(len(sections))
    each, alone = len(titles), len(sections) == 1
    panels: dict[str, list[Axes]] = {}
    for axes in grid.ravel():
        axes.set_axis_off()
    for place, (name, rows) in enumerate(sections.items()):
        line, column = divmod(place, beside)
        mine = list(grid[line, column * each : (column + 1) * each])
        centres = predictions.obsm["spatial"][rows]
        margin = data.spot_px(overviews.get(name), centres)
        for at, (axes, title) in enumerate(zip(mine, titles, strict=True)):
            axes.set_axis_on()
            _background(axes, overviews.get(name), faded=not (alone and at == 0))
            axes.set_xlim(*maps.around(centres[:, 0], margin))
            axes.set_ylim(*maps.around(centres[:, 1], margin)[::-1])
            axes.set_aspect("equal")
            axes.set_title(plain(f"{name}, {title}" if at == 0 else title), fontsize=9)
        panels[name] = mine[1:] if alone else mine
    return panels


def _background(axes: Axes, overview: Overview | None, *, faded: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if overview is not None:
        height, width = overview.picture.shape[:2]
        smaller = max(1.0, max(height, width) / MAP_PX)
        small = slides.resampled(
            overview.picture, (round(width / smaller), round(height / smaller))
        )
        scale = overview.px_per_overview_px * smaller
        maps.show_image(axes, small, scale, overview.mpp, faded=faded)

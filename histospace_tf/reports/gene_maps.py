"""The part of a report on chosen genes: which they are, and their maps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histospace_tf import outputs
from histospace_tf.predictors import registry
from histospace_tf.reports import data, gene_map_figure, maps, page
from histospace_tf.reports.data import MODEL, Results
from histospace_tf.reports.figures import DPI
from histospace_tf.reports.page import Part
from histospace_tf.vocabulary import InputError, named

# Genes that the field looks at first in breast tumours, where the panel holds them.
FIRST_GENES = ("GNAS", "ERBB2", "HLA-B")
BEST_GENES = 5  # shown beside FIRST_GENES where no genes are named
HELD_OUT_GENES = 4  # of them in `write_held_out`


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
    names = gene_map_figure.predictors(table)
    listed = ", ".join(registry.label(name) for name in names)
    words = [
        f"A section's H&E, what was measured, and what each predictor says: {listed}.",
        "Every map has its own colour scale, from its 1st to its 99th percentile: compare where a "
        "gene is high, and levels by the numbers below. r: Pearson's, over the section's spots.",
    ]
    most = gene_map_figure.MAP_SECTIONS
    if len(sections) > most:
        words.append(
            f"The first {most} of {len(sections)} sections; the viewer has the model's maps of all."
        )
    body = [page.paragraph(*words)]
    r = data.mean_gene_r(results)[MODEL]
    for gene in shown:
        if not np.isfinite(np.asarray(table[:, gene].X)).any():
            body.append(page.paragraph(f"{gene} was in no fold's panel."))
            continue
        drawn = page.drawn(
            gene_map_figure.figure(table, results.overviews, {gene: gene}, names),
            folder,
            f"map_{outputs.file_name(gene)}",
            wide=True,
            alt=f"{gene} measured and as each predictor says, over the H&E of each section",
            caption=f"{gene}, measured beside predicted; every map has its own colour scale.",
        )
        known = f" (mean r {page.number(r[gene], 2)})" if gene in r else ""
        body.append(page.folded(f"{gene}{known}", drawn))
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
        drawn = gene_map_figure.figure(results.predictions[rows], results.overviews, titles)
        drawn.savefig(draft, dpi=DPI)

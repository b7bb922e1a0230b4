"""report.html of a run or an evaluation: one self-contained page, and its figures as PNG and SVG.

`render` reads the folder that `fit` or `evaluate` wrote and leaves out whatever has no file there.
Nothing is computed anew but means over sections, r of what is mapped, and how groups of spots
differ; TensorFlow is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from histospace_tf import outputs
from histospace_tf.reports import (
    clusters,
    data,
    expression_by_group,
    gene_maps,
    gene_sets,
    page,
    parts,
    sentences,
    viewer,
)

REPORT = "report.html"
FIGURES = "figures"


def render(folder: Path, *, genes: Sequence[str] | None = None) -> Path:
    """Writes FOLDER/report.html and FOLDER/figures/, replacing those that stand there.

    Args:
        folder: of `fit` or `evaluate`; scores.json is needed, every other file may be absent.
        genes: drawn as maps and first in the viewer; by default GNAS, ERBB2 and HLA-B where the
            panel has them, and the five that the model predicts best besides.
    Returns:
        Path of report.html.
    Raises:
        InputError: as `data.read`; a gene that was not predicted, or genes named where there
            are no predictions.
    """
    folder = Path(folder)
    results = data.read(folder)
    shown = gene_maps.genes_to_show(results, genes)
    with outputs.whole_folder(folder / FIGURES, force=True) as draft:
        in_order = [
            parts.summary(results, draft),
            parts.score_tables(results),
            parts.genes(results, shown, draft),
            gene_sets.part(results),
            viewer.part(results, shown),
            gene_maps.part(results, shown, draft),
            expression_by_group.part(results, shown, draft),
            clusters.part(results, draft),
            parts.training(results, draft),
        ]
    text = page.page(
        sentences.title(results),
        folder.resolve().name.removesuffix(".partial"),
        [part for part in in_order if part is not None],
    )
    with outputs.whole_file(folder / REPORT) as path:
        path.write_text(text, encoding="utf-8")
    return folder / REPORT

"""Slides scored as a whole: predicted pseudo-bulk beside the sum of the spots' counts.

Of each held-out section one value per gene is predicted, the mean over its spots
(`scores.pseudo_bulk`), and one was measured, the sum of the spots' counts. Both are compared in the
panel's unit, a slide in the place of a spot: `gene_r` is r of a gene over slides, `spot_r` r over
genes, slide by slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import expression
from histospace_tf.predictors import registry
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.scores import metrics, pseudo_bulk

# Over three slides r of a gene is beyond 0.9 or -0.9 by chance in 29 of 100, over five in 4.
LEAST_SLIDES = 5


def score(sections: Sequence[PredictedSection]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores over slides.

    Args:
        sections: held out, whole, with the same unit each.
    Returns:
        "bulk" of scores.json: slides, patients, genes (those of all folds' panels), and rows as in
        a section's entry, None where fewer than LEAST_SLIDES or no gene; a predictor that says
        nothing of some slide has no row. And bulk_scores.csv: columns gene, slides, patients, and r
        over slides of each predictor; empty without rows.
    """
    genes = [
        gene
        for gene in (sections[0].panel.genes if sections else ())
        if all(gene in section.panel.genes for section in sections)
    ]
    counted = {
        "slides": len(sections),
        "patients": len({section.patient for section in sections}),
    }
    entry: dict[str, Any] = {**counted, "genes": len(genes), "rows": None}
    if len(sections) < LEAST_SLIDES or not genes:
        return entry, pd.DataFrame()
    first = sections[0].panel
    measured = np.stack(
        [
            pseudo_bulk.measured(section.spots, genes, target_sum=first.target_sum)
            for section in sections
        ]
    )
    measured = expression.logged(measured, normalisation=first.normalisation)
    rows: dict[str, Any] = {}
    columns: dict[str, Any] = {"gene": genes, **counted}
    for name in registry.in_order({name for section in sections for name in section.predictions}):
        levels = [_level(section, name, genes) for section in sections]
        if registry.kind(name) == "mark" or any(level is None for level in levels):
            continue
        predicted = np.stack([level for level in levels if level is not None])
        rows[name] = metrics.score_row(predicted, measured)
        columns[name] = metrics.gene_r_each(predicted, measured)
    return {**entry, "rows": rows}, pd.DataFrame(columns)


def _level(section: PredictedSection, name: str, genes: Sequence[str]) -> np.ndarray | None:
    """(g,) of a slide in the panel's unit; None where the predictor says nothing of it."""
    values = section.predictions.get(name)
    if values is None:
        return None
    normalisation = section.panel.normalisation
    at = [section.panel.genes.index(gene) for gene in genes]
    counts = pseudo_bulk.predicted(values[:, at], normalisation=normalisation)
    return expression.logged(counts, normalisation=normalisation)

"""Predictions of held-out sections as the tables that `predictions.h5ad` holds."""

from __future__ import annotations

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from histospace_tf.predictors import registry
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.scores import metrics


def of_section(section: PredictedSection, unit: str) -> anndata.AnnData:
    """Predictions of one held-out section beside what was measured.

    Args:
        section: with the model's predictions.
        unit: of its panel, in words.
    Returns:
        X the model's and layers["measured"], and a layer for each other predictor of ours and each
        baseline that looks at tiles, (n, g) float32 in the panel's unit; obs_names SECTION_SPOT;
        obs section, patient, spot, total_counts, fold; obsm["spatial"] full-resolution pixels, x
        first; var unit, gene_ids where they are known, and gene_r, the model's r.
    """
    model, *others = (
        entry.name
        for entry in registry.always()
        if entry.looks_at_tiles and section.predictions.get(entry.name) is not None
    )
    predicted = section.predictions[model]
    assert predicted is not None
    layers = {"measured": section.measured, **{name: section.predictions[name] for name in others}}
    return anndata.AnnData(
        X=predicted.astype(np.float32),
        obs=pd.DataFrame(
            {
                "section": section.name,
                "patient": section.patient,
                "spot": list(section.spots.names),
                "total_counts": section.spots.total_counts,
                "fold": section.fold,
            },
            index=section.spot_names,
        ),
        var=pd.DataFrame(
            {
                "unit": unit,
                **section.panel.columns_of_var(),
                "gene_r": metrics.gene_r_each(predicted, section.measured),
            },
            index=list(section.panel.genes),
        ),
        obsm={"spatial": np.asarray(section.spots.centres_px, np.float64)},
        layers={name: np.asarray(values, np.float32) for name, values in layers.items()},
    )


def joined(tables: Sequence[anndata.AnnData]) -> anndata.AnnData:
    """Several sections' prediction tables as one; var keeps the unit and the gene ids.

    Where folds have panels of their own, the genes are those of all of them, in order of first
    appearance, with NaN for the spots of folds that do not have them.
    """
    genes = list(dict.fromkeys(gene for part in tables for gene in part.var_names))
    whole = anndata.concat(list(tables), join="outer", fill_value=np.nan)[:, genes].copy()
    whole.var["unit"] = tables[0].var["unit"].iloc[0]
    ids = {
        g: i for part in tables if "gene_ids" in part.var for g, i in part.var["gene_ids"].items()
    }
    if ids:
        whole.var["gene_ids"] = [ids.get(gene, "") for gene in genes]
    return whole

"""Held-out sections with their predictions, and the tables that `predictions.h5ad` holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import anndata
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.reports.score_table import ROWS
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError, Section, SpotTable, named

# Names that a further predictor cannot have: columns and rows of their own.
TAKEN = (*ROWS, "measured", "gene", "section")


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutSection:
    """Spots of one section that took no part in training.

    statistics: (n, 39) colour statistics of their tiles.
    model, model_single_tile: (n, g) in the panel's unit.
    further: other predictors' (n, g) by name, in the same unit, genes and spots.
    fold: name of the fold that held it out; empty in a plain run.
    """

    name: str
    patient: str
    spots: SpotTable
    spot_pitch_px: float
    statistics: np.ndarray
    model: np.ndarray
    model_single_tile: np.ndarray
    further: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    fold: str = ""

    def __post_init__(self) -> None:
        for name in self.further:
            if name in TAKEN or not name:
                raise InputError(
                    f"a further predictor cannot be called {name!r}: {named(TAKEN, 9)} are taken"
                )


def of_section(
    held: HeldOutSection,
    measured: np.ndarray,
    panel: GenePanel,
    unit: str,
    *,
    colour_ridge: np.ndarray | None = None,
) -> anndata.AnnData:
    """Predictions of one held-out section beside what was measured.

    Returns:
        X predicted and layers["measured"], ["model_single_tile"] and, where given,
        ["colour_ridge"], (n, g) float32 in the panel's unit; obs_names SECTION_SPOT; obs section,
        patient, spot, total_counts, fold; obsm["spatial"] full-resolution pixels, x first; var
        unit, gene_ids where they are known, and gene_r, the model's r.
    """
    obs = pd.DataFrame(
        {
            "section": held.name,
            "patient": held.patient,
            "spot": list(held.spots.names),
            "total_counts": held.spots.total_counts,
            "fold": held.fold,
        },
        index=spot_names(held),
    )
    layers = {"measured": measured, "model_single_tile": held.model_single_tile}
    if colour_ridge is not None:
        layers["colour_ridge"] = colour_ridge
    return anndata.AnnData(
        X=held.model.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(
            {
                "unit": unit,
                **panel.columns_of_var(),
                "gene_r": metrics.gene_r_each(held.model, measured),
            },
            index=list(panel.genes),
        ),
        obsm={"spatial": np.asarray(held.spots.centres_px, np.float64)},
        layers={name: values.astype(np.float32) for name, values in layers.items()},
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


def spot_names(section: HeldOutSection | Section) -> list[str]:
    """SECTION_SPOT, as `obs_names` of predictions."""
    return [f"{section.name}_{spot}" for spot in section.spots.names]

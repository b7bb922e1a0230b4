"""Sections that were held out, with what every predictor says of their spots, and as tables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import anndata
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.predictors import registry
from histospace_tf.predictors.marks import NEIGHBOUR_PITCHES
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError, SpotTable, named


@dataclasses.dataclass(frozen=True, eq=False)
class PredictedSection:
    """Spots of one section that took no part in training.

    spots: as measured. spot_pitch_px: distance between neighbours in full-resolution pixels.
    panel: of the fold that held it out.
    predictions: (n, g) in the panel's unit by predictor, in the order of tables; None: the
        predictor says nothing of this section.
    fold: name of the fold that held it out; empty in a plain run.
    """

    name: str
    patient: str
    spots: SpotTable
    spot_pitch_px: float
    panel: GenePanel
    predictions: Mapping[str, np.ndarray | None]
    fold: str = ""

    @functools.cached_property
    def measured(self) -> np.ndarray:
        """(n, g) float32 in the panel's unit."""
        return self.panel.measured(self.spots)

    @functools.cached_property
    def smoothed(self) -> np.ndarray:
        """(n, g): what was measured, each spot averaged with its neighbours."""
        radius = NEIGHBOUR_PITCHES * self.spot_pitch_px
        return expression.smoothed(self.measured, self.spots.centres_px, radius_px=radius)

    @property
    def spot_names(self) -> list[str]:
        """SECTION_SPOT, as `obs_names` of predictions."""
        return spot_names(self.name, self.spots)

    def with_predictor(self, name: str, values: np.ndarray) -> PredictedSection:
        """The same with one more predictor, which comes from elsewhere.

        Raises:
            InputError: the name is taken.
        """
        registry.refuse_name(name)
        if name in self.predictions:
            raise InputError(f"predictor {name!r}: that name is taken; choose another")
        every = {**self.predictions, name: values}
        ordered = {known: every[known] for known in registry.in_order(every)}
        return dataclasses.replace(self, predictions=ordered)

    def on_genes(self, genes: Sequence[str]) -> PredictedSection:
        """The same predictions for some of the panel's genes.

        Library sizes stay what they were: over all genes of the table.

        Raises:
            InputError: a gene that the panel does not hold, or none at all.
        """
        at = {gene: column for column, gene in enumerate(self.panel.genes)}
        unknown = [gene for gene in genes if gene not in at]
        if unknown or not genes:
            raise InputError(f"genes of the panel are needed, not {named(unknown) or 'none'}")
        columns = [at[gene] for gene in genes]
        panel, ids = self.panel, self.panel.gene_ids
        return dataclasses.replace(
            self,
            predictions={
                name: None if values is None else values[:, columns]
                for name, values in self.predictions.items()
            },
            panel=dataclasses.replace(
                panel,
                genes=tuple(genes),
                mean=panel.mean[columns],
                scale=panel.scale[columns],
                gene_ids=tuple(ids[column] for column in columns) if ids else (),
            ),
        )


def spot_names(section: str, spots: SpotTable) -> list[str]:
    """SECTION_SPOT, as `obs_names` of predictions."""
    return [f"{section}_{spot}" for spot in spots.names]


def table_of(section: PredictedSection, unit: str) -> anndata.AnnData:
    """Predictions of one held-out section beside what was measured.

    Args:
        section: with the model's predictions.
        unit: of its panel, in words.
    Returns:
        X the model's and layers["measured"], and a layer for each other predictor that tells spots
        of a section apart and is no mark, those of files included, (n, g) float32 in the panel's
        unit; obs_names SECTION_SPOT; obs section, patient, spot, total_counts, fold;
        obsm["spatial"] full-resolution pixels, x first; var unit, gene_ids where they are known,
        centre and scale of its panel, and gene_r, the model's r.
    """
    layers = {"measured": section.measured}
    for name, values in section.predictions.items():
        if values is not None and _has_layer(name):
            layers[name] = values
    predicted = layers.pop(registry.always()[0].name)
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


def _has_layer(name: str) -> bool:
    entry = registry.entry(name) or registry.FROM_FILE
    return entry.varies_in_section and entry.kind != "mark"


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

"""Sections that were held out, with what every predictor says of their spots."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.predictors import registry
from histospace_tf.predictors.marks import NEIGHBOUR_PITCHES
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
        return expression.targets(
            self.spots,
            self.panel.genes,
            normalisation=self.panel.normalisation,
            target_sum=self.panel.target_sum,
        )

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

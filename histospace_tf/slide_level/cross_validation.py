"""Slides with bulk expression, scored by patients left out.

Of each fold everything is learned on the other patients' slides: the gene panel, the scale of
targets and features, the epochs, the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import gene_panel, splits
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.data_pipelines.readers.bulk_tables import BulkTable
from histospace_tf.outputs import say
from histospace_tf.predictors import baselines, bulk_scores, ours
from histospace_tf.predictors.epoch_choice import ChosenTraining
from histospace_tf.scores import metrics
from histospace_tf.slide_level import networks
from histospace_tf.slide_level.networks import SlideNetwork
from histospace_tf.training import Session
from histospace_tf.vocabulary import SpotTable

MOST_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """What is trained, and how: None: as published."""

    architecture: str
    epochs: int | None
    batch_size: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class FittedSlides:
    """A network fitted on some slides."""

    network: SlideNetwork
    panel: GenePanel
    training: ChosenTraining

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(tiles, f) of a slide -> (g,) float32 in the panel's unit."""
        return self.panel.to_unit(self.network.predict(features))


@dataclasses.dataclass(frozen=True, eq=False)
class CrossValidated:
    """What patients that were left out say.

    folds: the rows of each. fitted: one per fold.
    rows: "bulk" of scores.json.
    genes: bulk_scores.csv. table: slide_predictions.h5ad, one row per slide.
    """

    folds: list[splits.Fold]
    fitted: list[FittedSlides]
    bulk: dict[str, Any]
    genes: pd.DataFrame
    table: anndata.AnnData


def fit(
    table: BulkTable,
    features: Sequence[np.ndarray],
    rows: np.ndarray,
    target: TargetConfig,
    settings: NetworkSettings,
    session: Session,
) -> FittedSlides:
    """Fits a network on some slides.

    Args:
        table: of all slides. features: (tiles, f) of each.
        rows: the training side.
        target: size of the panel, unit; its levels are those of the training slides.
        session: its checkpoints are this fit's.
    Raises:
        InputError: no gene qualifies for the panel, or as `networks.train`.
    """
    known = table.slides.subset(rows)
    genes = gene_panel.choose_panel([known], target)
    panel = _panel(known, genes, target)
    targets = np.zeros((len(table), len(genes)), np.float32)
    targets[rows] = panel.standardise(panel.measured(known))
    index = networks.slide_index(table.slides.names, table.patients)
    network, training = networks.train(
        networks.Slides(features, targets, index),
        rows,
        settings.architecture,
        session,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
    )
    return FittedSlides(network, panel, training)


def cross_validated(
    table: BulkTable,
    features: Sequence[np.ndarray],
    target: TargetConfig,
    settings: NetworkSettings,
    session: Session,
    *,
    unit: str,
) -> CrossValidated:
    """Leaves each patient out in turn, or each of MOST_FOLDS groups of them, and scores the slides.

    Args:
        table, features, target, settings: as of `fit`.
        session: a folder of its checkpoints is taken for each fold.
        unit: of the panel, in words.
    """
    index = networks.slide_index(table.slides.names, table.patients)
    folds = splits.inner_folds(index, np.arange(len(table)), folds=MOST_FOLDS)
    fitted = []
    for number, fold in enumerate(folds, start=1):
        say(f"Fold {number} of {len(folds)}: held out patient {', '.join(fold.held_out)}.")
        own = session.within(f"fold{number}")
        fitted.append(fit(table, features, fold.train, target, settings, own))
    genes = [g for g in fitted[0].panel.genes if all(g in one.panel.genes for one in fitted)]
    predicted, constant, measured = np.full((3, len(table), len(genes)), np.nan, np.float32)
    named = np.empty(len(table), object)
    for number, (fold, one) in enumerate(zip(folds, fitted, strict=True), start=1):
        at = [one.panel.genes.index(gene) for gene in genes]
        named[fold.test] = f"fold{number}"
        # A panel's mean may be left out of its scale: the level is that of the training slides.
        level = one.panel.measured(table.slides.subset(fold.train)).mean(axis=0)
        constant[fold.test] = level[at]
        measured[fold.test] = one.panel.measured(table.slides.subset(fold.test))[:, at]
        for row in fold.test:
            predicted[row] = one.predict(features[row])[at]
    bulk, by_gene = _scored(
        table, genes, measured, {ours.Model.name: predicted, baselines.GeneMean.name: constant}
    )
    obs = pd.DataFrame(
        {"slide": list(table.slides.names), "patient": list(table.patients), "fold": list(named)},
        index=list(table.slides.names),
    )
    held = anndata.AnnData(
        X=predicted,
        obs=obs,
        var=pd.DataFrame({"unit": unit}, index=genes),
        layers={"measured": measured, baselines.GeneMean.name: constant},
    )
    return CrossValidated(folds, fitted, bulk, by_gene, held)


def _panel(known: SpotTable, genes: Sequence[str], target: TargetConfig) -> GenePanel:
    """Mean and scale over the training slides, whatever the target centres spots by."""
    own = dataclasses.replace(target, centre="training")
    unscaled = GenePanel(
        tuple(genes),
        own.normalisation,
        own.target_sum,
        np.zeros(len(genes), np.float32),
        np.ones(len(genes), np.float32),
    )
    names = np.full(len(known), "slides")
    return gene_panel.fit_panel(unscaled.measured(known), names, genes, own)


def _scored(
    table: BulkTable,
    genes: Sequence[str],
    measured: np.ndarray,
    predictions: dict[str, np.ndarray],
) -> tuple[dict[str, Any], pd.DataFrame]:
    counted = {"slides": len(table), "patients": len(set(table.patients))}
    entry: dict[str, Any] = {**counted, "genes": len(genes), "rows": None, "learned": True}
    if len(table) < bulk_scores.LEAST_SLIDES or not genes:
        return entry, pd.DataFrame()
    rows = {name: metrics.score_row(values, measured) for name, values in predictions.items()}
    columns = {name: metrics.gene_r_each(values, measured) for name, values in predictions.items()}
    return {**entry, "rows": rows}, pd.DataFrame({"gene": list(genes), **counted, **columns})

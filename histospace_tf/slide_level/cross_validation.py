"""Slides with bulk expression, scored by patients left out.

Of each fold everything is learned on the other patients' slides: the gene panel, the scale of
targets and features, the epochs, the weights. Beside the network stand the gene mean and a ridge on
the mean of a slide's features, on the same folds, panel and inner groups.
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
from histospace_tf.predictors import baselines, bulk_scores, mean_feature_ridge, ours
from histospace_tf.predictors.epoch_choice import ChosenTraining
from histospace_tf.predictors.mean_feature_ridge import FittedRidge, MeanFeatureRidge
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
class FittedFold:
    """What was fitted while some patients were left out.

    sides: the rows of both. inner: groups of the training side that settings were chosen on.
    """

    sides: splits.Fold
    inner: list[splits.Fold]
    fitted: FittedSlides
    ridge: FittedRidge

    @property
    def history(self) -> list[dict[str, object]]:
        """Rows of history.csv."""
        return [*self.fitted.training.history, *self.ridge.history]

    @property
    def chosen(self) -> list[dict[str, Any]]:
        """What inner groups chose, as "chosen" of scores.json has it."""
        choices = {
            self.fitted.network.architecture: self.fitted.training.choice,
            MeanFeatureRidge.name: self.ridge.choice,
        }
        held_out = list(self.sides.held_out)
        return [{"predictor": k, "held_out": held_out, **choice} for k, choice in choices.items()]


@dataclasses.dataclass(frozen=True, eq=False)
class CrossValidated:
    """What patients that were left out say.

    bulk: "bulk" of scores.json.
    genes: bulk_scores.csv. table: slide_predictions.h5ad, one row per slide.
    """

    folds: list[FittedFold]
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
    index = networks.slide_index(table.slides.names, table.patients)
    network, training = networks.train(
        networks.Slides(features, _targets(table, panel, rows), index),
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
    outer = splits.inner_folds(index, np.arange(len(table)), folds=MOST_FOLDS)
    means = mean_feature_ridge.means_of(features)
    folds = []
    for number, sides in enumerate(outer, start=1):
        say(f"Fold {number} of {len(outer)}: held out patient {', '.join(sides.held_out)}.")
        rows = sides.train
        fitted = fit(table, features, rows, target, settings, session.within(f"fold{number}"))
        inner = networks.inner_groups(index, rows)
        targets = _targets(table, fitted.panel, rows)
        ridge = mean_feature_ridge.fit(means, targets, rows, inner, seed=session.seed)
        folds.append(FittedFold(sides, inner, fitted, ridge))
    panels = [one.fitted.panel for one in folds]
    genes = [gene for gene in panels[0].genes if all(gene in panel.genes for panel in panels)]
    measured = np.full((len(table), len(genes)), np.nan, np.float32)
    names = (ours.Model.name, MeanFeatureRidge.name, baselines.GeneMean.name)
    predicted = {name: measured.copy() for name in names}
    fold_names = np.empty(len(table), object)
    for number, (one, panel) in enumerate(zip(folds, panels, strict=True), start=1):
        train, test = one.sides.train, one.sides.test
        at = [panel.genes.index(gene) for gene in genes]
        fold_names[test] = f"fold{number}"
        measured[test] = panel.measured(table.slides.subset(test))[:, at]
        values = (
            np.stack([one.fitted.predict(features[row]) for row in test]),
            panel.to_unit(one.ridge.predict(means[test])),
            # A panel's mean may be left out of its scale: the level is that of the training slides.
            panel.measured(table.slides.subset(train)).mean(axis=0, keepdims=True),
        )
        for name, of_name in zip(names, values, strict=True):
            predicted[name][test] = of_name[:, at]
    bulk, by_gene = _scored(table, genes, measured, predicted)
    obs = pd.DataFrame(
        {
            "slide": list(table.slides.names),
            "patient": list(table.patients),
            "fold": list(fold_names),
        },
        index=list(table.slides.names),
    )
    held = anndata.AnnData(
        X=predicted.pop(ours.Model.name),
        obs=obs,
        var=pd.DataFrame({"unit": unit}, index=genes),
        layers={"measured": measured, **predicted},
    )
    return CrossValidated(folds, bulk, by_gene, held)


def _targets(table: BulkTable, panel: GenePanel, rows: np.ndarray) -> np.ndarray:
    """(slides, g) float32, standardised; zeros in all but `rows`."""
    targets = np.zeros((len(table), len(panel)), np.float32)
    targets[rows] = panel.standardise(panel.measured(table.slides.subset(rows)))
    return targets


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

"""Scores of held-out spots, with every baseline in the same table.

A row is a predictor, a section a block of rows; `scores.json` of a run or evaluation folder holds
them. `score` makes everything at once from `Case`s: a held-out section, what the baselines learned
without it, and the panel of its fold. All rows of a block are scored on the same spots and genes.

"mean" is the mean of the sections' rows, "pooled" all held-out spots of all sections as one
(`pooled_rows` says what that mixes), and "depth" how far values follow the spots' total counts
(`metrics.depth_r` says why that matters).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from histospace_tf import outputs
from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.predictors import baselines, prediction_tables
from histospace_tf.predictors.baselines import Fitted
from histospace_tf.predictors.prediction_tables import HeldOutSection
from histospace_tf.reports.score_table import row_names
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError, SpotTable, named, repeats

# Predictors whose values may follow a spot's depth; further ones are audited too.
AUDITED = ("model", "model_single_tile", "colour_ridge")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSide:
    """What baselines may know: training spots alone.

    measured: (k, g) in the panel's unit; learned: (k, g) the standardised targets of the model.
    statistics: (k, 39) colour statistics; patients, sections: (k,) names.
    """

    measured: np.ndarray
    learned: np.ndarray
    statistics: np.ndarray
    patients: np.ndarray
    sections: np.ndarray

    def fitted(self, panel: GenePanel) -> Fitted:
        """The baselines that these spots give; `save` of it keeps them with a run."""
        return baselines.fit(
            self.measured,
            self.learned,
            self.statistics,
            patients=self.patients,
            sections=self.sections,
            panel=panel,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A held-out section, the baselines of its training side, and the panel of its fold."""

    section: HeldOutSection
    fitted: Fitted
    panel: GenePanel

    def on_genes(self, genes: Sequence[str]) -> Case:
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
        held = self.section
        return Case(
            section=dataclasses.replace(
                held,
                model=held.model[:, columns],
                model_single_tile=held.model_single_tile[:, columns],
                further={name: values[:, columns] for name, values in held.further.items()},
            ),
            fitted=self.fitted.on_genes(genes),
            panel=dataclasses.replace(
                self.panel,
                genes=tuple(genes),
                mean=self.panel.mean[columns],
                scale=self.panel.scale[columns],
                gene_ids=tuple(self.panel.gene_ids[c] for c in columns)
                if self.panel.gene_ids
                else (),
            ),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """What scoring gives.

    scores: the whole of scores.json.
    genes: gene_scores.csv: columns gene, section, and r of every predictor.
    tables: `prediction_table` of every section; `joined` of them is predictions.h5ad.
    """

    scores: dict[str, Any]
    genes: pd.DataFrame
    tables: tuple[anndata.AnnData, ...]


def score(
    cases: Sequence[Case],
    target: TargetConfig,
    split: Mapping[str, Any],
    *,
    unit: str,
    seed: int,
    panel: GenePanel | None = None,
) -> Scored:
    """Scores held-out sections, of one fold or of many.

    Args:
        cases: one a section; the same further predictors in each.
        target: of the run's settings.
        split: entry of scores.json.
        unit: the panel's in words, for `var` of the tables.
        seed: of the resampling ceiling.
        panel: stands in "target" of scores.json; the first case's by default.
    Raises:
        InputError: a section that comes twice, predictions that do not fit the spots, ...
    """
    if panel is None:
        if not cases:
            raise InputError("nothing is held out: there is nothing to score")
        panel = cases[0].panel
    twice = repeats([case.section.name for case in cases])
    if twice:
        raise InputError(f"section {twice[0]!r} is held out twice")
    parts = [_predicted(case) for case in cases]
    entries, genes, tables = {}, [], []
    for case, part in zip(cases, parts, strict=True):
        entry, r = _scored_section(part, seed=seed)
        entries[case.section.name] = entry
        genes.append(r)
        ridge = part.rows["colour_ridge"]
        tables.append(
            prediction_tables.of_section(
                case.section, part.measured, case.panel, unit, colour_ridge=ridge
            )
        )
    return Scored(
        scores=scores(entries, target, panel, split, pooled=_pooled(parts, seed=seed)),
        genes=pd.concat(genes, ignore_index=True) if genes else pd.DataFrame(),
        tables=tuple(tables),
    )


def score_section(
    section: HeldOutSection,
    train: TrainingSide | Fitted,
    panel: GenePanel,
    *,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """All rows of one section.

    Returns:
        The section's entry of scores.json, and a table of r per gene: columns gene, section, and
        one a predictor.
    """
    fitted = train.fitted(panel) if isinstance(train, TrainingSide) else train
    return _scored_section(_predicted(Case(section, fitted, panel)), seed=seed)


def pooled_rows(cases: Sequence[Case], *, seed: int) -> dict[str, Any] | None:
    """Every row over all held-out spots of all sections as one.

    A gene's r is taken once, over the spots of all sections; genes are those in every fold's panel.
    Such an r mixes two things: how far a predictor tells spots of one section apart, and how far it
    tells sections apart, which a section's depth, staining or patient alone may do. Where a fold
    has its own training side the gene mean is no longer constant: a section high in a gene lowers
    the mean of the others, so that the mean of those left in falls where the section left out
    rises, and its pooled r is negative by construction, down to -1. Rows per section and their mean
    are free of both; read the pooled rows beside them. `spot_r`, `mse` and `mae` weigh every spot
    alike, where the mean over sections weighs every section alike.

    Returns:
        Rows as in a section's entry; a predictor that some section lacks is None. None for no cases
        and where the folds share no gene.
    """
    return _pooled([_predicted(case) for case in cases], seed=seed)


def scores(
    entries: Mapping[str, Mapping[str, Any]],
    target: TargetConfig,
    panel: GenePanel,
    split: Mapping[str, Any],
    *,
    pooled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole of scores.json, its means over sections included."""
    names = row_names([entry["rows"] for entry in entries.values()])
    mean = {
        row: metrics.mean_rows([e["rows"][row] for e in entries.values() if e["rows"].get(row)])
        or None
        for row in names
    }
    target_entry = {
        "normalisation": panel.normalisation,
        "target_sum": panel.target_sum,
        "genes": len(panel),
        "smooth_um": target.smooth_um,
    }
    return outputs.json_safe(
        {
            "target": target_entry,
            "split": split,
            "sections": entries,
            "mean": mean,
            "pooled": pooled,
        }
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Predicted:
    """A case with every predictor's values.

    rows: (n, g) in the panel's unit by name, None where one does not apply.
    """

    section: HeldOutSection
    panel: GenePanel
    measured: np.ndarray
    smoothed: np.ndarray
    rows: dict[str, np.ndarray | None]


def _predicted(case: Case) -> _Predicted:
    held, panel = case.section, case.panel
    if case.fitted.genes != panel.genes:
        raise InputError(f"section {held.name!r}: baselines and model have other genes")
    measured = expression.targets(held.spots, panel.genes, **_unit(panel))
    radius = case.fitted.neighbour_pitches * held.spot_pitch_px
    rows: dict[str, np.ndarray | None] = {
        "model": held.model,
        "model_single_tile": held.model_single_tile,
        **held.further,
        **case.fitted.predictions(
            held.patient,
            held.statistics,
            measured,
            held.spots.centres_px,
            spot_pitch_px=held.spot_pitch_px,
        ),
    }
    return _Predicted(
        section=held,
        panel=panel,
        measured=measured,
        smoothed=expression.smoothed(measured, held.spots.centres_px, radius_px=radius),
        rows=rows,
    )


def _scored_section(part: _Predicted, *, seed: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """A section's entry of scores.json, and r per gene."""
    held, measured = part.section, part.measured
    rows: dict[str, Any] = {
        name: None
        if predicted is None
        else metrics.score_row(predicted, measured, measured_smoothed=part.smoothed)
        for name, predicted in part.rows.items()
    }
    rows["resampling_ceiling"] = _ceiling(
        held.spots.counts, held.spots.genes, part.panel.genes, part.panel, seed=seed
    )
    genes = pd.DataFrame({"gene": part.panel.genes, "section": held.name})
    for name, predicted in part.rows.items():
        genes[name] = np.nan if predicted is None else metrics.gene_r_each(predicted, measured)
    totals = held.spots.total_counts
    varies = ~np.isnan(metrics.gene_r_each(measured, measured))  # the genes of gene_r
    depth = {"measured": metrics.depth_r(measured[:, varies], totals)}
    for name, predicted in part.rows.items():
        if predicted is not None and (name in AUDITED or name in held.further):
            depth[name] = metrics.depth_r(predicted[:, varies], totals)
    entry = {"patient": held.patient, "spots": len(held.spots), "rows": rows, "depth": depth}
    if held.fold:
        entry["fold"] = held.fold
    return outputs.json_safe(entry), genes


def _pooled(parts: Sequence[_Predicted], *, seed: int) -> dict[str, Any] | None:
    if not parts:
        return None
    first = parts[0].panel
    if any(_unit(part.panel) != _unit(first) for part in parts):
        raise InputError("sections whose targets have other units cannot be pooled")
    genes = [gene for gene in first.genes if all(gene in part.panel.genes for part in parts)]
    if not genes:
        return None
    columns = [[part.panel.genes.index(gene) for gene in genes] for part in parts]

    def stacked(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([v[:, at] for v, at in zip(values, columns, strict=True)])

    measured = stacked([part.measured for part in parts])
    smoothed = stacked([part.smoothed for part in parts])
    rows: dict[str, Any] = {}
    for name in row_names([part.rows for part in parts])[:-1]:
        found = [values for part in parts if (values := part.rows.get(name)) is not None]
        rows[name] = None
        if len(found) == len(parts):
            rows[name] = metrics.score_row(stacked(found), measured, measured_smoothed=smoothed)
    counts, union = _stacked_counts([part.section.spots for part in parts])
    rows["resampling_ceiling"] = _ceiling(counts, union, genes, first, seed=seed)
    return rows


def _stacked_counts(parts: Sequence[SpotTable]) -> tuple[sparse.csr_matrix, tuple[str, ...]]:
    """Counts of all spots over the union of their genes; a gene that one lacks is zero."""
    union = {gene: None for part in parts for gene in part.genes}
    at = {gene: column for column, gene in enumerate(union)}
    lined_up = []
    for spots in parts:
        counts = spots.counts.tocoo()
        columns = np.array([at[gene] for gene in spots.genes], np.intp)[counts.col]
        shape = (len(spots), len(union))
        lined_up.append(sparse.csr_matrix((counts.data, (counts.row, columns)), shape))
    return sparse.csr_matrix(sparse.vstack(lined_up)), tuple(union)


def _ceiling(
    counts: sparse.csr_matrix,
    known: Sequence[str],
    genes: Sequence[str],
    panel: GenePanel,
    *,
    seed: int,
) -> metrics.Row:
    at = {gene: column for column, gene in enumerate(known)}
    return metrics.resampling_ceiling(
        counts, [at.get(gene, -1) for gene in genes], seed=seed, **_unit(panel)
    )


def _unit(panel: GenePanel) -> dict[str, Any]:
    return {"normalisation": panel.normalisation, "target_sum": panel.target_sum}

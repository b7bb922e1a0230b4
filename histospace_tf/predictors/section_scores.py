"""Scores of held-out spots, with every predictor in the same table.

A row is a predictor, a section a block of rows; `scores.json` of a run or evaluation folder holds
them. All rows of a block are scored on the same spots and genes.

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
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.predictors import held_out, registry
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.predictors.predictor import Measured
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError, SpotTable, repeats


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """What scoring gives.

    scores: the whole of scores.json.
    genes: gene_scores.csv: columns gene, section, and r of every predictor.
    tables: `held_out.table_of` of each; `joined` of them is predictions.h5ad.
    bulk: bulk_scores.csv, of `bulk_scores.score`; empty where slides were not scored as a whole.
    """

    scores: dict[str, Any]
    genes: pd.DataFrame
    tables: tuple[anndata.AnnData, ...]
    bulk: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)


def score(
    sections: Sequence[PredictedSection],
    target: TargetConfig,
    split: Mapping[str, Any],
    *,
    unit: str,
    seed: int,
    panel: GenePanel | None = None,
) -> Scored:
    """Scores held-out sections, of one fold or of many.

    Args:
        sections: with the same predictors each.
        target: of the run's settings.
        split: entry of scores.json.
        unit: the panel's in words, for `var` of the tables.
        seed: of the resampling ceiling.
        panel: stands in "target" of scores.json; None: the first section's.
    Raises:
        InputError: a section that comes twice, predictions that do not fit the spots, ...
    """
    if panel is None:
        if not sections:
            raise InputError("nothing is held out: there is nothing to score")
        panel = sections[0].panel
    twice = repeats([section.name for section in sections])
    if twice:
        raise InputError(f"section {twice[0]!r} is held out twice")
    entries = {section.name: _entry(section, seed=seed) for section in sections}
    genes = [r_by_gene(section) for section in sections]
    return Scored(
        scores=scores(entries, target, panel, split, pooled=pooled_rows(sections, seed=seed)),
        genes=pd.concat(genes, ignore_index=True) if genes else pd.DataFrame(),
        tables=tuple(held_out.table_of(section, unit) for section in sections),
    )


def _entry(section: PredictedSection, *, seed: int) -> dict[str, Any]:
    """A section's entry of scores.json."""
    measured = _measured(section.spots, section.panel, section.measured, section.smoothed, seed)
    totals = section.spots.total_counts
    varies = ~np.isnan(metrics.gene_r_each(section.measured, section.measured))  # of gene_r
    depth = {"measured": metrics.depth_r(section.measured[:, varies], totals)}
    for name, predicted in section.predictions.items():
        entry = registry.entry(name)
        if predicted is not None and (entry is None or entry.looks_at_tiles):
            depth[name] = metrics.depth_r(predicted[:, varies], totals)
    entry_of_section = {
        "patient": section.patient,
        "spots": len(section.spots),
        "rows": _rows(section.predictions, measured),
        "depth": depth,
    }
    if section.fold:
        entry_of_section["fold"] = section.fold
    return outputs.json_safe(entry_of_section)


def r_by_gene(section: PredictedSection) -> pd.DataFrame:
    """r of every gene: columns gene, section, and one per predictor."""
    columns: dict[str, Any] = {"gene": section.panel.genes, "section": section.name}
    for name, predicted in section.predictions.items():
        columns[name] = (
            np.nan if predicted is None else metrics.gene_r_each(predicted, section.measured)
        )
    return pd.DataFrame(columns)


def pooled_rows(sections: Sequence[PredictedSection], *, seed: int) -> dict[str, Any] | None:
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
        Rows as in a section's entry; a predictor that some section lacks is None. None for no
        sections and where the folds share no gene.
    Raises:
        InputError: sections whose targets have other units.
    """
    if not sections:
        return None
    first = sections[0].panel
    if any(
        (s.panel.normalisation, s.panel.target_sum) != (first.normalisation, first.target_sum)
        for s in sections
    ):
        raise InputError("sections whose targets have other units cannot be pooled")
    genes = [gene for gene in first.genes if all(gene in s.panel.genes for s in sections)]
    if not genes:
        return None
    columns = [[section.panel.genes.index(gene) for gene in genes] for section in sections]

    def stacked(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([v[:, at] for v, at in zip(values, columns, strict=True)])

    predictions: dict[str, np.ndarray | None] = {}
    for name in registry.in_order(name for s in sections for name in s.predictions):
        values = [v for s in sections if (v := s.predictions.get(name)) is not None]
        predictions[name] = stacked(values) if len(values) == len(sections) else None
    counts, union = _stacked_counts([section.spots for section in sections])
    measured = Measured(
        values=stacked([section.measured for section in sections]),
        smoothed=stacked([section.smoothed for section in sections]),
        counts=counts,
        columns=_columns(union, genes),
        normalisation=first.normalisation,
        target_sum=first.target_sum,
        seed=seed,
    )
    return _rows(predictions, measured)


def _rows(predictions: Mapping[str, np.ndarray | None], measured: Measured) -> dict[str, Any]:
    """Rows of a block in the order of tables: all predictions, and entries without any."""
    alone = [entry.name for entry in registry.always() if not entry.predicts]
    return {
        name: (registry.entry(name) or registry.FROM_FILE).row(predictions.get(name), measured)
        for name in registry.in_order([*predictions, *alone])
    }


def scores(
    entries: Mapping[str, Mapping[str, Any]],
    target: TargetConfig,
    panel: GenePanel,
    split: Mapping[str, Any],
    *,
    pooled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole of scores.json, its means over sections included."""
    names = registry.row_names([entry["rows"] for entry in entries.values()])
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


def _measured(
    spots: SpotTable, panel: GenePanel, values: np.ndarray, smoothed: np.ndarray, seed: int
) -> Measured:
    return Measured(
        values=values,
        smoothed=smoothed,
        counts=spots.counts,
        columns=_columns(spots.genes, panel.genes),
        normalisation=panel.normalisation,
        target_sum=panel.target_sum,
        seed=seed,
    )


def _columns(known: Sequence[str], genes: Sequence[str]) -> list[int]:
    """Columns of `genes` among the known ones; -1 for none."""
    at = {gene: column for column, gene in enumerate(known)}
    return [at.get(gene, -1) for gene in genes]

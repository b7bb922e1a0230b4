"""Scores of held-out spots, with every baseline in the same table.

A row is a predictor, a section a block of rows; `scores.json` of a run folder holds them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd

from histospace_tf import baselines, metrics
from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.vocabulary import GenePanel, SpotTable

# Predictors in the order of the tables; the last two read the held-out section's expression.
ROWS = (
    "model",
    "model_single_tile",
    "gene_mean",
    "patient_mean",
    "colour_ridge",
    "neighbour_oracle",
    "resampling_ceiling",
)
FOOTNOTE = "* reads the held-out section's own expression: a mark to compare with, no predictor"
NEIGHBOUR_PITCHES = 1.5  # a spot's up to 8 neighbours on a square grid lie within 1.42 pitches


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


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutSection:
    """Spots of one section that took no part in training."""

    name: str
    patient: str
    spots: SpotTable
    spot_pitch_px: float
    statistics: np.ndarray
    model: np.ndarray  # (n, g) in the panel's unit
    model_single_tile: np.ndarray


def score_section(
    section: HeldOutSection,
    train: TrainingSide,
    panel: GenePanel,
    *,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """All rows of one section.

    Returns:
        The section's entry of scores.json, and a table of r per gene: columns gene, section, and
        one a predictor.
    """
    n = len(section.spots)
    unit: dict[str, Any] = {
        "normalisation": panel.normalisation,
        "target_sum": panel.target_sum,
    }
    measured = expression.targets(section.spots, panel.genes, **unit)
    radius = NEIGHBOUR_PITCHES * section.spot_pitch_px
    smoothed = expression.smoothed(measured, section.spots.centres_px, radius_px=radius)
    predictions: dict[str, np.ndarray | None] = {
        "model": section.model,
        "model_single_tile": section.model_single_tile,
        "gene_mean": baselines.gene_mean(train.measured, n),
        "patient_mean": baselines.patient_mean(train.measured, train.patients, section.patient, n),
        "colour_ridge": panel.to_unit(
            baselines.colour_ridge(
                train.statistics, train.learned, section.statistics, groups=train.sections
            )
        ),
        "neighbour_oracle": baselines.neighbour_oracle(
            measured, section.spots.centres_px, radius_px=radius
        ),
    }
    rows = {
        name: None
        if predicted is None
        else metrics.score_row(predicted, measured, measured_smoothed=smoothed)
        for name, predicted in predictions.items()
    }
    at = {gene: column for column, gene in enumerate(section.spots.genes)}
    rows["resampling_ceiling"] = metrics.resampling_ceiling(
        section.spots.counts, [at.get(gene, -1) for gene in panel.genes], seed=seed, **unit
    )
    genes = pd.DataFrame({"gene": panel.genes, "section": section.name})
    for name, predicted in predictions.items():
        genes[name] = np.nan if predicted is None else metrics.gene_r_each(predicted, measured)
    entry = {"patient": section.patient, "spots": n, "rows": rows}
    return entry, genes


def scores(
    entries: Mapping[str, Mapping[str, Any]],
    target: TargetConfig,
    panel: GenePanel,
    split: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole of scores.json, its means over sections included."""
    mean = {
        row: metrics.mean_rows([e["rows"][row] for e in entries.values() if e["rows"][row]]) or None
        for row in ROWS
    }
    target_entry = {
        "normalisation": panel.normalisation,
        "target_sum": panel.target_sum,
        "genes": len(panel),
        "smooth_um": target.smooth_um,
    }
    return metrics.json_safe(
        {"target": target_entry, "split": split, "sections": entries, "mean": mean}
    )


def table(scores_json: Mapping[str, Any]) -> str:
    """The scores as text for a terminal: a block a section, and their mean where there are more."""
    blocks = {
        f"{name} (patient {entry['patient']}, {entry['spots']} spots)": entry["rows"]
        for name, entry in scores_json["sections"].items()
    }
    if len(blocks) > 1:
        blocks["mean over sections"] = scores_json["mean"]
    lines = []
    for title, rows in blocks.items():
        lines += [f"{title:<34}{'gene_r':>8}{'median':>8}{'smooth':>8}{'spot_r':>8}{'mse':>8}"]
        for row in ROWS:
            if rows.get(row):
                lines.append(f"  {_label(row):<32}" + _cells(rows[row]))
        lines.append("")
    return "\n".join(lines)


def _cells(row: Mapping[str, float | None]) -> str:
    keys: Sequence[str] = ("gene_r", "gene_r_median", "gene_r_smoothed", "spot_r", "mse")
    return "".join(
        f"{'-' if (value := row.get(key)) is None else f'{value:.3f}':>8}" for key in keys
    )


def _label(row: str) -> str:
    words = row.replace("_", " ")
    if row in ("neighbour_oracle", "resampling_ceiling"):
        return f"{words} *"
    return words


def prediction_table(
    held: HeldOutSection, measured: np.ndarray, panel: GenePanel, unit: str
) -> anndata.AnnData:
    """Predictions of one held-out section beside what was measured.

    Returns:
        X predicted and layers["measured"], (n, g) float32 in the panel's unit; obs_names
        SECTION_SPOT; obs section, patient, spot; obsm["spatial"] full-resolution pixels, x first;
        var unit.
    """
    obs = pd.DataFrame(
        {"section": held.name, "patient": held.patient, "spot": list(held.spots.names)},
        index=[f"{held.name}_{spot}" for spot in held.spots.names],
    )
    return anndata.AnnData(
        X=held.model.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(
            {"unit": unit, "gene_r": metrics.gene_r_each(held.model, measured)},
            index=list(panel.genes),
        ),
        obsm={"spatial": np.asarray(held.spots.centres_px, np.float64)},
        layers={"measured": measured.astype(np.float32)},
    )


def joined(tables: Sequence[anndata.AnnData]) -> anndata.AnnData:
    """Several sections' prediction tables as one; var keeps the unit alone."""
    whole = anndata.concat(list(tables))
    whole.var["unit"] = tables[0].var["unit"]
    return whole

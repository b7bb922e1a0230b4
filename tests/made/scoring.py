"""A held-out section and a training side as they are scored: no model behind them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.predictors import section_scores
from histospace_tf.predictors.prediction_tables import HeldOutSection
from made.tissue import GENES, panel, section

PANEL = panel()
UNIT: dict[str, Any] = {"normalisation": PANEL.normalisation, "target_sum": PANEL.target_sum}
SPLIT = {"outer": "patient", "inner": "patient", "held_out": ["C"]}


def training_side(*, patients: tuple[str, str] = ("A", "B")) -> section_scores.TrainingSide:
    """Two sections of twelve spots."""
    rng = np.random.default_rng(3)
    parts = [section(f"{p}{i}", p, seed=i, spots_xy=(4, 3)) for i, p in enumerate(patients, 1)]
    measured = np.concatenate([expression.targets(part.spots, GENES, **UNIT) for part in parts])
    return section_scores.TrainingSide(
        measured=measured,
        learned=PANEL.standardise(measured),
        statistics=rng.normal(size=(24, 39)).astype(np.float32),
        patients=np.repeat(list(patients), 12),
        sections=np.repeat([part.name for part in parts], 12),
    )


def held_out(name: str = "C1", patient: str = "C", *, seed: int = 9) -> HeldOutSection:
    rng = np.random.default_rng(seed)
    spots = section(name, patient, seed=seed, spots_xy=(4, 4)).spots
    return HeldOutSection(
        name=name,
        patient=patient,
        spots=spots,
        spot_pitch_px=40.0,
        statistics=rng.normal(size=(len(spots), 39)).astype(np.float32),
        model=rng.normal(2, 1, (len(spots), len(GENES))).astype(np.float32),
        model_single_tile=rng.normal(2, 1, (len(spots), len(GENES))).astype(np.float32),
    )


def case(
    held: HeldOutSection,
    *,
    train: section_scores.TrainingSide | None = None,
    genes: tuple[str, ...] = GENES,
    **changes: Any,
) -> section_scores.Case:
    """A held-out section with baselines of its own training side, on some of the genes."""
    held = dataclasses.replace(held, **changes)
    return section_scores.Case(held, (train or training_side()).fitted(PANEL), PANEL).on_genes(
        genes
    )


def scored(*cases: section_scores.Case) -> section_scores.Scored:
    return section_scores.score(cases, TargetConfig(), SPLIT, unit="some unit", seed=0)


def scores_of(*sections: HeldOutSection, train: section_scores.TrainingSide | None = None) -> dict:
    entries = {
        held.name: section_scores.score_section(held, train or training_side(), PANEL, seed=0)[0]
        for held in sections
    }
    return section_scores.scores(entries, TargetConfig(), PANEL, SPLIT)

"""A held-out section and a training side as they are scored: no model behind them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from histospace_tf.config import Config, TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.predictors import registry, section_scores
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.predictors.predictor import Fitted
from histospace_tf.training import Session
from histospace_tf.vocabulary import SpotTable
from made.tissue import GENES, panel, section

PANEL = panel()
UNIT: dict[str, Any] = {"normalisation": PANEL.normalisation, "target_sum": PANEL.target_sum}
SPLIT = {"outer": "patient", "inner": "patient", "held_out": ["C"]}
ROWS = tuple(entry.name for entry in registry.always())


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSide:
    """What baselines read of `cohort.sides.TrainingSpots`."""

    measured: np.ndarray
    targets: np.ndarray
    statistics: np.ndarray
    patients: np.ndarray
    sections: np.ndarray
    panel: GenePanel = PANEL

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self.measured))

    @property
    def levels(self) -> np.ndarray:
        return self.measured.mean(axis=0, dtype=np.float64).astype(np.float32)

    @property
    def index(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(section=self.sections, patient=self.patients)

    def fitted(self) -> dict[str, Fitted]:
        """All but our own model, which needs an encoder."""
        nothing = cast(Session, None)
        return {
            entry.name: entry.fit(cast(Any, self), Config(), nothing)
            for entry in registry.always()
            if entry.kind != "ours"
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A held-out section: what predictors are asked about, and what three of them say."""

    name: str
    patient: str
    spots: SpotTable
    statistics: np.ndarray
    model: np.ndarray
    model_single_tile: np.ndarray
    others: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    fold: str = ""
    spot_pitch_px: float = 40.0
    panel: GenePanel = PANEL

    def __len__(self) -> int:
        return len(self.spots)

    @property
    def centres_px(self) -> np.ndarray:
        return self.spots.centres_px

    @property
    def measured(self) -> np.ndarray:
        return expression.targets(self.spots, GENES, **UNIT)


def training_side(*, patients: tuple[str, str] = ("A", "B")) -> TrainingSide:
    """Two sections of twelve spots."""
    rng = np.random.default_rng(3)
    parts = [section(f"{p}{i}", p, seed=i, spots_xy=(4, 3)) for i, p in enumerate(patients, 1)]
    measured = np.concatenate([expression.targets(part.spots, GENES, **UNIT) for part in parts])
    return TrainingSide(
        measured=measured,
        targets=PANEL.standardise(measured),
        statistics=rng.normal(size=(24, 39)).astype(np.float32),
        patients=np.repeat(list(patients), 12),
        sections=np.repeat([part.name for part in parts], 12),
    )


def held_out(name: str = "C1", patient: str = "C", *, seed: int = 9) -> Held:
    rng = np.random.default_rng(seed)
    spots = section(name, patient, seed=seed, spots_xy=(4, 4)).spots
    return Held(
        name=name,
        patient=patient,
        spots=spots,
        statistics=rng.normal(size=(len(spots), 39)).astype(np.float32),
        model=rng.normal(2, 1, (len(spots), len(GENES))).astype(np.float32),
        model_single_tile=rng.normal(2, 1, (len(spots), len(GENES))).astype(np.float32),
    )


def predicted(
    held: Held,
    *,
    train: TrainingSide | Mapping[str, Fitted] | None = None,
    genes: tuple[str, ...] = GENES,
    **changes: Any,
) -> PredictedSection:
    """A held-out section with baselines of its own training side, on some of the genes."""
    held = dataclasses.replace(held, **changes)
    train = training_side() if train is None else train
    fitted = train.fitted() if isinstance(train, TrainingSide) else train
    predictions: dict[str, np.ndarray | None] = {
        "model": held.model,
        "model_single_tile": held.model_single_tile,
    }
    for entry in registry.always():
        if entry.name in fitted and entry.predicts:
            predictions[entry.name] = fitted[entry.name].predict(cast(Any, held))
    one = PredictedSection(
        name=held.name,
        patient=held.patient,
        spots=held.spots,
        spot_pitch_px=held.spot_pitch_px,
        panel=PANEL,
        predictions=predictions,
        fold=held.fold,
    )
    for name, values in held.others.items():
        one = one.with_predictor(name, values)
    return one.on_genes(genes)


def scored(*sections: PredictedSection) -> section_scores.Scored:
    return section_scores.score(sections, TargetConfig(), SPLIT, unit="some unit", seed=0)


def entry_and_genes(
    held: Held, train: TrainingSide | Mapping[str, Fitted] | None = None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """A section's entry of scores.json, and r per gene."""
    one = scored(predicted(held, train=train))
    return one.scores["sections"][held.name], one.genes


def scores_of(*sections: Held, train: TrainingSide | None = None) -> dict[str, Any]:
    entries = {held.name: entry_and_genes(held, train)[0] for held in sections}
    return section_scores.scores(entries, TargetConfig(), PANEL, SPLIT)

"""One fold: every predictor fitted on its training side and asked about its held-out side.

`fit` runs one fold, `evaluate` one for every group. What does not change between folds is made once
(`cohort.plans`, `cohort.encoders`). A fold's held-out sections take no part in its panel, stain
reference, encoder, scaling, epochs or heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf import bundle, distribution, network_model, provenance
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import encoders, paired, plans, sides, taught
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.plans import Plan
from histospace_tf.cohort.sides import TrainingSpots
from histospace_tf.cohort.taught import Joining
from histospace_tf.config import Config
from histospace_tf.data_pipelines import simulation, splits
from histospace_tf.data_pipelines.genes import species
from histospace_tf.folds import held_out_predictions
from histospace_tf.models import regressor
from histospace_tf.network_model import NetworkModel
from histospace_tf.outputs import say
from histospace_tf.predictors import (
    ours,
    registry,
    run_network,
    saved_baselines,
    section_scores,
)
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.predictors.ours import FittedHead
from histospace_tf.predictors.peer_network import FittedNetwork
from histospace_tf.predictors.predictor import Fitted, Predictor
from histospace_tf.predictors.section_scores import Scored
from histospace_tf.scores import familiarity
from histospace_tf.scores.familiarity import Familiarity
from histospace_tf.training import Session

# What the manifest calls the choices of our own heads; others go by their names.
_CHOSEN = {ours.Model.name: "head", ours.SingleTile.name: "single_tile_head"}
# What the time of fitting is booked under, by kind of predictor.
_STAGES = {"ours": "heads", "other": "compared", "baseline": "baselines", "mark": "baselines"}


@dataclasses.dataclass(frozen=True, eq=False)
class OuterFold:
    """One fold, what it must keep apart (of `splits.KINDS`; "none": nothing is held out), and its
    name in tables that hold several; empty in a plain run.
    """

    fold: splits.Fold
    by: str
    name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """A fold's model, its held-out sections, scores, history and manifest (without its seconds)."""

    model: Bundle | NetworkModel
    held_out: list[PredictedSection]
    scored: Scored
    history: list[dict[str, object]]
    manifest: dict[str, Any]


def run_fold(
    plan: Plan,
    outer: OuterFold,
    config: Config,
    folder: Path,
    session: Session,
    *,
    encoded: EncodedSpots | None,
    kept_features: Path,
    compare: Sequence[Predictor] = (),
) -> FoldResult:
    """Fits and scores one fold; writes its bundle, baselines and parity tiles to `folder`.

    Args:
        plan: with its tiles cut.
        outer: the fold.
        encoded: of an encoder from outside, or without one where the run's model is a published
            network; None: one is trained on the training sections' tiles.
        kept_features: folder to go on from when resumed.
        compare: further predictors.
    Raises:
        InputError: a patient or section on both sides.
    """
    fold, spots = outer.fold, plan.spots
    if len(fold.test):
        splits.refuse_leak(spots.index, fold, by=outer.by)
    genes = plans.training_panel(spots, fold, config)
    say(f"Panel: {len(genes)} genes by {config.target.panel}, {len(fold.train)} training spots.")
    joined = taught.joining(spots, fold, genes, config)
    for line in joined.lines():
        say(line)
    if encoded is None:
        encoder = encoders.trained_on_fold(plan, fold, config, kept_features, session)
        session.clock.lap("autoencoder")
        encoded = encoders.encoded(encoder, spots, config, kept_features, session.strategy)
        session.clock.lap("features")

    training = sides.training_spots(encoded, fold, genes, config)
    fitted: dict[str, Fitted] = {}
    for predictor in run_network.in_place_of_ours(registry.of_fold(compare), config):
        fitted[predictor.name] = predictor.fit(training, config, session)
        session.clock.lap(_STAGES[predictor.kind])
    saved_baselines.save(fitted, training.panel.genes, folder / saved_baselines.FILE)

    model = _saved(plan, training, fitted, config, joined, folder)
    tiles, own = folder / "parity_tiles.npz", fitted[ours.Model.name]
    assert isinstance(own, FittedHead | FittedNetwork)
    if isinstance(own, FittedHead):
        paired.parity_tiles(spots, fold, training.panel, model.reference, tiles)
    elif model.network is not None and not model.network.sees_sections:
        groups = own.recipe.tiles(encoded)
        paired.parity_tiles(spots, fold, training.panel, model.reference, tiles, groups=groups)

    inner = own.inner_folds
    split = {
        "outer": fold.kind,
        "inner": inner[0].kind if inner else None,
        "held_out": list(fold.held_out),
        "patient_on_both_sides": list(splits.leaking_patients(spots.index, fold)),
        **joined.of_split(fold),
    }
    held_out = held_out_predictions.predicted(
        encoded, fold.test, fitted, model.panel, fold=outer.name
    )
    if held_out:
        scored = section_scores.score(
            held_out, config.target, split, unit=bundle.unit(model.panel), seed=config.seed
        )
    else:
        scores = section_scores.scores({}, config.target, model.panel, split)
        scored = Scored(scores, pd.DataFrame(), ())
    # What was chosen stands beside the scores that it led to, wherever they go.
    scored.scores["chosen"] = [
        {"predictor": name, "held_out": list(fold.held_out), **one.choice}
        for name, one in fitted.items()
        if one.choice is not None
    ]
    session.clock.lap("scores")
    manifest = {
        **provenance.record(
            plan.cohort,
            plan.checksums,
            seed=config.seed,
            split=split,
            devices=distribution.described(session.strategy),
        ),
        "inner_folds": [
            {
                "kind": part.kind,
                "held_out": list(part.held_out),
                "train": len(part.train),
                "test": len(part.test),
            }
            for part in inner
        ],
        "chosen": {
            _chosen(name, one): one.choice for name, one in fitted.items() if one.choice is not None
        },
        "species": species.of_sections(plan.cohort.sections).to_json(),
        "white_fields": spots.white_fields(),
        "panel": list(model.panel.genes),
        "trained_on": model.trained_on,
        "parameters": model.n_parameters,
    }
    history = encoded.encoder.history + [row for one in fitted.values() for row in one.history]
    return FoldResult(model, held_out, scored, history, manifest)


def _chosen(name: str, fitted: Fitted) -> str:
    """What the manifest calls a predictor's choices."""
    is_network = name in _CHOSEN and isinstance(fitted, FittedNetwork)
    return "network" if is_network else _CHOSEN.get(name, name)


def _saved(
    plan: Plan,
    training: TrainingSpots,
    fitted: dict[str, Fitted],
    config: Config,
    joined: Joining,
    folder: Path,
) -> Bundle | NetworkModel:
    """The model of a fold, written to its folder."""
    own = fitted[ours.Model.name]
    if isinstance(own, FittedNetwork):
        panel = training.panel
        network = NetworkModel(
            config=config,
            panel=dataclasses.replace(
                panel, mean=np.zeros_like(panel.mean), scale=np.ones_like(panel.scale)
            ),
            reference=training.encoded.encoder.reference,
            trained_on={**_trained_on(plan, training, joined), "network": own.choice},
            network=run_network.record(own, plan.spots, training.rows, config),
            model=own.network,
        )
        network_model.save(network, folder / "bundle", unit=bundle.unit(panel))
        return network
    encoder = training.encoded.encoder
    assert encoder.encoder is not None
    model = Bundle(
        config=config,
        panel=training.panel,
        reference=encoder.reference,
        encoder=encoder.encoder,
        trunk=training.encoded.trunk(config),
        head=_head(fitted, ours.Model.name).head,
        single_tile_head=_head(fitted, ours.SingleTile.name).head,
        trained_on=_trained_on(plan, training, joined),
        familiarity=_familiarity(training, config),
    )
    bundle.save(model, folder / "bundle")
    return model


def _familiarity(training: TrainingSpots, config: Config) -> Familiarity:
    """What tells how like the training tiles another tile is."""
    features = training.encoded.inputs(config)["features"]
    # One tile at a time: maps of all would not fit into memory. Symmetry 0 is the tile as it is.
    parts = [regressor.channel_means(features[row : row + 1, 0])[0] for row in training.rows]
    tiles = np.zeros((len(features), len(parts[0])), np.float32)
    tiles[training.rows] = parts
    groups = training.inner_folds(config.regressor.inner_folds)
    return familiarity.learned(tiles, training.rows, groups)


def _trained_on(plan: Plan, training: TrainingSpots, joined: Joining) -> dict[str, Any]:
    index = training.index
    sections = [
        plan.spots.sections[number].name for number in plan.spots.sections_in(training.rows)
    ]
    return {
        "sections": sections,
        "patients": sorted({str(name) for name in index.patient[training.rows]}),
        "spots": len(training),
        "checksums": {name: plan.checksums[name] for name in sections},
        **({"counts": joined.record()} if joined else {}),
        "simulated": simulation.is_simulated(plan.cohort.source),
        **training.encoded.encoder.trained_on,
    }


def _head(fitted: dict[str, Fitted], name: str) -> FittedHead:
    one = fitted[name]
    assert isinstance(one, FittedHead)
    return one

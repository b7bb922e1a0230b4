"""From an evaluation's finished folds to what all of them together say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histospace_tf import bundle
from histospace_tf.cohort import encoders, pretraining, sides
from histospace_tf.cohort.encoder_sources import EncoderSource
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.plans import Plan
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.config import Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.folds import complexities, held_out_predictions
from histospace_tf.folds.fold_run import OuterFold
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.training import Session

# Entries of a fold's manifest that the evaluation's has itself.
SHARED = ("versions", "machine", "data", "problems", "species", "white_fields")


@dataclasses.dataclass(frozen=True, eq=False)
class FoldStudy:
    """A study of complexities, and the fold on whose training side it was made."""

    fold: str
    study: complexities.Study


def kept_sections(
    outer: OuterFold, config: Config, plan: Plan, work: Path
) -> list[PredictedSection]:
    """A finished fold's held-out sections, from its files."""
    folder = work / "folds" / outer.name / "bundle"
    values = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    return held_out_predictions.read(
        work / "held_out" / f"{outer.name}.npz",
        plan.spots,
        outer.fold.test,
        GenePanel.from_json(values["panel"]),
        config,
        fold=outer.name,
    )


def manifest(outer: OuterFold, work: Path) -> dict[str, Any]:
    """What a finished fold says of itself."""
    path = work / "folds" / outer.name / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8"))


def chosen(folds: Sequence[OuterFold], work: Path) -> list[dict[str, Any]]:
    """What every fold chose, as scores.json has it."""
    paths = [work / "folds" / outer.name / "scores.json" for outer in folds]
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [one for part in parts for one in part.get("chosen", ())]


def own_entries(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of each fold's manifest, what is its own."""
    return {
        name: {key: value for key, value in entry.items() if key not in SHARED}
        for name, entry in manifests.items()
    }


def inner_kinds(manifests: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What the folds' inner groups were split by; None where nothing was chosen on any."""
    return (
        ", ".join(sorted({kind for m in manifests.values() if (kind := m["split"]["inner"])}))
        or None
    )


def counts(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of scores.json's split on counts without images; empty where none joined."""
    parts = [part for entry in manifests.values() for part in entry["split"].get("counts", [])]
    return {"counts": parts} if parts else {}


def histories(
    folds: Sequence[OuterFold], work: Path, encoder: Sequence[Mapping[str, object]]
) -> pd.DataFrame:
    """Rows of all folds with a column `fold`; empty for an `encoder` that all folds share."""
    parts = [pd.DataFrame(encoder).assign(fold="")] if encoder else []
    for outer in folds:
        own = pd.read_csv(work / "folds" / outer.name / "history.csv").assign(fold=outer.name)
        parts.append(own[own["stage"] != "autoencoder"] if encoder else own)
    return pd.concat(parts, ignore_index=True)


def study(
    outer: OuterFold,
    config: Config,
    plan: Plan,
    work: Path,
    *,
    source: EncoderSource,
    session: Session,
    epochs: int | None,
) -> FoldStudy:
    """The three autoencoders and heads, on the training side of one fold; epochs: at most."""
    model = bundle.load(work / "folds" / outer.name)
    tiles = None
    if source.donor is None:
        images, own = source.pretrain, []
        if images is not None:
            images = encoders.pretraining_images(images, config, work)
        else:
            own = encoders.pretraining_sections(
                plan, outer.fold, config, work / "features" / "study"
            )
        tiles = pretraining.collect_tiles(config, images, own)
    encoder = TrainedEncoder(model.encoder, model.reference, [], model.trained_on)
    encoded = EncodedSpots(plan.spots, encoder, config, work / "features", session.strategy)
    side = sides.training_spots(encoded, outer.fold, model.panel.genes, config)
    budget = complexities.Budget.of(epochs)
    made = complexities.study(config, tiles, side, session.within("study"), budget=budget)
    return FoldStudy(outer.name, made)

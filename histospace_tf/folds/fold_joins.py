"""From an evaluation's finished folds to what all of them together say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from histospace_tf import bundle
from histospace_tf.cohort import material, paired, pretraining
from histospace_tf.cohort.material import EncoderSource, Material
from histospace_tf.config import Config
from histospace_tf.data_pipelines import splits
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.folds import complexities
from histospace_tf.folds.fold_run import HeldOut
from histospace_tf.predictors import baselines
from histospace_tf.predictors.section_scores import Case

# Entries of a fold's manifest that the evaluation's has itself.
SHARED = ("versions", "machine", "data", "problems", "species")


@dataclasses.dataclass(frozen=True, eq=False)
class OuterFold:
    """One fold and the name of its folder."""

    name: str
    fold: splits.Fold


@dataclasses.dataclass(frozen=True, eq=False)
class FoldStudy:
    """A study of complexities, and the fold on whose training side it was made."""

    fold: str
    found: complexities.Study


def kept_cases(outer: OuterFold, config: Config, ground: Material, work: Path) -> list[Case]:
    """A finished fold's cases, from its files."""
    folder = work / "folds" / outer.name
    values = json.loads((folder / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    return HeldOut.read(work / "held_out" / f"{outer.name}.npz").cases(
        ground.spots,
        outer.fold.test,
        baselines.load(folder),
        GenePanel.from_json(values["panel"]),
        config,
        name=outer.name,
    )


def manifest(outer: OuterFold, work: Path) -> dict[str, Any]:
    """What a finished fold says of itself."""
    path = work / "folds" / outer.name / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8"))


def own_entries(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of each fold's manifest, what is its own."""
    return {
        name: {key: value for key, value in entry.items() if key not in SHARED}
        for name, entry in manifests.items()
    }


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
    ground: Material,
    work: Path,
    *,
    source: EncoderSource,
    strategy: tf.distribute.Strategy,
    resume: bool,
) -> FoldStudy:
    """The three autoencoders and heads, on the training side of one fold."""
    model = bundle.load(work / "folds" / outer.name)
    tiles = None
    if source.donor is None:
        images = source.pretrain and material.pretraining_images(source.pretrain, config, work)
        own = (
            []
            if images is not None
            else material.learners(ground, outer.fold, config, work / "features" / "study")
        )
        tiles = pretraining.collect_tiles(config, images, own)
    _, learned, _ = paired.targets(ground.spots, outer.fold, model.panel.genes, config)
    found = complexities.study(
        config,
        tiles,
        spots=ground.spots,
        prepared=ground.sections,
        learned=learned,
        rows=outer.fold.train,
        encoder=model.encoder,
        reference=model.reference,
        strategy=strategy,
        checkpoint=work / "checkpoints" / "study",
        resume=resume,
    )
    return FoldStudy(outer.name, found)

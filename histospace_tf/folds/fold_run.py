"""One fold: all that is fitted on its training side, scored on its held-out side, as a run folder.

`fit` runs one fold, `evaluate` one for every group. What does not change between folds is made once
(`material`). A fold's held-out sections take no part in its panel, stain reference, encoder,
scaling, epochs or heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from histospace_tf import bundle, distribution, outputs, provenance, runs
from histospace_tf import config as configuration
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import features, material, paired, pretraining
from histospace_tf.cohort.material import Encoded, Material
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Architecture, Config
from histospace_tf.data_pipelines import simulation, splits
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.data_pipelines.genes import species
from histospace_tf.outputs import say
from histospace_tf.predictors import baselines, head_training, prediction_tables, section_scores
from histospace_tf.predictors.baselines import Fitted
from histospace_tf.predictors.head_training import TrainedHead
from histospace_tf.predictors.section_scores import Case, Scored
from histospace_tf.slide_prediction import spatial_entries

HELD_OUT_ARRAYS = ("statistics", "model", "model_single_tile")


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """What scoring needs of a fold's held-out spots, a row each, in the fold's order.

    statistics: (m, 39); model, model_single_tile and further predictors: (m, g), panel's unit.
    """

    statistics: np.ndarray
    model: np.ndarray
    model_single_tile: np.ndarray
    further: dict[str, np.ndarray]

    def write(self, path: Path) -> None:
        """Keeps it in a .npz file."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in HELD_OUT_ARRAYS}
        arrays |= {f"further/{name}": values for name, values in self.further.items()}
        with outputs.whole_file(path) as draft:
            np.savez(draft, **arrays)

    @classmethod
    def predicted(
        cls,
        model: Bundle,
        inputs: dict[str, np.ndarray],
        statistics: np.ndarray,
        further: Mapping[str, np.ndarray],
        *,
        rows: np.ndarray | None = None,
    ) -> HeldOut:
        """What a model makes of the spots `rows` (all by default), given what its heads read."""
        single = features.predicted(model.single_tile_head, inputs, rows=rows, symmetries=1)
        return cls(
            statistics=statistics,
            model=model.panel.to_unit(features.predicted(model.head, inputs, rows=rows)),
            model_single_tile=model.panel.to_unit(single),
            further=dict(further),
        )

    @classmethod
    def read(cls, path: Path) -> HeldOut:
        """What `write` wrote."""
        with np.load(path) as file:
            further = {
                name.removeprefix("further/"): file[name]
                for name in file.files
                if name.startswith("further/")
            }
            return cls(**{name: file[name] for name in HELD_OUT_ARRAYS}, further=further)

    def cases(
        self,
        spots: PairedSpots,
        held_out: np.ndarray,
        fitted: Fitted,
        panel: GenePanel,
        config: Config,
        *,
        name: str = "",
    ) -> list[Case]:
        """A case a section of the rows `held_out` of `spots`; `name` is the fold's."""
        found = []
        for number in spots.sections_in(held_out):
            section = spots.sections[number]
            rows = np.searchsorted(held_out, spots.rows_of(number, held_out))
            held = prediction_tables.HeldOutSection(
                name=section.name,
                patient=section.patient,
                spots=spots.spots_of(number, held_out),
                spot_pitch_px=paired.spot_pitch_px(section, config),
                statistics=self.statistics[rows],
                model=self.model[rows],
                model_single_tile=self.model_single_tile[rows],
                further={kind: values[rows] for kind, values in self.further.items()},
                fold=name,
            )
            found.append(Case(held, fitted, panel))
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """A fold's model, its predictions, scores, history and manifest (without its seconds)."""

    model: Bundle
    held_out: HeldOut
    scored: Scored
    history: list[dict[str, object]]
    manifest: dict[str, Any]


def run_fold(
    config: Config,
    ground: Material,
    fold: splits.Fold,
    folder: Path,
    *,
    by: str,
    seen: Encoded | None,
    strategy: tf.distribute.Strategy,
    checkpoints: Path,
    kept_features: Path,
    resume: bool,
    clock: provenance.Clock,
    compare: Sequence[Architecture] = (),
    name: str = "",
) -> FoldResult:
    """Fits and scores one fold; writes its bundle, baselines, scores and parity tiles to `folder`.

    Args:
        by: what the fold must keep apart, of `splits.KINDS`; "none": nothing is held out.
        seen: of an encoder from outside; None: one is trained on the training sections' tiles.
        checkpoints, kept_features: folders to go on from when resumed.
        compare: architectures of further heads, scored as rows of those names.
        name: of the fold, for tables that hold several.
    Raises:
        InputError: a patient or section on both sides.
    """
    spots, index = ground.spots, ground.spots.index
    if len(fold.test):
        splits.refuse_leak(index, fold, by=by)
    genes = material.training_panel(spots, fold, config)
    say(f"Panel: {len(genes)} genes by {config.target.panel}, {len(fold.train)} training spots.")
    if seen is None:
        encoder = pretraining.train_encoder(
            config,
            None,
            material.learners(ground, fold, config, kept_features),
            strategy=strategy,
            checkpoint=checkpoints / "autoencoder",
            resume=resume,
        )
        clock.lap("autoencoder")
        seen = material.encoded(encoder, ground, config, kept_features)
        clock.lap("features")

    measured, standardised, panel = paired.targets(spots, fold, genes, config)
    training: dict[str, Any] = {"strategy": strategy, "resume": resume}
    weights = paired.spot_weights(spots, config)
    heads = head_training.train_heads(
        seen.inputs,
        standardised,
        index,
        fold.train,
        config,
        weights=weights,
        checkpoint=checkpoints,
        **training,
    )
    clock.lap("heads")
    peers: dict[str, TrainedHead] = {}
    peer_values: dict[str, np.ndarray] = {}
    for architecture in compare:
        peer = configuration.with_architecture(config, architecture)
        looked = material.encoded(seen.encoder, ground, peer, kept_features / architecture)
        trained = head_training.train_head(
            looked.inputs,
            standardised,
            index,
            fold.train,
            peer.regressor,
            seed=config.seed,
            weights=weights,
            checkpoint=checkpoints / "compared",
            **training,
        )
        say(f'Head "{architecture}": {trained}.')
        peers[architecture] = trained
        found = features.predicted(trained.head, looked.inputs, rows=fold.test)
        peer_values[architecture] = panel.to_unit(found)
        clock.lap("compared")

    model = Bundle(
        config=config,
        panel=panel,
        reference=seen.encoder.reference,
        encoder=seen.encoder.encoder,
        trunk=seen.trunk,
        head=heads[0].head,
        single_tile_head=heads[-1].head,
        trained_on={
            "sections": [spots.sections[n].name for n in spots.sections_in(fold.train)],
            "patients": sorted({str(name) for name in index.patient[fold.train]}),
            "spots": len(fold.train),
            "checksums": {
                spots.sections[n].name: ground.checksums[spots.sections[n].name]
                for n in spots.sections_in(fold.train)
            },
            "simulated": simulation.is_simulated(ground.cohort.source),
            **seen.encoder.trained_on,
        },
    )
    split = {
        "outer": fold.kind,
        "inner": heads[0].inner[0].kind,
        "held_out": list(fold.held_out),
        "patient_on_both_sides": list(splits.leaking_patients(index, fold)),
    }
    side = section_scores.TrainingSide(
        measured=measured[fold.train],
        learned=standardised[fold.train],
        statistics=seen.statistics[fold.train],
        patients=index.patient[fold.train],
        sections=index.section[fold.train],
    )
    fitted = side.fitted(panel)
    fitted.save(folder / baselines.FILE)
    held_out = HeldOut.predicted(
        model,
        seen.inputs,
        seen.statistics[fold.test],
        peer_values,
        rows=fold.test,
    )
    if len(fold.test):
        cases = held_out.cases(spots, fold.test, fitted, panel, config, name=name)
        scored = section_scores.score(
            cases, config.target, split, unit=bundle.unit(panel), seed=config.seed
        )
    else:
        scores = section_scores.scores({}, config.target, panel, split)
        scored = Scored(scores, pd.DataFrame(), ())
    write_scores(scored, folder)
    if scored.tables:
        table = prediction_tables.joined(scored.tables)
        table = spatial_entries.with_images(table, ground.spots.sections)
        outputs.write_h5ad(table, folder / "predictions.h5ad")
    clock.lap("scores")

    bundle.save(model, folder / "bundle")
    tiles = folder / "parity_tiles.npz"
    paired.parity_tiles(spots, ground.sections, fold, measured, model.reference, tiles)
    trained_heads = [*heads, *peers.values()]
    manifest = {
        **provenance.record(
            ground.cohort,
            ground.checksums,
            seed=config.seed,
            split=split,
            devices=distribution.described(strategy),
        ),
        "inner_folds": [
            {
                "kind": inner.kind,
                "held_out": list(inner.held_out),
                "train": len(inner.train),
                "test": len(inner.test),
            }
            for inner in heads[0].inner
        ],
        "chosen": {
            "head": heads[0].choice,
            "single_tile_head": heads[-1].choice,
            **{kind: trained.choice for kind, trained in peers.items()},
        },
        "species": species.of_sections(ground.cohort.sections).to_json(),
        "panel": list(panel.genes),
        "trained_on": model.trained_on,
        "parameters": model.n_parameters,
    }
    history = seen.encoder.history + [row for head in trained_heads for row in head.history]
    return FoldResult(model, held_out, scored, history, manifest)


def write_records(result: FoldResult, folder: Path, clock: provenance.Clock) -> None:
    """Writes what says how a fold came about: the last files of its folder."""
    runs.write_history(pd.DataFrame(result.history), folder)
    runs.write_json(folder / "config.json", result.model.config.to_json())
    runs.write_json(folder / "manifest.json", {**result.manifest, "seconds": clock.seconds})


def write_scores(scored: Scored, folder: Path) -> None:
    """Writes scores.json and gene_scores.csv."""
    runs.write_json(folder / "scores.json", scored.scores)
    if scored.tables:
        scored.genes.to_csv(folder / "gene_scores.csv", index=False)

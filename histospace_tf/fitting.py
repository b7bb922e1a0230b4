"""The main job: paired sections -> a scored, exported model in a run folder (see `runs`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf import (
    bundle,
    bundle_file,
    distribution,
    exporting,
    inherited_scores,
    outputs,
    provenance,
    publishing,
    runs,
)
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import count_sections, encoder_sources, encoders, plans, reading
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.data_pipelines import splits
from histospace_tf.exports import tflite
from histospace_tf.folds import fold_run
from histospace_tf.folds.fold_run import OuterFold
from histospace_tf.network_model import NetworkModel
from histospace_tf.outputs import say
from histospace_tf.predictors import peers
from histospace_tf.reports import gene_sets, model_card, score_table
from histospace_tf.requests import FitRequest, refusals
from histospace_tf.training import Session


@dataclasses.dataclass(frozen=True, eq=False)
class FitResult:
    """What a run wrote."""

    out: Path
    scores: dict[str, Any]
    parameters: int
    gene_sets: pd.DataFrame | None = None

    def summary(self) -> str:
        """The table of scores, the files and the next command, as text."""
        lines = []
        if self.scores["sections"]:
            lines.append(score_table.table(self.scores))
        notes = score_table.notes(self.scores)
        lines += [*notes, ""] if notes else []
        lines += gene_sets.lines(self.gene_sets)
        lines.append(f"{self.parameters:,} parameters, {self.scores['target']['genes']} genes")
        lines += runs.listed(self.out)
        lines += ["", f"Next: histospace-tf predict SLIDE --model {self.out} --out slide.h5ad"]
        return "\n".join(lines)


def fit(request: FitRequest) -> FitResult:
    """Trains on a data folder, scores the held-out spots, writes the run folder.

    Raises:
        InputError: a mistake in data, names or settings.
    """
    refusals.refuse(request)
    out, no_hold_out = request.out, request.no_hold_out
    # Several workers: before any other work.
    strategy = distribution.strategy(request.settings.strategy)
    source = encoder_sources.source(request.pretrain, request.encoder)
    config = encoder_sources.with_encoder_of(source, request.settings)
    network = peers.named(config.peers.architecture)
    carried = inherited_scores.read(request.evaluations)
    inherited_scores.refuse_other_settings(carried, config)
    started = {"config": config.to_json(), **request.resumed()}

    def choose(spots: PairedSpots) -> list[splits.Fold]:
        if no_hold_out:
            return [splits.Fold(np.arange(len(spots)), np.arange(0), "none", ())]
        return [splits.outer_fold(spots.index, request.hold_out)]

    # Every worker must see the same checkpoints.
    session = Session(strategy, config.seed, request.resume, outputs.partial(out) / "checkpoints")
    clock = session.clock
    with runs.filled(
        out, started, strategy=strategy, resume=request.resume, force=request.force
    ) as work:
        cohort = reading.read_cohort(
            request.data,
            work,
            config=config,
            **request.how(),
            hold_out=request.hold_out,
        )
        known = publishing.known_labels(cohort, request.labels) if not no_hold_out else {}
        counts = count_sections.read(request.counts, cohort, config)
        plan = plans.planned(config, cohort, counts=counts, choose=choose)
        runs.refuse_other_data(work, plan.checksums)
        clock.lap("read")
        inherited_scores.refuse_other_data(carried, plan.checksums)
        own_encoders = network is None and not source.is_outside
        plan = plans.with_tiles(plan, config, work, own_encoders=own_encoders)
        clock.lap("tiles")
        sets = None
        if request.gene_sets:
            genes, ids, _ = plans.shared_panel(plan, config)
            sets = publishing.known_sets(request.gene_sets, genes, ids=ids)
        (fold,) = plan.folds
        _announce(plan.spots, fold)
        encoded: encoders.EncodedSpots | None
        if network is not None:
            encoded = encoders.without_encoder(plan, fold, config, work, session)
        else:
            encoded = encoders.encoded_outside(source, plan, config, work, session)
        inherited_scores.refuse_other_encoder(
            carried,
            bundle_file.encoder_origin(encoded.encoder.trained_on)
            if encoded
            else bundle_file.OWN_TILES,
        )
        result = fold_run.run_fold(
            plan,
            OuterFold(fold, fold.kind),
            config,
            work,
            session,
            encoded=encoded,
            kept_features=work / "features",
        )
        if distribution.is_chief(strategy):
            _export(result.model, work)
        clock.lap("export")
        held = [plan.spots.sections[n] for n in plan.spots.sections_in(fold.test)]
        sets_found = None
        if held:
            trust = publishing.results(
                result.scored,
                dataclasses.replace(cohort, sections=tuple(held)),
                work,
                config=config,
                clusters=None,
                labels=known,
                prepared=plan.spots.prepared,
                clock=clock,
            )
            sets_found = publishing.gene_sets(
                sets, result.scored, trust, work, seed=config.seed, clock=clock
            )
        else:
            publishing.scores(result.scored, work)
        if carried:
            inherited_scores.write(carried, result.model.panel.genes, work)
        manifest = {
            **result.manifest,
            "request": request.record(),
            "gene_sets": provenance.file_checksums(request.gene_sets),
        }
        history = pd.DataFrame(result.history)
        publishing.records(work, config, manifest, clock=clock, history=history)
        model_card.write(work, name=out.name)
        if held:
            publishing.pages(
                work,
                held,
                plan.spots.prepared,
                result.model.reference,
                config,
                held_out_maps=True,
            )
    return FitResult(out, result.scored.scores, result.model.n_parameters, sets_found)


def _export(model: Bundle | NetworkModel, work: Path) -> None:
    """Writes what every run is exported as, and checks it."""
    if (why := bundle_file.why_no_export(model.trained_on, model.network)) is not None:
        say(f"No exports: {why}.")
        return
    if isinstance(model, NetworkModel):
        model = bundle.of_network(model)
    say("Exporting to SavedModel and TensorFlow Lite, and checking both in new processes.")
    done = exporting.export(
        model,
        work,
        parity_tiles=work / "parity_tiles.npz",
        formats=["saved_model", "tflite"],
        force=True,
        timed=False,
    )
    for variant, why in done.lite.left_out.items() if done.lite else ():
        say(f"No {tflite.file_name(variant)}: {why}.")


def _announce(spots: PairedSpots, fold: splits.Fold) -> None:
    """Says what is held out, and whether a patient stands on both sides."""
    if not len(fold.test):
        say("Nothing is held out: the model is not scored.")
        return
    say(f"Held out ({fold.kind}): {', '.join(fold.held_out)}, {len(fold.test)} spots.")
    leaking = splits.leaking_patients(spots.index, fold)
    if leaking:
        say(f"Warning: patient {', '.join(leaking)} is on both sides; {splits.LEAK}.")

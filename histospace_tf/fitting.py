"""The main job: paired sections -> a scored, exported model in a run folder (see `runs`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from histospace_tf import (
    bundle_file,
    distribution,
    exporting,
    inherited_scores,
    outputs,
    provenance,
    publishing,
    runs,
)
from histospace_tf.cohort import material, reading
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.data_pipelines import splits
from histospace_tf.exports import tflite
from histospace_tf.folds import fold_run
from histospace_tf.outputs import say
from histospace_tf.predictors import prediction_tables
from histospace_tf.reports import maps, model_card, score_table
from histospace_tf.requests import FitRequest, refusals
from histospace_tf.slide_prediction import spatial_entries


@dataclasses.dataclass(frozen=True, eq=False)
class FitResult:
    """What a run wrote."""

    out: Path
    scores: dict[str, Any]
    parameters: int

    def summary(self) -> str:
        """The table of scores, the files and the next command, as text."""
        lines = []
        if self.scores["sections"]:
            lines += [score_table.table(self.scores), *score_table.notes(self.scores), ""]
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
    config, data, out, mpp = request.settings, request.data, request.out, request.mpp
    pretrain, encoder, image = request.pretrain, request.encoder, request.image
    hold_out, no_hold_out = request.hold_out, request.no_hold_out
    layout, section_column = request.layout, request.section_column
    resume, force = request.resume, request.force
    strategy = distribution.strategy(config.strategy)  # several workers: before any other work
    source = material.encoder_source(pretrain, encoder)
    config = material.with_encoder_of(source, config)
    carried = inherited_scores.read(request.evaluations)
    inherited_scores.refuse_other_settings(carried, config)
    started = {"config": config.to_json(), **request.resumed()}
    clock = provenance.Clock()
    training: dict[str, Any] = {"strategy": strategy, "resume": resume}
    # Every worker must see the same checkpoints.
    checkpoints = outputs.partial(out) / "checkpoints"

    def choose(spots: PairedSpots) -> list[splits.Fold]:
        if no_hold_out:
            return [splits.Fold(np.arange(len(spots)), np.arange(0), "none", ())]
        return [splits.outer_fold(spots.index, hold_out)]

    with runs.filled(out, started, force=force, **training) as work:
        cohort = reading.read_cohort(
            data,
            work,
            layout=layout,
            image=image,
            mpp=mpp,
            section_column=section_column,
            config=config,
            hold_out=hold_out,
        )
        known = publishing.known_labels(cohort, request.labels) if not no_hold_out else {}
        plan = material.planned(config, cohort, choose=choose, clock=clock)
        inherited_scores.refuse_other_data(carried, plan.checksums)
        ground = material.gathered(config, plan, work, source=source, clock=clock)
        (fold,) = ground.folds
        _announce(ground.spots, fold)
        seen = material.encoded_outside(
            source,
            ground,
            config,
            work,
            checkpoint=checkpoints / "autoencoder",
            clock=clock,
            **training,
        )
        inherited_scores.refuse_other_encoder(
            carried,
            bundle_file.encoder_origin(seen.encoder.trained_on) if seen else bundle_file.OWN_TILES,
        )
        result = fold_run.run_fold(
            config,
            ground,
            fold,
            work,
            by=fold.kind,
            seen=seen,
            checkpoints=checkpoints,
            kept_features=work / "features",
            clock=clock,
            **training,
        )
        scored, tables = result.scored, result.scored.tables
        if distribution.is_chief(strategy):
            say("Exporting to SavedModel and TensorFlow Lite, and checking both in new processes.")
            tiles = work / "parity_tiles.npz"
            done = exporting.export(
                result.model,
                work,
                parity_tiles=tiles,
                formats=["saved_model", "tflite"],
                force=True,
                timed=False,
            )
            for variant, why in done.lite.left_out.items() if done.lite else ():
                say(f"No {tflite.file_name(variant)}: {why}.")
        clock.lap("export")
        if len(fold.test):
            table = prediction_tables.joined(tables)
            publishing.write_genes(table, work, seed=config.seed)
            held = [ground.spots.sections[n] for n in ground.spots.sections_in(fold.test)]
            table = publishing.write_clusters(
                table,
                dataclasses.replace(cohort, sections=tuple(held)),
                config,
                work,
                clusters=None,
                labels=known,
            )
            table = spatial_entries.with_images(table, ground.spots.sections)
            outputs.write_h5ad(table, work / "predictions.h5ad")
        if carried:
            inherited_scores.write(carried, result.model.panel.genes, work)
        clock.lap("genes")
        manifest = {**result.manifest, "request": request.record()}
        fold_run.write_records(dataclasses.replace(result, manifest=manifest), work, clock)
        model_card.write(work, name=out.name)
        if len(fold.test):
            maps.held_out_figure(
                tables[0],
                held[0],
                genes=maps.genes_to_show(scored.genes[scored.genes["section"] == held[0].name]),
                path=work / "held_out_maps.png",
            )
            publishing.write_report(work, held, ground.sections, result.model.reference, config)
    return FitResult(out=out, scores=scored.scores, parameters=result.model.n_parameters)


def _announce(spots: PairedSpots, fold: splits.Fold) -> None:
    """Says what is held out, and whether a patient stands on both sides."""
    if not len(fold.test):
        say("Nothing is held out: the model is not scored.")
        return
    say(f"Held out ({fold.kind}): {', '.join(fold.held_out)}, {len(fold.test)} spots.")
    leaking = splits.leaking_patients(spots.index, fold)
    if leaking:
        say(f"Warning: patient {', '.join(leaking)} is on both sides; {splits.LEAK}.")

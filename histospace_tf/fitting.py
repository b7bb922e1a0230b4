"""The main job: paired sections -> a scored, exported model in a run folder (see `runs`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf import (
    bundle_file,
    distribution,
    exporting,
    first_checks,
    inherited_scores,
    outputs,
    publishing,
    runs,
)
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import encoders, plans, reading
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Config
from histospace_tf.data_pipelines import splits
from histospace_tf.exports import tflite
from histospace_tf.folds import fold_run
from histospace_tf.folds.fold_run import OuterFold
from histospace_tf.outputs import say
from histospace_tf.reports import maps, model_card, score_table
from histospace_tf.session import Session


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


def fit(
    config: Config,
    data: Path | None,
    out: Path,
    *,
    pretrain: Path | None = None,
    encoder: Path | None = None,
    hold_out: Sequence[str] = (),
    no_hold_out: bool = False,
    evaluations: Sequence[Path] = (),
    labels: str | None = None,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> FitResult:
    """Trains on a data folder, scores the held-out spots, writes the run folder `out`.

    Args:
        config: every setting; `config.preset(...)` and `config.changed(...)` make one.
        data: folder of paired sections; None: simulated tissue, written to `out`/simulated_tissue.
        out: the run folder.
        pretrain: folder of H&E images for the autoencoder, or "tfds:NAME", a TFDS dataset with
            images; None: the training sections' own tiles.
        encoder: run folder to take the trained encoder from, in place of training one.
        hold_out: patients or sections to score on; empty: the patient (or section) with the fewest
            spots, or a block of the only section's spots.
        no_hold_out: train on everything and score nothing.
        evaluations: with `no_hold_out`, folders of `evaluate` on the same data with the same
            settings: the model carries their scores, and the first one's trust in its genes.
        labels: a column of obs, or a file, with labels of spots; None: the data's own.
        layout: of `readers.LAYOUTS`; None: recognised by content.
        section_column: as of `readers.read_cohort`.
        image: full-resolution image of the only section; None: the layout's own.
        mpp: microns per pixel of the images; None: what spots, data or image tell.
        resume: go on from an interrupted run.
        force: replace a finished run, or throw an interrupted one away.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    first_checks.fit(
        config,
        data,
        out,
        pretrain=pretrain,
        encoder=encoder,
        hold_out=hold_out,
        no_hold_out=no_hold_out,
        evaluations=evaluations,
        labels=labels,
        layout=layout,
        image=image,
        mpp=mpp,
        section_column=section_column,
        resume=resume,
        force=force,
    )
    strategy = distribution.strategy(config.strategy)  # several workers: before any other work
    source = encoders.source(pretrain, encoder)
    config = encoders.with_encoder_of(source, config)
    carried = inherited_scores.read(evaluations)
    inherited_scores.refuse_other_settings(carried, config)
    started = {
        "config": config.to_json(),
        "data": str(data),
        "pretrain": str(pretrain),
        "encoder": str(encoder),
        "image": str(image),
        "mpp": mpp,
        "section_column": section_column,
        "hold_out": sorted(hold_out),
        "no_hold_out": no_hold_out,
        "evaluations": [str(folder) for folder in evaluations],
    }

    def choose(spots: PairedSpots) -> list[splits.Fold]:
        if no_hold_out:
            return [splits.Fold(np.arange(len(spots)), np.arange(0), "none", ())]
        return [splits.outer_fold(spots.index, hold_out)]

    # Every worker must see the same checkpoints.
    session = Session(strategy, config.seed, resume, outputs.partial(out) / "checkpoints")
    clock = session.clock
    with runs.filled(out, started, force=force, resume=resume, strategy=strategy) as work:
        cohort = reading.read_cohort(
            data,
            work,
            layout=layout,
            image=image,
            mpp=mpp,
            section_column=section_column,
            seed=config.seed,
            hold_out=hold_out,
        )
        known = publishing.known_labels(cohort, labels) if not no_hold_out else {}
        plan = plans.planned(config, cohort, choose=choose)
        clock.lap("read")
        inherited_scores.refuse_other_data(carried, plan.checksums)
        plan = plans.gathered(plan, config, work, own_encoders=not source.is_outside)
        clock.lap("tiles")
        (fold,) = plan.folds
        _announce(plan.spots, fold)
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
        if held:
            publishing.results(
                result.scored,
                dataclasses.replace(cohort, sections=tuple(held)),
                work,
                config=config,
                clusters=None,
                labels=known,
                clock=clock,
            )
        else:
            publishing.scores(result.scored, work)
        if carried:
            inherited_scores.write(carried, result.model.panel.genes, work)
        publishing.records(
            work, config, result.manifest, clock=clock, history=pd.DataFrame(result.history)
        )
        model_card.write(work, name=out.name)
        if held:
            genes = result.scored.genes
            maps.held_out_figure(
                result.scored.tables[0],
                held[0],
                genes=maps.genes_to_show(genes[genes["section"] == held[0].name]),
                path=work / "held_out_maps.png",
            )
            publishing.pages(work, held, plan.spots.prepared, result.model.reference, config)
    return FitResult(out=out, scores=result.scored.scores, parameters=result.model.n_parameters)


def _export(model: Bundle, work: Path) -> None:
    """Writes what every run is exported as, and checks it."""
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

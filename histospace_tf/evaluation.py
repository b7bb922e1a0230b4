"""Nested evaluation: every patient or section held out in turn, everything chosen without it.

A fold is what `fit` makes of one held-out group (`fold_run`), kept in OUT/folds/NAME. Its epochs
are chosen on inner groups of its training side. What does not change between folds is made once:
raw tiles, and where the encoder comes from outside the data, the encoder and its features.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from histospace_tf import (
    bundle,
    distribution,
    outputs,
    provenance,
    publishing,
    runs,
)
from histospace_tf.cohort import material, outer_splits, reading
from histospace_tf.cohort.material import Material, Plan
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Architecture, Config
from histospace_tf.data_pipelines import splits
from histospace_tf.data_pipelines.readers.label_files import SpotLabels
from histospace_tf.folds import fold_joins, fold_run
from histospace_tf.folds.fold_joins import FoldStudy, OuterFold
from histospace_tf.outputs import say
from histospace_tf.predictors import external_predictions, prediction_tables
from histospace_tf.reports import score_table
from histospace_tf.requests import EvaluateRequest, refusals
from histospace_tf.scores import clustering
from histospace_tf.slide_prediction import spatial_entries
from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation wrote."""

    out: Path
    scores: dict[str, Any]
    genes: pd.DataFrame

    def summary(self) -> str:
        """The tables, how many genes to trust, the files and the next command, as text."""
        lines = [score_table.table(self.scores), *score_table.notes(self.scores)]
        leaking = self.scores["split"]["patient_on_both_sides"]
        if leaking:
            lines.append(outer_splits.leak_warning(leaking))
        lines += ["", publishing.trusted(self.genes), *runs.listed(self.out)]
        lines += ["", f"Next: open {self.out / 'report.html'} in a browser"]
        return "\n".join(lines)


def evaluate(request: EvaluateRequest) -> EvaluationResult:
    """Holds out every patient (or section) in turn, scores all of them, writes the folder.

    Everything but the held-out group is the same for every fold. A resumed evaluation keeps its
    finished folds.

    Raises:
        InputError: a mistake in data, names or settings.
    """
    refusals.refuse(request)
    config, data, out, mpp = request.settings, request.data, request.out, request.mpp
    pretrain, encoder, image = request.pretrain, request.encoder, request.image
    split, compare, clusters = request.split, request.compare, request.clusters
    layout, section_column = request.layout, request.section_column
    resume, force = request.resume, request.force
    given = request.predictions
    strategy = distribution.strategy(config.strategy)
    if distribution.described(strategy)["workers"] > 1:
        raise InputError("evaluate runs on one machine; --strategy single or mirrored works")
    source = material.encoder_source(pretrain, encoder)
    config = material.with_encoder_of(source, config)
    started = {"config": config.to_json(), **request.resumed()}
    clock = provenance.Clock()
    training: dict[str, Any] = {"strategy": strategy, "resume": resume}

    def choose(spots: PairedSpots) -> list[splits.Fold]:
        return outer_splits.outer_folds(
            spots.index, split or outer_splits.default_split(spots.index)
        )

    with runs.filled(out, started, force=force, **training) as work:
        cohort = reading.read_cohort(
            data,
            work,
            layout=layout,
            image=image,
            mpp=mpp,
            section_column=section_column,
            config=config,
        )
        plan = material.planned(config, cohort, choose=choose, clock=clock)
        known = publishing.known_labels(cohort, request.labels)
        clustering.refuse_small_sections(plan.spots.sections, clusters)
        # Which spots a border policy leaves out shows when tiles are cut.
        drops = config.tiles.border == "drop"
        if not drops:
            _refuse_misfits(plan, config, given)
        ground = material.gathered(config, plan, work, source=source, compare=compare, clock=clock)
        if drops:
            _refuse_misfits(ground, config, given)
        index = ground.spots.index
        by = split or outer_splits.default_split(index)
        folds = [OuterFold(outputs.file_name(fold.held_out[0]), fold) for fold in ground.folds]
        leaking = outer_splits.leaking(index, ground.folds)
        say(f"{len(folds)} folds by {by}.")
        if leaking:
            say(outer_splits.leak_warning(leaking))
        seen = material.encoded_outside(
            source,
            ground,
            config,
            work,
            checkpoint=work / "checkpoints" / "autoencoder",
            clock=clock,
            **training,
        )
        for number, outer in enumerate(folds, start=1):
            _run(
                outer,
                f"Fold {number} of {len(folds)}: held out {outer.fold.held_out[0]}",
                config,
                ground,
                work,
                by=by,
                seen=seen,
                compare=compare,
                **training,
            )
        clock.lap("folds")

        study = None
        if request.with_complexities:
            shown = max(folds, key=lambda outer: len(outer.fold.train))
            study = fold_joins.study(shown, config, ground, work, source=source, **training)
            clock.lap("complexities")
        scores, genes = _join(
            folds,
            config,
            ground,
            work,
            by=by,
            request=request,
            labels=known,
            encoder_history=seen.encoder.history if seen is not None else [],
            study=study,
            clock=clock,
            devices=distribution.described(strategy),
        )
    return EvaluationResult(out=out, scores=scores, genes=genes)


def _join(
    folds: Sequence[OuterFold],
    config: Config,
    ground: Material,
    work: Path,
    *,
    by: str,
    request: EvaluateRequest,
    labels: Mapping[str, SpotLabels],
    encoder_history: Sequence[Mapping[str, object]],
    study: FoldStudy | None,
    clock: provenance.Clock,
    devices: Mapping[str, Any],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Writes what all finished folds together say. Returns the scores and the table of genes."""
    index, given = ground.spots.index, request.predictions
    manifests = {outer.name: fold_joins.manifest(outer, work) for outer in folds}
    split = {
        "outer": by,
        "inner": ", ".join(sorted({m["split"]["inner"] for m in manifests.values()})),
        "held_out": [list(outer.fold.held_out) for outer in folds],
        "patient_on_both_sides": outer_splits.leaking(index, ground.folds),
    }
    cases = [case for outer in folds for case in fold_joins.kept_cases(outer, config, ground, work)]
    scored = external_predictions.score_beside(
        cases,
        given,
        config.target,
        split,
        unit=bundle.unit(cases[0].panel),
        seed=config.seed,
    )
    fold_run.write_scores(scored, work)
    clock.lap("scores")
    table = prediction_tables.joined(scored.tables)
    genes = publishing.write_genes(table, work, seed=config.seed)
    clock.lap("genes")
    table = publishing.write_clusters(
        table, ground.cohort, config, work, clusters=request.clusters, labels=labels
    )
    table = spatial_entries.with_images(table, ground.spots.sections)
    outputs.write_h5ad(table, work / "predictions.h5ad")
    clock.lap("clusters")

    history = fold_joins.histories(folds, work, encoder_history)
    if study is not None:
        study.found.write(work)
        history = pd.concat([history, pd.DataFrame(study.found.history).assign(fold=study.fold)])
    runs.write_history(history, work)
    runs.write_json(work / "config.json", config.to_json())
    manifest = {
        **provenance.record(
            ground.cohort, ground.checksums, seed=config.seed, split=split, devices=devices
        ),
        "request": request.record(),
        "species": manifests[folds[0].name]["species"],
        "folds": fold_joins.own_entries(manifests),
        "predictions": {
            name: {"file": path.name, "checksum": provenance.file_checksum(path)}
            for name, path in given.items()
        },
        "complexities": None if study is None else {"fold": study.fold, **study.found.summary},
        "seconds": clock.seconds,
    }
    runs.write_json(work / "manifest.json", manifest)
    reference = bundle.load(work / "folds" / folds[0].name).reference
    publishing.write_report(work, ground.spots.sections, ground.sections, reference, config)
    return scored.scores, genes


def _refuse_misfits(plan: Plan | Material, config: Config, given: Mapping[str, Path]) -> None:
    """Looks at somebody's predictions before the long work begins."""
    if not given:
        return
    panels = {}
    for fold in plan.folds:
        panel = material.training_panel(plan.spots, fold, config)
        for number in plan.spots.sections_in(fold.test):
            panels[plan.spots.sections[number]] = panel
    external_predictions.refuse_misfits(given, panels, unit=bundle.unit(config.target))


def _run(
    outer: OuterFold,
    title: str,
    config: Config,
    ground: Material,
    work: Path,
    *,
    by: str,
    seen: material.Encoded | None,
    compare: Sequence[Architecture],
    strategy: tf.distribute.Strategy,
    resume: bool,
) -> None:
    """Makes OUT/folds/NAME, unless it is there, and work/held_out/NAME.npz."""
    folder = work / "folds" / outer.name
    if folder.is_dir():
        say(f"{title}: finished before.")
        return
    say(f"{title}, {len(outer.fold.test)} spots.")
    clock = provenance.Clock()
    checkpoints = work / "checkpoints" / "folds" / outer.name
    # Features of an encoder from outside serve every fold.
    kept = work / "features" if seen is not None else work / "features" / "folds" / outer.name
    with outputs.whole_folder(folder) as draft:
        result = fold_run.run_fold(
            config,
            ground,
            outer.fold,
            draft,
            by=by,
            seen=seen,
            strategy=strategy,
            checkpoints=checkpoints,
            kept_features=kept,
            resume=resume,
            clock=clock,
            compare=compare,
            name=outer.name,
        )
        fold_run.write_records(result, draft, clock)
        result.held_out.write(work / "held_out" / f"{outer.name}.npz")
    for scratch in [checkpoints, *([] if seen is not None else [kept])]:
        shutil.rmtree(scratch, ignore_errors=True)

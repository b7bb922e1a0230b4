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

from histospace_tf import (
    bundle,
    distribution,
    outputs,
    provenance,
    publishing,
    runs,
)
from histospace_tf.cohort import (
    count_sections,
    encoder_sources,
    encoders,
    patch_inputs,
    plans,
    reading,
)
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.plans import Plan
from histospace_tf.config import Config
from histospace_tf.data_pipelines import splits
from histospace_tf.folds import fold_run, held_out_predictions, joined_folds
from histospace_tf.folds.fold_run import OuterFold
from histospace_tf.outputs import say
from histospace_tf.predictors import external_predictions, held_out, patch_heads, registry
from histospace_tf.predictors.predictor import Predictor
from histospace_tf.reports import gene_sets, score_table
from histospace_tf.requests import EvaluateRequest, refusals
from histospace_tf.scores import clustering
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation wrote."""

    out: Path
    scores: dict[str, Any]
    genes: pd.DataFrame
    gene_sets: pd.DataFrame | None = None

    def summary(self) -> str:
        """The tables, how many genes to trust, the files and the next command, as text."""
        lines = [score_table.table(self.scores), *score_table.notes(self.scores)]
        leaking = self.scores["split"]["patient_on_both_sides"]
        if leaking:
            lines.append(plans.leak_warning(leaking))
        lines += ["", *gene_sets.lines(self.gene_sets)]
        lines += [publishing.trusted(self.genes), *runs.listed(self.out)]
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
    out, clusters = request.out, request.clusters
    given = request.predictions
    strategy = distribution.strategy(request.settings.strategy)
    if distribution.described(strategy)["workers"] > 1:
        raise InputError("evaluate runs on one machine; `strategy` single or mirrored works")
    source = encoder_sources.source(request.pretrain, request.encoder)
    config = encoder_sources.with_encoder_of(source, request.settings)
    compared = registry.compared(request.compare)
    for predictor in compared:
        predictor.refuse(config)  # as an encoder that is brought leaves it
        predictor.open()
    started = {"config": config.to_json(), **request.resumed()}

    def choose(spots: PairedSpots) -> list[splits.Fold]:
        return plans.outer_folds(spots.index, request.split or plans.default_split(spots.index))

    with runs.filled(
        out, started, strategy=strategy, resume=request.resume, force=request.force
    ) as work:
        session = Session(strategy, config.seed, request.resume, work / "checkpoints")
        cohort = reading.read_cohort(
            request.data,
            work,
            config=config,
            **request.how(),
        )
        counts = count_sections.read(request.counts, cohort, config)
        plan = plans.planned(config, cohort, counts=counts, choose=choose)
        files = patch_inputs.files_of(request.features, plan.spots)
        runs.refuse_other_data(work, patch_inputs.checksums(plan.checksums, files))
        session.clock.lap("read")
        known = publishing.known_labels(cohort, request.labels)
        clustering.refuse_small_sections(plan.spots.sections, clusters)
        # Which spots a border policy leaves out shows when tiles are cut.
        drops = config.tiles.border == "drop"
        if not drops:
            _refuse_misfits(plan, config, given)
            brought = patch_inputs.read(files, plan.spots, config, work / "features" / "brought")
        plan = plans.with_tiles(
            plan,
            config,
            work,
            own_encoders=not source.is_outside,
            slide_context=any(predictor.uses_slide_context(config) for predictor in compared),
        )
        session.clock.lap("tiles")
        if drops:
            _refuse_misfits(plan, config, given)
            brought = patch_inputs.read(files, plan.spots, config, work / "features" / "brought")
        sets = None
        if request.gene_sets:
            shared, ids, of = plans.shared_panel(plan, config)
            sets = publishing.known_sets(request.gene_sets, shared, ids=ids, of=of)
        compared = (*compared, *patch_heads.predictors(brought))
        by = request.split or plans.default_split(plan.spots.index)
        folds = [OuterFold(fold, by, outputs.file_name(fold.held_out[0])) for fold in plan.folds]
        leaking = plans.leaking(plan.spots.index, plan.folds)
        say(f"{len(folds)} folds by {by}.")
        if leaking:
            say(plans.leak_warning(leaking))
        encoded = encoders.encoded_outside(source, plan, config, work, session)
        for number, outer in enumerate(folds, start=1):
            title = f"Fold {number} of {len(folds)}: held out {outer.fold.held_out[0]}"
            if (work / "folds" / outer.name).is_dir():
                say(f"{title}: finished before.")
                continue
            say(f"{title}, {len(outer.fold.test)} spots.")
            _run(plan, outer, config, work, session, encoded=encoded, compare=compared)
        session.clock.lap("folds")

        study = None
        if request.with_complexities and not source.has_autoencoder:
            say("No curves of 3 autoencoders and 3 heads: the encoder is none of these.")
        elif request.with_complexities:
            shown = max(folds, key=lambda outer: len(outer.fold.train))
            study = joined_folds.study(
                shown,
                config,
                plan,
                work,
                source=source,
                session=session,
                epochs=request.study_epochs,
            )
            session.clock.lap("complexities")
        manifests = {outer.name: joined_folds.manifest(outer, work) for outer in folds}
        summary = {
            "outer": by,
            "inner": joined_folds.inner_kinds(manifests),
            "held_out": [list(outer.fold.held_out) for outer in folds],
            "patient_on_both_sides": leaking,
            **joined_folds.counts(manifests),
        }
        sections = [
            section
            for outer in folds
            for section in joined_folds.kept_sections(outer, config, plan, work)
        ]
        scored = external_predictions.score_beside(
            sections,
            given,
            config.target,
            summary,
            unit=bundle.unit(sections[0].panel),
            seed=config.seed,
        )
        scored.scores["chosen"] = joined_folds.chosen(folds, work)
        session.clock.lap("scores")
        genes = publishing.results(
            scored,
            cohort,
            work,
            config=config,
            clusters=clusters,
            labels=known,
            prepared=plan.spots.prepared,
            clock=session.clock,
        )
        sets_found = publishing.gene_sets(
            sets, scored, genes, work, seed=config.seed, clock=session.clock
        )
        history = joined_folds.histories(
            folds, work, encoded.encoder.history if encoded is not None else []
        )
        if study is not None:
            study.study.write(work)
            history = pd.concat(
                [history, pd.DataFrame(study.study.history).assign(fold=study.fold)]
            )
        manifest = {
            **provenance.record(
                cohort,
                plan.checksums,
                seed=config.seed,
                split=summary,
                devices=distribution.described(strategy),
            ),
            "request": request.record(),
            "gene_sets": provenance.file_checksums(request.gene_sets),
            "species": manifests[folds[0].name]["species"],
            "white_fields": plan.spots.white_fields(),
            "folds": joined_folds.own_entries(manifests),
            "predictions": external_predictions.described(given),
            "features": {patches.title: patches.record for patches in brought},
            "complexities": (
                None if study is None else {"fold": study.fold, **study.study.summary}
            ),
        }
        publishing.records(work, config, manifest, clock=session.clock, history=history)
        reference = bundle.load(work / "folds" / folds[0].name).reference
        publishing.pages(work, plan.spots.sections, plan.spots.prepared, reference, config)
    return EvaluationResult(out, scored.scores, genes, sets_found)


def _refuse_misfits(plan: Plan, config: Config, given: Mapping[str, Path]) -> None:
    """Looks at somebody's predictions before the long work begins."""
    if not given:
        return
    panels = {}
    for fold in plan.folds:
        panel = plans.training_panel(plan.spots, fold, config)
        for number in plan.spots.sections_in(fold.test):
            panels[plan.spots.sections[number]] = panel
    external_predictions.refuse_misfits(given, panels, unit=bundle.unit(config.target))


def _run(
    plan: Plan,
    outer: OuterFold,
    config: Config,
    work: Path,
    session: Session,
    *,
    encoded: EncodedSpots | None,
    compare: Sequence[Predictor],
) -> None:
    """Makes OUT/folds/NAME and work/held_out/NAME.npz."""
    folder = work / "folds" / outer.name
    # Features of an encoder from outside serve every fold.
    kept = work / "features"
    if encoded is None:
        kept = kept / "folds" / outer.name
    own = dataclasses.replace(session.within("folds").within(outer.name), clock=provenance.Clock())
    with outputs.whole_folder(folder) as draft:
        result = fold_run.run_fold(
            plan,
            outer,
            config,
            draft,
            own,
            encoded=encoded,
            kept_features=kept,
            compare=compare,
        )
        publishing.scores(result.scored, draft)
        table = held_out.joined(result.scored.tables)
        publishing.predictions(table, plan.spots.sections, plan.spots.prepared, draft)
        publishing.records(
            draft,
            config,
            result.manifest,
            clock=own.clock,
            history=pd.DataFrame(result.history),
        )
        held_out_predictions.write(result.held_out, work / "held_out" / f"{outer.name}.npz")
    shutil.rmtree(own.checkpoints, ignore_errors=True)
    if encoded is None:
        shutil.rmtree(kept, ignore_errors=True)

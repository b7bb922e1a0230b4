"""A finished run scored on another data set (see `external_predictions` for anybody else's).

**Nothing is fitted here.** Model, panel, stain reference, scaling and baselines are the run's own.
Sections that the run was trained on are recognised by the checksums in its bundle and left out;
patients that it was trained on stay, named as a leak.

Genes are those of the panel that the data measure. Legacy Spatial Transcriptomics tables leave a
gene without counts out of a section's table, so a gene that some section of the data holds is zero
in the others; one that no section holds was not measured and is left out, by name. They are
matched by id, or by name as `matching` says where one side has no ids, so that Ensembl ids and
former symbols are found; genes of another species are matched by one-to-one orthologs, where the
user asks for it, and not at all otherwise. The output has the panel's names. Library sizes are over
all genes of the data.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf import (
    bundle,
    bundle_file,
    outputs,
    packaged,
    provenance,
    publishing,
    runs,
)
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import encoders, paired, reading
from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.data_pipelines import readers, splits
from histospace_tf.data_pipelines.genes import species
from histospace_tf.data_pipelines.patients import same_as
from histospace_tf.folds import held_out_predictions
from histospace_tf.network_model import NetworkModel
from histospace_tf.outputs import say
from histospace_tf.predictors import external_predictions, registry, run_network, saved_baselines
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.predictors.predictor import Fitted
from histospace_tf.reports import gene_sets, score_table
from histospace_tf.requests import ScoreRequest, refusals
from histospace_tf.scores import clustering
from histospace_tf.vocabulary import Cohort, InputError, Section, named

# The genes that the HistoSPACE paper gives for data it was not trained on.
NAMED_GENES = ("GNAS", "HLA-B")


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreResult:
    """What an evaluation of a finished run found and wrote.

    scores: scores.json; genes: gene_scores.csv; trusted: a line on how many genes to trust.
    """

    out: Path
    run: Path
    scores: dict[str, Any]
    genes: pd.DataFrame
    trusted: str
    gene_sets: pd.DataFrame | None = None

    def summary(self) -> str:
        """The tables, the genes and where the files are, as text."""
        external = self.scores["external"]
        missing = external["missing_genes"]
        lines = [
            f"{self.run} scored on {external['data']}, nothing fitted.",
            f"{external['shared_genes']} of {external['panel_genes']} genes of the panel are "
            f"measured there" + (f"; not {named(missing, 8)}." if missing else "."),
        ]
        if external["left_out"]:
            lines.append(f"Left out, for the run was trained on it: {named(external['left_out'])}.")
        leaks = self.scores["split"]["patient_on_both_sides"]
        if leaks:
            lines.append(_leak(leaks))
        lines += ["", score_table.table(self.scores), *score_table.notes(self.scores), ""]
        lines += [*self._named_genes(), ""]
        lines += gene_sets.lines(self.gene_sets)
        lines += [self.trusted, ""]
        return "\n".join([*lines, *runs.listed(self.out)])

    def _named_genes(self) -> list[str]:
        every = [entry.name for entry in registry.always() if entry.varies_in_section]
        shown = [name for name in every if name in self.genes]
        words = [name.replace("_", " ") for name in shown]
        lines = ["r over spots, mean over sections" + "".join(f"{word:>19}" for word in words)]
        for gene in NAMED_GENES:
            rows = self.genes[self.genes["gene"] == gene]
            if len(rows):
                cells = "".join(f"{rows[name].mean():>19.3f}" for name in shown)
            elif gene in self.scores["external"]["missing_genes"]:
                cells = "  not measured there"
            else:
                cells = "  not in the run's panel"
            lines.append(f"  {gene:<30}{cells}")
        return lines


def score(request: ScoreRequest) -> ScoreResult:
    """Scores a finished run, which must hold baselines.npz, on data that it was not trained on.

    Writes scores.json, gene_scores.csv, genes.csv, predictions.h5ad, config.json, manifest.json,
    overviews, clusters and a report.

    Raises:
        InputError: a run without baselines, data that it was trained on and nothing else, no gene
            in common, an image of unknown scale, predictions that lack spots, ...
    """
    refusals.refuse(request)
    data, run, out, predictions = request.data, request.run, request.out, request.predictions
    model, baselines = run_network.load(run), saved_baselines.load(run)
    config = model.config
    if baselines.genes != model.panel.genes:
        raise InputError(f"{str(run)!r}: {saved_baselines.FILE} and the model have other genes")
    clock = provenance.Clock()
    cohort = readers.read_cohort(
        data,
        tile=config.tiles,
        **request.how(),
    )
    for problem in cohort.problems:
        say(str(problem))
    unlike = species.finding(cohort.sections)
    if unlike is not None:
        if unlike.severity == "error":
            raise InputError(str(unlike))
        say(str(unlike))
    sections, left_out, checksums = _unseen(cohort, model)
    leaks = _warn_of_leaks(sections, checksums, model)
    whose = species.of_sections(cohort.sections)
    of_panel = species.of_genes(model.panel.genes, model.panel.id_of)
    cohort, match = cohort_genes.on_panel(cohort, model.panel, orthologs=request.orthologs)
    genes, own = list(match.matched), {s.name: s.spots.genes for s in cohort.sections}
    sections = [
        dataclasses.replace(s, spots=dataclasses.replace(s.spots, genes=own[s.name]))
        for s in sections
    ]
    external_predictions.refuse_misfits(
        predictions, dict.fromkeys(sections, genes), unit=bundle.unit(model.panel)
    )
    ids = {gene: one for gene, one in model.panel.id_of.items() if gene in match.matched}
    sets = publishing.known_sets(request.gene_sets, genes, ids=ids)
    known = publishing.known_labels(cohort, request.labels)
    clustering.refuse_small_sections(sections, request.clusters)
    clock.lap("read")
    with outputs.whole_folder(out, force=request.force) as draft:
        work = draft / "work"
        fitted = {**run_network.of_model(model), **baselines.fitted}
        held_out, spots = _predicted(sections, model, fitted, genes, work)
        clock.lap("predictions")
        split = {
            "outer": "external",
            "inner": None,
            "held_out": [section.name for section in held_out],
            "patient_on_both_sides": leaks,
        }
        scored = external_predictions.score_beside(
            held_out,
            predictions,
            config.target,
            split,
            unit=bundle.unit(model.panel),
            seed=config.seed,
        )
        own_scores = run / "scores.json"
        if own_scores.is_file():
            scored.scores["chosen"] = json.loads(own_scores.read_text("utf-8")).get("chosen", [])
        scored.scores["external"] = {
            "run": packaged.name_of(run),
            "data": str(data),
            "panel_genes": len(model.panel),
            "shared_genes": len(genes),
            "missing_genes": [gene for gene in model.panel.genes if gene not in match.matched],
            "renamed_genes": match.renamed,
            "species": {"panel": of_panel.name, "data": whose.name},
            "ambiguous_genes": {gene: list(own) for gene, own in match.ambiguous.items()},
            "left_out": left_out,
        }
        clock.lap("scores")
        trust = publishing.results(
            scored,
            cohort,
            draft,
            config=config,
            clusters=request.clusters,
            labels=known,
            prepared=spots.prepared,
            clock=clock,
        )
        sets_found = publishing.gene_sets(sets, scored, trust, draft, seed=config.seed, clock=clock)
        manifest = {
            **provenance.record(cohort, checksums, seed=config.seed, split=split),
            "request": request.record(),
            "gene_sets": provenance.file_checksums(request.gene_sets),
            "species": whose.to_json(),
            "white_fields": spots.white_fields(),
            "panel": genes,
            "trained_on": model.trained_on,
            "predictions": external_predictions.described(predictions),
            "parameters": model.n_parameters,
        }
        publishing.records(draft, config, manifest, clock=clock)
        publishing.pages(draft, sections, spots.prepared, model.reference, config)
        shutil.rmtree(work)
    told = publishing.trusted(trust)
    return ScoreResult(out, run, scored.scores, scored.genes, told, sets_found)


def _unseen(
    cohort: Cohort, model: Bundle | NetworkModel
) -> tuple[list[Section], list[str], dict[str, dict[str, str]]]:
    """Sections with an image that took no part in training, names of those that did, and the
    former's checksums.

    The same image or the same counts under any name is the same section.
    """
    for section in cohort.sections:
        if section.image is None:
            say(f"section {section.name}: no image, skipped ({len(section.spots)} spots)")
    counts = model.trained_on.get("counts", {})
    trained = {**counts.get("checksums", {}), **model.trained_on["checksums"]}
    known = {value: name for name, sums in trained.items() for value in sums.values()}
    kept, left_out, checksums = [], [], {}
    for section in reading.usable_sections(cohort, model.config):
        (sums,) = provenance.checksums([section]).values()
        trained_as = next((known[value] for value in sums.values() if value in known), None)
        if trained_as is None:
            kept.append(section)
            checksums[section.name] = sums
            continue
        left_out.append(section.name)
        alias = "" if trained_as == section.name else f" as {trained_as!r}"
        say(f"section {section.name}: the run was trained on it{alias}; left out")
    if not kept:
        raise InputError(
            f"{cohort.source}: the run was trained on every section with an image "
            f"({named(left_out)}); name data that it has not seen"
        )
    return kept, left_out, checksums


def _warn_of_leaks(
    sections: Sequence[Section],
    checksums: Mapping[str, Mapping[str, str]],
    model: Bundle | NetworkModel,
) -> list[str]:
    """Names patients that were trained on, and sections that the encoder has seen."""
    counts = model.trained_on.get("counts", {})
    trained = {
        same_as(name)
        for name in (*model.trained_on.get("patients", []), *counts.get("patients", []))
    }
    patients = sorted({s.patient for s in sections if same_as(s.patient) in trained})
    if patients:
        say(_leak(patients))
    images = bundle_file.encoder_images(model.trained_on)
    shown = [section.name for section in sections if checksums[section.name]["image"] in images]
    if shown:
        say(f"The encoder was trained on tiles of section {named(shown)}, without expression.")
    return patients


def _leak(patients: Sequence[str]) -> str:
    who = f"patient {named(patients)}"
    return f"Warning: the run was trained on {who} (by name); {splits.LEAK}."


def _predicted(
    sections: Sequence[Section],
    model: Bundle | NetworkModel,
    fitted: Mapping[str, Fitted],
    genes: Sequence[str],
    work: Path,
) -> tuple[list[PredictedSection], PairedSpots]:
    """Asks a run's predictors about every section's spots, as `fit` does; tiles are in `work`."""
    work.mkdir()
    config = model.config
    spots = paired.cut_tiles(
        PairedSpots.of(sections, config), config, work / "tiles", pretrain_on=[]
    )
    wanted = config.tiles.mpp if model.network is None else model.network.mpp
    for ready in spots.prepared:
        if ready.mpp is None and wanted is not None:
            raise InputError(
                f"section {ready.name!r}: microns per pixel are unknown, and the model works at "
                f"{wanted:.3g}; neither the layout's coordinates nor the image state them"
            )
    own = model.encoder if isinstance(model, Bundle) else None
    encoder = TrainedEncoder(own, model.reference, [], model.trained_on)
    encoded = encoders.encoded(encoder, spots, config, work / "features")
    every = np.arange(len(spots))
    held_out = held_out_predictions.predicted(encoded, every, fitted, model.panel)
    return [section.on_genes(genes) for section in held_out], spots

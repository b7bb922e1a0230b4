"""What a run, an evaluation or a scored run publishes: the one sequence of their last files.

`results` writes scores, genes, clusters and predictions; `records` how they came about; `pages`
what a reader looks at. TensorFlow has done its work by then: everything comes from held-out
predictions and from tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import pandas as pd

from histospace_tf import outputs, provenance, reporting, runs
from histospace_tf.cohort import preparing
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.config import Config
from histospace_tf.data_pipelines.genes import gene_sets as set_files
from histospace_tf.data_pipelines.genes.gene_sets import MatchedSets
from histospace_tf.data_pipelines.readers import spot_labels
from histospace_tf.data_pipelines.readers.label_files import SpotLabels
from histospace_tf.faults import reading
from histospace_tf.outputs import say
from histospace_tf.predictors import held_out, registry
from histospace_tf.predictors.section_scores import Scored
from histospace_tf.reports import data, gene_maps, stain_figure
from histospace_tf.scores import clustering, gene_table, intervals
from histospace_tf.scores import gene_sets as set_scores
from histospace_tf.slide_prediction import spatial_entries
from histospace_tf.vocabulary import Cohort, Section, StainReference


def results(
    scored: Scored,
    cohort: Cohort,
    folder: Path,
    *,
    config: Config,
    clusters: int | None,
    labels: Mapping[str, SpotLabels],
    prepared: Sequence[PreparedSection],
    clock: provenance.Clock,
) -> pd.DataFrame:
    """Writes scores.json, gene_scores.csv, genes.csv, intervals.csv, clusters.json and
    predictions.h5ad.

    Args:
        scored: what was held out.
        cohort: its sections; one without an image, but with labels, says what its measured
            expression reaches.
        folder: of the run or evaluation.
        clusters: as of `clustering.cluster_table`; labels: of `known_labels`.
        prepared: the sections that were held out, which keep their pictures.
        clock: books the time under "genes" and "clusters".
    Returns:
        genes.csv: one row per gene, with whether to trust it.
    """
    scores(scored, folder)
    table = held_out.joined(scored.tables)
    genes = gene_table.gene_table(table, seed=config.seed, baselines=_baselines())
    genes.to_csv(folder / "genes.csv", index=False)
    widths = intervals.of_held_out(table, scored.scores["split"]["outer"])
    widths.to_csv(folder / intervals.FILE, index=False, float_format="%.5g")
    clock.lap("genes")
    table = _clustered(table, cohort, config, folder, clusters=clusters, labels=labels)
    predictions(table, cohort.with_image(), prepared, folder)
    clock.lap("clusters")
    return genes


def gene_sets(
    sets: MatchedSets | None,
    scored: Scored,
    genes: pd.DataFrame,
    folder: Path,
    *,
    seed: int,
    clock: provenance.Clock,
) -> pd.DataFrame | None:
    """Writes gene_sets.csv, of `scores.gene_sets.score`; None where no sets are asked for.

    Args:
        sets: of `known_sets`.
        scored: what was held out; genes: its genes.csv, of `results`.
        folder: of the run or evaluation.
        seed: of the run. clock: books the time under "gene sets".
    """
    if sets is None:
        return None
    table = set_scores.score(scored.tables, sets.sets, genes, seed=seed, baselines=_baselines())
    table.to_csv(folder / set_scores.FILE, index=False)
    clock.lap("gene sets")
    return table


def known_sets(
    paths: Sequence[Path], genes: Sequence[str], *, ids: Mapping[str, str], of: int | None = None
) -> MatchedSets | None:
    """The sets of GMT files on some genes; None without a file. What was noticed is said.

    Args:
        genes: that every held-out section is predicted; ids: their ids by name, where known.
        of: how many genes the smallest panel of several folds has.
    Raises:
        InputError: as `gene_sets.read` and `gene_sets.on_panel`.
    """
    if not paths:
        return None
    if of is not None and len(genes) < of:
        say(
            f"Gene sets: the folds' panels of {of} genes share {len(genes)}, and sets are scored "
            "on these; a file of genes (`genes`) is the same panel in every fold."
        )
    matched = set_files.on_panel(set_files.read(paths), genes, ids=ids)
    for note in matched.notes:
        say(note)
    return matched


def scores(scored: Scored, folder: Path) -> None:
    """Writes scores.json and, where something was held out, gene_scores.csv; bulk_scores.csv where
    slides were scored as a whole."""
    runs.write_json(folder / "scores.json", scored.scores)
    if scored.tables:
        scored.genes.to_csv(folder / "gene_scores.csv", index=False)
    if len(scored.bulk):
        scored.bulk.to_csv(folder / "bulk_scores.csv", index=False)


def predictions(
    table: anndata.AnnData,
    sections: Sequence[Section],
    prepared: Sequence[PreparedSection],
    folder: Path,
) -> None:
    """Writes predictions.h5ad with a picture of each section.

    Args:
        table: of `held_out.joined`.
        sections: those of the table have an image. prepared: they keep their pictures.
    """
    table = spatial_entries.with_images(table, sections, preparing.kept_overview(prepared))
    outputs.write_h5ad(table, folder / "predictions.h5ad")


def records(
    folder: Path,
    config: Config,
    manifest: Mapping[str, Any],
    *,
    clock: provenance.Clock,
    history: pd.DataFrame | None = None,
) -> None:
    """Writes what says how results came about: history.csv, config.json, manifest.json."""
    if history is not None:
        runs.write_history(history, folder)
    runs.write_json(folder / "config.json", config.to_json())
    runs.write_json(folder / "manifest.json", {**manifest, "seconds": clock.seconds})


def trusted(genes: pd.DataFrame) -> str:
    """How many genes to trust, as a line for the terminal."""
    trust = genes["trust"]
    return (
        f"Trusted genes: {(trust == 'yes').sum()} of {len(genes)}; "
        f"{(trust == 'weak').sum()} more are weak (genes.csv says which)."
    )


def known_labels(cohort: Cohort, chosen: str | None = None) -> dict[str, SpotLabels]:
    """Labels of those sections that have some; what was noticed is said.

    Args:
        chosen: a column or file, as of `spot_labels.of_cohort`.
    Raises:
        InputError: as `spot_labels.of_cohort`.
    """
    with reading(f"labels of {str(cohort.source)!r}"):
        known = spot_labels.of_cohort(cohort, chosen)
    for of_section in known.values():
        for problem in of_section.problems:
            say(str(problem))
    return known


def pages(
    folder: Path,
    sections: Sequence[Section],
    prepared: Sequence[PreparedSection],
    reference: StainReference,
    config: Config,
    *,
    held_out_maps: bool = False,
) -> None:
    """Writes overviews/, stain_panel.png, figures/ and report.html, from what is there.

    Args:
        folder: of a run or an evaluation that has its scores.
        sections: those that were held out.
        prepared: sections to draw the steps of stain normalisation of.
        reference: stains that tiles were recoloured to.
        held_out_maps: writes held_out_maps.png, too: the first section's maps in one picture.
    """
    data.write_overviews(sections, folder, preparing.kept_overview(prepared))
    at_scale = all(section.mpp is not None for section in prepared)
    stain_figure.stain_panel(
        prepared,
        reference,
        path=folder / "stain_panel.png",
        mpp=config.tiles.mpp if at_scale else None,
    )
    reporting.render(folder)
    if held_out_maps:
        gene_maps.write_held_out(data.read(folder), folder / "held_out_maps.png")


def _baselines() -> list[str]:
    return [entry.name for entry in registry.always() if entry.kind == "baseline"]


def _clustered(
    table: anndata.AnnData,
    cohort: Cohort,
    config: Config,
    folder: Path,
    *,
    clusters: int | None,
    labels: Mapping[str, SpotLabels],
) -> anndata.AnnData:
    """Writes clusters.json: predicted and measured clusters of every section, and labels.

    Returns:
        `table` with the clusters and labels in obs.
    """
    columns, matches = clustering.cluster_table(
        table, labels=labels, clusters=clusters, seed=config.seed
    )
    for section in cohort.sections:
        if section.image is None and section.name in labels:
            _, alone = clustering.measured_only(
                section,
                labels[section.name],
                genes=[str(gene) for gene in table.var_names],
                normalisation=config.target.normalisation,
                target_sum=config.target.target_sum,
                clusters=clusters,
                seed=config.seed,
            )
            matches["sections"] |= alone["sections"]
    runs.write_json(folder / "clusters.json", matches)
    clustered = table.copy()
    for name in columns:
        clustered.obs[name] = columns[name]
    return clustered

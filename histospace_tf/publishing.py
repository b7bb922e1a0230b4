"""What a reader of a run or an evaluation looks at: genes to trust, clusters, pictures, the report.

TensorFlow has done its work by then: everything comes from held-out predictions and from tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata
import pandas as pd

from histospace_tf import reporting, runs
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.config import Config
from histospace_tf.data_pipelines.readers import spot_labels
from histospace_tf.data_pipelines.readers.label_files import SpotLabels
from histospace_tf.faults import reading
from histospace_tf.outputs import say
from histospace_tf.reports import report_data, stain_figure
from histospace_tf.scores import clustering, gene_table
from histospace_tf.vocabulary import Cohort, Section, StainReference


def write_genes(predictions: anndata.AnnData, folder: Path, *, seed: int) -> pd.DataFrame:
    """Writes genes.csv, one row per gene of held-out predictions."""
    genes = gene_table.gene_table(predictions, seed=seed)
    genes.to_csv(folder / "genes.csv", index=False)
    return genes


def trusted(genes: pd.DataFrame) -> str:
    """How many genes to trust, as a line for the terminal."""
    trust = genes["trust"]
    return (
        f"Trusted genes: {(trust == 'yes').sum()} of {len(genes)}; "
        f"{(trust == 'weak').sum()} more are weak (genes.csv says which)."
    )


def write_clusters(
    predictions: anndata.AnnData,
    cohort: Cohort,
    config: Config,
    folder: Path,
    *,
    clusters: int | None,
    labels: Mapping[str, SpotLabels],
) -> anndata.AnnData:
    """Writes clusters.json: predicted and measured clusters of every section, and labels.

    A section without an image, but with labels, says what its measured expression reaches.

    Args:
        clusters: as of `clustering.cluster_table`; labels: of `known_labels`.
    Returns:
        `predictions` with the clusters and labels in obs.
    """
    columns, scores = clustering.cluster_table(
        predictions, labels=labels, clusters=clusters, seed=config.seed
    )
    for section in cohort.sections:
        if section.image is None and section.name in labels:
            _, alone = clustering.measured_only(
                section,
                labels[section.name],
                genes=[str(gene) for gene in predictions.var_names],
                normalisation=config.target.normalisation,
                target_sum=config.target.target_sum,
                clusters=clusters,
                seed=config.seed,
            )
            scores["sections"] |= alone["sections"]
    runs.write_json(folder / "clusters.json", scores)
    found = predictions.copy()
    for name in columns:
        found.obs[name] = columns[name]
    return found


def known_labels(cohort: Cohort, chosen: str | None = None) -> dict[str, SpotLabels]:
    """Labels of those sections that have some; what was noticed is said.

    Args:
        chosen: a column or file, as of `spot_labels.of_cohort`.
    Raises:
        InputError: as `spot_labels.of_cohort`.
    """
    with reading(f"labels of {str(cohort.source)!r}"):
        found = spot_labels.of_cohort(cohort, chosen)
    for of_section in found.values():
        for problem in of_section.problems:
            say(str(problem))
    return found


def write_report(
    folder: Path,
    sections: Sequence[Section],
    prepared: Sequence[PreparedSection],
    reference: StainReference,
    config: Config,
) -> None:
    """Writes overviews/, stain_panel.png, figures/ and reporting.html, from what is there.

    Args:
        folder: of a run or an evaluation that has its scores.
        sections: those that were held out.
        prepared: sections to draw the steps of stain normalisation of.
        reference: stains that tiles were recoloured to.
    """
    report_data.write_overviews(sections, folder)
    at_scale = all(section.mpp is not None for section in prepared)
    stain_figure.stain_panel(
        prepared,
        reference,
        path=folder / "stain_panel.png",
        mpp=config.tiles.mpp if at_scale else None,
    )
    reporting.render(folder)

"""What k-means on measured expression reaches against a pathologist's labels. Prints Markdown.

    python benchmarks/clustering.py DATA [--section B1] [--figure FILE]

DATA is HER2ST's repository layout (or ST-Net's release), with labels of the section; B1 has counts,
spots and labels of 295 spots. The paper reports 258 of these 295 for two clusters of predicted
expression, one of them standing for invasive cancer. Every choice that a careful reader might make
stands in the table, none is picked: the genes (250 of highest mean; those seen in more than half of
the spots, as the paper takes them; all), each standardised or not, the spots' values averaged over
neighbours up to 1.5 array steps away or not, the first 20 principal components or all. Beside
them: the best constant; total counts alone, and places alone, which are no expression; and
expression with each gene's straight line in log total counts taken off.

Values are log1p of counts per 10,000, library size over all genes. "As total counts" is the
adjusted Rand index with the clusters of total counts: how much of a clustering is depth. The panel
and the components come from the section itself, so this is a mark for predictions and no
prediction. Needs this package installed (or PYTHONPATH=.); a minute of one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from histospace_tf import cluster_matching, clustering
from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression, readers
from histospace_tf.data_pipelines.readers import labels
from histospace_tf.reports import cluster_maps
from histospace_tf.vocabulary import InputError, Section

NORMALISATION, TARGET_SUM = "library_size_log1p", 10_000.0
COMPONENTS = 20
REACH_STEPS = 1.5  # array steps: the 8 neighbours of a square grid
EVERY_GENE = 10**6
CONSTANT_BELOW = 1e-6
PLAIN = ("yes", "no", "all")  # standardised, not over neighbours, all components
BY_DEPTH = "total counts alone (log)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--section", default="B1")
    parser.add_argument("--figure", type=Path, help="map of clusters and labels, .png or .svg")
    options = parser.parse_args()
    try:
        report(options.data, options.section, options.figure)
    except InputError as error:
        sys.exit(f"error: {error}")


def report(data: Path, name: str, figure: Path | None) -> None:
    cohort = readers.read_cohort(data)
    chosen = [section for section in cohort.sections if section.name == name]
    known = labels.read_labels(data, chosen[0], layout=cohort.layout) if chosen else None
    if known is None:
        raise InputError(f"{str(data)!r} has no section {name!r} with labels")
    (section,) = chosen
    for problem in known.problems:
        print(f"{problem}\n")
    panel = expression.choose_panel([section.spots], TargetConfig())
    depth = np.log1p(np.asarray(section.spots.counts.sum(axis=1), np.float64))
    by_depth = clustering.cluster_spots(depth)
    tables = []
    n_positive = known.labels.count(known.positive)
    n_labelled = len(known.labels) - known.labels.count("")
    most = max(n_positive, n_labelled - n_positive)
    print(
        f"Section {name}: {n_labelled} spots with a label, {n_positive} of them {known.positive}."
    )
    print("One cluster stands for it, the others for the rest.\n")
    print(
        "| clustered | clusters | standardised | over neighbours | components | matched | share "
        "| best constant | adjusted Rand | as total counts |"
    )
    print("|---" * 10 + "|")
    print(f"| nothing (constant) |  |  |  |  | {most} | {most / n_labelled:.3f} | | 0 | |")
    for cells, clusters in choices(section, panel, depth):
        result = cluster_matching.match(clusters, known.labels, positive=known.positive)
        tables.append((cells, result))
        print(
            f"| {' | '.join(cells)} | {result.matched} of {result.spots} | {result.share:.3f} | "
            f"{result.constant_share:.3f} | {result.adjusted_rand:.3f} | "
            f"{adjusted_rand_score(by_depth, clusters):.3f} |"
        )
    shown = (BY_DEPTH, highest(panel), all_of(section))
    for cells, result in tables:
        if cells[0] in shown and cells[1] in ("2", "3") and cells[2:] == PLAIN:
            print(f"\n{cells[0]}, {cells[1]} clusters, {result.matched} of {result.spots} matched;")
            print(f"cluster {result.positive_cluster} stands for {known.positive}:\n")
            print("| cluster | " + " | ".join(result.contingency.columns) + " |")
            print("|---" * (1 + result.contingency.shape[1]) + "|")
            for cluster, row in result.contingency.iterrows():
                print(f"| {cluster} | " + " | ".join(str(spots) for spots in row) + " |")
    if figure is not None:
        table, _ = clustering.measured_only(
            section, known, genes=panel, normalisation=NORMALISATION, target_sum=TARGET_SUM
        )
        cluster_maps.cluster_figure(
            table,
            None,
            1.0,
            figure,
            title=f"Section {name}: clusters of measured expression",
            positive=known.positive,
            mpp=section.mpp,
            spot_diameter_um=section.spot_diameter_um,
        )
        print(f"\nwritten: {figure}")


def choices(
    section: Section, panel: tuple[str, ...], depth: np.ndarray
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """The first five cells of a row, and (n,) clusters."""
    spots = section.spots
    yield (BY_DEPTH, "2", *PLAIN), clustering.cluster_spots(depth)
    yield ("places alone (x, y)", "2", *PLAIN), clustering.cluster_spots(spots.centres_px)
    often = expression.choose_panel([spots], TargetConfig(genes=EVERY_GENE, min_share=0.5))
    widely = {
        highest(panel): panel,
        f"{len(often)} genes in more than half of the spots": often,
        all_of(section): spots.genes,
    }
    radius = REACH_STEPS * (section.spot_pitch_px or 0.0)
    for name, genes in widely.items():
        raw = expression.targets(
            spots, genes, normalisation=NORMALISATION, target_sum=TARGET_SUM
        ).astype(np.float64)
        near = expression.smoothed(raw, spots.centres_px, radius_px=radius).astype(np.float64)
        for scaled in ("yes", "no"):
            for over, values in (("no", raw), ("yes", near)):
                scores = components(standardised(values) if scaled == "yes" else values)
                for kept in ("all", str(COMPONENTS)):
                    part = scores if kept == "all" else scores[:, :COMPONENTS]
                    yield (name, "2", scaled, over, kept), clustered(part, 2)
        for k in (3, 4):
            yield (name, str(k), *PLAIN), clustered(components(standardised(raw)), k)
        line = np.column_stack([np.ones_like(depth), depth])
        flat = raw - line @ np.linalg.lstsq(line, raw, rcond=None)[0]
        cells = (f"{name}, total counts taken off", "2", *PLAIN)
        yield cells, clustered(components(standardised(flat)), 2)


def highest(panel: tuple[str, ...]) -> str:
    return f"{len(panel)} genes of highest mean"


def all_of(section: Section) -> str:
    return f"all {len(section.spots.genes)} genes"


def clustered(scores: np.ndarray, clusters: int) -> np.ndarray:
    return clustering.cluster_spots(scores, clusters=clusters, standardise=False)


def standardised(values: np.ndarray) -> np.ndarray:
    deviation = values.std(axis=0)
    varies = deviation > CONSTANT_BELOW
    return (values[:, varies] - values[:, varies].mean(axis=0)) / deviation[varies]


def components(values: np.ndarray) -> np.ndarray:
    """(n, g) -> (n, n - 1) principal components, first the widest.

    Distances between spots stay as they are, so k-means on all of them is k-means on the genes;
    thousands of genes become n numbers.
    """
    centred = values - values.mean(axis=0)
    width, axes = np.linalg.eigh(centred @ centred.T)
    return (axes * np.sqrt(np.maximum(width, 0)))[:, ::-1][:, : len(values) - 1]


main()

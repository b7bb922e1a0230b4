"""What k-means on measured expression reaches against labels of spots. Prints Markdown.

    python benchmarks/clustering.py DATA [--section B1] [--labels COLUMN_OR_TABLE] [--figure FILE]
    python benchmarks/clustering.py --run RUN     what a finished run's predictions reach instead

DATA is HER2ST's repository layout (or ST-Net's release), with labels of the section; B1 has counts,
spots and labels of 295 spots. The paper reports 258 of these 295 for two clusters of predicted
expression, one of them standing for invasive cancer. Every choice that a careful reader might make
stands in the table, none is picked: the genes (250 of highest mean; those seen in more than half of
the spots, as the paper takes them; all), each standardised or not, the spots' values averaged over
neighbours up to 1.5 array steps away or not, the first 20 principal components or all. Beside
them: the best constant; total counts alone, and places alone, which are no expression; and
expression with each gene's straight line in log total counts taken off.

Of labels of any kind (a mouse's olfactory bulb has five layers), there are as many clusters as
labels, one more and one less, each paired with a label so that most spots match; the best constant
is then the commonest label.

Values are log1p of counts per 10,000, library size over all genes. "As total counts" is the
adjusted Rand index with the clusters of total counts: how much of a clustering is depth. The panel
and the components come from the section itself, so this is a mark for predictions and no
prediction. Needs this package installed (or PYTHONPATH=.); a minute of one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression, gene_panel, readers
from histospace_tf.data_pipelines.readers import spot_labels
from histospace_tf.data_pipelines.readers.label_files import SpotLabels
from histospace_tf.reports.cluster_maps import cluster_figure
from histospace_tf.scores import cluster_matching, clustering
from histospace_tf.scores.cluster_matching import LabelMatch, Match
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
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--run", type=Path, help="folder of fit or evaluate with clusters.json")
    parser.add_argument("--section", default="B1")
    parser.add_argument("--labels", help="a column of obs, or a table of spots and labels")
    parser.add_argument("--figure", type=Path, help="map of clusters and labels, .png or .svg")
    options = parser.parse_args()
    if (options.data is None) == (options.run is None):
        parser.error("either DATA or --run RUN is needed")
    if options.run is not None:
        report_run(options.run)
        return
    try:
        report(options.data, options.section, options.labels, options.figure)
    except InputError as error:
        sys.exit(f"error: {error}")


def report_run(run: Path) -> None:
    """Prints how the clusters of a run's held-out sections match their labels."""
    found = json.loads((run / "clusters.json").read_text(encoding="utf-8"))
    print("| section | clustered | spots matched | adjusted Rand | mutual information |")
    print("|---" * 5 + "|")
    for name, section in found["sections"].items():
        matches = {
            what.removesuffix("_against_labels").replace("_", " "): match
            for what, match in section.items()
            if what.endswith("_against_labels") and match is not None
        }
        for clustered, match in matches.items():
            shared = match.get("normalized_mutual_info")  # None: cancer against the rest
            print(
                f"| {name} | {clustered} | {match['matched']} of {match['spots']} | "
                f"{match['adjusted_rand']:.3f} | {'-' if shared is None else f'{shared:.3f}'} |"
            )
        for match in list(matches.values())[:1]:
            constant = round(match["constant_share"] * match["spots"])
            print(f"| {name} | nothing (constant) | {constant} of {match['spots']} | 0 | 0 |")


def report(data: Path, name: str, labels: str | None, figure: Path | None) -> None:
    cohort = readers.read_cohort(data)
    chosen = [section for section in cohort.sections if section.name == name]
    known = spot_labels.of_cohort(cohort, labels).get(name) if chosen else None
    if known is None:
        raise InputError(f"{str(data)!r} has no section {name!r} with labels")
    (section,) = chosen
    for problem in known.problems:
        print(f"{problem}\n")
    panel = gene_panel.choose_panel([section.spots], TargetConfig())
    depth = np.log1p(np.asarray(section.spots.counts.sum(axis=1), np.float64))
    tables = []
    n_labelled = len(known.labels) - known.labels.count("")
    counted = Counter(label for label in known.labels if label)
    most = max(counted.values())
    print(f"Section {name}: {n_labelled} spots with a label.")
    if known.positive is not None:
        most = max(counted[known.positive], n_labelled - counted[known.positive])
        print(f"{counted[known.positive]} are {known.positive}: one cluster stands for it.\n")
    else:
        print(", ".join(f"{label}: {spots}" for label, spots in counted.most_common()) + "\n")
    numbers = numbers_of(known)
    by_depth = clustering.cluster_spots(depth, clusters=numbers[0])
    print(
        "| clustered | clusters | standardised | over neighbours | components | matched | share "
        "| best constant | adjusted Rand | as total counts |"
    )
    print("|---" * 10 + "|")
    print(f"| nothing (constant) |  |  |  |  | {most} | {most / n_labelled:.3f} | | 0 | |")
    for cells, clusters in choices(section, panel, depth, numbers):
        result = matched(clusters, known)
        tables.append((cells, result))
        print(
            f"| {' | '.join(cells)} | {result.matched} of {result.spots} | {result.share:.3f} | "
            f"{result.constant_share:.3f} | {result.adjusted_rand:.3f} | "
            f"{adjusted_rand_score(by_depth, clusters):.3f} |"
        )
    shown = (BY_DEPTH, highest(panel), all_of(section))
    for cells, result in tables:
        if cells[0] in shown and cells[1] in map(str, numbers[:2]) and cells[2:] == PLAIN:
            print(f"\n{cells[0]}, {cells[1]} clusters, {result.matched} of {result.spots} matched;")
            if isinstance(result, Match):
                print(f"cluster {result.positive_cluster} stands for {known.positive}:\n")
            else:
                pairs = result.label_of_cluster.items()
                print("; ".join(f"cluster {c}: {label}" for c, label in pairs) + "\n")
            print("| cluster | " + " | ".join(result.contingency.columns) + " |")
            print("|---" * (1 + result.contingency.shape[1]) + "|")
            for cluster, row in result.contingency.iterrows():
                print(f"| {cluster} | " + " | ".join(str(spots) for spots in row) + " |")
    if figure is not None:
        table, _ = clustering.measured_only(
            section, known, genes=panel, normalisation=NORMALISATION, target_sum=TARGET_SUM
        )
        cluster_figure(
            table,
            None,
            1.0,
            figure,
            title=f"Section {name}: clusters of measured expression",
            **({"positive": known.positive} if known.positive is not None else {}),
            mpp=section.mpp,
            spot_diameter_um=section.spot_diameter_um,
        )
        print(f"\nwritten: {figure}")


def choices(
    section: Section, panel: tuple[str, ...], depth: np.ndarray, numbers: tuple[int, ...]
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """The first five cells of a row, and (n,) clusters.

    Args:
        numbers: of clusters; all choices are made for the first.
    """
    spots, first, k = section.spots, str(numbers[0]), numbers[0]
    yield (BY_DEPTH, first, *PLAIN), clustering.cluster_spots(depth, clusters=k)
    by_place = clustering.cluster_spots(spots.centres_px, clusters=k)
    yield ("places alone (x, y)", first, *PLAIN), by_place
    often = gene_panel.choose_panel([spots], TargetConfig(genes=EVERY_GENE, min_share=0.5))
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
                    yield (name, first, scaled, over, kept), clustered(part, k)
        for other in numbers[1:]:
            yield (name, str(other), *PLAIN), clustered(components(standardised(raw)), other)
        line = np.column_stack([np.ones_like(depth), depth])
        flat = raw - line @ np.linalg.lstsq(line, raw, rcond=None)[0]
        cells = (f"{name}, total counts taken off", first, *PLAIN)
        yield cells, clustered(components(standardised(flat)), k)


def numbers_of(known: SpotLabels) -> tuple[int, ...]:
    """How many clusters are tried: first as `evaluate` has them."""
    k = clustering.clusters_for(None, known)
    return (2, 3, 4) if known.positive is not None else (k, k + 1, max(k - 1, 2))


def matched(clusters: np.ndarray, known: SpotLabels) -> Match | LabelMatch:
    if known.positive is None:
        return cluster_matching.match_labels(clusters, known.labels)
    return cluster_matching.match(clusters, known.labels, positive=known.positive)


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

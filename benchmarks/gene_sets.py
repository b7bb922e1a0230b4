"""Are sets of genes predicted better than genes? Prints a Markdown table.

    histospace-tf evaluate DATA --split section --encoder breast-her2st --no-complexities \
        --out EVALUATION
    python benchmarks/gene_sets.py DATA EVALUATION [--title TEXT] [--seed S]

Nothing is trained here: predictions of held-out spots come from EVALUATION's folds, and sets are
made anew in each fold, from what was measured on its training spots alone:

    grown    around seed genes: of all genes that are left, the one whose most correlated partners
             correlate best with it, and these partners; again, until fewer are left than a set has
    random   the same genes dealt out by chance, 20 times

Correlations are those within sections. Both ways use each gene of the panel once but for a rest, so
that the sets' genes, one by one, score what the panel's do ("1"). A cell is the mean over sets,
then over sections, of r of the predicted with the measured score over a section's spots. The gene
mean, which says the same of every spot of a section, scores 0 everywhere. "ahead" is the share of
sets that the model predicts better than the colour ridge does; "depth" the rank r of the measured
score with a spot's total counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.data_pipelines.genes.gene_sets import MatchedSet
from histospace_tf.scores import gene_sets, metrics
from histospace_tf.vocabulary import Section

SIZES = (10, 25, 50)
DRAWS = 20
RIDGE = "colour_ridge"
Sets = list[np.ndarray]  # columns of the panel


def main() -> None:
    parser = argparse.ArgumentParser(description="Sets of genes beside genes, as Markdown.")
    parser.add_argument("data", type=Path, help="what was evaluated")
    parser.add_argument("evaluation", type=Path, help="folder of evaluate")
    parser.add_argument("--title", help="first column (default: the folder's name)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    sections = {one.name: one for one in readers.read_cohort(options.data).sections}
    rows = pd.DataFrame(
        [
            row
            for folder in sorted((options.evaluation / "folds").iterdir())
            for row in of_fold(folder, sections, random)
        ]
    )
    by_section = rows.groupby(["size", "chosen", "section"], sort=False).mean(numeric_only=True)
    title = options.title or options.evaluation.name
    heads = ["held out", "genes in a set", "chosen", "sets", "model", "colour ridge", "gene mean"]
    heads += ["ahead", "depth"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for (size, chosen), means in by_section.groupby(level=[0, 1], sort=False):
        mine = rows[(rows["size"] == size) & (rows["chosen"] == chosen)]
        each = mine.groupby(["section", "draw"], sort=False).size().mean()
        mean = means.mean()
        print(
            f"| {title} | {size} | {chosen} | {each:.0f} | {mean['model']:.3f} | "
            f"{mean[RIDGE]:.3f} | 0 | {mean['ahead']:.0%} | {mean['depth']:.3f} |"
        )


def of_fold(
    folder: Path, sections: dict[str, Section], random: np.random.Generator
) -> list[dict[str, object]]:
    """One row per set and held-out section of a fold."""
    bundle = json.loads((folder / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    panel = GenePanel.from_json(bundle["panel"])
    held_out = anndata.read_h5ad(folder / "predictions.h5ad")[:, list(panel.genes)].copy()
    held_out.var["centre"], held_out.var["scale"] = panel.mean, panel.scale
    training = [sections[name] for name in bundle["trained_on"]["sections"]]
    assert not {one.name for one in training} & set(held_out.obs["section"])
    related = correlations(training, panel)
    g = len(panel)
    ways = [(1, "-", 0, [np.array([at]) for at in range(g)])]
    for size in SIZES:
        ways.append((size, "grown", 0, grown(related, size)))
        dealt = (random.permutation(g)[: g // size * size].reshape(-1, size) for _ in range(DRAWS))
        ways += [(size, "random", draw, list(sets)) for draw, sets in enumerate(dealt)]
    rows: list[dict[str, object]] = []
    for name in held_out.obs["section"].unique():
        table = held_out[held_out.obs["section"] == name]
        for size, chosen, draw, sets in ways:
            measured = scores(table, panel, sets, "measured")
            r = {
                layer or "model": metrics.gene_r_each(scores(table, panel, sets, layer), measured)
                for layer in (None, RIDGE)
            }
            totals = table.obs["total_counts"].to_numpy()
            depth = [metrics.depth_r(column[:, None], totals) for column in measured.T]
            rows += [
                {
                    "section": str(name),
                    "size": size,
                    "chosen": chosen,
                    "draw": draw,
                    "model": model,
                    RIDGE: ridge,
                    "ahead": float(model > ridge),
                    "depth": of_depth,
                }
                for model, ridge, of_depth in zip(r["model"], r[RIDGE], depth, strict=True)
                if np.isfinite(model)  # NaN: constant as measured
            ]
    return rows


def correlations(training: Sequence[Section], panel: GenePanel) -> np.ndarray:
    """(g, g) r of genes over training spots, each section about its own mean."""
    parts = [panel.measured(one.spots).astype(np.float64) for one in training]
    values = np.concatenate([part - part.mean(axis=0) for part in parts])
    values /= np.maximum(values.std(axis=0), 1e-9)
    return values.T @ values / len(values)


def grown(related: np.ndarray, size: int) -> Sets:
    """Disjoint sets around seeds, the best first."""
    left, sets = np.arange(len(related)), []
    while len(left) >= size:
        among = related[np.ix_(left, left)].copy()
        np.fill_diagonal(among, np.inf)  # a seed comes first in its own order
        order = np.argsort(-among, axis=1)[:, :size]
        partners = np.take_along_axis(among, order[:, 1:], axis=1).mean(axis=1)
        chosen = order[int(partners.argmax())]
        sets.append(left[chosen])
        left = np.delete(left, chosen)
    return sets


def scores(table: anndata.AnnData, panel: GenePanel, sets: Sets, layer: str | None) -> np.ndarray:
    """(spots, sets) of the model (None) or a layer."""
    named = [
        MatchedSet(str(at), len(columns), tuple(panel.genes[c] for c in columns), ())
        for at, columns in enumerate(sets)
    ]
    return gene_sets.place_scores(table, named, layer).to_numpy()


if __name__ == "__main__":
    main()

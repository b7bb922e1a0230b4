"""Gene sets: a place's score is the mean of a set's standardised genes; how well it is predicted.

A gene is standardised by the centre and scale of the training spots, predicted and measured alike:
by (value - var["centre"]) / var["scale"], which is what a head learns. So every gene counts alike
in a set, 0 is the training tissue's level, and 1 one deviation of a gene above it. A mean of genes
that vary together keeps what they share, while counting noise, which each has for itself, shrinks:
the standardised mean that signature scores have long been, without drawn control genes (Tirosh et
al., Science 352, 2016), which a panel of a few hundred genes cannot give. What genes share is in
part a spot's depth (`metrics.depth_r`), which a mean of many follows more than single genes do:
read `depth` beside r, and `random_r`, what as many genes score that have nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines.genes.gene_sets import MatchedSet
from histospace_tf.faults import reading
from histospace_tf.scores import gene_table, metrics
from histospace_tf.vocabulary import InputError, named

KEY = "gene_sets"  # of obsm
UNIT = "mean of standardised genes"
DRAWS = 20  # sets at random that a set is compared with
FILE = "gene_sets.csv"


def place_scores(
    table: anndata.AnnData, sets: Sequence[MatchedSet], layer: str | None = None
) -> pd.DataFrame:
    """(places, sets) float32 scores, by place and set.

    Args:
        table: one model's values: var centre and scale, genes as `sets` name them.
        sets: with at least one gene each.
        layer: None: X.
    Returns:
        A score is NaN where a gene of the set is.
    Raises:
        InputError: no centre and scale, or a gene that the table lacks.
    """
    if not {"centre", "scale"} <= set(table.var):
        raise InputError(
            "gene sets need var['centre'] and var['scale'], by which genes are standardised; this "
            "table is of an older version: predict again"
        )
    values = (table.to_df(layer).to_numpy() - table.var["centre"].to_numpy()) / table.var[
        "scale"
    ].to_numpy()
    at = {str(gene): column for column, gene in enumerate(table.var_names)}
    lacking = [gene for one in sets for gene in one.genes if gene not in at]
    if lacking:
        raise InputError(f"gene sets: the table does not hold {named(lacking)}")
    columns = {one.name: values[:, [at[g] for g in one.genes]].mean(axis=1) for one in sets}
    return pd.DataFrame(columns, index=table.obs_names, dtype=np.float32)


def score(
    tables: Sequence[anndata.AnnData],
    sets: Sequence[MatchedSet],
    genes: pd.DataFrame,
    *,
    seed: int = 0,
    baselines: Sequence[str] = (),
) -> pd.DataFrame:
    """Scores every set on held-out spots, by the same statistics as genes (`gene_table`).

    Args:
        tables: of `predictors.held_out`, one per section, with the centre and scale of its fold.
        sets: all sets; their genes are in every table.
        genes: genes.csv of the same spots.
        seed: decides the resampling.
        baselines: layers of other predictions.
    Returns:
        One row per set, in their order: set; genes, how many it names; in_panel, how many of them
        the panel has; set_r, r of the predicted score with the measured one over the spots of a
        section, mean over sections; mean_gene_r, the mean gene_r of its genes, each for itself;
        random_r, the mean r of DRAWS sets of as many genes drawn from the panel; depth, the rank r
        of the measured score with a spot's total counts, mean over sections; the columns of
        `gene_table` from sections to trust; used and missing, genes separated by blanks. A set with
        fewer than LEAST_GENES in the panel has trust "unknown" and no scores.
    """
    scored = [one for one in sets if one.is_scored]
    rows = pd.DataFrame(
        {
            "set": [one.name for one in sets],
            "genes": [one.size for one in sets],
            "in_panel": [len(one.genes) for one in sets],
        }
    )
    if scored:
        whole = anndata.concat([_of_sets(table, scored) for table in tables], join="outer")
        found = gene_table.gene_table(whole, seed=seed, baselines=baselines)
        found = found.rename(columns={"gene": "set", "gene_r": "set_r"})
        r_of = genes.set_index("gene")["gene_r"]
        means = [r_of.reindex(list(one.genes)).mean() for one in scored]
        at = list(found).index("set_r") + 1
        found.insert(at, "depth", _depth(whole))
        at_random = _at_random(tables, {len(one.genes) for one in scored}, seed)
        found.insert(at, "random_r", [at_random[len(one.genes)] for one in scored])
        found.insert(at, "mean_gene_r", means)
        rows = rows.merge(found, on="set", how="left")
    else:
        rows = rows.assign(set_r=np.nan, mean_gene_r=np.nan, trust=gene_table.UNKNOWN)
    rows["trust"] = rows["trust"].fillna(gene_table.UNKNOWN)
    rows["used"] = [" ".join(one.genes) for one in sets]
    rows["missing"] = [" ".join(one.missing) for one in sets]
    return rows


def trust_of(sets: Sequence[MatchedSet], path: Path) -> pd.DataFrame:
    """What a run's gene_sets.csv says of sets: columns trust and set_r, indexed by set.

    A set counts as the file's where name and genes in the panel are the same; others are "unknown".

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    with reading(f"table of gene sets {str(path)!r}"):
        table = pd.read_csv(path, dtype={"set": str, "used": str}, keep_default_na=False)
        lacking = [name for name in ("set", "used", "set_r", "trust") if name not in table]
        if lacking:
            raise InputError(f"{path}: column {named(lacking)} is missing")
        known = table.set_index(["set", "used"])[["trust", "set_r"]]
        rows = known.reindex([(one.name, " ".join(one.genes)) for one in sets])
    return pd.DataFrame(
        {
            "trust": rows["trust"].fillna(gene_table.UNKNOWN).to_numpy(),
            "set_r": pd.to_numeric(rows["set_r"], errors="coerce").to_numpy(),
        },
        index=[one.name for one in sets],
    )


def _depth(table: anndata.AnnData) -> np.ndarray:
    """(sets,) rank r of the measured scores with total counts, mean over sections."""
    each = []
    for section in dict.fromkeys(table.obs["section"]):
        part = table[table.obs["section"] == section]
        measured = np.asarray(part.layers["measured"])
        totals = part.obs["total_counts"].to_numpy()
        each.append([metrics.depth_r(column[:, None], totals) for column in measured.T])
    return np.asarray(each).mean(axis=0)


def _at_random(
    tables: Sequence[anndata.AnnData], sizes: Collection[int], seed: int
) -> dict[int, float]:
    """Size of a set -> mean over draws and sections of r of sets drawn from the shared genes."""
    shared = sorted(set.intersection(*(set(map(str, table.var_names)) for table in tables)))
    drawn = {
        (size, draw): tuple(np.random.default_rng((seed, 4, size, draw)).permutation(shared)[:size])
        for size in sizes
        for draw in range(DRAWS)
    }
    sets = [MatchedSet(f"{size} {draw}", size, g, ()) for (size, draw), g in drawn.items()]
    each = []
    for table in tables:
        pair = (place_scores(table, sets, layer).to_numpy() for layer in (None, "measured"))
        each.append(metrics.gene_r_each(*pair))
    r = np.nanmean(each, axis=0)
    return {
        size: float(np.nanmean([v for v, (of, _) in zip(r, drawn, strict=True) if of == size]))
        for size in sizes
    }


def _of_sets(table: anndata.AnnData, sets: Sequence[MatchedSet]) -> anndata.AnnData:
    """A section's table with sets in place of genes, in every layer."""
    return anndata.AnnData(
        X=place_scores(table, sets).to_numpy(),
        obs=table.obs,
        var=pd.DataFrame(index=[one.name for one in sets]),
        obsm={"spatial": table.obsm["spatial"]},
        layers={name: place_scores(table, sets, name).to_numpy() for name in table.layers},
    )

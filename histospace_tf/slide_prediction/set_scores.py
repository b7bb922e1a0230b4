"""Scores of gene sets in a prediction: one per place and set, beside the genes.

    obsm["gene_sets"]   DataFrame, one column per set: the mean of its standardised genes, of
                        `scores.gene_sets.place_scores`
    uns["gene_sets"]    DataFrame, one row per set: genes, how many it names; in_panel, how many the
                        model predicts; used, which; trust and set_r, from the run's gene_sets.csv,
                        "unknown" and NaN of a set that was not scored there

A set with fewer than LEAST_GENES genes in the panel has no column and no row. For what is drawn and
listed, `with_sets` puts sets beside genes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines.genes import gene_sets
from histospace_tf.data_pipelines.genes.gene_sets import MatchedSets
from histospace_tf.scores import gene_sets as set_scores
from histospace_tf.scores import gene_table
from histospace_tf.vocabulary import InputError, named

KEY = set_scores.KEY


def on_panel(
    paths: Sequence[Path], panel: Sequence[str], *, ids: Mapping[str, str]
) -> MatchedSets | None:
    """The sets of GMT files on a model's panel; None without a file.

    Args:
        panel: its genes; ids: their Ensembl ids by name, where known.
    Raises:
        InputError: as `gene_sets.read` and `gene_sets.on_panel`; a set has the name of a gene.
    """
    if not paths:
        return None
    matched = gene_sets.on_panel(gene_sets.read(paths), panel, ids=ids)
    taken = sorted({one.name for one in matched.scored} & set(panel))
    if taken:
        raise InputError(
            f"gene set {named(taken)} has the name of a gene that the model predicts; give it "
            "another name in the file"
        )
    return matched


def add(table: anndata.AnnData, sets: MatchedSets, *, run: Path | None) -> None:
    """Adds the scores to a prediction, in place of others that it has.

    Args:
        table: of the model's genes.
        sets: of `on_panel`.
        run: the model's folder, whose gene_sets.csv says how far to trust sets, where it has one;
            None where it is not at hand.
    Raises:
        InputError: as `scores.gene_sets.place_scores` and `trust_of`.
    """
    scored = sets.scored
    about = pd.DataFrame(
        {
            "genes": [one.size for one in scored],
            "in_panel": [len(one.genes) for one in scored],
            "used": [" ".join(one.genes) for one in scored],
            "trust": gene_table.UNKNOWN,
            "set_r": np.nan,
        },
        index=pd.Index([one.name for one in scored], name="set"),
    )
    if run is not None and (run / set_scores.FILE).is_file():
        about[["trust", "set_r"]] = set_scores.trust_of(scored, run / set_scores.FILE)
    table.obsm[KEY] = set_scores.place_scores(table, scored)
    table.uns[KEY] = about


def names_in(table: anndata.AnnData) -> list[str]:
    """The sets that a prediction has scores of."""
    return [str(name) for name in table.obsm[KEY].columns] if KEY in table.obsm else []


def with_sets(table: anndata.AnnData) -> anndata.AnnData:
    """A prediction whose X and var hold its sets behind the genes; the same where it has none."""
    if KEY not in table.obsm:
        return table
    about = table.uns[KEY].rename(columns={"set_r": "gene_r"})
    texts = [name for name in table.var if not pd.api.types.is_numeric_dtype(table.var[name])]
    var = table.var.astype(dict.fromkeys(texts, object))
    var = var.reindex([*table.var_names, *about.index])
    var.loc[about.index, texts] = ""
    var.loc[about.index, "unit"] = set_scores.UNIT
    for column in {"trust", "gene_r"} & set(var):
        var.loc[about.index, column] = about[column].astype(var[column].dtype)
    return anndata.AnnData(
        X=np.hstack([np.asarray(table.X), table.obsm[KEY].to_numpy(np.float32)]),
        obs=table.obs,
        var=var,
        obsm={name: values for name, values in table.obsm.items() if name != KEY},
        uns={name: value for name, value in table.uns.items() if name != KEY},
    )

"""Raw counts and genes of an AnnData: the layer with raw counts, and the columns of var."""

from __future__ import annotations

import re
from collections.abc import Sequence

import anndata
import pandas as pd

from histospace_tf.data_pipelines.counts import raw_counts
from histospace_tf.data_pipelines.counts.raw_counts import Features, GeneCounts
from histospace_tf.data_pipelines.genes import nomenclature
from histospace_tf.vocabulary import InputError, Problem, named

# In order: the first that var has, capitals and marks between words aside.
_IDS = ("geneids", "geneid", "ensemblid", "ensemblids", "ensembl", "ensemblgeneid", "featureid")
_NAMES = ("featurename", "genesymbols", "genesymbol", "genename", "genenames", "symbol", "symbols")
_KINDS = ("featuretypes", "featuretype", "featurebiotype")
_GENOMES = ("genome",)
# As DropletUtils, Stereopy and Monocle call them: where none of the others is there.
_IDS_OF_OTHERS, _NAMES_OF_OTHERS = ("id",), ("realgenename", "geneshortname")
_KINDS_OF_OTHERS = ("type",)
_FEW_MORE = 1.05  # times the counts that are read: genes that only few spots have were left out


def gene_counts(where: str, source: str, data: anndata.AnnData) -> tuple[GeneCounts, str]:
    """Finds the raw counts of one section's spots.

    layers["counts"], X and raw.X are tried in this order, on genes alone; the first that holds raw
    counts is taken.

    Args:
        where: the section, for problems; source: the file, for messages.
    Returns:
        The counts, and the name of the layer that they are from.
    Raises:
        InputError: no layer holds raw counts; or as `raw_counts.gene_counts`.
    """
    options = [("X", data.X, data.var)]
    if "counts" in data.layers:
        options.insert(0, ('layers["counts"]', data.layers["counts"], data.var))
    if data.raw is not None:
        options.append(("raw.X", data.raw.X, _with_columns(data.raw.var, data.var)))
    spots = [str(name) for name in data.obs_names]
    refused, advice = [], "Counts are whole numbers"
    for origin, values, var in options:
        if values is None:
            continue
        try:
            counts = raw_counts.gene_counts(where, origin, spots, values, features(var))
        except raw_counts.NoRawCounts as error:
            refused.append(f"{origin}: {error.fault}")
            advice = error.advice
            continue
        if origin != "X":
            note = Problem("note", where, f"raw counts are taken from {origin}.")
            counts = counts.with_problems(note)
        return counts.with_problems(*_more_in_raw(where, origin, data)), origin
    layers = [str(name) for name in data.layers if name != "counts"]
    others = f", perhaps from {named(layers, 3)}" if layers else ""
    raise InputError(
        f"{source!r} holds no raw counts: {'; '.join(refused) or 'X is empty'}. {advice}. Put them "
        f'into layers["counts"]{others}'
    )


def _more_in_raw(where: str, origin: str, data: anndata.AnnData) -> list[Problem]:
    """A warning where raw.X has many counts of genes that are not read.

    Sums over a selection of genes are not library sizes.
    """
    if data.raw is None or origin == "raw.X" or data.raw.n_vars <= data.n_vars:
        return []
    spots, genes = list(map(str, data.obs_names)), list(map(str, data.raw.var_names))
    if raw_counts.fault(data.raw.X, spots, genes) is not None:
        return []
    read = data.X if origin == "X" else data.layers["counts"]
    if data.raw.X.sum() <= _FEW_MORE * read.sum():
        return []
    return [
        Problem(
            "warning",
            where,
            f"{origin} has counts of {data.n_vars} genes, and raw.X of {data.raw.n_vars}: library "
            f"sizes are those of {origin}.",
            "If it is a choice of genes, write all of them: adata = adata.raw.to_adata().",
        )
    ]


def features(var: pd.DataFrame) -> Features:
    """Names, ids, types and genomes of genes in var.

    Where the index holds Ensembl ids and a column symbols, the symbols are the names; where the
    index holds numbers, a column of symbols or ids is used.
    """
    names = [str(name) for name in var.index]
    ids = _column(var, (*_IDS, *_IDS_OF_OTHERS))
    symbols = _column(var, (*_NAMES, *_NAMES_OF_OTHERS))
    if symbols and 2 * sum(nomenclature.is_ensembl(name) for name in names) > len(names):
        names, ids = symbols, names
    elif names and all(name.isdigit() for name in names):
        names = symbols or ids or names
    return Features(names, ids, _column(var, (*_KINDS, *_KINDS_OF_OTHERS)), _column(var, _GENOMES))


def _column(var: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The first of `columns` that var has, "" for missing values; [] where it has none."""
    known = {re.sub(r"[\W_]+", "", str(name)).casefold(): name for name in reversed(var.columns)}
    name = next((known[name] for name in columns if name in known), None)
    if name is None:
        return []
    return [
        "" if missing else str(value)
        for value, missing in zip(var[name], pd.isna(var[name]), strict=True)
    ]


def _with_columns(var: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns that only var has to raw.var, for the genes that both have."""
    lacking = [name for name in other if name not in var]
    if not lacking or not other.index.is_unique:
        return var
    return var.join(other[lacking])

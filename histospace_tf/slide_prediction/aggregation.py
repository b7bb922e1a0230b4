"""Pseudo-bulk expression of a predicted slide, as a table: one row per gene.

Columns: gene; gene_id, empty where not known; mean, low, high: the mean over tiles in `unit`,
counts per target_sum, and its 95 % interval over blocks of neighbouring tiles; log_mean, log_low,
log_high: the same in `log_unit`, the prediction's own; trust, as in the prediction; tiles, how many
the mean is over. `scores.pseudo_bulk` says what these numbers can and cannot tell.
"""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from histospace_tf import outputs
from histospace_tf.data_pipelines import expression
from histospace_tf.scores import gene_table, pseudo_bulk
from histospace_tf.vocabulary import InputError

KEY = "pseudo_bulk"  # in uns
SEED = 0  # of the intervals: the same tiles give the same table
_UNIT = re.compile(r"(ln|log10)\(1 \+ (counts per [\d,]+)\)")  # of `bundle.unit`
_NORMALISATIONS = {"ln": "library_size_log1p", "log10": "library_size_log10"}


def bulk_file(prediction: Path) -> Path:
    """Where the table of a prediction lies: slide.h5ad has slide.bulk.csv."""
    return prediction.with_suffix(".bulk.csv")


def of_prediction(table: anndata.AnnData) -> pd.DataFrame:
    """The table of one slide, indexed by gene.

    Args:
        table: of `predicting.predict`: X (n, g) and obsm["spatial"].
    Raises:
        InputError: a unit that no model here has.
    """
    normalisation, _ = _unit_of(table)
    values = np.asarray(table.X)
    low, high = pseudo_bulk.interval(
        values, np.asarray(table.obsm["spatial"]), normalisation=normalisation, seed=SEED
    )
    mean = pseudo_bulk.predicted(values, normalisation=normalisation)
    level, low, high = (
        expression.logged(counts, normalisation=normalisation) for counts in (mean, low, high)
    )
    return of_levels(table, level=level, low=low, high=high, tiles=table.n_obs)


def of_levels(
    table: anndata.AnnData, *, level: np.ndarray, low: np.ndarray, high: np.ndarray, tiles: int
) -> pd.DataFrame:
    """The table of a slide whose levels are known.

    Args:
        table: whose genes they are.
        level, low, high: (g,) in the prediction's unit. tiles: how many they are of.
    Raises:
        InputError: as `of_prediction`.
    """
    normalisation, unit = _unit_of(table)
    levels = {
        name: expression.counts_of(logs, normalisation=normalisation)
        for name, logs in (("mean", level), ("low", low), ("high", high))
    }
    var = table.var
    return pd.DataFrame(
        {
            "gene_id": list(var["gene_ids"]) if "gene_ids" in var else "",
            **levels,
            "unit": unit,
            **{
                f"log_{name}": expression.logged(counts, normalisation=normalisation)
                for name, counts in levels.items()
            },
            "log_unit": str(var["unit"].iloc[0]),
            "trust": list(var["trust"]) if "trust" in var else gene_table.UNKNOWN,
            "tiles": tiles,
        },
        index=pd.Index([str(gene) for gene in table.var_names], name="gene"),
    )


def _unit_of(table: anndata.AnnData) -> tuple[str, str]:
    """The normalisation, and the unit without its logarithm."""
    log_unit = str(table.var["unit"].iloc[0])
    stated = _UNIT.fullmatch(log_unit)
    if stated is None:
        raise InputError(
            f"`aggregate`: values in {log_unit!r} cannot be averaged as counts; a prediction in "
            "'ln(1 + counts per 10,000)' or 'log10(1 + counts per 10,000)' works"
        )
    return _NORMALISATIONS[stated[1]], stated[2]


def write(table: anndata.AnnData, path: Path, *, force: bool = False) -> list[Path]:
    """Writes a slide's table as CSV.

    Raises:
        InputError: a finished file, or as `of_prediction`.
    """
    outputs.refuse_finished(path, force=force)
    bulk = table.uns[KEY] if KEY in table.uns else of_prediction(table)
    with outputs.whole_file(path) as draft:
        bulk.to_csv(draft)
    return [path]

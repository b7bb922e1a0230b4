"""A prediction's regions as a table: one row per region.

Columns: region, its name; class; places, how many; mm2, its area on the slide without smaller
regions in it, NaN where the slide's scale is unknown; then the mean of each gene over its places,
in the prediction's unit, empty of a region without places. obs["region"] names each place's region,
of several the smallest, so that means over it agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from histospace_tf import outputs
from histospace_tf.data_pipelines import regions
from histospace_tf.data_pipelines.regions import Region
from histospace_tf.vocabulary import InputError

KEY = "regions"  # in uns: class and mm2 of each region, also of those without places
COLUMNS = ("region", "class", "places", "mm2")


def region_file(prediction: Path) -> Path:
    """Where the table of a prediction lies: slide.h5ad has slide.regions.csv."""
    return prediction.with_suffix(".regions.csv")


def described(drawn: Sequence[Region], mpp: float | None) -> pd.DataFrame:
    """What uns keeps of regions, indexed by name."""
    factor = np.nan if mpp is None else (mpp / 1000) ** 2
    return pd.DataFrame(
        {
            "class": [region.kind for region in drawn],
            "mm2": regions.own_areas_px(drawn) * factor,
        },
        index=pd.Index([region.name for region in drawn], name="region"),
    )


def of_prediction(table: anndata.AnnData) -> pd.DataFrame:
    """The table of one slide.

    Args:
        table: of `predicting.predict` with regions.
    Raises:
        InputError: a gene has the name of another column.
    """
    taken = [gene for gene in table.var_names if gene in COLUMNS]
    if taken:
        raise InputError(f"gene {taken[0]!r} has the name of a column of the table of regions")
    about = table.uns[KEY]
    owner = table.obs["region"].astype(str)
    counts = owner.value_counts().reindex(about.index, fill_value=0)
    means = table.to_df().groupby(owner.to_numpy()).mean().reindex(about.index)
    whole = pd.concat([about[["class"]].assign(places=counts, mm2=about["mm2"]), means], axis=1)
    return whole.rename_axis("region").reset_index()


def write(table: anndata.AnnData, path: Path, *, force: bool = False) -> list[Path]:
    """Writes a slide's table as CSV.

    Raises:
        InputError: a finished file, or as `of_prediction`.
    """
    outputs.refuse_finished(path, force=force)
    with outputs.whole_file(path) as draft:
        of_prediction(table).to_csv(draft, index=False)
    return [path]

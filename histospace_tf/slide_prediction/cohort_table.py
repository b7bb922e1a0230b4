"""Predictions of many slides as one table: a row per slide, for a test or a survival model.

    X                       mean of a gene over the slide's places, in var["unit"]
    layers["upper"]         its 90th percentile over them, in the same unit
    layers["share_high"]    share of them above var["high_above"]
    obs                     slide, patient, places, tissue_mm2, strange_share (of places, by
                            `scores.familiarity`; NaN where the model does not know), warnings
    var                     the model's own: unit, symbol, trust, gene_r; high_above
    obsm["gene_sets"]       mean of a gene set's score over the slide's places, where sets were
                            asked for; uns["gene_sets"] as in predictions

high_above is the 75th percentile of a gene over the places of all slides, every slide weighing the
same: of a slide that is as the others a quarter is above it. Of a network that sees a slide as a
whole X is its answer, and the layers are NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import histospace_tf
from histospace_tf.faults import reading
from histospace_tf.scores import familiarity
from histospace_tf.slide_prediction import region_table, set_scores
from histospace_tf.slide_prediction.spatial_entries import shapes_of
from histospace_tf.vocabulary import InputError

UPPER, HIGH = 0.9, 0.75
_LEVELS = (np.arange(1000) + 0.5) / 1000  # quantiles that stand for a slide's places
WORTH = (
    "Means over a slide carry the level of the patients that the model was trained on: read them "
    "beside trust, compare slides of one stain and scanner, and test patients, not places. A slide "
    "that is unlike the training tissue has numbers, too."
)


@dataclasses.dataclass(frozen=True)
class Predicted:
    """A finished prediction. name: of its row. file: its .h5ad. slide: the image's path."""

    name: str
    file: Path
    slide: str
    patient: str


def of_predictions(predicted: Sequence[Predicted]) -> anndata.AnnData:
    """The table of a cohort; predictions are read one at a time, twice.

    Args:
        predicted: at least one, of one model.
    Returns:
        (slides, genes) AnnData as above; uns["histospace_tf"] names the model and says what the
        numbers are worth.
    Raises:
        InputError: a file that is no prediction, or of another model than the first.
    """
    first = _read(predicted[0])
    quantiles = [_quantiles(_of_places(_read(one), first, one)) for one in predicted]
    known = [each for each in quantiles if each is not None]
    high = np.quantile(np.concatenate(known), HIGH, axis=0) if known else None
    rows, upper, share, obs = [], [], [], []
    sets: dict[str, pd.Series] = {}
    for one in predicted:
        table = _read(one)
        values = _of_places(table, first, one)
        rows.append(np.asarray(table.X).mean(axis=0))
        if set_scores.KEY in table.obsm:
            sets[one.name] = table.obsm[set_scores.KEY].mean()
        nothing = np.full(table.n_vars, np.nan)
        upper.append(nothing if values is None else np.quantile(values, UPPER, axis=0))
        share.append(nothing if values is None or high is None else (values > high).mean(axis=0))
        obs.append(_facts(table, one, values is not None))
    about = first.uns["histospace_tf"]
    return anndata.AnnData(
        X=np.asarray(rows, np.float32),
        obs=pd.DataFrame(obs, index=[one.name for one in predicted]),
        var=first.var.assign(high_above=np.nan if high is None else high.astype(np.float32)),
        layers={
            "upper": np.asarray(upper, np.float32),
            "share_high": np.asarray(share, np.float32),
        },
        obsm={set_scores.KEY: pd.DataFrame(sets).T} if sets else None,
        uns={
            **({set_scores.KEY: first.uns[set_scores.KEY]} if sets else {}),
            "histospace_tf": {
                "version": histospace_tf.__version__,
                **{name: about[name] for name in ("unit", "model") if name in about},
                "worth": WORTH,
            },
        },
    )


def of_regions(predicted: Sequence[Predicted]) -> pd.DataFrame | None:
    """`region_table.of_prediction` of every slide that has regions, each row with the slide's name
    and patient in front; None where none has."""
    tables = []
    for one in predicted:
        table = _read(one)
        if region_table.KEY in table.uns:
            rows = region_table.of_prediction(set_scores.with_sets(table))
            rows.insert(0, "name", one.name)
            rows.insert(1, "patient", one.patient)
            tables.append(rows)
    return pd.concat(tables, ignore_index=True) if tables else None


def _read(one: Predicted) -> anndata.AnnData:
    with reading(f"prediction {str(one.file)!r}"):
        table = anndata.read_h5ad(one.file)
        if "histospace_tf" not in table.uns or "unit" not in table.var:
            raise InputError(f"{str(one.file)!r} is no prediction of `histospace-tf predict`")
        return table


def _of_places(table: anndata.AnnData, first: anndata.AnnData, one: Predicted) -> np.ndarray | None:
    """(places, genes) values; None of a slide as a whole."""
    if list(table.var_names) != list(first.var_names):
        raise InputError(
            f"{str(one.file)!r} has other genes than the other predictions: it is of another model"
        )
    if table.uns["histospace_tf"].get("slide_level_alone"):
        return None
    return np.asarray(table.X)


def _quantiles(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else np.quantile(values, _LEVELS, axis=0)


def _strange(table: anndata.AnnData) -> float:
    """Share of places that are strange to the model; NaN where that is not known."""
    if "familiarity" not in table.obs:
        return np.nan
    return familiarity.strange_share(table.obs["familiarity"].to_numpy())


def _facts(table: anndata.AnnData, one: Predicted, has_places: bool) -> dict[str, object]:
    area = np.nan
    if has_places:
        shapes = shapes_of(table)
        if shapes.square and shapes.mpp is not None:
            area = table.n_obs * (shapes.size_px * shapes.mpp / 1000) ** 2
    return {
        "slide": one.slide,
        "patient": one.patient,
        "places": table.n_obs if has_places else 0,
        "tissue_mm2": area,
        "strange_share": _strange(table),
        "warnings": str(table.uns["histospace_tf"].get("warnings", "")),
    }

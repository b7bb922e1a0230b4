"""Expression in groups of spots: tumour against the rest, layers of a tissue, clusters.

How far a gene tells a group from the other spots of its section is said by effect sizes: the AUROC
(the chance that a spot of the group has the higher value than one outside, ties counted half: Mann
and Whitney's U over the number of pairs, Ann. Math. Stat. 18, 1947) and the difference of medians.
There is no p: neighbouring spots are alike, so a test that takes them as independent calls nearly
anything significant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import anndata
import numpy as np
import pandas as pd
from scipy.stats import rankdata

OTHER = "other labelled spots"
# Columns of `table`, one row per gene, section, kind of values and group.
COLUMNS = (
    "gene",
    "section",
    "values",
    "group",
    "spots",
    "median",
    "lower_quartile",
    "upper_quartile",
    "other_spots",
    "other_median",
    "difference_of_medians",
    "auroc",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Which group each spot is in.

    of_spot: (n,) name of the group; "" for spots that are left out.
    names: of all groups, in the order of figures.
    by_label: they come from labels; else from clusters of predicted expression.
    positive: the label that stands against all others; "" where every label counts.
    """

    of_spot: np.ndarray
    names: tuple[str, ...]
    by_label: bool
    positive: str = ""


def of_spots(obs: pd.DataFrame, positive: str | None) -> Groups | None:
    """Groups by label where some spot has one, else by cluster of predicted expression.

    Args:
        obs: with the columns label and cluster_predicted, or without; "" means none.
        positive: the label that stands for cancer, where the labels have one.
    Returns:
        None where spots have neither labels nor clusters.
    """
    label, cluster = (
        obs[name].astype(str).to_numpy(object) if name in obs else np.full(len(obs), "", object)
        for name in ("label", "cluster_predicted")
    )
    if (label != "").any():
        if positive is None:
            return Groups(label, tuple(sorted(set(label) - {""})), by_label=True)
        either = np.where(label == positive, positive, OTHER)
        return Groups(np.where(label == "", "", either), (positive, OTHER), True, positive)
    if (cluster != "").any():
        named = np.where(cluster == "", "", "cluster " + cluster)
        order = sorted(set(named) - {""}, key=lambda name: int(name.split()[1]))
        return Groups(named, tuple(order), by_label=False)
    return None


def table(
    predictions: anndata.AnnData, groups: Groups, *, others: Sequence[str] = ()
) -> pd.DataFrame:
    """Medians of every group, and how far its values lie from those of the other groups' spots.

    Args:
        predictions: X predicted, layers["measured"] and of `others`, obs["section"]. A gene that is
            NaN somewhere in a section has no row there.
        groups: of its spots.
        others: names of layers, of other predictors.
    Returns:
        One row per gene, section, "measured", "predicted" or one of `others`, and group that has
        spots there; columns COLUMNS: values in the table's unit, auroc and what concerns other
        spots NaN where the section has no spot of another group.
    """
    kinds = {"measured": predictions.layers["measured"], "predicted": predictions.X}
    kinds |= {name: predictions.layers[name] for name in others}
    genes = predictions.var_names.astype(str)
    sections = predictions.obs["section"].astype(str).to_numpy()
    parts = []
    for section in dict.fromkeys(sections):
        rows = np.flatnonzero((sections == section) & (groups.of_spot != ""))
        own = {kind: np.asarray(values)[rows] for kind, values in kinds.items()}
        known = {kind: np.isfinite(values).all(axis=0) for kind, values in own.items()}
        both = known["measured"] & known["predicted"]
        for kind, values in own.items():
            there = both & known[kind]
            parts += _rows(
                values[:, there].astype(np.float64),
                groups.of_spot[rows],
                groups.names,
                {"gene": genes[there], "section": section, "values": kind},
            )
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS])
    order = {gene: place for place, gene in enumerate(genes)}
    return whole.sort_values(
        "gene", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )[list(COLUMNS)]


def _rows(
    values: np.ndarray, own: np.ndarray, names: Sequence[str], facts: Mapping[str, object]
) -> list[pd.DataFrame]:
    """Of one section and kind of values (n, g); `own` (n,) is each spot's group."""
    ranks = rankdata(values, axis=0) if len(values) else values
    parts = []
    for name in names:
        inside = own == name
        n, others = int(inside.sum()), int((~inside).sum())
        if not n:
            continue
        low, median, high = np.quantile(values[inside], [0.25, 0.5, 0.75], axis=0)
        away = np.median(values[~inside], axis=0) if others else np.full(len(median), np.nan)
        u = ranks[inside].sum(axis=0) - n * (n + 1) / 2
        parts.append(
            pd.DataFrame(
                {
                    **facts,
                    "group": name,
                    "spots": n,
                    "median": median,
                    "lower_quartile": low,
                    "upper_quartile": high,
                    "other_spots": others,
                    "other_median": away,
                    "difference_of_medians": median - away,
                    "auroc": u / (n * others) if others else np.nan,
                }
            )
        )
    return parts

"""Between which values a gene lies at a place: split conformal intervals from held-out groups.

A gene's interval is its prediction, less and plus a width, in the target's unit; the width is a
quantile of how far measured values lay from predictions on held-out spots (Lei et al., JASA 113,
2018). Groups that were left out, patients or sections, weigh alike. A new slide differs from the
training ones in its level most of all, and that error is in the width.

Spots of one group err together, so what holds for spots need not hold for the next patient: with g
groups nothing can be promised above g / (g + 1), whatever the errors are (Dunn, Wasserman and
Ramdas, JASA 118, 2023). So what was reached is measured, each group by widths of the others, and
stands beside every interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from histospace_tf.vocabulary import InputError, named

LEVELS = (0.5, 0.8, 0.9, 0.95)
FILE = "intervals.csv"


def of_held_out(table: anndata.AnnData, left_out: str) -> pd.DataFrame:
    """Widths by gene, and the share of held-out values that they reach.

    Args:
        table: `predictions.h5ad`: X predicted, layers["measured"] in the same unit, obs section
            and patient. A gene that a section lacks is NaN in its spots.
        left_out: groups, of `splits.KINDS`; of blocks, their sections.
    Returns:
        One row per gene, in the table's order: gene; left_out, of which kind groups are; groups,
        how many measured it; width_50, width_80, ... half of an interval, in the target's unit;
        reached_50, ... the share of a group's values within widths of the other groups, the mean
        over groups. NaN for a gene that no spot measured, and `reached` with one group.
    """
    kind = "patient" if left_out == "patient" else "section"
    group = table.obs[kind].astype(str).to_numpy()
    errors = np.abs(np.asarray(table.layers["measured"]) - np.asarray(table.X))
    rows = []
    for gene, of_gene in zip(table.var_names, errors.T, strict=True):
        known = ~np.isnan(of_gene)
        by_group = [np.sort(of_gene[known & (group == name)]) for name in np.unique(group[known])]
        widths = [_width(by_group, level) for level in LEVELS]
        reached = [_reached(by_group, level) for level in LEVELS]
        rows.append([str(gene), kind, len(by_group), *widths, *reached])
    names = [column(what, level) for what in ("width", "reached") for level in LEVELS]
    return pd.DataFrame(rows, columns=["gene", "left_out", "groups", *names])


def column(what: str, level: float) -> str:
    """Name of a column of intervals.csv. what: "width" or "reached"."""
    return f"{what}_{round(100 * level)}"


def read(path: Path) -> pd.DataFrame:
    """A run's intervals.csv, one row per gene.

    Raises:
        InputError: the file cannot be read, lacks a column or holds another thing than numbers.
    """
    numbers = [column(what, level) for what in ("width", "reached") for level in LEVELS]
    try:
        table = pd.read_csv(path, dtype={"gene": str}, keep_default_na=False, na_values=[""])
        return table[["gene", "left_out", "groups", *numbers]].astype(dict.fromkeys(numbers, float))
    except (OSError, UnicodeDecodeError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as intervals of genes: {error}") from None


def widths(table: pd.DataFrame, genes: Sequence[str], level: float) -> pd.Series:
    """(g,) half of an interval for each gene; NaN for a gene without.

    Args:
        table: of `read`. level: one of LEVELS.
    Raises:
        InputError: no gene has one.
    """
    found = table.set_index("gene")[column("width", level)].reindex(list(genes))
    if found.isna().all():
        raise InputError(f"{FILE}: none of {named(list(genes), 5)} has an interval")
    return found


def worth(table: pd.DataFrame, level: float) -> str:
    """What intervals are from and what they reached, in words.

    Args:
        table: of `read`, with an interval of one gene at least. level: one of LEVELS.
    """
    kind, groups = str(table["left_out"].dropna().iloc[0]), int(table["groups"].max())
    reached = table[column("reached", level)]
    plural = "s" * (groups > 1)
    if reached.isna().all():
        return f"{level:.0%} intervals from one held-out {kind}; what they reach is not known"
    low, middle, high = reached.quantile([0.1, 0.5, 0.9])
    words = (
        f"{level:.0%} intervals from {groups} held-out {kind}{plural}; on one that was left out "
        f"they reached {middle:.0%} of a gene's values (eight genes of ten: {low:.0%} to "
        f"{high:.0%})"
    )
    needed = int(np.ceil(round(level / (1 - level), 6)))
    if groups < needed:
        words += f"; {needed} {kind}s would be needed to promise {level:.0%}"
    return words


def _width(by_group: Sequence[np.ndarray], level: float) -> float:
    """Quantile of sorted errors, groups weighing alike."""
    if not by_group:
        return np.nan
    errors = np.concatenate(by_group)
    weights = np.concatenate(
        [np.full(len(one), 1 / (len(by_group) * len(one))) for one in by_group]
    )
    order = np.argsort(errors, kind="stable")
    at = int(np.searchsorted(np.cumsum(weights[order]), level - 1e-9))
    return float(errors[order][min(at, len(errors) - 1)])


def _reached(by_group: Sequence[np.ndarray], level: float) -> float:
    """The share of a group's errors within widths of the others: the mean over groups."""
    if len(by_group) < 2:
        return np.nan
    shares = []
    for number, one in enumerate(by_group):
        others = [other for at, other in enumerate(by_group) if at != number]
        shares.append(np.searchsorted(one, _width(others, level), side="right") / len(one))
    return float(np.mean(shares))

"""Clusters of spots compared with labels, or with other clusters of the same spots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from histospace_tf.vocabulary import InputError, named


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """Clusters of one section against a pathologist's labels, spots without a label left out.

    contingency: clusters x labels, numbers of spots.
    positive: the label that stands against all others; positive_cluster: the cluster that stands
        for it, chosen so that most spots match.
    matched: spots in that cluster with the label, and outside it without; share: of `spots`.
    constant_share: share matched by calling every spot positive, or none, whichever is more.
    adjusted_rand: of the clusters against positive and rest (Hubert and Arabie, J. Classif. 2,
        1985).
    unlabelled: spots left out.
    """

    contingency: pd.DataFrame
    positive: str
    positive_cluster: int
    spots: int
    matched: int
    share: float
    constant_share: float
    adjusted_rand: float
    unlabelled: int

    def to_json(self) -> dict[str, Any]:
        """Every field, the contingency table as {cluster: {label: spots}}."""
        return _fields(self)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelMatch:
    """Clusters of one section against labels of any kind, spots without a label left out.

    contingency: clusters x labels, numbers of spots.
    label_of_cluster: cluster -> the label that it is paired with, so that most spots match; where
        there are more clusters than labels, some have none.
    matched: spots whose cluster is paired with their label; share: of `spots`.
    constant_share: the share of the commonest label, which one cluster for all would match.
    adjusted_rand: Hubert and Arabie, J. Classif. 2, 1985; normalized_mutual_info: over the mean of
        both entropies (Strehl and Ghosh, JMLR 3, 2002): 1 for the same partition.
    unlabelled: spots left out.
    """

    contingency: pd.DataFrame
    label_of_cluster: Mapping[str, str]
    spots: int
    matched: int
    share: float
    constant_share: float
    adjusted_rand: float
    normalized_mutual_info: float
    unlabelled: int

    def to_json(self) -> dict[str, Any]:
        """Every field, the contingency table as {cluster: {label: spots}}."""
        return _fields(self)


def _fields(match: Match | LabelMatch) -> dict[str, Any]:
    fields = {field.name: getattr(match, field.name) for field in dataclasses.fields(match)}
    table = {
        str(cluster): {str(label): int(spots) for label, spots in row.items()}
        for cluster, row in match.contingency.iterrows()
    }
    return {**fields, "contingency": table}


def match(
    clusters: Sequence[int] | np.ndarray,
    labels: Sequence[str],
    *,
    positive: str = "invasive cancer",
) -> Match:
    """Compares clusters with labels: one cluster stands for `positive`, all others for the rest.

    Args:
        clusters: (n,) whole numbers; labels: n, "" where a spot has none.
        positive: the label of interest.
    Raises:
        InputError: not as many labels as clusters, or no spot is labelled `positive`.
    """
    if len(clusters) != len(labels):
        raise InputError(f"{len(clusters)} clustered spots, but {len(labels)} labels")
    every, label = np.asarray(clusters), np.asarray(labels, dtype=object)
    has = label != ""
    if positive not in label:
        raise InputError(
            f"no spot is labelled {positive!r}; the labels are {named(sorted(set(label[has])), 8)}"
        )
    own, is_positive = every[has], label[has] == positive
    n = len(own)
    matched = {c: int(((own == c) == is_positive).sum()) for c in np.unique(own).tolist()}
    best = max(matched, key=lambda c: (matched[c], -c))
    return Match(
        contingency=pd.crosstab(
            pd.Series(own, name="cluster"), pd.Series(label[has], name="label")
        ),
        positive=positive,
        positive_cluster=int(best),
        spots=n,
        matched=matched[best],
        share=matched[best] / n,
        constant_share=max(int(is_positive.sum()), int((~is_positive).sum())) / n,
        adjusted_rand=float(adjusted_rand_score(is_positive, own)),
        unlabelled=int((~has).sum()),
    )


def match_labels(clusters: Sequence[int] | np.ndarray, labels: Sequence[str]) -> LabelMatch:
    """Compares clusters with labels of any kind.

    Args:
        clusters: (n,) whole numbers; labels: n, "" where a spot has none.
    Raises:
        InputError: not as many labels as clusters, or no spot has a label.
    """
    if len(clusters) != len(labels):
        raise InputError(f"{len(clusters)} clustered spots, but {len(labels)} labels")
    every, label = np.asarray(clusters), np.asarray(labels, dtype=object)
    has = label != ""
    if not has.any():
        raise InputError("no spot has a label")
    own, known = every[has], label[has].astype(str)
    table = pd.crosstab(pd.Series(own, name="cluster"), pd.Series(known, name="label"))
    rows, columns = linear_sum_assignment(table.to_numpy(), maximize=True)
    matched = int(table.to_numpy()[rows, columns].sum())
    return LabelMatch(
        contingency=table,
        label_of_cluster={
            str(table.index[row]): str(table.columns[column])
            for row, column in zip(rows, columns, strict=True)
        },
        spots=len(own),
        matched=matched,
        share=matched / len(own),
        constant_share=int(table.sum(axis=0).max()) / len(own),
        adjusted_rand=float(adjusted_rand_score(known, own)),
        normalized_mutual_info=float(normalized_mutual_info_score(known, own)),
        unlabelled=int((~has).sum()),
    )


def agreement(first: np.ndarray, second: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """How alike two clusterings of the same spots are, whatever their numbers.

    Returns:
        spots, matched and share under the best assignment of clusters to clusters, constant_share
        (one cluster for all: the share of the second's largest), adjusted_rand; and `first` (n,)
        renumbered by that assignment.
    Raises:
        InputError: not the same number of spots, or none.
    """
    if len(first) != len(second) or not len(first):
        raise InputError(f"clusterings of {len(first)} and {len(second)} spots cannot be compared")
    k = int(max(np.max(first), np.max(second))) + 1
    together = np.zeros((k, k), np.int64)
    np.add.at(together, (first, second), 1)
    rows, columns = linear_sum_assignment(together, maximize=True)
    matched = int(together[rows, columns].sum())
    n = len(first)
    scores = {
        "spots": n,
        "matched": matched,
        "share": matched / n,
        "constant_share": int(together.sum(axis=0).max()) / n,
        "adjusted_rand": float(adjusted_rand_score(second, first)),
    }
    return scores, columns[first]

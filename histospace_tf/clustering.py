"""Spots clustered by expression, and the clusters held against a pathologist's labels.

k-means on the panel's genes, each standardised over the spots of one section; every section by
itself (Kumar and Chatterjee, arXiv:2408.03592, last figure: two clusters, invasive cancer against
the rest). Clusters are numbered by size, the largest is 0, and "" in a table means not clustered.

A share of matched spots says little alone: where a fifth of the spots is cancer, a constant matches
four fifths. So every share stands beside that of the best constant, beside the adjusted Rand index
(0 for chance, 1 for the same partition) and beside what the spots' total counts alone reach, which
are no gene's expression. k-means may do worse than the constant: it splits where the data vary
most, and that need not be at the tumour's edge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.readers.labels import SpotLabels
from histospace_tf.vocabulary import InputError, Section, named

METHOD = "k-means on genes standardised within the section, each section by itself"
STARTS = 10  # random starts of k-means; the best one is kept
_CONSTANT_BELOW = 1e-6  # as in expression: float32 rounding in values of a few units


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
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        table = {
            str(cluster): {str(label): int(spots) for label, spots in row.items()}
            for cluster, row in self.contingency.iterrows()
        }
        return {**fields, "contingency": table}


def refuse_small_sections(sections: Sequence[Section], clusters: int) -> None:
    """Refuses, when the sections are read, what `cluster_spots` would.

    Raises:
        InputError: a section with fewer spots than clusters.
    """
    small = min(sections, key=lambda section: len(section.spots))
    if len(small.spots) < clusters:
        raise InputError(
            f"--clusters {clusters}: section {small.name!r} has {len(small.spots)} spots, and no "
            "more clusters than a section's spots work"
        )


def cluster_spots(
    values: np.ndarray, *, clusters: int = 2, seed: int = 0, standardise: bool = True
) -> np.ndarray:
    """k-means of one section's spots.

    Args:
        values: (n, g), finite, any unit.
        clusters: how many, at least 2.
        seed: of the random starts; the same seed gives the same clusters.
        standardise: every gene to mean 0 and deviation 1 over the spots, constant genes left out.
    Returns:
        (n,) int64, 0 the largest cluster. Fewer clusters where fewer spots differ: all 0 where
        every spot has the same values.
    Raises:
        InputError: fewer spots than clusters, fewer than 2 clusters, values not finite or not 2-D.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(
            f"values of shape {values.shape} to be clustered: a finite number for every spot and "
            "gene is needed"
        )
    if not 2 <= clusters <= len(values):
        raise InputError(
            f"{clusters} clusters of {len(values)} spots: at least 2 are needed, and no more than "
            "there are spots"
        )
    deviation = values.std(axis=0)
    values = values[:, deviation > _CONSTANT_BELOW]
    if standardise:
        values = (values - values.mean(axis=0)) / deviation[deviation > _CONSTANT_BELOW]
    differing = len(np.unique(values, axis=0))
    if values.shape[1] == 0 or differing < 2:
        return np.zeros(len(values), np.int64)
    model = KMeans(min(clusters, differing), n_init=STARTS, random_state=seed)
    found = model.fit_predict(values)
    # k-means numbers its clusters at random: by size, then by first member, is the same every time.
    names, first, sizes = np.unique(found, return_index=True, return_counts=True)
    rank = np.empty(int(names.max()) + 1, np.int64)
    rank[names[np.lexsort((first, -sizes))]] = np.arange(len(names))
    return rank[found]


def match(
    clusters: Sequence[int] | np.ndarray,
    labels: Sequence[str],
    *,
    positive: str = "invasive cancer",
) -> Match:
    """Holds clusters against labels: one cluster stands for `positive`, all others for the rest.

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
    found, is_positive = every[has], label[has] == positive
    n = len(found)
    matched = {c: int(((found == c) == is_positive).sum()) for c in np.unique(found).tolist()}
    best = max(matched, key=lambda c: (matched[c], -c))
    return Match(
        contingency=pd.crosstab(
            pd.Series(found, name="cluster"), pd.Series(label[has], name="label")
        ),
        positive=positive,
        positive_cluster=int(best),
        spots=n,
        matched=matched[best],
        share=matched[best] / n,
        constant_share=max(int(is_positive.sum()), int((~is_positive).sum())) / n,
        adjusted_rand=float(adjusted_rand_score(is_positive, found)),
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


def cluster_table(
    table: anndata.AnnData,
    *,
    labels: Mapping[str, SpotLabels] | None = None,
    clusters: int = 2,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Clusters predicted and measured expression of every section, and compares them.

    A section's genes are those that are finite at all of its spots, predicted and measured.

    Args:
        table: X predicted, layers["measured"], obs section and spot, and perhaps total_counts.
        labels: of the sections that have some.
    Returns:
        obs columns cluster_predicted (numbered like the measured clusters that it fits best),
        cluster_measured and label, strings, indexed as table.obs; and what clusters.json holds.
    Raises:
        InputError: a section without a gene that is finite at all of its spots.
    """
    columns = pd.DataFrame(
        "", index=table.obs.index, columns=["cluster_predicted", "cluster_measured", "label"]
    )
    sections: dict[str, Any] = {}
    names = table.obs["section"].astype(str).to_numpy()
    for section in dict.fromkeys(names):
        rows = np.flatnonzero(names == section)
        if len(rows) < clusters:
            sections[section] = {"spots": len(rows), "note": f"too few for {clusters} clusters"}
            continue
        pair = (np.asarray(table.X)[rows], np.asarray(table.layers["measured"])[rows])
        finite = np.isfinite(pair[0]).all(axis=0) & np.isfinite(pair[1]).all(axis=0)
        if not finite.any():
            raise InputError(
                f"section {section!r}: no gene has finite values at all of its {len(rows)} spots, "
                "predicted and measured, so it cannot be clustered"
            )
        predicted, measured = (
            cluster_spots(values[:, finite], clusters=clusters, seed=seed) for values in pair
        )
        compared, predicted = agreement(predicted, measured)
        columns.iloc[rows, 0] = predicted.astype(str)
        columns.iloc[rows, 1] = measured.astype(str)
        entry: dict[str, Any] = {"spots": len(rows), "genes": int(finite.sum())}
        entry["predicted_against_measured"] = compared
        if labels is not None and section in labels:
            label_of = dict(zip(labels[section].spots, labels[section].labels, strict=True))
            found = [label_of.get(str(spot), "") for spot in table.obs["spot"].iloc[rows]]
            columns.iloc[rows, 2] = found
            parts = {"predicted": predicted, "measured": measured}
            if "total_counts" in table.obs:
                total = table.obs["total_counts"].to_numpy(np.float64)[rows]
                parts["total_counts"] = _by_total(total, clusters, seed)
            entry |= _against_labels(parts, found, labels[section].positive)
        sections[section] = entry
    return columns, _scores(sections, clusters, seed)


def measured_only(
    section: Section,
    labels: SpotLabels,
    *,
    genes: Sequence[str],
    normalisation: str,
    target_sum: float,
    clusters: int = 2,
    seed: int = 0,
) -> tuple[anndata.AnnData, dict[str, Any]]:
    """What measured expression reaches against the labels: the mark for a prediction.

    For sections with counts and labels, an image or not. The genes of the panel, all genes of the
    section, and the spots' total counts alone (log1p) are clustered.

    Args:
        genes, normalisation, target_sum: the panel, as in `expression.targets`.
    Returns:
        AnnData of `genes` measured, with obs cluster_measured, cluster_all_genes,
        cluster_total_counts and label, obsm spatial, as `cluster_maps.cluster_figure` draws it;
        and what clusters.json holds.
    Raises:
        InputError: as `expression.targets`, `cluster_spots` and `match`.
    """
    spots = section.spots
    total = spots.total_counts
    values, every = (
        expression.targets(spots, chosen, normalisation=normalisation, target_sum=target_sum)
        for chosen in (tuple(genes), spots.genes)
    )
    parts = {
        "measured": cluster_spots(values, clusters=clusters, seed=seed),
        "all_genes": cluster_spots(every, clusters=clusters, seed=seed),
        "total_counts": _by_total(total, clusters, seed),
    }
    scored = _against_labels(parts, labels.labels, labels.positive)
    obs = pd.DataFrame(
        {
            "section": section.name,
            "patient": section.patient,
            "spot": list(spots.names),
            "total_counts": total,
            **{f"cluster_{name}": found.astype(str) for name, found in parts.items()},
            "label": list(labels.labels),
        },
        index=[f"{section.name}_{name}" for name in spots.names],
    )
    table = anndata.AnnData(
        X=values,
        obs=obs,
        var=pd.DataFrame(index=list(genes)),
        obsm={"spatial": spots.centres_px},
    )
    entry = {"spots": len(spots), "genes": len(genes), "all_genes": len(spots.genes), **scored}
    return table, _scores({section.name: entry}, clusters, seed)


def _by_total(total: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    return cluster_spots(np.log1p(total)[:, None], clusters=clusters, seed=seed)


def _against_labels(
    parts: Mapping[str, np.ndarray], labels: Sequence[str], positive: str
) -> dict[str, Any]:
    if positive not in labels:
        return {"note": f"no spot is labelled {positive!r}"}
    return {
        f"{name}_against_labels": match(found, labels, positive=positive).to_json()
        for name, found in parts.items()
    }


def _scores(sections: dict[str, Any], clusters: int, seed: int) -> dict[str, Any]:
    return {"method": METHOD, "clusters": clusters, "seed": seed, "sections": sections}

"""Spots clustered by expression, and the clusters compared with a pathologist's labels.

k-means on the panel's genes, each standardised over the spots of one section; every section by
itself (Kumar and Chatterjee, arXiv:2408.03592, last figure: two clusters, invasive cancer against
the rest). Clusters are numbered by size, the largest is 0, and "" in a table means not clustered.

A share of matched spots (`cluster_matching`) says little alone: where a fifth of the spots is
cancer, a constant matches four fifths. So every share stands beside that of the best constant,
beside the adjusted Rand index (0 for chance, 1 for the same partition) and beside what the spots'
total counts alone reach, which are no gene's expression. k-means may do worse than the constant: it
splits where the data vary most, and that need not be at the tumour's edge.

Labels of any kind (layers, regions) are compared label by label: as many clusters as labels unless
asked otherwise, and the share of spots whose cluster stands for their label when clusters and
labels are paired one to one as well as can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.readers.label_files import SpotLabels
from histospace_tf.scores import DEFAULT_CLUSTERS, cluster_matching
from histospace_tf.vocabulary import InputError, Section

METHOD = "k-means on genes standardised within the section, each section by itself"
STARTS = 10  # random starts of k-means; the best one is kept
_CONSTANT_BELOW = 1e-6  # as in expression: float32 rounding in values of a few units


def clusters_for(clusters: int | None, labels: SpotLabels | None) -> int:
    """How many clusters a section's spots are put in.

    Args:
        clusters: as asked; None: as many as there are labels where every label counts, else
            DEFAULT_CLUSTERS.
    """
    if clusters is not None:
        return clusters
    if labels is None or labels.positive is not None:
        return DEFAULT_CLUSTERS
    return max(len(set(labels.labels) - {""}), DEFAULT_CLUSTERS)


def refuse_small_sections(sections: Sequence[Section], clusters: int | None) -> None:
    """Refuses, when the sections are read, what `cluster_spots` would.

    Raises:
        InputError: a section with fewer spots than clusters.
    """
    if clusters is None:
        return
    small = min(sections, key=lambda section: len(section.spots))
    if len(small.spots) < clusters:
        raise InputError(
            f"`clusters` {clusters}: section {small.name!r} has {len(small.spots)} spots, and no "
            "more clusters than a section's spots work"
        )


def cluster_spots(
    values: np.ndarray,
    *,
    clusters: int = DEFAULT_CLUSTERS,
    seed: int = 0,
    standardise: bool = True,
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
    numbers = model.fit_predict(values)
    # k-means numbers its clusters at random: by size, then by first member, is the same every time.
    names, first, sizes = np.unique(numbers, return_index=True, return_counts=True)
    rank = np.empty(int(names.max()) + 1, np.int64)
    rank[names[np.lexsort((first, -sizes))]] = np.arange(len(names))
    return rank[numbers]


def cluster_table(
    table: anndata.AnnData,
    *,
    labels: Mapping[str, SpotLabels] | None = None,
    clusters: int | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Clusters predicted and measured expression of every section, and compares them.

    A section's genes are those that are finite at all of its spots, predicted and measured.

    Args:
        table: X predicted, layers["measured"], obs section and spot, and perhaps total_counts.
        labels: of the sections that have some.
        clusters: of each section's spots; None: as `clusters_for`.
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
        known = (labels or {}).get(section)
        k = clusters_for(clusters, known)
        if len(rows) < k:
            sections[section] = {"spots": len(rows), "note": f"too few for {k} clusters"}
            continue
        pair = (np.asarray(table.X)[rows], np.asarray(table.layers["measured"])[rows])
        finite = np.isfinite(pair[0]).all(axis=0) & np.isfinite(pair[1]).all(axis=0)
        if not finite.any():
            raise InputError(
                f"section {section!r}: no gene has finite values at all of its {len(rows)} spots, "
                "predicted and measured, so it cannot be clustered"
            )
        predicted, measured = (
            cluster_spots(values[:, finite], clusters=k, seed=seed) for values in pair
        )
        compared, predicted = cluster_matching.agreement(predicted, measured)
        columns.iloc[rows, 0] = predicted.astype(str)
        columns.iloc[rows, 1] = measured.astype(str)
        entry: dict[str, Any] = {"spots": len(rows), "genes": int(finite.sum()), "clusters": k}
        entry["predicted_against_measured"] = compared
        if known is not None:
            label_of = dict(zip(known.spots, known.labels, strict=True))
            spot_labels = [label_of.get(str(spot), "") for spot in table.obs["spot"].iloc[rows]]
            columns.iloc[rows, 2] = spot_labels
            parts = {"predicted": predicted, "measured": measured}
            if "total_counts" in table.obs:
                total = table.obs["total_counts"].to_numpy(np.float64)[rows]
                parts["total_counts"] = _by_total(total, k, seed)
            entry |= _against_labels(parts, spot_labels, known.positive)
        sections[section] = entry
    return columns, _scores(sections, clusters, seed)


def measured_only(
    section: Section,
    labels: SpotLabels,
    *,
    genes: Sequence[str],
    normalisation: str,
    target_sum: float,
    clusters: int | None = None,
    seed: int = 0,
) -> tuple[anndata.AnnData, dict[str, Any]]:
    """What measured expression reaches against the labels: the mark for a prediction.

    For sections with counts and labels, an image or not. The genes of the panel, all genes of the
    section, and the spots' total counts alone (log1p) are clustered.

    Args:
        genes, normalisation, target_sum: the panel, as in `expression.targets`.
    Returns:
        AnnData of `genes` measured, with obs cluster_measured, cluster_all_genes,
        cluster_total_counts and label, obsm spatial, as `reports.cluster_maps` draws it;
        and what clusters.json holds.
    Raises:
        InputError: as `expression.targets`, `cluster_spots` and `cluster_matching.match`.
    """
    spots, k = section.spots, clusters_for(clusters, labels)
    total = spots.total_counts
    values, every = (
        expression.targets(spots, chosen, normalisation=normalisation, target_sum=target_sum)
        for chosen in (tuple(genes), spots.genes)
    )
    parts = {
        "measured": cluster_spots(values, clusters=k, seed=seed),
        "all_genes": cluster_spots(every, clusters=k, seed=seed),
        "total_counts": _by_total(total, k, seed),
    }
    scored = _against_labels(parts, labels.labels, labels.positive)
    obs = pd.DataFrame(
        {
            "section": section.name,
            "patient": section.patient,
            "spot": list(spots.names),
            "total_counts": total,
            **{f"cluster_{name}": numbers.astype(str) for name, numbers in parts.items()},
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
    entry = {
        "spots": len(spots),
        "genes": len(genes),
        "all_genes": len(spots.genes),
        "clusters": k,
        **scored,
    }
    return table, _scores({section.name: entry}, clusters, seed)


def _by_total(total: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    return cluster_spots(np.log1p(total)[:, None], clusters=clusters, seed=seed)


def _against_labels(
    parts: Mapping[str, np.ndarray], labels: Sequence[str], positive: str | None
) -> dict[str, Any]:
    if positive is not None and positive not in labels:
        return {"note": f"no spot is labelled {positive!r}"}
    if positive is None and len(set(labels) - {""}) < 2:
        kinds = sorted(set(labels) - {""})
        return {"note": f"every labelled spot is {kinds[0]!r}" if kinds else "no spot has a label"}
    return {
        f"{name}_against_labels": (
            cluster_matching.match_labels(clusters, labels)
            if positive is None
            else cluster_matching.match(clusters, labels, positive=positive)
        ).to_json()
        for name, clusters in parts.items()
    }


def _scores(sections: dict[str, Any], clusters: int | None, seed: int) -> dict[str, Any]:
    return {"method": METHOD, "clusters": clusters, "seed": seed, "sections": sections}

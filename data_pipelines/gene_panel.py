"""The genes that a model predicts: which they are, and the unit and scale that it learns them in.

They are ranked on the training sections, or named by a file; mean and scale are fitted on training
spots alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.genes import matching
from histospace_tf.data_pipelines.genes.lists import nearest_names, read_gene_file
from histospace_tf.vocabulary import (
    NORMALISATIONS,
    InputError,
    SpotTable,
    ids_by_name,
    json_values,
    repeats,
)

# Ways to rank genes for a panel; anything else in `target.panel` is a file of gene names.
PANEL_RULES = ("mean", "variance", "share")
# A deviation below this is float32 rounding in values of a few units: the gene counts as constant.
_CONSTANT_BELOW = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class GenePanel:
    """The genes that a model predicts, and the unit it predicts them in.

    genes: g names, the data's own.
    gene_ids: their ids (Ensembl's without version), "" for a gene without one; () where there is
        none at all.
    normalisation: one of NORMALISATIONS; a spot's counts are scaled to `target_sum` over all of its
        genes, then log1p (natural logarithm of 1 + x) or log10 of 1 + x.
    mean, scale: (g,) float32 in that unit, from training spots only; a model learns
        (value - mean) / scale, and `to_unit` turns its output back. Zeros and ones where the
        preset does not scale.
    """

    genes: tuple[str, ...]
    normalisation: str
    target_sum: float
    mean: np.ndarray
    scale: np.ndarray
    gene_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.genes:
            raise InputError("a gene panel needs at least one gene")
        if self.gene_ids and len(self.gene_ids) != len(self.genes):
            raise InputError(f"{len(self.genes)} genes, but {len(self.gene_ids)} gene ids")
        repeated = repeats(self.genes)
        if repeated:
            raise InputError(f"gene {repeated[0]!r} appears more than once in the panel")
        if self.normalisation not in NORMALISATIONS:
            raise InputError(
                f"normalisation {self.normalisation!r}: one of {', '.join(NORMALISATIONS)} works"
            )
        for what, values in (("mean", self.mean), ("scale", self.scale)):
            if values.shape != (len(self.genes),) or not np.isfinite(values).all():
                raise InputError(f"panel {what}: one finite number a gene is needed")
        if (self.scale <= 0).any():
            raise InputError("panel scale: every value must be above zero")

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def id_of(self) -> dict[str, str]:
        """Gene name -> its id, for the genes that have one."""
        return ids_by_name(self.genes, self.gene_ids)

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """(n, g) in the panel's unit -> (n, g) float32 that a head learns."""
        return ((values - self.mean) / self.scale).astype(np.float32)

    def measured(self, spots: SpotTable) -> np.ndarray:
        """(n, g) float32: what was measured of the panel's genes, in its unit."""
        return expression.targets(
            spots, self.genes, normalisation=self.normalisation, target_sum=self.target_sum
        )

    def to_unit(self, standardised: np.ndarray) -> np.ndarray:
        """(n, g) output of a head -> (n, g) float32 in the panel's unit."""
        return (standardised * self.scale + self.mean).astype(np.float32)

    def columns_of_var(self) -> dict[str, Any]:
        """What an AnnData's var says of the genes beside their names: gene_ids, where known, and
        centre and scale, float32: a head learns (value - centre) / scale."""
        ids = {"gene_ids": list(self.gene_ids)} if self.gene_ids else {}
        return {**ids, "centre": self.mean, "scale": self.scale}

    def to_json(self) -> dict[str, Any]:
        values = json_values(self)
        return values if self.gene_ids else {k: v for k, v in values.items() if k != "gene_ids"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GenePanel:
        return cls(
            genes=tuple(values["genes"]),
            normalisation=values["normalisation"],
            target_sum=float(values["target_sum"]),
            mean=np.asarray(values["mean"], np.float32),
            scale=np.asarray(values["scale"], np.float32),
            gene_ids=tuple(values.get("gene_ids", ())),
        )


def choose_panel(tables: Sequence[SpotTable], target: TargetConfig) -> tuple[str, ...]:
    """Chooses the genes to predict, on training sections alone.

    `target.panel` is "mean" (highest mean raw count over all training spots, so that deeply counted
    sections weigh more), "variance" (highest variance of the normalised values), "share" (largest
    share of spots with a count) or a file of gene names. Rules rank the genes that at least one
    training spot and at least `target.min_share` of the training spots express; the first
    `target.genes` are taken, all of them where fewer qualify. Equal ranks are ordered by name, so
    the order of sections and of columns does not matter. A file keeps its order and all its genes;
    the panel holds the data's names of them.

    Returns:
        Gene names, best first (a file's: in its order).
    Raises:
        InputError: no tables; no gene qualifies; or as `lists.read_gene_file`,
            `matching.genes_in_data` and `expression.normalised`.
    """
    if not sum(len(table) for table in tables):
        raise InputError("no training spots to choose a gene panel from")
    if target.panel not in PANEL_RULES:
        ids = {gene: own for table in tables for gene, own in table.id_of.items()}
        return matching.genes_in_data(
            panel_names(target.panel),
            _counted(tables),
            target.panel,
            ids=ids,
            orthologs=target.orthologs,
        )

    genes = sorted({gene for table in tables for gene in table.genes})
    row = {gene: at for at, gene in enumerate(genes)}
    n_spots = sum(len(table) for table in tables)
    counts, total, squares, expressing = np.zeros((4, len(genes)))
    for table in tables:
        at = np.array([row[gene] for gene in table.genes], dtype=np.intp)
        values = expression.normalised_table(table, target.normalisation, target.target_sum)
        values = values.astype(np.float64)
        counts[at] += np.asarray(table.counts.sum(axis=0, dtype=np.float64)).ravel()
        total[at] += np.asarray(values.sum(axis=0)).ravel()
        squares[at] += np.asarray(values.power(2).sum(axis=0)).ravel()
        expressing[at] += np.asarray((values > 0).sum(axis=0)).ravel()
    variance = squares / n_spots - (total / n_spots) ** 2
    share = expressing / n_spots
    score = {"mean": counts / n_spots, "variance": variance, "share": share}[target.panel]
    qualifies = (share > 0) & (expressing >= target.min_share * n_spots - 1e-6)
    if not qualifies.any():
        best = int(np.argmax(share))
        raise InputError(
            f"no gene is expressed in at least {target.min_share:g} of the {n_spots} training "
            f"spots; the most widespread, {genes[best]!r}, is in {share[best]:.3g}. Lower min_share"
        )
    # Rounded, so that the order in which sections are summed cannot break a tie.
    order = np.argsort(-np.round(score, 10), kind="stable")
    return tuple(genes[at] for at in order[qualifies[order]][: target.genes])


def panel_names(panel: str) -> tuple[str, ...]:
    """Reads the genes of a panel from a file; () where `panel` is a rule.

    Raises:
        InputError: neither a rule nor a file that exists, or as `lists.read_gene_file`.
    """
    if panel in PANEL_RULES:
        return ()
    if not Path(panel).exists():
        near = nearest_names(panel, PANEL_RULES, 1)
        raise InputError(
            f"gene panel {panel!r} is neither {', '.join(PANEL_RULES)} nor a file that exists"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return read_gene_file(Path(panel))


def gene_ids(tables: Sequence[SpotTable], genes: Sequence[str]) -> tuple[str, ...]:
    """The ids of genes, "" where no table has one; () where none has any."""
    known = {gene: gene_id for table in tables for gene, gene_id in table.id_of.items()}
    return tuple(known.get(gene, "") for gene in genes) if known.keys() & set(genes) else ()


def fit_panel(
    values: np.ndarray,
    groups: np.ndarray,
    genes: Sequence[str],
    target: TargetConfig,
    *,
    gene_ids: Sequence[str] = (),
) -> GenePanel:
    """Mean and scale of every gene over the training spots.

    Args:
        values: (n, g) training targets in the panel's unit.
        groups: (n,) section name of every spot.
        genes: g names; gene_ids: their ids, or ().
        target: `centre` and `scale` decide what is fitted:

            ==========  ========================  ===========================================
            centre      mean                      scale (ones where `target.scale` is False)
            ==========  ========================  ===========================================
            "none"      zeros                     deviation over the training spots
            "training"  over the training spots   deviation over the training spots
            "section"   over the training spots   deviation about each section's own mean,
                                                  pooled over sections: root of the mean square
            ==========  ========================  ===========================================

            With "section" a head learns the difference from the section's mean
            (`training_targets`); a new slide has no measured mean, so a prediction adds the
            training mean back.
    Returns:
        A panel with float32 mean and scale. A gene that is constant in training has scale 1.
    Raises:
        InputError: shapes that do not agree, no spots, values that are not finite.
    """
    values = _checked(values, groups, len(genes))
    mean = values.mean(axis=0)
    residual = values - (_section_means(values, groups) if target.centre == "section" else mean)
    deviation = np.sqrt(np.mean(residual**2, axis=0))
    scale = np.where(deviation > _CONSTANT_BELOW, deviation, 1.0)
    return GenePanel(
        genes=tuple(genes),
        normalisation=target.normalisation,
        target_sum=target.target_sum,
        mean=(np.zeros_like(mean) if target.centre == "none" else mean).astype(np.float32),
        scale=(scale if target.scale else np.ones_like(scale)).astype(np.float32),
        gene_ids=tuple(gene_ids),
    )


def training_targets(
    values: np.ndarray, groups: np.ndarray, panel: GenePanel, target: TargetConfig
) -> np.ndarray:
    """Targets that a head learns: values minus their mean, divided by the panel's scale.

    The mean is each section's own where `target.centre` is "section", else the panel's.

    Args:
        values: (n, g) in the panel's unit; groups: (n,) section name of every spot.
    Returns:
        (n, g) float32.
    Raises:
        InputError: as `fit_panel`.
    """
    values = _checked(values, groups, len(panel))
    if target.centre == "section":
        return ((values - _section_means(values, groups)) / panel.scale).astype(np.float32)
    return panel.standardise(values)


def _counted(tables: Sequence[SpotTable]) -> set[str]:
    """Genes with at least one count in one of the tables."""
    counted: set[str] = set()
    for table in tables:
        counted.update(table.genes[at] for at in np.unique(table.counts.nonzero()[1]))
    return counted


def _section_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n, g): every spot's row is the mean over its section."""
    _, member = np.unique(groups, return_inverse=True)
    means = np.stack([values[member == at].mean(axis=0) for at in range(int(member.max()) + 1)])
    return means[member]


def _checked(values: np.ndarray, groups: np.ndarray, n_genes: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != n_genes or len(values) == 0:
        raise InputError(
            f"{n_genes} genes need targets of shape (spots, {n_genes}) with at least "
            f"one spot, not {values.shape}"
        )
    if np.shape(groups) != (len(values),):
        raise InputError(f"{len(values)} spots, but section names of shape {np.shape(groups)}")
    if not np.isfinite(values).all():
        spot, gene = np.argwhere(~np.isfinite(values))[0]
        raise InputError(f"target of spot {spot}, gene {gene} is not a finite number")
    return values

"""Which genes a model predicts: ranked on the training sections, or named by a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression
from histospace_tf.data_pipelines.genes import matching
from histospace_tf.data_pipelines.genes.lists import nearest_names, read_gene_file
from histospace_tf.vocabulary import InputError, SpotTable

# Ways to rank genes for a panel; anything else in `target.panel` is a file of gene names.
PANEL_RULES = ("mean", "variance", "share")


def choose_panel(tables: Sequence[SpotTable], target: TargetConfig) -> tuple[str, ...]:
    """The genes to predict, chosen on training sections.

    `target.panel` is "mean" (highest mean raw count over all training spots, so that deeply counted
    sections weigh more), "variance" (highest variance of the normalised values), "share" (largest
    share of spots with a count) or a file of gene names. Rules rank the genes that at least one
    training spot and at least `target.min_share` of the training spots express; the first
    `target.genes` are taken, all of them where fewer qualify. Equal ranks are ordered by name, so
    the order of sections and of columns does not matter. A file is taken as it stands: its order,
    neither cut nor filtered; the panel holds the data's names of its genes.

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
    """The genes that a file names as a panel; none where `panel` is a rule.

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
    known = {gene: one for table in tables for gene, one in table.id_of.items()}
    return tuple(known.get(gene, "") for gene in genes) if known.keys() & set(genes) else ()


def _counted(tables: Sequence[SpotTable]) -> set[str]:
    """Genes with at least one count in one of the tables."""
    counted: set[str] = set()
    for table in tables:
        counted.update(table.genes[at] for at in np.unique(table.counts.nonzero()[1]))
    return counted

"""gene_sets.csv as lines for a terminal and as a part of a report's page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines.genes.gene_sets import LEAST_GENES
from histospace_tf.predictors import registry
from histospace_tf.reports import page
from histospace_tf.reports.data import Results
from histospace_tf.reports.page import Part, paragraph
from histospace_tf.scores import gene_sets

TOP, ON_PAGE = 5, 50  # sets that are shown: in a terminal, on a page
_NAME_WIDTH = 34
COLUMNS = (
    "The score of a spot is the mean over a set's genes of their values, each standardised by the "
    "training spots.",
    "Model: r of the predicted score with the measured one over the spots of a section, mean over "
    "sections; the gene mean, which sees no image, scores 0.",
    "Its genes: the mean r of these genes, each for itself.",
    "Random: the mean r of as many genes drawn from the panel; a set that is not above it may show "
    "no more than what all genes share.",
    "Depth: rank r of the measured score with a spot's total counts, which a mean of many genes "
    "follows more than single genes do.",
    "Interval, p and trust are made as those of genes.",
)


def lines(table: pd.DataFrame | None) -> list[str]:
    """The best sets as text at most 100 columns wide, an empty line at the end; [] without sets."""
    if table is None:
        return []
    scored, columns = _best(table), _columns(table)
    heads = [*(head for head, _ in columns), "genes", "trust"]
    text = [_line("gene sets, r over spots", heads, heads)]
    for row in scored[:TOP].to_dict("records"):
        cells = [*(_number(row[name]) for _, name in columns), _genes(row), row["trust"]]
        text.append(_line(f"  {row['set']}", cells, heads))
    summed = textwrap.wrap(_summed(table, scored), 100, subsequent_indent="  ")
    return [*text, *summed, ""]


def part(results: Results) -> Part | None:
    """The sets with their scores, best first."""
    table = results.gene_sets
    if table is None:
        return None
    scored, columns = _best(table), _columns(table)
    rows = {
        str(row["set"]): [
            *(row[name] for _, name in columns),
            f"{page.number(row['low'])} to {page.number(row['high'])}",
            row["p_spatial_bh"],
            page.TRUST.get(row["trust"], row["trust"]),
            _genes(row),
        ]
        for row in scored[:ON_PAGE].to_dict("records")
    }
    heads = ["set", *(head for head, _ in columns), "95 % interval", "p spatial bh", "trust"]
    body = [
        paragraph(_summed(table, scored)),
        page.folded("What the columns mean", paragraph(*COLUMNS)),
    ]
    if rows:
        caption = "Gene sets, best first" + f": the first {ON_PAGE}" * (len(scored) > ON_PAGE)
        table_html = page.grid_table(caption, [*heads, "genes in panel"], rows)
        body.append(f'<div class="pairs">{table_html}</div>')
    return "gene-sets", "Gene sets", "".join(body)


def _line(name: str, cells: Sequence[str], heads: Sequence[str]) -> str:
    name = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 3]}..."
    widths = [max(len(head) + 2, 11 if head == "genes" else 7) for head in heads]
    return f"{name:<{_NAME_WIDTH}}" + "".join(
        f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)
    )


def _best(table: pd.DataFrame) -> pd.DataFrame:
    scored = table[table["set_r"].notna()]
    return scored.sort_values("set_r", ascending=False, kind="stable")


def _columns(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(heading, column) of what is compared, those that some set has."""
    baselines = [
        (registry.label(entry.name), f"{entry.name}_r")
        for entry in registry.always()
        if entry.kind == "baseline"
    ]
    every = [("model", "set_r"), *baselines, ("its genes", "mean_gene_r"), ("random", "random_r")]
    every.append(("depth", "depth"))
    return [(head, name) for head, name in every if name in table and table[name].notna().any()]


def _summed(table: pd.DataFrame, scored: pd.DataFrame) -> str:
    """All sets in one sentence or two."""
    if not len(scored):
        return (
            f"None of {len(table)} gene sets was scored: {LEAST_GENES} genes in the "
            "panel are needed."
        )
    trust = scored["trust"]
    words = (
        f"{len(scored)} of {len(table)} gene sets scored: mean r {scored['set_r'].mean():.3f}, "
        f"of their genes alone {scored['mean_gene_r'].mean():.3f}, of as many genes drawn at "
        f"random {scored['random_r'].mean():.3f}; "
        f"{(trust == 'yes').sum()} trusted, {(trust == 'weak').sum()} weak ({gene_sets.FILE})."
    )
    if "colour_ridge_r" in scored:
        ahead = int((scored["set_r"] > scored["colour_ridge_r"]).sum())
        words += f" Better than the colour ridge: {ahead} of {len(scored)}."
    return words


def _genes(row: Mapping[str, Any]) -> str:
    return f"{row['in_panel']} of {row['genes']}"


def _number(value: float) -> str:
    return page.DASH if not np.isfinite(value) else f"{value:.3f}"

"""The part of a report on expression in groups of spots: tumour beside the rest, layers, clusters.

One figure per gene: distributions measured, predicted, and predicted by each compared predictor,
groups side by side in each section (the HistoSPACE paper's Figure 5, C and D), and every number of
it as a table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anndata
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from histospace_tf import outputs
from histospace_tf.predictors import registry
from histospace_tf.reports import cluster_maps, data, page, sentences
from histospace_tf.reports.data import Results
from histospace_tf.reports.figures import lettered, plain
from histospace_tf.reports.page import Part, paragraph
from histospace_tf.scores import groups
from histospace_tf.scores.groups import Groups

TABLE = "expression_by_group.csv"
KINDS = ("measured", "predicted")
MOST_GROUPS = 8  # shown, the largest
MOST_VIOLINS = 48  # of one panel; so many sections are shown, but no more than MOST_SECTIONS
MOST_SECTIONS = 12
BESIDE = 6  # sections, of more of which the two panels stand one above the other
POINTS = 150  # drawn of one violin
LEAST_SPOTS = 5  # of a violin's outline
GREY = "#A5A5A5"


def part(results: Results, shown: Sequence[str], folder: Path) -> Part | None:
    """One figure per gene of `shown`; writes TABLE, of all genes, and the figures into `folder`.

    None where nothing was predicted, or spots have neither labels nor clusters.
    """
    predictions = results.predictions
    if predictions is None or not shown:
        return None
    chosen = groups.of_spots(predictions.obs, data.positive_label(results))
    if chosen is None:
        return None
    others = [name for name in map(str, predictions.layers) if name != KINDS[0]]
    compared = [name for name in registry.in_order(others) if registry.kind(name) == "other"]
    table = groups.table(predictions, chosen, others=compared)
    if table.empty:
        return None
    table.to_csv(folder / TABLE, index=False, float_format="%.6g")
    first, *more = sentences.groups(chosen)
    body = [paragraph(first), _effects(table, shown, chosen)]
    body.append(page.folded("How to read these numbers", paragraph(*more)))
    drawn: dict[str, str] = {}
    for gene in shown:
        rows = table[table["gene"] == gene]
        if rows.empty:
            continue
        drawn[gene] = page.drawn(
            figure(predictions, gene, chosen, rows),
            folder,
            f"groups_{outputs.file_name(gene)}",
            wide=True,
            alt=f"Distribution of {gene} in each group of spots, measured and predicted",
            caption=_caption(gene, rows, chosen),
        )
    if drawn:
        body.append(page.folded(f"Distributions: {', '.join(drawn)}", "".join(drawn.values())))
    return "groups", "Expression in groups of spots", "".join(body)


def figure(predictions: anndata.AnnData, gene: str, chosen: Groups, rows: pd.DataFrame) -> Figure:
    """Violins of one gene, measured, predicted, and predicted by each other, on one scale.

    Args:
        predictions: X predicted, layers["measured"] and of others in `rows`, obs["section"].
        chosen: the groups of its spots. rows: the gene's of `groups.table`.
    """
    names = _shown_groups(rows, chosen)
    sections = _shown_sections(rows, len(names))
    colours = _colours(chosen)
    alone = len(sections) == 1
    kinds = list(dict.fromkeys(rows["values"]))
    beside = 2 if len(sections) <= BESIDE else 1
    shape = (-(-len(kinds) // beside), beside)
    whole = Figure(figsize=(11.6, 0.4 + 3.1 * shape[0]), layout="constrained")
    panels = whole.subplots(*shape, sharey=True, squeeze=False).ravel()
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    panels = panels[: len(kinds)]
    column = dict(zip(KINDS, reversed(data.both(predictions[:, gene])), strict=True))
    column |= {name: predictions[:, gene].layers[name] for name in kinds if name not in KINDS}
    unit = str(predictions.var.loc[gene, "unit"]) if "unit" in predictions.var else "expression"
    section_of = predictions.obs["section"].astype(str).to_numpy()
    for number, (axes, kind) in enumerate(zip(panels, kinds, strict=True)):
        own = rows[rows["values"] == kind].set_index(["section", "group"])
        ticks: dict[float, str] = {}
        for place, section in enumerate(sections):
            for at, name in enumerate(names):
                if (section, name) not in own.index:
                    continue
                x = float(at) if alone else place + (at - (len(names) - 1) / 2) * 0.84 / len(names)
                inside = (section_of == section) & (chosen.of_spot == name)
                values = np.asarray(column[kind][inside, 0], np.float64)
                _violin(axes, x, 0.8 if alone else 0.78 / len(names), values, colours[name])
                fact = own.loc[(section, name)]
                if alone:
                    words = "\n".join(_lines(name, max(9, 60 // len(names))))
                    ticks[x] = f"{words}\nn {fact['spots']}"
                    if at == 0 or len(chosen.names) > 2:
                        ticks[x] += f"\n{_auroc(fact['auroc'])}"
                elif at == 0:
                    counts = [own["spots"].get((section, group), 0) for group in names]
                    words = f"n {', '.join(map(str, counts))}"
                    ticks[float(place)] = "\n".join([*_lines(section, 12), *_lines(words, 14)])
                    if len(chosen.names) == 2:
                        ticks[float(place)] += f"\n{_auroc(fact['auroc'])}"
        axes.set_xticks(list(ticks), [plain(words) for words in ticks.values()], fontsize=8)
        axes.set_ylabel(plain(f"{gene}, {unit}") if number % beside == 0 else "")
        where = f", section {plain(sections[0])}" if alone else ""
        axes.set_title(_in_words(kind) + where, fontsize=10)
        axes.grid(axis="y", color="#e5e5e5")
        axes.set_axisbelow(True)
        lettered(axes, number)
    if not alone:
        patches = [
            Patch(facecolor=colours[name], edgecolor="black", linewidth=0.5, label=plain(name))
            for name in names
        ]
        whole.legend(
            handles=patches, loc="outside lower center", ncols=4, frameon=False, fontsize=9
        )
    return whole


def _in_words(kind: str) -> str:
    """A kind of values for a reader."""
    return kind if kind in KINDS else plain(registry.label(kind))


def _violin(axes: Axes, x: float, width: float, values: np.ndarray, colour: str) -> None:
    """Density, quartiles and median of a group's spots, and the spots themselves."""
    if len(values) >= LEAST_SPOTS and np.ptp(values) > 0:
        drawn = axes.violinplot(values, [x], widths=width, showextrema=False)
        for body in cast(list[PolyCollection], drawn["bodies"]):
            body.set(facecolor=colour, edgecolor="black", linewidth=0.6, alpha=0.55)
    some = np.sort(values)[np.unique(np.linspace(0, len(values) - 1, POINTS).astype(int))]
    beside = np.random.default_rng(0).uniform(-0.22, 0.22, len(some)) * width
    axes.scatter(x + beside, some, s=4, color="black", alpha=0.35, linewidths=0, rasterized=True)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([x, x], [low, high], color="black", linewidth=2.2, solid_capstyle="butt")
    axes.plot(x, median, "o", color="white", markeredgecolor="black", markersize=5)


def _shown_groups(rows: pd.DataFrame, chosen: Groups) -> list[str]:
    """The largest MOST_GROUPS, in their order."""
    spots = rows[rows["values"] == KINDS[0]].groupby("group")["spots"].sum()
    largest = set(spots.sort_values(ascending=False, kind="stable").index[:MOST_GROUPS])
    return [name for name in chosen.names if name in largest]


def _shown_sections(rows: pd.DataFrame, n_groups: int) -> list[str]:
    most = min(MOST_SECTIONS, max(1, MOST_VIOLINS // max(1, n_groups)))
    return list(dict.fromkeys(rows["section"]))[:most]


def _colours(chosen: Groups) -> dict[str, str]:
    if chosen.positive:
        return {chosen.positive: cluster_maps.POSITIVE_COLOUR, groups.OTHER: GREY}
    return cluster_maps.colours_of(list(chosen.names), "")


def _auroc(value: float) -> str:
    return f"AUROC {value:.2f}" if np.isfinite(value) else "no other spots"


def _lines(words: str, width: int) -> list[str]:
    """Text below a violin in lines that leave room for the next one's."""
    return textwrap.wrap(words, width)


def _caption(gene: str, rows: pd.DataFrame, chosen: Groups) -> str:
    names, known = _shown_groups(rows, chosen), rows["group"].nunique()
    sections, of = _shown_sections(rows, len(names)), rows["section"].nunique()
    words = [
        f"{gene}: violins are densities of a section's spots, dots spots (at most {POINTS} of "
        "each), bars quartiles, circles medians; n: spots."
    ]
    if len(chosen.names) == 2:
        words.append(f"AUROC: {names[0]} against the others.")
    if len(names) < known:
        words.append(f"The {len(names)} largest of {known} groups.")
    if len(sections) < of:
        words.append(f"The first {len(sections)} of {of} sections.")
    return " ".join(words)


def _effects(table: pd.DataFrame, shown: Sequence[str], chosen: Groups) -> str:
    """AUROC and difference of medians of the shown genes: means over sections."""
    rows = table[table["gene"].isin(shown) & np.isfinite(table["auroc"])]
    if rows.empty:
        return ""
    if not chosen.by_label:  # cluster 0 of one section is no other's
        words = "The cluster in which a gene is predicted highest against the other spots"
        return f'<div class="pairs">{_means(words, _predicted_highest(rows), shown)}</div>'
    names = _shown_groups(rows, chosen)
    names = names[:1] if len(chosen.names) == 2 else names  # the other group says the same
    tables = [
        _means(f"{name} against the other spots", rows[rows["group"] == name], shown)
        for name in names
    ]
    return f'<div class="pairs">{"".join(tables)}</div>'


def _predicted_highest(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one group per gene and section: where predicted values lie highest above others."""
    predicted = rows[rows["values"] == KINDS[1]]
    best = predicted.loc[predicted.groupby(["gene", "section"])["auroc"].idxmax()]
    return rows.merge(best[["gene", "section", "group"]], on=["gene", "section", "group"])


def _means(caption: str, rows: pd.DataFrame, shown: Sequence[str]) -> str:
    means = rows.groupby(["gene", "values"])[["auroc", "difference_of_medians"]].mean()
    effects = {"auroc": "AUROC", "difference_of_medians": "difference of medians"}
    kinds = list(dict.fromkeys([*KINDS, *rows["values"]]))
    lines = {
        gene: [means[what].get((gene, kind)) for what in effects for kind in kinds]
        for gene in dict.fromkeys(shown)
    }
    heads = [
        "gene",
        *(f"{words}, {_in_words(kind)}" for words in effects.values() for kind in kinds),
    ]
    if rows["section"].nunique() > 1:
        caption += ", mean over sections"
    return page.grid_table(caption, heads, lines, digits=2)

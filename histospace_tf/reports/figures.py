"""Figures of a report, each a matplotlib Figure; `save` writes one as PNG and SVG.

Series differ in colour (Okabe and Ito's, which colour-blind readers tell apart) and in marker or
line, so that they differ in grey too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from histospace_tf.predictors import baselines, registry
from histospace_tf.predictors.predictor import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from histospace_tf.reports import data
from histospace_tf.reports.data import MODEL

SERIES = tuple(
    zip(
        (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK),
        ("o", "^", "s", "D", "v", "P", "X"),
        ("-", "--", ":", "-.", "-", "--", ":"),
        strict=True,
    )
)
DPI = 110
TILES = 6  # reconstructions shown
WIDE_RANGE = 5  # losses that differ by more than this factor get a logarithmic axis
BEST_NAMED = 5  # genes named in the sorted figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes FOLDER/NAME.png and NAME.svg; the same figure gives the same bytes."""
    figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # laid out now; once more would take as long as drawing
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.image_inline": True}):
        figure.savefig(folder / f"{name}.svg", dpi=DPI, metadata={"Date": None, "Creator": None})


def gene_r_by_section(scores: Mapping[str, Any]) -> Figure:
    """Mean r per gene of every predictor, one line per section, and their mean."""
    names = data.predictors(scores)
    blocks = {name: entry["rows"] for name, entry in scores["sections"].items()}
    if len(blocks) > 1:
        blocks["mean"] = scores["mean"]
    figure = Figure(figsize=(8.2, 1.5 + 0.42 * len(blocks)), layout="constrained")
    axes = figure.subplots()
    for name in names:
        at = [
            (r, y)
            for y, rows in enumerate(blocks.values())
            if (r := (rows.get(name) or {}).get("gene_r")) is not None
        ]
        colour, marker = registry.style(name, names)
        if at:
            axes.plot(
                *zip(*at, strict=True),
                linestyle="",
                marker=marker,
                color=colour,
                markersize=9 if name == MODEL else 7,
                label=plain(registry.label(name)),
                zorder=3 if name == MODEL else 2,
            )
    axes.set_yticks(range(len(blocks)), [plain(name) for name in blocks])
    axes.set_ylim(len(blocks) - 0.5, -0.5)
    axes.set_xlabel("gene_r: mean over genes of r over a section's spots (no unit)")
    axes.set_ylabel("held-out section")
    axes.grid(axis="x", color="#dddddd")
    axes.axvline(0, color="#888888", linewidth=1)
    if len(blocks) > 1 and "mean" in blocks:
        axes.axhline(len(blocks) - 1.5, color="#888888", linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def learning_curves(history: pd.DataFrame, stages: Mapping[str, str], unit: str) -> Figure:
    """Training and validation loss per epoch, one panel each.

    Args:
        history: columns stage, epoch, loss and, where there was validation, val_loss.
        stages: regular expression of stages -> name in the legend; where several stages or folds
            match, their mean is drawn and their range shaded.
        unit: of the loss, for the axis.
    """
    columns = {"loss": "training"}
    if "val_loss" in history and pd.to_numeric(history["val_loss"], errors="coerce").notna().any():
        columns["val_loss"] = "validation"
    figure = Figure(figsize=(4.2 * len(columns) + 1.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (column, title) in zip(panels, columns.items(), strict=True):
        _curves(axes, history, stages, column)
        axes.set_title(title)
    lowest = min(axes.dataLim.y0 for axes in panels)
    if max(axes.dataLim.y1 for axes in panels) > WIDE_RANGE * lowest > 0:
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel(f"loss ({unit})")
    _legend(figure, panels[0])
    return figure


def correlations(
    history: pd.DataFrame, stages: Mapping[str, str], *, along: str = "epoch"
) -> Figure:
    """Both correlations on the inner validation groups; `stages` as `learning_curves`.

    Args:
        along: column on the horizontal axis: "epoch", or "strength" of a ridge, logarithmic.
    """
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {
        "val_gene_r": "gene_r: per gene, over spots",
        "val_spot_r": "spot_r: per spot, over genes",
    }
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        _curves(axes, history, stages, column, along=along)
        axes.set_title(title)
        axes.set_ylabel("Pearson r (no unit)")
    _legend(figure, panels[0])
    return figure


def _curves(
    axes: Axes,
    history: pd.DataFrame,
    stages: Mapping[str, str],
    column: str,
    *,
    along: str = "epoch",
) -> None:
    for place, (pattern, name) in enumerate(stages.items()):
        chosen = history[[bool(re.fullmatch(pattern, str(s))) for s in history["stage"]]]
        values = pd.to_numeric(chosen[column], errors="coerce")
        values = values.where(np.isfinite(values))
        along_axis = values.groupby(pd.to_numeric(chosen[along])).agg(["mean", "min", "max"])
        along_axis = along_axis.dropna()
        if along_axis.empty:
            continue
        colour, marker, line = SERIES[place % len(SERIES)]
        axes.plot(
            along_axis.index,
            along_axis["mean"],
            line,
            color=colour,
            marker=marker,
            markersize=4,
            label=plain(name),
        )
        if (along_axis["max"] > along_axis["min"]).any():
            axes.fill_between(
                along_axis.index,
                along_axis["min"],
                along_axis["max"],
                color=colour,
                alpha=0.15,
                lw=0,
            )
    if along == "strength":
        axes.set_xlabel("strength of the penalty (no unit)")
        axes.set_xscale("log")
    else:
        axes.set_xlabel(along)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e5e5e5")


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9
    )


def reconstructions(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Input tiles above what each autoencoder makes of them, with its MSE on [0, 1].

    Args:
        pictures: "tiles" and one per variant, each (n, s, s, 3) uint8.
    """
    tiles = pictures["tiles"]
    names = ["tiles", *sorted(name for name in pictures if name != "tiles")]
    shown = min(TILES, len(tiles))
    figure = Figure(figsize=(1.35 * shown + 1.5, 1.45 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), shown, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        error = np.square((pictures[name].astype(np.float32) - tiles) / 255).mean()
        words = re.sub(r"^variant_", "AutoEncoder ", name)
        text = "input" if name == "tiles" else f"{words}\nMSE {error:.4f}"
        row[0].set_ylabel(text, rotation=0, ha="right", va="center")
        for axes, picture in zip(row, pictures[name], strict=False):
            axes.imshow(picture)
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def genes_sorted(table: pd.DataFrame) -> Figure:
    """r of every gene, best predicted first, baselines at the same gene.

    Args:
        table: index gene, one column per predictor, sorted by the model's.
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes = figure.subplots()
    rank = np.arange(1, len(table) + 1)
    names = list(table)
    behind = [name for name in names if _stands_behind(name)]
    for name in behind:
        colour, marker = registry.style(name, names)
        axes.plot(
            rank,
            table[name],
            linestyle="",
            marker=marker,
            color=colour,
            markersize=3.5,
            alpha=0.75,
            label=plain(registry.label(name)),
        )
    colour, _ = registry.style(MODEL, names)
    label = plain(registry.label(MODEL))
    axes.plot(rank, table[MODEL], color=colour, linewidth=2.5, label=label, zorder=3)
    label = registry.label(baselines.GeneMean.name, note="0 at every gene")
    axes.axhline(0, color="black", linewidth=1, label=label)
    best = ", ".join(table.index[:BEST_NAMED])
    axes.set_title(plain(f"best predicted: {best}"), fontsize=10, loc="left")
    axes.set_xlabel("genes, best predicted by the model first (rank)")
    axes.set_ylabel("r over a section's spots,\nmean over sections (no unit)")
    axes.grid(axis="y", color="#e5e5e5")
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", frameon=False, ncols=4, fontsize=9)
    return figure


def _stands_behind(name: str) -> bool:
    """Whether a predictor is drawn behind the model; the line at 0 shows the constant ones."""
    entry = registry.entry(name)
    return entry is None or (entry.kind != "ours" and entry.varies_in_section)


def plain(text: str) -> str:
    """Text as it is: a "$" of a gene or section name starts no formula in matplotlib."""
    return text.replace("$", r"\$")

"""Figures of a report, each a matplotlib Figure; `save` writes one as PNG and SVG.

Series differ in colour (Okabe and Ito's, which colour-blind readers tell apart) and in marker or
line, so that they differ in grey too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histospace_tf.predictors import baselines, registry
from histospace_tf.reports import data
from histospace_tf.reports.data import MODEL
from histospace_tf.scores import intervals

DPI = 110
BEST_NAMED = 5  # genes that the figure of all genes names
KEY_COLUMNS = 3


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
    key_lines = -(-len(names) // KEY_COLUMNS)
    height = 0.9 + 0.36 * len(blocks) + 0.22 * key_lines
    figure = Figure(figsize=(5.6, height), layout="constrained")
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
    axes.set_xlabel("gene_r: mean of r over a section's spots (no unit)")
    axes.set_ylabel("held-out section" if len(blocks) > 1 else "")
    axes.grid(axis="x", color="#dddddd")
    axes.axvline(0, color="#888888", linewidth=1)
    if len(blocks) > 1 and "mean" in blocks:
        axes.axhline(len(blocks) - 1.5, color="#888888", linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=KEY_COLUMNS, frameon=False, fontsize=9)
    return figure


def genes_beside(table: pd.DataFrame) -> tuple[Figure, str] | None:
    """r of every gene, the model's beside the colour ridge's, and a caption; None without both.

    Args:
        table: index gene, one column per predictor, sorted by the model's.
    """
    ridge = baselines.ColourRidge.name
    if ridge not in table or MODEL not in table:
        return None
    known = table[[ridge, MODEL]].dropna()
    if known.empty:
        return None
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    colour, _ = registry.style(MODEL, list(table))
    axes.plot(known[ridge], known[MODEL], "o", color=colour, markersize=4.5, alpha=0.6, mew=0)
    low, high = float(known.min(axis=None)), float(known.max(axis=None))
    margin = 0.05 * max(high - low, 0.1)
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color="black", linewidth=1)
    axes.axhline(0, color="#888888", linewidth=0.8, linestyle=":")
    axes.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    best = ", ".join(str(gene) for gene in known.index[:BEST_NAMED])
    axes.set_title(plain(f"best predicted: {best}"), fontsize=10, loc="left")
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel(f"{registry.label(ridge)}: r over a section's spots (no unit)")
    axes.set_ylabel(f"{registry.label(MODEL)}: r over a section's spots (no unit)")
    axes.grid(color="#e5e5e5")
    ahead = int((known[MODEL] > known[ridge]).sum())
    caption = (
        f"One mark per gene, the mean over sections. Above the line the model is ahead: {ahead} of "
        f"{len(known)} genes. Left of, or below, the dotted lines a map is worse than none."
    )
    return figure, caption


def reached(table: pd.DataFrame) -> Figure | None:
    """What intervals of genes should hold and what they held; None where no gene's is known.

    Args:
        table: of `intervals.read`.
    """
    shares = 100 * table[[intervals.column("reached", level) for level in intervals.LEVELS]]
    shares = shares.dropna()
    if shares.empty:
        return None
    wanted = [100 * level for level in intervals.LEVELS]
    low, middle, high = shares.quantile([0.1, 0.5, 0.9]).to_numpy()
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.subplots()
    colour, marker = registry.style(MODEL, [MODEL])
    axes.plot([0, 100], [0, 100], color="black", linewidth=1)
    axes.errorbar(
        wanted, middle, (middle - low, high - middle), fmt=marker, color=colour, capsize=4
    )
    axes.set(xlim=(40, 100), ylim=(min(40, low.min() - 5), 100), aspect="equal")
    axes.set_xlabel("should hold, % of values")
    axes.set_ylabel("held on what was left out, %")
    axes.grid(color="#e5e5e5")
    return figure


def letter(number: int) -> str:
    """A panel's letter: A for 0, B for 1, ..., AA for 26."""
    return (letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def lettered(axes: Axes, number: int) -> None:
    """Writes a panel's letter above its upper left corner."""
    axes.set_title(letter(number), loc="left", fontsize=11, fontweight="bold")


def plain(text: str) -> str:
    """Text as it is: a "$" of a gene or section name starts no formula in matplotlib."""
    return text.replace("$", r"\$")

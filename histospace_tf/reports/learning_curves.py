"""Curves of training: loss and correlations per epoch, correlations per strength of a penalty.

A curve is drawn of one training or of several alike (inner groups, folds). Several are drawn thin,
and their mean bold, only as far as all of them run: a mean over those that are left would jump
where one stops.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from histospace_tf.predictors.predictor import BLACK, BLUE, GREEN, ORANGE, PURPLE
from histospace_tf.reports import sentences
from histospace_tf.reports.figures import lettered, plain

WIDE_RANGE = 5  # losses that differ by more than this factor get a logarithmic axis
MARKERS = 12  # at most about so many on a curve
THIN = 0.8


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve of a panel: a column of history.csv, and how it is drawn.

    whole: of trainings on the whole training side; else of those that had validation.
    """

    column: str
    label: str
    colour: str
    marker: str
    style: str | tuple[int, tuple[int, ...]]
    whole: bool = False


LOSSES = (
    Line("loss", "training", BLUE, "o", "-"),
    Line("val_loss", "validation", ORANGE, "^", "--"),
    Line("loss", "training, whole side", BLACK, "x", ":", whole=True),
)
CORRELATIONS = (
    Line("gene_r", "gene_r, training", GREEN, "", ":"),
    Line("spot_r", "spot_r, training", PURPLE, "", (0, (1, 3))),
    Line("val_gene_r", "gene_r, validation", GREEN, "s", "-"),
    Line("val_spot_r", "spot_r, validation", PURPLE, "D", "-."),
)


@dataclasses.dataclass(frozen=True)
class Family:
    """Trainings that one column of panels shows.

    name: above its first panel. validated, whole: stages of history.csv with validation spots or
        tiles, and on the whole training side.
    """

    name: str
    validated: tuple[str, ...]
    whole: tuple[str, ...] = ()


def autoencoders(history: pd.DataFrame) -> list[Family]:
    """The three variants that are studied."""
    return [
        Family(f"AutoEncoder {name.rpartition('_')[2]}", (name,))
        for name in sorted(_stages(history))
        if re.fullmatch(r"autoencoder_\d+", name)
    ]


def own_autoencoder(history: pd.DataFrame) -> list[Family]:
    """The autoencoder whose encoder the model has; none where that came from elsewhere."""
    return [Family("", ("autoencoder",))] if "autoencoder" in _stages(history) else []


def complexities(history: pd.DataFrame) -> list[Family]:
    """The heads of one, two or three convolution blocks that are studied."""
    return [
        Family(f"head of {sentences.count(int(name[5:]), 'block')}", (name,))
        for name in sorted(_stages(history))
        if re.fullmatch(r"head_\d+", name)
    ]


def heads(history: pd.DataFrame, *, of_slides: bool = False) -> list[Family]:
    """The model's heads and those compared with it, on inner groups and on the whole side."""
    families: dict[str, list[str]] = {}
    names = _stages(history)
    for name in names:
        match = re.fullmatch(r"(.+)_inner\d+", name)
        if match or not re.fullmatch(r"autoencoder(_\d+)?|head_\d+", name):
            families.setdefault(match[1] if match else name, []).append(name)
    return [
        Family(
            sentences.head(family, of_slides=of_slides),
            tuple(name for name in of_family if name != family),
            (family,) if family in names else (),
        )
        for family, of_family in families.items()
    ]


def figure(
    history: pd.DataFrame, families: Sequence[Family], unit: str, *, alike: bool = True
) -> Figure | None:
    """Loss per epoch, training and validation on one axis; below, both correlations.

    Rows and families of which history.csv has no number are left out.

    Args:
        unit: of the loss, for the axis.
        alike: all families learned the same targets, so that their losses share an axis.
    Returns:
        None where there is nothing to draw.
    """
    rows = {f"loss ({unit})": LOSSES, "Pearson r (no unit)": CORRELATIONS}
    kept = [f for f in families if any(drawable(history, f, lines) for lines in rows.values())]
    rows = {
        words: lines
        for words, lines in rows.items()
        if any(drawable(history, family, lines) for family in kept)
    }
    if not kept:
        return None
    whole = Figure(figsize=(3.5 * len(kept) + 2.2, 3.1 * len(rows) + 0.2), layout="constrained")
    grid = whole.subplots(len(rows), len(kept), squeeze=False, sharey="row" if alike else "none")
    draw(grid, history, kept, rows)
    key(whole, grid)
    return whole


def draw(
    grid: np.ndarray,
    history: pd.DataFrame,
    families: Sequence[Family],
    rows: Mapping[str, Sequence[Line]],
    *,
    first_letter: int = 0,
) -> None:
    """Fills (rows, families) axes: one row per label of the vertical axis and its lines."""
    letter = first_letter
    for number, (axes_row, (words, lines)) in enumerate(zip(grid, rows.items(), strict=True)):
        labelled = False
        for axes, family in zip(axes_row, families, strict=True):
            axes.set_title(plain(family.name) if number == 0 else "", fontsize=10)
            if not drawable(history, family, lines):
                axes.set_axis_off()
                axes.text(0.5, 0.5, "no validation by epoch", ha="center", transform=axes.transAxes)
                continue
            for line in lines:
                _draw(axes, _runs(history, family, line, "epoch"), line)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(color="#e5e5e5")
            axes.set_xlabel("epoch")
            axes.set_ylabel("" if labelled else words)
            labelled = True
            if grid.size > 1:
                lettered(axes, letter)
            letter += 1
            if lines is LOSSES:
                _logarithmic_if_wide(axes)


def strengths(history: pd.DataFrame, families: Sequence[Family]) -> Figure | None:
    """Both correlations by the strength of the penalty; lines mark the strengths that were chosen.

    Returns:
        None where no strength was tried.
    """
    if "strength" not in history:
        return None
    kept = [f for f in families if drawable(history, f, CORRELATIONS, along="strength")]
    if not kept:
        return None
    whole = Figure(figsize=(3.9 * len(kept) + 2.2, 3.4), layout="constrained")
    grid = whole.subplots(1, len(kept), sharey=True, squeeze=False)
    for number, (axes, family) in enumerate(zip(grid[0], kept, strict=True)):
        for line in CORRELATIONS:
            _draw(axes, _runs(history, family, line, "strength"), line)
        chosen = _chosen(history, family)
        for place, strength in enumerate(chosen):
            label = "" if place else "chosen" + (" (by each fold)" if len(chosen) > 1 else "")
            axes.axvline(strength, color=BLACK, linestyle=":", linewidth=1.2, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("strength of the penalty (no unit)")
        axes.set_title(plain(family.name), fontsize=10)
        axes.grid(color="#e5e5e5")
        if len(kept) > 1:
            lettered(axes, number)
    grid[0, 0].set_ylabel("Pearson r (no unit)")
    key(whole, grid)
    return whole


def key(whole: FigureBase, grid: np.ndarray, *, below: bool = False) -> None:
    """One legend for all panels, beside or below them."""
    entries: dict[str, Artist] = {}
    for axes in grid.ravel():
        handles, labels = axes.get_legend_handles_labels()
        entries = {**dict(zip(labels, handles, strict=True)), **entries}
    order = [line.label for line in (*LOSSES, *CORRELATIONS)]
    labels = sorted(entries, key=lambda label: order.index(label) if label in order else 99)
    handles = [entries[label] for label in labels]
    whole.legend(
        handles,
        labels,
        loc="outside lower center" if below else "outside right upper",
        ncols=len(labels) if below else 1,
        frameon=False,
        fontsize=9,
    )


def _stages(history: pd.DataFrame) -> list[str]:
    return [str(name) for name in dict.fromkeys(history["stage"])]


def drawable(
    history: pd.DataFrame, family: Family, lines: Sequence[Line], along: str = "epoch"
) -> bool:
    """Whether a line would be one: a single dot shows nothing."""
    return any(len(run) > 1 for line in lines for run in _runs(history, family, line, along))


def _runs(history: pd.DataFrame, family: Family, line: Line, along: str) -> list[pd.Series]:
    """One curve per training, its values indexed by epoch or strength; none of them is empty."""
    stages = family.whole if line.whole else family.validated
    if line.column not in history or along not in history:
        return []
    rows = history[history["stage"].astype(str).isin(stages)]
    apart = ["stage", *(["fold"] if "fold" in history else [])]
    if along == "epoch" and "strength" in history:
        apart.append("strength")  # trainings of one stage with several penalties
    numbers = pd.DataFrame(
        {
            "along": pd.to_numeric(rows[along], errors="coerce"),
            "value": pd.to_numeric(rows[line.column], errors="coerce"),
            **{name: rows[name].astype(str) for name in apart},
        }
    )
    numbers = numbers[np.isfinite(numbers[["along", "value"]]).all(axis=1)]
    return [
        part.groupby("along")["value"].last()
        for _, part in numbers.groupby(apart, sort=False)
        if len(part)
    ]


def _chosen(history: pd.DataFrame, family: Family) -> list[float]:
    rows = history[history["stage"].astype(str).isin(family.whole)]
    values = pd.to_numeric(rows["strength"], errors="coerce")
    return sorted(set(values[np.isfinite(values)]))


def _draw(axes: Axes, runs: Sequence[pd.Series], line: Line) -> None:
    """Every training thin, and their mean as far as all run; a single one as it is."""
    if not runs:
        return
    if len(runs) > 1:
        for run in runs:
            axes.plot(
                run.index, run, linestyle=line.style, color=line.colour, linewidth=THIN, alpha=0.5
            )
    table = pd.concat(list(runs), axis=1).dropna()
    mean = table.mean(axis=1)
    axes.plot(
        mean.index,
        mean,
        linestyle=line.style,
        color=line.colour,
        marker=line.marker,
        markersize=4,
        markevery=max(1, len(mean) // MARKERS),
        linewidth=2.0,
        label=line.label,
    )


def _logarithmic_if_wide(axes: Axes) -> None:
    """A logarithmic axis where its losses, and those of axes that share it, differ by much."""
    sharing = axes.get_shared_y_axes().get_siblings(axes)
    lowest = min(one.dataLim.y0 for one in sharing)
    if max(one.dataLim.y1 for one in sharing) > WIDE_RANGE * lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())

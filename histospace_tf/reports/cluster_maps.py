"""Maps of clusters of spots, beside each other and beside labels, over the H&E."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from histospace_tf import outputs
from histospace_tf.predictors.predictor import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from histospace_tf.reports import maps
from histospace_tf.reports.figures import lettered, plain
from histospace_tf.scores import cluster_matching
from histospace_tf.vocabulary import InputError, named

# obs columns that `cluster_figure` draws, and what stands above them.
SHOWN = {
    "cluster_predicted": "predicted",
    "cluster_measured": "measured",
    "cluster_all_genes": "measured, all genes",
    "cluster_total_counts": "total counts alone",
}
# Okabe and Ito's colours, told apart by colour-blind readers. Vermilion is cancer's alone, and a
# cluster beside it is grey, so that no cluster looks like some other label.
POSITIVE_COLOUR = VERMILION
COLOURS = (SKY, "#F0E442", GREEN, BLUE, PURPLE, ORANGE)
# Where there are more: Paul Tol's muted scheme (personal.sron.nl/~pault), for colour-blind readers.
MORE_COLOURS = (
    "#88CCEE",
    "#CC6677",
    "#DDCC77",
    "#117733",
    "#332288",
    "#AA4499",
    "#44AA99",
    "#999933",
    "#882255",
    "#000000",
)
NO_LABEL_COLOUR = "#DDDDDD"

# Of one map: the value that is cancer ("" for none), its heading, value -> the label that it is
# matched to, and value -> colour in the order of the legend.
Legend = tuple[str, str, dict[str, str], dict[str, str]]


def cluster_figure(
    table: anndata.AnnData,
    overview_rgb: np.ndarray | None,
    px_per_overview_px: float,
    path: Path,
    *,
    title: str,
    positive: str = "invasive cancer",
    mpp: float | None = None,
    spot_diameter_um: float | None = None,
) -> None:
    """Maps of clusters beside each other and beside the annotation, over the H&E.

    Vermilion discs with a dark rim are cancer: the label `positive`, and in a map of clusters the
    one that matches it best. Where no spot has that label, every cluster has the colour of the
    label that it is paired with.

    Args:
        table: one section; obs columns of SHOWN and label where known, obsm["spatial"].
        overview_rgb: (h, w, 3) uint8 of the whole image; None: discs on white.
        px_per_overview_px: full-resolution pixels per overview pixel (not used without one).
        path: where to; its ending says which format (.png, .svg); written whole or not at all.
        mpp, spot_diameter_um: for the scale bar and the discs' size, where known.
    Raises:
        InputError: spots of several sections, or neither clusters nor labels.
    """
    sections = sorted(set(table.obs["section"].astype(str)))
    if len(sections) != 1:
        raise InputError(f"a map shows one section; the table holds spots of {named(sections)}")
    wanted = drawn_columns(table)
    if not wanted:
        raise InputError(f"section {sections[0]!r} has neither clusters nor labels to draw")
    centres = np.asarray(table.obsm["spatial"])
    diameter = maps.spot_diameter_px(spot_diameter_um, mpp, centres)
    across, down = (maps.around(centres[:, axis], diameter) for axis in (0, 1))
    if overview_rgb is None:
        px_per_overview_px = max(across[1], down[1]) / 100
        if mpp is not None:  # room for the scale bar below the spots
            down = (down[0], down[1] + 0.12 * (down[1] - down[0]))
        height, width = (math.ceil(v[1] / px_per_overview_px) for v in (down, across))
        overview = np.full((height, width, 3), 255, np.uint8)
    else:
        overview = overview_rgb
    shape = min(max((down[1] - down[0]) / (across[1] - across[0]), 0.3), 2.0)
    n_panels = len(wanted) + (overview_rgb is not None)
    key_rows = max(table.obs[column].nunique() for column in wanted)
    size = (3.1 * n_panels, 3.0 * shape + 0.2 * key_rows + 1.3)  # inches; headings take the rest
    figure = Figure(figsize=size, layout="compressed")
    panels = list(figure.subplots(1, n_panels, squeeze=False)[0])
    labels = table.obs["label"].astype(str).tolist() if "label" in wanted else []
    measured = None
    if {"cluster_predicted", "cluster_measured"} <= set(wanted):
        measured = table.obs["cluster_measured"].astype(str).tolist()
    maps.show_image(panels[0], overview, px_per_overview_px, mpp)
    if overview_rgb is not None:
        panels[0].set_title(plain(f"H&E, section {sections[0]}"), fontsize=9)
    for panel, column in zip(panels[-len(wanted) :], wanted, strict=True):
        if panel is not panels[0]:
            maps.show_image(panel, overview, px_per_overview_px, mpp, faded=True)
        beside = measured if column == "cluster_predicted" else None
        legend = _legend(table.obs[column].astype(str), labels, positive, beside)
        _draw_column(panel, table.obs[column].astype(str), legend, centres, diameter)
    for number, panel in enumerate(panels):
        lettered(panel, number)
        panel.set_xlim(*across)
        panel.set_ylim(*down[::-1])
    figure.suptitle(title)
    with outputs.whole_file(path) as draft:
        figure.savefig(draft, dpi=130, bbox_inches="tight")


def drawn_columns(table: anndata.AnnData) -> list[str]:
    """Columns of obs that say something of some spot."""
    return [c for c in (*SHOWN, "label") if c in table.obs and (table.obs[c] != "").any()]


def _draw_column(
    panel: Axes,
    values: pd.Series,
    legend: Legend,
    centres: np.ndarray,
    diameter: float,
) -> None:
    """One map of labels or clusters, with what its colours mean below it."""
    column = str(values.name)
    cancer, heading, meaning, colours = legend
    order = list(colours)
    if (values == "").any():
        order.append("")
        colours = {**colours, "": NO_LABEL_COLOUR}
    codes = values.map({name: code for code, name in enumerate(order)}).to_numpy(np.float64)
    drawn = maps.draw_spots(panel, centres, codes, diameter, (-0.5, len(order) - 0.5))
    is_cancer = (values == cancer).to_numpy() & bool(cancer)
    drawn.set(cmap=ListedColormap([colours[name] for name in order]), edgecolor="black")
    drawn.set_linewidth(np.where(is_cancer, 1.0, 0.2).tolist())
    key = []
    for name in order:
        text = "none" if not name else name if column == "label" else f"cluster {name}"
        if name in meaning:
            text += f", matched to {meaning[name]}"
        text = f"{text} ({(values == name).sum()})"
        rim = 1.0 if name and name == cancer else 0.2
        key.append(
            Patch(facecolor=colours[name], edgecolor="black", linewidth=rim, label=plain(text))
        )
    panel.set_title(plain(heading), fontsize=9)
    panel.legend(handles=key, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=7.5)


def _legend(
    values: pd.Series, labels: list[str], positive: str, measured: list[str] | None
) -> Legend:
    """Of one map; `measured`: clusters that these are compared with where labels say nothing."""
    column = str(values.name)
    names = sorted(set(values) - {""})
    if column == "label":
        return positive, "annotation", {}, colours_of(names, positive)
    heading = f"{SHOWN[column]}, {len(names)} clusters"
    if "" in set(values):
        return "", heading, {}, colours_of(names, "")
    kinds = sorted(set(labels) - {""})
    clusters = values.astype(int).to_numpy()
    if positive not in kinds and len(kinds) < 2:
        if measured is not None and "" not in measured:
            alike, _ = cluster_matching.agreement(clusters, np.array(measured, int))
            heading += _agreement(alike, "as measured")
        return "", heading, {}, colours_of(names, "")
    match: cluster_matching.Match | cluster_matching.LabelMatch
    if positive in kinds:
        match = cluster_matching.match(clusters, labels, positive=positive)
        cancer = str(match.positive_cluster)
        order, meaning = [cancer, *(n for n in names if n != cancer)], {cancer: positive}
        shades = [POSITIVE_COLOUR, *_greys(len(order) - 1)]
    else:
        match, cancer = cluster_matching.match_labels(clusters, labels), ""
        meaning, of_label = dict(match.label_of_cluster), colours_of(kinds, "")
        paired = sorted((n for n in names if n in meaning), key=meaning.__getitem__)
        order = [*paired, *(n for n in names if n not in meaning)]
        shades = [of_label[meaning[n]] for n in paired] + _greys(len(order) - len(paired))
    heading += _agreement(match.to_json(), "as annotated")
    return cancer, heading, meaning, dict(zip(order, shades, strict=True))


def _agreement(match: Mapping[str, Any], words: str) -> str:
    """A heading's second and third line: how far clusters match, and what needs none."""
    constant = round(match["constant_share"] * match["spots"])
    rand = f"{match['adjusted_rand']:.2f}".replace("-", "\u2212")
    return (
        f"\n{match['matched']} of {match['spots']} {words}"
        f"\nbest constant {constant}, adjusted Rand {rand}"
    )


def colours_of(names: list[str], cancer: str) -> dict[str, str]:
    """A colour each, told apart by colour-blind readers where they are not too many."""
    rest = [name for name in names if name != cancer]
    shades = list(COLOURS) if len(rest) <= len(COLOURS) else list(MORE_COLOURS)
    if len(rest) > len(shades):
        shades = [to_hex(shade) for shade in colormaps["cividis"](np.linspace(0.9, 0.1, len(rest)))]
    first = {cancer: POSITIVE_COLOUR} if cancer in names else {}
    return {**first, **dict(zip(rest, shades, strict=False))}


def _greys(n: int) -> list[str]:
    return [to_hex(shade) for shade in colormaps["gray"](np.linspace(0.65, 0.2, n))]

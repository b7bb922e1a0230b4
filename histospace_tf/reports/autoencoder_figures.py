"""The paper's three autoencoders: tiles beside what each makes of them, and how they learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from histospace_tf.reports import learning_curves
from histospace_tf.reports.figures import letter, plain

TILES = 6  # reconstructions shown
TILES_ABOVE = 3  # of them above a loss curve
UNIT = "MSE of grey levels in [0, 1]"


def learning(
    history: pd.DataFrame,
    pictures: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
) -> Figure | None:
    """Tiles and reconstructions of each variant, above its loss per epoch; one scale for all.

    The HistoSPACE paper's Figure 3. Without pictures the curves alone.

    Args:
        pictures: as of `reconstructions`. facts: of a variant's number as a string, with its
            parameters and validation_mse, where known.
    Returns:
        None where no variant was studied for two epochs or more.
    """
    families = learning_curves.autoencoders(history)
    if not any(learning_curves.drawable(history, f, learning_curves.LOSSES) for f in families):
        return None
    shown = [name for name in _variants(pictures) if _title(name) in {f.name for f in families}]
    if not shown:
        return learning_curves.figure(history, families, UNIT)
    figure = Figure(figsize=(3.7 * len(families) + 0.4, 6.3), layout="constrained")
    lines = figure.add_gridspec(2, 1, height_ratios=(2.9, 3.4))
    above, below = (figure.add_subfigure(lines[line, 0]) for line in (0, 1))
    columns = above.add_gridspec(1, len(families))
    for number, family in enumerate(families):
        name = next((name for name in shown if _title(name) == family.name), None)
        if name is None:
            continue
        block = above.add_subfigure(columns[0, number])
        most = min(TILES_ABOVE, len(pictures["tiles"]))
        grid = block.subplots(2, most, squeeze=False)
        for axes_row, rows, words in (
            (grid[0], pictures["tiles"], "input"),
            (grid[1], pictures[name], "output"),
        ):
            axes_row[0].set_ylabel(words)
            for axes, tile in zip(axes_row, rows, strict=False):
                _show(axes, tile)
        block.suptitle(_heading(number, name, pictures, facts), fontsize=10, x=0.02, ha="left")
    grid = below.subplots(1, len(families), sharey=True, squeeze=False)
    learning_curves.draw(
        grid,
        history,
        families,
        {f"loss ({UNIT})": learning_curves.LOSSES},
        first_letter=len(shown),
    )
    learning_curves.key(below, grid, below=True)
    return figure


def reconstructions(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Input tiles, and below what each autoencoder makes of them and how far off that is.

    The HistoSPACE paper's Figure 4. Differences are absolute, the mean of R, G and B on [0, 1], on
    one scale for all variants.

    Args:
        pictures: "tiles" and one per variant, each (n, s, s, 3) uint8.
    """
    tiles = pictures["tiles"]
    names = _variants(pictures)
    shown = min(TILES, len(tiles))
    lines = 1 + 2 * len(names)
    figure = Figure(figsize=(1.35 * shown + 2.3, 1.42 * lines), layout="constrained")
    grid = figure.subplots(lines, shown, squeeze=False)
    _row(grid[0], tiles, "input")
    away = {name: np.abs(pictures[name].astype(np.float32) - tiles) / 255 for name in names}
    highest = max(float(np.percentile(values.mean(axis=-1), 99.5)) for values in away.values())
    drawn: AxesImage | None = None
    for at, name in enumerate(names):
        errors = np.square(away[name]).mean(axis=(1, 2, 3))
        words = f"{_title(name)}\nMSE {np.square(away[name]).mean():.4f}"
        _row(grid[1 + 2 * at], pictures[name], words)
        below = grid[2 + 2 * at]
        _words(below[0], "difference\nMSE of each")
        for axes, values, error in zip(below, away[name], errors, strict=False):
            drawn = _show(axes, values.mean(axis=-1), limits=(0.0, max(highest, 1e-6)))
            axes.set_xlabel(f"{error:.4f}", fontsize=8, labelpad=2)
    if drawn is not None:
        figure.colorbar(
            drawn,
            ax=grid[2::2].ravel().tolist(),
            label="absolute difference, grey levels in [0, 1]",
            extend="max",
            shrink=0.6,
            pad=0.01,
        )
    return figure


def _row(axes_row: Sequence[Axes], pictures: np.ndarray, words: str) -> None:
    _words(axes_row[0], words)
    for axes, picture in zip(axes_row, pictures, strict=False):
        _show(axes, picture)


def _words(axes: Axes, words: str) -> None:
    axes.set_ylabel(words, rotation=0, ha="right", va="center")


def _show(
    axes: Axes, picture: np.ndarray, *, limits: tuple[float, float] | None = None
) -> AxesImage:
    drawn = axes.imshow(picture)
    if limits is not None:
        drawn.set_clim(*limits)
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def _variants(pictures: Mapping[str, np.ndarray]) -> list[str]:
    return sorted(name for name in pictures if name != "tiles")


def _title(name: str) -> str:
    return re.sub(r"^variant_", "AutoEncoder ", name)


def _heading(
    number: int, name: str, pictures: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> str:
    """Letter, name, weights and error on validation tiles; of those shown where that is unknown."""
    known = facts.get(name.removeprefix("variant_")) or {}
    words = [plain(_title(name))]
    if known.get("parameters"):
        words.append(f"{known['parameters']:,} parameters")
    error = known.get("validation_mse")
    if error is None:
        away = (pictures[name].astype(np.float32) - pictures["tiles"]) / 255
        words.append(f"MSE {np.square(away).mean():.4f} of the tiles kept")
    else:
        words.append(f"validation MSE {error:.4f}")
    return rf"$\bf{{{letter(number)}}}$  " + words[0] + "\n" + ", ".join(words[1:])

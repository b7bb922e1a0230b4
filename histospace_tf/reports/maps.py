"""Expression drawn over H&E: one scale per gene, in colours that colour-blind people can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, EllipseCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from scipy.spatial import cKDTree

from histospace_tf import outputs
from histospace_tf.data_pipelines.genes import matching
from histospace_tf.vocabulary import InputError, named

COLOURS = "viridis"


def write_maps(
    table: anndata.AnnData, folder: Path, *, genes: Sequence[str], force: bool = False
) -> list[Path]:
    """One PNG per gene of a prediction: the H&E, and the map over it.

    Args:
        table: as `predict` writes it; uns["spatial"] holds the overview image.
        folder: where to; GENE.png each, whole or not at all.
        genes: which, from var_names.
    Raises:
        InputError: a gene that the table does not hold, or a file that exists without `force`.
    """
    check_genes(genes, table.var_names)
    files = {gene: _map_file(folder, gene) for gene in genes}
    for path in files.values():
        outputs.refuse_finished(path, force=force)
    (library,) = table.uns["spatial"].values()
    overview = np.asarray(library["images"]["hires"])
    scale = 1.0 / library["scalefactors"]["tissue_hires_scalef"]
    diameter = float(library["scalefactors"]["spot_diameter_fullres"])
    mpp = library["metadata"].get("mpp")  # left out where unknown
    centres = table.obsm["spatial"]
    title = str(library["metadata"]["source_image"])
    square = library["metadata"]["places"] == "grid"
    if square and mpp is not None:
        step_um = diameter * mpp
        title += f", squares of {step_um:.3g} µm (--step-um {step_um / 2:.2g} is finer)"
    if table.uns.get("histospace_tf", {}).get("trained_on_simulated_tissue", False):
        title += " (model trained on simulated tissue: no meaning for real slides)"
    if trust_from := table.uns.get("histospace_tf", {}).get("trust_from"):
        title += f"\ntrust from {trust_from}"
    for gene, path in files.items():
        values = np.asarray(table[:, gene].X).ravel()
        shape = overview.shape[0] / overview.shape[1]
        figure = Figure(figsize=(12, 0.6 + 5.4 * min(max(shape, 0.4), 1.8)), layout="constrained")
        left, right = figure.subplots(1, 2)
        show_image(left, overview, scale, mpp)
        left.set_title("H&E")
        show_image(right, overview, scale, mpp, faded=True)
        limits = colour_limits(values)
        drawn = draw_spots(right, centres, values, diameter, limits, square=square)
        unit = str(table.var.loc[gene, "unit"])
        figure.colorbar(drawn, ax=right, label=unit, shrink=0.8, extend=_beyond(values, limits))
        right.set_title(f"{gene}, predicted{_trust_words(table, gene)}")
        right.set_xlim(left.get_xlim())
        right.set_ylim(left.get_ylim())
        figure.suptitle(title)
        with outputs.whole_file(path) as draft:
            figure.savefig(draft, dpi=130)
    return list(files.values())


def _trust_words(table: anndata.AnnData, gene: str) -> str:
    """What is known of a gene's maps, for a title."""
    if "trust" not in table.var:
        return ""
    trust, r = table.var.loc[gene, "trust"], table.var.loc[gene, "gene_r"]
    return f" (trust: {trust}" + (f", held-out r {r:.2f})" if np.isfinite(r) else ")")


def _beyond(values: np.ndarray, limits: tuple[float, float]) -> str:
    """Where a colour bar has arrows: values that lie outside its limits."""
    below, above = bool((values < limits[0]).any()), bool((values > limits[1]).any())
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (below, above), "neither"
    )


def map_files(folder: Path, genes: Sequence[str]) -> list[Path]:
    """What `write_maps` makes: a file per gene; the folder where genes are not known yet."""
    return [_map_file(folder, gene) for gene in genes] or [folder]


def _map_file(folder: Path, gene: str) -> Path:
    return folder / f"{gene.replace('/', '_')}.png"


def check_genes(genes: Sequence[str], known: Sequence[str]) -> None:
    """Refuses genes that a model does not predict.

    Raises:
        InputError: names them and some that would work.
    """
    unknown = [gene for gene in genes if gene not in set(known)]
    if unknown:
        nearest = {gene: matching.suggestions(gene, known) for gene in unknown[:3]}
        hints = [f"nearest to {gene!r}: {named(near)}" for gene, near in nearest.items() if near]
        raise InputError(
            f"the model does not predict {named(unknown)}; "
            + (f"{'; '.join(hints)}; " if hints else "")
            + f"its {len(known)} genes are {named(list(known), 10)}"
        )


def show_image(
    axes: Axes, overview: np.ndarray, scale: float, mpp: float | None, *, faded: bool = False
) -> None:
    """An overview in full-resolution coordinates, with a scale bar where the scale is known."""
    height, width = overview.shape[0] * scale, overview.shape[1] * scale
    axes.imshow(overview, extent=(0, width, height, 0), alpha=0.35 if faded else 1.0)
    axes.set_xticks([])
    axes.set_yticks([])
    if mpp is not None and not faded:
        length_um = _round_length(width * mpp / 5)
        label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
        axes.add_artist(
            AnchoredSizeBar(
                axes.transData,
                length_um / mpp,
                label,
                "lower left",
                pad=0.3,
                frameon=True,
                size_vertical=height / 250,
                fontproperties=FontProperties(size=8),
            )
        )


def draw_spots(
    axes: Axes,
    centres: np.ndarray,
    values: np.ndarray,
    size_px: float,
    limits: tuple[float, float],
    *,
    square: bool = False,
) -> Collection:
    """Spots as discs, or tiles as squares, of their true size in full-resolution pixels."""
    drawn: Collection
    if square:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size_px / 2
        # Smoothed edges of squares that touch would let the paper through.
        drawn = PolyCollection(list(centres[:, None] + corners), antialiased=False)
    else:
        sizes = np.full(len(centres), size_px)
        drawn = EllipseCollection(
            sizes,
            sizes,
            np.zeros(len(centres)),
            units="xy",
            offsets=centres,
            offset_transform=axes.transData,
        )
    drawn.set(array=values, cmap=COLOURS, clim=limits, linewidth=0, alpha=0.8 if square else 1.0)
    axes.add_collection(drawn)
    return drawn


def colour_limits(values: np.ndarray) -> tuple[float, float]:
    """1st and 99th percentile; widened where all values are equal."""
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def spot_diameter_px(diameter_um: float | None, mpp: float | None, centres: np.ndarray) -> float:
    """A spot's diameter in full-resolution pixels; half the typical distance where unknown."""
    if diameter_um is not None and mpp is not None:
        return diameter_um / mpp
    return (nearest_distance_px(centres) or 200.0) / 2


def nearest_distance_px(centres: np.ndarray) -> float | None:
    """Median distance between a spot's centre and the nearest other's; None for a single spot."""
    if len(centres) < 2:
        return None
    return float(np.median(cKDTree(centres).query(centres, k=2)[0][:, 1]))


def around(values: np.ndarray, margin: float) -> tuple[float, float]:
    """Range of `values` with `margin` on both sides."""
    return float(values.min() - margin), float(values.max() + margin)


def _round_length(um: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above `um`."""
    power = 10.0 ** np.floor(np.log10(um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= um))

"""The part of a report in which a reader picks a section and a gene: its data and its HTML.

Values are stored as bytes: 0 to 254 from the gene's lowest to its highest value, 255 for none. That
is finer than the eye tells colours apart, and a quarter of the size.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import anndata
import matplotlib
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import slides
from histospace_tf.reports import data, maps, page, sentences
from histospace_tf.reports.data import Overview, Results
from histospace_tf.reports.page import Part

MISSING = 255
LEVELS = 254
VALUE_BYTES = 4_500_000  # of all maps together, before base64
PICTURE_BYTES = 3_000_000  # of all overviews together, about
PICTURE_PX = 1000  # longer side of an overview at most
BYTES_PER_PX = 0.3  # of a JPEG of H&E, about
SCALE_BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
MARGIN_SPOTS = 1.5  # drawn around the outermost spots


def part(results: Results, shown: Sequence[str]) -> Part | None:
    if results.predictions is None:
        return None
    genes = genes_shown(results, shown)
    words = list(sentences.VIEWER)
    if len(genes) < results.predictions.n_vars:
        words.append(
            f"The {len(genes)} best predicted of {results.predictions.n_vars} genes are listed; "
            "predictions.h5ad holds all."
        )
    values = viewer_data(results, genes)
    body = page.paragraph(*words, kind="screen") + viewer_html(values, len(shown))
    return "maps", "Maps, any gene", body


def genes_shown(results: Results, first: Sequence[str]) -> list[str]:
    """Genes of the viewer: `first`, then the others A to Z; only the best if they are too many."""
    assert results.predictions is not None
    names = [str(name) for name in results.predictions.var_names]
    room = max(len(first), VALUE_BYTES // max(1, 2 * results.predictions.n_obs))
    if len(names) > room:
        ranked = [gene for gene in data.mean_gene_r(results).index if gene in set(names)]
        names = list(dict.fromkeys([*first, *ranked, *names]))[:room]
    return [*first, *sorted(set(names) - set(first))]


def viewer_data(results: Results, genes: Sequence[str]) -> dict[str, Any]:
    """Everything the page's script draws from, ready for JSON.

    Args:
        results: with predictions.
        genes: shown ones, from var_names.
    """
    table = results.predictions
    assert table is not None
    columns = table.var_names.get_indexer(list(genes))
    predicted, measured = (
        np.asarray(values[:, columns], np.float64) for values in data.both(table)
    )
    entries = [
        gene_entry(gene, str(table.var["unit"].iloc[column]) if "unit" in table.var else "", values)
        for gene, column, values in zip(
            genes, columns, np.concatenate([measured, predicted]).T, strict=True
        )
    ]
    sections = data.section_rows(table)
    picture_px = int(min(PICTURE_PX, np.sqrt(PICTURE_BYTES / BYTES_PER_PX / max(1, len(sections)))))
    return {
        "colours": colours(),
        "genes": entries,
        "sections": [
            {
                **_place(table, name, rows, results.overviews.get(name), picture_px),
                "measured": packed(quantised(measured[rows], entries)),
                "predicted": packed(quantised(predicted[rows], entries)),
                "r": _r(results, name, genes),
            }
            for name, rows in sections.items()
        ],
    }


def quantised(
    values: np.ndarray, genes: Sequence[dict[str, Any]], *, levels: int = LEVELS
) -> np.ndarray:
    """(n, g) values -> (g, n) levels, 0 to `levels`; those that are not finite become one more.

    Args:
        values: of places and genes.
        genes: their entries, of `gene_entry`.
        levels: up to 254 makes bytes, up to 65,534 uint16, whose lower byte stands first.
    """
    low = np.array([gene["min"] for gene in genes])
    high = np.array([gene["max"] for gene in genes])
    there = np.isfinite(values)
    share = (np.where(there, values, low) - low) / (high - low)
    steps = np.where(there, np.clip(np.round(share * levels), 0, levels), levels + 1)
    return np.ascontiguousarray(steps.astype(np.uint8 if levels < 255 else "<u2").T)


def gene_entry(name: str, unit: str, values: np.ndarray) -> dict[str, Any]:
    """A gene's name and unit, the range of its values (min, max) and of its colours (low, high)."""
    there = values[np.isfinite(values)]
    if not len(there):
        there = np.zeros(1)
    low, high = maps.colour_limits(there)
    lowest, highest = min(float(there.min()), low), max(float(there.max()), high)
    return {"name": name, "unit": unit, "min": lowest, "max": highest, "low": low, "high": high}


def colours() -> str:
    """The 256 colours of maps, low to high, as packed bytes of red, green and blue."""
    return packed(
        (matplotlib.colormaps[maps.COLOURS](range(256))[:, :3] * 255).round().astype("u1")
    )


def packed(values: np.ndarray) -> str:
    """An array's bytes as text."""
    return base64.b64encode(values.tobytes()).decode("ascii")


def viewer_html(values: dict[str, Any], chosen: int) -> str:
    """Controls, the two maps and their data; the first `chosen` genes stand in a group.

    Args:
        values: as `viewer_data` returns them.
        chosen: how many.
    """
    text = page.text
    means = _mean_r(values)

    def option(place: int) -> str:
        gene, r = values["genes"][place]["name"], means[place]
        words = gene if r is None else f"{gene} (mean r {r:.2f})"
        return f'<option value="{place}">{text(words)}</option>'

    chosen_options = "".join(option(place) for place in range(chosen))
    other_options = "".join(option(place) for place in range(chosen, len(values["genes"])))
    sections = "".join(
        f'<option value="{place}">{text(section["name"])}</option>'
        for place, section in enumerate(values["sections"])
    )
    maps_html = "".join(
        f'<figure><figcaption id="title-{kind}">{kind}</figcaption>'
        f'<canvas id="map-{kind}" role="img" aria-label="{kind}" width="900" height="600"></canvas>'
        f'<canvas id="bar-{kind}" class="bar" aria-hidden="true" width="256" height="1"></canvas>'
        f'<div class="ends"><span id="low-{kind}"></span><span id="high-{kind}"></span></div>'
        "</figure>"
        for kind in ("measured", "predicted")
    )
    groups = f'<optgroup label="Chosen">{chosen_options}</optgroup>'
    if other_options:
        groups += f'<optgroup label="A to Z">{other_options}</optgroup>'
    return (
        '<div id="viewer"><div class="controls">'
        f'<label>Section <select id="pick-section">{sections}</select></label>'
        f'<label>Gene <select id="pick-gene">{groups}</select></label>'
        '<div class="steps"><button type="button" id="gene-before">Previous gene</button>'
        '<button type="button" id="gene-after">Next gene</button></div>'
        '<label>Map over the H&amp;E <input type="range" id="fade" min="0" max="100" step="5" '
        'value="90"></label>'
        '<label>Colour scale <select id="pick-scale"><option value="own">each map its own'
        '</option><option value="gene">one for the gene</option></select></label></div>'
        '<p class="state" id="viewer-state" aria-live="polite"></p>'
        f'<div class="maps">{maps_html}</div>'
        '<p class="note" id="viewer-unit"></p><output id="readout"></output></div>'
        + page.script_data("viewer-data", values)
    )


def _place(
    table: anndata.AnnData, name: str, rows: np.ndarray, overview: Overview | None, picture_px: int
) -> dict[str, Any]:
    """Where a section's spots lie, in pixels of its overview (or of 1000 px where it has none)."""
    centres = np.asarray(table.obsm["spatial"][rows], np.float64)
    spot_px = data.spot_px(overview, centres)
    image = None
    if overview is None:
        scale = max(1.0, float(np.ptp(centres, axis=0).max()) / picture_px)
        edge = np.array([np.inf, np.inf])
    else:
        height, width = overview.picture.shape[:2]
        smaller = max(1.0, max(height, width) / picture_px)
        size = (max(1, round(width / smaller)), max(1, round(height / smaller)))
        scale = overview.px_per_overview_px * smaller
        edge = np.array(size, np.float64)
        small = slides.resampled(overview.picture, size)
        image = page.data_uri(data.encoded(small, ".webp", quality=78), "image/webp")
    at = centres / scale
    margin = MARGIN_SPOTS * spot_px / scale
    low = np.maximum(at.min(axis=0) - margin, -np.inf if overview is None else 0.0)
    high = np.minimum(at.max(axis=0) + margin, edge)
    names = table.obs["spot"] if "spot" in table.obs else pd.Series(table.obs_names)
    patients = table.obs["patient"] if "patient" in table.obs else pd.Series([""] * table.n_obs)
    return {
        "name": name,
        "patient": str(patients.iloc[rows[0]]),
        "spots": [str(spot) for spot in names.iloc[rows]],
        "x": [round(float(v), 1) for v in at[:, 0]],
        "y": [round(float(v), 1) for v in at[:, 1]],
        "spot_px": round(spot_px / scale, 2),
        "crop": [round(float(v), 1) for v in (*low, *(high - low))],
        "image": image,
        "scale_bar": _scale_bar(overview, scale, float(high[0] - low[0])),
    }


def _scale_bar(overview: Overview | None, scale: float, width: float) -> dict[str, Any] | None:
    if overview is None or overview.mpp is None:
        return None
    um_per_px = overview.mpp * scale
    fitting = [um for um in SCALE_BARS_UM if um <= width * um_per_px / 4]
    if not fitting:
        return None
    um = fitting[-1]
    label = f"{um / 1000:g} mm" if um >= 1000 else f"{um} µm"
    return {"px": round(um / um_per_px, 1), "label": label}


def _r(results: Results, section: str, genes: Sequence[str]) -> list[float | None]:
    known = data.section_gene_r(results, section)
    values = [known.get(gene, np.nan) for gene in genes]
    return [round(float(v), 3) if np.isfinite(v) else None for v in values]


def _mean_r(values: dict[str, Any]) -> list[float | None]:
    means = []
    for place in range(len(values["genes"])):
        each = [r for s in values["sections"] if (r := s["r"][place]) is not None]
        means.append(sum(each) / len(each) if each else None)
    return means

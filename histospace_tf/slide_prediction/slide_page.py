"""A predicted slide as one HTML file to look at: its picture, and every gene's map over it.

Nothing is loaded from elsewhere. Values are kept as levels between a gene's lowest and highest, two
bytes each where that stays small, else one. What can be chosen stands in `page_layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from histospace_tf import outputs
from histospace_tf.outputs import say
from histospace_tf.reports import data, maps, page, viewer
from histospace_tf.scores import gene_table
from histospace_tf.slide_prediction import OF_SLIDES
from histospace_tf.slide_prediction.output_formats import POSITION_COLUMNS
from histospace_tf.slide_prediction.page_layers import Layer, fitting, layers_of
from histospace_tf.slide_prediction.spatial_entries import Shapes, shapes_of

FILES = ("page.css", "slide.css", "levels.js", "slide.js")
FINE_BYTES = 3_000_000  # of all values, up to which they have two bytes
FINE_LEVELS = 65_534
JPEG_QUALITY = 85
TRUST_WORDS = {
    "yes": "found again in every held-out section",
    "weak": "a hint, no more",
    "no": "held-out spots do not show it",
    gene_table.UNKNOWN: "never scored",
}
RESEARCH = "Predicted from the picture, not measured. For research only, not for diagnosis."
TRUST_IS = (
    "Trust says how well a gene's maps agreed with measured ones on spots that were held out "
    "when the model was scored; r is their correlation, the mean over sections. It is not "
    "measured on this slide: on tissue unlike the model's own it holds less. A map of a gene that "
    "is not trusted looks like any other."
)
LEVELS_ARE = (
    "Read maps as where a gene is high, not how high: absolute levels differ between patients more "
    "than the model knows."
)

SETS_ARE = (
    "A gene set's score is the mean of its genes, each measured in deviations from the training "
    "tissue's level, which is 0."
)


def write_page(
    table: anndata.AnnData, path: Path, *, genes: Sequence[str], force: bool = False
) -> list[Path]:
    """Writes a prediction as a page.

    Args:
        table: a prediction.
        path: .html.
        genes: from var_names; the page opens with the first, and keeps them where there are too
            many values for one page.
        force: replace a finished file.
    Returns:
        The file.
    Raises:
        InputError: an unknown gene, a table without a slide, a finished file.
    """
    outputs.refuse_finished(path, force=force)
    maps.check_genes(genes, [str(name) for name in table.var_names])
    layers = layers_of(table)
    kept = fitting(layers, genes, places=table.n_obs)
    if len(kept) < len(layers):
        say(f"{path}: {len(kept)} of {len(layers)} genes are on the page, the most trusted ones.")
    content = html(table, kept, first=genes[0] if genes else kept[0].key, of=len(layers))
    with outputs.whole_file(path) as draft:
        draft.write_text(content, encoding="utf-8")
    return [path]


def html(table: anndata.AnnData, layers: Sequence[Layer], *, first: str, of: int) -> str:
    """The whole file.

    Args:
        table: a prediction.
        layers: shown ones, in the order of the list.
        first: key of the one that is shown at the start.
        of: how many there are, shown or not.
    """
    shapes = shapes_of(table)
    about = table.uns.get("histospace_tf", {})
    genes = [layer for layer in layers if not layer.is_set]
    sets = len(layers) - len(genes)
    where = f"{table.n_obs:,} places, {len(genes)} genes"
    where += f" in {genes[0].unit}" if genes else ""
    where += f", {sets} gene sets" if sets else ""
    if "model" in about:
        where += f"; predicted by {about['model']}, {str(about.get('date', ''))[:10]}"
    notes = [TRUST_IS, LEVELS_ARE]
    if about.get("trust_from"):
        notes.insert(0, f"Trust comes from {about['trust_from']}.")
    if about.get("familiarity"):
        notes.insert(0, f"The slide is {about['familiarity']}.")
    if sets:
        notes.append(SETS_ARE)
    if len(layers) < of:
        notes.append(f"{len(layers)} of {of} genes are on this page; the .h5ad holds all.")
    warnings = warnings_of(table)
    values = page_data(table, shapes, layers, first=first) | {"warnings": warnings}
    main = (
        _warned(warnings)
        + page.paragraph(RESEARCH, kind="note")
        + _desk(values)
        + '<section id="about"><h2>What this shows</h2>'
        + page.paragraph(*notes)
        + f'<div class="tables">{page.pair_table("The prediction", _record(shapes, about))}</div>'
        + "</section>"
        + page.script_data("slide-data", values)
    )
    under = "<noscript><p>Maps need JavaScript, which this browser does not run.</p></noscript>"
    return page.document(shapes.slide, where, under, main, files=FILES)


def page_data(
    table: anndata.AnnData, shapes: Shapes, layers: Sequence[Layer], *, first: str
) -> dict[str, Any]:
    """Everything that the page's script draws from, ready for JSON.

    Positions are pixels of the picture from its top left corner, as packed float32; values packed
    levels, as `viewer.quantised` makes them, one more than `levels` for none.
    """
    levels = FINE_LEVELS if 2 * table.n_obs * len(layers) <= FINE_BYTES else viewer.LEVELS
    entries = []
    for layer in layers:
        entry = viewer.gene_entry(layer.name, layer.unit, layer.values)
        packed = viewer.packed(viewer.quantised(layer.values[:, None], [entry], levels=levels))
        r = round(layer.r, 3) if np.isfinite(layer.r) else None
        about = {"key": layer.key, "is_set": layer.is_set, "trust": layer.trust, "r": r}
        entries.append(entry | about | {"values": packed})
    at = (shapes.corner_px / shapes.scale).astype("<f4")
    height, width = shapes.image.shape[:2]
    picture = data.encoded(shapes.image, ".jpg", quality=JPEG_QUALITY)
    return {
        "slide": shapes.slide,
        "colours": viewer.colours(),
        "bars_um": list(viewer.SCALE_BARS_UM),
        "columns": list(POSITION_COLUMNS),
        "trust": {word: [page.TRUST.get(word, word), told] for word, told in TRUST_WORDS.items()},
        "research": RESEARCH,
        "image": page.data_uri(picture, "image/jpeg"),
        "size": [width, height],
        "scale": shapes.scale,
        "mpp": shapes.mpp,
        "square": shapes.square,
        "place_px": shapes.size_px / shapes.scale,
        "x": viewer.packed(at[:, 0]),
        "y": viewer.packed(at[:, 1]),
        "places": [str(name) for name in table.obs_names],
        "regions": _regions(table),
        "levels": levels,
        "first": next((i for i, layer in enumerate(layers) if layer.key == first), 0),
        "layers": entries,
    }


def _regions(table: anndata.AnnData) -> dict[str, Any] | None:
    """Names of obs["region"], and the place of each place's among them; none: their number."""
    if "region" not in table.obs:
        return None
    regions = table.obs["region"].astype("category").cat
    names = [str(name) for name in regions.categories]
    codes = np.where(regions.codes < 0, len(names), regions.codes)
    return {"names": names, "of": viewer.packed(codes.astype("<u2"))} if names else None


def warnings_of(table: anndata.AnnData) -> list[str]:
    """What a reader has to know before looking."""
    about = table.uns.get("histospace_tf", {})
    lines = []
    if about.get("trained_on_simulated_tissue", False):
        lines.append("The model was trained on simulated tissue: no meaning for real slides.")
    if "trained_on_slides" in about:
        lines.append(OF_SLIDES)
    lines += [line for line in str(about.get("warnings", "")).splitlines() if line]
    if "trust" not in table.var:
        lines.append("How far each gene can be trusted is not known: the run has no genes.csv.")
    return lines


def _warned(lines: Sequence[str]) -> str:
    told = "".join(page.paragraph(line) for line in lines)
    warned = f'<div class="warning" role="note" aria-label="Warnings">{told}</div>'
    return warned if lines else ""


def _record(shapes: Shapes, about: dict[str, Any]) -> dict[str, Any]:
    """What a table at the end says of the prediction."""
    unit, factor = ("px", 1.0) if shapes.mpp is None else ("µm", shapes.mpp)
    size = f"{shapes.size_px * factor:.0f} {unit}"
    places = f"squares of {size}" if shapes.square else f"given spots, drawn {size} wide"
    record = {
        "model": about.get("model"),
        "trained on sections": ", ".join(map(str, about.get("trained_on_sections", []))),
        "architecture": about.get("architecture"),
        "places": places,
        "a pixel of the slide": "unknown" if shapes.mpp is None else f"{shapes.mpp:g} µm",
        "tissue": about.get("tissue"),
        "predicted": about.get("date"),
        "histospace-tf": about.get("version"),
    }
    return {name: value for name, value in record.items() if value}


def _desk(values: dict[str, Any]) -> str:
    """The map with what chooses and changes it."""
    text = page.text
    options = []
    for is_set in (True, False):
        for word, (mark, _) in values["trust"].items():
            rows = [
                (i, entry)
                for i, entry in enumerate(values["layers"])
                if (entry["is_set"], entry["trust"]) == (is_set, word)
            ]
            if not rows:
                continue
            sign = mark.split()[0] if word in page.TRUST else "?"
            each = "".join(_option(i, entry, sign) for i, entry in rows)
            label = f"{'Gene sets, trust' if is_set else 'Trust'} {mark}: {len(rows)}"
            options.append(f'<optgroup label="{text(label)}">{each}</optgroup>')
    regions = ""
    if values["regions"]:
        names = values["regions"]["names"]
        each = "".join(f'<option value="{i}">{text(name)}</option>' for i, name in enumerate(names))
        regions = (
            '<label>Region <select id="region"><option value="">all</option>'
            f"{each}</select></label>"
        )
    buttons = "".join(
        f'<button type="button" id="{name}" aria-label="{told}">{sign}</button>'
        for name, told, sign in (
            ("closer", "Zoom in", "+"),
            ("farther", "Zoom out", "\u2212"),
            ("fit", "Show all places", "Fit"),
        )
    )
    return (
        '<div id="slide"><div class="stage"><h2 id="title" aria-live="polite"></h2>'
        '<p class="state" id="state"></p>'
        '<div class="map"><canvas id="map" tabindex="0" role="application" '
        'aria-describedby="keys"></canvas>'
        f'<div class="steps">{buttons}</div></div>'
        '<canvas id="bar" class="bar" aria-hidden="true" width="256" height="1"></canvas>'
        '<div class="ends"><span id="low"></span><span id="unit"></span><span id="high"></span>'
        '</div><output id="readout"></output><p class="note screen" id="keys">Drag, or arrow keys: '
        "move. Wheel, pinch, + and \u2212: zoom. 0: all places. Point at a place, or bring it to "
        "the middle with the keys, for its value.</p></div>"
        '<div class="controls"><label>Search <input type="search" id="find" autocomplete="off" '
        'spellcheck="false" placeholder="part of a name"></label>'
        '<label><span id="count">Gene, most trusted first</span>'
        f'<select id="gene" size="14">{"".join(options)}</select></label>'
        '<label>Map over the H&amp;E <input type="range" id="fade" min="0" max="100" step="5" '
        'value="80"></label>'
        '<label>Colour scale <select id="scale"><option value="own">of this gene</option>'
        f'<option value="shared">one for all genes</option></select></label>{regions}'
        '<div class="steps"><button type="button" id="save-picture">Picture (PNG)</button>'
        '<button type="button" id="save-gene">This gene (CSV)</button>'
        '<button type="button" id="save-all">All genes (CSV)</button></div></div></div>'
        '<div class="scroll"><table id="by-region"></table></div>'
    )


def _option(place: int, entry: dict[str, Any], sign: str) -> str:
    """A gene in the list."""
    r = "" if entry["r"] is None else f" (r {page.number(entry['r'], 2)})"
    told = f"{sign} {entry['name']}{r}"
    return f'<option value="{place}">{page.text(told)}</option>'

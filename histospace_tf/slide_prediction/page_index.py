"""The first page of a folder of slides' pages: one row per slide, with a link to its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anndata
import numpy as np

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides as pictures
from histospace_tf.faults import reading
from histospace_tf.outputs import say
from histospace_tf.reports import data, page
from histospace_tf.scores import gene_table
from histospace_tf.slide_prediction import SLIDE_ENDINGS
from histospace_tf.slide_prediction.spatial_entries import shapes_of
from histospace_tf.vocabulary import InputError

FILE = "index.html"
FILES = ("page.css", "slide.css", "levels.js", "page.js")
COLUMNS = ("slide", "patient", "places", "tissue", "what to know")
NUMBERS = ("places", "tissue")
TISSUE_IS = "Tissue: share of the picture that was predicted, and its area."
PICTURE_PX = 144  # longer side of a slide's small picture


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What a prediction says of its slide.

    picture: the slide, small, as a link. places, warnings: as in summary.csv. share: of the picture
    that tiles cover; mm2: their area; None where places are given spots, or the scale is unknown.
    trust: a sentence on the model's genes.
    """

    picture: str
    places: int
    warnings: str
    share: float | None
    mm2: float | None
    trust: str


def write(folder: Path, slides: Sequence[Mapping[str, Any]], *, predictions: Path) -> Path | None:
    """Writes FOLDER/index.html anew.

    Args:
        folder: of the pages, NAME.html each.
        slides: rows of summary.csv: name, patient, places, state, why (of a failure), warnings.
        predictions: folder of NAME.h5ad, for pictures, tissue and trust.
    Returns:
        The file; None, and a word, where a slide's own page has its name.
    """
    path = folder / FILE
    if any(folder / f"{slide['name']}{SLIDE_ENDINGS['page']}" == path for slide in slides):
        say(f"{path} is the page of a slide, so no list of all is written.")
        return None
    seen = [_seen(predictions / f"{slide['name']}.h5ad") for slide in slides]
    heads = "".join(
        f'<th scope="col" data-kind="{"number" if name in NUMBERS else "text"}">'
        f'<button type="button">{page.text(name)}</button></th>'
        for name in COLUMNS
    )
    body = "".join(_row(folder, *both) for both in zip(slides, seen, strict=True))
    states = [str(slide["state"]) for slide in slides]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    main = (
        f'<div class="scroll"><table class="sortable slides"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    notes = list(dict.fromkeys(one.trust for one in seen if one))
    if any(one and one.share is not None for one in seen):
        notes.append(TISSUE_IS)
    with outputs.whole_file(path) as draft:
        content = page.document(
            f"{len(slides)} slides", counts, page.paragraph(*notes), main, files=FILES
        )
        draft.write_text(content, encoding="utf-8")
    return path


def _seen(prediction: Path) -> _Seen | None:
    """None where no prediction can be read; what is wrong with it is told elsewhere."""
    if not prediction.is_file():
        return None
    try:
        with reading(f"prediction {str(prediction)!r}"):
            table = anndata.read_h5ad(prediction, backed="r")
            try:
                shapes, var = shapes_of(table), table.var
                about = table.uns.get("histospace_tf", {})
                places = 0 if about.get("slide_level_alone") else table.n_obs
            finally:
                table.file.close()
    except InputError:
        return None
    height, width = shapes.image.shape[:2]
    share = mm2 = None
    if shapes.square and places:
        share = min(1.0, places * (shapes.size_px / shapes.scale) ** 2 / (height * width))
        mm2 = shapes.mpp and places * (shapes.size_px * shapes.mpp / 1000) ** 2
    trust = "How far genes can be trusted is not known."
    if "trust" in var:
        counts = {word: int(np.sum(var["trust"] == word)) for word in gene_table.TRUST}
        words = [f"{count} {word}" for word, count in counts.items() if count]
        trust = f"Trust in {len(var)} genes: {', '.join(words)}"
        trust += f"; it comes from {about['trust_from']}." if about.get("trust_from") else "."
    smaller = min(1.0, PICTURE_PX / max(height, width))
    size = (max(1, round(width * smaller)), max(1, round(height * smaller)))
    small = data.encoded(pictures.resampled(shapes.image, size), ".webp", quality=75)
    warnings = str(about.get("warnings", ""))
    return _Seen(page.data_uri(small, "image/webp"), places, warnings, share, mm2, trust)


def _row(folder: Path, slide: Mapping[str, Any], seen: _Seen | None) -> str:
    name = str(slide["name"])
    file = f"{name}{SLIDE_ENDINGS['page']}"
    shown = f"<span>{page.text(name)}</span>"
    if seen is not None:
        shown = f'<img src="{seen.picture}" alt="">{shown}'
    if (folder / file).is_file():
        shown = f'<a href="{page.text(quote(file))}">{shown}</a>'
    failed = f"Failed: {slide['why']}" if slide["why"] else ""
    places, warnings = slide["places"], str(slide["warnings"])
    if seen is not None:
        places, warnings = seen.places, seen.warnings
    told = [line for line in (failed, *warnings.splitlines()) if line]
    lines = "".join(page.paragraph(str(line)) for line in told)
    share = tissue = ""
    if seen is not None and seen.share is not None:
        share = repr(seen.share)
        tissue = f"{100 * seen.share:.0f} %" + (f", {seen.mm2:.3g} mm²" if seen.mm2 else "")
    return (
        f'<tr><th scope="row">{shown}</th><td class="text">{page.text(slide["patient"])}</td>'
        f'<td data-value="{places}">{places:,}</td>'
        f'<td data-value="{share}" data-kind="tissue">{tissue}</td>'
        f'<td class="text">{lines}</td></tr>'
    )

"""The first page of a folder of slides' pages: one row per slide, with a link to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from histospace_tf import outputs
from histospace_tf.outputs import say
from histospace_tf.reports import page
from histospace_tf.slide_prediction import SLIDE_ENDINGS

FILE = "index.html"
FILES = ("page.css", "slide.css", "levels.js", "page.js")
COLUMNS = ("slide", "patient", "places", "what to know")


def write(folder: Path, slides: Sequence[Mapping[str, Any]]) -> Path | None:
    """Writes FOLDER/index.html anew.

    Args:
        folder: of the pages, NAME.html each.
        slides: rows of summary.csv: name, patient, places, state, why (of a failure), warnings.
    Returns:
        The file; None, and a word, where a slide's own page has its name.
    """
    path = folder / FILE
    if any(folder / f"{slide['name']}{SLIDE_ENDINGS['page']}" == path for slide in slides):
        say(f"{path} is the page of a slide, so no list of all is written.")
        return None
    heads = "".join(
        f'<th scope="col" data-kind="{"number" if name == "places" else "text"}">'
        f'<button type="button">{page.text(name)}</button></th>'
        for name in COLUMNS
    )
    body = "".join(_row(folder, slide) for slide in slides)
    states = [str(slide["state"]) for slide in slides]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    main = (
        f'<div class="scroll"><table class="sortable slides"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    with outputs.whole_file(path) as draft:
        content = page.document(f"{len(slides)} slides", counts, "", main, files=FILES)
        draft.write_text(content, encoding="utf-8")
    return path


def _row(folder: Path, slide: Mapping[str, Any]) -> str:
    name = str(slide["name"])
    file = f"{name}{SLIDE_ENDINGS['page']}"
    shown = page.text(name)
    if (folder / file).is_file():
        shown = f'<a href="{page.text(quote(file))}">{shown}</a>'
    failed = f"Failed: {slide['why']}" if slide["why"] else ""
    told = [line for line in (failed, *str(slide["warnings"]).splitlines()) if line]
    lines = "".join(page.paragraph(str(line)) for line in told)
    return (
        f'<tr><th scope="row">{shown}</th><td class="text">{page.text(slide["patient"])}</td>'
        f'<td data-value="{slide["places"]}">{slide["places"]:,}</td>'
        f'<td class="text">{lines}</td></tr>'
    )

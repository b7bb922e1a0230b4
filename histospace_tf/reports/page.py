"""HTML of a report: one file, nothing loaded from elsewhere. Every text that comes from data passes
through `text`.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from histospace_tf.predictors import registry
from histospace_tf.reports import data, figures
from histospace_tf.scores import metrics

Part = tuple[str, str, str]  # id, title, HTML
# The browser itself refuses whatever is not inside the page.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
TRUST = {"yes": "● yes", "weak": "◐ weak", "no": "○ no"}
SCORES = {key: metrics.SCORES[key].label for key in metrics.SHOWN}
DASH = "\u2013"
WEB_QUALITY = 75  # of WebP


def text(value: object) -> str:
    """Any value as HTML text, safe in an attribute's quotes too."""
    return html.escape(str(value), quote=True)


def number(value: Any, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    if not is_number(value):
        return DASH
    return f"{value:.{digits}f}".replace("-", "\u2212")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def page(title: str, where: str, parts: Sequence[tuple[str, str, str]]) -> str:
    """The whole file of a report.

    Args:
        title, where: heading, and the line under it (plain text).
        parts: (id, title, HTML) of each section, in order.
    """
    links = "".join(f'<li><a href="#{name}">{text(head)}</a></li>' for name, head, _ in parts)
    bodies = "".join(
        f'<section id="{name}"{" class=joined" if at == 0 else ""}>'
        f"<h2>{text(head)}</h2>{body}</section>\n"
        for at, (name, head, body) in enumerate(parts)
    )
    under = (
        "<noscript><p>The tables and figures work as they are; sorting and the viewer need "
        "JavaScript.</p></noscript>"
        f'<nav aria-label="Parts of this report"><ul>{links}</ul></nav>'
    )
    return document(title, where, under, bodies, files=("page.css", "levels.js", "page.js"))


def document(title: str, where: str, under: str, main: str, *, files: Sequence[str]) -> str:
    """A whole file with its styles and scripts inside.

    Args:
        title, where: heading, and the line under it (plain text).
        under, main: HTML of the header's rest, and of what the page shows.
        files: style sheets and scripts of this folder, in order.
    """
    styles, scripts = (
        "\n".join(_packaged(name) for name in files if name.endswith(suffix))
        for suffix in (".css", ".js")
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{styles}</style>\n</head>\n<body>\n"
        f'<header><h1>{text(title)}</h1><p class="where">{text(where)}</p>{under}</header>\n'
        f"<main>\n{main}</main>\n<script>\n{scripts}</script>\n</body>\n</html>\n"
    )


def paragraph(*sentences: str, kind: str = "") -> str:
    """Plain sentences as one paragraph, of a CSS class if named."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{text(' '.join(sentences))}</p>"


def folded(title: str, body: str) -> str:
    """HTML behind a title that opens it; printed pages show it open."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def picture(content: bytes, media: str, *, alt: str, caption: str, wide: bool = True) -> str:
    """An image inside the page. Wide ones scroll sideways on a phone rather than shrink."""
    image = f'<img src="{data_uri(content, media)}" alt="{text(alt)}">'
    return (
        f"<figure><div{' class=wide' * wide}>{image}</div>"
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def web_picture(pixels: np.ndarray, *, alt: str, caption: str) -> str:
    """(h, w, 3) uint8 RGB inside the page."""
    content = data.encoded(pixels, ".webp", quality=WEB_QUALITY)
    return picture(content, "image/webp", alt=alt, caption=caption)


def data_uri(content: bytes, media: str) -> str:
    """Bytes as a link that holds them."""
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"


def scores_table(caption: str, rows: Mapping[str, Any], names: Sequence[str]) -> str:
    """One block of scores: one row per predictor that has scores there, in the order of `names`."""
    head = "".join(f'<th scope="col">{text(word)}</th>' for word in ("predictor", *SCORES.values()))
    lines = []
    for name in names:
        row = rows.get(name)
        if not row:
            continue
        cells = "".join(f"<td>{number(row.get(key))}</td>" for key in SCORES)
        kind = ' class="model"' if name == data.MODEL else ""
        lines.append(f'<tr{kind}><th scope="row">{text(registry.label(name))}</th>{cells}</tr>')
    return (
        f"<div><table><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def grid_table(
    caption: str, columns: Sequence[str], rows: Mapping[str, Sequence[Any]], *, digits: int = 3
) -> str:
    """A plain table, one row per name with its values; whole numbers stay whole."""
    head = "".join(f'<th scope="col">{text(word)}</th>' for word in columns)
    lines = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        + "".join(f"<td>{_cell(value, digits)}</td>" for value in values)
        + "</tr>"
        for name, values in rows.items()
    )
    return (
        f"<div><table><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def pair_table(caption: str, values: Mapping[str, Any]) -> str:
    """Names beside what they are: settings, versions."""
    lines = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="text">{text(_plain(value))}</td></tr>'
        for name, value in flat(values).items()
    )
    return f"<div><table><caption>{text(caption)}</caption><tbody>{lines}</tbody></table></div>"


def gene_table(table: pd.DataFrame, places: Mapping[str, int]) -> str:
    """genes.csv as a table to sort and filter, best genes first.

    Args:
        table: one row per gene, column gene first.
        places: genes of the viewer -> their place there; these become buttons.
    """
    columns = list(table)
    sorted_by = ""
    if "gene_r" in table:
        table = table.sort_values("gene_r", ascending=False, kind="stable")
        sorted_by = "gene_r"
    numeric = {name: pd.api.types.is_numeric_dtype(table[name]) for name in columns}
    numeric["gene"] = False
    heads = "".join(
        f'<th scope="col" data-kind="{"number" if numeric[name] else "text"}"'
        f"{' aria-sort=descending' if name == sorted_by else ''}>"
        f'<button type="button">{text(name.replace("_", " "))}</button></th>'
        for name in columns
    )
    lines = []
    for record in table[columns].to_dict("records"):
        gene = str(record["gene"])
        shown = text(gene)
        if gene in places:
            shown = (
                f'<button type="button" class="gene" data-place="{places[gene]}">{shown}</button>'
            )
        cells = [f'<th scope="row">{shown}</th>']
        for name in columns[1:]:
            value = record[name]
            if numeric[name] and not isinstance(value, bool):
                exact = repr(float(value)) if is_number(value) else ""
                cells.append(f'<td data-value="{exact}">{_short(value)}</td>')
            else:
                cells.append(f"<td>{_word(name, value)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="controls"><label>Filter by name '
        '<input type="search" id="gene-filter" autocomplete="off" spellcheck="false"></label>'
        f'<span id="gene-count" role="status">{len(table)} of {len(table)} genes</span></div>'
        '<div class="genes" tabindex="0" role="region" aria-label="Table of genes">'
        f'<table id="gene-table" class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"a": {"b": 1}} -> {"a.b": 1}."""
    level: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            level |= flat(value, f"{prefix}{name}.")
        else:
            level[f"{prefix}{name}"] = value
    return level


def script_data(ident: str, values: Any) -> str:
    """JSON inside the page; no text in it can end the script element."""
    dumped = json.dumps(values, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for letter, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        dumped = dumped.replace(letter, escape)
    return f'<script type="application/json" id="{ident}">{dumped}</script>'


def footnote(more: str = "") -> str:
    """What the star in every table means, and more of the kind."""
    return paragraph(registry.FOOTNOTE + ".", *([f"{more}."] if more else []), kind="note")


def _packaged(name: str) -> str:
    return (
        importlib.resources.files("histospace_tf.reports")
        .joinpath(name)
        .read_text(encoding="utf-8")
    )


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return number(value, digits) if isinstance(value, float) or value is None else text(value)


def _short(value: Any) -> str:
    """A number of genes.csv: small ones (p values) with an exponent, whole ones without a dot."""
    if not is_number(value):
        return DASH
    if float(value).is_integer():
        return number(value, 0)
    return number(value) if abs(value) >= 0.001 else f"{value:.0e}".replace("-", "\u2212")


def _word(column: str, value: Any) -> str:
    if value is None or value != value or value == "":  # NaN differs from itself
        return DASH
    return text(TRUST.get(str(value), value) if column == "trust" else value)


def _plain(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value) or DASH
    return str(value)


def drawn(figure: Figure, folder: Path, name: str, *, alt: str, caption: str, wide: bool) -> str:
    """Saves a figure as PNG and SVG; SVG inside the page, too, as far as a phone can show it.

    Args:
        wide: the page has it as WebP, and lets it scroll sideways on a phone.
    """
    figures.save(figure, folder, name)
    if wide:
        return pictured(folder, name, alt=alt, caption=caption)
    svg = (folder / f"{name}.svg").read_bytes()
    return picture(svg, "image/svg+xml", alt=alt, caption=caption, wide=False)


def pictured(folder: Path, name: str, *, alt: str, caption: str) -> str:
    """A saved figure inside the page, as WebP: half a JPEG's size, and text stays sharp."""
    pixels = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_COLOR)
    assert pixels is not None
    return web_picture(pixels[..., ::-1], alt=alt, caption=caption)

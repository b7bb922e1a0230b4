"""Clusters of spots as a part of the report: their maps, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata

from histospace_tf import outputs
from histospace_tf.reports import cluster_maps, data, gene_map_figure, page, sentences
from histospace_tf.reports.data import Results
from histospace_tf.reports.figures import plain
from histospace_tf.reports.page import Part, paragraph

MAP_PX = 700  # longer side of the H&E under a map
# Columns of the report's table, and their keys in clusters.json.
COMPARED = {
    "spots": "spots",
    "matched": "matched",
    "share": "share",
    "best constant": "constant_share",
    "adjusted Rand": "adjusted_rand",
    "mutual information": "normalized_mutual_info",
}


def part(results: Results, folder: Path) -> Part | None:
    """One block per section; None where nothing was clustered. Writes its figures into `folder`."""
    table = results.predictions
    body = []
    if results.clusters is not None:
        body.append(paragraph(*sentences.CLUSTERS))
    entries = (results.clusters or {}).get("sections") or {}
    sections = data.section_rows(table) if table is not None else {}
    for section in dict.fromkeys([*sections, *entries]):
        block = []
        if table is not None and section in sections:
            spots = table[sections[section]]
            if cluster_maps.drawn_columns(spots):
                block.append(_cluster_map(results, section, spots, folder))
        if section in entries:
            block.append(_cluster_tables(entries[section]))
        if block:
            body += [f"<h3>{page.text(section)}</h3>", *block]
    return ("clusters", "Clusters", "".join(body)) if body else None


def _cluster_map(results: Results, section: str, spots: anndata.AnnData, folder: Path) -> str:
    overview = results.overviews.get(section)
    overview = gene_map_figure.reduced(overview, MAP_PX) if overview else None
    mpp = overview.mpp if overview else None
    spot_px = overview.spot_px if overview else None
    name = f"clusters_{outputs.file_name(section)}"
    positive = data.positive_label(results, section)
    for suffix in ("png", "svg"):
        cluster_maps.cluster_figure(
            spots,
            overview.picture if overview else None,
            overview.px_per_overview_px if overview else 1.0,
            folder / f"{name}.{suffix}",
            title=plain(f"section {section}"),
            mpp=mpp,
            spot_diameter_um=spot_px * mpp if mpp and spot_px else None,
            **({"positive": positive} if positive else {}),
        )
    return page.pictured(
        folder,
        name,
        alt=f"Clusters of spots of section {section} over the H&E",
        caption="Predicted clusters are numbered like the measured ones that they fit best.",
    )


def _cluster_tables(entry: Mapping[str, Any]) -> str:
    parts = {name: value for name, value in entry.items() if isinstance(value, Mapping)}
    facts = {name: value for name, value in entry.items() if name not in parts}
    words = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())
    compared, tables = {}, []
    for name, value in parts.items():
        title = name.replace("_", " ")
        notes = {k: v for k, v in value.items() if not isinstance(v, (Mapping, list))}
        compared[title] = [notes.get(key) for key in COMPARED.values()]
        contingency = value.get("contingency")
        if isinstance(contingency, Mapping) and contingency:
            labels = list(dict.fromkeys(label for row in contingency.values() for label in row))
            rows = {
                f"cluster {cluster}": [row.get(label, 0) for label in labels]
                for cluster, row in contingency.items()
            }
            caption = title
            if notes.get("positive") is not None:
                caption += f": cluster {notes.get('positive_cluster')} = {notes['positive']}"
            paired = value.get("label_of_cluster")
            if isinstance(paired, Mapping):
                caption += ": " + "; ".join(f"{c} = {label}" for c, label in paired.items())
            tables.append(page.grid_table(caption, ["spots", *labels], rows))
    heads = ["clusters", *COMPARED]
    if all(row[-1] is None for row in compared.values()):  # known for labels of several kinds alone
        heads, compared = heads[:-1], {name: row[:-1] for name, row in compared.items()}
    if compared:
        tables.insert(0, page.grid_table("How alike", heads, compared))
    return f'{paragraph(words, kind="note")}<div class="tables pairs">{"".join(tables)}</div>'

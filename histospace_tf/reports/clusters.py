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
    """How alike clusters are, one row per section; maps and counts folded, section by section.

    None where nothing was clustered. Writes its figures into `folder`.
    """
    table = results.predictions
    entries = (results.clusters or {}).get("sections") or {}
    sections = data.section_rows(table) if table is not None else {}
    blocks = []
    for section in dict.fromkeys([*sections, *entries]):
        block = []
        if table is not None and section in sections:
            spots = table[sections[section]]
            if cluster_maps.drawn_columns(spots):
                block.append(_cluster_map(results, section, spots, folder))
        if section in entries:
            block.append(_counted(entries[section]))
        if block:
            blocks += [f"<h3>Section {page.text(section)}</h3>", *block]
    if not blocks:
        return None
    body = [_how_alike(entries)]
    if results.clusters is not None:
        body.append(page.folded("How to read these numbers", paragraph(*sentences.CLUSTERS)))
    body.append(page.folded("Maps of clusters and counts, section by section", "".join(blocks)))
    return "clusters", "Clusters", "".join(body)


def _how_alike(entries: Mapping[str, Any]) -> str:
    """One row per section and pair of clusterings."""
    rows = {
        f"{section}: {name.replace('_', ' ')}": [value.get(key) for key in COMPARED.values()]
        for section, entry in entries.items()
        for name, value in _pairs(entry).items()
    }
    heads = ["section and clusters", *COMPARED]
    if all(row[-1] is None for row in rows.values()):  # known for labels of several kinds alone
        heads, rows = heads[:-1], {name: row[:-1] for name, row in rows.items()}
    table = page.grid_table("How alike", heads, rows) if rows else ""
    return f'<div class="pairs">{table}</div>'


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


def _pairs(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What was compared in a section, by name."""
    return {name: value for name, value in entry.items() if isinstance(value, Mapping)}


def _counted(entry: Mapping[str, Any]) -> str:
    """What is known of a section's clusters, and how many spots of each label are in each."""
    pairs, tables = _pairs(entry), []
    facts = {name: value for name, value in entry.items() if name not in pairs}
    words = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())
    for name, value in pairs.items():
        contingency = value.get("contingency")
        if isinstance(contingency, Mapping) and contingency:
            labels = list(dict.fromkeys(label for row in contingency.values() for label in row))
            rows = {
                f"cluster {cluster}": [row.get(label, 0) for label in labels]
                for cluster, row in contingency.items()
            }
            caption = name.replace("_", " ")
            if value.get("positive") is not None:
                caption += f": cluster {value.get('positive_cluster')} = {value['positive']}"
            paired = value.get("label_of_cluster")
            if isinstance(paired, Mapping):
                caption += ": " + "; ".join(f"{c} = {label}" for c, label in paired.items())
            tables.append(page.grid_table(caption, ["spots", *labels], rows))
    return f'{paragraph(words, kind="note")}<div class="pairs">{"".join(tables)}</div>'

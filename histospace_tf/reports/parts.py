"""Parts of a report's page: what was scored, tables, curves, genes, settings.

A part is its id, its title and its HTML; None where the folder does not hold what it shows. Figures
are written into `folder`. Parts with a module of their own: `viewer`, `gene_maps`, `clusters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from histospace_tf.predictors import registry
from histospace_tf.reports import data, figures, page, score_table, sentences, viewer
from histospace_tf.reports.data import MODEL, Results
from histospace_tf.reports.page import Part, number, paragraph

STAIN_PANEL_PX = 1400


def summary(results: Results, folder: Path) -> Part:
    """What was scored, whether a patient leaks, and every predictor's gene_r."""
    scores = results.scores
    some = score_table.some_sections(scores)
    cards = []
    for name in data.predictors(scores):
        row = scores["mean"].get(name)
        if row:
            kind = ' class="first"' if name == MODEL else ""
            label = page.text(registry.label(name))
            label += f"<br>({some[name]})" if name in some else ""
            cards.append(f"<li{kind}><b>{number(row.get('gene_r'))}</b><span>{label}</span></li>")
    leak = sentences.leak(scores)
    body = [
        paragraph(*sentences.scored(scores)),
        paragraph(leak[1], kind="warning" if leak[0] else ""),
        paragraph(sentences.verdict(scores)),
        "<h3>Mean gene_r over held-out sections</h3>",
        f'<ul class="headline">{"".join(cards)}</ul>',
        page.drawn(
            figures.gene_r_by_section(scores),
            folder,
            "gene_r_by_section",
            alt="Mean r per gene of every predictor in each held-out section",
            caption="One mark per predictor, one line per section. Right is better; the gene mean, "
            "which needs no image, stands at 0.",
        ),
        page.footnote(),
    ]
    return "summary", "Summary", "".join(body)


def score_tables(results: Results) -> Part:
    """Every predictor's scores: the mean over sections, all spots pooled, each section; depth."""
    scores = results.scores
    names = data.predictors(scores)
    blocks = {}
    if len(scores["sections"]) > 1:
        blocks["Mean over sections"] = scores["mean"]
        if scores.get("pooled"):
            spots = sum(entry["spots"] for entry in scores["sections"].values())
            blocks[f"All {spots} held-out spots pooled"] = scores["pooled"]
    for section, entry in scores["sections"].items():
        caption = f"{section} (patient {entry['patient']}, {entry['spots']} spots)"
        if entry.get("fold"):
            caption += f", fold {entry['fold']}"
        blocks[caption] = entry["rows"]
    tables = [page.scores_table(caption, rows, names) for caption, rows in blocks.items()]
    body = [
        paragraph(*sentences.SCORES),
        *([paragraph(sentences.POOLED)] if scores.get("pooled") else []),
        f'<div class="tables">{"".join(tables)}</div>',
        page.footnote(),
        *(
            paragraph(
                f"{registry.label(name)}: its mean is over {note}, so no other row's mean "
                "compares with it."
            )
            for name, note in score_table.some_sections(scores).items()
        ),
        _depth(scores),
    ]
    return "scores", "Scores", "".join(body)


def _depth(scores: Mapping[str, Any]) -> str:
    depth = {name: entry.get("depth") for name, entry in scores["sections"].items()}
    depth = {name: row for name, row in depth.items() if row}
    if not depth:
        return ""
    columns = list(dict.fromkeys(name for row in depth.values() for name in row))
    columns.sort(key="measured".__ne__)
    rows = {name: [row.get(column) for column in columns] for name, row in depth.items()}
    if len(rows) > 1:
        mean = score_table.mean_depth(list(depth.values()))
        rows["mean over sections"] = [mean.get(column) for column in columns]
    heads = ["section", *(registry.label(column) for column in columns)]
    table = page.grid_table("Mean over genes of rank r with a spot's total counts", heads, rows)
    return f'<h3>Depth audit</h3>{paragraph(sentences.DEPTH)}<div class="pairs">{table}</div>'


def stain(results: Results) -> Part | None:
    """The steps of stain normalisation, as drawn by `stain_figure`."""
    panel = results.stain_panel
    if panel is None:
        return None
    height, width = panel.shape[:2]
    if width > STAIN_PANEL_PX:
        size = (STAIN_PANEL_PX, round(height * STAIN_PANEL_PX / width))
        panel = cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
    body = page.picture(
        data.encoded(panel, ".jpg"),
        "image/jpeg",
        alt="Tiles of the data before and after each step of stain normalisation",
        caption="Tiles of each section as scanned and after each step. In the last step "
        "sections should look as if they were stained in one laboratory.",
    )
    return "stain", "Stain normalisation", body


def learning(results: Results, folder: Path) -> Part | None:
    """Curves of training and of inner validation."""
    history = results.history
    if history is None:
        return None
    body = []
    for curves in sentences.CURVES:
        stages = sentences.stages(history, curves.kind)
        columns = ("val_gene_r", "val_spot_r") if curves.unit is None else ("loss",)
        if not stages or not _has_numbers(history, stages, (curves.along, *columns)):
            continue
        figure = (
            figures.correlations(history, stages, along=curves.along)
            if curves.unit is None
            else figures.learning_curves(history, stages, curves.unit)
        )
        body.append(f"<h3>{page.text(curves.title)}</h3>")
        body.append(
            page.drawn(figure, folder, curves.name, alt=curves.title, caption=curves.caption)
        )
    return ("learning", "Learning curves", "".join(body)) if body else None


def _has_numbers(history: pd.DataFrame, stages: Mapping[str, str], columns: Sequence[str]) -> bool:
    if not all(column in history for column in columns):
        return False
    chosen = history["stage"].astype(str).str.fullmatch("|".join(f"(?:{s})" for s in stages))
    numbers = history.loc[chosen, list(columns)].apply(pd.to_numeric, errors="coerce")
    return bool(np.isfinite(numbers.to_numpy()).all(axis=1).any())


def reconstructions(results: Results, folder: Path) -> Part | None:
    """Tiles as the autoencoders see them."""
    if len(results.reconstructions) < 2:
        return None
    body = page.drawn(
        figures.reconstructions(results.reconstructions),
        folder,
        "reconstructions",
        raster=True,
        alt="Input tiles and their reconstructions by each autoencoder",
        caption="Tiles that no autoencoder was trained on, above what each makes of them. MSE is "
        "of grey levels scaled to [0, 1]; lower is better. What is blurred here, the model cannot "
        "see.",
    )
    return "reconstructions", "Reconstructions", body


def genes(results: Results, shown: Sequence[str], folder: Path) -> Part | None:
    """r of every gene, sorted, and genes.csv as a table.

    Args:
        shown: genes that stand first in the viewer.
    """
    means = data.mean_gene_r(results)
    body = []
    if len(means):
        body.append(
            page.drawn(
                figures.genes_sorted(means),
                folder,
                "genes_sorted",
                alt="r of every gene, sorted, with the baselines at the same genes",
                caption="A place on the axis is a gene. Marks above the line: genes that a "
                "baseline predicts better than the model. The ceiling is not known gene by gene.",
            )
        )
    if results.genes is not None:
        places = {}
        if results.predictions is not None:
            listed = viewer.genes_shown(results, shown)
            places = {gene: place for place, gene in enumerate(listed)}
        body.append(paragraph(*sentences.gene_columns(results.genes)))
        body.append(page.gene_table(results.genes, places))
    return ("genes", "Genes", "".join(body)) if body else None


def settings(results: Results) -> Part | None:
    """config.json, versions and times."""
    tables = []
    if results.config is not None:
        tables.append(page.pair_table("Settings (config.json)", results.config))
    manifest = results.manifest or {}
    for key, caption in sentences.MANIFEST.items():
        if isinstance(manifest.get(key), Mapping) and manifest[key]:
            tables.append(page.pair_table(caption, manifest[key]))
    if not tables:
        return None
    return "settings", "Settings and versions", f'<div class="tables">{"".join(tables)}</div>'

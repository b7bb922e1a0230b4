"""report.html of a run or an evaluation: one self-contained page, and its figures as PNG and SVG.

`render` reads the folder that `fit` or `evaluate` wrote and leaves out whatever has no file there.
Nothing is computed anew but means over sections, and TensorFlow is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from histospace_tf import outputs
from histospace_tf.predictors import registry
from histospace_tf.reports import (
    maps,
    report_clusters,
    report_data,
    report_figures,
    report_page,
    report_text,
    report_viewer,
    score_table,
)
from histospace_tf.reports.report_data import Results
from histospace_tf.reports.report_data import write_overviews as write_overviews
from histospace_tf.reports.report_page import Part, number, paragraph
from histospace_tf.vocabulary import InputError, named

REPORT = "report.html"
FIGURES = "figures"
FIRST_GENES = ("GNAS", "ERBB2", "HLA-B")
BEST_GENES = 5  # shown beside FIRST_GENES where no genes are named
STAIN_PANEL_PX = 1400


def render(folder: Path, *, genes: Sequence[str] | None = None) -> Path:
    """Writes FOLDER/report.html and FOLDER/figures/, replacing those that stand there.

    Args:
        folder: of `fit` or `evaluate`; scores.json is needed, every other file may be absent.
        genes: drawn as maps and first in the viewer; by default GNAS, ERBB2 and HLA-B where the
            panel has them, and the five that the model predicts best besides.
    Returns:
        Path of report.html.
    Raises:
        InputError: as `report_data.read`; a gene that was not predicted, or genes named where there
            are no predictions.
    """
    folder = Path(folder)
    results = report_data.read(folder)
    shown = genes_to_show(results, genes)
    with outputs.whole_folder(folder / FIGURES, force=True) as draft:
        parts = [
            part
            for part in (
                _headline(results, draft),
                _tables(results),
                _stain(results),
                _learning(results, draft),
                _reconstructions(results, draft),
                _genes(results, shown, draft),
                _viewer(results, shown),
                _maps(results, shown, draft),
                report_clusters.part(results, draft),
                _settings(results),
            )
            if part is not None
        ]
    page = report_page.page(
        report_text.title(results), folder.resolve().name.removesuffix(".partial"), parts
    )
    with outputs.whole_file(folder / REPORT) as path:
        path.write_text(page, encoding="utf-8")
    return folder / REPORT


def genes_to_show(results: Results, genes: Sequence[str] | None) -> list[str]:
    """Genes that get a map: those named, else FIRST_GENES in the panel and the best BEST_GENES.

    Raises:
        InputError: as `render`.
    """
    if results.predictions is None:
        if genes:
            raise InputError(
                f"{str(results.folder)!r} has no predictions.h5ad, so no map of "
                f"{named(list(genes))} can be drawn"
            )
        return []
    known = [str(name) for name in results.predictions.var_names]
    if genes is not None:
        maps.check_genes(genes, known)
        return list(dict.fromkeys(genes))
    first = [gene for gene in FIRST_GENES if gene in known]
    r = report_data.mean_gene_r(results)["model"].dropna()
    best = [gene for gene in r.index if gene in set(known) and gene not in first]
    return [*first, *best[:BEST_GENES]]


def _headline(results: Results, figures: Path) -> Part:
    scores = results.scores
    some = score_table.some_sections(scores)
    cards = []
    for name in report_data.predictors(scores):
        row = scores["mean"].get(name)
        if row:
            kind = ' class="first"' if name == "model" else ""
            label = report_page.text(registry.label(name))
            label += f"<br>({some[name]})" if name in some else ""
            cards.append(f"<li{kind}><b>{number(row.get('gene_r'))}</b><span>{label}</span></li>")
    leak = report_text.leak(scores)
    body = [
        paragraph(*report_text.data(scores)),
        paragraph(leak[1], kind="warning" if leak[0] else ""),
        paragraph(report_text.verdict(scores)),
        "<h3>Mean gene_r over held-out sections</h3>",
        f'<ul class="headline">{"".join(cards)}</ul>',
        report_page.drawn(
            report_figures.gene_r_by_section(scores),
            figures,
            "gene_r_by_section",
            alt="Mean r per gene of every predictor in each held-out section",
            caption="One mark per predictor, one line per section. Right is better; the gene mean, "
            "which needs no image, stands at 0.",
        ),
        report_page.footnote(),
    ]
    return "summary", "Summary", "".join(body)


def _tables(results: Results) -> Part:
    scores = results.scores
    names = report_data.predictors(scores)
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
    tables = [report_page.scores_table(caption, rows, names) for caption, rows in blocks.items()]
    body = [
        paragraph(*report_text.SCORES),
        *([paragraph(report_text.POOLED)] if scores.get("pooled") else []),
        f'<div class="tables">{"".join(tables)}</div>',
        report_page.footnote(),
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
    table = report_page.grid_table(
        "Mean over genes of rank r with a spot's total counts", heads, rows
    )
    return f'<h3>Depth audit</h3>{paragraph(report_text.DEPTH)}<div class="pairs">{table}</div>'


def _stain(results: Results) -> Part | None:
    panel = results.stain_panel
    if panel is None:
        return None
    height, width = panel.shape[:2]
    if width > STAIN_PANEL_PX:
        size = (STAIN_PANEL_PX, round(height * STAIN_PANEL_PX / width))
        panel = cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
    body = report_page.picture(
        report_data.encoded(panel, ".jpg"),
        "image/jpeg",
        alt="Tiles of the data before and after each step of stain normalisation",
        caption="Tiles of each section as scanned and after each step. In the last step "
        "sections should look as if they were stained in one laboratory.",
    )
    return "stain", "Stain normalisation", body


def _learning(results: Results, figures: Path) -> Part | None:
    history = results.history
    if history is None:
        return None
    body = []
    for curves in report_text.CURVES:
        stages = report_text.stages(history, curves.kind)
        columns = ("val_gene_r", "val_spot_r") if curves.unit is None else ("loss",)
        if not stages or not _has_numbers(history, stages, (curves.along, *columns)):
            continue
        figure = (
            report_figures.correlations(history, stages, along=curves.along)
            if curves.unit is None
            else report_figures.learning_curves(history, stages, curves.unit)
        )
        body.append(f"<h3>{report_page.text(curves.title)}</h3>")
        body.append(
            report_page.drawn(
                figure, figures, curves.name, alt=curves.title, caption=curves.caption
            )
        )
    return ("learning", "Learning curves", "".join(body)) if body else None


def _has_numbers(history: pd.DataFrame, stages: Mapping[str, str], columns: Sequence[str]) -> bool:
    if not all(column in history for column in columns):
        return False
    chosen = history["stage"].astype(str).str.fullmatch("|".join(f"(?:{s})" for s in stages))
    numbers = history.loc[chosen, list(columns)].apply(pd.to_numeric, errors="coerce")
    return bool(np.isfinite(numbers.to_numpy()).all(axis=1).any())


def _reconstructions(results: Results, figures: Path) -> Part | None:
    if len(results.reconstructions) < 2:
        return None
    body = report_page.drawn(
        report_figures.reconstructions(results.reconstructions),
        figures,
        "reconstructions",
        raster=True,
        alt="Input tiles and their reconstructions by each autoencoder",
        caption="Tiles that no autoencoder was trained on, above what each makes of them. MSE is "
        "of grey levels scaled to [0, 1]; lower is better. What is blurred here, the model cannot "
        "see.",
    )
    return "reconstructions", "Reconstructions", body


def _genes(results: Results, shown: Sequence[str], figures: Path) -> Part | None:
    means = report_data.mean_gene_r(results)
    body = []
    if len(means):
        body.append(
            report_page.drawn(
                report_figures.genes_sorted(means),
                figures,
                "genes_sorted",
                alt="r of every gene, sorted, with the baselines at the same genes",
                caption="A place on the axis is a gene. Marks above the line: genes that a "
                "baseline predicts better than the model. The ceiling is not known gene by gene.",
            )
        )
    if results.genes is not None:
        places = {}
        if results.predictions is not None:
            listed = report_viewer.genes_shown(results, shown)
            places = {gene: place for place, gene in enumerate(listed)}
        body.append(paragraph(*report_text.gene_columns(results.genes)))
        body.append(report_page.gene_table(results.genes, places))
    return ("genes", "Genes", "".join(body)) if body else None


def _viewer(results: Results, shown: Sequence[str]) -> Part | None:
    if results.predictions is None:
        return None
    genes = report_viewer.genes_shown(results, shown)
    words = list(report_text.VIEWER)
    if len(genes) < results.predictions.n_vars:
        words.append(
            f"The {len(genes)} best predicted of {results.predictions.n_vars} genes are listed; "
            "predictions.h5ad holds all."
        )
    data = report_viewer.viewer_data(results, genes)
    body = paragraph(*words, kind="screen") + report_viewer.viewer_html(data, len(shown))
    return "maps", "Maps, any gene", body


def _maps(results: Results, shown: Sequence[str], figures: Path) -> Part | None:
    table = results.predictions
    if table is None or not shown:
        return None
    body = [paragraph(report_text.maps(report_data.section_rows(table)))]
    for gene in shown:
        column = np.asarray(table[:, gene].X)
        if not np.isfinite(column).any():
            body.append(paragraph(f"{gene} was in no fold's panel."))
            continue
        body.append(
            report_page.drawn(
                report_figures.gene_map(table, results.overviews, gene),
                figures,
                f"map_{outputs.file_name(gene)}",
                raster=True,
                alt=f"{gene} measured and predicted, over the H&E of each section",
                caption=f"{gene}, measured beside predicted; one colour scale for both.",
            )
        )
    return "chosen", "Maps of chosen genes", "".join(body)


def _settings(results: Results) -> Part | None:
    tables = []
    if results.config is not None:
        tables.append(report_page.pair_table("Settings (config.json)", results.config))
    manifest = results.manifest or {}
    for key, caption in report_text.MANIFEST.items():
        if isinstance(manifest.get(key), Mapping) and manifest[key]:
            tables.append(report_page.pair_table(caption, manifest[key]))
    if not tables:
        return None
    return "settings", "Settings and versions", f'<div class="tables">{"".join(tables)}</div>'

"""Parts of a report's page: what was scored, tables, curves, genes, settings.

A part is its id, its title and its HTML; None where the folder does not hold what it shows. Figures
are written into `folder`. Parts with a module of their own: `viewer`, `gene_maps`, `clusters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from histospace_tf.predictors import registry
from histospace_tf.reports import (
    autoencoder_figures,
    bulk,
    data,
    figures,
    findings,
    learning_curves,
    page,
    score_table,
    sentences,
    verdict,
    viewer,
)
from histospace_tf.reports.data import MODEL, Results
from histospace_tf.reports.page import Part, number, paragraph
from histospace_tf.scores import intervals

STAIN_PANEL_PX = 1400
WARNED = 3  # sentences that stand open
OF_TARGETS = "unit of the targets"


def summary(results: Results, folder: Path) -> Part:
    """Whether the model is worth its pains, what was scored, and every predictor's gene_r."""
    scores = results.scores
    if not scores["sections"]:
        return _summary_of_slides(scores)
    leaks, leak = sentences.leak(scores)
    judged = verdict.verdict(scores)
    first, *more = sentences.scored(scores)
    body = [
        paragraph(f"{verdict.MARKS[judged.kind]} {judged.words}", kind=f"verdict {judged.kind}"),
        _warned([*([leak] if leaks else []), *findings.findings(scores)]),
        paragraph(first, *([] if leaks else [leak])),
        page.folded("How spots were held out", paragraph(*more)) if more else "",
        page.drawn(
            figures.gene_r_by_section(scores),
            folder,
            "gene_r_by_section",
            wide=False,
            alt="Mean r per gene of every predictor in each held-out section",
            caption="One mark per predictor, one line per section. Right is better; the gene mean, "
            "which needs no image, stands at 0.",
        ),
    ]
    return "summary", "Summary", "".join(body)


def _summary_of_slides(scores: Mapping[str, Any]) -> Part:
    """Of a network that learned from slides as a whole: no spot was scored."""
    entry = scores["bulk"]
    held = "; ".join(", ".join(map(str, names)) for names in scores["split"]["held_out"])
    words = (
        f"{entry['slides']} slides of {sentences.count(entry['patients'], 'patient')}, of each "
        f"of which bulk expression alone was known. Patients left out in turn: {held}."
    )
    return "summary", "Summary", paragraph(words) + _warned(findings.findings(scores))


def _warned(lines: Sequence[str]) -> str:
    """What a reader must not miss, in one box; beyond WARNED, folded."""
    first, more = ("".join(map(paragraph, part)) for part in (lines[:WARNED], lines[WARNED:]))
    first += page.folded(f"{len(lines) - WARNED} more", more) if more else ""
    return f'<div class="warning">{first}</div>' if lines else ""


def score_tables(results: Results) -> Part:
    """Every predictor's scores: the mean over sections; all spots pooled, each section; depth."""
    scores = results.scores
    names = data.predictors(scores)
    notes = "".join(paragraph(line) for line in score_table.trained(scores))
    if not scores["sections"]:
        return "scores", "Scores", _bulk(scores, names) + notes
    blocks: dict[str, Mapping[str, Any]] = {}
    for section, entry in scores["sections"].items():
        caption = f"{section} (patient {entry['patient']}, {entry['spots']} spots)"
        if entry.get("fold"):
            caption += f", fold {entry['fold']}"
        blocks[caption] = entry["rows"]
    more = ""
    if len(blocks) > 1:  # one section is its own mean
        title = "Each section"
        if scores.get("pooled"):
            spots = sum(entry["spots"] for entry in scores["sections"].values())
            blocks[f"All {spots:,} held-out spots pooled"] = scores["pooled"]
            title += ", and all spots pooled"
        more = page.folded(title, _tables(blocks, names))
        blocks = {"Mean over sections": scores["mean"]}
    words = [*sentences.SCORES, *([sentences.POOLED] if more and scores.get("pooled") else [])]
    some = "; ".join(
        f"{registry.label(name)}: mean over {note}, so that no other row's compares with it"
        for name, note in score_table.some_sections(scores).items()
    )
    body = [
        _tables(blocks, names),
        page.footnote(some),
        page.folded("What rows and columns mean", paragraph(*words) + notes),
        more,
        _depth(scores),
        _bulk(scores, names),
    ]
    return "scores", "Scores", "".join(body)


def _tables(blocks: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    tables = [page.scores_table(caption, rows, names) for caption, rows in blocks.items()]
    return f'<div class="tables">{"".join(tables)}</div>'


def _bulk(scores: Mapping[str, Any], names: Sequence[str]) -> str:
    words = bulk.sentences(scores)
    if not words:
        return ""
    entry = scores["bulk"]
    table = ""
    if entry["rows"]:
        table = page.scores_table(bulk.heading(entry), entry["rows"], names)
        table = f'<div class="tables">{table}</div>'
    told = "".join(paragraph(line, kind="warning" * line.startswith("Warning: ")) for line in words)
    return f"<h3>Slides as a whole</h3>{told}{table}"


def _depth(scores: Mapping[str, Any]) -> str:
    depth = {name: entry.get("depth") for name, entry in scores["sections"].items()}
    depth = {name: row for name, row in depth.items() if row}
    if not depth:
        return ""
    columns = list(dict.fromkeys(name for row in depth.values() for name in row))
    columns.sort(key="measured".__ne__)
    rows = {name: [row.get(column) for column in columns] for name, row in depth.items()}
    mean = score_table.mean_depth(list(depth.values()))
    if len(rows) > 1:
        rows["mean over sections"] = [mean.get(column) for column in columns]
    title = ", ".join(
        f"{registry.label(name)} {number(mean[name], 2)}"
        for name in ("measured", MODEL)
        if name in columns
    )
    heads = ["section", *(registry.label(column) for column in columns)]
    table = page.grid_table("Mean over genes of rank r with a spot's total counts", heads, rows)
    body = f'{paragraph(sentences.DEPTH)}<div class="pairs">{table}</div>'
    return page.folded(f"Depth audit, r with a spot's total counts: {title}", body)


def training(results: Results, folder: Path) -> Part | None:
    """Everything that the model was made with, each folded under its own title."""
    blocks = {
        "Stain normalisation": _stain(results),
        **_learning(results, folder),
        "Reconstructions": _reconstructions(results, folder),
        "Settings and versions": _settings(results),
    }
    body = "".join(page.folded(title, html) for title, html in blocks.items() if html)
    return ("training", "How the model was trained", body) if body else None


def _stain(results: Results) -> str:
    """The steps of stain normalisation, as drawn by `stain_figure`."""
    panel = results.stain_panel
    if panel is None:
        return ""
    height, width = panel.shape[:2]
    if width > STAIN_PANEL_PX:
        size = (STAIN_PANEL_PX, round(height * STAIN_PANEL_PX / width))
        panel = cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
    return page.web_picture(
        panel,
        alt="Tiles of the data before and after each step of stain normalisation",
        caption="A tile of each section as scanned, after each step in turn, and after stain "
        "normalisation alone. After all steps sections should look as if they were stained in one "
        "laboratory. The maps show how far glass stays below white; tissue is left white.",
    )


def _learning(results: Results, folder: Path) -> dict[str, str]:
    """Curves of training and of inner validation, by their title."""
    history = results.history
    if history is None:
        return {}
    facts = (results.manifest or {}).get("complexities") or {}
    of_slides = not results.scores["sections"]
    heads = learning_curves.heads(history, of_slides=of_slides)
    of_heads = "learning_slides" if of_slides else "learning_heads"
    drawn = {
        of_heads: learning_curves.figure(history, heads, OF_TARGETS, alike=False),
        "strengths": learning_curves.strengths(history, heads),
        "learning_encoder": learning_curves.figure(
            history, learning_curves.own_autoencoder(history), autoencoder_figures.UNIT
        ),
        "learning_complexities": learning_curves.figure(
            history, learning_curves.complexities(history), OF_TARGETS
        ),
        "learning_autoencoders": autoencoder_figures.learning(
            history, results.reconstructions, facts.get("autoencoders") or {}
        ),
    }
    blocks = {}
    for name, figure in drawn.items():
        if figure is None:
            continue
        title, caption = sentences.CURVES[name]
        alt = f"{title}: learning curves"
        blocks[title] = page.drawn(figure, folder, name, wide=True, alt=alt, caption=caption)
    return blocks


def _reconstructions(results: Results, folder: Path) -> str:
    """Tiles as the autoencoders see them."""
    if len(results.reconstructions) < 2:
        return ""
    return page.drawn(
        autoencoder_figures.reconstructions(results.reconstructions),
        folder,
        "reconstructions",
        wide=True,
        alt="Input tiles, their reconstructions by each autoencoder, and the differences",
        caption="Tiles that no autoencoder was trained on, above what each makes of them and how "
        "far off that is, on one scale for all. MSE is of grey levels scaled to [0, 1], of the "
        "tiles shown and of each; lower is better. What is blurred here, the model cannot see.",
    )


def genes(results: Results, shown: Sequence[str], folder: Path) -> Part | None:
    """r of every gene, sorted, and genes.csv as a table.

    Args:
        shown: genes that stand first in the viewer.
    """
    means = data.mean_gene_r(results)
    body = []
    beside = figures.genes_beside(means)
    if beside is not None:
        drawn, caption = beside
        alt = "r of every gene: the model's beside the colour ridge's"
        html = page.drawn(drawn, folder, "genes_beside", wide=False, alt=alt, caption=caption)
        body.append(html)
    if results.genes is not None:
        places = {}
        if results.predictions is not None:
            listed = viewer.genes_shown(results, shown)
            places = {gene: place for place, gene in enumerate(listed)}
        columns = [name for name in sentences.COLUMNS if name in results.genes]
        body.append(page.gene_table(results.genes[["gene", *columns]], places))
        words = [sentences.COLUMNS[name] for name in columns]
        words = [*filter(None, words), "genes.csv has all columns."]
        body.append(page.folded("What the columns mean", paragraph(*words)))
    body.append(_intervals(results, folder))
    return ("genes", "Genes", "".join(body)) if any(body) else None


def _intervals(results: Results, folder: Path) -> str:
    """What intervals of genes reached on groups that were left out."""
    table = results.intervals
    figure = None if table is None else figures.reached(table)
    if table is None or figure is None:
        return ""
    groups, kind = int(table["groups"].max()), table["left_out"].dropna().iloc[0]
    caption = (
        f"Intervals of each gene by the errors on the others of {groups} {kind}s: the middle gene, "
        "and eight genes of ten. Below the line they are too narrow."
    )
    alt = "What prediction intervals should hold, and what they held"
    html = page.drawn(figure, folder, "intervals", wide=False, alt=alt, caption=caption)
    told = intervals.worth(table, 0.8)
    return page.folded(f"Between which values a gene lies: {told}", html)


def _settings(results: Results) -> str:
    """config.json, versions and times."""
    tables = []
    if results.config is not None:
        tables.append(page.pair_table("Settings (config.json)", results.config))
    manifest = results.manifest or {}
    for key, caption in sentences.MANIFEST.items():
        if isinstance(manifest.get(key), Mapping) and manifest[key]:
            tables.append(page.pair_table(caption, manifest[key]))
    return f'<div class="tables">{"".join(tables)}</div>' if tables else ""

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

STAIN_PANEL_PX = 1400
OF_TARGETS = "unit of the targets"


def summary(results: Results, folder: Path) -> Part:
    """What was scored, whether a patient leaks, and every predictor's gene_r."""
    scores = results.scores
    if not scores["sections"]:
        return _summary_of_slides(scores)
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
    judged = verdict.verdict(scores)
    body = [
        paragraph(f"{verdict.MARKS[judged.kind]} {judged.words}", kind=f"verdict {judged.kind}"),
        paragraph(*sentences.scored(scores)),
        paragraph(leak[1], kind="warning" if leak[0] else ""),
        *(paragraph(line, kind="warning") for line in findings.findings(scores)),
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


def _summary_of_slides(scores: Mapping[str, Any]) -> Part:
    """Of a network that learned from slides as a whole: no spot was scored."""
    entry = scores["bulk"]
    held = "; ".join(", ".join(map(str, names)) for names in scores["split"]["held_out"])
    cards = "".join(
        f"<li{' class=first' * (name == MODEL)}><b>{number(row.get('gene_r'))}</b>"
        f"<span>{page.text(registry.label(name))}</span></li>"
        for name, row in (entry["rows"] or {}).items()
    )
    body = [
        paragraph(
            f"{entry['slides']} slides of {sentences.count(entry['patients'], 'patient')}, of each "
            f"of which bulk expression alone was known. Patients left out in turn: {held}."
        ),
        *(paragraph(line, kind="warning") for line in findings.findings(scores)),
        *(["<h3>gene_r over slides</h3>", f'<ul class="headline">{cards}</ul>'] if cards else []),
    ]
    return "summary", "Summary", "".join(body)


def score_tables(results: Results) -> Part:
    """Every predictor's scores: the mean over sections, all spots pooled, each section; depth."""
    scores = results.scores
    if not scores["sections"]:
        notes = "".join(paragraph(line) for line in score_table.trained(scores))
        return "scores", "Scores", _bulk(scores, data.predictors(scores)) + notes
    names = data.predictors(scores)
    blocks: dict[str, Mapping[str, Any]] = {}
    each: dict[str, Mapping[str, Any]] = {}
    if len(scores["sections"]) > 1:
        blocks["Mean over sections"] = scores["mean"]
        if scores.get("pooled"):
            spots = sum(entry["spots"] for entry in scores["sections"].values())
            blocks[f"All {spots} held-out spots pooled"] = scores["pooled"]
    for section, entry in scores["sections"].items():
        caption = f"{section} (patient {entry['patient']}, {entry['spots']} spots)"
        if entry.get("fold"):
            caption += f", fold {entry['fold']}"
        each[caption] = entry["rows"]
    if not blocks:  # one section is its own mean
        blocks, each = each, {}
    words = [*sentences.SCORES, *([sentences.POOLED] if scores.get("pooled") else [])]
    body = [
        page.folded("What the columns mean", paragraph(*words)),
        _tables(blocks, names),
        page.folded("Each section", _tables(each, names)) if each else "",
        page.footnote(),
        *(paragraph(line) for line in score_table.trained(scores)),
        *(
            paragraph(
                f"{registry.label(name)}: its mean is over {note}, so no other row's mean "
                "compares with it."
            )
            for name, note in score_table.some_sections(scores).items()
        ),
        _bulk(scores, names),
        _depth(scores),
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
    return f"<h3>Slides as a whole</h3>{''.join(paragraph(line) for line in words)}{table}"


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
        caption="A tile of each section as scanned, after each step in turn, and after stain "
        "normalisation alone. After all steps sections should look as if they were stained in one "
        "laboratory. The maps show how far glass stays below white; tissue is left white.",
    )
    return "stain", "Stain normalisation", body


def learning(results: Results, folder: Path) -> Part | None:
    """Curves of training and of inner validation."""
    history = results.history
    if history is None:
        return None
    facts = (results.manifest or {}).get("complexities") or {}
    of_slides = not results.scores["sections"]
    heads = learning_curves.heads(history, of_slides=of_slides)
    of_heads = "learning_slides" if of_slides else "learning_heads"
    drawn = {
        "learning_autoencoders": autoencoder_figures.learning(
            history, results.reconstructions, facts.get("autoencoders") or {}
        ),
        "learning_encoder": learning_curves.figure(
            history, learning_curves.own_autoencoder(history), autoencoder_figures.UNIT
        ),
        "learning_complexities": learning_curves.figure(
            history, learning_curves.complexities(history), OF_TARGETS
        ),
        of_heads: learning_curves.figure(history, heads, OF_TARGETS, alike=False),
        "strengths": learning_curves.strengths(history, heads),
    }
    body = []
    for name, figure in drawn.items():
        if figure is None:
            continue
        title, caption = sentences.CURVES[name]
        holds_pictures = name == "learning_autoencoders" and bool(results.reconstructions)
        body.append(f"<h3>{page.text(title)}</h3>")
        body.append(
            page.drawn(
                figure,
                folder,
                name,
                raster=holds_pictures,
                alt=f"{title}: learning curves",
                caption=caption,
            )
        )
    return ("learning", "Learning curves", "".join(body)) if body else None


def reconstructions(results: Results, folder: Path) -> Part | None:
    """Tiles as the autoencoders see them."""
    if len(results.reconstructions) < 2:
        return None
    body = page.drawn(
        autoencoder_figures.reconstructions(results.reconstructions),
        folder,
        "reconstructions",
        raster=True,
        alt="Input tiles, their reconstructions by each autoencoder, and the differences",
        caption="Tiles that no autoencoder was trained on, above what each makes of them and how "
        "far off that is, on one scale for all. MSE is of grey levels scaled to [0, 1], of the "
        "tiles shown and of each; lower is better. What is blurred here, the model cannot see.",
    )
    return "reconstructions", "Reconstructions", body


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
        body.append(page.drawn(drawn, folder, "genes_beside", alt=alt, caption=caption))
    if results.genes is not None:
        places = {}
        if results.predictions is not None:
            listed = viewer.genes_shown(results, shown)
            places = {gene: place for place, gene in enumerate(listed)}
        words = paragraph(*sentences.gene_columns(results.genes))
        body.append(page.folded("What the columns mean", words))
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

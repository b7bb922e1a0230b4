"""MODEL_CARD.md of a run: what the model was trained on, how it scored, what it is for, its limits.

Everything is read from the run's own files: bundle.json, manifest.json, genes.csv, and scores.json
or, for a model that was trained on everything, evaluations.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histospace_tf import bundle_file, inherited_scores, outputs
from histospace_tf.data_pipelines import readers, splits
from histospace_tf.predictors import ours, registry
from histospace_tf.reports import findings, joined_counts, network_card
from histospace_tf.scores import gene_table, metrics

FILE = "MODEL_CARD.md"
# Columns of the table, of metrics.SCORES; the first is given for every section, too.
SCORES = ("gene_r", "spot_r", "mse")


def write(run: Path, *, name: str, sources: Sequence[str] = ()) -> None:
    """Writes the card into a run's folder.

    Args:
        run: folder of a run with bundle, manifest and scores.
        name: the card's title.
        sources: more lines on where data come from, and under what licence.
    """
    with outputs.whole_file(run / FILE) as draft:
        draft.write_text(_card(run, name, sources), encoding="utf-8")


def held_out_scores(run: Path) -> dict[str, dict[str, Any]]:
    """scores.json of what was held out, by the kind of split; empty where nothing was scored."""
    carried = run / inherited_scores.FILE
    if carried.is_file():
        return dict(json.loads(carried.read_text(encoding="utf-8")))
    path = run / "scores.json"
    own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {own["split"]["outer"]: own} if own.get("sections") else {}


def _card(run: Path, name: str, sources: Sequence[str]) -> str:
    model = json.loads((run / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    parts = [
        f"# {name}",
        _what(model),
        "## Trained on",
        _trained_on(model, manifest, sources),
        "## Scores on what was held out",
        _scores(held_out_scores(run), model),
        "## Use and limits",
        _limits(model, held_out_scores(run), _own_findings(run)),
        "## Genes",
        _genes(run, model),
        "## How it was made",
        _made(model, manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _what(model: Mapping[str, Any]) -> str:
    if model.get("network"):
        return network_card.what(model)
    tiles, regressor = model["config"]["tiles"], model["config"]["regressor"]
    scale = f"{tiles['mpp']:g} microns per pixel" if tiles["mpp"] else "the image's own scale"
    colours = "" if model["config"]["stain"]["method"] == "none" else "stain-normalised "
    context = (
        "`predict` also reads the slide's own statistics and each place's neighbours within "
        f"{model['config']['context']['neighbour_um']:g} microns; the exported single-tile model "
        "does without. "
        if regressor["architecture"] == "context"
        else ""
    )
    return (
        f"Predicts the expression of {len(model['panel']['genes'])} genes, in "
        f"{model['unit']}, from {colours}H&E tiles of {tiles['tile_px']} x "
        f"{tiles['tile_px']} px at {scale}. {context}{model['parameters']:,} parameters; preset "
        f"`{model['config']['preset']}`, head `{regressor['architecture']}`."
    )


def _trained_on(
    model: Mapping[str, Any], manifest: Mapping[str, Any], sources: Sequence[str]
) -> str:
    trained_on = model["trained_on"]
    donor = bundle_file.encoder_run(trained_on)
    lines = [
        f"* Expression: {trained_on['spots']:,} spots of {len(trained_on['sections'])} sections "
        f"({', '.join(trained_on['sections'])}), {_patients(trained_on)} "
        f"({', '.join(trained_on['patients'])}).",
        network_card.training(model) if model.get("network") else _encoder(donor),
    ]
    if counts := trained_on.get("counts"):
        lines.insert(1, f"* {joined_counts.joined(counts)} ({', '.join(counts['patients'])}).")
    if trained_on["simulated"]:
        lines.append("* **The tissue is simulated**: nothing here says anything about real tissue.")
    else:
        citation = readers.citation(manifest["data"]["layout"])
        lines += [f"* Data: {citation}"] if citation else []
    return "\n".join([*lines, *(f"* {line}" for line in sources)])


def _encoder(donor: Mapping[str, Any]) -> str:
    brought = bundle_file.brought_encoder(donor)
    if brought is not None:
        return (
            f"* Encoder: {brought['name']}, which was brought along and is no part of this run "
            f"(checksum {brought['checksum']}); {brought['features']:,} features per tile."
        )
    return (
        f"* Autoencoder: {donor['autoencoder']['tiles']:,} tiles of "
        f"{donor['autoencoder']['images']}, without expression."
    )


def _patients(trained_on: Mapping[str, Any]) -> str:
    count = len(trained_on["patients"])
    return f"{count} patient{'s' * (count != 1)}"


def _scores(by_split: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> str:
    if not by_split:
        return (
            "None: nothing was held out and no evaluation was given (`fit --no-hold-out "
            "--evaluation DIR` carries one's scores)."
        )
    parts = []
    for split, scores in by_split.items():
        words = {
            "patient": "**New patients**: every patient held out in turn."
            if len(scores["split"]["held_out"]) > 1
            else "**A new patient** was held out.",
            "section": "**New sections** were held out.",
        }.get(split, f"Held out: {', '.join(map(str, scores['split']['held_out']))}.")
        leaking = scores["split"].get("patient_on_both_sides")
        if leaking:
            words += f" Patient {', '.join(leaking)} is on both sides; {splits.LEAK}."
        parts += [words, _table(scores, model)]
    parts.append(
        "`gene_r`: Pearson's r over a section's spots, gene by gene, then the mean over genes. "
        "`spot_r`: r over genes, spot by spot, then the mean over spots; read it beside the gene "
        f"mean's. MSE in ({model['unit']}) squared."
    )
    parts.append("\\" + registry.FOOTNOTE)  # an asterisk, not a list
    return "\n\n".join(parts)


def _table(scores: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    sections = scores["sections"]
    chosen = {one["predictor"]: one for one in scores.get("chosen") or ()}
    first, *others = (metrics.SCORES[key].label for key in SCORES)
    lines = [
        f"| predictor | {' | '.join([first, *sections, *others])} |",
        "|---" * (len(sections) + len(SCORES) + 1) + "|",
    ]
    for row in registry.in_order(scores["mean"]):
        mean, entry = scores["mean"][row], registry.entry(row)
        if not mean or (entry is not None and entry.knows_patient):
            continue
        if row == ours.SingleTile.name and not _has_context(model):
            continue
        note = entry.note_of(chosen.get(row, {})) if entry is not None else ""
        label = registry.label(row, note=note)
        each = [(of["rows"].get(row) or {}).get(SCORES[0]) for of in sections.values()]
        of_mean = [mean.get(key) for key in SCORES]
        cells = [of_mean[0], *each, *of_mean[1:]]
        shown = " | ".join("-" if value is None else f"{value:.3f}" for value in cells)
        lines.append(f"| {label} | {shown} |")
    return "\n".join(lines)


def _has_context(model: Mapping[str, Any]) -> bool:
    return bool(model["config"]["regressor"]["architecture"] == "context")


def _own_findings(run: Path) -> list[str]:
    """What is to be said of the run itself, where nothing was held out of it."""
    path = run / "scores.json"
    own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [] if not own or own["sections"] else findings.findings(own)


def _limits(
    model: Mapping[str, Any], by_split: Mapping[str, Mapping[str, Any]], own: Sequence[str]
) -> str:
    return "\n".join(
        [
            *_weaknesses(model, by_split),
            *(f"* {line}" for line in own),
            "* For research: to see where in a slide a gene is likely to be high, in tissue like "
            "that of the training sections. **Not for diagnosis, and not for any decision about a "
            "patient.**",
            f"* {_patients(model['trained_on']).capitalize()} of one data set and one platform: "
            "other tissues, stains, scanners and diseases were never seen.",
            "* Maps say where, not how much: levels of different slides are not comparable.",
            "* Genes that are not trusted (below) were not predicted better than chance, or only "
            "on some of what was held out.",
        ]
    )


def _weaknesses(model: Mapping[str, Any], by_split: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the model scores no better than something simpler, as lines of Markdown."""
    lines = []
    for split, scores in by_split.items():
        mean = scores["mean"]
        own, single = mean[ours.Model.name], mean.get(ours.SingleTile.name)
        if _has_context(model) and single and single["gene_r"] > own["gene_r"]:
            lines.append(
                f"* On a new {split} the single-tile head scored better than slide context: gene_r "
                f"{single['gene_r']:.3f} against {own['gene_r']:.3f}, MSE {single['mse']:.3f} "
                f"against {own['mse']:.3f}."
            )
        lines += [f"* On a new {split}: {line}" for line in findings.findings(scores)]
    return lines


def _genes(run: Path, model: Mapping[str, Any]) -> str:
    path, panel = run / "genes.csv", model["panel"]["genes"]
    if not path.is_file():
        return "Held-out r is not known.\n\n" + ", ".join(panel)
    table = gene_table.trust_of(panel, path)
    other = pd.read_csv(path, dtype={"gene": str}, keep_default_na=False).set_index("gene")
    more = [name for name in other if name.startswith("gene_r_")]
    if "patients" in other:
        table["patients"] = pd.to_numeric(other["patients"], errors="coerce").reindex(panel)
    else:  # of an evaluation by an earlier version
        table["patients"] = np.nan
    for name in more:
        table[name] = pd.to_numeric(other[name], errors="coerce").reindex(panel)
    counts = table["trust"].value_counts()
    words = ", ".join(f"{word} {counts.get(word, 0)}" for word in gene_table.TRUST)
    (first, *_) = held_out_scores(run) or ("",)
    lines = [
        f"Held-out r of `predict`'s model, gene by gene ({first} held out); trust: {words}. A gene "
        "is scored where the other side's panel holds it; one that was scored on a single patient "
        "(of several) is weak at best.",
        "",
        "| gene | held-out r | trust | patients |" + "".join(f" {_plain(name)} |" for name in more),
        "|---" * (4 + len(more)) + "|",
    ]
    for gene, row in table.sort_values("gene_r", ascending=False, kind="stable").iterrows():
        patients = "-" if np.isnan(row["patients"]) else f"{row['patients']:.0f}"
        cells = [_number(row["gene_r"]), row["trust"], patients]
        cells += [_number(row[name]) for name in more]
        lines.append(f"| {gene} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(column: str) -> str:
    """gene_r_section_split -> r, section held out."""
    return f"r, {column.removeprefix('gene_r_').removesuffix('_split')} held out"


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _made(model: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    return (
        f"Seed {manifest['seed']}. {versions}. Every setting and checksum stands in "
        "bundle/bundle.json and manifest.json."
    )

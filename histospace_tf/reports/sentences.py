"""The words of a report: what was scored, what each part shows and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from histospace_tf.data_pipelines.splits import LEAK
from histospace_tf.predictors import registry
from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.reports import joined_counts
from histospace_tf.reports.data import MODEL, Results
from histospace_tf.scores.groups import Groups

SCORES = (
    "gene_r: Pearson r over a section's spots, gene by gene, then the mean over genes; it says "
    "whether maps are right.",
    "median: the same with the median over genes. smoothed: the measured values averaged over each "
    "spot's neighbours first.",
    "spot_r: r over genes, spot by spot; a constant scores high on it, so compare it with the gene "
    "mean's.",
    "MSE and MAE are in the target's unit, squared for MSE; lower is better.",
)
POOLED = (
    "Pooled rows take r once over the spots of all sections. They also reward telling sections "
    "apart, and the gene mean's is below 0 there by construction: where a section is high, the "
    "mean of the others is low."
)
DEPTH = (
    "Total counts differ between spots for technical reasons. A predictor that follows them more "
    "than the measured values do predicts depth, not genes."
)
VIEWER = (
    "Pick a section and a gene; fade the map to see the H&E beneath it.",
    "Point at a spot, or tap it, to read its values.",
    "Predictions vary less than measurements, so each map has its own colour scale; one for the "
    "gene compares levels, of sections too.",
)
CLUSTERS = (
    "Spots were clustered by k-means on their expression, each section by itself.",
    "share: of spots matched; read it beside what the best constant matches.",
    "Against labels of several kinds, clusters and labels are paired one to one so that most spots "
    "match.",
    "adjusted Rand: 0 is chance, 1 the same partition; mutual information: the same scale, but "
    "above 0 by chance.",
)
MANIFEST = {
    "left_out": "Sections left out",
    "versions": "Versions",
    "machine": "Machine",
    "times": "Times (seconds)",
    "seconds": "Times (seconds)",
}
# Columns of genes.csv that a page shows, besides gene.
COLUMNS = {
    "trust": "trust: yes (use the map), weak (a hint), no (the data do not show it).",
    "gene_r": "gene_r: mean over sections of r.",
    "colour_ridge_r": "colour ridge r: the same of colours alone.",
    "lowest_patient_r": "lowest patient r: the model's in the patient where it is lowest.",
    "low": "low and high: 95 % bootstrap interval of gene_r.",
    "high": "",
    "p_spatial_bh": "p spatial bh: from maps as smooth as the measured one, after "
    "Benjamini-Hochberg.",
    "share_positive": "share positive: share of sections with r above 0.",
}


# Figures of learning curves -> title and caption.
CURVES = {
    "learning_autoencoders": (
        "The three autoencoders of the paper",
        "Validation tiles come from other patients or images than the training tiles; lower is "
        "better, and a gap that widens is overfitting. All curves share one scale.",
    ),
    "learning_encoder": (
        "The model's autoencoder",
        "Thin lines: each fold's; bold: their mean, as far as all of them run.",
    ),
    "learning_complexities": (
        "Heads of three complexities",
        "One, two or three convolution blocks, and a dense layer that widens with them, on the "
        "same frozen encoder. Where validation rises while training falls, the head learns its "
        "training spots by heart. Correlations are of training and of validation spots; all "
        "panels of a row share one scale.",
    ),
    "learning_heads": (
        "The model's heads, and those compared with them",
        "Thin lines: each inner group of each fold; bold: their mean, as far as all of them run. "
        "Dotted: the training on the whole training side that follows, or that stands alone where "
        "the number of epochs is fixed. Each head's loss is on an axis of its own, for their "
        "targets may differ. Epochs are chosen on inner groups, never on the held-out section. "
        "Correlations are of training and of validation spots.",
    ),
    "learning_slides": (
        "Networks on slides as a whole",
        "Thin lines: each inner group of each fold; bold: their mean, as far as all of them run. "
        "Dotted: the training on all slides of the training side that follows. Epochs are chosen "
        "by the loss on inner groups of patients, never on held-out slides. gene_r is over the "
        "slides of a group; over two or three it is noise.",
    ),
    "strengths": (
        "Both correlations and the strength of the penalty",
        "Thin lines: each inner group of each fold; bold: their mean. A weak penalty learns noise "
        "by heart, a strong one sees too little. The strength (dotted) is chosen here, never on "
        "the held-out section.",
    ),
}


def head(family: str, *, of_slides: bool) -> str:
    """What curves of a family of trainings are called; of_slides: of networks on whole slides."""
    if of_slides:
        return family
    entry = registry.entry(family)
    return entry.label if isinstance(entry, PeerNetwork) else f"{family} head"


def title(results: Results) -> str:
    """The page's heading."""
    sections = list(results.scores["sections"])
    return "histospace-tf report: " + (", ".join(_few(sections, 6)) or "slides as a whole")


def scored(scores: Mapping[str, Any]) -> list[str]:
    """What was scored: spots, sections, patients, genes, unit, split."""
    sections = scores["sections"]
    spots = sum(int(entry["spots"]) for entry in sections.values())
    patients = {str(entry["patient"]) for entry in sections.values()}
    target = scores.get("target") or {}
    split = scores.get("split") or {}
    words = [
        f"{spots:,} held-out spots of {count(len(sections), 'section')} from "
        f"{count(len(patients), 'patient')}, {target.get('genes', 'unknown')} genes "
        f"({str(target.get('normalisation', 'unknown unit')).replace('_', ' ')})."
    ]
    held = split.get("held_out") or []
    if held and isinstance(held[0], (list, tuple)):
        folds = "; ".join(", ".join(map(str, names)) for names in held)
        words.append(
            f"Nested leave-one-out, a {split.get('outer')} at a time: {len(held)} folds ({folds})."
        )
    elif held:
        words.append(f"Held out by {split.get('outer')}: {', '.join(map(str, held))}.")
    if split.get("inner"):
        words.append(f"Strengths or epochs were chosen on inner groups, split by {split['inner']}.")
    fixed = {
        one["epochs"]
        for one in scores.get("chosen") or ()
        if one["predictor"] == MODEL and one.get("by") == "fixed"
    }
    if fixed:
        words.append(f"The model was trained for a fixed number of epochs, {max(fixed)}.")
    return [*words, *joined_counts.sentences(split)]


def leak(scores: Mapping[str, Any]) -> tuple[bool, str]:
    """(whether a patient stands on both sides, what that means)."""
    names = (scores.get("split") or {}).get("patient_on_both_sides")
    if names is None:
        return True, "It is not recorded whether a patient is on both sides."
    if names:
        who = ("Patient " if len(names) == 1 else "Patients ") + ", ".join(map(str, names))
        verb = "is" if len(names) == 1 else "are"
        return True, f"{who} {verb} on both sides: {LEAK}."
    return False, "No patient is on both sides: the scores hold for patients never seen."


def groups(chosen: Groups) -> list[str]:
    """Which spots are compared, and how to read the numbers."""
    if chosen.positive:
        words = [
            f'Spots with the label "{chosen.positive}" stand against all other labelled spots, '
            "each section by itself; spots without a label, and sections without labels, are left "
            "out.",
        ]
    elif chosen.by_label:
        words = [
            "Spots are grouped by their label, each section by itself; spots without a label, and "
            "sections without labels, are left out.",
        ]
    else:
        words = [
            "No spot here has a label, so spots are grouped by clusters of predicted expression, "
            "each section by itself: cluster 0 of one section is no other's. Predicted values "
            "differ between these groups by construction: what counts is what measured ones do.",
        ]
    return [
        *words,
        "AUROC: the chance that a spot of the group has the higher value than one outside: "
        "0.5 where groups are alike, 1 or 0 where they are apart. No p is given: spots near each "
        "other are alike, and a test would take them as independent.",
        "figures/expression_by_group.csv has every gene and section.",
    ]


def _few(names: Sequence[str], most: int) -> list[str]:
    shown = [str(name) for name in names[:most]]
    return shown + ([f"and {len(names) - most} more"] if len(names) > most else [])


def count(n: int, noun: str) -> str:
    """A number of things in words: "1 block", "2 blocks"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")

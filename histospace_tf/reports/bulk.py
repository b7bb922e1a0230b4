"""What a reader of scores over slides must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histospace_tf.predictors import baselines, bulk_scores, ours
from histospace_tf.predictors.mean_feature_ridge import MeanFeatureRidge

FEW_PATIENTS = 5


def heading(entry: Mapping[str, Any]) -> str:
    """Of the block of rows."""
    return (
        f"bulk of {entry['slides']} slides"
        if entry.get("learned")
        else (f"pseudo-bulk of {entry['slides']} slides")
    )


def sentences(scores_json: Mapping[str, Any]) -> list[str]:
    """How to read "bulk" of scores.json, or why nothing was scored; empty where it has none."""
    entry = scores_json.get("bulk")
    if not entry:
        return []
    slides, patients = entry["slides"], entry["patients"]
    if slides < bulk_scores.LEAST_SLIDES:
        return [
            f"Slides as a whole are not scored: {slides} held out, and r of a gene over fewer "
            f"than {bulk_scores.LEAST_SLIDES} slides says nothing."
        ]
    if not entry["rows"]:
        return ["Slides as a whole are not scored: the folds' panels share no gene."]
    what = (
        "between what was predicted while its patient was left out and what was measured"
        if entry.get("learned")
        else "between the mean of its predicted counts and the sum of its measured ones"
    )
    words = [
        f"{slides} slides as a whole, {entry['genes']} genes that all folds' panels hold: gene_r "
        f"is r of a gene over slides, {what}; spot_r is r over genes, slide by slide. The gene "
        "mean's gene_r is below 0 by construction where each fold has its own: where a slide is "
        "high, the mean of the others is low."
    ]
    rows = entry["rows"]
    model, mean, ridge = (
        rows.get(name) or {}
        for name in (ours.Model.name, baselines.GeneMean.name, MeanFeatureRidge.name)
    )
    if model and mean and round(model["mse"], 3) > round(mean["mse"], 3):
        words.append(
            f"Warning: the MSE of the model, {model['mse']:.3f}, is above the gene mean's, "
            f"{mean['mse']:.3f}: of these slides' levels it knows less than their mean says."
        )
    if model and ridge and round(model["mse"], 3) > round(ridge["mse"], 3):
        words.append(
            f"Warning: the MSE of the model, {model['mse']:.3f}, is above that of a ridge on the "
            f"mean of a slide's features, {ridge['mse']:.3f}: the network adds nothing to them."
        )
    if patients < min(slides, FEW_PATIENTS):
        words.append(
            f"Warning: the {slides} slides are of {patients} patient{'s' * (patients != 1)}. "
            "Slides of one patient repeat each other: r over slides says little more than how "
            "those patients differ."
        )
    return words

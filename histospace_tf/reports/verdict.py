"""One sentence on top of a report: is the model better than a predictor without a network?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from histospace_tf.predictors import registry
from histospace_tf.predictors.baselines import ColourRidge
from histospace_tf.reports.data import MODEL

GOOD, MIXED, POOR = "good", "mixed", "poor"
MARKS = {GOOD: "●", MIXED: "◐", POOR: "○"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """GOOD, MIXED or POOR, and why."""

    kind: str
    words: str


def verdict(scores: Mapping[str, Any]) -> Verdict:
    """The model's gene_r beside the strongest baseline's, section by section.

    GOOD: ahead in every held-out section, of which one at least is of a patient never seen. POOR:
    not ahead in the mean.
    """
    mean = scores["mean"]
    own = (mean.get(MODEL) or {}).get("gene_r")
    rivals = {
        name: row["gene_r"]
        for name, row in mean.items()
        if registry.kind(name) == "baseline" and row and row.get("gene_r") is not None
    }
    if own is None or not rivals:
        return Verdict(POOR, "The model has no mean gene_r here.")
    best = max(rivals, key=rivals.__getitem__)
    label = "colours alone" if best == ColourRidge.name else f"the {registry.label(best)}"
    figures = f"mean gene_r {own:.3f}, {registry.label(best)} {rivals[best]:.3f}"
    if round(own, 3) <= round(rivals[best], 3):
        return Verdict(POOR, f"No better than {label} ({figures}): use the {registry.label(best)}.")
    won = {
        name: entry["rows"][MODEL]["gene_r"] > entry["rows"][best]["gene_r"]
        for name, entry in scores["sections"].items()
        if all((entry["rows"].get(row) or {}).get("gene_r") is not None for row in (MODEL, best))
    }
    shared = (scores.get("split") or {}).get("patient_on_both_sides")
    new = {
        name: shared is not None and str(scores["sections"][name]["patient"]) not in shared
        for name in won
    }
    wins = {is_new: [won[name] for name in won if new[name] == is_new] for is_new in (True, False)}
    words = f"Better than {label} in {_of([*won.values()])} ({figures})"
    if shared is None:
        words += "; whether a patient was trained on is not recorded."
    elif not wins[True]:
        words += "; on a new patient not tried."
    elif not wins[False]:
        words += ", all of patients that were not trained on."
    else:
        words += (
            f": {_of(wins[True])} of patients that were not trained on, {_of(wins[False])} of "
            "patients that were."
        )
    better = [
        f"{registry.label(name)} {row['gene_r']:.3f}"
        for name, row in mean.items()
        if registry.kind(name) in ("ours", "other")
        and row
        and round(row.get("gene_r") or 0.0, 3) > round(own, 3)
        and all(entry["rows"].get(name) for entry in scores["sections"].values())
    ]
    if better:
        words += f" Higher still: {', '.join(better)}."
    return Verdict(GOOD if wins[True] and all(won.values()) else MIXED, words)


def _of(wins: list[bool]) -> str:
    return f"{sum(wins)} of {len(wins)} section" + ("" if len(wins) == 1 else "s")

"""The sentence on top of a report."""

from __future__ import annotations

from typing import Any

import pytest

from histospace_tf.reports.verdict import GOOD, MIXED, POOR, verdict


def scored(shared: list[str] | None, **sections: tuple[str, float, float]) -> dict[str, Any]:
    """scores.json of sections: patient, the model's gene_r, the colour ridge's."""
    rows: dict[str, Any] = {
        name: {
            "patient": patient,
            "spots": 100,
            "rows": {"model": {"gene_r": own}, "colour_ridge": {"gene_r": ridge}},
        }
        for name, (patient, own, ridge) in sections.items()
    }
    mean = {
        row: {"gene_r": sum(s["rows"][row]["gene_r"] for s in rows.values()) / len(rows)}
        for row in ("model", "colour_ridge")
    }
    split = {} if shared is None else {"patient_on_both_sides": shared}
    return {"sections": rows, "mean": mean, "split": split}


@pytest.mark.parametrize(
    ("scores", "kind", "words"),
    [
        (
            scored(["C"], B4=("B", 0.3, 0.2), C2=("C", 0.4, 0.2)),
            GOOD,
            "in 2 of 2 sections (mean gene_r 0.350, colour ridge 0.200): 1 of 1 section of "
            "patients that were not trained on, 1 of 1 section of patients that were.",
        ),
        (
            scored([], B4=("B", 0.3, 0.2), C2=("C", 0.1, 0.15)),
            MIXED,
            "in 1 of 2 sections (mean gene_r 0.200, colour ridge 0.175), all of patients that were "
            "not trained on.",
        ),
        (
            scored(["C"], C2=("C", 0.4, 0.2)),
            MIXED,
            "in 1 of 1 section (mean gene_r 0.400, colour ridge 0.200); on a new patient not "
            "tried.",
        ),
        (scored(None, C2=("C", 0.4, 0.2)), MIXED, "is not recorded."),
        (
            scored([], B4=("B", 0.1, 0.2)),
            POOR,
            "No better than colours alone (mean gene_r 0.100, colour ridge 0.200): use the colour "
            "ridge.",
        ),
        ({"sections": {}, "mean": {"model": None}}, POOR, "no mean gene_r"),
    ],
)
def test_verdict_names_wins_and_patients(scores: dict[str, Any], kind: str, words: str) -> None:
    found = verdict(scores)
    assert found.kind == kind
    assert words in found.words


def test_verdict_names_what_is_better_than_the_model() -> None:
    scores = scored([], B4=("B", 0.3, 0.2), C2=("C", 0.4, 0.2))
    assert "Higher" not in verdict(scores).words
    for row, r in (("model_single_tile", 0.36), ("st_net", 0.9)):
        scores["mean"][row] = {"gene_r": r}
        scores["sections"]["B4"]["rows"][row] = {"gene_r": r}
    assert "Higher" not in verdict(scores).words  # the other section lacks them
    scores["sections"]["C2"]["rows"]["model_single_tile"] = {"gene_r": 0.36}
    assert verdict(scores).words.endswith("not trained on. Higher still: model single tile 0.360.")

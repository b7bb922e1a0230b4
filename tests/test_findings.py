"""Heads that hardly learned and rows below the gene mean's are said wherever scores stand."""

from __future__ import annotations

from typing import Any

import pytest

from histospace_tf.reports import findings, score_table, sentences


def row(gene_r: float, spot_r: float, mse: float) -> dict[str, float]:
    return {"gene_r": gene_r, "spot_r": spot_r, "mse": mse}


def scores(**sections: dict[str, Any]) -> dict[str, Any]:
    mean = dict.fromkeys(("gene_mean",), row(0, 0.7, 0.4))
    return {
        "sections": {
            name: {"patient": name[0], "spots": 9, "rows": {"gene_mean": row(0, 0.736, 0.4)} | rows}
            for name, rows in sections.items()
        },
        "mean": mean,
        "split": {},
    }


def test_a_row_below_the_gene_means_is_named_with_its_section_and_figures() -> None:
    made = scores(C4={"model": row(0.012, 0.277, 0.39), "colour_ridge": row(-0.1, 0.1, 9)})
    (found,) = findings.findings(made)  # a baseline's is no finding
    assert found == (
        "model: spot_r is below the gene mean's in C4 (0.277, the gene mean has 0.736)."
    )
    assert findings.findings(scores(C4={"model": row(0.01, 0.74, 0.39)})) == []


def test_rows_that_round_to_the_same_figure_are_no_finding() -> None:
    assert findings.findings(scores(C4={"model": row(0.1, 0.7358, 0.4004)})) == []


@pytest.mark.parametrize(("name", "label"), [("paper", "paper's head"), ("theirs", "theirs")])
def test_compared_rows_are_judged_too_and_the_worst_sections_come_first(
    name: str, label: str
) -> None:
    rows = {f"C{n}": {name: row(0.1, 0.7 - n / 100, 0.3)} for n in range(5)}
    made = scores(**rows, D1={name: row(-0.02, 0.9, 0.51)})
    gene_r, spot_r, mse = findings.findings(made)
    assert gene_r == (
        f"{label}: gene_r is below the gene mean's in 1 of 6 sections: "
        "D1 (-0.020, the gene mean has 0.000)."
    )
    assert spot_r == (
        f"{label}: spot_r is below the gene mean's in 5 of 6 sections: C4 (0.660, the gene mean "
        "has 0.736), C3 (0.670, the gene mean has 0.736), C2 (0.680, the gene mean has 0.736) "
        "and 2 more."
    )
    assert "MSE is above the gene mean's in 1 of 6 sections: D1 (0.510," in mse


def test_a_single_tile_row_that_is_the_models_own_is_said_once() -> None:
    low, other = row(0.1, 0.2, 0.3), row(0.1, 0.25, 0.3)
    assert len(findings.findings(scores(C4={"model": low, "model_single_tile": low}))) == 1
    assert len(findings.findings(scores(C4={"model": low, "model_single_tile": other}))) == 2


def test_a_first_epoch_is_a_finding_where_it_was_chosen_among_several() -> None:
    def chosen(**values: Any) -> list[str]:
        one = {"predictor": "model", "held_out": ["C4"], "most": 50, "by": "val_mean_r"}
        return findings.findings({"sections": {}, "chosen": [one | values]})

    (found,) = chosen(epochs=1)
    assert found.startswith(
        "model: the epoch chosen on inner groups is the first of 50 with C4 held out; it is next "
        "to untrained."
    )
    assert '"fixed"' in found
    (of_peer,) = chosen(predictor="st_net", epochs=1)  # whose epochs are never fixed
    assert of_peer.startswith("ST-Net: the epoch chosen")
    assert of_peer.endswith("More inner groups may help (`regressor.inner_folds`).")
    (of_network,) = chosen(architecture="st_net", epochs=1)  # one that is the run's model
    assert of_network.startswith("model: the epoch chosen")
    assert of_network.endswith("More inner groups may help (`regressor.inner_folds`).")
    for harmless in ({"epochs": 2}, {"epochs": 1, "by": "fixed"}, {"epochs": 1, "most": 1}):
        assert chosen(**harmless) == []
    assert chosen(strength=1.0) == []
    (nobody,) = chosen(epochs=1, held_out=[])  # trained on everything
    assert "first of 50; it is" in nobody


def test_the_table_ends_with_findings_and_with_what_compared_heads_are() -> None:
    made = scores(C4={"model": row(0.012, 0.277, 0.39), "paper": row(0.1, 0.8, 0.3)})
    lines = "\n".join(score_table.notes(made)).splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(line.strip() for line in lines)
    assert "spot_r is below the gene mean's in C4 (0.277, the gene mean has 0.736)." in text
    assert "paper's head: the paper's training and tiles, 128 px at the image's own scale" in text
    # Nothing held out: no table, and of a table's notes none but what was found.
    assert score_table.notes({"sections": {}, "split": {}}) == []
    one = {"predictor": "model", "held_out": [], "epochs": 1, "most": 9, "by": "val_mean_r"}
    assert len(score_table.notes({"sections": {}, "split": {}, "chosen": [one]})) == 1


def test_a_report_says_that_epochs_were_fixed() -> None:
    one = {"predictor": "model", "held_out": ["C4"], "epochs": 50, "most": 50, "by": "fixed"}
    made = scores(C4={"model": row(0.1, 0.8, 0.3)}) | {"chosen": [one]}
    assert "The model was trained for a fixed number of epochs, 50." in sentences.scored(made)
    assert not any("chosen" in words for words in sentences.scored(made))


def test_spots_without_features_are_said_of_each_predictor_on_them() -> None:
    made = scores(C4={"probe:uni": row(0.1, 0.8, 0.3)})
    lacking = {"held_out": ["C4"], "spots_without_features": 12}
    made["chosen"] = [
        {"predictor": "probe:uni", **lacking},
        {"predictor": "head:uni", **lacking, "spots_without_features": 0},
    ]
    (found,) = findings.findings(made)
    assert found == (
        "probe of uni: 12 spot(s) have no features and are predicted by the training mean."
    )


def test_a_network_on_few_slides_is_told_of_them_and_not_of_a_heads_settings() -> None:
    chosen = [{"predictor": "he2rna", "held_out": ["A"], "epochs": 1, "most": 25, "by": "val_r"}]
    (line,) = findings.findings({"sections": {}, "chosen": chosen, "bulk": {"learned": True}})
    assert "first of 25 with A held out" in line
    assert "More slides, of more patients" in line
    assert "regressor" not in line

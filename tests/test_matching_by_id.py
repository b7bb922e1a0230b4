"""Genes are found by id where both sides have ids, by name elsewhere."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import gene_panel
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.data_pipelines.genes import matching
from histospace_tf.predictors.external_predictions import read_predictions
from histospace_tf.vocabulary import InputError

ERBB2, GNAS, ACTB = "ENSG00000141736", "ENSG00000087460", "ENSG00000075624"


def panel(**more: tuple[str, ...]) -> GenePanel:
    return GenePanel(
        genes=("A", "B"),
        normalisation="library_size_log1p",
        target_sum=1e4,
        mean=np.zeros(2, np.float32),
        scale=np.ones(2, np.float32),
        **more,
    )


def test_ids_count_before_names() -> None:
    match = matching.by_id(
        ["X", "Y", "Z"],
        ["Y", "Z"],
        ids={"X": f"{ERBB2}.7", "Y": GNAS},
        wanted_ids={"Y": f"{ERBB2}.1", "Z": ACTB},
    )
    # Y of the data is another gene; Z has no id there, so its name counts.
    assert match.matched == {"Y": "X", "Z": "Z"}
    assert match.unmatched == ()


def test_a_name_with_another_id_is_no_match() -> None:
    match = matching.by_id(["A"], ["A"], ids={"A": ERBB2}, wanted_ids={"A": GNAS})
    assert (match.matched, match.unmatched) == ({}, ("A",))


def test_names_that_are_ids_are_their_own_ids() -> None:
    match = matching.by_id([f"{ERBB2}.3"], ["odd name"], wanted_ids={"odd name": ERBB2})
    assert match.matched == {"odd name": f"{ERBB2}.3"}


def test_without_ids_names_are_matched_as_ever() -> None:
    match = matching.by_id(["SEPT2", "ERBB2"], ["SEPTIN2", "HER2", "NONE"])
    assert match.matched == {"SEPTIN2": "SEPT2", "HER2": "ERBB2"}
    assert match.unmatched == ("NONE",)


def test_a_panel_keeps_its_ids_and_reads_one_without() -> None:
    with_ids = panel(gene_ids=(ERBB2, ""))
    assert GenePanel.from_json(with_ids.to_json()).gene_ids == (ERBB2, "")
    assert with_ids.id_of == {"A": ERBB2}
    assert "gene_ids" not in panel().to_json()
    assert GenePanel.from_json(panel().to_json()).gene_ids == ()
    with pytest.raises(InputError, match="2 genes, but 1 gene ids"):
        panel(gene_ids=(ERBB2,))


def test_a_fitted_panel_has_the_ids_it_is_given() -> None:
    values, groups = np.arange(8.0).reshape(4, 2), np.array(["s"] * 4)
    fitted = gene_panel.fit_panel(values, groups, "AB", TargetConfig(), gene_ids=(ERBB2, GNAS))
    assert fitted.gene_ids == (ERBB2, GNAS)


def test_external_predictions_are_matched_by_their_ids(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    var = pd.DataFrame({"gene_ids": [GNAS, ERBB2, None]}, index=["A", "B", "C"])
    table = anndata.AnnData(values, pd.DataFrame(index=["s_1", "s_2"]), var)
    table.write_h5ad(tmp_path / "a.h5ad")
    ids = {"A": ERBB2, "B": GNAS}  # the file calls them the other way round
    found = read_predictions(tmp_path / "a.h5ad", "net", ["s_1", "s_2"], ["A", "B", "C"], ids=ids)
    np.testing.assert_array_equal(found, values[:, [1, 0, 2]])

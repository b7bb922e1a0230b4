"""Anybody's predictions: matched by name, scored on the same spots and genes, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histospace_tf import outputs
from histospace_tf.config import TargetConfig
from histospace_tf.predictors import external_predictions, section_scores
from histospace_tf.predictors.external_predictions import read_predictions
from histospace_tf.predictors.held_out import PredictedSection, joined
from histospace_tf.reports import score_table
from histospace_tf.vocabulary import InputError
from made.scoring import SPLIT, held_out, predicted, scored
from made.tissue import GENES

UNIT = "some unit"
SPOTS = ["C1_s0", "C1_s1", "C1_s2"]


def cases() -> list[PredictedSection]:
    """Two sections whose folds have other panels."""
    return [
        predicted(held_out("C1"), genes=GENES[:3], fold="C1"),
        predicted(held_out("C2", seed=4), genes=GENES[:0:-1], fold="C2"),
    ]


def own_file(path: Path) -> Path:
    """predictions.h5ad of these sections, as evaluations write it."""
    outputs.write_h5ad(joined(scored(*cases()).tables), path)
    return path


def beside(files: dict[str, Path]) -> section_scores.Scored:
    return external_predictions.score_beside(
        cases(), files, TargetConfig(), SPLIT, unit=UNIT, seed=0
    )


def write(path: Path, values: Any, spots: list[str], genes: list[str], **var: Any) -> Path:
    table = anndata.AnnData(
        X=values, obs=pd.DataFrame(index=spots), var=pd.DataFrame(var, index=genes)
    )
    outputs.write_h5ad(table, path)
    return path


def test_own_predictions_read_back_score_exactly_as_the_model(tmp_path: Path) -> None:
    found = beside({"ours": own_file(tmp_path / "own.h5ad")}).scores
    assert "shared_genes" not in found
    for rows in (*(e["rows"] for e in found["sections"].values()), found["mean"], found["pooled"]):
        assert rows["ours"] == rows["model"]
    for entry in found["sections"].values():
        assert entry["depth"]["ours"] == entry["depth"]["model"]
    without = beside({}).scores
    for entry in found["sections"].values():
        del entry["rows"]["ours"], entry["depth"]["ours"]
    assert found["sections"] == without["sections"]  # nobody else's row moves


def test_rows_and_columns_are_matched_by_name(tmp_path: Path) -> None:
    table = anndata.read_h5ad(own_file(tmp_path / "own.h5ad"))
    rng = np.random.default_rng(0)
    extra = anndata.AnnData(
        X=np.full((2, table.n_vars), 9.0, np.float32),
        obs=pd.DataFrame(index=["X9_s0", "C1_s99"]),
        var=pd.DataFrame(index=table.var_names),
    )
    mixed = anndata.concat([table, extra])[rng.permutation(34), rng.permutation(4)].copy()
    mixed.X = sparse.csr_matrix(np.nan_to_num(mixed.X, nan=5.0))
    outputs.write_h5ad(mixed, tmp_path / "mixed.h5ad")
    found = beside({"ours": tmp_path / "mixed.h5ad"}).scores
    for entry in found["sections"].values():
        assert entry["rows"]["ours"] == entry["rows"]["model"]


def test_a_file_without_some_genes_gets_a_table_of_its_own_with_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = anndata.read_h5ad(own_file(tmp_path / "own.h5ad"))
    outputs.write_h5ad(table[:, list(GENES[1:3])].copy(), tmp_path / "few.h5ad")
    found = beside({"few": tmp_path / "few.h5ad", "ours": tmp_path / "own.h5ad"})
    told = capsys.readouterr().err
    assert "few: 2 of 4 genes are not in few.h5ad ('ERBB2', 'IGKC')" in told
    assert "table of its own" in told
    for entry in found.scores["sections"].values():
        assert "few" not in entry["rows"]
        assert "ours" in entry["rows"]
    part = found.scores["shared_genes"]["few"]
    assert part["genes"] == {"C1": 2, "C2": 2}
    narrow = scored(
        *(one.on_genes([g for g in one.panel.genes if g in GENES[1:3]]) for one in cases())
    )
    for name, entry in part["sections"].items():
        assert entry["rows"]["few"] == entry["rows"]["model"] == entry["rows"]["ours"]
        for row, values in narrow.scores["sections"][name]["rows"].items():
            assert entry["rows"][row] == values, row
    assert part["mean"]["few"] == narrow.scores["mean"]["model"]
    assert part["pooled"]["few"] == narrow.scores["pooled"]["model"]
    r = found.genes.set_index(["section", "gene"])
    assert list(r.index) == [
        (s, g) for s, gs in (("C1", GENES[:3]), ("C2", GENES[:0:-1])) for g in gs
    ]
    known = r.index.get_level_values("gene").isin(GENES[1:3])
    np.testing.assert_array_equal(r["few"][known], r["model"][known])
    assert r["few"][~known].isna().all()
    whole = joined(found.tables)  # predictions.h5ad, for maps
    np.testing.assert_array_equal(whole.layers["ours"], whole.X)
    theirs = whole.var_names.isin(GENES[1:3])
    np.testing.assert_array_equal(whole.layers["few"][:, theirs], np.asarray(whole.X)[:, theirs])
    assert np.isnan(whole.layers["few"][:, ~theirs]).all()
    text = score_table.table(found.scores)
    assert "On the 2 genes that few predicts:" in text
    assert max(map(len, text.splitlines())) <= 100
    assert json.loads(json.dumps(found.scores, allow_nan=False)) == found.scores


def test_predictions_are_lined_up_with_nan_for_genes_that_they_lack(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(3, 2)
    path = write(tmp_path / "p.h5ad", values, SPOTS[::-1], ["B", "A"])
    found = read_predictions(path, "net", SPOTS, ["A", "Z", "B"])
    np.testing.assert_array_equal(found, [[5, np.nan, 4], [3, np.nan, 2], [1, np.nan, 0]])


def test_genes_are_found_under_their_other_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "p.h5ad", np.arange(6.0).reshape(3, 2), SPOTS, ["SEPT2", "GNAS"])
    found = read_predictions(path, "net", SPOTS, ["GNAS", "SEPTIN2"])
    np.testing.assert_array_equal(found, [[1, 0], [3, 2], [5, 4]])
    assert "net: 2 of 2 genes matched, 1 of them under another name" in capsys.readouterr().err


def test_what_a_file_has_too_much_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "p.h5ad", np.ones((3, 2)), SPOTS, ["A", "B"])
    read_predictions(path, "net", SPOTS[:1], ["A"])
    assert "net: 2 spots and 1 genes of p.h5ad are not asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spots", "genes", "var", "message"),
    [
        (SPOTS[:2], ["A", "B"], {}, r"lacks 1 of 3 spots: 'C1_s2'; its own begin with 'C1_s0'"),
        (SPOTS, ["Y", "Z"], {}, r"none of the 2 genes, such as 'A', 'B'; its own are 'Y', 'Z'"),
        (SPOTS, ["A", "B"], {"unit": ["raw", "raw"]}, r"is in 'raw'; 'some unit' is needed"),
        ([*SPOTS, "C1_s2"], ["A", "B"], {}, r"has spot 'C1_s2' more than once"),
        (SPOTS, ["A", "B", "A"], {}, r"has gene 'A' more than once"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_predictions_that_cannot_be_compared_are_refused(
    tmp_path: Path, spots: list[str], genes: list[str], var: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "p.h5ad", np.ones((len(spots), len(genes))), spots, genes, **var)
    with pytest.raises(InputError, match=message):
        read_predictions(path, "net", SPOTS, ["A", "B"], unit=UNIT)


def test_files_that_are_no_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        read_predictions(tmp_path / "none.h5ad", "net", SPOTS, ["A"])
    (tmp_path / "text.h5ad").write_text("spot,gene")
    with pytest.raises(InputError, match=r"text\.h5ad.*cannot be read as AnnData"):
        read_predictions(tmp_path / "text.h5ad", "net", SPOTS, ["A"])
    outputs.write_h5ad(
        anndata.AnnData(obs=pd.DataFrame(index=SPOTS), var=pd.DataFrame(index=["A"])),
        tmp_path / "empty.h5ad",
    )
    with pytest.raises(InputError, match="no numbers in X"):
        read_predictions(tmp_path / "empty.h5ad", "net", SPOTS, ["A"])
    path = write(tmp_path / "p.h5ad", np.ones((3, 1)), SPOTS, ["A"])
    for name in ("model", "gene", "measured", ""):
        with pytest.raises(InputError, match=r"taken|needs a name"):
            read_predictions(path, name, SPOTS, ["A"])


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    table = anndata.read_h5ad(own_file(tmp_path / "own.h5ad"))
    table.X[3, 1] = np.nan
    outputs.write_h5ad(table, tmp_path / "hole.h5ad")
    with pytest.raises(InputError, match="spot 'C1_s3', gene 'GNAS' is not a finite number"):
        beside({"holey": tmp_path / "hole.h5ad"})
    table.X[:16] = np.nan
    outputs.write_h5ad(table, tmp_path / "hole.h5ad")
    with pytest.raises(InputError, match="no gene is predicted for section 'C1'"):
        beside({"holey": tmp_path / "hole.h5ad"})

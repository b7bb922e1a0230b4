"""The table of genes: planted relations are trusted, noise is not, and every column is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf.scores import gene_table, metrics
from histospace_tf.vocabulary import InputError

FAST: dict[str, Any] = {"bootstraps": 200, "permutations": 1000}
PLANTED, NOISE = 8, 40


def made_table(patients: str = "AAB", *, seed: int = 0, side: int = 11) -> anndata.AnnData:
    """Sections of `side` x `side` spots; the first genes' predictions are r = 0.6, others noise."""
    random = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 290.0
    n, g = len(patients) * len(at), PLANTED + NOISE
    measured = random.normal(size=(n, g))
    predicted = random.normal(size=(n, g))
    predicted[:, :PLANTED] = 0.6 * measured[:, :PLANTED] + 0.8 * predicted[:, :PLANTED]
    sections = np.repeat([f"S{i}" for i in range(len(patients))], len(at))
    return anndata.AnnData(
        X=predicted.astype(np.float32),
        obs=pd.DataFrame(
            {"section": sections, "patient": np.repeat(list(patients), len(at))},
            index=[f"{section}_{i}" for i, section in enumerate(sections)],
        ),
        var=pd.DataFrame(index=[f"G{i}" for i in range(g)]),
        obsm={"spatial": np.tile(at, (len(patients), 1))},
        layers={"measured": measured.astype(np.float32)},
    )


@pytest.fixture(scope="module")
def made() -> anndata.AnnData:
    return made_table()


@pytest.fixture(scope="module")
def found(made: anndata.AnnData) -> pd.DataFrame:
    return gene_table.gene_table(made, **FAST)


def test_planted_genes_are_trusted_and_noise_is_not(found: pd.DataFrame) -> None:
    assert found["gene"].tolist() == [f"G{i}" for i in range(PLANTED + NOISE)]
    assert (found["trust"][:PLANTED] == "yes").all()
    assert not (found["trust"][PLANTED:] == "yes").any()
    # A single noise gene is "weak" at most as often as p_spatial is below 0.05.
    assert (found["trust"][PLANTED:] == "weak").sum() <= 5
    assert (found["low"] <= found["gene_r"]).all()
    assert (found["gene_r"] <= found["high"]).all()


def test_numbers_are_means_over_sections(found: pd.DataFrame, made: anndata.AnnData) -> None:
    each = [
        metrics.gene_r_each(np.asarray(part.X), part.layers["measured"])
        for part in (made[made.obs["section"] == name] for name in ("S0", "S1", "S2"))
    ]
    np.testing.assert_allclose(found["gene_r"], np.mean(each, axis=0), atol=1e-12)
    np.testing.assert_allclose(found["share_positive"], (np.array(each) > 0).mean(axis=0))
    assert (found["sections"] == 3).all()
    assert (found["spots"] == 363).all()


@pytest.mark.parametrize(("p", "bh"), [("p", "p_bh"), ("p_spatial", "p_spatial_bh")])
def test_benjamini_hochberg_is_its_definition(found: pd.DataFrame, p: str, bh: str) -> None:
    values = found[p].to_numpy()
    # The smallest level at which the step-up procedure rejects each gene.
    levels = [
        min(len(values) * q / (values <= q).sum() for q in values if q >= own) for own in values
    ]
    np.testing.assert_allclose(found[bh], np.minimum(levels, 1), atol=1e-12)


def test_holm_is_its_definition(found: pd.DataFrame) -> None:
    values = found["p"].to_numpy()
    levels = [max((values >= q).sum() * q for q in values if q <= own) for own in values]
    np.testing.assert_allclose(found["p_holm"], np.minimum(levels, 1), atol=1e-12)


def test_result_depends_on_seed_and_not_on_the_argument_being_kept(made: anndata.AnnData) -> None:
    before = np.asarray(made.X).copy()
    tables = [
        gene_table.gene_table(made, seed=seed, bootstraps=50, permutations=50) for seed in (1, 1, 2)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["p"] != tables[2]["p"]).any()
    np.testing.assert_array_equal(made.X, before)


def test_absent_constant_and_never_scored_genes(made: anndata.AnnData) -> None:
    table = made.copy()
    first = (table.obs["section"] == "S0").to_numpy()
    table.X[first, 0] = np.nan  # the fold's panel lacks it
    table.layers["measured"][first, 1] = 2.0  # constant as measured in one section
    table.X[:, 2] = 7.0  # constant prediction everywhere
    table.layers["measured"][:, 3] = 0.0  # never scored
    table.X[:, 4] = np.nan
    found = gene_table.gene_table(table, **FAST)
    assert found["sections"][:5].tolist() == [2, 2, 3, 0, 0]
    assert found["spots"][:5].tolist() == [242, 242, 363, 0, 0]
    assert found["trust"][:5].tolist() == ["yes", "yes", "no", "unknown", "unknown"]
    assert found.loc[2, ["gene_r", "p", "p_spatial", "share_positive"]].tolist() == [0, 1, 1, 0]
    assert found["patients"][:5].tolist() == [2, 2, 2, 0, 0]
    counted = ["gene", "sections", "patients", "spots", "trust"]
    assert found.drop(columns=counted).loc[[3, 4]].isna().all(None)
    assert found.drop(index=[3, 4]).notna().all(axis=None)
    # Genes that were never scored are no tests: they do not count in the corrections.
    kept = gene_table.gene_table(table[:, [0, 1, 2, *range(5, PLANTED + NOISE)]].copy(), **FAST)
    np.testing.assert_allclose(found["p_bh"].drop([3, 4]), kept["p_bh"], atol=2e-3)


def test_gene_of_one_patient_alone_is_weak_where_there_are_two(made: anndata.AnnData) -> None:
    table = made.copy()
    table.X[(table.obs["patient"] == "B").to_numpy(), 0] = np.nan  # that fold's panel lacks it
    found = gene_table.gene_table(table, **FAST)
    assert (found["patients"][0], found["trust"][0]) == (1, "weak")
    assert found["lowest_patient_r"][0] >= gene_table.TRUST_R
    assert found["trust"][1] == "yes"


def test_single_section_is_scored() -> None:
    found = gene_table.gene_table(made_table("A", side=14), **FAST)
    assert (found["patients"] == 1).all()
    assert (found["trust"][:PLANTED] == "yes").all()
    assert not (found["trust"][PLANTED:] == "yes").any()


def test_gene_that_is_negative_in_one_section_is_not_trusted(made: anndata.AnnData) -> None:
    table = made.copy()
    table.X[(table.obs["section"] == "S2").to_numpy(), 0] *= -0.2
    found = gene_table.gene_table(table, **FAST)
    assert found["share_positive"][0] == pytest.approx(2 / 3)
    assert found["trust"][0] != "yes"


@pytest.mark.slow
def test_faint_relation_is_at_most_weak() -> None:
    table = made_table("ABC", side=24)
    random = np.random.default_rng(1)
    table.X[:, 0] = 0.12 * table.layers["measured"][:, 0] + random.normal(size=table.n_obs)
    found = gene_table.gene_table(table, **FAST)
    assert 0.05 < found["gene_r"][0] < gene_table.TRUST_R
    assert found["trust"][0] == "weak"


def test_a_baseline_is_scored_beside_where_it_is_there(
    made: anndata.AnnData, found: pd.DataFrame
) -> None:
    assert "colour_ridge_r" not in found
    table = made.copy()
    table.layers["colour_ridge"] = np.asarray(table.layers["measured"]) * 2 + 1
    table.layers["colour_ridge"][:, 1] = np.nan
    beside = gene_table.gene_table(
        table, bootstraps=1, permutations=1, baselines=["colour_ridge", "absent"]
    )["colour_ridge_r"]
    assert np.isnan(beside[1])
    np.testing.assert_allclose(beside.drop(1), 1, atol=1e-6)


def broken(made: anndata.AnnData, what: str) -> anndata.AnnData:
    table = made.copy()
    if what == "layer":
        del table.layers["measured"]
    elif what == "patient":
        table.obs = table.obs.drop(columns="patient")
    elif what == "spatial":
        del table.obsm["spatial"]
    elif what == "three axes":
        table.obsm["spatial"] = np.zeros((table.n_obs, 3))
    elif what == "some spots":
        table.X[3, 5] = np.nan
    elif what == "infinite":
        table.layers["measured"][:, 6] = np.inf
    elif what == "two patients":
        table.obs["patient"] = ["A", *["B"] * (table.n_obs - 1)]
    elif what == "twice":
        table.var_names = ["G0", "G0", *table.var_names[2:]]
    else:
        table = table[:0].copy()
    return table


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("layer", r"layers\['measured'\] is missing"),
        ("patient", r"obs\['patient'\] is missing"),
        ("spatial", r"obsm\['spatial'\] is missing"),
        ("three axes", r"\(363, 2\) centres"),
        ("some spots", "section 'S0', gene 'G5': predicted"),
        ("infinite", "gene 'G6': measured is infinite"),
        ("two patients", "section 'S0' has patients 'A', 'B'"),
        ("twice", "named more than once: 'G0'"),
        ("empty", "0 spots"),
    ],
)
def test_broken_tables_are_refused(made: anndata.AnnData, what: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gene_table.gene_table(broken(made, what), **FAST)


@pytest.mark.parametrize("option", ["bootstraps", "permutations"])
def test_no_resamples_are_refused(made: anndata.AnnData, option: str) -> None:
    with pytest.raises(InputError, match=f"0 {option}"):
        gene_table.gene_table(made, **{**FAST, option: 0})


def test_written_table_is_read_back_gene_by_gene(found: pd.DataFrame, tmp_path: Path) -> None:
    table = found.head(3).assign(gene=["NA", "1-Mar", "ERBB2"])
    table.loc[2, ["gene_r", "trust"]] = [np.nan, "unknown"]
    table.to_csv(tmp_path / "genes.csv", index=False)
    said = gene_table.trust_of(["ERBB2", "XYZ", "NA"], tmp_path / "genes.csv")
    assert list(said.index) == ["ERBB2", "XYZ", "NA"]
    assert said["trust"].tolist() == ["unknown", "unknown", "yes"]
    np.testing.assert_allclose(said["gene_r"], [np.nan, np.nan, table["gene_r"][0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene,trust\nA,yes\n", "'gene_r' is missing"),
        ("gene,gene_r,trust\nA,0.1,yes\nA,0.2,no\n", "'A' named more than once"),
        ("gene,gene_r,trust\nA,0.1,maybe\n", "'maybe'"),
        ("gene,gene_r,trust\nA,much,yes\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_broken_gene_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "genes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        gene_table.trust_of(["A"], tmp_path / "genes.csv")

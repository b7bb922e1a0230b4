"""Gene sets: GMT files as they are met, genes matched with a panel, scores of places and spots."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf.data_pipelines.genes import gene_sets
from histospace_tf.reports import gene_sets as report
from histospace_tf.reports.data import Results
from histospace_tf.scores import gene_sets as set_scores
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import InputError

PANEL = ("ERBB2", "GNAS", "HLA-B", "KRT8", "KRT18", "KRT19", "ACTB", "GAPDH")


def gmt(folder: Path, text: str, name: str = "sets.gmt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def matched(folder: Path, text: str, **options: object) -> gene_sets.MatchedSets:
    return gene_sets.on_panel(gene_sets.read([gmt(folder, text)]), PANEL, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "KERATIN\thttp://x\tKRT8\tKRT18\tKRT19\n",
        "KERATIN\t\tKRT8\tKRT18\tKRT19\t\t\r\n\r\n",  # no description, empty cells, CR LF
        "KERATIN\tna\tKRT8\tKRT18\tKRT8\tKRT19",  # a gene twice
        "\ufeffKERATIN\tna\tKRT8,1.0\tKRT18,0.5\tKRT19,1.0\n",  # Enrichr's weights, a mark
    ],
)
def test_forms_of_gmt_are_read_alike(tmp_path: Path, text: str) -> None:
    read = gene_sets.read([gmt(tmp_path, text)])
    assert read.sets == (gene_sets.GeneSet("KERATIN", ("KRT8", "KRT18", "KRT19")),)
    assert read.notes == ()
    packed = tmp_path / "sets.gmt.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert gene_sets.read([packed]).sets == read.sets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n \n", "empty|holds no set"),
        ("gene,r\nKRT8,0.4\n", "line 1: 'gene,r' has no tab; a GMT has one set per line"),
        ("A\tna\tKRT8\nKRT18 KRT19\n", "line 2: 'KRT18 KRT19' has no tab"),
        ("\tna\tKRT8\n", "line 1: the set has no name"),
        ("A\tna\t2064\t2778\n", "by numbers, such as '2064', as Entrez'"),
        ("A\tna\tKRT8\nA\tna\tKRT18\n", "line 2: set 'A' has other genes .*line 1; give one"),
        ('{"A": ["KRT8"]}', "JSON"),
    ],
)
def test_what_is_no_gmt_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        gene_sets.read([gmt(tmp_path, text)])
    assert "\n" not in str(caught.value)
    assert "sets.gmt" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.gmt' does not exist"):
        gene_sets.read([tmp_path / "no.gmt"])


def test_sets_of_several_files_are_joined_and_equal_ones_taken_once(tmp_path: Path) -> None:
    first = gmt(tmp_path, "A\tna\tKRT8\tKRT18\nB\tna\tGNAS\nEMPTY\tna\n")
    second = gmt(tmp_path, "A\tother\tKRT18\tKRT8\nC\tna\tACTB\n", "more.gmt")
    read = gene_sets.read([first, second])
    assert [one.name for one in read.sets] == ["A", "B", "EMPTY", "C"]
    assert any("more.gmt': taken once" in note and "'A'" in note for note in read.notes)
    assert any("without any gene: 'EMPTY'" in note for note in read.notes)


def test_genes_are_found_under_any_name_and_each_counts_once(tmp_path: Path) -> None:
    text = (
        "MIXED\tna\tHER2\tENSG00000087460.26\tKRT8\tCYK18\tKRT19\tACTB\tESR1\tNOGENE1\n"
        "SAME\tna\tERBB2\tHER2\tKRT8\tKRT18\tKRT19\tACTB\n"
        "FEW\tna\tACTB\tGAPDH\tESR1\n"
    )
    found = matched(tmp_path, text)
    mixed, same, few = found.sets
    assert mixed.genes == ("ERBB2", "GNAS", "KRT8", "KRT18", "KRT19", "ACTB")
    assert (mixed.size, mixed.missing) == (8, ("ESR1", "NOGENE1"))
    assert same.genes == ("ERBB2", "KRT8", "KRT18", "KRT19", "ACTB")  # HER2 is ERBB2 once more
    assert [one.name for one in found.scored] == ["MIXED", "SAME"]
    told = "\n".join(found.notes)
    assert "2 of 3 set(s) are scored" in told
    assert "1 name(s) are no human genes known here: 'NOGENE1'" in told
    assert "fewer than 5 genes in the panel: 'FEW (2 of 3)'" in told
    assert few.genes == ("ACTB", "GAPDH")


def test_small_letters_are_matched_and_said(tmp_path: Path) -> None:
    found = matched(tmp_path, "A\tna\tkrt8\tkrt18\tkrt19\tactb\tgapdh\n")
    assert found.sets[0].genes == ("KRT8", "KRT18", "KRT19", "ACTB", "GAPDH")
    assert any("but for capitals: 'krt8 = KRT8'" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "A\tna\tKrt8\tKrt18\tKrt19\tActb\tGapdh\tErbb2\n",
            "mouse genes .*the panel has human genes .*sets of human genes are needed",
        ),
        ("A\tna\tKRT8\tESR1\nB\tna\tESR1\n", r"none of 2 set\(s\) has 5 genes .*'A': 1 of 2"),
    ],
)
def test_sets_that_do_not_fit_the_panel_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        matched(tmp_path, text)


G = 12


def section_table(name: str, patient: str, *, seed: int, side: int = 9) -> anndata.AnnData:
    """Genes 0 to 5 share a map that the model sees, each with its own noise; others are noise."""
    random = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 290.0
    shared = random.normal(size=(len(at), 1))
    scale = np.linspace(0.5, 3, G).astype(np.float32)
    centre = np.linspace(1, 4, G).astype(np.float32)
    measured, seen = random.normal(size=(2, len(at), G))
    measured[:, :6] += 0.5 * shared
    seen[:, :6] = shared + 0.5 * random.normal(size=shared.shape)
    return anndata.AnnData(
        X=(centre + scale * seen).astype(np.float32),
        obs=pd.DataFrame(
            {"section": name, "patient": patient, "total_counts": np.exp(shared[:, 0])},
            index=[f"{name}_{i}" for i in range(len(at))],
        ),
        var=pd.DataFrame({"centre": centre, "scale": scale}, index=[f"G{i}" for i in range(G)]),
        obsm={"spatial": at},
        layers={
            "measured": (centre + scale * measured).astype(np.float32),
            "colour_ridge": (centre + scale * random.normal(size=seen.shape)).astype(np.float32),
        },
    )


def a_set(name: str, *genes: int, size: int = 8) -> gene_sets.MatchedSet:
    return gene_sets.MatchedSet(name, size, tuple(f"G{i}" for i in genes), ("X1",))


SHARED, NOISE, FEW = a_set("SHARED", *range(6)), a_set("NOISE", *range(6, 12)), a_set("FEW", 0, 1)


@pytest.fixture(scope="module")
def tables() -> list[anndata.AnnData]:
    return [section_table(n, n[0], seed=i) for i, n in enumerate(("A1", "A2", "B1"))]


@pytest.fixture(scope="module")
def found(tables: list[anndata.AnnData]) -> pd.DataFrame:
    each = [metrics.gene_r_each(np.asarray(t.X), t.layers["measured"]) for t in tables]
    genes = pd.DataFrame({"gene": tables[0].var_names, "gene_r": np.mean(each, axis=0)})
    return set_scores.score(tables, [SHARED, FEW, NOISE], genes, baselines=["colour_ridge"])


def test_a_place_scores_the_mean_of_standardised_genes(tables: list[anndata.AnnData]) -> None:
    table = tables[0].copy()
    scores = set_scores.place_scores(table, [SHARED, NOISE])
    by_hand = [
        np.mean(
            [(x - c) / s for x, c, s in zip(row, table.var.centre, table.var.scale, strict=True)][
                :6
            ]
        )
        for row in np.asarray(table.X, np.float64)
    ]
    np.testing.assert_allclose(scores["SHARED"], by_hand, atol=1e-5)
    assert list(scores.index) == list(table.obs_names)
    table.X[:, 7] = np.nan
    scores = set_scores.place_scores(table, [SHARED, NOISE])
    assert scores["NOISE"].isna().all()
    assert scores["SHARED"].notna().all()
    with pytest.raises(InputError, match="does not hold 'G12'"):
        set_scores.place_scores(table, [a_set("NEW", 0, 12)])
    del table.var["scale"]
    with pytest.raises(InputError, match="predict again"):
        set_scores.place_scores(table, [SHARED])


def test_sets_are_scored_as_genes_are(found: pd.DataFrame, tables: list[anndata.AnnData]) -> None:
    assert found["set"].tolist() == ["SHARED", "FEW", "NOISE"]
    assert found["genes"].tolist() == [8, 8, 8]
    assert found["in_panel"].tolist() == [6, 2, 6]
    assert found["trust"].tolist() == ["yes", "unknown", "no"]
    assert found["used"][1] == "G0 G1"
    assert found["missing"].tolist() == ["X1"] * 3
    rows = found.set_index("set")
    r = [
        np.corrcoef(
            set_scores.place_scores(table, [SHARED])["SHARED"],
            set_scores.place_scores(table, [SHARED], "measured")["SHARED"],
        )[0, 1]
        for table in tables
    ]
    assert rows["set_r"]["SHARED"] == pytest.approx(np.mean(r), abs=1e-6)
    assert rows["lowest_patient_r"]["SHARED"] == pytest.approx(min(np.mean(r[:2]), r[2]), abs=1e-6)
    assert rows["low"]["SHARED"] < rows["set_r"]["SHARED"] < rows["high"]["SHARED"]
    assert np.isnan(rows["set_r"]["FEW"])
    assert rows["depth"]["SHARED"] > 0.5  # the shared map is made to be depth
    assert abs(rows["depth"]["NOISE"]) < 0.2


def test_averaging_takes_noise_away(found: pd.DataFrame) -> None:
    rows = found.set_index("set")
    # Of one gene r = 0.5 / sqrt(1.25) / sqrt(1.25); of the mean of six the noise is a sixth.
    assert rows["mean_gene_r"]["SHARED"] == pytest.approx(0.4, abs=0.08)
    assert rows["set_r"]["SHARED"] == pytest.approx(0.5 / np.sqrt(0.25 + 1 / 6) / 1.118, abs=0.08)
    assert abs(rows["colour_ridge_r"]["SHARED"]) < 0.2


def test_a_set_stands_beside_sets_drawn_at_random(
    found: pd.DataFrame, tables: list[anndata.AnnData]
) -> None:
    rows = found.set_index("set")
    assert rows["random_r"]["SHARED"] == rows["random_r"]["NOISE"]  # of six genes each
    # Half of such a set's genes share the map, 3 of 6 on average.
    assert rows["random_r"]["SHARED"] == pytest.approx(0.5, abs=0.15)
    assert rows["set_r"]["NOISE"] < rows["random_r"]["NOISE"] < rows["set_r"]["SHARED"]
    genes = pd.DataFrame({"gene": tables[0].var_names, "gene_r": 0.0})
    alone = set_scores.score(tables, [SHARED], genes)  # whichever sets stand beside it
    assert alone["random_r"][0] == rows["random_r"]["SHARED"]


def test_a_run_says_of_the_same_sets_whether_to_trust_them(
    found: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / set_scores.FILE
    found.to_csv(path, index=False)
    known = set_scores.trust_of([NOISE, SHARED, a_set("SHARED2", *range(6))], path)
    assert known["trust"].tolist() == ["no", "yes", "unknown"]
    assert known["set_r"]["SHARED"] == pytest.approx(found["set_r"][0])
    others = set_scores.trust_of([a_set("SHARED", *range(5))], path)
    assert others["trust"].tolist() == ["unknown"]  # of another panel
    path.write_text("set,r\nA,1\n")
    with pytest.raises(InputError, match="'used', 'set_r', 'trust' is missing"):
        set_scores.trust_of([NOISE], path)


def test_the_report_shows_sets_best_first(found: pd.DataFrame, tmp_path: Path) -> None:
    text = report.lines(found)
    assert text[1].split()[0] == "SHARED"
    assert text[1].split()[-4:] == ["6", "of", "8", "yes"]
    assert "2 of 3 gene sets scored" in text[-3]
    assert max(map(len, text)) <= 100
    assert report.lines(None) == []
    nothing = report.lines(found[found["set"] == "FEW"])
    assert "None of 1 gene sets was scored: 5 genes" in nothing[-2]
    shown = report.part(Results(tmp_path, {}, gene_sets=found))
    assert shown is not None
    assert shown[2].index(">SHARED<") < shown[2].index(">NOISE<")
    assert "● yes" in shown[2]
    assert "\u2212" in shown[2]  # a negative end of an interval has a minus sign
    assert ">FEW<" not in shown[2]
    assert report.part(Results(tmp_path, {})) is None

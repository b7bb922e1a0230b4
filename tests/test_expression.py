"""Targets, panels, centring and smoothing, held against formulas written out by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression, gene_panel
from histospace_tf.data_pipelines.genes.lists import nearest_names, read_gene_file
from histospace_tf.vocabulary import InputError, SpotTable

LOG1P: dict[str, Any] = {"normalisation": "library_size_log1p", "target_sum": 10_000.0}


def table(counts: object, genes: str | list[str], prefix: str = "s") -> SpotTable:
    """A section with these counts; genes "ABC" are three genes."""
    values = np.asarray(counts, np.float32)
    return SpotTable(
        names=tuple(f"{prefix}{at}" for at in range(len(values))),
        centres_px=np.arange(2.0 * len(values)).reshape(-1, 2),
        counts=sparse.csr_matrix(values),
        genes=tuple(genes),
    )


def random_table(seed: int, n: int = 30, g: int = 12) -> SpotTable:
    counts = np.random.default_rng(seed).poisson(np.linspace(0.2, 5, g), (n, g))
    counts[:, -1] += 1
    return table(counts, [f"G{at:02}" for at in range(g)])


@pytest.mark.parametrize(
    ("normalisation", "log"),
    [("library_size_log1p", math.log1p), ("library_size_log10", lambda x: math.log10(1 + x))],
)
def test_normalised_values_follow_the_formula(normalisation: str, log: object) -> None:
    counts = np.array([[1, 3, 0], [5, 0, 5]])
    values = expression.normalised(
        sparse.csr_matrix(counts), normalisation=normalisation, target_sum=100
    )
    expected = [[log(25), log(75), 0], [log(50), 0, log(50)]]  # type: ignore[operator]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.toarray(), expected, rtol=1e-6)  # float32


def test_normalising_leaves_its_argument_alone_and_sums_repeated_entries() -> None:
    split = sparse.csr_matrix(([1.0, 2.0, 1.0], [0, 0, 1], [0, 3]), shape=(1, 2))
    before = split.data.copy()
    values = expression.normalised(split, **LOG1P)
    np.testing.assert_array_equal(split.data, before)
    np.testing.assert_allclose(values.toarray(), np.log1p([[7500, 2500]]), rtol=1e-6)


def test_library_size_is_over_all_genes_whatever_is_asked_for() -> None:
    spots = random_table(0)
    everything = expression.targets(spots, spots.genes, **LOG1P)
    two = expression.targets(spots, ["G07", "G02"], **LOG1P)
    np.testing.assert_array_equal(two, everything[:, [7, 2]])
    np.testing.assert_allclose(np.expm1(everything).sum(axis=1), 10_000, rtol=1e-5)  # float32 sums


def test_absent_gene_equals_a_column_of_zeros() -> None:
    short, full = table([[1, 2], [3, 4]], "AB"), table([[1, 2, 0], [3, 4, 0]], "ABC")
    np.testing.assert_array_equal(
        expression.targets(short, "CBA", **LOG1P), expression.targets(full, "CBA", **LOG1P)
    )
    assert (expression.targets(short, "C", **LOG1P) == 0).all()


def test_spot_without_counts_is_refused_by_name() -> None:
    spots = table([[1, 2], [0, 0]], "AB")
    with pytest.raises(InputError, match="1 of 2 spots have no counts: 's1'"):
        expression.targets(spots, "A", **LOG1P)
    with pytest.raises(InputError, match="row 1"):
        expression.normalised(spots.counts, **LOG1P)


def test_unknown_normalisation_and_target_sum_are_refused() -> None:
    counts = table([[1]], "A").counts
    with pytest.raises(InputError, match="library_size_log1p, library_size_log10"):
        expression.normalised(counts, normalisation="raw", target_sum=1)
    with pytest.raises(InputError, match="above zero"):
        expression.normalised(counts, normalisation="library_size_log1p", target_sum=0)


def test_panel_by_mean_ranks_raw_counts_over_the_union_of_genes() -> None:
    one, two = table([[1, 5], [1, 5]], "AB"), table([[9, 9], [9, 9]], "CA")
    # Sums over four spots: A 20, C 18, B 10; D does not exist.
    assert gene_panel.choose_panel([one, two], TargetConfig(genes=2)) == ("A", "C")
    assert gene_panel.choose_panel([one, two], TargetConfig(genes=9)) == ("A", "C", "B")


def test_panel_by_variance_ranks_the_normalised_values() -> None:
    spots = random_table(3)
    values = expression.targets(spots, spots.genes, **LOG1P).astype(np.float64)
    best = [spots.genes[at] for at in np.argsort(-values.var(axis=0))[:4]]
    assert list(gene_panel.choose_panel([spots], TargetConfig(genes=4, panel="variance"))) == best


def test_panel_by_share_counts_spots_and_min_share_filters_every_rule() -> None:
    spots = table([[9, 1, 1], [0, 1, 1], [0, 1, 0], [0, 1, 0]], "ABC")
    assert gene_panel.choose_panel([spots], TargetConfig(panel="share")) == ("B", "C", "A")
    for rule, order in (("mean", "BC"), ("share", "BC"), ("variance", "CB")):
        target = TargetConfig(panel=rule, min_share=0.5)
        assert gene_panel.choose_panel([spots], target) == tuple(order)


def test_genes_without_a_training_count_never_enter_a_panel() -> None:
    assert gene_panel.choose_panel([table([[1, 0]], "AB")], TargetConfig(genes=2)) == ("A",)


@pytest.mark.parametrize("rule", gene_panel.PANEL_RULES)
def test_panel_does_not_depend_on_the_order_of_sections_or_columns(rule: str) -> None:
    target = TargetConfig(genes=6, panel=rule)
    tables = [random_table(seed) for seed in range(3)]
    order = np.random.default_rng(0).permutation(12)
    shuffled = [
        SpotTable(t.names, t.centres_px, t.counts[:, order], tuple(t.genes[at] for at in order))
        for t in reversed(tables)
    ]
    assert gene_panel.choose_panel(tables, target) == gene_panel.choose_panel(shuffled, target)


def test_equal_ranks_are_ordered_by_name() -> None:
    assert gene_panel.choose_panel([table([[2, 2, 2]], "CAB")], TargetConfig(genes=2)) == ("A", "B")


def test_panel_that_nothing_qualifies_for_names_the_most_widespread_gene() -> None:
    spots = table([[1, 1], [0, 1], [0, 1], [1, 0]], "AB")
    with pytest.raises(
        InputError, match=r"4 training spots; the most widespread, 'B', is in 0\.75"
    ):
        gene_panel.choose_panel([spots], TargetConfig(min_share=0.9))
    with pytest.raises(InputError, match="no training spots"):
        gene_panel.choose_panel([], TargetConfig())


def test_panel_file_is_taken_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "genes.txt"
    path.write_bytes(b"\xef\xbb\xbf# my genes\r\nC  # a comment\r\n\r\n  A\r\n")
    target = TargetConfig(genes=1, panel=str(path), min_share=0.9)
    assert gene_panel.choose_panel([table([[1, 1, 1], [1, 1, 0]], "ABC")], target) == ("C", "A")


def test_panel_file_with_an_unknown_gene_names_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "genes.txt"
    path.write_text("GNAS\nErbb22\n")
    spots = table([[1, 1, 0]], ["GNAS", "ERBB2", "ERBB22"])
    with pytest.raises(InputError, match=r"1 of 2 genes have no counts.*'Erbb22'.*'ERBB2'"):
        gene_panel.choose_panel([spots], dataclasses.replace(TargetConfig(), panel=str(path)))
    path.write_text("ENSG00000999999\n")
    with pytest.raises(InputError, match="names look like 'ERBB2', 'GNAS'"):
        gene_panel.choose_panel([spots], dataclasses.replace(TargetConfig(), panel=str(path)))
    path.write_text("ENSG00000141736.13\n")
    panel = dataclasses.replace(TargetConfig(), panel=str(path))
    assert gene_panel.choose_panel([spots], panel) == ("ERBB2",)  # the data's own name


def test_panel_that_is_no_rule_and_no_file_is_refused() -> None:
    with pytest.raises(InputError, match="nor a file that exists; did you mean 'variance'"):
        gene_panel.choose_panel([table([[1]], "A")], TargetConfig(panel="varience"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"# nothing\n\n", "names no gene"),
        (b"A\nB\nA\n", "1 gene.s. more than once: 'A'"),
        (b"A\nB\tC\n", "line 2: 'B C' has several fields"),
        (b"A\tB\nC\tD\n", "line 1: 'A B' has several fields"),
        (b"gene,n\nA,1\n,2\n", "line 3: no gene stands there"),
        (b"gene,symbol\nA,B\n", "2 columns of genes"),
        (b"2064\n2778\n", "line 1: '2064' is a number"),
        (b"A\nSep-02\n", "line 2: 'Sep-02' is a date"),
        (b"A\n2-Sep\n", "line 2: '2-Sep' is a date"),
        (b"\xff\xfe\x00A\x00", "cannot be read as text"),
    ],
)
def test_bad_gene_files_are_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "genes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_gene_file(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    "text",
    [
        "A\nB\n",
        "A\r\nB",
        "A\rB\r",
        '"A"\n"B"\n',
        "# a list\nA # first\n\nB\u00a0\n",
        "gene\nA\nB\n",
        "Gene Symbol\nA\nB\n",
        ",gene\n0,A\n1,B\n",
        '"gene"\n"1" "A"\n"2" "B"\n',
        "rank;gene;note\n1;A;\n2;B;x\n",
        '"x"\n"1" "A"\n"2" "B"\n',
        ",x\n0,A\n1,B\n",
        "1\tA\n2\tB\n",
        "A,B",
        "A, B\n",
        "A\tB\n",
        "A B",
        "A;B;\n",
        "A,\nB,\n",
    ],
)
def test_gene_files_in_every_form(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "genes.txt"
    path.write_bytes(text.encode(encoding))
    assert read_gene_file(path) == ("A", "B")


def test_missing_gene_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_gene_file(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_gene_file(tmp_path)


def test_nearest_names_ignore_capitals() -> None:
    assert nearest_names("erbb2", ["ERBB2", "ERBB3", "TP53"])[0] == "ERBB2"


def made_values() -> tuple[np.ndarray, np.ndarray]:
    """Two sections that differ by 5 in every gene; gene 2 is constant."""
    random = np.random.default_rng(1)
    values = random.normal(size=(40, 3)) * [1, 3, 0] + [1, 2, 0.1]
    groups = np.repeat(["one", "two"], [10, 30])
    return (values + 5 * (groups == "two")[:, None] * [1, 1, 0]).astype(np.float32), groups


@pytest.mark.parametrize("centre", ["none", "training", "section"])
@pytest.mark.parametrize("scale", [True, False])
def test_panel_mean_and_scale_are_what_their_table_says(centre: str, scale: bool) -> None:
    values, groups = made_values()
    target = TargetConfig(centre=centre, scale=scale)  # type: ignore[arg-type]
    panel = gene_panel.fit_panel(values, groups, "ABC", target)
    expected_mean = np.zeros(3) if centre == "none" else values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(panel.mean, expected_mean, rtol=1e-6)
    if not scale:
        expected = np.ones(3)
    elif centre == "section":
        within = [10 * values[:10].var(axis=0), 30 * values[10:].var(axis=0)]
        expected = np.sqrt(np.sum(within, axis=0) / 40)
    else:
        expected = values.std(axis=0)
    expected[2] = 1.0
    np.testing.assert_allclose(panel.scale, expected, rtol=1e-5)  # float32 oracle


def test_section_centred_targets_have_mean_zero_and_deviation_one_within_sections() -> None:
    values, groups = made_values()
    target = TargetConfig(centre="section", scale=True)
    panel = gene_panel.fit_panel(values, groups, "ABC", target)
    learned = gene_panel.training_targets(values, groups, panel, target)
    assert learned.dtype == np.float32
    for name in ("one", "two"):
        np.testing.assert_allclose(learned[groups == name].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.sqrt((learned**2).mean(axis=0)), [1, 1, 0], atol=1e-6)
    back = panel.to_unit(learned)
    np.testing.assert_allclose(back.mean(axis=0), values.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("centre", ["none", "training"])
def test_other_training_targets_are_the_panels_own_and_come_back(centre: str) -> None:
    values, groups = made_values()
    target = TargetConfig(centre=centre)  # type: ignore[arg-type]
    panel = gene_panel.fit_panel(values, groups, "ABC", target)
    learned = gene_panel.training_targets(values, groups, panel, target)
    # One side computes in float64, the other in float32.
    np.testing.assert_allclose(learned, panel.standardise(values), atol=1e-6)
    np.testing.assert_allclose(panel.to_unit(learned), values, rtol=1e-5)


def test_fit_panel_refuses_what_it_cannot_fit() -> None:
    values, groups = made_values()
    target = TargetConfig()
    panel = gene_panel.fit_panel(values, groups, "ABC", target)
    with pytest.raises(InputError, match="2 genes need"):
        gene_panel.fit_panel(values, groups, "AB", target)
    with pytest.raises(InputError, match="at least one spot"):
        gene_panel.fit_panel(values[:0], groups[:0], "ABC", target)
    with pytest.raises(InputError, match="40 spots, but section names"):
        gene_panel.training_targets(values, groups[:3], panel, target)
    values[3, 1] = np.nan
    with pytest.raises(InputError, match="spot 3, gene 1"):
        gene_panel.fit_panel(values, groups, "ABC", target)


def test_smoothing_averages_the_spots_within_the_radius() -> None:
    random = np.random.default_rng(2)
    values, centres = random.normal(size=(25, 4)), random.uniform(0, 100, (25, 2))
    expected = [values[np.hypot(*(centres - centre).T) <= 30].mean(axis=0) for centre in centres]
    np.testing.assert_allclose(
        expression.smoothed(values, centres, radius_px=30), expected, atol=1e-6
    )


def test_smoothing_with_radius_zero_changes_nothing_and_with_a_huge_one_gives_the_mean() -> None:
    values, centres = np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(expression.smoothed(values, centres, radius_px=0), values)
    everywhere = expression.smoothed(values, centres, radius_px=1e9)
    np.testing.assert_allclose(everywhere, np.tile(values.mean(axis=0), (4, 1)))


def test_smoothing_refuses_a_bad_radius_and_other_shapes() -> None:
    with pytest.raises(InputError, match="0 or more"):
        expression.smoothed(np.ones((2, 1)), np.ones((2, 2)), radius_px=-1)
    with pytest.raises(InputError, match="centres"):
        expression.smoothed(np.ones((2, 1)), np.ones((3, 2)), radius_px=1)

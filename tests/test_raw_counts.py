"""Counts of every reader: genes alone, raw whole numbers, of one genome, identified by their ids.

Values are compared with scanpy's, gene by gene by id.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
from scipy import sparse

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.counts import raw_counts
from histospace_tf.data_pipelines.counts.raw_counts import Features, GeneCounts, gene_counts
from histospace_tf.vocabulary import InputError
from made import visium as made_visium
from made.cohorts import messages
from made.sections import made_section, write_her2st

PICTURE = made_visium.noise_picture()
SPOTS = ("s1", "s2", "s3")
GENES = (("ERBB2", "ENSG00000141736"), ("GNAS", "ENSG00000087460"), ("ACTB", "ENSG00000075624"))


def passed(counts: Any, names: Sequence[Any], **features: Sequence[Any]) -> GeneCounts:
    return gene_counts("section A", "counts.h5", SPOTS, counts, Features(names, **features))


def rising(n: int) -> np.ndarray:
    return np.arange(1, 3 * n + 1).reshape(3, n)


def write_run(
    folder: Path,
    genes: Sequence[tuple[str, str]],
    level: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
) -> Path:
    """A run whose gene `i` has about `level[i]`, or in spot `s` `level[s, i]`, counts a spot."""
    made_visium.write_run(folder, PICTURE, seed=seed)
    spots = made_visium.made_spots(PICTURE)
    barcodes = list(spots[spots["in_tissue"] == 1]["barcode"])
    counts = np.random.default_rng(seed).poisson(level, (len(barcodes), len(genes)))
    made_visium.write_h5(
        folder / "filtered_feature_bc_matrix.h5",
        barcodes,
        [name for name, _ in genes],
        [one for _, one in genes],
        sparse.csr_matrix(counts.astype(np.int32)),
        kinds=kinds,
    )
    return folder


def write_table(folder: Path, **paths: str) -> Path:
    rows = [f"{name},{path},P{name}" for name, path in paths.items()]
    (folder / "sections.csv").write_text("\n".join(["section,path,patient", *rows]) + "\n")
    return folder


def write_h5ad(path: Path, counts: Any, var: pd.DataFrame) -> Path:
    spots = made_visium.made_spots(PICTURE).set_index("barcode")
    data = anndata.AnnData(counts, spots[["in_tissue", "array_row", "array_col"]], var)
    data.obsm["spatial"] = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    data.write_h5ad(path)
    return path


# Which features are genes


@pytest.mark.parametrize(
    "kind",
    [
        "Antibody Capture",
        "Negative Control Probe",
        "Negative Control Codeword",
        "Blank Codeword",
        "Unassigned Codeword",
        "Deprecated Codeword",
        "Genomic Control",
        "Multiplexing Capture",
        "CRISPR Guide Capture",
        "Custom",
        "Peaks",
        b"Antibody Capture",
        "whatever comes next",
    ],
)
def test_a_feature_that_is_stated_to_be_no_gene_is_left_out(kind: Any) -> None:
    found = passed(rising(3), ["A", "B", "CD3"], kinds=["Gene Expression", "", kind])
    assert found.genes == ("A", "B")
    np.testing.assert_array_equal(found.counts.toarray(), rising(3)[:, :2])
    name = kind.decode() if isinstance(kind, bytes) else kind
    assert f"1 of 3 features are no genes ({name}: 1; 40 % of all counts): left out" in messages(
        found, "note"
    )


def test_biotypes_are_genes_and_spike_ins_none() -> None:
    kinds = ["protein_coding", "lncRNA", "IG_C_gene", "spike-in"]
    assert passed(rising(4), list("ABCD"), kinds=kinds).genes == ("A", "B", "C")


@pytest.mark.parametrize(
    "control",
    [
        "NegControlProbe_00042",
        "NegControlCodeword_0500",
        "NegPrb3",
        "Negative1",
        "SystemControl12",
        "BLANK_0006",
        "Blank-12",
        "UnassignedCodeword_0001",
        "DEPRECATED_ENSG00000116883",
        "antisense_ADCY4",
        "Intergenic_Region_10014",
        "ERCC-00002",
        "__ambiguous[A+B]",
        "N_multimapping",
    ],
)
def test_a_control_is_known_by_its_name_where_no_type_is_stated(control: str) -> None:
    found = passed(rising(2), ["ERCC1", control])
    assert found.genes == ("ERCC1",)
    assert f"1 of 2 features have names of controls, not of genes ('{control}'" in messages(
        found, "warning"
    )


@pytest.mark.parametrize("gene", ["ERCC1", "NEGR1", "ANTXR1", "BLNK", "DEPTOR", "MT-ND1", "HGF"])
def test_names_of_genes_pass(gene: str) -> None:
    assert passed(rising(1), [gene]).problems == ()


def test_antibodies_alone_are_refused() -> None:
    with pytest.raises(InputError, match="no gene expression: none of its 1 features is a gene"):
        passed(rising(1), ["CD3"], kinds=["Antibody Capture"])


@pytest.mark.parametrize("column", ["feature_types", "feature_type"])
def test_an_h5ad_has_the_same_genes_as_the_run(tmp_path: Path, column: str) -> None:
    genes = [*GENES, ("CD74", "CD74")]
    kinds = ["Gene Expression"] * 3 + ["Antibody Capture"]
    run = write_run(tmp_path / "A", genes, [3, 3, 3, 4000], kinds=kinds)
    whole = scanpy.read_10x_h5(run / "filtered_feature_bc_matrix.h5", gex_only=False)
    one = readers.read_cohort(run).sections[0].spots
    spots = made_visium.made_spots(PICTURE)
    whole = whole[spots["barcode"]].copy()
    var = whole.var.rename(columns={"feature_types": column})
    two = (
        readers.read_cohort(write_h5ad(tmp_path / "b.h5ad", whole.X.astype(np.float32), var))
        .sections[0]
        .spots
    )
    expected = whole[:, whole.var["feature_types"] == "Gene Expression"]
    for spots in (one, two):
        assert spots.genes == tuple(expected.var_names)
        assert spots.gene_ids == tuple(expected.var["gene_ids"])
        np.testing.assert_array_equal(
            spots.counts.toarray(), expected[list(spots.names)].X.toarray()
        )


# Raw whole numbers


WRONG = [
    (1.5, "has 1.5 .*Counts are whole numbers"),
    (-2.0, "has -2 .*zero or more"),
    (np.nan, "has nan .*missing is not zero"),
    (np.inf, "has inf .*missing"),
    (2.0**32 - 1, "has 4294967295 .*No spot holds so many"),
]


@pytest.mark.parametrize(("value", "match"), WRONG)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_values_that_are_no_counts_are_refused_with_spot_and_gene(
    form: Any, value: float, match: str
) -> None:
    counts = rising(3).astype(np.float64)
    counts[1, 2] = value
    with pytest.raises(raw_counts.NoRawCounts, match=f"'counts.h5'.*spot 's2', gene 'C' {match}"):
        passed(form(counts), ["A", "B", "C"])


@pytest.mark.parametrize(
    "dtype",
    [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.float16, np.float32],
)
def test_whole_numbers_of_any_type_pass(dtype: Any) -> None:
    found = passed(rising(3).astype(dtype), ["A", "B", "C"])
    assert found.counts.dtype == np.float32
    np.testing.assert_array_equal(found.counts.toarray(), rising(3))


def test_ones_alone_and_equal_sums_are_warned_of() -> None:
    names = [f"G{i}" for i in range(400)]
    spots = [f"s{i}" for i in range(10)]
    for counts, match in (
        (np.ones((10, 400), int), "every count is 0 or 1, with 400 genes a spot"),
        (np.tile(np.arange(400), (10, 1)), "each of 10 spots sum to 79800"),
    ):
        found = gene_counts("section A", "counts.h5", spots, counts, Features(names))
        assert match in messages(found, "warning")


def test_true_and_false_are_no_counts() -> None:
    with pytest.raises(InputError, match="true or false, not how many"):
        passed(rising(2) > 1, ["A", "B"])


@pytest.mark.parametrize("layout", ["h5", "mtx", "h5ad", "her2st"])
def test_fractions_are_refused_by_every_reader(tmp_path: Path, layout: str) -> None:
    spots = made_visium.made_spots(PICTURE)
    spots = spots[spots["in_tissue"] == 1]
    counts = made_visium.made_counts(spots) * 0.873
    if layout == "her2st":
        made = made_section()
        made.counts[3][1] = "0.873"
        data, place = write_her2st(tmp_path, made), "spot '4x1', gene 'GENE1'"
    elif layout == "h5ad":
        data = tmp_path / "S.h5ad"
        made_h5ad = made_visium.made_h5ad(PICTURE)
        made_h5ad.X = made_h5ad.X * 0.873
        made_h5ad.write_h5ad(data)
        place = f"spot '{spots['barcode'].iloc[0]}', gene 'ERBB2'"
    else:
        data = made_visium.write_run(tmp_path / "S", PICTURE, matrix=layout)
        ids = [f"ENSG{i:011d}" for i in range(len(made_visium.GENES))]
        arguments = (list(spots["barcode"]), made_visium.GENES, ids, counts)
        if layout == "h5":
            made_visium.write_h5(data / "filtered_feature_bc_matrix.h5", *arguments)
        else:
            made_visium.write_mtx(data / "filtered_feature_bc_matrix", *arguments)
        place = f"spot '{spots['barcode'].iloc[0]}', gene 'ERBB2'"
    with pytest.raises(InputError, match=f"section .*{place}"):
        readers.read_cohort(data)
    (error,) = [
        p for p in readers.read_cohort(data, strict=False).problems if p.severity == "error"
    ]
    assert place in str(error)


# Forms of a matrix


def test_cell_ranger_2s_form_is_read_as_scanpy_reads_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "A", GENES, [3, 4, 5])
    file = run / "filtered_feature_bc_matrix.h5"
    with h5py.File(file) as old, h5py.File(tmp_path / "new.h5", "w") as new:
        group = new.create_group("GRCh38")
        for name in ("barcodes", "data", "indices", "indptr", "shape"):
            group[name] = old[f"matrix/{name}"][:]
        group["genes"] = old["matrix/features/id"][:]
        group["gene_names"] = old["matrix/features/name"][:]
    (tmp_path / "new.h5").replace(file)
    spots = readers.read_cohort(run).sections[0].spots
    expected = scanpy.read_10x_h5(file)
    assert spots.gene_ids == tuple(expected.var["gene_ids"])
    np.testing.assert_array_equal(spots.counts.toarray(), expected[list(spots.names)].X.toarray())


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_features_of_one_to_three_columns_are_read(
    tmp_path: Path, columns: int, line_end: str
) -> None:
    run = made_visium.write_run(tmp_path / "A", PICTURE, matrix="mtx")
    file = run / "filtered_feature_bc_matrix" / "features.tsv"
    rows = [line.split("\t")[:columns] for line in file.read_text().splitlines()]
    file.write_bytes(line_end.join(["\t".join(row) for row in rows] + [""]).encode())
    spots = readers.read_cohort(run).sections[0].spots
    assert spots.gene_ids == tuple(row[0] for row in rows)
    assert spots.genes[0] == ("ERBB2" if columns > 1 else "ENSG00000000000")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: "id\tname\ttype\n" + text, "is the first feature, 'name', a header"),
        (lambda text: text.replace("\t", " "), "has no tabs, but blanks"),
    ],
)
def test_features_with_a_header_or_without_tabs_are_refused(
    tmp_path: Path, change: Callable[[str], str], match: str
) -> None:
    run = made_visium.write_run(tmp_path / "A", PICTURE, matrix="mtx")
    file = run / "filtered_feature_bc_matrix" / "features.tsv"
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=match):
        readers.read_cohort(run)


@pytest.mark.parametrize("field", ["integer", "real", "pattern"])
def test_a_matrix_market_file_of_any_field_is_read_or_refused(tmp_path: Path, field: str) -> None:
    run = made_visium.write_run(tmp_path / "A", PICTURE, matrix="mtx")
    file = run / "filtered_feature_bc_matrix" / "matrix.mtx"
    before = readers.read_cohort(run).sections[0].spots.counts.toarray()
    lines = file.read_text().splitlines()
    lines[0] = f"%%MatrixMarket matrix coordinate {field} general"
    if field == "pattern":
        first = next(i for i, line in enumerate(lines) if not line.startswith("%"))
        lines[first + 1 :] = [line.rpartition(" ")[0] for line in lines[first + 1 :]]
    file.write_text("\n".join(lines) + "\n")
    if field == "pattern":
        with pytest.raises(InputError, match="where counts are, not how many"):
            readers.read_cohort(run)
    else:
        np.testing.assert_array_equal(
            readers.read_cohort(run).sections[0].spots.counts.toarray(), before
        )


def test_a_transposed_matrix_is_refused(tmp_path: Path) -> None:
    run = made_visium.write_run(tmp_path / "A", PICTURE, matrix="mtx.gz")
    folder = run / "filtered_feature_bc_matrix"
    text = gzip.decompress((folder / "matrix.mtx.gz").read_bytes()).decode().splitlines()
    turned = [
        line if line.startswith("%") else " ".join([b, a, n])
        for line in text
        for a, b, n in [(*line.split(), "", "")[:3] if line.startswith("%") else line.split()]
    ]
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress("\n".join(turned).encode()))
    with pytest.raises(InputError, match="it is transposed"):
        readers.read_cohort(run)
    with pytest.raises(InputError, match=r"has spots as columns .first: 'AAACCCGGTTAAACGT-1'"):
        passed(rising(1), ["AAACCCGGTTAAACGT-1"])


def test_barcodes_without_the_positions_suffix_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "A", GENES, [3, 4, 5])
    with h5py.File(run / "filtered_feature_bc_matrix.h5", "a") as h5:
        bare = np.array([name[:-2] for name in h5["matrix/barcodes"][:]])
        del h5["matrix/barcodes"]
        h5["matrix/barcodes"] = bare
    with pytest.raises(InputError, match=r"none of .* barcodes .*'AAAAAAAA'.*'AAAAAAAA-1'"):
        readers.read_cohort(run)


# Genes and ids within a section


def test_versions_of_ensembl_ids_are_taken_off() -> None:
    found = passed(
        rising(2), ["ERBB2", "X"], ids=["ENSG00000141736.14", "ENSG00000182378.13_PAR_Y"]
    )
    assert found.gene_ids == ("ENSG00000141736", "ENSG00000182378")
    found = passed(rising(1), ["ENSG00000141736.14"])
    assert (found.genes, found.gene_ids) == (("ENSG00000141736",), ("ENSG00000141736",))


@pytest.mark.parametrize(
    "name",
    ["ENSG00000141736|ERBB2", "ERBB2_ENSG00000141736.14", "ENSG00000141736 ERBB2"],
)
def test_a_name_that_holds_symbol_and_id_is_taken_apart(name: str) -> None:
    for ids in ([], ["ENSG00000141736.2"], [name]):
        found = passed(rising(1), [name], ids=ids)
        assert (found.genes, found.gene_ids) == (("ERBB2",), ("ENSG00000141736",))
    other = passed(rising(1), [name], ids=["ENSG00000087460"])
    assert (other.genes, other.gene_ids) == ((name,), ("ENSG00000087460",))


def test_ids_in_the_place_of_names_are_exchanged() -> None:
    names, ids = zip(*GENES, strict=True)
    found = passed(rising(3), ids, ids=names)
    assert (found.genes, found.gene_ids) == (names, ids)
    assert "the two are exchanged" in messages(found, "note")


def test_numbers_and_what_many_genes_share_are_no_ids() -> None:
    found = passed(rising(2), ["A", "B"], ids=["17", "18"])
    assert (found.genes, found.gene_ids) == (("A", "B"), ())
    assert "2 gene ids are numbers" in messages(found, "note")
    assert passed(rising(2), ["A", "B"], ids=["gene", "gene"]).gene_ids == ()


def test_a_gene_without_name_is_called_by_its_id_and_one_without_both_is_left_out() -> None:
    assert passed(rising(1), [np.nan], ids=["ENSG00000141736.1"]).genes == ("ENSG00000141736",)
    found = passed(rising(3), ["A", "", None], ids=["", "nan", ""])
    assert found.genes == ("A",)
    assert "2 of 3 features have neither a name nor an id (first: number 2; 73 %" in messages(
        found, "warning"
    )
    assert passed(rising(2), ["nan", "na"]).genes == ("nan", "na")  # genes of the fly


def test_rows_of_one_id_are_added_up_and_equal_rows_count_once() -> None:
    ids = ["ENSG00000141736.1", "ENSG00000141736.2", "ENSG00000087460", "ENSG00000087460"]
    counts = np.array([[200, 100, 7, 7], [1, 2, 0, 0], [0, 5, 1, 1]], np.uint8)
    found = passed(counts, ["ERBB2", "ERBB2", "GNAS", "GNAS"], ids=ids)
    assert found.genes == ("ERBB2", "GNAS")
    np.testing.assert_array_equal(found.counts.toarray(), [[300, 7], [3, 0], [5, 1]])
    assert "2 gene ids stand on several rows: 1 have their counts added up" in messages(
        found, "warning"
    )


# Genomes


def test_the_smaller_genome_is_left_out_and_prefixes_taken_off() -> None:
    counts = np.array([[90, 3], [80, 4], [90, 0]])
    names = ["GRCh38_ERBB2", "mm10___Erbb2"]
    ids = ["GRCh38_ENSG00000141736", "mm10___ENSMUSG00000062312"]
    found = passed(counts, names, ids=ids)
    assert (found.genes, found.gene_ids) == (("ERBB2",), ("ENSG00000141736",))
    assert "GRCh38 (1 genes, 260 counts, 97.4 %), mm10 (1 genes, 7 counts, 2.62 %)" in messages(
        found, "warning"
    )
    assert found.counts.sum() == 260


@pytest.mark.parametrize(
    ("names", "features"),
    [
        (["ERBB2", "Erbb2", "GFP"], {"genomes": ["GRCh38", "mm10", ""]}),
        (["ERBB2", "Erbb2", "GFP"], {"ids": ["ENSG00000141736", "ENSMUSG00000062312", "GFP"]}),
        (["ENSG00000141736", "ENSMUSG00000062312", "GFP"], {}),
        (["HUMAN_ERBB2", "MOUSE_Erbb2", "GFP"], {}),
        (["hg19_ERBB2", "mm10_Erbb2", "GFP"], {}),
    ],
)
def test_genomes_without_a_majority_are_refused(
    names: list[str], features: dict[str, list[str]]
) -> None:
    with pytest.raises(InputError, match=r"genes of 2 genomes, .* none has 75% of the counts"):
        passed(np.array([[50, 40, 1]] * 3), names, **features)
    found = passed(np.array([[10, 90, 1]] * 3), names, **features)
    assert found.genes[1:] == ("GFP",)


def test_two_names_of_one_species_reference_are_one_genome() -> None:
    ids, genomes = ["ENSG00000141736", "ENSG00000087460"], ["GRCh38", "GRCh38-2020-A"]
    found = passed(rising(2), ["ERBB2", "GNAS"], ids=ids, genomes=genomes)
    assert found.genes == ("ERBB2", "GNAS")
    with pytest.raises(InputError, match=r"GRCh38 .* SARS-CoV-2"):
        passed(
            rising(2)[:, ::-1], ["ERBB2", "S"], ids=[ids[0], ""], genomes=["GRCh38", "SARS-CoV-2"]
        )


def test_one_genome_with_prefixes_loses_them() -> None:
    found = passed(rising(2), ["GRCh38_ERBB2", "GRCh38_GNAS"], genomes=["GRCh38", "GRCh38"])
    assert found.genes == ("ERBB2", "GNAS")


# One name for one gene in all sections


def by_id(spots: Any, one: str) -> np.ndarray:
    return spots.counts[:, spots.gene_ids.index(one)].toarray().ravel()


def test_genes_of_one_symbol_line_up_by_id_whatever_their_order(tmp_path: Path) -> None:
    high, low = ("TBCE", "ENSG00000284770"), ("TBCE", "ENSG00000285053")
    write_run(tmp_path / "A", [*GENES, high, low], [5, 5, 5, 50, 1])
    write_run(tmp_path / "B", [*GENES, low, high], [5, 5, 5, 1, 50], seed=1)
    write_run(tmp_path / "C", [*GENES, low], [5, 5, 5, 1], seed=2)
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="B", C="C"))
    for section in cohort.sections:
        spots = section.spots
        expected = scanpy.read_10x_h5(tmp_path / section.name / "filtered_feature_bc_matrix.h5")
        expected.var_names = expected.var["gene_ids"]
        assert "TBCE" not in spots.genes
        for one, name in zip(spots.gene_ids, spots.genes, strict=True):
            assert name == {ident: name for name, ident in GENES}.get(one, one)
            own = expected[list(spots.names), one].X.toarray().ravel()
            np.testing.assert_array_equal(by_id(spots, one), own)
    assert "'TBCE: ENSG00000284770 and ENSG00000285053'" in messages(cohort, "note")


def test_a_gene_that_is_renamed_between_releases_has_the_first_sections_name(
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "A", [*GENES, ("SEPT2", "ENSG00000168385")], [5] * 4)
    write_run(tmp_path / "B", [*GENES, ("SEPTIN2", "ENSG00000168385")], [5] * 4, seed=1)
    write_run(tmp_path / "C", [(f"{i}.7", f"{i}.7") for _, i in GENES], [5] * 3, seed=2)
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="B", C="C"))
    assert [s.spots.genes[:3] for s in cohort.sections] == [("ERBB2", "GNAS", "ACTB")] * 3
    assert [s.spots.genes[3:] for s in cohort.sections] == [("SEPT2",), ("SEPT2",), ()]
    assert "section B: 1 genes have other names in this section ('SEPTIN2, here SEPT2')" in (
        messages(cohort, "note")
    )


def test_a_name_that_moved_to_another_gene_is_not_one_column(tmp_path: Path) -> None:
    write_run(tmp_path / "A", [*GENES, ("X", "ENSG00000000001")], [5] * 4)
    write_run(tmp_path / "B", [*GENES, ("X", "ENSG00000000002")], [5] * 4, seed=1)
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="B"))
    assert [s.spots.genes[3] for s in cohort.sections] == ["ENSG00000000001", "ENSG00000000002"]


def test_a_section_without_ids_gets_them_where_its_names_are_unambiguous(tmp_path: Path) -> None:
    twice = [("TBCE", "ENSG00000284770"), ("TBCE", "ENSG00000285053")]
    write_run(tmp_path / "A", [*GENES, *twice], [5] * 5)
    n = len(made_visium.made_spots(PICTURE))
    counts = np.random.default_rng(1).poisson(5, (n, 5)).astype(np.float32)
    names = [*(name for name, _ in GENES), "TBCE", "OWN"]
    write_h5ad(tmp_path / "b.h5ad", counts, pd.DataFrame(index=names))
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="b.h5ad"))
    spots = cohort.sections[1].spots
    assert spots.genes == ("ERBB2", "GNAS", "ACTB", "OWN")
    assert spots.gene_ids == (*(one for _, one in GENES), "")
    np.testing.assert_array_equal(spots.counts.toarray(), counts[:, [0, 1, 2, 4]])
    assert "section B: 1 genes have no id, and a name that several genes have ('TBCE')" in (
        messages(cohort, "warning")
    )


def test_genes_of_one_name_and_no_id_are_left_out(tmp_path: Path) -> None:
    n = len(made_visium.made_spots(PICTURE))
    counts = np.random.default_rng(1).poisson(5, (n, 3)).astype(np.float32)
    path = write_h5ad(tmp_path / "b.h5ad", counts, pd.DataFrame(index=["TBCE", "A", "TBCE-1"]))
    cohort = readers.read_cohort(path)
    assert cohort.sections[0].spots.genes == ("A",)
    assert "2 genes have no id" in messages(cohort, "warning")


def test_symbols_that_end_in_a_number_are_genes_of_their_own(tmp_path: Path) -> None:
    n = len(made_visium.made_spots(PICTURE))
    names = ["IGHV1-69", "IGHV1-69-2", "NKX2-1", "A-2", "A"]
    counts = np.random.default_rng(1).poisson(5, (n, 5)).astype(np.float32)
    path = write_h5ad(tmp_path / "b.h5ad", counts, pd.DataFrame(index=names))
    assert readers.read_cohort(path).sections[0].spots.genes == tuple(names)


def test_ids_that_are_not_ensembls_tell_genes_apart_too(tmp_path: Path) -> None:
    fly = [("wg", "FBgn0284084"), ("w", "FBgn0003996")]
    write_run(tmp_path / "A", [*fly, ("x", "FBgn0000001"), ("x", "FBgn0000002")], [5] * 4)
    write_run(tmp_path / "B", [("x", "FBgn0000002"), *fly[::-1]], [5] * 3, seed=1)
    write_run(tmp_path / "C", [(one, one) for _, one in fly], [5] * 2, seed=2)
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="B", C="C"))
    assert [s.spots.genes for s in cohort.sections] == [
        ("wg", "w", "FBgn0000001", "FBgn0000002"),
        ("FBgn0000002", "w", "wg"),
        ("wg", "w"),
    ]


def test_an_h5ad_with_numbers_as_index_has_the_names_of_a_column(tmp_path: Path) -> None:
    n = len(made_visium.made_spots(PICTURE))
    counts = np.random.default_rng(1).poisson(5, (n, 3)).astype(np.float32)
    names, ids = zip(*GENES, strict=True)
    var = pd.DataFrame({"gene_ids": ids, "gene_symbols": names}, index=["0", "1", "2"])
    spots = readers.read_cohort(write_h5ad(tmp_path / "b.h5ad", counts, var)).sections[0].spots
    assert (spots.genes, spots.gene_ids) == (names, ids)


def test_an_h5ad_of_ids_shows_its_symbols(tmp_path: Path) -> None:
    n = len(made_visium.made_spots(PICTURE))
    counts = np.random.default_rng(1).poisson(5, (n, 3)).astype(np.float32)
    names, ids = zip(*GENES, strict=True)
    var = pd.DataFrame({"feature_name": pd.Categorical(names)}, index=list(ids))
    spots = readers.read_cohort(write_h5ad(tmp_path / "b.h5ad", counts, var)).sections[0].spots
    assert (spots.genes, spots.gene_ids) == (names, ids)


# Genes that a section did not measure


def test_zeros_that_stand_for_not_measured_are_taken_out_of_the_section(tmp_path: Path) -> None:
    many = [(f"G{i}", f"ENSG{i:011d}") for i in range(10)]
    write_run(tmp_path / "A", many, [5] * 10)
    write_run(tmp_path / "B", many, [5] * 6 + [0] * 4, seed=1)
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="B"))
    assert [len(s.spots.genes) for s in cohort.sections] == [10, 6]
    warned = messages(cohort, "warning")
    assert "section B: 4 genes that are common in other sections are zero" in warned
    assert "'G6', 'G7', 'G8', 'G9'" in warned


def test_a_gene_of_one_sex_and_a_few_silent_genes_stay_zero(tmp_path: Path) -> None:
    many = [("XIST", "ENSG00000229807"), *((f"G{i}", f"ENSG{i:011d}") for i in range(300))]
    level = np.full((len(made_visium.made_spots(PICTURE)), 301), 5)
    level[4:, 1] = 0  # G0 is in few spots of section A, and in none of section B
    level[:4, 1] = 40
    write_run(tmp_path / "A", many, level)
    write_run(tmp_path / "B", many, [0, 0, *[5] * 299], seed=1)
    cohort = readers.read_cohort(write_table(tmp_path, A="A", B="B"))
    assert [len(s.spots.genes) for s in cohort.sections] == [301, 301]
    assert "section B: 2 genes that other sections have are zero" in messages(cohort, "note")


def test_where_absent_means_zero_nothing_is_taken_out(tmp_path: Path) -> None:
    made, other = made_section("A1", "A"), made_section("B1", "B")
    for row in made.counts:
        row[1] = "0"
    cohort = readers.read_cohort(write_her2st(tmp_path, made, other))
    assert cohort.sections[0].spots.genes == cohort.sections[1].spots.genes
    assert "zero in all" not in messages(cohort, "note", "warning")

"""One gene under several names."""

from __future__ import annotations

import csv
import gzip
import re
from importlib import resources

import pytest

from histospace_tf.data_pipelines.genes import matching
from histospace_tf.vocabulary import InputError


def table() -> list[dict[str, str]]:
    """The table that ships, read without the module."""
    packed = resources.files("histospace_tf.data_pipelines.genes") / "gene_names.csv.gz"
    return list(csv.DictReader(gzip.decompress(packed.read_bytes()).decode().splitlines()))


def test_the_table_that_ships_is_small_and_sound() -> None:
    packed = resources.files("histospace_tf.data_pipelines.genes") / "gene_names.csv.gz"
    assert len(packed.read_bytes()) < 1_000_000
    rows = table()
    assert len({row["symbol"] for row in rows}) == len(rows) > 40_000
    ids = [name for row in rows for name in row["ensembl"].split("|") if name]
    assert all(re.fullmatch(r"ENSG\d{11}", name) for name in ids)


@pytest.mark.parametrize(
    ("wanted", "own"),
    [
        ("ERBB2", "ERBB2"),
        ("ERBB2", "ENSG00000141736"),
        ("ERBB2", "ENSG00000141736.13"),
        ("ENSG00000141736.5", "ENSG00000141736.13"),
        ("ENSRNOG00000006450.1", "ENSRNOG00000006450"),  # of a species without a table
        ("HLA-A", "HLA.A"),  # as R writes it
        ("SEPTIN2", "SEPT2"),  # renamed
        ("SEPT2", "SEPTIN2"),
        ("CCN5", "WISP2"),
        ("HER2", "ERBB2"),  # an alias
        ("NBL1", "ENSG00000158747"),  # an id that a read-through gene had beside its own
        ("MCL1", "ENSG00000143384"),
        ("C1orf43", "LTAP1"),  # renamed, and two genes in sources of different days
        ("LTAP1", "ENSG00000143612"),
        ("no gene at all", "no gene at all"),
    ],
)
def test_a_gene_is_found_under_its_other_names(wanted: str, own: str) -> None:
    match = matching.by_name(["GNAS", own, "ACTB"], [wanted])
    assert (match.matched, match.unmatched, match.ambiguous) == ({wanted: own}, (), {})


def test_two_genes_at_one_place_stay_two() -> None:
    assert matching.by_name(["ST7-OT3"], ["ST7"]).unmatched == ("ST7",)
    assert matching.by_name(["ENSG00000004866"], ["ST7"]).ambiguous


@pytest.mark.parametrize(
    ("wanted", "own"), [("ERBB2", "ERBB3"), ("ERBB2", "Erbb2"), ("GENE1", "GENE2")]
)
def test_other_genes_and_other_species_do_not_match(wanted: str, own: str) -> None:
    assert matching.by_name([own], [wanted]).unmatched == (wanted,)


def test_a_symbol_of_today_wins_over_what_bore_it_before() -> None:
    # MARK1 is a gene; other genes' aliases are never consulted for it.
    symbols = {row["symbol"] for row in table()}
    both = next(
        (alias, row["symbol"])
        for row in table()
        for alias in row["aliases"].split("|")
        if alias in symbols
    )
    assert matching.by_name([both[1]], [both[0]]).unmatched == (both[0],)


def test_names_of_several_genes_are_never_guessed() -> None:
    owners: dict[str, list[str]] = {}
    rows = table()
    for row in rows:
        for alias in filter(None, row["aliases"].split("|")):
            owners.setdefault(alias, []).append(row["symbol"])
    taken = {name for row in rows for name in [row["symbol"], *row["previous"].split("|")]}
    alias, genes = next((a, g) for a, g in owners.items() if len(g) == 2 and a not in taken)
    for have in (genes, genes[:1]):
        match = matching.by_name(have, [alias])
        assert match.ambiguous == {alias: tuple(have)}
    assert matching.symbols([alias]) == [None]


def test_two_names_of_one_gene_are_ambiguous_unless_written_alike() -> None:
    match = matching.by_name(["SEPT2", "ENSG00000168385"], ["SEPTIN2"])
    assert match.ambiguous == {"SEPTIN2": ("SEPT2", "ENSG00000168385")}
    match = matching.by_name(["ERBB2", "ENSG00000141736"], ["ERBB2"])
    assert match.matched == {"ERBB2": "ERBB2"}
    match = matching.by_name(["ERBB2"], ["HER2", "ERBB2"])
    assert (match.matched, match.ambiguous) == ({"ERBB2": "ERBB2"}, {"HER2": ("ERBB2",)})
    match = matching.by_name(["ENSG00000141736"], ["HER2", "ERBB2"])
    assert not match.matched
    assert set(match.ambiguous) == {"HER2", "ERBB2"}


def test_the_line_counts_what_matched_what_did_not_and_what_is_ambiguous() -> None:
    match = matching.by_name(
        ["ACTB", "SEPT2", "ERBB2", "ENSG00000141736"], ["ACTB", "SEPTIN2", "none", "HER2"]
    )
    assert match.renamed == {"SEPTIN2": "SEPT2"}
    assert match.line() == (
        "2 of 4 genes matched, 1 of them under another name ('SEPTIN2 = SEPT2'); 1 unmatched "
        "('none'); 1 ambiguous ('HER2: ERBB2 or ENSG00000141736')"
    )


def test_ids_beside_the_datas_names_say_which_genes_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = {
        "Erbb2": "ENSMUSG00000062312.13",  # a mouse's, among human genes
        "an alias": "ENSG00000141736.13",
        "SEPT2": "ENSG00000999999",  # an id that the table lacks, too: then the name counts
        "ACTB": "",
    }
    wanted = ["ENSMUSG00000062312", "Erbb2x", "ERBB2", "SEPTIN2", "ENSG00000075624"]
    match = matching.by_name(list(ids), wanted, ids=ids)
    assert match.matched == {
        "ENSMUSG00000062312": "Erbb2",
        "ERBB2": "an alias",
        "SEPTIN2": "SEPT2",
        "ENSG00000075624": "ACTB",
    }
    assert match.unmatched == ("Erbb2x",)
    assert set(matching.by_name(list(ids), wanted).unmatched) == set(wanted[:3])
    found = matching.genes_in_data(["ENSMUSG00000062312"], set(ids), "file", ids=ids)
    assert found == ("Erbb2",)
    assert "'ENSMUSG00000062312 = Erbb2'" in capsys.readouterr().err


def test_two_names_with_one_id_are_ambiguous() -> None:
    ids = {"one": "ENSG00000141736.13", "two": "ENSG00000141736.12"}
    match = matching.by_name(list(ids), ["ERBB2"], ids=ids)
    assert match.ambiguous == {"ERBB2": ("one", "two")}


def test_symbols_are_the_approved_ones() -> None:
    names = ["ENSG00000141736.13", "ERBB2", "SEPT2", "ENSMUSG00000062312", "ENSG00000999999", "x"]
    assert matching.symbols(names) == ["ERBB2", "ERBB2", "SEPTIN2", None, None, None]


def test_a_gene_that_stands_twice_is_found() -> None:
    names = ["ERBB2", "ACTB", "ENSG00000141736.13", "GNAS"]
    assert matching.same_genes(names) == {"ERBB2": ("ERBB2", "ENSG00000141736.13")}
    assert matching.same_genes(["ERBB2", "HER2", "NGL"]) == {}


def test_a_gene_file_may_write_genes_in_another_way(capsys: pytest.CaptureFixture[str]) -> None:
    have = {"ERBB2", "SEPT2", "ACTB"}
    assert matching.genes_in_data(["SEPTIN2", "ACTB"], have, "file") == ("SEPT2", "ACTB")
    assert "'SEPTIN2 = SEPT2'" in capsys.readouterr().err
    assert matching.genes_in_data(["ACTB"], have, "file") == ("ACTB",)
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="nearest to 'ERBB22': 'ERBB2'"):
        matching.genes_in_data(["ACTB", "ERBB22"], have, "file")
    with pytest.raises(InputError, match="look like 'ACTB', 'ERBB2', 'SEPT2'"):
        matching.genes_in_data(["!"], have, "file")
    with pytest.raises(InputError, match="first: 'HER2', which may be 'ERBB2'"):
        matching.genes_in_data(["ERBB2", "HER2"], have, "file")


def test_suggestions_know_other_names_before_spelling() -> None:
    assert matching.suggestions("HER2", ["HER3", "ERBB2"]) == ["ERBB2"]
    assert matching.suggestions("erbb2", ["GNAS", "ERBB2"])[0] == "ERBB2"

"""Whose genes a data set holds, and genes of two species, which are never matched by spelling."""

from __future__ import annotations

import csv
import dataclasses
import lzma
import re
from importlib import resources
from pathlib import Path

import pytest

from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.genes import matching, nomenclature, species
from histospace_tf.vocabulary import Cohort, InputError, Section
from made import tissue as made_tissue

MOUSE = ("Erbb2", "Gnas", "Actb", "Penk")


def mouse_table() -> dict[str, dict[str, str]]:
    """The mouse table that ships, read without the module: symbol -> row."""
    packed = resources.files("histospace_tf.data_pipelines.genes") / "mouse_gene_names.csv.xz"
    rows = csv.DictReader(lzma.decompress(packed.read_bytes()).decode().splitlines())
    return {row["symbol"]: row for row in rows}


def section(*genes: str, ids: tuple[str, ...] = (), name: str = "S") -> Section:
    made = made_tissue.section(name, "P")
    spots = dataclasses.replace(made.spots, genes=genes, gene_ids=ids)
    return dataclasses.replace(made, spots=spots)


def test_the_mouse_table_is_small_and_sound() -> None:
    packed = resources.files("histospace_tf.data_pipelines.genes") / "mouse_gene_names.csv.xz"
    assert len(packed.read_bytes()) < 700_000
    table = mouse_table()
    assert len(table) > 80_000
    ids = [row["ensembl"] for row in table.values() if row["ensembl"]]
    assert all(re.fullmatch(r"ENSMUSG\d{11}", name) for name in ids)
    human = [row["human"] for row in table.values() if row["human"]]
    assert len(set(human)) == len(human) > 16_000, "one partner there and back"
    assert set(human) <= nomenclature.table_of("human").approved


@pytest.mark.parametrize(
    ("symbol", "ensembl", "human"),
    [  # as the sources that benchmarks/nomenclature.py names give them
        ("Gapdh", "ENSMUSG00000057666", ""),
        ("Actb", "ENSMUSG00000029580", "ACTB"),
        ("Pcp4", "ENSMUSG00000090223", "PCP4"),
        ("Penk", "ENSMUSG00000045573", "PENK"),
        ("Doc2g", "ENSMUSG00000024871", ""),  # a pseudogene in human
        ("Trp53", "ENSMUSG00000059552", "TP53"),
        ("Erbb2", "ENSMUSG00000062312", "ERBB2"),
        ("Rpl10-ps3", "ENSMUSG00000058443", ""),
        ("Fcgr4", "ENSMUSG00000059089", ""),  # FCGR3A and FCGR3B
    ],
)
def test_the_mouse_table_agrees_with_its_sources(symbol: str, ensembl: str, human: str) -> None:
    row = mouse_table()[symbol]
    assert (row["ensembl"], row["human"]) == (ensembl, human)


@pytest.mark.parametrize(
    ("genes", "ids", "name", "known"),
    [
        (MOUSE, (), "mouse", 4),
        (("ERBB2", "GNAS", "ACTB", "PENK"), (), "human", 4),
        (("Sept2", "H2.K1", "X0610010B08Rik", "none"), (), "mouse", 2),  # the third has two genes
        (("C3", "F2", "F3", "F5"), (), species.UNKNOWN, 4),  # symbols of both
        (("a", "b", "c", "ERBB2"), (), species.UNKNOWN, 1),
        (("ENSRNOG00000006450", "ENSRNOG00000047179.2", "a", "b"), (), "rat", 2),
        (("Erbb2", "Gnas", "Actb", "RGD1305424"), (), "rat", 3),
        (MOUSE, ("ENSRNOG00000006450", "ENSRNOG00000047179", "", ""), "rat", 2),
        (("FBgn0000042", "FBgn0001128"), (), "fruit fly", 2),
        (("ENSDARG00000037746", "ENSDARG00000026017"), (), "zebrafish", 2),
    ],
)
def test_species_are_recognised_by_ids_then_by_symbols(
    genes: tuple[str, ...], ids: tuple[str, ...], name: str, known: int
) -> None:
    found = species.of_genes(genes, dict(zip(genes, ids, strict=False)))
    assert found.name == name
    if genes[0] != "Sept2":
        assert (found.known, found.every) == (known, len(genes))


def test_an_id_of_an_unlisted_species_names_its_prefix() -> None:
    assert "ENSXXXG" in species.of_genes(["ENSXXXG00000000001"]).name


def test_the_note_on_species_has_name_and_count() -> None:
    problem = species.finding([section(*MOUSE)])
    assert problem is not None
    assert str(problem) == "genes: mouse genes (4 of 4 names known)."
    problem = species.finding([section("x.1", "x.2", "x.3", "ERBB2")])
    assert problem is not None
    assert "unknown species (1 of 4 names known); 3 are neither" in problem.message
    assert species.finding([]) is None


def test_sections_of_two_species_are_an_error() -> None:
    human = section("ERBB2", "GNAS", "ACTB", "PENK", name="H")
    problem = species.finding([section(*MOUSE, name="M"), human])
    assert problem is not None
    assert problem.severity == "error"
    assert "mouse: section 'M'; human: section 'H'" in problem.message
    unknown = species.finding([human, section("x.1", "x.2", "x.3", "x.4")])
    assert unknown is not None
    assert unknown.severity == "note"


@pytest.mark.parametrize(
    ("wanted", "own"),
    [
        ("Septin2", "Sept2"),
        ("Gapd", "Gapdh"),
        ("ENSMUSG00000057666.4", "Gapdh"),
        ("H2-K1", "H2.K1"),
        ("Loricrin", "Lor"),
    ],
)
def test_a_mouse_gene_is_found_under_its_other_names(wanted: str, own: str) -> None:
    assert matching.by_name([own, *MOUSE], [wanted]).matched == {wanted: own}


def test_mouse_symbols_are_the_approved_ones() -> None:
    names = [*MOUSE, "Sept2", "ENSMUSG00000057666", "none"]
    assert matching.symbols(names) == [*MOUSE, "Septin2", "Gapdh", None]


def test_orthologs_match_both_ways_and_genes_without_one_do_not() -> None:
    wanted = ["ERBB2", "TP53", "GAPDH", "FCGR3A", "ENSG00000087460", "none"]
    match = matching.by_ortholog([*MOUSE, "Trp53", "Fcgr4"], wanted, of=("human", "mouse"))
    assert match.matched == {"ERBB2": "Erbb2", "TP53": "Trp53", "ENSG00000087460": "Gnas"}
    assert match.unmatched == ("GAPDH", "FCGR3A", "none")
    back = matching.by_ortholog(
        ["ENSG00000141510", "GNAS"], ["Trp53", "Gnas", "Doc2g"], of=("mouse", "human")
    )
    assert back.matched == {"Trp53": "ENSG00000141510", "Gnas": "GNAS"}
    twice = matching.by_ortholog(["Trp53"], ["TP53", "p53"], of=("human", "mouse"))
    assert set(twice.ambiguous) == {"TP53", "p53"}
    assert not twice.matched


def test_a_gene_file_of_another_species_is_refused_unless_orthologs_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(InputError, match=r"human genes \(3 of 4.*mouse genes.*`orthologs`"):
        matching.genes_in_data(["ERBB2", "GNAS", "DOC2GP", "x"], MOUSE, "file")
    found = matching.genes_in_data(["GNAS", "GAPDH", "ERBB2"], MOUSE, "file", orthologs=True)
    assert found == ("Gnas", "Erbb2")
    assert "left out without one ortholog in the data: 'GAPDH'" in capsys.readouterr().err
    # Human genes in wrong capitals: the same refusal, and no guess.
    with pytest.raises(InputError, match="names of two species are never matched by spelling"):
        matching.genes_in_data(["Erbb2", "Gnas"], ["ERBB2", "GNAS", "ACTB"], "file")
    with pytest.raises(InputError, match="between human and mouse alone"):
        matching.genes_in_data(
            ["ERBB2", "GNAS"], ["ENSRNOG00000006450", "ENSRNOG00000047179"], "f", orthologs=True
        )


def test_a_panel_of_another_species_is_refused_unless_orthologs_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort = Cohort(Path("made"), "made", (section(*MOUSE),))
    panel = made_tissue.panel(genes=("GNAS", "ERBB2", "GAPDH"))
    with pytest.raises(InputError, match=r"the run's panel holds human genes .* `orthologs`"):
        cohort_genes.on_panel(cohort, panel)
    found, match = cohort_genes.on_panel(cohort, panel, orthologs=True)
    assert match.matched == {"GNAS": "Gnas", "ERBB2": "Erbb2"}
    assert match.unmatched == ("GAPDH",)
    assert found.sections[0].spots.genes == ("ERBB2", "GNAS", "Actb", "Penk")
    told = capsys.readouterr().err
    assert "By one-to-one orthologs in human: 2 of 3 genes matched" in told
    assert "left out: 'GAPDH'" in told


def test_real_mouse_data_are_known(test_data: Path) -> None:
    cohort = readers.read_cohort(test_data / "mob")
    found = species.of_sections(cohort.sections)
    assert found.name == "mouse"
    assert found.known / found.every > 0.99
    assert cohort_genes.gene_problems(cohort.sections) == []

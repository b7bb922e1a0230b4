"""The species of a data set's genes, recognised by Ensembl ids, or by symbols where there are none.

Symbols are looked up in the packaged tables of human and mouse. Symbols of rat are written as those
of mouse, and symbols of macaque or pig as those of human: without ids they cannot be distinguished.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from histospace_tf.data_pipelines.genes import nomenclature
from histospace_tf.vocabulary import InputError, Problem, Section, named

UNKNOWN = "unknown"
_LEAST_KNOWN = 0.5  # of the names
_LEAST_RAT = 0.005  # of the names: symbols that only the rat's database gives
# Letters of Ensembl's gene ids. Source: ensembl.org, "Stable ID prefixes".
_LETTERS = {
    "": "human",
    "MUS": "mouse",
    "RNO": "rat",
    "MMU": "rhesus macaque",
    "MFA": "crab-eating macaque",
    "PTR": "chimpanzee",
    "GGO": "gorilla",
    "CJA": "marmoset",
    "MIC": "mouse lemur",
    "SSC": "pig",
    "BTA": "cow",
    "OAR": "sheep",
    "CHI": "goat",
    "ECA": "horse",
    "CAF": "dog",
    "FCA": "cat",
    "MPU": "ferret",
    "OCU": "rabbit",
    "CPO": "guinea pig",
    "MAU": "golden hamster",
    "HGLF": "naked mole-rat",
    "MOD": "opossum",
    "GAL": "chicken",
    "TGU": "zebra finch",
    "ACA": "anole lizard",
    "XET": "frog",
    "AMX": "cavefish",
    "DAR": "zebrafish",
    "ORL": "medaka",
}
_ENSEMBL_ID = re.compile(r"ENS([A-Z]{0,4})G\d{11}(\.\d+)?(_PAR_Y)?")
_OTHER_IDS = {
    "fruit fly": re.compile(r"FBgn\d{7}"),
    "roundworm": re.compile(r"WBGene\d{8}"),
    "yeast": re.compile(r"Y[A-P][LR]\d{3}[WC](-[A-Z])?"),
    "thale cress": re.compile(r"AT[1-5MC]G\d{5}(\.\d+)?"),
}
_RAT_SYMBOL = re.compile(r"RGD\d{5,}|AABR07\d{6}\.\d+|ENSRNOG\d{11}")


@dataclasses.dataclass(frozen=True)
class Species:
    """The species of some genes.

    name: "human", "mouse", another animal's or plant's, or UNKNOWN.
    known: how many of `every` names are genes of it.
    by_ids: whether it was recognised by ids.
    """

    name: str
    known: int
    every: int
    by_ids: bool = False

    @property
    def is_known(self) -> bool:
        return self.name != UNKNOWN

    def __str__(self) -> str:
        how = "ids" if self.by_ids else "names known"
        count = f"({self.known:,} of {self.every:,} {how})"
        return (
            f"{self.name} genes {count}" if self.is_known else f"genes of unknown species {count}"
        )

    def to_json(self) -> dict[str, str | int | bool]:
        """As manifests hold it."""
        return dataclasses.asdict(self)


def of_genes(names: Collection[str], ids: Mapping[str, str] | None = None) -> Species:
    """Recognises the species of genes.

    Args:
        names: of genes; ids: their ids by name, where there are some.
    """
    unique = list(dict.fromkeys(names))
    by_ids = Counter(filter(None, (_of_id((ids or {}).get(n) or n) for n in unique)))
    if by_ids and 2 * sum(by_ids.values()) >= len(unique):
        name, known = by_ids.most_common(1)[0]
        return Species(name, known, len(unique), by_ids=True)
    known_in = Counter({name: _known(name, unique) for name in nomenclature.FILES})
    (name, known), (_, second) = known_in.most_common(2)
    if known == second or known < _LEAST_KNOWN * len(unique):  # C3 alone is a gene of both
        return Species(UNKNOWN, known, len(unique))
    of_rat = sum(_RAT_SYMBOL.fullmatch(n) is not None for n in unique)
    if name == "mouse" and of_rat > _LEAST_RAT * len(unique):
        return Species("rat", known, len(unique))
    return Species(name, known, len(unique))


def of_sections(sections: Sequence[Section]) -> Species:
    """Recognises the species of all sections' genes together."""
    ids = {gene: gene_id for section in sections for gene, gene_id in section.spots.id_of.items()}
    return of_genes([gene for section in sections for gene in section.spots.genes], ids)


def finding(sections: Sequence[Section]) -> Problem | None:
    """A note on the species of a data set; an error where sections are of different species.

    A section of unknown species may stand beside any other; None where there are no sections.
    """
    if not sections:
        return None
    of: dict[str, list[str]] = {}
    for section in sections:
        of.setdefault(of_genes(section.spots.genes, section.spots.id_of).name, []).append(
            section.name
        )
    of.pop(UNKNOWN, None)
    if len(of) > 1:
        each = "; ".join(f"{name}: section {named(names, 3)}" for name, names in of.items())
        return Problem(
            "error",
            "genes",
            f"sections are of {len(of)} species ({each}).",
            "Train and score each species by itself.",
        )
    all_genes = of_sections(sections)
    message, advice = f"{all_genes}.", ""
    if not all_genes.is_known:
        tables = [nomenclature.table_of(name) for name in nomenclature.FILES]
        all_names = dict.fromkeys(gene for section in sections for gene in section.spots.genes)
        strange = [gene for gene in all_names if not any(table.knows(gene) for table in tables)]
        message = (
            f"{all_genes}; {len(strange)} are neither human nor mouse genes that are known "
            f"here, nor ids of another species ({named(strange, 3)})."
        )
        advice = "Other data then match by the very same names alone."
    elif all_genes.name not in nomenclature.FILES:
        advice = (
            "Other names of a gene are known for human and mouse alone: other data match by ids."
        )
    return Problem("note", "genes", message, advice)


def refuse_other(
    wanted: Species, own: Species, *, asked: str, source: str, orthologs: bool
) -> bool:
    """Whether orthologs are to be matched: two species meet, and the user asked for it.

    Args:
        wanted: species of the genes to find; asked: what names them ("the run's panel").
        own: species of the data's genes; source: name of the data.
        orthologs: whether the user asked for orthologs.
    Raises:
        InputError: two species meet, and `orthologs` is False or no orthologs are known.
    """
    if not (wanted.is_known and own.is_known) or wanted.name == own.name:
        return False
    met = f"{asked} holds {wanted}, and {source} {own}"
    if not nomenclature.orthologs(wanted.name, own.name):
        raise InputError(
            f"{met}: orthologs are known here between human and mouse alone, so nothing is matched"
        )
    if not orthologs:
        raise InputError(
            f"{met}: names of two species are never matched by spelling. With `orthologs`, genes "
            "that have exactly one ortholog there and back are matched, and the others left out"
        )
    return True


def _of_id(identifier: str) -> str | None:
    """The species of an id; None for a text that is no id."""
    match = _ENSEMBL_ID.fullmatch(identifier)
    if match:
        return _LETTERS.get(match[1], f'a species with ids "ENS{match[1]}G..."')
    return next((name for name, form in _OTHER_IDS.items() if form.fullmatch(identifier)), None)


def _known(species: str, names: Sequence[str]) -> int:
    """How many names the table of a species knows."""
    table = nomenclature.table_of(species)
    return sum(table.knows(name) for name in names)

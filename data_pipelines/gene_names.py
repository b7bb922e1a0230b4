"""One gene under several names: Ensembl ids, approved symbols, previous symbols and aliases.

The table that ships, gene_names.csv.gz, holds human genes with an HGNC id; it is made by
benchmarks/nomenclature.py, which says where it is from. A name is read in this order, and the first
that fits counts:

1. an approved symbol (ERBB2), whatever else once bore that name;
2. an Ensembl gene id (ENSG00000141736), with or without a version (ENSG00000141736.13); ids of
   other species, and ids that the table lacks, are compared without their versions;
3. a previous symbol (SEPT2, now SEPTIN2), of one gene or of several;
4. an alias (HER2), of one gene or of several.

Capitals count, because Erbb2 is a gene of the mouse. A name that means several genes is never
guessed. Nothing here changes a name in anybody's data.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import io
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources

from histospace_tf.data_pipelines import gene_files
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named

TABLE = "gene_names.csv.gz"
_ENSEMBL = re.compile(r"(ENS[A-Z]{0,4}G\d{11})(?:\.\d+)?(?:_PAR_Y)?")


@dataclasses.dataclass(frozen=True)
class GeneMatch:
    """Names that were looked for, and what the data call them.

    matched: wanted name -> the data's name, in the order wanted.
    unmatched: wanted names that the data have under no name that is known here.
    ambiguous: wanted name -> the data's names that it may stand for, or that another wanted name
        stands for as well.
    """

    matched: Mapping[str, str]
    unmatched: tuple[str, ...]
    ambiguous: Mapping[str, tuple[str, ...]]

    @property
    def renamed(self) -> dict[str, str]:
        """Those of `matched` that the data write in another way."""
        return {wanted: own for wanted, own in self.matched.items() if wanted != own}

    def line(self) -> str:
        """What matched and what did not, in one line."""
        every = len(self.matched) + len(self.unmatched) + len(self.ambiguous)
        parts = [f"{len(self.matched)} of {every} genes matched"]
        if self.renamed:
            pairs = [f"{wanted} = {own}" for wanted, own in self.renamed.items()]
            parts[0] += f", {len(pairs)} of them under another name ({named(pairs, 3)})"
        if self.unmatched:
            parts.append(f"{len(self.unmatched)} unmatched ({named(self.unmatched, 5)})")
        if self.ambiguous:
            pairs = [f"{wanted}: {' or '.join(own)}" for wanted, own in self.ambiguous.items()]
            parts.append(f"{len(pairs)} ambiguous ({named(pairs, 3)})")
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True)
class _Table:
    """Approved symbols, and what other names stand for."""

    approved: frozenset[str]
    of_ensembl: Mapping[str, tuple[str, ...]]
    of_previous: Mapping[str, tuple[str, ...]]
    of_alias: Mapping[str, tuple[str, ...]]


def mapped(
    names: Collection[str], wanted: Sequence[str], *, ids: Mapping[str, str] | None = None
) -> GeneMatch:
    """Finds genes in somebody's data under whatever name they have there.

    A name that stands in the data as it is written is taken so. Else both sides are read as the
    module's beginning says; a match needs one gene on both sides, and one name of the data for it.

    Args:
        names: the data's gene names; wanted: the names to find, each once.
        ids: the data's Ensembl ids by name, where it has both. An id says which gene a name means
            whatever else the name may mean, and in any species.
    """
    have = set(names)
    owners: dict[str, list[str]] = {}
    meant = {name: _meant(name, (ids or {}).get(name, "")) for name in dict.fromkeys(names)}
    for name, genes in meant.items():
        for gene in genes:
            owners.setdefault(gene, []).append(name)
        bare = _ENSEMBL.fullmatch((ids or {}).get(name, ""))
        if bare and bare[1] not in genes:
            owners.setdefault(bare[1], []).append(name)
    matched: dict[str, str] = {}
    unmatched: list[str] = []
    ambiguous: dict[str, tuple[str, ...]] = {}
    for name in wanted:
        if name in have:
            matched[name] = name
            continue
        genes = _genes(name)
        own = tuple(dict.fromkeys(other for gene in genes for other in owners.get(gene, ())))
        if not own:
            unmatched.append(name)
        elif len(own) == len(genes) == len(meant[own[0]]) == 1:
            matched[name] = own[0]
        else:
            ambiguous[name] = own
    asking: dict[str, list[str]] = {}
    for name, found in matched.items():
        asking.setdefault(found, []).append(name)
    for found, askers in asking.items():
        if len(askers) > 1:  # the name that is written alike keeps it
            for name in askers:
                if name != found:
                    ambiguous[name] = (matched.pop(name),)
    return GeneMatch(matched, tuple(unmatched), ambiguous)


def found_genes(
    wanted: Sequence[str],
    names: Collection[str],
    source: str,
    *,
    ids: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The data's names of all genes that a file names, in the file's order.

    Names that differ are said aloud.

    Args:
        wanted: the file's names; names: the data's genes with counts; source: the file.
        ids: as of `mapped`.
    Raises:
        InputError: a gene that the data have under no known name, with the nearest names of the
            first few; or one that may be several of theirs.
    """
    match = mapped(names, wanted, ids=ids)
    if match.unmatched:
        known = sorted(names)
        guesses = {gene: gene_files.nearest_names(gene, known) for gene in match.unmatched[:3]}
        hints = [f"nearest to {gene!r}: {named(near)}" for gene, near in guesses.items() if near]
        raise InputError(
            f"gene file {source!r}: {len(match.unmatched)} of {len(wanted)} genes have no counts "
            f"in the training sections: {named(match.unmatched)}; "
            + ("; ".join(hints) or f"the data's names look like {named(known, 3)}")
        )
    if match.ambiguous:
        first, own = next(iter(match.ambiguous.items()))
        raise InputError(
            f"gene file {source!r}: {len(match.ambiguous)} of {len(wanted)} genes are ambiguous "
            f"(first: {first!r}, which may be {' or '.join(map(repr, own))} of the data); write "
            "the data's names, each gene once"
        )
    if match.renamed:
        say(f"gene file {source!r}: {match.line()}.")
    return tuple(match.matched.values())


def symbols(names: Sequence[str]) -> list[str | None]:
    """The approved symbol of every name; None where it is unknown or means several genes."""
    approved = _table().approved
    found = (_genes(name) for name in names)
    return [genes[0] if len(genes) == 1 and genes[0] in approved else None for genes in found]


def is_ensembl(name: str) -> bool:
    """Whether a name is written as an Ensembl gene id of any species, with a version or without."""
    return _ENSEMBL.fullmatch(name) is not None


def bare_ensembl(name: str) -> str:
    """An Ensembl gene id of any species without its version; "" where a name is none."""
    match = _ENSEMBL.fullmatch(name)
    return match[1] if match else ""


def same_genes(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Genes that stand in `names` under two names or more: gene -> its names there.

    Aliases do not count: many are shared by unlike genes, or are another gene's symbol elsewhere.
    """
    found: dict[str, list[str]] = {}
    table = _table()
    for name in dict.fromkeys(names):
        genes = _genes(name)
        if len(genes) == 1 and (name in table.approved or is_ensembl(name)):
            found.setdefault(genes[0], []).append(name)
    return {gene: tuple(own) for gene, own in found.items() if len(own) > 1}


def suggestions(name: str, known: Sequence[str], limit: int = 3) -> list[str]:
    """What somebody who wrote `name` may have meant among `known`: the same gene, else the names
    that look most alike."""
    match = mapped(known, [name])
    same = [*match.matched.values(), *(own for names in match.ambiguous.values() for own in names)]
    return same[:limit] or gene_files.nearest_names(name, known, limit)


def _meant(name: str, identifier: str) -> tuple[str, ...]:
    """What a name may mean, as `_genes`, given its Ensembl id ("" where there is none)."""
    by_name, ensembl = _genes(name), _ENSEMBL.fullmatch(identifier)
    if ensembl is None:
        return by_name
    return _table().of_ensembl.get(ensembl[1]) or by_name or (ensembl[1],)


def _genes(name: str) -> tuple[str, ...]:
    """What a name may mean: approved symbols, or for an id that the table lacks the bare id."""
    table = _table()
    if name in table.approved:
        return (name,)
    ensembl = _ENSEMBL.fullmatch(name)
    if ensembl:
        return table.of_ensembl.get(ensembl[1], (ensembl[1],))
    return table.of_previous.get(name) or table.of_alias.get(name, ())


@functools.cache
def _table() -> _Table:
    packed = (resources.files("histospace_tf.data_pipelines") / TABLE).read_bytes()
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))

    def owners(column: str) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for row in rows:
            for name in filter(None, row[column].split("|")):
                found.setdefault(name, []).append(row["symbol"])
        return {name: tuple(genes) for name, genes in found.items()}

    return _Table(
        approved=frozenset(row["symbol"] for row in rows),
        of_ensembl=owners("ensembl"),
        of_previous=owners("previous"),
        of_alias=owners("aliases"),
    )

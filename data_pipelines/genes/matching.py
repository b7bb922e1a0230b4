"""Genes of two data sets matched: by Ensembl ids, approved symbols, previous symbols and aliases.

`nomenclature` says what a name means in human and in mouse; `species` recognises which of the two a
list of names is of. In other species, only equal names and ids match. A name that means several
genes is never guessed. No name in a user's data is changed here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from histospace_tf.data_pipelines.genes import nomenclature, species
from histospace_tf.data_pipelines.genes.lists import nearest_names
from histospace_tf.data_pipelines.genes.nomenclature import GeneTable, bare_ensembl
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named


@dataclasses.dataclass(frozen=True)
class GeneMatch:
    """Wanted names, and what the data call them.

    matched: wanted name -> the data's name, in the order wanted.
    unmatched: wanted names that the data have under no known name.
    ambiguous: wanted name -> the data's names that it may stand for, or that another wanted name
        stands for as well.
    """

    matched: Mapping[str, str]
    unmatched: tuple[str, ...]
    ambiguous: Mapping[str, tuple[str, ...]]

    @property
    def renamed(self) -> dict[str, str]:
        """The part of `matched` in which the data's name differs."""
        return {wanted: own for wanted, own in self.matched.items() if wanted != own}

    def line(self) -> str:
        """A summary in one line."""
        total = len(self.matched) + len(self.unmatched) + len(self.ambiguous)
        parts = [f"{len(self.matched)} of {total} genes matched"]
        if self.renamed:
            pairs = [f"{wanted} = {own}" for wanted, own in self.renamed.items()]
            parts[0] += f", {len(pairs)} of them under another name ({named(pairs, 3)})"
        if self.unmatched:
            parts.append(f"{len(self.unmatched)} unmatched ({named(self.unmatched, 5)})")
        if self.ambiguous:
            pairs = [f"{wanted}: {' or '.join(own)}" for wanted, own in self.ambiguous.items()]
            parts.append(f"{len(pairs)} ambiguous ({named(pairs, 3)})")
        return "; ".join(parts)


def by_name(
    names: Collection[str], wanted: Sequence[str], *, ids: Mapping[str, str] | None = None
) -> GeneMatch:
    """Finds genes in a data set under whatever names they have there.

    A name that the data have exactly as written is that gene. Otherwise both names are looked up in
    the table of the data's species; they match where both mean the same single gene, and only one
    name of the data means it.

    Args:
        names: the data's gene names; wanted: the names to find, each once.
        ids: the data's Ensembl ids by name, where it has both. An id decides which gene a name
            means, in any species.
    """
    have, table = set(names), _table(names, ids)
    owners: dict[str, list[str]] = {}
    meant = {name: _meant(table, name, (ids or {}).get(name, "")) for name in dict.fromkeys(names)}
    for name, genes in meant.items():
        for gene in genes:
            owners.setdefault(gene, []).append(name)
        bare = bare_ensembl((ids or {}).get(name, ""))
        if bare and bare not in genes:
            owners.setdefault(bare, []).append(name)
    matched: dict[str, str] = {}
    unmatched: list[str] = []
    ambiguous: dict[str, tuple[str, ...]] = {}
    for name in wanted:
        if name in have:
            matched[name] = name
            continue
        genes = table.genes(name)
        own = tuple(dict.fromkeys(other for gene in genes for other in owners.get(gene, ())))
        if not own:
            unmatched.append(name)
        elif len(own) == len(genes) == len(meant[own[0]]) == 1:
            matched[name] = own[0]
        else:
            ambiguous[name] = own
    asking: dict[str, list[str]] = {}
    for name, own_name in matched.items():
        asking.setdefault(own_name, []).append(name)
    for own_name, askers in asking.items():
        if len(askers) > 1:  # the name that is written alike keeps it
            for name in askers:
                if name != own_name:
                    ambiguous[name] = (matched.pop(name),)
    return GeneMatch(matched, tuple(unmatched), ambiguous)


def by_id(
    names: Sequence[str],
    wanted: Sequence[str],
    *,
    ids: Mapping[str, str] | None = None,
    wanted_ids: Mapping[str, str] | None = None,
) -> GeneMatch:
    """`by_name`, but ids are compared before names.

    Genes with the same id match, whatever their names; genes with the same name and different ids
    do not. Names are compared where either side has no id.

    Args:
        names: the data's gene names; wanted: the names to find, each once.
        ids, wanted_ids: ids by name, where known; a name that is an Ensembl id is its own.
    """
    own = {name: gene_id for name in names if (gene_id := _id(name, ids))}
    asked = {name: gene_id for name in wanted if (gene_id := _id(name, wanted_ids))}
    times = Counter(own.values())
    name_of = {gene_id: name for name, gene_id in own.items() if times[gene_id] == 1}
    by_id = {gene: name_of[asked[gene]] for gene in wanted if asked.get(gene) in name_of}
    taken = set(by_id.values())
    rest = by_name(
        [name for name in names if name not in taken],
        [gene for gene in wanted if gene not in by_id],
        ids=ids,
    )
    others = {
        gene
        for gene, name in rest.matched.items()
        if gene in asked and name in own and asked[gene] != own[name]
    }
    matches = {**by_id, **{gene: rest.matched[gene] for gene in rest.matched if gene not in others}}
    return GeneMatch(
        matched={gene: matches[gene] for gene in wanted if gene in matches},
        unmatched=tuple(gene for gene in wanted if gene in others or gene in rest.unmatched),
        ambiguous=rest.ambiguous,
    )


def by_ortholog(
    names: Collection[str],
    wanted: Sequence[str],
    *,
    of: tuple[str, str],
    ids: Mapping[str, str] | None = None,
    wanted_ids: Mapping[str, str] | None = None,
) -> GeneMatch:
    """`by_name` for genes of another species, by one-to-one orthologs.

    Args:
        names: the data's gene names; wanted: the names to find, each once.
        ids, wanted_ids: Ensembl ids of both by name, where known.
        of: (species of `wanted`, species of `names`).
    Returns:
        As `by_name`; genes without a one-to-one ortholog are unmatched.
    """
    table, partner = nomenclature.table_of(of[0]), nomenclature.orthologs(*of)
    partners: dict[str, str] = {}
    for name in wanted:
        genes = _meant(table, name, (wanted_ids or {}).get(name, ""))
        if len(genes) == 1 and genes[0] in partner:
            partners[name] = partner[genes[0]]
    match = by_name(names, list(dict.fromkeys(partners.values())), ids=ids)
    asking: dict[str, list[str]] = {}
    for name, other in partners.items():
        asking.setdefault(other, []).append(name)
    own = {
        names[0]: match.matched[other]
        for other, names in asking.items()
        if other in match.matched and len(names) == 1
    }
    ambiguous = {
        name: match.ambiguous.get(other) or (match.matched[other],)
        for other, names in asking.items()
        for name in names
        if other in match.ambiguous or (other in match.matched and len(names) > 1)
    }
    return GeneMatch(
        matched={name: own[name] for name in wanted if name in own},
        unmatched=tuple(name for name in wanted if name not in own and name not in ambiguous),
        ambiguous=ambiguous,
    )


def genes_in_data(
    wanted: Sequence[str],
    names: Collection[str],
    source: str,
    *,
    ids: Mapping[str, str] | None = None,
    orthologs: bool = False,
) -> tuple[str, ...]:
    """The data's names of the genes in a user's file, in the file's order.

    Prints which names differ.

    Args:
        wanted: the file's names; names: the data's genes with counts; source: path of the file.
        ids: the data's Ensembl ids by name, where known.
        orthologs: where the file's genes are of another species, those with a one-to-one ortholog
            are taken, and the others are left out and named.
    Raises:
        InputError: a gene that the data do not have, with the nearest names of the first few; an
            ambiguous gene; or genes of another species without `orthologs`.
    """
    match = by_name(names, wanted, ids=ids)
    theirs, own = species.of_genes(wanted), species.of_genes(names, ids)
    file = f"gene file {source!r}"
    if match.unmatched and species.refuse_other(
        theirs, own, asked=file, source="the training sections", orthologs=orthologs
    ):
        match = by_ortholog(names, wanted, of=(theirs.name, own.name), ids=ids)
        if not match.matched:
            raise InputError(f"{file}: none of {len(wanted)} genes has one ortholog in the data")
        say(f"{file}, {theirs.name} genes by their orthologs in {own.name}: {match.line()}.")
        lacking = [name for name in wanted if name not in match.matched]
        if lacking:
            say(f"{file}: left out without one ortholog in the data: {named(lacking, 20)}.")
        return tuple(match.matched.values())
    if match.unmatched:
        known = sorted(names)
        guesses = {gene: nearest_names(gene, known) for gene in match.unmatched[:3]}
        hints = [f"nearest to {gene!r}: {named(near)}" for gene, near in guesses.items() if near]
        raise InputError(
            f"{file}: {len(match.unmatched)} of {len(wanted)} genes have no counts "
            f"in the training sections: {named(match.unmatched)}; "
            + ("; ".join(hints) or f"the data's names look like {named(known, 3)}")
        )
    if match.ambiguous:
        first, names_of = next(iter(match.ambiguous.items()))
        raise InputError(
            f"{file}: {len(match.ambiguous)} of {len(wanted)} genes are ambiguous "
            f"(first: {first!r}, which may be {' or '.join(map(repr, names_of))} of the data); "
            "write the data's names, each gene once"
        )
    if match.renamed:
        say(f"{file}: {match.line()}.")
    return tuple(match.matched.values())


def symbols(names: Sequence[str]) -> list[str | None]:
    """The approved symbol of every name; None where it is unknown or means several genes."""
    table = _table(names)
    meanings = (table.genes(name) for name in names)
    return [
        genes[0] if len(genes) == 1 and genes[0] in table.approved else None for genes in meanings
    ]


def same_genes(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Genes that `names` holds under two or more names: gene -> its names.

    Aliases do not count: many are shared by different genes, or are another gene's symbol.
    """
    names_of: dict[str, list[str]] = {}
    table = _table(names)
    for name in dict.fromkeys(names):
        genes = table.genes(name)
        if len(genes) == 1 and (name in table.approved or nomenclature.is_ensembl(name)):
            names_of.setdefault(genes[0], []).append(name)
    return {gene: tuple(own) for gene, own in names_of.items() if len(own) > 1}


def suggestions(name: str, known: Sequence[str]) -> list[str]:
    """What a user who wrote `name` may have meant: the same gene, else the most similar names.

    Args:
        known: names to choose from.
    """
    match = by_name(known, [name])
    same = [*match.matched.values(), *(own for names in match.ambiguous.values() for own in names)]
    return same[:3] or nearest_names(name, known)


def _meant(table: GeneTable, name: str, identifier: str) -> tuple[str, ...]:
    """Genes that a name may mean, given its Ensembl id ("" where there is none)."""
    by_name, ensembl = table.genes(name), bare_ensembl(identifier)
    if not ensembl:
        return by_name
    return table.of_ensembl.get(ensembl) or by_name or (ensembl,)


def _table(names: Collection[str], ids: Mapping[str, str] | None = None) -> GeneTable:
    """The table of the species of some names; human's where the species is not recognised."""
    name = species.of_genes(names, ids).name
    return nomenclature.table_of(name if name in nomenclature.FILES else "human")


def _id(name: str, ids: Mapping[str, str] | None) -> str:
    """A gene's id: of `ids`, or its name where that is an Ensembl id; "" without one."""
    gene_id = (ids or {}).get(name, "")
    return bare_ensembl(gene_id) or gene_id or bare_ensembl(name)

"""One name for one gene in all sections of a data set, told by its id wherever there are ids.

Whatever joins sections later does so by name; after this, equal names are equal genes:

* a gene with an id has one name: its name in the first section that has one;
* a name that stands for several ids anywhere is nobody's: each of its genes is called by its id;
* a gene without an id in one section gets the id that its name has in others; where its name stands
  for several there, or twice in its own section, nothing tells which gene it is: it is left out.

Ensembl ids are ids everywhere; other ids are, where no section has Ensembl's.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from histospace_tf.data_pipelines.counts import unmeasured
from histospace_tf.data_pipelines.genes import gene_names
from histospace_tf.vocabulary import Problem, Section, named

_NUMBERED = re.compile(r"(.+)([-.])\d{1,2}")  # scanpy's TBCE-1, and TBCE.1 of R


def aligned(
    sections: Sequence[Section], *, absent_is_zero: bool
) -> tuple[tuple[Section, ...], list[Problem]]:
    """The sections with one name per gene, and a word on every gene that is renamed or left out.

    Genes that a section very probably did not measure are taken out of its table (`unmeasured`),
    unless `absent_is_zero`: then all tables are of one release, whose names stay as they are.
    """
    names = [
        list(section.spots.genes) if absent_is_zero else _own_names(section.spots.genes)
        for section in sections
    ]
    ids = _ids(sections)
    ids_of_name: dict[str, dict[str, None]] = {}
    for own_names, own_ids in zip(names, ids, strict=True):
        for name, identifier in zip(own_names, own_ids, strict=True):
            if identifier:
                ids_of_name.setdefault(name, {})[identifier] = None
    shown = _shown(names, ids, ids_of_name)
    problems = _shared_names(ids_of_name, shown)
    done = []
    for section, own_names, own_ids in zip(sections, names, ids, strict=True):
        found, more = _renamed(section, own_names, own_ids, ids_of_name, shown)
        done.append(found)
        problems += more
    if absent_is_zero:
        return tuple(done), problems
    measured, more = unmeasured.without_unmeasured(done)
    return measured, [*problems, *more]


def _own_names(genes: Sequence[str]) -> list[str]:
    """Names before they were made unique: "TBCE-1", or R's "TBCE.1", is "TBCE" where that is there.

    A symbol of its own is none of these (IGHV1-69-2 beside IGHV1-69).
    """
    every = set(genes)
    numbered = {
        gene: match[1]
        for gene in genes
        if (match := _NUMBERED.fullmatch(gene)) and {match[1], f"{match[1]}{match[2]}1"} <= every
    }
    symbols = dict(zip(numbered, gene_names.symbols(list(numbered)), strict=True))
    return [
        gene if gene not in numbered or symbols[gene] == gene else numbered[gene] for gene in genes
    ]


def _ids(sections: Sequence[Section]) -> list[list[str]]:
    """Every section's ids, "" for a gene without one."""
    ids = [list(s.spots.gene_ids) or [""] * len(s.spots.genes) for s in sections]
    if any(gene_names.is_ensembl(one) for own in ids for one in own):
        return [[one if gene_names.is_ensembl(one) else "" for one in own] for own in ids]
    every = {one for own in ids for one in own if one}
    return [  # a section may have another one's ids as its names
        [
            one or (gene if gene in every else "")
            for one, gene in zip(own, s.spots.genes, strict=True)
        ]
        for s, own in zip(sections, ids, strict=True)
    ]


def _shown(
    names: Sequence[Sequence[str]],
    ids: Sequence[Sequence[str]],
    ids_of_name: Mapping[str, Mapping[str, None]],
) -> dict[str, str]:
    """Id -> the name that it is shown under."""
    shown: dict[str, str] = {}
    for own_names, own_ids in zip(names, ids, strict=True):
        for name, identifier in zip(own_names, own_ids, strict=True):
            if identifier and name != identifier:
                shown.setdefault(identifier, name)
    taken = {name: len(of_name) for name, of_name in ids_of_name.items()}
    return {one: name if taken[name] == 1 else one for one, name in shown.items()}


def _shared_names(
    ids_of_name: Mapping[str, Mapping[str, None]], shown: Mapping[str, str]
) -> list[Problem]:
    several = {name: list(ids) for name, ids in ids_of_name.items() if len(ids) > 1}
    if not several:
        return []
    pairs = [
        f"{name}: {' and '.join(shown.get(i, i) for i in ids)}" for name, ids in several.items()
    ]
    return [
        Problem(
            "note",
            "genes",
            f"{len(several)} gene name(s) stand for several ids ({named(pairs, 3)}): each is a "
            "gene of its own, called by its id or by the name that it alone has.",
        )
    ]


def _renamed(
    section: Section,
    own_names: Sequence[str],
    own_ids: Sequence[str],
    ids_of_name: Mapping[str, Mapping[str, None]],
    shown: Mapping[str, str],
) -> tuple[Section, list[Problem]]:
    """A section with the cohort's names and ids."""
    times, taken = Counter(own_names), set(own_ids)
    genes, ids, kept, lost, others = [], [], [], [], []
    for at, (name, identifier) in enumerate(zip(own_names, own_ids, strict=True)):
        if not identifier:
            known = list(ids_of_name.get(name, ()))
            if times[name] > 1 or len(known) > 1 or taken.intersection(known):
                lost.append(section.spots.genes[at])
                continue
            identifier = known[0] if known else ""
        new = shown.get(identifier, identifier) if identifier else name
        if new != name and new != identifier:
            others.append(f"{name}, here {new}")
        genes.append(new)
        ids.append(identifier)
        kept.append(at)
    problems = []
    where = f"section {section.name}"
    if others:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(others)} genes have other names in this section ({named(others, 3)}): told "
                "by their ids, and called as in the first section that names them.",
            )
        )
    if lost:
        problems.append(
            Problem(
                "warning",
                where,
                f"{len(lost)} genes have no id, and a name that several genes have "
                f"({named(lost, 3)}): left out.",
                "Write Ensembl ids beside the names (in an .h5ad: var['gene_ids']).",
            )
        )
    spots = section.spots
    gene_ids = tuple(ids) if any(ids) else ()
    if tuple(genes) == spots.genes and gene_ids == spots.gene_ids:
        return section, problems
    spots = dataclasses.replace(
        spots,
        genes=tuple(genes),
        gene_ids=gene_ids,
        counts=spots.counts[:, kept] if lost else spots.counts,
    )
    return dataclasses.replace(section, spots=spots), problems

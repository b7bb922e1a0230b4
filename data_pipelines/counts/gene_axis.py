"""One name for one gene in all sections of a data set, and no genes that a section did not measure.

Whatever joins sections later does so by name; after this, equal names are equal genes:

* a gene with an id has one name: its name in the first section that has one;
* a name that stands for several ids anywhere is not used: each of its genes is called by its id;
* a gene without an id in one section gets the id that its name has in others; where its name stands
  for several there, or twice in its own section, the gene is unknown and is left out.

Ensembl ids are ids everywhere; other ids are, where no section has Ensembl's.

Genes that are zero all over one section and common in the others are very probably not measured
there. Tables joined with zeros for what they lack (anndata.concat(join="outer", fill_value=0)) and
other probe sets or panels lead to this. The rule: if a gene were as common as in the other section
that has least of it, the section's depth would give it at least 20 counts (Poisson: the chance of
all zeros is 2e-9). Such genes are taken for unmeasured where they are at least 1 % of all genes
that are so common, or where at least half of the spots of every other section with counts have
some. Otherwise they may be silent there: they are named and kept, as are genes that only one sex
has.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from histospace_tf.data_pipelines.genes import matching, nomenclature
from histospace_tf.vocabulary import Problem, Section, named

_NUMBERED = re.compile(r"(.+)([-.])\d{1,2}")  # scanpy's TBCE-1, and TBCE.1 of R
_EXPECTED = 20.0
_FEW = 0.01
_BROAD = 0.5
_OF_ONE_SEX = re.compile(
    r"XIST|TSIX|RPS4Y[12]|EIF1AY|EIF2S3Y|DDX3Y|UTY|KDM5D|USP9Y|ZFY|TXLNGY|NLGN4Y|TMSB4Y|PRKY"
    r"|TTTY1[45]|LINC00278",
    re.IGNORECASE,  # of the mouse, too
)


def aligned(
    sections: Sequence[Section], *, absent_is_zero: bool
) -> tuple[tuple[Section, ...], list[Problem]]:
    """Gives every gene one name in all sections, and names those that are renamed or left out.

    Args:
        sections: as they were read.
        absent_is_zero: all tables are of one release, which leaves out genes without counts. Their
            names stay as they are, and no gene is taken for unmeasured.
    Returns:
        The sections, without genes that they very probably did not measure; and problems.
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
        renamed, more = _renamed(section, own_names, own_ids, ids_of_name, shown)
        done.append(renamed)
        problems += more
    if absent_is_zero:
        return tuple(done), problems
    measured, more = without_unmeasured(done)
    return measured, [*problems, *more]


def _own_names(genes: Sequence[str]) -> list[str]:
    """Names before they were made unique: "TBCE-1", or R's "TBCE.1", is "TBCE" beside a "TBCE".

    A symbol of its own is none of these (IGHV1-69-2 beside IGHV1-69).
    """
    all_names = set(genes)
    numbered = {
        gene: match[1]
        for gene in genes
        if (match := _NUMBERED.fullmatch(gene))
        and {match[1], f"{match[1]}{match[2]}1"} <= all_names
    }
    symbols = dict(zip(numbered, matching.symbols(list(numbered)), strict=True))
    return [
        gene if gene not in numbered or symbols[gene] == gene else numbered[gene] for gene in genes
    ]


def _ids(sections: Sequence[Section]) -> list[list[str]]:
    """Ids of every section's genes, "" for a gene without one."""
    ids = [list(s.spots.gene_ids) or [""] * len(s.spots.genes) for s in sections]
    if any(nomenclature.is_ensembl(gene_id) for own in ids for gene_id in own):
        return [
            [gene_id if nomenclature.is_ensembl(gene_id) else "" for gene_id in own] for own in ids
        ]
    all_ids = {gene_id for own in ids for gene_id in own if gene_id}
    return [  # a section may have another one's ids as its names
        [
            gene_id or (gene if gene in all_ids else "")
            for gene_id, gene in zip(own, s.spots.genes, strict=True)
        ]
        for s, own in zip(sections, ids, strict=True)
    ]


def _shown(
    names: Sequence[Sequence[str]],
    ids: Sequence[Sequence[str]],
    ids_of_name: Mapping[str, Mapping[str, None]],
) -> dict[str, str]:
    """Display names by id."""
    shown: dict[str, str] = {}
    for own_names, own_ids in zip(names, ids, strict=True):
        for name, identifier in zip(own_names, own_ids, strict=True):
            if identifier and name != identifier:
                shown.setdefault(identifier, name)
    taken = {name: len(of_name) for name, of_name in ids_of_name.items()}
    return {gene_id: name if taken[name] == 1 else gene_id for gene_id, name in shown.items()}


def _shared_names(
    ids_of_name: Mapping[str, Mapping[str, None]], shown: Mapping[str, str]
) -> list[Problem]:
    """A note on names that stand for several ids."""
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
    """Gives a section the cohort's names and ids."""
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


def without_unmeasured(sections: Sequence[Section]) -> tuple[tuple[Section, ...], list[Problem]]:
    """Removes columns of zeros that were very probably not measured, by the module's rule."""
    genes = {gene: None for section in sections for gene in section.spots.genes}
    at = {gene: row for row, gene in enumerate(genes)}
    shape = (len(sections), len(at))
    totals, shares, listed = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    for row, section in enumerate(sections):
        spots = section.spots
        columns = [at[gene] for gene in spots.genes]
        listed[row, columns] = True
        totals[row, columns] = np.asarray(spots.counts.sum(axis=0, dtype=np.float64)).ravel()
        shares[row, columns] = spots.counts.getnnz(axis=0) / max(1, len(spots))
    library = totals.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.where(totals > 0, totals / library, np.inf)
    broad = np.where(totals > 0, shares, np.inf)
    measured, problems = [], []
    for row, section in enumerate(sections):
        others = np.arange(len(sections)) != row
        lowest = rates[others].min(axis=0, initial=np.inf)
        expected = np.where(np.isfinite(lowest), lowest, 0) * library[row]
        common = listed[row] & (expected >= _EXPECTED)
        zero = common & (totals[row] == 0)
        of_one_sex = np.array([_OF_ONE_SEX.fullmatch(gene) is not None for gene in at], bool)
        out = zero & ~of_one_sex
        if out.sum() < _FEW * common.sum():
            out &= broad[others].min(axis=0, initial=np.inf) >= _BROAD
        names = list(at)
        if out.any():
            most = int(np.argmax(np.where(out, expected, 0)))
            lacking = [names[i] for i in np.flatnonzero(out)]
            problems.append(
                Problem(
                    "warning",
                    f"section {section.name}",
                    f"{len(lacking)} genes that are common in other sections are zero in all of "
                    f"its {len(section.spots)} spots ({named(lacking, 5)}; {expected[most]:,.0f} "
                    f"counts of {names[most]!r} would be expected): very probably not measured "
                    "there, and taken so.",
                    "Leave a gene out of a section's table where it was not measured.",
                )
            )
            kept = [gene for gene in section.spots.genes if not out[at[gene]]]
            section = dataclasses.replace(section, spots=section.spots.with_genes(set(kept)))
        silent = [names[i] for i in np.flatnonzero(zero & ~out)]
        if silent:
            problems.append(
                Problem(
                    "note",
                    f"section {section.name}",
                    f"{len(silent)} genes that other sections have are zero in all of its spots "
                    f"({named(silent, 5)}): too few to be another gene list, kept as zero.",
                )
            )
        measured.append(section)
    return tuple(measured), problems

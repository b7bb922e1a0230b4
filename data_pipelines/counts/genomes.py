"""Genes of several genomes in one matrix, as runs against two references give them.

A gene's genome is what the file states (`genome`), the reference's prefix of its name or id
("GRCh38_ERBB2", "mm10___Erbb2"), or the species of its Ensembl id (ENSG, ENSMUSG): the first of
these that tells more than one genome apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from histospace_tf.vocabulary import InputError, Problem, named

_MAJORITY = 0.75  # of all counts: a genome that has less is not taken in silence of the others
_PREFIX = re.compile(
    r"(GRCh3[78]|hg19|hg38|GRCm3[89]|mm9|mm10|mm39|mRatBN7|Rnor_6\.0|Rnor|rn[67]|GRCz1[01]|Sscrofa11"
    r"|ROS_Cfam_1|CanFam3|human|mouse)(?:[.-][\w.-]*?)?_+(?=\S)",
    re.IGNORECASE,
)
_SPECIES = re.compile(r"(ENS[A-Z]*G)\d{11}")


def one_genome(
    where: str,
    counts_from: str,
    names: Sequence[str],
    ids: Sequence[str],
    genomes: Sequence[str],
    totals: np.ndarray,
) -> tuple[np.ndarray, list[str], list[str], list[Problem]]:
    """The columns of the genome that has most counts, and names and ids without its prefix.

    Columns that belong to no genome (a reporter gene) stay.

    Args:
        names, ids, genomes: n texts each, "" where a file has none; totals: (n,) counts of each.
    Returns:
        (n,) bool; n names and n ids, prefixes taken off; problems.
    Raises:
        InputError: several genomes, and none has three quarters of the counts.
    """
    genome_of, problems = _labels(names, ids, genomes), []
    bare = [_without_prefix(name, genome) for name, genome in zip(names, genomes, strict=True)]
    bare_ids = [_without_prefix(one, genome) for one, genome in zip(ids, genomes, strict=True)]
    kinds = sorted({genome for genome in genome_of if genome})
    kept = np.ones(len(names), bool)
    if len(kinds) > 1:
        of_genome = np.array(genome_of)
        counts = {kind: float(totals[of_genome == kind].sum()) for kind in kinds}
        every = sum(counts.values())
        kinds.sort(key=lambda kind: -counts[kind])
        said = ", ".join(
            f"{kind} ({(of_genome == kind).sum()} genes, {counts[kind]:,.0f} counts, "
            f"{100 * counts[kind] / every if every else 0:.3g} %)"
            for kind in kinds
        )
        if every and counts[kinds[0]] < _MAJORITY * every:
            example = next(n for n, kind in zip(names, genome_of, strict=True) if kind == kinds[0])
            raise InputError(
                f"{counts_from!r} holds genes of {len(kinds)} genomes, {said}, and none has "
                f"{_MAJORITY:.0%} of the counts: which one is meant is not guessed. Write a matrix "
                f"of one genome's genes alone, such as those of {kinds[0]} ({example!r} is one)"
            )
        kept = (of_genome == kinds[0]) | (of_genome == "")
        problems.append(
            Problem(
                "warning",
                where,
                f"genes of {len(kinds)} genomes: {said}. Those of {kinds[0]} are read; the "
                f"{(~kept).sum()} others are left out, also from the library size.",
                f"For {named(kinds[1:], 3)}, write a matrix of its genes alone.",
            )
        )
    changed = [n for n, b, k in zip(names, bare, kept, strict=True) if n != b and k]
    if changed:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(changed)} names begin with their genome ({named(changed, 2)}): shown "
                "without it.",
            )
        )
    return kept, bare, bare_ids, problems


def _labels(names: Sequence[str], ids: Sequence[str], genomes: Sequence[str]) -> list[str]:
    """The genome of every gene, "" where nothing tells; all of them "" where there is one alone."""
    prefixes = [_prefix(name) or _prefix(one) for name, one in zip(names, ids, strict=True)]
    species = [_species(one) or _species(name) for name, one in zip(names, ids, strict=True)]
    if len(set(genomes) - {""}) > 1 and not _of_one_species(genomes, species):
        return list(genomes)
    for labels in (prefixes, species):
        if len(set(labels) - {""}) > 1:
            return labels
    return [""] * len(names)


def _of_one_species(genomes: Sequence[str], species: Sequence[str]) -> bool:
    """Whether genomes are names of one species' references: its Ensembl ids prevail in each."""
    prevailing = {
        Counter(s for g, s in zip(genomes, species, strict=True) if g == genome).most_common(1)[0][
            0
        ]
        for genome in set(genomes) - {""}
    }
    return len(prevailing) == 1 and "" not in prevailing


def _prefix(name: str) -> str:
    match = _PREFIX.match(name)
    return match[1] if match else ""


def _species(name: str) -> str:
    match = _SPECIES.match(_PREFIX.sub("", name, count=1))
    return match[1] if match else ""


def _without_prefix(name: str, genome: str) -> str:
    if genome and re.match(re.escape(genome) + r"_+\S", name):
        return name[len(genome) :].lstrip("_")
    match = _PREFIX.match(name)
    return name[match.end() :] if match else name

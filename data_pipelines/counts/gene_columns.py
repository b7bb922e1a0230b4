"""Which columns of a matrix are read: those of genes, and of one genome.

Types are those of 10x Genomics ("Gene Expression", "Antibody Capture", "Negative Control Probe",
"Blank Codeword", ...) or biotypes ("protein_coding", "spike-in"). Names are checked whatever the
types say: no gene is called BLANK_0006 or ERCC-00002.

A gene's genome is what the file states (`genome`), the reference's prefix of its name or id
("GRCh38_ERBB2", "mm10___Erbb2"), or the species of its Ensembl id (ENSG, ENSMUSG): the first of
these that distinguishes more than one genome. Runs against two references give such matrices.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from histospace_tf.vocabulary import InputError, Problem, named

_EXPRESSION = "gene expression"
_GENES = {_EXPRESSION, "gene", "genes", "gex", "rna", "mrna", "protein coding"}
_NO_GENES = re.compile(
    r"antibod|antigen|\bprotein|\badt\b|hashtag|\bhto\b|multiplex|crispr|guide|custom|control"
    r"|codeword|blank|negative|unassigned|deprecated|spike|\bercc\b|synthetic|peak|chromatin|\bvdj\b"
)
_CONTROLS = re.compile(
    r"neg(ative)?[ _-]?(ctrl|control).*|negprb.*|negative[_-]?\d+"  # Xenium, CosMx
    r"|systemcontrol\d+|falsecode\d+|blank[_-]?\d+"  # CosMx, MERSCOPE
    r"|(unassigned|deprecated)(codeword)?[_-].*|antisense_.*|intergenic_region_.*"  # Xenium, Visium
    r"|ercc[_-]?\d{5}|sirv\d{3,}"  # spike-ins
    r"|__.*|n_(unmapped|multimapping|nofeature|ambiguous)",  # HTSeq's and STAR's remainders
    re.IGNORECASE,
)
_MAJORITY = 0.75  # of all counts: a genome that has less is not taken in silence of the others
_PREFIX = re.compile(
    r"(GRCh3[78]|hg19|hg38|GRCm3[89]|mm9|mm10|mm39|mRatBN7|Rnor_6\.0|Rnor|rn[67]|GRCz1[01]|Sscrofa11"
    r"|ROS_Cfam_1|CanFam3|human|mouse)(?:[.-][\w.-]*?)?_+(?=\S)",
    re.IGNORECASE,
)
_SPECIES = re.compile(r"(ENS[A-Z]*G)\d{11}")


def of_genes(
    where: str,
    counts_from: str,
    names: Sequence[str],
    ids: Sequence[str],
    kinds: Sequence[str],
    totals: np.ndarray,
) -> tuple[np.ndarray, list[Problem]]:
    """Finds the columns that are genes; the others are named in problems.

    Args:
        where: the section, for problems; counts_from: the file or layer, for messages.
        names, ids, kinds: n texts each, "" where a file has none.
        totals: (n,) counts of each column.
    Returns:
        (n,) bool: which columns are genes; and problems.
    Raises:
        InputError: none of them is a gene.
    """
    is_stated = any(_plain(kind) == _EXPRESSION for kind in kinds)
    by_kind = np.array([_is_gene(kind, is_stated) for kind in kinds], bool)
    is_control = np.array(
        [
            _CONTROLS.fullmatch(name) is not None or _CONTROLS.fullmatch(gene_id) is not None
            for name, gene_id in zip(names, ids, strict=True)
        ],
        bool,
    )
    problems = []
    if not by_kind.all():
        others = [kind for kind, is_gene in zip(kinds, by_kind, strict=True) if not is_gene]
        counted = [f"{kind}: {others.count(kind)}" for kind in dict.fromkeys(others)]
        problems.append(
            Problem(
                "note",
                where,
                f"{len(others)} of {len(kinds)} features are no genes ({', '.join(counted)}; "
                f"{_share(totals, ~by_kind)} of all counts): left out, also from the library size.",
            )
        )
    by_name = by_kind & is_control
    if by_name.any():
        controls = [name for name, is_one in zip(names, by_name, strict=True) if is_one]
        problems.append(
            Problem(
                "warning",
                where,
                f"{len(controls)} of {len(names)} features have names of controls, not of genes "
                f"({named(controls, 3)}; {_share(totals, by_name)} of all counts): left out, also "
                "of the library size.",
            )
        )
    unnamed = by_kind & np.array([not n and not i for n, i in zip(names, ids, strict=True)], bool)
    if unnamed.any():
        problems.append(
            Problem(
                "warning",
                where,
                f"{unnamed.sum()} of {len(names)} features have neither a name nor an id (first: "
                f"number {int(np.argmax(unnamed)) + 1}; {_share(totals, unnamed)} of all counts): "
                "left out, also from the library size.",
            )
        )
    kept = by_kind & ~is_control & ~unnamed
    if not kept.any():
        raise InputError(
            f"{counts_from!r} holds no gene expression: none of its {len(names)} features is a "
            f"gene (first: {names[0]!r}; types: {named(sorted(set(kinds)), 3)})"
            if len(names)
            else f"{counts_from!r} holds no genes"
        )
    return kept, problems


def _plain(kind: str) -> str:
    return re.sub(r"[\s_-]+", " ", kind).strip().casefold()


def _is_gene(kind: str, is_stated: bool) -> bool:
    """Whether features of a type are genes; `is_stated`: some are of type "Gene Expression".

    Where none is, a type that is not known here is taken for a biotype.
    """
    plain = _plain(kind)
    if not plain or plain in _GENES:
        return True
    return not is_stated and _NO_GENES.search(plain) is None


def _share(totals: np.ndarray, columns: np.ndarray) -> str:
    """Share of all counts in some columns, for a sentence."""
    total = np.nansum(totals)
    return f"{100 * np.nansum(totals[columns]) / total:.2g} %" if total > 0 else "none"


def of_one_genome(
    where: str,
    counts_from: str,
    names: Sequence[str],
    ids: Sequence[str],
    genomes: Sequence[str],
    totals: np.ndarray,
) -> tuple[np.ndarray, list[str], list[str], list[Problem]]:
    """Keeps the columns of the genome that has most counts, and removes its prefix from names.

    Columns that belong to no genome (a reporter gene) stay.

    Args:
        where: the section, for problems; counts_from: the file or layer, for messages.
        names, ids, genomes: n texts each, "" where a file has none; totals: (n,) counts of each.
    Returns:
        (n,) bool: which columns are kept; n names and n ids without prefixes; problems.
    Raises:
        InputError: several genomes, and none has three quarters of the counts.
    """
    genome_of, problems = _labels(names, ids, genomes), []
    bare = [_without_prefix(name, genome) for name, genome in zip(names, genomes, strict=True)]
    bare_ids = [
        _without_prefix(gene_id, genome) for gene_id, genome in zip(ids, genomes, strict=True)
    ]
    kinds = sorted({genome for genome in genome_of if genome})
    kept = np.ones(len(names), bool)
    if len(kinds) > 1:
        of_genome = np.array(genome_of)
        counts = {kind: float(totals[of_genome == kind].sum()) for kind in kinds}
        total = sum(counts.values())
        kinds.sort(key=lambda kind: -counts[kind])
        shares = ", ".join(
            f"{kind} ({(of_genome == kind).sum()} genes, {counts[kind]:,.0f} counts, "
            f"{100 * counts[kind] / total if total else 0:.3g} %)"
            for kind in kinds
        )
        if total and counts[kinds[0]] < _MAJORITY * total:
            example = next(n for n, kind in zip(names, genome_of, strict=True) if kind == kinds[0])
            raise InputError(
                f"{counts_from!r} holds genes of {len(kinds)} genomes, {shares}, and none has "
                f"{_MAJORITY:.0%} of the counts: which one is meant is not guessed. Write a matrix "
                f"of one genome's genes alone, such as those of {kinds[0]} ({example!r} is one)"
            )
        kept = (of_genome == kinds[0]) | (of_genome == "")
        problems.append(
            Problem(
                "warning",
                where,
                f"genes of {len(kinds)} genomes: {shares}. Those of {kinds[0]} are read; the "
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
    """The genome of every gene, "" where it is unknown; all are "" where there is only one."""
    prefixes = [_prefix(name) or _prefix(gene_id) for name, gene_id in zip(names, ids, strict=True)]
    species = [
        _species(gene_id) or _species(name) for name, gene_id in zip(names, ids, strict=True)
    ]
    if len(set(genomes) - {""}) > 1 and not _of_one_species(genomes, species):
        return list(genomes)
    for labels in (prefixes, species):
        if len(set(labels) - {""}) > 1:
            return labels
    return [""] * len(names)


def _of_one_species(genomes: Sequence[str], species: Sequence[str]) -> bool:
    """Whether genomes are references of one species: the same Ensembl ids prevail in each."""
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

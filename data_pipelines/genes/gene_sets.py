"""Gene sets: read from GMT files, and matched with the genes of a panel.

A GMT file has one set per line, separated by tabs: name, description, genes. Source: Broad
Institute, GSEA user guide, "Gene Matrix Transposed file format".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from histospace_tf.data_pipelines import text_files
from histospace_tf.data_pipelines.genes import matching, nomenclature, species
from histospace_tf.vocabulary import InputError, named

# Of a set in the panel: fewer are no set's score but a few genes'. decoupler's `tmin` is 5, too.
LEAST_GENES = 5
_WEIGHTED = re.compile(r"(.+),[0-9.eE+-]+")  # GENE,1.0, as Enrichr's older libraries have it
_FORM = "a GMT has one set per line, separated by tabs: name, description, genes"


@dataclasses.dataclass(frozen=True)
class GeneSet:
    """A set as a file has it. genes: each once, in the file's order."""

    name: str
    genes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GeneSets:
    """The sets of one or several files. notes: what a user should know of the files, a line each.

    source: the files, for messages.
    """

    sets: tuple[GeneSet, ...]
    notes: tuple[str, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class MatchedSet:
    """A set and the genes of a panel that are in it.

    size: how many genes the file names. genes: the panel's names of those that it has, in the
    panel's order. missing: the file's names of the others.
    """

    name: str
    size: int
    genes: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_scored(self) -> bool:
        return len(self.genes) >= LEAST_GENES


@dataclasses.dataclass(frozen=True)
class MatchedSets:
    """All sets on one panel. notes: what a user should know, a line each, those of files first."""

    sets: tuple[MatchedSet, ...]
    notes: tuple[str, ...]

    @property
    def scored(self) -> tuple[MatchedSet, ...]:
        """Those with LEAST_GENES in the panel or more."""
        return tuple(one for one in self.sets if one.is_scored)


def read(paths: Sequence[Path]) -> GeneSets:
    """Reads the sets of GMT files, in order.

    A set that comes twice with the same genes is taken once, with a note. A "/" in a name becomes
    "_", for no column of an .h5ad can have it.

    Raises:
        InputError: a file is missing, no text or no GMT, or names genes by numbers; two sets of one
            name have other genes.
    """
    known: dict[str, tuple[GeneSet, str]] = {}
    notes: list[str] = []
    for path in paths:
        where = f"gene sets {str(path)!r}"
        text = text_files.read_lines(path, "gene sets")
        notes += [f"{where}: {text.note}."] if text.note else []
        twice, empty = [], []
        lines = [(at, line) for at, line in enumerate(text.lines, 1) if line.strip()]
        read_here = [_set_of(line, f"{where}, line {at}") for at, line in lines]
        for (at, _), one in zip(lines, read_here, strict=True):
            before, place = known.setdefault(one.name, (one, f"{where}, line {at}"))
            if set(before.genes) != set(one.genes):
                raise InputError(
                    f"{where}, line {at}: set {one.name!r} has other genes than the set of that "
                    f"name in {place}; give one of them another name"
                )
            if place != f"{where}, line {at}":
                twice.append(one.name)
            elif not one.genes:
                empty.append(one.name)
        if not lines:
            raise InputError(f"{where} holds no set; {_FORM}")
        if twice:
            notes.append(f"{where}: taken once, for they come twice: {named(twice)}.")
        if empty:
            notes.append(f"{where}: without any gene: {named(empty)}.")
        _refuse_numbers(where, read_here)
    return GeneSets(
        tuple(one for one, _ in known.values()),
        tuple(notes),
        f"gene sets {named([str(path) for path in paths], 3)}",
    )


def on_panel(
    sets: GeneSets, panel: Sequence[str], *, ids: Mapping[str, str] | None = None
) -> MatchedSets:
    """Finds the sets' genes in a panel, by `matching.by_name`, and else without regard to capitals.

    Args:
        sets: of `read`.
        panel: names of the genes that are predicted; ids: their Ensembl ids by name, where known.
    Raises:
        InputError: the sets are of another species than the panel, or none has LEAST_GENES in it.
    """
    wanted = list(dict.fromkeys(gene for one in sets.sets for gene in one.genes))
    theirs, own = species.of_genes(wanted), species.of_genes(panel, ids)
    if theirs.is_known and own.is_known and theirs.name != own.name:
        raise InputError(
            f"{sets.source}: {theirs}, and the panel has {own}; sets of {own.name} genes are "
            "needed (MSigDB has its collections for human and mouse)"
        )
    name_of = _names_of(wanted, panel, ids)
    by_capitals = _by_capitals([gene for gene in wanted if gene not in name_of], panel)
    name_of |= by_capitals
    place = {gene: at for at, gene in enumerate(panel)}
    matched = [
        MatchedSet(
            one.name,
            len(one.genes),
            tuple(sorted({name_of[g] for g in one.genes if g in name_of}, key=place.__getitem__)),
            tuple(gene for gene in one.genes if gene not in name_of),
        )
        for one in sets.sets
    ]
    if not any(one.is_scored for one in matched):
        best = max(matched, key=lambda one: len(one.genes))
        raise InputError(
            f"{sets.source}: none of {len(matched)} set(s) has {LEAST_GENES} genes among the "
            f"{len(panel)} of the panel (the fullest, {best.name!r}: {len(best.genes)} of "
            f"{best.size}); sets name genes like {named(wanted, 3)}, the panel {named(panel, 3)}. "
            "A larger panel (`genes`) holds more"
        )
    notes = [*sets.notes, _counted(sets, matched, panel)]
    if by_capitals:
        pairs = [f"{gene} = {name}" for gene, name in by_capitals.items()]
        notes.append(f"{sets.source}: matched but for capitals: {named(pairs, 3)}.")
    notes += _unknown(sets, [gene for gene in wanted if gene not in name_of], own.name)
    few = [one for one in matched if not one.is_scored]
    if few:
        each = [f"{one.name} ({len(one.genes)} of {one.size})" for one in few]
        notes.append(
            f"{sets.source}: left out, with fewer than {LEAST_GENES} genes in the panel: "
            f"{named(each, 3)}."
        )
    return MatchedSets(tuple(matched), tuple(notes))


def _set_of(line: str, where: str) -> GeneSet:
    cells = [cell.strip().strip('"') for cell in line.split("\t")]
    if len(cells) < 2:
        raise InputError(f"{where}: {line.strip()[:40]!r} has no tab; {_FORM}")
    if not cells[0]:
        raise InputError(f"{where}: the set has no name; {_FORM}")
    genes = [match[1] if (match := _WEIGHTED.fullmatch(cell)) else cell for cell in cells[2:]]
    return GeneSet(cells[0].replace("/", "_"), tuple(dict.fromkeys(gene for gene in genes if gene)))


def _refuse_numbers(where: str, sets: Sequence[GeneSet]) -> None:
    genes = [gene for one in sets for gene in one.genes]
    if genes and all(gene.isdigit() for gene in genes):
        raise InputError(
            f"{where} names genes by numbers, such as {genes[0]!r}, as Entrez' ids are; take the "
            "file with symbols or Ensembl ids"
        )


def _names_of(
    wanted: Sequence[str], panel: Sequence[str], ids: Mapping[str, str] | None
) -> dict[str, str]:
    """The sets' name of a gene -> the panel's; several names may mean one gene."""
    match = matching.by_name(panel, wanted, ids=ids)
    name_of = dict(match.matched)
    for gene, own in match.ambiguous.items():
        if len(own) == 1:  # two sets may write one gene in two ways
            name_of |= matching.by_name(panel, [gene], ids=ids).matched
    return name_of


def _by_capitals(wanted: Sequence[str], panel: Sequence[str]) -> dict[str, str]:
    """Genes that the panel has in other capitals, where one alone fits."""
    spelt: dict[str, list[str]] = {}
    for gene in panel:
        spelt.setdefault(gene.upper(), []).append(gene)
    own = ((gene, spelt.get(gene.upper(), [])) for gene in wanted)
    return {gene: names[0] for gene, names in own if len(names) == 1}


def _counted(sets: GeneSets, matched: Sequence[MatchedSet], panel: Sequence[str]) -> str:
    of_panel = len({gene for one in matched for gene in one.genes})
    scored = sum(one.is_scored for one in matched)
    return (
        f"{sets.source}: {scored} of {len(matched)} set(s) are scored; {of_panel} of the panel's "
        f"{len(panel)} genes are in a set."
    )


def _unknown(sets: GeneSets, missing: Sequence[str], own: str) -> list[str]:
    """A note on names that are no genes of the panel's species, where its genes are known."""
    if own not in nomenclature.FILES:
        return []
    table = nomenclature.table_of(own)
    strange = [g for g in missing if not table.knows(g) and not nomenclature.is_ensembl(g)]
    if not strange:
        return []
    return [
        f"{sets.source}: {len(strange)} name(s) are no {own} genes known here: {named(strange)}."
    ]

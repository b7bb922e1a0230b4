"""Whether the genes of a cohort's sections are the same genes, and genes at all."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.data_pipelines.genes import matching, nomenclature, species
from histospace_tf.data_pipelines.genes.matching import GeneMatch
from histospace_tf.outputs import say
from histospace_tf.vocabulary import Cohort, InputError, Problem, Section, named

_MOST_NUMBERS = 0.25  # of the names
_MANY_RENAMED = 0.01  # of a section's genes; a few differ between any two annotations' merged genes
# What spreadsheets make of SEPT2, MARCH1 and DEC1.
_DATE = re.compile(r"\d{1,2}-(Mar|Sep|Dec)|(Mar|Sep|Dec)-\d{1,2}")


def mixed_kinds(sections: Sequence[Section]) -> Problem | None:
    """Ensembl ids in some sections and symbols alone in others: every gene would be two, half zero.

    Sections that have ids beside their symbols go with both.
    """
    ensembl: list[str] = []
    others: list[str] = []
    for section in sections:
        genes = section.spots.genes
        if 2 * sum(nomenclature.is_ensembl(gene) for gene in genes) > len(genes):
            ensembl.append(section.name)
        elif 2 * len(section.spots.id_of) <= len(genes):
            others.append(section.name)
    if not ensembl or not others:
        return None
    return Problem(
        "error",
        "genes",
        f"section {named(ensembl, 3)} names them by Ensembl ids, section {named(others, 3)} by "
        "symbols: no gene would have counts in both.",
        "Write one kind of names in all sections.",
    )


def on_shared_genes(cohort: Cohort) -> tuple[Cohort, Problem | None]:
    """The data on the genes that all sections with an image measure, and a word on the others.

    Where `cohort.absent_is_zero`, or nothing is left out, that is the data as they are. Library
    sizes then count the shared genes alone, so that sections compare.
    """
    measured = [set(s.spots.genes) for s in cohort.with_image() or cohort.sections]
    if cohort.absent_is_zero or not measured:
        return cohort, None
    shared, every = set.intersection(*measured), set.union(*measured)
    if shared == every:
        return cohort, None
    least = min(cohort.with_image() or cohort.sections, key=lambda s: len(s.spots.genes))
    said = (
        f"{len(every) - len(shared)} of {len(every)} genes "
        f"({named(sorted(every - shared), 3)}) are not in every section's table (the fewest, "
        f"{len(least.spots.genes)}, in {least.name}): not measured there, which is not zero"
    )
    if not shared:
        return cohort, Problem(
            "error", "genes", f"{said}. No gene is left.", "Are they of one species and one kind?"
        )
    sections = [dataclasses.replace(s, spots=s.spots.with_genes(shared)) for s in cohort.sections]
    return dataclasses.replace(cohort, sections=tuple(sections)), Problem(
        "warning",
        "genes",
        f"{said}. They are left out; {len(shared)} stay.",
        "Write tables of all genes, not of chosen ones.",
    )


def gene_problems(sections: Sequence[Section]) -> list[Problem]:
    """Everything that is wrong with the gene names of all sections together."""
    if not sections:
        return []
    mixed = mixed_kinds(sections)
    problems = [mixed] if mixed else []
    for section in sections:
        problems += _within(section)
    if not mixed:
        for section in sections[1:]:
            problems += _between(sections[0], section)
    every = list(dict.fromkeys(gene for s in sections for gene in s.spots.genes))
    numbers = [gene for gene in every if gene.isdigit()]
    if len(numbers) > _MOST_NUMBERS * len(every):
        problems.append(
            Problem(
                "warning",
                "genes",
                f"{len(numbers)} of {len(every)} names are numbers ({named(numbers, 3)}).",
                "Gene names seem to be lost; write Ensembl ids or symbols.",
            )
        )
    return problems


def _within(section: Section) -> list[Problem]:
    where, genes = f"section {section.name}", section.spots.genes
    problems = []
    ids = section.spots.id_of  # genes of several ids are several genes, whatever their names say
    twice = {
        gene: own
        for gene, own in matching.same_genes(genes).items()
        if not all(name in ids for name in own)
    }
    if twice:
        pairs = [f"{gene}: {' and '.join(own)}" for gene, own in twice.items()]
        problems.append(
            Problem(
                "warning",
                where,
                f"{len(twice)} gene(s) stand under two names ({named(pairs, 3)}): each is a gene "
                "of its own here.",
                "Add their counts up under one name.",
            )
        )
    dates = [gene for gene in genes if _DATE.fullmatch(gene)]
    if dates:
        problems.append(
            Problem(
                "warning",
                where,
                f"{len(dates)} gene name(s) are dates ({named(dates, 3)}): a spreadsheet changed "
                "them.",
                "Take the names from the original table (1-Mar was MARCH1, now MARCHF1).",
            )
        )
    return problems


def _between(first: Section, other: Section) -> list[Problem]:
    """Genes that two sections write in different ways."""
    theirs, ours = set(other.spots.genes), set(first.spots.genes)
    match = matching.by_name(sorted(theirs - ours), sorted(ours - theirs))
    renamed = [
        (one, two)
        for one, two in match.renamed.items()
        if not (one in first.spots.id_of and two in other.spots.id_of)  # ids tell them apart
    ]
    if len(renamed) <= _MANY_RENAMED * len(theirs):
        return []
    pairs = [f"{one} and {two}" for one, two in renamed]
    return [
        Problem(
            "warning",
            f"section {other.name}",
            f"{len(pairs)} genes have another name than in section {first.name} "
            f"({named(pairs, 3)}): each counts as two genes, zero in one of the sections.",
            "Write one name in all sections.",
        )
    ]


def on_panel(
    cohort: Cohort, panel: GenePanel, *, orthologs: bool = False
) -> tuple[Cohort, GeneMatch]:
    """The data with the panel's names on the panel's genes, and what was found.

    Sections are matched one by one: each may write a gene in its own way. A gene that is ambiguous
    in one of them is left out, for it would have no counts there.

    Args:
        orthologs: where the panel's genes and the data's are of two species, match those that have
            one ortholog there and back.
    Raises:
        InputError: no gene of the panel is found, or two species without `orthologs`.
    """
    whose = species.of_sections(cohort.sections)
    of_panel = species.of_genes(panel.genes, panel.id_of)
    crossed = species.refuse_other(
        of_panel,
        whose,
        asked="the run's panel",
        source=f"the data {str(cohort.source)!r}",
        orthologs=orthologs,
    )
    each = [
        matching.by_ortholog(
            section.spots.genes,
            panel.genes,
            of=(of_panel.name, whose.name),
            ids=section.spots.id_of,
            wanted_ids=panel.id_of,
        )
        if crossed
        else matching.by_id(
            section.spots.genes, panel.genes, ids=section.spots.id_of, wanted_ids=panel.id_of
        )
        for section in cohort.sections
    ]
    ambiguous = {gene: own for match in each for gene, own in match.ambiguous.items()}
    measured: dict[str, str] = {}
    for match in reversed(each):
        measured |= {gene: own for gene, own in match.matched.items() if gene not in ambiguous}
    if not cohort.absent_is_zero:  # where a section does not measure a gene, it is none of all
        everywhere = set.intersection(*(set(match.matched) for match in each))
        measured = {gene: own for gene, own in measured.items() if gene in everywhere}
    every = GeneMatch(
        matched={gene: measured[gene] for gene in panel.genes if gene in measured},
        unmatched=tuple(g for g in panel.genes if g not in measured and g not in ambiguous),
        ambiguous=ambiguous,
    )
    if not measured:
        theirs = sorted({gene for section in cohort.sections for gene in section.spots.genes})
        raise InputError(
            f"{cohort.source} measures none of the {len(panel)} genes of the run's panel, such as "
            f"{named(list(panel.genes), 3)}; its own are {named(theirs, 3)}. Are the "
            "names of the same kind?"
        )
    say(f"{len(measured)} of {len(panel)} genes of the panel are measured.")
    missing = [gene for gene in panel.genes if gene not in measured]
    if missing:
        say(f"Not measured, left out: {named(missing, 20)}.")
    if crossed:
        say(f"By one-to-one orthologs in {of_panel.name}: {every.line()}.")
    elif every.renamed or ambiguous:
        say(f"Names: {every.line()}.")
    sections = [
        with_names(section, match, panel.genes)
        for section, match in zip(cohort.sections, each, strict=True)
    ]
    return dataclasses.replace(cohort, sections=tuple(sections)), every


def with_names(section: Section, match: GeneMatch, wanted: Sequence[str]) -> Section:
    """A section whose genes have the wanted names.

    Args:
        match: of the section's genes and `wanted`.
    """
    ours = {own: gene for gene, own in match.renamed.items()}
    # A gene that has a wanted gene's name and another id is called by its id.
    ids = section.spots.id_of
    others = {
        gene: ids[gene]
        for gene in wanted
        if gene in ids and gene not in ours and match.matched.get(gene) != gene
    }
    genes = tuple((ours | others).get(gene, gene) for gene in section.spots.genes)
    return dataclasses.replace(section, spots=dataclasses.replace(section.spots, genes=genes))

"""Sections that teach by their counts alone: DATA's own without an image, and those of `counts`.

What they teach a fold, `taught` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from histospace_tf import provenance
from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.config import Config
from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.genes import matching, species
from histospace_tf.data_pipelines.genes.matching import GeneMatch
from histospace_tf.data_pipelines.patients import same_as
from histospace_tf.outputs import say
from histospace_tf.vocabulary import Cohort, InputError, Section, SpotTable, named


@dataclasses.dataclass(frozen=True, eq=False)
class CountSection:
    """A section without an image, or whose image is not used.

    section: its genes have the names that the sections with an image give them; every spot has
        counts.
    lacks: genes of those sections that it does not measure; a gene that is neither there nor in
        its table has no counts in it.
    checksum: of its spots and counts as they were read.
    """

    section: Section
    lacks: frozenset[str]
    checksum: dict[str, str]


def read(paths: Sequence[Path], cohort: Cohort, config: Config) -> tuple[CountSection, ...]:
    """The sections of `cohort` without an image, then those of `paths`, each once.

    Says what joins. Of a section with an image in `paths` the counts alone are read.

    Args:
        paths: folders or files of any layout.
        cohort: of `reading.read_cohort`.
        config: target.min_counts holds here, too.
    Raises:
        InputError: as `readers.read_cohort`; genes of another species or names of another kind than
            `cohort` has; the name of one of its sections with other counts.
    """
    known = list(cohort.sections)
    joined = []
    for section in cohort.sections:
        if section.image is None and (made := _made(section, cohort, config)) is not None:
            joined.append(made)
            say(
                f"section {section.name}: no image: it teaches by counts alone "
                f"({len(made.section.spots)} spots)"
            )
    for path in paths:
        where = f"`counts` {str(path)!r}"
        other = readers.read_cohort(path, tile=config.tiles, image=False)
        for problem in other.problems:
            say(str(problem))
        _refuse_other_genes(where, cohort, other.sections)
        new = _new(where, other.sections, known)
        known += new
        more = [_made(s, cohort, config, absent_is_zero=other.absent_is_zero) for s in new]
        joined += [one for one in more if one is not None]
        say(f"{where}: {summary(one.section for one in more if one is not None)}, by counts alone.")
    return tuple(joined)


def summary(sections: Iterable[Section]) -> str:
    """How many sections, patients and spots these are, in words."""
    given = list(sections)
    patients = {same_as(section.patient) for section in given}
    spots = sum(len(section.spots) for section in given)
    return (
        f"{len(given)} section{'s' * (len(given) != 1)} of {len(patients)} "
        f"patient{'s' * (len(patients) != 1)} ({spots:,} spots)"
    )


def _refuse_other_genes(where: str, cohort: Cohort, sections: Sequence[Section]) -> None:
    """Raises InputError where names can never mean the genes of `cohort`."""
    own = list(cohort.with_image()[:1] or cohort.sections[:1])  # which are all of one kind
    for unlike in (
        cohort_genes.mixed_kinds([*own, *sections]),
        species.finding([*own, *sections]),
    ):
        if unlike is not None and unlike.severity == "error":
            raise InputError(f"{where}: {unlike}")


def _new(where: str, sections: Sequence[Section], known: Sequence[Section]) -> list[Section]:
    """Those of `sections` whose counts are none of the known ones'.

    Raises:
        InputError: one has the name of a known one, and other counts.
    """
    new: list[Section] = []
    for section in sections:
        before = [*known, *new]
        twin = next((one for one in before if _same_counts(one.spots, section.spots)), None)
        if twin is not None:
            as_what = "" if twin.name == section.name else f" (there {twin.name!r})"
            say(f"{where}: section {section.name} was read before{as_what}: taken once")
            continue
        if any(one.name == section.name for one in before):
            raise InputError(
                f"{where}: section {section.name!r} has the name of another section, whose counts "
                "are not the same; give one of the two another name"
            )
        new.append(section)
    return new


def _same_counts(one: SpotTable, other: SpotTable) -> bool:
    """Whether two tables hold the same counts: names and order of spots may differ."""
    if len(one) != len(other):
        return False
    shared = [gene for gene in one.genes if gene in set(other.genes)]
    if not shared:
        return False
    each = []
    for table in (one, other):
        at = {gene: column for column, gene in enumerate(table.genes)}
        counts = table.counts[:, [at[gene] for gene in shared]]
        of_spots = np.sort(np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel())
        each.append((np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel(), of_spots))
    return all(np.array_equal(a, b) for a, b in zip(*each, strict=True))


def _made(
    section: Section, cohort: Cohort, config: Config, *, absent_is_zero: bool | None = None
) -> CountSection | None:
    """A section with the names of the cohort's genes; None where no spot has enough counts.

    Args:
        absent_is_zero: of the section's own release; None: it is one of the cohort.
    """
    enough = section.spots.total_counts >= config.target.min_counts
    section = dataclasses.replace(section, spots=section.spots.subset(enough))
    (checksum,) = provenance.checksums([dataclasses.replace(section, image=None)]).values()
    tables = [one.spots for one in cohort.with_image()]
    wanted = list(dict.fromkeys(gene for table in tables for gene in table.genes))
    lacks: set[str] = set()
    if absent_is_zero is None:
        if not cohort.absent_is_zero:
            lacks = set(wanted) - set(section.spots.genes)
    else:
        ids = {gene: one for table in tables for gene, one in table.id_of.items()}
        match = _match(section.spots, wanted, ids)
        if not match.matched:
            raise InputError(
                f"`counts`: section {section.name!r} measures none of the {len(wanted)} genes of "
                f"{str(cohort.source)!r}, such as {named(wanted, 3)}; its own are "
                f"{named(section.spots.genes, 3)}"
            )
        section = cohort_genes.with_names(section, match, wanted)
        lacks = {*match.ambiguous, *(() if absent_is_zero else match.unmatched)}
        if not cohort.absent_is_zero:  # so that library sizes count the same genes
            section = dataclasses.replace(section, spots=section.spots.with_genes(set(wanted)))
    kept = section.spots.total_counts > 0
    if not kept.all():
        say(
            f"section {section.name}: {(~kept).sum()} of {len(kept)} spots have no counts in the "
            "genes of the other sections: skipped"
        )
    if not kept.any():
        say(
            f"section {section.name}: no spot has the {config.target.min_counts} counts of "
            "target.min_counts: it teaches nothing"
        )
        return None
    section = dataclasses.replace(section, spots=section.spots.subset(kept))
    return CountSection(section, frozenset(lacks), checksum)


def _match(spots: SpotTable, wanted: Sequence[str], wanted_ids: dict[str, str]) -> GeneMatch:
    """`matching.by_id`; without ids a name that both have is that gene, and no other's former name.

    MUM1 was IRF4 once: where both sides write MUM1, a table without IRF4 has no counts of it.
    """
    if spots.gene_ids or wanted_ids:
        return matching.by_id(spots.genes, wanted, ids=spots.id_of, wanted_ids=wanted_ids)
    own, others = set(spots.genes), set(wanted)
    rest = matching.by_name(
        [gene for gene in spots.genes if gene not in others],
        [gene for gene in wanted if gene not in own],
    )
    same = {gene: gene for gene in wanted if gene in own}
    return dataclasses.replace(rest, matched={**same, **rest.matched})


def named_patients(sections: Iterable[Section]) -> list[str]:
    """The patients' names, sorted, one of each patient's."""
    first: dict[str, str] = {}
    for section in sections:
        first.setdefault(same_as(section.patient), section.patient)
    return sorted(first.values())

"""What `check` looks for in sections, beyond the problems that reading them shows.

A check is a function of the whole cohort and an entry of CHECKS. Whether spots, image and scale
belong together is checked where a section is read (`data_pipelines.spots`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.data_pipelines.genes import species
from histospace_tf.vocabulary import Cohort, Problem, Section, named

_FEWEST_COUNTS, _FEWEST_SHARE = 10, 0.05  # of the section's median
_MOST_FEW_COUNTS = 0.1  # share of spots with few counts that is nothing unusual


def counts_problems(cohort: Cohort) -> list[Problem]:
    """Of every section, its spots without counts, or with so few that they say little."""
    return [problem for section in cohort.sections for problem in _counts_problems(section)]


def _counts_problems(section: Section) -> list[Problem]:
    where = f"section {section.name}"
    total, names = section.spots.total_counts, section.spots.names
    problems = []
    empty = total == 0
    if empty.any():
        which = [names[i] for i in np.flatnonzero(empty)]
        problems.append(
            Problem(
                "error",
                where,
                f"{empty.sum()} of {len(total)} spots have zero counts in all genes "
                f"({named(which, 3)}): their expression is unknown.",
                "Leave them out.",
            )
        )
    few = has_few_counts(total) & ~empty
    if few.any():
        who = [f"{names[i]}: {total[i]:.0f}" for i in np.flatnonzero(few)]
        many = few.mean() > _MOST_FEW_COUNTS
        problems.append(
            Problem(
                "warning" if many else "note",
                where,
                f"{few.sum()} of {len(total)} spots have very few counts "
                f"({named(who, 3)}; the section's median is {np.median(total):.0f}).",
                "What stands there is mostly counting noise; consider leaving them out.",
            )
        )
    return problems


def has_few_counts(total: np.ndarray) -> np.ndarray:
    """(n,) bool: which spots have so few counts that they say little.

    Args:
        total: (n,) counts of each spot of a section over all genes.
    """
    return total < max(_FEWEST_COUNTS, _FEWEST_SHARE * float(np.median(total)))


def gene_problems(cohort: Cohort) -> list[Problem]:
    """Genes that are hard to tell apart, their species, and those that not every section has."""
    problems = list(cohort_genes.gene_problems(cohort.sections))
    others = (species.finding(cohort.sections), cohort_genes.on_shared_genes(cohort)[1])
    return [*problems, *(problem for problem in others if problem is not None)]


def cohort_problems(cohort: Cohort) -> list[Problem]:
    """Too few images, and patients of several sections."""
    problems = []
    broken = any(problem.severity == "error" for problem in cohort.problems)
    if not cohort.with_image() and not broken:
        problems.append(
            Problem(
                "error",
                str(cohort.source),
                "no section has an image: there is nothing to train on.",
                "Add the H&E images.",
            )
        )
    elif len(cohort.with_image()) == 1 and not broken:
        problems.append(
            Problem(
                "warning",
                str(cohort.source),
                "one section alone has an image: a block of its spots is held out.",
                "Scores of new sections or patients need more of them.",
            )
        )
    for patient in cohort.patients:
        of_patient = [s.name for s in cohort.sections if s.patient == patient]
        if len(of_patient) > 1:
            problems.append(
                Problem(
                    "note",
                    f"patient {patient}",
                    f"has {len(of_patient)} sections ({named(of_patient)}).",
                    "Scores of one of them, trained on the others, are not those of a new patient.",
                )
            )
    return problems


# In the order of the report.
CHECKS: tuple[Callable[[Cohort], list[Problem]], ...] = (
    counts_problems,
    gene_problems,
    cohort_problems,
)

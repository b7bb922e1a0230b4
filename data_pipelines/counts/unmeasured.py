"""Genes that are zero all over one section and common in the others: very probably not measured.

Tables joined with zeros for what they lack (anndata.concat(join="outer", fill_value=0)), and other
probe sets or panels, look so. The rule: were a gene as common as in the other section that has
least of it, the section's depth would give it at least 20 counts (Poisson: all zero by a chance of
2e-9). Such genes are taken for unmeasured where they are at least 1 % of all genes that are so
common, or where at least half of the spots of every other section with counts have some. Fewer, and
rarer ones, may be silent there: they are named and kept, as are genes that only one sex has.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from histospace_tf.vocabulary import Problem, Section, named

_EXPECTED = 20.0
_FEW = 0.01
_BROAD = 0.5
_OF_ONE_SEX = re.compile(
    r"XIST|TSIX|RPS4Y[12]|EIF1AY|EIF2S3Y|DDX3Y|UTY|KDM5D|USP9Y|ZFY|TXLNGY|NLGN4Y|TMSB4Y|PRKY"
    r"|TTTY1[45]|LINC00278",
    re.IGNORECASE,  # of the mouse, too
)


def without_unmeasured(sections: Sequence[Section]) -> tuple[tuple[Section, ...], list[Problem]]:
    """The sections without columns of zeros that were very probably not measured there."""
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
    found, problems = [], []
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
        found.append(section)
    return tuple(found), problems

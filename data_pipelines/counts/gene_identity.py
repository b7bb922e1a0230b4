"""Which gene a column of counts is: its id where a file has one, and the name to show it by."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from histospace_tf.data_pipelines.genes import nomenclature
from histospace_tf.vocabulary import Problem, named, repeats

_ID = r"ENS[A-Z]{0,4}G\d{11}"
_BOTH = re.compile(
    rf"(?P<first>{_ID})(?:\.\d+)?[|:;_ ]+(?!PAR_Y)(?P<after>\S+)"
    rf"|(?P<before>\S+?)[|:;_ ]+(?P<last>{_ID})(?:\.\d+)?"
)


def identified(
    where: str, names: list[str], ids: list[str]
) -> tuple[list[str], list[str], list[Problem]]:
    """Works out the id of every column and the name to show it by.

    Args:
        where: the section, for problems.
        names, ids: n texts each as a file has them, "" where it has none.
    Returns:
        n names; n ids, Ensembl's without their versions, "" where there is none; and problems.
    """
    problems = []
    if 2 * _ensembl(names) > len(names) and 2 * _ensembl(ids) <= len(ids) and any(ids):
        names, ids = ids, names
        problems.append(
            Problem("note", where, "ids stand where names are wanted: the two are exchanged.")
        )
    numbers = [gene_id for gene_id in ids if gene_id.isdigit()]
    if numbers:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(numbers)} gene ids are numbers ({named(numbers, 3)}), which may be any "
                "table's: genes are told apart by their names.",
            )
        )
    shown_names, own_ids = [], []
    shared = set(repeats(ids))  # no ids, unless they are Ensembl's
    for written, identifier in zip(names, ids, strict=True):
        stated = nomenclature.bare_ensembl(identifier)
        name, embedded = _taken_apart(written)
        if stated and embedded != stated:
            name = written
        bare = stated or embedded or nomenclature.bare_ensembl(name)
        is_none = identifier in (name, written) or identifier in shared or identifier.isdigit()
        own = "" if is_none else identifier
        own_ids.append(bare or own)
        is_id = not name or nomenclature.is_ensembl(name)
        shown_names.append((bare or own or identifier) if is_id else name)
    return shown_names, own_ids, problems


def _taken_apart(name: str) -> tuple[str, str]:
    """Splits a name that holds a symbol and an Ensembl id, such as "ENSG00000141736.14|ERBB2".

    Returns:
        Symbol and bare id; for any other name the name itself and "".
    """
    match = _BOTH.fullmatch(name)
    if match is None:
        return name, ""
    return match["after"] or match["before"], match["first"] or match["last"]


def _ensembl(names: Sequence[str]) -> int:
    return sum(nomenclature.is_ensembl(name) for name in names)


def one_column_per_id(
    where: str, counts: sparse.csr_matrix, names: list[str], ids: list[str]
) -> tuple[sparse.csr_matrix, list[str], list[str], list[Problem]]:
    """Adds up columns that have the same id; of columns that are equal in every spot, one is kept.

    Args:
        where: the section, for problems.
        counts: (n, g) CSR; names, ids: g of each, "" for a gene without an id.
    Returns:
        (n, k) CSR counts, k names, k ids, and problems.
    """
    twice = repeats([gene_id for gene_id in ids if gene_id])
    if not twice:
        return counts, names, ids, []
    of_id: dict[str, list[int]] = {}
    for at, gene_id in enumerate(ids):
        of_id.setdefault(gene_id or f" {at}", []).append(at)  # a gene without an id stands alone
    by_column = counts.tocsc()
    same = set()
    for gene_id in twice:
        first, *others = (by_column[:, at] for at in of_id[gene_id])
        if first.nnz and all((first != other).nnz == 0 for other in others):
            same.add(gene_id)
    pairs = [
        (at, new)
        for new, (gene_id, columns) in enumerate(of_id.items())
        for at in (columns[:1] if gene_id in same else columns)
    ]
    rows, cols = np.array(pairs).T
    add = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(len(ids), len(of_id)))
    first_of = [columns[0] for columns in of_id.values()]
    done = [
        f"{len(group)} {what} ({named(group, 3)})"
        for group, what in (
            ([i for i in twice if i not in same], "have their counts added up"),
            ([i for i in twice if i in same], "are the same in every spot and counted once"),
        )
        if group
    ]
    problem = Problem(
        "warning",
        where,
        f"{len(twice)} gene ids stand on several rows: {'; '.join(done)}.",
        "Is it one gene's row written twice, or parts of one gene?",
    )
    return (
        sparse.csr_matrix(counts.astype(np.float64) @ add),
        [names[at] for at in first_of],
        [ids[at] for at in first_of],
        [problem],
    )

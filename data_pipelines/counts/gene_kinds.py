"""Which columns of a matrix are genes: by the types that a file states, and by names of controls.

Types are those of 10x Genomics ("Gene Expression", "Antibody Capture", "Negative Control Probe",
"Blank Codeword", ...) or biotypes ("protein_coding", "spike-in"). Names are looked at whatever the
types say: no gene is called BLANK_0006 or ERCC-00002.
"""

from __future__ import annotations

import re
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


def gene_columns(
    where: str,
    counts_from: str,
    names: Sequence[str],
    ids: Sequence[str],
    kinds: Sequence[str],
    totals: np.ndarray,
) -> tuple[np.ndarray, list[Problem]]:
    """(n,) bool: the columns that are genes; the others are named in problems.

    Args:
        names, ids, kinds: n texts each, "" where a file has none.
        totals: (n,) counts of each column.
    Raises:
        InputError: none of them is a gene.
    """
    is_stated = any(_plain(kind) == _EXPRESSION for kind in kinds)
    by_kind = np.array([_is_gene(kind, is_stated) for kind in kinds], bool)
    is_control = np.array(
        [
            _CONTROLS.fullmatch(name) is not None or _CONTROLS.fullmatch(one) is not None
            for name, one in zip(names, ids, strict=True)
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
    every = np.nansum(totals)
    return f"{100 * np.nansum(totals[columns]) / every:.2g} %" if every > 0 else "none"

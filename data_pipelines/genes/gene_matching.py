"""Genes of two data sets matched by id where both have ids, and by name where one has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from histospace_tf.data_pipelines.genes import gene_names
from histospace_tf.data_pipelines.genes.gene_names import GeneMatch


def matched(
    names: Sequence[str],
    wanted: Sequence[str],
    *,
    ids: Mapping[str, str] | None = None,
    wanted_ids: Mapping[str, str] | None = None,
) -> GeneMatch:
    """`gene_names.mapped`, but ids are compared before names.

    A gene with an id is the data's gene of that id, whatever both are called; a gene of the data
    that has the name and another id is not it. Names count where either side has no id.

    Args:
        names: the data's gene names; wanted: the names to find, each once.
        ids, wanted_ids: ids by name, where known; a name that is an Ensembl id is its own.
    """
    own = {name: one for name in names if (one := _id(name, ids))}
    asked = {name: one for name in wanted if (one := _id(name, wanted_ids))}
    times = Counter(own.values())
    name_of = {one: name for name, one in own.items() if times[one] == 1}
    by_id = {gene: name_of[asked[gene]] for gene in wanted if asked.get(gene) in name_of}
    taken = set(by_id.values())
    rest = gene_names.mapped(
        [name for name in names if name not in taken],
        [gene for gene in wanted if gene not in by_id],
        ids=ids,
    )
    others = {
        gene
        for gene, name in rest.matched.items()
        if gene in asked and name in own and asked[gene] != own[name]
    }
    found = {**by_id, **{gene: rest.matched[gene] for gene in rest.matched if gene not in others}}
    return GeneMatch(
        matched={gene: found[gene] for gene in wanted if gene in found},
        unmatched=tuple(gene for gene in wanted if gene in others or gene in rest.unmatched),
        ambiguous=rest.ambiguous,
    )


def _id(name: str, ids: Mapping[str, str] | None) -> str:
    one = (ids or {}).get(name, "")
    return gene_names.bare_ensembl(one) or one or gene_names.bare_ensembl(name)

"""The packaged tables of gene names, and what a name means in each of them.

Human genes with an HGNC id, and mouse genes of MGI with their human orthologs; both are made by
benchmarks/nomenclature.py, which says where they are from. A name is read in this order, and the
first that fits counts:

1. an approved symbol (ERBB2), whatever else once bore that name;
2. an Ensembl gene id (ENSG00000141736), with or without a version (ENSG00000141736.13); ids of
   other species, and ids that the table lacks, stand for themselves without their versions;
3. a previous symbol (SEPT2, now SEPTIN2), of one gene or of several;
4. an alias (HER2), of one gene or of several; MGI has previous symbols among its synonyms;
5. one of these as R's make.names writes it (HLA.A, X0610010B08Rik).

Capitals count, because Erbb2 is a gene of the mouse.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import io
import lzma
import re
from collections.abc import Iterable, Mapping
from importlib import resources

FILES = {"human": "gene_names.csv.gz", "mouse": "mouse_gene_names.csv.xz"}
_ENSEMBL = re.compile(r"(ENS[A-Z]{0,4}G\d{11})(?:\.\d+)?(?:_PAR_Y)?")
_R_KEEPS = re.compile(r"[A-Za-z][A-Za-z0-9._]*")


@dataclasses.dataclass(frozen=True)
class GeneTable:
    """The genes of one species.

    approved: current symbols.
    of_ensembl, of_previous, of_alias, of_r: current symbols by Ensembl id, previous symbol, alias,
        and by the form that R gives to names.
    human: symbol -> symbol of its one-to-one human ortholog; empty for human.
    """

    approved: frozenset[str]
    of_ensembl: Mapping[str, tuple[str, ...]]
    of_previous: Mapping[str, tuple[str, ...]]
    of_alias: Mapping[str, tuple[str, ...]]
    of_r: Mapping[str, tuple[str, ...]]
    human: Mapping[str, str]

    def genes(self, name: str) -> tuple[str, ...]:
        """Approved symbols that a name may mean; for an id that the table lacks, the bare id."""
        if name in self.approved:
            return (name,)
        ensembl = bare_ensembl(name)
        if ensembl:
            return self.of_ensembl.get(ensembl, (ensembl,))
        return self.of_previous.get(name) or self.of_alias.get(name) or self.of_r.get(name, ())

    def knows(self, name: str) -> bool:
        """Whether a name means one or several genes of the table."""
        genes = self.genes(name)
        return bool(genes) and genes[0] in self.approved


def bare_ensembl(name: str) -> str:
    """An Ensembl gene id of any species without its version; "" for any other name."""
    match = _ENSEMBL.fullmatch(name)
    return match[1] if match else ""


def is_ensembl(name: str) -> bool:
    """Whether a name is an Ensembl gene id of any species, with or without a version."""
    return bool(bare_ensembl(name))


@functools.cache
def table_of(species: str) -> GeneTable:
    """The table of a species, one of FILES."""
    file = FILES[species]
    packed = (resources.files("histospace_tf.data_pipelines.genes") / file).read_bytes()
    text = (lzma if file.endswith(".xz") else gzip).decompress(packed).decode()
    rows = list(csv.DictReader(io.StringIO(text)))

    def owners(column: str) -> dict[str, tuple[str, ...]]:
        return _owners(
            (name, row["symbol"]) for row in rows for name in row.get(column, "").split("|") if name
        )

    approved = frozenset(row["symbol"] for row in rows)
    previous, alias = owners("previous"), owners("aliases")
    # Of a gene that has two such names, the better known one decides.
    of_r: dict[str, tuple[str, ...]] = {}
    for names in ({one: (one,) for one in sorted(approved)}, previous, alias):
        changed = {name: genes for name, genes in names.items() if not _R_KEEPS.fullmatch(name)}
        written = _owners((_as_r_writes(n), gene) for n, genes in changed.items() for gene in genes)
        of_r = {**written, **of_r}
    return GeneTable(
        approved=approved,
        of_ensembl=owners("ensembl"),
        of_previous=previous,
        of_alias=alias,
        of_r=of_r,
        human={row["symbol"]: row["human"] for row in rows if row.get("human")},
    )


@functools.cache
def orthologs(wanted: str, own: str) -> Mapping[str, str]:
    """Symbols of species `wanted` -> symbols of species `own`, for one-to-one orthologs.

    Empty unless the two are human and mouse.
    """
    if (wanted, own) == ("mouse", "human"):
        return table_of("mouse").human
    if (wanted, own) == ("human", "mouse"):
        return {human: mouse for mouse, human in table_of("mouse").human.items()}
    return {}


def _owners(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    genes_of: dict[str, dict[str, None]] = {}
    for name, gene in pairs:
        genes_of.setdefault(name, {})[gene] = None
    return {name: tuple(genes) for name, genes in genes_of.items()}


def _as_r_writes(name: str) -> str:
    """A name as make.names of R's read.table and data.frame leaves it."""
    plain = re.sub(r"[^A-Za-z0-9._]", ".", name)
    return plain if re.match(r"[A-Za-z]|\.(?!\d)", plain) else f"X{plain}"

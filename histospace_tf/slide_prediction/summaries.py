"""What a finished prediction is worth, in lines for the terminal."""

from __future__ import annotations

import anndata

from histospace_tf.scores import gene_table
from histospace_tf.slide_prediction import set_scores


def lines(table: anndata.AnnData) -> list[str]:
    """Trust in its genes, likeness of the slide to the training tissue, intervals, gene sets."""
    about = table.uns["histospace_tf"]
    said = [trust(table)]
    if about.get("familiarity"):
        said.append(f"The slide is {about['familiarity']}.")
    if about.get("intervals"):
        said.append(f'layers["lower"] and layers["upper"]: {about["intervals"]}.')
    return said + _sets(table)


def trust(table: anndata.AnnData) -> str:
    """How many genes are trusted."""
    if "trust" not in table.var:
        return "How far each gene can be trusted is not known: the run has no genes.csv."
    times = table.var["trust"].value_counts()
    shares = ", ".join(f"{word} {times.get(word, 0)}" for word in gene_table.TRUST)
    about = table.uns["histospace_tf"]
    if not about.get("trust_of_new_patients", True):
        return (
            f"No gene is trusted on a new patient: trust is from {about['trust_from']}, and is "
            f'weak at most (var["trust"]: {shares})'
        )
    return (
        f"{times.get('yes', 0)} of {table.n_vars} genes are trusted, from spots that were "
        f'held out (var["trust"]: {shares})'
    )


def _sets(table: anndata.AnnData) -> list[str]:
    if set_scores.KEY not in table.uns:
        return []
    known = table.uns[set_scores.KEY]["trust"]
    return [
        f'{len(known)} gene set(s) in obsm["{set_scores.KEY}"], of which '
        f"{(known == 'yes').sum()} are trusted"
        + " (the run has scored none of them)"
        * bool((known == gene_table.UNKNOWN).all())
    ]

"""Anybody's predictions, scored by the same code on the same spots.

They are matched by name, never by position: rows SECTION_SPOT, columns genes (by var["gene_ids"]
where both have ids, or under any name that `matching.by_name` takes for the same gene). Every row
of a table is scored on the same spots and genes:

* a file that lacks one of the spots is refused, and names it: spots that a predictor may choose are
  spots on which it looks better;
* a file that lacks genes gets a table of its own ("shared_genes" in scores.json), where the model
  and every baseline are scored on the file's genes too;
* spots and genes that nobody asked for are left aside, with a note.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from histospace_tf import provenance
from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines.genes import matching, species
from histospace_tf.outputs import say
from histospace_tf.predictors import bulk_scores, registry, section_scores
from histospace_tf.predictors.held_out import PredictedSection, spot_names
from histospace_tf.predictors.section_scores import Scored
from histospace_tf.vocabulary import InputError, Section, SpotTable, named, repeats


def score_beside(
    sections: Sequence[PredictedSection],
    predictions: Mapping[str, Path],
    target: TargetConfig,
    split: Mapping[str, Any],
    *,
    unit: str,
    seed: int,
) -> Scored:
    """`section_scores.score` with anybody's predictions beside the model.

    Returns:
        As `section_scores.score`, with a row for every file that holds all genes, and
        "shared_genes" in the scores for the others: NAME -> genes (how many of each section's) and
        the sections, mean and pooled rows of every predictor on those genes. `genes` has a column
        for each file. "bulk" holds scores over slides, of `bulk_scores.score`.
    Raises:
        InputError: as `read_predictions`, `section_scores.score`; a prediction is no number.
    """
    full = list(sections)
    partial: dict[str, list[tuple[list[str], np.ndarray]]] = {}
    spots = [spot for section in sections for spot in section.spot_names]
    genes = list(dict.fromkeys(gene for section in sections for gene in section.panel.genes))
    ids = _ids([section.spots for section in sections])
    for name, path in predictions.items():
        values = read_predictions(path, name, spots, genes, unit=unit, ids=ids)
        parts, first = [], 0
        for section in sections:
            rows = slice(first, first := first + len(section.spots))
            own = section.panel.genes
            block = values[rows][:, [genes.index(gene) for gene in own]]
            parts.append(_known_part(section.name, section.spots, own, block, name))
        if all(
            len(known) == len(section.panel.genes)
            for (known, _), section in zip(parts, sections, strict=True)
        ):
            full = [
                section.with_predictor(name, block)
                for section, (_, block) in zip(full, parts, strict=True)
            ]
        else:
            say(f"{name}: scored in a table of its own, on the genes that it predicts.")
            partial[name] = parts
    scored = section_scores.score(full, target, split, unit=unit, seed=seed)
    table = scored.genes
    for name, parts in partial.items():
        on_theirs = [
            section.on_genes(known).with_predictor(name, block)
            for section, (known, block) in zip(full, parts, strict=True)
        ]
        theirs = section_scores.score(on_theirs, target, split, unit=unit, seed=seed)
        scored.scores.setdefault("shared_genes", {})[name] = {
            "genes": {section.name: len(section.panel) for section in on_theirs},
            **{what: theirs.scores[what] for what in ("sections", "mean", "pooled")},
        }
        table = table.merge(theirs.genes[["gene", "section", name]], "left", ["gene", "section"])
        for predicted, (known, block) in zip(scored.tables, parts, strict=True):
            layer = pd.DataFrame(block, columns=known).reindex(columns=predicted.var_names)
            predicted.layers[name] = layer.to_numpy(np.float32)
    scored.scores["bulk"], bulk = bulk_scores.score(full)
    return dataclasses.replace(scored, genes=table, bulk=bulk)


def refuse_unreadable(predictions: Mapping[str, Path]) -> None:
    """Opens every file, before anything else is done.

    Raises:
        InputError: a file cannot be read as predictions, or a name is taken.
    """
    for name, path in predictions.items():
        _opened(path, name, backed=True).file.close()


def refuse_misfits(
    predictions: Mapping[str, Path], panels: Mapping[Section, Sequence[str]], *, unit: str
) -> None:
    """Refuses what `score_beside` would, when the sections and their genes are first known.

    Args:
        panels: the genes that each section is scored on.
    Raises:
        InputError: as `score_beside`.
    """
    spots = [spot for section in panels for spot in spot_names(section.name, section.spots)]
    genes = list(dict.fromkeys(gene for panel in panels.values() for gene in panel))
    ids = _ids([section.spots for section in panels])
    for name, path in predictions.items():
        values = read_predictions(path, name, spots, genes, unit=unit, ids=ids, says=False)
        first = 0
        for section, panel in panels.items():
            rows = slice(first, first := first + len(section.spots))
            columns = [genes.index(gene) for gene in panel]
            _known_part(section.name, section.spots, panel, values[rows][:, columns], name)


def described(predictions: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Files of predictions, for a manifest."""
    return {
        name: {"file": path.name, "checksum": provenance.file_checksum(path)}
        for name, path in predictions.items()
    }


def read_predictions(
    path: Path,
    name: str,
    spots: Sequence[str],
    genes: Sequence[str],
    *,
    unit: str | None = None,
    ids: Mapping[str, str] | None = None,
    says: bool = True,
) -> np.ndarray:
    """Anybody's predictions, lined up with ours by name.

    What the file has more of or lacks is said, unless `says` is False.

    Args:
        path: .h5ad with X predicted (spots x genes) in the target's unit, obs_names SECTION_SPOT
            (as `evaluate` writes them: "B4_9x22"), var_names genes.
        name: of the predictor, for messages and tables.
        spots: the spots that are scored; genes: the genes.
        unit: refused if var["unit"] is there and says otherwise.
        ids: of the genes, by name, where known; compared with var["gene_ids"] before names.
    Returns:
        (spots, genes) float64; NaN in the columns of genes that the file lacks.
    Raises:
        InputError: the file cannot be read, repeats a name, lacks a spot, holds none of the genes,
            has another unit or species, or the name is taken.
    """
    table = _opened(path, name)
    where = f"`predictions` {name}: {str(path)!r}"
    for what, names in (("spot", table.obs_names), ("gene", table.var_names)):
        twice = repeats([str(n) for n in names])
        if twice:
            raise InputError(f"{where} has {what} {twice[0]!r} more than once")
    own = [str(n) for n in table.var_names]
    own_ids = {
        gene: str(one)
        for gene, one in zip(own, table.var.get("gene_ids", [None] * len(own)), strict=True)
        if isinstance(one, str)
    }
    theirs, scored = species.of_genes(own, own_ids), species.of_genes(genes, ids)
    if theirs.is_known and scored.is_known and theirs.name != scored.name:
        raise InputError(f"{where} holds {theirs}, and those that are scored are {scored}")
    match = matching.by_id(own, genes, ids=own_ids, wanted_ids=ids)
    if match.renamed or match.ambiguous:
        say(f"{name}: {match.line()}.")
    rows = table.obs_names.get_indexer(list(spots))
    at = {gene: column for column, gene in enumerate(own)}
    columns = np.array([at.get(match.matched.get(gene, ""), -1) for gene in genes], int)
    lacking = [spot for spot, row in zip(spots, rows, strict=True) if row < 0]
    if lacking:
        raise InputError(
            f"{where} lacks {len(lacking)} of {len(spots)} spots: {named(lacking)}; its own begin "
            f"with {named([str(n) for n in table.obs_names], 2)}. Names are SECTION_SPOT, and a "
            "predictor is scored on all spots or not at all"
        )
    absent = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
    if len(absent) == len(genes):
        raise InputError(
            f"{where} holds none of the {len(genes)} genes, such as {named(list(genes), 3)}; its "
            f"own are {named([str(n) for n in table.var_names], 3)}"
        )
    if unit is not None and "unit" in table.var:
        others = set(table.var["unit"].iloc[columns[columns >= 0]].astype(str)) - {unit}
        if others:
            raise InputError(f"{where} is in {named(sorted(others))}; {unit!r} is needed")
    if unit is not None and "unit" not in table.var and says:
        say(f'{name}: {path.name} has no var["unit"]; taken to be in {unit}.')
    if absent and says:
        say(
            f"{name}: {len(absent)} of {len(genes)} genes are not in {path.name} ({named(absent)})."
        )
    more = [table.n_obs - len(spots), table.n_vars - (len(genes) - len(absent))]
    if any(more) and says:
        say(f"{name}: {more[0]} spots and {more[1]} genes of {path.name} are not asked for.")
    values = table.X[rows]
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    lined_up = np.full((len(spots), len(genes)), np.nan)
    lined_up[:, columns >= 0] = values[:, columns[columns >= 0]]
    return lined_up


def _opened(path: Path, name: str, *, backed: bool = False) -> anndata.AnnData:
    """Somebody's predictions; `backed`: X is left in the file, which is to be closed."""
    registry.refuse_name(name)
    if not path.is_file():
        raise InputError(f"predictions {str(path)!r} do not exist")
    try:
        table = anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:  # anndata and h5py raise many kinds on a file that is none of theirs
        raise InputError(f"{str(path)!r} cannot be read as AnnData: {error}") from None
    if table.X is None or not np.issubdtype(table.X.dtype, np.number):
        raise InputError(f"{str(path)!r} has no numbers in X, where predictions belong")
    return table


def _ids(tables: Sequence[SpotTable]) -> dict[str, str]:
    return {gene: one for table in tables for gene, one in table.id_of.items()}


def _known_part(
    section: str, spots: SpotTable, genes: Sequence[str], block: np.ndarray, name: str
) -> tuple[list[str], np.ndarray]:
    """Those of `genes` that were predicted for a section, and their columns."""
    unknown = np.isnan(block).all(axis=0)
    known = [gene for gene, is_unknown in zip(genes, unknown, strict=True) if not is_unknown]
    if not known:
        raise InputError(f"`predictions` {name}: no gene is predicted for section {section!r}")
    block = block[:, ~unknown]
    if not np.isfinite(block).all():
        spot, gene = np.argwhere(~np.isfinite(block))[0]
        raise InputError(
            f"`predictions` {name}: spot {spot_names(section, spots)[spot]!r}, "
            f"gene {known[gene]!r} is not a finite number"
        )
    return known, block

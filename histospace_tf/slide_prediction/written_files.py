"""What a prediction is written as: checked before the work begins, written when it is done.

The formats stand in `histospace_tf.slide_prediction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from histospace_tf import outputs
from histospace_tf.faults import reading
from histospace_tf.outputs import say
from histospace_tf.slide_prediction import OutputFiles, formats
from histospace_tf.vocabulary import InputError, ids_by_name, named

if TYPE_CHECKING:
    import anndata

ALL, TRUSTED = "all", "trusted"  # words that stand for genes
DRAWN = 3  # genes that are drawn where none is named


def check(
    files: OutputFiles,
    genes: Sequence[str],
    *,
    force: bool = False,
    beside: Path | None = None,
) -> None:
    """Refuses files that could not be written in the end.

    Args:
        files: what is wanted.
        genes: that the model predicts, and sets of them.
        beside: the prediction, whose pseudo-bulk lies beside it.
        force: finished outputs may be replaced.
    Raises:
        InputError: an unknown gene, a wrong ending, a finished output, an absent package, ...
    """
    from histospace_tf.reports import maps
    from histospace_tf.slide_prediction import aggregation

    show = files.show
    wanted = {name: (formats()[name], path) for name, path in files.paths().items()}
    if show and not any(kind.genes for kind, _ in wanted.values()):
        options = [
            f"`{name}` {'FILE' if kind.endings else 'DIR'}"
            for name, kind in formats().items()
            if kind.genes
        ]
        raise InputError(f"`show` names genes to draw; {_either(options)} says where to")
    words = [gene for gene in show if gene in (ALL, TRUSTED) and gene not in genes]
    if words and len(show) > 1:
        raise InputError(f"`show` {','.join(show)}: {words[0]!r} stands alone")
    if not words:
        maps.check_genes(show, genes)
    for name, (kind, path) in wanted.items():
        if kind.endings and path.suffix not in kind.endings:
            raise InputError(
                f"`{name}` {str(path)!r}: a name that ends in {' or '.join(kind.endings)} is needed"
            )
        if kind.check_installed is not None:
            kind.check_installed()
    # Which genes are drawn may be known only at the end; then the whole folder has to be free.
    named_genes = show if not words else ()
    for kind, path in wanted.values():
        for file in [path] if kind.refused is None else kind.refused(path, named_genes):
            outputs.refuse_finished(file, force=force)
    if files.aggregate and beside is not None:
        outputs.refuse_finished(aggregation.bulk_file(beside), force=force)


def write_all(
    table: anndata.AnnData,
    files: OutputFiles,
    *,
    force: bool = False,
    beside: Path | None = None,
) -> list[Path]:
    """Writes a finished prediction in every format that is wanted.

    Args:
        table: of `predicting.predict`.
        files: which `check` has passed.
        beside: as of `check`; without it no pseudo-bulk is written.
        force: replace finished outputs.
    Returns:
        The files and folders, in the order of `OutputFiles`; pseudo-bulk, and the table of regions
        of a prediction that has some and no such table yet, last.
    Raises:
        InputError: as `check` and the writers.
    """
    from histospace_tf.slide_prediction import aggregation, region_table, set_scores

    written: list[Path] = []
    whole = set_scores.with_sets(table)
    for name, path in files.paths().items():
        kind = formats()[name]
        chosen = {}
        if kind.genes is not None:  # sets are drawn where they are named
            chosen["genes"] = kind.genes(whole if files.show else table, files)
        written += kind.write(whole if kind.with_sets else table, path, force=force, **chosen)
    if files.aggregate and beside is not None:
        written += aggregation.write(table, aggregation.bulk_file(beside), force=force)
    if beside is not None and region_table.KEY in table.uns:
        file = region_table.region_file(beside)
        if force or not file.exists():
            written += region_table.write(whole, file, force=force)
    return written


def convert(
    prediction: Path, files: OutputFiles, *, gene_sets: Sequence[Path] = (), force: bool = False
) -> list[Path]:
    """Writes a finished prediction in other formats; it stays as it is.

    Args:
        prediction: .h5ad of `predicting.predict`.
        files: at least one.
        gene_sets: GMT files to score, in place of the sets that it has.
        force: replace finished outputs.
    Returns:
        What was written.
    Raises:
        InputError: nothing to write, a file that is no prediction, gene sets that do not fit it, or
            as `check`.
    """
    import anndata

    from histospace_tf.slide_prediction import set_scores
    from histospace_tf.slide_prediction.spatial_entries import shapes_of

    if not files.paths() and not files.aggregate:
        options = [*(f"`{name}`" for name in formats()), "`aggregate`"]
        raise InputError(f"nothing to write: {_either(options)} says what")
    if not prediction.exists():
        raise InputError(f"{str(prediction)!r} does not exist")
    if prediction.is_dir():
        raise InputError(f"{str(prediction)!r} is a folder; an .h5ad, one slide's, works")
    with reading(f"prediction {str(prediction)!r}"):
        table = anndata.read_h5ad(prediction)
        if "unit" not in table.var:
            raise InputError(
                f'{str(prediction)!r} has no var["unit"]; an .h5ad of `histospace-tf predict` works'
            )
        shapes_of(table)
    names = [str(gene) for gene in table.var_names]
    ids = ids_by_name(names, [str(one) for one in table.var.get("gene_ids", ())])
    sets = set_scores.on_panel(gene_sets, names, ids=ids)
    if sets is not None:
        for note in sets.notes:
            say(note)
        set_scores.add(table, sets, run=None)
    check(files, [*names, *set_scores.names_in(table)], force=force, beside=prediction)
    return write_all(table, files, force=force, beside=prediction)


def drawn(table: anndata.AnnData, files: OutputFiles) -> list[str]:
    """Genes of which a map each is drawn."""
    if files.show:
        return _shown(table, files.show)
    genes = _trusted(table) or [str(gene) for gene in table.var_names]
    spread = np.nan_to_num(np.asarray(table[:, genes].X).std(axis=0))
    return [genes[i] for i in np.argsort(-spread, kind="stable")[:DRAWN]]


def measured(table: anndata.AnnData, files: OutputFiles) -> list[str]:
    """Genes that are measurements of a detection."""
    if files.show:
        return _shown(table, files.show)
    return _trusted(table) or [str(gene) for gene in table.var_names]


def _shown(table: anndata.AnnData, show: Sequence[str]) -> list[str]:
    if show == (ALL,) and ALL not in table.var_names:
        return [str(gene) for gene in table.var_names]
    if show == (TRUSTED,) and TRUSTED not in table.var_names:
        genes = _trusted(table)
        if not genes:
            raise InputError(
                "`show` trusted: no gene is trusted; name some, such as "
                f"{named([str(gene) for gene in table.var_names], 3)}, or take `show` all"
            )
        return genes
    return list(show)


def _trusted(table: anndata.AnnData) -> list[str]:
    if "trust" not in table.var:
        return []
    return [str(gene) for gene in table.var_names[table.var["trust"] == "yes"]]


def _either(options: Sequence[str]) -> str:
    *first, last = options
    return f"{', '.join(first)} or {last}" if first else last

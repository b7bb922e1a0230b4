"""What a prediction is written as: checked before the work begins, written when it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np

from histospace_tf import outputs
from histospace_tf.data_pipelines.readers import shapes_and_images
from histospace_tf.faults import reading
from histospace_tf.outputs import say
from histospace_tf.reports import maps
from histospace_tf.slide_prediction import output_formats, places, spatial_data
from histospace_tf.vocabulary import InputError, named

ALL, TRUSTED = "all", "trusted"  # words that stand for genes
DRAWN = 3  # genes that are drawn where none is named


@dataclasses.dataclass(frozen=True)
class Targets:
    """Files and folders to write beside the .h5ad; None: not written.

    show: genes of `maps`, `heatmaps` and `geojson`: names, or the single word "trusted" or "all".
        Empty: drawn are the DRAWN genes that vary most, of the trusted ones where there are some;
        measured in the GeoJSON are the trusted genes, or all where none is.
    maps: folder of PNG maps. heatmaps: folder of OME-TIFF. geojson: .geojson or .json file.
    table: .csv or .parquet file. spatialdata: .zarr folder.
    """

    show: tuple[str, ...] = ()
    maps: Path | None = None
    heatmaps: Path | None = None
    geojson: Path | None = None
    table: Path | None = None
    spatialdata: Path | None = None

    def paths(self) -> dict[str, Path]:
        """What is to be written, by option."""
        fields = ("maps", "heatmaps", "geojson", "table", "spatialdata")
        return {name: getattr(self, name) for name in fields if getattr(self, name) is not None}


def check(targets: Targets, genes: Sequence[str], *, force: bool = False) -> None:
    """Refuses targets that could not be written in the end.

    Args:
        targets: what is wanted.
        genes: that the model predicts.
        force: finished outputs may be replaced.
    Raises:
        InputError: an unknown gene, a wrong ending, a finished output, an absent package, ...
    """
    show, paths = targets.show, targets.paths()
    if show and not {"maps", "heatmaps", "geojson"} & set(paths):
        raise InputError(
            "--show names genes to draw; --maps DIR, --heatmaps DIR or --geojson FILE says where to"
        )
    words = [gene for gene in show if gene in (ALL, TRUSTED) and gene not in genes]
    if words and len(show) > 1:
        raise InputError(f"--show {','.join(show)}: {words[0]!r} stands alone")
    if not words:
        maps.check_genes(show, genes)
    if targets.geojson is not None and targets.geojson.suffix not in (".geojson", ".json"):
        raise InputError(
            f"--geojson {str(targets.geojson)!r}: a name that ends in .geojson or .json is needed"
        )
    if targets.table is not None:
        output_formats.check_table_name(targets.table)
    if targets.spatialdata is not None:
        spatial_data.check_folder_name(targets.spatialdata)
        shapes_and_images.check_installed("--spatialdata")
    files = [path for name, path in paths.items() if name not in ("maps", "heatmaps")]
    if targets.spatialdata is not None and spatial_data.is_others_store(targets.spatialdata):
        files.remove(targets.spatialdata)  # it is added to: refused where the slide is known
    if targets.table is not None and (beside := output_formats.genes_file(targets.table)):
        files.append(beside)
    # Which genes are drawn may be known only at the end; then the whole folder has to be free.
    named_genes = show if not words else ()
    for folder, file_of in (
        (targets.maps, maps.map_file),
        (targets.heatmaps, output_formats.heat_map_file),
    ):
        if folder is not None:
            files += [file_of(folder, gene) for gene in named_genes] or [folder]
    for path in files:
        outputs.refuse_finished(path, force=force)


def write_all(table: anndata.AnnData, targets: Targets, *, force: bool = False) -> list[Path]:
    """Writes a finished prediction to every target.

    Args:
        table: of `predicting.predict`.
        targets: which `check` has passed.
        force: replace finished outputs.
    Returns:
        The files and folders, in the order of `Targets`.
    Raises:
        InputError: as `check` and the writers.
    """
    written: list[Path] = []
    if targets.maps is not None:
        written += maps.write_maps(table, drawn(table, targets), targets.maps, force=force)
    if targets.heatmaps is not None:
        written += output_formats.write_heat_maps(
            table, targets.heatmaps, genes=drawn(table, targets), force=force
        )
    if targets.geojson is not None:
        genes = measured(table, targets)
        say(f"{targets.geojson}: {len(genes)} of {table.n_vars} genes are measurements (--show).")
        written.append(
            output_formats.write_geojson(table, targets.geojson, genes=genes, force=force)
        )
    if targets.table is not None:
        written += output_formats.write_table(table, targets.table, force=force)
    if targets.spatialdata is not None:
        written.append(spatial_data.write_spatial_data(table, targets.spatialdata, force=force))
    return written


def convert(prediction: Path, targets: Targets, *, force: bool = False) -> list[Path]:
    """Writes a finished prediction to further targets.

    Args:
        prediction: .h5ad of `predicting.predict`.
        targets: at least one.
        force: replace finished outputs.
    Returns:
        What was written.
    Raises:
        InputError: no target, a file that is no prediction, or as `check`.
    """
    if not targets.paths():
        raise InputError(
            "nothing to write: --geojson, --table, --spatialdata, --heatmaps or --maps says what"
        )
    if not prediction.exists():
        raise InputError(f"{str(prediction)!r} does not exist")
    with reading(f"prediction {str(prediction)!r}"):
        table = anndata.read_h5ad(prediction)
        if "unit" not in table.var:
            raise InputError(
                f'{str(prediction)!r} has no var["unit"]; an .h5ad of `histospace-tf predict` works'
            )
        places.of_table(table)
    check(targets, [str(gene) for gene in table.var_names], force=force)
    return write_all(table, targets, force=force)


def drawn(table: anndata.AnnData, targets: Targets) -> list[str]:
    """Genes to draw a map each of."""
    if targets.show:
        return _shown(table, targets.show)
    genes = _trusted(table) or [str(gene) for gene in table.var_names]
    spread = np.nan_to_num(np.asarray(table[:, genes].X).std(axis=0))
    return [genes[i] for i in np.argsort(-spread, kind="stable")[:DRAWN]]


def measured(table: anndata.AnnData, targets: Targets) -> list[str]:
    """Genes that are measurements of a detection."""
    if targets.show:
        return _shown(table, targets.show)
    return _trusted(table) or [str(gene) for gene in table.var_names]


def _shown(table: anndata.AnnData, show: Sequence[str]) -> list[str]:
    if show == (ALL,) and ALL not in table.var_names:
        return [str(gene) for gene in table.var_names]
    if show == (TRUSTED,) and TRUSTED not in table.var_names:
        genes = _trusted(table)
        if not genes:
            raise InputError(
                "--show trusted: no gene is trusted; name some, such as "
                f"{named([str(gene) for gene in table.var_names], 3)}, or take --show all"
            )
        return genes
    return list(show)


def _trusted(table: anndata.AnnData) -> list[str]:
    if "trust" not in table.var:
        return []
    return [str(gene) for gene in table.var_names[table.var["trust"] == "yes"]]

"""A prediction as GeoJSON for QuPath, as CSV or Parquet, and as OME-TIFF heat maps.

Every function takes the table of `predicting.predict`, for one slide, and writes a file whole or
not at all. Values keep the table's unit, var["unit"].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow
import tifffile
from pyarrow import parquet
from scipy.spatial import cKDTree

from histospace_tf import outputs
from histospace_tf.outputs import say
from histospace_tf.slide_prediction.spatial_entries import Shapes, shapes_of
from histospace_tf.vocabulary import InputError, named

GEOJSON_DECIMALS = 4  # of a measurement; the model's noise is far above
SPOT_PIXELS = 4  # pixels of a heat map across a spot
POSITION_COLUMNS = ("place", "x_px", "y_px", "x_um", "y_um")


def write_geojson(
    table: anndata.AnnData, path: Path, *, genes: Sequence[str], force: bool = False
) -> list[Path]:
    """Detections with measurements, as QuPath imports them.

    One feature per tile (a square) or spot (a circle), in full-resolution pixels from the image's
    top left corner, with the name of the tile or spot. Its measurements are the genes' values as a
    JSON object, as QuPath 0.4 and later writes them; a value that is not finite is left out. A
    circle is a polygon marked "isEllipse". A member "histospace_tf" beside the features, which
    QuPath does not read, states slide, unit and trust.

    Args:
        table: a prediction.
        path: .geojson or .json.
        genes: which, from var_names.
        force: replace a finished file.
    Returns:
        The file.
    Raises:
        InputError: a gene that is not there, a table without a slide, a finished file.
    Source: QuPath's QuPathTypeAdapters.java and ROITypeAdapters.java; RFC 7946.
    """
    outputs.refuse_finished(path, force=force)
    shapes = shapes_of(table)
    values = _values(table, genes).round(GEOJSON_DECIMALS).astype(np.float64)
    var = table.var.loc[list(genes)]
    about = {
        "slide": shapes.slide,
        "unit": str(table.var["unit"].iloc[0]),
        "trust": dict(zip(genes, var["trust"], strict=True)) if "trust" in var else {},
    }
    with outputs.whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection",\n')
        file.write(f'"histospace_tf": {json.dumps(about)},\n"features": [\n')
        for i, (name, ring) in enumerate(zip(table.obs_names, shapes.polygons_px(), strict=True)):
            geometry: dict[str, object] = {
                "type": "Polygon",
                "coordinates": [ring.round(2).tolist()],
            }
            if not shapes.square:
                geometry["isEllipse"] = True
            there = np.isfinite(values[i])
            measurements = {
                gene: round(float(value), GEOJSON_DECIMALS)
                for gene, value, known in zip(genes, values[i], there, strict=True)
                if known
            }
            properties = {"objectType": "detection", "name": name, "measurements": measurements}
            feature = {"type": "Feature", "geometry": geometry, "properties": properties}
            file.write((",\n" if i else "") + json.dumps(feature, allow_nan=False))
        file.write("\n]}\n")
    say(f"{path}: {len(genes)} of {table.n_vars} genes are measurements (`show`).")
    return [path]


def table_files(path: Path, genes: Sequence[str] = ()) -> list[Path]:
    """What `write_table` makes: a CSV has a file of what is known of each gene beside it, a Parquet
    holds it itself."""
    return [path, path.with_suffix(".genes.csv")] if path.suffix == ".csv" else [path]


def write_table(table: anndata.AnnData, path: Path, *, force: bool = False) -> list[Path]:
    """One row per tile or spot: its name, its centre, and one column per gene.

    Columns: place, the name; x_px, y_px full-resolution pixels, pixel centres at whole numbers;
    x_um, y_um the same in microns (NaN where the scale is unknown); region, of a prediction within
    regions; familiarity, where the model knows it; then the genes. What is known of a gene, its
    unit and trust, stands in FILE.genes.csv beside a CSV, and in the metadata of a Parquet's
    column.

    Args:
        table: a prediction.
        path: .csv or .parquet.
        force: replace finished files.
    Returns:
        The files.
    Raises:
        InputError: a gene with the name of another column, a finished file.
    """
    files = table_files(path)
    for file in files:
        outputs.refuse_finished(file, force=force)
    taken = [g for g in table.var_names if g in (*POSITION_COLUMNS, "region", "familiarity")]
    if taken:
        raise InputError(f"gene {taken[0]!r} has the name of a column that describes a place")
    shapes = shapes_of(table)
    microns = shapes.centres_px * (np.nan if shapes.mpp is None else shapes.mpp)
    where = [np.asarray(table.obs_names), *shapes.centres_px.T, *microns.T]
    rows = pd.DataFrame(dict(zip(POSITION_COLUMNS, where, strict=True)))
    if "region" in table.obs:
        rows["region"] = table.obs["region"].astype(str).to_numpy()
    if "familiarity" in table.obs:
        rows["familiarity"] = table.obs["familiarity"].to_numpy()
    whole = pd.concat([rows, table.to_df().reset_index(drop=True)], axis=1)
    if path.suffix == ".csv":
        with outputs.whole_file(path) as draft:
            whole.to_csv(draft, index=False)
        with outputs.whole_file(files[1]) as draft:
            table.var.rename_axis("gene").to_csv(draft)
        return files
    columns = pyarrow.Table.from_pandas(whole, preserve_index=False)
    about = {
        gene: {name: str(value) for name, value in entry.items()}
        for gene, entry in table.var.to_dict("index").items()
    }
    fields = [field.with_metadata(about.get(field.name)) for field in columns.schema]
    schema = pyarrow.schema(fields, metadata=columns.schema.metadata)
    with outputs.whole_file(path) as draft:
        parquet.write_table(columns.cast(schema), draft)
    return files


def write_heat_maps(
    table: anndata.AnnData, folder: Path, *, genes: Sequence[str], force: bool = False
) -> list[Path]:
    """One OME-TIFF per gene: (y, x) float32 over the whole slide, NaN where nothing was predicted.

    A pixel is a tile of the grid, or a quarter of a spot's diameter, and states its size in microns
    (in pixels of the slide where its scale is unknown). Laid over the slide at that size, from the
    same top left corner, it fits to within half a tile; the plane's PositionX and PositionY say how
    far the map's corner really lies from the slide's.

    Args:
        table: a prediction.
        folder: where to; GENE.ome.tif each.
        genes: which, from var_names.
        force: replace finished files.
    Returns:
        The files.
    Raises:
        InputError: a gene that is not there, a finished file.
    """
    values = _values(table, genes)
    files = [_heat_map_file(folder, gene) for gene in genes]
    for path in files:
        outputs.refuse_finished(path, force=force)
    shapes = shapes_of(table)
    owner, pixel_px, corner_px = raster(shapes)
    unit, factor = ("µm", shapes.mpp) if shapes.mpp is not None else ("pixel", 1.0)
    for column, (gene, path) in enumerate(zip(genes, files, strict=True)):
        picture = np.where(owner >= 0, values[owner, column], np.float32(np.nan))
        metadata = {
            "axes": "YX",
            "Name": gene,
            "Description": f"{gene} predicted on {shapes.slide}, {table.var.loc[gene, 'unit']}",
            "Channel": {"Name": [gene]},
            "PhysicalSizeX": pixel_px * factor,
            "PhysicalSizeXUnit": unit,
            "PhysicalSizeY": pixel_px * factor,
            "PhysicalSizeYUnit": unit,
            "Plane": {
                "PositionX": [corner_px[0] * factor],
                "PositionXUnit": [unit],
                "PositionY": [corner_px[1] * factor],
                "PositionYUnit": [unit],
            },
        }
        with outputs.whole_file(path) as draft:
            tifffile.imwrite(
                draft,
                picture,
                ome=True,
                photometric="minisblack",
                compression="zlib",
                metadata=metadata,
            )
    return files


def heat_map_files(folder: Path, genes: Sequence[str]) -> list[Path]:
    """What `write_heat_maps` makes: a file per gene; the folder where genes are not known yet."""
    return [_heat_map_file(folder, gene) for gene in genes] or [folder]


def _heat_map_file(folder: Path, gene: str) -> Path:
    return folder / f"{gene.replace('/', '_')}.ome.tif"


def raster(shapes: Shapes) -> tuple[np.ndarray, float, np.ndarray]:
    """Tiles or spots as a picture of the whole slide.

    Returns:
        (rows, columns) int: the tile or spot that a pixel shows, -1 for none; full-resolution
        pixels per pixel; (2,) where the picture's top left corner lies from the slide's, x first,
        in full-resolution pixels: at most half a pixel of the picture.
    """
    centres, size = shapes.corner_px, shapes.size_px
    pixel = size if shapes.square else size / SPOT_PIXELS
    # A grid's centres are pixel centres of the picture; the corner nearest to the slide's is taken.
    first = centres.min(axis=0) - pixel / 2
    corner = first - np.round(first / pixel) * pixel if shapes.square else np.zeros(2)
    extent = np.array([shapes.image.shape[1], shapes.image.shape[0]]) * shapes.scale
    last = np.floor((centres.max(axis=0) - corner) / pixel).astype(int) + 1
    columns, rows = np.maximum(np.ceil((extent - corner) / pixel - 0.5).astype(int), last)
    owner = np.full((rows, columns), -1)
    if shapes.square:
        x, y = np.floor((centres - corner) / pixel).astype(int).T
        owner[y, x] = np.arange(len(centres))
        return owner, pixel, corner
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    distance, nearest = cKDTree(centres).query(
        corner + (grid.reshape(-1, 2) + 0.5) * pixel, distance_upper_bound=size / 2
    )
    inside = np.isfinite(distance)
    owner.reshape(-1)[inside] = nearest[inside]
    return owner, pixel, corner


def _values(table: anndata.AnnData, genes: Sequence[str]) -> np.ndarray:
    """(n, len(genes)) float32 of a table."""
    unknown = [gene for gene in genes if gene not in table.var_names]
    if unknown:
        raise InputError(
            f"the table does not hold {named(unknown)}; its {table.n_vars} genes are "
            f"{named([str(gene) for gene in table.var_names], 10)}"
        )
    return np.asarray(table[:, list(genes)].X, np.float32)

"""SpatialData stores as spatialdata-io 0.7 writes them of Visium and Visium HD: the same element
names, coordinate systems, keys and attributes, of made runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import cv2
import geopandas
import numpy as np
import pandas as pd

from made import visium as made_visium

with warnings.catch_warnings():  # of its libraries, at their import
    warnings.simplefilter("ignore")
    import spatialdata
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

SCALE = {"hires": 1 / 6, "lowres": 1 / 20}


def table_of(spots: pd.DataFrame, *, region: str, key: str, seed: int = 0) -> anndata.AnnData:
    """Counts with obs in_tissue, array_row, array_col, and a number for each row under `key`."""
    genes = list(made_visium.GENES)
    table = anndata.AnnData(
        made_visium.made_counts(spots, seed=seed).astype(np.float32),
        obs=spots.set_index("barcode")[["in_tissue", "array_row", "array_col"]],
        var=pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(len(genes))]}, index=genes),
    )
    table.var_names_make_unique()
    table.obs_names.name = None
    table.obsm["spatial"] = places(spots)
    table.obs[key] = np.arange(len(spots))
    table.obs["region"] = pd.Categorical([region] * len(spots))
    return table


def places(spots: pd.DataFrame) -> np.ndarray:
    return spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()


def images_of(
    name: str, picture: np.ndarray, *, full: bool = True, levels: Sequence[int] | None = (2, 2)
) -> dict[str, Any]:
    """NAME_full_image in several scales (with `levels` None: in one), and its previews."""
    images = {}
    if full:
        images[f"{name}_full_image"] = Image2DModel.parse(
            np.moveaxis(picture, -1, 0),
            dims=("c", "y", "x"),
            scale_factors=None if levels is None else list(levels),
            c_coords=["r", "g", "b"],
            transformations={name: Identity()},
        )
    for kind, scale in SCALE.items():
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        images[f"{name}_{kind}_image"] = Image2DModel.parse(
            np.moveaxis(small, -1, 0),
            dims=("c", "y", "x"),
            c_coords=["r", "g", "b"],
            transformations={
                f"{name}_downscaled_{kind}": Identity(),
                name: Scale([1 / scale, 1 / scale], axes=("x", "y")),
            },
        )
    return images


def systems(name: str) -> dict[str, Any]:
    """Transformations of shapes in full-resolution pixels."""
    return {
        name: Identity(),
        **{
            f"{name}_downscaled_{kind}": Scale([scale, scale], axes=("x", "y"))
            for kind, scale in SCALE.items()
        },
    }


def visium(
    path: Path,
    pictures: Mapping[str, np.ndarray],
    *,
    full: bool = True,
    levels: Sequence[int] | None = (2, 2),
) -> Path:
    """A store of one library or several, their tables joined in one."""
    images: dict[str, Any] = {}
    shapes, tables = {}, []
    for number, (name, picture) in enumerate(pictures.items()):
        spots = made_visium.made_spots(picture)
        images |= images_of(name, picture, full=full, levels=levels)
        shapes[name] = ShapesModel.parse(
            places(spots),
            geometry=0,
            radius=65.0 / made_visium.MPP / 2,
            index=pd.RangeIndex(len(spots)),
            transformations=systems(name),
        )
        tables.append(table_of(spots, region=name, key="spot_id", seed=number))
    joined = (
        anndata.concat(tables, index_unique=None, merge="same") if len(tables) > 1 else tables[0]
    )
    joined.obs_names_make_unique()
    joined.obs["region"] = joined.obs["region"].astype("category")
    table = TableModel.parse(
        joined, region=list(pictures), region_key="region", instance_key="spot_id"
    )
    return write(spatialdata.SpatialData(images, shapes=shapes, tables={"table": table}), path)


def visium_hd(
    path: Path,
    picture: np.ndarray,
    sizes: Sequence[int],
    *,
    name: str = "HD",
    squares: bool = False,
) -> Path:
    """A store with shapes NAME_square_016um and a table square_016um for each size of bins."""
    shapes, tables = {}, {}
    for um in sizes:
        spots = made_visium.made_spots(picture, bin_um=float(um))
        radius = um / made_visium.MPP / 2
        circles = ShapesModel.parse(
            places(spots),
            geometry=0,
            radius=radius,
            index=pd.RangeIndex(len(spots)),
            transformations=systems(name),
        )
        region = f"{name}_square_{um:03d}um"
        if squares:
            frame = circles.buffer(radius, cap_style=3)
            circles = ShapesModel.parse(
                geopandas.GeoDataFrame(geometry=frame), transformations=systems(name)
            )
        shapes[region] = circles
        tables[f"square_{um:03d}um"] = TableModel.parse(
            table_of(spots, region=region, key="location_id"),
            region=region,
            region_key="region",
            instance_key="location_id",
        )
    data = spatialdata.SpatialData(images_of(name, picture), shapes=shapes, tables=tables)
    return write(data, path)


def write(data: spatialdata.SpatialData, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.write(path)
    return path

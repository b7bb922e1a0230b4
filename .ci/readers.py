"""Every form that is written, opened by the libraries that others read it with.

    python readers.py make FOLDER    in this package's environment: every form, and its values
    python readers.py h5ad FOLDER    with any anndata: both .h5ad
    python readers.py rest FOLDER    with pandas, geopandas, tifffile, Pillow, SpatialData: the rest
    python readers.py opens FILE     with any anndata: that a prediction opens

Between the two, nothing but the values in right.npz is carried over: reading environments do not
have this package.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")  # of old libraries about newer ones
MPP = 0.69


def make(folder: Path) -> None:
    import cv2

    import histospace_tf
    from histospace_tf import outputs
    from histospace_tf.data_pipelines import simulation
    from histospace_tf.slide_prediction import written_files
    from histospace_tf.slide_prediction.written_files import OutputFiles

    tissue = folder / "tissue"
    simulation.simulate(tissue, patients=2, seed=0)
    written = []
    write_h5ad = outputs.write_h5ad
    outputs.write_h5ad = lambda table, path: (written.append(table), write_h5ad(table, path))[1]
    histospace_tf.evaluate(tissue, folder / "evaluation", model="breast-her2st")
    outputs.write_h5ad = write_h5ad
    (scored,) = written
    slide = next(tissue.glob("ST-imgs/*/*/*.jpg"))
    table = histospace_tf.predict(
        slide,
        out=folder / "slide.h5ad",
        mpp=MPP,
        step_um=200,
        fast=True,
        maps=folder / "maps",
        heatmaps=folder / "heatmaps",
        geojson=folder / "slide.geojson",
        table=folder / "slide.csv",
        spatialdata=folder / "slide.zarr",
    )
    written_files.convert(folder / "slide.h5ad", OutputFiles(table=folder / "slide.parquet"))
    maps = sorted((folder / "maps").glob("*.png"))
    heat_maps = sorted((folder / "heatmaps").glob("*.ome.tif"))
    assert len(maps) == len(heat_maps) == 3
    np.savez(
        folder / "right.npz",
        values=table.X,
        places=np.array(table.obs_names, str),
        genes=np.array(table.var_names, str),
        unit=np.array(table.var["unit"], str),
        trust=np.array(table.var["trust"], str),
        gene_r=np.array(table.var["gene_r"], float),
        centres=table.obsm["spatial"],
        overview=next(iter(table.uns["spatial"].values()))["images"]["hires"],
        slide=slide.stem,
        drawn=np.array([path.name.removesuffix(".png") for path in maps]),
        scored=scored.X,
        scored_measured=scored.layers["measured"],
        scored_places=np.array(scored.obs_names, str),
        scored_section=np.array(scored.obs["section"], str),
        scored_cluster=np.array(scored.obs["cluster_predicted"], str),
        scored_counts=np.array(scored.obs["total_counts"], float),
        **{path.stem: cv2.imread(str(path))[..., ::-1] for path in maps},
    )


def h5ad(folder: Path) -> None:
    import anndata

    right = np.load(folder / "right.npz")
    table = anndata.read_h5ad(folder / "slide.h5ad")
    same(table.X, right["values"])
    same(table.obs_names, right["places"])
    same(table.var_names, right["genes"])
    for column in ("unit", "trust", "gene_r"):
        same(table.var[column], right[column])
    same(table.obsm["spatial"], right["centres"])
    library = table.uns["spatial"][str(right["slide"])]
    same(library["images"]["hires"], right["overview"])
    assert library["metadata"]["places"] == "grid"
    assert library["metadata"]["mpp"] == MPP
    assert table.uns["histospace_tf"]["unit"] == right["unit"][0]
    backed = anndata.read_h5ad(folder / "slide.h5ad", backed="r")
    same(backed.X[:], right["values"])
    backed.file.close()

    table = anndata.read_h5ad(folder / "evaluation" / "predictions.h5ad")
    same(table.X, right["scored"])
    same(table.layers["measured"], right["scored_measured"])
    same(table.obs_names, right["scored_places"])
    same(table.obs["section"].astype(str), right["scored_section"])
    same(table.obs["cluster_predicted"], right["scored_cluster"])
    same(table.obs["total_counts"], right["scored_counts"])
    assert set(table.uns["spatial"]) == set(right["scored_section"])
    said("anndata", "pandas", "numpy", "h5py")


def rest(folder: Path) -> None:
    import geopandas
    import pandas as pd
    import spatialdata
    import tifffile
    from PIL import Image

    right = np.load(folder / "right.npz")
    genes, corner = list(right["genes"]), right["centres"] + 0.5

    for table in (pd.read_csv(folder / "slide.csv"), pd.read_parquet(folder / "slide.parquet")):
        same(table["place"], right["places"])
        same(table[["x_px", "y_px"]], right["centres"])
        near(table[["x_um", "y_um"]], right["centres"] * MPP)
        near(table[genes], right["values"])
    about = pd.read_csv(folder / "slide.genes.csv")
    same(about["gene"], right["genes"])
    same(about["trust"], right["trust"])

    shapes = geopandas.read_file(folder / "slide.geojson")
    near(np.stack([shapes.centroid.x, shapes.centroid.y], axis=1), corner, 0.02)
    measured = [json.loads(m) if isinstance(m, str) else m for m in shapes["measurements"]]
    shown = list(measured[0])
    assert shown
    assert set(shown) == set(right["genes"][right["trust"] == "yes"])
    columns = [genes.index(gene) for gene in shown]
    near(np.array([[m[g] for g in shown] for m in measured]), right["values"][:, columns], 1e-4)

    for gene in right["drawn"]:
        with tifffile.TiffFile(folder / "heatmaps" / f"{gene}.ome.tif") as file:
            (series,) = file.series
            assert file.is_ome
            assert series.axes == "YX"
            picture = series.asarray()
            pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        per_px, plane = pixels["PhysicalSizeX"] / MPP, pixels["Plane"]
        at = (corner * MPP - [plane["PositionX"], plane["PositionY"]]) / MPP / per_px
        x, y = np.floor(at).astype(int).T
        same(picture[y, x], right["values"][:, genes.index(gene)])
        assert np.isfinite(picture).sum() == len(corner)
        same(Image.open(folder / "maps" / f"{gene}.png").convert("RGB"), right[str(gene)])

    data = spatialdata.read_zarr(folder / "slide.zarr")
    table = data.tables["table"]
    same(table.X, right["values"])
    same(table.var_names, right["genes"])
    same(table.obs["place"], right["places"])
    places = data.shapes["places"]
    near(np.stack([places.centroid.x, places.centroid.y], axis=1), corner)
    same(np.moveaxis(np.asarray(data.images["image"]), 0, -1), right["overview"])
    joined, _ = spatialdata.join_spatialelement_table(
        sdata=data, spatial_element_names="places", table_name="table", how="inner"
    )
    assert len(joined["places"]) == len(corner)
    said("geopandas", "pandas", "pyarrow", "tifffile", "pillow", "spatialdata", "zarr")


def opens(file: Path) -> None:
    import anndata

    table = anndata.read_h5ad(file)
    assert table.n_obs
    assert np.isfinite(table.X).all()
    assert set(table.var["trust"]) <= {"yes", "weak", "no", "unknown"}
    said("anndata")


def same(found: object, right: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(found), right)


def near(found: object, right: np.ndarray, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(found, float), right, rtol=1e-6, atol=atol)


def said(*packages: str) -> None:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"opened by {', '.join(versions)} on Python {sys.version.split()[0]}")


{"make": make, "h5ad": h5ad, "rest": rest, "opens": opens}[sys.argv[1]](Path(sys.argv[2]))

"""GeoJSON, CSV, Parquet and OME-TIFF: opened again by their own libraries."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from pyarrow import parquet

from histospace_tf.slide_prediction import output_formats
from histospace_tf.vocabulary import InputError
from made.predictions import prediction, with_trust
from made.tissue import GENES

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.mark.parametrize("kind", ["grid", "spots"])
def test_geojson_has_a_detection_a_place_with_the_genes_as_measurements(
    tmp_path: Path, kind: str
) -> None:
    table = with_trust(prediction(places=kind))
    (path,) = output_formats.write_geojson(table, tmp_path / "a.geojson", genes=["GNAS", "IGKC"])
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["type"] == "FeatureCollection"
    assert read["histospace_tf"] == {
        "slide": "slide",
        "unit": "some unit",
        "trust": {"GNAS": "yes", "IGKC": "yes"},
    }
    assert len(read["features"]) == table.n_obs
    for i, feature in enumerate(read["features"]):
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "detection"
        assert feature["properties"]["name"] == f"tile{i}"
        values = feature["properties"]["measurements"]
        assert list(values) == ["GNAS", "IGKC"]
        np.testing.assert_allclose(
            list(values.values()), table[:, ["GNAS", "IGKC"]].X[i], atol=1e-4
        )
        assert feature["geometry"].get("isEllipse", False) == (kind == "spots")


@pytest.mark.parametrize(("kind", "area"), [("grid", 1600), ("spots", np.pi * 400)])
def test_geojson_opens_in_geopandas_at_the_right_places(
    tmp_path: Path, kind: str, area: float
) -> None:
    table = prediction(places=kind)
    (path,) = output_formats.write_geojson(table, tmp_path / "a.geojson", genes=GENES)
    read = geopandas.read_file(path).set_crs(None, allow_override=True)  # pixels, no degrees
    assert len(read) == table.n_obs
    assert read.geometry.is_valid.all()
    np.testing.assert_allclose(read.area, area, rtol=0.01)  # 32 corners: 0.6 % less than a disc
    centres = shapely.get_coordinates(read.centroid)
    np.testing.assert_allclose(centres, table.obsm["spatial"] + 0.5, atol=0.01)


def test_geojson_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    table = prediction()
    table.X[0, 1] = np.nan
    (path,) = output_formats.write_geojson(table, tmp_path / "a.json", genes=["ERBB2", "GNAS"])
    first, second, *_ = json.loads(path.read_text())["features"]
    assert list(first["properties"]["measurements"]) == ["ERBB2"]
    assert list(second["properties"]["measurements"]) == ["ERBB2", "GNAS"]


def test_csv_and_parquet_hold_the_same_and_say_how_far_genes_are_trusted(tmp_path: Path) -> None:
    table = with_trust(prediction(mpp=0.5))
    csv, beside = output_formats.write_table(table, tmp_path / "a.csv")
    (file,) = output_formats.write_table(table, tmp_path / "a.parquet")
    for read in (pd.read_csv(csv), pd.read_parquet(file)):
        assert list(read) == [*output_formats.POSITION_COLUMNS, *GENES]
        assert list(read["place"]) == list(table.obs_names)
        np.testing.assert_array_equal(read[["x_px", "y_px"]], table.obsm["spatial"])
        np.testing.assert_array_equal(read[["x_um", "y_um"]], table.obsm["spatial"] / 2)
        np.testing.assert_array_equal(read[list(GENES)].astype(np.float32), table.X)
    assert beside == tmp_path / "a.genes.csv"
    genes = pd.read_csv(beside, index_col="gene")
    assert genes["trust"].to_dict() == table.var["trust"].to_dict()
    field = parquet.read_schema(file).field("GNAS")
    assert field.metadata == {b"unit": b"some unit", b"trust": b"yes", b"gene_r": b"0.5"}


def test_microns_are_missing_where_the_scale_is_unknown(tmp_path: Path) -> None:
    csv, _ = output_formats.write_table(prediction(mpp=None), tmp_path / "a.csv")
    assert pd.read_csv(csv)[["x_um", "y_um"]].isna().all(axis=None)


def image_of(path: Path) -> tuple[np.ndarray, dict[str, str], dict[str, str]]:
    """A heat map's pixels, and its Pixels and Plane elements."""
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "YX"
        root = ElementTree.fromstring(file.ome_metadata or "")
        pixels = root.find(f"{OME}Image/{OME}Pixels")
        assert pixels is not None
        plane = pixels.find(f"{OME}Plane")
        assert plane is not None
        return file.asarray(), pixels.attrib, plane.attrib


def test_heat_map_has_a_pixel_a_tile_and_nothing_elsewhere(tmp_path: Path) -> None:
    table = prediction(mpp=0.5)
    (path,) = output_formats.write_heat_maps(table, tmp_path, genes=["GNAS"])
    assert path == tmp_path / "GNAS.ome.tif"
    picture, pixels, plane = image_of(path)
    assert picture.dtype == np.float32
    # 240 x 200 px in tiles of 40 px whose first centre is at (60, 50).
    assert picture.shape == (5, 6)
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == "20.0"
    assert pixels["PhysicalSizeXUnit"] == "µm"
    corner = np.array([float(plane["PositionX"]), float(plane["PositionY"])])
    at = (table.obsm["spatial"] + 0.5) * 0.5 - corner  # microns in the picture
    np.testing.assert_allclose(at / 20 - np.floor(at / 20), 0.5)  # tiles' centres: pixels' centres
    column, row = np.floor(at / 20).astype(int).T
    np.testing.assert_array_equal(picture[row, column], table[:, "GNAS"].X.ravel())
    assert np.isnan(picture).sum() == picture.size - table.n_obs


def test_heat_map_of_spots_shows_discs_and_states_pixels_where_the_scale_is_unknown(
    tmp_path: Path,
) -> None:
    table = prediction(places="spots", mpp=None)
    (path,) = output_formats.write_heat_maps(table, tmp_path, genes=["GNAS"])
    picture, pixels, plane = image_of(path)
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == ("10.0", "pixel")
    assert (plane["PositionX"], plane["PositionY"]) == ("0.0", "0.0")
    assert picture.shape == (20, 24)
    y, x = np.mgrid[:20, :24] * 10 + 5
    centres = table.obsm["spatial"] + 0.5
    for i, (cx, cy) in enumerate(centres):
        inside = np.hypot(x - cx, y - cy) < 20
        assert inside.sum() >= 12
        np.testing.assert_array_equal(picture[inside], table[:, "GNAS"].X[i, 0])
    far = np.min([np.hypot(x - cx, y - cy) for cx, cy in centres], axis=0) > 20
    assert np.isnan(picture[far]).all()


@pytest.mark.parametrize("step", [3.7, 144.93])
def test_every_tile_of_a_grid_with_whole_pixel_starts_has_its_own_pixel(step: float) -> None:
    table = prediction(n=6)
    starts = np.array([(round(i % 3 * step), round(i // 3 * step)) for i in range(6)]) + 11.0
    table.obsm["spatial"] = starts
    table.uns["spatial"]["slide"]["scalefactors"]["spot_diameter_fullres"] = step
    owner, _, corner = output_formats.raster(output_formats.shapes_of(table))
    assert sorted(owner[owner >= 0]) == list(range(6))
    assert (np.abs(corner) <= step / 2 + 1e-6).all()


def test_mistakes_are_named_and_finished_files_kept(tmp_path: Path) -> None:
    table = prediction()
    with pytest.raises(InputError, match="does not hold 'NOSUCH'; its 4 genes"):
        output_formats.write_geojson(table, tmp_path / "a.geojson", genes=["NOSUCH"])
    with pytest.raises(InputError, match="does not hold 'NOSUCH'"):
        output_formats.write_heat_maps(table, tmp_path, genes=["GNAS", "NOSUCH"])
    assert list(tmp_path.iterdir()) == []
    for name in ("a.geojson", "a.genes.csv", "GNAS.ome.tif"):
        (tmp_path / name).write_text("older")
    with pytest.raises(InputError, match="`force`"):
        output_formats.write_geojson(table, tmp_path / "a.geojson", genes=["GNAS"])
    with pytest.raises(InputError, match="`force`"):
        output_formats.write_table(table, tmp_path / "a.csv")
    with pytest.raises(InputError, match="`force`"):
        output_formats.write_heat_maps(table, tmp_path, genes=["ERBB2", "GNAS"])
    assert len(list(tmp_path.iterdir())) == 3
    table.var_names = ["x_um", *GENES[1:]]
    with pytest.raises(InputError, match="'x_um' has the name of a column"):
        output_formats.write_table(table, tmp_path / "b.csv")

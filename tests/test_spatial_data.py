"""SpatialData: read again by its own library, elements linked, frames alike."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import shapely
import spatialdata
from spatialdata.models import get_table_keys

from histospace_tf.slide_prediction import spatial_data
from histospace_tf.vocabulary import InputError
from made.predictions import prediction, with_trust

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["grid", "spots"])
def test_zarr_holds_image_places_and_a_linked_table(tmp_path: Path, kind: str) -> None:
    table = with_trust(prediction(places=kind, mpp=0.5))
    table.uns["spatial"]["slide"]["scalefactors"]["tissue_hires_scalef"] = 0.25
    (path,) = spatial_data.write_spatial_data(table, tmp_path / "a.zarr")
    read = spatialdata.read_zarr(path)
    assert read["image"].dims == ("c", "y", "x")
    np.testing.assert_array_equal(
        np.moveaxis(read["image"].values, 0, -1), table.uns["spatial"]["slide"]["images"]["hires"]
    )
    np.testing.assert_array_equal(read["table"].X, table.X)
    assert list(read["table"].var["trust"]) == list(table.var["trust"])
    assert "spatial" not in read["table"].uns
    assert get_table_keys(read["table"]) == ("places", "region", "place")
    shapes, linked = spatialdata.join_spatialelement_table(
        sdata=read, spatial_element_names="places", table_name="table"
    )
    assert list(shapes["places"].index) == list(linked.obs["place"]) == list(table.obs_names)
    centres = shapely.get_coordinates(read["places"].centroid)
    np.testing.assert_allclose(centres, table.obsm["spatial"] + 0.5)
    if kind == "spots":
        assert (read["places"]["radius"] == 20).all()
    else:
        np.testing.assert_allclose(read["places"].area, 1600)


def test_frames_are_full_resolution_pixels_and_microns() -> None:
    table = prediction(mpp=0.5)
    table.uns["spatial"]["slide"]["scalefactors"]["tissue_hires_scalef"] = 0.25
    made = spatial_data.as_spatial_data(table)
    for name, factor in (("global", 1.0), ("microns", 0.5)):
        extent = spatialdata.get_extent(made["image"], coordinate_system=name)
        assert extent["x"] == (0, 240 * 4 * factor)
        assert extent["y"] == (0, 200 * 4 * factor)
        extent = spatialdata.get_extent(made["places"], coordinate_system=name)
        assert extent["x"] == (40.5 * factor, 160.5 * factor)
    without = spatial_data.as_spatial_data(prediction(mpp=None))
    assert without.coordinate_systems == ["global"]


def test_input_is_left_as_it_is() -> None:
    table = prediction()
    spatial_data.as_spatial_data(table)
    assert "spatial" in table.uns
    assert list(table.obs) == []


def test_absent_package_and_other_mistakes_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "older").touch()
    with pytest.raises(InputError, match="`force`"):
        spatial_data.write_spatial_data(prediction(), tmp_path / "a.zarr")
    spatial_data.write_spatial_data(prediction(), tmp_path / "a.zarr", force=True)
    assert not (tmp_path / "a.zarr" / "older").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'histospace-tf\[spatialdata\]'"):
        spatial_data.as_spatial_data(prediction())
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]

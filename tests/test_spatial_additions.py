"""Predictions added to a SpatialData store that is there: read again, the rest left as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import cv2
import numpy as np
import pytest
import shapely
import spatialdata
from spatialdata.models import get_table_keys
from spatialdata.transformations import Affine, get_transformation, set_transformation

from histospace_tf import provenance
from histospace_tf.data_pipelines import readers
from histospace_tf.slide_prediction import OutputFiles, spatial_data, written_files
from histospace_tf.vocabulary import InputError
from made import spatialdata as made_spatialdata
from made.pictures import blurred_noise
from made.predictions import prediction

pytestmark = pytest.mark.slow

PICTURE = blurred_noise(400, 480)
NEW = {"S1_full_image_predicted_places", "S1_full_image_predictions"}


def of_slide(picture: np.ndarray = PICTURE, name: str = "S1_full_image") -> anndata.AnnData:
    """A prediction of a slide, whose overview has half its size."""
    table = prediction(mpp=0.5)
    slide = table.uns["spatial"]["slide"]
    height, width = picture.shape[:2]
    size = (width // 2, height // 2)
    slide["images"]["hires"] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    slide["scalefactors"]["tissue_hires_scalef"] = 0.5
    slide["metadata"]["source_image"] = name
    return table


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return made_spatialdata.visium(tmp_path / "mine.zarr", {"S1": PICTURE})


def sums(store: Path) -> dict[str, str]:
    """Checksums of the elements of a store."""
    return {
        element.name: provenance.file_checksum(element)
        for kind in sorted(store.iterdir())
        if kind.is_dir()
        for element in sorted(kind.iterdir())
        if element.is_dir()
    }


def test_places_and_table_are_added_and_the_rest_is_untouched(store: Path) -> None:
    before = sums(store)
    table = of_slide()
    assert spatial_data.write_spatial_data(table, store) == [store]
    after = sums(store)
    assert set(after) - set(before) == NEW
    assert {name: after[name] for name in before} == before
    assert [path.name for path in store.parent.iterdir()] == ["mine.zarr"]
    read = spatialdata.read_zarr(store)
    added = read["S1_full_image_predictions"]
    np.testing.assert_array_equal(added.X, table.X)
    shapes, linked = spatialdata.join_spatialelement_table(
        sdata=read,
        spatial_element_names="S1_full_image_predicted_places",
        table_name="S1_full_image_predictions",
    )
    assert list(linked.obs["place"]) == list(table.obs_names)
    centres = shapely.get_coordinates(shapes["S1_full_image_predicted_places"].centroid)
    np.testing.assert_allclose(centres, table.obsm["spatial"] + 0.5)
    assert get_table_keys(added) == ("S1_full_image_predicted_places", "region", "place")
    assert len(read["table"]) == len(read["S1"])


def test_places_have_the_images_coordinate_systems(store: Path) -> None:
    data = spatialdata.read_zarr(store)
    turn = Affine(
        [[0.0, -2.0, 900.0], [2.0, 0.0, 7.0], [0, 0, 1]],
        input_axes=("x", "y"),
        output_axes=("x", "y"),
    )
    set_transformation(data["S1_full_image"], turn, "aligned", write_to_sdata=data)
    spatial_data.write_spatial_data(of_slide(), store)
    read = spatialdata.read_zarr(store)
    image, places = read["S1_full_image"], read["S1_full_image_predicted_places"]
    ours, its = (get_transformation(e, get_all=True) for e in (places, image))
    assert set(ours) == set(its) == {"S1", "aligned"}
    for name in its:
        np.testing.assert_allclose(
            ours[name].to_affine_matrix(("x", "y"), ("x", "y")),
            its[name].to_affine_matrix(("x", "y"), ("x", "y")),
        )


def test_a_second_prediction_needs_force_and_replaces_the_first_alone(store: Path) -> None:
    first = of_slide()
    spatial_data.write_spatial_data(first, store)
    before = sums(store)
    second = first.copy()
    second.X = first.X + 1
    with pytest.raises(InputError, match=r"predicted_places.*predictions' already; `force`"):
        spatial_data.write_spatial_data(second, store)
    assert sums(store) == before
    spatial_data.write_spatial_data(second, store, force=True)
    read = spatialdata.read_zarr(store)
    np.testing.assert_array_equal(read["S1_full_image_predictions"].X, second.X)
    after = sums(store)
    assert {name for name in before if before[name] != after[name]} <= NEW


@pytest.mark.parametrize("again", [False, True])
def test_a_failure_leaves_the_store_as_it_was(
    store: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    if again:
        spatial_data.write_spatial_data(of_slide(), store)
    before = sums(store)
    root = (store / "zarr.json").read_bytes()

    def fail(self: object) -> None:
        (store / "zarr.json").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(spatialdata.SpatialData, "write_consolidated_metadata", fail)
    monkeypatch.setattr(spatialdata.SpatialData, "write", write_without_consolidating)
    with pytest.raises(OSError, match="disk full"):
        spatial_data.write_spatial_data(of_slide(), store, force=True)
    monkeypatch.undo()
    assert sums(store) == before
    assert (store / "zarr.json").read_bytes() == root
    assert [path.name for path in store.parent.iterdir()] == ["mine.zarr"]
    spatialdata.read_zarr(store)


_write = spatialdata.SpatialData.write


def write_without_consolidating(self: spatialdata.SpatialData, path: Path) -> None:
    _write(self, path, consolidate_metadata=False)


def test_a_store_without_tables_gets_one(tmp_path: Path) -> None:
    images = made_spatialdata.images_of("S1", PICTURE)
    store = made_spatialdata.write(spatialdata.SpatialData(images=images), tmp_path / "a.zarr")
    spatial_data.write_spatial_data(of_slide(name="he.tif"), store)
    assert set(spatialdata.read_zarr(store).tables) == {"S1_full_image_predictions"}


def test_a_slide_that_is_not_in_the_store_is_refused(store: Path) -> None:
    before = sums(store)
    with pytest.raises(InputError, match="has the slide's size but shows something else"):
        spatial_data.write_spatial_data(of_slide(PICTURE[::-1]), store, force=True)
    small = np.ascontiguousarray(PICTURE[:300])
    with pytest.raises(InputError, match=r"480 x 300 px is none.*'S1_full_image' of 480 x 400 px"):
        spatial_data.write_spatial_data(of_slide(small), store, force=True)
    both = made_spatialdata.visium(store.with_name("both.zarr"), {"S1": PICTURE, "S2": PICTURE})
    with pytest.raises(InputError, match="not told apart"):
        spatial_data.refuse_other_store(both, "he.tif", (480, 400))
    assert sums(store) == before


def test_a_store_is_not_refused_before_work_and_never_replaced(store: Path) -> None:
    table = of_slide()
    genes = [str(gene) for gene in table.var_names]
    written_files.check(OutputFiles(spatialdata=store), genes)
    written_files.write_all(table, OutputFiles(spatialdata=store), force=True)
    assert "S1" in spatialdata.read_zarr(store).shapes
    (section,) = readers.read_cohort(store).sections  # our table is passed over
    assert section.image == store / "images" / "S1_full_image"


def test_the_store_that_a_prediction_was_written_as_is_replaced_with_force(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    spatial_data.write_spatial_data(prediction(), path)
    assert not spatial_data.is_others_store(path)
    with pytest.raises(InputError, match="`force`"):
        spatial_data.write_spatial_data(prediction(), path)
    spatial_data.write_spatial_data(prediction(), path, force=True)


def test_a_store_in_zarr_format_2_stays_one(tmp_path: Path) -> None:
    from spatialdata._io.format import SpatialDataContainerFormatV01

    images = made_spatialdata.images_of("S1", PICTURE)
    data = spatialdata.SpatialData(images=images)
    store = tmp_path / "old.zarr"
    data.write(store, sdata_formats=SpatialDataContainerFormatV01())
    spatial_data.write_spatial_data(of_slide(), store)
    assert not list(store.rglob("zarr.json"))
    read = spatialdata.read_zarr(store)
    assert set(read.tables) == {"S1_full_image_predictions"}
    shutil.rmtree(store)

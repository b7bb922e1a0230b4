"""SpatialData stores and OME-Zarr, against spatialdata, zarr and the run they were made of."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import spatialdata
import zarr
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, set_transformation

from histospace_tf import provenance
from histospace_tf.config import Config
from histospace_tf.data_pipelines import readers, slides
from histospace_tf.requests import FitRequest, PredictRequest
from histospace_tf.vocabulary import InputError
from made import spatialdata as made_spatialdata
from made import visium as made_visium
from made.cohorts import messages, only
from made.pictures import blurred_noise

pytestmark = pytest.mark.slow

PICTURE = blurred_noise(500, 600)
OTHER = np.ascontiguousarray(PICTURE[::-1])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Visium store, to be read alone."""
    return made_spatialdata.visium(tmp_path_factory.mktemp("one") / "mine.zarr", {"S1": PICTURE})


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    """A Visium store to be changed."""
    return Path(shutil.copytree(one, tmp_path / "mine.zarr"))


def changed(path: Path, **elements: Any) -> Path:
    """The store with further elements, or others in their place."""
    data = spatialdata.read_zarr(path)
    again = path.with_name("again.zarr")
    for name, element in elements.items():
        data[name] = element
    return made_spatialdata.write(data, again)


def test_a_store_gives_what_the_run_gives_that_it_was_made_of(one: Path, tmp_path: Path) -> None:
    run = made_visium.write_run(tmp_path / "run", PICTURE, kind="raw")
    expected = only(readers.read_cohort(run))
    cohort = readers.read_cohort(one)
    section = only(cohort)
    assert (cohort.layout, section.name, section.patient) == ("spatialdata", "mine", "mine")
    assert section.spots.names == expected.spots.names
    assert section.spots.gene_ids == expected.spots.gene_ids
    np.testing.assert_allclose(section.spots.centres_px, expected.spots.centres_px)
    np.testing.assert_array_equal(section.spots.counts.toarray(), expected.spots.counts.toarray())
    assert section.mpp == pytest.approx(expected.mpp, rel=1e-6)
    assert (section.spot_diameter_um, section.spot_pitch_um) == (55, 100)
    assert section.image == one / "images" / "S1_full_image"


@pytest.mark.parametrize("levels", [None, (2, 2)])
def test_pixels_of_the_image_equal_what_was_put_in(tmp_path: Path, levels: Any) -> None:
    store = made_spatialdata.visium(tmp_path / "a.zarr", {"S1": PICTURE}, levels=levels)
    image = only(readers.read_cohort(store)).image
    assert image is not None
    for path in (image, store):  # predict takes the store itself as well
        with slides.open_slide(path) as slide:
            assert slides.image_size(path) == (slide.width_px, slide.height_px) == (600, 500)
            np.testing.assert_array_equal(slide.region(0, 0, 600, 500), PICTURE)
            np.testing.assert_array_equal(
                slide.region(250, 250, 300, 17), PICTURE[250:267, 250:550]
            )
            overview, scale = slide.overview(150)
            assert scale == 4
            expected = cv2.resize(PICTURE, (150, 125), interpolation=cv2.INTER_AREA)
            assert np.abs(overview.astype(int) - expected).mean() < 12  # levels skip pixels
    before = provenance.file_checksum(image)
    assert provenance.file_checksum(image) == before
    next(file for file in sorted(image.rglob("*")) if file.is_file()).write_text("{}")
    assert provenance.file_checksum(image) != before


def test_several_libraries_are_sections_each_with_its_image(tmp_path: Path) -> None:
    store = made_spatialdata.visium(tmp_path / "both.zarr", {"S1": PICTURE, "S2": OTHER})
    cohort = readers.read_cohort(store)
    assert [(s.name, s.patient) for s in cohort.sections] == [("S1", "S1"), ("S2", "S2")]
    assert "no patients are named: each of 2 sections" in messages(cohort)
    for section, picture in zip(cohort.sections, (PICTURE, OTHER), strict=True):
        assert section.image is not None
        with slides.open_slide(section.image) as slide:
            np.testing.assert_array_equal(slide.region(0, 0, 600, 500), picture)
    with pytest.raises(InputError, match=r"2 images: 'S1_full_image', 'S2_full_image'; name one"):
        slides.open_slide(store)


def with_shapes_over(copy: Path, shapes: str, table: str) -> Path:
    """A store with a second table, of other shapes over the same tissue."""
    data = spatialdata.read_zarr(copy)
    more = data["table"].copy()
    more.obs["region"] = shapes
    more.obs["region"] = more.obs["region"].astype("category")
    del more.uns["spatialdata_attrs"]
    more = TableModel.parse(more, region=shapes, region_key="region", instance_key="spot_id")
    return changed(copy, **{shapes: data.shapes["S1"], table: more})


def test_cells_beside_bins_are_no_second_section(copy: Path) -> None:
    store = with_shapes_over(copy, "S1_cell_segmentations", "cell_segmentations")
    cohort = readers.read_cohort(store)
    assert only(cohort).name == "again"
    assert "table 'cell_segmentations' holds cells, not spots or bins: not read" in messages(cohort)
    with pytest.raises(InputError, match="holds cells, not spots or bins"):
        readers.read_cohort(store / "tables" / "cell_segmentations")


def test_one_tissue_is_not_two_sections(copy: Path) -> None:
    store = with_shapes_over(copy, "grid", "grid_table")
    with pytest.raises(InputError, match=r"lie over each other on image 'S1_full_image' \(100%"):
        readers.read_cohort(store)
    assert only(readers.read_cohort(store / "tables" / "table")).name == "again"


@pytest.mark.parametrize("squares", [False, True])
def test_bins_of_16_um_are_read_and_others_by_their_table(tmp_path: Path, squares: bool) -> None:
    store = made_spatialdata.visium_hd(tmp_path / "hd.zarr", PICTURE, (8, 16), squares=squares)
    cohort = readers.read_cohort(store)
    section = only(cohort)
    spots = made_visium.made_spots(PICTURE, bin_um=16.0)
    spots = spots[spots["in_tissue"] == 1]
    assert section.spots.names == tuple(spots["barcode"])
    np.testing.assert_allclose(section.spots.centres_px, made_spatialdata.places(spots))
    assert (section.spot_pitch_um, section.mpp) == (16, pytest.approx(made_visium.MPP))
    assert "bins of 16 um are read (square_016um)" in messages(cohort)
    assert "tables/square_008um" in messages(cohort)
    smaller = only(readers.read_cohort(store / "tables" / "square_008um"))
    assert smaller.spot_pitch_um == 8
    assert len(smaller.spots) > 3 * len(section.spots)


def test_places_go_through_the_transformations(copy: Path) -> None:
    """Shapes in microns, and an image that was cropped, turned and scaled."""
    expected = only(readers.read_cohort(copy)).spots.centres_px
    data = spatialdata.read_zarr(copy)
    shapes = data["S1"].copy()
    shapes.geometry = shapes.geometry.scale(0.5, 0.5, origin=(0, 0))
    shapes["radius"] *= 0.5
    turn = Affine(
        [[0.0, -2.0, 1100.0], [2.0, 0.0, 70.0], [0, 0, 1]],
        input_axes=("x", "y"),
        output_axes=("x", "y"),
    )
    to_pixels = Scale([2.0, 2.0], axes=("x", "y"))
    set_transformation(shapes, {"aligned": Sequence([to_pixels, turn])}, set_all=True)
    image = data["S1_full_image"]
    set_transformation(image, {"aligned": turn}, set_all=True)
    section = only(readers.read_cohort(changed(copy, S1=shapes, S1_full_image=image)))
    np.testing.assert_allclose(section.spots.centres_px, expected)
    # The same by spatialdata itself.
    aligned = spatialdata.transform(shapes, to_coordinate_system="aligned")
    matrix = turn.inverse().to_affine_matrix(("x", "y"), ("x", "y"))
    centres = np.column_stack([aligned.geometry.x, aligned.geometry.y])
    np.testing.assert_allclose(section.spots.centres_px, centres @ matrix[:2, :2].T + matrix[:2, 2])


def test_systems_that_do_not_agree_are_refused(copy: Path) -> None:
    data = spatialdata.read_zarr(copy)
    shapes = data["S1"]
    moved = Affine([[1, 0, 9], [0, 1, 0], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    set_transformation(shapes, {"S1": Identity(), "other": moved}, set_all=True)
    image = data["S1_full_image"]
    set_transformation(image, {"S1": Identity(), "other": Identity()}, set_all=True)
    with pytest.raises(InputError, match=r"9 px elsewhere on image 'S1_full_image'.*'other'"):
        readers.read_cohort(changed(copy, S1=shapes, S1_full_image=image))


def test_microns_of_the_store_are_the_scale(copy: Path) -> None:
    data = spatialdata.read_zarr(copy)
    table = data["table"].copy()
    del table.obs["array_row"]
    image = data["S1_full_image"]
    half = Scale([0.5, 0.5], axes=("x", "y"))
    set_transformation(image, {"S1": Identity(), "microns": half}, set_all=True)
    cohort = readers.read_cohort(changed(copy, S1_full_image=image, table=table))
    assert only(cohort).mpp == 0.5
    assert "0.5 microns per pixel, from the image's transformation to microns" in messages(cohort)


def test_previews_alone_are_no_image(tmp_path: Path) -> None:
    store = made_spatialdata.visium(tmp_path / "a.zarr", {"S1": PICTURE}, full=False)
    cohort = readers.read_cohort(store)
    assert only(cohort).image is None
    assert "only the hires preview of 100 x 83 px" in messages(cohort)
    picture = tmp_path / "he.png"
    cv2.imwrite(str(picture), PICTURE[..., ::-1])
    assert only(readers.read_cohort(store, image=picture)).image == picture
    cv2.imwrite(str(picture), cv2.resize(PICTURE, (100, 83))[..., ::-1])
    with pytest.raises(InputError, match="it is the hires preview of 100 x 83 px"):
        readers.read_cohort(store, image=picture)
    with pytest.raises(InputError, match="holds only previews"):
        slides.open_slide(store)


def test_an_image_outside_the_store_needs_shapes_in_pixels(copy: Path, tmp_path: Path) -> None:
    picture = tmp_path / "he.png"
    cv2.imwrite(str(picture), PICTURE[..., ::-1])
    data = spatialdata.read_zarr(copy)
    expected = only(readers.read_cohort(copy)).spots.centres_px
    outside = only(readers.read_cohort(copy, image=picture))
    np.testing.assert_allclose(outside.spots.centres_px, expected)
    shapes = data["S1"]
    set_transformation(shapes, {"S1": Scale([2.0, 2.0], axes=("x", "y"))}, set_all=True)
    with pytest.raises(InputError, match="known on an image of the store alone"):
        readers.read_cohort(changed(copy, S1=shapes), image=picture)


def test_two_images_of_one_scale_are_both_named(copy: Path) -> None:
    more = Image2DModel.parse(
        np.moveaxis(PICTURE, -1, 0), dims=("c", "y", "x"), transformations={"S1": Identity()}
    )
    store = changed(copy, other=more)
    with pytest.raises(InputError, match=r"2 images of one scale.*'S1_full_image', 'other'"):
        readers.read_cohort(store)
    section = only(readers.read_cohort(store, image=store / "images" / "other"))
    assert section.image == store / "images" / "other"


def test_rows_without_a_shape_are_left_out_with_a_warning(copy: Path) -> None:
    data = spatialdata.read_zarr(copy)
    store = changed(copy, S1=ShapesModel.parse(data["S1"].iloc[3:]))
    cohort = readers.read_cohort(store)
    assert only(cohort).spots.names == tuple(data["table"].obs_names[3:])
    assert f"3 of {len(data['S1'])} rows of table 'table' have no shape in 'S1'" in messages(cohort)


def test_a_table_joins_stores_with_other_data(one: Path, tmp_path: Path) -> None:
    other = made_spatialdata.visium(tmp_path / "other.zarr", {"S2": OTHER})
    (tmp_path / "sections.csv").write_text(
        f"section,path,image,patient\nA,{one},,P1\nB,{other},{other}/images/S2_full_image,P2\n"
    )
    cohort = readers.read_cohort(tmp_path)
    assert [(s.name, s.patient, s.image) for s in cohort.sections] == [
        ("A", "P1", one / "images" / "S1_full_image"),
        ("B", "P2", other / "images" / "S2_full_image"),
    ]


def test_stores_without_spots_are_refused(copy: Path, tmp_path: Path) -> None:
    data = spatialdata.read_zarr(copy)
    labels = Labels2DModel.parse(np.ones((50, 60), np.int32), dims=("y", "x"))
    table = data["table"].copy()
    table.obs["region"] = "cells"
    table.obs["region"] = table.obs["region"].astype("category")
    del table.uns["spatialdata_attrs"]
    of_labels = TableModel.parse(table, region="cells", region_key="region", instance_key="spot_id")
    del data.tables["table"]
    only_labels = spatialdata.SpatialData(labels={"cells": labels}, tables={"table": of_labels})
    with pytest.raises(InputError, match=r"'table' belongs to no shapes \('cells'\)"):
        readers.read_cohort(made_spatialdata.write(only_labels, tmp_path / "labels.zarr"))
    with pytest.raises(InputError, match="it has no table"):
        readers.read_cohort(made_spatialdata.write(data, tmp_path / "none.zarr"))
    next((copy / "shapes" / "S1").glob("*.parquet")).write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read as SpatialData"):
        readers.read_cohort(copy)


def test_the_absent_package_is_one_line(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'histospace-tf\[spatialdata\]'"):
        readers.read_cohort(one)


def test_a_store_is_fitted_predicted_and_opens_again_with_our_table(
    test_data: Path, tmp_path: Path, small_config: Config, unpublished: None
) -> None:
    from histospace_tf import fitting, predicting
    from histospace_tf.config import changed as with_settings

    crops = {}
    for name in ("C3", "C4"):
        (image,) = (test_data / "her2st" / "ST-imgs" / "C" / name).glob("*.jpg")
        with slides.open_slide(image) as slide:
            crops[name] = slide.region(4000, 3600, 900, 800)
    store = made_spatialdata.visium(tmp_path / "both.zarr", crops)
    settings = with_settings(small_config, target__genes=6, regressor__symmetries=1)
    result = fitting.fit(FitRequest(store, tmp_path / "run", config=settings, hold_out=["C4"]))
    assert list(result.scores["sections"]) == ["C4"]
    found = predicting.predict(
        PredictRequest(
            store / "images" / "C4_full_image",
            model=tmp_path / "run",
            out=tmp_path / "p.h5ad",
            mpp=made_visium.MPP,
            spatialdata=store,
        )
    )
    read = spatialdata.read_zarr(store)
    np.testing.assert_array_equal(read["C4_full_image_predictions"].X, found.table.X)
    assert {"C3", "C4", "C4_full_image_predicted_places"} == set(read.shapes)
    assert len(readers.read_cohort(store).sections) == 2
    with pytest.raises(InputError, match=r"_predictions' already; `force`"):
        predicting.predict(
            PredictRequest(
                store / "images" / "C4_full_image",
                model=tmp_path / "run",
                out=tmp_path / "again.h5ad",
                mpp=made_visium.MPP,
                spatialdata=store,
            )
        )


def ome_zarr(folder: Path, pixels: np.ndarray, axes: str, **more: Any) -> Path:
    """An image of OME-NGFF 0.4 as bioformats2raw writes it, with zarr alone."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    array = group.create_array(
        "0", shape=pixels.shape, chunks=tuple(min(n, 100) for n in pixels.shape), dtype=pixels.dtype
    )
    array[:] = pixels
    units = {name: {"unit": "micrometer"} for name in "yx"}
    entry: dict[str, Any] = {
        "version": "0.4",
        "axes": [{"name": name, **units.get(name, {})} for name in axes],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [0.25 if name in "yx" else 1.0 for name in axes]}
                ],
            }
        ],
    }
    group.attrs.update({"multiscales": [entry], **more})
    return folder


def test_ome_zarr_of_others(tmp_path: Path) -> None:
    planes = np.moveaxis(PICTURE, -1, 0)
    path = ome_zarr(tmp_path / "a.zarr", planes[None, :, None], "tczyx")
    with slides.open_slide(path) as slide:
        np.testing.assert_array_equal(slide.region(0, 0, 600, 500), PICTURE)
        assert slide.mpp == 0.25
    assert slides.stated_mpp(path) == 0.25
    labels = {"omero": {"channels": [{"label": name} for name in "bgr"]}}
    path = ome_zarr(tmp_path / "b.zarr", planes[::-1], "cyx", **labels)
    with slides.open_slide(path) as slide:
        np.testing.assert_array_equal(slide.region(0, 0, 600, 500), PICTURE)


@pytest.mark.parametrize(
    ("pixels", "axes", "labels", "fault"),
    [
        (np.zeros((3, 40, 50), np.uint16), "cyx", "", "values of type uint16 a channel"),
        (np.zeros((3, 40, 50), np.uint8), "cyx", "DAPI CD3 CD8", "channels 'dapi', 'cd3', 'cd8'"),
        (np.zeros((5, 40, 50), np.uint8), "cyx", "", "5 channels; H&E has three"),
        (np.zeros((4, 40, 50), np.uint8), "cyx", "0 1 2 3", r"4 channels \('0', '1', '2', '3'\)"),
        (np.zeros((3, 7, 40, 50), np.uint8), "czyx", "", "7 planes along axis 'z'"),
        (np.zeros((3, 40), np.uint8), "cyx", "", "do not go with shape"),
    ],
)
def test_ome_zarr_that_is_no_picture_is_refused(
    tmp_path: Path, pixels: np.ndarray, axes: str, labels: str, fault: str
) -> None:
    channels = {"omero": {"channels": [{"label": name} for name in labels.split()]}}
    path = ome_zarr(tmp_path / "a.zarr", pixels, axes, **channels)
    with pytest.raises(InputError, match=fault):
        slides.open_slide(path)


def test_damaged_ome_zarr_is_refused(one: Path, tmp_path: Path) -> None:
    image = Path(shutil.copytree(one / "images" / "S1_full_image", tmp_path / "a.zarr"))
    chunk = max(
        (file for file in (image / "s0").rglob("*") if file.is_file()),
        key=lambda f: f.stat().st_size,
    )
    chunk.write_bytes(b"damaged")
    with slides.open_slide(image) as slide, pytest.raises(InputError, match="is damaged near x"):
        slide.region(0, 0, 600, 500)
    content = json.loads((image / "zarr.json").read_text())
    content["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "gone"
    (image / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="cannot be read as OME-Zarr"):
        slides.open_slide(image)

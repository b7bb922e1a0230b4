"""Regions that people drew: files of three programs, mending, places in them, tissue by hand."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from histospace_tf.data_pipelines import regions
from histospace_tf.data_pipelines.readers import region_files
from histospace_tf.data_pipelines.regions import SlideRegions
from histospace_tf.data_pipelines.slides import scanner_files
from histospace_tf.vocabulary import InputError
from made.regions import asap, feature, ndpa, ndpa_ring, polygon, square, write_geojson

SIZE = (400, 300)
SLIDE = Path("slide.ndpi")  # of which NDPA alone needs something


def drawn(folder: Path, *features: dict[str, Any], bare: bool = False) -> SlideRegions:
    return regions.read(write_geojson(folder / "a.geojson", *features, bare=bare), SLIDE, SIZE)


@pytest.mark.parametrize("bare", [False, True])
def test_qupath_keeps_names_classes_and_holes(tmp_path: Path, bare: bool) -> None:
    with_hole = polygon(square(10, 10, 100), square(40, 40, 20))
    two = {"type": "MultiPolygon", "coordinates": [polygon(square(x, 5, 10))["coordinates"]
                                                   for x in (150, 180)]}  # fmt: skip
    read = drawn(
        tmp_path,
        feature(with_hole, "core", "Tumor"),
        feature(two, "islands"),
        feature(polygon(square(200, 200, 10)), None, "Stroma"),
        bare=bare,
    )
    assert [(one.name, one.kind, one.shape.area) for one in read.regions] == [
        ("core", "Tumor", 10_000 - 400),
        ("islands", "", 200),
        ("Stroma", "Stroma", 100),
    ]
    assert read.problems == ()


def test_a_feature_a_geometry_and_gzip_are_read_and_classes_in_parts_joined(tmp_path: Path) -> None:
    one = feature(polygon(square(0, 0, 10)), classification={"names": ["Tumor", "Positive"]})
    (tmp_path / "b.geojson.gz").write_bytes(gzip.compress(str(one).replace("'", '"').encode()))
    (region,) = regions.read(tmp_path / "b.geojson.gz", SLIDE, SIZE).regions
    assert (region.name, region.kind) == ("Tumor: Positive",) * 2
    (tmp_path / "c.json").write_text(str(polygon([*square(0, 0, 10)])).replace("'", '"'))
    (region,) = regions.read(tmp_path / "c.json", SLIDE, SIZE).regions
    assert (region.name, region.shape.area) == ("region", 100)


def test_names_that_repeat_are_numbered(tmp_path: Path) -> None:
    kinds = [("Tumor 1", None), (None, "Tumor"), (None, "Tumor"), ("x", "Tumor")]
    read = drawn(
        tmp_path,
        *(feature(polygon(square(20 * i, 0, 10)), *both) for i, both in enumerate(kinds)),
    )
    assert [one.name for one in read.regions] == ["Tumor 1", "Tumor 2", "Tumor 3", "x"]


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"type": "Point", "coordinates": [5, 5]}, "a Point encloses no area"),
        ({"type": "LineString", "coordinates": [[0, 0], [9, 9]]}, "a LineString encloses no area"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [5, 5]]]}, "cannot be read"),
        ({"type": "Polygon", "coordinates": "all"}, "cannot be read"),
        ({"type": "Blob", "coordinates": []}, "cannot be read"),
        (None, "no geometry"),
        (polygon([(0, 0), (5, 5), (9, 9), (0, 0)]), "encloses no area"),
        (polygon([(0, 0), (float("nan"), 5), (9, 9), (0, 0)]), "a coordinate is no number"),
        (polygon(square(1000, 50, 20)), "lies off the slide .x 1000 to 1020.* 400 x 300 px"),
    ],
)
def test_what_is_no_area_on_the_slide_is_left_out_by_name(
    tmp_path: Path, geometry: dict[str, Any] | None, words: str
) -> None:
    good = feature(polygon(square(0, 0, 10)), "good")
    read = drawn(tmp_path, feature(geometry, "odd one"), good)
    assert [one.name for one in read.regions] == ["good"]
    (problem,) = read.problems
    assert "a.geojson" in problem
    assert "'odd one': left out" in problem
    with pytest.raises(InputError, match=f"'odd one': left out: .*{words}.*No region is left"):
        drawn(tmp_path, feature(geometry, "odd one"))


def test_cells_of_a_segmentation_are_no_regions(tmp_path: Path) -> None:
    cell = {**feature(polygon(square(0, 0, 10)), objectType="cell")}
    with pytest.raises(InputError, match="it is a cell, no annotation"):
        drawn(tmp_path, *[cell] * 5)


def test_outline_that_crosses_itself_is_mended_and_said(tmp_path: Path) -> None:
    bow = [(0, 0), (60, 60), (60, 0), (0, 60), (0, 0)]
    twice = [*square(100, 100, 60)[:4], *square(100, 100, 30)[:1], (100, 100)]
    parts = [polygon(square(x, 200, 50))["coordinates"] for x in (0, 25)]
    overlapping = {"type": "MultiPolygon", "coordinates": parts}
    read = drawn(
        tmp_path,
        feature(polygon(bow), "bow"),
        feature(polygon(twice), "twice"),
        feature(overlapping, "overlapping"),
    )
    areas = {one.name: one.shape.area for one in read.regions}
    assert areas == pytest.approx({"bow": 1800, "twice": 3600, "overlapping": 75 * 50})
    assert all(one.shape.is_valid for one in read.regions)
    assert "region 'bow': mended" in read.problems[0]
    assert "Self-intersection[30 30]" in read.problems[0]


def test_region_over_the_edge_is_cut_off_there(tmp_path: Path) -> None:
    read = drawn(tmp_path, feature(polygon(square(350, 250, 100)), "corner"))
    assert read.regions[0].shape.bounds == (350, 250, 400, 300)
    assert "cut off at the slide's edge" in read.problems[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("  \n", "the file is empty"),
        ("[]", "nothing is drawn"),
        ('{"type": "FeatureCollection", "features": []}', "nothing is drawn"),
        ('{"type": "Topology"}', "no GeoJSON of features"),
        ("[1, 2]", "no GeoJSON of features"),
        ('{"type": "FeatureCollection", "fea', "cannot be read"),
        ("x,y\n1,2\n", "neither JSON nor XML"),
        ("<annotations><ndpviewstate>", "is it cut"),
        ("<Annotations><Annotation/></Annotations>", "ImageScope's XML opens in QuPath"),
        ("<svg/>", "XML of another kind, <svg>"),
    ],
)
def test_file_that_holds_no_regions_is_refused_by_name(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "odd.geojson"
    path.write_text(content)
    with pytest.raises(InputError, match=f"odd.geojson'.*{words}"):
        regions.read(path, SLIDE, SIZE)
    with pytest.raises(InputError, match="does not exist"):
        regions.read(tmp_path / "none.geojson", SLIDE, SIZE)


def test_ndpa_is_placed_by_the_slides_own_properties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of 400 x 300 px at 0.5 x 0.25 um/px whose middle lies 1 mm right of and 2 mm above
    the middle of the glass."""
    path = tmp_path / "slide.ndpi.ndpa"
    centre = np.array([1e6, -2e6])
    ring = centre + np.array(square(-50, -30, 40)) * [500, 250]
    circle = (
        '<ndpviewstate id="2"><title>round</title><coordformat>nanometers</coordformat>'
        f'<annotation type="circle"><x>{centre[0]}</x><y>{centre[1]}</y><radius>10000</radius>'
        "</annotation></ndpviewstate>"
    )
    pin = '<ndpviewstate><title>pin</title><annotation type="pin"/></ndpviewstate>'
    open_line = ndpa_ring("open", ring, closed=0)
    path.write_text(ndpa(ndpa_ring("Tumor", ring), circle, pin, open_line))
    with pytest.raises(InputError, match=r"slide.ndpi' lacks .*XOffsetFromSlideCentre"):
        regions.read(path, SLIDE, SIZE)
    stated = {
        "openslide.mpp-x": "0.5",
        "openslide.mpp-y": "0.25",
        "hamamatsu.XOffsetFromSlideCentre": "1000000",
        "hamamatsu.YOffsetFromSlideCentre": "-2000000",
    }
    monkeypatch.setattr(scanner_files, "properties", lambda _: stated)
    read = regions.read(path, SLIDE, SIZE)
    assert [one.name for one in read.regions] == ["Tumor", "round"]
    assert read.regions[0].shape.bounds == (150, 120, 190, 160)
    assert read.regions[1].shape.bounds == pytest.approx((180, 130, 220, 170))
    assert "'pin': left out: it is a pin" in read.problems[0]
    assert "'open': left out" in read.problems[1]
    path.write_text(path.read_text().replace("nanometers", "pixels"))
    with pytest.raises(InputError, match="coordinates in 'pixels'"):
        regions.read(path, SLIDE, SIZE)


def test_asap_gives_names_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        asap(
            ("first", "Polygon", "Tumor", square(10, 20, 30)[:4]),
            ("dot", "Dot", "None", [(1, 1)]),
            ("second", "Spline", "None", [(100, 100), (140, 100), (120, 140)]),
        )
    )
    read = regions.read(path, SLIDE, SIZE)
    assert [(one.name, one.kind) for one in read.regions] == [("first", "Tumor"), ("second", "")]
    assert [one.shape.area for one in read.regions] == [900, 800]
    assert "'dot': left out: it is a Dot" in read.problems[0]


def test_properties_of_a_slide_are_openslides(test_data: Path, tmp_path: Path) -> None:
    stated = scanner_files.properties(test_data / "slides" / "CMU-1-Small-Region.svs")
    assert stated["openslide.mpp-x"] == "0.499"
    (tmp_path / "no.txt").write_text("no slide")
    assert scanner_files.properties(tmp_path / "no.txt") == {}
    assert region_files.SUFFIXES[0] == ".geojson"


def test_place_in_two_regions_belongs_to_the_smaller(tmp_path: Path) -> None:
    read = drawn(
        tmp_path,
        feature(polygon(square(0, 0, 100), square(60, 60, 20)), "whole"),
        feature(polygon(square(10, 10, 20)), "part"),
    )
    # Pixel centres: what is drawn from 10 to 30 holds pixels 10 to 29.
    places = np.array([(10, 10), (29, 29), (30, 30), (9, 15), (70, 70), (200, 5)], float)
    assert list(regions.region_of(read.regions, places)) == [1, 1, 0, 0, -1, -1]
    np.testing.assert_allclose(regions.own_areas_px(read.regions), [10_000 - 400 - 400, 400])
    x, y = np.meshgrid(np.arange(100), np.arange(100))
    owner = regions.region_of(read.regions, np.stack([x.ravel(), y.ravel()], axis=1))
    assert [(owner == i).sum() for i in (0, 1)] == [9200, 400]  # as the areas are


def test_tissue_by_hand_is_its_class_or_all_that_is_drawn(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "t.geojson",
        feature(polygon(square(0, 0, 100)), None, "Tissue"),
        feature(polygon(square(200, 0, 50)), "lumen", "Tumor"),
    )
    (only,) = regions.read_tissue(path, SLIDE, SIZE).regions
    assert only.shape.equals(shapely.box(0, 0, 100, 100))
    write_geojson(path, feature(polygon(square(200, 0, 50)), "lumen", "Tumor"))
    assert len(regions.read_tissue(path, SLIDE, SIZE).regions) == 1

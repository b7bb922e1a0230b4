"""Tables of spots: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import anndata
import cv2
import numpy as np
import pandas as pd
import pytest

from histospace_tf.data_pipelines import slides
from histospace_tf.slide_prediction import spot_tables
from histospace_tf.vocabulary import InputError
from made import visium as made_visium


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((50, 80, 3), np.uint8))
    return tmp_path / "image.png"


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize(
    "columns",
    [*spot_tables.PIXEL_COLUMNS, spot_tables.PLAIN_COLUMNS, ("X", "Y"), ("X (px)", "Y (px)")],
)
def test_centres_and_names_are_read(
    image: Path, tmp_path: Path, separator: str, columns: tuple[str, str]
) -> None:
    lines = [["barcode", "other", *columns], ["a", "1", "10", "20.5"], ["b", "2", "79", "0"]]
    (tmp_path / "t.csv").write_text("\n".join(separator.join(line) for line in lines))
    with slides.open_slide(image) as slide:
        centres, names = spot_tables.read_spots(tmp_path / "t.csv", slide)
    np.testing.assert_array_equal(centres, [[10, 20.5], [79, 0]])
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pixel_x,pixel_y\n1e6,5\n", "outside the"),
        ("pixel_x,pixel_y\nfive,5\n", "line 2, column pixel_x: 'five' is not a number"),
        ("a,b\n1,2\n", "pixel_x and pixel_y"),
        ("spot,x,y\np,5,5\np,9,9\n", "'p' named more than once"),
        ("spot,x,y\np,5,5\n,9,9\n", "line 3, column spot: the name is empty"),
        ("x,y,X,Y\n1,2,30,40\n", "2 columns for 'x': 'x', 'X'"),
        ("pixel_x,pixel_y,x_px,y_px\n1,2,30,40\n", "more than once, and they differ"),
        ("pixel_x,pixel_y\n1,2,300\n7,8,301\n", "'1' is no row's name"),
        ("pixel_x,pixel_y,selected\n1,2,0\n3,4,0\n", "none of its 2 spots is selected"),
        ("pixel_x,pixel_y,selected\n1,2,1\n3,4,maybe\n", "line 3, column selected: 'maybe'"),
        ("Image,x,y\na.svs,1,2\nb.svs,3,4\n", "2 images .*none is 'image.png'"),
        ("x_um,y_um\n1,2\n", "in microns .*`mpp`"),
        ("1,2\n3,4\n", "line 1: '1 2' are numbers, not names of columns"),
    ],
)
def test_bad_spot_tables_are_refused(image: Path, tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "spots.csv"
    table.write_text(text)
    with slides.open_slide(image) as slide, pytest.raises(InputError, match=message):
        spot_tables.read_spots(table, slide)


@pytest.mark.parametrize(
    ("name", "header"),
    [("tissue_positions.csv", True), ("S1_tissue_positions_list.csv", False), ("s.txt", False)],
)
def test_space_rangers_positions_under_tissue_are_read_x_first(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, header: bool
) -> None:
    columns = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    rows = "AA-1,1,0,0,20,70\nCC-1,0,0,2,30,75\nGG-1,1,1,1,5,10\n"
    (tmp_path / name).write_text(columns * header + rows)
    with slides.open_slide(image) as slide:
        centres, names = spot_tables.read_spots(tmp_path / name, slide)
    np.testing.assert_array_equal(centres, [[70, 20], [10, 5]])
    assert names == ["AA-1", "GG-1"]
    assert "2 of 3 spots are under tissue" in capsys.readouterr().err


def test_spots_that_are_not_selected_are_left_out_with_a_note(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """HER2ST's form: x and y are array positions beside the pixels."""
    for flags in (("1", "0", "1"), ("TRUE", "FALSE", "TRUE"), ("yes", "no", "yes")):
        rows = [f"{i}\t{i}\t{10 * i}\t{i}\t{flag}" for i, flag in enumerate(flags)]
        text = "\n".join(["x\ty\tpixel_x\tpixel_y\tselected", *rows])
        (tmp_path / "A1_selection.tsv").write_text(text)
        with slides.open_slide(image) as slide:
            centres, names = spot_tables.read_spots(tmp_path / "A1_selection.tsv", slide)
        np.testing.assert_array_equal(centres, [[0, 0], [20, 2]])
        assert len(names) == 2
        assert "1 of 3 spots are not selected (column selected)" in capsys.readouterr().err


def test_microns_become_pixels_by_the_slides_scale(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for unit, encoding in (("µm", "utf-8"), ("μm", "utf-8"), ("µm", "cp1252")):
        text = f"Image\tObject ID\tName\tCentroid X {unit}\tCentroid Y {unit}\n"
        text += "a.svs\tp\t\t10\t20\na.svs\tq\t\t5.5\t1\n"
        (tmp_path / "cells.txt").write_bytes(text.encode(encoding))
        with slides.open_slide(image, mpp=0.5) as slide:
            centres, names = spot_tables.read_spots(tmp_path / "cells.txt", slide)
        np.testing.assert_allclose(centres, [[20, 40], [11, 2]])
        assert names == ["p", "q"]
        assert "divided by 0.5 microns per pixel" in capsys.readouterr().err


def test_of_several_images_the_places_of_the_slide_are_taken(image: Path, tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    table.write_text("Image,Name,x_px,y_px\nimage.svs,a,1,2\nother.svs,a,3,4\nimage.svs,b,5,6\n")
    with slides.open_slide(image) as slide:
        centres, names = spot_tables.read_spots(table, slide)
    np.testing.assert_array_equal(centres, [[1, 2], [5, 6]])
    assert names == ["a", "b"]


def test_places_in_one_corner_are_warned_of(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "spots.csv"
    for last, doubtful in (("9,9", True), ("60,9", False)):
        table.write_text(f"x,y\n1,2\n3,4\n5,6\n{last}\n")
        with slides.open_slide(image) as slide:
            spot_tables.read_spots(table, slide)
        assert ("in the top left corner" in capsys.readouterr().err) == doubtful


def test_spots_of_an_anndata_are_read_by_name(image: Path, tmp_path: Path) -> None:
    xy = np.array([[70.0, 20.0], [10.5, 5.0]])
    table = anndata.AnnData(obs=pd.DataFrame(index=["p", "q"]), obsm={"spatial": xy})
    table.write_h5ad(tmp_path / "spots.h5ad")
    with slides.open_slide(image) as slide:
        centres, names = spot_tables.read_spots(tmp_path / "spots.h5ad", slide)
        np.testing.assert_array_equal(centres, xy)
        assert names == ["p", "q"]
        del table.obsm["spatial"]
        table.write_h5ad(tmp_path / "without.h5ad")
        (tmp_path / "none.h5ad").write_text("no HDF5")
        with pytest.raises(InputError, match=r"no obsm\['spatial'\]"):
            spot_tables.read_spots(tmp_path / "without.h5ad", slide)
        with pytest.raises(InputError, match="cannot be read"):
            spot_tables.read_spots(tmp_path / "none.h5ad", slide)
        with pytest.raises(InputError, match="does not exist"):
            spot_tables.read_spots(tmp_path / "nowhere.csv", slide)


def test_spots_of_an_anndata_are_those_under_tissue_of_one_section(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xy = np.array([[70.0, 20.0], [10.5, 5.0], [30.0, 6.0]])
    obs = pd.DataFrame({"in_tissue": ["TRUE", "FALSE", None]}, index=["p", "q", "r"])
    table = anndata.AnnData(obs=obs, obsm={"spatial": xy})
    table.write_h5ad(tmp_path / "spots.h5ad")
    with slides.open_slide(image) as slide:
        centres, names = spot_tables.read_spots(tmp_path / "spots.h5ad", slide)
        np.testing.assert_array_equal(centres, xy[:1])
        assert names == ["p"]
        told = capsys.readouterr().err
        assert "1 of 3 spots are not under tissue" in told
        assert "1 of 3 spots have no value in obs[\"in_tissue\"] ('r')" in told
        table.obs["in_tissue"] = 1
        table.obs["library_id"] = ["A", "A", "B"]
        table.uns["spatial"] = {"A": {}, "B": {}}
        table.write_h5ad(tmp_path / "spots.h5ad")
        with pytest.raises(InputError, match="holds 2 sections"):
            spot_tables.read_spots(tmp_path / "spots.h5ad", slide)


def test_the_array_gives_the_scale_of_visium_and_of_no_other_platform(tmp_path: Path) -> None:
    picture = np.full((600, 700, 3), 120, np.uint8)
    for name, bin_um in (("visium", None), ("hd", 16.0)):
        folder = tmp_path / name
        spots = made_visium.made_spots(picture, mpp=0.8, bin_um=bin_um)
        made_visium.write_spatial(folder, spots, picture, positions="csv", mpp=0.8, bin_um=bin_um)
    positions = made_visium.POSITIONS["csv"]
    assert spot_tables.array_mpp(tmp_path / "visium" / positions) == pytest.approx(0.8, rel=1e-6)
    assert spot_tables.array_mpp(tmp_path / "hd" / positions) is None
    assert spot_tables.array_mpp(tmp_path / "spots.csv") is None


def test_few_places_off_the_image_are_left_out_by_name(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [(5 + 7 * x, 5 + 20 * y) for y in range(2) for x in range(10)]
    places[3] = (200, 5)
    lines = ["spot,x,y", *(f"p{i},{x},{y}" for i, (x, y) in enumerate(places))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with slides.open_slide(image) as slide:
        centres, names = spot_tables.read_spots(tmp_path / "t.csv", slide)
    assert names == [f"p{i}" for i in range(20) if i != 3]
    np.testing.assert_array_equal(centres, [xy for i, xy in enumerate(places) if i != 3])
    said = capsys.readouterr()
    assert "1 of 20 spots lie outside the 80 x 50 px image ('p3'" in said.out + said.err


def test_six_columns_with_one_of_names_are_no_array(image: Path, tmp_path: Path) -> None:
    for header in ("place,x_px,y_px,x_um,y_um,GNAS", "name,x,y,area,length,score"):
        (tmp_path / "t.csv").write_text(f"{header}\np,10,20,5,10,1\nq,30,40,15,20,0\n")
        with slides.open_slide(image, mpp=0.5) as slide:
            centres, names = spot_tables.read_spots(tmp_path / "t.csv", slide)
        np.testing.assert_array_equal(centres, [[10, 20], [30, 40]])
        assert names == ["p", "q"]


def test_numbers_of_places_are_those_of_their_rows(image: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y,selected\n1,2,0\n\n30,4,1\n500,6,0\n7,8,1\n")
    with slides.open_slide(image) as slide:
        assert spot_tables.read_spots(tmp_path / "t.csv", slide)[1] == ["spot1", "spot3"]


def test_pixels_may_stand_beside_the_same_places_in_microns(image: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y,x_um,y_um\n10,20,5.1,10\n60,40,30,20.2\n")
    with slides.open_slide(image, mpp=0.5) as slide:
        centres, _ = spot_tables.read_spots(tmp_path / "t.csv", slide)
    np.testing.assert_array_equal(centres, [[10, 20], [60, 40]])


def test_x_and_y_that_microns_contradict_are_refused(image: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y,x_um,y_um\n1,2,20,9\n2,2,35,9\n")
    with (
        slides.open_slide(image, mpp=0.5) as slide,
        pytest.raises(InputError, match="x/y are up to 68 px from x_um/y_um"),
    ):
        spot_tables.read_spots(tmp_path / "t.csv", slide)


def test_places_of_another_image_are_warned_of(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, is_other in (("b.svs", True), ("image.png", False), ("IMAGE.svs", False)):
        (tmp_path / "t.csv").write_text(f"Image,x,y\n{name},1,2\n{name},30,4\n")
        with slides.open_slide(image) as slide:
            assert len(spot_tables.read_spots(tmp_path / "t.csv", slide)[0]) == 2
        assert ("all places are of the image" in capsys.readouterr().err) == is_other

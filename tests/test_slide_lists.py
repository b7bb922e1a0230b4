"""Slides that are named together: files, folders, patterns, tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import slide_lists
from histospace_tf.data_pipelines.readers.slide_lists import ListedSlide
from histospace_tf.vocabulary import InputError
from made.tissue import write_picture

PICTURE = np.full((16, 16, 3), 200, np.uint8)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three slides in two folders, among other files."""
    for name in ("a.png", "b.png", "more/c.ome.tif"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path.with_suffix(".png"), PICTURE)
        path.with_suffix(".png").rename(path)
    (tmp_path / "scans" / "notes.docx").write_bytes(b"notes")
    (tmp_path / "scans" / "stains.csv").write_text("stain,day\nHE,1\n")
    return tmp_path / "scans"


def names(*paths: Path) -> list[str]:
    return [slide.name for slide in slide_lists.listed(paths)]


def test_folder_gives_its_images_named_below_it_and_passes_other_files_over(scans: Path) -> None:
    assert names(scans) == ["a", "b", "more/c"]


def test_files_and_patterns_give_their_slides_each_once(scans: Path) -> None:
    assert names(scans / "b.png", scans / "a.png", scans / "b.png") == ["b", "a"]
    assert names(scans / "*.png") == ["a", "b"]
    assert names(scans / "[a-c].*") == ["a", "b"]


def test_table_gives_scale_patient_and_spots_of_each_slide(scans: Path) -> None:
    (scans / "spots.csv").write_text("pixel_x,pixel_y\n1,1\n")
    table = scans / "slides.csv"
    (scans / "drawn").mkdir()
    drawn = scans / "drawn/c.xml"
    drawn.write_text("<ASAP_Annotations/>")
    table.write_text(
        "Slide,MPP,patient_id,spots,regions,tissue\na.png,,P1,spots.csv,,\n"
        "more\\c.ome.tif,0.5,NA,,drawn\\c.xml,drawn\\c.xml\n"
    )
    assert slide_lists.listed([table]) == (
        ListedSlide("a", scans / "a.png", None, "P1", scans / "spots.csv"),
        ListedSlide("c", scans / "more/c.ome.tif", 0.5, "", None, drawn, drawn),
    )


def test_rows_that_cannot_be_used_say_why_and_leave_the_rest(scans: Path) -> None:
    table = scans / "slides.csv"
    table.write_text(
        "slide,mpp,spots\na.png,,\nx.svs,,\nb.png,wide,\nmore/c.ome.tif,,none.csv\n,0.5,\n"
    )
    good, *bad = slide_lists.listed([table])
    assert (good.name, good.why_not) == ("a", "")
    for slide, line, words in zip(
        bad,
        (3, 4, 5, 6),
        ("slide 'x.svs' does not exist", "mpp 'wide'", "spots 'none.csv'", "no slide is named"),
        strict=True,
    ):
        assert f"line {line}" in slide.why_not
        assert words in slide.why_not
    table.write_text("slide,regions\na.png,none.geojson\n")
    (slide,) = slide_lists.listed([table])
    assert "regions 'none.geojson' do not exist" in slide.why_not


def test_slides_of_one_name_are_refused_by_name_and_the_rest_is_not(scans: Path) -> None:
    write_picture(scans / "other.png", PICTURE)
    (scans / "more" / "a.png").write_bytes((scans / "a.png").read_bytes())
    one, other, third = slide_lists.listed(
        [scans / "a.png", scans / "more" / "a.png", scans / "other.png"]
    )
    assert str(scans / "more" / "a.png") in one.why_not
    assert str(scans / "a.png") in other.why_not
    assert third.why_not == ""


def test_slide_that_is_listed_with_two_scales_is_refused(scans: Path) -> None:
    table = scans / "slides.csv"
    table.write_text("slide,mpp\na.png,0.5\na.png,0.25\nb.png,0.5\n")
    twice, good = slide_lists.listed([table])
    assert "listed twice" in twice.why_not
    assert good.why_not == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.svs", "does not exist"),
        ("none.csv", "table of slides .* does not exist"),
        ("*.svs", "no slide matches"),
        ("stains.csv", "no column 'slide'; its columns are 'stain', 'day'"),
        ("empty", "holds no image"),
    ],
)
def test_path_that_names_no_slide_is_refused(scans: Path, name: str, words: str) -> None:
    (scans / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        slide_lists.listed([scans / name])


def test_scale_that_is_given_for_all_is_for_files_that_state_none(
    scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = {"a.png": 0.25, "b.png": None}
    monkeypatch.setattr(slides, "stated_mpp", lambda path: stated[path.name])
    with_own, without = slide_lists.listed([scans / "a.png", scans / "b.png"])
    assert (with_own.mpp_or(0.5), without.mpp_or(0.5)) == (None, 0.5)
    assert (with_own.mpp_or(None), without.mpp_or(None)) == (None, None)
    assert dataclasses.replace(with_own, mpp=1.0).mpp_or(0.5) == 1.0  # of a table


def test_one_slide_is_told_from_several(scans: Path) -> None:
    assert slide_lists.is_one_slide(scans / "a.png")
    assert slide_lists.is_one_slide(scans / "absent.svs")
    for several in ("", "*.png", "stains.csv", "absent.csv"):
        assert not slide_lists.is_one_slide(scans / several)

"""The data check: numbers, problems, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from histospace_tf import checking
from histospace_tf.vocabulary import InputError
from made.sections import MadeSection, write_her2st, write_image
from made.sections import made_section as made_section_of
from made.tissue import he_picture, write_picture
from made.visium import made_h5ad, write_run


def made_section(name: str = "A1", patient: str = "A", *, seed: int = 0) -> MadeSection:
    """A sound section whose genes are genes."""
    made = made_section_of(name, patient, seed=seed)
    made.genes = ["ERBB2", "GNAS", "ACTB", "CD74", "FASN"]
    return made


def test_a_sound_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = made_section("B1", "B", seed=1)
    other.genes[0] = "OTHER"
    report = checking.check(write_her2st(tmp_path, made_section("A1", "A"), other))
    assert report.exit_code == 0
    assert (report.layout, report.genes, report.shared_genes) == ("her2st", 6, 4)
    row = report.sections[0]
    assert (row.name, row.patient, row.spots, row.genes) == ("A1", "A", 20, 5)
    assert row.image_px == (300, 260)
    assert row.mpp == pytest.approx(5)
    assert row.spot_pitch_px == pytest.approx(40)
    total = np.array(made_section("A1", "A").counts, float).sum(axis=1)
    assert row.median_counts == np.median(total)
    assert row.overlapping == 20  # every one: tiles of 309 um, 200 um apart
    shown = capsys.readouterr().err
    assert "reading sections" in shown
    assert "drawing" not in shown
    text = report.text()
    assert "2 section(s) of 2 patient(s), 40 spots, 6 genes (4 of them in every section" in text
    assert "300 x 260" in text
    assert text.endswith("Verdict: sound (1 note)")  # whose genes they are
    lines = [line for line in text.splitlines() if line.startswith(("section ", "A1", "B1"))]
    assert len({len(line) for line in lines}) == 1  # columns are aligned


def test_every_bad_section_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    names = ("A1", "B1", "C1", "C2")
    sections = [made_section(name, name[0], seed=seed) for seed, name in enumerate(names)]
    sections[0].counts[0][0] = "-1"
    sections[1].size = (180, 260)
    report = checking.check(write_her2st(tmp_path, *sections), show_progress=False)
    assert report.exit_code == 2
    assert [row.name for row in report.sections] == ["B1", "C1", "C2"]  # what can be shown
    text = report.text()
    assert "section A1: " in text
    assert "'-1' is negative" in text
    assert "section B1: 8 of 20 spots lie outside" in text
    assert "Are the coordinates full-resolution pixels" in text  # what to do
    assert "patient C: has 2 sections ('C1', 'C2')" in text
    assert "unusable until the errors are corrected (2 errors, 2 notes)" in text


def test_warnings_leave_it_usable(tmp_path: Path) -> None:
    made = made_section("A1", "A")
    made.genes = ["1-Mar", *made.genes[1:]]  # what a spreadsheet makes of MARCH1
    report = checking.check(write_her2st(tmp_path, made, made_section("B1", "B", seed=1)))
    assert report.exit_code == 1
    assert "Verdict: usable, with warnings (1 warning, 1 note)" in report.text()


def test_a_folder_without_any_image_cannot_be_trained_on(tmp_path: Path) -> None:
    report = checking.check(write_her2st(tmp_path, made_section(), images=False))
    assert report.exit_code == 2
    assert "no section has an image" in report.text()


def test_one_section_alone_is_warned_of(tmp_path: Path) -> None:
    report = checking.check(write_her2st(tmp_path, made_section()))
    assert report.exit_code == 1
    assert "one section alone" in report.text()


def test_a_folder_whose_sections_are_all_bad_still_gives_a_report(tmp_path: Path) -> None:
    made = made_section()
    made.genes[1] = made.genes[0]
    report = checking.check(write_her2st(tmp_path, made))
    assert (report.exit_code, report.sections, report.genes) == (2, (), 0)
    assert "more than once" in report.text()


def test_json_holds_everything(tmp_path: Path) -> None:
    report = checking.check(write_her2st(tmp_path, made_section()))
    values = json.loads(json.dumps(report.to_json()))
    assert values["sections"][0]["name"] == "A1"
    assert values["sections"][0]["image_px"] == [300, 260]
    assert values["exit_code"] == 1
    assert {problem["severity"] for problem in values["problems"]} == {"warning", "note"}


def test_images_without_counts_have_their_own_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("01_1.png", (30, 20)), ("01_2.png", (40, 20)), ("02_1.png", (20, 20))):
        (tmp_path / "tnbc").mkdir(exist_ok=True)
        write_image(tmp_path / "tnbc" / name, size)
    report = checking.check(tmp_path)
    assert (report.layout, report.exit_code) == ("images", 0)
    (row,) = report.folders
    assert (row.name, row.images, row.sources) == ("tnbc", 3, 2)
    assert (row.smallest_px, row.largest_px) == ((20, 20), (40, 20))
    assert "3 in all, from 2 source(s)" in report.text()
    assert "reading images" in capsys.readouterr().err
    broken = tmp_path / "tnbc" / "01_1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    (tmp_path / "tnbc" / "text.jpg").write_text("no image")
    report = checking.check(tmp_path)
    assert report.exit_code == 2
    assert "01_1.png" in report.text()
    assert "text.jpg" in report.text()
    assert report.folders[0].images == 2
    assert checking.check(tmp_path / "tnbc" / "02_1.png").folders[0].images == 1
    json.dumps(report.to_json())


def test_each_section_is_drawn_where_a_folder_is_named(tmp_path: Path) -> None:
    data = write_her2st(tmp_path / "data", made_section("A1", "A"), made_section("B1", "B", seed=1))
    report = checking.check(data, overlay=tmp_path / "drawn", show_progress=False)
    assert report.exit_code == 0
    assert report.overlays == (tmp_path / "drawn" / "A1.png", tmp_path / "drawn" / "B1.png")
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"A1.png", "B1.png"}
    assert f"Overlays:\n  {tmp_path / 'drawn' / 'A1.png'}" in report.text()
    assert report.to_json()["overlays"][0].endswith("A1.png")
    with pytest.raises(InputError, match="has no spots"):
        checking.check(data / "ST-imgs", overlay=tmp_path / "other")


def test_one_stray_spot_leaves_the_scale_alone_and_is_named(tmp_path: Path) -> None:
    made = made_section("A1", "A")
    x, y = made.pixels[7]
    made.pixels[7] = (x + 110, y)
    report = checking.check(write_her2st(tmp_path / "data", made, made_section("B1", "B", seed=1)))
    assert report.sections[0].mpp == pytest.approx(5)
    problem, species = report.problems
    assert species.message == "human genes (5 of 5 names known)."
    assert (problem.severity, problem.where) == ("warning", "section A1")
    assert "1 of 20 spots stand more than one spot distance from where the array puts them " in (
        problem.message
    )
    assert repr(made.ids[7]) in problem.message
    made.pixels[7] = (x + 9000, y)
    report = checking.check(
        write_her2st(tmp_path / "further", made, made_section("B1", "B", seed=1))
    )
    said = [p for p in report.problems if p.where == "section A1"]
    assert len(said) == 2
    assert all(repr(made.ids[7]) in p.message for p in said)
    assert "left out" in said[0].message


def test_mixed_kinds_of_gene_names_are_unusable(tmp_path: Path) -> None:
    other = made_section("B1", "B", seed=1)
    other.genes = [f"ENSG0000014173{number}.2" for number in range(5)]
    report = checking.check(write_her2st(tmp_path, made_section("A1", "A"), other))
    assert report.exit_code == 2
    assert "'B1' names them by Ensembl ids, section 'A1' by symbols" in report.text()


def test_a_slide_is_reported_with_format_levels_and_scale(test_data: Path) -> None:
    report = checking.check(test_data / "slides" / "CMU-1-Small-Region.svs", show_progress=False)
    (row,) = report.images
    assert (row.kind, row.size_px, row.levels) == ("aperio", (2220, 2967), 1)
    assert row.mpp == pytest.approx(0.499)
    assert 0.2 < row.tissue < 0.8
    assert (report.exit_code, report.problems) == (0, ())
    assert "CMU-1-Small-Region.svs  aperio  2220 x 2967" in report.text()


def test_an_image_that_is_no_h_and_e_is_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "fine.png", (60, 50))
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((50, 60, 3), np.uint8))
    report = checking.check(tmp_path, show_progress=False)
    assert report.exit_code == 2
    assert "black.png: black.png is black" in report.text()
    assert "fine.png: " not in report.text()
    assert "2 of 2 image(s) state no microns per pixel" in report.text()


def test_what_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        checking.check(tmp_path / "gone")
    with pytest.raises(InputError, match="is empty"):
        checking.check(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"'notes\.txt'"):
        checking.check(tmp_path)
    with pytest.raises(InputError, match="no image file"):
        checking.check(tmp_path / "notes.txt")
    write_her2st(tmp_path / "data", made_section())
    with pytest.raises(InputError, match="has one: pass that"):
        checking.check(tmp_path)
    with pytest.raises(InputError, match="no layout 'visum'"):
        checking.check(tmp_path / "data", layout="visum")


def test_overlaps_are_those_of_brute_force() -> None:
    centres = np.random.default_rng(0).uniform(0, 1000, (60, 2))
    for side in (20, 60, 150):
        apart = np.abs(centres[:, None] - centres[None]).max(axis=2)
        np.fill_diagonal(apart, np.inf)
        expected = (apart.min(axis=1) < side).sum()
        assert checking.overlapping_tiles(centres, 0.5, tile_px=side, tile_mpp=0.5) == expected
        halved = checking.overlapping_tiles(centres, 1.0, tile_px=2 * side, tile_mpp=0.5)
        assert halved == expected
    assert checking.overlapping_tiles(centres[:1], 0.5, tile_px=9, tile_mpp=0.5) == 0
    with pytest.raises(ValueError, match="um/px"):
        checking.overlapping_tiles(centres, 0, tile_px=9, tile_mpp=0.5)


def test_real_image_folder(test_data: Path) -> None:
    report = checking.check(test_data / "breast_he")
    assert report.exit_code == 0
    assert {row.name: (row.images, row.sources) for row in report.folders} == {
        "bcss": (3, 3),
        "brecahad": (30, 30),
        "tnbc": (50, 11),
    }


def test_a_run_without_its_image_and_with_it(tmp_path: Path) -> None:
    picture = he_picture(size=(900, 700))
    run = write_run(tmp_path / "S1", picture, image=None)
    report = checking.check(run, show_progress=False)
    assert report.exit_code == 2
    assert "only the hires preview" in report.text()
    image = write_picture(tmp_path / "he.png", picture)
    report = checking.check(run, image=image, show_progress=False)
    assert report.sections[0].image_px == (900, 700)
    assert not [p for p in report.problems if p.severity == "error"]
    black = write_picture(tmp_path / "black.png", np.zeros_like(picture))
    report = checking.check(run, image=black, show_progress=False)
    assert "black.png is black" in report.text()


def test_a_file_of_counts_is_no_image(tmp_path: Path) -> None:
    made_h5ad(he_picture(size=(900, 700))).write_h5ad(tmp_path / "a.h5ad")
    report = checking.check(tmp_path / "a.h5ad", mpp=0.7, show_progress=False)
    assert (report.layout, report.sections[0].mpp) == ("h5ad", 0.7)

"""Readers: what they find, what they skip aloud, what they refuse."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histospace_tf.data_pipelines import readers, slides
from histospace_tf.data_pipelines.readers import legacy_tables
from histospace_tf.data_pipelines.spots import placement
from histospace_tf.vocabulary import InputError
from made.cohorts import messages
from made.sections import (
    GENES,
    PITCH_PX,
    MadeSection,
    gzipped,
    made_section,
    write_her2st,
    write_image,
    write_stnet,
)


def test_her2st_section_is_read_whole(tmp_path: Path) -> None:
    made = made_section("C4", "C")
    cohort = readers.read_cohort(write_her2st(tmp_path, made))
    assert cohort.layout == "her2st"
    assert cohort.problems == ()
    (section,) = cohort.sections
    assert (section.name, section.patient) == ("C4", "C")
    assert section.image == tmp_path / "ST-imgs" / "C" / "C4" / "HE_C4.jpg"
    assert section.spots.names == tuple(made.ids)
    assert section.spots.genes == GENES
    np.testing.assert_array_equal(section.spots.counts.toarray(), np.array(made.counts, float))
    assert section.spots.counts.dtype == np.float32
    np.testing.assert_array_equal(section.spots.centres_px, made.pixels)
    assert section.mpp == pytest.approx(200 / PITCH_PX)
    assert section.spot_pitch_px == pytest.approx(PITCH_PX)
    assert section.spot_diameter_um == 100


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_stnet_section_is_read_whole(tmp_path: Path, line_end: str) -> None:
    made = made_section("C1", "BC23209")
    made.genes = [f"ENSG0000000000{i}" for i in range(5)]
    other = made_section("D1", "BC23209", seed=1)
    cohort = readers.read_cohort(write_stnet(tmp_path, made, other, line_end=line_end))
    assert cohort.layout == "stnet"
    assert cohort.problems == ()
    assert [s.name for s in cohort.sections] == ["BC23209_C1", "BC23209_D1"]
    section = cohort.sections[0]
    assert section.patient == "BC23209"
    assert section.image == tmp_path / "HE_BT23209_C1.jpg"
    assert section.spots.genes == tuple(made.genes)
    np.testing.assert_array_equal(section.spots.counts.toarray(), np.array(made.counts, float))
    np.testing.assert_array_equal(section.spots.centres_px, made.pixels)
    assert section.mpp == pytest.approx(200 / PITCH_PX)


def test_stnet_rows_of_the_whole_array_are_skipped_and_reported(tmp_path: Path) -> None:
    made = made_section("C1", "BC1")
    write_stnet(tmp_path, made)
    keep = made_section("C1", "BC1")
    for values in (keep.array, keep.counts, keep.pixels):
        del values[12:]
    spots = [",X,Y"] + [f"{n},{x},{y}" for n, (x, y) in zip(keep.ids, keep.pixels, strict=True)]
    gzipped(tmp_path / "spots_BT1_C1.csv.gz", "\n".join(spots))
    cohort = readers.read_cohort(tmp_path)
    assert cohort.sections[0].spots.names == tuple(keep.ids)
    assert "8 of 20 rows of counts have no spot in spots_BT1_C1.csv.gz" in messages(cohort, "note")


def test_stnet_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    write_stnet(tmp_path, *(made_section(name, "BC1") for name in ("C1", "C2", "D1")))
    (tmp_path / "BC1_C1_stdata.tsv.gz").unlink()
    (tmp_path / "HE_BT1_C2.jpg").unlink()
    cohort = readers.read_cohort(tmp_path)
    assert [(s.name, s.image is None) for s in cohort.sections] == [
        ("BC1_C2", True),
        ("BC1_D1", False),
    ]
    assert "BC1_C1: metadata.csv names count_matrix 'BC1_C1_stdata.tsv.gz'" in messages(
        cohort, "warning"
    )
    assert "BC1_C2: metadata.csv names histology_image 'HE_BT1_C2.jpg'" in messages(cohort, "note")


def test_stnet_metadata_without_a_column_or_with_a_section_twice_is_refused(
    tmp_path: Path,
) -> None:
    table = write_stnet(tmp_path, made_section("C1", "BC1")) / "metadata.csv"
    text = table.read_text()
    table.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(InputError, match=r"'BC1_C1' .*more than once"):
        readers.read_cohort(tmp_path)
    table.write_text(text.replace("replicate", "section"))
    with pytest.raises(InputError, match="no column 'replicate'"):
        readers.read_cohort(tmp_path)


def test_spots_without_counts_and_rows_without_spots_are_skipped_and_reported(
    tmp_path: Path,
) -> None:
    made = made_section("C4", "C")
    write_her2st(tmp_path, made)
    lines = gzip.decompress((tmp_path / "ST-cnts" / "C4.tsv.gz").read_bytes()).decode().split("\n")
    lines[2:4] = ["9x9\t1\t1\t1\t1\t1"]
    gzipped(tmp_path / "ST-cnts" / "C4.tsv.gz", "\n".join(lines))
    cohort = readers.read_cohort(tmp_path)
    (section,) = cohort.sections
    assert section.spots.names == (made.ids[0], *made.ids[3:])
    np.testing.assert_array_equal(section.spots.centres_px[1], made.pixels[3])
    noted = messages(cohort, "note")
    assert "section C4: 2 of 20 spots have no counts ('2x1', '3x1'): skipped" in noted
    assert "1 of 19 rows of counts have no spot in C4_selection.tsv ('9x9'): skipped" in noted


def test_rows_may_stand_in_any_order(tmp_path: Path) -> None:
    made = made_section()
    shuffled = made_section()
    order = np.random.default_rng(0).permutation(20)
    shuffled.array = [made.array[i] for i in order]
    shuffled.counts = [made.counts[i] for i in order]
    shuffled.pixels = [made.pixels[i] for i in order]
    (a,) = readers.read_cohort(write_her2st(tmp_path / "a", made)).sections
    write_her2st(tmp_path / "b", shuffled)
    shutil.copy(tmp_path / "a" / "ST-spotfiles" / "A1_selection.tsv", tmp_path / "b/ST-spotfiles")
    (b,) = readers.read_cohort(tmp_path / "b").sections
    assert a.spots.names == b.spots.names
    np.testing.assert_array_equal(a.spots.counts.toarray(), b.spots.counts.toarray())


def test_spots_of_zero_counts_and_unselected_spots_are_skipped_and_reported(
    tmp_path: Path,
) -> None:
    made = made_section()
    made.counts[4] = ["0"] * 5
    made.selected = [0, 0, 0] + [1] * 17
    cohort = readers.read_cohort(write_her2st(tmp_path, made))
    (section,) = cohort.sections
    assert section.spots.names == (made.ids[3], *made.ids[5:])
    noted = messages(cohort, "note")
    assert "1 of 17 spots have zero counts in all genes ('5x1'): skipped" in noted
    assert "3 of 20 spots are not selected" in noted


def test_a_section_without_image_is_kept_with_a_note(tmp_path: Path) -> None:
    write_her2st(tmp_path, made_section("A1", "A"))
    cohort = readers.read_cohort(write_her2st(tmp_path, made_section("A2", "A"), images=False))
    assert [s.name for s in cohort.with_image()] == ["A1"]
    assert cohort.sections[1].image is None
    assert cohort.sections[1].mpp == pytest.approx(5)
    assert cohort.patients == ("A",)
    assert "section A2: there is no image" in messages(cohort, "note")


def test_counts_without_spots_are_named(tmp_path: Path) -> None:
    write_her2st(tmp_path, made_section("A1", "A"), made_section("B1", "B"))
    (tmp_path / "ST-spotfiles" / "B1_selection.tsv").unlink()
    cohort = readers.read_cohort(tmp_path)
    assert [s.name for s in cohort.sections] == ["A1"]
    assert "section B1: it has counts and an image but no table in ST-spotfiles" in messages(
        cohort, "warning"
    )


def test_genes_may_differ_between_sections_and_patients_come_from_folders(tmp_path: Path) -> None:
    other = made_section("P2_1", "P2")
    other.genes = ["X", *GENES[1:]]
    cohort = readers.read_cohort(write_her2st(tmp_path, made_section("P1_1", "P1"), other))
    assert cohort.patients == ("P1", "P2")
    assert cohort.sections[1].spots.genes[0] == "X"


def change_counts(cell: str) -> Callable[[MadeSection], None]:
    def change(made: MadeSection) -> None:
        made.counts[6][3] = cell

    return change


def all_zero(made: MadeSection) -> None:
    made.counts = [["0"] * 5 for _ in made.counts]


def twice_a_gene(made: MadeSection) -> None:
    made.genes[4] = "GENE1"


def twice_a_spot(made: MadeSection) -> None:
    made.array[5] = made.array[0]


def off_the_image(made: MadeSection) -> None:
    made.size = (180, 260)


def swapped_pixels(made: MadeSection) -> None:
    made.pixels = [(y, x) for x, y in made.pixels]


def other_resolution(made: MadeSection) -> None:
    made.pixels = [(x / 200, y / 200) for x, y in made.pixels]


def shuffled_pixels(made: MadeSection) -> None:
    order = np.random.default_rng(1).permutation(len(made.pixels))
    made.pixels = [made.pixels[i] for i in order]


def not_a_pixel(made: MadeSection) -> None:
    made.pixels[2] = (float("nan"), 4)


def none_selected(made: MadeSection) -> None:
    made.selected = [0] * len(made.array)


def short_row(made: MadeSection) -> None:
    made.counts[6] = made.counts[6][:3]


BAD_SECTIONS: dict[str, tuple[Callable[[MadeSection], None], str]] = {
    "text": (change_counts("many"), "spot '2x2', gene 'GENE3': 'many' is not a finite number"),
    "missing": (change_counts("NA"), "spot '2x2', gene 'GENE3': 'NA' is not a finite number"),
    "nan": (change_counts("nan"), "spot '2x2', gene 'GENE3': 'nan' is not a finite number"),
    "infinite": (change_counts("inf"), "gene 'GENE3': 'inf' is not a finite number"),
    "negative": (change_counts("-2"), "spot '2x2', gene 'GENE3': '-2' is negative"),
    "all_zero": (all_zero, "all counts in .*A1.tsv.gz' are zero"),
    "gene_twice": (twice_a_gene, r"1 gene\(s\) more than once \(first: 'GENE1'\)"),
    "spot_twice": (twice_a_spot, r"1 spot\(s\) more than once \(first: '1x1'\)"),
    "short_row": (short_row, "line 8, spot '2x2': 3 counts under 5 gene names"),
    "off_image": (off_the_image, r"8 of 20 spots .* 180 x 260 px .*'4x1' at x 180, y 70"),
    "swapped": (swapped_pixels, "x and y look swapped"),
    "resolution": (other_resolution, "a pixel would measure 1e.03 um"),
    "shuffled": (shuffled_pixels, "more than one spot distance"),
    "pixel": (not_a_pixel, "line 4, column pixel_x: 'nan' is not a finite number"),
    "unselected": (none_selected, "none of its 20 spots is selected"),
}


@pytest.mark.parametrize("name", BAD_SECTIONS)
def test_a_bad_section_is_refused_or_listed(tmp_path: Path, name: str) -> None:
    change, message = BAD_SECTIONS[name]
    bad = made_section()
    change(bad)
    write_her2st(tmp_path, bad)
    with pytest.raises(InputError, match=rf"section A1: .*{message}"):
        readers.read_cohort(tmp_path)
    write_her2st(tmp_path, made_section("B1", "B"))
    cohort = readers.read_cohort(tmp_path)
    assert [s.name for s in cohort.sections] == ["B1"]
    assert [(one.name, one.patient) for one in cohort.left_out] == [("A1", "A")]
    (why,) = [str(p) for p in cohort.problems if "is left out; 1 of 2 remain" in str(p)]
    assert re.search(rf"section A1: .*{message}", why)
    listed = readers.read_cohort(tmp_path, strict=False)
    assert {p.where for p in listed.problems if p.severity == "error"} == {"section A1"}
    assert "B1" in [s.name for s in listed.sections]


def test_without_a_sound_section_that_has_an_image_the_first_error_is_raised(
    tmp_path: Path,
) -> None:
    bad = made_section()
    all_zero(bad)
    write_her2st(tmp_path, bad)
    write_her2st(tmp_path, made_section("B1", "B"), images=False)
    with pytest.raises(InputError, match="section A1: all counts"):
        readers.read_cohort(tmp_path)


def test_few_spots_off_the_image_are_left_out_by_name(tmp_path: Path) -> None:
    made = made_section()
    made.pixels[3], made.pixels[11] = (-40, 70), (140, 900)
    cohort = readers.read_cohort(write_her2st(tmp_path, made))
    (section,) = cohort.sections
    assert section.spots.names == tuple(n for n in made.ids if n not in ("4x1", "2x3"))
    said = messages(cohort, "warning")
    assert "2 of 20 spots lie outside the 300 x 260 px image ('4x1', '2x3'; first" in said
    assert "left out" in said


def test_all_errors_of_a_section_are_listed(tmp_path: Path) -> None:
    bad = made_section()
    change_counts("many")(bad)
    write_her2st(tmp_path, bad)
    image = tmp_path / "ST-imgs" / "A" / "A1" / "HE_A1.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    cohort = readers.read_cohort(tmp_path, strict=False)
    assert cohort.sections == ()
    found = messages(cohort, "error")
    assert "HE_A1.jpg' is truncated" in found
    assert "'many'" in found


def test_swapped_columns_of_a_square_array_inside_the_image_are_recognised(tmp_path: Path) -> None:
    made = made_section()
    made.size = (400, 400)
    swapped_pixels(made)
    with pytest.raises(InputError, match="x and y look swapped: the array's x runs along"):
        readers.read_cohort(write_her2st(tmp_path, made))


def test_swapped_array_positions_are_recognised(tmp_path: Path) -> None:
    made = made_section()
    write_her2st(tmp_path, made)
    made.array = [(x + 10, y) for x, y in made.array]
    write_her2st(tmp_path, made)
    made.array = [(y, x) for x, y in made.array]
    (tmp_path / "new").mkdir()
    swapped = write_her2st(tmp_path / "new", made) / "ST-cnts" / "A1.tsv.gz"
    shutil.copy(swapped, tmp_path / "ST-cnts")
    with pytest.raises(InputError, match=r"0 of 20 spots .* and 20 would with x and y exchanged"):
        readers.read_cohort(tmp_path)


def test_an_image_turned_by_a_right_angle_is_no_swap(tmp_path: Path) -> None:
    made = made_section()
    made.size = (400, 400)
    made.pixels = [(y, 399 - x) for x, y in made.pixels]
    (section,) = readers.read_cohort(write_her2st(tmp_path, made)).sections
    assert section.mpp == pytest.approx(5)


def test_a_stray_spot_and_a_smaller_copys_coordinates_are_warned_of(tmp_path: Path) -> None:
    made = made_section()
    made.pixels[7] = (250.0, 20.0)
    cohort = readers.read_cohort(write_her2st(tmp_path / "a", made))
    assert "1 of 20 spots stand more than one spot distance" in messages(cohort, "warning")
    assert "'3x2'" in messages(cohort, "warning")
    made = made_section()
    made.size, made.pixels = (2600, 2400), [(x / 3, y / 3) for x, y in made.pixels]
    cohort = readers.read_cohort(write_her2st(tmp_path / "b", made))
    assert "39 x 36 mm" in messages(cohort, "warning")


def test_values_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    made = made_section()
    change_counts("1.5")(made)
    match = "section A1: .*spot '2x2', gene 'GENE3': '1.5' is not a whole number; raw counts"
    with pytest.raises(InputError, match=match):
        readers.read_cohort(write_her2st(tmp_path, made))


def test_too_few_spots_leave_the_scale_unknown_with_a_warning(tmp_path: Path) -> None:
    made = made_section()
    for values in (made.array, made.counts, made.pixels):
        del values[5:]  # one row of the array
    cohort = readers.read_cohort(write_her2st(tmp_path, made))
    assert cohort.sections[0].mpp is None
    assert "microns per pixel are unknown" in messages(cohort, "warning")


def test_counts_with_spots_as_columns_are_refused(tmp_path: Path) -> None:
    write_her2st(tmp_path, made_section())
    text = "\t1x1\t2x1\t3x1\n1x1\t1\t2\t3\n"
    gzipped(tmp_path / "ST-cnts" / "A1.tsv.gz", text)
    with pytest.raises(InputError, match="transpose it"):
        readers.read_cohort(tmp_path)
    gzipped(tmp_path / "ST-cnts" / "A1.tsv.gz", "\t1x1\t2x1\nACTB\t1\t2\n")
    with pytest.raises(InputError, match="transpose it"):
        readers.read_cohort(tmp_path)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    table = write_her2st(tmp_path, made_section()) / "ST-cnts" / "A1.tsv.gz"
    whole = table.read_bytes()
    for content, message in [
        (whole[: len(whole) // 2], "truncated or damaged"),
        (b"\xff\xd8\xff\xe0" * 50, "is no text"),
        (b"", "is empty"),
        (gzip.compress(b"\tGENE0\n", mtime=0), "holds no spots"),
        (gzip.compress(b"\tGENE0\nACTB\t4\n", mtime=0), "'ACTB' is not a spot's array position"),
        (gzip.compress(b"\tGENE0\n7x77\t4\n", mtime=0), "none of the 20 spots"),
    ]:
        table.write_bytes(content)
        with pytest.raises(InputError, match=rf"A1\.tsv\.gz.*{message}|{message}.*A1\.tsv\.gz"):
            readers.read_cohort(tmp_path)


def test_spot_files_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spots.tsv"
    for text, message in [
        ("a\tb\n1\t2\n", "columns 'a', 'b'; needed are"),
        ("x\ty\tpixel_x\tpixel_y\n", "holds no spots"),
        ("x\ty\tpixel_x\tpixel_y\n1\t2\t3\n", "line 2: 3 fields under 4"),
        ("x\ty\tpixel_x\tpixel_y\n1.5\t2\t3\t4\n", "'1.5x2' is not a spot"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            legacy_tables.read_spots(path)
    with pytest.raises(InputError, match="does not exist"):
        legacy_tables.read_spots(tmp_path / "gone.tsv")


def test_id_forms(tmp_path: Path) -> None:
    path = tmp_path / "spots.csv"
    path.write_text('"X","Y"\r\n"3.0x4.0",10,20\r\n"5x6",1.5,2e1\r\n')
    spots = legacy_tables.read_spots(path)
    assert spots.names == ("3x4", "5x6")
    np.testing.assert_array_equal(spots.array_xy, [[3, 4], [5, 6]])
    np.testing.assert_array_equal(spots.pixel_xy, [[10, 20], [1.5, 20]])


def test_count_headers_with_and_without_an_index_name(tmp_path: Path) -> None:
    for header in ("\tA\tB", "A\tB", "spot\tA\tB", '"A"\t"B"'):
        (tmp_path / "counts.tsv").write_text(header + "\n1x2\t0\t3\n2x2\t1\t0\n")
        counts = legacy_tables.read_counts(tmp_path / "counts.tsv", wanted=["2x2"])
        assert counts.genes == ("A", "B")
        assert (counts.names, counts.others) == (("2x2",), ("1x2",))
        np.testing.assert_array_equal(counts.matrix.toarray(), [[1, 0]])


@pytest.mark.parametrize(
    "text",
    [
        "\tA\tB\n1x2\t0\t3\n2x2\t1\t0\n",
        ";A;B\n1x2;0;3\n2x2;1;0\n",
        "sep=,\n,A,B\r\n1x2,0,3\r\n2x2,1,0\r\n",
        '"A" "B"\n"1x2" 0 3\n"2x2" 1 0\n',
        '"","A","B"\n"1x2","0","3"\n"2x2","1","0"\n',
        "\tA\tB\t\n1x2\t0\t3\t\n2x2\t1\t0\t\n",
        "A\tB\n1x2\t0\t3\t\n2x2\t1\t0\t\n",
        "# counts\n\n\tA\tB\n\n1x2\t0\t3e0\n\t\t\n2.0x2\t1.0\t0\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_count_tables_in_every_dialect(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "counts.txt").write_bytes(text.encode(encoding))
    counts = legacy_tables.read_counts(tmp_path / "counts.txt", wanted=["1x2", "2x2"])
    assert (counts.names, counts.genes) == (("1x2", "2x2"), ("A", "B"))
    np.testing.assert_array_equal(counts.matrix.toarray(), [[0, 3], [1, 0]])


@pytest.mark.parametrize("cell", ["1_0", "0x1", "1,0", "", "1 0"])
def test_cells_that_are_no_counts_are_refused(tmp_path: Path, cell: str) -> None:
    (tmp_path / "counts.tsv").write_text(f"\tA\tB\n1x2\t{cell}\t3\n")
    with pytest.raises(InputError, match=rf"spot '1x2', gene 'A': '{cell}' is not a finite"):
        legacy_tables.read_counts(tmp_path / "counts.tsv", wanted=["1x2"])


@pytest.mark.parametrize(
    "text",
    [
        "X;Y;PIXEL_X;PIXEL_Y;Selected\n3;4;10,5;20;1\n5;6;30;2e1;1\n7;6;1;1;0\n",
        '"x" "y" "pixel_x" "pixel_y" "selected"\n"1" 3 4 10.5 20 TRUE\n"2" 5 6 30 20 TRUE\n'
        '"3" 7 6 1 1 FALSE\n',
        "x,y,pixel_x,pixel_y,selected,\n3,4,10.5,20,yes,\n5.0,6,30,20,yes,\n7,6,1,1,no,\n",
    ],
)
def test_spot_files_in_every_dialect(tmp_path: Path, text: str) -> None:
    (tmp_path / "spots.txt").write_text(text)
    spots = legacy_tables.read_spots(tmp_path / "spots.txt")
    assert (spots.names, spots.unselected) == (("3x4", "5x6"), 1)
    np.testing.assert_array_equal(spots.pixel_xy, [[10.5, 20], [30, 20]])


def test_fit_finds_pitch_residuals_and_transposition() -> None:
    array = np.array([(x, y) for x in range(6) for y in range(4)], float)
    turn = np.deg2rad(10)
    matrix = 30 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    fit = placement.fit_array(array, array @ matrix.T + 7, pitch_um=200)
    assert fit is not None
    assert fit.pitch_px == pytest.approx((30, 30))
    assert fit.mpp == pytest.approx(200 / 30)
    assert not fit.transposed
    np.testing.assert_allclose(fit.residual, 0, atol=1e-9)
    swapped = placement.fit_array(array, (array @ matrix.T)[:, ::-1], pitch_um=200)
    assert swapped is not None
    assert swapped.transposed
    assert placement.fit_array(array[:4], array[:4], pitch_um=200) is None  # one line
    assert placement.fit_array(array[:3], array[:3], pitch_um=200) is None


def test_unknown_layouts_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        readers.read_cohort(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"is a file"):
        readers.read_cohort(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"ST-cnts and ST-spotfiles.*metadata\.csv.*'notes\.txt'"):
        readers.read_cohort(tmp_path)
    with pytest.raises(InputError, match="no layout 'visum'; one of table, her2st, stnet, hest, "):
        readers.read_cohort(tmp_path, layout="visum")
    write_her2st(tmp_path / "data", made_section())
    with pytest.raises(InputError, match=r"data' has one: pass that"):
        readers.read_cohort(tmp_path)
    with pytest.raises(InputError, match=r"not have the layout 'stnet'.*looks like 'her2st'"):
        readers.read_cohort(tmp_path / "data", layout="stnet")
    assert readers.layout_of(tmp_path / "data") == "her2st"
    assert readers.layout_of(tmp_path) is None


def test_a_layout_without_sections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no section"):
        readers.read_cohort(write_her2st(tmp_path))


def test_two_images_or_two_tables_of_a_section_are_refused(tmp_path: Path) -> None:
    write_her2st(tmp_path, made_section())
    write_image(tmp_path / "ST-imgs" / "A" / "A1" / "small.png", (30, 26))
    with pytest.raises(InputError, match=r"2 images: 'ST-imgs/A/A1/HE_A1\.jpg', .*small\.png"):
        readers.read_cohort(tmp_path)
    cohort = readers.read_cohort(tmp_path, strict=False)
    assert "2 images" in messages(cohort, "error")
    (tmp_path / "ST-cnts" / "A1.tsv").write_text("x")
    with pytest.raises(InputError, match="section 'A1' has two tables"):
        readers.read_cohort(tmp_path)


def test_progress_is_reported(tmp_path: Path) -> None:
    write_her2st(tmp_path, made_section("A1", "A"), made_section("B1", "B"))
    told: list[tuple[int, int, str]] = []
    readers.read_cohort(tmp_path, progress=lambda *now: told.append(now))
    assert told == [(0, 2, "A1"), (1, 2, "B1"), (2, 2, "")]


def test_images_are_listed_with_their_sources(tmp_path: Path) -> None:
    for name in ("tnbc/01_1.png", "tnbc/01_2.png", "tnbc/02_1.PNG", "deep/er/10024.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in (".hidden.png", "tnbc/._01_1.png", "notes.txt", "tnbc/table.csv"):
        (tmp_path / name).write_bytes(b"x")
    found = {str(i.path.relative_to(tmp_path)): i.source for i in readers.list_images(tmp_path)}
    assert found == {
        "deep/er/10024.jpg": "deep/er/10024",
        "tnbc/01_1.png": "tnbc/01",
        "tnbc/01_2.png": "tnbc/01",
        "tnbc/02_1.PNG": "tnbc/02",
    }
    assert list(found) == sorted(found)
    (one,) = readers.list_images(tmp_path / "tnbc" / "01_1.png")
    assert one.path.name == "01_1.png"


def test_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        readers.list_images(tmp_path / "gone")
    with pytest.raises(InputError, match="is empty"):
        readers.list_images(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"no image .*'notes\.txt'"):
        readers.list_images(tmp_path)
    with pytest.raises(InputError, match="no image file"):
        readers.list_images(tmp_path / "notes.txt")


def test_real_sections(test_data: Path, tmp_path: Path) -> None:
    for part in ("ST-cnts", "ST-spotfiles"):
        (tmp_path / part).mkdir()
        for name in ("B1", "C4"):
            for file in (test_data / "her2st" / part).glob(f"{name}[._]*"):
                shutil.copy(file, tmp_path / part)
    shutil.copytree(test_data / "her2st" / "ST-imgs" / "C" / "C4", tmp_path / "ST-imgs/C/C4")
    cohort = readers.read_cohort(tmp_path)
    without_image, section = cohort.sections
    assert (without_image.name, without_image.patient) == ("B1", "B")
    assert len(without_image.spots) == 295
    assert (section.name, section.patient, len(section.spots)) == ("C4", "C", 184)
    assert len(section.spots.genes) == 15_842
    assert section.mpp == pytest.approx(0.69, abs=0.01)
    assert "3 of 187 spots have no counts ('17x14', '11x17', '18x20'): skipped" in messages(
        cohort, "note"
    )
    assert {p.severity for p in cohort.problems} == {"note"}


def test_real_images_are_listed(test_data: Path) -> None:
    images = readers.list_images(test_data / "breast_he")
    assert len(images) == 83
    assert len({i.source for i in images if i.source.startswith("tnbc/")}) == 11


def test_one_image_may_have_any_name_and_a_link_to_nowhere_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.png", (20, 10))
    (folder / "a.png").rename(folder / "scan")
    assert [image.path.name for image in readers.list_images(folder / "scan")] == ["scan"]
    write_image(folder / "b.png", (20, 10))
    (folder / "c.png").symlink_to("nowhere.png")
    (folder / "d.png").mkdir()
    assert [image.path.name for image in readers.list_images(folder)] == ["b.png", "c.png"]
    with pytest.raises(InputError, match=r"c\.png' does not exist"):
        slides.open_slide(folder / "c.png")

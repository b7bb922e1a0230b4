"""Labels of a pathologist: which spot they go to, what is said aloud, what is refused."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.readers import label_files
from histospace_tf.vocabulary import InputError, Section
from made.sections import gzipped, made_section, only_b1, write_her2st, write_stnet

HEADER = "Row.names\tx\ty\tpixel_x\tpixel_y\tlabel"


def her2st_section(
    folder: Path, rows: Sequence[str], *, header: str = HEADER, line_end: str = "\n"
) -> Section:
    """A made section of 5 x 4 spots (1x1 to 5x4), and a label file of these rows."""
    write_her2st(folder, made_section("B1", "B"), images=False)
    (folder / "ST-pat" / "lbl").mkdir(parents=True, exist_ok=True)
    path = folder / "ST-pat" / "lbl" / "B1_labeled_coordinates.tsv"
    path.write_bytes((line_end.join([header, *rows]) + line_end).encode())
    (section,) = readers.read_cohort(folder).sections
    return section


def row(x: object, y: object, label: str) -> str:
    return f"10x20\t{x}\t{y}\t10.5\t20.5\t{label}"


def every_row(section_ids: Sequence[str], label: str = "rest") -> list[str]:
    return [row(float(x), float(y), label) for x, y in (name.split("x") for name in section_ids)]


def read(folder: Path, section: Section, layout: str = "her2st") -> label_files.SpotLabels:
    found = label_files.read_labels(folder, section, layout=layout)
    assert found is not None
    return found


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_spot_gets_the_label_of_its_array_position(tmp_path: Path, line_end: str) -> None:
    rng = np.random.default_rng(0)
    ids = made_section().ids
    moved = [np.array(name.split("x"), float) + rng.uniform(-0.45, 0.45, 2) for name in ids]
    rows = [row(f"{x:.3f}", f"{y:.3f}", f"l{n}") for n, (x, y) in zip(ids, moved, strict=True)]
    rng.shuffle(rows)
    section = her2st_section(tmp_path, rows, line_end=line_end)
    found = read(tmp_path, section)
    assert found.spots == section.spots.names
    assert found.labels == tuple(f"l{name}" for name in section.spots.names)
    assert found.problems == ()
    assert found.positive == "invasive cancer"


def test_spots_without_a_label_and_labels_without_a_spot_are_reported(tmp_path: Path) -> None:
    rows = [*every_row(made_section().ids[3:]), row(9.1, 9.2, "rest"), row("NA", "NA", "rest")]
    rows += [row(1.0, 1.0, "")]
    found = read(tmp_path, her2st_section(tmp_path, rows))
    assert found.labels[:3] == ("", "", "")
    assert set(found.labels[3:]) == {"rest"}
    said = "\n".join(str(problem) for problem in found.problems)
    assert "2 of 20 rows of B1_labeled_coordinates.tsv have no coordinates or no label" in said
    assert "1 of 18 labels in B1_labeled_coordinates.tsv have no spot (first at x 9.1" in said
    assert "3 of 20 spots have no label" in said
    assert "'1x1', '2x1', '3x1'" in said


def test_of_two_labels_for_a_spot_the_nearer_one_is_taken_with_a_warning(tmp_path: Path) -> None:
    rows = [row(2.4, 3.0, "far"), row(2.1, 3.0, "near"), row(1.7, 3.0, "farther")]
    section = her2st_section(tmp_path, rows)
    found = read(tmp_path, section)
    assert found.labels[section.spots.names.index("2x3")] == "near"
    assert any("more than one label for 2 spot(s)" in str(p) for p in found.problems)


def test_a_label_more_than_half_a_step_away_is_no_neighbours(tmp_path: Path) -> None:
    """The right-hand neighbour's spot is missing: its label must not go to the spot beside it."""
    rows = [row(5.0, 1.0, "mine"), row(5.6, 1.0, "the missing 6x1's")]
    section = her2st_section(tmp_path, rows)
    assert Counter(read(tmp_path, section).labels) == {"": 19, "mine": 1}


def test_a_table_written_without_a_name_for_its_index_is_read(tmp_path: Path) -> None:
    section = her2st_section(
        tmp_path, [row(1.0, 1.0, "invasive cancer")], header=HEADER.removeprefix("Row.names\t")
    )
    assert read(tmp_path, section).labels[0] == "invasive cancer"


def test_stnets_five_columns_under_four_names_are_read(tmp_path: Path) -> None:
    """Coordinates that are not whole, CR line ends: as `made_sections` writes them."""
    write_stnet(tmp_path, made_section("C1", "BC1"))
    (section,) = readers.read_cohort(tmp_path).sections
    lines = ["x\ty\tlab\ttumor"]
    for name in section.spots.names:
        x, y = name.split("x")
        lines.append(f"BC1_{name}\t{x}.04\t{y}\t1\t{'tumor' if x == '2' else 'non'}")
    gzipped(tmp_path / "BC1_C1_Coords.tsv.gz", "\r".join(lines) + "\r")
    found = read(tmp_path, section, "stnet")
    assert found.labels == tuple("tumor" if n[0] == "2" else "non" for n in found.spots)
    assert found.positive == "tumor"


def test_stnets_other_labels_are_refused(tmp_path: Path) -> None:
    write_stnet(tmp_path, made_section("C1", "BC1"))
    (section,) = readers.read_cohort(tmp_path).sections
    gzipped(tmp_path / "BC1_C1_Coords.tsv.gz", "x\ty\tlab\tt\n1x1\t1\t1\t1\tperhaps\n")
    with pytest.raises(InputError, match="'perhaps' in its fifth column; 'tumor' and 'non'"):
        label_files.read_labels(tmp_path, section, layout="stnet")


def test_sections_without_a_label_file_have_no_labels(tmp_path: Path) -> None:
    write_her2st(tmp_path / "h", made_section("C4", "C"))
    (section,) = readers.read_cohort(tmp_path / "h").sections
    assert label_files.label_file(tmp_path / "h", "C4", layout="her2st") is None
    assert label_files.read_labels(tmp_path / "h", section, layout="her2st") is None
    write_stnet(tmp_path / "s", made_section("C1", "BC1"))
    table = tmp_path / "s" / "metadata.csv"
    table.write_text(table.read_text().replace("BC1_C1_Coords.tsv.gz", ""))
    assert label_files.label_file(tmp_path / "s", "BC1_C1", layout="stnet") is None


def test_a_file_that_metadata_names_and_that_is_missing_is_refused(tmp_path: Path) -> None:
    write_stnet(tmp_path, made_section("C1", "BC1"))
    (tmp_path / "BC1_C1_Coords.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"'BC1_C1'.*BC1_C1_Coords.*is not in the folder"):
        label_files.label_file(tmp_path, "BC1_C1", layout="stnet")


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout 'visium'; her2st, stnet work"):
        label_files.label_file(tmp_path, "C4", layout="visium")


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("Row.names\tx\ty\ttext", ["a\t1\t1\tb"], "no column 'label'"),
        (HEADER, [row(1, 1, "a"), "a\t1\t1"], "line 3: 3 fields under 6 column names"),
        (HEADER, [row("one", 1, "a")], "line 2: 'one' is not a coordinate"),
        (HEADER, [row(1, 1, "")], "holds no labels"),
        (HEADER, [], "holds no labels"),
        (HEADER, [row(100, 200, "a")], r"none of the 1 labels .* lies at one of its 20 spots"),
    ],
)
def test_damaged_label_files_are_refused(
    tmp_path: Path, header: str, rows: list[str], message: str
) -> None:
    section = her2st_section(tmp_path, rows, header=header)
    with pytest.raises(InputError, match=message):
        label_files.read_labels(tmp_path, section, layout="her2st")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "as text"),
        (gzip.compress(b"a", mtime=0)[:-4], "damaged"),
    ],
)
def test_unreadable_label_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    section = her2st_section(tmp_path, [row(1, 1, "a")])
    (tmp_path / "ST-pat" / "lbl" / "B1_labeled_coordinates.tsv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        label_files.read_labels(tmp_path, section, layout="her2st")


def test_spots_that_are_not_named_by_array_position_are_refused(tmp_path: Path) -> None:
    from made.tissue import section as barcoded

    her2st_section(tmp_path, [row(1, 1, "a")])
    with pytest.raises(InputError, match="'s0' is not named by its array position"):
        label_files.read_labels(tmp_path, barcoded("B1", "B"), layout="her2st")


def test_her2sts_section_b1_is_labelled_at_all_295_spots(test_data: Path, tmp_path: Path) -> None:
    """Against the file's own key: the spot file's new_x and new_y are the labels' x and y."""
    folder = only_b1(test_data / "her2st", tmp_path)
    (section,) = readers.read_cohort(folder).sections
    found = read(folder, section)
    assert found.problems == ()
    spots = [
        line.split("\t")
        for line in (folder / "ST-spotfiles" / "B1_selection.tsv").read_text().splitlines()[1:]
    ]
    place_of = {f"{s[0]}x{s[1]}": (float(s[2]), float(s[3])) for s in spots}
    lines = (folder / "ST-pat" / "lbl" / "B1_labeled_coordinates.tsv").read_text().splitlines()
    label_at = {(float(r[1]), float(r[2])): r[5] for r in (line.split("\t") for line in lines[1:])}
    assert found.labels == tuple(label_at[place_of[name]] for name in section.spots.names)
    assert Counter(found.labels) == {
        "connective tissue": 95,
        "adipose tissue": 70,
        "invasive cancer": 63,
        "breast glands": 41,
        "undetermined": 26,
    }

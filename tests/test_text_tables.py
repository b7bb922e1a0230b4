"""Text tables in the dialects that spreadsheets, R, QuPath and pandas write.

pandas, told the dialect, says what is right.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histospace_tf.data_pipelines import text_files, text_records, text_tables
from histospace_tf.vocabulary import InputError

FRAME = pd.DataFrame(
    {
        "spot": ["007", "NA", 'a "b", c', "Müller; 1"],
        "pixel_x": [12.5, 1e3, 0.25, 7.0],
        "pixel_y": [1.0, 20.75, 3e-2, 400.5],
    }
)
DIALECTS: dict[str, tuple[dict[str, Any], str]] = {
    f"{name}-{end}-{encoding}": (
        {"sep": separator, "lineterminator": ends, "decimal": decimal},
        encoding,
    )
    for name, separator, decimal in (
        ("comma", ",", "."),
        ("comma_decimal_comma", ",", ","),
        ("tab", "\t", "."),
        ("tab_decimal_comma", "\t", ","),
        ("semicolon", ";", "."),
        ("semicolon_decimal_comma", ";", ","),
        ("bar", "|", "."),
        ("blank", " ", "."),
    )
    for end, ends in (("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r"))
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252")
}


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same_table(tmp_path: Path, dialect: str) -> None:
    options, encoding = DIALECTS[dialect]
    quoting = 1 if options["sep"] == "," and options["decimal"] == "," else 0
    path = written(
        tmp_path / "t.txt", FRAME.to_csv(index=False, quoting=quoting, **options), encoding
    )
    table = text_tables.read_table(path, "table")
    assert table.columns == ("spot", "pixel_x", "pixel_y")
    assert table.texts("spot") == list(FRAME["spot"])
    np.testing.assert_array_equal(
        table.numbers(["pixel_y", "pixel_x"]), FRAME[["pixel_y", "pixel_x"]]
    )
    assert bool(table.notes) == (encoding == "cp1252")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("header", ["unnamed", "one_fewer"])
def test_row_names_without_a_column_name_move_no_column(
    tmp_path: Path, separator: str, header: str
) -> None:
    frame = FRAME.drop(columns="spot").set_axis(list("wxyz"))
    for quoted in (False, True):
        lines = frame.to_csv(sep=separator, header=False).splitlines()
        if quoted:
            lines = [f'"{line[0]}"{line[1:]}' for line in lines]
        first = ['""'] * (header == "unnamed") + list(frame.columns)
        path = written(tmp_path / "t", "\n".join([separator.join(first), *lines]))
        table = text_tables.read_table(path, "table")
        assert table.row_names == ("w", "x", "y", "z")
        np.testing.assert_array_equal(table.numbers(["pixel_x", "pixel_y"]), frame)


@pytest.mark.parametrize("first", ["1", '"1"', '"7"'])
def test_numbers_before_a_row_are_names_where_r_counts_or_quotes_them(
    tmp_path: Path, first: str
) -> None:
    rows = [[10, 20], [11, 21], [12, 22]]
    names = [first.replace("1", str(i)).replace("7", str(7 * i)) for i in (1, 2, 3)]
    lines = [f"{name} {x} {y}" for name, (x, y) in zip(names, rows, strict=True)]
    table = text_tables.read_table(written(tmp_path / "t", "\n".join(["x y", *lines])), "table")
    assert table.row_names == tuple(name.strip('"') for name in names)
    np.testing.assert_array_equal(table.numbers(["x", "y"]), rows)


def test_what_stands_around_the_rows_is_no_row(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.csv",
        '\n# made by hand, a "note\nname;x ;\u00a0y\n\na;1;2\n;;\n# b;3;4\n\u200bc\u00a0;5;6\n \n',
    )
    table = text_tables.read_table(path, "table")
    assert table.columns == ("name", "x", "y")
    assert table.texts("name") == ["a", "c"]
    assert table.lines == (5, 8)
    assert "1 line(s) below the first row begin with #" in table.notes[0]
    assert "line 7" in table.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nx;y\n1;2\n",
        '"sep=;"\r\nx;y\r\n1;2\r\n',
        "x,y\n1,2,\n",
        "x,y,\n1,2,\n",
        "x,y,,\n1,2,,\n",
        "x,y\n1,2,,,\n",
        '="x",="y"\n="1",="2"\n',
        " x , y \n 1 , 2 \n",
        "x   y\n1 2\n",
        "# x y\n1 2\n",
        "# x,y\n1,2\n",
        "#x,y\n1,2\n",
        "x\ty\r\n1\t2\r\n\x1a",
    ],
)
def test_delimiters_of_empty_columns_are_ignored(tmp_path: Path, text: str) -> None:
    table = text_tables.read_table(written(tmp_path / "t", text), "table")
    assert table.columns == ("x", "y")
    np.testing.assert_array_equal(table.numbers(["x", "y"]), [[1, 2]])


def test_fields_hold_delimiters_line_ends_and_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", 'name,x\n"a\nb, ""c""",1\nd,2\n')
    table = text_tables.read_table(path, "table")
    expected = pd.read_csv(path, dtype=str)
    assert table.texts("name") == list(expected["name"])
    assert table.lines == (2, 4)


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(b"x,y\n1,2\n"))
    assert text_tables.read_table(path, "table").cells == (("1", "2"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n3\n", "line 3: 1 fields under 2 column names"),
        ("x,y\n1,2\n3,4,5\n", "line 3: 3 fields under 2 column names"),
        ("x,y\n1,5,2,5\n", "decimal comma, needs quotes"),
        ("x,y\n10,20,a\n11,21,b\n", "line 2: 3 fields under 2 .*'10' is no row's name"),
        ("x,y\n10,20,300\n11,21,301\n", "'10' is no row's name"),
        ("x,y\n1,5,300\n2,5,301\n3,5,302\n", "'1' is no row's name.*a decimal comma"),
        ("x y\n1 20 300\n2 21 301\n", "'1' is no row's name"),
        ("name,x,y\na,10,20,300\nb,11,21,301\n", "'a' is no row's name"),
        ("x,y\na,10,20\na,11,21\n", "'a' is no row's name"),
        ("section,path\na,b,c\n", "'a' is no row's name"),
        ("kind,x\na,b,10\n", "'a' is no row's name"),
        ('"name","x"\n"a",10,20\n', "'a' is no row's name"),
        ("x,y,x\n1,2,3\n", "'x'.*leave or rename"),
        ('x,y\n"1,2\n', "is a quote left open"),
        ("a;b,c\n1;2,3\n", "semicolons or commas between its fields"),
        ("# x\n# y\n", "comments"),
        ("", "is empty"),
        (" \n\n", "is empty"),
    ],
)
def test_tables_that_can_be_read_in_two_ways_or_none_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=rf"table '.*t\.csv'.*{message}"):
        text_tables.read_table(written(tmp_path / "t.csv", text), "table")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1.5", ""], "line 3, column x: '' is empty"),
        (["1.5", "nan"], "'nan' is not a finite number"),
        (["1.5", "-inf"], "'-inf' is not a finite number"),
        (["1.5", "1e999"], "'1e999'"),
        (["1,234.5", "2"], "line 2, column x: '1,234.5' is not a number with thousands"),
        (["1.234.567", "2"], "thousands"),
        (["1 234", "2"], "thousands"),
        (["1_000", "2"], "'1_000' is not a number"),
        (["0x1A", "2"], "is not a number"),
        (["1,234", "5"], "'1,234' may be 1.234 or 1234"),
        (["1,5", "2.5"], "'1,5' has a comma and '2.5' a point"),
    ],
)
def test_cells_that_are_no_numbers_are_refused(
    tmp_path: Path, cells: list[str], message: str
) -> None:
    path = written(tmp_path / "t.csv", "x;y\n" + "".join(f"{cell};0\n" for cell in cells))
    with pytest.raises(InputError, match=message):
        text_tables.read_table(path, "table").numbers(["x", "y"])


def test_numbers_with_one_decimal_mark_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "x;y\n1,234;+2\n0,5;-1,5E-2\n,5;7,\n")
    found = text_tables.read_table(path, "table").numbers(["x", "y"])
    np.testing.assert_allclose(found, [[1.234, 2], [0.5, -0.015], [0.5, 7]])


def test_flags_in_every_form(tmp_path: Path) -> None:
    forms = ["TRUE", "False", "t", "F", "yes", "NO", "1", "0", "1.0", "0,0"]
    path = written(tmp_path / "t.csv", "in_tissue;n\n" + "".join(f"{f};1\n" for f in forms))
    assert text_tables.read_table(path, "table").flags("in_tissue").tolist() == [True, False] * 5
    for bad in ("2", "NA", "", "maybe"):
        written(path, f"in_tissue;n\n1;1\n{bad};1\n")
        with pytest.raises(InputError, match=f"line 3, column in_tissue: '{bad}'"):
            text_tables.read_table(path, "table").flags("in_tissue")


def test_columns_are_found_whatever_programs_do_to_their_names(tmp_path: Path) -> None:
    for name in ("Centroid X µm", "centroid.x.um", "Centroid X (μm)", "CENTROID_X_UM"):
        table = text_tables.read_table(written(tmp_path / "t", f"a\t{name}\n1\t2\n"), "table")
        assert table.column("centroid_x_um") == name
        assert table.column("centroid_y_um") is None
    table = text_tables.read_table(written(tmp_path / "t", "x,X\n1,2\n"), "table")
    with pytest.raises(InputError, match="2 columns for 'x': 'x', 'X'"):
        table.column("x")


def workbook(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")  # of no time: ids of tests never change
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (workbook("xl/workbook.xml"), "an Excel workbook .*save it as CSV"),
        (workbook("mimetype"), "an OpenDocument spreadsheet"),
        (workbook("a.csv"), "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0" + bytes(9), "an Excel workbook"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'{"type": "FeatureCollection"}', "JSON"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (gzip.compress(b"X\n\0\0\0\x03", mtime=0), "an R object"),
        (b"a,b\n1,\x002\n", "binary zeros"),
        (b"a,b\n1,\x02\n", "control character"),
        (b"\x81\x8d\x8f", "neither UTF-8 nor Windows-1252"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-6], "truncated or damaged"),
        (b"\xff\xfea", "begins as UTF-16"),
    ],
)
def test_files_that_are_no_text_are_refused_by_what_they_are(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"table '.*t\.csv'.*{message}"):
        text_records.read_records(tmp_path / "t.csv", "table")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        text_files.read_lines(tmp_path / "gone", "table")
    with pytest.raises(InputError, match="cannot be read"):
        text_files.read_lines(tmp_path, "table")

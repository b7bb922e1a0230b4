"""Spot positions as Space Ranger, R and Seurat write them; pandas says what is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.readers import position_tables
from histospace_tf.vocabulary import InputError
from made import visium as made_visium


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return made_visium.made_picture()


SEURAT = ["barcode", "tissue", "row", "col", "imagerow", "imagecol"]


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (None, {"sep": ";"}),
        (None, {"sep": "\t"}),
        (None, {"sep": ";", "decimal": ","}),
        (None, {"lineterminator": "\r\n", "encoding": "utf-8-sig"}),
        (None, {"lineterminator": "\r"}),
        (None, {"encoding": "utf-16", "sep": "\t"}),
        (None, {"compression": "gzip"}),
        (lambda t: t.set_axis(range(1, len(t) + 1)), {"index": True, "quoting": 2}),
        (lambda t: t.set_axis(SEURAT, axis=1), {}),
        (lambda t: t.set_axis(SEURAT, axis=1).set_index("barcode"), {"index_label": ""}),
        (lambda t: t.assign(in_tissue=t["in_tissue"].map({1: "TRUE", 0: "FALSE"})), {}),
        (lambda t: t[t.columns[::-1]], {}),
        (lambda t: t.assign(extra="x"), {}),
        (lambda t: t[::-1], {"header": False}),
        (lambda t: t.assign(empty=""), {"header": False}),
    ],
)
def test_positions_as_other_hands_leave_them(
    tmp_path: Path,
    picture: np.ndarray,
    change: Callable[[pd.DataFrame], pd.DataFrame] | None,
    options: dict[str, Any],
) -> None:
    spots = made_visium.made_spots(picture).drop(columns="total")
    table = spots if change is None else change(spots)
    file = tmp_path / "positions"
    table.to_csv(file, **{"index": "index_label" in options, **options})
    found = position_tables.read_positions(file)
    expected = spots.set_index("barcode").loc[list(found.barcodes)]
    assert set(found.barcodes) == set(spots["barcode"])
    np.testing.assert_array_equal(found.in_tissue, expected["in_tissue"] == 1)
    np.testing.assert_array_equal(found.array_xy, expected[["array_col", "array_row"]])
    pixels = expected[["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    np.testing.assert_array_equal(found.pixel_xy, pixels)


def test_lines_that_are_left_out_are_reported(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, positions="csv")
    file = run / "spatial" / "tissue_positions.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:5], "#" + lines[5], *lines[6:]]))
    said = "\n".join(map(str, readers.read_cohort(run).problems))
    assert "tissue_positions.csv: 1 line(s) below the first row begin with #" in said


def test_positions_in_another_order_without_a_header_are_refused(
    tmp_path: Path, picture: np.ndarray
) -> None:
    spots = made_visium.made_spots(picture).drop(columns="total")
    file = tmp_path / "positions.csv"
    spots[["in_tissue", *spots.columns.drop("in_tissue")]].to_csv(file, header=False, index=False)
    with pytest.raises(InputError, match=r"line 1: .* without a header, the columns must be"):
        position_tables.read_positions(file)


@pytest.mark.parametrize("header", [True, False])
def test_exchanged_array_rows_and_columns_are_refused(
    tmp_path: Path, picture: np.ndarray, header: bool
) -> None:
    spots = made_visium.made_spots(picture).drop(columns="total")
    pairs = [["array_row", "array_col"], ["pxl_row_in_fullres", "pxl_col_in_fullres"]]
    for pair in pairs:
        spots[pair] = spots[pair[::-1]].to_numpy()
    file = tmp_path / "positions.csv"
    spots.to_csv(file, header=header, index=False)
    with pytest.raises(InputError, match="array rows and columns look exchanged"):
        position_tables.read_positions(file)


def test_two_files_of_positions_must_agree(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, positions="csv")
    spots = pd.read_csv(run / "spatial" / "tissue_positions.csv")
    other = run / "spatial" / "tissue_positions_list.csv"
    spots[::-1].round().to_csv(other, header=False, index=False)
    assert readers.read_cohort(run).sections
    for column, message in (
        ("in_tissue", r"in_tissue of \d+ of \d+ spots"),
        ("array_row", "array positions of"),
        ("pxl_col_in_fullres", "pixels of .*: .* against"),
        ("barcode", "stand in one alone"),
    ):
        changed = spots.copy()
        more = "x" if column == "barcode" else 40
        changed[column] = 1 - spots[column] if column == "in_tissue" else spots[column] + more
        changed.to_csv(other, header=False, index=False)
        with pytest.raises(
            InputError, match=rf"tissue_positions\.csv and tissue_positions_list\.csv.*{message}"
        ):
            readers.read_cohort(run)

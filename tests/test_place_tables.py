"""Tables of places: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from histospace_tf import place_tables
from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((50, 80, 3), np.uint8))
    return tmp_path / "image.png"


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("columns", place_tables.CENTRE_COLUMNS)
def test_centres_and_names_are_read(
    image: Path, tmp_path: Path, separator: str, columns: tuple[str, str]
) -> None:
    lines = [["barcode", "other", *columns], ["a", "1", "10", "20.5"], ["b", "2", "79", "0"]]
    (tmp_path / "t.csv").write_text("\n".join(separator.join(line) for line in lines))
    with slides.open_slide(image) as slide:
        centres, names = place_tables.read_places(tmp_path / "t.csv", slide)
    np.testing.assert_array_equal(centres, [[10, 20.5], [79, 0]])
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pixel_x,pixel_y\n1e6,5\n", "outside the"),
        ("pixel_x,pixel_y\nfive,5\n", "no number"),
        ("a,b\n1,2\n", "pixel_x and pixel_y"),
        ("spot,x,y\np,5,5\np,9,9\n", "not unique"),
    ],
)
def test_bad_spot_tables_are_refused(image: Path, tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "spots.csv"
    table.write_text(text)
    with slides.open_slide(image) as slide, pytest.raises(InputError, match=message):
        place_tables.read_places(table, slide)

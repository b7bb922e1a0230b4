"""Tables of bulk expression: units, patients, images, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.readers import bulk_tables
from histospace_tf.vocabulary import InputError

TABLE = "slide,patient,GNAS,ERBB2\na,P1,3,1\nb.svs,P1,0,8\nc,P2,5,5\n"


def written(folder: Path, text: str = TABLE) -> Path:
    path = folder / "bulk.csv"
    path.write_text(text)
    return path


def images(folder: Path, *names: str) -> tuple[readers.ImageFile, ...]:
    for name in names:
        path = folder / "slides" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return readers.list_images(folder / "slides")


def test_a_row_is_a_slide_and_a_column_a_gene(tmp_path: Path) -> None:
    table = bulk_tables.read(written(tmp_path), unit="counts")
    assert table.slides.names == ("a", "b.svs", "c")
    assert table.slides.genes == ("GNAS", "ERBB2")
    assert table.patients == ("P1", "P1", "P2")
    np.testing.assert_array_equal(table.slides.counts.toarray(), [[3, 1], [0, 8], [5, 5]])
    assert table.problems == ()


@pytest.mark.parametrize(("unit", "base"), [("log2", 2), ("ln", np.e), ("log10", 10)])
def test_logarithms_are_undone(tmp_path: Path, unit: str, base: float) -> None:
    logs = np.log1p([[3.5, 0.0], [250.0, 7.25]]) / np.log(base)
    rows = "\n".join(f"s{i},{a!r},{b!r}" for i, (a, b) in enumerate(logs.tolist()))
    table = bulk_tables.read(written(tmp_path, f"slide,A,B\n{rows}\n"), unit=unit)
    np.testing.assert_allclose(
        table.slides.counts.toarray(), [[3.5, 0.0], [250.0, 7.25]], rtol=1e-5, atol=1e-6
    )


def test_without_patients_every_slide_is_one_with_a_warning(tmp_path: Path) -> None:
    table = bulk_tables.read(written(tmp_path, "slide,A\na,1.5\nb,2\n"), unit="linear")
    assert table.patients == ("a", "b")
    (problem,) = table.problems
    assert "every slide is taken for a patient of its own" in str(problem)


def test_one_patient_in_two_spellings_is_one_with_a_warning(tmp_path: Path) -> None:
    table = bulk_tables.read(written(tmp_path, TABLE.replace("b.svs,P1", "b.svs,p-1")), unit="ln")
    assert table.patients == ("P1", "P1", "P2")
    assert "taken for one, 'P1'" in str(table.problems[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene,a,b\nGNAS,1,2\n", "has a column 'gene', so genes in rows.*transpose"),
        ("A,B\n1,2\n", "no column 'slide'"),
        ("slide,patient\na,P\n", "no column of a gene"),
        ("slide,A\n", "no row"),
        ("slide,A\n,1\n", "line 2: the slide's name is empty"),
        ("slide,A\na,1\nb,2\na,3\n", "line 4: slide 'a' has a row already, in line 2"),
        ("slide,A,A\na,1,2\n", r"line 1: 1 column name\(s\).*'A'"),
        ("slide,A,B\na,1,2\nb,1,-2\n", "line 3: slide 'b', gene 'B' is -2; no expression is below"),
        ("slide,A,B\na,1,2.5\n", "slide 'a', gene 'B' is 2.5; whole numbers are raw.*`bulk_unit`"),
        ("slide,A,B\na,1,NaN\n", "line 2, column B: 'NaN' is not a finite number"),
        ("slide,A,B\na,1,\n", "line 2, column B: '' is empty"),
        ("slide,A,B\na,1,1\nb,0,0\n", "line 3: slide 'b' has no expression"),
        ("slide,patient,A\na,P,1\nb,NA,1\n", "line 3: slide 'b' has no patient"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_by_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        bulk_tables.read(written(tmp_path, text), unit="counts")
    assert "bulk.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_unit_a_missing_file_and_logarithms_of_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`bulk_unit` 'tpm': one of counts, linear"):
        bulk_tables.read(written(tmp_path), unit="tpm")
    with pytest.raises(InputError, match=r"nowhere\.csv' does not exist"):
        bulk_tables.read(tmp_path / "nowhere.csv", unit="counts")
    counts = written(tmp_path, "slide,A\na,5000\n")
    with pytest.raises(InputError, match="slide 'a', gene 'A' is 5000; as `bulk_unit` log2"):
        bulk_tables.read(counts, unit="log2")


def test_slides_are_found_by_their_files_names_with_the_suffix_or_without(tmp_path: Path) -> None:
    table = bulk_tables.read(written(tmp_path), unit="counts")
    known = images(tmp_path, "c.ome.tif", "a.jpg", "deeper/b.svs", "other.png")
    chosen, (warning,) = bulk_tables.matched(table, known)
    assert {name: path.name for name, path in chosen.items()} == {
        "a": "a.jpg",
        "b.svs": "b.svs",
        "c": "c.ome.tif",
    }
    assert "1 of 4 images have no row and are left out: 'other.png'" in str(warning)


@pytest.mark.parametrize(
    ("text", "files", "message"),
    [
        (TABLE, ("a.jpg", "c.jpg"), r"no image is named as slide 'b\.svs'; images are 'a\.jpg'"),
        (TABLE, ("a.jpg", "x/a.png", "b.svs", "c.jpg"), "slide 'a' may be .*a.jpg"),
        (TABLE.replace("c,", "a.jpg,"), ("a.jpg", "b.svs"), "slides 'a', 'a.jpg' are one image"),
        ("slide,a,b\nGNAS,1,2\n", ("a.jpg", "b.jpg"), "slides in columns and genes in rows"),
    ],
)
def test_slides_without_one_image_each_are_refused(
    tmp_path: Path, text: str, files: tuple[str, ...], message: str
) -> None:
    table = bulk_tables.read(written(tmp_path, text), unit="counts")
    with pytest.raises(InputError, match=message):
        bulk_tables.matched(table, images(tmp_path, *files))

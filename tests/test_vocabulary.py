"""The nouns: what they refuse when made, and that they survive JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.vocabulary import (
    Cohort,
    InputError,
    Problem,
    Section,
    SpotTable,
    StainReference,
    named,
    repeats,
)


def made_table(**changes: Any) -> SpotTable:
    values: dict[str, Any] = {
        "names": ("1x1", "1x2", "2x1"),
        "centres_px": np.array([[10.0, 20], [30, 40], [50, 60]]),
        "counts": sparse.csr_matrix(np.array([[1, 0], [0, 2], [3, 4]], np.float32)),
        "genes": ("GNAS", "ERBB2"),
    }
    return SpotTable(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"centres_px": np.zeros((3, 3))}, r"3 spots need \(3, 2\) centres, not \(3, 3\)"),
        ({"centres_px": np.array([[0, 0], [0, np.nan], [0, 0]])}, "spot '1x2' .* not a finite"),
        ({"counts": sparse.csr_matrix((2, 2))}, "3 spots and 2 genes, but counts of shape"),
        ({"names": ("1x1", "1x1", "2x1")}, r"1 spot name\(s\) .* '1x1'"),
        ({"genes": ("GNAS", "GNAS")}, r"1 gene name\(s\) .* 'GNAS'"),
        (
            {"counts": sparse.csr_matrix(np.array([[1, 0], [0, 2], [3, -4]], np.float32))},
            "spot '2x1', gene 'ERBB2': a count is negative or not finite",
        ),
        (
            {"counts": sparse.csr_matrix(np.array([[1, 0], [np.nan, 2], [3, 4]], np.float32))},
            "spot '1x2', gene 'GNAS': a count is negative or not finite",
        ),
    ],
)
def test_bad_spot_tables_are_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        made_table(**changes)


@pytest.mark.parametrize("index", [np.array([2, 0]), np.array([True, False, True])])
def test_subset_keeps_rows_together(index: np.ndarray) -> None:
    table = made_table()
    part = table.subset(index)
    for at, name in enumerate(part.names):
        source = table.names.index(name)
        np.testing.assert_array_equal(part.centres_px[at], table.centres_px[source])
        np.testing.assert_array_equal(part.counts[at].toarray(), table.counts[source].toarray())
    assert set(part.names) == {"1x1", "2x1"}
    assert len(part) == 2
    assert part.genes == table.genes


def test_empty_spot_table_is_possible() -> None:
    assert len(made_table().subset(np.array([], int))) == 0


def test_section_knows_its_pitch_where_the_scale_is_known() -> None:
    section = Section("C4", "C", Path("c4.jpg"), made_table(), mpp=0.5, spot_pitch_um=200)
    assert section.spot_pitch_px == 400
    assert dataclasses.replace(section, mpp=None).spot_pitch_px is None
    assert dataclasses.replace(section, spot_pitch_um=None).spot_pitch_px is None


@pytest.mark.parametrize("mpp", [0.0, -1.0, 200.0, float("nan")])
def test_implausible_image_scale_is_refused(mpp: float) -> None:
    with pytest.raises(InputError, match=r"section 'C4': .* microns per pixel"):
        Section("C4", "C", None, made_table(), mpp=mpp)


def test_cohort_lists_patients_and_the_sections_with_an_image() -> None:
    sections = tuple(
        Section(name, name[0], image, made_table())
        for name, image in (("C4", Path("c4.jpg")), ("B1", None), ("C2", Path("c2.jpg")))
    )
    cohort = Cohort(Path("data"), "legacy", sections)
    assert cohort.patients == ("B", "C")
    assert [section.name for section in cohort.with_image()] == ["C4", "C2"]


def test_problem_reads_as_one_line() -> None:
    assert str(Problem("note", "B1", "no image.", "Add it.")) == "B1: no image. Add it."
    assert str(Problem("note", "B1", "no image.")) == "B1: no image."


def made_panel(**changes: Any) -> GenePanel:
    values: dict[str, Any] = {
        "genes": ("A", "B"),
        "normalisation": "library_size_log1p",
        "target_sum": 1e4,
        "mean": np.array([1, -2], np.float32),
        "scale": np.array([0.5, 3], np.float32),
    }
    return GenePanel(**(values | changes))


def test_panel_standardises_and_comes_back() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    learned = made_panel().standardise(values)
    np.testing.assert_allclose(learned, (values - [1, -2]) / [0.5, 3], rtol=1e-6)
    np.testing.assert_allclose(made_panel().to_unit(learned), values, atol=1e-6)
    assert learned.dtype == made_panel().to_unit(learned).dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"genes": ()}, "at least one gene"),
        ({"genes": ("A", "A")}, "'A' appears more than once"),
        ({"normalisation": "raw"}, "'raw'.*library_size_log10"),
        ({"mean": np.zeros(3)}, "panel mean"),
        ({"mean": np.array([0, np.nan])}, "panel mean"),
        ({"scale": np.array([1.0, 0])}, "above zero"),
    ],
)
def test_bad_panels_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        made_panel(**changes)


def made_stains(**changes: Any) -> StainReference:
    values: dict[str, Any] = {
        "method": "vahadane",
        "white_point": np.array([240.0, 241, 242]),
        "luminosity": 230.0,
        "stain_matrix": np.array([[0.65, 0.7, 0.29], [0.07, 0.99, 0.11]]),
        "max_concentration": np.array([1.5, 1.1]),
        "lab_mean": np.array([150.0, 140, 120]),
        "lab_std": np.array([30.0, 10, 9]),
    }
    return StainReference(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"method": "stainnet"}, "'stainnet' is unknown; one of vahadane"),
        ({"white_point": np.ones(2)}, "white_point"),
        ({"stain_matrix": np.full((2, 3), np.nan)}, "stain_matrix"),
        ({"luminosity": float("inf")}, "luminosity"),
    ],
)
def test_bad_stain_references_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        made_stains(**changes)


@pytest.mark.parametrize("record", [made_panel(), made_stains()], ids=["panel", "stains"])
def test_records_survive_json(record: GenePanel | StainReference) -> None:
    back = type(record).from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))
    for field in dataclasses.fields(record):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(record, field.name))


def test_repeats_and_named_are_short_and_in_order() -> None:
    assert repeats(["b", "a", "b", "a", "c"]) == ["b", "a"]
    assert named(["a", "b"]) == "'a', 'b'"
    assert named(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"

"""Labels of any kind: from obs, from a table, from a release; what counts as none."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.readers import spot_labels
from histospace_tf.vocabulary import Cohort, InputError
from made.sections import made_section, write_her2st

KINDS = ["cortex", "white matter", "NA", "cortex", "undetermined", "white matter"] * 2


def h5ad(path: Path, **obs: object) -> Cohort:
    """Twelve spots of one section, read back."""
    n = 12
    rng = np.random.default_rng(0)
    anndata.AnnData(
        X=rng.poisson(5, (n, 3)).astype(np.float32),
        obs=pd.DataFrame(obs, index=[f"AAAC-{i}" for i in range(n)]),
        var=pd.DataFrame(index=["Penk", "Pcp4", "Doc2g"]),
        obsm={"spatial": np.stack([np.arange(n) % 4, np.arange(n) // 4], 1) * 50.0 + 100},
    ).write_h5ad(path)
    return readers.read_cohort(path)


def test_a_column_of_obs_is_taken_and_missing_labels_are_none(tmp_path: Path) -> None:
    cohort = h5ad(tmp_path / "a.h5ad", annotation=pd.Categorical(KINDS), leiden=["0", "1", "2"] * 4)
    (found,) = spot_labels.of_cohort(cohort).values()
    assert found.positive is None
    assert found.spots == cohort.sections[0].spots.names
    assert found.labels == ("cortex", "white matter", "", "cortex", "", "white matter") * 2
    said = " ".join(str(problem) for problem in found.problems)
    assert 'labels are obs["annotation"]' in said
    assert "2 of 12 spots have no label" in said
    assert "2 of 12 spots are labelled as undetermined" in said


def test_the_user_names_the_column_and_ground_truth_is_one(tmp_path: Path) -> None:
    cohort = h5ad(tmp_path / "a.h5ad", ground_truth=KINDS, domain=[1, 2, 3] * 4)
    (found,) = spot_labels.of_cohort(cohort).values()
    assert set(found.labels) == {"cortex", "white matter", ""}
    (found,) = spot_labels.of_cohort(cohort, "domain").values()
    assert found.labels == ("1", "2", "3") * 4
    with pytest.raises(InputError, match=r"'regions' is neither a file nor a column .*'domain'"):
        spot_labels.of_cohort(cohort, "regions")
    assert spot_labels.of_cohort(h5ad(tmp_path / "b.h5ad", leiden=["0", "1"] * 6)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "Barcode,Graph-based\n{}\n",  # Loupe Browser
        "barcode\tarray_row\tlayer_guess\n{tab}\n",
        ",label\n{}\n",  # pandas
        "spot;section;region\n{semi}\n",
    ],
)
def test_a_table_beside_the_data_is_read_by_barcode(tmp_path: Path, text: str) -> None:
    cohort = h5ad(tmp_path / "a.h5ad")
    rows = list(zip(cohort.sections[0].spots.names, ["x", "y", "z"] * 4, strict=True))[:-1]
    path = tmp_path / "labels.csv"
    path.write_text(
        text.format(
            "\n".join(f"{spot},{label}" for spot, label in [*rows, ("OTHER-1", "x")]),
            tab="\n".join(f"{spot}\t3\t{label}" for spot, label in rows),
            semi="\n".join(f"{spot};a;{label}" for spot, label in rows),
        )
    )
    (found,) = spot_labels.of_cohort(cohort, str(path)).values()
    assert found.labels == (*(label for _, label in rows), "")
    assert any("1 of 12 spots have no label" in str(p) for p in found.problems)
    assert any("1 of 12 rows" in str(p) for p in found.problems) == ("OTHER" in path.read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("barcode,label\nX-1,a\n", r"none of its 1 spots \('X-1'\) is one of the data's"),
        ("barcode,label\nAAAC-1,a\nAAAC-1,b\n", "'AAAC-1' more than once; a column section"),
        ("barcode,one,two\nAAAC-1,a,b\n", "one called label, labels"),
        ("barcode,section,label\nAAAC-1,other,b\n", "its sections are 'other', the data's 'a'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    cohort = h5ad(tmp_path / "a.h5ad")
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        spot_labels.of_cohort(cohort, str(path))


def test_a_column_with_a_value_for_every_spot_is_no_label(tmp_path: Path) -> None:
    cohort = h5ad(tmp_path / "a.h5ad", label=[f"spot {i}" for i in range(12)])
    assert spot_labels.of_cohort(cohort) == {}
    path = tmp_path / "labels.csv"
    names = cohort.sections[0].spots.names
    path.write_text("barcode,label\n" + "\n".join(f"{name},{name}" for name in names))
    with pytest.raises(InputError, match=r"12 labels .* of 12 spots; labels are shared"):
        spot_labels.of_cohort(cohort, str(path))


def her2st(folder: Path, label: str) -> Cohort:
    made = made_section("B1", "B")
    write_her2st(folder, made, images=False)
    (folder / "ST-pat" / "lbl").mkdir(parents=True)
    kinds = [label, "fat", "undetermined", "fat"] * 5
    rows = [
        f"r\t{name.replace('x', chr(9))}\t1\t1\t{kind}"
        for name, kind in zip(made.ids, kinds, strict=True)
    ]
    (folder / "ST-pat" / "lbl" / "B1_labeled_coordinates.tsv").write_text(
        "\n".join(["Row.names\tx\ty\tpixel_x\tpixel_y\tlabel", *rows])
    )
    return readers.read_cohort(folder)


def test_cancer_stands_against_the_rest_where_a_release_has_it(tmp_path: Path) -> None:
    found = spot_labels.of_cohort(her2st(tmp_path / "cancer", "invasive cancer"))["B1"]
    assert found.positive == "invasive cancer"
    assert "undetermined" in found.labels
    found = spot_labels.of_cohort(her2st(tmp_path / "layers", "granular"))["B1"]
    assert found.positive is None
    assert set(found.labels) == {"granular", "fat", ""}


def test_real_layers_of_the_olfactory_bulb_are_five_labels(test_data: Path) -> None:
    found = spot_labels.of_cohort(readers.read_cohort(test_data / "mob"))
    assert {name: len(set(one.labels) - {""}) for name, one in found.items()} == {"A1": 5, "A2": 5}
    assert all(one.positive is None for one in found.values())

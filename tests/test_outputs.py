"""Outputs appear whole or not at all, whatever interrupts them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from histospace_tf import outputs
from histospace_tf.vocabulary import InputError, printable

# What anndata 0.9.0 reads: IOSpec in its anndata/_io/specs/methods.py.
ANNDATA_0_9 = {
    *("anndata", "dataframe", "dict", "array", "string-array", "string", "numeric-scalar"),
    *("categorical", "nullable-integer", "nullable-boolean", "csr_matrix", "csc_matrix"),
}

INTERRUPTIONS = [
    OSError(errno.ENOSPC, "No space left on device"),
    KeyboardInterrupt(),
    InputError("a user's mistake"),
]


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_with_its_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.h5ad"
    with outputs.whole_file(path) as draft:
        assert draft.name == path.name  # so that a writer that looks at the suffix is content
        draft.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert everything_in(tmp_path) == ["deep", "deep/out.h5ad"]


def test_a_file_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with outputs.whole_file(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", INTERRUPTIONS, ids=lambda error: type(error).__name__)
def test_an_interrupted_file_leaves_nothing_and_keeps_the_older_one(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "out.csv"

    def interrupted() -> None:
        with outputs.whole_file(path) as draft:
            draft.write_text("ha")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert everything_in(tmp_path) == []
    path.write_text("old")
    with pytest.raises(type(error)):
        interrupted()
    assert everything_in(tmp_path) == ["out.csv"]
    assert path.read_text() == "old"


def test_a_file_that_was_never_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), outputs.whole_file(tmp_path / "out.csv"):
        pass
    assert everything_in(tmp_path) == []


def test_a_folder_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    path, ordinary = tmp_path / "deep" / "run", tmp_path / "ordinary"
    ordinary.mkdir()
    with outputs.whole_folder(path) as draft:
        (draft / "a.txt").write_text("a")
        assert not path.exists()
    assert everything_in(tmp_path) == ["deep", "deep/run", "deep/run/a.txt", "ordinary"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


@pytest.mark.parametrize("error", INTERRUPTIONS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("force", [False, True])
def test_an_interrupted_folder_leaves_nothing_and_keeps_the_older_one(
    tmp_path: Path, error: BaseException, force: bool
) -> None:
    path = tmp_path / "run"
    if force:
        path.mkdir()
        (path / "old.txt").write_text("old")
    before = everything_in(tmp_path)

    def interrupted() -> None:
        with outputs.whole_folder(path, force=force) as draft:
            (draft / "half.txt").write_text("ha")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert everything_in(tmp_path) == before


def test_force_replaces_a_finished_folder_completely(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with outputs.whole_folder(path, force=True) as draft:
        (draft / "new.txt").write_text("new")
        assert (path / "old.txt").exists()
    assert everything_in(tmp_path) == ["run", "run/new.txt"]


def test_a_finished_output_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    outputs.refuse_finished(path, force=False)  # an empty folder is nobody's work
    (path / "scores.json").write_text("{}")
    with pytest.raises(InputError, match="exists already; name another output or pass `force`"):
        outputs.refuse_finished(path, force=False)
    with pytest.raises(InputError, match="exists already"), outputs.whole_folder(path):
        pytest.fail("the body must not run")
    outputs.refuse_finished(path, force=True)
    outputs.refuse_finished(tmp_path / "new", force=False)
    with pytest.raises(InputError, match=r"scores\.json"):
        outputs.refuse_finished(path / "scores.json", force=False)
    assert everything_in(tmp_path) == ["run", "run/scores.json"]


def test_an_empty_folder_is_filled_without_force(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with outputs.whole_folder(tmp_path / "run") as draft:
        (draft / "a.txt").write_text("a")
    assert everything_in(tmp_path) == ["run", "run/a.txt"]


def test_put_in_place_keeps_the_older_folder_where_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, draft = tmp_path / "run", tmp_path / "draft"
    for folder in (path, draft):
        folder.mkdir()
        (folder / f"{folder.name}.txt").write_text("")
    rename = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(source) == draft:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="No space"):
        outputs.put_in_place(draft, path)
    assert (path / "run.txt").exists()
    assert everything_in(path) == ["run.txt"]


def test_an_array_written_in_parts_is_read_like_any_other(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(7, 2, 3))
    path = tmp_path / "a.npy"
    outputs.write_npy(path, values.shape, np.float32, (values[i : i + 3] for i in (0, 3, 6)))
    found = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(found, values.astype(np.float32))
    outputs.write_npy(path, (0, 4), np.uint8, [])
    assert np.load(path, mmap_mode="r").shape == (0, 4)
    assert everything_in(tmp_path) == ["a.npy"]


def test_an_array_of_too_few_rows_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 rows"):
        outputs.write_npy(tmp_path / "a.npy", (3, 1), np.uint8, [np.zeros((2, 1), np.uint8)])
    assert everything_in(tmp_path) == []


def table_of_many_kinds() -> anndata.AnnData:
    obs = pd.DataFrame(
        {
            "section": pd.Categorical(["S/1", "b", "S/1"], categories=["b", "S/1"], ordered=True),
            "patient": "p",
            "lacking": ["x", np.nan, "y"],
            "nullable": pd.array(["x", None, "y"], dtype="string"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "number": [1.0, np.nan, 3.0],
            "cut": [True, False, True],
        },
        index=["s1", "s2", "s3"],
    )
    table = anndata.AnnData(
        X=np.arange(6, dtype=np.float32).reshape(3, 2),
        obs=obs,
        var=pd.DataFrame({"unit": "some unit"}, index=["g1", "g2"]),
        layers={"measured": np.ones((3, 2), np.float32)},
        obsm={"spatial": np.zeros((3, 2))},
    )
    table.uns["spatial"] = {"S/1": {"images": {}}, "S_1": {"images": {}}}
    table.uns["about"] = {"absent": None, "slide": os.fsdecode(b"gr\xf6sse"), "names": ["a", "b"]}
    return table


def test_an_h5ad_holds_nothing_that_anndata_0_9_does_not_know(tmp_path: Path) -> None:
    outputs.write_h5ad(table_of_many_kinds(), tmp_path / "a.h5ad")
    encodings = {}
    with h5py.File(tmp_path / "a.h5ad") as file:
        encodings["/"] = file.attrs["encoding-type"]
        file.visititems(lambda name, part: encodings.update({name: part.attrs["encoding-type"]}))
    assert set(encodings.values()) <= ANNDATA_0_9, encodings
    assert encodings["obs/_index"] == encodings["var/_index"] == "string-array"
    assert "raw" not in encodings
    assert not any(name.startswith("layers/") and name != "layers/measured" for name in encodings)


def test_an_h5ad_comes_back_with_its_values(tmp_path: Path) -> None:
    table = table_of_many_kinds()
    outputs.write_h5ad(table, tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.X, table.X)
    np.testing.assert_array_equal(again.layers["measured"], table.layers["measured"])
    np.testing.assert_array_equal(again.obsm["spatial"], table.obsm["spatial"])
    assert list(again.obs_names) == ["s1", "s2", "s3"]
    assert list(again.obs) == list(table.obs)
    assert list(again.obs["section"].cat.categories) == ["b", "S/1"]
    assert again.obs["section"].cat.ordered
    for column in table.obs:
        was, found = table.obs[column], again.obs[column]
        assert list(found.isna()) == list(was.isna()), column
        assert list(found[~found.isna()]) == list(was[~was.isna()]), column
    assert list(again.uns["spatial"]) == ["S_1", "S_1_"]
    assert again.uns["about"]["slide"] == "gr\\udcf6sse"
    assert list(again.uns["about"]["names"]) == ["a", "b"]
    assert "absent" not in again.uns["about"]


def test_an_h5ad_is_not_written_without_a_part_of_the_table(tmp_path: Path) -> None:
    table = table_of_many_kinds()
    table.raw = table.copy()
    with pytest.raises(ValueError, match="raw"):
        outputs.write_h5ad(table, tmp_path / "a.h5ad")
    assert everything_in(tmp_path) == []


def test_text_that_is_no_unicode_is_spelled_out() -> None:
    assert printable("größe µ 組織") == "größe µ 組織"
    assert printable(os.fsdecode(b"gr\xf6sse")) == "gr\\udcf6sse"


def test_drafts_of_a_killed_process_go_when_the_output_is_written_again(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from histospace_tf import outputs\n"
        "with outputs.whole_folder(Path(sys.argv[1]) / 'run') as draft:\n"
        "    (draft / 'half').write_text('')\n"
        "    os._exit(1)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, env=environment)
    (left,) = everything_in(tmp_path)[:1]
    assert left.startswith(".run.")
    with outputs.whole_file(tmp_path / "run.csv") as draft:
        draft.write_text("another output")
    assert left in everything_in(tmp_path)
    with outputs.scratch_folder(tmp_path / "run") as beside:  # of a process that still runs
        with outputs.whole_folder(tmp_path / "run") as draft:
            (draft / "a").write_text("")
        assert beside.exists()
    assert everything_in(tmp_path) == ["run", "run.csv", "run/a"]

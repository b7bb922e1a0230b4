"""AnnData as many programs and versions write it, against what anndata itself reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.readers import anndata_obs, h5ad
from histospace_tf.vocabulary import Cohort, InputError
from made import visium as made_visium
from made.cohorts import messages, only

PICTURE = made_visium.noise_picture()
FORMS: dict[str, Any] = {
    "int": lambda on: on.astype(int),
    "bool": lambda on: on,
    "True": lambda on: np.where(on, "True", "False"),
    "TRUE": lambda on: pd.Categorical(np.where(on, "TRUE", "FALSE")),
    "yes": lambda on: np.where(on, "yes", "no"),
    "1.0": lambda on: np.where(on, "1.0", "0.0"),
    "01": lambda on: pd.Categorical(np.where(on, "1", "0"), categories=["0", "1", "unused"]),
    "float": lambda on: on.astype(float),
    "nullable boolean": lambda on: pd.array(on, dtype="boolean"),
    "nullable integer": lambda on: pd.array(on.astype(int), dtype="Int8"),
}
WITH_GAPS: dict[str, Any] = {
    "float": lambda on: np.where(on, 1.0, np.nan),
    "boolean": lambda on: pd.array([True if o else None for o in on], dtype="boolean"),
    "integer": lambda on: pd.array([1 if o else None for o in on], dtype="Int64"),
    "text": lambda on: np.where(on, "1", ""),
    "category": lambda on: pd.Categorical(["TRUE" if o else None for o in on]),
}


def made() -> anndata.AnnData:
    return made_visium.made_h5ad(PICTURE)


def joined(*names: str, with_uns: bool = True) -> anndata.AnnData:
    """Sections over each other in one file, told apart by obs library_id."""
    parts = {
        name: made_visium.made_h5ad(PICTURE, library=name, seed=i) for i, name in enumerate(names)
    }
    return anndata.concat(
        parts,
        label="library_id",
        index_unique="-",
        uns_merge="unique" if with_uns else None,
        merge="same",
    )


def read(data: anndata.AnnData, folder: Path, **options: Any) -> Cohort:
    data.write_h5ad(folder / "a.h5ad")
    return readers.read_cohort(folder / "a.h5ad", **options)


@pytest.mark.parametrize("form", FORMS)
def test_flags_are_read_in_every_form(tmp_path: Path, form: str) -> None:
    data = made()
    on = (data.obs["array_row"] > 1).to_numpy()
    data.obs["in_tissue"] = FORMS[form](on)
    cohort = read(data, tmp_path)
    assert only(cohort).spots.names == tuple(data.obs_names[on])
    assert f"{(~on).sum()} of {len(on)} spots are not under tissue" in messages(cohort)


@pytest.mark.parametrize("form", WITH_GAPS)
def test_spots_without_a_flag_are_left_out_with_a_warning(tmp_path: Path, form: str) -> None:
    data = made()
    on = (data.obs["array_row"] > 1).to_numpy()
    data.obs["in_tissue"] = WITH_GAPS[form](on)
    cohort = read(data, tmp_path)
    assert only(cohort).spots.names == tuple(data.obs_names[on])
    (warning,) = [p for p in cohort.problems if "in_tissue" in p.message]
    assert warning.severity == "warning"
    assert f"{(~on).sum()} of {len(on)} spots have no value" in warning.message
    assert repr(data.obs_names[~on][0]) in warning.message


def test_flags_that_are_missing_or_nonsense(tmp_path: Path) -> None:
    data = made()
    data.obs["in_tissue"] = np.nan
    cohort = read(data, tmp_path)
    assert len(only(cohort).spots) == data.n_obs
    assert "is empty for all" in messages(cohort)
    data.obs["in_tissue"] = 0
    with pytest.raises(InputError, match=r"none of \d+ spots is under tissue"):
        read(data, tmp_path)
    data.obs["in_tissue"] = "tumour"
    with pytest.raises(InputError, match=r"holds 'tumour'; 0 and 1, or True and False, work"):
        read(data, tmp_path)


def test_cellxgenes_is_single_is_no_library(tmp_path: Path) -> None:
    data = made()
    data.uns["spatial"]["is_single"] = True
    data.obs["in_tissue"] = (data.obs["array_row"] > 0).astype(int)
    cohort = read(data, tmp_path)
    section = only(cohort)
    assert section.name == "a"
    assert section.mpp == pytest.approx(made_visium.MPP)
    assert "only the hires preview of 200 x 167 px" in messages(cohort)


@pytest.mark.parametrize("kept", ["A1", "B1"])
def test_a_subset_that_kept_all_libraries_takes_its_own(tmp_path: Path, kept: str) -> None:
    data = joined("A1", "B1")
    data.uns["spatial"]["B1"]["scalefactors"]["tissue_hires_scalef"] /= 2
    expected = data.uns["spatial"][kept]["scalefactors"]["tissue_hires_scalef"]
    cohort = read(data[data.obs["library_id"] == kept].copy(), tmp_path)
    assert len(only(cohort).spots) == (data.obs["library_id"] == kept).sum()
    size = f"about {round(200 / expected)} x"
    assert size in messages(cohort)


def test_libraries_in_odd_forms(tmp_path: Path) -> None:
    odd: tuple[Any, ...] = (
        {},
        {"A": {}},
        {"A": {"images": {}}},
        {"A": {"scalefactors": {}, "images": {"hires": np.ones((20, 24, 3), np.float32)}}},
        {"A": {"images": "left out", "scalefactors": "left out"}},
        "nothing",
    )
    for spatial in odd:
        data = made()
        data.uns["spatial"] = spatial
        assert len(only(read(data, tmp_path)).spots) == data.n_obs
    data = joined("1", "2")
    data.obs["library_id"] = data.obs["library_id"].astype(int).astype(float)  # through a join
    assert [s.name for s in read(data, tmp_path).sections] == ["1", "2"]


def test_regions_are_no_sections_unless_the_user_says_so(tmp_path: Path) -> None:
    data = made()
    data.obs["section"] = np.where(data.obs["array_row"] < 2, "stroma", "tumour")
    cohort = read(data, tmp_path)
    assert (only(cohort).name, len(only(cohort).spots)) == ("a", data.n_obs)
    assert (
        "the 2 values of obs['section'] ('stroma', 'tumour') are read as parts of one"
        in messages(cohort)
    )
    assert "pass `section_column` section" in messages(cohort)
    cohort = read(data, tmp_path, section_column="section")
    assert sorted(s.name for s in cohort.sections) == ["stroma", "tumour"]
    with pytest.raises(InputError, match=r"no such column; it has 'in_tissue'"):
        read(data, tmp_path, section_column="region")
    (tmp_path / "sections.csv").write_text("section,path,section_column\nstroma,a.h5ad,section\n")
    (section,) = readers.read_cohort(tmp_path).sections
    assert len(section.spots) == (data.obs["section"] == "stroma").sum()
    with pytest.raises(InputError, match="column section_column works"):
        readers.read_cohort(tmp_path, section_column="section")


def test_sections_over_each_other_are_refused_until_they_are_named(tmp_path: Path) -> None:
    data = joined("A1", "B1", with_uns=False)
    with pytest.raises(InputError, match=r"stand over each other.*`section_column` library_id"):
        read(data, tmp_path)
    cohort = read(data, tmp_path, section_column="library_id")
    assert [len(s.spots) for s in cohort.sections] == [data.n_obs // 2] * 2
    data.obs = data.obs.rename(columns={"library_id": "cohort"})
    data.obsm["spatial"] = data.obsm["spatial"] + np.arange(data.n_obs)[:, None] * 1e4
    with pytest.raises(InputError, match=r"array_row and array_col of another.*_column` cohort"):
        read(data, tmp_path)


def test_spots_of_no_library_are_left_out_with_a_warning(tmp_path: Path) -> None:
    data = joined("A1", "B1")
    data.obs["library_id"] = data.obs["library_id"].astype(object)
    data.obs.iloc[3:6, data.obs.columns.get_loc("library_id")] = np.nan
    cohort = read(data, tmp_path)
    assert sum(len(s.spots) for s in cohort.sections) == data.n_obs - 3
    assert f"3 of {data.n_obs} spots have no value in obs['library_id']" in messages(cohort)
    assert repr(data.obs_names[3]) in messages(cohort)


def test_columns_that_tell_nothing(tmp_path: Path) -> None:
    data = made()
    data.obs["sample"] = np.arange(data.n_obs)  # a number for each spot
    data.obs["array_row"] = np.nan
    cohort = read(data, tmp_path)
    assert len(only(cohort).spots) == data.n_obs
    assert "sample" not in messages(cohort)
    with pytest.raises(InputError, match="holds no spots"):
        read(data[:0].copy(), tmp_path)


def test_several_patients_in_one_section_are_refused(tmp_path: Path) -> None:
    data = made()
    data.obs["donor_id"] = np.where(data.obs["array_row"] < 2, "D1", "D2")
    with pytest.raises(InputError, match=r"names 2 patients \('D1', 'D2'\); a section is of one"):
        read(data, tmp_path)
    table = tmp_path / "sections.csv"
    table.write_text("section,path\nA,a.h5ad\n")
    with pytest.raises(InputError, match="names 2 patients"):
        readers.read_cohort(tmp_path)
    table.write_text("section,path,patient\nA,a.h5ad,P1\n")
    assert only(readers.read_cohort(tmp_path)).patient == "P1"
    data.obs["donor_id"] = ["D1" if row < 2 else None for row in data.obs["array_row"]]
    assert only(read(data, tmp_path)).patient == "D1"
    data.obs["donor_id"] = "unknown"
    assert only(read(data, tmp_path)).patient == "a"
    data.obs["subject"] = "Br5292"  # as spatialLIBD calls it
    assert only(read(data, tmp_path)).patient == "Br5292"


def test_names_places_and_matrices_of_other_kinds(tmp_path: Path) -> None:
    expected = only(read(made(), tmp_path)).spots
    data = made()
    xy = data.obsm["spatial"]
    data.obsm["spatial"] = pd.DataFrame(
        {"x": xy[:, 0], "y": xy[:, 1], "z": 0.0}, index=data.obs_names
    )
    data.X = sparse.csc_matrix(data.X)
    data.obs["array_row"] = data.obs["array_row"].astype(str)
    data.obs["array_col"] = pd.array(data.obs["array_col"], dtype="Int64")
    cohort = read(data, tmp_path)
    spots = only(cohort).spots
    np.testing.assert_allclose(spots.centres_px, expected.centres_px)
    np.testing.assert_array_equal(spots.counts.toarray(), expected.counts.toarray())
    assert spots.names == expected.names
    assert only(cohort).mpp == pytest.approx(made_visium.MPP)
    assert "has 3 columns: the first two" in messages(cohort)
    data.obs_names = ["same"] * data.n_obs
    with pytest.raises(InputError, match="spot name"):
        read(data, tmp_path)


def test_files_of_older_versions_and_a_raw_that_is_null(tmp_path: Path) -> None:
    data = made()
    expected = only(read(data, tmp_path)).spots
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "a") as h5:  # anndata 0.7: no encoding of groups and arrays
        for name in ("/", "obsm", "uns", "layers", "uns/spatial"):
            for attribute in ("encoding-type", "encoding-version"):
                if name in h5:
                    h5[name].attrs.pop(attribute, None)
        names = np.array([name.encode() for name in data.obs_names])
        index = h5["obs"].attrs["_index"]
        del h5["obs"][index]
        h5["obs"][index] = names
        if "raw" in h5:
            del h5["raw"]
        null = h5.create_dataset("raw", data=h5py.Empty("f"))
        null.attrs["encoding-type"], null.attrs["encoding-version"] = "null", "0.1.0"
        odd = h5.create_dataset("uns/other", data=1)  # of a later version, elsewhere in uns
        odd.attrs["encoding-type"], odd.attrs["encoding-version"] = "to come", "9"
    spots = only(readers.read_cohort(path)).spots
    assert spots.names == expected.names
    np.testing.assert_array_equal(spots.counts.toarray(), expected.counts.toarray())


def test_a_file_of_before_0_7(tmp_path: Path) -> None:
    """obs and var are arrays of records there, and categories stand in uns."""
    data = made()
    with h5py.File(tmp_path / "a.h5ad", "w") as h5:
        h5["X"] = data.X.toarray()
        names = np.array(data.obs_names, "S20")
        rows = np.array(data.obs["array_row"])
        h5["obs"] = np.rec.fromarrays([names, rows], dtype=[("index", "S20"), ("array_row", int)])
        h5["var"] = np.rec.fromarrays([np.array(data.var_names, "S20")], dtype=[("index", "S20")])
        h5["obsm"] = np.rec.fromarrays([data.obsm["spatial"]], dtype=[("spatial", float, (2,))])
    spots = only(readers.read_cohort(tmp_path / "a.h5ad")).spots
    assert spots.names == tuple(data.obs_names)
    told_apart = [gene for gene in data.var_names if not gene.startswith("TBCE")]  # without ids
    assert spots.genes == tuple(told_apart)
    np.testing.assert_array_equal(spots.counts.toarray(), data[:, told_apart].X.toarray())
    np.testing.assert_allclose(spots.centres_px, data.obsm["spatial"])


def test_a_zarr_folder_is_read_as_the_file_is(tmp_path: Path) -> None:
    data = joined("A1", "B1")
    expected = read(data, tmp_path)
    data.write_zarr(tmp_path / "a.zarr")
    found = readers.read_cohort(tmp_path / "a.zarr")
    assert found.layout == "h5ad"
    for one, other in zip(found.sections, expected.sections, strict=True):
        assert (one.name, one.spots.names, one.mpp) == (other.name, other.spots.names, other.mpp)
        np.testing.assert_array_equal(one.spots.counts.toarray(), other.spots.counts.toarray())
    (tmp_path / "a.zarr" / "obs").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="cannot be read as AnnData"):
        readers.read_cohort(tmp_path / "a.zarr")


def test_places_in_obs_are_named_where_obsm_lacks(tmp_path: Path) -> None:
    data = made()
    xy = data.obsm.pop("spatial")
    data.obs["x"], data.obs["y"] = xy[:, 0], xy[:, 1]
    with pytest.raises(InputError, match=r"no obsm\[.spatial.\].*obs has 'x', 'y'. Put full-"):
        read(data, tmp_path)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.OME.TIFF", "a.png", "a.JPG"])
def test_the_image_of_the_files_name_is_found(tmp_path: Path, name: str) -> None:
    made().write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "ab.png").touch()
    (tmp_path / "a_full.tif").touch()
    (tmp_path / name).touch()
    (source,), problems = h5ad.find_sections(tmp_path / "a.h5ad")
    assert source.image == tmp_path / name
    assert not problems


def test_two_images_of_the_files_name_are_both_named(tmp_path: Path) -> None:
    made().write_h5ad(tmp_path / "a.h5ad")
    for name in ("a.ome.tif", "a.png"):
        cv2.imwrite(str(tmp_path / name), PICTURE[..., ::-1])
    with pytest.raises(InputError, match=r"2 images have its name: 'a.ome.tif', 'a.png'"):
        readers.read_cohort(tmp_path / "a.h5ad")
    cohort = readers.read_cohort(tmp_path / "a.h5ad", image=tmp_path / "a.png")
    assert only(cohort).image == tmp_path / "a.png"
    (tmp_path / "st").mkdir()
    (tmp_path / "wsis").mkdir()
    (tmp_path / "a.h5ad").rename(tmp_path / "st" / "a.h5ad")
    for name in ("a.ome.tif", "a.png"):
        (tmp_path / name).rename(tmp_path / "wsis" / name)
    with pytest.raises(InputError, match=r"2 images have its name: 'a.ome.tif', 'a.png'"):
        readers.read_cohort(tmp_path)


def test_regions_side_by_side_do_not_overlap() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    obs = pd.DataFrame({"section": np.where(grid[:, 0] % 3 < 1, "p", "q")})
    column, problems = anndata_obs.section_column(obs, [], grid, asked=None)
    assert column is None
    assert len(problems) == 1


@pytest.mark.parametrize(
    "names", [("pxl_row_in_fullres", "pxl_col_in_fullres"), ("imagerow", "imagecol"), ("Y", "X")]
)
def test_a_table_of_positions_names_the_column_of_x(tmp_path: Path, names: tuple[str, str]) -> None:
    data = made()
    x_first = np.asarray(data.obsm["spatial"])
    data.obsm["spatial"] = pd.DataFrame(x_first[:, ::-1], data.obs_names, columns=list(names))
    np.testing.assert_allclose(only(read(data, tmp_path)).spots.centres_px, x_first)


@pytest.mark.parametrize("key", ["A", "outs"])
def test_scale_and_preview_of_one_section_are_not_taken_for_another(
    tmp_path: Path, key: str
) -> None:
    """uns_merge="first" keeps one entry where both sections' had its name, or one had none."""
    other = np.ascontiguousarray(PICTURE[::-1])
    parts = {
        "A": made_visium.made_h5ad(PICTURE, library=key),
        "B": made_visium.made_h5ad(other, library=key, mpp=0.6),
    }
    for data in parts.values():
        data.obs = data.obs[["in_tissue"]].copy()  # no array to tell the scale
    both = anndata.concat(
        parts, label="library_id", index_unique="-", uns_merge="first", merge="same"
    )
    both.write_h5ad(tmp_path / "ab.h5ad")
    for name, picture in (("A", PICTURE), ("B", other)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    (tmp_path / "sections.csv").write_text(
        "section,path,image,patient,section_column\n"
        "A,ab.h5ad,A.png,P,library_id\nB,ab.h5ad,B.png,Q,library_id\n"
    )
    cohort = readers.read_cohort(tmp_path)
    assert [section.name for section in cohort.sections] == ["A", "B"]
    assert cohort.sections[0].mpp == (pytest.approx(0.7) if key == "A" else None)
    assert cohort.sections[1].mpp is None
    assert f"section B: uns[\"spatial\"] has no entry 'B', only {key!r}" in messages(cohort)


def test_sections_of_one_file_without_patients_are_warned_of(tmp_path: Path) -> None:
    data = joined("A", "B")
    assert "no patients are named: each of 2 sections" in messages(read(data, tmp_path))
    data.obs["donor_id"] = np.where(data.obs["library_id"] == "A", "D1", "")
    assert "no patient is named for 1 of 2 sections ('B')" in messages(read(data, tmp_path))


def test_raw_counts_of_more_genes_in_raw_are_reported(tmp_path: Path) -> None:
    data = made()
    data.raw = data.copy()
    cohort = read(data[:, :3].copy(), tmp_path)
    assert len(only(cohort).spots.genes) == 3
    assert "X has counts of 3 genes, and raw.X of 8: library sizes are those of X" in messages(
        cohort
    )
    few = data[:, np.asarray(data.X.sum(axis=0)).ravel().argsort() > 0].copy()
    few.raw = few.copy()
    assert "raw.X" not in messages(read(few, tmp_path))
    data.raw = None
    logged = data.copy()
    logged.X = logged.X.log1p()
    part = data[:, :3].copy()
    part.raw = logged
    assert "raw.X" not in messages(read(part, tmp_path))


@pytest.mark.parametrize(
    "columns", [("ID", "Symbol", "Type"), ("Ensembl_ID", "Gene Symbol", "Feature.Types")]
)
def test_columns_of_var_as_other_programs_call_them(tmp_path: Path, columns: Any) -> None:
    data = made()
    ids, names = list(data.var["gene_ids"]), list(data.var_names)
    kinds = ["Gene Expression"] * 7 + ["Antibody Capture"]
    data.var = pd.DataFrame(dict(zip(columns, (ids, names, kinds), strict=True)), index=names)
    for index in (ids, names):
        data.var_names = index
        spots = only(read(data, tmp_path)).spots
        assert spots.gene_ids == tuple(ids[:7])
        assert spots.genes[:4] == tuple(names[:4])
        np.testing.assert_array_equal(spots.counts.toarray(), data.X[:, :7].toarray())


def test_genes_without_a_value_in_a_section_are_not_measured_there(tmp_path: Path) -> None:
    """anndata.concat(join="outer") of dense counts."""
    parts = {name: made_visium.made_h5ad(PICTURE, library=name) for name in ("A", "B")}
    for data in parts.values():
        data.X = data.X.toarray()
    parts["B"] = parts["B"][:, 2:].copy()
    both = anndata.concat(
        parts, label="library_id", index_unique="-", join="outer", uns_merge="unique", merge="first"
    )
    cohort = read(both, tmp_path)
    assert [len(section.spots.genes) for section in cohort.sections] == [8, 6]
    assert "section B: 2 genes have NaN in every spot ('ERBB2', 'GNAS')" in messages(cohort)
    both.X[0, 0] = np.nan
    with pytest.raises(InputError, match="gene 'ACTB' has nan"):
        read(both, tmp_path)


def test_legacy_spots_with_a_diameter_are_not_taken_for_visium(tmp_path: Path) -> None:
    """Their nominal 0.5 of the distance comes near to Visium's 0.55 where the array is bent."""
    data = made()
    data.obs = data.obs[["in_tissue"]].copy()
    y, x = np.divmod(np.arange(data.n_obs), int(data.n_obs**0.5))
    data.obsm["spatial"] = np.column_stack([x, y]) * 60.0 + 20
    data.uns["spatial"]["A1"]["scalefactors"]["spot_diameter_fullres"] = 32.0  # 0.53 of 60
    section = only(cohort := read(data, tmp_path))
    assert (section.mpp, section.spot_pitch_um) == (None, None)
    assert "in squares (as in legacy Spatial Transcriptomics)" in messages(cohort)
    data.obsm["spatial"] = np.column_stack([x + y % 2 / 2, y * 0.75**0.5]) * 60.0 + 20
    assert only(read(data, tmp_path)).mpp == pytest.approx(65 / 32)


@pytest.mark.parametrize("mark", ["-", "."])
def test_names_made_unique_by_scanpy_or_r_do_not_tell_genes_apart(
    tmp_path: Path, mark: str
) -> None:
    """Which of two genes is called TBCE.1 depends on the order that they stood in."""
    for name in ("a", "b"):
        data = made()
        data.var_names = [gene.replace("TBCE-1", f"TBCE{mark}1") for gene in data.var_names]
        if name == "b":
            del data.var["gene_ids"]
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    cohort = readers.read_cohort(tmp_path, strict=False)
    assert [len(section.spots.genes) for section in cohort.sections] == [8, 6]
    assert "section b: 2 genes have no id, and a name that several genes have" in messages(cohort)

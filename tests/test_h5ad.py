"""AnnData files, HEST-1k's layout and the table of sections, on made data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import cv2
import h5py
import numpy as np
import pytest
import tifffile

from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.readers import h5ad, hest, section_table
from histospace_tf.vocabulary import InputError
from made import visium as made_visium
from made.cohorts import messages

PICTURE = made_visium.noise_picture()


def write(data: anndata.AnnData, path: Path, *, image: bool = True) -> Path:
    data.write_h5ad(path)
    if image:
        write_image(path.with_suffix(".png"))
    return path


def write_image(path: Path, picture: np.ndarray = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
    return path


def several(*names: str) -> anndata.AnnData:
    """Sections of one file, told apart by library_id."""
    made = [made_visium.made_h5ad(PICTURE, library=name, seed=i) for i, name in enumerate(names)]
    joined = anndata.concat(
        dict(zip(names, made, strict=True)),
        label="library_id",
        index_unique="-",
        uns_merge="unique",
    )
    joined.obs["patient"] = [f"P{name[0]}" for name in joined.obs["library_id"]]
    return joined


def test_a_file_gives_the_section_that_was_written(tmp_path: Path) -> None:
    data = made_visium.made_h5ad(PICTURE)
    cohort = readers.read_cohort(write(data, tmp_path / "mine.h5ad"))
    (section,) = cohort.sections
    assert (cohort.layout, section.name, section.patient) == ("h5ad", "mine", "mine")
    assert section.spots.names == tuple(data.obs_names)
    own = [*data.var_names[:4], *data.var["gene_ids"][4:6], *data.var_names[6:]]
    assert section.spots.genes == tuple(own)  # TBCE and TBCE-1 are two genes of one symbol
    assert section.spots.gene_ids == tuple(data.var["gene_ids"])
    np.testing.assert_array_equal(section.spots.counts.toarray(), data.X.toarray())
    np.testing.assert_allclose(section.spots.centres_px, data.obsm["spatial"])
    assert section.mpp == pytest.approx(made_visium.MPP, rel=1e-6)
    assert (section.spot_diameter_um, section.spot_pitch_um) == (55, 100)
    assert section.image == tmp_path / "mine.png"


def test_counts_are_taken_from_a_layer_or_from_raw_with_a_note(tmp_path: Path) -> None:
    data = made_visium.made_h5ad(PICTURE)
    counts = data.X.copy()
    data.layers["counts"] = counts
    data.X = np.log1p(counts.toarray())
    cohort = readers.read_cohort(write(data, tmp_path / "a.h5ad"))
    np.testing.assert_array_equal(cohort.sections[0].spots.counts.toarray(), counts.toarray())
    assert 'raw counts are taken from layers["counts"]' in messages(cohort, "note")
    del data.layers["counts"]
    data.raw = anndata.AnnData(counts, obs=data.obs, var=data.var)
    cohort = readers.read_cohort(write(data[:, :4].copy(), tmp_path / "a.h5ad"))
    assert len(cohort.sections[0].spots.genes) == 8
    assert "raw counts are taken from raw.X" in messages(cohort, "note")


def test_normalised_values_are_refused(tmp_path: Path) -> None:
    data = made_visium.made_h5ad(PICTURE)
    data.X = np.log1p(data.X.toarray())
    with pytest.raises(InputError, match=r'no raw counts: X: spot .* Put .* layers\["counts"\]'):
        readers.read_cohort(write(data, tmp_path / "a.h5ad"))


def test_previews_of_the_file_are_known(tmp_path: Path) -> None:
    path = write(made_visium.made_h5ad(PICTURE), tmp_path / "a.h5ad", image=False)
    cohort = readers.read_cohort(path)
    assert cohort.sections[0].image is None
    assert "only the hires preview of 200 x 167 px (2.1 um per pixel" in messages(cohort, "warning")
    small = write_image(tmp_path / "small.png", cv2.resize(PICTURE, (200, 167)))
    with pytest.raises(InputError, match="it is the hires preview of 200 x 167 px"):
        readers.read_cohort(path, image=small)


def test_a_smaller_copy_is_not_called_the_preview_that_is_not_there(tmp_path: Path) -> None:
    data = made_visium.made_h5ad(PICTURE)
    del data.uns["spatial"]["A1"]["images"]
    path = write(data, tmp_path / "a.h5ad", image=False)
    half = write_image(tmp_path / "half.png", cv2.resize(PICTURE, (300, 250)))
    with pytest.raises(InputError, match=r"only at 0\.333 times .*or another smaller copy"):
        readers.read_cohort(path, image=half)


def test_without_array_and_scale_factors_the_image_or_the_user_gives_the_scale(
    tmp_path: Path,
) -> None:
    data = made_visium.made_h5ad(PICTURE)
    del data.uns["spatial"], data.obs["array_row"]
    path = write(data, tmp_path / "a.h5ad")
    cohort = readers.read_cohort(path)
    assert cohort.sections[0].mpp is None
    assert "Give them with `mpp`" in messages(cohort, "warning")
    cohort = readers.read_cohort(path, mpp=0.5)
    assert (cohort.sections[0].mpp, cohort.sections[0].spot_pitch_um) == (0.5, None)


def test_several_sections_of_a_file(tmp_path: Path) -> None:
    path = write(several("A1", "B1"), tmp_path / "both.h5ad", image=False)
    cohort = readers.read_cohort(path)
    assert [(s.name, s.patient) for s in cohort.sections] == [("A1", "PA"), ("B1", "PB")]
    assert all(s.mpp == pytest.approx(made_visium.MPP) for s in cohort.sections)
    image = write_image(tmp_path / "he.png")
    with pytest.raises(InputError, match=r"one image for 2 sections \('A1', 'B1'\).*sections\.csv"):
        readers.read_cohort(path, image=image)
    data = several("A1", "B1")
    del data.obs["library_id"]
    with pytest.raises(InputError, match=r"2 sections in uns.*a column library_id works"):
        h5ad.find_sections(write(data, path, image=False))
    data.obs["slide"] = ["A1"] * (data.n_obs // 2) + ["B1"] * (data.n_obs // 2)
    sources, _ = h5ad.find_sections(write(data, path, image=False))
    assert [source.name for source in sources] == ["A1", "B1"]


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="cannot be read as AnnData"):
        readers.read_cohort(tmp_path / "a.h5ad")
    data = made_visium.made_h5ad(PICTURE)
    path = write(data, tmp_path / "b.h5ad")
    with h5py.File(path, "a") as h5:
        del h5["X/indptr"]
    with pytest.raises(InputError, match=r"b\.h5ad' cannot be read as AnnData"):
        readers.read_cohort(path)
    data.obsm["X_pca"] = data.obsm.pop("spatial")
    with pytest.raises(InputError, match=r"no obsm\[\"spatial\"\].*'X_pca'"):
        readers.read_cohort(write(data, tmp_path / "a.h5ad"))
    data = made_visium.made_h5ad(PICTURE)
    data.obsm["spatial"] = data.obsm["spatial"] * 3
    with pytest.raises(InputError, match="spots lie outside the 600 x 500 px image"):
        readers.read_cohort(write(data, tmp_path / "a.h5ad"))
    data = made_visium.made_h5ad(PICTURE)
    data.obsm["spatial"] = data.obsm["spatial"][:, ::-1].copy()
    with pytest.raises(InputError, match="x and y look swapped"):
        readers.read_cohort(write(data, tmp_path / "a.h5ad"))


def test_the_real_file_is_refused_as_normalised(test_data: Path) -> None:
    with pytest.raises(InputError, match=r"X: spot .* has 1\.064 .*; the largest is 8\.309\)"):
        readers.read_cohort(test_data / "visium" / "visium_49_spots.h5ad")


def test_the_real_file_with_counts_put_into_it(test_data: Path, tmp_path: Path) -> None:
    """Its coordinates and scale factors are real; the counts are made."""
    data = anndata.read_h5ad(test_data / "visium" / "visium_49_spots.h5ad")
    data.layers["counts"] = np.ceil(data.X.toarray())
    data.write_h5ad(tmp_path / "a.h5ad")
    cohort = readers.read_cohort(tmp_path / "a.h5ad")
    (section,) = cohort.sections
    assert (len(section.spots), len(section.spots.genes)) == (49, 1999)
    assert section.mpp == pytest.approx(0.727, abs=0.001)  # 65 um / 89.44 px
    assert section.spots.gene_ids[0].startswith("ENSMUSG")


def test_hest_layout(tmp_path: Path) -> None:
    for number, name in enumerate(("TENX1", "NCBI2")):
        data = made_visium.made_h5ad(PICTURE, library="ST", seed=number)
        (tmp_path / "st").mkdir(exist_ok=True)
        write(data, tmp_path / "st" / f"{name}.h5ad", image=False)
        write_image(tmp_path / "wsis" / f"{name}.png")
    record = {
        "patient": "Patient 1",
        "dataset_title": "A study",
        "pixel_size_um_estimated": 0.71,
        "inter_spot_dist": 100.0,
        "spot_diameter": 55.0,
    }
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "TENX1.json").write_text(json.dumps(record))
    cohort = readers.read_cohort(tmp_path)
    other, section = cohort.sections
    assert cohort.layout == "hest"
    assert (section.name, section.patient, section.mpp) == ("TENX1", "A study: Patient 1", 0.71)
    assert section.image == tmp_path / "wsis" / "TENX1.png"
    assert (other.name, other.patient) == ("NCBI2", "NCBI2")
    assert "no metadata/NCBI2.json and no row" in messages(cohort, "warning")
    (tmp_path / "HEST_v1_1_0.csv").write_text("id,patient,pixel_size_um_estimated\nNCBI2,P7,0.72\n")
    other, _ = readers.read_cohort(tmp_path).sections
    assert (other.patient, other.mpp) == ("P7", 0.72)
    (tmp_path / "metadata" / "TENX1.json").write_text("{")
    with pytest.raises(InputError, match="are not JSON"):
        hest.find_sections(tmp_path)


def test_a_table_joins_runs_and_files_of_any_place(tmp_path: Path) -> None:
    made_visium.write_run(tmp_path / "runs/v/outs", PICTURE)
    write(made_visium.made_h5ad(PICTURE), tmp_path / "h.h5ad", image=False)
    write(several("A1", "B1"), tmp_path / "both.h5ad", image=False)
    write_image(tmp_path / "scans" / "h.png")
    (tmp_path / "sections.csv").write_text(
        "section,path,image,patient,mpp\n"
        "V,runs/v,,P1,\n"
        "H,h.h5ad,scans/h.png,P1,0.71\n"
        "B1, both.h5ad, scans/h.png,,\n"
    )
    cohort = readers.read_cohort(tmp_path)
    assert cohort.layout == "table"
    found = [(s.name, s.patient, s.image and s.image.name) for s in cohort.sections]
    assert found == [("V", "P1", "tissue.png"), ("H", "P1", "h.png"), ("B1", "PB", "h.png")]
    assert cohort.sections[1].mpp == 0.71
    one = several("A1", "B1")
    assert len(cohort.sections[2].spots) == (one.obs["library_id"] == "B1").sum()


def test_patients_that_are_not_named_are_warned_of(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(made_visium.made_h5ad(PICTURE), tmp_path / f"{name}.h5ad")
    (tmp_path / "sections.csv").write_text("section,path\nA,a.h5ad\nB,b.h5ad\n")
    cohort = readers.read_cohort(tmp_path)
    assert [s.patient for s in cohort.sections] == ["A", "B"]
    assert "no patients are named: each of 2 sections" in messages(cohort, "warning")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("section,image\nA,x\n", "no column 'path'"),
        ("section,path,imgae\nA,a.h5ad,x\n", "unknown column 'imgae'"),
        ("section,path\nA,a.h5ad\nA,a.h5ad\n", "names section 'A' twice"),
        ("section,path\n,a.h5ad\n", "line 2: no section"),
        ("section,path\nA,gone\n", "path 'gone', which does not exist"),
        ("section,path\nA,notes.txt\n", r"'notes\.txt', which is nothing known here"),
        ("section,path,image\nA,a.h5ad,gone.png\n", r"image 'gone\.png', which does not exist"),
        ("section,path,mpp\nA,a.h5ad,fine\n", "mpp 'fine'"),
        ("section,path\nC1,both.h5ad\n", "none is named 'C1'"),
        ("", "is empty"),
    ],
)
def test_tables_with_faults_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    write(made_visium.made_h5ad(PICTURE), tmp_path / "a.h5ad")
    write(several("A1", "B1"), tmp_path / "both.h5ad", image=False)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sections.csv").write_text(text)
    assert section_table.recognises(tmp_path)
    with pytest.raises(InputError, match=fault):
        readers.read_cohort(tmp_path)


def test_a_folder_of_files_is_read_as_one_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(made_visium.made_h5ad(PICTURE), tmp_path / f"{name}.h5ad")
    cohort = readers.read_cohort(tmp_path)
    assert cohort.layout == "runs"
    assert [(s.name, s.patient, s.image is not None) for s in cohort.sections] == [
        ("a", "a", True),
        ("b", "b", True),
    ]
    assert "no patients are named" in "\n".join(str(p) for p in cohort.problems)


def test_bachs_photos_are_images_each_a_source_of_its_own(tmp_path: Path) -> None:
    photos = tmp_path / "ICIAR2018_BACH_Challenge" / "Photos"
    for name in ("Normal/n001", "Normal/n002", "InSitu/is001", "Invasive/iv001"):
        write_image(photos / f"{name}.tif")
    (photos / "microscopy_ground_truth.csv").write_text("n001.tif,Normal\n")
    shutil.copy(photos / "Normal/n001.tif", photos / "Normal/._n001.tif")
    found = readers.list_images(tmp_path)
    assert [image.source.partition("Photos/")[2] for image in found] == [
        "InSitu/is001",
        "Invasive/iv001",
        "Normal/n001",
        "Normal/n002",
    ]


def test_bins_of_unknown_size_take_their_scale_from_the_image_not_from_a_diameter(
    tmp_path: Path,
) -> None:
    data = made_visium.made_h5ad(PICTURE)
    rows, columns = np.divmod(np.arange(data.n_obs), 12)
    data.obsm["spatial"] = np.column_stack([60.0 + 16 * columns, 60.0 + 16 * rows])
    data.obs = data.obs.drop(columns=["array_row", "array_col"])
    data.uns["spatial"]["A1"] = {"scalefactors": {"spot_diameter_fullres": 16.0}, "images": {}}
    path = write(data, tmp_path / "hd.h5ad", image=False)
    assert readers.read_cohort(path, mpp=1).sections[0].spot_diameter_um == 16
    cohort = readers.read_cohort(path)
    assert cohort.sections[0].mpp is None
    assert "0.125 for 2 um, 0.5 for 8 um, 1 for 16 um" in " ".join(map(str, cohort.problems))
    tifffile.imwrite(
        tmp_path / "hd.tif",
        PICTURE,
        photometric="rgb",
        resolution=(1e4 / 0.5, 1e4 / 0.5),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    (section,) = readers.read_cohort(path).sections
    assert section.mpp == pytest.approx(0.5)
    assert (section.spot_diameter_um, section.spot_pitch_um) == (8.0, 8.0)

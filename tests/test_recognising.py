"""What lies in a folder is read, or told: GEO's names, Space Ranger 4, other platforms' output."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import scanpy
import tifffile

from histospace_tf import checking
from histospace_tf.config import Config
from histospace_tf.data_pipelines import readers, slides
from histospace_tf.requests import FitRequest, refusals
from histospace_tf.vocabulary import InputError, Section
from made import visium as made_visium
from made.cohorts import messages

PREFIX = "GSM4838131_A1_"
GENES = ("ERBB2", "GNAS", "ACTB", "KRT8", "CD74", "B2M", "FASN", "VIM", "COL1A1", "SPARC")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return made_visium.made_picture()


def packed(file: Path, copy: Path) -> None:
    """A gzipped copy; what is gzipped already is copied as it is."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    data = file.read_bytes()
    copy.write_bytes(data if data.startswith(b"\x1f\x8b") else gzip.compress(data))


def write_flat(run: Path, out: Path, prefix: str) -> Path:
    """A run as GEO gives it: one folder, names with a prefix, all but image and .h5 gzipped."""
    for file in sorted(run.rglob("*")):
        if file.is_dir():
            continue
        if file.name == "tissue.png" or file.suffix == ".h5":
            out.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, out / f"{prefix}{file.name}")
        else:
            packed(file, out / f"{prefix}{file.name.removesuffix('.gz')}.gz")
    return out


def assert_same(section: Section, other: Section) -> None:
    assert section.spots.names == other.spots.names
    assert section.spots.genes == other.spots.genes
    np.testing.assert_array_equal(section.spots.centres_px, other.spots.centres_px)
    np.testing.assert_array_equal(section.spots.counts.toarray(), other.spots.counts.toarray())
    assert section.mpp == other.mpp


@pytest.mark.slow
@pytest.mark.parametrize("matrix", made_visium.MATRICES)
@pytest.mark.parametrize("positions", ["list", "csv"])
@pytest.mark.parametrize("prefix", [PREFIX, "Patient 7-", "A1.", ""])
def test_geos_flat_form_is_read_as_the_run_itself(
    tmp_path: Path, picture: np.ndarray, prefix: str, positions: str, matrix: str
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, positions=positions, matrix=matrix)
    flat = write_flat(run, tmp_path / "flat", prefix)
    before = sorted(flat.iterdir())
    cohort = readers.read_cohort(flat)
    (section,) = cohort.sections
    assert section.name == (prefix.rstrip("_-.") or "flat")
    assert section.image == flat / f"{prefix}tissue.png"
    assert_same(section, readers.read_cohort(run).sections[0])
    assert not messages(cohort, "warning") + messages(cohort, "error")
    assert sorted(flat.iterdir()) == before  # nothing is unpacked there


def test_counts_and_places_of_geos_form_are_those_that_scanpy_reads(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, matrix="mtx.gz")
    flat = write_flat(run, tmp_path / "flat", PREFIX)
    (section,) = readers.read_cohort(flat).sections
    data = scanpy.read_10x_mtx(flat, prefix=PREFIX, make_unique=False)
    row_of = {name: row for row, name in enumerate(data.obs_names)}
    rows = [row_of[name] for name in section.spots.names]
    np.testing.assert_array_equal(section.spots.counts.toarray(), data.X[rows].toarray())
    assert list(section.spots.gene_ids) == list(data.var["gene_ids"])


@pytest.mark.parametrize("matrix", made_visium.MATRICES)
def test_names_with_a_prefix_are_read_in_every_usual_order_of_folders(
    tmp_path: Path, picture: np.ndarray, matrix: str
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, matrix=matrix)
    (expected,) = readers.read_cohort(run).sections
    (found,) = run.glob("filtered*")

    def matrix_as(copy: Path) -> None:
        (shutil.copy if found.is_file() else shutil.copytree)(found, copy)

    sorted_ = tmp_path / "sorted"  # into folders, still gzipped
    for file in (run / "spatial").iterdir():
        packed(file, sorted_ / "spatial" / f"{file.name}.gz")
    matrix_as(sorted_ / found.name)
    inside = tmp_path / "inside"  # prefixes in spatial/ alone
    for file in (run / "spatial").iterdir():
        packed(file, inside / "Spatial" / f"{PREFIX}{file.name.upper()}.GZ")
    matrix_as(inside / found.name)
    folders = tmp_path / "folders"  # the folder has the prefix, its files do not
    shutil.copytree(run / "spatial", folders / f"{PREFIX}spatial")
    matrix_as(folders / f"{PREFIX}{found.name}")
    ten_x = tmp_path / "ten_x"  # 10x Genomics' downloads
    shutil.copytree(run / "spatial", ten_x / "outs" / "spatial")
    matrix_as(ten_x / "outs" / f"V1_Breast_{found.name}")
    for folder in (sorted_, inside, folders, ten_x):
        cohort = readers.read_cohort(folder)
        (section,) = cohort.sections
        assert_same(section, expected)
        assert "the hires preview of 200 x 156 px" in messages(cohort, "warning")


@pytest.mark.slow
def test_each_prefix_of_a_flat_folder_is_a_section_of_its_own_patient(
    tmp_path: Path, picture: np.ndarray
) -> None:
    data, expected = tmp_path / "data", {}
    for number, name in enumerate(("GSM1_A1", "GSM2_A10", "GSM3_b")):
        run = made_visium.write_run(tmp_path / name, picture, matrix="mtx.gz", seed=number)
        write_flat(run, data, f"{name}_")
        expected[name] = readers.read_cohort(run).sections[0]
    cohort = readers.read_cohort(data)
    assert [section.name for section in cohort.sections] == list(expected)
    for section in cohort.sections:
        assert_same(section, expected[section.name])
        assert section.patient == section.name
        assert section.image == data / f"{section.name}_tissue.png"
    assert "no patients are named: each of 3 sections" in messages(cohort, "warning")


def test_what_lacks_its_counterpart_or_fits_several_is_named(
    tmp_path: Path, picture: np.ndarray
) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(("GSM1_A1", "GSM2_B1", "GSM3_C1")):
        run = made_visium.write_run(tmp_path / name, picture, matrix="mtx.gz", seed=number)
        write_flat(run, data, f"{name}_")
    (data / "GSM3_C1_tissue_positions_list.csv.gz").unlink()
    (data / "GSM2_B1_barcodes.tsv.gz").unlink()
    shutil.copy(data / "GSM1_A1_tissue.png", data / "overview.png")
    cohort = readers.read_cohort(data, strict=False)
    assert [section.name for section in cohort.sections] == ["GSM1_A1"]
    said = messages(cohort, "warning")
    assert "section GSM3_C1: it has a matrix (GSM3_C1_matrix.mtx.gz) but no spot positions" in said
    assert "1 image(s) have the prefix of no section ('overview.png')" in said
    said = messages(cohort, "error")
    assert "section GSM2_B1: no barcodes.tsv or barcodes.tsv.gz with its prefix lies beside" in said
    # positions that name nobody beside two matrices: barcodes are the same on every slide
    mixed = tmp_path / "mixed"
    shutil.copytree(run / "spatial", mixed / "spatial")
    for name in ("GSM1_A1", "GSM2_B1"):
        shutil.copytree(
            tmp_path / name / "filtered_feature_bc_matrix",
            mixed / f"{name}_filtered_feature_bc_matrix",
        )
    with pytest.raises(InputError, match="holds 2 matrices"):
        readers.read_cohort(mixed)
    # positions of one sample and the matrix of another
    other = tmp_path / "other"
    for file in data.glob("GSM1_A1_*"):
        if "tissue" in file.name or "scale" in file.name:
            shutil.copy(file, other / file.name) if other.exists() else other.mkdir()
    for file in data.glob("GSM3_C1_*.tsv.gz"):
        shutil.copy(file, other / file.name)
    shutil.copy(data / "GSM3_C1_matrix.mtx.gz", other)
    shutil.copy(data / "GSM1_A1_tissue_positions_list.csv.gz", other)
    with pytest.raises(InputError, match="both lie in one folder"):
        readers.read_cohort(other)


def test_parts_whose_prefixes_differ_are_joined_with_a_warning_where_nothing_else_can_be_meant(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    flat = write_flat(run, tmp_path / "flat", "GSM7_A1_")
    for file in flat.glob("*tissue_positions*"):
        file.rename(flat / f"GSM7_spots_{file.name.removeprefix('GSM7_A1_')}")
    cohort = readers.read_cohort(flat)
    assert_same(cohort.sections[0], readers.read_cohort(run).sections[0])
    assert "have different prefixes: taken as of one sample" in messages(cohort, "warning")


def test_scale_factors_and_matrices_of_several_samples_are_never_mixed(
    tmp_path: Path, picture: np.ndarray
) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(("A", "B")):
        run = made_visium.write_run(tmp_path / name, picture, matrix="mtx.gz", seed=number)
        for file in (run / "spatial").glob("*positions*"):
            packed(file, data / "spatial" / f"{name}_{file.name}.gz")
        for file in (run / "filtered_feature_bc_matrix").iterdir():
            packed(file, data / "filtered_feature_bc_matrix" / f"{name}_{file.name}")
    scales = data / "spatial" / "scalefactors_json.json"  # of which of them?
    scales.write_text('{"bin_size_um": 8, "spot_diameter_fullres": 3}')
    cohort = readers.read_cohort(data)
    assert cohort.layout == "visium"
    for section in cohort.sections:
        assert section.mpp == pytest.approx(made_visium.MPP)
        (alone,) = readers.read_cohort(tmp_path / section.name).sections
        assert section.spots.names == alone.spots.names
        np.testing.assert_array_equal(section.spots.counts.toarray(), alone.spots.counts.toarray())
    other = data / "filtered_feature_bc_matrix"
    shutil.rmtree(other)
    shutil.copy(made_visium.write_run(tmp_path / "C", picture) / f"{other.name}.h5", data / "a.h5")
    (data / "a.h5").rename(data / f"a_{other.name}.h5")
    shutil.copy(data / f"a_{other.name}.h5", data / f"A_{other.name}.h5")
    with pytest.raises(InputError, match="holds 2 matrices"):  # names that differ in case alone
        readers.read_cohort(data)


def test_an_image_that_is_gzipped_is_asked_to_be_unpacked(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    packed(run / "tissue.png", run / "scan.tif.gz")
    assert readers.read_cohort(run).sections[0].image == run / "tissue.png"
    (run / "tissue.png").unlink()
    with pytest.raises(InputError, match=r"scan\.tif\.gz is gzipped.*gunzip -k scan\.tif\.gz"):
        readers.read_cohort(run)
    flat = write_flat(run, tmp_path / "flat", PREFIX)
    with pytest.raises(InputError, match="is gzipped"):
        readers.read_cohort(flat)
    images = tmp_path / "images"
    packed(run / "scan.tif.gz", images / "a.tif.gz")
    with pytest.raises(InputError, match=r"a gzipped image \('a\.tif\.gz'\)"):
        checking.check(images)


def test_the_microscopes_image_is_taken_and_no_picture_of_space_ranger(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1" / "outs", picture, image="tissue_image.png")
    for name in (
        "cytassist_image.tiff",
        "aligned_tissue_image.jpg",
        "aligned_fiducials.jpg",
        "detected_tissue_image.jpg",
        "tissue_hires_image.png",
    ):
        cv2.imwrite(str(run / name), picture[:300, :300])
    cohort = readers.read_cohort(run)
    assert cohort.sections[0].image == run / "tissue_image.png"
    assert "'aligned_fiducials.jpg', 'aligned_tissue_image.jpg'" in messages(cohort, "note")
    (run / "tissue_image.png").rename(run / "CytAssist_FFPE_tissue_image.png")
    cv2.imwrite(str(run / "CytAssist_FFPE_image.tif"), picture[:300, :300])
    cohort = readers.read_cohort(run.parent)
    assert cohort.sections[0].image == run / "CytAssist_FFPE_tissue_image.png"
    assert "CytAssist_FFPE_image.tif as the CytAssist's picture: not used" in messages(
        cohort, "note"
    )
    (run / "CytAssist_FFPE_tissue_image.png").unlink()
    (run / "CytAssist_FFPE_image.tif").unlink()
    cohort = readers.read_cohort(run)
    assert cohort.sections[0].image is None
    assert "there is no full-resolution image" in messages(cohort, "warning")


def test_the_microscopes_bigtiff_of_visium_hd_is_taken(tmp_path: Path, picture: np.ndarray) -> None:
    """10x Genomics' names: X_tissue_image.btf beside X_image.tif, the CytAssist's picture."""
    outs = tmp_path / "S1" / "outs"
    bins = outs / "binned_outputs" / "square_016um"
    made_visium.write_run(bins, picture, positions="parquet", bin_um=16, image=None)
    file = outs / "Visium_HD_tissue_image.btf"
    tifffile.imwrite(file, picture, bigtiff=True, photometric="rgb", tile=(256, 256))
    cv2.imwrite(str(outs / "Visium_HD_image.tif"), picture[:300, :300])
    (section,) = readers.read_cohort(outs.parent).sections
    assert section.image == file
    with slides.open_slide(file) as slide:
        np.testing.assert_array_equal(slide.region(0, 0, 900, 700), tifffile.imread(file))


def write_cells(folder: Path) -> None:
    """The files of Space Ranger 4's segmentation, empty."""
    (folder / "spatial").mkdir(parents=True)
    (folder / "filtered_feature_cell_matrix.h5").write_bytes(b"x")
    (folder / "cell_segmentations.geojson").write_text("{}")
    (folder / "spatial" / "scalefactors_json.json").write_text("{}")


def test_bins_beside_segmented_cells_are_read_and_cells_alone_refused_by_name(
    tmp_path: Path, picture: np.ndarray
) -> None:
    outs = tmp_path / "S1" / "outs"
    write_cells(outs / "segmented_outputs")
    cv2.imwrite(str(outs / "tissue_image.png"), picture)
    for given in (outs.parent, outs, outs / "segmented_outputs"):
        with pytest.raises(InputError, match=r"segmented cells of Space Ranger 4.*square_016um"):
            checking.check(given)
    for um in (8, 16):
        bins = outs / "binned_outputs" / f"square_{um:03d}um"
        made_visium.write_run(bins, picture, positions="parquet", bin_um=um, image=None)
    (outs / "feature_slice.h5").write_bytes(b"x")
    (outs / "molecule_info.h5").write_bytes(b"x")
    cohort = readers.read_cohort(outs)
    assert (cohort.layout, cohort.sections[0].spot_pitch_um) == ("visium_hd", 16)
    assert cohort.sections[0].image == outs / "tissue_image.png"
    assert "segmented_outputs lies beside: its cells are not read" in messages(cohort, "note")
    with pytest.raises(InputError, match=r"has one: pass '.*outs'"):
        readers.read_cohort(outs / "segmented_outputs")
    with pytest.raises(InputError, match=r"has one: pass '.*square_016um'"):
        readers.read_cohort(bins / "spatial")


def test_flat_bins_of_one_sample_are_one_section(tmp_path: Path, picture: np.ndarray) -> None:
    data = tmp_path / "data"
    for um in (8, 16):
        run = tmp_path / f"square_{um:03d}um"
        made_visium.write_run(run, picture, positions="csv", bin_um=um, image=None)
        write_flat(run, data, f"GSM1_A1_{run.name}_")
    cohort = readers.read_cohort(data)
    (section,) = cohort.sections
    assert (cohort.layout, section.spot_pitch_um) == ("visium_hd", 16)
    assert "To read GSM1_A1_square_008um" in messages(cohort, "note")


@pytest.mark.slow
def test_folders_of_bins_and_outs_with_a_prefix_have_the_images_of_that_prefix(
    tmp_path: Path, picture: np.ndarray
) -> None:
    for data, inside in (("a", "square_016um"), ("b", "binned_outputs/square_016um")):
        for number, name in enumerate(("GSM1_A", "GSM2_B")):
            run = tmp_path / data / f"{name}_{inside}"
            made_visium.write_run(
                run, picture, positions="parquet", bin_um=16, image=None, seed=number
            )
            cv2.imwrite(str(tmp_path / data / f"{name}_tissue_image.png"), picture)
    for name in ("GSM1_A", "GSM2_B"):
        made_visium.write_run(tmp_path / "c" / f"{name}_outs", picture, image=None)
        cv2.imwrite(str(tmp_path / "c" / f"{name}.png"), picture)
    for data, layout in (("a", "visium_hd"), ("b", "runs"), ("c", "runs")):
        cohort = readers.read_cohort(tmp_path / data)
        assert cohort.layout == layout
        assert [section.name[:6] for section in cohort.sections] == ["GSM1_A", "GSM2_B"]
        for section in cohort.sections:
            assert section.image is not None
            assert section.image.name.startswith(section.name[:6])


def test_names_of_spatiallibd_are_read(tmp_path: Path, picture: np.ndarray) -> None:
    """Maynard et al., 2021: 151673_filtered_feature_bc_matrix.h5, ..._tissue_positions_list.txt."""
    run = made_visium.write_run(tmp_path / "S1", picture)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("151673", "151674"):
        for file, copy in (
            ("filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix.h5"),
            ("spatial/tissue_positions_list.csv", "tissue_positions_list.txt"),
            ("spatial/scalefactors_json.json", "scalefactors_json.json"),
            ("tissue.png", "full_image.png"),
        ):
            shutil.copy(run / file, data / f"{name}_{copy}")
    cohort = readers.read_cohort(data)
    assert [section.name for section in cohort.sections] == ["151673", "151674"]
    assert_same(cohort.sections[1], readers.read_cohort(run).sections[0])
    assert cohort.sections[1].image == data / "151674_full_image.png"


def test_gzipped_h5_and_parquet_are_read_and_damaged_ones_named(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, positions="parquet")
    data = tmp_path / "data"
    for file in (*run.glob("*.h5"), *(run / "spatial").iterdir()):
        packed(file, data / f"{PREFIX}{file.name}.gz")
    (section,) = readers.read_cohort(data).sections
    assert_same(section, readers.read_cohort(run).sections[0])
    for name in ("filtered_feature_bc_matrix.h5", "scalefactors_json.json"):
        file = data / f"{PREFIX}{name}.gz"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=rf"{file.name}' is gzipped and truncated or damaged"):
            readers.read_cohort(data)
        file.write_bytes(whole)
    (data / f"{PREFIX}tissue_hires_image.png.gz").write_bytes(b"\x1f\x8b")
    assert len(readers.read_cohort(data).sections) == 1  # a preview is never used


def test_files_of_a_run_that_are_no_matrix_of_genes_are_none(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    for name in ("raw_probe_bc_matrix.h5", "molecule_info.h5", "feature_slice.h5"):
        shutil.move(run / "filtered_feature_bc_matrix.h5", run / name)
        with pytest.raises(InputError, match="has no matrix"):
            readers.read_cohort(run)
        shutil.move(run / name, run / "filtered_feature_bc_matrix.h5")


def test_a_folder_of_runs_is_one_data_set(tmp_path: Path, picture: np.ndarray) -> None:
    data = tmp_path / "data"
    made_visium.write_run(data / "A" / "outs", picture, matrix="mtx")
    made_visium.write_run(data / "B", picture, positions="csv", image=None, seed=1)
    cv2.imwrite(str(data / "B.png"), picture[..., ::-1])
    made_visium.write_run(data / "C" / "outs" / "outs", picture, image=None, seed=2)
    shutil.copytree(data / "A" / "outs" / "filtered_feature_bc_matrix", data / "D" / "matrix")
    cohort = readers.read_cohort(data)
    assert cohort.layout == "runs"
    images = [(s.name, s.patient, s.image) for s in cohort.sections]
    assert images == [
        ("A", "A", data / "A/outs/tissue.png"),
        ("B", "B", data / "B.png"),
        ("C", "C", None),
    ]
    for section in cohort.sections:
        (alone,) = readers.read_cohort(data / section.name).sections
        assert_same(section, alone)
    said = messages(cohort, "warning")
    assert "no patients are named: each of 3 sections counts as one of its own" in said
    assert "D: it holds a matrix of Space Ranger ('matrix/matrix.mtx')" in said
    # one run alone is named, and files beside runs may be the same sections
    with pytest.raises(InputError, match=r"data' has one: pass that"):
        readers.read_cohort(tmp_path)
    made_visium.made_h5ad(picture).write_h5ad(data / "A.h5ad")
    with pytest.raises(InputError, match=r"list all 4 in a sections\.csv"):
        readers.read_cohort(data)


def test_several_images_of_a_runs_name_are_refused_and_none_is_missed_besides(
    tmp_path: Path, picture: np.ndarray
) -> None:
    made_visium.write_run(tmp_path / "A", picture)
    made_visium.write_run(tmp_path / "B", picture, image=None, seed=1)
    for name in ("b.png", "b.tif"):
        cv2.imwrite(str(tmp_path / name), picture[..., ::-1])
    cohort = readers.read_cohort(tmp_path, strict=False)
    assert "section B: 2 images have its name: 'b.png', 'b.tif'" in messages(cohort, "error")
    assert "full-resolution image" not in messages(cohort, "warning")
    (tmp_path / "b.tif").rename(tmp_path / "B.tif")  # the very name
    assert readers.read_cohort(tmp_path).sections[1].image == tmp_path / "B.tif"


def test_one_sample_in_two_folders_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    for name in ("a", "b"):
        write_flat(run, tmp_path / "data" / name, PREFIX)
    with pytest.raises(InputError, match=r"'GSM4838131_A1' 2 times \(in 'a', 'b'\)"):
        readers.read_cohort(tmp_path / "data")


OTHERS = {
    "Xenium output": ("experiment.xenium", "transcripts.parquet", "cells.parquet"),
    "CosMx output": ("Run1_exprMat_file.csv", "Run1_tx_file.csv.gz"),
    "MERSCOPE output": ("cell_by_gene.csv", "region_0/detected_transcripts.csv"),
    "Stereo-seq output": ("SS200000135TL_D1.tissue.gef",),
    "Slide-seq output": ("Puck_1_BeadLocationsForR.csv",),
    "an R object": ("seurat.rds",),
    "a Loom or MuData file": ("deep/er/a.loom",),
    "AnnData": ("a/b/c/d/e.h5ad",),
    "a .zarr store": ("a.zarr/.zgroup",),
    "an HDF5 file": ("counts.h5",),
    "a Matrix Market file": ("GSM1_counts.mtx.gz",),
    "a matrix of Space Ranger": ("S1/filtered_feature_bc_matrix/matrix.mtx.gz",),
    "spot positions of Space Ranger": ("GSM1_A1_tissue_positions_list.csv.gz",),
    "an archive of data": ("GSE1_RAW.tar",),
    "part of HER2ST's layout": ("ST-cnts/A1.tsv.gz",),
    "part of a run of Space Ranger without counts of genes": ("molecule_info.h5",),
}


@pytest.mark.parametrize("what", OTHERS)
def test_data_beside_images_is_reported_and_never_called_images_alone(
    tmp_path: Path, picture: np.ndarray, small_config: Config, what: str
) -> None:
    cv2.imwrite(str(tmp_path / "morphology.png"), picture)
    for name in OTHERS[what]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (first, *_) = readers.what_lies_in(tmp_path)
    assert (first.severity, what in first.message) == ("error", True)
    assert first.advice
    with pytest.raises(InputError, match=what):
        checking.check(tmp_path)
    with pytest.raises(InputError, match=what):
        refusals.refuse(FitRequest(tmp_path, tmp_path / "run", config=small_config))


def test_what_a_run_lacks_is_named(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    (run / "spatial" / "tissue_positions_list.csv").unlink()
    with pytest.raises(InputError, match=r"Spot positions are missing: .*tissue_positions\.csv"):
        checking.check(run)
    flat = tmp_path / "flat"
    flat.mkdir()
    made_visium.made_spots(picture).to_csv(flat / "A_tissue_positions.csv", index=False)
    with pytest.raises(InputError, match=r"A matrix is missing: .*filtered_feature_bc_matrix\.h5"):
        checking.check(flat)


@pytest.mark.parametrize("genes_first", [True, False])
def test_a_table_of_counts_is_known_by_its_genes(
    tmp_path: Path, picture: np.ndarray, genes_first: bool
) -> None:
    cv2.imwrite(str(tmp_path / "he.png"), picture)
    genes = [
        "ERBB2",
        "GNAS",
        "ACTB",
        "KRT8",
        "CD74",
        "B2M",
        "FASN",
        "VIM",
        "COL1A1",
        "SPARC",
        "Tp53",
        "Esr1",
    ]
    rows = [["", *genes], *([f"{i}x{i}", *("1" * len(genes))] for i in range(12))]
    table = rows if genes_first else list(zip(*rows, strict=True))
    text = "\n".join("\t".join(row) for row in table) + "\n"
    (tmp_path / "S1.tsv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=r"a table of counts \('S1\.tsv\.gz'\)"):
        checking.check(tmp_path)
    (tmp_path / "S1.tsv.gz").unlink()
    pd.DataFrame({gene: [1, 2] for gene in genes}).to_parquet(tmp_path / "S1.parquet")
    with pytest.raises(InputError, match=r"a table of counts \('S1\.parquet'\)"):
        checking.check(tmp_path)


def test_tables_and_outlines_that_may_stand_beside_images_do_not_stop_them(
    tmp_path: Path, picture: np.ndarray
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    columns = [f"feature_{i}" for i in range(60)]
    (tmp_path / "clinical.csv").write_text(",".join(columns) + "\n" + ",".join("1" * 60) + "\n")
    markers = "\n".join(f"{gene},1.5,0.01" for gene in GENES)
    (tmp_path / "markers.csv").write_text(f"gene,log2fc,p\n{markers}\n")
    (tmp_path / "README.txt").write_text("Slides of a study.\n")
    report = checking.check(tmp_path)
    assert (report.layout, report.exit_code) == ("images", 0)
    with pytest.raises(InputError, match=r"holds 1 image\(s\), and neither spots nor counts"):
        readers.read_cohort(tmp_path)
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    report = checking.check(tmp_path)
    assert (report.layout, report.exit_code) == ("images", 1)
    assert "a GeoJSON of outlines ('a.geojson')" in report.text()


def test_a_folder_too_deep_or_too_high_and_a_file_name_what_to_pass(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "data" / "S1" / "outs", picture, matrix="mtx")
    for part in (run / "spatial", run / "filtered_feature_bc_matrix"):
        with pytest.raises(InputError, match=r"one: pass '.*outs'"):
            readers.read_cohort(part)
    with pytest.raises(InputError, match=r"S1' has one: pass that"):
        readers.read_cohort(tmp_path)
    file = run / "spatial" / "tissue_positions_list.csv"
    with pytest.raises(InputError, match=r"is a part of '.*outs': pass that folder"):
        readers.read_cohort(file)
    archive = tmp_path / "run.tar.gz"
    archive.write_bytes(b"x")
    for call in (checking.check, readers.read_cohort):
        with pytest.raises(InputError, match=r"Archives are not opened: unpack it"):
            call(archive)
    with pytest.raises(InputError, match="It looks like 'visium': leave `layout` out"):
        readers.read_cohort(run, layout="her2st")
    with pytest.raises(InputError, match=r"does not have the layout 'visium'.*S1' has one"):
        readers.read_cohort(tmp_path, layout="visium")

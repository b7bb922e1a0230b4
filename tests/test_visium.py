"""Runs of Space Ranger and Visium HD's bins, made in all their forms and real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy

from histospace_tf.config import Config, TileConfig
from histospace_tf.data_pipelines import readers, slides
from histospace_tf.data_pipelines.readers import feature_matrix, run_files, visium
from histospace_tf.data_pipelines.spots import previews
from histospace_tf.requests import FitRequest, PredictRequest, ScoreRequest
from histospace_tf.vocabulary import InputError
from made import visium as made_visium
from made.cohorts import messages


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return made_visium.made_picture()


@pytest.mark.slow
@pytest.mark.parametrize("positions", made_visium.POSITIONS)
@pytest.mark.parametrize("matrix", made_visium.MATRICES)
def test_every_form_of_a_run_gives_the_same_section(
    tmp_path: Path, picture: np.ndarray, positions: str, matrix: str
) -> None:
    outs = made_visium.write_run(tmp_path / "S1/outs", picture, positions=positions, matrix=matrix)
    for given in (outs, outs.parent):
        cohort = readers.read_cohort(given)
        (section,) = cohort.sections
        assert (cohort.layout, section.name, section.patient) == ("visium", "S1", "S1")
    spots = made_visium.made_spots(picture)
    spots = spots[spots["in_tissue"] == 1]
    assert section.spots.names == tuple(spots["barcode"])
    # x is the column, y the row: the files have them the other way round
    expected = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    np.testing.assert_allclose(section.spots.centres_px, expected)
    counts = made_visium.made_counts(spots).toarray()
    np.testing.assert_array_equal(section.spots.counts.toarray(), counts)
    assert section.mpp == pytest.approx(made_visium.MPP, rel=1e-6)
    assert (section.spot_diameter_um, section.spot_pitch_um) == (55.0, 100.0)
    assert section.image is not None
    assert section.image.name == "tissue.png"
    assert not messages(cohort, "warning") + messages(cohort, "error")
    assert "from the array: 142.9 px between spots that are 100 um apart" in messages(
        cohort, "note"
    )


def test_raw_matrix_is_read_without_a_filtered_one_and_spots_off_tissue_are_skipped(
    tmp_path: Path, picture: np.ndarray
) -> None:
    cohort = readers.read_cohort(made_visium.write_run(tmp_path / "S1", picture, kind="raw"))
    spots = made_visium.made_spots(picture)
    off = int((spots["in_tissue"] == 0).sum())
    assert off > 0
    assert len(cohort.sections[0].spots) == len(spots) - off
    said = messages(cohort, "note")
    assert "there is no filtered matrix: raw_feature_bc_matrix.h5 is read" in said
    assert f"{off} of {len(spots)} spots with counts are not under tissue" in said


def test_genes_of_one_symbol_are_called_by_their_ids(tmp_path: Path, picture: np.ndarray) -> None:
    cohort = readers.read_cohort(made_visium.write_run(tmp_path / "S1", picture))
    spots = cohort.sections[0].spots
    assert spots.genes[3:6] == ("IGKC", "ENSG00000000004", "ENSG00000000005")
    assert spots.gene_ids[3:6] == ("ENSG00000000003", "ENSG00000000004", "ENSG00000000005")
    assert spots.subset(np.array([0])).gene_ids == spots.gene_ids
    assert "1 gene name(s) stand for several ids ('TBCE: ENSG00000000004 and" in messages(
        cohort, "note"
    )


def test_features_that_are_no_genes_are_skipped_and_reported(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    spots = made_visium.made_spots(picture)
    spots = spots[spots["in_tissue"] == 1]
    made_visium.write_h5(
        run / "filtered_feature_bc_matrix.h5",
        list(spots["barcode"]),
        ["A", "B", "CD3"],
        ["ENSG1", "ENSG2", "antibody"],
        made_visium.made_counts(spots, genes=["A", "B", "CD3"]),
        kinds=["Gene Expression", "Gene Expression", "Antibody Capture"],
    )
    cohort = readers.read_cohort(run)
    assert cohort.sections[0].spots.genes == ("A", "B")
    assert "1 of 3 features are no genes (Antibody Capture: 1; " in messages(cohort, "note")


def test_a_turned_and_mirrored_image_is_read(tmp_path: Path, picture: np.ndarray) -> None:
    """Space Ranger 2 and later align such images, so array x may run along the image's y."""
    run = made_visium.write_run(tmp_path / "S1", picture, positions="csv")
    file = run / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(file)
    pixels = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    table[pixels] = table[pixels[::-1]].to_numpy()
    table.to_csv(file, index=False)
    cv2.imwrite(str(run / "tissue.png"), picture.transpose(1, 0, 2)[..., ::-1])
    for name in ("hires", "lowres"):
        (run / "spatial" / f"tissue_{name}_image.png").unlink()
    (section,) = readers.read_cohort(run).sections
    assert section.mpp == pytest.approx(made_visium.MPP)


def test_swapped_pixel_columns_are_refused_where_spots_leave_the_image(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, kind="raw", positions="csv")
    file = run / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(file)
    table["in_tissue"] = 1
    pixels = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    table[pixels] = table[pixels[::-1]].to_numpy()
    table.to_csv(file, index=False)
    with pytest.raises(InputError, match="x and y look swapped"):
        readers.read_cohort(run)
    file.unlink()  # without a header the order of columns is told by the array alone
    table.to_csv(run / "spatial" / "tissue_positions_list.csv", index=False, header=False)
    with pytest.raises(InputError, match="pixel rows and columns look exchanged"):
        readers.read_cohort(run)


def test_with_previews_alone_a_section_has_no_image_and_their_scale_is_reported(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, image=None)
    cohort = readers.read_cohort(run)
    assert cohort.sections[0].image is None
    said = messages(cohort, "warning")
    # 0.7 um x 900 px / 200 px
    assert "only the hires preview of 200 x 156 px (3.15 um per pixel" in said
    assert "a tile of 309 um would have 98 px, a nucleus 3 px, too coarse for tiles" in said
    assert "Give the original image (about 900 x 702 px) with `image`" in said
    smaller = readers.read_cohort(run, tile=TileConfig(tile_px=100, mpp=0.7))
    assert "a tile of 70 um would have 22 px" in messages(smaller, "warning")


def test_a_fine_preview_is_said_to_make_sense_and_still_not_used() -> None:
    hires = previews.Preview("hires", 0.25, (4000, 4000))
    said = previews.without_image("section S1", [hires], 0.27, TileConfig())
    assert "(1.08 um per pixel: a tile of 309 um would have 286 px, tiles would still make" in str(
        said
    )
    assert "Previews are not used." in str(said)


@pytest.mark.parametrize("name", ["hires", "lowres"])
def test_a_preview_passed_as_the_image_is_refused(
    tmp_path: Path, picture: np.ndarray, name: str
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    preview = run / "spatial" / f"tissue_{name}_image.png"
    with pytest.raises(
        InputError, match=rf"it is the {name} preview of .* um per pixel: a tile of"
    ):
        readers.read_cohort(run, image=preview)
    # the preview's own file is gone, its scale factor left
    moved = shutil.move(preview, tmp_path / "scan.png")
    with pytest.raises(InputError, match=rf"the scale of the {name} preview: it is that or"):
        readers.read_cohort(run, image=Path(moved))


def test_a_shrunk_copy_of_the_image_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, image=None)
    small = cv2.resize(picture, None, fx=2, fy=2)  # spots lie on it, at wrong places
    cv2.imwrite(str(tmp_path / "scan.png"), small)
    with pytest.raises(InputError, match=r"copy at 2 times the size .*about 900 x 702 px"):
        readers.read_cohort(run, image=tmp_path / "scan.png")


def test_an_image_that_is_too_small_or_absent_is_refused(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture, image=None)
    cv2.imwrite(str(tmp_path / "crop.png"), picture[:500, :500])
    with pytest.raises(InputError, match=r"spots lie outside the 500 x 500 px image"):
        readers.read_cohort(run, image=tmp_path / "crop.png")
    with pytest.raises(InputError, match="does not exist"):
        readers.read_cohort(run, image=tmp_path / "gone.png")


def test_two_images_beside_a_run_are_refused_and_one_of_them_can_be_named(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1" / "outs", picture)
    shutil.copy(run / "tissue.png", run.parent / "other.png")
    with pytest.raises(InputError, match=r"2 images stand beside the run.*`image`"):
        readers.read_cohort(run)
    told = readers.read_cohort(run, strict=False)
    assert not any("no full-resolution image" in problem.message for problem in told.problems)
    (section,) = readers.read_cohort(run, image=run.parent / "other.png").sections
    assert section.image is not None
    assert section.image.name == "other.png"


def test_a_given_scale_takes_precedence_with_a_warning(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    cohort = readers.read_cohort(run, mpp=0.35)
    assert cohort.sections[0].mpp == 0.35
    assert "(as given) are taken; they would be 0.7 from the array" in messages(cohort, "warning")
    with pytest.raises(InputError, match="`mpp` 0"):
        readers.read_cohort(run, mpp=0)


def test_without_an_array_the_nominal_spot_gives_the_scale(
    tmp_path: Path, picture: np.ndarray
) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    file = run / "spatial" / "tissue_positions_list.csv"
    table = pd.read_csv(file, header=None)
    table[2] = 0  # one line of the array
    table.to_csv(file, index=False, header=False)
    cohort = readers.read_cohort(run)
    assert cohort.sections[0].mpp == pytest.approx(made_visium.MPP)
    assert "from spot_diameter_fullres (92.9 px)" in messages(cohort, "note")
    (run / "spatial" / "scalefactors_json.json").unlink()
    cohort = readers.read_cohort(run)
    assert cohort.sections[0].mpp is None
    assert "microns per pixel are unknown" in messages(cohort, "warning")


def test_damaged_runs_are_refused_by_name(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    h5 = run / "filtered_feature_bc_matrix.h5"
    whole = h5.read_bytes()
    h5.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"filtered_feature_bc_matrix\.h5' cannot be read"):
        readers.read_cohort(run)
    h5.unlink()
    with h5py.File(h5, "w") as other:
        other["x"] = 1
    with pytest.raises(InputError, match="is not Space Ranger's"):
        readers.read_cohort(run)
    h5.unlink()
    with pytest.raises(InputError, match=r"has no matrix: filtered_feature_bc_matrix\.h5"):
        readers.read_cohort(run)
    h5.write_bytes(whole)
    shutil.copy(h5, run / "other_filtered_feature_bc_matrix.h5")
    with pytest.raises(InputError, match="holds 2 matrices"):
        readers.read_cohort(run)
    (run / "other_filtered_feature_bc_matrix.h5").unlink()
    scales = run / "spatial" / "scalefactors_json.json"
    scales.write_text("{")
    with pytest.raises(InputError, match="are not JSON"):
        previews.read_scale_factors(scales)
    scales.write_text(json.dumps({"spot_diameter_fullres": 90}))
    positions = run / "spatial" / "tissue_positions_list.csv"
    good = positions.read_text()
    positions.write_text(good.replace("-1,", "-9,"))
    with pytest.raises(InputError, match=r"none of .* barcodes .* are they of one run"):
        readers.read_cohort(run)
    positions.write_text(good + good.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="more than once"):
        readers.read_cohort(run)
    first = good.splitlines()[0].rsplit(",", 1)[0]
    positions.write_text(first + ",left\n" + "\n".join(good.splitlines()[1:]))
    with pytest.raises(InputError, match=r"pxl_col_in_fullres: 'left' is not a number"):
        readers.read_cohort(run)
    positions.write_text("")
    with pytest.raises(InputError, match="spot positions"):
        readers.read_cohort(run)
    (run / "spatial" / "tissue_positions.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"parquet' cannot be read"):
        readers.read_cohort(run)
    with pytest.raises(InputError, match="no run of Space Ranger"):
        visium.find_sections(tmp_path / "gone")


def test_bins_of_16_um_are_read_unless_others_are_passed(
    tmp_path: Path, picture: np.ndarray
) -> None:
    outs = tmp_path / "HD" / "outs"
    for um in (8, 16):
        inside = outs / "binned_outputs" / f"square_{um:03d}um"
        made_visium.write_run(inside, picture, positions="parquet", bin_um=um, image=None)
    cv2.imwrite(str(outs / "he.png"), picture[..., ::-1])
    for given in (outs.parent, outs, outs / "binned_outputs"):
        cohort = readers.read_cohort(given)
        (section,) = cohort.sections
        assert (cohort.layout, section.name, section.spot_pitch_um) == ("visium_hd", "HD", 16)
        assert section.image is not None
        assert section.mpp == made_visium.MPP
    assert "To read square_008um, pass that folder." in messages(cohort, "note")
    bins = outs / "binned_outputs" / "square_008um"
    renamed = bins.parent / "eight"
    for given in (bins, renamed):
        cohort = readers.read_cohort(given)
        (section,) = cohort.sections
        assert cohort.layout == "visium_hd"
        assert (section.spot_diameter_um, section.spot_pitch_um) == (8, 8)
        if given == bins:
            bins.rename(renamed)


def test_real_runs(test_data: Path) -> None:
    cohort = readers.read_cohort(test_data / "visium" / "spaceranger_1.0.0")
    (section,) = cohort.sections
    assert (len(section.spots), len(section.spots.genes), section.image) == (100, 100, None)
    assert section.mpp == pytest.approx(0.725, abs=0.001)
    assert "the black hires preview of 2000 x 2000 px" in messages(cohort, "warning")
    # scanpy's own reading of this file has this sum
    assert section.spots.counts.sum() == pytest.approx(_h5_sum(test_data))
    cohort = readers.read_cohort(test_data / "visium" / "spaceranger_section1_outs")
    (section,) = cohort.sections
    assert (len(section.spots), len(section.spots.genes), section.image) == (22, 49, None)
    assert section.mpp == pytest.approx(0.725, abs=0.001)
    assert "28 of 50 spots with counts are not under tissue" in messages(cohort, "note")
    for name in ("visium_hd_binned_outputs", "visium_hd_binned_outputs/square_002um"):
        with pytest.raises(InputError, match=r"is empty: 10 bins of 2 um and 10 genes"):
            readers.read_cohort(test_data / "visium" / name)
    preview = test_data / "visium/spaceranger_1.0.0/spatial/tissue_hires_image.png"
    with pytest.raises(InputError, match="it is the black hires preview"):
        readers.read_cohort(test_data / "visium" / "spaceranger_1.0.0", image=preview)


def _h5_sum(test_data: Path) -> float:
    file = test_data / "visium/spaceranger_1.0.0/filtered_feature_bc_matrix.h5"
    with h5py.File(file) as h5:
        return float(h5["matrix/data"][:].sum())


def _matrix_in(folder: Path) -> feature_matrix.FeatureMatrix:
    """The matrix in a folder without positions."""
    (run,) = run_files.runs_in(folder)
    (files,) = run.matrices
    return feature_matrix.read_matrix(files, "section a")


def test_the_real_mtx_folders_are_read(test_data: Path, tmp_path: Path) -> None:
    runs = test_data / "visium"
    mtx = runs / "spaceranger_section1_outs" / "raw_feature_bc_matrix"
    shutil.copytree(mtx, tmp_path / "a" / mtx.name)
    found = _matrix_in(tmp_path / "a")
    assert found.counts.shape == (50, 50)
    assert found.counts.nnz == 338  # as its header says
    assert (found.genes[0], found.gene_ids[0]) == ("Xkr4", "ENSMUSG00000051951")
    # This one's tables end in .gz and are not compressed.
    odd = runs / "visium_hd_binned_outputs" / "square_002um" / "filtered_feature_bc_matrix"
    shutil.copytree(odd, tmp_path / "b" / odd.name)
    found = _matrix_in(tmp_path / "b")
    assert (found.counts.shape, found.counts.nnz) == ((10, 10), 0)
    (tmp_path / "b" / odd.name / "barcodes.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"has no barcodes\.tsv or barcodes\.tsv\.gz"):
        _matrix_in(tmp_path / "b")
    (tmp_path / "a" / mtx.name / "matrix.mtx").write_text("%%MatrixMarket matrix\n1 1\n")
    with pytest.raises(InputError, match=r"matrix\.mtx' cannot be read"):
        _matrix_in(tmp_path / "a")
    (tmp_path / "a" / mtx.name / "matrix.mtx").write_bytes((mtx / "matrix.mtx").read_bytes())
    (tmp_path / "a" / mtx.name / "barcodes.tsv").write_text("AAAC-1\n")
    with pytest.raises(InputError, match="50 x 50 counts for 1 barcodes and 50 features"):
        _matrix_in(tmp_path / "a")


def test_the_folder_inside_a_run_names_the_run(tmp_path: Path, picture: np.ndarray) -> None:
    run = made_visium.write_run(tmp_path / "S1", picture)
    with pytest.raises(InputError, match=r"the folder that holds it has one: pass '.*S1'"):
        readers.read_cohort(run / "spatial")


def _check_ids_travel(folder: Path, crop: np.ndarray, predicted: anndata.AnnData) -> None:
    """In what a run wrote, and where it is scored on a section of other names for the same ids."""
    from histospace_tf import scoring

    names = [*made_visium.GENES[:4], "ENSG00000000004", "ENSG00000000005", *made_visium.GENES[6:]]
    ids = {name: f"ENSG{i:011d}" for i, name in enumerate(names)}
    held_out = anndata.read_h5ad(folder / "run" / "predictions.h5ad")
    for table in (predicted, held_out):
        assert list(table.var["gene_ids"]) == [ids[gene] for gene in table.var_names]
    turned = (*made_visium.GENES[:6], *made_visium.GENES[:5:-1])  # KRT8 and CD74, exchanged
    run = made_visium.write_run(folder / "other", crop, mpp=0.69, seed=5, genes=turned)
    found = scoring.score(ScoreRequest(run, folder / "scored", model=folder / "run"))
    scored = anndata.read_h5ad(folder / "scored" / "predictions.h5ad")
    assert set(scored.var_names) == set(predicted.var_names)
    assert found.scores["external"]["renamed_genes"] == {"KRT8": "CD74", "CD74": "KRT8"}
    counts = scanpy.read_10x_h5(run / "filtered_feature_bc_matrix.h5")
    counts.var_names = counts.var["gene_ids"]
    counts = counts[list(scored.obs["spot"])]
    library = np.asarray(counts.X.sum(axis=1)).ravel()
    for gene in scored.var_names:
        own = counts[:, ids[gene]].X.toarray().ravel()
        measured = np.asarray(scored[:, gene].layers["measured"]).ravel()
        np.testing.assert_allclose(measured, np.log1p(own / library * 1e4), rtol=1e-5)


def test_made_runs_on_real_tissue_are_fitted_and_predicted(
    test_data: Path, tmp_path: Path, small_config: Config, unpublished: None
) -> None:
    from histospace_tf import fitting, predicting
    from histospace_tf.config import changed

    lines = ["section,path,patient"]
    for number, name in enumerate(("C3", "C4")):
        (image,) = (test_data / "her2st" / "ST-imgs" / "C" / name).glob("*.jpg")
        with slides.open_slide(image) as slide:
            crop = slide.region(4000, 3600, 900, 800)
        form = ("csv", "parquet")[number]
        run = tmp_path / "data" / name / "outs"
        made_visium.write_run(run, crop, positions=form, mpp=0.69, seed=number)
        lines.append(f"{name},{name},P{number}")
    (tmp_path / "data" / "sections.csv").write_text("\n".join(lines) + "\n")
    settings = changed(small_config, target__genes=6, regressor__symmetries=1)
    result = fitting.fit(
        FitRequest(tmp_path / "data", tmp_path / "run", config=settings, hold_out=["P1"])
    )
    assert list(result.scores["sections"]) == ["C4"]
    table = predicting.predict(
        PredictRequest(
            run / "tissue.png", model=tmp_path / "run", out=tmp_path / "p.h5ad", mpp=0.69
        )
    )
    assert table.table.n_vars == 6
    _check_ids_travel(tmp_path, crop, table.table)
    black = tmp_path / "data" / "C3" / "outs" / "tissue.png"
    cv2.imwrite(str(black), np.zeros((800, 900, 3), np.uint8))
    with pytest.raises(InputError, match=r"C3 cannot be used \(tissue\.png is black"):
        fitting.fit(
            FitRequest(tmp_path / "data", tmp_path / "again", config=settings, hold_out=["P0"])
        )
    with pytest.raises(InputError, match=r"nothing to train on.* C3: tissue\.png is black"):
        fitting.fit(
            FitRequest(tmp_path / "data", tmp_path / "again", config=settings, hold_out=["P1"])
        )


def test_spots_by_the_tens_of_thousands_are_warned_of(tmp_path: Path, picture: np.ndarray) -> None:
    run = tmp_path / "square_004um"
    made_visium.write_run(run, picture, positions="parquet", bin_um=4, mpp=1.0, image=None)
    cohort = readers.read_cohort(run)
    n = len(cohort.sections[0].spots)
    assert n > 15_000
    assert f"{n} spots: their tiles of 224 px take {n * 224**2 * 3 / 1e9:.0f} GB" in messages(
        cohort, "warning"
    )

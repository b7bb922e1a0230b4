"""Simulated tissue: the layout, its truth, and what it must not do."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from histospace_tf.data_pipelines import readers, simulation
from histospace_tf.data_pipelines.simulation import expression, histology, plan
from histospace_tf.data_pipelines.spots.platforms import LEGACY_ST
from histospace_tf.vocabulary import InputError

TINY: dict[str, Any] = {"patients": 2, "spots_xy": (3, 3)}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients, up to 49 spots each: enough for correlations over spots."""
    folder = tmp_path_factory.mktemp("simulated") / "tissue"
    simulation.simulate(folder, patients=3, spots_xy=(7, 7), seed=1)
    return folder


@pytest.fixture(scope="module")
def truth(tissue: Path) -> dict[str, Any]:
    return json.loads((tissue / "truth.json").read_text(encoding="utf-8"))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    assert text.endswith("\n")
    assert "\r" not in text
    return [line.split("\t") for line in text[:-1].split("\n")]


def pooled(tissue: Path, truth: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """(log counts per 10,000 less their section's mean, true shares likewise, gene -> column)."""
    life = expression.biology(plan.CELL_TYPES)
    column = {gene: at for at, gene in enumerate(life.genes)}
    values, shares = [], []
    for section in readers.read_cohort(tissue).sections:
        counts = np.zeros((len(section.spots), len(column)))
        counts[:, [column[gene] for gene in section.spots.genes]] = section.spots.counts.toarray()
        logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
        known = truth["sections"][section.name]
        share = np.array([known["shares"][spot] for spot in section.spots.names])
        values.append(logs - logs.mean(axis=0))
        shares.append(share - share.mean(axis=0))
    return np.concatenate(values), np.concatenate(shares), column


@pytest.mark.slow
def test_files_are_those_of_the_legacy_layout(tissue: Path) -> None:
    names = {"truth.json"}
    for patient in "ABC":
        section = f"{patient}1"
        names |= {
            f"ST-imgs/{patient}/{section}/simulated_{section}_HE.jpg",
            f"ST-cnts/{section}.tsv.gz",
            f"ST-spotfiles/{section}_selection.tsv",
            f"ST-pat/lbl/{section}_labeled_coordinates.tsv",
        }
    assert set(digests(tissue)) == names


def test_tables_have_the_releases_columns_and_ids(tissue: Path) -> None:
    counts = table(tissue / "ST-cnts" / "A1.tsv.gz")
    selection = table(tissue / "ST-spotfiles" / "A1_selection.tsv")
    labels = table(tissue / "ST-pat" / "lbl" / "A1_labeled_coordinates.tsv")
    assert counts[0][0] == ""
    assert selection[0] == ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]
    assert labels[0] == ["Row.names", "x", "y", "pixel_x", "pixel_y", "label"]
    ids = [row[0] for row in counts[1:]]
    assert ids == [f"{row[0]}x{row[1]}" for row in selection[1:]]
    assert len(labels) == len(selection) == len(ids) + 1
    assert {row[5] for row in labels[1:]} <= set(simulation.LABELS.values())
    for spot, label in zip(selection[1:], labels[1:], strict=True):
        assert spot[4:6] == label[3:5]
        assert [round(float(v)) for v in label[1:3]] == [int(v) for v in spot[:2]]


def test_gene_without_counts_in_a_section_is_left_out_of_its_table(tissue: Path) -> None:
    for path in sorted((tissue / "ST-cnts").iterdir()):
        counts = np.array([row[1:] for row in table(path)[1:]], int)
        assert counts.sum(axis=0).min() > 0
        assert counts.sum(axis=1).min() > 0


def test_cohort_is_read_without_problems_by_the_reader_of_the_real_release(tissue: Path) -> None:
    cohort = readers.read_cohort(tissue)
    assert cohort.patients == ("A", "B", "C")
    assert [section.name for section in cohort.sections] == ["A1", "B1", "C1"]
    assert not [problem for problem in cohort.problems if problem.severity != "note"]
    for section in cohort.sections:
        assert section.image is not None
        assert section.mpp == pytest.approx(simulation.MPP, rel=0.02)  # spots stray by 3 %


def test_spots_lie_on_the_grid_and_on_the_image(tissue: Path) -> None:
    pitch = LEGACY_ST.pitch_um / simulation.MPP
    for path in sorted((tissue / "ST-spotfiles").iterdir()):
        rows = np.array(table(path)[1:], float)
        section = path.name.split("_")[0]
        image = cv2.imread(str(next((tissue / "ST-imgs").glob(f"*/{section}/*.jpg"))))
        assert image is not None
        offset = rows[:, 4:6] - rows[:, :2] * pitch
        # Five deviations of a spot's stray about the median spot.
        assert np.abs(offset - np.median(offset, axis=0)).max() < (
            5 * simulation.GRID_JITTER * pitch * np.sqrt(2)
        )
        assert (rows[:, 4:6] > 0).all()
        assert (rows[:, 4] < image.shape[1]).all()
        assert (rows[:, 5] < image.shape[0]).all()


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        simulation.simulate(tmp_path / name, seed=seed, **TINY)
    first, other = digests(tmp_path / "first"), digests(tmp_path / "other")
    assert first == digests(tmp_path / "again")
    assert set(first) == set(other)
    assert not set(first.values()) & set(other.values())


def test_patients_of_the_same_levels_have_the_same_images_and_other_counts(tmp_path: Path) -> None:
    simulation.simulate(tmp_path / "own", **TINY)
    simulation.simulate(tmp_path / "same", same_levels=True, **TINY)
    own, same = digests(tmp_path / "own"), digests(tmp_path / "same")
    assert {path for path in own if own[path] == same[path]} == {
        path for path in own if not path.startswith(("ST-cnts", "truth.json"))
    }


def test_more_patients_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    simulation.simulate(tmp_path / "two", patients=2, spots_xy=(3, 3))
    simulation.simulate(tmp_path / "three", patients=3, spots_xy=(3, 3))
    two, three = digests(tmp_path / "two"), digests(tmp_path / "three")
    del two["truth.json"]
    assert two.items() <= three.items()


def test_glass_has_the_patients_white_point_and_patients_differ(
    tissue: Path, truth: dict[str, Any]
) -> None:
    whites = []
    for section, known in truth["sections"].items():
        image = cv2.imread(str(next((tissue / "ST-imgs").glob(f"*/{section}/*.jpg"))))
        assert image is not None
        corners = [image[y, x] for y in (slice(0, 24), slice(-24, None))
                   for x in (slice(0, 24), slice(-24, None))]  # fmt: skip
        glass = np.median(np.concatenate([c.reshape(-1, 3) for c in corners]), axis=0)[::-1]
        # JPEG and rounding: within two grey levels.
        assert np.abs(glass - known["white_point"]).max() < 2.5
        whites.append(glass)
    gaps = [np.abs(a - b).max() for i, a in enumerate(whites) for b in whites[:i]]
    assert min(gaps) >= 2
    assert max(gaps) > 5


def test_sections_of_one_patient_share_stain_and_differ_in_tissue(tmp_path: Path) -> None:
    simulation.simulate(tmp_path / "out", sections_per_patient=2, **TINY)
    truth = json.loads((tmp_path / "out" / "truth.json").read_text(encoding="utf-8"))["sections"]
    assert list(truth) == ["A1", "A2", "B1", "B2"]
    assert truth["A1"]["stains"] == truth["A2"]["stains"] != truth["B1"]["stains"]
    assert truth["A1"]["shares"] != truth["A2"]["shares"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gene", "kind"),
    [("ERBB2", "tumour"), ("EPCAM", "tumour"), ("KRT8", "tumour"), ("COL1A1", "stroma"),
     ("COL3A1", "stroma"), ("CD3D", "immune"), ("PTPRC", "immune")],
)  # fmt: skip
def test_marker_follows_its_cell_type(
    tissue: Path, truth: dict[str, Any], gene: str, kind: str
) -> None:
    values, shares, column = pooled(tissue, truth)
    of_kind = shares[:, plan.CELL_TYPES.index(kind)]
    r = np.corrcoef(values[:, column[gene]], of_kind)[0, 1]
    # Standard error over about 100 spots is 0.1: far from chance.
    assert r > 0.35


def test_proliferation_follows_atypia_and_differentiation_its_opposite(
    tissue: Path, truth: dict[str, Any]
) -> None:
    values = pooled(tissue, truth)[0]
    life = expression.biology(plan.CELL_TYPES)
    atypia, tumour = [], []
    for known in truth["sections"].values():
        atypia.append(np.array(list(known["atypia"].values())))
        tumour.append(np.array(list(known["shares"].values()))[:, 0])
    rich = np.concatenate(tumour) > 0.35
    state = np.concatenate(atypia)[rich]
    rises = {
        name: np.corrcoef(values[rich][:, life.programme == name].mean(axis=1), state)[0, 1]
        for name in expression.ATYPIA_RISE
    }
    assert rises["proliferating"] > 0.4
    assert rises["differentiated"] < -0.4


def test_counts_vary_more_than_poisson_about_their_expectation() -> None:
    """Many spots of one make: what is left after library size is more than counting noise."""
    life = expression.biology(plan.CELL_TYPES)
    rng = np.random.default_rng(0)
    n = 400
    rna = np.tile([40.0, 8.0, 8.0, 0.0, 0.0], (n, 1))
    centres = np.zeros((n, 2))  # one place: hidden programmes are the same for all
    counts = expression.counts_of_spots(rng, rna, np.full(n, 0.5), centres, life, life.levels)
    library = counts.sum(axis=1)
    share = counts.sum(axis=0) / counts.sum()
    expected = library[:, None] * share
    common = share > np.quantile(share, 0.8)
    factor = ((counts - expected) ** 2 - expected)[:, common].sum(axis=0)
    factor /= (expected**2)[:, common].sum(axis=0)
    # The variance of the gamma factor; 20 % is five standard errors of this mean over 100 genes.
    assert factor.mean() == pytest.approx(expression.DISPERSION, rel=0.2)
    assert (counts.var(axis=0) > counts.mean(axis=0))[common].all()


def test_every_symbol_stands_once_and_markers_are_there() -> None:
    life = expression.biology(plan.CELL_TYPES)
    assert 400 <= len(life.genes) == len(set(life.genes)) <= 600
    assert {"ERBB2", "GNAS", "COL1A1", "CD3D", "ADIPOQ", "ACTB", "HLA-B"} <= set(life.genes)
    assert (life.levels > 0).all()
    again = expression.biology(plan.CELL_TYPES)
    np.testing.assert_array_equal(life.levels, again.levels)


def test_most_symbols_are_measured_in_the_real_release(test_data: Path) -> None:
    measured = set()
    for path in sorted((test_data / "her2st" / "ST-cnts").glob("*.tsv.gz")):
        with gzip.open(path, "rt") as lines:
            measured |= set(lines.readline().rstrip("\n").split("\t"))
    genes = expression.biology(plan.CELL_TYPES).genes
    # The release leaves ribosomal genes out; a few symbols were renamed (CAVIN2 was SDPR).
    asked = {gene for gene in genes if not gene.startswith(("RPL", "RPS"))}
    assert len(asked & measured) >= 0.98 * len(asked)


def test_drawn_section_has_tissue_glass_and_every_common_cell_type() -> None:
    rng = np.random.default_rng(3)
    appearance = histology.draw_appearance(rng)
    section = histology.draw_tissue(rng, width=1600, height=1200, appearance=appearance)
    assert section.image.shape == (1200, 1600, 3)
    assert section.image.dtype == np.uint8
    assert 0.3 < section.covered.mean() < 0.95
    assert set(range(3)) <= set(section.kinds)
    assert (section.cells_px >= 0).all()
    assert (section.cells_px < [1600, 1200]).all()
    assert section.atypia[section.kinds != plan.TUMOUR].max() == 0
    # Tissue is darker than glass, and pink to purple: green is absorbed most.
    covered = cv2.resize(section.covered.astype(np.uint8), (1600, 1200)) > 0
    inside, outside = section.image[covered].mean(axis=0), section.image[~covered].mean(axis=0)
    assert (inside < outside - 15).all()
    assert inside[1] < min(inside[0], inside[2])


def test_nuclei_cover_as_much_at_any_atypia() -> None:
    """Radius and spacing grow together, so that mean colour does not give atypia away."""
    low, high = (
        radius / spacing
        for radius, spacing in zip(plan.TUMOUR_RADIUS_PX, plan.TUMOUR_SPACING_PX, strict=True)
    )
    assert low == pytest.approx(high, rel=0.03)


def test_progress_is_reported_for_each_section(tmp_path: Path) -> None:
    steps: list[int] = []
    simulation.simulate(tmp_path / "out", progress=steps.append, **TINY)
    assert steps == [1, 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patients": 1}, "patients is 1; a whole number from 2 to 26"),
        ({"patients": 27}, "patients is 27"),
        ({"patients": 2.5}, "patients is 2.5"),
        ({"sections_per_patient": 0}, "sections_per_patient is 0"),
        ({"spots_xy": (2, 5)}, "spots_xy is 2; a whole number from 3 to 60"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_setting_outside_its_range_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        simulation.simulate(tmp_path / "out", **settings)
    assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_is_refused_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        simulation.simulate(out, **TINY)
    assert (out / "mine.txt").read_text() == "mine"
    simulation.simulate(out, force=True, **TINY)
    assert (out / "truth.json").is_file()
    assert not (out / "mine.txt").exists()


def test_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulation.simulate(tmp_path / "out", progress=stop, **TINY)
    assert not list(tmp_path.iterdir())

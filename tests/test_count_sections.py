"""Counts without images: which sections they are, which folds they join, and what they teach."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import bundle, evaluation
from histospace_tf.cohort import count_sections, reading, sides, taught
from histospace_tf.cohort.count_sections import CountSection
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import simulation, splits
from histospace_tf.models import regressor
from histospace_tf.predictors import head_training
from histospace_tf.predictors.baselines import GeneMean
from histospace_tf.predictors.head_data import HeadData
from histospace_tf.reports import joined_counts
from histospace_tf.requests import EvaluateRequest, FitRequest, refusals
from histospace_tf.training import Session
from histospace_tf.vocabulary import Cohort, InputError
from made import visium as made_visium
from made.configs import tiny_config
from made.sections import MadeSection, made_section, write_her2st
from made.tissue import GENES, section

CONFIG = tiny_config(target__genes=3, regressor__factors=2)


def alone(name: str, patient: str, **made: Any) -> CountSection:
    """Of the tests' genes, without an image."""
    lacks = frozenset(made.pop("lacks", ()))
    return CountSection(section(name, patient, **made), lacks, {"spots_and_counts": name})


def spots_with(*counts: CountSection, config: Config = CONFIG) -> PairedSpots:
    """Sections A1, A2 (patient A) and B1 (patient B) of six spots, beside `counts`."""
    sections = [section(name, name[0], seed=n) for n, name in enumerate(("A1", "A2", "B1"))]
    return PairedSpots.of(sections, config, counts=counts)


def fold(kind: str = "patient") -> splits.Fold:
    """B1 held out; as a "section" A2; with "none" nothing."""
    rows = np.arange(18)
    if kind == "none":
        return splits.Fold(rows, rows[:0], "none", ())
    held = rows[12:] if kind == "patient" else rows[6:12]
    return splits.Fold(np.setdiff1d(rows, held), held, kind, ("B" if kind == "patient" else "A2",))


def side_of(spots: PairedSpots, kind: str = "patient", config: Config = CONFIG) -> Any:
    encoded = EncodedSpots(spots, cast(Any, None), config, Path("unused"))
    return sides.training_spots(encoded, fold(kind), GENES, config)


def cohort(folder: Path, *made: MadeSection, config: Config = CONFIG) -> Cohort:
    """Sections A1 and B1 with images, and those of `made` without."""
    write_her2st(folder, made_section("A1", "A"), made_section("B1", "B", seed=1))
    write_her2st(folder, *made, images=False)
    return reading.read_cohort(folder, folder, config=config)


def test_sections_without_an_image_join_and_others_are_read_without_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cohort(tmp_path / "data", made_section("B2", "B", seed=2))
    further = [made_section("C1", "C", seed=3), made_section("A1", "A")]
    folder = write_her2st(tmp_path / "counts", *further)
    (tmp_path / "counts" / "ST-imgs" / "C" / "C1" / "HE_C1.jpg").write_bytes(b"no picture")
    capsys.readouterr()
    joined = count_sections.read([folder], data, CONFIG)
    assert [one.section.name for one in joined] == ["B2", "C1"]
    assert all(one.section.image is None for one in joined)
    assert [len(one.section.spots) for one in joined] == [20, 20]
    said = capsys.readouterr().err
    assert "section B2: no image: it teaches by counts alone (20 spots)" in said
    assert "section A1 was read before: taken once" in said
    assert "1 section of 1 patient (20 spots), by counts alone" in said
    assert "Add the H&E" not in said


def test_the_same_counts_under_another_name_are_no_other_patients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cohort(tmp_path / "data")
    twin = dataclasses.replace(made_section("A1", "A"), name="X9", patient="X")
    backwards = dataclasses.replace(
        twin, array=twin.array[::-1], counts=twin.counts[::-1], pixels=twin.pixels[::-1]
    )
    folder = write_her2st(tmp_path / "counts", backwards, images=False)
    assert count_sections.read([folder], data, CONFIG) == ()
    assert "section X9 was read before (there 'A1'): taken once" in capsys.readouterr().err


def test_another_section_of_a_known_name_is_refused(tmp_path: Path) -> None:
    data = cohort(tmp_path / "data")
    folder = write_her2st(tmp_path / "counts", made_section("A1", "A", seed=5), images=False)
    with pytest.raises(InputError, match=r"'A1' has the name of another section, whose counts"):
        count_sections.read([folder], data, CONFIG)


def test_spots_of_few_counts_are_left_out_as_those_with_an_image_are(tmp_path: Path) -> None:
    poor = made_section("C1", "C", seed=3)
    poor.counts[0] = ["1", "0", "0", "0", "0"]
    data = cohort(tmp_path / "data", poor)
    (one,) = count_sections.read([], data, changed(CONFIG, target__min_counts=2))
    assert len(one.section.spots) == 19
    assert count_sections.read([], data, changed(CONFIG, target__min_counts=999)) == ()


def test_genes_are_matched_by_former_names_and_other_kinds_are_refused(tmp_path: Path) -> None:
    names = ["MARCHF1", "GNAS", "ERBB2", "ACTB", "IGKC"]
    own = [
        dataclasses.replace(made_section(n, n[0], seed=s), genes=names)
        for s, n in enumerate(("A1", "B1"))
    ]
    data = reading.read_cohort(write_her2st(tmp_path / "data", *own), tmp_path, config=CONFIG)
    former = dataclasses.replace(made_section("C1", "C", seed=3), genes=["MARCH1", *names[1:]])
    folder = write_her2st(tmp_path / "counts", former, images=False)
    (one,) = count_sections.read([folder], data, CONFIG)
    assert one.section.spots.genes == tuple(names)
    ids = [f"ENSG0000000000{n}" for n in range(5)]
    other = dataclasses.replace(made_section("D1", "D", seed=4), genes=ids)
    folder = write_her2st(tmp_path / "ids", other, images=False)
    with pytest.raises(InputError, match="Ensembl ids"):
        count_sections.read([folder], data, CONFIG)


def test_a_run_of_space_ranger_without_its_image_joins_by_the_genes_that_it_measures(
    tmp_path: Path,
) -> None:
    picture = made_visium.noise_picture(5)
    for number, name in enumerate(("A", "B")):
        made_visium.write_run(tmp_path / "data" / name / "outs", picture, seed=number)
    data = reading.read_cohort(tmp_path / "data", tmp_path, config=CONFIG)
    made_visium.write_run(tmp_path / "counts" / "C" / "outs", picture, seed=2)
    (one,) = count_sections.read([tmp_path / "counts" / "C"], data, CONFIG)
    assert not one.lacks
    assert set(one.section.spots.genes) == set(data.sections[0].spots.genes)


@pytest.mark.parametrize("kind", ["patient", "section", "none"])
def test_only_patients_that_are_not_held_out_join(kind: str) -> None:
    spots = spots_with(alone("B2", "b", seed=8), alone("A3", "A", seed=9), alone("C1", "C"))
    joined = taught.joining(spots, fold(kind), GENES, CONFIG)
    names = {"patient": ["A3", "C1"], "section": [], "none": ["B2", "A3", "C1"]}[kind]
    assert [one.section.name for one in joined.sections] == names
    if kind == "patient":
        assert joined.lines()[1] == "Counts of section B2 do not join: patient 'b' is held out."
        assert joined.record()["patients"] == ["A", "C"]


def test_a_section_that_does_not_measure_the_panel_does_not_shrink_it() -> None:
    few = alone("C1", "C", lacks=(GENES[1],))
    other = alone("D1", "D", lacks=("OTHER",))
    joined = taught.joining(spots_with(few, other), fold(), GENES[:3], CONFIG)
    assert [one.section.name for one in joined.sections] == ["D1"]
    assert joined.left_out["C1"].startswith("1 of 3 genes of the panel ('GNAS') are not measured")
    # Without the fourth of all counts a spot's sum is another one.
    rest = alone("C1", "C", lacks=(GENES[3],))
    joined = taught.joining(spots_with(rest), fold(), GENES[:3], CONFIG)
    assert "library sizes do not compare" in joined.left_out["C1"]
    blurred = changed(CONFIG, target__smooth_um=50.0)
    unscaled = alone("C1", "C", mpp=None)
    joined = taught.joining(spots_with(unscaled), fold(), GENES, blurred)
    assert "target.smooth_um needs microns per pixel" in joined.left_out["C1"]


def test_a_level_is_the_mean_over_patients() -> None:
    spots = spots_with(alone("A3", "a", seed=7, spots_xy=(2, 2)), alone("C1", "C", seed=8))
    side = side_of(spots)
    values = [side.panel.measured(s.spots) for s in spots.sections[:2]]
    of_counts = [side.panel.measured(one.section.spots) for one in spots.counts]
    of_a = np.concatenate([*values, of_counts[0]]).mean(axis=0)
    wanted = (of_a + of_counts[1].mean(axis=0)) / 2
    np.testing.assert_allclose(side.levels, wanted, rtol=1e-5)
    np.testing.assert_allclose(side.panel.mean, wanted, rtol=1e-5)
    fitted = GeneMean().fit(side, CONFIG, cast(Any, None))
    np.testing.assert_array_equal(fitted.mean, side.levels)


@pytest.mark.parametrize("centre", ["section", "training", "none"])
def test_levels_move_and_what_is_learned_stays(centre: str) -> None:
    config = changed(CONFIG, target__centre=centre)
    before = side_of(spots_with(), config=config)
    after = side_of(spots_with(alone("C1", "C", seed=8)), config=config)
    np.testing.assert_array_equal(before.targets, after.targets)
    np.testing.assert_array_equal(before.measured, after.measured)
    np.testing.assert_array_equal(before.panel.scale, after.panel.scale)
    moved = after.panel.mean - before.panel.mean
    np.testing.assert_allclose(moved, after.levels - before.levels, atol=1e-6)
    assert np.abs(moved).max() > 0.01


def test_where_a_patient_is_trained_on_its_own_spots_teach_alone() -> None:
    before, after = (
        side_of(spots_with(*counts), "section") for counts in ((), (alone("C1", "C", seed=8),))
    )
    np.testing.assert_array_equal(before.levels, after.levels)
    np.testing.assert_array_equal(before.panel.mean, after.panel.mean)
    assert after.axes == {}
    unjoined = taught.joining(spots_with(alone("C1", "C")), fold("section"), GENES, CONFIG)
    assert unjoined.lines() == [
        "Counts of section C1 do not join: a held-out section's patient is trained on, whose spots "
        "say more."
    ]


def joined_axes(of_patients: dict[str, np.ndarray], fitted: str, inner: str = "") -> Any:
    """`taught.beside` of a spot of each patient, Z's held out by the fold."""
    patients = np.array([*fitted, *inner, "Z"])
    weights = np.array([1.0] * (len(patients) - 1) + [0.0])
    return taught.beside(of_patients, patients, np.arange(len(fitted)), weights=weights)


def test_gene_factors_are_axes_of_spots_with_and_without_an_image() -> None:
    rng = np.random.default_rng(0)
    own, others = rng.normal(size=(40, 4)), rng.normal(size=(30, 4)) * [1, 1, 5, 1]
    beside = joined_axes({"c": others.T @ others / 30}, "A")
    loadings = regressor.gene_factors(own, 2, beside=beside)
    # One patient each: both count half.
    root = np.sqrt([40.0, 30.0])
    stacked = np.concatenate([own / root[0], others / root[1]])
    axes = np.linalg.svd(stacked)[2][:2]
    shown = loadings / np.linalg.norm(loadings, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(np.sum(shown * axes, axis=1)), 1, atol=1e-6)
    # float32 loadings
    of_unit = np.linalg.norm(loadings, axis=1)
    np.testing.assert_allclose((own @ shown.T).std(axis=0), of_unit, rtol=1e-5)


def test_spots_with_an_image_count_at_least_half_and_an_inner_groups_patient_not_at_all() -> None:
    each = {"b": np.eye(2), "c": 3 * np.eye(2), "d": 5 * np.eye(2)}
    np.testing.assert_allclose(joined_axes(each, "A"), 3 * np.eye(2))
    np.testing.assert_allclose(joined_axes({"c": np.eye(2)}, "ABD"), np.eye(2) / 3)
    np.testing.assert_allclose(joined_axes(each, "A", inner="B"), 4 * np.eye(2))
    assert joined_axes({"b": np.eye(2)}, "A", inner="B") is None
    assert joined_axes({}, "A") is None


def test_a_held_out_patients_counts_change_nothing_and_others_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    inputs = {"features": rng.normal(size=(18, 1, 6)).astype(np.float32)}
    settings = changed(CONFIG, regressor__architecture="pooled", regressor__symmetries=1).regressor

    def made(*counts: CountSection) -> tuple[Any, list[np.ndarray]]:
        session = Session(tf.distribute.get_strategy(), 0, False, tmp_path / "checkpoints")
        side = side_of(spots_with(*counts))
        data = HeadData(inputs, side.targets, side.index, side.weights, side.axes)
        trained = head_training.train_head(data, side.rows, settings, session)
        return side.panel, trained.head.get_weights()

    others = alone("C1", "C", seed=8)
    one, weights = made(alone("B2", "B", seed=4), others)
    other, same = made(alone("B2", "B", seed=5), others)
    assert one.to_json() == other.to_json()
    for a, b in zip(weights, same, strict=True):
        np.testing.assert_array_equal(a, b)
    panel, changed_weights = made(alone("B2", "B", seed=4), alone("C1", "C", seed=9))
    assert panel.to_json() != one.to_json()
    assert not all(map(np.array_equal, weights, changed_weights))


def test_paths_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    data = write_her2st(tmp_path / "data", made_section("A1", "A"), made_section("B1", "B", seed=1))
    for request in (
        FitRequest(data, tmp_path / "run", counts=[tmp_path / "nowhere"]),
        EvaluateRequest(data, tmp_path / "eval", counts=str(tmp_path / "nowhere")),
    ):
        with pytest.raises(InputError, match="nowhere"):
            refusals.refuse(request)
        assert request.resumed()["counts"] == [str(tmp_path / "nowhere")]


def test_words_name_what_joined_which_folds() -> None:
    record = {"sections": ["C1", "D1"], "patients": ["C", "D"], "spots": 1200}
    folds = [{"held_out": ["A"], **record}, {"held_out": ["B"], **record}]
    folds.append({"held_out": ["C"], **record, "sections": ["D1"], "patients": ["D"]})
    one, two = joined_counts.sentences({"counts": folds})
    assert one == (
        "Counts without images: 2 sections of 2 patients (1,200 spots) joined levels and gene "
        "factors (A; B held out)."
    )
    assert two.startswith("Counts without images: 1 section of 1 patient (1,200 spots)")
    assert joined_counts.sentences({}) == []


@pytest.mark.slow
def test_an_evaluation_says_what_joined_and_scores_the_same_spots(
    tmp_path: Path, unpublished: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "tissue"
    simulation.simulate(data, patients=3, sections_per_patient=2, spots_xy=(4, 4), seed=7)
    shutil.rmtree(data / "ST-imgs" / "B" / "B2")
    for name in ("A2", "C1", "C2"):  # patient C is never photographed
        shutil.rmtree(data / "ST-imgs" / name[0] / name)
        for part in (f"ST-cnts/{name}.tsv.gz", f"ST-spotfiles/{name}_selection.tsv"):
            (tmp_path / "counts" / part).parent.mkdir(parents=True, exist_ok=True)
            (data / part).rename(tmp_path / "counts" / part)
    config = tiny_config(
        tiles__tile_px=32,
        target__genes=6,
        autoencoder__tiles=16,
        regressor__architecture="pooled",
        regressor__inner_folds=1,
        regressor__symmetries=1,
        context__slide_tiles=4,
    )
    request = EvaluateRequest(
        data,
        tmp_path / "out",
        config=config,
        counts=[tmp_path / "counts"],
        with_complexities=False,
    )
    summary = evaluation.evaluate(request).summary()
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(scores["sections"]) == {"A1", "B1"}
    held_a, held_b = scores["split"]["counts"]
    assert held_a["sections"] == ["B2", "C1", "C2"]
    assert held_b["sections"] == ["A2", "C1", "C2"]
    assert "3 sections of 2 patients" in summary
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["data"]["checksums"]) == {"A1", "A2", "B1", "B2", "C1", "C2"}
    model = bundle.load(tmp_path / "out" / "folds" / "A")
    assert set(model.trained_on["counts"]["checksums"]) == {"B2", "C1", "C2"}
    assert model.trained_on["sections"] == ["B1"]
    baselines = np.load(tmp_path / "out" / "folds" / "A" / "baselines.npz")
    np.testing.assert_array_equal(baselines["mean"], model.panel.mean)
    # Its spots' own mean would be another level.
    (b1,) = [
        s for s in reading.read_cohort(data, tmp_path, config=config).sections if s.name == "B1"
    ]
    own = model.panel.measured(b1.spots).mean(axis=0)
    assert np.abs(own - model.panel.mean).max() > 0.01

"""Other tools' features as predictors: what they read of every spot, and their rows in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.cohort import patch_inputs
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
from histospace_tf.predictors import patch_heads
from histospace_tf.requests import EvaluateRequest, refusals
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made import patches
from made.configs import tiny_config
from made.tissue import GENES, SIZE_PX, panel, section

CONFIG = tiny_config(tiles__mpp=None, regressor__factors=0)
SPOTS = 20  # of a section
TRAIN = np.arange(3 * SPOTS)  # A1, B1, C1; D1 is held out
CORNERS = patches.grid(*SIZE_PX, side=40)
NAMES = ("A1", "B1", "C1", "D1")


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> PairedSpots:
    """Four sections of 5 x 4 spots with an image each, 1 micron per pixel."""
    folder = tmp_path_factory.mktemp("images")
    sections = [section(name, name[0], folder=folder, spots_xy=(5, 4)) for name in NAMES]
    return PairedSpots.of(sections, CONFIG)


def features_of(name: str) -> np.ndarray:
    return patches.values(len(CORNERS), seed=NAMES.index(name))


def write(folder: Path, *, lacking: str = "") -> dict[str, Path]:
    """TRIDENT's files; section `lacking` has no patches right of x 200."""
    for name in NAMES:
        kept = CORNERS[:, 0] < (200 if name == lacking else 1000)
        patches.write_trident(folder / f"{name}.h5", CORNERS[kept], features_of(name)[kept])
    return {"made": folder}


def read(spots: PairedSpots, folders: dict[str, Path], folder: Path) -> patch_inputs.PatchInputs:
    files = patch_inputs.files_of(folders, spots)
    (one,) = patch_inputs.read(files, spots, CONFIG, folder)
    return one


def test_spots_have_their_patch_its_neighbours_and_the_whole_slides_statistics(
    spots: PairedSpots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write(tmp_path / "features", lacking="D1")
    (tmp_path / "features" / "E9.h5").touch()
    one = read(spots, folders, tmp_path / "kept")
    said = capsys.readouterr().err
    assert "made: 'E9.h5': of no section, not used." in said
    assert "made, section A1: 30 patches of 40 px (40 um) in A1.h5, all 20 spots have one." in said
    assert (
        "made, section D1: 25 patches of 40 px (40 um) in D1.h5, 4 of 20 spots lie in none." in said
    )
    assert said.count("Warning: section D1: only 80% of its spots have a patch in ") == 1
    assert said.count("Warning") == 1
    assert one.record["D1"]["spots_without"] == 4
    assert one.features.shape == (80, 6)
    radius = CONFIG.context.neighbour_um  # 1 micron per pixel
    for row in (0, 7, 19, 43):
        number, own = row // SPOTS, features_of(NAMES[row // SPOTS])
        centre = spots.sections[number].spots.centres_px[row % SPOTS]
        (at,) = np.flatnonzero((np.abs(CORNERS + 19.5 - centre) <= 20).all(axis=1))
        far = np.linalg.norm((CORNERS - CORNERS[at]).astype(float), axis=1)
        near = (far <= radius) & (far > 0)
        np.testing.assert_array_equal(one.features[row], own[at])
        for name, wanted in (
            ("neighbour_features", own[near].mean(axis=0)),
            ("slide_mean", own.mean(axis=0)),
            ("slide_std", own.std(axis=0)),
        ):
            # float32 sums
            np.testing.assert_allclose(one.inputs[name][row], wanted, rtol=1e-4, atol=1e-5)
    without = np.isnan(one.features).all(axis=1)
    assert np.flatnonzero(without).tolist() == [64, 69, 74, 79]  # the last spot of each line
    assert np.isfinite(one.features[~without]).all()


def test_features_that_changed_show_in_the_checksums_of_their_sections(
    spots: PairedSpots, tmp_path: Path
) -> None:
    files = patch_inputs.files_of(write(tmp_path), spots)
    own = {name: {"image": "1"} for name in (*NAMES, "without_image")}
    before = patch_inputs.checksums(own, files)
    assert before["without_image"] == {"image": "1"}
    assert list(before["A1"]) == ["image", "features made"]
    patches.write_trident(tmp_path / "B1.h5", CORNERS, features_of("A1"))
    after = patch_inputs.checksums(own, files)
    assert [name for name in own if before[name] != after[name]] == ["B1"]


def test_barcodes_of_no_spot_count_for_the_slide_alone(spots: PairedSpots, tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(1, SPOTS)] + ["elsewhere"]
    for name in NAMES:
        patches.write_hest(tmp_path / f"{name}.h5", names, features_of(name)[:SPOTS])
    one = read(spots, {"hest": tmp_path}, tmp_path / "kept")
    own = features_of("A1")
    assert np.isnan(one.features[0]).all()
    np.testing.assert_array_equal(one.features[1], own[0])
    np.testing.assert_allclose(one.inputs["slide_mean"][1], own[:SPOTS].mean(axis=0), rtol=1e-4)
    # Spots are 40 microns apart, so all others with a patch are neighbours.
    others = own[1 : SPOTS - 1].mean(axis=0)
    np.testing.assert_allclose(one.inputs["neighbour_features"][1], others, rtol=1e-4, atol=1e-6)


def test_recommended_head_learns_from_them_and_gives_the_level_where_there_are_none(
    spots: PairedSpots, tmp_path: Path
) -> None:
    one = read(spots, write(tmp_path / "features", lacking="D1"), tmp_path / "kept")
    encoded = EncodedSpots(spots, cast(Any, None), CONFIG, tmp_path)
    mix = np.random.default_rng(0).normal(size=(6, len(GENES)))
    means, stds = one.inputs["slide_mean"], one.inputs["slide_std"]
    truth = ((one.features - means) / stds) @ mix
    targets = np.zeros((80, len(GENES)), np.float32)
    targets[TRAIN] = truth[TRAIN]
    weights = np.zeros(80)
    weights[TRAIN] = 1
    levels = panel().mean + 1
    training = TrainingSpots(encoded, TRAIN, panel(), targets, targets, weights, levels)
    session = Session(tf.distribute.get_strategy(), 0, False, tmp_path / "checkpoints")
    head = patch_heads.PatchHead("made", one)
    fitted = head.fit(training, CONFIG, session)
    said = fitted.predict(SpotsOfSection(encoded, 3, np.arange(60, 80), panel()))
    known = ~np.isnan(one.features[60:]).any(axis=1)
    np.testing.assert_allclose(said[~known], np.tile(levels, (4, 1)), rtol=1e-6)
    for gene in range(len(GENES)):
        assert np.corrcoef(said[known, gene], truth[60:][known, gene])[0, 1] > 0.95
    assert fitted.choice is not None
    assert fitted.choice["spots_without_features"] == 4
    stages = {str(row["stage"]) for row in fitted.history}
    assert stages == {"head:made", "head:made_inner1", "head:made_inner2"}
    few = without_patches(one)
    with pytest.raises(InputError, match="head on made: 0 of 60 training spots have a patch"):
        patch_heads.PatchHead("made", few).fit(training, CONFIG, session)


def without_patches(one: patch_inputs.PatchInputs) -> patch_inputs.PatchInputs:
    nothing = np.full((80, 1, 6), np.nan, np.float32)
    return patch_inputs.PatchInputs("made", {**one.inputs, "features": nothing}, {})


def test_names_of_features_that_are_taken_are_refused(small_tissue: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "features")["made"]
    theirs = tmp_path / "theirs.h5ad"
    theirs.touch()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"features": {"model": folder}}, "'model': that name is taken"),
        ({"features": {"a/b": folder}}, "without '/'"),
        ({"features": {"probe:a": folder}}, "begin with 'probe:'"),
        ({"features": {"a b": folder, "A_b": folder}}, "one file name"),
        ({"features": {"made": tmp_path / "none"}}, "does not exist"),
    ]
    for options, words in cases:
        request = EvaluateRequest(small_tissue, tmp_path / "out", config=CONFIG, **options)
        with pytest.raises(InputError, match=words):
            refusals.refuse(request)

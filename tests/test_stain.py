"""Stain standardisation: the formula against independent oracles, fits against made stains."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.decomposition import DictionaryLearning, sparse_encode

from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.vocabulary import STAIN_METHODS, InputError, StainReference
from made.pictures import read_picture, stained_squares

pytestmark = pytest.mark.filterwarnings("error")  # a NaN announces itself by a warning

SEPARATING = ("macenko", "vahadane")
# Two laboratories' H&E: rows haematoxylin, eosin; optical density of R, G, B.
LABORATORY_A = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
LABORATORY_B = np.array([[0.74, 0.58, 0.33], [0.22, 0.85, 0.48]])


def degenerate_images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "white": np.full((16, 16, 3), 255, np.uint8),
        "glass": np.full((16, 16, 3), 243, np.uint8),
        "noisy glass": rng.integers(238, 246, (64, 64, 3)).astype(np.uint8),
        "black": np.zeros((16, 16, 3), np.uint8),
        "one colour": np.full((16, 16, 3), (200, 120, 170), np.uint8),
        "two colours": np.where(
            np.arange(256).reshape(16, 16, 1) % 2, [200, 120, 170], [90, 60, 140]
        ).astype(np.uint8),
        "1 x 1": np.full((1, 1, 3), (180, 90, 150), np.uint8),
        "saturated red": np.full((16, 16, 3), (255, 0, 0), np.uint8),
        "saturated noise": (rng.integers(0, 2, (32, 32, 3)) * 255).astype(np.uint8),
        "grey ramp": np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3),
        "one channel dead": np.dstack(
            [rng.integers(0, 256, (32, 32, 2)), np.zeros((32, 32))]
        ).astype(np.uint8),
        "few tissue pixels": np.concatenate(
            [np.full((40, 40, 3), 250), np.full((1, 40, 3), (150, 80, 160))]
        ).astype(np.uint8),
    }


def angles(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Degrees between rows."""
    true = true / np.linalg.norm(true, axis=1, keepdims=True)
    return np.degrees(np.arccos(np.clip((found * true).sum(axis=1), -1, 1)))


def stains(method: str = "macenko", **changes: Any) -> StainReference:
    return dataclasses.replace(stain.canonical_stains(method), **changes)


# The formula


def test_concentrations_are_the_non_negative_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    density = rng.normal(0.3, 0.6, (300, 3))  # negative values make every case occur
    matrix = stain.canonical_stains().stain_matrix
    found = recolouring.concentrations(density, matrix)
    expected = [nnls(matrix.T, row)[0] for row in density]
    # Both are exact in double precision.
    np.testing.assert_allclose(found, expected, atol=1e-9)
    zeros = found == 0
    assert zeros.all(axis=1).any()
    assert zeros[:, 0].any()
    assert zeros[:, 1].any()
    assert (~zeros).all(axis=1).any()


def test_sparse_concentrations_are_the_non_negative_lasso_solution() -> None:
    density = np.random.default_rng(0).uniform(0, 1.2, (60, 3))
    matrix = stain.canonical_stains().stain_matrix
    expected = sparse_encode(
        density, matrix, algorithm="lasso_cd", alpha=0.1, positive=True, max_iter=10_000
    )
    # Coordinate descent stops at a relative gap of 1e-4.
    np.testing.assert_allclose(
        recolouring.concentrations(density, matrix, 0.1), expected, atol=1e-3
    )


def test_lab_agrees_with_opencv() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (2000, 3)).astype(np.float32)
    lab = cv2.cvtColor(colours[np.newaxis] / 255, cv2.COLOR_RGB2Lab)[0]
    expected = lab * np.array([2.55, 1, 1], np.float32) + np.array([0, 128, 128], np.float32)
    # OpenCV interpolates the gamma curve and the cube root in tables; half a level, as rounded.
    np.testing.assert_allclose(recolouring.lab8(colours), expected, atol=0.5)


def test_lab_of_known_colours() -> None:
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.float32)
    known = np.array([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]])
    # sRGB's matrix is published with four to six digits, and the known values with two decimals.
    np.testing.assert_allclose(
        (recolouring.lab8(colours) - [0, 128, 128]) / [2.55, 1, 1], known, atol=0.03
    )


def test_neutral_white_and_luminosity_change_nothing() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        recolouring.normalise(levels, stains("none"), stains("none")), levels
    )
    # The way to Lab and back, taken with a luminosity that is all but neutral, loses nothing.
    through_lab = recolouring.normalise(levels, stains("none", luminosity=254.9999), stains("none"))
    np.testing.assert_array_equal(through_lab, levels)


def test_cast_removal_turns_the_white_point_white() -> None:
    levels = np.array([[230, 210, 240], [115, 105, 120], [250, 250, 250]], np.uint8)
    source = stains("none", white_point=np.array([230.0, 210.0, 240.0]))
    expected = [[255, 255, 255], [128, 128, 128], [255, 255, 255]]
    np.testing.assert_array_equal(recolouring.normalise(levels, source, stains("none")), expected)


def test_luminosity_scales_lightness_and_keeps_colour() -> None:
    levels = np.array([[150, 110, 140], [90, 80, 120]], np.uint8)
    source = stains("none", luminosity=220.0)
    before = recolouring.lab8(levels.astype(np.float32))
    after = recolouring.lab8(
        recolouring.normalise(levels, source, stains("none")).astype(np.float32)
    )
    # Half a grey level of rounding is up to about 0.6 units of Lab.
    np.testing.assert_allclose(after[:, 0], before[:, 0] * 255 / 220, atol=0.6)
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=0.8)


def test_stain_step_follows_the_stated_equation() -> None:
    matrix = LABORATORY_B / np.linalg.norm(LABORATORY_B, axis=1, keepdims=True)
    source = stains(stain_matrix=matrix, max_concentration=np.array([2.0, 0.5]))
    goal = stains(max_concentration=np.array([1.0, 1.0]))
    colour = np.array([[120, 70, 150]], np.uint8)
    amounts = nnls(matrix.T, -np.log(colour[0] / 255))[0] * [0.5, 2.0]
    expected = np.rint(255 * np.exp(-amounts @ goal.stain_matrix))
    np.testing.assert_array_equal(recolouring.normalise(colour, source, goal)[0], expected)


def test_reinhard_matches_mean_and_deviation_of_tissue() -> None:
    image = stained_squares(LABORATORY_B, strength=1.3).reshape(-1, 3)
    tissue = image[
        recolouring.optical_density(image.astype(np.float32)).mean(axis=1)
        >= recolouring.TISSUE_DENSITY
    ]
    source = stain.fit_stains(image, method="reinhard", cast=False, luminosity=False)
    goal = stains(
        "reinhard", lab_mean=source.lab_mean + np.array([15, -4, 3]), lab_std=source.lab_std * 0.8
    )
    after = recolouring.lab8(recolouring.normalise(tissue, source, goal).astype(np.float32))
    # A few colours leave the gamut and are clipped.
    np.testing.assert_allclose(after.mean(axis=0), goal.lab_mean, atol=1.0)
    np.testing.assert_allclose(after.std(axis=0), goal.lab_std, rtol=0.1)


# Fitting


@pytest.mark.parametrize("matrix", [LABORATORY_A, LABORATORY_B])
@pytest.mark.parametrize("method", SEPARATING)
def test_fit_recovers_a_made_stain_matrix(method: str, matrix: np.ndarray) -> None:
    pixels = stained_squares(matrix).reshape(-1, 3)
    found = stain.fit_stains(pixels, method=method, luminosity=False)
    # Rounding to 8 bits spreads single-stain colours by a degree; Vahadane's sparsity draws the
    # two stains a little towards the mixed colours.
    assert angles(found.stain_matrix, matrix).max() < 4
    np.testing.assert_allclose(np.linalg.norm(found.stain_matrix, axis=1), 1, atol=1e-9)
    # Amounts reach 1.2 x 1.2 and 0.9 x 1.2; the 99th percentile is close below.
    np.testing.assert_allclose(found.max_concentration, [1.42, 1.06], rtol=0.1)


def test_vahadane_agrees_with_dictionary_learning() -> None:
    rng = np.random.default_rng(0)
    image = stained_squares(LABORATORY_B).reshape(-1, 3)
    density = recolouring.optical_density(image.astype(np.float32)).astype(np.float64)
    density = rng.permutation(density[density.mean(axis=1) >= recolouring.TISSUE_DENSITY])[:500]
    start = stain.canonical_stains().stain_matrix
    oracle = DictionaryLearning(
        2,
        alpha=stain.SPARSITY,
        max_iter=300,
        tol=1e-9,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        positive_dict=True,
        positive_code=True,
        dict_init=start,
        code_init=sparse_encode(
            density, start, algorithm="lasso_cd", alpha=stain.SPARSITY, positive=True
        ),
    ).fit(density)
    expected = oracle.components_
    expected = expected[np.argsort(-expected[:, 0])]
    found = stain._vahadane(density, start)
    assert found is not None
    assert angles(found, expected).max() < 1.0  # both stop a little before the optimum


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_white_point_and_luminosity_come_from_all_pixels(method: str) -> None:
    white = np.array([235.0, 220.0, 240.0])
    pixels = stained_squares(LABORATORY_A, white=white).reshape(-1, 3)
    found = stain.fit_stains(pixels, method=method)
    np.testing.assert_allclose(found.white_point, white, atol=1)  # a quarter of it is glass
    assert found.luminosity == pytest.approx(255, abs=1)
    off = stain.fit_stains(pixels, method=method, cast=False, luminosity=False)
    np.testing.assert_array_equal(off.white_point, [255, 255, 255])
    assert off.luminosity == 255


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_fit_is_the_same_for_the_same_seed_and_close_for_another(method: str) -> None:
    pixels = np.concatenate(
        [stained_squares(LABORATORY_B, seed=i).reshape(-1, 3) for i in range(3)]
    )
    first, again, other = (
        stain.fit_stains(pixels, method=method, seed=seed, sample=1500) for seed in (1, 1, 2)
    )
    assert first.to_json() == again.to_json()
    if method in SEPARATING:
        assert not np.array_equal(first.stain_matrix, other.stain_matrix)
        assert angles(first.stain_matrix, other.stain_matrix).max() < 3


def test_haematoxylin_is_the_row_that_absorbs_more_red() -> None:
    for method in SEPARATING:
        for matrix in (LABORATORY_A, LABORATORY_B):
            rows = stain.fit_stains(
                stained_squares(matrix).reshape(-1, 3), method=method
            ).stain_matrix
            assert rows[0, 0] > rows[1, 0]
            assert (rows >= 0).all()


def test_fit_leaves_the_pixels_unchanged() -> None:
    pixels = stained_squares(LABORATORY_A).reshape(-1, 3)
    before = pixels.copy()
    for method in STAIN_METHODS:
        stain.fit_stains(pixels, method=method, sample=500)
    np.testing.assert_array_equal(pixels, before)


# Recolouring


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_self_normalisation_is_near_identity(method: str) -> None:
    image = stained_squares(LABORATORY_B)
    own = stain.fit_stains(image, method=method, cast=False, luminosity=False)
    again = recolouring.normalise(image, own, own)
    # The fitted plane is off by rounding, and mixed colours just outside the fitted angle are
    # brought to its edge.
    difference = np.abs(again.astype(int) - image)
    assert difference.mean() < 1.5
    assert difference.max() <= 12


@pytest.mark.parametrize("method", ["macenko", "vahadane", "reinhard"])
def test_one_tissue_stained_in_two_laboratories_agrees_after_normalising(method: str) -> None:
    first = stained_squares(LABORATORY_A)
    second = stained_squares(LABORATORY_B, strength=1.4, white=np.array([240.0, 225.0, 245.0]))
    goal = stain.fit_stains(first, method=method)
    recoloured = recolouring.normalise(second, stain.fit_stains(second, method=method), goal)
    before = np.abs(second.astype(int) - first).mean()
    after = np.abs(recoloured.astype(int) - recolouring.normalise(first, goal, goal)).mean()
    # Reinhard moves all tissue by one map and cannot tell the stains apart.
    assert after < before * (0.5 if method == "reinhard" else 0.25)


@pytest.mark.parametrize("name", degenerate_images())
@pytest.mark.parametrize("method", STAIN_METHODS)
def test_degenerate_images_come_back_sane(method: str, name: str) -> None:
    image = degenerate_images()[name]
    own = stain.fit_stains(image, method=method)
    real = stain.fit_stains(stained_squares(LABORATORY_B), method=method)
    for source in (own, real):
        for goal in (stain.canonical_stains(method), real):
            recoloured = recolouring.normalise(image, source, goal)
            assert recoloured.shape == image.shape
            assert recoloured.dtype == np.uint8
            table = recolouring.colour_table(source, goal)
            np.testing.assert_array_equal(recolouring.apply_table(image, table), recoloured)
    if name in ("white", "glass", "noisy glass"):
        recoloured = recolouring.normalise(image, own, stain.canonical_stains(method))
        # Grey is no mix of haematoxylin and eosin: the nearest mix is up to 9 levels off, and a
        # noisy pixel by its own colour besides, up to 7 between channels.
        limit = {"white": 0, "glass": 9, "noisy glass": 9 + 7}[name]
        assert np.abs(recoloured.astype(int) - image).max() <= limit


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_white_stays_white_between_real_fits(method: str) -> None:
    source = stain.fit_stains(stained_squares(LABORATORY_A), method=method)
    goal = stain.fit_stains(stained_squares(LABORATORY_B, strength=2), method=method)
    white = np.full((4, 4, 3), 255, np.uint8)
    np.testing.assert_array_equal(recolouring.normalise(white, source, goal), white)


def test_without_tissue_the_stand_in_is_fitted() -> None:
    for method in STAIN_METHODS:
        fitted = stain.fit_stains(degenerate_images()["glass"], method=method)
        assert fitted.to_json() == stain.canonical_stains(method).to_json()
        assert stain.is_canonical(fitted)
    for method in ("macenko", "vahadane", "reinhard"):
        assert not stain.is_canonical(
            stain.fit_stains(stained_squares(LABORATORY_A), method=method)
        )


# The table


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_table_equals_the_formula(method: str) -> None:
    rng = np.random.default_rng(0)
    source = stain.fit_stains(stained_squares(LABORATORY_B, white=240.0), method=method)
    goal = stain.canonical_stains(method)
    table = recolouring.colour_table(source, goal)
    batch = np.stack([stained_squares(LABORATORY_B, seed=i, white=240.0) for i in range(3)])
    anything = rng.integers(0, 256, (300, 331, 3)).astype(np.uint8)  # more than one part of rows
    for image in (batch, anything, batch[0, ::2, ::-1], batch[0, 0], batch[0, 0, 0]):
        expected = recolouring.normalise(image, source, goal)
        for _ in range(2):  # first learnt, then looked up
            np.testing.assert_array_equal(recolouring.apply_table(image, table), expected)
    assert table.packed.nbytes <= 64 * 2**20


def test_threads_share_a_table() -> None:
    source = stain.fit_stains(stained_squares(LABORATORY_B), method="macenko")
    goal = stain.canonical_stains("macenko")
    table = recolouring.colour_table(source, goal)
    tiles = [stained_squares(LABORATORY_B, seed=i) for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda tile: recolouring.apply_table(tile, table), tiles))
    for tile, recoloured in zip(tiles, found, strict=True):
        np.testing.assert_array_equal(recoloured, recolouring.normalise(tile, source, goal))


def test_an_empty_batch_stays_empty() -> None:
    empty = np.empty((0, 8, 8, 3), np.uint8)
    assert recolouring.normalise(empty, stains(), stains()).shape == empty.shape
    assert (
        recolouring.apply_table(empty, recolouring.colour_table(stains(), stains())).shape
        == empty.shape
    )


# Averaging


def test_average_is_the_mean_direction_and_the_median_of_the_rest() -> None:
    references = [
        stain.fit_stains(
            stained_squares(LABORATORY_A, seed=i, strength=s, white=w), method="macenko"
        )
        for i, (s, w) in enumerate([(0.8, 255.0), (1.0, 240.0), (1.3, 230.0)])
    ]
    average = stain.average_stains(references)
    np.testing.assert_allclose(np.linalg.norm(average.stain_matrix, axis=1), 1)
    assert angles(average.stain_matrix, LABORATORY_A).max() < 5
    np.testing.assert_allclose(average.white_point, references[1].white_point)
    np.testing.assert_allclose(average.max_concentration, references[1].max_concentration)
    alone = stain.average_stains(references[:1])
    np.testing.assert_allclose(alone.stain_matrix, references[0].stain_matrix)
    assert alone.luminosity == references[0].luminosity


# Refusals


def test_pixels_that_are_not_uint8_rgb_are_refused() -> None:
    table = recolouring.colour_table(stains(), stains())
    for wrong, said in (
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        ([[1, 2, 3]], "list"),
    ):
        with pytest.raises(InputError, match=said):
            stain.fit_stains(wrong, method="macenko")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=said):
            recolouring.normalise(wrong, stains(), stains())  # type: ignore[arg-type]
        with pytest.raises(InputError, match=said):
            recolouring.apply_table(wrong, table)  # type: ignore[arg-type]


def test_no_pixels_and_unknown_methods_are_refused() -> None:
    with pytest.raises(InputError, match="no pixels"):
        stain.fit_stains(np.empty((0, 3), np.uint8), method="macenko")
    with pytest.raises(InputError, match="'spams' is unknown"):
        stain.fit_stains(np.zeros((9, 3), np.uint8), method="spams")
    with pytest.raises(InputError, match="'spams' is unknown"):
        stain.canonical_stains("spams")


def test_stains_of_different_methods_are_not_mixed() -> None:
    with pytest.raises(InputError, match=r"'macenko'.*'reinhard'"):
        recolouring.normalise(np.zeros((2, 2, 3), np.uint8), stains("macenko"), stains("reinhard"))
    with pytest.raises(InputError, match="one method"):
        recolouring.colour_table(stains("none"), stains("vahadane"))
    with pytest.raises(InputError, match="macenko and none"):
        stain.average_stains([stains("none"), stains("macenko")])
    with pytest.raises(InputError, match="no stains"):
        stain.average_stains([])


# Real tissue


@pytest.mark.parametrize("method", ["macenko", "vahadane", "reinhard"])
def test_real_patches_move_to_the_targets_colours(method: str, test_data: Path) -> None:
    source, target = (
        read_picture(test_data / "stain" / name) for name in ("source.png", "target.png")
    )
    own, goal = (stain.fit_stains(image, method=method) for image in (source, target))
    recoloured = recolouring.apply_table(source, recolouring.colour_table(own, goal))
    direct = recolouring.normalise(source, own, goal)
    assert np.abs(recoloured.astype(int) - direct).max() <= 1

    def tissue_colour(image: np.ndarray) -> np.ndarray:
        return stain.fit_stains(image, method="reinhard", luminosity=False, cast=False).lab_mean

    # What is compared is colour (a, b): the two show different tissue, so lightness may differ.
    wanted = tissue_colour(recolouring.normalise(target, goal, goal))[1:]
    before = np.linalg.norm(tissue_colour(source)[1:] - wanted)
    assert np.linalg.norm(tissue_colour(recoloured)[1:] - wanted) < before / 2

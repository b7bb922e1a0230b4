"""Chance and uncertainty of r on made maps whose relation and smoothness are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import distance

from histospace_tf.scores import metrics, resampling
from histospace_tf.vocabulary import InputError

PITCH_PX = 290.0


def array_spots(side: int) -> np.ndarray:
    """A round section on a square array: about 3/4 of side x side spots."""
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    inside = np.hypot(*(at - (side - 1) / 2).T) < side / 2
    return at[inside] * PITCH_PX


def smooth_maps(centres_px: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """(spots, n) Gaussian fields of variance one, correlated over four spot distances."""
    apart = distance.cdist(centres_px, centres_px) / PITCH_PX
    root = np.linalg.cholesky(np.exp(-((apart / 4) ** 2) / 2) + 1e-6 * np.eye(len(apart)))
    return root @ random.normal(size=(len(apart), n))


def noisy(maps: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return maps + 0.5 * random.normal(size=maps.shape)


def as_section(
    predicted: np.ndarray, measured: np.ndarray, centres_px: np.ndarray, patient: str = "A"
) -> resampling.SectionMaps:
    return resampling.section_maps(
        patient, centres_px, predicted, measured, np.ones(measured.shape[1], bool)
    )


def found(p: np.ndarray) -> float:
    return float(np.mean(p < 0.05))


def test_unrelated_smooth_maps_pass_shuffled_spots_far_more_often_than_random_maps() -> None:
    random, centres = np.random.default_rng(0), array_spots(15)
    predicted, measured = (noisy(smooth_maps(centres, 400, random), random) for _ in range(2))
    section = as_section(predicted, measured, centres)
    # 400 maps: a true 5 % shows as 5 +- 1.1 %, so at most 8.3 % but once in 700.
    assert found(resampling.p_random_maps([section], seed=0, permutations=400)) < 0.083
    assert found(resampling.p_shuffled_spots([section], seed=0, permutations=400)) > 0.2


def test_rough_unrelated_maps_pass_neither_too_often_and_p_is_uniform() -> None:
    random, centres = np.random.default_rng(1), array_spots(12)
    predicted, measured = (random.normal(size=(len(centres), 400)) for _ in range(2))
    section = as_section(predicted, measured, centres)
    for test in (resampling.p_shuffled_spots, resampling.p_random_maps):
        p = test([section], seed=0, permutations=400)
        # Kolmogorov's distance of 400 uniform values stays below 1.63 / sqrt(400) in 99 %.
        assert np.abs(np.sort(p) - np.arange(1, 401) / 400).max() < 0.0815


def test_chance_match_that_a_patients_sections_repeat_is_counted_once() -> None:
    random, centres = np.random.default_rng(2), array_spots(15)
    tissue = [smooth_maps(centres, 300, random) for _ in range(2)]
    pairs = [[noisy(maps, random) for maps in tissue] for _ in range(4)]
    one = [as_section(predicted, measured, centres) for predicted, measured in pairs]
    four = [
        as_section(predicted, measured, centres, patient)
        for (predicted, measured), patient in zip(pairs, "ABCD", strict=True)
    ]
    # 5 +- 1.3 % of 300 at worst; said to be four patients, they pass far too often.
    assert found(resampling.p_random_maps(one, seed=0, permutations=400)) < 0.088
    assert found(resampling.p_random_maps(four, seed=0, permutations=400)) > 0.15


def test_related_smooth_maps_are_found_by_both() -> None:
    random, centres = np.random.default_rng(3), array_spots(15)
    maps = smooth_maps(centres, 40, random)
    pairs = [(noisy(maps, random), noisy(maps, random)) for _ in range(2)]
    sections = [as_section(*pair, centres) for pair in pairs]
    assert found(resampling.p_shuffled_spots(sections, seed=0, permutations=400)) == 1
    assert found(resampling.p_random_maps(sections, seed=0, permutations=400)) > 0.9
    turned = [as_section(-x, z, centres) for x, z in pairs]
    assert found(resampling.p_random_maps(turned, seed=0, permutations=400)) == 0  # one-sided


def test_patterns_are_orthonormal_of_mean_zero_and_coarsest_at_one_end() -> None:
    centres = array_spots(8)
    patterns = resampling._patterns(centres)
    assert patterns.shape == (len(centres), len(centres) - 1)
    np.testing.assert_allclose(patterns.T @ patterns, np.eye(len(centres) - 1), atol=1e-5)
    np.testing.assert_allclose(patterns.sum(axis=0), 0, atol=1e-4)
    beside = np.abs(distance.cdist(centres, centres) - PITCH_PX) < 1
    agree = [p @ beside @ p for p in patterns.T]  # how much neighbours are alike
    assert agree[0] > 2.5  # most spots have four neighbours, those at the edge fewer
    assert agree[-1] < 0


@pytest.mark.parametrize("smooth", [False, True])
def test_interval_covers_the_truth_about_as_often_as_it_says(smooth: bool) -> None:
    random, genes, sections = np.random.default_rng(4), 200, []
    for patient in "ABCDE":
        centres = array_spots(14)
        make = smooth_maps if smooth else lambda c, n, r: r.normal(size=(len(c), n))
        shared, other = (make(centres, genes, random) for _ in range(2))
        sections.append(as_section(shared, 0.6 * shared + 0.8 * other, centres, patient))
    low, high = resampling.interval(sections, seed=0, bootstraps=200)
    # In finite sections r of smooth maps is below 0.6: the truth is what such sections have.
    truth = np.mean([np.sum(s.predicted * s.measured, axis=0) for s in sections])
    covered = np.mean((low <= truth) & (high >= truth))
    # 200 genes: +- 2 %. Smooth maps have a dozen independent patches a section, so fall short;
    # redrawing sections that do not differ makes the interval of rough ones too wide.
    assert covered > (0.86 if smooth else 0.92)
    assert np.mean(high - low) < (0.5 if smooth else 0.2)  # and not by being endless


def test_interval_brackets_r_and_narrows_with_more_spots() -> None:
    random = np.random.default_rng(5)
    widths = []
    for side in (8, 24):
        centres = array_spots(side)
        x = random.normal(size=(len(centres), 20))
        z = x + random.normal(size=x.shape)
        low, high = resampling.interval([as_section(x, z, centres)], seed=0, bootstraps=200)
        r = metrics.gene_r_each(x, z)
        assert ((low < r) & (r < high)).all()
        widths.append(np.mean(high - low))
    assert widths[1] < widths[0] / 2  # nine times the spots: a third of the width


def test_weighted_r_is_numpys_with_frequency_weights() -> None:
    random = np.random.default_rng(6)
    x, z = random.normal(size=(2, 12, 3))
    weights = random.integers(0, 4, (5, 12)).astype(float)
    found_r = resampling._weighted_r(x, z, weights / weights.sum(axis=1, keepdims=True))
    for row, times in zip(found_r, weights, strict=True):
        again = np.repeat(np.arange(12), times.astype(int))
        expected = [np.corrcoef(x[again, g], z[again, g])[0, 1] for g in range(3)]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_resamples_that_hold_one_value_alone_have_r_zero() -> None:
    x = np.arange(12.0).reshape(4, 3)
    weights = np.array([[0, 0, 1.0, 0]])
    assert (resampling._weighted_r(x, x, weights) == 0).all()


def test_gene_result_is_the_same_whichever_genes_stand_beside_it() -> None:
    random, centres = np.random.default_rng(7), array_spots(9)
    x, z = random.normal(size=(2, len(centres), 2 * resampling.GENES_AT_ONCE + 3))
    z = z + 0.2 * x
    whole, part = (as_section(x[:, c], z[:, c], centres) for c in (slice(None), slice(5, None, 9)))
    for test in (resampling.p_shuffled_spots, resampling.p_random_maps):
        p = test([whole], seed=3, permutations=60)
        again = test([part], seed=3, permutations=60)
        # A sum in another order may cross a tie's margin: one of 60.
        np.testing.assert_allclose(p[5::9], again, atol=1.01 / 61)
        assert (test([whole], seed=4, permutations=60) != p).any()


def test_large_section_lends_a_sample_of_its_spots(monkeypatch: pytest.MonkeyPatch) -> None:
    random, centres = np.random.default_rng(8), array_spots(16)
    x = random.normal(size=(len(centres), 60))
    z = random.normal(size=x.shape)
    z[:, :20] += x[:, :20]
    monkeypatch.setattr(resampling, "SPATIAL_SPOTS", 100)
    p = resampling.p_random_maps([as_section(x, z, centres)], seed=0, permutations=300)
    assert (p[:20] < 0.01).all()
    assert found(p[20:]) < 0.2  # 2 of 40 on average


def test_unscored_genes_have_no_result_and_change_no_other() -> None:
    random, centres = np.random.default_rng(9), array_spots(6)
    x, z = random.normal(size=(2, len(centres), 3))
    x[:, 1] = np.nan
    scored = np.array([True, False, True])
    section = resampling.section_maps("A", centres, x, z, scored)
    results = [
        *resampling.interval([section], seed=0, bootstraps=50),
        resampling.p_shuffled_spots([section], seed=0, permutations=50),
        resampling.p_random_maps([section], seed=0, permutations=50),
    ]
    for values in results:
        assert np.isnan(values).tolist() == [False, True, False]


def test_constant_prediction_is_never_found() -> None:
    random, centres = np.random.default_rng(10), array_spots(6)
    section = as_section(
        np.full((len(centres), 2), 3.1), random.normal(size=(len(centres), 2)), centres
    )
    for test in (resampling.p_shuffled_spots, resampling.p_random_maps):
        assert (test([section], seed=0, permutations=50) == 1).all()
    low, high = resampling.interval([section], seed=0, bootstraps=50)
    assert (low == 0).all()
    assert (high == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_sections_of_hardly_any_spot_are_defined(n: int) -> None:
    maps = np.arange(n, dtype=float)[:, None]
    section = as_section(maps, maps, np.zeros((n, 2)))  # all at one place, too
    for test in (resampling.p_shuffled_spots, resampling.p_random_maps):
        assert 0 < test([section], seed=0, permutations=20)[0] <= 1
    assert np.isfinite(resampling.interval([section], seed=0, bootstraps=20)).all()


def test_holm_is_its_definition() -> None:
    p = np.round(np.random.default_rng(11).uniform(size=30) ** 3, 2)  # with ties

    def by_definition(value: float) -> float:
        return max(min(1.0, sum(other >= q for other in p) * q) for q in sorted(p) if q <= value)

    np.testing.assert_allclose(resampling.holm(p), [by_definition(v) for v in p], atol=1e-12)
    with pytest.raises(InputError, match="0 to 1"):
        resampling.holm(np.array([0.2, np.nan]))


def test_misfits_and_nothing_to_do_are_refused() -> None:
    centres = array_spots(4)
    x = np.random.default_rng(0).normal(size=(len(centres), 2))
    with pytest.raises(InputError, match=r"patient 'P'.*do not fit"):
        as_section(x, x[1:], centres, "P")
    with pytest.raises(InputError, match="not a finite number"):
        as_section(np.where(x > 1, np.inf, x), x, centres)
    section = as_section(x, x, centres)
    for test in (resampling.p_shuffled_spots, resampling.p_random_maps):
        with pytest.raises(InputError, match="0 permutations"):
            test([section], seed=0, permutations=0)
        with pytest.raises(InputError, match="no section"):
            test([], seed=0, permutations=9)
    with pytest.raises(InputError, match="0 bootstraps"):
        resampling.interval([section], seed=0, bootstraps=0)
    with pytest.raises(InputError, match="no section"):
        resampling.interval([], seed=0, bootstraps=9)

"""hist2RNA and HE2RNA: slides of padded tiles, in which padding has no part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.models.peers import he2rna, hist2rna
from histospace_tf.vocabulary import InputError

F, GENES = 6, 4
COUNTS = [5, 1, 9]  # tiles of each slide


def _slides(*, tiles: int = 9, filler: float = 0.0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3).normal(size=(len(COUNTS), 9, F)).astype(np.float32)
    values = np.full((len(COUNTS), tiles, F), filler, np.float32)
    values[:, :9] = draw
    mask = np.arange(tiles)[None, :] < np.array(COUNTS)[:, None]
    return {"features": np.where(mask[..., None], values, np.float32(filler)), "mask": mask}


def _small(name: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    if name == "hist2rna":
        return hist2rna.build(GENES, hist2rna.SMALL, features=F)
    return he2rna.build(GENES, he2rna.SMALL, features=F)


NAMES = ["hist2rna", "he2rna"]


def test_parameters_are_the_published_codes() -> None:
    # Sums of the layers in github.com/owkin/HE2RNA_code, model.py, with the sizes of
    # configs/config_all_genes.ini on the 2048 features of ResNet-50.
    layers = (2048 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 50 + 50)
    assert he2rna.build(50, features=2048).count_params() == layers == 3_199_026
    # Of github.com/raktim-mondol/hist2RNA, step_2_model_training.py: 3,041,586 for 50 genes on the
    # same features, of which 4 of the first kernel's 5 places never meet anything but padding.
    layers = (5 * 2048 * 256 + 256) + (256 * 512 + 512) + (512 * 512 + 512) + (512 * 50 + 50)
    assert layers == 3_041_586
    assert hist2rna.build(50, features=2048).count_params() == layers - 4 * 2048 * 256


@pytest.mark.parametrize("name", NAMES)
def test_padding_order_of_tiles_and_what_stands_in_padding_change_nothing(name: str) -> None:
    model = _small(name)
    slides = _slides()
    expected = model.predict(slides, verbose=0)
    assert expected.shape == (len(COUNTS), GENES)
    order = np.random.default_rng(0).permutation(9)
    shuffled = {key: values[:, order] for key, values in slides.items()}
    for other in (_slides(tiles=12), _slides(filler=100.0), shuffled):
        # Sums of a few tiles in another order.
        np.testing.assert_allclose(model.predict(other, verbose=0), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_slide_without_a_tile_is_finite_and_so_is_its_gradient(name: str) -> None:
    model, slides = _small(name), _slides()
    slides["mask"] = np.zeros_like(slides["mask"])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(slides, training=True))
    assert np.isfinite(float(total))
    for gradient in tape.gradient(total, model.trainable_variables):
        assert np.isfinite(gradient.numpy()).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_weight_and_a_file_gives_the_model_back(
    name: str, tmp_path: Path
) -> None:
    model, slides = _small(name), _slides()
    with tf.GradientTape() as tape:
        total = tf.reduce_mean(tf.square(model(slides, training=True) - 1.0))
    gradients = tape.gradient(total, model.trainable_variables)
    assert all(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(
        again.predict(slides, verbose=0), model.predict(slides, verbose=0)
    )


def _highest(scores: np.ndarray, percent: int) -> np.ndarray:
    """(tiles, genes) -> (genes,): mean of each gene's highest, so many percent of the tiles."""
    k = int(np.ceil(len(scores) * percent / 100))
    return np.sort(scores, axis=0)[::-1][:k].mean(axis=0)


def test_he2rna_averages_its_top_tiles_over_all_k_and_draws_one_k_in_training() -> None:
    scores = np.random.default_rng(5).normal(size=(3, 9, GENES)).astype(np.float32)
    mask = _slides()["mask"]
    layer = he2rna.TopTiles([1, 40, 100], seed=0)
    real = [scores[i, :n] for i, n in enumerate(COUNTS)]
    by_k = np.array([[_highest(tiles, k) for tiles in real] for k in layer.percents])
    np.testing.assert_allclose(layer(scores, mask), by_k.mean(axis=0), rtol=1e-5, atol=1e-6)
    drawn = []
    for _ in range(20):
        given = np.asarray(layer(scores, mask, training=True))
        drawn.append(int(np.abs(by_k - given).max(axis=(1, 2)).argmin()))
        np.testing.assert_allclose(given, by_k[drawn[-1]], rtol=1e-5, atol=1e-6)
    assert set(drawn) == {0, 1, 2}


def test_he2rnas_list_of_k_is_the_published_one_on_as_many_tiles_as_there() -> None:
    percents = np.array(he2rna.PUBLISHED.percents)
    np.testing.assert_array_equal(he2rna.top_tiles(percents, 100), [1, 2, 5, 10, 20, 50, 100])
    np.testing.assert_array_equal(he2rna.top_tiles(percents, 7), [1, 1, 1, 1, 2, 4, 7])
    assert he2rna.top_tiles(percents, 8000).max() == 8000


def test_he2rna_starts_from_a_given_mean_and_shows_scores_of_tiles() -> None:
    mean = np.arange(GENES, dtype=np.float32)
    model = he2rna.build(GENES, he2rna.SMALL, features=F, mean=mean)
    blank = {"features": np.zeros((1, 2, F), np.float32), "mask": np.ones((1, 2), bool)}
    np.testing.assert_allclose(model(blank)[0], mean, atol=1e-6)
    slides = _slides()
    scores = he2rna.tile_scores(model)(slides["features"])
    assert scores.shape == (3, 9, GENES)
    expression = he2rna.TopTiles(he2rna.SMALL.percents)(scores, slides["mask"])
    np.testing.assert_allclose(expression, model(slides), rtol=1e-5)


def test_what_cannot_be_built_is_refused() -> None:
    for percents in [(), (0, 2), (50, 101)]:
        with pytest.raises(InputError, match=r"`percents`.*from 1 to 100"):
            he2rna.build(GENES, dataclasses.replace(he2rna.SMALL, percents=percents), features=F)
    with pytest.raises(InputError, match=r"`mean` has shape \(3,\); \(4,\) works"):
        he2rna.build(GENES, he2rna.SMALL, features=F, mean=np.zeros(3))

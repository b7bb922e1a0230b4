"""HisToGene: whole sections, in which the order of spots says nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.models.peers import histogene, sections
from histospace_tf.vocabulary import InputError

GENES, SPOTS = 4, 6
NETWORKS = [histogene]


def _section(side: int = 32, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    colours = rng.random((1, SPOTS, 1, 1, 3), np.float32)
    position = rng.permutation(64)[: 2 * SPOTS].reshape(1, SPOTS, 2)
    return {
        "tile": rng.random((1, SPOTS, side, side, 3), np.float32) * colours,
        "position": position.astype(np.int32),
    }


def _part(section: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some of a section's spots, or all in another order."""
    part = {name: section[name][:, rows] for name in ("tile", "position")}
    if "neighbours" in section:
        part["neighbours"] = section["neighbours"][:, rows][:, :, rows]
    return part


def test_histogene_has_the_published_parameters() -> None:
    # github.com/maxpmx/HisToGene, tutorial.ipynb, prints of 8 blocks, 35 places and 785 genes:
    # 38.5 M for tiles, 35.8 K twice for places, 67.2 M for the transformer, 806 K for genes, and
    # 426.356 MB in all, of four bytes a number.
    size = dataclasses.replace(histogene.PUBLISHED, places=35)
    counts = {layer.name: layer.count_params() for layer in histogene.build(785, size).layers}
    assert counts["tile_embedding"] == 3 * 112 * 112 * 1024 + 1024 == 38_536_192
    assert counts["places"] == 2 * 35 * 1024
    assert counts["last_normalisation"] + counts["expression"] == 2 * 1024 + 1024 * 785 + 785
    blocks = sum(count for name, count in counts.items() if name.startswith("block"))
    assert blocks == 67_174_400
    assert f"{4 * sum(counts.values()) / 1e6:.3f}" == "426.356"
    # Of vis_model.py's defaults, 4 blocks and 64 places, with 250 genes: 72.5 million.
    assert 38_536_192 + 2 * 64 * 1024 + blocks // 2 + 2 * 1024 + 1024 * 250 + 250 == 72_512_762


def test_order_of_spots_has_no_effect_and_places_and_company_have() -> None:
    keras.utils.set_random_seed(1)
    for network in NETWORKS:
        model, section = network.build(GENES, network.SMALL), _section()
        expected = model(section).numpy()
        assert expected.shape == (1, SPOTS, GENES)
        order = np.random.default_rng(1).permutation(SPOTS)
        np.testing.assert_allclose(
            model(_part(section, order)), expected[:, order], rtol=1e-4, atol=1e-5
        )
        moved = dict(section, position=section["position"][:, order])
        fewer = _part(section, np.arange(SPOTS - 1))
        swapped = dict(section, position=section["position"][..., ::-1])
        for other in (moved, fewer, swapped):
            given = model(other).numpy()
            # At random weights a spot looks nearly alike at all others, and at itself.
            assert np.abs(given - expected[:, : given.shape[1]]).max() > 1e-3


def test_two_sections_at_once_give_what_each_gives_alone() -> None:
    keras.utils.set_random_seed(1)
    for network in NETWORKS:
        model = network.build(GENES, network.SMALL)
        alone = [_section(seed=0), _section(seed=1)]
        both = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
        expected = np.concatenate([model(one) for one in alone])
        np.testing.assert_allclose(model(both), expected, rtol=1e-4, atol=1e-5)


def test_attention_is_softmax_of_scaled_products_of_each_head() -> None:
    layer = sections.SelfAttention(2, 3)
    spots = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    given = layer(spots).numpy()
    joined = spots @ layer.joined.kernel.numpy()
    query, key, value = np.moveaxis(joined.reshape(2, 5, 3, 2, 3), 2, 0)
    products = np.einsum("bihd,bjhd->bhij", query, key) / 3**0.5
    weights = np.exp(products) / np.exp(products).sum(axis=-1, keepdims=True)
    seen = np.einsum("bhij,bjhd->bihd", weights, value).reshape(2, 5, 6)
    expected = seen @ layer.out.kernel.numpy() + layer.out.bias.numpy()
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-6)


def test_gradients_reach_every_weight_and_a_file_gives_the_model_back(tmp_path: Path) -> None:
    for network in NETWORKS:
        keras.utils.set_random_seed(2)
        model, section = network.build(GENES, network.SMALL), _section()
        with tf.GradientTape() as tape:
            total = tf.reduce_mean(tf.square(model(section, training=True) - 1.0))
        gradients = tape.gradient(total, model.trainable_variables)
        for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
            assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, weight.path
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        np.testing.assert_array_equal(again(section), model(section))


def test_a_spot_beyond_the_networks_places_is_refused() -> None:
    position = np.array([[0, 63], [64, 2], [3, 70]])
    sections.check_positions(position[:1], 64, section="C4")
    for wrong, message in [
        (position, r"section 'C4': 2 of 3 .* 64 columns .*column 64, row 2.*at least 71 places"),
        (np.array([[-1, 5]]), "1 of 1 spots .*column -1, row 5.*counted from 0"),
    ]:
        with pytest.raises(InputError, match=message):
            sections.check_positions(wrong, 64, section="C4")

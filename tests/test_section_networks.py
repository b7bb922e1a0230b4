"""HisToGene and Hist2ST: whole sections, in which the order of spots says nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import training
from histospace_tf.models.peers import hist2st, histogene, sections, zinb
from histospace_tf.vocabulary import InputError

GENES, SPOTS = 4, 6
RNG = np.random.default_rng(7)
SMALL: dict[ModuleType, Any] = {
    histogene: histogene.SMALL,
    hist2st: dataclasses.replace(hist2st.SMALL, blocks=1),
}
NETWORKS = [pytest.param(network, id=network.__name__.rpartition(".")[2]) for network in SMALL]


def _section(network: ModuleType, *, spots: int = SPOTS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    side = SMALL[network].tile_px
    colours = rng.random((1, spots, 1, 1, 3), np.float32)
    position = np.argwhere(np.ones((3, 3)))[:spots].astype(np.int32)
    section = {
        "tile": rng.random((1, spots, side, side, 3), np.float32) * colours,
        "position": position[None],
    }
    if network is hist2st:
        section["neighbours"] = hist2st.neighbours(position)[None]
    return section


def _predictor(network: ModuleType, model: keras.Model) -> keras.Model:
    return hist2st.expression(model) if network is hist2st else model


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


def test_hist2st_has_the_published_parameters() -> None:
    # github.com/biomed-AI/Hist2ST, tutorial.ipynb, prints of --tag 5-7-2-8-4-16-32 and 785 genes:
    # 303.159 MB in all, of four bytes a number. PyTorch's two LSTM layers have a second bias each.
    model = hist2st.build(785)
    biases = 2 * 4 * 1024
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert f"{4 * (trainable + biases) / 1e6:.3f}" == "303.159"
    # 4.7 K for patches, 65.5 K twice for places, 71.4 M for its "vit", 1.1 M for the views' shares,
    # 804 K thrice and 806 K for genes.
    core = model.get_layer("distilled").core
    counts = {layer.name: layer.count_params() for layer in core.layers}
    heads = ("last_normalisation", *hist2st.PARTS[:-1])
    assert [counts[name] for name in heads] == [2 * 1024, *[1024 * 785 + 785] * 4]
    of_views = counts["coefficient_hidden"] + counts["coefficient"]
    assert of_views == 1_050_625
    assert counts["places"] == 2 * 64 * 1024
    patches = 3 * 7 * 7 * 32 + 32
    known = sum(counts[name] for name in heads) + of_views + counts["places"] + patches
    assert f"{(trainable + biases - known) / 1e6:.1f}" == "71.4"
    # What a prediction needs: neither the counts' heads nor the views' weights.
    kept = hist2st.expression(model).trainable_weights
    spared = trainable - sum(int(np.prod(weight.shape)) for weight in kept)
    assert spared == 3 * (1024 * 785 + 785) + of_views


@pytest.mark.parametrize("network", NETWORKS)
def test_order_of_spots_has_no_effect_and_places_and_company_have(network: ModuleType) -> None:
    keras.utils.set_random_seed(1)
    whole = network.build(GENES, SMALL[network])
    model, section = _predictor(network, whole), _section(network)
    expected = model(section).numpy()
    assert expected.shape == (1, SPOTS, GENES)
    order = np.random.default_rng(1).permutation(SPOTS)
    shuffled = model(_part(section, order))
    np.testing.assert_allclose(shuffled, expected[:, order], rtol=1e-4, atol=1e-5)
    moved = dict(section, position=section["position"][:, order])
    fewer = _part(section, np.arange(SPOTS - 1))
    swapped = dict(section, position=section["position"][..., ::-1])
    for other in (moved, fewer, swapped):
        given = model(other).numpy()
        # At random weights a spot looks nearly alike at all others, and at itself.
        assert np.abs(given - expected[:, : given.shape[1]]).max() > 1e-4


@pytest.mark.parametrize("network", NETWORKS)
def test_two_sections_at_once_give_what_each_gives_alone(network: ModuleType) -> None:
    keras.utils.set_random_seed(1)
    model = _predictor(network, network.build(GENES, SMALL[network]))
    alone = [_section(network, seed=0), _section(network, seed=1)]
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
    attended = np.einsum("bhij,bjhd->bihd", weights, value).reshape(2, 5, 6)
    expected = attended @ layer.out.kernel.numpy() + layer.out.bias.numpy()
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_reach_every_weight_and_a_file_gives_the_model_back(
    network: ModuleType, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(2)
    model, section = network.build(GENES, SMALL[network]), _section(network)
    loss: keras.losses.Loss = keras.losses.MeanSquaredError()
    wanted = RNG.normal(size=(1, SPOTS, GENES))
    if network is hist2st:
        loss = hist2st.Hist2STLoss()
        section["neighbours"][:, 0] = 0  # a spot without neighbours
        wanted = hist2st.targets(wanted[0], RNG.poisson(2, (SPOTS, GENES)))[None]
    with tf.GradientTape() as tape:
        total = loss(wanted, model(section, training=True))
    gradients = tape.gradient(total, model.trainable_variables)
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        values = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(values).all(), weight.path
        # A softmax over views takes no notice of what is added to all of them, and batch
        # normalisation none of what is added to a channel: these biases of the published network
        # change nothing.
        is_idle = weight.path.endswith("coefficient/bias") or (
            "depthwise_conv" in weight.path and weight.name == "bias"
        )
        assert is_idle or np.abs(values).max() > 1e-9, weight.path
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again(section), model(section))


def test_hist2st_is_trained_by_the_loop_on_sections_of_any_number_of_spots(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    size = dataclasses.replace(hist2st.SMALL, blocks=1, graphs=1, views=1, dropout=0.0)
    rng = np.random.default_rng(0)

    def batches() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for spots in (6, 4):
            section = _section(hist2st, spots=spots)
            wanted = section["tile"].mean(axis=(2, 3)) @ np.ones((3, GENES))
            yield section, hist2st.targets(wanted[0], rng.poisson(2, (spots, GENES)))[None]

    shapes = {name: (1, None, *each.shape[2:]) for name, each in _section(hist2st).items()}
    shapes["neighbours"] = (1, None, None)
    inputs = {
        name: tf.TensorSpec(shape, tf.int32 if name == "position" else tf.float32)
        for name, shape in shapes.items()
    }
    signature = (inputs, tf.TensorSpec((1, None, 2 * GENES + 1)))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)

    def scores(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        return {"val_mse": float(np.mean((predicted[..., :GENES] - wanted[..., :GENES]) ** 2))}

    schedule = training.Schedule(
        hist2st.Hist2STLoss(), dataclasses.replace(hist2st.TRAINING, learning_rate=1e-2).rate(2), 3
    )
    session = training.Session(tf.distribute.get_strategy(), 0, False, tmp_path)
    trained = training.train(
        lambda: hist2st.build(GENES, size),
        lambda _: data,
        schedule,
        session,
        stage="hist2st",
        validation=training.Validation(data.take(1), scores, monitor="val_mse"),
        verbose=0,
    )
    losses = [row["loss"] for row in trained.history]
    assert losses[-1] < losses[0]
    assert all(row["val_mse"] < row["val_loss"] for row in trained.history)


def test_hist2st_loss_is_squares_and_likelihood_and_distance_from_the_views() -> None:
    genes, counts = RNG.normal(size=(5, GENES)), RNG.poisson(3, (5, GENES))
    wanted = hist2st.targets(genes, counts)
    factor = counts.sum(axis=1) / np.median(counts.sum(axis=1))
    np.testing.assert_allclose(wanted[:, -1], factor, rtol=1e-6)
    given, distilled = RNG.normal(size=(2, 5, GENES))
    mean, dispersion = RNG.uniform(0.5, 4, (2, 5, GENES))
    dropout = RNG.uniform(0.1, 0.5, (5, GENES))
    stacked = np.concatenate([given, mean, dispersion, dropout, distilled], axis=1)
    unlikely = zinb.negative_log_likelihood(
        tf.constant(counts, tf.float64), mean * factor[:, None], dispersion, dropout
    ).numpy()
    each = (given - genes) ** 2 + 0.25 * unlikely + 0.5 * (distilled - given) ** 2
    loss = hist2st.Hist2STLoss()
    np.testing.assert_allclose(
        loss.call(wanted, stacked.astype(np.float32)), each.mean(axis=1), rtol=1e-4
    )
    again = keras.losses.deserialize(keras.losses.serialize(hist2st.Hist2STLoss(0.1, 0.2)))
    assert (again.zinb, again.distillation, again.name) == (0.1, 0.2, "hist2st")
    with pytest.raises(InputError, match="3 of 5 spots have no count"):
        hist2st.targets(genes, np.where(np.arange(5)[:, None] < 3, 0, counts))


def test_neighbours_are_the_four_nearest_within_two_steps() -> None:
    position = np.array([[5, 5], [4, 5], [6, 5], [5, 4], [5, 6], [6, 6], [5, 8], [20, 20]])
    adjacency = hist2st.neighbours(position)
    assert np.flatnonzero(adjacency[0]).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(adjacency[6]).tolist() == [4]
    assert adjacency[7].sum() == 0
    assert np.diag(adjacency).sum() == 0
    spots = RNG.normal(size=(1, 8, 3)).astype(np.float32)
    layer = sections.NeighbourMean(4)
    given = layer(spots, adjacency[None]).numpy()[0]
    mean = adjacency @ spots[0] / np.maximum(adjacency.sum(axis=1, keepdims=True), 1)
    gathered = np.maximum(mean @ layer.kernel.numpy(), 0)
    length = np.linalg.norm(gathered, axis=1, keepdims=True)
    np.testing.assert_allclose(given, gathered / np.maximum(length, 1e-12), rtol=1e-4, atol=1e-6)
    assert (given[7] == 0).all()


def test_views_of_hist2st_are_turned_greyed_and_flipped_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = hist2st.build(GENES, SMALL[hist2st])
    layer = model.get_layer("distilled")
    tile = RNG.random((1, 3, 56, 56, 3), np.float32)
    grey = np.repeat(tile @ np.array([0.2989, 0.587, 0.114]), 1, axis=-1)[..., None]
    for drawn, expected in [
        ((0.5, 0.0, 0.5), tile),
        ((0.05, 0.0, 0.5), np.broadcast_to(grey, tile.shape)),
        ((0.5, np.pi / 2, 0.5), np.rot90(tile, axes=(2, 3))),
        ((0.5, 0.0, 0.1), tile[:, :, :, ::-1]),
    ]:
        draws = iter(drawn)
        monkeypatch.setattr(
            keras.random, "uniform", lambda *_, draws=draws, **__: np.float32(next(draws))
        )
        np.testing.assert_allclose(layer.changed(tile), expected, atol=1e-3)
    monkeypatch.undo()
    section = _section(hist2st)
    for training_now in (False, True):
        parts = np.split(model(section, training=training_now).numpy(), 5, axis=-1)
        assert (parts[0] == parts[4]).all() != training_now
    np.testing.assert_array_equal(
        hist2st.expression(model)(section), np.split(model(section).numpy(), 5, axis=-1)[0]
    )


def test_a_spot_beyond_the_networks_places_is_refused() -> None:
    position = np.array([[0, 63], [64, 2], [3, 70]])
    sections.check_positions(position[:1], 64, section="C4")
    for wrong, message in [
        (position, r"section 'C4': 2 of 3 .* 64 columns .*column 64, row 2.*at least 71 places"),
        (np.array([[-1, 5]]), "1 of 1 spots .*column -1, row 5.*counted from 0"),
    ]:
        with pytest.raises(InputError, match=message):
            sections.check_positions(wrong, 64, section="C4")

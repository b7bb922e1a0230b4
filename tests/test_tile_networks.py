"""ST-Net and EfficientNet-B0: held against Keras' own networks, and where weights come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.models.peers import efficientnet_b0, image_weights, st_net
from histospace_tf.vocabulary import InputError

GENES = 5
APPLICATIONS = {
    st_net: keras.applications.DenseNet121,
    efficientnet_b0: keras.applications.EfficientNetB0,
}
NETWORKS = [
    pytest.param(network, id=network.__name__.rpartition(".")[2]) for network in APPLICATIONS
]


def _tiles(side: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((n, side, side, 3), np.float32)


def _trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def _with_random_weights(application: Callable[..., keras.Model], side: int) -> keras.Model:
    """An application's trunk; statistics of batch normalisation random, too."""
    model = application(include_top=False, weights=None, pooling="avg", input_shape=(side, side, 3))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "moving_" in weight.name or "gamma" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif "beta" in weight.name:
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_the_published_size_is_keras_network_weight_by_weight(
    network: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = APPLICATIONS[network]
    theirs = _with_random_weights(application, 32)
    downloads = []

    def fetched(**options: object) -> keras.Model:
        downloads.append(options)
        return theirs

    fetched.__name__ = application.__name__
    monkeypatch.setattr(keras.applications, application.__name__, fetched)
    size = dataclasses.replace(network.PUBLISHED, tile_px=32)
    ours = network.build(1000, size, weights="imagenet")
    assert downloads == [{"include_top": False, "weights": "imagenet"}]
    tiles = _tiles(32, 1)
    if network is st_net:
        # torchvision's densenet121, github.com/bryanhe/ST-Net's network: 7,978,856 weights with
        # 1000 outputs (pytorch.org/vision, DenseNet121_Weights, num_params).
        assert _trainable(ours) == 7_978_856
        given = (tiles - image_weights.MEAN) / image_weights.DEVIATION
    else:
        # torchvision's efficientnet_b0: 5,288,548 with 1000 outputs (EfficientNet_B0_Weights,
        # num_params), the paper's 5.3 million; the authors' code puts 3000 units before the output.
        of_classes = 1280 * 1000 + 1000
        with_hidden = (1280 * 3000 + 3000) + (3000 * 1000 + 1000)
        assert _trainable(ours) == 5_288_548 - of_classes + with_hidden
        # Keras' network scales pixels itself, by statistics that are 0 and 1 until they are given.
        given = 255 * (tiles - image_weights.MEAN) / image_weights.DEVIATION
    pooled = keras.Model(ours.input, ours.get_layer("pooled").output)
    expected = theirs(given.astype(np.float32), training=False)
    # float32 through a hundred layers.
    np.testing.assert_allclose(pooled(tiles, training=False), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_reach_every_weight_and_a_file_gives_the_model_back(
    network: ModuleType, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(2)
    model = network.build(GENES, network.SMALL)
    assert model.input_shape == (None, network.SMALL.tile_px, network.SMALL.tile_px, 3)
    assert model.output_shape == (None, GENES)
    last = model.get_layer("expression")
    last.kernel.assign(np.random.default_rng(0).normal(size=last.kernel.shape))
    tiles = _tiles(network.SMALL.tile_px)
    with tf.GradientTape() as tape:
        total = tf.reduce_mean(tf.square(model(tiles, training=True) - 1.0))
    gradients = tape.gradient(total, model.trainable_variables)
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.abs(gradient.numpy()).max() > 0, weight.path
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again(tiles, training=False), model(tiles, training=False))


def test_st_net_starts_at_the_given_mean_of_every_gene() -> None:
    mean = np.arange(GENES, dtype=np.float32)
    model = st_net.build(GENES, st_net.SMALL, mean=mean)
    np.testing.assert_array_equal(model(_tiles(64, 2)), [mean, mean])
    with pytest.raises(InputError, match=r"`mean` has shape \(3,\); \(5,\) works"):
        st_net.build(GENES, st_net.SMALL, mean=np.zeros(3))


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_normalisation_is_synchronized_where_it_is_asked_for(network: ModuleType) -> None:
    for asked in (False, True):
        model = network.build(GENES, network.SMALL, synchronized=asked)
        layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
        assert layers
        assert {layer.synchronized for layer in layers} == {asked}


class _Application:
    """Stands for one of Keras' applications: a trunk that any test can afford."""

    __name__ = "TinyNet"

    def __call__(self, *, include_top: bool, weights: str | None, channels: int = 4) -> keras.Model:
        if weights is not None:
            raise OSError("URL fetch failure on https://storage.googleapis.com: no route to host")
        tile = keras.Input((8, 8, 3))
        maps = keras.layers.Normalization(mean=0.5, variance=1.0)(tile)
        maps = keras.layers.Conv2D(channels, 3, use_bias=False)(maps)
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(maps))
        return keras.Model(tile, keras.layers.Dense(7)(pooled) if include_top else pooled)


def test_weights_come_from_every_kind_of_file_or_not_at_all(tmp_path: Path) -> None:
    application = _Application()
    keras.utils.set_random_seed(3)
    whole = application(include_top=True, weights=None)
    whole.save(tmp_path / "whole.keras")
    whole.save_weights(tmp_path / "whole.weights.h5")
    trunk = keras.Model(whole.input, whole.layers[-2].output)
    trunk.save_weights(tmp_path / "trunk.weights.h5")
    other = application(include_top=False, weights=None)
    before = other.get_weights()
    for name in ("whole.keras", "whole.weights.h5", "trunk.weights.h5"):
        other.set_weights(before)
        image_weights.give_weights(other, application, tmp_path / name)
        for given, expected in zip(other.get_weights(), trunk.get_weights(), strict=True):
            np.testing.assert_array_equal(given, expected)
    (tmp_path / "damaged.keras").write_bytes(b"no model")
    (tmp_path / "damaged.h5").write_bytes(b"no weights")
    (tmp_path / "weights.pt").write_bytes(b"of another kind")
    wider = application(include_top=True, weights=None, channels=5)
    wider.save(tmp_path / "wider.keras")
    for name, message in {
        "imagenet": "TinyNet cannot be fetched.*no route to host.*random",
        "absent.h5": "no file '.*absent.h5'",
        "damaged.keras": "model '.*damaged.keras' cannot be read",
        "damaged.h5": "damaged.h5' are not those of Keras' TinyNet",
        "weights.pt": "weights.pt': .h5, .weights.h5 or .keras",
        "wider.keras": "wider.keras'.* do not fit this network's trunk",
    }.items():
        other.set_weights(before)
        weights = name if name == "imagenet" else tmp_path / name
        with pytest.raises(InputError, match=message):
            image_weights.give_weights(other, application, weights)
        for kept, expected in zip(other.get_weights(), before, strict=True):
            np.testing.assert_array_equal(kept, expected)

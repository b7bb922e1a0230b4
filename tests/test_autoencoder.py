from __future__ import annotations

import keras
import numpy as np
import pytest

from histospace_tf.models import autoencoder
from histospace_tf.vocabulary import InputError


def _trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def _tiles(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, height, width, 3), np.float32)


# 3 convolutions are 93,248; batch normalisation adds scale and offset of 32 + 64 + 128 channels.
@pytest.mark.parametrize(("variant", "parameters"), [(1, 93_248), (2, 93_248), (3, 93_696)])
def test_encoder_has_the_papers_size(variant: int, parameters: int) -> None:
    assert _trainable(autoencoder.build_encoder(variant)) == parameters


@pytest.mark.parametrize(("variant", "parameters"), [(1, 333_955), (2, 333_955), (3, 334_851)])
def test_autoencoder_size_is_pinned(variant: int, parameters: int) -> None:
    # Mirror: 128 -> 128 -> 64 -> 32 -> 3 channels, with batch normalisation in variant 3.
    assert _trainable(autoencoder.build_autoencoder(variant)) == parameters


@pytest.mark.parametrize(
    ("variant", "kinds"),
    [
        (1, ["Conv2D", "MaxPooling2D"]),
        (2, ["Conv2D", "ReLU", "MaxPooling2D"]),
        (3, ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D"]),
    ],
)
def test_a_block_has_its_layers_in_the_papers_order(variant: int, kinds: list[str]) -> None:
    layers = autoencoder.build_encoder(variant).layers
    assert [type(layer).__name__ for layer in layers] == ["InputLayer", *kinds * 3]


@pytest.mark.parametrize("variant", autoencoder.VARIANTS)
def test_reconstruction_has_the_tiles_shape_and_range(variant: int) -> None:
    model = autoencoder.build_autoencoder(variant)
    for height, width in ((16, 24), (32, 32)):
        out = np.asarray(model(_tiles(2, height, width)))
        assert out.shape == (2, height, width, 3)
        assert out.min() >= 0
        assert out.max() <= 1


def test_encoder_takes_any_size_and_halves_it_thrice() -> None:
    encoder = autoencoder.build_encoder(3)
    assert encoder(_tiles(1, 8, 8)).shape == (1, 1, 1, 128)
    assert encoder(_tiles(1, 56, 30)).shape == (1, 7, 3, 128)
    assert encoder.output_shape == (None, None, None, 128)


def test_encoder_of_shares_the_weights() -> None:
    model = autoencoder.build_autoencoder(2)
    encoder = autoencoder.encoder_of(model)
    first = encoder.weights[0]
    first.assign(np.ones(first.shape))
    assert any(weight is first for weight in model.weights)


@pytest.mark.parametrize("variant", autoencoder.VARIANTS)
def test_frozen_copy_gives_the_same_maps_and_changes_nothing_of_the_callers_model(
    variant: int,
) -> None:
    encoder = autoencoder.build_encoder(variant)
    random = np.random.default_rng(0)
    for (
        weight
    ) in encoder.weights:  # a trained one's: statistics far from 0 and 1, scales of any sign
        low = 0.2 if weight.name == "moving_variance" else -0.5
        weight.assign(random.uniform(low, 0.5, weight.shape))
    tiles, before = _tiles(2, 16, 16), encoder.get_weights()
    copy = autoencoder.frozen_copy(encoder)
    for name in autoencoder.BLOCK_OUTPUTS:
        one, other = (
            keras.Model(model.input, model.get_layer(name).output)(tiles)
            for model in (encoder, copy)
        )
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)  # float32's rounding
    assert not copy.trainable_weights
    assert not any(layer.trainable for layer in copy.layers)
    assert encoder.trainable
    copy.weights[0].assign(np.zeros(copy.weights[0].shape))
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_frozen_copy_holds_no_batch_normalisation() -> None:
    for synchronized in (False, True):
        copy = autoencoder.frozen_copy(autoencoder.build_encoder(3, synchronized=synchronized))
        kinds = {type(layer) for layer in copy.layers}
        assert keras.layers.BatchNormalization not in kinds


def test_unknown_variant_is_refused() -> None:
    for build in (autoencoder.build_encoder, autoencoder.build_autoencoder):
        with pytest.raises(InputError, match=r"variant 4.* 1 \(pooling\)"):
            build(4)


def test_model_without_an_encoder_is_refused() -> None:
    with pytest.raises(InputError, match='no layer "encoder"'):
        autoencoder.encoder_of(autoencoder.build_encoder(1))

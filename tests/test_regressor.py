from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import presets
from histospace_tf.config import RegressorConfig
from histospace_tf.models import autoencoder, layers, regressor
from histospace_tf.vocabulary import InputError

PAPER = presets.preset("paper").regressor
RECOMMENDED = presets.preset("recommended").regressor
# A head that starts at random numbers: a linear one with factors starts at zero everywhere.
WITH_HIDDEN = dataclasses.replace(RECOMMENDED, hidden_units=16, factors=0)
F = regressor.FEATURES_PER_TILE
MAP = (16, 16, 128)  # of a 128 px tile


@pytest.fixture(scope="module")
def encoder() -> keras.Model:
    keras.utils.set_random_seed(0)
    return autoencoder.build_encoder(3)


def _tiles(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, side, side, 3), np.float32)


def _with(settings: RegressorConfig, **changes: object) -> RegressorConfig:
    return dataclasses.replace(settings, **changes)  # type: ignore[arg-type]


def _trainable(*models: keras.Model) -> int:
    return sum(int(np.prod(w.shape)) for model in models for w in model.trainable_weights)


def _statistics_by_hand(maps: np.ndarray) -> np.ndarray:
    n, rows, columns, channels = maps.shape
    top, left = rows * 3 // 14, columns * 3 // 14
    centre = maps[:, top : rows - top, left : columns - left]
    down, across = (max(1, side // layers.SAMPLED_SIDE) for side in (rows, columns))
    ordered = np.sort(maps[:, ::down, ::across].reshape(n, -1, channels), axis=1)
    ranks = [round(q * (ordered.shape[1] - 1)) for q in layers.QUANTILES]
    found = [maps.mean((1, 2)), np.sqrt(maps.var((1, 2)) + 1e-6)]
    found += [ordered[:, rank] for rank in ranks]
    found += [centre.mean((1, 2)), np.sqrt(centre.var((1, 2)) + 1e-6)]
    return np.concatenate(found, axis=1)


def _context(n: int, f: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed).normal
    values = {name: draw(size=(n, f)).astype(np.float32) for name in regressor.CONTEXT_INPUTS}
    values["slide_std"] = np.abs(values["slide_std"]) + np.float32(0.1)
    return values


@pytest.mark.parametrize("genes", [1, 250, 785])
def test_paper_model_has_the_papers_size(encoder: keras.Model, genes: int) -> None:
    head = regressor.build_head(MAP, genes, PAPER)
    assert _trainable(encoder, head) == 2_338_944 + 257 * genes


def test_the_papers_complexities_hold_ever_more_weights_and_are_pinned(
    encoder: keras.Model,
) -> None:
    # Convolutions 147,584 + 256 a block; what is left to flatten times 256, 1024 or 4096, always
    # 2,097,152; 250 genes.
    found = [
        _trainable(encoder, regressor.build_head(MAP, 250, _with(PAPER, conv_blocks=blocks)))
        for blocks in (1, 2, 3)
    ]
    assert found == [2_403_194, 2_743_802, 3_662_714]
    for blocks, width, total in zip((1, 2, 3), (256, 1024, 4096), found, strict=True):
        dense = 2_097_152 + width + width * 250 + 250
        assert total == 93_696 + blocks * (147_584 + 256) + dense


@pytest.mark.parametrize("genes", [1, 250, 785])
def test_global_model_has_its_size(encoder: keras.Model, genes: int) -> None:
    head = regressor.build_head(MAP, genes, _with(PAPER, architecture="global"))
    assert _trainable(encoder, head) == 93_696 + 147_584 + 256 + 33_024 + 257 * genes


@pytest.mark.parametrize(
    ("architecture", "trainable", "kept"),
    # kept: loadings, moving statistics of the encoder, and for "pooled" mean and deviation of
    # features.
    [
        ("pooled", 93_696 + F * 5 + 5, 5 * 250 + 448 + 2 * F),
        ("context", 93_696 + 2 * F * 5 + 5, 5 * 250 + 448),
    ],
)
def test_small_models_stay_under_a_million(
    encoder: keras.Model, architecture: str, trainable: int, kept: int
) -> None:
    head = regressor.build_head((F,), 250, _with(RECOMMENDED, architecture=architecture))
    assert _trainable(encoder, head) == trainable
    assert encoder.count_params() + head.count_params() == trainable + kept < 1_000_000


def test_features_are_so_many_statistics_of_each_of_the_encoders_channels() -> None:
    assert 4 + len(layers.QUANTILES) == layers.STATISTICS
    assert regressor.FEATURES_PER_TILE == layers.STATISTICS * (32 + 64 + 128)


def test_recommended_head_is_the_context_head() -> None:
    assert RECOMMENDED.architecture == "context"


@pytest.mark.parametrize(("architecture", "inputs"), [("pooled", F), ("context", 2 * F)])
def test_a_hidden_layer_has_its_size(encoder: keras.Model, architecture: str, inputs: int) -> None:
    settings = _with(RECOMMENDED, architecture=architecture, hidden_units=256, factors=0)
    head = regressor.build_head((F,), 250, settings)
    assert _trainable(encoder, head) == 93_696 + 256 * inputs + 256 + 257 * 250


def test_gene_factors_are_the_principal_axes_scaled_to_unit_deviation() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(400, 2)) * [3.0, 1.5]
    axes = np.linalg.qr(random.normal(size=(12, 2)))[0].T
    targets = shared @ axes + 0.1 * random.normal(size=(400, 12))
    targets -= targets.mean(axis=0)
    loadings = regressor.gene_factors(targets, 2)
    _, singular, rows = np.linalg.svd(targets, full_matrices=False)
    for found, row, size in zip(loadings, rows[:2], singular[:2] / np.sqrt(400), strict=True):
        assert found[np.abs(found).argmax()] > 0
        # float32 loadings
        np.testing.assert_allclose(np.abs(found), np.abs(row * size), atol=1e-5)


def test_training_leaves_the_loadings_of_a_factor_head_alone() -> None:
    settings = _with(RECOMMENDED, architecture="pooled", factors=2)
    head = regressor.build_head((6,), 4, settings)
    loadings = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    regressor.set_gene_factors(head, loadings)
    head.compile("sgd", "mse")
    features = _context(8, 6)["features"]
    assert np.abs(np.asarray(head(features))).max() == 0  # starts at the mean
    head.fit(features, np.ones((8, 4)), verbose=0)
    np.testing.assert_array_equal(np.asarray(head.get_layer("expression").kernel), loadings)
    assert np.linalg.matrix_rank(np.asarray(head(features)), tol=1e-4) <= 2


def test_loadings_of_the_wrong_shape_or_for_a_head_without_factors_are_refused() -> None:
    head = regressor.build_head((6,), 4, _with(RECOMMENDED, architecture="pooled", factors=2))
    with pytest.raises(InputError, match="loadings of shape"):
        regressor.set_gene_factors(head, np.zeros((4, 2)))
    plain = regressor.build_head((6,), 4, _with(RECOMMENDED, architecture="pooled", factors=0))
    with pytest.raises(InputError, match="factors is 0"):
        regressor.set_gene_factors(plain, np.zeros((2, 4)))


def test_flatten_head_flattens_8_by_8_of_128_at_128_px(encoder: keras.Model) -> None:
    trunk = regressor.build_trunk(encoder, architecture="flatten")
    assert trunk(_tiles(1, 128)).shape == (1, *MAP)
    head = regressor.build_head(MAP, 3, PAPER)
    assert head.get_layer("head1_pool").output.shape == (None, 8, 8, 128)
    assert head.get_layer("flatten").output.shape == (None, 8192)


def test_the_papers_dense_layers_have_nothing_between_them() -> None:
    head = regressor.build_head(MAP, 3, PAPER)
    assert [layer.name for layer in head.layers[-2:]] == ["hidden", "expression"]
    assert head.get_layer("hidden").activation is keras.activations.linear


# 8 and 16 px: maps of a single pixel. 30 px: odd sides.
@pytest.mark.parametrize("side", [8, 16, 30, 56])
def test_pooled_features_are_statistics_of_each_block(encoder: keras.Model, side: int) -> None:
    tiles = _tiles(2, side)
    maps = keras.Model(
        encoder.input,
        [encoder.get_layer(name).output for name in autoencoder.BLOCK_OUTPUTS],
    )(tiles)
    found = np.asarray(regressor.build_trunk(encoder, architecture="pooled")(tiles))
    assert found.shape == (2, F)
    by_block = [_statistics_by_hand(np.asarray(block, np.float64)) for block in maps]
    # Sums in float32, of values of order 1.
    np.testing.assert_allclose(found, np.concatenate(by_block, axis=1), atol=1e-5)


SIDES = [
    (1, 1),
    (4, 9),
    (layers.SAMPLED_SIDE + 3, 7),
    (2 * layers.SAMPLED_SIDE, 2 * layers.SAMPLED_SIDE),
    (2 * layers.SAMPLED_SIDE - 1, 3 * layers.SAMPLED_SIDE + 2),  # one side is sampled
]


@pytest.mark.parametrize(("rows", "columns"), SIDES)
def test_statistics_of_a_map_are_numpys(rows: int, columns: int) -> None:
    draw = np.random.default_rng(rows).gamma(1.5, size=(3, rows, columns, 5))
    # A channel that is mostly off, as after a ReLU, and one that is constant.
    draw[..., 0] = np.maximum(draw[..., 0] - 2, 0)
    draw[..., 1] = 0.25
    maps = draw.astype(np.float32)
    layer = layers.MapStatistics()
    expected = _statistics_by_hand(maps.astype(np.float64))
    # Sums in float32, of thousands of values of order 1.
    np.testing.assert_allclose(np.asarray(layer(maps)), expected, atol=5e-5)
    ranks = slice(2 * 5, (2 + len(layers.QUANTILES)) * 5)  # values of the map, taken as they are
    of_any_side = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 5))])
    for found in (layer(maps), of_any_side(maps)):
        np.testing.assert_array_equal(np.asarray(found)[:, ranks], expected[:, ranks])
    np.testing.assert_allclose(of_any_side(maps), np.asarray(layer(maps)), atol=1e-6)


def test_centre_of_a_224_px_tile_is_its_middle_128_px() -> None:
    maps = np.zeros((1, 112, 112, 1), np.float32)
    maps[:, 24:88, 24:88] = 1  # 128 px at half the resolution
    mean, *_, centre_mean, centre_deviation = np.asarray(layers.MapStatistics()(maps))[0]
    assert mean == pytest.approx((64 / 112) ** 2)
    assert (centre_mean, round(float(centre_deviation), 2)) == (1, 0)


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_blank_tiles_have_finite_features_and_gradients(encoder: keras.Model, shade: float) -> None:
    trunk = regressor.build_trunk(encoder, architecture="context")
    tile = tf.Variable(np.full((1, 64, 64, 3), shade, np.float32))
    with tf.GradientTape() as tape:
        features = trunk(tile)
    assert np.isfinite(features.numpy()).all()
    assert np.isfinite(tape.gradient(features, tile).numpy()).all()


@pytest.mark.parametrize("architecture", regressor.ARCHITECTURES)
def test_trunk_is_frozen_and_leaves_the_callers_encoder_trainable(
    encoder: keras.Model, architecture: str
) -> None:
    trunk = regressor.build_trunk(encoder, architecture=architecture)
    assert not trunk.trainable_weights
    assert len(encoder.trainable_weights) == 12
    before = [np.asarray(weight).tobytes() for weight in trunk.weights]
    trunk(_tiles(2, 32), training=True)
    assert [np.asarray(weight).tobytes() for weight in trunk.weights] == before


def test_features_are_those_of_the_encoder(encoder: keras.Model) -> None:
    tiles = _tiles(2, 40)
    trunk = regressor.build_trunk(encoder, architecture="global")
    np.testing.assert_allclose(
        np.asarray(trunk(tiles)), np.asarray(encoder(tiles)), rtol=1e-4, atol=1e-5
    )  # batch normalisation is folded


def test_context_head_sees_features_only_in_relation_to_their_slide() -> None:
    head = regressor.build_head((6,), 4, WITH_HIDDEN)
    inputs = _context(5, 6)
    out = np.asarray(head(inputs))
    # Another scanner: every feature scaled and shifted, the slide's statistics with it.
    other = {name: values * 3 + 2 for name, values in inputs.items()}
    other["slide_std"] = inputs["slide_std"] * 3
    assert out.shape == (5, 4)
    np.testing.assert_allclose(np.asarray(head(other)), out, atol=1e-4)  # float32 rounding


def test_context_head_uses_neighbours_and_own_features() -> None:
    head = regressor.build_head((6,), 4, WITH_HIDDEN)
    inputs = _context(5, 6)
    out = np.asarray(head(inputs))
    for name in ("features", "neighbour_features"):
        moved = np.asarray(head({**inputs, name: inputs[name] + 1}))
        assert np.abs(moved - out).max() > 1e-3


def test_context_head_is_finite_on_a_slide_without_variation() -> None:
    head = regressor.build_head((6,), 4, WITH_HIDDEN)
    inputs = _context(5, 6)
    inputs["slide_std"] = np.zeros_like(inputs["slide_std"])
    assert np.isfinite(np.asarray(head(inputs))).all()


def test_pooled_head_standardises_by_what_it_is_given() -> None:
    head = regressor.build_head((6,), 4, _with(WITH_HIDDEN, architecture="pooled"))
    features = np.random.default_rng(0).normal(3, 2, (50, 6)).astype(np.float32)
    plain = np.asarray(head((features - features.mean(0)) / features.std(0)))
    regressor.set_feature_scale(head, features.mean(0), features.var(0))
    np.testing.assert_allclose(np.asarray(head(features)), plain, atol=1e-5)  # float32 rounding
    assert len(head.trainable_weights) == 4


def test_feature_scale_travels_with_the_weights() -> None:
    settings = _with(WITH_HIDDEN, architecture="pooled")
    head, other = (regressor.build_head((6,), 4, settings) for _ in range(2))
    regressor.set_feature_scale(head, np.full(6, 2.0), np.full(6, 9.0))
    other.set_weights(head.get_weights())
    features = _context(3, 6)["features"]
    np.testing.assert_array_equal(np.asarray(head(features)), np.asarray(other(features)))


def test_without_hidden_units_a_head_is_linear() -> None:
    settings = _with(RECOMMENDED, architecture="pooled", hidden_units=0, factors=0)
    head = regressor.build_head((6,), 4, settings)
    assert _trainable(head) == 6 * 4 + 4
    a, b = _context(3, 6)["features"], _context(3, 6, seed=1)["features"]
    middle = np.asarray(head((a + b) / 2))
    np.testing.assert_allclose(middle, (np.asarray(head(a)) + np.asarray(head(b))) / 2, atol=1e-5)


@pytest.mark.parametrize("architecture", ["pooled", "context"])
def test_models_come_back_from_their_files(
    encoder: keras.Model, tmp_path: Path, architecture: str
) -> None:
    trunk = regressor.build_trunk(encoder, architecture=architecture)
    head = regressor.build_head((6,), 4, _with(WITH_HIDDEN, architecture=architecture))
    inputs = _context(2, 6)
    features = inputs if architecture == "context" else inputs["features"]
    for model, data in ((trunk, _tiles(2, 32)), (head, features)):
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras", compile=False)
        np.testing.assert_array_equal(np.asarray(again(data)), np.asarray(model(data)))


def test_unknown_architecture_is_refused(encoder: keras.Model) -> None:
    with pytest.raises(InputError, match=r"'vit'.*flatten, global, pooled, context"):
        regressor.build_trunk(encoder, architecture="vit")
    with pytest.raises(InputError, match="'vit'"):
        regressor.build_head(MAP, 3, _with(PAPER, architecture="vit"))


def test_encoder_without_the_named_blocks_is_refused() -> None:
    other = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(InputError, match="'block1_pool'"):
        regressor.build_trunk(other, architecture="pooled")


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (PAPER, (F,)),
        (PAPER, (1, 1, 128)),
        (RECOMMENDED, MAP),
        (_with(PAPER, conv_blocks=3), (4, 4, 8)),
    ],
)
def test_features_that_do_not_fit_the_head_are_refused(
    settings: RegressorConfig, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="features of shape"):
        regressor.build_head(shape, 3, settings)


def test_head_without_genes_is_refused() -> None:
    with pytest.raises(InputError, match="0 genes"):
        regressor.build_head((F,), 0, RECOMMENDED)


def test_feature_scale_that_does_not_fit_is_refused() -> None:
    head = regressor.build_head((6,), 4, _with(RECOMMENDED, architecture="pooled"))
    with pytest.raises(InputError, match="shape"):
        regressor.set_feature_scale(head, np.zeros(5), np.ones(5))
    with pytest.raises(InputError, match="below zero"):
        regressor.set_feature_scale(head, np.zeros(6), np.full(6, -1.0))
    with pytest.raises(InputError, match="finite"):
        regressor.set_feature_scale(head, np.full(6, np.nan), np.ones(6))
    with pytest.raises(InputError, match="pooled"):
        regressor.set_feature_scale(
            regressor.build_head((6,), 4, RECOMMENDED), np.zeros(6), np.ones(6)
        )

"""A model as a folder: everything comes back, and what is no model is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest

from histospace_tf import bundle as bundles
from histospace_tf.bundle import Bundle
from histospace_tf.config import Architecture, Config, RegressorConfig, TileConfig
from histospace_tf.data_pipelines import stain
from histospace_tf.models import autoencoder, layers, regressor
from histospace_tf.vocabulary import InputError
from made.tissue import panel

ARCHITECTURES = get_args(Architecture)
PROVENANCE = {"sections": ["A1"], "patients": ["A"], "simulated": True}
# Kernels and biases, and batch normalisation's scale and shift: 3 x 3 convolutions of 3 to 32, 64
# and 128 channels.
ENCODER = sum(9 * a * b + b + 2 * b for a, b in ((3, 32), (32, 64), (64, 128)))
HIDDEN, FACTORS, GENES = 16, 2, 4
FEATURES = layers.STATISTICS * (32 + 64 + 128)
CONVOLUTION = 9 * 128 * 128 + 128 + 2 * 128
LAST = {0: HIDDEN * GENES + GENES, FACTORS: HIDDEN * FACTORS + FACTORS + FACTORS * GENES}


def tiny_bundle(architecture: Architecture, *, factors: int = FACTORS) -> Bundle:
    """A model for tiles of 32 px, its every weight and statistic a number that no new model has."""
    settings = RegressorConfig(
        architecture=architecture,
        hidden_units=HIDDEN,
        factors=factors,
        solver="adam",
        spot_weights="equal",
    )
    config = Config(tiles=TileConfig(tile_px=32), regressor=settings)
    encoder = autoencoder.build_encoder(3)
    different_numbers(encoder)
    trunk = regressor.build_trunk(encoder, architecture=architecture)
    shape = bundles.feature_shape(trunk, 32)
    head = regressor.build_head(shape, GENES, settings)
    single = head
    if architecture == "context":
        single = bundles.build_single_tile_head(shape, GENES, config)
        different_numbers(single)
    different_numbers(head)
    return Bundle(
        config=config,
        panel=panel(),
        reference=stain.canonical_stains(),
        encoder=encoder,
        trunk=trunk,
        head=head,
        single_tile_head=single,
        trained_on=PROVENANCE,
    )


def different_numbers(model: keras.Model) -> None:
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])


@pytest.fixture(scope="module")
def context_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that holds a bundle alone."""
    run = tmp_path_factory.mktemp("run")
    bundles.save(tiny_bundle("context"), run / "bundle")
    return run


@pytest.fixture
def broken(context_run: Path, tmp_path: Path) -> Path:
    """A copy of that bundle's folder to spoil."""
    for file in (context_run / "bundle").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_everything_comes_back(architecture: Architecture, tmp_path: Path) -> None:
    made = tiny_bundle(architecture)
    bundles.save(made, tmp_path / "bundle")
    back = bundles.load(tmp_path / "bundle")
    for name in ("encoder", "head", "single_tile_head"):
        mine, theirs = (getattr(b, name).get_weights() for b in (made, back))
        assert [w.tobytes() for w in mine] == [w.tobytes() for w in theirs], name
    assert back.config == made.config
    assert back.panel.to_json() == made.panel.to_json()
    assert back.reference.to_json() == made.reference.to_json()
    assert back.trained_on == PROVENANCE
    assert back.needs_context == (architecture == "context")
    assert (back.head is back.single_tile_head) == (architecture != "context")
    assert (tmp_path / "bundle" / "single_tile_head.weights.h5").is_file() == back.needs_context


def test_the_trunk_that_comes_back_holds_the_encoders_weights(context_run: Path) -> None:
    back = bundles.load(context_run)
    tile = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(back.trunk(tile), tiny_bundle("context").trunk(tile))
    assert not back.trunk.trainable_variables


def test_a_run_folder_and_its_bundle_folder_are_the_same_model(context_run: Path) -> None:
    by_run, by_bundle = bundles.load(context_run), bundles.load(context_run / "bundle")
    for one, other in zip(by_run.head.get_weights(), by_bundle.head.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("factors", [0, FACTORS])
@pytest.mark.parametrize(
    ("architecture", "before_hidden"),
    [
        ("flatten", CONVOLUTION + 2 * 2 * 128 * HIDDEN),  # a 4 x 4 map, pooled once
        ("global", CONVOLUTION + 128 * HIDDEN),
        ("pooled", FEATURES * HIDDEN),
        ("context", 2 * FEATURES * HIDDEN),
    ],
)
def test_parameters_are_those_of_encoder_and_head(
    architecture: Architecture, before_hidden: int, factors: int
) -> None:
    head = before_hidden + HIDDEN + LAST[factors]
    assert tiny_bundle(architecture, factors=factors).n_parameters == ENCODER + head


def test_shapes_of_features() -> None:
    assert bundles.feature_shape(tiny_bundle("flatten").trunk, 64) == (8, 8, 128)
    assert bundles.feature_shape(tiny_bundle("pooled").trunk, 64) == (FEATURES,)


def test_unit_is_in_words() -> None:
    natural = panel()
    decimal = dataclasses.replace(natural, normalisation="library_size_log10", target_sum=1e6)
    assert bundles.unit(natural) == "ln(1 + counts per 10,000)"
    assert bundles.unit(decimal) == "log10(1 + counts per 1,000,000)"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.*bundle/bundle.json is missing"):
        bundles.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"bundle/bundle.json is missing"):
        bundles.load(tmp_path)


def test_a_cut_description_is_refused(broken: Path) -> None:
    text = (broken / "bundle.json").read_text()
    (broken / "bundle.json").write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=r"bundle.json is not readable"):
        bundles.load(broken)


def test_another_format_is_refused(broken: Path) -> None:
    values = json.loads((broken / "bundle.json").read_text())
    (broken / "bundle.json").write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(InputError, match=r"format 99; this version .* reads format 3"):
        bundles.load(broken)
    (broken / "bundle.json").write_text("[]")
    with pytest.raises(InputError, match="format None"):
        bundles.load(broken)


@pytest.mark.parametrize("missing", ["config", "panel", "reference", "trained_on"])
def test_a_description_with_a_part_missing_is_refused(broken: Path, missing: str) -> None:
    values = json.loads((broken / "bundle.json").read_text())
    del values[missing]
    (broken / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"bundle.json.*{missing}"):
        bundles.load(broken)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("name", ["encoder", "head", "single_tile_head"])
def test_missing_cut_and_foreign_weights_are_refused(broken: Path, name: str) -> None:
    file = broken / f"{name}.weights.h5"
    whole = file.read_bytes()
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(
        broken / "foreign.weights.h5"
    )
    foreign = (broken / "foreign.weights.h5").read_bytes()
    for content in (None, whole[: len(whole) // 2], foreign):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}.weights.h5 cannot be read"):
            bundles.load(broken)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_panel_are_refused(broken: Path) -> None:
    whole = panel()
    fewer = dataclasses.replace(
        whole, genes=whole.genes[:3], mean=whole.mean[:3], scale=whole.scale[:3]
    )
    values = json.loads((broken / "bundle.json").read_text())
    (broken / "bundle.json").write_text(json.dumps({**values, "panel": fewer.to_json()}))
    with pytest.raises(InputError, match=r"head.weights.h5 cannot be read"):
        bundles.load(broken)

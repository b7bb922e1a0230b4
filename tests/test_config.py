"""The configuration: legal values, presets, and what a typo is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from histospace_tf import config, presets
from histospace_tf.vocabulary import InputError


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_survive_json_and_carry_their_name(name: str) -> None:
    preset = presets.preset(name)
    assert preset.preset == name
    assert presets.from_json(json.loads(json.dumps(preset.to_json()))) == preset


def test_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        presets.preset("paper").seed = 3  # type: ignore[misc]


def test_paper_preset_follows_the_papers_settings() -> None:
    paper = presets.preset("paper")
    assert paper.target.normalisation == "library_size_log10"
    assert (paper.target.panel, paper.target.min_share) == ("share", 0.5)
    assert (paper.autoencoder.epochs, paper.autoencoder.batch_size) == (150, 256)
    assert (paper.regressor.epochs, paper.regressor.batch_size) == (50, 32)
    assert paper.regressor.hidden_activation == "linear"
    assert (paper.regressor.solver, paper.regressor.spot_weights) == ("adam", "equal")


def test_recommended_preset_lowers_hubers_loss_of_a_linear_head_in_context() -> None:
    head = presets.preset("recommended").regressor
    assert (head.architecture, head.hidden_units, head.dropout) == ("context", 0, 0)
    assert (head.solver, head.spot_weights) == ("descent", "sqrt_counts")
    assert (head.loss, head.huber_delta, head.epochs) == ("huber", 1.0, 10)
    assert head.uses_inner_groups  # they choose the strength of the penalty
    assert presets.from_json({"regressor": {"solver": "ridge", "loss": "mse"}})


@pytest.mark.parametrize("architecture", ["flatten", "global"])
def test_a_head_on_maps_is_trained_as_the_papers(architecture: config.Architecture) -> None:
    base, paper = presets.preset("recommended"), presets.preset("paper")
    made = presets.with_architecture(base, architecture)
    papers = dataclasses.replace(paper.regressor, architecture=architecture)
    assert made == dataclasses.replace(base, regressor=papers)
    with_own = config.changed(made, regressor__hidden_units=7)
    other: config.Architecture = "global" if architecture == "flatten" else "flatten"
    assert presets.with_architecture(with_own, other).regressor.hidden_units == 7


def test_a_head_on_vectors_is_trained_as_the_recommended_one() -> None:
    base, paper = presets.preset("recommended"), presets.preset("paper")
    assert presets.with_architecture(base, "context") is base
    pooled = presets.with_architecture(base, "pooled")
    assert pooled == config.changed(base, regressor__architecture="pooled")
    # Beside heads on maps nothing of the paper's training stays; tiles and target do.
    made = presets.with_architecture(paper, "pooled")
    assert made == dataclasses.replace(paper, regressor=pooled.regressor)


def test_the_papers_complexities_widen_with_their_blocks_unless_a_width_is_set() -> None:
    for blocks, width in ((1, 256), (2, 1024), (3, 4096)):
        made = presets.from_json({"preset": "paper", "regressor": {"conv_blocks": blocks}})
        assert made.regressor.hidden_width == width
    own = config.changed(made, regressor__hidden_units=256)
    assert own.regressor.hidden_width == 256
    assert presets.preset("recommended").regressor.hidden_width == 0


def test_the_papers_head_is_trained_for_a_fixed_number_of_epochs() -> None:
    paper, own = presets.preset("paper").regressor, presets.preset("recommended").regressor
    assert (paper.epoch_choice, paper.epochs, paper.uses_inner_groups) == ("fixed", 50, False)
    assert own.uses_inner_groups  # they choose the strength of a ridge
    inner = presets.from_json({"preset": "paper", "regressor": {"epoch_choice": "inner"}}).regressor
    assert (inner.uses_inner_groups, inner.inner_folds) == (True, 4)
    with pytest.raises(InputError, match="'fixed' or 'inner' works"):
        presets.from_json({"regressor": {"epoch_choice": "best"}})


def test_settings_left_out_keep_their_presets_value() -> None:
    made = presets.from_json({"preset": "paper", "regressor": {"epochs": 3}})
    assert made.regressor == dataclasses.replace(presets.preset("paper").regressor, epochs=3)
    assert made.target == presets.preset("paper").target


def test_changed_replaces_named_settings_and_ignores_none() -> None:
    base = presets.preset("recommended")
    made = config.changed(base, seed=7, regressor__epochs=15, autoencoder__epochs=None)
    assert (made.seed, made.regressor.epochs) == (7, 15)
    assert made.autoencoder == base.autoencoder
    assert base.seed == 0
    with pytest.raises(InputError, match=r"regressor\.epochs"):
        config.changed(base, regressor__epochs=0)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            {"regressor": {"learning_rte": 1}},
            'x.json: "regressor" has no setting "learning_rte"; did you mean "learning_rate"?',
        ),
        ({"regresor": {}}, 'there is no setting "regresor"; did you mean "regressor"?'),
        ({"zzz": 1}, 'no setting "zzz"; one of preset, seed'),
        ({"regressor": 3}, '"regressor" needs an object'),
        ({"preset": "papers"}, "no preset 'papers'; one of recommended, paper"),
        ({"seed": -1}, '"seed" is -1; 0 to'),
        ({"seed": True}, '"seed" is True; a whole number works'),
        ({"seed": 1.5}, '"seed" is 1.5; a whole number works'),
        ({"stain": {"method": "reinhardt"}}, "'vahadane' or 'macenko'"),
        ({"stain": {"cast": 1}}, '"stain.cast" is 1; true or false works'),
        (
            {"stain": {"cast": False, "white_field": True}},
            '"stain.white_field" is true; it needs "stain.cast" true, too',
        ),
        ({"autoencoder": {"variant": 4}}, '"autoencoder.variant" is 4; 1 or 2 or 3 works'),
        ({"autoencoder": {"variant": True}}, '"autoencoder.variant" is True'),
        ({"tiles": {"tile_px": 100}}, '"tiles.tile_px" is 100; a multiple of 8'),
        ({"tiles": {"mpp": "0.5"}}, "\"tiles.mpp\" is '0.5'; a number or null"),
        ({"target": {"min_share": 1.5}}, '"target.min_share" is 1.5; 0 to 1 works'),
        (
            {"regressor": {"solver": "ridge", "architecture": "flatten", "hidden_units": 8}},
            "\"regressor.architecture\" is 'flatten'; solver \"ridge\" needs 'pooled' or 'context'",
        ),
        (
            {"regressor": {"architecture": "global", "hidden_units": 8}},
            '"regressor.architecture" is \'global\'; solver "descent"',
        ),
        (
            {"regressor": {"solver": "ridge", "hidden_units": 8}},
            '"regressor.hidden_units" is 8; solver "ridge" needs 0, solver "adam" takes it',
        ),
        (
            {"regressor": {"loss": "rmse"}},
            '"regressor.loss" is \'rmse\'; solver "descent" needs \'huber\', solver "adam" takes',
        ),
        (
            {"regressor": {"dropout": 0.5}},
            '"regressor.dropout" is 0.5; solver "descent" needs 0, solver "adam" takes it',
        ),
        (
            {"regressor": {"solver": "adam"}},
            '"regressor.spot_weights" is \'sqrt_counts\'; solver "adam" needs "equal"',
        ),
        ({"regressor": {"solver": "sgd"}}, "'descent' or 'ridge' or 'adam' works"),
        ({"preset": "paper", "regressor": {"solver": "ridge"}}, "solver \"ridge\" needs 'pooled'"),
    ],
)
def test_illegal_settings_are_refused_with_what_would_work(
    values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError) as caught:
        presets.from_json(values, "x.json")
    assert complaint in str(caught.value)


def test_whole_numbers_pass_for_numbers_and_null_where_it_is_legal() -> None:
    made = presets.from_json({"tiles": {"mpp": None}, "target": {"target_sum": 1000}})
    assert made.tiles.mpp is None
    assert made.target.target_sum == 1000


def test_not_a_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"target\.target_sum"):
        presets.from_json({"target": {"target_sum": float("nan")}})


def test_load_reads_a_file_and_names_it_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"seed": 4}')
    assert presets.load(path).seed == 4
    for content, complaint in (
        ('{"sed": 4}', 'mine.json: there is no setting "sed"'),
        ("{", "mine.json' is not JSON"),
        ("[1]", "an object"),
    ):
        path.write_text(content)
        with pytest.raises(InputError) as caught:
            presets.load(path)
        assert complaint in str(caught.value)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="is not JSON"):
        presets.load(path)
    with pytest.raises(InputError, match=r"none\.json' does not exist"):
        presets.load(tmp_path / "none.json")


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(InputError, match="recommended, paper"):
        presets.preset("fast")

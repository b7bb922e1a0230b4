"""Options -> configuration, the same from the command line and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from histospace_tf import config as configuration
from histospace_tf import run_settings
from histospace_tf.vocabulary import InputError


def test_without_options_it_is_the_recommended_preset() -> None:
    assert run_settings.settings() == configuration.preset("recommended")


def test_options_replace_the_presets_values() -> None:
    found = run_settings.settings(
        preset="paper", genes=7, seed=3, pretrain_epochs=2, epochs=4, batch_size=5
    )
    assert (found.preset, found.target.genes, found.seed) == ("paper", 7, 3)
    assert (found.autoencoder.epochs, found.regressor.epochs) == (2, 4)
    assert found.regressor.batch_size == 5


@pytest.mark.parametrize("genes", [40, "40"])
def test_genes_may_be_a_number_or_a_file(genes: int | str) -> None:
    assert run_settings.settings(genes=genes).target.genes == 40
    assert run_settings.settings(genes="panel.txt").target.panel == "panel.txt"


def test_configuration_may_be_given_or_lie_in_a_file(tmp_path: Path) -> None:
    wanted = configuration.changed(configuration.preset("paper"), seed=9)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(wanted.to_json()))
    assert run_settings.settings(config=wanted) == run_settings.settings(config=file) == wanted
    with pytest.raises(InputError, match="exclude each other"):
        run_settings.settings(preset="paper", config=wanted)


def test_a_first_look_is_short() -> None:
    found = run_settings.settings(is_simulated=True, seed=2)
    assert (found.autoencoder.epochs, found.tiles.mpp, found.seed) == (1, 0.69, 2)


def test_epochs_of_a_head_without_any_are_said_to_have_no_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_settings.settings(epochs=3)
    assert "--epochs has no part" in capsys.readouterr().err

"""The presets `recommended` and `paper`, and configurations read from JSON on top of one."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from histospace_tf import legal_values
from histospace_tf.config import (
    ON_MAPS,
    Architecture,
    AutoencoderConfig,
    Config,
    RegressorConfig,
    TargetConfig,
    TileConfig,
    changed,
)
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError

PRESETS: dict[str, Config] = {
    "recommended": Config(),
    # The paper's released settings, with inputs in [0, 1] and a really frozen encoder.
    "paper": Config(
        preset="paper",
        tiles=TileConfig(tile_px=128, mpp=None),
        target=TargetConfig(
            normalisation="library_size_log10",
            panel="share",
            min_share=0.5,
            centre="none",
            scale=False,
        ),
        autoencoder=AutoencoderConfig(epochs=150, batch_size=256, learning_rate=1e-5),
        regressor=RegressorConfig(
            architecture="flatten",
            hidden_activation="linear",
            factors=0,
            solver="adam",
            spot_weights="equal",
            loss="huber",
            learning_rate=1e-4,
            decay="none",
            batch_size=32,
            epochs=50,
            epoch_choice="fixed",
            patience=10,
            symmetries=1,
        ),
    ),
}


def preset(name: str) -> Config:
    """The configuration of a preset.

    Raises:
        InputError: no preset of that name.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; one of {', '.join(PRESETS)}")
    return PRESETS[name]


def with_architecture(config: Config, architecture: Architecture) -> Config:
    """`config` with another head.

    A head of the other kind (on maps, or on vectors) takes the whole section `regressor` of the
    preset that was made for its kind: `paper` for "flatten" and "global", `recommended` for
    "pooled" and "context". What one kind is trained with does not suit the other.
    """
    if architecture == config.regressor.architecture:
        return config
    on_maps = architecture in ON_MAPS
    if on_maps != (config.regressor.architecture in ON_MAPS):
        own = PRESETS["paper" if on_maps else "recommended"]
        config = dataclasses.replace(config, regressor=own.regressor)
    return changed(config, regressor__architecture=architecture)


def from_json(values: dict[str, Any], source: str = "config.json") -> Config:
    """A configuration from JSON; settings that are left out keep their preset's value.

    Raises:
        InputError: an unknown setting (its nearest neighbour is named) or an illegal value.
    """
    base = preset(values.get("preset", "recommended"))
    return typing.cast(Config, legal_values.filled(base, values, source))


def load(path: Path) -> Config:
    """The configuration in a JSON file.

    Raises:
        InputError: the file is missing or not JSON, or as `from_json`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"configuration file {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"configuration file {str(path)!r} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"configuration file {str(path)!r}: an object {{...}} is needed")
    with reading(f"configuration file {str(path)!r}"):
        return from_json(values, path.name)

"""The one small configuration of tests."""

from __future__ import annotations

from typing import Any

from histospace_tf.config import Config, changed
from histospace_tf.presets import preset


def tiny_config(**changes: Any) -> Config:
    """The recommended preset, cut down to seconds; `changes` as `config.changed` takes them."""
    small: dict[str, Any] = {
        "tiles__tile_px": 64,
        "target__genes": 12,
        "autoencoder__epochs": 1,
        "autoencoder__tiles": 48,
        "autoencoder__tile_px": 32,
        "regressor__inner_folds": 2,
        "context__slide_tiles": 8,
    }
    return changed(preset("recommended"), **(small | changes))

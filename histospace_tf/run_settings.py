"""The options of `fit` and `evaluate`, from the command line or from Python, -> a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from histospace_tf import config as configuration
from histospace_tf.config import Architecture, Config
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError


def first_look(preset: Config) -> Config:
    """Simulated tissue is simple and finely patterned, and a first look should take minutes."""
    return configuration.changed(
        preset, autoencoder__tiles=1500, autoencoder__epochs=1, tiles__mpp=0.69
    )


def settings(
    *,
    preset: str | None = None,
    config: Config | Path | None = None,
    genes: int | str | None = None,
    architecture: Architecture | None = None,
    pretrain_epochs: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    strategy: str | None = None,
    seed: int | None = None,
    base: Callable[[Config], Config] | None = None,
) -> Config:
    """A configuration; None leaves a setting as the preset or `config` has it.

    Args:
        preset: a name of `config.PRESETS`; None: recommended.
        config: a configuration, or a JSON file with one, in place of a preset.
        genes: how many, or a file of names.
        architecture, pretrain_epochs, epochs, batch_size, strategy, seed: as in `config`.
        base: changes the preset before the other options do.
    Raises:
        InputError: preset and config at once, or an illegal value.
    """
    if preset is not None and config is not None:
        raise InputError("--preset and --config exclude each other; a file may name its preset")
    if isinstance(config, Config):
        start = config
    elif config is not None:
        start = configuration.load(config)
    else:
        start = configuration.preset(preset or "recommended")
    if isinstance(genes, str) and genes.isdigit():
        genes = int(genes)
    start = base(start) if base is not None else start
    if architecture is not None:
        start = configuration.with_architecture(start, architecture)
    if start.regressor.solver == "ridge":
        for option, value in (("epochs", epochs), ("batch-size", batch_size)):
            if value is not None:
                say(f'--{option} has no part in a head that is solved in closed form ("ridge").')
    return configuration.changed(
        start,
        seed=seed,
        strategy=strategy,
        target__genes=genes if isinstance(genes, int) else None,
        target__panel=genes if isinstance(genes, str) else None,
        autoencoder__epochs=pretrain_epochs,
        regressor__epochs=epochs,
        regressor__batch_size=batch_size,
    )

"""The options of `fit` and `evaluate`, from the command line or from Python, -> a configuration."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TypedDict, Unpack

from histospace_tf import config as configuration
from histospace_tf.config import Architecture, Config
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError


def new_run() -> Path:
    """Where a run goes that nobody names: runs/<date-time>."""
    return Path("runs") / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


class Options(TypedDict, total=False):
    """Settings that a call may name; one that is left out, or None, stays the preset's."""

    preset: str | None  # a name of `config.PRESETS`; None: recommended
    config: Config | str | Path | None  # a configuration or a JSON file, in place of a preset
    genes: int | str | Path | None  # how many, or a file of names
    orthologs: bool | None  # a file's genes of another species are taken by their orthologs
    architecture: Architecture | None
    pretrain_epochs: int | None  # of the autoencoder
    pretrain_mpp: float | None  # microns per pixel of pre-training images that do not state them
    epochs: int | None  # of the head, at most
    batch_size: int | None
    strategy: str | None
    seed: int | None


def settings(*, is_simulated: bool = False, **options: Unpack[Options]) -> Config:
    """A configuration.

    Args:
        is_simulated: without a preset or configuration, the recommended one is cut down first:
            simulated tissue is simple and finely patterned, and a first look should take minutes.
        options: see `Options`.
    Raises:
        InputError: preset and config at once, or an illegal value.
    """
    preset, config = options.get("preset"), options.get("config")
    if preset is not None and config is not None:
        raise InputError("--preset and --config exclude each other; a file may name its preset")
    if isinstance(config, Config):
        start = config
    elif config is not None:
        start = configuration.load(Path(config))
    else:
        start = configuration.preset(preset or "recommended")
    genes = options.get("genes")
    if genes is not None and str(genes).removeprefix("-").isdigit():
        genes = int(str(genes))
    if is_simulated and preset is None and config is None:
        start = configuration.changed(
            start, autoencoder__tiles=1500, autoencoder__epochs=1, tiles__mpp=0.69
        )
    architecture = options.get("architecture")
    if architecture is not None:
        start = configuration.with_architecture(start, architecture)
    epochs, batch_size = options.get("epochs"), options.get("batch_size")
    if start.regressor.solver == "ridge":
        for option, value in (("epochs", epochs), ("batch-size", batch_size)):
            if value is not None:
                say(f'--{option} has no part in a head that is solved in closed form ("ridge").')
    return configuration.changed(
        start,
        seed=options.get("seed"),
        strategy=options.get("strategy"),
        target__genes=genes if isinstance(genes, int) else None,
        target__panel=None if genes is None or isinstance(genes, int) else str(genes),
        target__orthologs=options.get("orthologs") or None,
        autoencoder__epochs=options.get("pretrain_epochs"),
        autoencoder__images_mpp=options.get("pretrain_mpp"),
        regressor__epochs=epochs,
        regressor__batch_size=batch_size,
    )

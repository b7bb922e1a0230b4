"""Options that `fit` and `evaluate` share, and the settings that they amount to."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from histospace_tf import config as configuration
from histospace_tf import run_settings
from histospace_tf.config import Config
from histospace_tf.slide_prediction.written_files import OutputFiles
from histospace_tf.vocabulary import InputError

PATH = click.Path(path_type=Path)
ARCHITECTURES = click.Choice(typing.get_args(configuration.Architecture))
_SETTINGS = (
    click.option("--architecture", type=ARCHITECTURES, help="Kind of regression head."),
    click.option(
        "--preset",
        type=click.Choice(list(configuration.PRESETS)),
        help="Settings to start from. [default: recommended]",
    ),
    click.option("--config", type=PATH, help="Settings as JSON, not a --preset."),
    click.option("--genes", help="How many genes to predict, or a file of names. [default: 250]"),
    click.option(
        "--orthologs",
        is_flag=True,
        help="Match genes of another species (human, mouse) by their one-to-one orthologs.",
    ),
    click.option(
        "--pretrain-epochs", type=int, help="Epochs of the autoencoder. [default: the preset's]"
    ),
    click.option(
        "--pretrain-mpp",
        type=float,
        help="Microns per pixel of --pretrain images that do not say (BACH: 0.42).",
    ),
    click.option("--epochs", type=int, help="Epochs of the head, at most. [default: the preset's]"),
    click.option("--batch-size", type=int, help="Spots per batch of the head, over all devices."),
    click.option(
        "--strategy",
        type=click.Choice(["auto", "single", "mirrored", "multiworker"]),
        help="Devices to train on.",
    ),
    click.option("--seed", type=int, help="Seed of every random choice. [default: 0]"),
)
_RUN = (
    click.option(
        "--pretrain", type=PATH, help="Folder of H&E images, or tfds:NAME, for the autoencoder."
    ),
    click.option(
        "--encoder", type=PATH, help="Run, or packaged model, whose trained encoder is taken over."
    ),
    click.option(
        "--labels", help="Labels of spots to hold clusters against: a column of obs, or a table."
    ),
    click.option("--layout", help="Layout of DATA, where it is not recognised."),
    click.option("--image", type=PATH, help="Full-resolution image of DATA's only section."),
    click.option("--mpp", type=float, help="Microns per pixel of DATA's images, where not known."),
    click.option(
        "--section-column",
        metavar="NAME",
        help="Column of AnnData's obs that tells sections apart. [default: by uns['spatial']]",
    ),
    click.option("--resume", is_flag=True, help="Go on from an interrupted run."),
    click.option("--force", is_flag=True, help="Replace a finished or interrupted run."),
)
# Options of trainings that `evaluate --model` takes, too.
WITH_MODEL = ("labels", "orthologs", "layout", "image", "mpp", "section_column", "force")
Command = Callable[..., Any]


def training_options(command: Command) -> Command:
    """Adds every option that trainings share; `settings` takes those of _SETTINGS."""
    for option in reversed((*_SETTINGS, *_RUN)):
        command = option(command)
    return command


def file_options(command: Command) -> Command:
    """Adds the options that say what a prediction is written as; `files` takes them."""
    for field in reversed(dataclasses.fields(OutputFiles)):
        kind = None if field.name == "show" else PATH
        command = click.option(f"--{field.name}", type=kind, help=field.metadata["help"])(command)
    return command


def files(chosen: dict[str, Any]) -> OutputFiles:
    """The options of `OutputFiles` as one value."""
    show = [gene.strip() for gene in (chosen.pop("show") or "").split(",") if gene.strip()]
    return OutputFiles(show=tuple(show), **chosen)


def named_files(given: Sequence[str]) -> dict[str, Path]:
    """The files of --predictions NAME=FILE by name.

    Raises:
        InputError: one has no name, or two have the same.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path:
            raise InputError(f"--predictions {text!r}: NAME=FILE.h5ad is needed")
        if name in found:
            raise InputError(f"--predictions names {name!r} twice")
        found[name] = Path(path)
    return found


def refuse_with_model(context: click.Context) -> None:
    """Stops where --model stands beside an option that only a training has a use for.

    Raises:
        InputError: naming those options.
    """
    useful = {"data", "out", "model", "given", "clusters", *WITH_MODEL}
    set_by_user = [
        option.opts[0]
        for option in context.command.params
        if option.name not in useful
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if set_by_user:
        raise InputError(
            f"--model scores a finished run and trains nothing; leave out {', '.join(set_by_user)}"
        )


def settings(chosen: dict[str, Any], *, is_simulated: bool = False) -> Config:
    """Takes the options of _SETTINGS out of `chosen` and makes a configuration of them.

    Args:
        chosen: options by name; what is left are the arguments of the call.
        is_simulated: as for `run_settings.settings`.
    Raises:
        InputError: as `run_settings.settings`.
    """
    taken = {name: chosen.pop(name) for name in run_settings.Options.__annotations__}
    return run_settings.settings(is_simulated=is_simulated, **taken)

"""A request's options on the command line, and what is given there as a request."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from histospace_tf import requests
from histospace_tf.request_options import (
    Names,
    OnePath,
    Option,
    OptionalPath,
    Options,
    Paths,
    PathsByName,
)
from histospace_tf.requests.export import Formats
from histospace_tf.requests.settings import ConfigOrFile
from histospace_tf.vocabulary import InputError

PATH = click.Path(path_type=Path)
_PATHS = (OnePath, OptionalPath, Paths, ConfigOrFile)
_SEVERAL = (Names, Formats, Paths, PathsByName)
_NUMBERS = {int: int, int | None: int, float: float, float | None: float}
Command = Callable[..., Any]


def asks(
    kind: type[Options], made: Callable[..., Any] | None = None
) -> Callable[[Callable[[Any], None]], Command]:
    """Makes a function of a request a function of the command line's options.

    Args:
        kind: the request's class.
        made: what makes the request of the options' values; None: `kind`.
    """

    def asking(command: Callable[[Any], None]) -> Command:
        @functools.wraps(command)
        def call(**given: Any) -> None:
            command((made or kind)(**values(kind, given)))

        for option in reversed(kind.listed()):
            _parameter(option)(call)
        return call

    return asking


def values(kind: type[Options], given: dict[str, Any]) -> dict[str, Any]:
    """What the options of a request were given, by its fields, as it takes them.

    Raises:
        InputError: NAME=PATH without a name, or with the same one twice.
    """
    taken = {}
    for option in kind.listed():
        value = given[option.name]
        if option.separator is not None:
            parts = [part.strip() for part in (value or "").split(option.separator)]
            value = tuple(part for part in parts if part)
        elif option.type == PathsByName:
            value = _by_name(value, option)
        taken[option.name] = value or option.default if option.type in _SEVERAL else value
    return taken


def _parameter(option: Option) -> Callable[[Command], Command]:
    name, flag = option.name, option.on_command_line
    is_needed = option.default is dataclasses.MISSING or option.is_required
    if not flag.startswith("-"):
        metavar = None if flag == name.upper() else flag
        return click.argument(
            name,
            type=_type_of(option),
            required=is_needed,
            nargs=-1 if option.type in _SEVERAL else 1,
            metavar=metavar,
        )
    several = option.type in _SEVERAL and option.separator is None
    text = requests.with_flags(option.flag_help or option.help)
    text += " Repeatable." * several
    if option.unset is not None:
        text += f" [default: {option.unset() if callable(option.unset) else option.unset}]"
    if option.type is bool:
        on = option.default
        return click.option(flag, name, is_flag=True, flag_value=not on, default=on, help=text)
    return click.option(
        flag,
        name,
        type=_type_of(option),
        multiple=several,
        required=is_needed,
        default=None if option.type in _SEVERAL else option.default,
        show_default=option.unset is None and isinstance(option.default, str | int),
        metavar=option.metavar,
        help=text,
    )


class _Legal(click.Choice):
    """The legal values when they are asked for: what states them need not load for other commands,
    and a predictor may be registered until then."""

    def __init__(self, option: Option) -> None:
        self._option = option
        self.case_sensitive = True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._option.legal_values or ())

    def convert(self, value: Any, parameter: click.Parameter | None, context: Any) -> Any:
        form = self._option.or_form
        if form is not None and str(value).startswith(form.partition(":")[0] + ":"):
            return value
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter as error:
            if form is None:
                raise
            said = f"{error.message.removesuffix('.')}, and not {form}."
            raise click.BadParameter(said, context, parameter) from error

    def get_metavar(self, param: click.Parameter, *context: Any, **named: Any) -> str | None:
        # click 8.1 has no context here; later ones name it.
        shown = super().get_metavar(param, *context, **named)
        form = self._option.or_form
        return shown if form is None or shown is None else f"{shown[:-1]}|{form}{shown[-1]}"


def _type_of(option: Option) -> Any:
    if option.legal is not None or option.legal_values is not None:
        return _Legal(option)
    return PATH if option.type in _PATHS else _NUMBERS.get(option.type)


def _by_name(given: Sequence[str], option: Option) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path:
            raise InputError(f"`{option.name}` {text!r}: {option.metavar} is needed")
        if name in files:
            raise InputError(f"`{option.name}` names {name!r} twice")
        files[name] = Path(path)
    return files

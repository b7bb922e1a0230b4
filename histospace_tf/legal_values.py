"""Whether settings, from Python or JSON, hold what their annotations allow.

An annotation is int, float, bool, str, a Literal, or one of these or None; a number's bounds stand
beside it: Annotated[int, Range(1, 100)].
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Annotated, Any, Literal

from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True)
class Range:
    """The lowest and the highest legal number."""

    low: float
    high: float


def check(settings: Any, prefix: str = "") -> None:
    """Refuses values of a dataclass, and of those in it, that their annotations do not allow.

    Args:
        prefix: what stands before a setting's name in a message.
    Raises:
        InputError: naming the setting, its value and what works.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, name, hint = getattr(settings, field.name), prefix + field.name, hints[field.name]
        bounds = None
        if typing.get_origin(hint) is Annotated:
            hint, bounds = typing.get_args(hint)
        if dataclasses.is_dataclass(value):
            check(value, f"{field.name}.")
        elif not is_legal(value, hint):
            raise InputError(f'"{name}" is {value!r}; {legal_words(hint)} works')
        elif bounds is not None and value is not None and not bounds.low <= value <= bounds.high:
            raise InputError(f'"{name}" is {value!r}; {bounds.low:g} to {bounds.high:g} works')


def filled(base: Any, values: dict[str, Any], source: str, where: str = "") -> Any:
    """A copy of a dataclass of settings with those replaced that JSON states.

    Args:
        values: of the JSON object, by setting; an object for settings that are a dataclass.
        source: the file, for messages; where: in which of its objects, "" for the outermost.
    Raises:
        InputError: an unknown setting (its nearest neighbour is named), or a value that the
            dataclass refuses.
    """
    names = [field.name for field in dataclasses.fields(base)]
    new = {}
    for name, value in values.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; one of {', '.join(names)}"
            at = f'"{where}" has' if where else "there is"
            raise InputError(f'{source}: {at} no setting "{name}"{hint}')
        current = getattr(base, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise InputError(f'{source}: "{name}" needs an object {{...}}, not {value!r}')
            value = filled(current, value, source, name)
        new[name] = value
    try:
        return dataclasses.replace(base, **new)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def is_legal(value: Any, hint: Any) -> bool:
    """Whether a value is one that an annotation allows, ranges aside."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return any(value == legal and type(value) is type(legal) for legal in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return any(is_legal(value, part) for part in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def legal_words(hint: Any) -> str:
    """The values that an annotation allows, in words."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " or ".join(repr(legal) for legal in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(legal_words(part) for part in typing.get_args(hint))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(
        hint, "null"
    )

"""How a request states an option: one field of a frozen dataclass, with all there is to say of it.

The command line's options, the Python functions' signatures and docstrings, what `--resume`
compares and the record in a manifest are read from these fields. In a help text and in an error an
option stands as its argument between backquotes (`mpp`); `with_flags` makes that "--mpp".
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

Accepted = TypeVar("Accepted", contravariant=True)
Kept = TypeVar("Kept", covariant=True)
Request = TypeVar("Request")
_WIDTH = 100  # of a docstring's lines


def path_or_none(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def unchanged(value: Any) -> Any:
    return value


def paths(values: Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(Path(value) for value in values)


def paths_by_name(values: Mapping[str, str | Path] | None) -> dict[str, Path]:
    return {name: Path(value) for name, value in (values or {}).items()}


# What a field accepts and what it keeps: for mypy a descriptor, whose __set__ is what a dataclass'
# constructor takes and whose __get__ is what an attribute gives.
if TYPE_CHECKING:

    class Given(Generic[Accepted, Kept]):
        def __get__(self, request: object, owner: type | None = None) -> Kept: ...
        def __set__(self, request: object, value: Accepted) -> None: ...

    OnePath = Given[str | Path, Path]
    OptionalPath = Given[str | Path | None, Path | None]
    ResolvedPath = Given[str | Path | None, Path]
    RunOrName = Given[str | Path, str]
    OptionalRunOrName = Given[str | Path | None, str | None]
    Names = Given[Sequence[str], tuple[str, ...]]
    Paths = Given[Sequence[str | Path], tuple[Path, ...]]
    PathsByName = Given[Mapping[str, str | Path] | None, dict[str, Path]]
else:
    OnePath = Annotated[str | Path, Path]
    OptionalPath = ResolvedPath = Annotated[str | Path | None, path_or_none]
    RunOrName = Annotated[str | Path, str]
    OptionalRunOrName = Annotated[str | Path | None, text_or_none]
    Names = Annotated[Sequence[str], tuple]
    Paths = Annotated[Sequence[str | Path], paths]
    PathsByName = Annotated[Mapping[str, str | Path] | None, paths_by_name]


def run_of_model(asked: Any) -> Path:
    """The run folder that a request's `model` means.

    Raises:
        InputError: neither a folder nor a packaged model's name.
    """
    from histospace_tf import packaged

    return packaged.run_folder(asked.model)


def legal_values_of(setting: str) -> list[str] | None:
    """The values that a setting of `config.Config` may have, where it lists them."""
    from histospace_tf import config  # with NumPy

    holder: Any = config.Config
    *sections, name = setting.split("__")
    for section in sections:
        holder = typing.get_type_hints(holder)[section]
    hint = typing.get_type_hints(holder)[name]
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else None


@dataclasses.dataclass(frozen=True)
class Option:
    """What a field says of its option.

    help: what it is for, a sentence or two.
    unset: what holds where it is not given, if the default alone does not say that.
    legal: the values that it may have; None: see `setting`, else any of its type.
    unit: of a number.
    flag: on the command line, where it is not the field's name; one without dashes is an argument.
    flag_help: there, where the flag turns off what is on by default.
    metavar: the value there. separator: of several values there; None: the flag is repeated.
    is_required: on the command line; a Python function may do without.
    setting: of `config.Config` that it replaces, as `config.changed` names it.
    resumed: value -> what a resumed run must have in common with the one that was cut off; None:
        it may differ.
    name, type, default: the field's own.
    """

    help: str
    unset: str | Callable[[], str] | None = None
    legal: Sequence[str] | Callable[[], Sequence[str]] | None = None
    unit: str | None = None
    flag: str | None = None
    flag_help: str | None = None
    metavar: str | None = None
    separator: str | None = None
    is_required: bool = False
    setting: str | None = None
    resumed: Callable[[Any], Any] | None = None
    name: str = ""
    type: Any = None
    default: Any = None
    is_positional: bool = False

    @property
    def on_command_line(self) -> str:
        """--flag, or ARGUMENT."""
        return self.flag or f"--{self.name.replace('_', '-')}"

    @property
    def is_argument(self) -> bool:
        """Whether it is given by its place on the command line."""
        return not self.on_command_line.startswith("-")

    @property
    def legal_values(self) -> list[str] | None:
        if self.legal is not None:
            return list(self.legal() if callable(self.legal) else self.legal)
        return None if self.setting is None else legal_values_of(self.setting)

    @property
    def unset_words(self) -> str | None:
        return self.unset() if callable(self.unset) else self.unset


def option(
    *,
    help: str,
    default: Any = dataclasses.MISSING,
    kw_only: bool = True,
    **says: Any,
) -> Any:
    """A field of a request.

    Args:
        help: as of `Option`.
        default: none: the option must be given.
        kw_only: False: a Python function takes it by its place, too.
        says: further fields of `Option`.
    """
    metadata = {"option": Option(help=help, **says)}
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


def again(kind: type, name: str) -> Any:
    """The same field as another request's."""
    (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
    return dataclasses.field(default=field.default, kw_only=True, metadata=field.metadata)


# mypy forgets what inherited fields of a frozen class keep, so that it is told nothing of "frozen".
@typing.dataclass_transform(kw_only_default=True, field_specifiers=(option,))
def request(kind: type[Request]) -> type[Request]:
    """Makes a frozen dataclass of a class of options.

    Options of its base classes follow its own, or stand where it says `_shared: ClassVar[None]`.
    """
    if "__post_init__" not in kind.__dict__:
        kind.__post_init__ = keep  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(kind)


def keep(stated: object) -> None:
    """Turns what a request was given into what it keeps."""
    for each in options(type(stated)):
        if hasattr(each.type, "__metadata__"):
            (kept,) = each.type.__metadata__
            object.__setattr__(stated, each.name, kept(getattr(stated, each.name)))


def options(kind: type) -> tuple[Option, ...]:
    """The options of a request, in the order in which they are listed."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return tuple(
        dataclasses.replace(
            fields[name].metadata["option"],
            name=name,
            type=hints[name],
            default=fields[name].default,
            is_positional=not fields[name].kw_only,
        )
        for name in _listed(kind)
    )


def _listed(kind: type) -> list[str]:
    own = list(inspect.get_annotations(kind))
    shared = [name for base in kind.__bases__ if base is not object for name in _listed(base)]
    at = own.index("_shared") if "_shared" in own else len(own)
    return [*own[:at], *shared, *own[at + 1 :]]


def resumed(stated: Any) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was cut off, by argument."""
    return {
        each.name: each.resumed(getattr(stated, each.name))
        for each in options(type(stated))
        if each.resumed is not None
    }


def record(stated: Any) -> dict[str, Any]:
    """A request as JSON holds it, for a manifest."""
    return {each.name: _plain(getattr(stated, each.name)) for each in options(type(stated))}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.to_json() if hasattr(value, "to_json") else value


def signature(kind: type) -> inspect.Signature:
    """The arguments of a Python function that takes a request's options."""
    return inspect.Signature(
        [
            inspect.Parameter(
                each.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if each.is_positional
                else inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if each.default is dataclasses.MISSING
                else each.default,
                annotation=typing.get_args(each.type)[0]
                if hasattr(each.type, "__metadata__")
                else each.type,
            )
            for each in options(kind)
        ]
    )


def table(kind: type) -> str:
    """The rows of "Args:" in the docstring of a Python function that takes a request's options."""
    rows = []
    for each in options(kind):
        words = f"{each.name}: {each.help}"
        if each.unit is not None:
            words += f" In {each.unit}."
        if each.legal is not None and not callable(each.legal):
            words += f" One of {', '.join(map(repr, each.legal))}."
        if isinstance(each.unset, str):
            words += f" Default: {each.unset}."
        rows.append(
            textwrap.fill(words, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12)
        )
    return "\n".join(rows)


def with_flags(text: str, kinds: Sequence[type]) -> str:
    """`text` for the command line: arguments between backquotes become flags."""
    flags = {each.name: each.on_command_line for kind in reversed(kinds) for each in options(kind)}
    return re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[0]), text)

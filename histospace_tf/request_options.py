"""How an option is stated: as a field of a frozen dataclass, with all there is to say of it.

The command line's options, the Python functions' arguments and docstrings, what `--resume` compares
and a manifest's record are read from these fields. In a help text and in an error an option stands
as its argument between backquotes (`mpp`), of which `requests.with_flags` makes "--mpp". Nothing
heavy is imported here: Python's functions have their signatures when the package is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

Accepted = TypeVar("Accepted", contravariant=True)
Kept = TypeVar("Kept", covariant=True)


def unchanged(value: Any) -> Any:
    return value


def path_or_none(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def texts(values: Sequence[object]) -> list[str]:
    return [str(value) for value in values]


def paths(values: Sequence[str | Path] | Path) -> tuple[Path, ...]:
    """One path may stand without a list around it."""
    return tuple(Path(v) for v in ([values] if isinstance(values, str | Path) else values))


def paths_by_name(values: Mapping[str, str | Path] | None) -> dict[str, Path]:
    return {name: Path(value) for name, value in (values or {}).items()}


# What a field accepts and what it keeps. For mypy a descriptor: its __set__ takes what the
# constructor takes, its __get__ gives what the attribute is.
if TYPE_CHECKING:

    class Given(Generic[Accepted, Kept]):
        def __get__(self, stated: object, owner: type | None = None) -> Kept: ...
        def __set__(self, stated: object, value: Accepted) -> None: ...

    OnePath = Given[str | Path, Path]
    OptionalPath = Given[str | Path | None, Path | None]
    RunOrName = Given[str | Path, str]
    OptionalRunOrName = Given[str | Path | None, str | None]
    Names = Given[Sequence[str], tuple[str, ...]]
    Paths = Given[Sequence[str | Path] | Path, tuple[Path, ...]]
    PathsByName = Given[Mapping[str, str | Path] | None, dict[str, Path]]
else:
    OnePath = Annotated[str | Path, Path]
    OptionalPath = Annotated[str | Path | None, path_or_none]
    RunOrName = Annotated[str | Path, str]
    OptionalRunOrName = Annotated[str | Path | None, text_or_none]
    Names = Annotated[Sequence[str], tuple]
    Paths = Annotated[Sequence[str | Path] | Path, paths]
    PathsByName = Annotated[Mapping[str, str | Path] | None, paths_by_name]


@dataclasses.dataclass(frozen=True)
class Option:
    """What a field says of its option.

    help: what it is for, a sentence or two.
    unset: what holds where it is not given, if the default alone does not say that.
    legal: the values that it may have; None: any of its type, or those of `setting`.
    or_form: PREFIX:WHAT that may stand in place of one of them, where a further one is spelt out.
    unit: of a number.
    flag: on the command line, where it is not the field's name; one without dashes is an argument.
    flag_help: there, where it reads otherwise.
    metavar: the value there. separator: of several values there; None: the flag is repeated.
    is_required: on the command line; a Python function may do without.
    setting: of `config.Config` that it replaces, as `config.changed` names it.
    resumed: value -> what a resumed run must have in common with the one that was cut off; None:
        it may differ.
    name, type, default, is_positional: the field's own.
    """

    help: str
    unset: str | Callable[[], str] | None = None
    legal: Sequence[str] | Callable[[], Sequence[str]] | None = None
    or_form: str | None = None
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
    def legal_values(self) -> list[str] | None:
        if self.legal is not None:
            return list(self.legal() if callable(self.legal) else self.legal)
        return None if self.setting is None else legal_values_of(self.setting)


def option(
    *, help: str, default: Any = dataclasses.MISSING, kw_only: bool = True, **says: Any
) -> Any:
    """A field of `Options`.

    Args:
        help: as of `Option`.
        default: none: the option must be given.
        kw_only: False: a Python function takes it by its place, too.
        says: further fields of `Option`.
    """
    metadata = {"option": Option(help=help, **says)}
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


# mypy forgets what inherited fields of a frozen class keep, so that it is told nothing of "frozen".
@typing.dataclass_transform(kw_only_default=True, field_specifiers=(option,))
class Options:
    """A frozen dataclass of options: of its own, then those of its base classes.

    Where it says `_shared: ClassVar[None]`, those of its base classes are listed there.
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for each in self.listed():
            if hasattr(each.type, "__metadata__"):
                (kept,) = each.type.__metadata__
                object.__setattr__(self, each.name, kept(getattr(self, each.name)))

    @classmethod
    def listed(cls) -> list[Option]:
        """The options, in the order in which they are listed."""
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return [
            dataclasses.replace(
                fields[name].metadata["option"],
                name=name,
                type=hints[name],
                default=fields[name].default,
                is_positional=not fields[name].kw_only,
            )
            for name in _names(cls)
        ]

    def resumed(self, *, by_flag: bool = False) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was cut off, by argument."""
        return {
            each.on_command_line if by_flag else each.name: each.resumed(getattr(self, each.name))
            for each in self.listed()
            if each.resumed is not None
        }

    def record(self) -> dict[str, Any]:
        """All options as JSON holds them, for a manifest."""
        return {each.name: _plain(getattr(self, each.name)) for each in self.listed()}


def again(kind: type[Options], name: str) -> Any:
    """The same field as another class's."""
    (field,) = (each for each in dataclasses.fields(kind) if each.name == name)  # type: ignore[arg-type]
    return dataclasses.field(default=field.default, kw_only=True, metadata=field.metadata)


def useful_to(
    kind: type[Options], stated: type[Options], given: dict[str, Any], why: str
) -> dict[str, Any]:
    """Of the arguments of one request, those that another takes.

    Args:
        kind: the other. stated: whose arguments were given.
    Raises:
        InputError: an argument without a use there was given; it begins with `why`.
    """
    useful = {each.name for each in kind.listed()}
    others = {each.name: each.default for each in stated.listed() if each.name not in useful}
    unused = [
        f"`{name}`"
        for name, default in others.items()
        if given.get(name, default) not in (default, [])
    ]
    if unused:
        from histospace_tf.vocabulary import InputError

        raise InputError(f"{why}; leave out {', '.join(unused)}")
    return {name: value for name, value in given.items() if name not in others}


def legal_values_of(setting: str) -> list[str] | None:
    """The values that a setting of `config.Config` may have, where it lists them."""
    from histospace_tf import config  # with NumPy

    holder: Any = config.Config
    *sections, name = setting.split("__")
    for section in sections:
        holder = typing.get_type_hints(holder)[section]
    hint = typing.get_type_hints(holder)[name]
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else None


def _names(kind: type) -> list[str]:
    own = list(inspect.get_annotations(kind))
    bases = [base for base in kind.__bases__ if base is not object]
    shared = [name for base in bases for name in _names(base) if name not in own]
    at = own.index("_shared") if "_shared" in own else len(own)
    return [*own[:at], *shared, *own[at + 1 :]]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.to_json() if hasattr(value, "to_json") else value

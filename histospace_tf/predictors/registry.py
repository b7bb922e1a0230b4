"""The registry: every predictor, in the order of tables, and how it is shown.

`register` adds one; `evaluate --compare` then trains it on the same folds, and tables, figures,
report and model card show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from histospace_tf.predictors import (
    baselines,
    encoder_probe,
    marks,
    mean_feature_ridge,
    ours,
    paper,
    patch_heads,
    peers,
    probe,
)
from histospace_tf.predictors.predictor import KINDS, PURPLE, Fitted, Predictor
from histospace_tf.vocabulary import InputError, repeats

FOOTNOTE = "* reads the held-out section's own expression: a mark to compare with, no predictor"
# Of predictors without a marker of their own: the first that no other in the figure has.
_MARKERS = ("P", "*", "<", ">", "p", "h", "H", "d", "8", "1", "2", "3")


class FromFile(Predictor):
    """Predictions that somebody brings: they stand in tables under the name that the user gives."""

    name = label = "predictions of a file"

    def fit(self, *_: object) -> Fitted:
        """Never: `external_predictions` reads them."""
        raise InputError("predictions from a file are read, not fitted")


FROM_FILE = FromFile()
_ENTRIES: dict[str, Predictor] = {
    entry.name: entry
    for entry in (
        ours.Model(),
        ours.SingleTile(),
        paper.PaperHead(),
        *(ours.Head(architecture) for architecture in ours.Head.notes),
        *peers.ENTRIES,
        mean_feature_ridge.MeanFeatureRidge(),
        baselines.GeneMean(),
        baselines.PatientMean(),
        baselines.ColourRidge(),
        marks.NeighbourOracle(),
        marks.ResamplingCeiling(),
    )
}
# What is fitted on features that a user names, by how its name begins.
_ON_FEATURES: dict[str, Callable[[str], Predictor]] = {
    probe.PREFIX: probe.Probe,
    patch_heads.PREFIX: patch_heads.PatchHead,
}


def register(predictor: Predictor) -> None:
    """Adds a predictor to the registry.

    Raises:
        InputError: its name is taken or cannot be a column, nothing would ever fit it, or its kind
            or its place in figures is not whole.
    """
    name = predictor.name
    refuse_name(name)
    if name in _ENTRIES:
        raise InputError(f"there is a predictor {name!r} already")
    if predictor.kind not in KINDS:
        raise InputError(f"predictor {name!r}: kind {predictor.kind!r}; one of {', '.join(KINDS)}")
    if predictor.kind == "other" and not predictor.is_compared:
        raise InputError(f"predictor {name!r}: without is_compared = True nothing ever fits it")
    if (predictor.colour is None) != (predictor.marker is None):
        raise InputError(f"predictor {name!r}: colour and marker go together")
    _ENTRIES[predictor.name] = predictor


def unregister(name: str) -> None:
    """Takes a predictor out of the registry again."""
    del _ENTRIES[name]


def entries() -> tuple[Predictor, ...]:
    """All predictors, in the order of tables."""
    return tuple(sorted(_ENTRIES.values(), key=lambda entry: KINDS.index(entry.kind)))


def entry(name: str) -> Predictor | None:
    """The predictor of that name; None for one that comes from a file."""
    if name not in _ENTRIES:
        for prefix, shown in _ON_FEATURES.items():
            if name.startswith(prefix):
                return shown(name.removeprefix(prefix))
    return _ENTRIES.get(name)


def always() -> tuple[Predictor, ...]:
    """The predictors of every fold, in the order of tables."""
    return tuple(entry for entry in entries() if entry.kind != "other")


def compared(names: Sequence[str]) -> tuple[Predictor, ...]:
    """The predictors that `--compare` names, in the order of tables, probes after the others.

    Raises:
        InputError: an unknown name, an encoder to probe that is not as `encoder_probe.named` wants
            it, or two of one name.
    """
    known = comparable()
    unknown = [name for name in names if name not in known and not name.startswith(probe.PREFIX)]
    if unknown:
        works = ", ".join((*known, encoder_probe.FORM))
        raise InputError(f"`compare` {unknown[0]!r}: one of {works} works")
    texts = dict.fromkeys(name for name in names if name not in known)
    probes = [encoder_probe.named(text) for text in texts]
    twice = repeats([one.name for one in probes])
    if twice:
        raise InputError(f"`compare` has two {twice[0]!r}; tell them apart with name=NAME")
    return (*(one for one in entries() if one.name in names), *probes)


def of_fold(compare: Sequence[Predictor] = ()) -> tuple[Predictor, ...]:
    """The predictors of every fold and those to compare with, in the order of tables."""
    return tuple(sorted((*always(), *compare), key=lambda one: KINDS.index(one.kind)))


def comparable() -> tuple[str, ...]:
    """Names that `--compare` knows."""
    return tuple(entry.name for entry in entries() if entry.is_compared)


def refuse_name(name: str) -> None:
    """Refuses a name that no predictor from elsewhere can have.

    Raises:
        InputError: it is empty, holds a slash (as no layer's name in a file can), is a row of every
            table, or a column's, or begins as those do that are fitted on named features.
    """
    if not name:
        raise InputError("a predictor needs a name")
    if "/" in name:
        raise InputError(f"predictor {name!r}: a name without '/' is needed")
    if name in (*(one.name for one in always()), "measured", "gene", "section"):
        raise InputError(f"predictor {name!r}: that name is taken; choose another")
    for prefix in _ON_FEATURES:
        if name.startswith(prefix):
            raise InputError(
                f"predictor {name!r}: names that begin with {prefix!r} are those of what is fitted "
                "here on somebody's features; choose another"
            )


def in_order(names: Iterable[str]) -> list[str]:
    """Names of predictors in the order of tables; those from files stand with the compared ones."""
    kinds = {name: kind(name) for name in dict.fromkeys(names)}
    order = [entry.name for entry in always()]
    return sorted(
        kinds,
        key=lambda name: (
            KINDS.index(kinds[name]),
            order.index(name) if name in order else 0,
        ),
    )


def row_names(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of a table's rows: those of every fold, and the others that some block has."""
    others = dict.fromkeys(name for rows in blocks for name in rows)
    return in_order([*(entry.name for entry in always()), *others])


def kind(name: str) -> str:
    """Kind of a predictor; of one that comes from a file "other"."""
    known = entry(name)
    return "other" if known is None else known.kind


def label(name: str, *, note: str = "") -> str:
    """A predictor's name for a reader; "*" on those that read the held-out expression."""
    known = entry(name)
    words = (name if known is None else known.label) + (f" ({note})" if note else "")
    return f"{words} *" if known is not None and known.reads_held_out else words


def style(name: str, names: Sequence[str]) -> tuple[str, str]:
    """(colour, marker) of a predictor among those of a figure."""
    own = {n: (e.colour, e.marker) for n in names if (e := entry(n)) and e.colour and e.marker}
    if name in own:
        return own[name]
    free = [marker for marker in _MARKERS if (PURPLE, marker) not in own.values()]
    others = [n for n in names if n not in own]
    return PURPLE, free[others.index(name) % len(free)]

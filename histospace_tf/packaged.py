"""Trained models that come with the package: models/pretrained/NAME/, the core of a run folder.

bundle/          all that predict and export need
baselines.npz    the training side's, to score the model on other data
genes.csv        held-out r of every gene, and whether to trust it
intervals.csv    between which values it lies
evaluations.json scores on patients and sections that were held out
MODEL_CARD.md    data, scores, use and limits
manifest.json    versions, seed, checksums
tflite/          a quantised file for devices
"""

from __future__ import annotations

from pathlib import Path

import histospace_tf
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named, printable

FOLDER = Path(histospace_tf.__file__).parent / "models" / "pretrained"
DEFAULT = "breast-her2st"


def names() -> list[str]:
    """Names of the packaged models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/bundle"))


def run_folder(model: str | Path | None) -> Path:
    """The run folder that a user means: a path, a packaged model's name, or None: the default.

    What exists as a path is taken as one. A default is said.

    Raises:
        InputError: neither a path nor a name.
    """
    if model is None:
        say(
            f"No `model`: the packaged model {DEFAULT!r} is taken (`histospace-tf models "
            f"{DEFAULT}` says what it is good for). Research only."
        )
        return FOLDER / DEFAULT
    path = Path(model)
    if path.exists():
        return path
    if str(model) in names():
        return FOLDER / str(model)
    raise InputError(
        f"{str(model)!r} is no folder that `histospace-tf fit --out RUN` wrote, nor a packaged "
        f"model; packaged are {named(names())}"
    )


def name_of(run: Path) -> str:
    """What to call a model in records: a packaged one's name, another's path."""
    return printable(run.name if run.parent == FOLDER else str(run))


def card(name: str) -> str:
    """A packaged model's card, as Markdown.

    Raises:
        InputError: no packaged model of that name.
    """
    if name not in names():
        raise InputError(f"no packaged model {name!r}; there are {named(names())}")
    return (FOLDER / name / "MODEL_CARD.md").read_text(encoding="utf-8")

"""The state of a training in one file of a folder: replaced whole, or left as it was."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf.outputs import whole_file
from histospace_tf.vocabulary import InputError

FILE = "state.npz"


@dataclasses.dataclass
class Progress:
    """How far a training has come, beside its variables.

    history: one row per epoch.
    best_epoch, best_value, best_weights: of the monitored column so far; 0, None and empty where
        nothing was monitored.
    stopped: it ended before its last epoch.
    """

    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    best_weights: list[np.ndarray] = dataclasses.field(default_factory=list)
    stopped: bool = False


def save(
    folder: Path, variables: Mapping[str, Sequence[keras.Variable]], progress: Progress
) -> None:
    """Writes the values of variables, by name of their group, and the progress."""
    record = dataclasses.asdict(progress)
    groups = {**variables, "best": record.pop("best_weights")}
    arrays: dict[str, Any] = {
        f"{name}/{i}": np.asarray(value)
        for name, group in groups.items()
        for i, value in enumerate(group)
    }
    with whole_file(folder / FILE) as draft:
        np.savez(draft, record=np.asarray(json.dumps(record)), **arrays)


def restore(folder: Path, variables: Mapping[str, Sequence[keras.Variable]]) -> Progress | None:
    """Sets the variables to what `save` wrote; None, and nothing set, where nothing was written.

    Raises:
        InputError: the file is damaged, or holds other variables; nothing is set.
    """
    path = folder / FILE
    arrays: dict[str, list[np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(str(file["record"]))
            for key in file.files:  # in the order of writing
                if key != "record":
                    arrays.setdefault(key.rpartition("/")[0], []).append(file[key])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"checkpoint {str(path)!r} cannot be read ({error}); without `resume` training starts "
            "over"
        ) from None
    for name, group in variables.items():
        _refuse_misfit(path, name, group, arrays.get(name, []))
    for name, group in variables.items():
        assign(group, arrays.get(name, []))
    return Progress(**record, best_weights=arrays.get("best", []))


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Sets variables to values, one each."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _refuse_misfit(
    path: Path, name: str, variables: Sequence[keras.Variable], values: Sequence[np.ndarray]
) -> None:
    where = f"checkpoint {str(path)!r} is of another training"
    advice = "resume with the settings that it was written with, or start over without `resume`"
    if len(values) != len(variables):
        raise InputError(f"{where}: {len(values)} {name} variables, not {len(variables)}; {advice}")
    for value, variable in zip(values, variables, strict=True):
        if value.shape != tuple(variable.shape):
            raise InputError(
                f"{where}: {variable.path} of shape {value.shape}, not {tuple(variable.shape)}; "
                f"{advice}"
            )

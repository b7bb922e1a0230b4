"""RUN/baselines.npz: what baselines and marks of a run learned, to be scored on other data.

Nothing is fitted again there. Our own heads are in the run's bundle.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histospace_tf import outputs
from histospace_tf.outputs import say
from histospace_tf.predictors import registry
from histospace_tf.predictors.baselines import GeneMean
from histospace_tf.predictors.predictor import Fitted
from histospace_tf.vocabulary import InputError, named

FILE = "baselines.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class SavedBaselines:
    """genes: that they predict, in order; fitted: by name."""

    genes: tuple[str, ...]
    fitted: dict[str, Fitted]


def save(fitted: Mapping[str, Fitted], genes: Sequence[str], path: Path) -> None:
    """Writes baselines.npz, whole or not at all.

    Args:
        fitted: by name; those without `arrays` are kept elsewhere.
        genes: that they predict, in order.
    Raises:
        InputError: two keep arrays of the same name.
    """
    values: dict[str, Any] = {"genes": np.array(list(genes), str)}
    for entry in registry.always():
        arrays = fitted[entry.name].arrays() if entry.name in fitted else {}
        if taken := set(values) & set(arrays):
            raise InputError(f"predictor {entry.name!r}: array {min(taken)!r} is another's")
        values |= arrays
    with outputs.whole_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **values)


def load(run: Path) -> SavedBaselines:
    """The baselines and marks of a run folder, or of the file itself.

    Raises:
        InputError: the run has none (an older version wrote it), or the file is not whole.
    """
    path = run / FILE if run.is_dir() else run
    again = "run `histospace-tf fit` again"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        fitted, absent = {}, []
        for entry in registry.always():
            try:
                fitted[entry.name] = entry.load(arrays)
            except KeyError:  # of a later version; the first baseline is in every file
                if entry.name == GeneMean.name:
                    raise
                absent.append(entry.name)
        genes = tuple(str(gene) for gene in arrays["genes"])
    except FileNotFoundError:
        raise InputError(
            f"{str(run)!r} holds no {FILE}, so its baselines cannot be scored on other data: the "
            f"run is incomplete, or an older version wrote it; {again}"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not readable: {error}; {again}") from None
    if absent:
        say(f"{path} holds no {named(absent)}, which an older version did not have: no such row.")
    return SavedBaselines(genes, {name: one for name, one in fitted.items() if one is not None})

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
from histospace_tf.predictors import registry
from histospace_tf.predictors.predictor import Fitted
from histospace_tf.vocabulary import InputError

FILE = "baselines.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """genes: that they predict, in order; fitted: by name."""

    genes: tuple[str, ...]
    fitted: dict[str, Fitted]


def save(fitted: Mapping[str, Fitted], genes: Sequence[str], path: Path) -> None:
    """Writes baselines.npz, whole or not at all.

    Args:
        fitted: by name; those without `arrays` are kept elsewhere.
        genes: that they predict, in order.
    """
    values: dict[str, Any] = {"genes": np.array(list(genes), str)}
    for one in fitted.values():
        values |= one.arrays()
    with outputs.whole_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **values)


def load(run: Path) -> Kept:
    """The baselines and marks of a run folder, or of the file itself.

    Raises:
        InputError: the run has none (an older version wrote it), or the file is not whole.
    """
    path = run / FILE if run.is_dir() else run
    again = "run `histospace-tf fit` again"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        fitted = {entry.name: entry.load(arrays) for entry in registry.always()}
        genes = tuple(str(gene) for gene in arrays["genes"])
    except FileNotFoundError:
        raise InputError(
            f"{str(run)!r} holds no {FILE}, so its baselines cannot be scored on other data: the "
            f"run is incomplete, or an older version wrote it; {again}"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not readable: {error}; {again}") from None
    return Kept(genes, {name: one for name, one in fitted.items() if one is not None})

"""Outputs appear whole or not at all: written under a draft name, then renamed."""

from __future__ import annotations

import contextlib
import io
import math
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.vocabulary import InputError, printable

if TYPE_CHECKING:
    import anndata
    import pandas as pd

# How `say` puts a line: on the command line, flags stand for arguments.
WORDING: ContextVar[Callable[[str], str]] = ContextVar("wording", default=str)


def refuse_finished(path: Path, *, force: bool) -> None:
    """Stops before any work is done where a finished output would be overwritten.

    Raises:
        InputError: `path` exists (a folder: and is not empty) and `force` is not set.
    """
    if force or not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise InputError(f"{str(path)!r} exists already; name another output or pass `force`")


def partial(out: Path) -> Path:
    """Where a long run's output `out` is built until it is finished."""
    return out.with_name(f"{out.name}.partial")


def file_name(name: str) -> str:
    """A gene's or section's name as a part of a file name, without slashes and blanks."""
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "_"


def refuse_interrupted(out: Path, *, resume: bool, force: bool) -> None:
    """Stops where an interrupted run would be deleted unasked.

    Raises:
        InputError: `partial(out)` exists and neither `resume` nor `force` is set.
    """
    work = partial(out)
    if work.exists() and not resume and not force:
        raise InputError(
            f"an interrupted run stands in {str(work)!r}: "
            "`resume` goes on with it, `force` throws it away"
        )


def refuse_changed(before: Mapping[str, Any], started: Mapping[str, Any], work: Path) -> None:
    """Refuses to go on with what was started otherwise.

    Args:
        before, started: what must be alike, as it was and as it is. work: where it lies.
    Raises:
        InputError: naming what differs.
    """
    changed = [name for name in started if before.get(name) != started[name]]
    if changed:
        raise InputError(
            f"the interrupted run in {str(work)!r} had another {', '.join(changed)}; "
            "resume it with the settings that it was started with, or pass `force`"
        )


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yields a folder beside `path` for drafts of it, which is deleted in any case.

    Its name says which process made it: what a killed one left behind is deleted when the same
    output is written again on the same machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name[:40]}.{platform.node()}-"
    for left in path.parent.iterdir():
        process = left.name.removeprefix(name).partition(".")[0]
        if left.name.startswith(name) and process.isdigit() and _has_ended(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}{os.getpid()}.", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_ended(process: int) -> bool:
    """Whether no process of this number runs; never on Windows, where asking would end it."""
    if os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is somebody else's
        return False
    return False


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; on success it becomes `path`, on any error it is removed."""
    with scratch_folder(path) as folder:
        draft = folder / path.name
        yield draft
        os.replace(draft, path)


@contextlib.contextmanager
def whole_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it becomes `path`, on any error it is removed.

    Raises:
        InputError: as `refuse_finished`.
    """
    refuse_finished(path, force=force)
    with scratch_folder(path) as draft:
        yield draft
        draft.chmod(0o777 & ~_umask())
        put_in_place(draft, path)


def write_npy(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], parts: Iterable[np.ndarray]
) -> None:
    """Writes an .npy file of any size part by part; memory holds one part.

    Args:
        path: the file, to be read with numpy.load(path, mmap_mode="r").
        shape: of all parts, one after the other along the first axis.
        dtype: that parts are cast to.
        parts: (n, ...) each.
    Raises:
        ValueError: the parts are not as many rows as `shape` says.
    """
    import numpy as np  # here: every command line begins by importing this module

    kind = np.dtype(dtype)
    header = {"descr": kind.str, "fortran_order": False, "shape": shape}
    done = 0
    with whole_file(path) as draft:
        with draft.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, kind).tobytes())
                done += len(part)
        if done != shape[0]:
            raise ValueError(f"{done} rows for an array of shape {shape}")


def write_h5ad(table: anndata.AnnData, path: Path) -> None:
    """Writes an AnnData, compressed, so that every anndata since 0.9 opens it.

    Newer releases write what older ones refuse: an absent `raw` as "null", columns of strings as
    nullable ones. Here an absent part is left out, strings are plain, and strings of which some are
    missing become a categorical. A "/" in a key of `uns`, which newer releases refuse, becomes "_".

    It is written by way of memory: HDF5 keeps a file open that it could not finish on a full disk,
    and crashes when Python ends.

    Args:
        table: without `raw` and pairwise arrays, which nothing here makes.
        path: the file.
    Raises:
        ValueError: the table has one of those.
    """
    import anndata  # here: every command line begins by importing this module
    import h5py

    if table.raw is not None or len(table.obsp) or len(table.varp):
        raise ValueError("a table with raw, obsp or varp is not written here")
    parts: dict[str, Any] = {
        "X": table.X,
        "obs": _plain_frame(table.obs),
        "var": _plain_frame(table.var),
        "obsm": {
            name: _plain_frame(values) if hasattr(values, "columns") else values
            for name, values in table.obsm.items()
        },
        "varm": dict(table.varm),
        # anndata 0.13 counts X among the layers, as the one without a name.
        "layers": {name: table.layers[name] for name in table.layers if name is not None},
        "uns": _plain_entries(table.uns),
    }
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, part in parts.items():
            if part is not None:
                anndata.io.write_elem(file, name, part, dataset_kwargs={"compression": "gzip"})
    path.write_bytes(buffer.getvalue())


def _plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose strings are Python's, in arrays of objects or in categories."""
    import pandas as pd

    plain = pd.DataFrame(index=_plain_strings(frame.index))
    for name, column in frame.items():
        values: Any = column.array
        if isinstance(column.dtype, pd.CategoricalDtype) or (
            _is_text(column) and column.isna().any()
        ):
            values = pd.Categorical(column)
            values = values.rename_categories(_plain_strings(values.categories))
        elif _is_text(column):
            values = _plain_strings(pd.Index(column)).array
        plain[name] = pd.Series(values, index=plain.index, dtype=values.dtype)
    return plain


def _plain_strings(index: pd.Index) -> pd.Index:
    """The same, where it holds strings as an index of objects: pandas 3 makes none by itself."""
    import pandas as pd

    if not _is_text(index):
        return index
    return pd.Index([printable(name) for name in index], dtype=object, name=index.name)


def _is_text(values: pd.Series | pd.Index) -> bool:
    import pandas as pd

    return values.dtype == object or pd.api.types.is_string_dtype(values.dtype)


def _plain_entries(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Nested entries of `uns` with keys and texts that can be written everywhere."""
    import pandas as pd

    plain: dict[str, Any] = {}
    for key, value in entries.items():
        name = printable(str(key)).replace("/", "_")
        while name in plain:
            name += "_"
        if isinstance(value, Mapping):
            plain[name] = _plain_entries(value)
        elif isinstance(value, str):
            plain[name] = printable(value)
        elif isinstance(value, pd.DataFrame):
            plain[name] = _plain_frame(value)
        elif value is not None:
            plain[name] = value
    return plain


def put_in_place(draft: Path, path: Path) -> None:
    """Renames folder `draft` to `path`; an existing folder is replaced whole or not at all."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
        try:
            os.replace(path, old / path.name)
            os.replace(draft, path)
        finally:
            if not path.exists():  # the second rename failed: the older output comes back
                os.replace(old / path.name, path)
            shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(draft, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def json_safe(value: Any) -> Any:
    """`value` with NumPy's scalars and arrays as Python's own and not-finite numbers as None.

    Dictionaries, lists and tuples are followed; the argument is not changed.
    """
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, np.generic):
        return json_safe(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def say(text: str) -> None:
    """Prints one line for the user to standard error; results go to standard output."""
    print(WORDING.get()(text), file=sys.stderr, flush=True)

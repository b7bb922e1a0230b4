"""Reads the parts of AnnData that readers need, from a file .h5ad or a folder .zarr.

Reading part by part also works for files with other parts (a raw that is null, an unknown entry of
uns) that a version of anndata cannot read.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from histospace_tf.data_pipelines.slides import zarr_images
from histospace_tf.data_pipelines.spots import previews
from histospace_tf.data_pipelines.spots.previews import Preview, ScaleFactors
from histospace_tf.faults import in_words
from histospace_tf.vocabulary import InputError, named

# Columns of obs that may hold coordinates, for the message where obsm["spatial"] lacks.
_PLACES = ("x", "y", "x_centroid", "y_centroid", "imagecol", "imagerow", "center_x", "center_y")
# Columns of a table obsm["spatial"] that name x and y, in this order.
_PAIRS = (
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"),
    ("pixel_x", "pixel_y"),
    ("x", "y"),
)


def is_anndata(path: Path) -> bool:
    """Whether a path is a file .h5ad, or a zarr folder that AnnData wrote."""
    if path.is_dir():
        attributes = zarr_images.zarr_attributes(path)
        return attributes is not None and attributes.get("encoding-type") == "anndata"
    return path.suffix.lower() == ".h5ad" and path.is_file()


def read_obs(path: Path) -> tuple[pd.DataFrame, list[str], np.ndarray | None]:
    """Reads obs, the names of the libraries in uns["spatial"], and obsm["spatial"] (None without).

    Raises:
        InputError: the file is damaged.
    """
    with _opened(path) as group:
        if _is_old(group):
            data = anndata.read_h5ad(path)
            places = data.obsm.get("spatial")
            return data.obs, list(libraries(data.uns)), None if places is None else _places(places)
        spatial = _element(group, "uns/spatial")
        names = (
            [str(n) for n in spatial if hasattr(spatial[n], "keys")] if _is_group(spatial) else []
        )
        places = _element(group, "obsm/spatial")
        places = None if places is None else _places(anndata.io.read_elem(places))
        return _refuse_empty(path, anndata.io.read_elem(group["obs"])), names, places


def read(path: Path, *, needs_places: bool = True) -> anndata.AnnData:
    """Reads X, layers, raw, obs, var, obsm["spatial"] and uns["spatial"].

    Args:
        path: a file .h5ad or a folder .zarr.
        needs_places: refuse data without obsm["spatial"].
    Raises:
        InputError: it is damaged, or has no obsm["spatial"] though that is needed.
    """
    with _opened(path) as group:
        if _is_old(group):
            data = anndata.read_h5ad(path)
            if "spatial" not in data.obsm:
                raise _no_places(path, list(data.obsm), list(data.obs))
            return data
        obs, var = (anndata.io.read_elem(group[name]) for name in ("obs", "var"))
        obsm, layers = _element(group, "obsm"), _element(group, "layers")
        has_places = obsm is not None and "spatial" in obsm
        if needs_places and not has_places:
            raise _no_places(path, list(obsm or ()), [str(column) for column in obs])
        spatial = _element(group, "uns/spatial")
        return anndata.AnnData(
            X=_matrix(group["X"]) if "X" in group else None,
            obs=_readable(obs),
            var=_readable(var),
            layers={name: _matrix(layers[name]) for name in layers or ()},
            obsm={"spatial": _places(anndata.io.read_elem(obsm["spatial"]))} if has_places else {},
            uns={} if spatial is None else {"spatial": anndata.io.read_elem(spatial)},
            raw=_raw(_element(group, "raw")),
        )


def libraries(uns: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The libraries in uns["spatial"] by name, without other entries (CELLxGENE's is_single)."""
    spatial = uns.get("spatial")
    if not isinstance(spatial, Mapping):
        return {}
    return {str(name): entry for name, entry in spatial.items() if isinstance(entry, Mapping)}


def library_of(data: anndata.AnnData, name: str, *, is_only: bool = True) -> Mapping[str, Any]:
    """The entry of uns["spatial"] that belongs to a section; empty where there is none.

    Args:
        is_only: the file holds no other section, so that a single entry belongs to this one,
            whatever its name.
    """
    entries = libraries(data.uns)
    if name in entries:
        return entries[name]
    return next(iter(entries.values())) if len(entries) == 1 and is_only else {}


def part(library: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A mapping within a library, by name; empty where there is none."""
    value = library.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def previews_of(library: Mapping[str, Any], scales: ScaleFactors) -> tuple[Preview, ...]:
    """The previews that scale factors name, finest first."""
    images = part(library, "images")
    return tuple(
        previews.of_array(name, scale, images[name]) if name in images else Preview(name, scale)
        for name, scale in scales.shrunk.items()
    )


def names_of(frame: pd.DataFrame) -> list[str]:
    """Names of a frame's rows as text."""
    return [
        name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        for name in frame.index
    ]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The root group of a file or folder; any exception within becomes an InputError."""
    try:
        with warnings.catch_warnings():  # of anndata, about older formats
            warnings.simplefilter("ignore")
            if path.is_dir():
                import zarr  # takes half a second, for folders alone

                yield zarr.open_group(str(path), mode="r")
            else:
                with h5py.File(path) as h5:
                    yield h5
    except InputError:
        raise
    except Exception as error:  # h5py, zarr and anndata raise many kinds for damaged files
        raise InputError(f"{str(path)!r} cannot be read as AnnData ({in_words(error)})") from None


def _element(group: Any, name: str) -> Any:
    """A part of a group of h5py or zarr; None where it is missing."""
    return group[name] if name in group else None  # noqa: SIM401 - zarr's groups get otherwise


def _is_group(element: Any) -> bool:
    return hasattr(element, "keys")


def _is_old(group: Any) -> bool:
    """Whether anndata before 0.7 wrote a file: obs is an array of records, not a group."""
    return isinstance(group, h5py.Group) and isinstance(group["obs"], h5py.Dataset)


def _matrix(element: Any) -> Any:
    values = anndata.io.read_elem(element)
    return values.toarray() if isinstance(values, sparse.coo_matrix) else values


def _raw(element: Any) -> dict[str, Any] | None:
    if not _is_group(element) or "X" not in element:
        return None  # "null", as anndata 0.12 may write it
    var = anndata.io.read_elem(element["var"])
    return {"X": _matrix(element["X"]), "var": _readable(var)}


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose index is of plain text, bytes decoded."""
    return frame.set_axis(pd.Index(names_of(frame), dtype=object), axis=0)


def _refuse_empty(path: Path, obs: pd.DataFrame) -> pd.DataFrame:
    if not len(obs):
        raise InputError(f"{str(path)!r} holds no spots: obs has no rows")
    return obs


def _places(values: Any) -> np.ndarray:
    """obsm["spatial"] as (n, d) float64, x first where columns are named; NaN for other values."""
    if sparse.issparse(values):
        values = values.toarray()
    frame = pd.DataFrame(np.asarray(values) if not isinstance(values, pd.DataFrame) else values)
    column = {str(name).strip().lower(): name for name in frame}
    pair = next((pair for pair in _PAIRS if set(pair) <= set(column)), None)
    if pair is not None:  # a table says which is which
        first = [column[name] for name in pair]
        frame = frame[[*first, *(name for name in frame if name not in first)]]
    return frame.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _no_places(path: Path, inside: list[str], columns: list[str]) -> InputError:
    at = [name for name in columns if name.lower() in _PLACES or name.startswith("pxl_")]
    has = f"; obs has {named(at, 6)}" if at else ""
    return InputError(
        f'{str(path)!r} has no obsm["spatial"], the spots\' pixels; it has obsm '
        f"{named(inside, 5) or 'nothing'}{has}. Put full-resolution pixels, x first, into "
        'obsm["spatial"]'
    )

"""Feature-barcode matrices of Space Ranger: HDF5 or a folder of Matrix Market files."""

from __future__ import annotations

import dataclasses
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

from histospace_tf.data_pipelines.readers import measured
from histospace_tf.vocabulary import InputError, Problem, named

_EXPRESSION = "Gene Expression"


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """Counts of genes in barcodes.

    file: the .h5 file or the folder that was read.
    barcodes: n names; counts: (n, g) CSR float32.
    genes: g unique symbols; gene_ids: their ids, as the file has them (Ensembl's).
    is_raw: of all barcodes, not of those under tissue alone.
    """

    file: Path
    barcodes: tuple[str, ...]
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    counts: sparse.csr_matrix
    is_raw: bool
    problems: tuple[Problem, ...]


def read_matrix(folder: Path, where: str) -> FeatureMatrix:
    """The filtered matrix of a run's folder, else the raw one; HDF5 before Matrix Market.

    Args:
        folder: holds (perhaps with a prefix) filtered_feature_bc_matrix.h5 or the folder
            filtered_feature_bc_matrix, or the same with raw.
        where: the section, for problems.
    Raises:
        InputError: there is none, more than one, or it is damaged.
    """
    file, is_raw = _chosen(folder)
    names, ids, kinds, barcodes, counts = _read_mtx(file) if file.is_dir() else _read_h5(file)
    if counts.shape != (len(barcodes), len(names)):
        raise InputError(
            f"matrix {str(file)!r}: {counts.shape[0]} x {counts.shape[1]} counts for "
            f"{len(barcodes)} barcodes and {len(names)} features; is a file of another run there?"
        )
    problems = []
    if is_raw:
        problems.append(
            Problem(
                "note",
                where,
                f"there is no filtered matrix: {file.name} is read, and spots under tissue kept.",
            )
        )
    is_gene = np.array([kind in ("", _EXPRESSION) for kind in kinds], bool)
    if not is_gene.all():
        others = sorted({kind for kind in kinds if kind not in ("", _EXPRESSION)})
        problems.append(
            Problem(
                "note",
                where,
                f"{(~is_gene).sum()} of {len(is_gene)} features are no genes "
                f"({named(others, 3)}): skipped.",
            )
        )
    kept = np.flatnonzero(is_gene)
    ids = [ids[i] for i in kept]
    genes, more = measured.unique_genes(where, [names[i] for i in kept], ids)
    return FeatureMatrix(
        file=file,
        barcodes=tuple(barcodes),
        genes=genes,
        gene_ids=tuple(ids),
        counts=sparse.csr_matrix(counts[:, kept], dtype=np.float32),
        is_raw=is_raw,
        problems=(*problems, *more),
    )


def _chosen(folder: Path) -> tuple[Path, bool]:
    for kind in ("filtered", "raw"):
        for end in (".h5", ""):
            found = sorted(folder.glob(f"*{kind}_feature_bc_matrix{end}"))
            if end == "":
                found = [path for path in found if path.is_dir()]
            if len(found) > 1:
                raise InputError(
                    f"folder {str(folder)!r} holds {len(found)} matrices "
                    f"({named([path.name for path in found], 3)}); one run a folder works"
                )
            if found:
                return found[0], kind == "raw"
    raise InputError(
        f"folder {str(folder)!r} has no matrix: filtered_feature_bc_matrix.h5 or the folder "
        "filtered_feature_bc_matrix (or raw_...) is looked for"
    )


_Parts = tuple[list[str], list[str], list[str], list[str], sparse.spmatrix]


def _read_h5(file: Path) -> _Parts:
    """Symbols, ids, kinds of feature, barcodes, (barcodes, features) counts."""
    try:
        with h5py.File(file) as h5:
            matrix = h5["matrix"]
            features = matrix["features"]
            n_features, n_barcodes = (int(n) for n in matrix["shape"][:])
            # Stored with a column a barcode: the same arrays are rows of its transpose.
            counts = sparse.csr_matrix(
                (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:]),
                shape=(n_barcodes, n_features),
            )
            names, ids = _texts(features["name"]), _texts(features["id"])
            kinds = _texts(features["feature_type"]) if "feature_type" in features else []
            return names, ids, kinds or [""] * len(ids), _texts(matrix["barcodes"]), counts
    except KeyError as error:
        raise InputError(f"matrix {str(file)!r} is not Space Ranger's: {error.args[0]!s}") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"matrix {str(file)!r} cannot be read ({error}); copy or download it again"
        ) from None


def _texts(data: h5py.Dataset) -> list[str]:
    return [value.decode() for value in data[:]]


def _read_mtx(folder: Path) -> _Parts:
    """As `_read_h5`."""
    features = _table(folder, ("features.tsv", "genes.tsv"))
    barcodes = _table(folder, ("barcodes.tsv",))
    path = _one_of(folder, ("matrix.mtx",))
    try:
        with _opened(path) as file:
            matrix = sparse.csr_matrix(scipy.io.mmread(file).T)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(
            f"matrix {str(path)!r} cannot be read ({error}); copy or download it again"
        ) from None
    ids = list(features[0])
    names = list(features[1]) if 1 in features else ids
    kinds = list(features[2]) if 2 in features else [""] * len(ids)
    return names, ids, kinds, list(barcodes[0]), matrix


def _table(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    path = _one_of(folder, names)
    try:
        with _opened(path) as file:
            return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"table {str(path)!r} cannot be read ({error})") from None


def _one_of(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"folder {str(folder)!r} has no {names[0]} or {names[0]}.gz")


def _opened(path: Path) -> BinaryIO:
    """The file, unpacked where its content is gzip's, whatever its name says."""
    data = path.read_bytes()
    return io.BytesIO(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)

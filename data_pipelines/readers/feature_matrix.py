"""Feature-barcode matrices of Space Ranger: HDF5 or a folder of Matrix Market files."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

from histospace_tf.data_pipelines.readers import measured, packed, run_files
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


def read_matrix(files: run_files.MatrixFiles, where: str) -> FeatureMatrix:
    """A matrix of Space Ranger, from HDF5 or Matrix Market.

    Args:
        files: as `run_files` found them.
        where: the section, for problems.
    Raises:
        InputError: a file is missing or damaged.
    """
    file, is_raw = files.file, files.is_raw
    names, ids, kinds, barcodes, counts = _read_h5(file) if files.is_h5 else _read_mtx(files)
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


_Parts = tuple[list[str], list[str], list[str], list[str], sparse.spmatrix]


def _read_h5(file: Path) -> _Parts:
    """Symbols, ids, kinds of feature, barcodes, (barcodes, features) counts."""
    try:
        with h5py.File(io.BytesIO(packed.content(file)) if packed.is_packed(file) else file) as h5:
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


def _read_mtx(files: run_files.MatrixFiles) -> _Parts:
    """As `_read_h5`."""
    features = _table(_there(files, files.features, "features.tsv"))
    barcodes = _table(_there(files, files.barcodes, "barcodes.tsv"))
    path = _there(files, files.counts, "matrix.mtx")
    try:
        matrix = sparse.csr_matrix(scipy.io.mmread(io.BytesIO(packed.content(path))).T)
    except (OSError, ValueError) as error:
        raise InputError(
            f"matrix {str(path)!r} cannot be read ({error}); copy or download it again"
        ) from None
    ids = list(features[0])
    names = list(features[1]) if 1 in features else ids
    kinds = list(features[2]) if 2 in features else [""] * len(ids)
    return names, ids, kinds, list(barcodes[0]), matrix


def _table(path: Path) -> pd.DataFrame:
    try:
        file = io.BytesIO(packed.content(path))
        return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"table {str(path)!r} cannot be read ({error})") from None


def _there(files: run_files.MatrixFiles, path: Path | None, name: str) -> Path:
    """The file of that name.

    Raises:
        InputError: it is missing.
    """
    if path is not None:
        return path
    if files.file.is_dir():
        raise InputError(f"folder {str(files.file)!r} has no {name} or {name}.gz")
    raise InputError(f"no {name} or {name}.gz with its prefix lies beside {str(files.file)!r}")

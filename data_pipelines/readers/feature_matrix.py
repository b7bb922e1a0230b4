"""Reads feature-barcode matrices of Space Ranger: HDF5 or a folder of Matrix Market files."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import h5py
import pandas as pd
import scipy.io
from scipy import sparse

from histospace_tf.data_pipelines import text_files
from histospace_tf.data_pipelines.counts import raw_counts
from histospace_tf.data_pipelines.counts.raw_counts import Features
from histospace_tf.data_pipelines.readers import run_files
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError, Problem, named


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """Counts of genes by barcode.

    file: the .h5 file or the folder that was read.
    barcodes: n names; counts: (n, g) CSR float32.
    genes: g unique symbols; gene_ids: their ids, as `raw_counts.GeneCounts` has them.
    """

    file: Path
    barcodes: tuple[str, ...]
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    counts: sparse.csr_matrix
    problems: tuple[Problem, ...]


def read_matrix(files: run_files.MatrixFiles, where: str) -> FeatureMatrix:
    """Reads a matrix from HDF5 or Matrix Market.

    Args:
        files: from `run_files.runs_in`.
        where: the section, for problems.
    Raises:
        InputError: a file is missing or damaged, or as `raw_counts.gene_counts`.
    """
    file = files.file
    features, barcodes, counts = _read_h5(file) if files.is_h5 else _read_mtx(files)
    n_features = len(features.names)
    if counts.shape != (len(barcodes), n_features):
        is_turned = counts.shape == (n_features, len(barcodes))
        why = "is a file of another run there?"
        if n_features == counts.shape[1] + 1:
            why = f"is the first feature, {features.names[0]!r}, a header?"
        raise InputError(
            f"matrix {str(file)!r}: {counts.shape[0]} x {counts.shape[1]} counts for "
            f"{len(barcodes)} barcodes and {n_features} features; "
            + ("it is transposed: its rows must be features" if is_turned else why)
        )
    problems = []
    if files.is_raw:
        problems.append(
            Problem(
                "note",
                where,
                f"there is no filtered matrix: {file.name} is read, and spots under tissue kept.",
            )
        )
    passed = raw_counts.gene_counts(where, str(file), barcodes, counts, features)
    return FeatureMatrix(
        file=file,
        barcodes=tuple(barcodes),
        genes=passed.genes,
        gene_ids=passed.gene_ids,
        counts=passed.counts,
        problems=(*problems, *passed.problems),
    )


_Parts = tuple[Features, list[str], sparse.spmatrix]


def _read_h5(file: Path) -> _Parts:
    """Reads features, barcodes, and (barcodes, features) counts."""
    what = f"matrix {str(file)!r}"
    with reading(what):
        try:
            content = (
                io.BytesIO(text_files.read_bytes(file, "matrix"))
                if text_files.is_gzipped(file)
                else file
            )
            with h5py.File(content) as h5:
                return _of_version_3(h5["matrix"]) if "matrix" in h5 else _of_version_2(file, h5)
        except InputError:
            raise
        except KeyError as error:
            raise InputError(f"{what} is not Space Ranger's: {error.args[0]!s}") from None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{what} cannot be read ({error}); copy or download it again"
            ) from None


def _of_version_3(matrix: h5py.Group) -> _Parts:
    features = matrix["features"]
    named_features = Features(
        names=_texts(features["name"]),
        ids=_texts(features["id"]),
        kinds=_texts(features["feature_type"]) if "feature_type" in features else (),
        genomes=_texts(features["genome"]) if "genome" in features else (),
    )
    return named_features, _texts(matrix["barcodes"]), _stored(matrix)


def _of_version_2(file: Path, h5: h5py.File) -> _Parts:
    """Reads the form of Cell Ranger 2: one group per genome, all with the same barcodes.

    Raises:
        InputError: there is no such group, or the barcodes differ.
    """
    groups = {name: h5[name] for name in h5 if isinstance(h5[name], h5py.Group)}
    if not groups or not all("gene_names" in group for group in groups.values()):
        raise InputError(
            f"matrix {str(file)!r} is not Space Ranger's: it has no group 'matrix', but "
            f"{named(list(h5), 3) or 'nothing'}"
        )
    barcodes = [_texts(group["barcodes"]) for group in groups.values()]
    if any(own != barcodes[0] for own in barcodes):
        raise InputError(
            f"matrix {str(file)!r} has other barcodes for each of {named(list(groups))}"
        )
    names, ids, genomes = [], [], []
    for genome, group in groups.items():
        names += _texts(group["gene_names"])
        ids += _texts(group["genes"])
        genomes += [genome] * len(group["genes"])
    counts = sparse.hstack([_stored(group) for group in groups.values()], format="csr")
    return Features(names=names, ids=ids, genomes=genomes), barcodes[0], counts


def _stored(group: h5py.Group) -> sparse.csr_matrix:
    """Counts of a group, stored with one column per barcode, as (barcodes, features)."""
    n_features, n_barcodes = (int(n) for n in group["shape"][:])
    return sparse.csr_matrix(
        (group["data"][:], group["indices"][:], group["indptr"][:]), shape=(n_barcodes, n_features)
    )


def _texts(data: h5py.Dataset) -> list[str]:
    return [value.decode() for value in data[:]]


def _read_mtx(files: run_files.MatrixFiles) -> _Parts:
    """As `_read_h5`.

    Raises:
        InputError: a file is missing or damaged, or the matrix holds no numbers.
    """
    features = _table(_there(files, files.features, "features.tsv"))
    barcodes = _table(_there(files, files.barcodes, "barcodes.tsv"))
    path = _there(files, files.counts, "matrix.mtx")
    content = text_files.read_bytes(path, "matrix")
    try:
        field = scipy.io.mminfo(io.BytesIO(content))[4]
        matrix = sparse.csr_matrix(scipy.io.mmread(io.BytesIO(content)).T)
    except (OSError, ValueError) as error:
        raise InputError(
            f"matrix {str(path)!r} cannot be read ({error}); copy or download it again"
        ) from None
    if field == "pattern" and matrix.nnz:  # read as ones
        raise InputError(
            f"matrix {str(path)!r} says where counts are, not how many (field 'pattern'); the one "
            "that the pipeline wrote works"
        )
    if 1 not in features and features[0].str.contains(r"\s").mean() > 0.5:
        raise InputError(
            f"{str(files.features)!r} has no tabs, but blanks in its lines (first: "
            f"{features[0].iloc[0]!r}); tabs between id, name and type are needed"
        )
    named_features = Features(
        names=list(features[1] if 1 in features else features[0]),
        ids=list(features[0]) if 1 in features else (),
        kinds=list(features[2]) if 2 in features else (),
    )
    return named_features, list(barcodes[0]), matrix


def _table(path: Path) -> pd.DataFrame:
    file = io.BytesIO(text_files.read_bytes(path, "matrix"))
    try:
        return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"table {str(path)!r} cannot be read ({error})") from None


def _there(files: run_files.MatrixFiles, path: Path | None, name: str) -> Path:
    """`path`, refused where it is None.

    Raises:
        InputError: the file `name` is missing.
    """
    if path is not None:
        return path
    if files.file.is_dir():
        raise InputError(f"folder {str(files.file)!r} has no {name} or {name}.gz")
    raise InputError(f"no {name} or {name}.gz with its prefix lies beside {str(files.file)!r}")

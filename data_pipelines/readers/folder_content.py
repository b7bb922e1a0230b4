"""The content of a folder of unknown layout: what it holds, what is missing, what to do.

Files are recognised by their names (output of 10x Genomics, NanoString, Vizgen, STOmics and others
has fixed ones), tables of counts by the genes that they name. Only the beginning of tables is read.
"""

from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.genes import matching, nomenclature
from histospace_tf.vocabulary import Problem, named

_DEPTH = 6  # levels of folders below the given one
_MOST_FILES = 100_000
_MOST_TABLES = 50
_HEAD_BYTES = 1 << 20  # of genes x spots, some dozen lines
_OWN_H5AD = 'a .h5ad with raw counts in X and full-resolution pixels of the H&E in obsm["spatial"]'
_NO_SPOTS = (
    "Cells and transcripts are not read here: count them in spots or squares (of 55 um, say) and "
    f"write {_OWN_H5AD}."
)
_SEGMENTED = (
    "Cells are not read here, bins are: pass the run's outs/ with binned_outputs/square_016um, "
    "which Space Ranger writes beside segmented_outputs."
)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Files that are recognised by name.

    what: part of a message, behind "it holds"; advice: what to do.
    pattern: of a path below the folder, in lower case, with "/" and without .gz.
    severity: "error" for data that was probably meant to be read, "warning" for files that may
        stand beside images.
    """

    what: str
    pattern: re.Pattern[str]
    advice: str
    severity: str = "error"


def _kind(what: str, pattern: str, advice: str, severity: str = "error") -> _Kind:
    return _Kind(what, re.compile(rf"(?:.*/)?(?:{pattern})"), advice, severity)


MATRIX = _kind(
    "a matrix of Space Ranger",
    r"[^/]*(?:filtered|raw)_feature_bc_matrix\.h5|(?:[^/]*[_. -])?matrix\.mtx",
    "",
)
POSITIONS = _kind(
    "spot positions of Space Ranger",
    r"[^/]*tissue_positions(?:_list)?\.(?:parquet|csv|tsv|txt)",
    "",
)
REST = _kind(
    "part of a run of Space Ranger without counts of genes",
    r"[^/]*(?:molecule_info|feature_slice|raw_probe_bc_matrix)\.h5|[^/]*probe_set\.csv"
    r"|[^/]*\.cloupe|[^/]*barcode_mappings\.parquet|[^/]*scalefactors_json\.json",
    "The run's filtered_feature_bc_matrix.h5 and spatial/tissue_positions.csv are missing: add "
    "them.",
)
# The first that fits a path counts.
_KINDS = (
    _kind(
        "segmented cells of Space Ranger 4",
        r"[^/]*feature_cell_matrix(?:\.h5|/.*)|[^/]*(?:cell|nucleus)_segmentations\.geojson",
        _SEGMENTED,
    ),
    _kind(
        "Xenium output",
        r"experiment\.xenium|[^/]*cell_feature_matrix(?:\.h5|\.zarr(?:\.zip)?|/.*)|(?:transcripts"
        r"|cells|cell_boundaries|nucleus_boundaries)\.(?:parquet|csv|zarr(?:\.zip)?)",
        _NO_SPOTS,
    ),
    _kind(
        "CosMx output",
        r"[^/]*(?:exprmat_file|_tx_file|fov_positions_file)\.csv",
        _NO_SPOTS,
    ),
    _kind(
        "MERSCOPE output",
        r"cell_by_gene[^/]*\.(?:csv|parquet)|[^/]*detected_transcripts\.(?:csv|parquet)"
        r"|cell_metadata\.csv|cell_boundaries[^/]*\.hdf5",
        _NO_SPOTS,
    ),
    _kind("Stereo-seq output", r"[^/]*\.(?:c?gef|gem)", _NO_SPOTS),
    _kind(
        "Slide-seq output",
        r"[^/]*(?:bead_?locations[^/]*\.(?:csv|txt)|digital_expression\.txt|mappeddge[^/]*\.csv)",
        f"It is not read here: write {_OWN_H5AD}.",
    ),
    _kind("GeoMx output", r"[^/]*\.(?:dcc|pkc)", "Regions of any size are not read here."),
    REST,
    MATRIX,
    POSITIONS,
    _kind(
        "part of HER2ST's layout",
        r"st-(?:cnts|spotfiles)/[^/]*\.tsv",
        "ST-cnts (A1.tsv.gz) and ST-spotfiles (A1_selection.tsv) are both needed, in one folder "
        "beside ST-imgs.",
    ),
    _kind(
        "an R object",
        r"[^/]*\.(?:rds|rda|rdata|h5seurat|qs2?)",
        f"Export it from R (with anndataR or zellkonverter, for instance) as {_OWN_H5AD}.",
    ),
    _kind(
        "a Loom or MuData file", r"[^/]*\.(?:loom|h5mu)", f"Write it from scanpy as {_OWN_H5AD}."
    ),
    _kind(
        "a Matrix Market file",
        r"[^/]*\.mtx",
        "A matrix of Space Ranger is read as matrix.mtx with barcodes.tsv and features.tsv beside "
        "it, all plain or gzipped, and spatial/tissue_positions.csv.",
    ),
    _kind("AnnData", r"[^/]*\.h5ad", "Pass that file, or list several in a sections.csv."),
    _kind("a .zarr store", r"[^/]*\.zarr(?:\.zip)?", "Pass the store itself, unpacked."),
    _kind("an HDF5 file", r"[^/]*\.(?:h5|hdf5)", f"If it holds counts, write {_OWN_H5AD}."),
    _kind(
        "an archive of data",
        r"(?:gs[em]\d+[^/]*|[^/]*(?:matrix|matrices|spatial|outs|binned_outputs|counts)[^/]*)"
        r"\.(?:tar|tgz|zip|7z|rar|tar\.bz2|tar\.xz)",
        "Archives are not opened: unpack it, and pass the folder.",
    ),
    _kind(
        "an archive",
        r"[^/]*\.(?:tar|tgz|zip|7z|rar|tar\.bz2|tar\.xz)",
        "Archives are not opened: unpack it if it belongs to the data.",
        "warning",
    ),
    _kind(
        "a GeoJSON of outlines",
        r"[^/]*\.geojson",
        "Outlines are not read here.",
        "warning",
    ),
)
_PACKED_IMAGE = _kind(
    "a gzipped image", r".*", "Images are read piece by piece: unpack it (gunzip).", "warning"
)
_TABLE = re.compile(r".*\.(?:csv|tsv|txt|tab|parquet)")
_DELIMITER = re.compile(r"[\t,;]")
_MOST_NAMES = 200  # of possible genes that are looked up
_COUNTS = _Kind(
    "a table of counts",
    _TABLE,
    "Tables are read in HER2ST's layout (ST-cnts/A1.tsv.gz, spots x genes, beside "
    f"ST-spotfiles/A1_selection.tsv and ST-imgs/A/A1/); or write {_OWN_H5AD}.",
)


def what_lies_in(path: Path) -> tuple[Problem, ...]:
    """Names the data, other than images, that a folder or file holds.

    Returns:
        One problem per kind of data, the most specific first: an error for data that was probably
        meant to be read, a warning for files that may stand beside images. () where there are only
        images and other files.
    """
    names_of: dict[_Kind, list[str]] = {}
    tables = 0
    for name, file in _files(path):
        kind = _kind_of(name)
        if kind is None and tables < _MOST_TABLES and _TABLE.fullmatch(_bare(name)):
            tables += 1
            kind = _COUNTS if _names_genes(file) else None
        if kind is not None:
            names_of.setdefault(kind, []).append(name)
    if any(kind.severity == "error" and kind is not REST for kind in names_of):
        names_of.pop(REST, None)  # it says nothing more then
    ranked = sorted(
        names_of, key=lambda kind: (kind.severity, [*_KINDS, _COUNTS, _PACKED_IMAGE].index(kind))
    )
    return tuple(
        Problem(
            kind.severity,
            str(path),
            f"it holds {kind.what} ({named(names_of[kind], 3)})."
            if path.is_dir()
            else f"it is {kind.what}.",
            kind.advice or _missing(names_of),
        )
        for kind in ranked
    )


def _missing(names_of: dict[_Kind, list[str]]) -> str:
    """What is missing beside a matrix or positions to make a run."""
    if MATRIX in names_of and POSITIONS in names_of:
        return (
            "A matrix and spot positions make a run where both lie in one folder, the positions in "
            "its spatial/ or all with one prefix: sort them so."
        )
    if MATRIX in names_of:
        return (
            "Spot positions are missing: add the same run's spatial/tissue_positions.csv (or "
            "tissue_positions_list.csv, tissue_positions.parquet) and "
            "spatial/scalefactors_json.json, and pass the folder that holds both."
        )
    return (
        "A matrix is missing: add the same run's filtered_feature_bc_matrix.h5, or the folder "
        "filtered_feature_bc_matrix, and pass the folder that holds both."
    )


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yields paths below a folder, as text with "/" and as Path; a .zarr counts as one file."""
    if path.is_file() or path.suffix == ".zarr":
        yield path.name, path
        return
    n_files = 0
    for folder, inside, names in os.walk(path):
        here = Path(folder)
        stores = [name for name in inside if name.lower().endswith(".zarr")]
        deeper = len(here.relative_to(path).parts) < _DEPTH
        inside[:] = sorted(
            name for name in inside if deeper and name not in stores and not name.startswith(".")
        )
        for name in sorted([*names, *stores]):
            if not name.startswith("."):
                yield (here / name).relative_to(path).as_posix(), here / name
        n_files += len(names)
        if n_files > _MOST_FILES:
            return


def _kind_of(name: str) -> _Kind | None:
    bare = _bare(name)
    if name.lower().endswith(".gz") and bare.endswith(slides.SUFFIXES):
        return _PACKED_IMAGE
    return next((kind for kind in _KINDS if kind.pattern.fullmatch(bare)), None)


def _bare(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _names_genes(file: Path) -> bool:
    """Whether the columns of a table, or its rows of ten or more values, are mostly genes."""
    try:
        if ".parquet" in file.suffixes:
            return _are_genes(pq.read_schema(file).names[:_MOST_NAMES])
        with file.open("rb") as raw:
            head = raw.read(_HEAD_BYTES)
        if head.startswith(b"\x1f\x8b"):
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
    except (OSError, ValueError, zlib.error):  # pyarrow's errors are OSErrors and ValueErrors
        return False
    lines = re.split(r"\r\n|\r|\n", head.decode("utf-8-sig", errors="replace"))
    columns = _DELIMITER.split(lines[0], maxsplit=_MOST_NAMES)[1:_MOST_NAMES]
    rows = [_DELIMITER.split(line, maxsplit=10) for line in lines[1 : 1 + _MOST_NAMES]]
    return any(
        _are_genes([name.strip('" ') for name in names])
        for names in (columns, [row[0] for row in rows if len(row) > 10])
    )


def _are_genes(names: list[str]) -> bool:
    """Whether at least ten and half of some names are genes.

    Symbols are compared with human ones, ignoring case, because many species share them.
    """
    symbols = matching.symbols([name.upper() for name in names])
    known = sum(
        symbol is not None or nomenclature.is_ensembl(name)
        for name, symbol in zip(names, symbols, strict=True)
    )
    return known >= max(10, 0.5 * len(names))

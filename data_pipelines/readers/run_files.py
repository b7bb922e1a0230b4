"""Finds the parts of Space Ranger's runs in a folder, under the names that people give them.

    filtered_feature_bc_matrix.h5     or the folder of that name, or its three files; or raw_...
    spatial/tissue_positions.csv      or tissue_positions_list.csv or tissue_positions.parquet
    spatial/scalefactors_json.json
    spatial/tissue_hires_image.png    and tissue_lowres_image.png: previews

Each may be gzipped (.gz behind its name), written in any case, and have a prefix as in GEO's
GSM4838131_A1_tissue_positions_list.csv.gz. Folders may have it as well (GSM4838131_A1_spatial/),
and all may lie in one flat folder. Parts of one prefix are one run. A part without a prefix belongs
to the only run that there is; parts whose prefixes differ are joined only where one begins with the
other or both have the same GSM number, and no other part could be meant.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_SEPARATORS = "_. -"
SEPARATOR = f"[{_SEPARATORS}]"  # a regular expression: between a sample's prefix and a file's name
_PREFIX = rf"(?P<prefix>(?:.*{SEPARATOR})?)"
_FILES = {
    kind: re.compile(rf"{_PREFIX}{pattern}(?:\.gz)?", re.IGNORECASE)
    for kind, pattern in {
        "positions": r"tissue_positions(?:_list)?\.(?:parquet|csv|tsv|txt)",
        "scales": r"scalefactors_json\.json",
        "preview": r"tissue_(?P<name>hires|lowres)_image\.(?:png|jpe?g)",
        "h5": r"(?P<name>filtered|raw)_feature_bc_matrix\.h5",
        "features": r"(?:features|genes)\.tsv",
        "barcodes": r"barcodes\.tsv",
        "counts": r"matrix\.mtx",
    }.items()
}
# One of these is in every such name: a folder of images may hold a hundred thousand others.
_WORDS = re.compile(r"tissue_|scalefactors|matrix|features|genes|barcodes", re.IGNORECASE)
_SPATIAL = re.compile(rf"{_PREFIX}spatial", re.IGNORECASE)
_MATRIX = re.compile(rf"{_PREFIX}(?P<name>filtered|raw)_feature_bc_matrix", re.IGNORECASE)
# Words between a sample's prefix and Matrix Market's names: A1_filtered_feature_bc_matrix_barcodes
_KIND = re.compile(rf"{_PREFIX}(?P<name>filtered|raw)(?:_feature)?(?:_bc)?(?:_matrix)?", re.I)
_GSM = re.compile(rf"(gsm\d+)(?:{SEPARATOR}|$)")
_OF_MATRIX = ("features", "barcodes", "counts")
# Newest form of the positions first.
_FORMS = (".parquet", "positions.csv", "positions_list.csv")


@dataclasses.dataclass(frozen=True)
class MatrixFiles:
    """The files of a matrix: one .h5, or the three of Matrix Market (None where missing).

    file: the one that messages name: the .h5, the folder of the three, or their matrix.mtx.
    prefix: beginning of its name, in lower case and without the separator.
    is_raw: it holds all barcodes, not only those under tissue.
    """

    file: Path
    prefix: str
    is_raw: bool
    is_h5: bool = False
    features: Path | None = None
    barcodes: Path | None = None
    counts: Path | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of one run.

    prefix: beginning of its files' names, without the separator; "" where they have none.
    folder: it holds the matrix and spatial/, or all files.
    positions: files of spot positions, the newest form first.
    matrices: the best first; several where they are of the same kind and none can be preferred.
    previews: "hires", "lowres" -> file.
    """

    prefix: str
    folder: Path
    positions: tuple[Path, ...] = ()
    matrices: tuple[MatrixFiles, ...] = ()
    scales: Path | None = None
    previews: tuple[tuple[str, Path], ...] = ()

    @property
    def is_flat(self) -> bool:
        """Whether positions are in the folder itself, not in a folder spatial/."""
        return any(file.parent == self.folder for file in self.positions)


@dataclasses.dataclass(frozen=True)
class _Part:
    kind: str
    prefix: str
    file: Path
    name: str = ""  # of a preview, or "filtered" or "raw"


def runs_in(folder: Path) -> tuple[Run, ...]:
    """Finds the runs whose parts are in a folder and in its spatial/ and ..._feature_bc_matrix/.

    Complete runs come first, by prefix; then the others, with positions or a matrix alone. A folder
    that cannot be listed has none.
    """
    parts = list(_parts(folder))
    matrices = _matrices(parts)
    positions = _by_prefix(part for part in parts if part.kind == "positions")
    scales = _by_prefix(part for part in parts if part.kind == "scales")
    previews = _by_prefix(part for part in parts if part.kind == "preview")
    matrix_of = _matrix_partners(positions, matrices)
    scales_of = _partners(positions, scales)
    previews_of = _partners(positions, previews)
    runs = []
    for key, placed in positions.items():
        prefix = max((part.prefix for part in placed), key=len)
        ordered = sorted(placed, key=lambda part: (_form(part.file), part.file.name))
        previewed = sorted(_at(previews, previews_of.get(key)), key=_plain_first)
        scaled = sorted(_at(scales, scales_of.get(key)), key=_plain_first)
        runs.append(
            Run(
                prefix=prefix,
                folder=folder,
                positions=tuple(part.file for part in ordered),
                matrices=_best([matrices[other] for other in matrix_of.get(key, ())]),
                scales=scaled[0].file if scaled else None,
                previews=tuple({part.name: part.file for part in reversed(previewed)}.items()),
            )
        )
    used = {key for keys in matrix_of.values() for key in keys}
    written = {part.prefix.lower(): part.prefix for part in parts}
    left = [
        Run(prefix=written.get(key, key), folder=folder, matrices=_best([ranked]))
        for key, ranked in matrices.items()
        if key not in used
    ]
    runs.sort(key=lambda run: (not run.matrices, run.prefix))
    return (*runs, *left)


def same_sample(one: str, other: str) -> bool:
    """Whether two prefixes may be of one sample: equal except for case, one the beginning of the
    other, or of the same GSM number."""
    first, second = sorted((one.lower(), other.lower()), key=len)
    if first == second or (first and second.startswith(first) and not second[len(first)].isalnum()):
        return True
    numbers = [_GSM.match(first), _GSM.match(second)]
    return all(numbers) and len({match[1] for match in numbers if match}) == 1


def listed(folder: Path) -> list[Path]:
    """Sorted entries of a folder, without hidden ones; none where it cannot be listed."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError:
        return []


def _parts(folder: Path) -> Iterable[_Part]:
    for path in listed(folder):
        spatial, matrix = _SPATIAL.fullmatch(path.name), _MATRIX.fullmatch(path.name)
        if spatial and path.is_dir():
            for file in listed(path):
                part = _part(file, ("positions", "scales", "preview"))
                if part is not None:
                    prefix = part.prefix or _bare(spatial["prefix"])
                    yield dataclasses.replace(part, prefix=prefix)
        elif matrix and path.is_dir():
            name = matrix["name"].lower()
            inside = [part for file in listed(path) if (part := _part(file, _OF_MATRIX))]
            if len(_by_prefix(inside)) > 1:  # of several samples
                yield from (dataclasses.replace(part, name=name) for part in inside)
            else:
                yield _Part("folder", _bare(matrix["prefix"]), path, name)
        else:
            part = _part(path, tuple(_FILES))
            if part is not None:
                yield part


def _part(file: Path, kinds: Iterable[str]) -> _Part | None:
    if not _WORDS.search(file.name):
        return None
    for kind in kinds:
        match = _FILES[kind].fullmatch(file.name)
        if match is not None and file.is_file():
            name = (match.groupdict().get("name") or "").lower()
            return _Part(kind, _bare(match["prefix"]), file, name)
    return None


_Ranked = dict[tuple[int, int], list[MatrixFiles]]  # (filtered before raw, .h5 first) -> files


def _matrices(parts: list[_Part]) -> dict[str, _Ranked]:
    """Matrices by prefix in lower case."""
    matrices: dict[str, _Ranked] = {}
    loose: dict[tuple[str, str], dict[str, Path]] = {}
    rank = {"filtered": 0, "": 1, "raw": 2}
    for part in sorted(parts, key=_plain_first):
        key = part.prefix.lower()
        if part.kind == "h5":
            kept = matrices.setdefault(key, {}).setdefault((rank[part.name], 0), [])
            # A .gz beside the plain file is a copy of it.
            if part.file.with_suffix("") not in [files.file for files in kept]:
                kept.append(MatrixFiles(part.file, key, part.name == "raw", is_h5=True))
        elif part.kind == "folder":
            files = _mtx(part.file, key, part.name == "raw", _files_of_matrix(part.file))
            matrices.setdefault(key, {}).setdefault((rank[part.name], 1), []).append(files)
        elif part.kind in _OF_MATRIX:
            kind = _KIND.fullmatch(part.prefix)
            prefix, name = part.prefix, part.name
            if kind is not None:
                prefix, name = _bare(kind["prefix"]), kind["name"].lower()
            loose.setdefault((prefix.lower(), name), {}).setdefault(part.kind, part.file)
    for (key, name), of_prefix in loose.items():
        if "counts" in of_prefix:
            files = _mtx(of_prefix["counts"], key, name == "raw", of_prefix)
            matrices.setdefault(key, {}).setdefault((rank[name], 1), []).append(files)
    return dict(sorted(matrices.items()))


def _mtx(file: Path, prefix: str, is_raw: bool, of_kind: Mapping[str, Path]) -> MatrixFiles:
    return MatrixFiles(
        file,
        prefix,
        is_raw,
        features=of_kind.get("features"),
        barcodes=of_kind.get("barcodes"),
        counts=of_kind.get("counts"),
    )


def _best(matrices: list[_Ranked]) -> tuple[MatrixFiles, ...]:
    """All matrices of the best rank: several where none is better than another."""
    ranks = [rank for ranked in matrices for rank in ranked]
    if not ranks:
        return ()
    return tuple(files for ranked in matrices for files in ranked.get(min(ranks), ()))


def _matrix_partners(positions: Iterable[str], matrices: Iterable[str]) -> dict[str, list[str]]:
    """Prefixes of the matrices that belong to each prefix of positions, all in lower case."""
    placed, there = list(positions), list(matrices)
    if len(placed) == 1:
        own = placed[0]
        fitting = [key for key in there if not key or not own or same_sample(own, key)]
        if own in fitting and own:
            fitting = [own]
        return {own: fitting}
    return {key: [other] for key, other in _partners(placed, there).items()}


def _files_of_matrix(folder: Path) -> dict[str, Path]:
    matches = [_part(file, _OF_MATRIX) for file in listed(folder)]
    parts = sorted((part for part in matches if part is not None), key=_plain_first, reverse=True)
    return {part.kind: part.file for part in parts}


def _partners(wanted: Iterable[str], there: Iterable[str]) -> dict[str, str]:
    """Which prefix of `there` belongs to each of `wanted`, all in lower case."""
    wanted, there = list(wanted), list(there)
    if len(wanted) == len(there) == 1 and not (wanted[0] and there[0]):
        return {wanted[0]: there[0]}
    pairs = {key: key for key in wanted if key in there}
    for key in wanted:
        fitting = [other for other in there if other not in pairs and same_sample(key, other)]
        if key not in pairs and len(fitting) == 1:
            rivals = [k for k in wanted if k not in there and same_sample(k, fitting[0])]
            if len(rivals) == 1:
                pairs[key] = fitting[0]
    return pairs


def _at(parts: Mapping[str, list[_Part]], key: str | None) -> list[_Part]:
    return [] if key is None else parts[key]


def _by_prefix(parts: Iterable[_Part]) -> dict[str, list[_Part]]:
    parts_of: dict[str, list[_Part]] = {}
    for part in parts:
        parts_of.setdefault(part.prefix.lower(), []).append(part)
    return parts_of


def _bare(prefix: str) -> str:
    """A prefix without its separator and without "spatial"."""
    prefix = prefix.strip(_SEPARATORS)
    match = _SPATIAL.fullmatch(prefix)
    return match["prefix"].strip(_SEPARATORS) if match else prefix


def _form(file: Path) -> int:
    name = file.name.lower().removesuffix(".gz")
    return next((rank for rank, end in enumerate(_FORMS) if name.endswith(end)), len(_FORMS))


def _plain_first(part: _Part) -> tuple[bool, str]:
    return part.file.name.lower().endswith(".gz"), part.file.name

"""How a run came about, for its manifest: versions, threads, checksums, times."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import histospace_tf
from histospace_tf.vocabulary import Cohort, Section

RECORDED = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "pandas",
    "opencv-python-headless",
    "scikit-learn",
    "anndata",
)


def record(
    cohort: Cohort,
    checksums: Mapping[str, Mapping[str, str]],
    *,
    seed: int,
    split: Mapping[str, Any],
    devices: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Entries that every manifest begins with."""
    return {
        "versions": versions(),
        "machine": {**machine(), **({"devices": devices} if devices else {})},
        "seed": seed,
        "data": {"layout": cohort.layout, "checksums": checksums},
        "left_out": {section.name: section.why for section in cohort.left_out},
        "problems": [str(problem) for problem in cohort.problems],
        "split": split,
    }


class Clock:
    """Seconds that each stage of a run took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """Adds the time since the last lap to `stage`."""
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 1)
        self._last = now


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that numbers depend on."""
    versions = {"histospace-tf": histospace_tf.__version__, "python": platform.python_version()}
    for name in RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # another build of it, such as a GPU one
            versions[name] = "unknown"
    return versions


def machine() -> dict[str, Any]:
    """What changes the last digits of a training's results: processor, threads, oneDNN."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "TF_NUM_INTRAOP_THREADS": os.environ.get("TF_NUM_INTRAOP_THREADS"),
    }


def checksums(sections: Sequence[Section]) -> dict[str, dict[str, str]]:
    """SHA-256 of every section's image file and of its spots and counts as read."""
    return {
        section.name: {
            **({"image": file_checksum(section.image)} if section.image else {}),
            "spots_and_counts": _table_checksum(section),
        }
        for section in sections
    }


def identity(path: Path) -> list[Any]:
    """What tells a file from another in its place, without reading it, as JSON holds it."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, read in pieces; of a folder (OME-Zarr) of its files' names and content."""
    if path.is_dir():
        digest = hashlib.sha256()
        for inside in sorted(file for file in path.rglob("*") if file.is_file()):
            line = f"{inside.relative_to(path).as_posix()}\n{file_checksum(inside)}\n"
            digest.update(line.encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_checksums(paths: Sequence[Path]) -> dict[str, str]:
    """`file_checksum` of each, by path."""
    return {str(path): file_checksum(path) for path in paths}


def _table_checksum(section: Section) -> str:
    spots = section.spots
    digest = hashlib.sha256()
    # By ids where there are some: names depend on the other sections of the cohort.
    genes = [spots.id_of.get(gene, gene) for gene in spots.genes] if spots.gene_ids else spots.genes
    for names in (spots.names, genes):
        digest.update("\n".join(names).encode())
    for values in (spots.centres_px, spots.counts.indptr, spots.counts.indices, spots.counts.data):
        digest.update(values.tobytes())
    return digest.hexdigest()

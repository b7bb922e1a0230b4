"""The report of `check`: its numbers, its text, its verdict."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histospace_tf import faults
from histospace_tf.config import TileConfig
from histospace_tf.vocabulary import Problem

_LISTED = 20  # images that are listed one by one; --json lists all


@dataclasses.dataclass(frozen=True)
class SectionRow:
    """One section in numbers.

    image_px: (width, height), None without an image.
    overlapping: spots whose tile, of the recommended size and scale, overlaps another spot's tile;
        None where the scale is unknown.
    """

    name: str
    patient: str
    spots: int
    genes: int
    median_counts: float
    image_px: tuple[int, int] | None
    mpp: float | None
    spot_pitch_px: float | None
    overlapping: int | None


@dataclasses.dataclass(frozen=True)
class FolderRow:
    """The images of one folder in numbers; sizes are (width, height) in pixels."""

    name: str
    images: int
    sources: int
    smallest_px: tuple[int, int]
    largest_px: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ImageRow:
    """One image in numbers.

    name: its path below the folder that was checked.
    kind, size_px, levels: see `image_checks.Thumbnail`.
    mpp: microns per pixel that the file states. tissue: share of the picture that is tissue.
    """

    name: str
    kind: str
    size_px: tuple[int, int]
    levels: int
    mpp: float | None
    tissue: float


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """A data folder in numbers, and what is wrong with it.

    layout: a name of readers.LAYOUTS, or "images" for images without counts.
    images: where the layout is "images".
    genes, shared_genes: genes in any section, and in every section.
    absent_is_zero: see `Cohort`.
    overlays: pictures that were drawn, one per section.
    """

    source: Path
    layout: str
    sections: tuple[SectionRow, ...]
    folders: tuple[FolderRow, ...]
    images: tuple[ImageRow, ...]
    genes: int
    shared_genes: int
    absent_is_zero: bool
    problems: tuple[Problem, ...]
    overlays: tuple[Path, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of `faults`: sound (notes at most); usable, with warnings; or unusable."""
        severities = {problem.severity for problem in self.problems}
        if "error" in severities:
            return faults.MISTAKE
        return faults.USABLE if "warning" in severities else faults.DONE

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "source": str(self.source),
            "layout": self.layout,
            "sections": [dataclasses.asdict(row) for row in self.sections],
            "folders": [dataclasses.asdict(row) for row in self.folders],
            "images": [dataclasses.asdict(row) for row in self.images],
            "genes": self.genes,
            "shared_genes": self.shared_genes,
            "problems": [_problem_json(problem) for problem in self.problems],
            "overlays": [str(path) for path in self.overlays],
            "exit_code": self.exit_code,
        }

    def text(self) -> str:
        """The report as plain text with aligned columns."""
        blocks = [_images_text(self) if self.layout == "images" else _sections_text(self)]
        for severity, title in (("error", "Errors"), ("warning", "Warnings"), ("note", "Notes")):
            these = [problem for problem in self.problems if problem.severity == severity]
            if these:
                blocks.append("\n".join([f"{title}:", *(f"  {problem}" for problem in these)]))
        if self.overlays:
            blocks.append("\n".join(["Overlays:", *(f"  {path}" for path in self.overlays)]))
        counts = Counter(problem.severity for problem in self.problems)
        verdict = ("sound", "usable, with warnings", "unusable until the errors are corrected")
        said = [
            f"{counts[severity]} {severity}{'s' * (counts[severity] > 1)}"
            for severity in ("error", "warning", "note")
            if counts[severity]
        ]
        blocks.append(
            f"Verdict: {verdict[self.exit_code]}" + (f" ({', '.join(said)})" if said else "")
        )
        return "\n\n".join(blocks)


def _problem_json(problem: Problem) -> dict[str, str]:
    return {
        "severity": problem.severity,
        "where": problem.where,
        "message": problem.message,
        "mend": problem.advice,
    }


def _sections_text(report: CheckReport) -> str:
    patients = len({row.patient for row in report.sections})
    tile = TileConfig()
    head = (
        f"{report.source}: layout {report.layout}, {len(report.sections)} section(s) of {patients} "
        f"patient(s), {sum(row.spots for row in report.sections)} spots, {report.genes} genes "
        f"({report.shared_genes} of them in every section"
        f"{'; absent means zero counts' if report.absent_is_zero else ''})"
    )
    if not report.sections:
        return f"{report.source}: layout {report.layout}, no section that can be used"
    titles = (
        "section,patient,spots,genes,counts/spot,image px,um/px,spot pitch px,tiles overlapping"
    )
    table = [tuple(titles.split(","))]
    for row in report.sections:
        cells = (
            row.name,
            row.patient,
            row.spots,
            row.genes,
            f"{row.median_counts:.0f}",
            "none" if row.image_px is None else _size(row.image_px),
            "unknown" if row.mpp is None else f"{row.mpp:.3f}",
            "unknown" if row.spot_pitch_px is None else f"{row.spot_pitch_px:.1f}",
            "unknown" if row.overlapping is None else f"{row.overlapping} of {row.spots}",
        )
        table.append(tuple(str(cell) for cell in cells))
    foot = (
        "counts/spot: median; tiles overlapping: spots whose tile of "
        f"{tile.tile_px} px at {tile.mpp} um/px overlaps another's"
    )
    return "\n".join([head, "", *_aligned(table, left=2), "", foot])


def _images_text(report: CheckReport) -> str:
    head = (
        f"{report.source}: images without counts, {sum(row.images for row in report.folders)} in "
        f"all, from {sum(row.sources for row in report.folders)} source(s) (patients where names "
        "tell, else images)"
    )
    table = [("folder", "images", "sources", "smallest px", "largest px")]
    table += [
        (row.name, str(row.images), str(row.sources), _size(row.smallest_px), _size(row.largest_px))
        for row in report.folders
    ]
    lines = [head, "", *_aligned(table, left=1)]
    if len(report.images) <= _LISTED:
        one = [("image", "format", "px", "levels", "um/px", "tissue")]
        one += [
            (
                row.name,
                row.kind,
                _size(row.size_px),
                str(row.levels),
                "not stated" if row.mpp is None else f"{row.mpp:.3f}",
                f"{row.tissue:.0%}",
            )
            for row in report.images
        ]
        lines += ["", *_aligned(one, left=2)]
    return "\n".join(lines)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _aligned(table: Sequence[tuple[str, ...]], *, left: int) -> list[str]:
    """Rows as lines; the first `left` columns flush left, the others right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]

"""Reads one section of legacy Spatial Transcriptomics from three files: counts, spots, image.

A spot is named "XxY" by its array position; a count table has one row per
spot. A gene that is absent from a section's table has zero counts there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from histospace_tf.data_pipelines.counts import raw_counts
from histospace_tf.data_pipelines.readers import legacy_tables, measured
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.spots import placement, scale, tissue_overlap
from histospace_tf.data_pipelines.spots.platforms import LEGACY_ST
from histospace_tf.vocabulary import InputError, Problem, Section, SpotTable, named


@dataclasses.dataclass(frozen=True, kw_only=True)
class LegacySection(Source):
    """The files of one section: a table of counts, a table of spots, and perhaps an image."""

    counts: Path
    spots: Path

    def _read(
        self, where: str, thumbnail: image_checks.Thumbnail | None, problems: list[Problem]
    ) -> Section | None:
        if self.image is None and self.image_is_missed:
            problems.append(
                Problem(
                    "note",
                    where,
                    "there is no image: its counts are read, no tile can be cut.",
                    "Add the H&E to train on it.",
                )
            )
        spots = legacy_tables.read_spots(self.spots)
        problems += [Problem("note", where, f"{self.spots.name}: {note}.") for note in spots.notes]
        if spots.unselected:
            problems.append(
                Problem(
                    "note",
                    where,
                    f"{spots.unselected} of {spots.unselected + len(spots.names)} spots are not "
                    "selected (column selected is 0): skipped.",
                )
            )
        fit = placement.fit_array(spots.array_xy, spots.pixel_xy, pitch_um=LEGACY_ST.pitch_um)
        size = None if thumbnail is None else thumbnail.size_px
        off_array = placement.array_problems(where, spots.names, fit, size=size)
        on_image, off_image = tissue_overlap.on_image(where, spots.names, spots.pixel_xy, thumbnail)
        problems += [*off_image, *off_array]
        is_wrong = any(problem.severity == "error" for problem in (*off_image, *off_array))
        if is_wrong:  # shown as it is
            on_image = np.ones(len(spots.names), bool)
        stated = [
            scale.StatedScale(self.mpp, "as given", settles=True),
            *([] if fit is None or not fit.is_plausible else [fit.stated_scale()]),
            scale.StatedScale(
                None if thumbnail is None else thumbnail.stated_mpp, "from the image file"
            ),
        ]
        mpp, of_scale = scale.chosen_scale(where, stated)
        problems += [problem for problem in of_scale if problem.severity != "note"]
        section, more = _joined(self, where, spots, on_image, mpp)
        problems += more
        if not is_wrong:
            problems += tissue_overlap.section_placement(section, thumbnail)
        return section


def _joined(
    files: LegacySection,
    where: str,
    spots: legacy_tables.Spots,
    on_image: np.ndarray,
    mpp: float | None,
) -> tuple[Section, list[Problem]]:
    """Joins spots with their counts.

    Args:
        on_image: (n,) bool: which of the n spots are kept.

    Raises:
        InputError: the counts are damaged or do not belong to these spots.
    """
    problems = []
    counts = legacy_tables.read_counts(files.counts, wanted=spots.names)
    row_of = {name: row for row, name in enumerate(counts.names)}
    has_row = np.array([name in row_of for name in spots.names])
    lacking = [name for name in spots.names if name not in row_of]
    all_names = {*counts.names, *counts.others}
    exchanged = sum("x".join(reversed(name.split("x"))) in all_names for name in spots.names)
    if has_row.mean() < 0.9 <= exchanged / len(has_row):
        raise InputError(
            f"x and y look swapped: {has_row.sum()} of {len(has_row)} spots of "
            f"{str(files.spots)!r} have a row in {str(files.counts)!r}, and {exchanged} would with "
            "x and y exchanged; both name a spot by array column, then row"
        )
    if not has_row.any():
        raise InputError(
            f"none of the {len(has_row)} spots of {str(files.spots)!r} ({named(spots.names, 2)}) "
            f"has a row in {str(files.counts)!r} ({named(sorted(all_names), 2)}); rows are spots, "
            'named "XxY"'
        )
    if lacking:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(lacking)} of {len(has_row)} spots have no counts "
                f"({named(lacking, 3)}): skipped.",
            )
        )
    if counts.others:
        problems.append(
            Problem(
                "note",
                where,
                f"{len(counts.others)} of {len(all_names)} rows of counts have no spot in "
                f"{files.spots.name} ({named(counts.others, 3)}): skipped.",
            )
        )
    with_row = [name for name in spots.names if name in row_of]
    matrix = counts.matrix[[row_of[name] for name in with_row]]
    gene_counts = raw_counts.gene_counts(
        where, str(files.counts), with_row, matrix, raw_counts.Features(counts.genes)
    )
    problems += gene_counts.problems
    has_counts, more = measured.with_counts(where, with_row, gene_counts.counts, files.counts.name)
    problems += more
    table = SpotTable(
        names=tuple(with_row),
        centres_px=spots.pixel_xy[has_row],
        counts=gene_counts.counts,
        genes=gene_counts.genes,
        gene_ids=gene_counts.gene_ids,
    )
    section = Section(
        name=files.name,
        patient=files.patient,
        image=files.image,
        spots=table.subset(has_counts & on_image[has_row]),
        mpp=mpp,
        spot_diameter_um=LEGACY_ST.spot_um,
        spot_pitch_um=LEGACY_ST.pitch_um,
    )
    return section, problems

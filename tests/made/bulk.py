"""Slides whose bulk expression is the sum of their spots' counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import readers, simulation


def write_slides(folder: Path, *, patients: int, sections_per_patient: int = 1) -> Path:
    """FOLDER/slides, images alone, and FOLDER/bulk.csv, raw counts; simulated tissue.

    Returns:
        FOLDER.
    """
    simulation.simulate(
        folder / "tissue",
        patients=patients,
        sections_per_patient=sections_per_patient,
        spots_xy=(4, 4),
        seed=11,
    )
    (folder / "slides").mkdir()
    rows = []
    for section in readers.read_cohort(folder / "tissue").sections:
        assert section.image is not None
        section.image.rename(folder / "slides" / f"{section.name}.jpg")
        counts = np.asarray(section.spots.counts.sum(axis=0)).ravel().astype(int)
        sums = dict(zip(section.spots.genes, counts, strict=True))
        rows.append({"slide": section.name, "patient": section.patient, **sums})
    pd.DataFrame(rows).fillna(0).convert_dtypes().to_csv(folder / "bulk.csv", index=False)
    return folder

"""uns["spatial"]: the picture of a slide beside its places, as scanpy and squidpy read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.reports import maps
from histospace_tf.vocabulary import Section, printable


def entry(image: Path, overview: slides.Overview, *, places: str, size_px: float) -> dict[str, Any]:
    """One slide's entry.

    Args:
        image: the slide's file, for its name.
        overview: of the slide.
        places: "grid" or "spots".
        size_px: side of a tile or diameter of a spot in full-resolution pixels.
    Returns:
        images["hires"] (h, w, 3) uint8; scalefactors tissue_hires_scalef, picture pixels per
        full-resolution pixel, and spot_diameter_fullres; metadata source_image, places and, where
        the scale is known, mpp.
    """
    metadata: dict[str, str | float] = {"source_image": printable(image.name), "places": places}
    if overview.mpp is not None:
        metadata["mpp"] = overview.mpp
    return {
        "images": {"hires": np.array(overview.picture)},
        "scalefactors": {
            "tissue_hires_scalef": 1.0 / overview.scale,
            "spot_diameter_fullres": size_px,
        },
        "metadata": metadata,
    }


def with_images(
    table: anndata.AnnData,
    sections: Sequence[Section],
    overview_of: slides.OverviewOf = slides.section_overview,
) -> anndata.AnnData:
    """Held-out predictions with one entry per section, under the section's name.

    squidpy draws all with library_key="section"; scanpy one, by library_id, of that section's rows.

    Args:
        table: of `prediction_tables.joined`, with obs section.
        sections: those of the table are shown, if they have an image.
        overview_of: gives their overviews of slides.ENTRY_PX.
    Returns:
        A copy; obs section is categorical.
    """
    shown = table.copy()
    shown.obs["section"] = shown.obs["section"].astype("category")
    names = set(shown.obs["section"])
    entries = {}
    for section in sections:
        if section.name not in names or section.image is None:
            continue
        overview = overview_of(section, slides.ENTRY_PX)
        diameter = maps.spot_diameter_px(
            section.spot_diameter_um, overview.mpp, section.spots.centres_px
        )
        entries[section.name] = entry(section.image, overview, places="spots", size_px=diameter)
    shown.uns["spatial"] = entries
    return shown

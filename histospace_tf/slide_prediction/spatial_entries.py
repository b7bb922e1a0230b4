"""uns["spatial"]: the picture of a slide beside its places, as scanpy and squidpy read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata

from histospace_tf.data_pipelines import slides
from histospace_tf.reports import maps
from histospace_tf.vocabulary import Section, printable

OVERVIEW_PX = 2000  # of a predicted slide, as Space Ranger's "hires"
HELD_OUT_PX = 600  # of each of a run's held-out sections, as its "lowres"


def entry(slide: slides.SlideImage, *, places: str, size_px: float, max_px: int) -> dict[str, Any]:
    """One slide's entry.

    Args:
        slide: an open slide.
        places: "grid" or "spots".
        size_px: side of a tile or diameter of a spot in full-resolution pixels.
        max_px: longer side of the picture.
    Returns:
        images["hires"] (h, w, 3) uint8; scalefactors tissue_hires_scalef, picture pixels per
        full-resolution pixel, and spot_diameter_fullres; metadata source_image, places and, where
        the scale is known, mpp.
    """
    picture, scale = slide.overview(max_px)
    metadata: dict[str, str | float] = {
        "source_image": printable(slide.path.name),
        "places": places,
    }
    if slide.mpp is not None:
        metadata["mpp"] = slide.mpp
    return {
        "images": {"hires": picture},
        "scalefactors": {
            "tissue_hires_scalef": 1.0 / scale,
            "spot_diameter_fullres": size_px,
        },
        "metadata": metadata,
    }


def with_images(table: anndata.AnnData, sections: Sequence[Section]) -> anndata.AnnData:
    """Held-out predictions with one entry per section, under the section's name.

    squidpy draws all with library_key="section"; scanpy one, by library_id, of that section's rows.

    Args:
        table: of `prediction_tables.joined`, with obs section.
        sections: those of the table are opened, if they have an image.
    Returns:
        A copy; obs section is categorical.
    """
    found = table.copy()
    found.obs["section"] = found.obs["section"].astype("category")
    there = set(found.obs["section"])
    entries = {}
    for section in sections:
        if section.name not in there or section.image is None:
            continue
        with slides.open_slide(section.image, mpp=section.mpp) as slide:
            diameter = maps.spot_diameter_px(
                section.spot_diameter_um, slide.mpp, section.spots.centres_px
            )
            entries[section.name] = entry(
                slide, places="spots", size_px=diameter, max_px=HELD_OUT_PX
            )
    found.uns["spatial"] = entries
    return found

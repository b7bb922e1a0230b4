"""uns["spatial"]: the picture of a slide beside its tiles or spots, as scanpy and squidpy read it.

`entry` and `with_images` write it, `shapes_of` reads it back as the shapes that a prediction's
values belong to. Coordinates are full-resolution pixels with pixel centres at whole numbers. QuPath
and SpatialData have the image's top left corner at (0, 0), half a pixel farther up and left;
`Shapes.corner_px` is in their frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from histospace_tf.data_pipelines import slides
from histospace_tf.reports import maps
from histospace_tf.vocabulary import InputError, Section, named, printable

CIRCLE_CORNERS = 32  # a multiple of 4, so that the polygon's box is the circle's


def entry(image: Path, overview: slides.Overview, *, kind: str, size_px: float) -> dict[str, Any]:
    """One slide's entry.

    Args:
        image: the slide's file, for its name.
        overview: of the slide.
        kind: "grid" or "spots".
        size_px: side of a tile or diameter of a spot in full-resolution pixels.
    Returns:
        images["hires"] (h, w, 3) uint8; scalefactors tissue_hires_scalef, picture pixels per
        full-resolution pixel, and spot_diameter_fullres; metadata source_image, places and, where
        the scale is known, mpp.
    """
    metadata: dict[str, str | float] = {"source_image": printable(image.name), "places": kind}
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
    overview_of: slides.OverviewOf,
) -> anndata.AnnData:
    """Held-out predictions with one entry per section, under the section's name.

    squidpy draws all with library_key="section"; scanpy one, by library_id, of that section's rows.

    Args:
        table: of `held_out.joined`, with obs section.
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
        entries[section.name] = entry(section.image, overview, kind="spots", size_px=diameter)
    shown.uns["spatial"] = entries
    return shown


@dataclasses.dataclass(frozen=True, eq=False)
class Shapes:
    """The tiles or spots of one slide.

    slide: its name, the key in uns["spatial"].
    centres_px: (n, 2) float64 full-resolution pixels, x first, pixel centres at whole numbers.
    size_px: side of a square, or diameter of a disc, in those pixels.
    square: tiles of a grid (True) or spots (False).
    mpp: microns per pixel; None if unknown.
    image: (h, w, 3) uint8, an overview of the whole slide.
    scale: full-resolution pixels per pixel of `image`.
    """

    slide: str
    centres_px: np.ndarray
    size_px: float
    square: bool
    mpp: float | None
    image: np.ndarray
    scale: float

    @property
    def corner_px(self) -> np.ndarray:
        """(n, 2) centres with the image's top left corner at (0, 0)."""
        return self.centres_px + 0.5

    def polygons_px(self) -> np.ndarray:
        """(n, k, 2) closed rings in `corner_px`'s frame: squares, or circles of CIRCLE_CORNERS."""
        if self.square:
            ring = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], np.float64)
        else:
            turn = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS + 1)
            ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
            ring[-1] = ring[0]
        return self.corner_px[:, None] + ring * self.size_px / 2


def shapes_of(table: anndata.AnnData) -> Shapes:
    """The tiles or spots of a prediction.

    Args:
        table: of `predicting.predict`: obsm["spatial"], and one slide in uns["spatial"].
    Raises:
        InputError: a part is missing or of another form, or there are several slides.
    """
    slides = table.uns.get("spatial", {})
    if "spatial" not in table.obsm or not slides:
        raise InputError(
            'the table has no obsm["spatial"] or no uns["spatial"], so it cannot be placed on a '
            "slide; an .h5ad that `histospace-tf predict` wrote has both"
        )
    if len(slides) > 1:
        raise InputError(
            f"the table holds {len(slides)} slides ({named(list(slides))}); one at a time can be "
            "written, as `histospace-tf predict` writes it"
        )
    ((slide, library),) = slides.items()
    try:
        image = np.asarray(library["images"]["hires"])
        factors = library["scalefactors"]
        scale = 1.0 / float(factors["tissue_hires_scalef"])
        size_px = float(factors["spot_diameter_fullres"])
    except KeyError as error:
        raise InputError(f'uns["spatial"][{slide!r}] lacks {error}') from None
    centres = np.asarray(table.obsm["spatial"])
    for part, fits in (
        ('images["hires"]', image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3),
        ("scalefactors", np.isfinite([scale, size_px]).all() and min(scale, size_px) > 0),
        ('obsm["spatial"]', centres.dtype.kind in "iuf" and centres.shape == (table.n_obs, 2)),
    ):
        if not fits:
            raise InputError(
                f"slide {str(slide)!r}: {part} has another form than `histospace-tf predict` writes"
            )
    metadata = library.get("metadata", {})
    return Shapes(
        slide=str(slide),
        centres_px=centres.astype(np.float64),
        size_px=size_px,
        square=metadata.get("places") == "grid",
        mpp=float(metadata["mpp"]) if "mpp" in metadata else None,  # left out where unknown
        image=image,
        scale=scale,
    )

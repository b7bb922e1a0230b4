"""Where expression was predicted: the shapes that a prediction's values belong to.

A prediction's coordinates are full-resolution pixels with pixel centres at whole numbers. QuPath
and SpatialData have the image's top left corner at (0, 0), half a pixel farther up and left;
`corner_px` is in their frame.
"""

from __future__ import annotations

import dataclasses

import anndata
import numpy as np

from histospace_tf.vocabulary import InputError, named

CIRCLE_CORNERS = 32  # a multiple of 4, so that the polygon's box is the circle's


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
        InputError: a part is missing, or there are several slides.
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
    metadata = library.get("metadata", {})
    return Shapes(
        slide=str(slide),
        centres_px=np.asarray(table.obsm["spatial"], np.float64),
        size_px=size_px,
        square=metadata.get("places") == "grid",
        mpp=float(metadata["mpp"]) if "mpp" in metadata else None,  # left out where unknown
        image=image,
        scale=scale,
    )

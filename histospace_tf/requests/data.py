"""What may be asked about data alone: check, tissue, normalize, simulate; how paired data are
read."""

from __future__ import annotations

from typing import Any, ClassVar

from histospace_tf.request_options import (
    OnePath,
    OptionalPath,
    Options,
    again,
    option,
    unchanged,
)
from histospace_tf.slide_prediction import GRID_STEP_UM


def _methods() -> list[str]:
    from histospace_tf.vocabulary import STAIN_METHODS

    return [method for method in STAIN_METHODS if method != "none"]


class Reading(Options):
    """Options that say how paired data are read."""

    layout: str | None = option(
        default=None, help="Layout of `data`, where it is not recognised.", resumed=unchanged
    )
    image: OptionalPath = option(
        default=None, help="Full-resolution image of `data`'s only section.", resumed=str
    )
    mpp: float | None = option(
        default=None,
        help="Microns per pixel of `data`'s images, where not known.",
        unit="um/px",
        resumed=unchanged,
    )
    section_column: str | None = option(
        default=None,
        help="Column of AnnData's obs that tells sections apart.",
        unset="by uns['spatial']",
        metavar="NAME",
        resumed=unchanged,
    )

    def how(self) -> dict[str, Any]:
        """These options, as `readers.read_cohort` takes them."""
        return {
            "layout": self.layout,
            "image": self.image,
            "mpp": self.mpp,
            "section_column": self.section_column,
        }


class CheckRequest(Reading):
    """Say what is in a data folder, an image or a slide, what is wrong with it, and what to do."""

    data: OnePath = option(help="Data folder, image or slide.", flag="DATA", kw_only=False)
    _shared: ClassVar[None]
    as_json: bool = option(default=False, help="Print JSON instead of text.", flag="--json")
    overlay: OptionalPath = option(
        default=None, help="Folder to draw each section's spots over its image."
    )


class TissueRequest(Options):
    """Write the outline of a slide's tissue, as predict finds it, for QuPath."""

    slide: OnePath = option(help="H&E image or whole-slide file.", flag="SLIDE", kw_only=False)
    geojson: OnePath = option(help="File of annotations to write.", is_required=True)
    mpp: float | None = option(
        default=None, help="Microns per pixel, where the image does not say.", unit="um/px"
    )
    step_um: float | None = option(
        default=None,
        help="Distance of the grid's tiles in microns, as of predict.",
        unset=f"{GRID_STEP_UM:g}",
        unit="um",
    )
    force: bool = option(default=False, help="Replace a finished file.")


class NormalizeRequest(Options):
    """Standardise the colours of H&E images, and draw the steps."""

    images: OnePath = option(help="One image, or a folder of images.", flag="IMAGES", kw_only=False)
    out: OnePath = option(help="Folder to write.", is_required=True)
    method: str = option(default="vahadane", help="", legal=_methods)
    reference: OptionalPath = option(
        default=None, help="Image whose colours are taken.", unset="textbook H&E"
    )
    white_field: bool = option(
        default=False,
        help="Take shadows and gradients away: white from place to place, estimated from glass.",
    )
    seed: int = option(default=0, help="Seed of the pixel sample.")
    force: bool = option(default=False, help="Replace a finished folder.")


class SimulateRequest(Options):
    """Make tissue with known truth, in the legacy Spatial Transcriptomics layout."""

    out: OnePath = option(help="Folder to write.", is_required=True)
    patients: int = option(default=5, help="2 to 26, of one section each.")
    same_levels: bool = option(
        default=False, help="Patients express alike and differ by their tissue alone."
    )
    seed: int = option(default=0, help="The same seed gives the same tissue.")
    force: bool = again(NormalizeRequest, "force")

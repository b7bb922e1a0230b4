"""A slide -> the outline of its tissue, as `predict` finds it, for a person to correct."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import shapely

from histospace_tf import outputs
from histospace_tf.data_pipelines import regions, slides, tiles
from histospace_tf.data_pipelines.slides import image_checks, outlines
from histospace_tf.outputs import say
from histospace_tf.requests import TissueRequest, refusals
from histospace_tf.slide_prediction import GRID_STEP_UM
from histospace_tf.vocabulary import InputError, printable

# Pixels of the picture that tissue is found on, an eighth of a square of the grid or less: corners
# fall to an eighth, and on HER2ST, MOB and OpenSlide's CMU-1 no more than 3 of 1,271 squares change
# sides (`tests/test_outlining.py` holds it on made tissue).
TOLERANCE_PX = 1.0
_DECIMALS = 1
_COLOUR = [0, 160, 120]  # of the class, where QuPath does not know it yet


@dataclasses.dataclass(frozen=True)
class Outlined:
    """What was written: the file, pieces of tissue, their area."""

    out: Path
    slide: Path
    pieces: int
    mm2: float
    share: float

    def summary(self) -> str:
        """What was written and what to do with it, as text."""
        return (
            f"{self.pieces} pieces of tissue, {self.mm2:.3g} mm2, {self.share:.0%} of the image\n"
            f"  {self.out}\n\n"
            f"Next: correct it in QuPath, then histospace-tf predict {self.slide} --tissue "
            f"{self.out} --out {self.slide.stem}.h5ad"
        )


def outline(request: TissueRequest) -> Outlined:
    """Writes the outline of a slide's tissue as annotations of class "Tissue", one per piece.

    Full-resolution pixels from the image's top left corner, holes kept, simplified to TOLERANCE_PX.

    Raises:
        InputError: an unreadable image, an unknown scale, no tissue, a finished file.
    """
    refusals.refuse(request)
    with slides.open_slide(request.slide, mpp=request.mpp) as slide:
        mpp = slide.mpp
        assert mpp is not None
        where = f"image {str(request.slide)!r}"
        problems = image_checks.slide_problems(where, slide)
        for problem in image_checks.refuse_errors(problems):
            say(str(problem))
        side_px = (GRID_STEP_UM if request.step_um is None else request.step_um) / mpp
        if not side_px >= 1:
            raise InputError(f"{request.slide}: `step_um` {request.step_um:g} is less than a pixel")
        longest_px = tiles.overview_px(slide, max(1, round(side_px)))
        mask, (_, scale) = slide.tissue(longest_px), slide.overview(longest_px)
        if not mask.any():
            raise InputError(f"{where}: no tissue found")
        found = outlines.outlined(mask, scale, tolerance_px=TOLERANCE_PX)
        whole = shapely.intersection(found, shapely.box(0, 0, slide.width_px, slide.height_px))
    pieces = [part for part in shapely.get_parts(whole) if isinstance(part, shapely.Polygon)]
    pieces.sort(key=lambda piece: -piece.area)
    with outputs.whole_file(request.geojson) as draft:
        draft.write_text(_geojson(pieces, request.slide, mpp), encoding="utf-8")
    mm2 = sum(piece.area for piece in pieces) * (mpp / 1000) ** 2
    return Outlined(request.geojson, request.slide, len(pieces), mm2, float(mask.mean()))


def _geojson(pieces: list[shapely.Polygon], slide: Path, mpp: float) -> str:
    """A FeatureCollection as QuPath imports it."""
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    shapely.get_coordinates(ring).round(_DECIMALS).tolist()
                    for ring in shapely.get_rings(piece)
                ],
            },
            "properties": {
                "objectType": "annotation",
                "name": f"{regions.TISSUE} {number}",
                "classification": {"name": regions.TISSUE, "color": _COLOUR},
            },
        }
        for number, piece in enumerate(pieces, 1)
    ]
    about = {"slide": printable(slide.name), "mpp": mpp}
    whole = {"type": "FeatureCollection", "histospace_tf": about, "features": features}
    return json.dumps(whole, allow_nan=False)

"""Previews: shrunk copies of an image, which must not be used in its place, and their scales.

Spot coordinates are full-resolution pixels. Space Ranger keeps a high- and a low-resolution copy
with its output, in its folder spatial/ with their scale factors; AnnData files carry such copies
along; the image itself is the user's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import slides, text_files
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.vocabulary import InputError, Problem

_NUCLEUS_UM = 8.0
PICTURE_PX = 512  # of what is kept of a preview
_BLACK = 8  # grey levels; a picture without a brighter pixel shows nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Preview:
    """A shrunk copy of an image.

    name: "hires", "lowres", ...; scale: its pixels per full-resolution pixel.
    size_px: (width, height); None where the copy itself is missing.
    black: it shows nothing.
    picture: (h, w, 3) uint8 RGB, the copy with at most PICTURE_PX per side; None where it is
        missing or cannot be read.
    """

    name: str
    scale: float
    size_px: tuple[int, int] | None = None
    black: bool = False
    picture: np.ndarray | None = None

    @property
    def full_px(self) -> tuple[int, int] | None:
        """(width, height) of the full-resolution image, exact to a pixel or two of the copy."""
        if self.size_px is None:
            return None
        width, height = self.size_px
        return round(width / self.scale), round(height / self.scale)


def of_file(name: str, scale: float, file: Path) -> Preview:
    """Reads a preview from a file; a damaged one counts as missing."""
    try:
        with slides.open_slide(file, mpp=1.0) as image:
            size = (image.width_px, image.height_px)
            picture, _ = image.overview(PICTURE_PX)
    except InputError:
        return Preview(name, scale)
    return Preview(name, scale, size, bool(picture.max() < _BLACK), picture)


def of_array(name: str, scale: float, values: np.ndarray) -> Preview:
    """Takes a preview from an array, as scanpy keeps it; one of another form counts as missing.

    Args:
        values: (h, w), (h, w, 3) or (h, w, 4), whole numbers up to 255 or fractions up to 1.
    """
    values = np.asarray(values)
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf" or not values.size:
        return Preview(name, scale)
    if values.ndim == 2 or values.shape[2] in (1, 2):
        values = np.repeat(values.reshape(*values.shape[:2], -1)[..., :1], 3, axis=2)
    height, width = values.shape[:2]
    values = np.nan_to_num(values[..., :3].astype(np.float32))
    if values.max() <= 1:
        values = values * 255
    picture = np.clip(np.round(values), 0, 255).astype(np.uint8)
    shrink = max(1.0, max(width, height) / PICTURE_PX)
    small = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    picture = slides.resampled(picture, small)
    return Preview(name, scale, (width, height), bool(picture.max() < _BLACK), picture)


def without_image(
    where: str, shrunk: Sequence[Preview], mpp: float | None, tile: TileConfig
) -> Problem:
    """The problem of a section without its full-resolution image."""
    there = [preview for preview in shrunk if preview.size_px is not None]
    if not there:
        return Problem(
            "warning",
            where,
            "there is no full-resolution image: its counts are read, no tile can be cut.",
            "Give the image with `image`, or in the table sections.csv.",
        )
    descriptions = "; ".join(described(preview, mpp, tile) for preview in there)
    best = there[0]
    return Problem(
        "warning",
        where,
        f"there is no full-resolution image, only {descriptions}. Previews are not used.",
        f"Give the original image{about(best)} with `image`, or in the table sections.csv.",
    )


def about(preview: Preview) -> str:
    """Size of the full-resolution image, for a sentence; "" where the preview is missing."""
    full = preview.full_px
    return "" if full is None else f" (about {full[0]} x {full[1]} px)"


def described(preview: Preview, mpp: float | None, tile: TileConfig) -> str:
    """A preview's name and size, and what such tiles would be like at its scale."""
    size = "" if preview.size_px is None else f" of {preview.size_px[0]} x {preview.size_px[1]} px"
    text = f"the {preview.name} preview{size}"
    if preview.black:
        text = f"the black {preview.name} preview{size}"
    if mpp is None:
        return text
    own, side_um = mpp / preview.scale, tile.tile_px * (tile.mpp or mpp)
    sense = (
        "tiles would still make sense"
        if own <= image_checks.COARSE_MPP
        else f"a nucleus {_NUCLEUS_UM / own:.1g} px, too coarse for tiles"
    )
    return (
        f"{text} ({own:.3g} um per pixel: a tile of {side_um:.0f} um would have "
        f"{side_um / own:.0f} px, {sense})"
    )


@dataclasses.dataclass(frozen=True)
class ScaleFactors:
    """The values of scalefactors_json.json.

    spot_diameter_px: nominal diameter of a spot in full-resolution pixels.
    shrunk: name of a preview -> its pixels per full-resolution pixel.
    bin_um, mpp: side of a bin and microns per pixel, stated for Visium HD alone.
    """

    spot_diameter_px: float | None
    shrunk: dict[str, float]
    bin_um: float | None
    mpp: float | None


def read_scale_factors(path: Path | None) -> ScaleFactors:
    """Reads scalefactors_json.json, plain or gzipped; without a file all factors are unknown.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    if path is None:
        return scale_factors_of({})
    try:
        values = json.loads(text_files.read_bytes(path, "scale factors").decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"scale factors {str(path)!r} are not JSON: {error}") from None
    return scale_factors_of(values if isinstance(values, dict) else {})


def scale_factors_of(values: dict[str, object]) -> ScaleFactors:
    """Scale factors from the values of scalefactors_json.json, or of an AnnData that kept them."""
    numbers = {}
    for name, value in values.items():
        try:
            number = float(np.asarray(value).item())  # AnnData may hold arrays of one number
        except (TypeError, ValueError):
            continue
        if np.isfinite(number) and number > 0:
            numbers[name] = number
    shrunk = {
        name.removeprefix("tissue_").removesuffix("_scalef"): number
        for name, number in numbers.items()
        if name.startswith("tissue_") and name.endswith("_scalef")
    }
    return ScaleFactors(
        spot_diameter_px=numbers.get("spot_diameter_fullres"),
        shrunk=dict(sorted(shrunk.items(), key=lambda item: -item[1])),
        bin_um=numbers.get("bin_size_um"),
        mpp=numbers.get("microns_per_pixel"),
    )


def of_run(files: Mapping[str, Path], scales: ScaleFactors) -> tuple[Preview, ...]:
    """Reads the previews that scale factors name, finest first.

    Args:
        files: "hires", "lowres" -> the preview's picture, perhaps gzipped, where there is one.
    """
    previews = []
    for name, scale in scales.shrunk.items():
        preview = Preview(name, scale)
        if name in files:
            # A file that cannot be unpacked is as good as none: previews are never used as images.
            with contextlib.suppress(InputError), text_files.plain_file(files[name]) as file:
                preview = of_file(name, scale, file)
        previews.append(preview)
    return tuple(previews)

"""Space Ranger's scale factors and previews, in its folder spatial/."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from histospace_tf.data_pipelines import packed
from histospace_tf.data_pipelines.spots import previews
from histospace_tf.data_pipelines.spots.previews import Preview
from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True)
class Scales:
    """scalefactors_json.json.

    spot_diameter_px: nominal spot in full-resolution pixels.
    shrunk: name of a preview -> its pixels per full-resolution pixel.
    bin_um, mpp: side of a bin and microns per pixel, of Visium HD alone.
    """

    spot_diameter_px: float | None
    shrunk: dict[str, float]
    bin_um: float | None
    mpp: float | None


def read_scales(path: Path | None) -> Scales:
    """The scale factors of a file scalefactors_json.json, plain or gzipped; all unknown without it.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    if path is None:
        return scales_of({})
    try:
        values = json.loads(packed.content(path, "scale factors").decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"scale factors {str(path)!r} are not JSON: {error}") from None
    return scales_of(values if isinstance(values, dict) else {})


def scales_of(values: dict[str, object]) -> Scales:
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
    return Scales(
        spot_diameter_px=numbers.get("spot_diameter_fullres"),
        shrunk=dict(sorted(shrunk.items(), key=lambda item: -item[1])),
        bin_um=numbers.get("bin_size_um"),
        mpp=numbers.get("microns_per_pixel"),
    )


def previews_of(files: Mapping[str, Path], scales: Scales) -> tuple[Preview, ...]:
    """The previews that scale factors speak of, finest first.

    files: "hires", "lowres" -> the preview's picture, perhaps gzipped, where there is one.
    """
    found = []
    for name, scale in scales.shrunk.items():
        preview = Preview(name, scale)
        if name in files:
            # A file that cannot be unpacked is as good as none: previews are never used as images.
            with contextlib.suppress(InputError), packed.plain_file(files[name]) as file:
                preview = previews.of_file(name, scale, file)
        found.append(preview)
    return tuple(found)

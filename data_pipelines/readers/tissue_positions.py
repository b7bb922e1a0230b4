"""Space Ranger's folder spatial/: where spots are, and how its previews are scaled."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import packed
from histospace_tf.data_pipelines.readers.previews import Preview
from histospace_tf.vocabulary import InputError, named, repeats

# Newest form first: with a header, with a header, without one.
FILES = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_COLUMNS = (
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)
_BLACK = 8  # grey levels; a picture without a brighter pixel shows nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Positions:
    """All spots of an array.

    barcodes: n names; in_tissue: (n,) bool.
    array_xy: (n, 2) array column and row; pixel_xy: (n, 2) full-resolution pixels, x first.
    """

    file: Path
    barcodes: tuple[str, ...]
    in_tissue: np.ndarray
    array_xy: np.ndarray
    pixel_xy: np.ndarray


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


def read_positions(path: Path) -> Positions:
    """Positions in any of the three forms.

    Raises:
        InputError: the file is damaged, of another form, empty, names a barcode twice, or a
            coordinate is not a number.
    """
    table = _table(path)
    lacking = [name for name in _COLUMNS if name not in table]
    if lacking:
        raise InputError(
            f"spot positions {str(path)!r} lack {named(lacking)}; they have columns "
            f"{named([str(name) for name in table.columns], 6)}"
        )
    if table.empty:
        raise InputError(f"spot positions {str(path)!r} hold no spots")
    barcodes = [str(name) for name in table["barcode"]]
    twice = repeats(barcodes)
    if twice:
        raise InputError(
            f"spot positions {str(path)!r} name {len(twice)} spot(s) more than once (first: "
            f"{twice[0]!r}); keep one row a spot"
        )
    numbers = {}
    for name in _COLUMNS[1:]:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
        if not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values)))
            raise InputError(
                f"spot positions {str(path)!r}, spot {barcodes[bad]!r}, {name}: "
                f"{table[name].iloc[bad]!r} is not a number"
            )
        numbers[name] = values
    # The files name rows before columns; here x, the column, comes first.
    return Positions(
        file=path,
        barcodes=tuple(barcodes),
        in_tissue=numbers["in_tissue"] != 0,
        array_xy=np.column_stack([numbers["array_col"], numbers["array_row"]]),
        pixel_xy=np.column_stack([numbers["pxl_col_in_fullres"], numbers["pxl_row_in_fullres"]]),
    )


def read_scales(path: Path | None) -> Scales:
    """The scale factors of a file scalefactors_json.json, plain or gzipped; all unknown without it.

    Raises:
        InputError: the file is not JSON.
    """
    if path is None:
        return scales_of({})
    try:
        values = json.loads(packed.content(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
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
        size, black = None, False
        if name in files:
            try:
                with packed.plain_file(files[name]) as file, slides.open_slide(file) as image:
                    size = (image.width_px, image.height_px)
                    black = bool(image.overview(256)[0].max() < _BLACK)
            except (InputError, OSError):
                size = None  # a damaged preview is as good as none: it is never used
        found.append(Preview(name, scale, size, black))
    return tuple(found)


def _table(path: Path) -> pd.DataFrame:
    try:
        file = io.BytesIO(packed.content(path))
        if ".parquet" in path.suffixes:
            return pd.read_parquet(file)
        table = pd.read_csv(file, header=None, dtype=str, keep_default_na=False)
        if table.iat[0, 0] == _COLUMNS[0]:  # whatever the file's name: its content tells
            return table[1:].set_axis(table.iloc[0], axis=1)
        return table.rename(columns=dict(enumerate(_COLUMNS)))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise InputError(
            f"spot positions {str(path)!r} cannot be read ({str(error).splitlines()[0]}); copy or "
            "download them again"
        ) from None

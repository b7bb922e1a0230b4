"""Tables of places to predict at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError, named

# Column pairs that a spot table may state its centres in: full-resolution pixels, x first.
CENTRE_COLUMNS = (("pixel_x", "pixel_y"), ("x_px", "y_px"), ("x", "y"))
NAME_COLUMNS = ("spot", "name", "barcode", "id", "place")


def read_places(path: Path, slide: slides.SlideImage) -> tuple[np.ndarray, list[str]]:
    """Centres and names from a table with a header line, separated by commas, tabs or semicolons.

    Args:
        path: columns pixel_x and pixel_y (or x_px and y_px, or x and y), in full-resolution pixels;
            names in a column spot, name, barcode or id, else numbered.
        slide: that they must lie on.
    Returns:
        (n, 2) float64, x first, and n unique names.
    Raises:
        InputError: no such file or columns, a value that is no number, a spot off the image.
    """
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str)
    except FileNotFoundError:
        raise InputError(f"spot table {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"spot table {str(path)!r} cannot be read: {error}") from None
    by_name = {str(column).strip().lower(): column for column in table.columns}
    pair = next((p for p in CENTRE_COLUMNS if p[0] in by_name and p[1] in by_name), None)
    if pair is None or not len(table):
        wanted = " or ".join(f"{x} and {y}" for x, y in CENTRE_COLUMNS)
        raise InputError(
            f"spot table {str(path)!r}: {len(table)} rows with columns "
            f"{named([str(c) for c in table.columns], 8)}; rows with columns {wanted} "
            "(full-resolution pixels) are needed"
        )
    columns = [pd.to_numeric(table[by_name[name]], errors="coerce") for name in pair]
    centres = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    named_by = next((by_name[name] for name in NAME_COLUMNS if name in by_name), None)
    names = [f"spot{i}" for i in range(len(table))]
    if named_by is not None:
        names = [str(name) for name in table[named_by]]
    if len(set(names)) < len(names):
        raise InputError(f"spot table {str(path)!r}: names in {named_by!r} are not unique")
    broken = ~np.isfinite(centres).all(axis=1)
    if broken.any():
        raise InputError(
            f"spot table {str(path)!r}: {broken.sum()} of {len(names)} rows (first: "
            f"{names[int(np.argmax(broken))]!r}) have no number in {pair[0]} or {pair[1]}"
        )
    size = np.array([slide.width_px, slide.height_px])
    off = ((centres < 0) | (centres > size - 1)).any(axis=1)
    if off.any():
        raise InputError(
            f"spot table {str(path)!r}: {off.sum()} of {len(names)} spots lie outside the "
            f"{slide.width_px} x {slide.height_px} px image (first: "
            f"{names[int(np.argmax(off))]!r}). Are the coordinates full-resolution pixels, x first?"
        )
    return centres, names

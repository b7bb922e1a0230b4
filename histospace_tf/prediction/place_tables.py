"""Places to predict at: a table, Space Ranger's spot positions, or the spots of an AnnData."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import measured, placement, tissue_positions
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named, repeats

# Column pairs that a spot table may state its centres in: full-resolution pixels, x first.
CENTRE_COLUMNS = (("pixel_x", "pixel_y"), ("x_px", "y_px"), ("x", "y"))
NAME_COLUMNS = ("spot", "name", "barcode", "id", "place")


def read_places(path: Path, slide: slides.SlideImage) -> tuple[np.ndarray, list[str]]:
    """Centres and names of places on a slide, in full-resolution pixels.

    Args:
        path: one of
            a table with a header line, separated by commas, tabs or semicolons: columns pixel_x
            and pixel_y (or x_px and y_px, or x and y), and names in a column spot, name, barcode
            or id, else numbered;
            Space Ranger's tissue_positions in any of its three forms, spots off tissue left out;
            an .h5ad with obsm["spatial"], x first, and its obs_names.
        slide: that they must lie on.
    Returns:
        (n, 2) float64, x first, and n unique names.
    Raises:
        InputError: no such file or columns, a value that is no number, a spot off the image.
    """
    if not path.is_file():
        raise InputError(f"spot table {str(path)!r} does not exist")
    if path.name.endswith(tissue_positions.FILES):
        centres, names = _of_space_ranger(path)
    elif path.suffix == ".h5ad":
        centres, names = _of_anndata(path)
    else:
        centres, names = _of_table(path)
    if twice := repeats(names):
        raise InputError(f"spot table {str(path)!r}: {named(twice)} named more than once")
    size = np.array([slide.width_px, slide.height_px])
    off = ((centres < 0) | (centres > size - 1)).any(axis=1)
    if off.any():
        raise InputError(
            f"spot table {str(path)!r}: {off.sum()} of {len(names)} spots lie outside the "
            f"{slide.width_px} x {slide.height_px} px image (first: "
            f"{names[int(np.argmax(off))]!r}). Are the coordinates full-resolution pixels, x first?"
        )
    return centres, names


def array_mpp(path: Path) -> float | None:
    """Microns per pixel that the array in Space Ranger's positions tells; None for other files.

    Visium HD's bins, whose size the positions do not state, tell none either.
    """
    if not path.name.endswith(tissue_positions.FILES):
        return None
    found = tissue_positions.read_positions(path)
    if (found.array_xy.sum(axis=1) % 2).any():  # Visium's rows are shifted by one column in turn
        return None
    in_pitches = found.array_xy * np.array(measured.VISIUM.step_um) / measured.VISIUM.pitch_um
    fit = placement.fit_array(in_pitches, found.pixel_xy, pitch_um=measured.VISIUM.pitch_um)
    return fit.mpp if fit is not None and fit.is_plausible else None


def _of_space_ranger(path: Path) -> tuple[np.ndarray, list[str]]:
    found = tissue_positions.read_positions(path)
    kept = found.in_tissue
    if not kept.any():
        raise InputError(f"spot table {str(path)!r}: none of {len(kept)} spots is under tissue")
    say(f"{path}: {kept.sum()} of {len(kept)} spots are under tissue; the others are left out.")
    names = [name for name, is_kept in zip(found.barcodes, kept, strict=True) if is_kept]
    return found.pixel_xy[kept], names


def _of_anndata(path: Path) -> tuple[np.ndarray, list[str]]:
    import anndata  # for this form alone

    try:
        data = anndata.read_h5ad(path, backed="r")
    except Exception as error:  # h5py and anndata raise many kinds for a file that is no .h5ad
        raise InputError(f"spot table {str(path)!r} cannot be read: {error}") from None
    try:
        if "spatial" not in data.obsm:
            raise InputError(
                f"spot table {str(path)!r}: no obsm['spatial'], which holds the spots' "
                "full-resolution pixels, x first"
            )
        centres = np.asarray(data.obsm["spatial"], np.float64)[:, :2]
        names = [str(name) for name in data.obs_names]
    finally:
        data.file.close()
    _refuse_broken(path, centres, names, "obsm['spatial']")
    return centres, names


def _of_table(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str)
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
    _refuse_broken(path, centres, names, f"{pair[0]} or {pair[1]}")
    return centres, names


def _refuse_broken(path: Path, centres: np.ndarray, names: list[str], where: str) -> None:
    broken = ~np.isfinite(centres).all(axis=1)
    if broken.any():
        raise InputError(
            f"spot table {str(path)!r}: {broken.sum()} of {len(names)} rows (first: "
            f"{names[int(np.argmax(broken))]!r}) have no number in {where}"
        )

"""Spots to predict at: a table, Space Ranger's spot positions, or the spots of an AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histospace_tf.data_pipelines import slides, text_records, text_tables
from histospace_tf.data_pipelines.readers import position_tables
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.spots import placement, platforms, tissue_overlap
from histospace_tf.data_pipelines.text_tables import TextTable
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named, repeats

# Column pairs that a spot table may state its centres in, x first. Capitals, blanks, brackets and
# points in names do not count, so that "Centroid X px" of QuPath is centroid_x_px.
PIXEL_COLUMNS = (
    ("pixel_x", "pixel_y"),
    ("x_px", "y_px"),
    ("x_pixel", "y_pixel"),
    ("centroid_x_px", "centroid_y_px"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"),
)
PLAIN_COLUMNS = ("x", "y")  # pixels, where no other pair is there
MICRON_COLUMNS = (
    ("centroid_x_um", "centroid_y_um"),
    ("x_um", "y_um"),
    ("x_micron", "y_micron"),
    ("x_microns", "y_microns"),
)
NAME_COLUMNS = ("spot", "name", "barcode", "id", "place", "spot_id", "cell_id", "object_id")
FLAG_COLUMNS = ("selected", "in_tissue", "tissue")
_CORNER = 1 / 3  # of the image's sides: coordinates that all lie within it may not be pixels


def read_spots(path: Path, slide: slides.SlideImage) -> tuple[np.ndarray, list[str]]:
    """Centres and names of spots on a slide, in full-resolution pixels.

    Args:
        path: one of
            a table with a header line, in any dialect of `text_records`: a pair of PIXEL_COLUMNS,
            or x and y, or a pair of MICRON_COLUMNS, which the slide's scale turns into pixels, with
            a note; names in one of NAME_COLUMNS or before the first column, else numbered; rows
            that one of FLAG_COLUMNS does not select are left out, with a note;
            Space Ranger's tissue_positions in any of its three forms, spots off tissue left out;
            an .h5ad of one section with obsm["spatial"], x first, and its obs_names; spots that
            obs["in_tissue"] says are off tissue left out.
        slide: the slide; all spots must lie on it.
    Returns:
        (n, 2) float64, x first, and n unique names.
    Raises:
        InputError: no such file or columns, columns that can be read in two ways, a value that is
            no number, a spot off the image.
    """
    if not path.is_file():
        raise InputError(f"spot table {str(path)!r} does not exist")
    if path.suffix == ".h5ad":
        centres, names = _of_anndata(path)
    elif (positions := _positions(path)) is not None:
        centres, names = _of_space_ranger(path, positions)
    else:
        centres, names = _of_table(path, slide)
    if twice := repeats(names):
        raise InputError(f"spot table {str(path)!r}: {named(twice)} named more than once")
    size = np.array([slide.width_px, slide.height_px])
    thumbnail = image_checks.thumbnail_of(slide)
    where = f"spot table {str(path)!r}"
    kept, problems = tissue_overlap.on_image(where, names, centres, thumbnail)
    centres, names = centres[kept], [n for n, is_on in zip(names, kept, strict=True) if is_on]
    if not any(problem.severity == "error" for problem in problems):
        problems += tissue_overlap.placement_problems(
            where, names, centres, thumbnail, mpp=slide.mpp
        )
    for problem in image_checks.refuse_errors(problems):
        say(f"Warning: {problem}")
    if len(names) > 3 and (centres.max(axis=0) < _CORNER * size).all():
        x, y = centres.max(axis=0)
        say(
            f"Warning: {path}: all {len(names)} places lie in the top left corner of the image "
            f"(x up to {x:.0f} of {slide.width_px} px, y up to {y:.0f} of {slide.height_px} px). "
            "Are they full-resolution pixels? Microns, array positions and pixels of a smaller "
            "copy look like this."
        )
    return centres, names


def array_mpp(path: Path) -> float | None:
    """Microns per pixel by the array in Space Ranger's positions; None for other files.

    None for Visium HD's bins, too, whose size the positions do not state.
    """
    if not path.is_file() or path.suffix == ".h5ad":
        return None
    positions = _positions(path)
    if positions is None or (positions.array_xy.sum(axis=1) % 2).any():
        return None  # Visium's rows are shifted by one column in turn
    in_pitches = positions.array_xy * np.array(platforms.VISIUM.step_um) / platforms.VISIUM.pitch_um
    fit = placement.fit_array(in_pitches, positions.pixel_xy, pitch_um=platforms.VISIUM.pitch_um)
    return fit.mpp if fit is not None and fit.is_plausible else None


def _positions(path: Path) -> position_tables.Positions | None:
    """Space Ranger's positions in a file; None where it holds something else."""
    if position_tables.recognises(path, "spot table"):
        return position_tables.read_positions(path)
    return None


def _of_space_ranger(
    path: Path, positions: position_tables.Positions
) -> tuple[np.ndarray, list[str]]:
    for note in positions.notes:
        say(f"{path}: {note}.")
    kept = positions.in_tissue
    if not kept.any():
        raise InputError(f"spot table {str(path)!r}: none of {len(kept)} spots is under tissue")
    say(f"{path}: {kept.sum()} of {len(kept)} spots are under tissue; the others are left out.")
    names = [name for name, is_kept in zip(positions.barcodes, kept, strict=True) if is_kept]
    return positions.pixel_xy[kept], names


def _of_anndata(path: Path) -> tuple[np.ndarray, list[str]]:
    # With pandas and AnnData, for this form alone.
    from histospace_tf.data_pipelines.readers import anndata_files, anndata_obs

    where = f"spot table {str(path)!r}"
    obs, libraries, centres = anndata_files.read_obs(path)
    if centres is None:
        raise InputError(
            f"{where}: no obsm['spatial'], which holds the spots' full-resolution pixels, x first"
        )
    names = anndata_files.names_of(obs)
    try:
        column, _ = anndata_obs.section_column(obs, libraries, centres, asked=None)
        kept, problems = anndata_obs.under_tissue(obs, names, str(path))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if column is not None and obs[column].nunique() > 1:
        raise InputError(
            f"{where} holds {obs[column].nunique()} sections (obs[{column!r}]); the spots of the "
            "slide's own section alone are needed"
        )
    for problem in problems:
        say(str(problem))
    centres, names = centres[kept][:, :2], [names[int(i)] for i in np.flatnonzero(kept)]
    _refuse_broken(path, centres, names, "obsm['spatial']")
    return centres, names


def _of_table(path: Path, slide: slides.SlideImage) -> tuple[np.ndarray, list[str]]:
    table = text_tables.with_header(text_records.read_records(path, "spot table"))
    for note in table.notes:
        say(f"{path}: {note}.")
    pair, in_microns = _centre_columns(table, slide.mpp)
    every_line = table.lines
    table = _of_slide(table, slide)
    for flag in FLAG_COLUMNS:
        column = table.column(flag)
        if column is not None:
            kept = table.flags(column)
            if not kept.any():
                raise InputError(
                    f"spot table {str(path)!r}: none of its {len(kept)} spots is selected (column "
                    f"{column})"
                )
            if not kept.all():
                say(
                    f"{path}: {(~kept).sum()} of {len(kept)} spots are not selected (column "
                    f"{column}) and are left out."
                )
            table = table.kept(kept)
    centres = table.numbers(pair)
    if in_microns:
        if slide.mpp is None:
            raise InputError(
                f"spot table {str(path)!r} has its places in microns ({pair[0]}, {pair[1]}), and "
                "the image does not state its microns per pixel; give them with `mpp`"
            )
        say(
            f"{path}: columns {pair[0]} and {pair[1]} are in microns; divided by "
            f"{slide.mpp:.4g} microns per pixel."
        )
        centres = centres / slide.mpp
    return centres, _names(table, every_line)


def _centre_columns(table: TextTable, mpp: float | None) -> tuple[tuple[str, str], bool]:
    """The columns of x and y, and whether they are in microns."""
    where = f"spot table {str(table.path)!r}"
    kinds = ((PIXEL_COLUMNS, False), ((PLAIN_COLUMNS,), False), (MICRON_COLUMNS, True))
    for wanted, in_microns in kinds:
        pairs = _pairs(table, wanted) if len(table) else []
        values = [table.numbers(pair) for pair in pairs[1:] and pairs]
        if any(np.abs(other - values[0]).max(initial=0) > 1 for other in values[1:]):
            raise InputError(
                f"{where} states its places more than once, and they differ: "
                f"{' and '.join('/'.join(pair) for pair in pairs)}; leave one pair"
            )
        if pairs:
            if pairs[0] in _pairs(table, (PLAIN_COLUMNS,)):
                _refuse_other_microns(table, pairs[0], mpp)
            return pairs[0], in_microns
    wanted_names = " or ".join(f"{x} and {y}" for x, y in (*PIXEL_COLUMNS[:2], PLAIN_COLUMNS))
    raise InputError(
        f"{where}: {len(table)} rows with columns {named(table.columns, 8)}; rows with columns "
        f"{wanted_names} (full-resolution pixels) are needed"
    )


def _refuse_other_microns(table: TextTable, pair: tuple[str, str], mpp: float | None) -> None:
    """Refuses x and y that cannot be pixels, because columns in microns say otherwise.

    Raises:
        InputError: they differ by more than 10 % of the distance that the spots span.
    """
    in_microns = _pairs(table, MICRON_COLUMNS)
    if not in_microns or mpp is None:
        return
    stated = table.numbers(in_microns[0]) / mpp
    off = np.abs(table.numbers(pair) - stated).max()
    if off > max(1.0, 0.1 * np.ptp(stated, axis=0).max()):
        raise InputError(
            f"spot table {str(table.path)!r}: columns {'/'.join(pair)} are up to {off:.0f} px from "
            f"{'/'.join(in_microns[0])} at {mpp:.4g} microns per pixel. If the former are no "
            "full-resolution pixels, leave them out; otherwise the latter, or mend `mpp`"
        )


def _pairs(table: TextTable, wanted: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Those of some pairs that a table has, by the names that it gives them."""
    pairs = [(table.column(x), table.column(y)) for x, y in wanted]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _of_slide(table: TextTable, slide: slides.SlideImage) -> TextTable:
    """The rows of one image, where a column Image, as QuPath writes it, names several."""
    column = table.column("image")
    images = [] if column is None else table.texts(column)
    own = {slide.path.name.casefold(), slide.path.stem.casefold()}
    kept = np.array(
        [name.casefold() in own or Path(name).stem.casefold() in own for name in images]
    )
    if len(set(images)) < 2:
        if images and images[0] and not kept.any():
            say(
                f"Warning: {table.path}: all places are of the image {images[0]!r} (column "
                f"{column}); the slide is {slide.path.name!r}."
            )
        return table
    if not kept.any():
        raise InputError(
            f"{table.what} {str(table.path)!r} has places of {len(set(images))} images "
            f"({named(sorted(set(images)), 3)}), and none is {slide.path.name!r}"
        )
    say(f"{table.path}: {kept.sum()} of {len(kept)} places are of {slide.path.name}.")
    return table.kept(kept)


def _names(table: TextTable, every_line: Sequence[int]) -> list[str]:
    """Names of the spots: of the first column of names that tells them apart, else numbers.

    Numbers count the rows of the file (`every_line`) from 0, those that are left out among them.
    """
    columns = [table.column(name) for name in NAME_COLUMNS]
    choices = {name: table.texts(name) for name in columns if name is not None}
    if table.row_names is not None:
        choices["row names"] = list(table.row_names)
    choices = {column: names for column, names in choices.items() if any(names)}
    for names in choices.values():
        if all(names) and not repeats(names):
            return names
    for column, names in choices.items():
        if not all(names):
            raise InputError(f"{table.at(names.index(''))}, column {column}: the name is empty")
        raise InputError(
            f"{table.what} {str(table.path)!r}, column {column}: {named(repeats(names))} named "
            "more than once"
        )
    row_of = {line: row for row, line in enumerate(every_line)}
    return [f"spot{row_of[line]}" for line in table.lines]


def _refuse_broken(path: Path, centres: np.ndarray, names: list[str], where: str) -> None:
    broken = ~np.isfinite(centres).all(axis=1)
    if broken.any():
        raise InputError(
            f"spot table {str(path)!r}: {broken.sum()} of {len(names)} rows (first: "
            f"{names[int(np.argmax(broken))]!r}) have no number in {where}"
        )

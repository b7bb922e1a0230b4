"""An open slide and a model -> predicted expression as AnnData."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import histospace_tf
from histospace_tf import bundle, faults
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import features, head_inputs, preparing
from histospace_tf.cohort.paired import neighbour_radius_px
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, slides, tiles
from histospace_tf.outputs import say
from histospace_tf.reports import maps
from histospace_tf.slide_prediction import GRID_STEP_UM, spatial_entries, spot_tables, streaming
from histospace_tf.vocabulary import InputError, StainReference, printable

_OVERVIEW_PX = 2000  # of the picture in uns, as Space Ranger's "hires"


@dataclasses.dataclass(frozen=True, eq=False)
class _Spots:
    """Where expression is predicted.

    centres_px: (n, 2) full-resolution pixels, x first.
    pitch_px: distance of neighbours.
    is_grid: squares that touch; otherwise given spots, drawn as discs.
    """

    centres_px: np.ndarray
    names: Sequence[str]
    pitch_px: float
    is_grid: bool


def predict_slide(
    slide: slides.SlideImage,
    model: Bundle,
    *,
    spots: Path | None = None,
    step_um: float | None = None,
    fast: bool = False,
    work: Path | None = None,
) -> anndata.AnnData:
    """Predicts expression for the tiles of a tissue grid, or around given spots; writes no output.

    Args:
        slide: an open slide, whose scale goes with the model's.
        model: of `bundle.load`.
        spots: table of spots, as in `spot_tables.read_spots`; None: a grid.
        step_um: distance between the grid's centres; None: GRID_STEP_UM, or one tile where the
            slide's scale is unknown.
        fast: each tile as it is, not averaged over its flips and rotations.
        work: folder for finished tiles, of this slide and these arguments alone; those in it are
            not computed again. None: a temporary one.
    Returns:
        X (n, g) float32 in var["unit"]; obsm["spatial"] (n, 2) full-resolution pixels, x first;
        uns["spatial"] an overview as scanpy and squidpy draw it; uns["histospace_tf"] provenance.
    Raises:
        InputError: no tissue, a spot table that cannot be read, a grid that is too fine.
    """
    config = model.config
    field = preparing.light_evenly(slide, config)
    if field is not None and field.why_off:
        say(f"{slide.path}: {preparing.one_white_point(field)}")
    stains = preparing.slide_stains(slide, config)
    asked = _grid(slide, config, step_um) if spots is None else _given(slide, config, spots)
    if not len(asked.centres_px):
        raise InputError(
            f"{slide.path}: no tissue found in {slide.width_px} x {slide.height_px} px (squares of "
            f"{asked.pitch_px:.0f} px, of which {config.tiles.min_tissue:.0%} must be tissue)"
        )
    symmetries = 1 if fast else config.regressor.symmetries
    with contextlib.ExitStack() as stack:
        if work is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="histospace_tf_"))
            work = Path(folder)
        expression = streaming.predicted(
            model,
            _cut_when_asked(slide, asked.centres_px, model, stains),
            asked.centres_px,
            symmetries=symmetries,
            context=_context(slide, asked, model, stains, work) if model.needs_context else None,
            work=work,
        )
    return _table(slide, model, asked, expression, symmetries)


def _given(slide: slides.SlideImage, config: Config, spots: Path) -> _Spots:
    with faults.reading(f"spot table {str(spots)!r}"):
        centres, names = spot_tables.read_spots(spots, slide)
    side = tiles.slide_px(slide, tile_px=config.tiles.tile_px, mpp=config.tiles.mpp)
    return _Spots(centres, names, maps.nearest_distance_px(centres) or float(side), is_grid=False)


def _grid(slide: slides.SlideImage, config: Config, step_um: float | None) -> _Spots:
    if slide.mpp is None and step_um is not None:
        raise InputError(f"{slide.path}: `step_um` needs microns per pixel; give `mpp`")
    if slide.mpp is None:
        pitch = float(tiles.slide_px(slide, tile_px=config.tiles.tile_px, mpp=config.tiles.mpp))
    else:
        pitch = (GRID_STEP_UM if step_um is None else step_um) / slide.mpp
    if not pitch >= 1:
        raise InputError(f"{slide.path}: `step_um` {step_um:g} is {pitch:g} px, less than one")
    # Of the square around a spot, not of the larger tile that the model sees, as for measured
    # spots: so the grid reaches tissue's and image's edges.
    centres = tiles.grid_centres(
        slide,
        tile_px=max(1, round(pitch)),
        mpp=None,
        min_tissue=config.tiles.min_tissue,
        step_px=pitch,
    )
    return _Spots(centres, [f"tile{i}" for i in range(len(centres))], pitch, is_grid=True)


def _context(
    slide: slides.SlideImage, asked: _Spots, model: Bundle, stains: StainReference, work: Path
) -> streaming.Context:
    """Statistics of the slide's tissue tiles, and how far neighbours reach."""
    config = model.config
    grid = tiles.grid_centres(
        slide,
        tile_px=config.tiles.tile_px,
        mpp=config.tiles.mpp,
        min_tissue=config.tiles.min_tissue,
    )
    chosen = preparing.random_subset(grid, config.context.slide_tiles, seed=config.seed)
    if not len(chosen):
        say(f"{slide.path}: no tissue tile; slide statistics come from the given places.")
        chosen = preparing.random_subset(
            asked.centres_px, config.context.slide_tiles, seed=config.seed
        )
    whole = features.tile_features(
        model.trunk,
        [_cut_when_asked(slide, chosen, model, stains)],
        symmetries=1,
        label="Slide statistics",
        store=work / "statistics.npy",
    )
    return streaming.Context(
        head_inputs.slide_statistics(whole[:, 0]),
        neighbour_radius_px(slide.mpp, asked.pitch_px, config),
    )


def _table(
    slide: slides.SlideImage,
    model: Bundle,
    asked: _Spots,
    expression: np.ndarray,
    symmetries: int,
) -> anndata.AnnData:
    """`predict_slide`'s table."""
    config, unit = model.config, bundle.unit(model.panel)
    table = anndata.AnnData(
        X=expression,
        obs=pd.DataFrame(index=asked.names),
        var=pd.DataFrame(
            {"unit": unit, **model.panel.columns_of_var()}, index=list(model.panel.genes)
        ),
        obsm={"spatial": np.asarray(asked.centres_px, np.float64)},
    )
    table.uns["spatial"] = {
        printable(slide.path.stem): spatial_entries.entry(
            slide.path,
            slides.Overview(*slide.overview(_OVERVIEW_PX), slide.mpp),
            kind="grid" if asked.is_grid else "spots",
            size_px=asked.pitch_px if asked.is_grid else asked.pitch_px / 2,
        )
    }
    table.uns["histospace_tf"] = {
        "version": histospace_tf.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "unit": unit,
        "preset": config.preset,
        "architecture": config.regressor.architecture,
        "symmetries": symmetries,
        "tile_px": config.tiles.tile_px,
        "tile_mpp": config.tiles.mpp if config.tiles.mpp is not None else "the image's own",
        "white_field": (
            slide.white_field.record()
            if slide.white_field is not None
            else {"on": False, "why": "not asked for"}
        ),
        "trained_on_sections": list(model.trained_on.get("sections", [])),
        "trained_on_simulated_tissue": bool(model.trained_on.get("simulated", False)),
    }
    return table


def _cut_when_asked(
    slide: slides.SlideImage, centres_px: np.ndarray, model: Bundle, stains: StainReference
) -> datasets.StainedTiles:
    settings = model.config.tiles
    # Spots that were asked for are never dropped: "drop" is for training.
    border = "reflect" if settings.border == "drop" else settings.border
    cut = tiles.LazyTiles(slide, centres_px, settings.tile_px, settings.mpp, border)
    return preparing.stained(cut, stains, model.reference)

"""An open slide and a model -> predicted expression as AnnData."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import tempfile
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import histospace_tf
from histospace_tf import bundle
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import features, head_inputs, preparing
from histospace_tf.cohort.paired import neighbour_radius_px
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import datasets, marks, slides, tiles
from histospace_tf.network_model import NetworkModel
from histospace_tf.outputs import say
from histospace_tf.scores import familiarity
from histospace_tf.slide_prediction import (
    places,
    region_table,
    spatial_entries,
    streaming,
    whole_sections,
)
from histospace_tf.slide_prediction.places import Places, Where
from histospace_tf.vocabulary import StainReference, printable

_OVERVIEW_PX = 2000  # of the picture in uns, as Space Ranger's "hires"
EVERYWHERE = Where()


def predict_slide(
    slide: slides.SlideImage,
    model: Bundle | NetworkModel,
    *,
    where: Where = EVERYWHERE,
    fast: bool = False,
    work: Path | None = None,
) -> anndata.AnnData:
    """Predicts expression for the tiles of a tissue grid, or around given spots; writes no output.

    Args:
        slide: an open slide, whose scale goes with the model's.
        model: of `bundle.load`, or of `network_model.load` a network of whole sections, which sees
            all places at once.
        where: which places; the grid's step of a network of whole sections is, unless it is given,
            the distance of the spots that it was trained on.
        fast: each tile as it is, not averaged over its flips and rotations.
        work: folder for finished tiles, of this slide and these arguments alone; those in it are
            not computed again. None: a temporary one.
    Returns:
        X (n, g) float32 in var["unit"]; obsm["spatial"] (n, 2) full-resolution pixels, x first;
        obs x_um, y_um (NaN where the scale is unknown), tissue_share, familiarity (of
        `scores.familiarity`, where the model knows it) and, with regions, region and region_class;
        uns["spatial"] an overview as scanpy and squidpy draw it; uns["histospace_tf"] provenance
        and warnings; uns["regions"]. Values are those of the whole slide: what lies around a
        region counts as neighbours do, and the slide's statistics are of all its tissue.
    Raises:
        InputError: as `places.find`.
    """
    config = model.config
    if isinstance(model, NetworkModel) and where.step_um is None:
        where = dataclasses.replace(where, step_um=model.network.pitch_um)
    field = preparing.light_evenly(slide, config)
    if field is not None and field.why_off:
        say(f"{slide.path}: {preparing.one_white_point(field)}")
    stains = preparing.slide_stains(slide, config)
    every = places.find(slide, _as_shown(model), where)
    for warning in every.warnings:
        say(f"Warning: {warning}")
    wanted = every.region >= 0 if where.regions else np.ones(len(every.names), bool)
    if isinstance(model, NetworkModel):
        cut = _cut_when_asked(slide, every.centres_px, model, stains)
        expression, windows = whole_sections.predicted(model, cut, every.centres_px, mpp=slide.mpp)
        table = _table(slide, model, every.those(wanted), expression[wanted], symmetries=1)
        table.uns["histospace_tf"]["windows"] = windows
    else:
        table = _tile_by_tile(slide, model, every, wanted, stains, fast=fast, work=work)
    if where.regions:
        names, kinds = (
            np.array([getattr(region, part) for region in where.regions], object)
            for part in ("name", "kind")
        )
        table.obs["region"] = pd.Categorical(names[every.region[wanted]], categories=names)
        table.obs["region_class"] = pd.Categorical(kinds[every.region[wanted]])
        table.uns[region_table.KEY] = region_table.described(where.regions, slide.mpp)
    return table


def _as_shown(model: Bundle | NetworkModel) -> Config:
    """The run's settings; tiles are those of a published network, as they are cut."""
    if model.network is None:
        return model.config
    return changed(model.config, tiles__tile_px=model.network.cut_px, tiles__mpp=model.network.mpp)


def _tile_by_tile(
    slide: slides.SlideImage,
    model: Bundle,
    every: Places,
    wanted: np.ndarray,
    stains: StainReference,
    *,
    fast: bool,
    work: Path | None,
) -> anndata.AnnData:
    """`predict_slide`'s table of the `wanted` of all places, before it tells of regions."""
    context_px = neighbour_radius_px(slide.mpp, every.pitch_px, model.config)
    around = every.near(wanted, context_px) if model.needs_context else wanted
    seen = every.those(around)
    symmetries = 1 if fast else model.config.regressor.symmetries
    with contextlib.ExitStack() as stack:
        if work is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="histospace_tf_"))
            work = Path(folder)
        expression, known = streaming.predicted(
            model,
            _cut_when_asked(slide, seen.centres_px, model, stains),
            seen.centres_px,
            symmetries=symmetries,
            context=_context(slide, seen, model, stains, work) if model.needs_context else None,
            work=work,
        )
    shown = wanted[around]
    table = _table(slide, model, seen.those(shown), expression[shown], symmetries=symmetries)
    if known is not None and model.familiarity is not None:
        table.obs["familiarity"] = known[shown]
        about = table.uns["histospace_tf"]
        about["familiarity"] = familiarity.verdict(known[shown], model.familiarity.left_out)
        if familiarity.is_unlike(known[shown]):
            warning = f"{slide.path}: {about['familiarity']}"
            say(f"Warning: {warning}")
            about["warnings"] = printable("\n".join(filter(None, [about["warnings"], warning])))
    return table


def _context(
    slide: slides.SlideImage, asked: Places, model: Bundle, stains: StainReference, work: Path
) -> streaming.Context:
    """Statistics of the slide's tissue tiles, and how far neighbours reach."""
    config = model.config
    grid = tiles.grid_centres(
        slide,
        tile_px=config.tiles.tile_px,
        mpp=config.tiles.mpp,
        min_tissue=config.tiles.min_tissue,
    )
    if not asked.keep_marks:
        side = tiles.slide_px(slide, tile_px=config.tiles.tile_px, mpp=config.tiles.mpp)
        grid = grid[~marks.find(slide, grid, side_px=side).either]
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
    model: Bundle | NetworkModel,
    asked: Places,
    expression: np.ndarray,
    *,
    symmetries: int,
) -> anndata.AnnData:
    """`predict_slide`'s table."""
    config, unit = _as_shown(model), bundle.unit(model.panel)
    microns = asked.centres_px * (np.nan if slide.mpp is None else slide.mpp)
    table = anndata.AnnData(
        X=expression,
        obs=pd.DataFrame(
            {
                **dict(zip(("x_um", "y_um"), microns.T, strict=True)),
                "tissue_share": asked.tissue_share,
            },
            index=asked.names,
        ),
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
            size_px=asked.size_px,
        )
    }
    table.uns["histospace_tf"] = {
        "version": histospace_tf.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "unit": unit,
        "preset": config.preset,
        "architecture": model.architecture,
        "symmetries": symmetries,
        "tile_px": config.tiles.tile_px,
        "tile_mpp": config.tiles.mpp if config.tiles.mpp is not None else "the image's own",
        "white_field": (
            slide.white_field.record()
            if slide.white_field is not None
            else {"on": False, "why": "not asked for"}
        ),
        "warnings": printable("\n".join(asked.warnings)),
        "trained_on_sections": list(model.trained_on.get("sections", [])),
        "trained_on_simulated_tissue": bool(model.trained_on.get("simulated", False)),
    }
    return table


def _cut_when_asked(
    slide: slides.SlideImage,
    centres_px: np.ndarray,
    model: Bundle | NetworkModel,
    stains: StainReference,
) -> datasets.StainedTiles:
    settings = _as_shown(model).tiles
    # Spots that were asked for are never dropped: "drop" is for training.
    border = "reflect" if settings.border == "drop" else settings.border
    cut: datasets.Tiles = tiles.LazyTiles(slide, centres_px, settings.tile_px, settings.mpp, border)
    if model.network is not None and model.network.tile_px != settings.tile_px:
        cut = tiles.ShrunkTiles(cut, model.network.tile_px)
    return preparing.stained(cut, stains, model.reference)

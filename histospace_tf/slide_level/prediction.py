"""An open slide and a slide-level model -> predicted expression as AnnData.

Of HE2RNA's network X holds scores of places, as of a model that learned from spots, though no place
was ever measured: they say where the network found what it judged slides by. Of hist2RNA's, which
sees a slide's mean alone, X has one row, the slide. In both, uns["pseudo_bulk"] is the slide as a
whole, in the form of `slide_prediction.aggregation`, as the network gives it and not as a mean of
places. Its interval redraws blocks of neighbouring tiles, and the network looks at each drawing.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import histospace_tf
from histospace_tf import bundle
from histospace_tf.data_pipelines import slides
from histospace_tf.scores import resampling
from histospace_tf.slide_level import slide_tiles
from histospace_tf.slide_level.slide_model import SlideModel
from histospace_tf.slide_prediction import aggregation, one_slide
from histospace_tf.slide_prediction.places import Where
from histospace_tf.training import Session
from histospace_tf.vocabulary import printable

BOOTSTRAPS = 200


def predict_slide(
    slide: slides.SlideImage,
    model: SlideModel,
    session: Session,
    *,
    where: Where = one_slide.EVERYWHERE,
    work: Path,
) -> anndata.AnnData:
    """Predicts a slide.

    Args:
        slide: an open slide. model: of `slide_model.load`.
        session: seed of what is drawn; devices.
        where, work: as of `one_slide.predict_slide`; of no use to a network without
            scores of tiles.
    Returns:
        X (n, g) float32 in var["unit"]; (1, g) of a network without scores of tiles;
        uns["pseudo_bulk"], uns["histospace_tf"].
    Raises:
        InputError: as `slide_tiles.slide_features` and `one_slide.predict_slide`.
    """
    name = printable(slide.path.stem)
    features, centres = slide_tiles.read_tiles(
        slide, model.encoder, session, name=name, store=work / "slide_features.npy"
    )
    level = model.panel.to_unit(model.network.predict(features))
    random = np.random.default_rng((session.seed, 5))
    low, high = np.full((2, len(level)), np.nan)
    if len(centres) > 1:
        weights = resampling.block_weights(centres, BOOTSTRAPS, random)
        drawn = model.panel.to_unit(model.network.predict_weighted(features, weights))
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    if model.network.scores_tiles:
        table = one_slide.predict_slide(slide, model.on_tiles(), where=where, work=work)
    else:
        table = _one_row(slide, model, level, centres, name)
    table.uns["histospace_tf"] |= {
        "architecture": model.network.architecture,
        "trained_on_slides": list(model.trained_on["slides"]),
        "slide_level_alone": not model.network.scores_tiles,
    }
    table.uns[aggregation.KEY] = aggregation.of_levels(
        table, level=level, low=low, high=high, tiles=len(centres)
    )
    return table


def _one_row(
    slide: slides.SlideImage, model: SlideModel, level: np.ndarray, centres: np.ndarray, name: str
) -> anndata.AnnData:
    """A table of the slide as a whole, at the middle of its tissue."""
    unit = bundle.unit(model.panel)
    table = anndata.AnnData(
        X=level[None].astype(np.float32),
        obs=pd.DataFrame(index=[name]),
        var=pd.DataFrame(
            {"unit": unit, **model.panel.columns_of_var()}, index=list(model.panel.genes)
        ),
        obsm={"spatial": centres.mean(axis=0, keepdims=True)},
    )
    config = model.encoder.config
    table.uns["histospace_tf"] = {
        "version": histospace_tf.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "unit": unit,
        "preset": config.preset,
        "symmetries": 1,
        "warnings": "",
        "tile_px": config.tiles.tile_px,
        "tile_mpp": config.tiles.mpp if config.tiles.mpp is not None else "the image's own",
    }
    return table

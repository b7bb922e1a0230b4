"""A slide as features of its tissue tiles, on a frozen encoder."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf import packaged
from histospace_tf.cohort import encoder_sources, features, preparing
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, slides, stain, tiles
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError, StainReference

MOST_TILES = 8000  # as HE2RNA takes them; of a larger slide so many are drawn with the seed


@dataclasses.dataclass(frozen=True, eq=False)
class SlideEncoder:
    """What tiles are cut, recoloured and encoded by.

    config: size and scale of tiles, stain, seed. reference: stains to recolour to.
    encoder: an autoencoder's, or one that was brought.
    trained_on: of the run that it comes from; of one that was brought, which it is.
    """

    config: Config
    reference: StainReference
    encoder: keras.Model
    trained_on: dict[str, Any]

    @functools.cached_property
    def trunk(self) -> keras.Model:
        """(n, s, s, 3) in [0, 1] -> (n, f): pooled statistics of the encoder's blocks, or the
        vectors of one that was brought."""
        return regressor.build_trunk(self.encoder, architecture="pooled")


def slide_encoder(encoder: str | None, config: Config) -> SlideEncoder:
    """The encoder that `--encoder` names, or the packaged model's.

    Args:
        config: of its run; of an encoder that is brought, what stands beside its tiles and colours.
    Raises:
        InputError: it cannot be read or used.
    """
    source = encoder_sources.source(None, packaged.DEFAULT if encoder is None else encoder)
    if source.brought is not None:
        config = encoder_sources.with_encoder_of(source, config)
        reference = stain.canonical_stains(config.stain.method)
        about = {"brought_encoder": source.brought.record}
        return SlideEncoder(config, reference, source.brought.trunk, about)
    donor = source.donor
    assert donor is not None
    return SlideEncoder(config, donor.reference, donor.encoder, donor.trained_on)


def slide_features(
    image: Path, model: SlideEncoder, session: Session, *, name: str, mpp: float | None, store: Path
) -> np.ndarray:
    """`read_tiles` of an image that is opened, and again only where `store` is not there.

    Args:
        mpp: microns per pixel, where the file does not say.
    Returns:
        (tiles, f) float32, memory-mapped.
    """
    if not store.is_file():
        with slides.open_slide(image, mpp=mpp) as slide:
            read_tiles(slide, model, session, name=name, store=store)
    return np.load(store, mmap_mode="r")[:, 0]


def read_tiles(
    slide: slides.SlideImage, model: SlideEncoder, session: Session, *, name: str, store: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the tissue tiles of a slide's grid, which touch and do not overlap.

    Args:
        slide: an open slide.
        model: encoder, tile size, scale, stain reference.
        session: seed of what is drawn; devices.
        name: of the slide, for messages.
        store: .npy file that keeps them; one that is there is read.
    Returns:
        (tiles, f) float32, memory-mapped, and (tiles, 2) centres in full-resolution pixels.
    Raises:
        InputError: an image that cannot be H&E, of unknown scale, or without tissue.
    """
    centres = tissue_grid(slide, model.config, name=name, seed=session.seed)
    kept = features.tile_features(
        model.trunk,
        [_stained(slide, centres, model)],
        symmetries=1,
        label=f"Slide {name}",
        store=store,
        strategy=session.strategy,
    )
    return kept[:, 0], centres


def tissue_grid(slide: slides.SlideImage, config: Config, *, name: str, seed: int) -> np.ndarray:
    """(n, 2) centres of a slide's tissue tiles, at most MOST_TILES; the slide is lit evenly where
    the configuration says so.

    Raises:
        InputError: as `slide_features`.
    """
    where = f"slide {name!r} ({slide.path})"
    for problem in image_checks.refuse_errors(image_checks.slide_problems(where, slide)):
        say(str(problem))
    if slide.mpp is None and config.tiles.mpp is not None:
        raise InputError(
            f"{where}: microns per pixel are unknown, and the encoder works at "
            f"{config.tiles.mpp:g}; `mpp` says them"
        )
    field = preparing.light_evenly(slide, config)
    if field is not None and field.why_off:
        say(f"{where}: {preparing.one_white_point(field)}")
    side, mpp = config.tiles.tile_px, config.tiles.mpp
    centres = tiles.grid_centres(slide, tile_px=side, mpp=mpp, min_tissue=config.tiles.min_tissue)
    if not len(centres):
        raise InputError(
            f"{where}: no tissue found in {slide.width_px} x {slide.height_px} px (tiles of "
            f"{tiles.slide_px(slide, tile_px=side, mpp=mpp)} px, of which "
            f"{config.tiles.min_tissue:.0%} must be tissue)"
        )
    return preparing.random_subset(centres, MOST_TILES, seed=seed)


def _stained(
    slide: slides.SlideImage, centres_px: np.ndarray, model: SlideEncoder
) -> datasets.StainedTiles:
    """Tiles that are cut when asked for, recoloured to the model's reference."""
    settings = model.config.tiles
    cut = tiles.LazyTiles(slide, centres_px, settings.tile_px, settings.mpp, "reflect")
    return preparing.stained(cut, preparing.slide_stains(slide, model.config), model.reference)

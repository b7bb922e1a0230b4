"""H&E images without expression, cut into tiles for the autoencoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from histospace_tf.cohort import preparing
from histospace_tf.config import Config
from histospace_tf.data_pipelines import slides, tiles
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, StainReference, named


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedImage:
    """One H&E image without expression, cut for the autoencoder."""

    source: str  # patient or image: the autoencoder's validation is split by it
    mpp: float | None  # of the file or the configuration; without it, tiles are cut as they are
    stains: StainReference
    tiles: np.ndarray
    has_white_field: bool


def prepare_images(
    images: Sequence[tuple[Path, str]],
    config: Config,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> list[PreparedImage]:
    """Tissue tiles of H&E images, at most config.autoencoder.tiles in all.

    Args:
        images: (file, source) pairs.
        config: tile size, stain method, ...
        progress: called with 1 after each image.
    Images without tissue, or that cannot be H&E, are left out with a warning; what an unknown scale
    means is said, too.

    Raises:
        InputError: an image cannot be read, or none holds tissue.
    """
    side = config.autoencoder.tile_px
    prepared: list[PreparedImage] = []
    unstated, empty, other = 0, [], []
    share = -(-config.autoencoder.tiles // max(1, len(images))) * 4  # images differ in size
    for path, source in images:
        with slides.open_slide(path) as slide:
            if slide.mpp is None:
                slide.mpp = config.autoencoder.images_mpp
            unstated += slide.mpp is None
            field = preparing.light_evenly(slide, config)
            centres = tiles.grid_centres(
                slide, tile_px=side, mpp=config.tiles.mpp, min_tissue=config.tiles.min_tissue
            )
            problems = image_checks.slide_problems(path.name, slide)
            if len(centres) and any(problem.severity == "error" for problem in problems):
                other.append(path.name)
            elif len(centres):
                cut, _ = tiles.cut_tiles(
                    slide,
                    preparing.random_subset(centres, share, seed=config.seed),
                    tile_px=side,
                    mpp=config.tiles.mpp,
                    border="reflect",
                )
                stains = preparing.slide_stains(slide, config)
                has_field = field is not None and not field.why_off
                prepared.append(PreparedImage(source, slide.mpp, stains, cut, has_field))
            else:
                empty.append(path.name)
        progress(1)
    total = sum(len(image.tiles) for image in prepared)
    is_scaled = config.tiles.mpp is not None and not unstated
    scale = f" at {config.tiles.mpp:g} um/px" if is_scaled else ""
    smaller = "a smaller autoencoder.tile_px (`config`) may fit"
    if total < 2:
        raise InputError(
            f"{len(images)} image(s) to pre-train on hold {total} tissue tile(s) of {side} px"
            f"{scale}; at least 2 are needed, {smaller}"
        )
    if empty:
        say(
            f"{len(empty)} of {len(images)} images hold no tissue tile of {side} px{scale} and are "
            f"left out: {named(empty, 3)}; {smaller}."
        )
    if other:
        say(
            f"{len(other)} of {len(images)} images are not H&E (histospace-tf check says why) "
            f"and are left out: {named(other, 3)}."
        )
    one_white = [image for image in prepared if not image.has_white_field]
    if config.stain.white_field and one_white:
        say(
            f"stain.white_field is off in {len(one_white)} of {len(prepared)} images, which show "
            "too little glass, or on one side alone: one white point serves each of them."
        )
    if unstated and config.tiles.mpp is not None:
        say(
            f"{unstated} of {len(images)} images do not state their microns per pixel: their "
            f"tiles are cut pixel for pixel, not at {config.tiles.mpp:g} um/px. `pretrain_mpp` "
            "gives them."
        )
    if total > config.autoencoder.tiles:
        keep = np.sort(
            np.random.default_rng(config.seed).choice(
                total, config.autoencoder.tiles, replace=False
            )
        )
        start, kept_images = 0, []
        for image in prepared:
            here = keep[(keep >= start) & (keep < start + len(image.tiles))] - start
            start += len(image.tiles)
            if len(here):
                kept_images.append(dataclasses.replace(image, tiles=image.tiles[here]))
        prepared = kept_images
    return prepared

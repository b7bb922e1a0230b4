"""H&E slides in, our encoder's features of their tissue tiles out, in TRIDENT's form.

Tiles are those of the model's own grid and scale, brought to its colours by the slide's stains, as
`predict` does it. A vector is what pooled heads read of a tile as it is: statistics of the maps of
all three blocks of the encoder (`regressor.build_trunk`), whatever head the model has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from histospace_tf import __version__ as VERSION
from histospace_tf import bundle, distribution, packaged, predicting, provenance, runs
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import features, preparing
from histospace_tf.data_pipelines import slides, tiles, trident_files
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.requests import FeaturesRequest, refusals
from histospace_tf.vocabulary import InputError

_LISTED = 10  # files that the summary names


@dataclasses.dataclass(frozen=True)
class Featurized:
    """What `featurize` wrote.

    out: the folder. tiles: of each file, relative to it. width: features for each tile.
    left_out: images of which there is no file, and why: no tissue, or no H&E.
    """

    out: Path
    tiles: Mapping[Path, int]
    width: int
    left_out: Mapping[Path, str]

    def summary(self) -> str:
        """What was written and what to do with it, as text."""
        count = f"{len(self.tiles)} slide" + ("" if len(self.tiles) == 1 else "s")
        lines = [f"{self.width} features for each of {sum(self.tiles.values())} tiles of {count}"]
        lines += [f"  {self.out / path}: {n} tiles" for path, n in [*self.tiles.items()][:_LISTED]]
        if len(self.tiles) > _LISTED:
            lines.append(f"  ... and {len(self.tiles) - _LISTED} more")
        lines += [f"left out: {why}" for why in self.left_out.values()]
        lines += ["", f"Next: histospace-tf evaluate DATA --out OUT --features ours={self.out}"]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class _Slide:
    """A slide that a file is written of: its tissue tiles' centres, (n, 2); title: of its bar."""

    image: slides.SlideImage
    centres_px: np.ndarray
    file: Path
    title: str


def featurize(request: FeaturesRequest) -> Featurized:
    """Writes our encoder's features of slides, one file each; the folder appears when all are done.

    An image of a folder that has no tissue or cannot be H&E is left out, and said. What was done
    before an interrupt or an error stays in OUT.partial for `resume`.

    Raises:
        InputError: an unreadable image, an unknown scale, two images of one name, none that can be
            used, a finished folder, an interrupted run on other slides or of another model, ...
    """
    refusals.refuse(request)
    model = bundle.load(request.run)
    trunk = regressor.build_trunk(model.encoder, architecture="pooled")
    images = trident_files.images_by_file(request.slides)
    written: dict[Path, int] = {}
    left_out: dict[Path, str] = {}
    width = 0
    # By the words that an error uses for what has changed.
    started = {
        "set of slides": [provenance.identity(image) for image in images.values()],
        "model": predicting.checksums(request.run),
        "version of histospace-tf": VERSION,
        **request.resumed(by_flag=True),
    }
    with runs.filled(
        request.out,
        started,
        strategy=distribution.strategy("single"),
        resume=request.resume,
        force=request.force,
        done="*.h5",
    ) as work:
        for number, (name, image) in enumerate(images.items(), start=1):
            title = name if len(images) == 1 else f"{name} ({number} of {len(images)})"
            file = work / f"{name}.h5"
            if file.is_file():
                written[Path(file.name)], width = trident_files.shape(file)
                continue
            with slides.open_slide(image, mpp=request.mpp) as slide:
                centres, why = _grid(slide, model, request.step_um)
                if why:
                    say(f"Left out: {why}")
                    left_out[image] = why
                    continue
                width = _write(_Slide(slide, centres, file, title), model, trunk, request)
            written[Path(file.name)] = len(centres)
        if not written:
            raise InputError("; ".join([*left_out.values()][:_LISTED]))
    return Featurized(request.out, written, width, left_out)


def _grid(slide: slides.SlideImage, model: Bundle, step_um: float | None) -> tuple[np.ndarray, str]:
    """Centres of the slide's tissue tiles, or why there are none."""
    where = f"image {slide.path}"
    for problem in image_checks.slide_problems(where, slide):
        if problem.severity == "error":
            return np.zeros((0, 2)), str(problem).rstrip(".")
        say(str(problem))
    cut = model.config.tiles
    centres = tiles.grid_centres(
        slide,
        tile_px=cut.tile_px,
        mpp=cut.mpp,
        min_tissue=cut.min_tissue,
        step_px=_step_px(slide, model, step_um),
    )
    if not len(centres):
        side = tiles.slide_px(slide, tile_px=cut.tile_px, mpp=cut.mpp)
        return centres, f"{where}: no tile of {side} px is {cut.min_tissue:.0%} tissue"
    return centres, ""


def _step_px(slide: slides.SlideImage, model: Bundle, step_um: float | None) -> float:
    cut = model.config.tiles
    if step_um is None or slide.mpp is None:
        return float(tiles.slide_px(slide, tile_px=cut.tile_px, mpp=cut.mpp))
    return step_um / slide.mpp


def _write(own: _Slide, model: Bundle, trunk: keras.Model, request: FeaturesRequest) -> int:
    """Writes one slide's file; how many features a tile has."""
    slide, cut = own.image, model.config.tiles
    side = tiles.slide_px(slide, tile_px=cut.tile_px, mpp=cut.mpp)
    preparing.light_evenly(slide, model.config)
    stains = preparing.slide_stains(slide, model.config)
    raw = tiles.LazyTiles(slide, own.centres_px, cut.tile_px, cut.mpp, "reflect")
    values = features.tile_features(
        trunk,
        [preparing.stained(raw, stains, model.reference)],
        symmetries=1,
        label=own.title,
    )[:, 0]
    trident_files.write(
        own.file,
        values,
        own.centres_px - (side - 1) / 2,
        trident_files.Patches(
            cut.tile_px,
            side,
            _step_px(slide, model, request.step_um),
            (slide.width_px, slide.height_px),
            slide.mpp,
        ),
        saved_to=request.out,
        about={
            "encoder": f"{packaged.name_of(request.run)}, histospace-tf {VERSION}",
            "stain_method": model.config.stain.method,
        },
    )
    return values.shape[1]

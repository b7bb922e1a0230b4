"""Images in, images of standard colours out, and a figure of the steps."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from histospace_tf import outputs
from histospace_tf.data_pipelines import recolouring, slides, stain
from histospace_tf.data_pipelines.readers.images import list_images
from histospace_tf.reports import stain_figure
from histospace_tf.requests import NormalizeRequest
from histospace_tf.vocabulary import STAIN_METHODS, InputError, StainReference, named

PANEL_NAME = "stain_panel.png"
SAMPLED_PIXELS = 160_000  # a slide, glass included; stains come from the tissue among them
MOST_PIXELS = 2**29  # of one image: a PNG is encoded from memory, 3 bytes a pixel
_STRIP_PX = 512  # rows that are read and recoloured at once
_PANEL_PX = 900  # longer side of a picture in the figure
_NAMED = 5  # images without a white field that the summary names


@dataclasses.dataclass(frozen=True)
class Normalized:
    """What `normalize` did.

    out: the folder.
    images: PNG files written, relative to it.
    method: stain method.
    reference: a description of the colours that images were brought to.
    without_tissue: images in which no two stains were found; their own cast and luminosity stay.
    white_fields: by image, `WhiteField.record`, where they were asked for.
    figure: the figure of the steps, relative to `out`.
    """

    out: Path
    images: tuple[Path, ...]
    method: str
    reference: str
    without_tissue: tuple[str, ...]
    white_fields: dict[str, dict[str, Any]]
    figure: Path

    def summary(self) -> str:
        """What was written, as text."""
        count = f"{len(self.images)} image" + ("" if len(self.images) == 1 else "s")
        lines = [f"wrote {count} to {self.out}: method {self.method}, {self.reference}"]
        if self.without_tissue:
            lines.append(
                f"no two stains were found in {named(self.without_tissue)}: treated as textbook "
                "H&E, cast and luminosity left as they are"
            )
        off = {name: field["why"] for name, field in self.white_fields.items() if not field["on"]}
        if self.white_fields:
            levels = [f["largest_grey_levels"] for f in self.white_fields.values() if f["on"]]
            found = f", up to {max(levels):.0f} grey levels of shadow taken away" if levels else ""
            lines.append(f"white field on in {len(levels)} of {count}{found}")
        lines += [f"white field off in {name}: {why}" for name, why in list(off.items())[:_NAMED]]
        if len(off) > _NAMED:
            lines.append(f"... and off in {len(off) - _NAMED} more")
        lines.append(f"compare the steps in {self.out / self.figure}")
        return "\n".join(lines)


def normalize(request: NormalizeRequest) -> Normalized:
    """Writes images in standard colours, and a figure of the steps.

    Each image becomes a PNG under its own relative name; the figure, PANEL_NAME, shows the first
    image with tissue. The folder appears whole or not at all.

    Args:
        request: its method may be any of STAIN_METHODS.
    Raises:
        InputError: nothing to read, a file that is no image or damaged (named), an image above
            MOST_PIXELS, two images of one output name, an unknown method, or a finished folder.
    """
    images, out, method, force = request.images, request.out, request.method, request.force
    reference, seed = request.reference, request.seed
    if method not in STAIN_METHODS:
        raise InputError(f"stain method {method!r} is unknown; one of {', '.join(STAIN_METHODS)}")
    outputs.refuse_finished(out, force=force)
    files = _images(images, out)
    fitted = functools.partial(_fitted, method=method, seed=seed, with_field=request.white_field)
    if method == "none":
        goal, words = stain.canonical_stains(method), "colours kept but for cast and luminosity"
    elif reference is None:
        goal, words = stain.canonical_stains(method), "brought to textbook H&E (no --reference)"
    else:
        with slides.open_slide(reference) as slide:
            goal = fitted(slide)
        if stain.is_canonical(goal):
            raise InputError(
                f"reference image {str(reference)!r} shows no tissue with two stains; choose "
                "another, or leave `reference` out for textbook H&E"
            )
        words = f"brought to the stains of {reference}"

    without_tissue, drawn, fields = [], None, {}
    with outputs.whole_folder(out, force=force) as draft:
        for path, name in tqdm(files, unit="image", disable=len(files) < 2):
            with slides.open_slide(path) as slide:
                source = fitted(slide)
                if slide.white_field is not None:
                    fields[str(name)] = slide.white_field.record()
                _write_png(_recoloured(slide, source, goal), draft / name)
                if method != "none" and stain.is_canonical(source):
                    without_tissue.append(str(path))
                elif drawn is None:
                    drawn = path
        with slides.open_slide(drawn or files[0][0]) as slide:
            _panel(slide, fitted(slide), goal, seed=seed).savefig(draft / PANEL_NAME, dpi=110)
    return Normalized(
        out=out,
        images=tuple(name for _, name in files),
        method=method,
        reference=words,
        without_tissue=tuple(without_tissue),
        white_fields=fields,
        figure=Path(PANEL_NAME),
    )


def _images(images: Path, out: Path) -> list[tuple[Path, Path]]:
    """(file, name of its output) of every image, in order."""
    root = images if images.is_dir() else images.parent
    files = [
        image.path
        for image in list_images(images)
        if not image.path.resolve().is_relative_to(out.resolve())  # an earlier run's
    ]
    if not files:
        raise InputError(f"all images in {str(images)!r} lie in the output folder {str(out)!r}")
    file_of: dict[Path, Path] = {}
    for path in files:
        name = path.relative_to(root).with_suffix(".png")
        if name in file_of or name == Path(PANEL_NAME):
            other = repr(str(file_of[name])) if name in file_of else "the figure of the steps"
            raise InputError(
                f"image {str(path)!r} and {other} would both be written as {str(name)!r}: rename"
            )
        file_of[name] = path
    return [(path, name) for name, path in file_of.items()]


def _fitted(
    slide: slides.SlideImage, *, method: str, seed: int, with_field: bool, in_full: bool = True
) -> StainReference:
    """A slide's stains, evenly lit with its field; not `in_full`: cast and luminosity off."""
    if with_field:
        slide.light_evenly()
    return stain.fit_stains(
        slide.sample_pixels(SAMPLED_PIXELS, seed=seed),
        method=method,
        cast=in_full,
        luminosity=in_full,
        seed=seed,
    )


def _recoloured(
    slide: slides.SlideImage, source: StainReference, goal: StainReference
) -> np.ndarray:
    """The whole slide at full resolution, read strip by strip: (height, width, 3) uint8 RGB."""
    width, height = slide.width_px, slide.height_px
    if width * height > MOST_PIXELS:
        raise InputError(
            f"image {str(slide.path)!r} has {width} x {height} px, more than a PNG is written for "
            f"here ({MOST_PIXELS:,} px); cut the region of interest out first. `fit` and `predict` "
            "normalise slides of any size, tile by tile"
        )
    table = recolouring.colour_table(source, goal)
    whole = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP_PX):
        rows = min(_STRIP_PX, height - top)
        strip = slide.region(0, top, width, rows)
        if slide.white_field is not None and not slide.white_field.why_off:
            strip = slide.white_field.lit(strip, 0, top)
        whole[top : top + rows] = recolouring.apply_table(strip, table)
    return whole


def _write_png(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image)  # in place: the image may be large
    if not cv2.imwrite(str(path), image):
        raise InputError(f"{path.name!r} cannot be written; is the disk full?")


def _panel(
    slide: slides.SlideImage, source: StainReference, goal: StainReference, *, seed: int
) -> Figure:
    """The slide after each step, and after stain normalisation alone."""
    field, alone = slide.white_field, None
    if source.method != "none":
        slide.white_field = None  # of the slide as scanned
        alone = _fitted(slide, method=source.method, seed=seed, with_field=False, in_full=False)
    figure = stain_figure.slide_panel(
        slides.Overview(*slide.overview(_PANEL_PX), slide.mpp),
        source,
        goal,
        name=slide.path.name,
        alone=alone,
        field=field,
    )
    FigureCanvasAgg(figure)
    return figure

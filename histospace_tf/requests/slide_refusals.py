"""What is refused of whole slides: their scale, regions on them, tables of their bulk expression,
and what networks that learned from them cannot do. Without TensorFlow; `refusals` calls it.
"""

from __future__ import annotations

from pathlib import Path

from histospace_tf import outputs, slide_level
from histospace_tf.data_pipelines import gene_panel, readers, regions, slides
from histospace_tf.data_pipelines.readers import bulk_tables
from histospace_tf.requests.bulk import BulkRequest
from histospace_tf.requests.prediction import PredictRequest
from histospace_tf.slide_level import model_file
from histospace_tf.slide_prediction import region_table
from histospace_tf.vocabulary import InputError, named

COARSEST = 4.0  # a slide's microns per pixel, of the model's: above it, a nucleus is a pixel or two


def refuse_bulk(request: BulkRequest) -> None:
    """Refuses a training on slides that could not be met.

    Raises:
        InputError: as `refusals.refuse`; a table that does not go with its slides, or too few
            patients.
    """
    outputs.refuse_finished(request.out, force=request.force)
    outputs.refuse_interrupted(request.out, resume=request.resume, force=request.force)
    if request.architecture not in (None, *slide_level.ARCHITECTURES):
        raise InputError(
            f"`architecture` {request.architecture!r}: with `bulk` one of "
            f"{', '.join(slide_level.ARCHITECTURES)} works"
        )
    for name in ("epochs", "batch_size"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise InputError(f"`{name}` {value}: at least 1 is needed")
    config = request.settings
    gene_panel.panel_names(config.target.panel)
    slides.refuse_implausible(request.mpp)
    table = bulk_tables.read(request.bulk, unit=request.unit)
    patients = list(dict.fromkeys(table.patients))
    if len(patients) < slide_level.LEAST_PATIENTS:
        raise InputError(
            f"bulk table {str(request.bulk)!r}: {len(patients)} patient(s), {named(patients)}; at "
            f"least {slide_level.LEAST_PATIENTS} are needed: each is left out in turn, and epochs "
            "are chosen on others"
        )
    images, _ = bulk_tables.matched(table, readers.list_images(request.data))
    for image in images.values():
        refuse_scale(image, request.mpp or slides.stated_mpp(image), config.tiles.mpp)


def refuse_of_places(request: PredictRequest, model: model_file.SlideModelFile) -> None:
    """Refuses what a network that learned from slides cannot do.

    Raises:
        InputError: `server`; or places, of a network that sees a slide's mean alone.
    """
    if request.server is not None:
        raise InputError(f"`server` serves no {model.architecture}: it predicts here alone")
    if model.architecture in slide_level.WITH_TILE_SCORES:
        return
    of_places = ["spots", "step_um", "regions", "tissue", *request.paths()]
    given = [f"`{name}`" for name in of_places if getattr(request, name) is not None]
    if given:
        raise InputError(
            f"{model.architecture} predicts a slide as a whole and says nothing of places on it; "
            f"leave out {', '.join(given)}, or take a model that does"
        )


def refuse_regions(request: PredictRequest, size_px: tuple[int, int]) -> None:
    """Refuses regions or an outline of tissue that cannot be read, and a finished table of regions.

    Args:
        size_px: of the slide.
    Raises:
        InputError: as `regions.read`.
    """
    if request.regions is not None:
        if request.out is not None:
            outputs.refuse_finished(region_table.region_file(request.out), force=request.force)
        regions.read(request.regions, request.slide, size_px)
    if request.tissue is not None:
        regions.read_tissue(request.tissue, request.slide, size_px)


def refuse_scale(slide: Path, mpp: float | None, wanted: float | None) -> None:
    """Refuses an image whose microns per pixel do not go with a model's.

    Args:
        slide: the image, for messages; mpp: its microns per pixel, None if unknown.
        wanted: that the model looks at; None: each image's own scale.
    Raises:
        InputError: the scale is unknown though the model needs it, or so coarse that a tile would
            be made of too few pixels for a nucleus to show.
    """
    if wanted is None:
        return
    if mpp is None:
        raise InputError(
            f"{slide}: the file does not say its microns per pixel, and the model works at "
            f"{wanted:.3g}; give them with `mpp`"
        )
    if mpp > COARSEST * wanted:
        raise InputError(
            f"{slide}: {mpp:g} microns per pixel are too coarse; the model looks at "
            f"{wanted:.3g}, and up to {COARSEST * wanted:.3g} works. Take the full-resolution "
            "file, or give `mpp` if the file's scale is wrong"
        )

"""What is refused of many slides to predict, all together or one by one; without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from histospace_tf import bundle_file, outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import slide_lists
from histospace_tf.data_pipelines.readers.slide_lists import ListedSlide
from histospace_tf.requests.prediction import PredictRequest, PredictSlidesRequest
from histospace_tf.slide_level import model_file
from histospace_tf.slide_prediction import (
    cohort_record,
    interval_layers,
    server_address,
    set_scores,
    written_files,
)
from histospace_tf.vocabulary import InputError


def refuse(request: PredictSlidesRequest, refuse_one: Callable[[PredictRequest], None]) -> None:
    """Refuses a prediction of slides of which none could be made.

    Args:
        refuse_one: refuses that of a single one.
    Raises:
        InputError: no folder; options that are of one slide; nothing to resume or force; a model,
            gene or package that is not there; or a reason against every slide.
    """
    out = request.out
    if out is None:
        raise InputError("`out` is needed: the folder for a prediction of each slide")
    if out.suffix == ".h5ad" or out.is_file():
        raise InputError(f"`out` {str(out)!r}: predictions of several slides go into a folder")
    if request.jobs < 1:
        raise InputError(f"`jobs` {request.jobs}: at least 1 is needed")
    if request.spots is not None:
        raise InputError(
            "`spots` are of one slide; a table with columns slide and spots names those of several"
        )
    for name in ("regions", "tissue"):
        folder = getattr(request, name)
        if folder is not None and not folder.is_dir():
            raise InputError(
                f"`{name}` {str(folder)!r} is no folder; of several slides it is one with "
                f"NAME.geojson of each, or a column {name} in a table of slides"
            )
    slides.refuse_implausible(request.mpp)
    if request.server is not None:
        server_address(request.server)
    model = model_of(request.run)
    interval_layers.refuse(request.intervals, request.run)
    sets = set_scores.on_panel(request.gene_sets, model.panel.genes, ids=model.panel.id_of)
    written_files.check(
        request.one(ListedSlide("slide", Path("slide"))),
        [*model.panel.genes, *(one.name for one in (sets.scored if sets else ()))],
        force=True,
    )
    if (out / cohort_record.FILE).is_file() and not request.resume and not request.force:
        raise InputError(
            f"{str(out)!r} holds predictions of slides: `resume` keeps them and goes on, `force` "
            "makes them anew"
        )
    if not (out / cohort_record.FILE).is_file():
        outputs.refuse_finished(out, force=request.force)
    slides_listed = checked(request, refuse_one)
    if all(slide.why_not for slide in slides_listed):
        others = f" (and {len(slides_listed) - 1} more)" if len(slides_listed) > 1 else ""
        raise InputError(f"no slide can be predicted: {slides_listed[0].why_not}{others}")


def model_of(run: Path) -> bundle_file.BundleFile | model_file.SlideModelFile:
    """What a run's model says of itself, without its weights.

    Raises:
        InputError: as `bundle_file.read` and `model_file.read`.
    """
    return model_file.read(run) if model_file.is_there(run) else bundle_file.read(run)


def checked(
    request: PredictSlidesRequest, refuse_one: Callable[[PredictRequest], None]
) -> tuple[ListedSlide, ...]:
    """The slides that are asked for; `why_not` holds what `refuse_one` raises of each.

    Raises:
        InputError: as `slide_lists.listed`.
    """
    slides_listed = []
    for slide in slide_lists.listed(request.slides):
        if f"{slide.name}.h5ad" == cohort_record.TABLE:
            why = f"{slide.path}: its prediction would be {cohort_record.TABLE}, the table of all"
            slide = dataclasses.replace(slide, why_not=f"{why}; rename it")
        if not slide.why_not:
            try:
                refuse_one(dataclasses.replace(request.one(slide), force=True))
            except InputError as error:
                slide = dataclasses.replace(slide, why_not=str(error))
        slides_listed.append(slide)
    return tuple(slides_listed)

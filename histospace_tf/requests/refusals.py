"""What each request is refused for before any long work, without TensorFlow (whose import takes
seconds).

A verb calls `refuse` first; the command line calls it before TensorFlow is loaded, too, so that a
mistyped path is told at once. Nothing is written here. What shows only in the data's tables, such
as names of patients and genes, is told when those are read (`plans.planned`), and what shows in
pixels when images are opened.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histospace_tf import bundle_file, outputs
from histospace_tf.config import Config
from histospace_tf.data_pipelines import (
    gene_panel,
    patch_matching,
    readers,
    simulation,
    slides,
    splits,
    tfds_images,
    trident_files,
)
from histospace_tf.data_pipelines.genes import gene_sets
from histospace_tf.exports import parity
from histospace_tf.predictors import patch_heads, peers, registry
from histospace_tf.requests import (
    cohort_refusals,
    encoder_refusals,
    network_refusals,
    slide_refusals,
)
from histospace_tf.requests.bulk import BulkRequest
from histospace_tf.requests.data import Reading, TissueRequest
from histospace_tf.requests.export import ExportRequest
from histospace_tf.requests.prediction import (
    FeaturesRequest,
    PredictRequest,
    PredictSlidesRequest,
)
from histospace_tf.requests.training import (
    SPLITS,
    EvaluateRequest,
    FitRequest,
    ScoreRequest,
)
from histospace_tf.slide_level import model_file
from histospace_tf.slide_prediction import interval_layers, server_address
from histospace_tf.vocabulary import InputError


@functools.singledispatch
def refuse(request: object) -> None:
    """Refuses a request that could not be met.

    Raises:
        InputError: options that exclude each other, a path that does not exist, a finished or
            interrupted output, and what else can be told so early.
    """
    raise TypeError(f"{type(request).__name__}: nothing is known against it")


@refuse.register
def _fit(request: FitRequest) -> None:
    config = request.settings
    if request.no_hold_out and request.hold_out:
        raise InputError("`hold_out` and `no_hold_out` exclude each other")
    if request.gene_sets and request.no_hold_out:
        raise InputError(
            "`gene_sets` are scored on what is held out, and with `no_hold_out` nothing is; an "
            "evaluation scores them, and `evaluations` carries that"
        )
    if request.evaluations and not request.no_hold_out:
        raise InputError(
            "`evaluations` goes with `no_hold_out`: other models have their own scores"
        )
    if request.evaluations:
        from histospace_tf import inherited_scores  # with pandas

        inherited_scores.read(request.evaluations)
    network_refusals.refuse_fit(request, config)
    _training(config, request)
    if request.data is not None:
        _data(request.data, request)
        return
    if request.image is not None or request.mpp is not None:
        raise InputError("`image` and `mpp` are about `data`, and none is given")
    if request.section_column is not None:
        raise InputError("`section_column` is about `data`, and none is given")
    _simulated(request.hold_out)


refuse.register(BulkRequest)(slide_refusals.refuse_bulk)


@refuse.register
def _evaluate(request: EvaluateRequest) -> None:
    config, split = request.settings, request.split
    if split is not None and split not in SPLITS:
        raise InputError(f"no evaluation by {split!r}; one of {', '.join(SPLITS)} works")
    if request.study_epochs is not None and not request.with_complexities:
        raise InputError("`study_epochs` is of curves that are left out")
    if request.study_epochs is not None and request.study_epochs < 1:
        raise InputError(f"`study_epochs` is {request.study_epochs}; at least 1 is needed")
    network_refusals.refuse_evaluate(config)
    published = [one.name for one in peers.ENTRIES]
    if request.peer_size is not None and not set(published) & set(request.compare):
        raise InputError(
            f"`peer_size` is of published networks; `compare` one of {', '.join(published)}"
        )
    for predictor in registry.compared(request.compare):
        predictor.refuse(config)
        if predictor.name in request.predictions:
            raise InputError(
                f"`compare` and `predictions` both name a predictor {predictor.name!r}"
            )
    _scoring(request)
    _training(config, request)
    _features(request)
    _data(request.data, request)


@refuse.register
def _score(request: ScoreRequest) -> None:
    run = request.run
    _scoring(request)
    outputs.refuse_finished(request.out, force=request.force)
    gene_sets.read(request.gene_sets)
    bundle_file.read(run)
    _data(request.data, request)


@refuse.register
def _predict(request: PredictRequest) -> None:
    run, out, force = request.run, request.out, request.force
    if out is not None and out.suffix != ".h5ad":
        raise InputError(f"`out` {str(out)!r}: a file name that ends in .h5ad is needed")
    if request.step_um is not None and request.spots is not None:
        raise InputError("`step_um` is a grid's and `spots` brings the places; pass one of them")
    _step(request.step_um)
    if request.server is not None:
        server_address(request.server)
    if out is not None:
        outputs.refuse_finished(out, force=force)
        outputs.refuse_interrupted(out, resume=request.resume, force=force)
    if model_file.is_there(run):
        model: bundle_file.BundleFile | model_file.SlideModelFile = model_file.read(run)
        slide_refusals.refuse_of_places(request, model_file.read(run))
    else:
        model = bundle_file.read(run)
        network_refusals.refuse_prediction(request, model)
    if request.paths() or request.show or request.aggregate or request.gene_sets:
        from histospace_tf.slide_prediction import set_scores, written_files

        sets = set_scores.on_panel(request.gene_sets, model.panel.genes, ids=model.panel.id_of)
        known = [*model.panel.genes, *(one.name for one in sets.scored)] if sets else None
        written_files.check(request, known or model.panel.genes, force=force, beside=out)
    interval_layers.refuse(request.intervals, request.run)
    if request.spots is not None and not request.spots.is_file():
        raise InputError(f"spot table {str(request.spots)!r} does not exist")
    slides.refuse_implausible(request.mpp)
    size = slides.image_size(request.slide)
    slide_refusals.refuse_regions(request, size)
    store = request.spatialdata
    if store is not None:
        from histospace_tf.slide_prediction import spatial_data

        if spatial_data.is_others_store(store):
            spatial_data.refuse_other_store(store, request.slide.name, size, force=force)
    stated = slides.stated_mpp(request.slide) if request.mpp is None else request.mpp
    slide_refusals.refuse_scale(request.slide, stated, model.mpp)


@refuse.register
def _predict_slides(request: PredictSlidesRequest) -> None:
    _step(request.step_um)
    cohort_refusals.refuse(request, refuse)


@refuse.register
def _tissue(request: TissueRequest) -> None:
    _step(request.step_um)
    if request.geojson.suffix not in (".geojson", ".json"):
        raise InputError(
            f"`geojson` {str(request.geojson)!r}: a name that ends in .geojson or .json is needed"
        )
    outputs.refuse_finished(request.geojson, force=request.force)
    slides.refuse_implausible(request.mpp)
    if request.mpp is None and slides.stated_mpp(request.slide) is None:
        raise InputError(
            f"{request.slide}: the file does not say its microns per pixel; give them with `mpp`"
        )


@refuse.register
def _feature(request: FeaturesRequest) -> None:
    _step(request.step_um)
    outputs.refuse_finished(request.out, force=request.force)
    outputs.refuse_interrupted(request.out, resume=request.resume, force=request.force)
    model = bundle_file.read(request.run)
    bundle_file.refuse_network(model, "features")
    slides.refuse_implausible(request.mpp)
    for image in trident_files.images_by_file(request.slides).values():
        stated = slides.stated_mpp(image) if request.mpp is None else request.mpp
        slide_refusals.refuse_scale(image, stated, model.mpp)
        if stated is None and request.step_um is not None:
            raise InputError(f"{image}: `step_um` needs microns per pixel; give `mpp`")


def _step(step_um: float | None) -> None:
    if step_um is not None and not 0 < step_um < np.inf:
        raise InputError(
            f"`step_um` {step_um:g}: a distance above 0 microns is needed, such as 100"
        )


@refuse.register
def _export(request: ExportRequest) -> None:
    model = bundle_file.read(request.run)
    why = bundle_file.why_no_export(model.trained_on, model.network)
    if why is not None:
        raise InputError(f"nothing can be exported: {why}")
    out = request.out
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; a folder, new or not, works")
    for name in request.formats:
        outputs.refuse_finished(out / parity.FORMATS[name].folder, force=request.force)


def _training(config: Config, request: FitRequest | EvaluateRequest) -> None:
    """What all trainings share."""
    outputs.refuse_finished(request.out, force=request.force)
    outputs.refuse_interrupted(request.out, resume=request.resume, force=request.force)
    pretrain, encoder = request.pretrain, request.encoder
    if pretrain is not None and encoder is not None:
        raise InputError("`pretrain` trains an encoder and `encoder` brings one; pass one of them")
    for path in request.counts:
        readers.chosen_layout(path, None)
    if pretrain is not None and not tfds_images.is_tfds(pretrain):
        readers.list_images(pretrain)
    if encoder is not None:
        encoder_refusals.refuse(encoder, config, getattr(request, "compare", ()))
    gene_panel.panel_names(config.target.panel)
    gene_sets.read(request.gene_sets)


def _data(data: Path, request: Reading) -> None:
    """What can be said of paired data before its tables are read."""
    slides.refuse_implausible(request.mpp)
    readers.chosen_layout(data, request.layout)
    if request.image is not None:
        slides.image_size(request.image)


def _scoring(request: EvaluateRequest | ScoreRequest) -> None:
    if request.clusters is not None and request.clusters < 2:
        raise InputError(f"`clusters` {request.clusters}: at least 2 are needed")
    if request.predictions:
        from histospace_tf.predictors import external_predictions  # with AnnData

        external_predictions.refuse_unreadable(request.predictions)


def _features(request: EvaluateRequest) -> None:
    kept_as: dict[str, str] = {}
    others = {one.name for one in registry.compared(request.compare)} | set(request.predictions)
    for title, folder in request.features.items():
        registry.refuse_name(title)
        for name in (title, *patch_heads.names(title)):
            if name in others:
                raise InputError(f"`features` {title}: a predictor {name!r} is asked for already")
        other = kept_as.setdefault(outputs.file_name(title).lower(), title)
        if other != title:
            raise InputError(
                f"`features` {other} and {title} would be kept under one file name; choose others"
            )
        patch_matching.listed(folder)


def _simulated(hold_out: Sequence[str]) -> None:
    """Refuses what cannot be held out of the tissue that `fit` simulates without data."""
    patients = np.array(list(simulation.PATIENTS[: simulation.DEFAULT_PATIENTS]))
    n = len(patients)
    sections = np.array([f"{patient}1" for patient in patients])
    index = splits.SpotIndex(sections, patients, np.zeros((n, 2)), np.zeros(n))
    splits.outer_fold(index, hold_out)

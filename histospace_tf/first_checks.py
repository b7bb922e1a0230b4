"""What each verb refuses before any long work, without TensorFlow (whose import takes seconds).

A check has its verb's name and arguments. The verb calls it first; the command line calls it before
TensorFlow is loaded, too, so that a mistyped path is told at once. Nothing is written here. What
shows only in the data's tables, such as names of patients and genes, is told when those are read
(`material.planned`), and what shows in pixels when images are opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from histospace_tf import bundle_file, outputs, packaged
from histospace_tf.cohort.outer_splits import SPLITS
from histospace_tf.config import Config
from histospace_tf.data_pipelines import (
    gene_panel,
    readers,
    simulation,
    slides,
    splits,
    tfds_images,
)
from histospace_tf.exports import parity
from histospace_tf.predictors import registry
from histospace_tf.slide_prediction import server_address
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from histospace_tf.slide_prediction.written_files import OutputFiles

COARSEST = 4.0  # a slide's microns per pixel, of the model's: above it, a nucleus is a pixel or two


def fit(
    config: Config,
    data: Path | None,
    out: Path,
    *,
    pretrain: Path | None = None,
    encoder: Path | None = None,
    hold_out: Sequence[str] = (),
    no_hold_out: bool = False,
    evaluations: Sequence[Path] = (),
    labels: str | None = None,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> None:
    """Of `fitting.fit`.

    Raises:
        InputError: options that exclude each other, a path that does not exist, a name that is none
            of the simulated patients', a finished or interrupted run at `out`.
    """
    if no_hold_out and hold_out:
        raise InputError("--hold-out and --no-hold-out exclude each other")
    if evaluations and not no_hold_out:
        raise InputError("--evaluation goes with --no-hold-out: other models have their own scores")
    if evaluations:
        from histospace_tf import inherited_scores  # with pandas

        inherited_scores.read(evaluations)
    _training(config, out, pretrain=pretrain, encoder=encoder, resume=resume, force=force)
    if data is not None:
        _data(data, layout=layout, image=image, mpp=mpp)
        return
    if image is not None or mpp is not None:
        raise InputError("--image and --mpp are about DATA, and none is given")
    if section_column is not None:
        raise InputError("--section-column is about DATA, and none is given")
    _simulated(hold_out)


def evaluate(
    config: Config,
    data: Path,
    out: Path,
    *,
    split: str | None = None,
    pretrain: Path | None = None,
    encoder: Path | None = None,
    clusters: int | None = None,
    labels: str | None = None,
    with_complexities: bool = True,
    compare: Sequence[str] = (),
    predictions: Mapping[str, Path] | None = None,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> None:
    """Of `evaluation.evaluate`.

    Raises:
        InputError: as `fit`; an unknown split, a predictor named twice, unreadable predictions.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"no evaluation by {split!r}; one of {', '.join(SPLITS)} works")
    for predictor in registry.compared(compare):
        predictor.refuse(config)
        if predictions and predictor.name in predictions:
            raise InputError(
                f"--compare and --predictions both name a predictor {predictor.name!r}"
            )
    _scoring(clusters, predictions)
    _training(config, out, pretrain=pretrain, encoder=encoder, resume=resume, force=force)
    _data(data, layout=layout, image=image, mpp=mpp)


def evaluate_run(
    data: Path,
    run: Path,
    out: Path,
    *,
    layout: str | None = None,
    image: Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    predictions: Mapping[str, Path] | None = None,
    clusters: int | None = None,
    labels: str | None = None,
    orthologs: bool = False,
    force: bool = False,
) -> None:
    """Of `external.evaluate_run`.

    Raises:
        InputError: a path that does not exist, a finished output at `out`, unreadable predictions.
    """
    _scoring(clusters, predictions)
    outputs.refuse_finished(out, force=force)
    bundle_file.read(run)
    _data(data, layout=layout, image=image, mpp=mpp)


def predict(
    slide: Path,
    run: Path,
    out: Path,
    *,
    spots: Path | None = None,
    mpp: float | None = None,
    step_um: float | None = None,
    files: OutputFiles | None = None,
    fast: bool = False,
    server: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> None:
    """Of `predicting.predict`.

    Raises:
        InputError: a path that does not exist, an image whose header cannot be read or whose scale
            is unknown or too coarse, an unknown gene, a finished or interrupted output, a server's
            address of another form.
    """
    if out.suffix != ".h5ad":
        raise InputError(f"--out {str(out)!r}: a file name that ends in .h5ad is needed")
    if step_um is not None and spots is not None:
        raise InputError("--step-um is a grid's and --spots brings the places; pass one of them")
    if step_um is not None and not 0 < step_um < np.inf:
        raise InputError(
            f"--step-um {step_um:g}: a distance above 0 microns is needed, such as 100"
        )
    if server is not None:
        server_address.read(server)
    outputs.refuse_finished(out, force=force)
    outputs.refuse_interrupted(out, resume=resume, force=force)
    model = bundle_file.read(run)
    if files is not None and (files.paths() or files.show):
        from histospace_tf.slide_prediction import written_files

        written_files.check(files, model.panel.genes, force=force)
    if spots is not None and not spots.is_file():
        raise InputError(f"spot table {str(spots)!r} does not exist")
    slides.refuse_implausible(mpp)
    size = slides.image_size(slide)
    if files is not None and files.spatialdata is not None:
        from histospace_tf.slide_prediction import spatial_data

        if spatial_data.is_others_store(files.spatialdata):
            spatial_data.refuse_other_store(files.spatialdata, slide.name, size, force=force)
    stated = slides.stated_mpp(slide) if mpp is None else mpp
    refuse_scale(slide, stated, model.config)


def export(run: Path, out: Path, *, formats: Sequence[str], force: bool = False) -> None:
    """Of `export.export`, for a run that is not loaded yet.

    Raises:
        InputError: no run, a file or a finished export at `out`.
    """
    bundle_file.read(run)
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; a folder, new or not, works")
    for name in formats:
        outputs.refuse_finished(out / parity.FORMATS[name].folder, force=force)


def refuse_scale(slide: Path, mpp: float | None, config: Config) -> None:
    """Refuses an image whose microns per pixel do not go with a model's.

    Args:
        slide: the image, for messages; mpp: its microns per pixel, None if unknown.
        config: the model's.
    Raises:
        InputError: the scale is unknown though the model needs it, or so coarse that a tile would
            be made of too few pixels for a nucleus to show.
    """
    wanted = config.tiles.mpp
    if wanted is None:
        return
    if mpp is None:
        raise InputError(
            f"{slide}: the file does not say its microns per pixel, and the model works at "
            f"{wanted:g}; give them with --mpp"
        )
    if mpp > COARSEST * wanted:
        raise InputError(
            f"{slide}: {mpp:g} microns per pixel are too coarse; the model looks at "
            f"{wanted:g}, and up to {COARSEST * wanted:g} works. Take the full-resolution file, or "
            "give --mpp if the file's scale is wrong"
        )


def _training(
    config: Config,
    out: Path,
    *,
    pretrain: Path | None,
    encoder: Path | None,
    resume: bool,
    force: bool,
) -> None:
    """What all trainings share."""
    outputs.refuse_finished(out, force=force)
    outputs.refuse_interrupted(out, resume=resume, force=force)
    if pretrain is not None and encoder is not None:
        raise InputError("--pretrain trains an encoder and --encoder brings one; pass one of them")
    if pretrain is not None and not tfds_images.is_tfds(pretrain):
        readers.list_images(pretrain)
    if encoder is not None:
        bundle_file.read(packaged.run_folder(encoder))
    gene_panel.panel_names(config.target.panel)


def _data(data: Path, *, layout: str | None, image: Path | None, mpp: float | None) -> None:
    """What can be said of paired data before its tables are read."""
    slides.refuse_implausible(mpp)
    readers.chosen_layout(data, layout)
    if image is not None:
        slides.image_size(image)


def _scoring(clusters: int | None, predictions: Mapping[str, Path] | None) -> None:
    if clusters is not None and clusters < 2:
        raise InputError(f"--clusters {clusters}: at least 2 are needed")
    if predictions:
        from histospace_tf.predictors import external_predictions  # with AnnData

        external_predictions.refuse_unreadable(predictions)


def _simulated(hold_out: Sequence[str]) -> None:
    """Refuses what cannot be held out of the tissue that `fit` simulates without data."""
    patients = np.array(list(simulation.PATIENTS[: simulation.DEFAULT_PATIENTS]))
    n = len(patients)
    sections = np.array([f"{patient}1" for patient in patients])
    index = splits.SpotIndex(sections, patients, np.zeros((n, 2)), np.zeros(n))
    splits.outer_fold(index, hold_out)

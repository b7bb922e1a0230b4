"""The commands from Python: `histospace_tf.fit`, `.evaluate`, `.predict` and `.load`.

Each takes what its command takes and does the same. A mistake raises `vocabulary.InputError` with
the line that the command prints. TensorFlow is imported by the first call, not with the package.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

if TYPE_CHECKING:
    import anndata

    from histospace_tf.evaluation import EvaluationResult
    from histospace_tf.fitting import FitResult
    from histospace_tf.loaded import Model
    from histospace_tf.run_settings import Options
    from histospace_tf.scoring import ExternalResult


def prepare_tensorflow() -> None:
    """Settings that TensorFlow reads when it is imported; the user's own values win.

    Where it is imported already they would change nothing, and manifests would record them.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def fit(
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    hold_out: Sequence[str] = (),
    no_hold_out: bool = False,
    evaluations: Sequence[str | Path] = (),
    pretrain: str | Path | None = None,
    encoder: str | Path | None = None,
    labels: str | None = None,
    layout: str | None = None,
    image: str | Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    resume: bool = False,
    force: bool = False,
    **settings: Unpack[Options],
) -> FitResult:
    """Trains on paired sections, scores the held-out ones, writes a run folder.

    Args:
        data: folder of H&E images, spots and counts; None: tissue is simulated.
        out: run folder to write; None: runs/<date-time>.
        settings: preset ("recommended" or "paper"), genes, seed, ...: see `run_settings.Options`.
        hold_out, no_hold_out, evaluations, pretrain, encoder, labels, layout, image, mpp,
            section_column, resume, force: as `fitting.fit`.
    Returns:
        `fitting.FitResult`: out, scores, parameters.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    from histospace_tf import run_settings
    from histospace_tf.vocabulary import InputError

    if out is None and resume:
        raise InputError("resume needs out, the run to go on with")
    if out is None:
        out = run_settings.new_run()
    chosen = run_settings.settings(is_simulated=data is None, **settings)
    prepare_tensorflow()
    from histospace_tf import fitting

    return fitting.fit(
        chosen,
        _path(data),
        Path(out),
        pretrain=_path(pretrain),
        encoder=_path(encoder),
        hold_out=hold_out,
        no_hold_out=no_hold_out,
        evaluations=tuple(Path(folder) for folder in evaluations),
        labels=labels,
        layout=layout,
        image=_path(image),
        mpp=mpp,
        section_column=section_column,
        resume=resume,
        force=force,
    )


@overload
def evaluate(
    data: str | Path,
    out: str | Path,
    *,
    model: None = None,
    split: str | None = None,
    pretrain: str | Path | None = None,
    encoder: str | Path | None = None,
    predictions: Mapping[str, str | Path] | None = None,
    compare: Sequence[str] = (),
    clusters: int | None = None,
    labels: str | None = None,
    with_complexities: bool = True,
    layout: str | None = None,
    image: str | Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    resume: bool = False,
    force: bool = False,
    **settings: Unpack[Options],
) -> EvaluationResult: ...


@overload
def evaluate(
    data: str | Path,
    out: str | Path,
    *,
    model: str | Path,
    predictions: Mapping[str, str | Path] | None = None,
    clusters: int | None = None,
    labels: str | None = None,
    orthologs: bool | None = None,
    layout: str | None = None,
    image: str | Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    force: bool = False,
) -> ExternalResult: ...


def evaluate(
    data: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    split: str | None = None,
    pretrain: str | Path | None = None,
    encoder: str | Path | None = None,
    predictions: Mapping[str, str | Path] | None = None,
    compare: Sequence[str] = (),
    clusters: int | None = None,
    labels: str | None = None,
    with_complexities: bool = True,
    layout: str | None = None,
    image: str | Path | None = None,
    mpp: float | None = None,
    section_column: str | None = None,
    resume: bool = False,
    force: bool = False,
    **settings: Unpack[Options],
) -> EvaluationResult | ExternalResult:
    """Holds out every patient or section in turn, and scores them beside all baselines.

    Args:
        data: folder of paired sections.
        out: folder to write.
        model: a finished run, or a packaged model's name, to score on `data` instead, nothing
            trained; only predictions, clusters, labels, orthologs, layout, image, mpp,
            section_column and force go with it.
        split: "patient" or "section"; None: by patient where there are two or more.
        settings: as `fit`.
        predictions: anybody's predictions, .h5ad files by name, scored beside.
        pretrain, encoder, compare, clusters, labels, with_complexities, layout, image, mpp,
            section_column, resume, force: as `evaluation.evaluate`.
    Returns:
        `evaluation.EvaluationResult`, with `model` `scoring.ExternalResult`: out, scores, genes.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    from histospace_tf import run_settings
    from histospace_tf.vocabulary import InputError

    given = {name: Path(file) for name, file in (predictions or {}).items()}
    if model is not None:
        orthologs = bool(settings.pop("orthologs", None))
        unused = {
            "split": split,
            "pretrain": pretrain,
            "encoder": encoder,
            "compare": compare or None,
            "with_complexities": None if with_complexities else False,
            "resume": resume or None,
            **settings,
        }
        wrong = [name for name, value in unused.items() if value is not None]
        if wrong:
            raise InputError(
                f"model scores a finished run and trains nothing; leave out {', '.join(wrong)}"
            )
        prepare_tensorflow()
        from histospace_tf import packaged, scoring

        return scoring.evaluate_run(
            Path(data),
            packaged.run_folder(model),
            Path(out),
            layout=layout,
            image=_path(image),
            mpp=mpp,
            section_column=section_column,
            predictions=given,
            clusters=clusters,
            labels=labels,
            orthologs=orthologs,
            force=force,
        )
    chosen = run_settings.settings(**settings)
    prepare_tensorflow()
    from histospace_tf import evaluation

    return evaluation.evaluate(
        chosen,
        Path(data),
        Path(out),
        split=split,
        pretrain=_path(pretrain),
        encoder=_path(encoder),
        clusters=clusters,
        labels=labels,
        with_complexities=with_complexities,
        compare=compare,
        predictions=given,
        layout=layout,
        image=_path(image),
        mpp=mpp,
        section_column=section_column,
        resume=resume,
        force=force,
    )


def predict(
    slide: str | Path,
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    spots: str | Path | None = None,
    mpp: float | None = None,
    step_um: float | None = None,
    show: Sequence[str] = (),
    maps: str | Path | None = None,
    heatmaps: str | Path | None = None,
    geojson: str | Path | None = None,
    table: str | Path | None = None,
    spatialdata: str | Path | None = None,
    fast: bool = False,
    server: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> anndata.AnnData:
    """Predicts expression on a new H&E image or slide.

    Args:
        slide: H&E image or whole-slide file.
        model: run folder of `fit`, or a packaged model's name; None: the packaged default.
        out: .h5ad to write; None: none.
        spots, mpp, step_um, fast, server, resume, force: as `predicting.predict`.
        show, maps, heatmaps, geojson, table, spatialdata: as `written_files.OutputFiles`.
    Returns:
        (n places, g genes) AnnData: X float32 in var["unit"], var["trust"] where it is known,
        obsm["spatial"] full-resolution pixels, x first; scanpy and squidpy plot it.
    Raises:
        InputError: an unreadable image, an unknown scale, no tissue, an unknown gene, ...
    """
    prepare_tensorflow()
    from histospace_tf import packaged, predicting
    from histospace_tf.slide_prediction.written_files import OutputFiles

    files = OutputFiles(
        show=tuple(show),
        maps=_path(maps),
        heatmaps=_path(heatmaps),
        geojson=_path(geojson),
        table=_path(table),
        spatialdata=_path(spatialdata),
    )
    with tempfile.TemporaryDirectory(prefix="histospace_tf_") as scratch:
        return predicting.predict(
            Path(slide),
            packaged.run_folder(model),
            Path(scratch) / "prediction.h5ad" if out is None else Path(out),
            spots=_path(spots),
            mpp=mpp,
            step_um=step_um,
            files=files,
            fast=fast,
            server=server,
            resume=resume,
            force=force,
        ).table


def load(run: str | Path) -> Model:
    """The model of a run: genes, unit, tile_px, mpp, and `predict_tiles`.

    Args:
        run: run folder of `fit`, or a packaged model's name.
    Raises:
        InputError: there is none, or it cannot be read.
    """
    prepare_tensorflow()
    from histospace_tf import loaded, packaged

    return loaded.load(packaged.run_folder(run))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)

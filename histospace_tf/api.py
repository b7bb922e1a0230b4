"""The commands from Python: `histospace_tf.fit`, `.evaluate`, `.predict`, `.view` and others.

Each takes what its command takes and does the same. A mistake raises `vocabulary.InputError` with
the line that the command prints. TensorFlow is imported by the first call, not with the package.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import textwrap
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from histospace_tf.request_options import Option, Options
from histospace_tf.requests import (
    BulkRequest,
    EvaluateRequest,
    FeaturesRequest,
    FitRequest,
    PredictRequest,
    PredictSlidesRequest,
    ScoreRequest,
    TissueRequest,
    ViewRequest,
)
from histospace_tf.requests.bulk import fitting_of
from histospace_tf.requests.training import evaluation_of

if TYPE_CHECKING:
    import anndata

    from histospace_tf.bulk_fitting import BulkResult
    from histospace_tf.evaluation import EvaluationResult
    from histospace_tf.featurizing import Featurized
    from histospace_tf.fitting import FitResult
    from histospace_tf.loaded import Model
    from histospace_tf.outlining import Outlined
    from histospace_tf.predicting_slides import SlidesResult
    from histospace_tf.scoring import ScoreResult

Arguments = ParamSpec("Arguments")
OfOther = ParamSpec("OfOther")
Request = TypeVar("Request")
Result = TypeVar("Result")


class Fit(Protocol[Arguments, OfOther]):
    """What `fit` takes: the options of paired sections, or those of slides with bulk expression."""

    @overload
    def __call__(self, *args: Arguments.args, **options: Arguments.kwargs) -> FitResult: ...
    @overload
    def __call__(self, *args: OfOther.args, **options: OfOther.kwargs) -> BulkResult: ...


class Evaluate(Protocol[Arguments, OfOther]):
    """What `evaluate` takes: a training's options, or those that score a finished model."""

    @overload
    def __call__(self, *args: Arguments.args, **options: Arguments.kwargs) -> EvaluationResult: ...
    @overload
    def __call__(self, *args: OfOther.args, **options: OfOther.kwargs) -> ScoreResult: ...


def prepare_tensorflow() -> None:
    """Settings that TensorFlow reads when it is imported; the user's own values win.

    Where it is imported already they would change nothing, and manifests would record them.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def of_options(
    kind: Callable[Arguments, Request],
) -> Callable[[Callable[[Request], Result]], Callable[Arguments, Result]]:
    """Makes a function of a request a function of the request's options.

    Args:
        kind: the request's class. Its options are the arguments, and are documented as there.
    """

    def decorated(verb: Callable[[Request], Result]) -> Callable[Arguments, Result]:
        @functools.wraps(verb)
        def call(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
            return verb(kind(*args, **options))

        return _described(call, cast(type[Options], kind))

    return decorated


def of_fitting(
    paired: Callable[Arguments, FitRequest], bulk: Callable[OfOther, BulkRequest]
) -> Callable[[Callable[..., Any]], Fit[Arguments, OfOther]]:
    """As `of_options`, for `fit`, which takes one of two requests."""
    return lambda verb: cast(Fit[Arguments, OfOther], _of_either(verb, paired, fitting_of))


def of_evaluation(
    trains: Callable[Arguments, EvaluateRequest], scores: Callable[OfOther, ScoreRequest]
) -> Callable[[Callable[..., Any]], Evaluate[Arguments, OfOther]]:
    """As `of_options`, for `evaluate`, which takes one of two requests."""
    return lambda verb: cast(Evaluate[Arguments, OfOther], _of_either(verb, trains, evaluation_of))


def _of_either(verb: Callable[..., Any], stated: Any, made: Callable[..., Any]) -> Any:
    """`verb` as a function of options: those of the class `stated`, of which `made` makes a request
    of either class."""

    @functools.wraps(verb)
    def call(*args: Any, **options: Any) -> Any:
        return verb(made(*args, **options))

    return _described(call, stated)


def _described(
    call: Callable[Arguments, Result], kind: type[Options]
) -> Callable[Arguments, Result]:
    """Gives a function the signature of a request, and its options' descriptions."""
    options = kind.listed()
    returned = call.__annotations__["return"]
    vars(call)["__signature__"] = Signature([*map(_parameter, options)], return_annotation=returned)
    del vars(call)["__wrapped__"]  # whose arguments are others
    before, returns, after = (call.__doc__ or "").partition("    Returns:")
    call.__doc__ = "\n".join([f"{before}    Args:", *map(_row, options), f"{returns}{after}"])
    return call


def _parameter(option: Option) -> Parameter:
    is_converted = hasattr(option.type, "__metadata__")
    return Parameter(
        option.name,
        Parameter.POSITIONAL_OR_KEYWORD if option.is_positional else Parameter.KEYWORD_ONLY,
        default=Parameter.empty if option.default is dataclasses.MISSING else option.default,
        annotation=option.type.__origin__ if is_converted else option.type,
    )


def _row(option: Option) -> str:
    """What a docstring says of an option."""
    words = f"{option.name}: {option.help}"
    if option.unit is not None:
        words += f" In {option.unit}."
    if option.legal is not None and not callable(option.legal):
        words += f" One of {', '.join(map(repr, option.legal))}."
    if isinstance(option.unset, str):
        words += f" {option.default}: {option.unset}."
    elif option.setting is not None and option.default is None:
        words += " None: the preset's."
    return textwrap.fill(words, 100, initial_indent=" " * 8, subsequent_indent=" " * 12)


@of_fitting(FitRequest, BulkRequest)
def fit(request: FitRequest | BulkRequest) -> FitResult | BulkResult:
    """Trains on paired sections, scores the held-out ones, writes a run folder.

    With `bulk`, a network is trained on slides as a whole, and only the options of
    `requests.BulkRequest` go with it.

    Returns:
        `fitting.FitResult`, with `bulk` `bulk_fitting.BulkResult`: out, scores, parameters.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    prepare_tensorflow()
    if isinstance(request, BulkRequest):
        from histospace_tf import bulk_fitting

        return bulk_fitting.fit(request)
    from histospace_tf import fitting

    return fitting.fit(request)


@of_evaluation(EvaluateRequest, ScoreRequest)
def evaluate(request: EvaluateRequest | ScoreRequest) -> EvaluationResult | ScoreResult:
    """Holds out every patient or section in turn, and scores them beside all baselines.

    With `model`, a finished run is scored on the data instead, and only the options of
    `requests.ScoreRequest` go with it.

    Returns:
        `evaluation.EvaluationResult`, with `model` `scoring.ScoreResult`: out, scores, genes.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    prepare_tensorflow()
    if isinstance(request, ScoreRequest):
        from histospace_tf import scoring

        return scoring.score(request)
    from histospace_tf import evaluation

    return evaluation.evaluate(request)


@of_options(PredictRequest)
def predict(request: PredictRequest) -> anndata.AnnData:
    """Predicts expression on a new H&E image or slide.

    Returns:
        (n places, g genes) AnnData: X float32 in var["unit"], var["trust"] where it is known,
        obsm["spatial"] full-resolution pixels, x first; scanpy and squidpy plot it.
    Raises:
        InputError: an unreadable image, an unknown scale, no tissue, an unknown gene, ...
    """
    prepare_tensorflow()
    from histospace_tf import predicting

    return predicting.predict(request).table


@of_options(PredictSlidesRequest)
def predict_slides(request: PredictSlidesRequest) -> SlidesResult:
    """Predicts expression on many slides, each into a file of its own, and writes a cohort's table.

    Returns:
        `predicting_slides.SlidesResult`: out, what became of each slide, the table.
    Raises:
        InputError: what concerns all slides; what concerns one is its outcome.
    """
    prepare_tensorflow()
    from histospace_tf import predicting_slides

    return predicting_slides.predict(request)


@of_options(ViewRequest)
def view(request: ViewRequest) -> Path:
    """Writes a page on which a finished prediction is looked at: any gene over the slide.

    Of a folder of predictions, writes the page of every slide that has none, and a list of all.

    Returns:
        The page; of a folder, the list.
    Raises:
        InputError: a file that is no prediction, a finished page, a folder without predictions.
    """
    from histospace_tf import viewing

    return viewing.view(request)


@of_options(FeaturesRequest)
def features(request: FeaturesRequest) -> Featurized:
    """Writes our encoder's features of slides' tissue tiles, in TRIDENT's form.

    Returns:
        `featurizing.Featurized`: out, the tiles of each file, features for each tile.
    Raises:
        InputError: an unreadable image, an unknown scale, two images of one name, no tissue, ...
    """
    prepare_tensorflow()
    from histospace_tf import featurizing

    return featurizing.featurize(request)


@of_options(TissueRequest)
def tissue(request: TissueRequest) -> Outlined:
    """Writes the outline of a slide's tissue, as `predict` finds it, for QuPath.

    Returns:
        `outlining.Outlined`: out, how many pieces, their area.
    Raises:
        InputError: an unreadable image, an unknown scale, no tissue, a finished file.
    """
    from histospace_tf import outlining

    return outlining.outline(request)


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

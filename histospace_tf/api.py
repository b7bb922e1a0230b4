"""The commands from Python: `histospace_tf.fit`, `.evaluate`, `.predict`, `.features` and `.load`.

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
    EvaluateRequest,
    FeaturesRequest,
    FitRequest,
    PredictRequest,
    ScoreRequest,
)
from histospace_tf.requests.training import evaluation_of

if TYPE_CHECKING:
    import anndata

    from histospace_tf.evaluation import EvaluationResult
    from histospace_tf.featurizing import Featurized
    from histospace_tf.fitting import FitResult
    from histospace_tf.loaded import Model
    from histospace_tf.scoring import ScoreResult

Arguments = ParamSpec("Arguments")
OfTraining = ParamSpec("OfTraining")
OfScoring = ParamSpec("OfScoring")
Request = TypeVar("Request")
Result = TypeVar("Result")


class Evaluate(Protocol[OfTraining, OfScoring]):
    """What `evaluate` takes: a training's options, or those that score a finished model."""

    @overload
    def __call__(
        self, *args: OfTraining.args, **options: OfTraining.kwargs
    ) -> EvaluationResult: ...
    @overload
    def __call__(self, *args: OfScoring.args, **options: OfScoring.kwargs) -> ScoreResult: ...


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


def of_either(
    trains: Callable[OfTraining, EvaluateRequest], scores: Callable[OfScoring, ScoreRequest]
) -> Callable[[Callable[..., Any]], Evaluate[OfTraining, OfScoring]]:
    """As `of_options`, for a function of one of two requests."""

    def decorated(verb: Callable[..., Any]) -> Evaluate[OfTraining, OfScoring]:
        @functools.wraps(verb)
        def call(*args: Any, **options: Any) -> Any:
            return verb(evaluation_of(*args, **options))

        return cast(Evaluate[OfTraining, OfScoring], _described(call, cast(type[Options], trains)))

    return decorated


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


@of_options(FitRequest)
def fit(request: FitRequest) -> FitResult:
    """Trains on paired sections, scores the held-out ones, writes a run folder.

    Returns:
        `fitting.FitResult`: out, scores, parameters.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    prepare_tensorflow()
    from histospace_tf import fitting

    return fitting.fit(request)


@of_either(EvaluateRequest, ScoreRequest)
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

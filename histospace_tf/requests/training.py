"""What may be asked of trainings and scores: fit, evaluate, and evaluate with a finished model."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from histospace_tf.request_options import (
    Names,
    OnePath,
    OptionalPath,
    OptionalRunOrName,
    Options,
    Paths,
    PathsByName,
    RunOrName,
    again,
    legal_values_of,
    option,
    text_or_none,
    texts,
    unchanged,
    useful_to,
)
from histospace_tf.requests.data import Reading
from histospace_tf.requests.prediction import run_of_model
from histospace_tf.requests.settings import Settings, default_of, published_networks
from histospace_tf.scores import DEFAULT_CLUSTERS

if TYPE_CHECKING:
    from histospace_tf.config import Architecture, Network
    from histospace_tf.request_options import Given

    RunFolder = Given[str | Path | None, Path]
    Compared = Given[Sequence[str], tuple[str, ...]]
    NoModel: TypeAlias = None  # with one, it is a `ScoreRequest`
else:
    Architecture = Network = str
    RunFolder = OptionalPath
    Compared = Names
    NoModel = OptionalRunOrName

SPLITS = ("patient", "section")  # what an evaluation holds out in turn


def _comparable() -> Sequence[str]:
    from histospace_tf.predictors import registry  # not when the package is imported

    return registry.comparable()


def _texts_by_name(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in paths.items()}


def _fitted_architectures() -> Sequence[str]:
    from histospace_tf import slide_level

    heads = legal_values_of("regressor__architecture") or ()
    return [*heads, *published_networks(), *slide_level.ARCHITECTURES]


def _bulk_units() -> Sequence[str]:
    from histospace_tf.data_pipelines.readers import bulk_tables

    return list(bulk_tables.UNITS)


def name_run(request: Any) -> None:
    """Names a run without `out` by date and time.

    Raises:
        InputError: it is to be resumed, and which one is not known.
    """
    if request.out is None and request.resume:
        from histospace_tf.vocabulary import InputError

        raise InputError("`resume` needs `out=RUN`, the run to go on with")
    if request.out is None:
        now = datetime.datetime.now()
        object.__setattr__(request, "out", Path("runs") / now.strftime("%Y-%m-%d_%H-%M-%S"))


class Training(Options):
    """Options that all trainings share."""

    counts: Paths = option(
        default=(),
        help="Folder or .h5ad of spots and counts that need no image: they join levels and gene "
        "factors, those of held-out patients aside.",
        metavar="PATH",
        resumed=texts,
    )
    pretrain: OptionalPath = option(
        default=None,
        help="Folder of H&E images, or tfds:NAME, for the autoencoder.",
        resumed=str,
    )
    encoder: OptionalRunOrName = option(
        default=None,
        help="Run, or packaged model, whose trained encoder is taken over; or an encoder of your "
        "own, such as uni.onnx,px=224,mpp=0.5,pixels=imagenet.",
        metavar="RUN|ENCODER",
        resumed=str,
    )
    labels: str | None = option(
        default=None,
        help="Labels of spots to hold clusters against: a column of obs, or a table.",
        resumed=text_or_none,
    )
    gene_sets: Paths = option(
        default=(),
        help="GMT file of gene sets, scored as genes are: gene_sets.csv.",
        metavar="FILE.gmt",
    )


class Restart(Options):
    """Options of a long work that may have been interrupted."""

    resume: bool = option(default=False, help="Go on from an interrupted run.")
    force: bool = option(default=False, help="Replace a finished or interrupted run.")


class FitRequest(Settings, Training, Reading, Restart):
    """Train on paired sections, score the held-out ones, write a run folder."""

    data: OptionalPath = option(
        default=None,
        help="Folder of H&E images, spots and counts, or a .h5ad with its image.",
        unset="tissue is simulated",
        flag="DATA",
        kw_only=False,
        resumed=str,
    )
    out: RunFolder = option(
        default=None, help="Run folder to write.", unset="runs/<date-time>", kw_only=False
    )
    hold_out: Names = option(
        default=(),
        help="Patient or section to score on.",
        unset="the patient with fewest spots; of one patient the section; of one section a block "
        "of it",
        resumed=sorted,
    )
    no_hold_out: bool = option(
        default=False, help="Train on everything, score nothing.", resumed=unchanged
    )
    evaluations: Paths = option(
        default=(),
        help="With `no_hold_out`: folder of evaluate on the same `data`, whose scores and trust "
        "the model carries.",
        flag="--evaluation",
        resumed=texts,
    )

    architecture: Architecture | Network | None = option(
        default=None,
        help="Kind of regression head, or a network that others published as the run's model, such "
        "as st_net; with `bulk` he2rna or hist2rna.",
        legal=_fitted_architectures,
        setting="regressor__architecture",
    )
    peer_size: str | None = option(
        default=None,
        help="Size of the published network that `architecture` names: published, or small for a "
        "laptop.",
        unset=functools.partial(default_of, "peers__size"),
        setting="peers__size",
    )
    bulk: OptionalPath = option(
        default=None,
        help="CSV or TSV of bulk expression, one row per slide: `data` is then a folder of slides "
        "alone, and a network is trained on them as a whole.",
        metavar="TABLE",
    )
    bulk_unit: str | None = option(
        default=None,
        help="What `bulk` holds: raw counts; any other linear measure (TPM, FPKM); or the "
        "logarithm of 1 + one of these.",
        unset="counts",
        legal=_bulk_units,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        name_run(self)

    @property
    def is_simulated(self) -> bool:
        return self.data is None


class EvaluateRequest(Settings, Training, Reading, Restart):
    """Hold out every patient or section in turn, and score them beside all baselines."""

    data: OnePath = option(
        help="Folder of H&E images, spots and counts, or a .h5ad with its image.",
        flag="DATA",
        kw_only=False,
        resumed=str,
    )
    out: OnePath = option(help="Folder to write.", kw_only=False, is_required=True)
    split: str | None = option(
        default=None,
        help="What is held out in turn.",
        unset="patient, where there are two or more",
        legal=SPLITS,
        resumed=unchanged,
    )
    model: NoModel = option(
        default=None,
        help="Score this finished run, or this packaged model, on `data`; no training.",
    )
    predictions: PathsByName = option(
        default=None,
        help="Anybody's predictions by name, .h5ad files, scored beside on the same spots.",
        flag_help="Anybody's predictions, scored beside on the same spots.",
        metavar="NAME=PATH.h5ad",
    )
    compare: Compared = option(
        default=(),
        help="Another head or published network to train on the same folds, or `probe:` and an "
        "encoder: PCA and ridge on its features, such as "
        "probe:uni.onnx,px=224,mpp=0.5,pixels=imagenet.",
        legal=_comparable,
        or_form="probe:ENCODER",
        resumed=list,
    )
    peer_size: str | None = option(
        default=None,
        help="Size of the published networks that `compare` names.",
        unset=functools.partial(default_of, "peers__size"),
        setting="peers__size",
    )
    features: PathsByName = option(
        default=None,
        help="Patch features of TRIDENT, CLAM or HEST, or .npz, by name, a folder each: ridge and "
        "the recommended head on the same folds.",
        flag_help="Patch features of TRIDENT, CLAM or HEST, or .npz: ridge and the recommended "
        "head on the same folds.",
        metavar="NAME=FOLDER",
        resumed=_texts_by_name,
    )
    clusters: int | None = option(
        default=None,
        help="Clusters of a section's spots, at least 2.",
        unset=f"as many as labels; {DEFAULT_CLUSTERS} where there are none, "
        "and for cancer against the rest",
    )
    with_complexities: bool = option(
        default=True,
        help="Curves of 3 autoencoders and 3 heads, trained on one fold.",
        flag="--no-complexities",
        flag_help="No curves of 3 autoencoders and 3 heads.",
    )
    study_epochs: int | None = option(
        default=None,
        help="Epochs of each of these curves, at most; they end where they turn.",
        unset="12 of autoencoders, 50 of heads",
    )


class ScoreRequest(Reading):
    """Score a finished run on data that it was not trained on; nothing is fitted."""

    data: OnePath = option(
        help="Folder of H&E images, spots and counts, or a .h5ad with its image.", kw_only=False
    )
    out: OnePath = option(help="Folder to write.", kw_only=False)
    model: RunOrName = option(help="Run folder of fit, or a packaged model's name.")
    predictions: PathsByName = again(EvaluateRequest, "predictions")
    clusters: int | None = again(EvaluateRequest, "clusters")
    labels: str | None = again(Training, "labels")
    gene_sets: Paths = again(Training, "gene_sets")
    orthologs: bool = again(Settings, "orthologs")
    force: bool = again(Restart, "force")

    run = functools.cached_property(run_of_model)


def evaluation_of(*places: Any, **given: Any) -> EvaluateRequest | ScoreRequest:
    """What the arguments of `evaluate` ask for: with `model`, that a finished run is scored.

    Raises:
        InputError: `model` beside an option that only a training has a use for.
    """
    model = given.get("model")
    if model is None:
        return EvaluateRequest(*places, **given)
    why = "`model` scores a finished run and trains nothing"
    return ScoreRequest(*places, **useful_to(ScoreRequest, EvaluateRequest, given, why))

"""What is refused of a published network as a run's model; without TensorFlow."""

from __future__ import annotations

from histospace_tf.bundle_file import BundleFile
from histospace_tf.config import Config
from histospace_tf.predictors import peers
from histospace_tf.requests.prediction import PredictRequest
from histospace_tf.requests.settings import published_networks
from histospace_tf.requests.training import FitRequest
from histospace_tf.vocabulary import InputError

# Options of `fit` that are about our encoder, or about our head.
_OF_OURS = (
    "encoder",
    "pretrain",
    "pretrain_epochs",
    "pretrain_mpp",
    "batch_size",
    "counts",
    "evaluations",
)


def refuse_fit(request: FitRequest, config: Config) -> None:
    """Refuses options that have no part in the training of a published network.

    Raises:
        InputError: naming the option, or a setting that the network cannot be trained with.
    """
    network = peers.named(config.peers.architecture)
    if network is None:
        if request.peer_size is not None:
            raise InputError(
                "`peer_size` is of published networks; `architecture` one of "
                f"{', '.join(published_networks())}"
            )
        return
    given = [f"`{name}`" for name in _OF_OURS if getattr(request, name) not in (None, ())]
    if given:
        raise InputError(
            f"{', '.join(given)}: of no use to `architecture` {network.name}, which is trained as "
            "its authors did, from tiles around the spots to their expression; leave it out"
        )
    network.refuse(config)


def refuse_evaluate(config: Config) -> None:
    """Refuses a published network as the model of an evaluation.

    Raises:
        InputError: naming what does it.
    """
    name = config.peers.architecture
    if name != "none":
        raise InputError(
            f'"peers.architecture" is {name!r}: that is of `fit`; `compare` {name} trains it on '
            "the folds of an evaluation, beside our model"
        )


def refuse_prediction(request: PredictRequest, model: BundleFile) -> None:
    """Refuses what a network of whole sections cannot do.

    Raises:
        InputError: naming the option.
    """
    network = model.network
    if network is not None and network.sees_sections and request.server is not None:
        raise InputError(
            f"`server` serves no {network.label}, which sees all places of a section at once: it "
            "predicts here alone"
        )

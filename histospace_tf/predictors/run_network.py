"""A network that others published as a run's own model, in place of our encoder and head.

It is trained as `evaluate --compare` trains it, and its row is the model's. In one thing it is not:
tiles of all images are brought to one scale, the median of the training images', as those of a
slide are in `predict`. (A difference below `tiles.SAME_SCALE` is none.) Kept beside it is the
distance of the spots, in which networks of whole sections count columns and rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from histospace_tf import bundle_file
from histospace_tf.bundle_file import NetworkRecord
from histospace_tf.config import Config
from histospace_tf.predictors import ours, peers
from histospace_tf.predictors.peer_network import FittedNetwork, PeerNetwork, Recipe
from histospace_tf.predictors.predictor import Fitted, Predictor
from histospace_tf.predictors.section_networks import pitch_px
from histospace_tf.vocabulary import InputError, named

if TYPE_CHECKING:
    from histospace_tf.bundle import Bundle
    from histospace_tf.cohort.paired import PairedSpots
    from histospace_tf.cohort.sides import TrainingSpots
    from histospace_tf.network_model import NetworkModel
    from histospace_tf.training import Session


class RunNetwork(Predictor):
    """The run's model: a published network. entry: which."""

    name, label, kind = ours.Model.name, ours.Model.label, ours.Model.kind

    def __init__(self, entry: PeerNetwork) -> None:
        self.entry = entry

    def refuse(self, settings: Config) -> None:
        """As the network's entry."""
        self.entry.refuse(settings)

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedNetwork:
        """Trains it on tiles of one scale, the training images'."""
        mpp = common_mpp(spots.encoded.spots, spots.rows)
        fitted = self.entry.fit(spots, settings, session, mpp=mpp)
        fitted.choice = {"architecture": self.entry.name, **(fitted.choice or {}), "mpp": mpp}
        return fitted


def in_place_of_ours(predictors: tuple[Predictor, ...], settings: Config) -> tuple[Predictor, ...]:
    """A fold's predictors: where the run's model is a published network, it stands for ours."""
    entry = peers.named(settings.peers.architecture)
    if entry is None:
        return predictors
    return (RunNetwork(entry), *(one for one in predictors if one.kind != "ours"))


def common_mpp(spots: PairedSpots, rows: np.ndarray) -> float:
    """Median scale of the images of the spots `rows`, in microns per pixel.

    Raises:
        InputError: that of some section is unknown, so that its tiles could not be brought to it.
    """
    unknown = [one.name for one in spots.prepared if one.mpp is None]
    if unknown:
        raise InputError(
            f"section {named(unknown)}: microns per pixel are unknown, and a network is shown all "
            "images, and slides of `predict`, at one scale; give them with `mpp`"
        )
    return float(np.median([spots.prepared[n].mpp for n in spots.sections_in(rows)]))


def record(
    fitted: FittedNetwork, spots: PairedSpots, rows: np.ndarray, settings: Config
) -> NetworkRecord:
    """What a run keeps of its network beside the weights. rows: the training spots."""
    entry, recipe = fitted.entry, fitted.recipe
    pitches = [
        pitch_px(centres) * (spots.prepared[number].mpp or np.nan)
        for number in spots.sections_in(rows)
        if len(centres := spots.index.centres_px[spots.rows_of(number, rows)]) > 1
    ]
    mpp = common_mpp(spots, rows)
    return NetworkRecord(
        name=entry.name,
        label=entry.label,
        size=dataclasses.asdict(recipe.size),
        cut_px=recipe.cut_px,
        mpp=mpp,
        pitch_um=float(np.median(pitches)) if pitches else recipe.cut_px * mpp,
        symmetries=entry.symmetries,
        factor=entry.factor(settings),
    )


def load(run: Path) -> Bundle | NetworkModel:
    """The model of a run folder, a published network of any kind as it is.

    Raises:
        InputError: as `bundle.load`.
    """
    from histospace_tf import bundle, network_model  # with TensorFlow

    is_network = bundle_file.read(run).network is not None
    return network_model.load(run) if is_network else bundle.load(run)


def of_model(model: Bundle | NetworkModel) -> dict[str, Fitted]:
    """The predictors that a finished run's model is, by name."""
    from histospace_tf.network_model import NetworkModel

    if isinstance(model, NetworkModel):
        return {ours.Model.name: fitted(model)}
    return ours.of_bundle(model)


def fitted(model: NetworkModel) -> FittedNetwork:
    """A finished run's network; it sees tiles at the scale that it was trained at.

    Raises:
        InputError: this version knows no network of its name.
    """
    from histospace_tf import network_model

    kept = model.network
    entry = peers.named(kept.name)
    if entry is None:
        raise InputError(f"no published network {kept.name!r} is known here")
    recipe = Recipe(network_model.size(kept), kept.cut_px, entry.module.TRAINING, mpp=kept.mpp)
    return FittedNetwork(entry, model.model, recipe, kept.factor)

"""A network that others published as a run's model: it takes the place of encoder and head.

bundle/bundle.json          as of `bundle`, with "network" (`bundle_file.NetworkRecord`)
bundle/network.weights.h5   the whole network, in the unit that it was trained on
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf import bundle_file
from histospace_tf.bundle_file import NetworkRecord
from histospace_tf.config import Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.vocabulary import InputError, StainReference


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkModel:
    """All that predicting needs.

    config: of the run; its tiles are those of the colour ridge.
    panel: neither centred nor scaled: a network's output times `network.factor` is in its unit.
    network: how it was built. model: of `models.peers`, trained.
    """

    config: Config
    panel: GenePanel
    reference: StainReference
    trained_on: dict[str, Any]
    network: NetworkRecord
    model: keras.Model

    @property
    def architecture(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def n_parameters(self) -> int:
        """Weights of the network: BatchNorm's statistics are not counted."""
        return sum(int(np.prod(variable.shape)) for variable in self.model.trainable_variables)


def save(model: NetworkModel, folder: Path, *, unit: str) -> None:
    """Writes a model into an empty or new folder. unit: the panel's in words."""
    folder.mkdir(parents=True, exist_ok=True)
    model.model.save_weights(folder / "network.weights.h5")
    bundle_file.write(folder, model, unit=unit)


def load(run: Path) -> NetworkModel:
    """The network of a run folder, or of a bundle folder itself.

    Raises:
        InputError: as `bundle_file.read`; a run of another kind; weights that cannot be read.
    """
    file = bundle_file.read(run)
    if file.network is None:
        raise InputError(f"{str(run)!r} holds an encoder and a head, no network of its own")
    model = build(file.network, len(file.panel))
    weights = file.folder / "network.weights.h5"
    try:
        model.load_weights(weights)
    except Exception as error:  # Keras raises many kinds for a missing, cut or foreign file
        raise InputError(f"{weights} cannot be read as this model's weights: {error}") from None
    return NetworkModel(
        config=file.config,
        panel=file.panel,
        reference=file.reference,
        trained_on=file.trained_on,
        network=file.network,
        model=model,
    )


def build(record: NetworkRecord, genes: int) -> keras.Model:
    """The network, untrained."""
    module = importlib.import_module(f"histospace_tf.models.peers.{record.name}")
    network: keras.Model = module.build(genes, size(record))
    return network


def size(record: NetworkRecord) -> Any:
    """The `Size` of the network's module."""
    module = importlib.import_module(f"histospace_tf.models.peers.{record.name}")
    return module.Size(**record.size)


def parts(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """A network of single tiles as two: tile -> vector, and its last layer, vector -> genes."""
    last = network.get_layer("expression")
    trunk = keras.Model(network.input, last.input, name="trunk")
    features = keras.Input(trunk.output.shape[1:], name="features")
    expression = keras.layers.Dense(last.units, name="expression")(features)
    head = keras.Model(features, expression, name="head")
    head.set_weights(last.get_weights())
    return trunk, head

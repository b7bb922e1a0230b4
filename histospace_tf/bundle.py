"""A trained model as one folder: weights, panel, units, micron scale, stain reference, settings.

bundle/bundle.json                     everything but the weights (`bundle_file`)
bundle/encoder.weights.h5              the frozen encoder; none of one that was brought: bundle.json
                                       says which it is, and its own file stays where it was
bundle/head.weights.h5                 the head
bundle/single_tile_head.weights.h5     where the head needs slide context: the one that does not
bundle/familiarity.npz                 how far from the training tiles a tile may be expected

Where the model is a network that others published, it stands in place of these weights
(`network_model`); one of single tiles is read as such a model: its last layer is the head.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from histospace_tf import bundle_file, network_model
from histospace_tf.bundle_file import SINGLE_TILE, NetworkRecord, needs_context
from histospace_tf.config import Config, TargetConfig, changed
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.foreign_encoders import opening
from histospace_tf.models import autoencoder, regressor
from histospace_tf.network_model import NetworkModel
from histospace_tf.scores import familiarity
from histospace_tf.scores.familiarity import Familiarity
from histospace_tf.vocabulary import InputError, StainReference


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """All that predicting and exporting need.

    trunk: (n, s, s, 3) float32 in [0, 1] -> features.
    head: features (and slide context) -> (n, g), in the panel's standardised unit.
    single_tile_head: features -> (n, g); the same model as `head` where that needs no context.
    trained_on: its training data, for provenance: patients, sections, pre-training images.
    familiarity: what tells how like the training tiles another is; None: not known.
    network: where a network that others published is read as such a model: what it is.
    """

    config: Config
    panel: GenePanel
    reference: StainReference
    encoder: keras.Model
    trunk: keras.Model
    head: keras.Model
    single_tile_head: keras.Model
    trained_on: dict[str, Any]
    familiarity: Familiarity | None = None
    network: NetworkRecord | None = None

    @property
    def architecture(self) -> str:
        """The kind of head, or the published network's name."""
        return self.config.regressor.architecture if self.network is None else self.network.name

    @property
    def needs_context(self) -> bool:
        return needs_context(self.config)

    @property
    def n_parameters(self) -> int:
        """Weights of encoder and head: BatchNorm's statistics and fixed scales not counted; of an
        encoder that was brought all of them, or none where that cannot be known."""
        brought = bundle_file.brought_encoder(self.trained_on)
        learned = [*self.encoder.trainable_variables, *self.head.trainable_variables]
        if self.config.regressor.factors:
            learned.append(self.head.get_layer("expression").kernel)  # fitted, though not trained
        counted = sum(int(np.prod(variable.shape)) for variable in learned)
        return counted + ((brought or {}).get("parameters") or 0)


def feature_shape(trunk: keras.Model, tile_px: int) -> tuple[int, ...]:
    """Shape of one tile's features: (f,) or (height, width, channels)."""
    shape = trunk.compute_output_shape((1, tile_px, tile_px, 3))
    return tuple(int(size) for size in shape[1:])


def build_single_tile_head(shape: tuple[int, ...], n_genes: int, config: Config) -> keras.Model:
    """The head that needs no slide context, of the same kind as the configuration's."""
    own = config.regressor.architecture
    single = dataclasses.replace(config.regressor, architecture=SINGLE_TILE.get(own, own))
    return regressor.build_head(shape, n_genes, single)


def save(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle into an empty or new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if bundle_file.brought_encoder(bundle.trained_on) is None:
        bundle.encoder.save_weights(folder / "encoder.weights.h5")
    bundle.head.save_weights(folder / "head.weights.h5")
    if bundle.needs_context:
        bundle.single_tile_head.save_weights(folder / "single_tile_head.weights.h5")
    if bundle.familiarity is not None:
        bundle.familiarity.save(folder / familiarity.FILE)
    bundle_file.write(folder, bundle, unit=unit(bundle.panel))


def unit(target: GenePanel | TargetConfig) -> str:
    """Name of a panel's unit, for axes and `var`."""
    logarithm = {"library_size_log1p": "ln", "library_size_log10": "log10"}[target.normalisation]
    return f"{logarithm}(1 + counts per {target.target_sum:,.0f})"


def load(run: Path) -> Bundle:
    """The bundle of a run folder, or a bundle folder itself.

    Raises:
        InputError: there is no bundle, it was written in another form, or a part of it is missing;
            its model is a network that sees whole sections.
    """
    file = bundle_file.read(run)
    if file.network is not None:
        return of_network(network_model.load(run))
    config, panel, folder = file.config, file.panel, file.folder
    brought = bundle_file.brought_encoder(file.trained_on)
    if brought is None:
        encoder = autoencoder.build_encoder(config.autoencoder.variant)
    else:
        encoder = opening.opened_again(brought, folder).trunk
    trunk = regressor.build_trunk(encoder, architecture=config.regressor.architecture)
    shape = feature_shape(trunk, config.tiles.tile_px)
    head = regressor.build_head(shape, len(panel), config.regressor)
    single = build_single_tile_head(shape, len(panel), config) if needs_context(config) else head
    if brought is None:
        _load_weights(encoder, folder / "encoder.weights.h5")
    # The trunk holds a frozen copy, made before the weights were there.
    trunk = regressor.build_trunk(encoder, architecture=config.regressor.architecture)
    _load_weights(head, folder / "head.weights.h5")
    if single is not head:
        _load_weights(single, folder / "single_tile_head.weights.h5")
    known = folder / familiarity.FILE
    return Bundle(
        config=config,
        panel=panel,
        reference=file.reference,
        encoder=encoder,
        trunk=trunk,
        head=head,
        single_tile_head=single,
        trained_on=file.trained_on,
        familiarity=Familiarity.load(known) if known.is_file() else None,
    )


def of_network(model: NetworkModel) -> Bundle:
    """A published network of single tiles, its last layer as the head.

    Raises:
        InputError: it sees whole sections.
    """
    network = model.network
    if network.sees_sections:
        raise InputError(
            f"{network.label} sees all places of a section at once, and nothing in a tile alone; "
            "`predict`, and `evaluate` with `model`, take its run"
        )
    trunk, head = network_model.parts(model.model)
    head.set_weights([weights * network.factor for weights in head.get_weights()])
    config = changed(
        model.config,
        tiles__tile_px=network.tile_px,
        tiles__mpp=network.mpp * network.cut_px / network.tile_px,
        regressor__architecture="pooled",
        regressor__factors=0,
        regressor__symmetries=network.symmetries,
    )
    return Bundle(
        config=config,
        panel=model.panel,
        reference=model.reference,
        encoder=trunk,
        trunk=trunk,
        head=head,
        single_tile_head=head,
        trained_on=model.trained_on,
        network=network,
    )


def _load_weights(model: keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises many kinds for a missing, cut or foreign file
        raise InputError(f"{path} cannot be read as this model's weights: {error}") from None

"""A slide-level model as one folder.

slide_model/slide_model.json      everything but the weights (`model_file`)
slide_model/encoder.weights.h5    the frozen encoder; none of one that was brought: its own file
                                  stays where it was
slide_model/network.weights.h5    the network on its features
slide_model/feature_scale.npz     what features are standardised by: mean, deviation
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

import histospace_tf
from histospace_tf import bundle, bundle_file
from histospace_tf.bundle import Bundle
from histospace_tf.config import changed
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.faults import reading
from histospace_tf.foreign_encoders import opening
from histospace_tf.models import autoencoder
from histospace_tf.slide_level import model_file, networks
from histospace_tf.slide_level.networks import SlideNetwork
from histospace_tf.slide_level.slide_tiles import SlideEncoder
from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class SlideModel:
    """All that predicting a slide needs.

    encoder: that the network's features are of, with its tiles and stain reference.
    """

    network: SlideNetwork
    panel: GenePanel
    encoder: SlideEncoder
    trained_on: dict[str, Any]

    def on_tiles(self) -> Bundle:
        """The network's scores of single tiles as a model that predicts places.

        Raises:
            InputError: a network that has none.
        """
        head = self.network.tile_head()
        # One look at a tile, as in training; a head on pooled features needs no slide context.
        config = changed(
            self.encoder.config, regressor__architecture="pooled", regressor__symmetries=1
        )
        return Bundle(
            config=config,
            panel=self.panel,
            reference=self.encoder.reference,
            encoder=self.encoder.encoder,
            trunk=self.encoder.trunk,
            head=head,
            single_tile_head=head,
            trained_on=self.trained_on,
        )


def save(model: SlideModel, run: Path) -> None:
    """Writes RUN/slide_model."""
    folder = run / model_file.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if bundle_file.brought_encoder(model.trained_on) is None:
        model.encoder.encoder.save_weights(folder / "encoder.weights.h5")
    model.network.model.save_weights(folder / "network.weights.h5")
    np.savez(
        folder / "feature_scale.npz", mean=model.network.mean, deviation=model.network.deviation
    )
    values = {
        "format": model_file.FORMAT,
        "version": histospace_tf.__version__,
        "architecture": model.network.architecture,
        "unit": bundle.unit(model.panel),
        "config": model.encoder.config.to_json(),
        "panel": model.panel.to_json(),
        "reference": model.encoder.reference.to_json(),
        "trained_on": model.trained_on,
        "parameters": model.network.n_parameters,
    }
    text = json.dumps(values, indent=1)
    (folder / model_file.FILE).write_text(text, encoding="utf-8")


def load(run: Path) -> SlideModel:
    """The slide-level model of a run folder.

    Raises:
        InputError: as `model_file.read`, or weights that cannot be read.
    """
    file = model_file.read(run)
    brought = bundle_file.brought_encoder(file.trained_on)
    if brought is None:
        encoder = autoencoder.build_encoder(file.config.autoencoder.variant)
        _load_weights(encoder, file.folder / "encoder.weights.h5")
    else:
        encoder = opening.opened_again(brought, file.folder).trunk
    scale = file.folder / "feature_scale.npz"
    with reading(f"model {str(scale)!r}"), np.load(scale) as kept:
        mean, deviation = kept["mean"], kept["deviation"]
    model = networks.build(file.architecture, len(file.panel), features=len(mean))
    _load_weights(model, file.folder / "network.weights.h5")
    network = SlideNetwork(file.architecture, model, mean, deviation)
    own = SlideEncoder(file.config, file.reference, encoder, file.trained_on["encoder"])
    return SlideModel(network, file.panel, own, file.trained_on)


def _load_weights(model: keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises many kinds for a missing, cut or foreign file
        raise InputError(f"{path} cannot be read as this model's weights: {error}") from None

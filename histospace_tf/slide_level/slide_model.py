"""A slide-level model as one folder.

slide_model/slide_model.json      everything but the weights
slide_model/encoder.weights.h5    the frozen encoder
slide_model/network.weights.h5    the network on its features
slide_model/feature_scale.npz     what features are standardised by: mean, deviation
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

import histospace_tf
from histospace_tf import bundle
from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.slide_level.networks import SlideNetwork

FOLDER = "slide_model"
FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class SlideModel:
    """All that predicting a slide needs.

    encoder: the model whose encoder, tiles and stain reference it stands on; its panel and head
        are of no use here.
    """

    network: SlideNetwork
    panel: GenePanel
    encoder: Bundle
    trained_on: dict[str, Any]


def is_slide_model(run: Path) -> bool:
    """Whether a run folder holds one."""
    return (run / FOLDER / "slide_model.json").is_file()


def save(model: SlideModel, run: Path) -> None:
    """Writes RUN/slide_model."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    model.encoder.encoder.save_weights(folder / "encoder.weights.h5")
    model.network.model.save_weights(folder / "network.weights.h5")
    np.savez(
        folder / "feature_scale.npz", mean=model.network.mean, deviation=model.network.deviation
    )
    values = {
        "format": FORMAT,
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
    (folder / "slide_model.json").write_text(text, encoding="utf-8")

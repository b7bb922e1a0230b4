"""An untrained model as a bundle, for tests of exports."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from histospace_tf import bundle as bundles
from histospace_tf import config as configuration
from histospace_tf import presets
from histospace_tf.bundle import Bundle
from histospace_tf.config import Architecture
from histospace_tf.data_pipelines import stain
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.models import autoencoder, regressor
from histospace_tf.vocabulary import StainReference

TILE_PX = 32
GENES = ("ERBB2", "EPCAM", "HLA-B", "Ünusual gene", "IGKC")


def tiny_bundle(architecture: Architecture, *, tile_px: int = TILE_PX) -> Bundle:
    """An untrained model whose every number matters: statistics and units are not 0 and 1."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    config = presets.with_architecture(
        configuration.changed(presets.preset("recommended"), tiles__tile_px=tile_px),
        architecture,
    )
    encoder = autoencoder.build_encoder(3)
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_mean.shape))
    trunk = regressor.build_trunk(encoder, architecture=architecture)
    shape = bundles.feature_shape(trunk, tile_px)
    head = regressor.build_head(shape, len(GENES), config.regressor)
    single = head
    if bundles.needs_context(config):
        single = bundles.build_single_tile_head(shape, len(GENES), config)
    if len(shape) == 1:
        mean, variance = rng.normal(0.2, 0.1, shape), rng.uniform(0.01, 0.1, shape)
        regressor.set_feature_scale(single, mean, variance)
        loadings = rng.normal(0, 0.5, (len(GENES), len(GENES)))
        for made in (head, single):  # which start at zero
            regressor.set_gene_factors(made, loadings)
            factors = made.get_layer("factors")
            factors.kernel.assign(rng.normal(0, 0.03, factors.kernel.shape))
            factors.bias.assign(rng.normal(0, 1, factors.bias.shape))
    return Bundle(
        config=config,
        panel=GenePanel(
            genes=GENES,
            normalisation="library_size_log1p",
            target_sum=1e4,
            mean=rng.uniform(1, 3, len(GENES)).astype(np.float32),
            scale=rng.uniform(0.3, 2, len(GENES)).astype(np.float32),
        ),
        reference=StainReference(
            method="none",
            white_point=np.full(3, 255.0),
            luminosity=255.0,
            stain_matrix=np.eye(2, 3),
            max_concentration=np.ones(2),
            lab_mean=np.zeros(3),
            lab_std=np.ones(3),
        ),
        encoder=encoder,
        trunk=trunk,
        head=head,
        single_tile_head=single,
        trained_on={},
    )


def device_bundle() -> Bundle:
    """An untrained model of the recommended single-tile head, with a slide's stains to go to."""
    reference = dataclasses.replace(
        stain.canonical_stains("vahadane"), max_concentration=np.array([1.3, 1.1])
    )
    return dataclasses.replace(tiny_bundle("pooled"), reference=reference)

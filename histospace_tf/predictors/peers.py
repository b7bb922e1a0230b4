"""The networks that others published, as entries of the registry."""

from __future__ import annotations

import math

from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.predictors.tile_networks import TileNetwork

ENTRIES: tuple[PeerNetwork, ...] = (
    TileNetwork(
        "st_net",
        "ST-Net",
        "He et al. 2020: DenseNet-121 on a tile of 224 px, all of it trained",
        logarithm=math.e,
        small={"learning_rate": 0.1},
        application="DenseNet121",
        starts_at_mean=True,
        symmetries=8,
    ),
    TileNetwork(
        "efficientnet_b0",
        "EfficientNet-B0",
        "the single-tile rival of BMC Bioinformatics 2026, a tile of 224 px, all of it trained",
        logarithm=math.e,
        small={"learning_rate": 1e-3},
        application="EfficientNetB0",
    ),
)

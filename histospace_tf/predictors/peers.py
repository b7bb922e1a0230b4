"""The networks that others published, as entries of the registry."""

from __future__ import annotations

import math

from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.predictors.section_networks import Hist2ST, SectionNetwork
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
        small={"learning_rate": 1e-2},
        application="EfficientNetB0",
    ),
    SectionNetwork(
        "histogene",
        "HisToGene",
        "Pang et al. 2021: a transformer over all spots of a section, tiles of 112 px",
        logarithm=10,
        small={"learning_rate": 3e-2},
    ),
    Hist2ST(
        "hist2st",
        "Hist2ST",
        "Zeng et al. 2022: convolutions, a transformer over all spots of a section and a graph of "
        "neighbours, tiles of 112 px; counts' likelihood and self-distillation",
        logarithm=10,
        small={"learning_rate": 1e-3},
    ),
)


def named(name: str | None) -> PeerNetwork | None:
    """The network of a name, such as a run's `peers.architecture`; None for any other."""
    return next((one for one in ENTRIES if one.name == name), None)

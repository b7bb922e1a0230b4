"""HisToGene: a vision transformer whose tokens are all spots of a section.

Inputs by name, one example a section (b = 1 in practice):

* `tile`: (b, spots, tile_px, tile_px, 3) float32 RGB in [0, 1];
* `position`: (b, spots, 2) int32 column and row on the grid, from 0 (`sections.check_positions`).

Output: (b, spots, genes) float32, in the unit of the targets that it is trained on.

All pixels of a tile go through one linear layer; learned numbers of its column and of its row are
added; blocks of attention over all spots follow, and a linear layer on each spot. The order of the
spots has no effect. Pixels are brought to 0 to 255, as the public code takes them.

Source: Pang et al., Leveraging information in spatial transcriptomics to predict super-resolution
gene expression from histology images in tumors, bioRxiv 2021.11.28.470212; github.com/maxpmx/
HisToGene, vis_model.py, dataset.py, tutorial.ipynb (8 blocks; vis_model.py's default is 4).
"""

from __future__ import annotations

import dataclasses

import keras

from histospace_tf.models.peers import sections
from histospace_tf.models.peers.published import Training

# Lowers the mean squared error of log expression, one section a step.
TRAINING = Training("adam", learning_rate=1e-5, batch_size=1, epochs=100)


@dataclasses.dataclass(frozen=True)
class Size:
    """A transformer.

    tile_px: side of a tile.
    width: numbers of a spot.
    places: columns and rows that positions may have.
    blocks: of attention, of `heads` heads of 64 numbers and `hidden` hidden units.
    """

    tile_px: int = 112
    width: int = 1024
    places: int = 64
    blocks: int = 8
    heads: int = 16
    hidden: int = 2048
    dropout: float = 0.1


PUBLISHED = Size()
SMALL = Size(tile_px=32, width=64, blocks=2, heads=1, hidden=128)


def build(genes: int, size: Size = PUBLISHED) -> keras.Model:
    """The network of the module's top, random weights: genes of the output, and its size."""
    side = size.tile_px
    tile = keras.Input((None, side, side, 3), name="tile")
    position = keras.Input((None, 2), dtype="int32", name="position")
    pixels = keras.layers.Rescaling(sections.GREY_LEVELS, name="grey_levels")(tile)
    pixels = keras.layers.Reshape((-1, side * side * 3), name="pixels")(pixels)
    spots = keras.layers.Dense(
        size.width, kernel_initializer=sections.linear(), name="tile_embedding"
    )(pixels)
    places = sections.GridPlaces(size.places, size.width, name="places")(position)
    spots = keras.layers.Add(name="placed")([spots, places])
    spots = keras.layers.Dropout(size.dropout, name="placed_dropout")(spots)
    for i in range(1, size.blocks + 1):
        spots = sections.transformer_block(
            spots, f"block{i}", heads=size.heads, hidden=size.hidden, dropout=size.dropout
        )
    spots = sections.normalised(spots, "last")
    expression = keras.layers.Dense(genes, kernel_initializer=sections.linear(), name="expression")(
        spots
    )
    return keras.Model({"tile": tile, "position": position}, expression, name="histogene")

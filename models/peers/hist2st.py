"""Hist2ST: convolutions mix a tile, attention its section's spots, a graph the neighbouring ones.

Inputs by name, one example a section (b = 1 in practice):

* `tile`: (b, spots, tile_px, tile_px, 3) float32 RGB in [0, 1];
* `position`: (b, spots, 2) int32 column and row on the grid, from 0 (`sections.check_positions`);
* `neighbours`: (b, spots, spots) float32, 1 where the column's spot is a neighbour of the row's
  (`neighbours`).

Output, as it is trained: (b, spots, 5 * genes) float32, PARTS one after the other: the expression;
mean, dispersion and dropout of the counts (`zinb`; the mean for a spot of size factor 1); the
expression distilled from changed tiles (in prediction, the expression again). `expression` gives
the network that a prediction needs, of (b, spots, genes).

Targets: (b, spots, 2 * genes + 1) of `targets`, for `Hist2STLoss`.

A ConvMixer makes numbers of each tile; learned numbers of its place are added; blocks of attention
over all spots follow, then means over neighbours, layer by layer (GraphSAGE), all of whose outputs
go through an LSTM (jumping knowledge). In training the network sees each section in five changed
views more, weighs them, and draws its prediction towards what they say together. Pixels are brought
to 0 to 255, as the public code takes them.

Source: Zeng et al., Spatial transcriptomics prediction from histology jointly through Transformer
and graph neural networks, Briefings in Bioinformatics 23(5):bbac297, 2022; github.com/biomed-AI/
Hist2ST, HIST2ST.py, HIST2ST_train.py (--tag 5-7-2-8-4-16-32), gcn.py, transformer.py. PyTorch's
LSTM has a second bias, which says nothing that the first does not; a spot without neighbours, there
not a number, gets zeros from the graph here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from histospace_tf.models.autoencoder import STATISTICS_MOMENTUM
from histospace_tf.models.peers import image_weights, sections, zinb
from histospace_tf.models.peers.published import Training
from histospace_tf.models.peers.self_distillation import PARTS, SelfDistilled
from histospace_tf.vocabulary import InputError

# Lowers `Hist2STLoss`, one section a step.
TRAINING = Training(
    "adam", learning_rate=1e-5, batch_size=1, epochs=350, decay_epochs=50, decay_rate=0.9
)
NEIGHBOURS, FARTHEST = 4, 2.0  # of a spot, and how far on the grid


@dataclasses.dataclass(frozen=True)
class Size:
    """A Hist2ST.

    tile_px: side of a tile, cut into patches of `patch` px, of `channels` channels each.
    mixers: ConvMixer blocks with kernels of side `kernel`.
    blocks: of attention, of `heads` heads of 64 numbers each. graphs: means over neighbours.
    places: columns and rows that positions may have.
    views: changed ones in training; 0: no distillation.
    """

    tile_px: int = 112
    patch: int = 7
    channels: int = 32
    kernel: int = 5
    mixers: int = 2
    blocks: int = 8
    heads: int = 16
    graphs: int = 4
    places: int = 64
    dropout: float = 0.2
    views: int = 5

    @property
    def width(self) -> int:
        """Numbers of a spot: those of its patches, an eighth of their channels."""
        return (self.tile_px // self.patch) ** 2 * (self.channels // 8)


PUBLISHED = Size()
SMALL = Size(tile_px=56, channels=8, mixers=1, blocks=2, heads=1, graphs=2, views=2)


def build(genes: int, size: Size = PUBLISHED, *, synchronized: bool = False) -> keras.Model:
    """The network of the module's top, random weights.

    Args:
        genes: of the expression.
        synchronized: batch normalisation over all replicas, for training on several alone.
    """
    inputs = _inputs(size)
    core = _core(genes, size, synchronized=synchronized)
    parts = SelfDistilled(core, size.views, name="distilled")(inputs)
    return keras.Model(inputs, parts, name="hist2st")


def expression(model: keras.Model) -> keras.Model:
    """What a prediction needs of a network of `build`: the same inputs -> (b, spots, genes).

    It shares the network's weights.
    """
    core = model.get_layer("distilled").core
    return keras.Model(core.input, core.output["expression"], name="hist2st_expression")


def neighbours(position: np.ndarray) -> np.ndarray:
    """(spots, 2) columns and rows -> (spots, spots) float32, 1 of each spot's neighbours.

    They are the NEIGHBOURS nearest other spots, no farther than FARTHEST.
    """
    place = np.asarray(position, float)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    adjacency = np.zeros(distance.shape, np.float32)
    np.put_along_axis(adjacency, nearest, 1.0, axis=1)
    return np.where(distance <= FARTHEST, adjacency, np.float32(0))


def targets(expression: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What `Hist2STLoss` takes of one section: (spots, 2 * genes + 1) float32.

    Expression, counts, and each spot's size factor: its counts over the section's median.

    Args:
        expression: (spots, genes), in the unit that is learned.
        counts: (spots, genes) raw.
    Raises:
        InputError: half of the section's spots, or more, have no count of these genes.
    """
    total = counts.sum(axis=1, keepdims=True)
    median = float(np.median(total))
    if not median > 0:
        raise InputError(
            f"{(total == 0).sum()} of {len(total)} spots have no count of the panel's genes; "
            "Hist2ST's size factors need a median above 0"
        )
    return np.concatenate([expression, counts, total / median], axis=1).astype(np.float32)


@keras.saving.register_keras_serializable(package="histospace_tf")
class Hist2STLoss(keras.losses.Loss):
    """Squared error, and two terms with weights: one value per spot, means over genes.

    Args:
        zinb: weight of the counts' negative log-likelihood.
        distillation: weight of the squared difference from what changed views say.
    """

    def __init__(self, zinb: float = 0.25, distillation: float = 0.5, **options: Any) -> None:
        super().__init__(**{"name": "hist2st", **options})
        self.zinb, self.distillation = zinb, distillation

    def call(self, y_true: Any, y_pred: Any) -> Any:
        genes = y_pred.shape[-1] // len(PARTS)
        wanted, counts = y_true[..., :genes], y_true[..., genes : 2 * genes]
        size_factor = y_true[..., -1:]
        given, mean, dispersion, dropout, distilled = ops.split(y_pred, len(PARTS), axis=-1)
        unlikely = zinb.negative_log_likelihood(counts, mean * size_factor, dispersion, dropout)
        each = (
            ops.square(given - wanted)
            + self.zinb * unlikely
            + self.distillation * ops.square(distilled - given)
        )
        return ops.mean(each, axis=-1)

    def get_config(self) -> dict[str, Any]:
        own = {"zinb": self.zinb, "distillation": self.distillation}
        return {**super().get_config(), **own}


def _inputs(size: Size) -> dict[str, Any]:
    return {
        "tile": keras.Input((None, size.tile_px, size.tile_px, 3), name="tile"),
        "position": keras.Input((None, 2), dtype="int32", name="position"),
        "neighbours": keras.Input((None, None), name="neighbours"),
    }


def _core(genes: int, size: Size, *, synchronized: bool) -> keras.Model:
    """A section -> expression, the counts' parameters, and the weight of such a view."""
    inputs, width = _inputs(size), size.width
    stem = _stem(size)
    if synchronized:
        image_weights.synchronize(stem)
    spots = sections.EachSpot(stem, name="stem")(inputs["tile"])
    places = sections.GridPlaces(size.places, width, name="places")(inputs["position"])
    spots = keras.layers.Add(name="placed")([spots, places])
    for i in range(1, size.blocks + 1):
        spots = sections.transformer_block(
            spots, f"block{i}", heads=size.heads, hidden=width, dropout=size.dropout
        )
    steps = []
    for i in range(1, size.graphs + 1):
        spots = sections.NeighbourMean(width, name=f"graph{i}")(spots, inputs["neighbours"])
        steps.append(keras.layers.Reshape((-1, 1, width), name=f"graph{i}_step")(spots))
    steps = keras.layers.Concatenate(axis=2, name="steps")(steps) if len(steps) > 1 else steps[0]
    spots = sections.EachSpot(_memory(size), name="memory")(steps)

    def dense(units: int, name: str, activation: Any = None, of: Any = spots) -> Any:
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=sections.linear(), name=name
        )(of)

    outputs = {
        "expression": dense(genes, "expression", of=sections.normalised(spots, "last")),
        "mean": dense(genes, "mean", zinb.bounded_exp),
        "dispersion": dense(genes, "dispersion", zinb.bounded_softplus),
        "dropout": dense(genes, "dropout", "sigmoid"),
        "coefficient": dense(1, "coefficient", of=dense(width, "coefficient_hidden", "relu")),
    }
    return keras.Model(inputs, outputs, name="core")


def _stem(size: Size) -> keras.Model:
    """A tile -> its numbers (ConvMixer, Trockman and Kolter 2022, two depthwise steps a block)."""
    tile = keras.Input((size.tile_px, size.tile_px, 3))
    maps = keras.layers.Rescaling(sections.GREY_LEVELS)(tile)
    maps = keras.layers.Conv2D(size.channels, size.patch, strides=size.patch)(maps)
    maps = keras.layers.Dropout(size.dropout)(maps)
    for _ in range(size.mixers):
        mixed = maps
        for _ in range(2):
            mixed = keras.layers.DepthwiseConv2D(size.kernel, padding="same")(mixed)
            mixed = keras.layers.Activation("gelu")(_batch_normalised(mixed))
        maps = keras.layers.Add()([mixed, maps])
        maps = keras.layers.Conv2D(size.channels, 1, activation="gelu")(maps)
        maps = _batch_normalised(maps)
    maps = keras.layers.Conv2D(size.channels // 8, 1)(maps)
    return keras.Model(tile, keras.layers.Flatten()(maps), name="stem")


def _batch_normalised(maps: Any) -> Any:
    return keras.layers.BatchNormalization(momentum=STATISTICS_MOMENTUM, epsilon=1e-5)(maps)


def _memory(size: Size) -> keras.Model:
    """A spot's numbers after each mean over neighbours -> one set of them."""
    steps = keras.Input((size.graphs, size.width))
    memory = steps
    for _ in range(2):
        memory = keras.layers.LSTM(size.width, return_sequences=True, unroll=True)(memory)
    return keras.Model(steps, keras.layers.GlobalAveragePooling1D()(memory), name="memory")

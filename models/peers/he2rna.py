"""HE2RNA: a slide's expression from scores of its tiles, each gene from its own best tiles.

Inputs by name, for a batch of slides that are padded to the same number of tiles:

* `features`: (slides, tiles, f) float32, of a frozen encoder; any values where there is padding;
* `mask`: (slides, tiles) bool, False where there is padding.

Output: (slides, genes) float32, in the unit of the targets that it is trained on.

A dense network, the same for every tile, gives each tile a score per gene: the layer "tile_scores",
(slides, tiles, genes). A gene of a slide is the mean of its k highest scores; k is drawn from a
list for each batch in training, and predictions are the mean over all of the list. Scores of tiles
(`tile_scores`) are the method's map of a gene, learned from slides alone.

Source: Schmauch et al., A deep learning model to predict RNA-Seq expression of tumours from whole
slide images, Nature Communications 11:3877, 2020; sizes from github.com/owkin/HE2RNA_code,
configs/config_all_genes.ini. There a slide is 100 clusters of its tiles ("supertiles"), so that its
list of k, from 1 to 100, goes from the best alone to all of them; here tiles are not clustered, and
k is that percentage of the slide's tiles. There padding is known by its zeros and counts as a score
of 0; here it has no score. There negative predictions are set to 0, which is left to the caller:
targets here may be standardised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from histospace_tf.models.peers.published import Training
from histospace_tf.vocabulary import InputError

# Lowers the mean squared error of log10(1 + FPKM); patience on the correlation.
TRAINING = Training("adam", learning_rate=3e-4, batch_size=16, epochs=200, patience=50)
LAST = "tile_scores"  # the layer whose weights are a gene's


@dataclasses.dataclass(frozen=True)
class Size:
    """Units of the hidden layers, dropout after each, and the list that k is drawn from, in percent
    of a slide's tiles."""

    hidden: tuple[int, ...] = (1024, 1024)
    dropout: float = 0.25
    percents: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)


PUBLISHED = Size()
SMALL = Size(hidden=(64,))


def build(
    genes: int, size: Size = PUBLISHED, *, features: int, mean: np.ndarray | None = None
) -> keras.Model:
    """The network of the module's top.

    Args:
        genes: of the output.
        features: f, numbers per tile (published: 2048, of ResNet-50).
        mean: (genes,) what scores start at: the training slides' mean, as published. None: zero.
    Raises:
        InputError: `size.percents` as `TopTiles` refuses them; `mean` of another length.
    """
    tiles = keras.Input((None, features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    hidden = tiles
    for i, units in enumerate(size.hidden, start=1):
        hidden = keras.layers.Dense(units, activation="relu", name=f"hidden{i}")(hidden)
        hidden = keras.layers.Dropout(size.dropout, name=f"dropout{i}")(hidden)
    last = keras.layers.Dense(genes, name=LAST)
    expression = TopTiles(size.percents, name="expression")(last(hidden), mask)
    if mean is not None:
        if np.shape(mean) != (genes,):
            raise InputError(f"`mean` has shape {np.shape(mean)}; ({genes},) works, one per gene")
        last.bias.assign(mean)
    return keras.Model({"features": tiles, "mask": mask}, expression, name="he2rna")


def tile_scores(model: keras.Model) -> keras.Model:
    """The scores of a built network's tiles: (slides, tiles, f) -> (slides, tiles, genes)."""
    return keras.Model(model.input["features"], model.get_layer(LAST).output)


def top_tiles(percents: Any, tiles: Any) -> Any:
    """How many of `tiles` tiles a percentage is, rounded up; whole numbers, arrays or tensors."""
    return (percents * tiles + 99) // 100


@keras.saving.register_keras_serializable(package="histospace_tf")
class TopTiles(keras.layers.Layer):
    """Mean of the k highest of a slide's tiles, gene by gene, for k in `percents` of them.

    (slides, tiles, genes), (slides, tiles) bool -> (slides, genes). In training one k, drawn for
    the batch; else the mean over all of them. A slide without a tile gives 0.

    Raises:
        InputError: `percents` is empty or holds a number that is not from 1 to 100.
    """

    def __init__(self, percents: Sequence[int], seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if not percents or min(percents) < 1 or max(percents) > 100:
            raise InputError(f"`percents` is {list(percents)}; one or more from 1 to 100 work")
        self.percents, self.seed = [int(k) for k in percents], seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, scores: Any, present: Any, training: bool = False) -> Any:
        n = ops.sum(ops.cast(present, "int32"), axis=1, keepdims=True)  # (slides, 1)
        # Ascending order of the negative: tiles come first, the highest of all, and then padding.
        low_first = ops.where(ops.expand_dims(present, -1), -scores, float("inf"))
        rank = ops.arange(ops.shape(scores)[1])  # (tiles,)
        is_tile = ops.expand_dims(rank < n, -1)
        ordered = ops.where(is_tile, -ops.sort(low_first, axis=1), 0.0)
        # (slides, 1, ks)
        kept = ops.expand_dims(top_tiles(ops.convert_to_tensor(self.percents, "int32"), n), 1)
        among = ops.cast(ops.expand_dims(rank, -1) < kept, scores.dtype)  # (slides, tiles, ks)
        shares = among / ops.cast(ops.maximum(kept, 1), scores.dtype)
        if training:
            drawn = keras.random.randint((), 0, len(self.percents), seed=self.seed_generator)
            share = ops.take(shares, drawn, axis=-1)
        else:
            share = ops.mean(shares, axis=-1)
        return ops.sum(ordered * ops.expand_dims(share, -1), axis=1)

    def compute_output_shape(
        self, scores_shape: Sequence[int | None], present_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (scores_shape[0], scores_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "percents": self.percents, "seed": self.seed}

"""Published networks that see all spots of a section at once: one example is a section.

A batch is one section, as published, or one for each replica where there are several. A spot's
column and row are its place in the image, in distances of neighbouring spots from the section's
first column and row, rounded: every layout has them.

Where a section stands on both sides of a split (inner groups of a single section are blocks of
it), its spots on one side are an example by themselves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.data_pipelines import expression
from histospace_tf.predictors.peer_network import Examples, PeerNetwork, Recipe
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from histospace_tf.cohort.encoders import EncodedSpots
    from histospace_tf.cohort.paired import PairedSpots
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots


class SectionNetwork(PeerNetwork):
    """A network of whole sections; HisToGene, and what others change about it."""

    def examples(self, spots: TrainingSpots, targets: np.ndarray, recipe: Recipe) -> Examples:
        return _Sections(self, spots, targets, recipe)

    def predicted(self, network: keras.Model, recipe: Recipe, spots: SpotsOfSection) -> np.ndarray:
        positions = _positions(spots.encoded.spots, recipe)
        inputs = {
            **self.places(positions[spots.rows]),
            "tile": _shown(spots.encoded, recipe, spots.rows),
        }
        of_one = {name: values[None] for name, values in inputs.items()}
        return np.asarray(self.for_prediction(network)(of_one, training=False))[0]

    def loss(self) -> keras.losses.Loss:
        """What it lowers."""
        from histospace_tf.models import losses

        return losses.loss("mse")

    def places(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """Its inputs beside the tiles. position: (n, 2) int32 column and row."""
        return {"position": position}

    def targets(self, wanted: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """What its loss takes: (n, t) float32.

        Args:
            wanted: (n, g) expression in its own unit. counts: (n, g) raw.
        """
        return wanted

    def for_prediction(self, network: keras.Model) -> keras.Model:
        """The part of a trained network that gives the expression."""
        return network


class Hist2ST(SectionNetwork):
    """It also takes a graph of neighbours, and learns from raw counts and from changed views."""

    def loss(self) -> keras.losses.Loss:
        """Squared error, counts' likelihood and self-distillation, weighed as published."""
        loss: keras.losses.Loss = self.module.Hist2STLoss()
        return loss

    def places(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """Column and row, and the neighbours of each spot, (n, n)."""
        return {"position": position, "neighbours": self.module.neighbours(position)}

    def targets(self, wanted: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Expression, counts and size factors."""
        values: np.ndarray = self.module.targets(wanted, counts)
        return values

    def for_prediction(self, network: keras.Model) -> keras.Model:
        """Without the counts' parameters and the changed views."""
        of_expression: keras.Model = self.module.expression(network)
        return of_expression


class _Sections(Examples):
    """Sections of spots, each read when its turn comes."""

    def __init__(
        self, entry: SectionNetwork, spots: TrainingSpots, targets: np.ndarray, recipe: Recipe
    ) -> None:
        super().__init__(spots, recipe)
        self.entry, self.spots, self.wanted = entry, spots, targets
        self.loss = entry.loss()
        self.positions = _positions(spots.encoded.spots, recipe)
        strategy = spots.encoded.strategy
        self.replicas = 1 if strategy is None else strategy.num_replicas_in_sync

    def build(self, rows: np.ndarray, *, synchronized: bool) -> keras.Model:
        given: dict[str, Any] = {}
        if isinstance(self.entry, Hist2ST):  # HisToGene has no batch normalisation
            given["synchronized"] = synchronized
        network: keras.Model = self.entry.module.build(
            self.wanted.shape[1], self.recipe.size, **given
        )
        return network

    def batches(self, rows: np.ndarray, seed: tuple[int, int] | None = None) -> tf.data.Dataset:
        import tensorflow as tf

        sections = self._of(rows)
        order = np.arange(len(sections))
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        shapes = {name: (None, *part.shape[1:]) for name, part in self._read(sections[0]).items()}
        if "neighbours" in shapes:
            shapes["neighbours"] = (None, None)
        types = {"position": tf.int32}

        def read(at: np.ndarray) -> list[np.ndarray]:
            return list(self._read(sections[int(at)]).values())

        def section(at: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            parts = tf.numpy_function(read, [at], [types.get(name, tf.float32) for name in shapes])
            named = dict(zip(shapes, parts, strict=True))
            for name, part in named.items():
                part.set_shape(shapes[name])
            return named, named.pop("targets")

        read_in_turn = tf.data.Dataset.from_tensor_slices(order.astype(np.int64)).map(section)
        if self.replicas == 1:
            return read_in_turn.batch(1).prefetch(1)
        return read_in_turn.ragged_batch(self.replicas).prefetch(1)

    def steps(self, rows: np.ndarray) -> int:
        return math.ceil(len(self._of(rows)) / self.replicas)

    def expression(self, values: np.ndarray) -> np.ndarray:
        return values[:, : self.wanted.shape[1]]

    def _of(self, rows: np.ndarray) -> list[np.ndarray]:
        """`rows` by section."""
        spots = self.spots.encoded.spots
        return [spots.rows_of(number, rows) for number in spots.sections_in(rows)]

    def _read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """One example: a section's inputs by name, and "targets"."""
        spots = self.spots.encoded.spots
        (number,) = spots.sections_in(rows)
        counts = expression.raw_counts(spots.spots_of(number, rows), self.spots.panel.genes)
        try:
            targets = self.entry.targets(self.wanted[rows], counts)
        except InputError as error:
            raise InputError(f"section {spots.sections[number].name!r}: {error}") from None
        return {
            **self.entry.places(self.positions[rows]),
            "tile": _shown(self.spots.encoded, self.recipe, rows),
            "targets": targets.astype(np.float32),
        }


def _shown(encoded: EncodedSpots, recipe: Recipe, rows: np.ndarray) -> np.ndarray:
    """(n, s, s, 3) float32 in [0, 1]: the tiles of `rows` as the network takes them."""
    from histospace_tf.data_pipelines import datasets

    tiles = datasets.normalised_rows(recipe.tiles(encoded), rows)
    return tiles.astype(np.float32) / np.float32(255)


def _positions(spots: PairedSpots, recipe: Recipe) -> np.ndarray:
    """(n, 2) int32 column and row of all spots.

    Raises:
        InputError: a section has more columns or rows than the network has places for.
    """
    from histospace_tf.models.peers import sections

    positions = []
    for number, section in enumerate(spots.sections):
        rows = spots.rows_of(number, np.arange(len(spots)))
        places = grid_positions(spots.index.centres_px[rows])
        sections.check_positions(places, recipe.size.places, section=section.name)
        positions.append(places)
    return np.concatenate(positions)


def grid_positions(centres_px: np.ndarray) -> np.ndarray:
    """Column and row of a section's spots, in distances of neighbouring spots.

    Args:
        centres_px: (n, 2) full-resolution pixels, x first; no two alike.
    Returns:
        (n, 2) int32 from 0, column first. The distance is the median of every spot's to the nearest
        other one; rows of a hexagonal layout lie closer than that, and some share a number.
    """
    if len(centres_px) < 2:
        return np.zeros((len(centres_px), 2), np.int32)
    nearest = cKDTree(centres_px).query(centres_px, k=2)[0][:, 1]
    steps = (centres_px - centres_px.min(axis=0)) / np.median(nearest)
    return np.rint(steps).astype(np.int32)

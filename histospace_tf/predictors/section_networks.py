"""Published networks that see all spots of a section at once: one example is a section.

A batch is one section, as published, or one for each replica where there are several. A spot's
column and row are its place in the image, in distances of neighbouring spots from the section's
first column and row, rounded: every layout has them.

Where a section stands on both sides of a split (inner groups of a single section are blocks of
it), its spots on one side are an example by themselves.

A network has the published number of columns and rows, or as many as the cohort's largest section
needs. A section or slide that has more than a trained one knows is predicted in windows
(`windows`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

from histospace_tf.data_pipelines import expression
from histospace_tf.predictors.peer_network import Examples, PeerNetwork, Recipe
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from histospace_tf.cohort.encoders import EncodedSpots
    from histospace_tf.cohort.paired import PairedSpots
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.data_pipelines.datasets import StainedTiles


PUBLISHED_PLACES = 64  # of both networks


class SectionNetwork(PeerNetwork):
    """A network of whole sections; HisToGene, and what others change about it."""

    def examples(self, spots: TrainingSpots, targets: np.ndarray, recipe: Recipe) -> Examples:
        return _Sections(self, spots, targets, recipe)

    def sized(self, recipe: Recipe, encoded: EncodedSpots) -> Recipe:
        """With columns and rows for every section of the cohort, the published number at least."""
        need = int(_positions(encoded.spots).max(initial=-1)) + 1
        size = dataclasses.replace(recipe.size, places=max(need, recipe.size.places))
        return dataclasses.replace(recipe, size=size)

    def facts(self, recipe: Recipe) -> dict[str, Any]:
        """How many columns and rows it knows."""
        return {"places": recipe.size.places}

    def note_of(self, chosen: Mapping[str, Any]) -> str:
        """The note, with its columns and rows where they are more than published."""
        note, published = super().note_of(chosen), PUBLISHED_PLACES
        if chosen.get("places", published) <= published:
            return note
        return f"{note}; {chosen['places']} columns and rows, for the published {published} are few"

    def predicted(self, network: keras.Model, recipe: Recipe, spots: SpotsOfSection) -> np.ndarray:
        positions = _positions(spots.encoded.spots)
        tiles = recipe.tiles(spots.encoded)
        return self.predicted_at(network, recipe, tiles, spots.rows, positions[spots.rows])

    def predicted_at(
        self,
        network: keras.Model,
        recipe: Recipe,
        tiles: Sequence[StainedTiles],
        rows: np.ndarray,
        positions: np.ndarray,
    ) -> np.ndarray:
        """Expression of spots of one section or slide.

        Args:
            tiles: as the network takes them; rows: (n,) the spots' among them.
            positions: (n, 2) column and row of the spots, n at least 1.
        Returns:
            (n, g) in the unit that it was trained on; where windows overlap, their mean.
        """
        of_expression, places = self.for_prediction(network), recipe.size.places
        # Where they fit, a block of a section keeps its places, as in training.
        fit = bool((positions < places).all())

        def predicted(inside: np.ndarray) -> np.ndarray:
            at = positions[inside] if fit else positions[inside] - positions[inside].min(axis=0)
            inputs = {**self.places(at), "tile": _shown(tiles, rows[inside])}
            of_one = {name: values[None] for name, values in inputs.items()}
            return np.asarray(of_expression(of_one, training=False))[0]

        parts = windows(positions, places)
        values = [predicted(part) for part in tqdm(parts, desc="Windows", unit="window", delay=2)]
        total, times = np.zeros((len(rows), values[0].shape[1])), np.zeros((len(rows), 1))
        for part, of_part in zip(parts, values, strict=True):
            total[part] += of_part
            times[part] += 1
        return total / times

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
        self.positions = _positions(spots.encoded.spots)
        _refuse_beyond(self.positions, spots.encoded.spots, recipe)
        self.tiles = recipe.tiles(spots.encoded)
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
            "tile": _shown(self.tiles, rows),
            "targets": targets.astype(np.float32),
        }


def _shown(tiles: Sequence[StainedTiles], rows: np.ndarray) -> np.ndarray:
    """(n, s, s, 3) float32 in [0, 1]: the tiles of `rows`."""
    from histospace_tf.data_pipelines import datasets

    return datasets.normalised_rows(tiles, rows).astype(np.float32) / np.float32(255)


def _positions(spots: PairedSpots) -> np.ndarray:
    """(n, 2) int32 column and row of all spots."""
    every = np.arange(len(spots))
    of_sections = [spots.rows_of(number, every) for number in range(len(spots.sections))]
    return np.concatenate([grid_positions(spots.index.centres_px[rows]) for rows in of_sections])


def _refuse_beyond(positions: np.ndarray, spots: PairedSpots, recipe: Recipe) -> None:
    from histospace_tf.models.peers import sections

    for number, section in enumerate(spots.sections):
        of_section = positions[spots.rows_of(number, np.arange(len(spots)))]
        sections.check_positions(of_section, recipe.size.places, section=section.name)


def windows(positions: np.ndarray, places: int) -> list[np.ndarray]:
    """Spots in windows of as many columns and rows as a network knows: rows of `positions`.

    One window where they fit. Otherwise each covers the next by half at least, and windows lie
    evenly from the first column and row to the last, so that a spot at one's edge is another's
    middle; windows without a spot are left out.

    Args:
        positions: (n, 2) column and row, from 0. places: columns and rows of a window.
    """
    if not len(positions):
        return []
    last = positions.max(axis=0) + 1 - places
    starts = [
        np.rint(np.linspace(0, end, math.ceil(end / max(1, places // 2)) + 1)).astype(int)
        if end > 0
        else np.zeros(1, int)
        for end in last
    ]
    inside = (
        np.flatnonzero(((positions >= corner) & (positions < np.add(corner, places))).all(axis=1))
        for corner in itertools.product(*starts)
    )
    return [rows for rows in inside if len(rows)]


def pitch_px(centres_px: np.ndarray) -> float:
    """Median distance of a section's spots to the nearest other one, in full-resolution pixels.

    Args:
        centres_px: (n, 2), two at least.
    """
    return float(np.median(cKDTree(centres_px).query(centres_px, k=2)[0][:, 1]))


def grid_positions(centres_px: np.ndarray) -> np.ndarray:
    """Column and row of a section's spots, in distances of neighbouring spots.

    Args:
        centres_px: (n, 2) full-resolution pixels, x first; no two alike.
    Returns:
        (n, 2) int32 from 0, column first. The distance is that of `pitch_px`; rows of a hexagonal
        layout lie closer than that, and some share a number.
    """
    if len(centres_px) < 2:
        return np.zeros((len(centres_px), 2), np.int32)
    steps = (centres_px - centres_px.min(axis=0)) / pitch_px(centres_px)
    return np.rint(steps).astype(np.int32)

"""Published networks that see one tile at a time.

What their trunk starts from is `peers.weights`; where it is random instead of ImageNet's, output,
tables and model card say so.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histospace_tf.config import Config, PeersConfig
from histospace_tf.outputs import say
from histospace_tf.predictors.peer_network import Examples, PeerNetwork, Recipe
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots

IMAGENET, RANDOM = "imagenet", "random"
_IN_WORDS = {IMAGENET: "ImageNet's weights", RANDOM: "random weights"}


class TileNetwork(PeerNetwork):
    """A network of single tiles.

    application: of Keras, whose weights its trunk takes.
    starts_at_mean: its output starts at the training spots' mean.
    symmetries: of a tile that predictions are averaged over: 1 or 8.
    """

    def __init__(
        self,
        name: str,
        label: str,
        note: str,
        *,
        logarithm: float,
        small: Mapping[str, Any],
        application: str,
        starts_at_mean: bool = False,
        symmetries: int = 1,
    ) -> None:
        super().__init__(name, label, note, logarithm=logarithm, small=small)
        self.application, self.starts_at_mean = application, starts_at_mean
        self.symmetries = symmetries

    def refuse(self, settings: Config) -> None:
        """Refuses a file of weights that is missing, or that no small network could take."""
        weights, size = settings.peers.weights, settings.peers.size
        if weights in _IN_WORDS:
            return
        if not Path(weights).is_file():
            raise InputError(
                f'"peers.weights" is {weights!r}: no such file; "{IMAGENET}", "{RANDOM}" or a file '
                f"of the weights of Keras' {self.application} works"
            )
        if size != "published":
            raise InputError(
                f'"peers.weights" is a file, and "peers.size" is {size!r}: weights of Keras\' '
                f'{self.application} fit "published" alone'
            )

    def recipe(self, settings: PeersConfig, *, genes: int) -> Recipe:
        """What is trained; says so where it starts from random weights."""
        recipe = super().recipe(settings, genes=genes)
        weights: str | None = settings.weights
        why = ', as "peers.weights" says'
        if settings.size == "small":
            weights, why = None, ": there are none for its small size"
        elif weights == IMAGENET:
            why = _why_not_fetched(self.name)
            weights = None if why else IMAGENET
        elif weights == RANDOM:
            weights = None
        if weights is None:
            say(f"{self.label} starts from random weights, not ImageNet's{why}.")
        return dataclasses.replace(recipe, weights=weights)

    def facts(self, recipe: Recipe) -> dict[str, Any]:
        """What its weights were before training."""
        return {"weights": recipe.weights or RANDOM}

    def note_of(self, chosen: Mapping[str, Any]) -> str:
        """The note, with the size that was trained and what its weights were before."""
        note, weights = super().note_of(chosen), chosen.get("weights")
        if weights is None:
            return note
        return f"{note}; started from {_IN_WORDS.get(weights, f'weights of {weights}')}"

    def examples(self, spots: TrainingSpots, targets: np.ndarray, recipe: Recipe) -> Examples:
        return _Tiles(self, spots, targets, recipe)

    def predicted(self, network: keras.Model, recipe: Recipe, spots: SpotsOfSection) -> np.ndarray:
        from histospace_tf.cohort import features

        batches = features.feature_batches(
            network,
            recipe.tiles(spots.encoded),
            symmetries=self.symmetries,
            rows=spots.rows,
            strategy=spots.encoded.strategy,
        )
        return np.concatenate([batch.mean(axis=1) for batch in batches])


class _Tiles(Examples):
    def __init__(
        self, entry: TileNetwork, spots: TrainingSpots, targets: np.ndarray, recipe: Recipe
    ) -> None:
        from histospace_tf.models import losses

        super().__init__(spots, recipe)
        self.entry, self.targets = entry, targets
        self.groups, self.loss = recipe.tiles(spots.encoded), losses.loss("mse")

    def build(self, rows: np.ndarray, *, synchronized: bool) -> keras.Model:
        given: dict[str, Any] = {"weights": self.recipe.weights, "synchronized": synchronized}
        if self.entry.starts_at_mean:
            given["mean"] = self.targets[rows].mean(axis=0)
        network: keras.Model = self.entry.module.build(
            self.targets.shape[1], self.recipe.size, **given
        )
        return network

    def batches(self, rows: np.ndarray, seed: tuple[int, int] | None = None) -> tf.data.Dataset:
        from histospace_tf.data_pipelines import datasets

        return datasets.tile_dataset(
            self.groups,
            batch_size=self.recipe.training.batch_size,
            rows=rows,
            order_seed=seed,
            targets=self.targets,
        )

    def steps(self, rows: np.ndarray) -> int:
        return math.ceil(len(rows) / self.recipe.training.batch_size)


@functools.cache
def _why_not_fetched(name: str) -> str:
    """Why ImageNet's weights cannot be had; empty where they can. Asked once, not in each fold."""
    module = importlib.import_module(f"histospace_tf.models.peers.{name}")
    try:
        module.build(1, module.PUBLISHED, weights=IMAGENET)
    except InputError as error:
        return f": {error}"
    return ""

"""Self-distillation over changed views of a section, as Hist2ST trains.

Source: Zeng et al., Spatial transcriptomics prediction from histology jointly through Transformer
and graph neural networks, Briefings in Bioinformatics 23(5):bbac297, 2022; HIST2ST.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# What is said of each gene, in this order; the last comes from the changed views.
PARTS = ("expression", "mean", "dispersion", "dropout", "distilled")
_GREY, _FLIPPED = 0.1, 0.2  # shares of the views


@keras.saving.register_keras_serializable(package="histospace_tf")
class SelfDistilled(keras.layers.Layer):
    """PARTS of a section, (b, spots, 5 * genes).

    In training the last is the mean expression of `views` changed views, spot by spot, weighed by a
    softmax over what `core` calls "coefficient"; else it is the expression. Batch normalisation
    takes its statistics over all views at once, the public code over each.

    Args:
        core: a section -> all PARTS but the last, and "coefficient", by name.
    """

    def __init__(
        self, core: keras.Model, views: int, seed: int | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.core, self.views, self.seed = core, views, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, section: dict[str, Any], training: bool = False) -> Any:
        own = self.core(section, training=training)
        distilled = own["expression"]
        if training and self.views:
            # As sections of one batch: a graph of two passes is made far sooner than one of six.
            together = {
                name: ops.concatenate([values] * self.views, axis=0)
                for name, values in section.items()
            }
            changed = [self.changed(section["tile"]) for _ in range(self.views)]
            together["tile"] = ops.concatenate(changed, axis=0)
            of_views = self.core(together, training=True)
            coefficient, expression = (
                ops.stack(ops.split(of_views[name], self.views, axis=0))
                for name in ("coefficient", "expression")
            )
            distilled = ops.sum(ops.softmax(coefficient, axis=0) * expression, axis=0)
        return ops.concatenate([*(own[part] for part in PARTS[:-1]), distilled], axis=-1)

    def changed(self, tile: Any) -> Any:
        """(b, spots, s, s, 3): all tiles in the same way, black where nothing was."""
        b, n = ops.shape(tile)[:2]
        side = tile.shape[2]
        grey, angle, flip = (
            keras.random.uniform((), low, high, seed=self.seed_generator)
            for low, high in ((0, 1), (-math.pi / 2, math.pi / 2), (0, 1))
        )
        images = ops.reshape(tile, (-1, side, side, 3))
        images = ops.where(grey < _GREY, ops.image.rgb_to_grayscale(images), images)
        cosine, sine, middle = ops.cos(angle), ops.sin(angle), (side - 1) / 2
        matrix = [cosine, -sine, middle * (1 - cosine + sine)]
        matrix += [sine, cosine, middle * (1 - cosine - sine), 0.0, 0.0]
        matrix = ops.stack([ops.cast(value, "float32") for value in matrix])
        images = ops.image.affine_transform(
            images, ops.broadcast_to(matrix, (b * n, 8)), interpolation="nearest"
        )
        images = ops.where(flip < _FLIPPED, ops.flip(images, axis=2), images)
        return ops.reshape(images, (b, n, side, side, 3))

    def compute_output_shape(
        self, section_shape: dict[str, Sequence[int | None]]
    ) -> tuple[int | None, ...]:
        genes = self.core.output["expression"].shape[-1]
        return (*section_shape["tile"][:2], len(PARTS) * genes)

    def get_config(self) -> dict[str, Any]:
        core = keras.saving.serialize_keras_object(self.core)
        return {**super().get_config(), "core": core, "views": self.views, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SelfDistilled:
        core = keras.saving.deserialize_keras_object(config["core"])
        return cls(**{**config, "core": core})

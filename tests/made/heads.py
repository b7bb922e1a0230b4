"""Linear heads with what they are fitted to."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from histospace_tf.models import regressor
from histospace_tf.predictors import ridge_head
from histospace_tf.presets import preset

SETTINGS = preset("recommended").regressor
SYMMETRIES, GENES = 4, 6
STRENGTHS = (0.5, 20.0, 3000.0)


@dataclasses.dataclass
class MadeHead:
    """A head with feature scale and loadings set, and what it is fitted to."""

    head: keras.Model
    inputs: dict[str, np.ndarray]
    targets: np.ndarray
    rows: np.ndarray
    weights: np.ndarray

    def solved(self, **changes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """`ridge_head.solved` of STRENGTHS."""
        given = {"targets": self.targets, "weights": self.weights, **changes}
        return ridge_head.solved(
            self.head, self.inputs, given["targets"], self.rows, given["weights"], STRENGTHS
        )


def made_head(
    *, n: int, f: int, architecture: str = "pooled", factors: int = 0, seed: int = 0
) -> MadeHead:
    """`n` spots, of which every third is left out."""
    rng = np.random.default_rng(seed)
    settings = dataclasses.replace(SETTINGS, architecture=architecture, factors=factors)  # type: ignore[arg-type]
    head = regressor.build_head((f,), GENES, settings)
    # Not centred and not of unit deviation; a few lie beyond LARGEST_STANDARDISED.
    inputs = {"features": 2 + 3 * rng.standard_t(4, size=(n, SYMMETRIES, f)).astype(np.float32)}
    if architecture == "pooled":
        flat = inputs["features"].reshape(-1, f)
        regressor.set_feature_scale(head, flat.mean(axis=0), flat.var(axis=0))
    else:
        inputs["neighbour_features"] = 2 + 3 * rng.normal(size=(n, f)).astype(np.float32)
        inputs["slide_mean"] = 2 + rng.normal(0, 0.1, (n, f)).astype(np.float32)
        inputs["slide_std"] = rng.uniform(2, 4, (n, f)).astype(np.float32)
    shown = inputs["features"].mean(axis=1)
    targets = 1 + shown @ rng.normal(size=(f, GENES)) / f + rng.normal(size=(n, GENES))
    if factors:
        regressor.set_gene_factors(head, regressor.gene_factors(targets, factors))
    rows = np.flatnonzero(np.arange(n) % 3)
    return MadeHead(head, inputs, targets.astype(np.float32), rows, rng.uniform(0.2, 3, len(rows)))

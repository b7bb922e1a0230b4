"""What heads are trained on, and a head that is yet to be fitted to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from histospace_tf.cohort import features, taught
from histospace_tf.config import RegressorConfig
from histospace_tf.data_pipelines import splits
from histospace_tf.models import regressor

INPUTS = ("features",)  # of every architecture but "context"


@dataclasses.dataclass(frozen=True, eq=False)
class HeadData:
    """What heads are trained on, of all spots; a training reads its own rows.

    inputs: "features" (n, symmetries, ...) and slide context (n, f), by name.
    targets: (n, g) float32 standardised.
    index: section, patient and centre.
    weights: (n,); a training by Adam takes no notice of them.
    axes: what patients without an image teach gene factors, of `taught.axes`.
    """

    inputs: dict[str, np.ndarray]
    targets: np.ndarray
    index: splits.SpotIndex
    weights: np.ndarray
    axes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def inputs_of(settings: RegressorConfig, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of `inputs` that the architecture takes."""
    in_context = settings.architecture == "context"
    return {name: inputs[name] for name in (regressor.CONTEXT_INPUTS if in_context else INPUTS)}


def build(
    data: HeadData,
    rows: np.ndarray,
    settings: RegressorConfig,
    *,
    seed: int,
    weighted: bool = False,
    synchronized: bool = False,
) -> keras.Model:
    """A head yet to fit, with feature scale and gene factors of the training spots `rows`."""
    keras.utils.set_random_seed(seed)
    inputs, targets = data.inputs, data.targets
    head = regressor.build_head(
        inputs["features"].shape[2:], targets.shape[1], settings, synchronized=synchronized
    )
    if settings.architecture == "pooled":
        regressor.set_feature_scale(head, *features.moments(inputs["features"], rows))
    if settings.factors:
        wanted = targets[rows]
        if weighted:
            weights = data.weights[rows]
            wanted = wanted * np.sqrt(weights / weights.mean())[:, None]
        beside = taught.beside(data.axes, data.index.patient, rows, weights=data.weights)
        loadings = regressor.gene_factors(wanted, settings.factors, beside=beside)
        regressor.set_gene_factors(head, loadings)
    return head

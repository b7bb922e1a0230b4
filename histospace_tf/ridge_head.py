"""A linear head solved in closed form: weighted ridge regression on what its last layer takes.

With X the weighted, centred inputs and Y the weighted targets the kernel is (X'X + strength)^-1 X'Y
(`ridge.coefficients`). The optimum is exact: no learning rate, no number of epochs, no seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from histospace_tf import features, ridge

# Of the penalty, for standardised features and weights whose mean is one.
STRENGTHS = tuple(10.0 ** np.arange(1.0, 5.01, 0.25))


def solved(
    head: keras.Model,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    strengths: Sequence[float],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of the head's learned layer, for each strength.

    Args:
        head: of `regressor.build_head`, linear, its feature scale and gene factors set.
        inputs: "features" (n, symmetries, f) and what else the head takes.
        targets: (n, g) standardised; only `rows` are read.
        rows: (m,) the training spots.
        weights: (m,) of those spots, above 0; their scale has no effect.
        strengths: penalties.
    Returns:
        (d, k) and (k,) float32, k gene factors or genes.
    """
    seen = layer_inputs(head, inputs, rows).astype(np.float64)
    wanted = targets[rows].astype(np.float64)
    if learned_layer(head).name == "factors":
        wanted = wanted @ np.linalg.pinv(np.asarray(head.get_layer("expression").kernel, float))
    weights = weights / weights.mean()
    mean, level = (np.average(values, axis=0, weights=weights) for values in (seen, wanted))
    root = np.sqrt(weights)[:, None]
    x, y = (seen - mean) * root, (wanted - level) * root
    return [
        (kernel.astype(np.float32), (level - mean @ kernel).astype(np.float32))
        for kernel in ridge.coefficients(x, y, strengths)
    ]


def set_solution(head: keras.Model, solution: tuple[np.ndarray, np.ndarray]) -> None:
    """Gives the head's learned layer a kernel and a bias of `solved`."""
    layer = learned_layer(head)
    layer.kernel.assign(solution[0])
    layer.bias.assign(solution[1])


def learned_layer(head: keras.Model) -> keras.layers.Dense:
    """The one layer of a linear head that is fitted."""
    names = [layer.name for layer in head.layers]
    return head.get_layer("factors" if "factors" in names else "expression")


def layer_inputs(head: keras.Model, inputs: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(m, d) float32: what the learned layer takes of spots `rows`, averaged over symmetries."""
    before = keras.Model(head.input, learned_layer(head).input)
    return features.predicted(before, {name: values[rows] for name, values in inputs.items()})


def best_strength(
    scores: Sequence[Sequence[float]], spots: Sequence[int], strengths: Sequence[float]
) -> float:
    """The strength of the highest score, averaged over inner folds by their spots.

    Args:
        scores: a row an inner fold, a column a strength.
        spots: of each inner fold.
        strengths: of the columns; of equal scores the strongest penalty wins.
    """
    mean = np.average(np.asarray(scores), axis=0, weights=spots)
    return float(np.asarray(strengths)[::-1][int(np.argmax(mean[::-1]))])

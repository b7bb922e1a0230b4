"""A linear head solved in closed form: weighted ridge regression on what its last layer takes.

With X the weighted, centred inputs and Y the weighted targets the kernel is (X'X + strength)^-1 X'Y
(`ridge.Decomposed`). The optimum is exact: no learning rate, no number of epochs, no seed.
X'X and X'Y are summed over blocks of spots, so that memory does not grow with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from histospace_tf.cohort import features
from histospace_tf.scores import ridge

# Of the penalty, for standardised features and weights whose mean is one.
STRENGTHS = tuple(10.0 ** np.arange(1.0, 5.01, 0.25))
_BLOCK_SPOTS = 1024  # worked on at once: some 60 MB of slide context


@dataclasses.dataclass(frozen=True, eq=False)
class Ridges:
    """The ridges of all strengths for one head.

    wanted: (n, k) what the learned layer is to give: gene factors, or genes.
    level: (k,) its weighted mean.
    mean: (d,) weighted, of what the layer takes.
    centred: of both without them, each spot times the root of its weight.
    blocks: what the layer takes, (n, d) float32, _BLOCK_SPOTS at a time; can be called again.
    """

    wanted: np.ndarray
    level: np.ndarray
    mean: np.ndarray
    centred: ridge.Decomposed
    blocks: Callable[[], Iterator[np.ndarray]]

    def solution(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """(d, k) kernel and (k,) bias, float32."""
        kernel = self.centred.kernel(strength)
        return kernel.astype(np.float32), (self.level - self.mean @ kernel).astype(np.float32)


def ridges(
    head: keras.Model,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
) -> Ridges:
    """The ridges of a head's learned layer.

    Args:
        head: of `regressor.build_head`, linear, its feature scale and gene factors set.
        inputs: "features" (n, symmetries, f) and what else the head takes.
        targets: (n, g) standardised; only `rows` are read.
        rows: (m,) the training spots.
        weights: (m,) of those spots, above 0; their scale has no effect.
    """
    wanted = targets[rows].astype(np.float64)
    if learned_layer(head).name == "factors":
        wanted = wanted @ np.linalg.pinv(np.asarray(head.get_layer("expression").kernel, float))
    weights = weights / weights.mean()
    level = np.average(wanted, axis=0, weights=weights)
    width = learned_layer(head).kernel.shape[0]
    if len(rows) < width:
        taken = layer_inputs(head, inputs, rows)
        exact = taken.astype(np.float64)
        mean = np.average(exact, axis=0, weights=weights)
        root = np.sqrt(weights)[:, None]
        centred = ridge.decomposed((exact - mean) * root, (wanted - level) * root)
        return Ridges(wanted, level, mean, centred, lambda: iter([taken]))
    mean, gram = np.zeros(width), np.zeros((width, width))
    cross = np.zeros((width, wanted.shape[1]))
    start = 0
    for part in _blocks_of_inputs(head, inputs, rows):
        here = slice(start, start + len(part))
        exact, weighted = part.astype(np.float64), part * weights[here, None]
        mean += weighted.sum(axis=0) / len(rows)
        gram += weighted.T @ exact
        cross += weighted.T @ (wanted[here] - level)
        start = here.stop
    # What layers take is standardised, so its mean is small and little is lost here.
    gram -= len(rows) * np.outer(mean, mean)
    return Ridges(
        wanted,
        level,
        mean,
        ridge.normal(gram, cross),
        lambda: _blocks_of_inputs(head, inputs, rows),
    )


def solved(
    head: keras.Model,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    strengths: Sequence[float],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel (d, k) and bias (k,) of `ridges` for each strength, float32; k factors or genes."""
    found = ridges(head, inputs, targets, rows, weights)
    return [found.solution(strength) for strength in strengths]


def predictions(
    head: keras.Model,
    inputs: dict[str, np.ndarray],
    rows: np.ndarray,
    solutions: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Iterator[np.ndarray]:
    """What `head` would predict of spots `rows` with each of the solutions: (m, g) float32."""
    kernel = np.concatenate([kernel for kernel, _ in solutions], axis=1)
    bias = np.concatenate([bias for _, bias in solutions])
    each = [part @ kernel + bias for part in _blocks_of_inputs(head, inputs, rows)]
    for values in np.split(np.concatenate(each), len(solutions), axis=1):
        if learned_layer(head).name == "factors":
            values = values @ np.asarray(head.get_layer("expression").kernel)
        yield values


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
    return np.concatenate(list(_blocks_of_inputs(head, inputs, rows)))


def _blocks_of_inputs(
    head: keras.Model, inputs: dict[str, np.ndarray], rows: np.ndarray
) -> Iterator[np.ndarray]:
    """`layer_inputs`, _BLOCK_SPOTS at a time."""
    before = keras.Model(head.input, learned_layer(head).input)
    for start in range(0, len(rows), _BLOCK_SPOTS):
        yield features.predicted(before, inputs, rows=rows[start : start + _BLOCK_SPOTS])


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

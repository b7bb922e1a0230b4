"""How like the tissue that a model learned from a tile is, by the model's own features.

A tile, as it is and in no other symmetry, is described by means of the encoder's channels over it
(`models.regressor.channel_means`).
Those of the training tiles, standardised, spread along few axes; the distance of a tile is its
squared Mahalanobis distance under probabilistic principal components (Tipping and Bishop, J. R.
Stat. Soc. B 61, 1999): along AXES axes by their own variances, off them by the variance that is
left. That remainder sees what the training tissue never varied in, such as blur or another colour.

A tile's familiarity is the share of held-out training tiles that lie at least as far: groups of the
training side (patients where there are two or more, else sections, else blocks of one) are left out
in turn, and their tiles' distances taken from what the others teach. So 0.5 is usual for tissue of
the same kind that was never seen, and under STRANGE one tile in twenty of it lies as far out.

Standardising tiles by their own slide first was tried: it sees a pen mark among clean tiles
better, and takes clean tiles for strange as soon as something else moves the slide's mean; of a
slide of few tiles it says nothing. So distances are from the training tiles as they are
(docs/trust.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from histospace_tf.data_pipelines import splits
from histospace_tf.vocabulary import InputError

AXES = 16
STRANGE = 0.05  # familiarity below which a tile is strange
PARTLY, MOSTLY = 0.25, 0.5  # shares of strange tiles from which a slide is said to be unlike
_LEVELS = np.linspace(0, 1, 201)  # of held-out distances, kept as quantiles
FILE = "familiarity.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Familiarity:
    """What distances are taken from, and which of them are usual.

    mean, deviation: (c,) of the training tiles. axes: (k, c), k at most AXES, of unit length.
    variances: (k,) along them; rest: off them, of one dimension.
    held_out: (201,) quantiles of held-out tiles' distances. All are float32.
    left_out: what was left out for them, of `splits.KINDS`.
    """

    mean: np.ndarray
    deviation: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: np.ndarray
    held_out: np.ndarray
    left_out: str

    def of(self, tiles: np.ndarray) -> np.ndarray:
        """(n,) float32 familiarity in [0, 1] of tiles that are described by (n, c) numbers."""
        far = _distances(self, tiles)
        return (1 - np.interp(far, self.held_out, _LEVELS, left=0.0)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Writes a .npz file of some 20 kB."""
        np.savez_compressed(path, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> Familiarity:
        """What `save` wrote.

        Raises:
            InputError: the file cannot be read, or lacks a part.
        """
        try:
            with np.load(path) as parts:
                values = {field.name: parts[field.name] for field in dataclasses.fields(cls)}
        except Exception as error:  # NumPy raises many kinds for a cut or foreign file
            raise InputError(f"{path} cannot be read as distances of tiles: {error}") from None
        return cls(**{**values, "left_out": str(values["left_out"])})


def learned(tiles: np.ndarray, rows: np.ndarray, groups: Sequence[splits.Fold]) -> Familiarity:
    """What the training tiles teach.

    Args:
        tiles: (n, c) descriptions of all tiles; those off the training side are not read.
        rows: (m,) the training tiles.
        groups: of `splits.inner_folds` of them.
    """
    far = []
    for group in groups:
        far.append(_distances(_spread(tiles[group.train]), tiles[group.test]))
    whole = _spread(tiles[rows])
    quantiles = np.quantile(np.concatenate(far), _LEVELS).astype(np.float32)
    return dataclasses.replace(whole, held_out=quantiles, left_out=groups[0].kind)


def strange_share(familiarity: np.ndarray) -> float:
    """Share of (n,) tiles that are strange."""
    return float((familiarity < STRANGE).mean())


def verdict(familiarity: np.ndarray, left_out: str) -> str:
    """What a slide's tiles say together, in words: how many are strange, and to what.

    Args:
        familiarity: (n,) of `Familiarity.of`, n at least 1. left_out: of `Familiarity`.
    """
    n, share = len(familiarity), strange_share(familiarity)
    new = {"patient": "new patients'", "section": "other sections'"}.get(left_out, "other")
    how = "unlike" if share >= MOSTLY else "partly unlike" if share >= PARTLY else "like"
    return (
        f"{how} the training tissue: {round(share * n)} of {n} places are strange to the model "
        f"(only {STRANGE:.0%} of {new} tiles that it was tried on lie so far from its training "
        "tiles)"
    )


def is_unlike(familiarity: np.ndarray) -> bool:
    """Whether most of a slide's tiles are strange."""
    return strange_share(familiarity) >= MOSTLY


def _spread(tiles: np.ndarray) -> Familiarity:
    """Without held-out distances."""
    tiles = np.asarray(tiles, np.float64)
    mean, deviation = tiles.mean(axis=0), tiles.std(axis=0)
    # A channel that is switched off, or one tile alone: nothing to measure by.
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    standard = (tiles - mean) / deviation
    most = min(AXES, len(tiles) - 2, tiles.shape[1] - 1)
    if most < 1:
        axes, variances, rest = np.zeros((0, tiles.shape[1])), np.zeros(0), 1.0
    else:
        found = PCA(most, svd_solver="full").fit(standard)
        axes, variances = found.components_, found.explained_variance_
        # Over all directions; scikit-learn's noise_variance_ leaves out those that few tiles lack.
        left = float(standard.var(axis=0, ddof=1).sum() - variances.sum())
        rest = left / (tiles.shape[1] - most)
    return Familiarity(
        mean=mean.astype(np.float32),
        deviation=deviation.astype(np.float32),
        axes=axes.astype(np.float32),
        variances=variances.astype(np.float32),
        rest=np.array(max(rest, 1e-6), np.float32),
        held_out=np.zeros(len(_LEVELS), np.float32),
        left_out="none",
    )


def _distances(learned: Familiarity, tiles: np.ndarray) -> np.ndarray:
    """(n,) squared distances."""
    standard = (np.asarray(tiles, np.float64) - learned.mean) / learned.deviation
    along = standard @ np.asarray(learned.axes, np.float64).T
    off = np.maximum((standard**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    return (along**2 / learned.variances).sum(axis=1) + off / float(learned.rest)

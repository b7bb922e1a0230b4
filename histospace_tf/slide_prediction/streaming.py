"""Predictions for any number of tiles of one slide: a chunk at a time, in a folder on disk.

Tiles are taken from the slide's top to its bottom. Slide context reaches no further than a radius,
so a chunk is predicted as soon as the chunks within it have their features, and features that no
later chunk needs are deleted: disk and memory hold a band of the slide, not the slide.

WORK/features_00012.npy      (chunk, symmetries, f) float32, while they are needed
WORK/familiarity_00012.npy   (chunk,) float32, of a model that knows it
WORK/expression_00012.npy    (chunk, genes) float32, in the panel's unit

Files appear whole or not at all, so a run that was cut off goes on where it was.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

from histospace_tf import bundle, outputs
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import features, head_inputs
from histospace_tf.data_pipelines import datasets
from histospace_tf.models import regressor
from histospace_tf.outputs import say

CHUNK_TILES = 4 * features.BATCH_TILES  # whole batches: a resumed run makes the same ones
_SAID_FROM_BYTES = 2**29


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What a head that sees more than one tile is told of the slide.

    slide: mean and deviation of features, of `head_inputs.slide_statistics`.
    radius_px: how far neighbours reach, in full-resolution pixels.
    """

    slide: tuple[np.ndarray, np.ndarray]
    radius_px: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """Tiles in chunks, from top to bottom.

    order: (n,) rows of the tiles, chunk by chunk.
    first, last: (chunks,) the first and the last chunk that holds neighbours of each.
    """

    order: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def rows(self, chunk: int) -> slice:
        """Which part of `order` a chunk is."""
        return slice(chunk * CHUNK_TILES, min((chunk + 1) * CHUNK_TILES, len(self.order)))

    def batches(self, chunk: int) -> int:
        """How many batches of tiles a chunk is."""
        part = self.rows(chunk)
        return -(-(part.stop - part.start) // features.BATCH_TILES)

    def within(self, chunk: int) -> range:
        """The chunks that hold neighbours of a chunk, itself among them."""
        return range(self.first[chunk], self.last[chunk] + 1)

    def most_kept(self) -> int:
        """How many chunks' features are on disk at once, at most."""
        now = np.arange(len(self))
        waiting = np.searchsorted(self.last, now)  # the first that is not finished before `now`
        return int((now - self.first[waiting] + 1).max())


def plan(centres_px: np.ndarray, *, radius_px: float) -> _Plan:
    """Orders tiles from top to bottom, in chunks.

    Args:
        centres_px: (n, 2) full-resolution pixels, x first; n at least 1.
        radius_px: how far neighbours reach.
    """
    order = np.argsort(centres_px[:, 1], kind="stable")
    y = centres_px[order, 1]
    starts = np.arange(0, len(y), CHUNK_TILES)
    ends = np.minimum(starts + CHUNK_TILES, len(y)) - 1
    # Half a pixel more: which chunks are looked into may be too many, never too few.
    first = np.searchsorted(y, y[starts] - radius_px - 0.5) // CHUNK_TILES
    last = (np.searchsorted(y, y[ends] + radius_px + 0.5, side="right") - 1) // CHUNK_TILES
    return _Plan(order, first, last)


def predicted(
    model: Bundle,
    tiles: datasets.StainedTiles,
    centres_px: np.ndarray,
    *,
    symmetries: int,
    context: Context | None,
    work: Path,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Expression at every tile of one slide, averaged over symmetries, and how familiar each is.

    The same as `features.predicted` on `head_inputs.context_inputs` of all tiles at once, up to
    the order of sums.

    Args:
        model: trunk, head and panel.
        tiles: n of them, cut when asked for.
        centres_px: (n, 2) full-resolution pixels, x first; n at least 1.
        symmetries: 1 or 8.
        context: for a head that needs it.
        work: folder of this slide, model and these tiles alone; chunks that are finished in it are
            not computed again.
    Returns:
        (n, g) float32 in the panel's unit, in the order of `centres_px`, and (n,) of
        `Familiarity.of`; None where the model does not know it.
    """
    chunks = plan(centres_px, radius_px=context.radius_px if context else 0.0)
    waiting = [i for i in range(len(chunks)) if not _expression(work, i).is_file()]
    needed = set(waiting)
    if context is not None:
        _say_need(model, chunks, symmetries, work)
        needed = {j for i in waiting for j in chunks.within(i)}
        needed = {j for j in needed if not _features(work, j).is_file()}
    rows = np.concatenate(
        [np.zeros(0, np.int64), *(chunks.order[chunks.rows(i)] for i in sorted(needed))]
    )
    n = len(chunks.order)
    batches: Iterator[np.ndarray] = iter(())
    if len(rows):
        batches = features.feature_batches(model.trunk, [tiles], symmetries=symmetries, rows=rows)
    tree = cKDTree(centres_px[chunks.order])
    means: dict[int, np.ndarray] = {}  # features of near chunks, averaged over the symmetries
    with tqdm(total=n, initial=n - len(rows), desc="Predicting", unit="tile", delay=2) as bar:
        for now in range(len(chunks)):
            if now in needed:
                parts, near = [], list[np.ndarray]()
                for batch in itertools.islice(batches, chunks.batches(now)):
                    parts.append(_expressed(model, {"features": batch}) if not context else batch)
                    if model.familiarity is not None:
                        # Of the tile as it is, as in training: a mean over flips hides directions.
                        near.append(model.familiarity.of(regressor.channel_means(batch[:, 0])))
                    bar.update(len(batch))
                values = np.concatenate(parts)
                if near:
                    _save(_familiarity(work, now), np.concatenate(near))
                if context is not None:
                    means[now] = values.mean(axis=1)
                _save((_features if context else _expression)(work, now), values)
            if context is None:
                continue
            while waiting and chunks.last[waiting[0]] <= now:
                chunk = waiting.pop(0)
                inputs = _in_context(chunks, chunk, context, tree, means, work)
                _save(_expression(work, chunk), _expressed(model, inputs))
            _forget(chunks.first[waiting[0]] if waiting else len(chunks), means, work)
    out = np.empty((n, len(model.panel)), np.float32)
    known = None if model.familiarity is None else np.empty(n, np.float32)
    for chunk in range(len(chunks)):
        rows = chunks.order[chunks.rows(chunk)]
        out[rows] = np.load(_expression(work, chunk))
        if known is not None:
            known[rows] = np.load(_familiarity(work, chunk))
    return out, known


def _expressed(model: Bundle, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """(n, g) float32 in the panel's unit."""
    return model.panel.to_unit(features.predicted(model.head, inputs)).astype(np.float32)


def _in_context(
    chunks: _Plan,
    chunk: int,
    context: Context,
    tree: cKDTree,
    means: dict[int, np.ndarray],
    work: Path,
) -> dict[str, np.ndarray]:
    """Inputs of the head for one chunk."""
    part = chunks.rows(chunk)
    near = head_inputs.near(tree, np.arange(part.start, part.stop), radius_px=context.radius_px)
    own = np.load(_features(work, chunk))
    total = np.zeros((len(own), own.shape[-1]), np.float32)
    for other in chunks.within(chunk):
        if other not in means:  # computed before an interrupt
            means[other] = np.load(_features(work, other)).mean(axis=1)
        total += near[:, chunks.rows(other)] @ means[other]
    count = np.asarray(near.sum(axis=1)).ravel()
    neighbours = head_inputs.neighbour_mean(total, count, means[chunk])
    return head_inputs.in_context(own, neighbours, context.slide)


def _forget(oldest: int, means: dict[int, np.ndarray], work: Path) -> None:
    """Lets go of the features of chunks before `oldest`."""
    for chunk in [i for i in means if i < oldest]:
        del means[chunk]
    for path in work.glob("features_*.npy"):
        if int(path.stem.rpartition("_")[2]) < oldest:
            path.unlink()


def _say_need(model: Bundle, chunks: _Plan, symmetries: int, work: Path) -> None:
    tile = (
        4 * symmetries * int(np.prod(bundle.feature_shape(model.trunk, model.config.tiles.tile_px)))
    )
    need = chunks.most_kept() * CHUNK_TILES * tile + len(chunks.order) * len(model.panel) * 4
    if need > _SAID_FROM_BYTES:
        free = shutil.disk_usage(work).free
        say(f"{work} takes up to {need / 1e9:.1f} GB while this runs ({free / 1e9:.1f} GB free).")


def _features(work: Path, chunk: int) -> Path:
    return work / f"features_{chunk:05d}.npy"


def _familiarity(work: Path, chunk: int) -> Path:
    return work / f"familiarity_{chunk:05d}.npy"


def _expression(work: Path, chunk: int) -> Path:
    return work / f"expression_{chunk:05d}.npy"


def _save(path: Path, values: np.ndarray) -> None:
    with outputs.whole_file(path) as draft:
        np.save(draft, values)

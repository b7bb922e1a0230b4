"""The two sides of a fold: spots to learn from, and spots that predictors are asked about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from histospace_tf.cohort import paired, taught
from histospace_tf.cohort.encoders import EncodedSpots, Scale
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, expression, gene_panel, splits
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.vocabulary import InputError, SpotTable


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSpots:
    """The training side of a fold: all that a predictor may learn from.

    Arrays have one row per spot of the cohort, n in all, and `rows` says which to read; of the
    others nothing that was measured is in them.

    encoded: all spots, as the fold's encoder and stain reference show them.
    rows: (m,) the training spots.
    panel: genes and unit.
    measured: (n, g) float32 in the panel's unit; NaN but for `rows`.
    targets: (n, g) float32 standardised; zero but for `rows`.
    weights: (n,) how much each spot counts in a fit, by their ratios; zero but for `rows`.
    levels: (g,) float32 in the panel's unit, what predictions that see no image start from: the
        mean over the training spots, or over patients where counts without images join them.
    axes: what patients without an image teach gene factors, of `taught.axes`.
    heads: of our own model, trained on these spots so far, by architecture.
    """

    encoded: EncodedSpots
    rows: np.ndarray
    panel: GenePanel
    measured: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    levels: np.ndarray
    axes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    heads: dict = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def index(self) -> splits.SpotIndex:
        """Section, patient and centre, one row per spot."""
        return self.encoded.spots.index

    @property
    def statistics(self) -> np.ndarray:
        """(n, 39) colour statistics of the stain-normalised tiles."""
        return self.encoded.statistics

    def weights_of(self, config: Config) -> np.ndarray:
        """`weights` as a compared head weighs spots: by `config.regressor.spot_weights`."""
        if config.regressor.spot_weights == self.encoded.config.regressor.spot_weights:
            return self.weights
        weights = np.zeros(len(self.weights))
        weights[self.rows] = spot_weights(self.encoded.spots, config)[self.rows]
        return weights

    def inner_folds(self, most: int) -> list[splits.Fold]:
        """The training side split again, to choose epochs or strengths on; rows of the cohort."""
        return splits.inner_folds(self.index, self.rows, folds=most)

    def tile_dataset(
        self,
        rows: np.ndarray,
        *,
        batch_size: int,
        tile_px: int | None = None,
        mpp: Scale = None,
        order_seed: tuple[int, int] | None = None,
    ) -> tf.data.Dataset:
        """Batches of (tile, target) of training spots.

        Args:
            rows: of them, counted in the cohort, such as an inner fold's.
            batch_size: spots per batch, over all devices.
            tile_px, mpp: as of `EncodedSpots.tiles`.
            order_seed: (seed, epoch) of order and symmetry; None: in order, as they are.
        Returns:
            Of float32 (b, tile_px, tile_px, 3) in [0, 1], stain-normalised, and float32 (b, g).
        Raises:
            InputError: a row that is not on the training side.
        """
        if not np.isin(rows, self.rows).all():
            raise InputError("spots that are not on the training side have no targets")
        return datasets.tile_dataset(
            self.encoded.tiles(tile_px=tile_px, mpp=mpp),
            batch_size=batch_size,
            rows=rows,
            order_seed=order_seed,
            targets=self.targets,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SpotsOfSection:
    """The spots of one section that a fitted predictor is asked about: those that are held out.

    encoded: all spots of the cohort, as the fold's encoder and stain reference show them.
    number: of the section in it. rows: (n,) its spots, as rows of `encoded.spots`.
    table: what was measured, for predictors that read it; None for all others.
    """

    encoded: EncodedSpots
    number: int
    rows: np.ndarray
    panel: GenePanel
    table: SpotTable | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        """The section's."""
        return self.encoded.spots.sections[self.number].name

    @property
    def patient(self) -> str:
        """The section's."""
        return self.encoded.spots.sections[self.number].patient

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of the section's image; None if unknown."""
        return self.encoded.spots.prepared[self.number].mpp

    @property
    def centres_px(self) -> np.ndarray:
        """(n, 2) full-resolution pixels, x first."""
        return self.encoded.spots.index.centres_px[self.rows]

    @property
    def spot_pitch_px(self) -> float:
        """Distance between neighbouring spots in full-resolution pixels."""
        section = self.encoded.spots.sections[self.number]
        return paired.spot_pitch_px(section, self.encoded.config)

    @property
    def statistics(self) -> np.ndarray:
        """(n, 39) colour statistics of the stain-normalised tiles."""
        return self.encoded.statistics[self.rows]

    @property
    def measured(self) -> np.ndarray:
        """(n, g) in the panel's unit.

        Raises:
            InputError: the predictor does not say that it reads the held-out section.
        """
        if self.table is None:
            raise InputError("a predictor that reads what was measured needs reads_held_out = True")
        return self.panel.measured(self.table)

    def tile_dataset(
        self, *, batch_size: int, tile_px: int | None = None, mpp: Scale = None
    ) -> tf.data.Dataset:
        """Batches of tiles in the order of the spots, float32 (b, tile_px, tile_px, 3) in [0, 1].

        Args:
            batch_size: spots per batch.
            tile_px, mpp: as of `EncodedSpots.tiles`.
        """
        return datasets.tile_dataset(
            self.encoded.tiles(tile_px=tile_px, mpp=mpp), batch_size=batch_size, rows=self.rows
        )


def training_spots(
    encoded: EncodedSpots, fold: splits.Fold, genes: Sequence[str], config: Config
) -> TrainingSpots:
    """The training side of a fold, its panel standardised on it alone.

    Where counts without images join its levels, the panel's mean is moved by as much as these are.

    Args:
        encoded: all spots.
        fold: rows of them.
        genes: of `plans.training_panel`.
    """
    spots, train = encoded.spots, fold.train
    values, targets, panel = standardised(spots, fold, genes, config)
    levels, axes = values[train].astype(np.float64).mean(axis=0).astype(np.float32), {}
    joined = taught.joining(spots, fold, genes, config)
    if joined:
        axes = taught.axes(joined, panel, config)
        shared = taught.levels(joined, values[train], spots.index.patient[train], panel)
        # A head's own level is that of the training spots, whatever its targets are centred on.
        panel = dataclasses.replace(panel, mean=panel.mean + (shared - levels))
        levels = shared
    measured, weights = np.full_like(values, np.nan), np.zeros(len(spots))
    measured[train] = values[train]
    weights[train] = spot_weights(spots, config)[train]
    return TrainingSpots(
        encoded=encoded,
        rows=train,
        panel=panel,
        measured=measured,
        targets=targets,
        weights=weights,
        levels=levels,
        axes=axes,
    )


def standardised(
    spots: paired.PairedSpots, fold: splits.Fold, genes: Sequence[str], config: Config
) -> tuple[np.ndarray, np.ndarray, GenePanel]:
    """What was measured in the unit, standardised targets, and the panel that standardises.

    Returns:
        (n, g) float32 of all spots; (n, g) float32, zero on the held-out side; the panel.
    """
    target, train = config.target, fold.train
    values = np.concatenate(
        [
            expression.targets(
                section.spots,
                genes,
                normalisation=target.normalisation,
                target_sum=target.target_sum,
            )
            for section in spots.sections
        ]
    )
    wanted = values
    if target.smooth_um:
        wanted = values.copy()
        for number in spots.sections_in(train):
            section, rows = spots.sections[number], spots.rows_of(number, train)
            wanted[rows] = expression.smoothed(
                values[rows],
                spots.index.centres_px[rows],
                radius_px=paired.smoothing_px(section, config),
            )
    groups = spots.index.section[train]
    ids = gene_panel.gene_ids([section.spots for section in spots.sections], genes)
    panel = gene_panel.fit_panel(wanted[train], groups, genes, target, gene_ids=ids)
    targets = np.zeros_like(values)
    targets[train] = gene_panel.training_targets(wanted[train], groups, panel, target)
    return values, targets, panel


def spot_weights(spots: paired.PairedSpots, config: Config) -> np.ndarray:
    """(n,) float64, mean 1: how much each spot counts in a fit, by `taught.depth_weights`."""
    weights = np.concatenate([taught.depth_weights(s.spots, config) for s in spots.sections])
    return weights / weights.mean()

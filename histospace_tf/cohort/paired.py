"""Spots of all sections of a run in one row order; their tiles, features and targets."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from histospace_tf import bundle, outputs
from histospace_tf.cohort import features, preparing
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, expression, gene_panel, splits, tiles
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, Section, SpotTable, StainReference

# A float's rounding shows on any tile; a change of r per gene needs some tens of them.
PARITY_TILES = 48
CALIBRATION_TILES = 24

# Spots of unknown pitch are taken to lie one tile apart.
DEFAULT_PITCH_TILES = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class PairedSpots:
    """All spots, section after section.

    sections: those with an image, in order.
    index: one row per spot, as the splits take it.
    first: (sections + 1,) int, the row that each section starts at.
    """

    sections: tuple[Section, ...]
    index: splits.SpotIndex
    first: np.ndarray

    @classmethod
    def of(cls, sections: Sequence[Section], config: Config) -> PairedSpots:
        """Lines up the spots of `sections`."""
        sizes = [len(section.spots) for section in sections]
        gaps = [tile_px_in_image(section, config) for section in sections]
        index = splits.SpotIndex(
            section=np.repeat([section.name for section in sections], sizes),
            patient=np.repeat([section.patient for section in sections], sizes),
            centres_px=np.concatenate([section.spots.centres_px for section in sections]),
            gap_px=np.repeat(gaps, sizes),
        )
        return cls(tuple(sections), index, np.cumsum([0, *sizes]))

    def __len__(self) -> int:
        return int(self.first[-1])

    def rows_of(self, number: int, among: np.ndarray) -> np.ndarray:
        """Those of the rows `among` that belong to section `number`."""
        return among[(among >= self.first[number]) & (among < self.first[number + 1])]

    def spots_of(self, number: int, among: np.ndarray) -> SpotTable:
        """Section `number`'s spots at those of the rows `among` that belong to it."""
        rows = self.rows_of(number, among) - self.first[number]
        return self.sections[number].spots.subset(rows)

    def sections_in(self, among: np.ndarray) -> list[int]:
        """Numbers of the sections that the rows `among` belong to, in order."""
        return [number for number in range(len(self.sections)) if len(self.rows_of(number, among))]


def tile_px_in_image(section: Section, config: Config) -> float:
    """Side of a tile in full-resolution pixels of the section's image."""
    side, mpp = config.tiles.tile_px, config.tiles.mpp
    if section.mpp is None or mpp is None or abs(mpp / section.mpp - 1) <= tiles.SAME_SCALE:
        return float(side)
    return side * mpp / section.mpp


def spot_pitch_px(section: Section, config: Config) -> float:
    """Distance between neighbouring spots in full-resolution pixels."""
    known = section.spot_pitch_px
    return known if known is not None else DEFAULT_PITCH_TILES * tile_px_in_image(section, config)


def neighbour_radius_px(mpp: float | None, pitch_px: float, config: Config) -> float:
    """config.context.neighbour_um in full-resolution pixels; without a scale, 1.5 pitches."""
    return config.context.neighbour_um / mpp if mpp is not None else 1.5 * pitch_px


def pretrain_share(sections: int, config: Config) -> int:
    """Tiles that each of so many sections gives the autoencoder."""
    return -(-config.autoencoder.tiles // max(1, sections))


def cut_tiles(
    spots: PairedSpots,
    config: Config,
    folder: Path,
    *,
    pretrain_on: Sequence[int],
    share: int | None = None,
) -> list[PreparedSection]:
    """Opens every section's image once and cuts its tiles into files of `folder`.

    Sections whose numbers are in `pretrain_on` give tiles for the autoencoder, too: `share` each
    at most, by default an equal part of config.autoencoder.tiles.
    """
    folder.mkdir(exist_ok=True)
    if share is None:
        share = pretrain_share(len(pretrain_on), config)
    prepared = []
    sections = tqdm(spots.sections, desc="Cutting tiles", unit="section", delay=2)
    for number, section in enumerate(sections):
        most = share if number in pretrain_on else 0
        ready = preparing.prepare_section(section, config, folder, pretrain_tiles=most)
        for problem in ready.problems:
            say(str(problem))
        prepared.append(ready)
    return prepared


def kept_spots(
    spots: PairedSpots, prepared: Sequence[PreparedSection], config: Config
) -> PairedSpots:
    """The spots whose tiles could be cut: border policy "drop" leaves some out."""
    kept = [
        dataclasses.replace(section, spots=ready.spots)
        for section, ready in zip(spots.sections, prepared, strict=True)
    ]
    return PairedSpots.of(kept, config)


def head_inputs(
    spots: PairedSpots,
    prepared: Sequence[PreparedSection],
    trunk: keras.Model,
    reference: StainReference,
    config: Config,
    folder: Path,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of the heads for all spots, and the colour statistics of their tiles.

    Inputs are memory-mapped files of `folder`, read again where they are there already: 57 kB a
    spot with eight symmetries of "pooled" features, 79 kB with slide context. Memory holds no more
    than two vectors of features a spot of the largest section, 14 kB.
    """
    folder.mkdir(exist_ok=True)
    names = regressor.CONTEXT_INPUTS if bundle.needs_context(config) else ("features",)
    stored = {name: folder / f"{name}.npy" for name in (*names, "colours")}
    work = folder / "sections"
    if not all(path.is_file() for path in stored.values()):
        work.mkdir(exist_ok=True)
        parts = [
            _section_inputs(section, ready, trunk, reference, config, work)
            for section, ready in zip(spots.sections, prepared, strict=True)
        ]
        for name, path in stored.items():
            first = parts[0][name]
            pieces = (p for part in parts for p in np.array_split(part[name], _pieces(part[name])))
            shape = (len(spots), *first.shape[1:])
            outputs.write_npy(path, shape, first.dtype.type, pieces)
        del parts, first
    shutil.rmtree(work, ignore_errors=True)
    statistics = np.load(stored.pop("colours"))
    return {name: np.load(path, mmap_mode="r") for name, path in stored.items()}, statistics


def _pieces(values: np.ndarray) -> int:
    """In how many pieces of about 16 MB an array is copied."""
    return max(1, values.nbytes // 2**24)


def _section_inputs(
    section: Section,
    ready: PreparedSection,
    trunk: keras.Model,
    reference: StainReference,
    config: Config,
    work: Path,
) -> dict[str, np.ndarray]:
    """Inputs of the heads for one section's spots, and under "colours" their tiles' statistics.

    What is large is kept in files of `work`.
    """
    stem = outputs.file_name(section.name)
    own, colours = features.features_and_colours(
        trunk,
        [preparing.stained(ready.spot_tiles, ready.stains, reference)],
        symmetries=config.regressor.symmetries,
        label=f"Features of {section.name}",
        store=work / f"{stem}_spots.npy",
    )
    if not bundle.needs_context(config):
        return {"features": own, "colours": colours}
    slide = features.tile_features(
        trunk,
        [preparing.stained(ready.slide_tiles, ready.stains, reference)],
        symmetries=1,
        label=f"Slide statistics of {section.name}",
        store=work / f"{stem}_slide.npy",
    )
    pitch = spot_pitch_px(section, config)
    part = features.context_inputs(
        own,
        section.spots.centres_px,
        features.slide_statistics(slide[:, 0]),
        radius_px=neighbour_radius_px(ready.mpp, pitch, config),
    )
    path = work / f"{stem}_neighbours.npy"
    np.save(path, part["neighbour_features"])
    return part | {"neighbour_features": np.load(path, mmap_mode="r"), "colours": colours}


def targets(
    spots: PairedSpots, fold: splits.Fold, genes: Sequence[str], config: Config
) -> tuple[np.ndarray, np.ndarray, GenePanel]:
    """Measured values in the unit, what heads learn (zero on the held-out side), and the panel."""
    target, train = config.target, fold.train
    unit: dict[str, Any] = {
        "normalisation": target.normalisation,
        "target_sum": target.target_sum,
    }
    measured = np.concatenate(
        [expression.targets(section.spots, genes, **unit) for section in spots.sections]
    )
    wanted = measured
    if target.smooth_um:
        wanted = measured.copy()
        for number in spots.sections_in(train):
            section, rows = spots.sections[number], spots.rows_of(number, train)
            wanted[rows] = expression.smoothed(
                measured[rows],
                spots.index.centres_px[rows],
                radius_px=smoothing_px(section, config),
            )
    groups = spots.index.section[train]
    ids = gene_panel.gene_ids([section.spots for section in spots.sections], genes)
    panel = gene_panel.fit_panel(wanted[train], groups, genes, target, gene_ids=ids)
    learned = np.zeros_like(measured)
    learned[train] = gene_panel.training_targets(wanted[train], groups, panel, target)
    return measured, learned, panel


def smoothing_px(section: Section, config: Config) -> float:
    """config.target.smooth_um in full-resolution pixels of the section's image.

    Raises:
        InputError: the section's microns per pixel are unknown.
    """
    if section.mpp is None:
        raise InputError(
            f"section {section.name!r}: target.smooth_um needs microns per pixel, which are "
            "unknown; give them with --mpp"
        )
    return config.target.smooth_um / section.mpp


def spot_weights(spots: PairedSpots, config: Config) -> np.ndarray:
    """(n,) float64, mean 1: how much each spot counts in a fit.

    A spot's counts are Poisson: one of few counts is mostly noise, so with "sqrt_counts" it weighs
    less. The square root, because tissue differs from model to model by more than counting noise.
    """
    if config.regressor.spot_weights == "equal":
        return np.ones(len(spots))
    weights = np.sqrt(np.concatenate([section.spots.total_counts for section in spots.sections]))
    return weights / weights.mean()


def parity_tiles(
    spots: PairedSpots,
    prepared: Sequence[PreparedSection],
    fold: splits.Fold,
    measured: np.ndarray,
    reference: StainReference,
    path: Path,
) -> None:
    """Writes what exports are checked with, an .npz of stain-normalised tiles.

    tile: (n, s, s, 3) uint8, of one section, held out where there is one, so that r per gene is
    not about sections. measured: (n, g) float32, their spots' values. training_tile: (m, s, s, 3)
    uint8, from all training sections, for the ranges of 8-bit arithmetic.

    Args:
        measured: (spots, g) in the panel's unit.
    """
    among = fold.test if len(fold.test) else fold.train
    chosen = _spread(spots.rows_of(spots.sections_in(among)[0], among), PARITY_TILES)
    np.savez_compressed(
        path,
        tile=_normalised(spots, prepared, chosen, reference),
        measured=measured[chosen].astype(np.float32),
        training_tile=_normalised(
            spots, prepared, _spread(fold.train, CALIBRATION_TILES), reference
        ),
    )


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]


def _normalised(
    spots: PairedSpots,
    prepared: Sequence[PreparedSection],
    rows: np.ndarray,
    reference: StainReference,
) -> np.ndarray:
    """Stain-normalised tiles of spots `rows`, which are in order: (m, s, s, 3) uint8."""
    parts = []
    for number in spots.sections_in(rows):
        ready = prepared[number]
        group = preparing.stained(ready.spot_tiles, ready.stains, reference)
        parts.append(
            datasets.normalised_rows([group], spots.rows_of(number, rows) - spots.first[number])
        )
    return np.concatenate(parts)

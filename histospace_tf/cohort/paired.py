"""Spots of all sections of a run in one row order, and the tiles around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from histospace_tf.cohort import preparing
from histospace_tf.cohort.count_sections import CountSection
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, splits, stain, tiles
from histospace_tf.data_pipelines.gene_panel import GenePanel
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
    prepared: the sections' tiles, once they are cut.
    counts: sections that have no row, because they teach by their counts alone.
    folder: that keeps the tiles, and what is made of them for all folds.
    """

    sections: tuple[Section, ...]
    index: splits.SpotIndex
    first: np.ndarray
    prepared: tuple[PreparedSection, ...] = ()
    counts: tuple[CountSection, ...] = ()
    folder: Path = Path()

    @classmethod
    def of(
        cls,
        sections: Sequence[Section],
        config: Config,
        *,
        prepared: Sequence[PreparedSection] = (),
        counts: Sequence[CountSection] = (),
    ) -> PairedSpots:
        """Lines up the spots of `sections`."""
        sizes = [len(section.spots) for section in sections]
        gaps = [tile_px_in_image(section, config) for section in sections]
        index = splits.SpotIndex(
            section=np.repeat([section.name for section in sections], sizes),
            patient=np.repeat([section.patient for section in sections], sizes),
            centres_px=np.concatenate([section.spots.centres_px for section in sections]),
            gap_px=np.repeat(gaps, sizes),
        )
        first = np.cumsum([0, *sizes])
        return cls(tuple(sections), index, first, tuple(prepared), tuple(counts))

    def __len__(self) -> int:
        return int(self.first[-1])

    def rows_of(self, number: int, among: np.ndarray) -> np.ndarray:
        """Those of the rows `among` that belong to section `number`."""
        return among[(among >= self.first[number]) & (among < self.first[number + 1])]

    def white_fields(self) -> dict[str, dict[str, Any]]:
        """What is recorded of each section's white field, where they were asked for."""
        fields = {part.name: part.white_field for part in self.prepared}
        return {name: field.record() for name, field in fields.items() if field is not None}

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
) -> PairedSpots:
    """Opens every section's image once and cuts its tiles into files of `folder`.

    Args:
        spots: of sections whose tiles are not cut yet.
        config: tile size, border policy, ...
        folder: that holds the files; what is there already is not cut again.
        pretrain_on: numbers of the sections that give tiles for the autoencoder, too.
        share: how many each of those gives at most; None: an equal part of
            config.autoencoder.tiles.
    Returns:
        The spots whose tiles could be cut (border policy "drop" leaves some out), and the tiles.
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
    kept = [
        dataclasses.replace(section, spots=ready.spots)
        for section, ready in zip(spots.sections, prepared, strict=True)
    ]
    lined_up = PairedSpots.of(kept, config, prepared=prepared, counts=spots.counts)
    return dataclasses.replace(lined_up, folder=folder)


def smoothing_px(section: Section, config: Config) -> float:
    """config.target.smooth_um in full-resolution pixels of the section's image.

    Raises:
        InputError: the section's microns per pixel are unknown.
    """
    if section.mpp is None:
        raise InputError(
            f"section {section.name!r}: target.smooth_um needs microns per pixel, which are "
            "unknown; give them with `mpp`"
        )
    return config.target.smooth_um / section.mpp


def parity_tiles(
    spots: PairedSpots,
    fold: splits.Fold,
    panel: GenePanel,
    reference: StainReference,
    path: Path,
    *,
    groups: Sequence[datasets.StainedTiles] | None = None,
) -> None:
    """Writes what exports are checked with, an .npz of stain-normalised tiles.

    tile: (n, s, s, 3) uint8, of one section, held out where there is one, so that r per gene is
    not about sections. measured: (n, g) float32, their spots' values. training_tile: (m, s, s, 3)
    uint8, from all training sections, for the ranges of 8-bit arithmetic.

    Args:
        panel: of the model. reference: stains of its tiles.
        groups: tiles of all spots by section; None: those that were cut with the spots.
    """
    among = fold.test if len(fold.test) else fold.train
    number = spots.sections_in(among)[0]
    chosen = _spread(spots.rows_of(number, among), PARITY_TILES)
    measured = panel.measured(spots.spots_of(number, chosen))

    def shown(rows: np.ndarray) -> np.ndarray:
        if groups is None:
            return _normalised(spots, rows, reference)
        return datasets.normalised_rows(groups, rows)

    np.savez_compressed(
        path,
        tile=shown(chosen),
        measured=measured.astype(np.float32),
        training_tile=shown(_spread(fold.train, CALIBRATION_TILES)),
    )


def stained_tiles(
    spots: PairedSpots,
    reference: StainReference | None,
    cut: Sequence[np.ndarray] | None = None,
) -> list[datasets.StainedTiles]:
    """The spots' tiles by section, recoloured to a reference when they are read.

    By formula, within one grey level of colour tables, of which a cohort would need one per
    section, 64 MB each.

    Args:
        spots: with their tiles.
        reference: None: tiles keep the slide's own colours.
        cut: tiles of another size or scale by section; None: those that were cut with the spots.
    """
    cut = [ready.spot_tiles for ready in spots.prepared] if cut is None else cut
    if reference is None:
        white = stain.canonical_stains("none")  # white is white: nothing changes
        return [datasets.StainedTiles(tiles_of, white, white) for tiles_of in cut]
    return [
        datasets.StainedTiles(tiles_of, ready.stains, reference)
        for tiles_of, ready in zip(cut, spots.prepared, strict=True)
    ]


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]


def _normalised(spots: PairedSpots, rows: np.ndarray, reference: StainReference) -> np.ndarray:
    """Stain-normalised tiles of spots `rows`, which are in order: (m, s, s, 3) uint8."""
    parts = []
    for number in spots.sections_in(rows):
        ready = spots.prepared[number]
        group = preparing.stained(ready.spot_tiles, ready.stains, reference)
        parts.append(
            datasets.normalised_rows([group], spots.rows_of(number, rows) - spots.first[number])
        )
    return np.concatenate(parts)

"""Spots of all sections of a run in one row order, and the rows of each section in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from histospace_tf.config import Config
from histospace_tf.data_pipelines import splits
from histospace_tf.vocabulary import Section, SpotTable

# Spots of unknown pitch are taken to lie one tile apart.
DEFAULT_PITCH_TILES = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class PairedSpots:
    """All spots, section after section.

    sections: those with an image, in order.
    index: one row a spot, as the splits take it.
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
    if section.mpp is None or config.tiles.mpp is None:
        return float(config.tiles.tile_px)
    return config.tiles.tile_px * config.tiles.mpp / section.mpp


def spot_pitch_px(section: Section, config: Config) -> float:
    """Distance between neighbouring spots in full-resolution pixels."""
    known = section.spot_pitch_px
    return known if known is not None else DEFAULT_PITCH_TILES * tile_px_in_image(section, config)


def neighbour_radius_px(mpp: float | None, pitch_px: float, config: Config) -> float:
    """config.context.neighbour_um in full-resolution pixels; without a scale, 1.5 pitches."""
    return config.context.neighbour_um / mpp if mpp is not None else 1.5 * pitch_px

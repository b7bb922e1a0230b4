"""Where on a slide expression is predicted: a grid of its tissue or given spots, within regions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf import faults
from histospace_tf.config import Config
from histospace_tf.data_pipelines import marks, regions, slides, tiles
from histospace_tf.data_pipelines.regions import Region
from histospace_tf.reports import maps
from histospace_tf.slide_prediction import GRID_STEP_UM, spot_tables
from histospace_tf.vocabulary import InputError, named


@dataclasses.dataclass(frozen=True, eq=False)
class Where:
    """What is asked for.

    spots: table of spots, as in `spot_tables.read_spots`; None: a grid.
    step_um: distance between the grid's centres; None: GRID_STEP_UM, or one tile where the slide's
        scale is unknown.
    regions: places outside all of them are left out; none: the whole slide.
    keep_marks: squares of a grid under ink, and out of focus, too.
    """

    spots: Path | None = None
    step_um: float | None = None
    regions: Sequence[Region] = ()
    keep_marks: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """Where expression is predicted.

    centres_px: (n, 2) full-resolution pixels, x first.
    names: of each.
    pitch_px: distance of neighbours.
    is_grid: squares that touch; otherwise given spots, drawn as discs.
    region: (n,) int, of `regions.region_of`; all -1 where there are no regions.
    tissue_share: (n,) share of each square, or of the one around each disc, that is tissue.
    warnings: what is amiss with them.
    keep_marks: as of `Where`.
    """

    centres_px: np.ndarray
    names: Sequence[str]
    pitch_px: float
    is_grid: bool
    region: np.ndarray
    tissue_share: np.ndarray
    warnings: tuple[str, ...] = ()
    keep_marks: bool = False

    @property
    def size_px(self) -> float:
        """Side of a square, or diameter of a disc."""
        return self.pitch_px if self.is_grid else self.pitch_px / 2

    def those(self, rows: np.ndarray) -> Places:
        """Those of (n,) bool."""
        names = [name for name, is_one in zip(self.names, rows, strict=True) if is_one]
        return dataclasses.replace(
            self,
            centres_px=self.centres_px[rows],
            names=names,
            region=self.region[rows],
            tissue_share=self.tissue_share[rows],
        )

    def near(self, wanted: np.ndarray, radius_px: float) -> np.ndarray:
        """(n,) bool: which lie within a distance of one of the `wanted`, themselves among them."""
        if wanted.all():
            return wanted
        tree = cKDTree(self.centres_px[wanted])
        distance, _ = tree.query(self.centres_px, distance_upper_bound=radius_px + 0.5)
        return wanted | np.isfinite(distance)


def find(slide: slides.SlideImage, config: Config, where: Where) -> Places:
    """All places of a slide's tissue; those outside all regions have region -1.

    Raises:
        InputError: no tissue, none of it in a region, a spot table that cannot be read, a grid that
            is too fine.
    """
    if where.spots is None:
        centres, names, pitch = _grid(slide, config, where.step_um)
    else:
        with faults.reading(f"spot table {str(where.spots)!r}"):
            centres, names = spot_tables.read_spots(where.spots, slide)
        side = tiles.slide_px(slide, tile_px=config.tiles.tile_px, mpp=config.tiles.mpp)
        pitch = maps.nearest_distance_px(centres) or float(side)
    if not len(centres):
        raise InputError(
            f"{slide.path}: no tissue found in {slide.width_px} x {slide.height_px} px (squares of "
            f"{pitch:.0f} px, of which {config.tiles.min_tissue:.0%} must be tissue)"
        )
    owner = np.full(len(centres), -1)
    warnings: list[str] = []
    if where.spots is None and not where.keep_marks:
        kept, warnings = _unmarked(slide, centres, side_px=max(1, round(pitch)))
        centres, owner = centres[kept], owner[kept]
        names = [name for name, is_kept in zip(names, kept, strict=True) if is_kept]
    if where.regions:
        owner, without = _in_regions(slide, centres, where.regions)
        warnings += without
    nothing = np.zeros(len(centres))
    places = Places(centres, names, pitch, where.spots is None, owner, nothing, tuple(warnings))
    side = max(1, round(places.size_px))
    share = tiles.tissue_shares(slide, centres, side_px=side)
    return dataclasses.replace(places, tissue_share=share, keep_marks=where.keep_marks)


def _unmarked(
    slide: slides.SlideImage, centres: np.ndarray, *, side_px: int
) -> tuple[np.ndarray, list[str]]:
    """Which squares have neither ink on them nor are out of focus, and a line on each reason.

    Raises:
        InputError: none is left.
    """
    marked = marks.find(slide, centres, side_px=side_px)
    warnings = [
        f"{slide.path}: {n} of {len(centres)} squares of tissue ({n / len(centres):.1%}) are left "
        f"out: {why}. `keep_marks` predicts them, too"
        for n, why in (
            (int(marked.inked.sum()), "ink of a pen covers them"),
            (
                int(marked.blurred.sum()),
                "they show no detail, as out of focus or on the rim of a bubble",
            ),
        )
        if n
    ]
    if marked.either.all():
        raise InputError(f"{slide.path}: no square is left. {' '.join(warnings)}")
    return ~marked.either, warnings


def _in_regions(
    slide: slides.SlideImage, centres: np.ndarray, drawn: Sequence[Region]
) -> tuple[np.ndarray, list[str]]:
    """Which region each place lies in, and a line on regions without any.

    Raises:
        InputError: no place lies in a region.
    """
    owner = regions.region_of(drawn, centres)
    without = [region.name for i, region in enumerate(drawn) if not (owner == i).any()]
    if len(without) == len(drawn):
        raise InputError(
            f"{slide.path}: none of {len(centres)} places on tissue has its centre in a region "
            f"({named(without)}); larger regions or a smaller `step_um` have some"
        )
    if not without:
        return owner, []
    return owner, [
        f"{slide.path}: no place has its centre in region {named(without)} (too small, off the "
        "tissue, or covered by smaller regions); a smaller `step_um` may help"
    ]


def _grid(
    slide: slides.SlideImage, config: Config, step_um: float | None
) -> tuple[np.ndarray, list[str], float]:
    """Centres, names, pitch."""
    if slide.mpp is None and step_um is not None:
        raise InputError(f"{slide.path}: `step_um` needs microns per pixel; give `mpp`")
    if slide.mpp is None:
        pitch = float(tiles.slide_px(slide, tile_px=config.tiles.tile_px, mpp=config.tiles.mpp))
    else:
        pitch = (GRID_STEP_UM if step_um is None else step_um) / slide.mpp
    if not pitch >= 1:
        raise InputError(f"{slide.path}: `step_um` {step_um:g} is {pitch:g} px, less than one")
    # Of the square around a spot, not of the larger tile that the model sees, as for measured
    # spots: so the grid reaches tissue's and image's edges.
    centres = tiles.grid_centres(
        slide,
        tile_px=max(1, round(pitch)),
        mpp=None,
        min_tissue=config.tiles.min_tissue,
        step_px=pitch,
    )
    return centres, [f"tile{i}" for i in range(len(centres))], pitch

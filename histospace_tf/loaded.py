"""A trained run in memory: for tiles that come from anywhere, and to export."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histospace_tf import bundle as bundles
from histospace_tf import exporting
from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.exports import expected
from histospace_tf.exports.parity import FORMATS
from histospace_tf.vocabulary import InputError, StainReference


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A run's model.

    run: its folder. bundle: everything that it holds.
    """

    run: Path
    bundle: Bundle

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes that it predicts, in order."""
        return self.bundle.panel.genes

    @property
    def unit(self) -> str:
        """Name of the unit of its predictions."""
        return bundles.unit(self.bundle.panel)

    @property
    def tile_px(self) -> int:
        """Side of the tiles that it takes."""
        return self.bundle.config.tiles.tile_px

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of those tiles; None: it was trained on images at their own scale."""
        return self.bundle.config.tiles.mpp

    def predict_tiles(
        self,
        tiles: np.ndarray,
        *,
        stains: StainReference | None = None,
        stain_normalised: bool = False,
    ) -> np.ndarray:
        """Predicts tile by tile with the single-tile model, as an exported SavedModel does.

        `histospace_tf.predict` knows a tile's neighbours and its slide, too.

        Args:
            tiles: (n, tile_px, tile_px, 3) uint8 RGB, at `mpp`, of one slide.
            stains: the slide's own colours, of `stain.fit_stains`; None: estimated from the tiles.
            stain_normalised: the tiles already have the model's colours and stay as they are.
        Returns:
            (n, g) float32 in `unit`, one column per gene.
        Raises:
            InputError: tiles of another shape or type, or both `stains` and `stain_normalised`.
        """
        side = self.tile_px
        tiles = np.asarray(tiles)
        if tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3) or tiles.dtype != np.uint8:
            raise InputError(
                f"tiles are {tiles.dtype} {tiles.shape}; the model takes uint8 "
                f"(n, {side}, {side}, 3)"
            )
        if stain_normalised and stains is not None:
            raise InputError("tiles that are stain-normalised need no stains of their slide")
        if not len(tiles):
            return np.zeros((0, len(self.genes)), np.float32)
        if not stain_normalised:
            own = self.bundle.config.stain
            if stains is None:
                stains = stain.fit_stains(
                    tiles,
                    method=own.method,
                    cast=own.cast,
                    luminosity=own.luminosity,
                    seed=self.bundle.config.seed,
                    sample=own.sample_pixels,
                )
            table = recolouring.colour_table(stains, self.bundle.reference)
            tiles = recolouring.apply_table(tiles, table)
        return expected.keras_expression(self.bundle, tiles)

    def export(
        self,
        out: str | Path,
        *,
        formats: Sequence[str] = tuple(FORMATS),
        keep_all: bool = False,
        force: bool = False,
    ) -> exporting.ExportReport:
        """Writes the model as SavedModel, TensorFlow Lite and ONNX, and checks each.

        Args:
            out: folder in which each format gets one of its own.
            formats: of `parity.FORMATS`.
            keep_all, force: as `exporting.export`.
        Raises:
            InputError, CheckError: as `exporting.export`.
        """
        tiles = self.run / "parity_tiles.npz"
        return exporting.export(
            self.bundle,
            Path(out),
            parity_tiles=tiles if tiles.is_file() else None,
            formats=formats,
            force=force,
            keep_all=keep_all,
        )


def load(run: Path) -> Model:
    """The model of a run folder of `fit`, or of its bundle folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    return Model(run, bundles.load(run))

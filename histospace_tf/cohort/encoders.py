"""Encoders of a job, and all spots as one of them and its stain reference show them.

An encoder comes from outside the data (images, another run) and serves every fold, or each fold
trains its own on the training sections' tiles: a held-out section takes no part in it.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import bundle_file, outputs
from histospace_tf.cohort import features, head_inputs, paired, preparing, pretraining
from histospace_tf.cohort.encoder_sources import EncoderSource
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.plans import Plan
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.config import Config
from histospace_tf.data_pipelines import (
    datasets,
    splits,
    stain,
    tfds_images,
    tiles,
)
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError

# Of tiles, microns per pixel; "image": each image's own scale; None: the run's.
Scale: TypeAlias = float | Literal["image"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedSpots:
    """All spots as one encoder and its stain reference show them.

    spots: with their tiles. encoder: and its stain reference.
    config: of the run. folder: of kept features and further tiles.
    strategy: whose replicas share the tiles when features are computed; None: one device.
    """

    spots: PairedSpots
    encoder: TrainedEncoder
    config: Config
    folder: Path
    strategy: tf.distribute.Strategy | None = None

    def inputs(self, config: Config) -> dict[str, np.ndarray]:
        """What heads of config.regressor read of every spot, kept in files and computed once.

        Returns:
            "features" (n, symmetries, ...) and, in slide context, "neighbour_features",
            "slide_mean" and "slide_std", all (n, f); memory-mapped.
        """
        own = self.config.regressor.architecture
        architecture = config.regressor.architecture
        if bundle_file.SINGLE_TILE.get(own, own) == architecture:
            return self._kept_for(self.config)[0]
        return self._kept_for(config)[0]

    def trunk(self, config: Config) -> keras.Model:
        """(n, s, s, 3) float32 in [0, 1] -> features for heads of config.regressor."""
        if self.encoder.encoder is None:
            raise InputError("these spots have no encoder, and so no features for heads")
        return regressor.build_trunk(
            self.encoder.encoder, architecture=config.regressor.architecture
        )

    @property
    def statistics(self) -> np.ndarray:
        """(n, 39) float32 colour statistics of the stain-normalised tiles."""
        if self.encoder.encoder is None:
            return self._statistics_alone
        return self._kept_for(self.config)[1]

    @functools.cached_property
    def _statistics_alone(self) -> np.ndarray:
        reference, path = self.encoder.reference, self.folder / "colours.npy"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            parts = (
                features.statistics(preparing.stained(ready.spot_tiles, ready.stains, reference))
                for ready in self.spots.prepared
            )
            statistics = np.concatenate(list(parts))
            outputs.write_npy(path, statistics.shape, np.float32, [statistics])
        return np.load(path)

    def tiles(
        self,
        *,
        tile_px: int | None = None,
        mpp: Scale = None,
        raw: bool = False,
        shown_px: int | None = None,
    ) -> list[datasets.StainedTiles]:
        """The spots' tiles by section, stain-normalised when they are read.

        Args:
            tile_px, mpp: side of the tiles, and microns per pixel or "image", each image's own
                scale; None: the run's. Others are cut once, for all folds, and kept.
            raw: in the slide's own colours, and not stain-normalised.
            shown_px: side that they are shrunk to; None: as they are cut.
        """
        own, cut = self.config.tiles, None
        tile_px, wanted = tile_px or own.tile_px, None if mpp == "image" else mpp or own.mpp
        if (tile_px, wanted) != (own.tile_px, own.mpp):
            folder = self.spots.folder / "further"
            folder.mkdir(parents=True, exist_ok=True)
            cut = [
                preparing.further_tiles(section, self.config, folder, tile_px=tile_px, mpp=wanted)
                for section in self.spots.sections
            ]
        groups = paired.stained_tiles(self.spots, None if raw else self.encoder.reference, cut)
        if shown_px in (None, tile_px):
            return groups
        return [
            dataclasses.replace(group, tiles=tiles.ShrunkTiles(group.tiles, shown_px))
            for group in groups
        ]

    @functools.cached_property
    def _kept(self) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
        return {}

    def _kept_for(self, config: Config) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs of heads of an architecture, and colour statistics."""
        architecture = config.regressor.architecture
        if architecture not in self._kept:
            is_own = architecture == self.config.regressor.architecture
            folder = self.folder if is_own else self.folder / architecture
            self._kept[architecture] = head_inputs.of_spots(
                self.spots,
                self.trunk(config),
                self.encoder.reference,
                config,
                folder,
                self.strategy,
            )
        return self._kept[architecture]


def pretraining_images(pretrain: Path, config: Config, work: Path) -> Path:
    """The folder of images that `--pretrain` names; a TFDS dataset's are written into `work`."""
    if not tfds_images.is_tfds(pretrain):
        return pretrain
    return tfds_images.write_images(pretrain, work / "tfds_images", most=config.autoencoder.tiles)


def encoded(
    encoder: TrainedEncoder,
    spots: PairedSpots,
    config: Config,
    folder: Path,
    strategy: tf.distribute.Strategy | None = None,
) -> EncodedSpots:
    """All spots through an encoder: features and statistics are computed now, or read again."""
    spots_of_encoder = EncodedSpots(spots, encoder, config, folder, strategy)
    # Computed now: the time is this stage's.
    if encoder.encoder is None:
        _ = spots_of_encoder.statistics
    else:
        spots_of_encoder.inputs(config)
    return spots_of_encoder


def without_encoder(
    plan: Plan, fold: splits.Fold, config: Config, work: Path, session: Session
) -> EncodedSpots:
    """All spots in the colours that a fold's own encoder would see, for a network of tiles."""
    ready = [plan.spots.prepared[number] for number in plan.spots.sections_in(fold.train)]
    reference = stain.average_stains([section.stains for section in ready])
    none = TrainedEncoder(None, reference, [], {})
    spots = encoded(none, plan.spots, config, work / "features", session.strategy)
    session.clock.lap("features")
    return spots


def encoded_outside(
    source: EncoderSource, plan: Plan, config: Config, work: Path, session: Session
) -> EncodedSpots | None:
    """All spots through the encoder that all folds share; None where each fold trains its own."""
    encoder = _outside_encoder(source, plan, config, work, session)
    session.clock.lap("autoencoder")
    through = None
    if encoder is not None:
        through = encoded(encoder, plan.spots, config, work / "features", session.strategy)
    session.clock.lap("features")
    return through


def _outside_encoder(
    source: EncoderSource, plan: Plan, config: Config, work: Path, session: Session
) -> TrainedEncoder | None:
    donor = source.donor
    if donor is not None:
        index = plan.spots.index
        held_out = {str(name) for fold in plan.folds for name in index.section[fold.test]}
        known = bundle_file.encoder_images(donor.trained_on)
        leaking = sorted(name for name in held_out if plan.checksums[name]["image"] in known)
        if leaking:
            say(
                f"Leak: the encoder of `encoder` was trained on tiles of section "
                f"{', '.join(leaking)}, without expression; held-out images were seen."
            )
        return TrainedEncoder(donor.encoder, donor.reference, [], {"encoder": donor.trained_on})
    if source.brought is not None:
        # Textbook stains, where colours are normalised at all: the same for every fold.
        reference = stain.canonical_stains(config.stain.method)
        about = {"brought_encoder": source.brought.record}
        return TrainedEncoder(source.brought.trunk, reference, [], about)
    if source.pretrain is None:
        return None
    images = pretraining_images(source.pretrain, config, work)
    return pretraining.train_encoder(config, images, [], session.within("autoencoder"))


def trained_on_fold(
    plan: Plan, fold: splits.Fold, config: Config, folder: Path, session: Session
) -> TrainedEncoder:
    """An encoder that the training sections' own tiles teach."""
    return pretraining.train_encoder(
        config,
        None,
        pretraining_sections(plan, fold, config, folder),
        session.within("autoencoder"),
    )


def pretraining_sections(
    plan: Plan, fold: splits.Fold, config: Config, folder: Path
) -> list[PreparedSection]:
    """The training sections, each with its share of tiles for the autoencoder."""
    numbers = plan.spots.sections_in(fold.train)
    chosen = []
    for number in numbers:
        ready = plan.spots.prepared[number]
        rows = np.arange(len(ready.pretrain_tiles))
        kept = preparing.random_subset(
            rows, paired.pretrain_share(len(numbers), config), seed=config.seed
        )
        if len(kept) < len(rows):  # another fold has fewer sections, which give more each
            path = folder / f"{outputs.file_name(ready.name)}_pretrain.npy"
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, ready.pretrain_tiles[kept])
            ready = dataclasses.replace(ready, pretrain_tiles=np.load(path, mmap_mode="r"))
        chosen.append(ready)
    return chosen

"""What the folds of a job share: sections cut once, and encoders that come from outside the data.

A fold trains an encoder of its own only where it learns from the training sections' tiles: a
held-out section takes no part in any of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import bundle, bundle_file, outputs, packaged, provenance
from histospace_tf import config as configuration
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import paired, preparing, pretraining, reading
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.config import Architecture, Config
from histospace_tf.data_pipelines import gene_panel, readers, slides, splits, tfds_images
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.vocabulary import Cohort, InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is known of a job when the data's tables are read, before an image is opened.

    spots: of the sections with an image.
    choose: spots -> folds; folds: of `spots`.
    checksums: of every section's files, for manifests.
    """

    cohort: Cohort
    spots: PairedSpots
    choose: Callable[[PairedSpots], list[splits.Fold]]
    folds: list[splits.Fold]
    checksums: dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """What all folds of a job share.

    spots, sections: the sections with an image, their spots and raw tiles.
    folds: rows of `spots`.
    checksums: as of Plan.
    """

    cohort: Cohort
    spots: PairedSpots
    sections: list[PreparedSection]
    folds: list[splits.Fold]
    checksums: dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderSource:
    """Where encoders come from: images, another run, or each fold's own training sections."""

    pretrain: Path | None
    donor: Bundle | None

    @property
    def is_outside(self) -> bool:
        return self.pretrain is not None or self.donor is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """All spots as one encoder sees them.

    inputs: of `paired.head_inputs`; statistics: (n, 39) colour statistics.
    """

    encoder: TrainedEncoder
    trunk: keras.Model
    inputs: dict[str, np.ndarray]
    statistics: np.ndarray


def encoder_source(pretrain: Path | None, encoder: Path | None) -> EncoderSource:
    """The source that `--pretrain` and `--encoder` name.

    Raises:
        InputError: one of them cannot be read; of an image that shows in its header.
    """
    if pretrain is not None and tfds_images.is_tfds(pretrain):
        tfds_images.refuse_absent(pretrain)
    elif pretrain is not None:
        for image in readers.list_images(pretrain):
            slides.stated_mpp(image.path)
    donor = None if encoder is None else bundle.load(packaged.run_folder(encoder))
    return EncoderSource(pretrain, donor)


def with_encoder_of(source: EncoderSource, config: Config) -> Config:
    """The configuration that goes with the encoder of another run, where there is one.

    Raises:
        InputError: that run standardised stain in another way.
    """
    donor = source.donor
    if donor is None:
        return config
    if donor.reference.method != config.stain.method:
        raise InputError(
            f"--encoder: its stain method is {donor.reference.method!r}, this run's "
            f"{config.stain.method!r}; the same is needed"
        )
    return dataclasses.replace(config, autoencoder=donor.config.autoencoder)


def planned(
    config: Config,
    cohort: Cohort,
    *,
    choose: Callable[[PairedSpots], list[splits.Fold]],
    clock: provenance.Clock,
) -> Plan:
    """Lays out a job's spots and folds, and tries all that may fail in them later.

    Raises:
        InputError: a mistake in the names of the split or of the panel; a training side that cannot
            be split further; no scale to smooth at.
    """
    spots = PairedSpots.of(reading.usable_sections(cohort, config), config)
    folds = choose(spots)
    for fold in folds:
        training_panel(spots, fold, config)
        splits.inner_folds(spots.index, fold.train, folds=config.regressor.inner_folds)
        if config.target.smooth_um:
            for number in spots.sections_in(fold.train):
                paired.smoothing_px(spots.sections[number], config)
    # Of what was read: cutting tiles may leave out spots at an image's edge.
    checksums = provenance.checksums(spots.sections)
    clock.lap("read")
    return Plan(cohort, spots, choose, folds, checksums)


def gathered(
    config: Config,
    plan: Plan,
    work: Path,
    *,
    source: EncoderSource,
    compare: Sequence[Architecture] = (),
    clock: provenance.Clock,
) -> Material:
    """Cuts every section's tiles once, for all folds.

    Args:
        work: tiles are kept in its folder "tiles".
        compare: further architectures that folds will train.
    Raises:
        InputError: an image that cannot be read.
    """
    spots, folds = plan.spots, plan.folds
    per_fold = [] if source.is_outside else [spots.sections_in(fold.train) for fold in folds]
    cutting = config
    if any(bundle.needs_context(configuration.with_architecture(config, n)) for n in compare):
        cutting = configuration.with_architecture(config, "context")
    prepared = paired.cut_tiles(
        spots,
        cutting,
        work / "tiles",
        pretrain_on=sorted({number for numbers in per_fold for number in numbers}),
        # As many as the fold with the fewest training sections takes of each.
        share=max((paired.pretrain_share(len(n), config) for n in per_fold), default=0),
    )
    spots = paired.kept_spots(spots, prepared, config)
    clock.lap("tiles")
    return Material(plan.cohort, spots, prepared, plan.choose(spots), plan.checksums)


def _outside_encoder(
    source: EncoderSource,
    ground: Material,
    config: Config,
    work: Path,
    *,
    strategy: tf.distribute.Strategy,
    checkpoint: Path,
    resume: bool,
) -> TrainedEncoder | None:
    """The encoder that all folds share; None where each fold trains its own."""
    spots, folds = ground.spots, ground.folds
    if source.donor is not None:
        donor = source.donor
        held_out = {str(name) for fold in folds for name in spots.index.section[fold.test]}
        known = bundle_file.encoder_images(donor.trained_on)
        seen = sorted(name for name in held_out if ground.checksums[name]["image"] in known)
        if seen:
            say(
                f"Leak: the encoder of --encoder was trained on tiles of section "
                f"{', '.join(seen)}, without expression; held-out images were seen."
            )
        return TrainedEncoder(donor.encoder, donor.reference, [], {"encoder": donor.trained_on})
    if source.pretrain is None:
        return None
    images = pretraining_images(source.pretrain, config, work)
    return pretraining.train_encoder(
        config, images, [], strategy=strategy, checkpoint=checkpoint, resume=resume
    )


def pretraining_images(pretrain: Path, config: Config, work: Path) -> Path:
    """The folder of images that `--pretrain` names; a TFDS dataset's are written into `work`."""
    if not tfds_images.is_tfds(pretrain):
        return pretrain
    return tfds_images.write_images(pretrain, work / "tfds_images", most=config.autoencoder.tiles)


def encoded(encoder: TrainedEncoder, ground: Material, config: Config, folder: Path) -> Encoded:
    """What the heads of `config` read of every spot; kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    trunk = regressor.build_trunk(encoder.encoder, architecture=config.regressor.architecture)
    inputs, statistics = paired.head_inputs(
        ground.spots, ground.sections, trunk, encoder.reference, config, folder
    )
    return Encoded(encoder, trunk, inputs, statistics)


def encoded_outside(
    source: EncoderSource,
    ground: Material,
    config: Config,
    work: Path,
    *,
    checkpoint: Path,
    clock: provenance.Clock,
    strategy: tf.distribute.Strategy,
    resume: bool,
) -> Encoded | None:
    """What all folds see through the encoder that they share; None where each trains its own."""
    encoder = _outside_encoder(
        source, ground, config, work, strategy=strategy, checkpoint=checkpoint, resume=resume
    )
    clock.lap("autoencoder")
    found = None if encoder is None else encoded(encoder, ground, config, work / "features")
    clock.lap("features")
    return found


def training_panel(spots: PairedSpots, fold: splits.Fold, config: Config) -> tuple[str, ...]:
    """The genes that the training side chooses."""
    tables = [spots.spots_of(number, fold.train) for number in spots.sections_in(fold.train)]
    return gene_panel.choose_panel(tables, config.target)


def learners(
    ground: Material, fold: splits.Fold, config: Config, folder: Path
) -> list[PreparedSection]:
    """The training sections, each with its share of tiles for the autoencoder."""
    numbers = ground.spots.sections_in(fold.train)
    found = []
    for number in numbers:
        ready = ground.sections[number]
        rows = np.arange(len(ready.pretrain_tiles))
        chosen = preparing.spread(
            rows, paired.pretrain_share(len(numbers), config), seed=config.seed
        )
        if len(chosen) < len(rows):  # another fold has fewer sections, which give more each
            path = folder / f"{outputs.file_name(ready.name)}_pretrain.npy"
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, ready.pretrain_tiles[chosen])
            ready = dataclasses.replace(ready, pretrain_tiles=np.load(path, mmap_mode="r"))
        found.append(ready)
    return found

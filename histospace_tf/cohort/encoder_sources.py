"""Where the encoder of a job comes from, and the settings that go with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from histospace_tf import bundle, bundle_file, packaged
from histospace_tf.bundle import Bundle
from histospace_tf.config import Config
from histospace_tf.data_pipelines import readers, slides, tfds_images
from histospace_tf.foreign_encoders import opening, stated
from histospace_tf.foreign_encoders.opening import OpenedEncoder
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderSource:
    """Where encoders come from: images, another run, somebody who brings one, or each fold's own
    training sections."""

    pretrain: Path | None
    donor: Bundle | None
    brought: OpenedEncoder | None = None

    @property
    def is_outside(self) -> bool:
        """Whether all folds share one."""
        return any(one is not None for one in (self.pretrain, self.donor, self.brought))

    @property
    def has_autoencoder(self) -> bool:
        """Whether the encoder is an autoencoder's of this package."""
        donor = self.donor
        is_brought = donor is not None and bundle_file.brought_encoder(donor.trained_on) is not None
        return self.brought is None and not is_brought


def source(pretrain: Path | None, encoder: str | None) -> EncoderSource:
    """The source that `--pretrain` and `--encoder` name.

    Raises:
        InputError: one of them cannot be read or used; of an image that shows in its header.
    """
    if pretrain is not None and tfds_images.is_tfds(pretrain):
        tfds_images.refuse_absent(pretrain)
    elif pretrain is not None:
        for image in readers.list_images(pretrain):
            slides.stated_mpp(image.path)
    if encoder is not None and stated.is_stated(encoder):
        return EncoderSource(None, None, opening.opened(stated.stated(encoder)))
    donor = None if encoder is None else bundle.load(packaged.run_folder(encoder))
    return EncoderSource(pretrain, donor)


def with_encoder_of(source: EncoderSource, config: Config) -> Config:
    """The configuration that goes with the encoder of another run, or with one that is brought:
    its tiles, and where it sees raw colours no change of stain.

    Raises:
        InputError: that run standardised stain in another way; tiles that heads cannot have.
    """
    donor, brought = source.donor, source.brought
    if donor is not None and (kept := bundle_file.brought_encoder(donor.trained_on)) is not None:
        return _with_tiles_of(stated.from_record(kept), donor.config.tiles.tile_px, config)
    if brought is not None:
        config = _with_tiles_of(brought.stated, brought.px, config)
        scale = "at each image's own scale"
        if brought.stated.mpp is not None:
            scale = f"at {brought.stated.mpp:g} microns per pixel"
        colours = "in raw colours" if brought.stated.colours == "raw" else "stain-normalised"
        say(f"Encoder {brought.stated.name}: tiles of {brought.px} px {scale}, {colours}.")
        return config
    if donor is None:
        return config
    if donor.reference.method != config.stain.method:
        raise InputError(
            f"`encoder`: its stain method is {donor.reference.method!r}, this run's "
            f"{config.stain.method!r}; the same is needed"
        )
    return dataclasses.replace(config, autoencoder=donor.config.autoencoder)


def _with_tiles_of(encoder: stated.StatedEncoder, px: int, config: Config) -> Config:
    tiles, colours = dataclasses.replace(config.tiles, mpp=encoder.mpp), config.stain
    if encoder.colours == "normalised" and colours.method == "none":
        raise InputError(
            f'`encoder` {encoder.source!r}: colours=normalised, and "stain.method" is none; '
            "colours=raw, or another method, works"
        )
    if encoder.colours == "raw":
        colours = dataclasses.replace(
            colours, method="none", cast=False, luminosity=False, white_field=False
        )
    try:
        tiles = dataclasses.replace(tiles, tile_px=px)
        return dataclasses.replace(config, tiles=tiles, stain=colours)
    except InputError as error:
        raise InputError(f"`encoder` {encoder.source!r}: {error}") from None

"""Every setting, once, with its legal values: one frozen configuration.

`config.json` of a run folder is this configuration with all defaults written out; `--config FILE`
reads the same form, and may leave settings out (`presets`).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from histospace_tf import legal_values
from histospace_tf.legal_values import Range
from histospace_tf.vocabulary import InputError, Normalisation, StainMethod

Architecture = Literal["flatten", "global", "pooled", "context"]
ON_MAPS: tuple[Architecture, ...] = ("flatten", "global")  # the others read pooled statistics
Network = Literal["st_net", "efficientnet_b0", "histogene", "hist2st"]  # that others published
Variant = Literal[1, 2, 3]  # of the autoencoder
Strategy = Literal["auto", "single", "mirrored", "multiworker"]
TilePx = Annotated[int, Range(16, 2048)]
OptionalMpp = Annotated[float | None, Range(0.05, 20)]
Share = Annotated[float, Range(0, 1)]
BatchSize = Annotated[int, Range(1, 65_536)]
LearningRate = Annotated[float, Range(1e-8, 10)]
Count = Annotated[int, Range(1, 100_000)]
# Of the paper's three complexities, by `conv_blocks`. A block halves the map's sides, so four times
# the width keeps the first dense layer at 2.1 million weights (128 px tiles) while convolutions and
# last layer grow: each complexity holds more weights than the one before.
HIDDEN_UNITS = {1: 256, 2: 1024, 3: 4096}


@dataclasses.dataclass(frozen=True)
class StainConfig:
    """How colours are standardised. Estimated once a slide, applied to every tile."""

    method: StainMethod = "vahadane"
    cast: bool = True  # divide each channel by its 99th percentile (colour-cast removal)
    luminosity: bool = True  # scale CIE L so that its 95th percentile is white
    white_field: bool = False  # with `cast`: white from place to place, from glass: no shadows
    # tissue pixels a slide that stains are estimated from; >= 100
    sample_pixels: Annotated[int, Range(100, 10_000_000)] = 20_000


@dataclasses.dataclass(frozen=True)
class TileConfig:
    """Tiles around spots and on the grid."""

    tile_px: TilePx = 224  # side of the tile that the model sees; a multiple of 8
    mpp: OptionalMpp = 1.38  # common microns per pixel; None: every image at its own scale
    border: Literal["reflect", "white", "drop"] = "reflect"  # for tiles over the image's edge
    min_tissue: Share = 0.5  # share of tissue that a grid tile needs, 0 to 1


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """What is predicted."""

    normalisation: Normalisation = "library_size_log1p"
    # a spot's counts over all genes are scaled to this sum
    target_sum: Annotated[float, Range(1, 1e9)] = 10_000.0
    genes: Count = 250  # size of the panel; all that qualify where fewer do
    panel: str = "mean"  # "mean", "variance", "share" (of spots expressing), or a file
    orthologs: bool = False  # a file's genes of another species are taken by their orthologs
    # spots with fewer counts over all genes are left out, with a note
    min_counts: Annotated[int, Range(1, 1_000_000)] = 1
    min_share: Share = 0.0  # share of training spots that must express a gene, 0 to 1
    # targets averaged with the spots within this distance; 0: off
    smooth_um: Annotated[float, Range(0, 1e5)] = 0.0
    centre: Literal["none", "training", "section"] = "section"  # mean taken off before training
    scale: bool = True  # divide each gene by its deviation over the training spots


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder, trained on H&E alone; its encoder is then frozen."""

    variant: Variant = 3  # 1: pooling only; 2: + ReLU; 3: + BatchNorm
    tile_px: TilePx = 128  # side of the tiles it is trained on; a multiple of 8
    # at most so many training tiles, drawn with the seed
    tiles: Annotated[int, Range(2, 10_000_000)] = 20_000
    # 0: as many as it takes to see 4,000 tiles, counting repeats
    epochs: Annotated[int, Range(0, 100_000)] = 0
    batch_size: BatchSize = 32
    learning_rate: LearningRate = 1e-3  # Adam
    patience: Count = 5  # epochs without a better validation loss before it stops
    # of the patients or source images, at least one
    validation_share: Annotated[float, Range(0.01, 0.9)] = 0.1
    images_mpp: OptionalMpp = None  # microns per pixel of --pretrain images that do not say


@dataclasses.dataclass(frozen=True)
class RegressorConfig:
    """The head on the frozen encoder."""

    # "flatten": the paper's, convolution blocks, flatten, two dense layers
    # "global": the same with global pooling in place of flatten
    # "pooled": two dense layers on pooled statistics of the encoder's blocks
    # "context": "pooled" with the slide's statistics and the neighbours' features beside it
    architecture: Architecture = "context"
    # "flatten" and "global": 1, 2 or 3 (the paper's three complexities)
    conv_blocks: Annotated[int, Range(1, 3)] = 1
    # 0: as wide as HIDDEN_UNITS says for `conv_blocks` ("flatten" and "global"), or no hidden layer
    # ("pooled" and "context")
    hidden_units: Annotated[int, Range(0, 65_536)] = 0
    hidden_activation: Literal["linear", "relu", "gelu"] = "gelu"
    # gene factors, fixed from training targets, that are predicted; 0: the genes
    factors: Annotated[int, Range(0, 10_000)] = 5
    # "ridge": linear heads on vectors alone, solved in closed form; its strength is chosen on the
    # inner groups, and the settings from `loss` to `patience` have no part in it
    # "descent": from that solution `epochs` of gradient descent on Huber's loss, with its penalty
    # "adam": trained in epochs, from random weights
    solver: Literal["descent", "ridge", "adam"] = "descent"
    # "sqrt_counts": a spot weighs as the square root of its total counts (not with "adam")
    spot_weights: Literal["equal", "sqrt_counts"] = "sqrt_counts"
    dropout: Annotated[float, Range(0, 0.95)] = 0.0
    weight_decay: Annotated[float, Range(0, 10)] = 0.0  # AdamW's; 0: plain Adam
    loss: Literal["huber", "mse", "rmse"] = "huber"  # "descent" needs "huber"
    huber_delta: Annotated[float, Range(1e-6, 1e6)] = 1.0
    learning_rate: LearningRate = 1e-3  # Adam's; descent has one of its own
    decay: Literal["none", "cosine"] = "cosine"  # of the learning rate, to zero over `epochs`
    batch_size: BatchSize = 1024  # descent: of no effect on the result
    epochs: Count = 10
    # "fixed": trained for `epochs` on the whole training side, as the paper published its head
    # "inner": for as many of them as score best on the inner groups
    epoch_choice: Literal["fixed", "inner"] = "inner"
    patience: Count = 15  # epochs without a better val_mean_r before an inner training stops
    # groups left out in turn to choose strength or epoch; at least 1
    inner_folds: Annotated[int, Range(1, 100)] = 4
    symmetries: Literal[1, 8] = 8  # flips and rotations in training, averaged in prediction

    @property
    def uses_inner_groups(self) -> bool:
        """Whether inner groups choose anything: the strength of a penalty, or the epoch."""
        return self.solver != "adam" or self.epoch_choice == "inner"

    @property
    def hidden_width(self) -> int:
        """Units of the hidden layer; 0 where there is none."""
        on_maps = self.architecture in ON_MAPS
        return self.hidden_units or (HIDDEN_UNITS[self.conv_blocks] if on_maps else 0)


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """Slide context of the "context" architecture."""

    # tiles or spots within this distance are neighbours
    neighbour_um: Annotated[float, Range(0, 1e6)] = 400.0
    # grid tiles that the slide's statistics come from, at most
    slide_tiles: Annotated[int, Range(1, 1_000_000)] = 300


@dataclasses.dataclass(frozen=True)
class PeersConfig:
    """Networks that others published: `evaluate --compare` trains them on the same folds, and
    `fit --architecture` makes one a run's model."""

    # the run's model; "none": our encoder and the head of `regressor`
    architecture: Literal["none", Network] = "none"
    # "published": as their authors built them. "small": a few layers of the same kind that see the
    # same piece of tissue in fewer pixels, for a laptop's processor
    size: Literal["small", "published"] = "small"
    # at most, of which inner groups choose; 0: as many as published
    epochs: Annotated[int, Range(0, 100_000)] = 0
    # what networks on single tiles start from, of the published size alone: "imagenet" (Keras
    # downloads it), "random", or a file of the weights of Keras' DenseNet121 or EfficientNetB0
    weights: str = "imagenet"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting of a run."""

    preset: str = "recommended"
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    strategy: Strategy = "auto"
    stain: StainConfig = StainConfig()
    tiles: TileConfig = TileConfig()
    target: TargetConfig = TargetConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    regressor: RegressorConfig = RegressorConfig()
    context: ContextConfig = ContextConfig()
    peers: PeersConfig = PeersConfig()

    def __post_init__(self) -> None:
        _check_values(self)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def changed(config: Config, **settings: Any) -> Config:
    """`config` with settings replaced, each named "section.setting" with "__" for the point:
    changed(config, seed=1, regressor__epochs=15). None leaves a setting as it is."""
    whole: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        section, _, name = path.partition("__")
        if value is not None and name:
            parts.setdefault(section, {})[name] = value
        elif value is not None:
            whole[section] = value
    for section, values in parts.items():
        whole[section] = dataclasses.replace(whole.get(section, getattr(config, section)), **values)
    return dataclasses.replace(config, **whole)


def _check_values(config: Config) -> None:
    legal_values.check(config)
    for name, side in (
        ("tiles.tile_px", config.tiles.tile_px),
        ("autoencoder.tile_px", config.autoencoder.tile_px),
    ):
        if side % 8:
            raise InputError(f'"{name}" is {side}; a multiple of 8 works (it is halved thrice)')
    if config.stain.white_field and not config.stain.cast:
        raise InputError('"stain.white_field" is true; it needs "stain.cast" true, too')
    _check_solver(config.regressor)


def _check_solver(head: RegressorConfig) -> None:
    if head.solver != "adam":
        needed: list[tuple[str, object, tuple[object, ...]]] = [
            ("architecture", head.architecture, ("pooled", "context")),
            ("hidden_units", head.hidden_units, (0,)),
            ("dropout", head.dropout, (0,)),
        ]
        if head.solver == "descent":
            needed.append(("loss", head.loss, ("huber",)))
        for name, value, works in needed:
            if value not in works:
                raise InputError(
                    f'"regressor.{name}" is {value!r}; solver "{head.solver}" needs '
                    f'{" or ".join(map(repr, works))}, solver "adam" takes it'
                )
    elif head.spot_weights != "equal":
        raise InputError(
            f'"regressor.spot_weights" is {head.spot_weights!r}; solver "adam" needs "equal"'
        )

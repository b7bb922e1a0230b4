"""One frozen configuration <-> JSON, and the presets `paper` and `recommended`.

Every setting stands here once, with its legal values. `config.json` of a run folder is this
configuration with all defaults written out; `--config FILE` reads the same form, and may leave
settings out.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError

Architecture = Literal["flatten", "global", "pooled", "context"]
PAPER_HIDDEN_UNITS = 256


@dataclasses.dataclass(frozen=True)
class StainConfig:
    """How colours are standardised. Estimated once a slide, applied to every tile."""

    method: Literal["vahadane", "macenko", "reinhard", "none"] = "vahadane"
    cast: bool = True  # divide each channel by its 99th percentile (colour-cast removal)
    luminosity: bool = True  # scale CIE L so that its 95th percentile is white
    sample_pixels: int = 20_000  # tissue pixels a slide that stains are estimated from; >= 100


@dataclasses.dataclass(frozen=True)
class TileConfig:
    """Tiles around spots and on the grid."""

    tile_px: int = 224  # side of the tile that the model sees; a multiple of 8
    mpp: float | None = 1.38  # common microns per pixel; None: every image at its own scale
    border: Literal["reflect", "white", "drop"] = "reflect"  # for tiles over the image's edge
    min_tissue: float = 0.5  # share of tissue that a grid tile needs, 0 to 1


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """What is predicted."""

    normalisation: Literal["library_size_log1p", "library_size_log10"] = "library_size_log1p"
    target_sum: float = 10_000.0  # a spot's counts over all genes are scaled to this sum
    genes: int = 250  # size of the panel; all that qualify where fewer do
    panel: str = "mean"  # "mean", "variance", "share" (of spots expressing), or a file
    orthologs: bool = False  # a file's genes of another species are taken by their orthologs
    min_counts: int = 1  # spots with fewer counts over all genes are left out, with a note
    min_share: float = 0.0  # share of training spots that must express a gene, 0 to 1
    smooth_um: float = 0.0  # targets averaged with the spots within this distance; 0: off
    centre: Literal["none", "training", "section"] = "section"  # mean taken off before training
    scale: bool = True  # divide each gene by its deviation over the training spots


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder, trained on H&E alone; its encoder is then frozen."""

    variant: Literal[1, 2, 3] = 3  # 1: pooling only; 2: + ReLU; 3: + BatchNorm
    tile_px: int = 128  # side of the tiles it is trained on; a multiple of 8
    tiles: int = 20_000  # at most so many training tiles, drawn with the seed
    epochs: int = 0  # 0: as many as it takes to see 4,000 tiles, counting repeats
    batch_size: int = 32
    learning_rate: float = 1e-3  # Adam
    patience: int = 5  # epochs without a better validation loss before it stops
    validation_share: float = 0.1  # of the patients or source images, at least one
    images_mpp: float | None = None  # microns per pixel of --pretrain images that do not say


@dataclasses.dataclass(frozen=True)
class RegressorConfig:
    """The head on the frozen encoder."""

    # "flatten": the paper's, convolution blocks, flatten, two dense layers
    # "global": the same with global pooling in place of flatten
    # "pooled": two dense layers on pooled statistics of the encoder's blocks
    # "context": "pooled" with the slide's statistics and the neighbours' features beside it
    architecture: Architecture = "context"
    conv_blocks: int = 1  # "flatten" and "global": 1, 2 or 3 (the paper's three complexities)
    hidden_units: int = 0  # 0 leaves the hidden layer out ("pooled" and "context")
    hidden_activation: Literal["linear", "relu", "gelu"] = "gelu"
    factors: int = 5  # gene factors, fixed from training targets, that are predicted; 0: the genes
    # "ridge": linear heads on vectors alone, solved in closed form; its strength is chosen on the
    # inner groups, and the settings from `loss` to `patience` have no part in it
    # "adam": trained in epochs, whose number is chosen on the inner groups
    solver: Literal["ridge", "adam"] = "ridge"
    # "sqrt_counts": a spot weighs as the square root of its total counts ("ridge" alone)
    spot_weights: Literal["equal", "sqrt_counts"] = "sqrt_counts"
    dropout: float = 0.0
    weight_decay: float = 0.0  # AdamW's; 0: plain Adam
    loss: Literal["huber", "mse", "rmse"] = "mse"
    huber_delta: float = 1.0
    learning_rate: float = 1e-3
    decay: Literal["none", "cosine"] = "cosine"  # of the learning rate, to zero over `epochs`
    batch_size: int = 32
    epochs: int = 40
    patience: int = 15  # epochs without a better val_gene_r before an inner training stops
    inner_folds: int = 4  # groups left out in turn to choose strength or epoch; at least 1
    symmetries: Literal[1, 8] = 8  # flips and rotations seen in training and averaged in prediction


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """Slide context of the "context" architecture."""

    neighbour_um: float = 400.0  # tiles or spots within this distance are neighbours
    slide_tiles: int = 300  # grid tiles that the slide's statistics come from, at most


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting of a run."""

    preset: str = "recommended"
    seed: int = 0
    strategy: Literal["auto", "single", "mirrored", "multiworker"] = "auto"
    stain: StainConfig = StainConfig()
    tiles: TileConfig = TileConfig()
    target: TargetConfig = TargetConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    regressor: RegressorConfig = RegressorConfig()
    context: ContextConfig = ContextConfig()

    def __post_init__(self) -> None:
        _check_values(self)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def preset(name: str) -> Config:
    """The configuration of a preset.

    Raises:
        InputError: no preset of that name.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; one of {', '.join(PRESETS)}")
    return PRESETS[name]


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


def with_architecture(config: Config, architecture: Architecture) -> Config:
    """`config` with another head; trained as the paper's where its kind needs a hidden layer."""
    if architecture == config.regressor.architecture:
        return config
    if architecture in ("pooled", "context"):
        return changed(config, regressor__architecture=architecture)
    return changed(
        config,
        regressor__architecture=architecture,
        regressor__hidden_units=config.regressor.hidden_units or PAPER_HIDDEN_UNITS,
        regressor__solver="adam",
        regressor__spot_weights="equal",
    )


def from_json(values: dict[str, Any], source: str = "config.json") -> Config:
    """A configuration from JSON; settings that are left out keep their preset's value.

    Raises:
        InputError: an unknown setting (its nearest neighbour is named) or an illegal value.
    """
    base = preset(values.get("preset", "recommended"))
    return typing.cast(Config, _filled(base, values, source, ""))


def load(path: Path) -> Config:
    """The configuration in a JSON file.

    Raises:
        InputError: the file is missing or not JSON, or as `from_json`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"configuration file {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"configuration file {str(path)!r} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"configuration file {str(path)!r}: an object {{...}} is needed")
    with reading(f"configuration file {str(path)!r}"):
        return from_json(values, path.name)


def _filled(base: Any, values: dict[str, Any], source: str, where: str) -> Any:
    names = [field.name for field in dataclasses.fields(base)]
    new = {}
    for name, value in values.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; one of {', '.join(names)}"
            at = f'"{where}" has' if where else "there is"
            raise InputError(f'{source}: {at} no setting "{name}"{hint}')
        current = getattr(base, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise InputError(f'{source}: "{name}" needs an object {{...}}, not {value!r}')
            value = _filled(current, value, source, name)
        new[name] = value
    try:
        return dataclasses.replace(base, **new)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


# Ranges that types alone do not say: (lowest, highest), both legal.
_RANGES: dict[str, tuple[float, float]] = {
    "stain.sample_pixels": (100, 10_000_000),
    "tiles.tile_px": (16, 2048),
    "tiles.mpp": (0.05, 20),
    "tiles.min_tissue": (0, 1),
    "target.target_sum": (1, 1e9),
    "target.genes": (1, 100_000),
    "target.min_counts": (1, 1_000_000),
    "target.min_share": (0, 1),
    "target.smooth_um": (0, 1e5),
    "autoencoder.tile_px": (16, 2048),
    "autoencoder.tiles": (2, 10_000_000),
    "autoencoder.epochs": (0, 100_000),
    "autoencoder.batch_size": (1, 65_536),
    "autoencoder.learning_rate": (1e-8, 10),
    "autoencoder.patience": (1, 100_000),
    "autoencoder.validation_share": (0.01, 0.9),
    "autoencoder.images_mpp": (0.05, 20),
    "regressor.conv_blocks": (1, 3),
    "regressor.hidden_units": (0, 65_536),
    "regressor.factors": (0, 10_000),
    "regressor.dropout": (0, 0.95),
    "regressor.weight_decay": (0, 10),
    "regressor.huber_delta": (1e-6, 1e6),
    "regressor.learning_rate": (1e-8, 10),
    "regressor.batch_size": (1, 65_536),
    "regressor.epochs": (1, 100_000),
    "regressor.patience": (1, 100_000),
    "regressor.inner_folds": (1, 100),
    "context.neighbour_um": (0, 1e6),
    "context.slide_tiles": (1, 1_000_000),
    "seed": (0, 2**31 - 1),
}


def _check_values(config: Config) -> None:
    def check(record: Any, prefix: str) -> None:
        hints = typing.get_type_hints(type(record))
        for field in dataclasses.fields(record):
            value, name = getattr(record, field.name), prefix + field.name
            if dataclasses.is_dataclass(value):
                check(value, f"{field.name}.")
            elif not _is_legal(value, hints[field.name]):
                raise InputError(f'"{name}" is {value!r}; {_legal_values(hints[field.name])} works')
            elif name in _RANGES and value is not None:
                low, high = _RANGES[name]
                if not low <= value <= high:
                    raise InputError(f'"{name}" is {value!r}; {low:g} to {high:g} works')

    check(config, "")
    for name, side in (
        ("tiles.tile_px", config.tiles.tile_px),
        ("autoencoder.tile_px", config.autoencoder.tile_px),
    ):
        if side % 8:
            raise InputError(f'"{name}" is {side}; a multiple of 8 works (it is halved thrice)')
    if config.regressor.hidden_units == 0 and config.regressor.architecture in (
        "flatten",
        "global",
    ):
        raise InputError(
            f'"regressor.hidden_units" is 0; architecture {config.regressor.architecture!r} '
            "needs at least 1"
        )
    _check_solver(config.regressor)


def _check_solver(head: RegressorConfig) -> None:
    if head.solver == "ridge":
        for name, value, works in (
            ("architecture", head.architecture, ("pooled", "context")),
            ("hidden_units", head.hidden_units, (0,)),
            ("dropout", head.dropout, (0,)),
        ):
            if value not in works:
                raise InputError(
                    f'"regressor.{name}" is {value!r}; solver "ridge" needs '
                    f'{" or ".join(map(repr, works))}, solver "adam" takes it'
                )
    elif head.spot_weights != "equal":
        raise InputError(
            f'"regressor.spot_weights" is {head.spot_weights!r}; solver "adam" needs "equal"'
        )


def _is_legal(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return any(value == legal and type(value) is type(legal) for legal in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return any(_is_legal(value, part) for part in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _legal_values(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " or ".join(repr(legal) for legal in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_legal_values(part) for part in typing.get_args(hint))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(
        hint, "null"
    )


PRESETS: dict[str, Config] = {
    "recommended": Config(),
    # The paper's released settings, with inputs in [0, 1] and a really frozen encoder.
    "paper": Config(
        preset="paper",
        tiles=TileConfig(tile_px=128, mpp=None),
        target=TargetConfig(
            normalisation="library_size_log10",
            panel="share",
            min_share=0.5,
            centre="none",
            scale=False,
        ),
        autoencoder=AutoencoderConfig(epochs=150, batch_size=256, learning_rate=1e-5),
        regressor=RegressorConfig(
            architecture="flatten",
            hidden_units=PAPER_HIDDEN_UNITS,
            hidden_activation="linear",
            factors=0,
            solver="adam",
            spot_weights="equal",
            loss="huber",
            learning_rate=1e-4,
            decay="none",
            batch_size=32,
            epochs=50,
            patience=10,
            inner_folds=1,
            symmetries=1,
        ),
    ),
}

"""The settings of a run that `fit` and `evaluate` take, as options: they make a configuration."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from histospace_tf.request_options import Options, legal_values_of, option, text_or_none

if TYPE_CHECKING:
    from histospace_tf.config import Architecture, Config, Network
    from histospace_tf.request_options import Given

    ConfigOrFile = Given[Config | str | Path | None, Config | Path | None]
    Genes = Given[int | str | Path | None, int | str | None]
else:
    Architecture = Network = str
    ConfigOrFile = Annotated[object, lambda given: Path(given) if isinstance(given, str) else given]
    Genes = Annotated[int | str | Path | None, lambda given: _number_or_text(given)]


DEFAULT_PRESET = "recommended"


def _number_or_text(genes: int | str | Path | None) -> int | str | None:
    return int(str(genes)) if str(genes).removeprefix("-").isdigit() else text_or_none(genes)


def _presets() -> list[str]:
    from histospace_tf import presets

    return list(presets.PRESETS)


def default_of(setting: str) -> str:
    """The value of a setting in the preset that is taken where none is named."""
    from histospace_tf import presets

    value: Any = presets.preset(DEFAULT_PRESET)
    for name in setting.split("__"):
        value = getattr(value, name)
    return str(value)


def published_networks() -> list[str]:
    """Networks that others published, of which one can be a run's model."""
    return [name for name in legal_values_of("peers__architecture") or () if name != "none"]


class Settings(Options):
    """Options that become a run's configuration: one that is not given stays the preset's."""

    architecture: Architecture | Network | None = option(
        default=None, help="Kind of regression head.", setting="regressor__architecture"
    )
    preset: str | None = option(
        default=None, help="Settings to start from.", unset=DEFAULT_PRESET, legal=_presets
    )
    config: ConfigOrFile = option(
        default=None,
        help="A `config.Config`, or a JSON file with one, in place of `preset`.",
        flag_help="Settings as JSON, not a `preset`.",
    )
    genes: Genes = option(
        default=None,
        help="How many genes to predict, or a file of names.",
        unset=functools.partial(default_of, "target__genes"),
        setting="target__genes",
    )
    orthologs: bool = option(
        default=False,
        help="Match genes of another species (human, mouse) by their one-to-one orthologs.",
        setting="target__orthologs",
    )
    pretrain_epochs: int | None = option(
        default=None,
        help="Epochs of the autoencoder.",
        unset="the preset's",
        setting="autoencoder__epochs",
    )
    pretrain_mpp: float | None = option(
        default=None,
        help="Microns per pixel of `pretrain` images that do not say (BACH: 0.42).",
        unit="um/px",
        setting="autoencoder__images_mpp",
    )
    epochs: int | None = option(
        default=None,
        help="Epochs of the head or published network; at most, where inner groups choose among "
        "them.",
        unset="the preset's",
        setting="regressor__epochs",
    )
    batch_size: int | None = option(
        default=None,
        help="Spots per batch of the head, over all devices.",
        setting="regressor__batch_size",
    )
    strategy: str | None = option(default=None, help="Devices to train on.", setting="strategy")
    seed: int | None = option(
        default=None,
        help="Seed of every random choice.",
        unset=functools.partial(default_of, "seed"),
        setting="seed",
    )

    @property
    def is_simulated(self) -> bool:
        """Whether tissue is simulated: then the recommended preset is cut down first. Such tissue
        is simple and finely patterned, and a first look should take minutes."""
        return False

    def network_of(self, start: Config) -> str | None:
        """The published network that is asked for as the run's model, of `architecture` or else of
        the settings to start from; None: our own."""
        if self.architecture is not None:
            return self.architecture if self.architecture in published_networks() else None
        kept = start.peers.architecture
        return None if kept == "none" else kept

    @functools.cached_property
    def settings(self) -> Config:
        """The configuration.

        Raises:
            InputError: preset and config at once, or an illegal value.
        """
        from histospace_tf import config as configuration
        from histospace_tf import presets
        from histospace_tf.outputs import say
        from histospace_tf.vocabulary import InputError

        given = self.config
        if self.preset is not None and given is not None:
            raise InputError("`preset` and `config` exclude each other; a file may name its preset")
        if isinstance(given, Path):
            given = presets.load(given)
        start = given or presets.preset(self.preset or DEFAULT_PRESET)
        if self.is_simulated and self.preset is None and self.config is None:
            start = configuration.changed(
                start, autoencoder__tiles=1500, autoencoder__epochs=1, tiles__mpp=0.69
            )
        network = self.network_of(start)
        if network is not None:
            # The colour ridge needs no slide context, and nothing else reads these settings.
            start = presets.with_architecture(start, "pooled")
        elif self.architecture is not None:
            head = cast("Architecture", self.architecture)
            start = presets.with_architecture(start, head)
        if network is None and start.regressor.solver == "ridge":
            for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
                if value is not None:
                    say(f'`{name}` has no part in a head that is solved in closed form ("ridge").')
        # None leaves a setting as it is, and so does a flag that is not set.
        chosen = {
            each.setting: None if getattr(self, each.name) is False else getattr(self, each.name)
            for each in self.listed()
            if each.setting is not None
        }
        if isinstance(self.genes, str):
            chosen |= {"target__genes": None, "target__panel": self.genes}
        if network is not None:
            chosen |= {"regressor__architecture": None, "regressor__epochs": None}
            chosen |= {"peers__architecture": network, "peers__epochs": self.epochs}
        elif self.architecture is not None:
            chosen |= {"peers__architecture": "none"}
        return configuration.changed(start, **chosen)

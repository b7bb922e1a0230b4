"""What may be asked of a training on slides with bulk expression alone: `fit` with `bulk`."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from histospace_tf import slide_level
from histospace_tf.request_options import (
    OnePath,
    OptionalRunOrName,
    Options,
    again,
    option,
    useful_to,
)
from histospace_tf.requests.data import Reading
from histospace_tf.requests.settings import DEFAULT_PRESET, Settings
from histospace_tf.requests.training import (
    FitRequest,
    Restart,
    RunFolder,
    Training,
    name_run,
)

if TYPE_CHECKING:
    from histospace_tf.config import Config
    from histospace_tf.requests.settings import Genes
else:
    from histospace_tf.requests.settings import Genes


class BulkRequest(Options):
    """Train a network on slides of which bulk expression is known, scored by patients left out."""

    data: OnePath = option(help="Folder of slides.", flag="DATA", kw_only=False, resumed=str)
    out: RunFolder = option(
        default=None, help="Run folder to write.", unset="runs/<date-time>", kw_only=False
    )
    bulk: OnePath = option(help="CSV or TSV of bulk expression, one row per slide.")
    bulk_unit: str | None = again(FitRequest, "bulk_unit")
    architecture: str | None = again(FitRequest, "architecture")
    encoder: OptionalRunOrName = again(Training, "encoder")
    genes: Genes = again(Settings, "genes")
    mpp: float | None = again(Reading, "mpp")
    epochs: int | None = again(Settings, "epochs")
    batch_size: int | None = again(Settings, "batch_size")
    strategy: str | None = again(Settings, "strategy")
    seed: int | None = again(Settings, "seed")
    resume: bool = again(Restart, "resume")
    force: bool = again(Restart, "force")

    def __post_init__(self) -> None:
        super().__post_init__()
        name_run(self)

    @property
    def unit(self) -> str:
        """What the table holds, of `bulk_tables.UNITS`."""
        return self.bulk_unit or "counts"

    @property
    def network(self) -> str:
        """The architecture: HE2RNA's where none is named."""
        return self.architecture or slide_level.ARCHITECTURES[0]

    @functools.cached_property
    def settings(self) -> Config:
        """The configuration of the encoder's run, with what is asked for of genes and seed; of an
        encoder that is brought the recommended one at its scale.

        Raises:
            InputError: no such run or encoder, or an illegal value.
        """
        from histospace_tf import bundle_file, packaged, presets
        from histospace_tf import config as configuration
        from histospace_tf.foreign_encoders import stated

        if self.encoder is not None and stated.is_stated(self.encoder):
            own = presets.preset(DEFAULT_PRESET)
            scale = dataclasses.replace(own.tiles, mpp=stated.stated(self.encoder).mpp)
            own = dataclasses.replace(own, tiles=scale)
        else:
            run = packaged.DEFAULT if self.encoder is None else self.encoder
            file = bundle_file.read(packaged.run_folder(run))
            bundle_file.refuse_network(file, "`encoder`")
            own = file.config
        of_file = isinstance(self.genes, str)
        return configuration.changed(
            own,
            target__genes=None if of_file else self.genes,
            target__panel=self.genes if of_file else "mean",
            seed=self.seed,
            strategy=self.strategy,
        )


def fitting_of(*places: Any, **given: Any) -> FitRequest | BulkRequest:
    """What the arguments of `fit` ask for: with `bulk`, a training on slides as a whole.

    Raises:
        InputError: `bulk` beside an option that only paired sections have a use for, or without
            slides; an architecture of the other kind.
    """
    from histospace_tf.vocabulary import InputError

    architecture = given.get("architecture")
    if given.get("bulk") is None:
        if architecture in slide_level.ARCHITECTURES:
            raise InputError(
                f"`architecture` {architecture} learns from slides: `bulk` TABLE is "
                "needed, their bulk expression"
            )
        if given.get("bulk_unit") is not None:
            raise InputError("`bulk_unit` says what `bulk` holds, and none is given")
        return FitRequest(*places, **given)
    if architecture not in (None, *slide_level.ARCHITECTURES):
        raise InputError(
            f"`architecture` {architecture} learns from spots; with `bulk` one of "
            f"{', '.join(slide_level.ARCHITECTURES)} works"
        )
    if not places and given.get("data") is None:
        raise InputError("`bulk` needs `data`, the folder of its slides")
    why = "`bulk` trains on slides without spots"
    return BulkRequest(*places, **useful_to(BulkRequest, FitRequest, given, why))

"""Learning curves of the paper's three autoencoders and three head complexities, side by side.

All of it happens on the training side of one fold: the autoencoders learn from the same tiles and
are validated on the same sources, the heads learn from the same spots and are validated on one
inner group of the training side. Held-out spots take no part, and nothing is chosen by what comes
out: it shows how the parts of the method learn (Figures 3 to 5 of the HistoSPACE paper).

The heads are the paper's three complexities: one, two or three convolution blocks and a dense layer
that widens with them (`config.HIDDEN_UNITS`), so that each holds more weights than the one before.
A curve runs until it turned (no better value for `Budget.patience` epochs: a lower val_loss of an
autoencoder, a higher val_mean_r of a head) or until its epochs are over; all of it is in history.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from histospace_tf import legal_values, outputs, training
from histospace_tf.cohort import features, preparing, pretraining
from histospace_tf.cohort.pretraining import PretrainingTiles
from histospace_tf.cohort.sides import TrainingSpots
from histospace_tf.config import Config, RegressorConfig, changed
from histospace_tf.data_pipelines import datasets, splits
from histospace_tf.legal_values import Range
from histospace_tf.models import autoencoder, regressor
from histospace_tf.outputs import say
from histospace_tf.predictors import epoch_choice, head_training
from histospace_tf.predictors.head_data import HeadData
from histospace_tf.presets import preset
from histospace_tf.training import Session

CONV_BLOCKS = (1, 2, 3)
# Few tiles: the small batches make enough steps of them.
AUTOENCODER_BATCH = 8
# At the recommended preset's 1e-3, variant 1, which nothing bounds, can drive the last sigmoid into
# saturation for good; at the paper's 1e-5, 150 epochs are needed.
AUTOENCODER_LEARNING_RATE = 5e-4
HEAD_TILE_PX = 128  # the paper's tile: the centre of a larger one is taken
RECONSTRUCTIONS = "reconstructions.npz"


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much a study may learn from: the defaults take some ten minutes of processor time.

    tiles: for the autoencoders, validation included.
    spots: of the training side, for the heads.
    autoencoder_epochs, head_epochs: of each of the three, at most.
    patience: epochs without a better value after which a curve has turned.
    shown: validation tiles that are reconstructed, at most.
    """

    tiles: Annotated[int, Range(2, 10_000_000)] = 400
    autoencoder_epochs: Annotated[int, Range(1, 100_000)] = 12
    spots: Annotated[int, Range(2, 10_000_000)] = 600
    head_epochs: Annotated[int, Range(1, 100_000)] = 50
    patience: Annotated[int, Range(1, 100_000)] = 5
    shown: Annotated[int, Range(1, 1000)] = 6

    def __post_init__(self) -> None:
        legal_values.check(self, "budget.")

    @classmethod
    def of(cls, epochs: int | None) -> Budget:
        """The default, with at most `epochs` for autoencoders and heads alike; None: their own."""
        return cls() if epochs is None else cls(autoencoder_epochs=epochs, head_epochs=epochs)


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """What a study found.

    history: a row an epoch of the stages "autoencoder_1" to "_3" and "head_1" to "_3", as
        `training.Trained` has them; the heads' with gene_r, spot_r, val_gene_r and val_spot_r, of
        standardised values of training and validation spots.
    tiles: (n, s, s, 3) uint8 RGB, stain-normalised validation tiles.
    reconstructions: what the autoencoder of each variant makes of them, same shape, uint8.
    summary: the facts, and what they were found on, for a manifest. A head's val_gene_r and
        val_spot_r are those of its best epoch, by val_mean_r.
    """

    history: list[dict[str, Any]]
    tiles: np.ndarray
    reconstructions: dict[int, np.ndarray]
    summary: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Writes RECONSTRUCTIONS into `folder`: "tiles", "variant_1" to "variant_3"."""
        arrays: dict[str, Any] = {
            f"variant_{variant}": made for variant, made in self.reconstructions.items()
        }
        with outputs.whole_file(folder / RECONSTRUCTIONS) as draft:
            np.savez_compressed(draft, tiles=self.tiles, **arrays)


def study(
    config: Config,
    tiles: PretrainingTiles | None,
    side: TrainingSpots,
    session: Session,
    *,
    budget: Budget | None = None,
) -> Study:
    """Trains the three autoencoders and, on the run's frozen encoder, the three heads.

    The heads are the configuration's where its architecture is "flatten", else the paper's, on the
    centre HEAD_TILE_PX of the spots' tiles, without symmetries.

    Args:
        config: the run's.
        tiles: of `pretraining.collect_tiles`; of the training side, or of outside images. None
            (the encoder came from elsewhere): the centres of the training spots' tiles.
        side: the training side of the fold, and the run's encoder.
        session: its checkpoints hold a folder per training.
        budget: limits; `Budget()` by default.
    Raises:
        InputError: fewer than two tiles or training spots, or spots that cannot be split.
    """
    budget = budget or Budget()
    spots, rows = side.encoded.spots, side.rows
    if tiles is None:
        tiles = _spot_centres(config, side, most=budget.tiles)
    tiles = pretraining.limited(tiles, budget.tiles, seed=config.seed)
    say(
        f"Complexities: 3 autoencoders on {sum(map(len, tiles.groups))} tiles of {tiles.origin}, "
        f"then 3 heads on {min(len(rows), budget.spots)} training spots."
    )
    made = {
        variant: _autoencoder(config, tiles, variant, budget, session)
        for variant in autoencoder.VARIANTS
    }
    shown, reconstructions = _reconstructions(tiles, made, budget.shown)

    chosen = preparing.random_subset(np.sort(rows), budget.spots, seed=config.seed)
    index = splits.SpotIndex(
        *(
            getattr(spots.index, name)[chosen]
            for name in ("section", "patient", "centres_px", "gap_px")
        )
    )
    (fold,) = splits.inner_folds(index, np.arange(len(chosen)), folds=1)
    tile_px = min(HEAD_TILE_PX, config.tiles.tile_px)
    trunk = regressor.build_trunk(side.encoded.encoder.encoder, architecture="flatten")
    maps = features.tile_features(
        trunk,
        _centre_groups(side, chosen, tile_px),
        symmetries=1,
        label="Features for three heads",
        strategy=session.strategy,
    )
    possible = [blocks for blocks in CONV_BLOCKS if 2**blocks <= min(maps.shape[2:4])]
    if len(possible) < len(CONV_BLOCKS):
        say(f"Tiles of {tile_px} px leave room for {len(possible)} convolution block(s) in a head.")
    data = HeadData({"features": maps}, side.targets[chosen], index, np.ones(len(chosen)))
    heads = {
        blocks: _head(data, fold, _head_settings(config, blocks, budget), session)
        for blocks in possible
    }

    autoencoders = {
        variant: {
            "validation_mse": one.validation_loss,
            "parameters": one.autoencoder.count_params(),
            "epochs": len(one.history),
            "turned": len(one.history) < budget.autoencoder_epochs,
        }
        for variant, one in made.items()
    }
    head_facts = {blocks: _facts_of(one) for blocks, one in heads.items()}
    first = made[autoencoder.VARIANTS[0]]
    summary = {
        "autoencoders": autoencoders,
        "heads": head_facts,
        "budget": dataclasses.asdict(budget),
        "tiles": {
            "images": tiles.origin,
            "tiles": first.tiles,
            "validation_sources": first.validation_sources,
            "validation_tiles": len(first.validation_rows),
        },
        "spots": {
            "tile_px": tile_px,
            "train": len(fold.train),
            "validation": len(fold.test),
            "validation_groups": fold.held_out,
            "kind": fold.kind,
        },
    }
    history = [row for one in made.values() for row in one.history]
    history += [row for one in heads.values() for row in one.history]
    return Study(
        history=history,
        tiles=shown,
        reconstructions=reconstructions,
        summary=outputs.json_safe(summary),
    )


def _autoencoder(
    config: Config,
    tiles: PretrainingTiles,
    variant: int,
    budget: Budget,
    session: Session,
) -> pretraining.Pretrained:
    stage = f"autoencoder_{variant}"
    config = changed(
        config,
        autoencoder__variant=variant,
        autoencoder__batch_size=AUTOENCODER_BATCH,
        autoencoder__learning_rate=AUTOENCODER_LEARNING_RATE,
        autoencoder__epochs=budget.autoencoder_epochs,
        autoencoder__patience=budget.patience,
    )
    return pretraining.pretrain_autoencoder(
        tiles.groups, tiles.sources, config, session.within(stage), stage=stage
    )


def _reconstructions(
    tiles: PretrainingTiles, made: dict[int, pretraining.Pretrained], most: int
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Validation tiles, spread over them all, and what each variant makes of them."""
    held = made[autoencoder.VARIANTS[0]].validation_rows
    rows = held[np.unique(np.linspace(0, len(held) - 1, most).astype(int))]
    shown = datasets.normalised_rows(tiles.groups, rows)
    scaled = shown.astype(np.float32) / 255
    return shown, {
        variant: np.rint(np.asarray(one.autoencoder(scaled, training=False)) * 255).astype(np.uint8)
        for variant, one in made.items()
    }


def _head(
    data: HeadData, fold: splits.Fold, settings: RegressorConfig, session: Session
) -> training.Trained:
    blocks = settings.conv_blocks
    with epoch_choice.progress(settings.epochs, f"Head {blocks}") as bar:
        return head_training.train_epochs(
            data, fold.train, settings, session, held=fold.test, stage=f"head_{blocks}", bar=bar
        )


def _head_settings(config: Config, blocks: int, budget: Budget) -> RegressorConfig:
    own = config.regressor
    settings = own if own.architecture == "flatten" else preset("paper").regressor
    return dataclasses.replace(
        settings,
        conv_blocks=blocks,
        epochs=budget.head_epochs,
        patience=budget.patience,
        symmetries=1,
    )


def _facts_of(trained: training.Trained) -> dict[str, Any]:
    best = trained.history[trained.best_epoch - 1]
    return {
        "parameters": trained.model.count_params(),
        "hidden_units": trained.model.get_layer("hidden").units,
        "epochs": len(trained.history),
        "turned": trained.stopped_early,
        "best_val_gene_r": best["val_gene_r"],
        "val_spot_r": best["val_spot_r"],
        "best_epoch": trained.best_epoch,
    }


def _spot_centres(config: Config, side: TrainingSpots, *, most: int) -> PretrainingTiles:
    """The training spots' own tiles, cut down to the autoencoder's size."""
    spots = side.encoded.spots
    tile_px = min(config.autoencoder.tile_px, config.tiles.tile_px)
    chosen = preparing.random_subset(np.sort(side.rows), most, seed=config.seed)
    sections = [spots.prepared[number] for number in spots.sections_in(chosen)]
    by_patient = len({section.patient for section in sections}) > 1
    return PretrainingTiles(
        groups=_centre_groups(side, chosen, tile_px),
        sources=[section.patient if by_patient else section.name for section in sections],
        reference=side.encoded.encoder.reference,
        origin="the training spots",
    )


def _centre_groups(
    side: TrainingSpots, rows: np.ndarray, tile_px: int
) -> list[datasets.StainedTiles]:
    """The central `tile_px` pixels of the tiles of spots `rows`, which are sorted, by section."""
    groups, spots, reference = [], side.encoded.spots, side.encoded.encoder.reference
    for number in spots.sections_in(rows):
        ready = spots.prepared[number]
        corner = (ready.spot_tiles.shape[1] - tile_px) // 2
        inside = slice(corner, corner + tile_px)
        some = np.asarray(ready.spot_tiles[spots.rows_of(number, rows) - spots.first[number]])
        centres = np.ascontiguousarray(some[:, inside, inside])
        groups.append(datasets.StainedTiles(centres, ready.stains, reference))
    return groups

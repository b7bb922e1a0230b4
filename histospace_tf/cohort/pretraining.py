"""The autoencoder stage: H&E tiles alone -> an encoder to freeze."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import bundle_file, training
from histospace_tf.cohort import preparing, pretraining_images
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, readers, stain
from histospace_tf.models import autoencoder, losses
from histospace_tf.outputs import say
from histospace_tf.training import Schedule, Session, Validation
from histospace_tf.vocabulary import InputError, StainReference

# With autoencoder.epochs 0; longer training lowers the error, and no score (docs/accuracy.md).
TILES_SEEN = 4000


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained encoder and how it came about."""

    encoder: keras.Model
    autoencoder: keras.Model
    history: list[dict[str, object]]
    tiles: int
    validation_sources: tuple[str, ...]
    validation_rows: np.ndarray  # counted through all groups
    validation_loss: float | None  # mean squared error of the kept epoch, on tiles in [0, 1]


def validation_rows(
    sources: Sequence[str], share: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Splits tiles by the patient or image that they come from.

    Args:
        sources: one a tile.
        share: of the sources, at least one of them; with a single source the last tiles in its
            order, which lie together, are taken.
        seed: draws the sources.
    Returns:
        Training rows, validation rows, names of the validation sources.
    """
    names = sorted(set(sources))
    all_rows = np.arange(len(sources))
    if len(names) == 1:
        cut = max(1, len(sources) - max(1, round(share * len(sources))))
        return all_rows[:cut], all_rows[cut:], (f"last {len(sources) - cut} tiles of {names[0]}",)
    n = min(len(names) - 1, max(1, round(share * len(names))))
    chosen = sorted(np.random.default_rng(seed).choice(names, n, replace=False).tolist())
    is_validation = np.isin(np.asarray(sources), chosen)
    return all_rows[~is_validation], all_rows[is_validation], tuple(chosen)


def pretrain_autoencoder(
    groups: Sequence[datasets.StainedTiles],
    sources: Sequence[str],
    config: Config,
    session: Session,
    *,
    stage: str = "autoencoder",
) -> Pretrained:
    """Trains the autoencoder and gives back its encoder.

    Args:
        groups: tiles by slide or image.
        sources: patient or image of each group: validation shares none with training.
        config: variant, epochs, learning rate, ...
        session: its checkpoints are this training's alone.
        stage: name of this training in the history.
    """
    settings = config.autoencoder
    per_tile = [
        source for source, group in zip(sources, groups, strict=True) for _ in range(len(group))
    ]
    train, held, names = validation_rows(per_tile, settings.validation_share, seed=config.seed)

    def pairs(rows: np.ndarray) -> Callable[[int], tf.data.Dataset]:
        return lambda epoch: datasets.autoencoder_dataset(
            datasets.tile_dataset(
                groups,
                batch_size=settings.batch_size,
                rows=rows,
                order_seed=(config.seed, epoch),
            )
        )

    epochs = settings.epochs or max(1, round(TILES_SEEN / len(train)))
    keras.utils.set_random_seed(config.seed)
    batches = -(-len(train) // settings.batch_size)
    bar = tqdm(
        total=epochs * batches,
        desc=stage.replace("_", " ").capitalize(),
        unit="batch",
        delay=2,
    )

    def shown(batch: int, logs: dict[str, float] | None = None) -> None:
        bar.set_postfix(mse=f"{(logs or {}).get('loss', float('nan')):.4f}", refresh=False)
        bar.update(1)

    validation = datasets.autoencoder_dataset(
        datasets.tile_dataset(groups, batch_size=settings.batch_size, rows=held)
    )
    trained = training.train(
        lambda: autoencoder.build_autoencoder(
            settings.variant, synchronized=session.strategy.num_replicas_in_sync > 1
        ),
        pairs(train),
        Schedule(
            loss=losses.loss("mse"),
            learning_rate=settings.learning_rate,
            epochs=epochs,
            patience=settings.patience,
        ),
        session,
        stage=stage,
        validation=Validation(validation),
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=shown)],
        verbose=0,
    )
    bar.close()
    encoder = autoencoder.build_encoder(settings.variant)
    encoder.set_weights(autoencoder.encoder_of(trained.model).get_weights())
    losses_seen = [row["val_loss"] for row in trained.history if row.get("val_loss") is not None]
    return Pretrained(
        encoder=encoder,
        autoencoder=trained.model,
        history=trained.history,
        tiles=len(per_tile),
        validation_sources=names,
        validation_rows=held,
        validation_loss=min(losses_seen) if losses_seen else None,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class PretrainingTiles:
    """Tiles for the autoencoder, with the reference that their stains are brought to.

    groups: tiles by slide or image.
    sources: patient or image of each group.
    origin: where they come from, in words.
    """

    groups: list[datasets.StainedTiles]
    sources: list[str]
    reference: StainReference
    origin: str


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedEncoder:
    """What the encoder stage hands on. encoder: None where networks see the tiles themselves."""

    encoder: keras.Model | None
    reference: StainReference
    history: list[dict[str, object]]
    trained_on: dict[str, Any]


def collect_tiles(
    config: Config, pretrain: Path | None, learners: Sequence[PreparedSection]
) -> PretrainingTiles:
    """Tiles of outside images, or the training sections' own.

    Args:
        config: tile size, stain method, ...
        pretrain: folder of H&E images; None: the tiles for the autoencoder of `learners`.
        learners: the training sections.
    Raises:
        InputError: `pretrain` holds no image, or no tissue.
    """
    if pretrain is not None:
        images = readers.list_images(pretrain)
        with tqdm(total=len(images), desc="Cutting images", unit="image", delay=2) as bar:
            cut = pretraining_images.prepare_images(
                [(image.path, image.source) for image in images], config, progress=bar.update
            )
        parts = [(part.tiles, part.stains, part.source) for part in cut]
        origin = f"{len(images)} images of {pretrain.name}"
        if config.stain.white_field:
            origin += f", {sum(part.has_white_field for part in cut)} with a white field"
    else:
        by_patient = len({section.patient for section in learners}) > 1
        parts = [
            (part.pretrain_tiles, part.stains, part.patient if by_patient else part.name)
            for part in learners
        ]
        origin = bundle_file.OWN_TILES
    reference = stain.average_stains([stains for _, stains, _ in parts])
    # No colour tables: there may be hundreds of images, of few tiles each.
    groups = [datasets.StainedTiles(tiles, stains, reference) for tiles, stains, _ in parts]
    return PretrainingTiles(groups, [source for _, _, source in parts], reference, origin)


def train_encoder_on(tiles: PretrainingTiles, config: Config, session: Session) -> TrainedEncoder:
    """The autoencoder on collected tiles."""
    say(f"Autoencoder: {sum(map(len, tiles.groups))} tiles of {tiles.origin}.")
    made = pretrain_autoencoder(tiles.groups, tiles.sources, config, session)
    trained_on = {
        "autoencoder": {
            "images": tiles.origin,
            "tiles": made.tiles,
            "validation_sources": list(made.validation_sources),
            "validation_mse": made.validation_loss,
        }
    }
    return TrainedEncoder(made.encoder, tiles.reference, made.history, trained_on)


def train_encoder(
    config: Config,
    pretrain: Path | None,
    learners: Sequence[PreparedSection],
    session: Session,
) -> TrainedEncoder:
    """The autoencoder on outside images, or on the training sections' own tiles."""
    return train_encoder_on(collect_tiles(config, pretrain, learners), config, session)


def limited(tiles: PretrainingTiles, most: int, *, seed: int) -> PretrainingTiles:
    """At most `most` of the tiles, drawn from all groups alike; the rest is let go."""
    total = sum(len(group) for group in tiles.groups)
    if total < 2:
        raise InputError(
            f"{total} tile(s) of {tiles.origin} to compare autoencoders on; at least 2 are needed"
        )
    keep = preparing.random_subset(np.arange(total), most, seed=seed)
    starts = np.cumsum([0, *(len(group) for group in tiles.groups)])
    groups, sources = [], []
    for group, source, start in zip(tiles.groups, tiles.sources, starts, strict=False):
        here = keep[(keep >= start) & (keep < start + len(group))] - start
        if len(here):
            groups.append(dataclasses.replace(group, tiles=np.asarray(group.tiles[here])))
            sources.append(source)
    return dataclasses.replace(tiles, groups=groups, sources=sources)

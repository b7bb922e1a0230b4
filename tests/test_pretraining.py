"""The autoencoder stage: what it validates on, and that a seed decides all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import training
from histospace_tf.cohort import preparing, pretraining
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import datasets, stain
from histospace_tf.models import autoencoder
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config
from made.tissue import he_picture, section, write_picture

pytestmark = pytest.mark.slow

SIDE = 16
STAINS = stain.canonical_stains("macenko")


@pytest.fixture(scope="module")
def config() -> Config:
    return tiny_config(
        seed=2,
        tiles__tile_px=64,
        tiles__mpp=1.0,
        stain__method="macenko",
        autoencoder__tile_px=SIDE,
        autoencoder__tiles=40,
        autoencoder__epochs=2,
        autoencoder__batch_size=16,
        autoencoder__validation_share=0.3,
    )


def group(n: int, *, seed: int) -> datasets.StainedTiles:
    tiles = np.random.default_rng(seed).integers(60, 250, (n, SIDE, SIDE, 3), np.uint8)
    return datasets.StainedTiles(tiles, STAINS, STAINS)


def session(folder: Path) -> Session:
    return Session(tf.distribute.get_strategy(), 0, False, folder)


def pretrain(config: Config, folder: Path) -> pretraining.Pretrained:
    return pretraining.pretrain_autoencoder(
        [group(12, seed=0), group(10, seed=1), group(8, seed=2)],
        ["A", "B", "A"],
        config,
        session(folder),
    )


@pytest.fixture(scope="module")
def pretrained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> pretraining.Pretrained:
    return pretrain(config, tmp_path_factory.mktemp("autoencoder"))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("n_sources", [2, 3, 10])
def test_validation_shares_no_source_with_training(n_sources: int, share: float) -> None:
    sources = [f"p{i}" for i in np.random.default_rng(0).permutation(np.arange(60) % n_sources)]
    train, held, names = pretraining.validation_rows(sources, share, seed=1)
    both = [{sources[row] for row in rows} for rows in (train, held)]
    assert not both[0] & both[1]
    assert both[1] == set(names)
    assert sorted([*train, *held]) == list(range(60))
    wanted = min(n_sources - 1, max(1, round(share * n_sources)))
    assert len(names) == wanted


def test_validation_sources_are_drawn_with_the_seed_alone() -> None:
    sources = [f"p{i % 20}" for i in range(100)]
    drawn = {seed: pretraining.validation_rows(sources, 0.2, seed=seed)[2] for seed in range(5)}
    assert pretraining.validation_rows(sources[::-1], 0.2, seed=3)[2] == drawn[3]
    assert len(set(drawn.values())) > 1


@pytest.mark.parametrize(
    ("n", "share", "held_out"), [(10, 0.2, 2), (10, 0.01, 1), (2, 0.9, 1), (10, 0.9, 9)]
)
def test_a_single_source_gives_its_last_tiles(n: int, share: float, held_out: int) -> None:
    train, held, names = pretraining.validation_rows(["only"] * n, share, seed=0)
    assert list(train) == list(range(n - held_out))
    assert list(held) == list(range(n - held_out, n))
    assert names == (f"last {held_out} tiles of only",)


def test_encoder_is_the_trained_autoencoders(pretrained: pretraining.Pretrained) -> None:
    own = autoencoder.encoder_of(pretrained.autoencoder).get_weights()
    for one, other in zip(pretrained.encoder.get_weights(), own, strict=True):
        np.testing.assert_array_equal(one, other)
    tile = np.random.default_rng(0).random((1, 24, 32, 3), np.float32)
    assert pretrained.encoder(tile).shape == (1, 3, 4, 128)  # any size


def test_history_and_validation_are_reported(pretrained: pretraining.Pretrained) -> None:
    assert pretrained.tiles == 30
    assert pretrained.validation_sources in (("A",), ("B",))
    assert [(row["stage"], row["epoch"]) for row in pretrained.history] == [
        ("autoencoder", 1),
        ("autoencoder", 2),
    ]
    losses = [float(str(row["val_loss"])) for row in pretrained.history]
    assert pretrained.validation_loss == min(losses)
    # The kept model is the best epoch's: its error on the validation tiles is the one reported.
    rows = np.arange(12, 22)
    groups = [group(12, seed=0), group(10, seed=1), group(8, seed=2)]
    if pretrained.validation_sources == ("A",):
        rows = np.concatenate([np.arange(12), np.arange(22, 30)])
    np.testing.assert_array_equal(pretrained.validation_rows, rows)
    tiles = np.concatenate(list(datasets.tile_dataset(groups, batch_size=32, rows=rows)))
    error = np.mean((pretrained.autoencoder.predict(tiles, verbose=0) - tiles) ** 2)
    assert pretrained.validation_loss == pytest.approx(error, rel=1e-3)  # batches of other sizes


@pytest.mark.parametrize(
    ("epochs", "seen", "wanted"), [(3, 1000, 3), (0, 100, 5), (0, 30, 2), (0, 1, 1)]
)
def test_epochs_of_zero_are_as_many_as_it_takes_to_see_a_number_of_tiles(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
    seen: int,
    wanted: int,
) -> None:
    given: list[int] = []

    def pretended(
        build: Any, data: Any, schedule: training.Schedule, *_: Any, **__: Any
    ) -> training.Trained:
        given.append(schedule.epochs)
        row = {"val_loss": 0.1}
        return training.Trained(build(), [row], 1, False)

    monkeypatch.setattr(training, "train", pretended)
    monkeypatch.setattr(pretraining, "TILES_SEEN", seen)
    found = pretrain(changed(config, autoencoder__epochs=epochs), tmp_path)
    assert len(found.validation_rows) == 10  # of 30, so 20 are learned from
    assert given == [wanted]


def test_same_seed_gives_the_same_encoder_and_another_seed_does_not(
    config: Config, pretrained: pretraining.Pretrained, tmp_path: Path
) -> None:
    again = pretrain(config, tmp_path / "again")
    for one, other in zip(
        pretrained.encoder.get_weights(), again.encoder.get_weights(), strict=True
    ):
        assert one.tobytes() == other.tobytes()
    assert again.validation_sources == pretrained.validation_sources
    short = changed(config, seed=3, autoencoder__epochs=1)
    different = pretrain(short, tmp_path / "different").encoder.get_weights()
    assert not np.array_equal(different[0], again.encoder.get_weights()[0])


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[str]]]:
    """Records sizes of groups and their sources, and trains nothing."""
    seen = []

    def pretended(
        groups: list[datasets.StainedTiles], sources: list[str], *_: object, **__: object
    ) -> pretraining.Pretrained:
        seen.append(([len(g) for g in groups], list(sources)))
        encoder = autoencoder.build_encoder(1)
        return pretraining.Pretrained(encoder, encoder, [], 7, ("x",), np.arange(0), 0.25)

    monkeypatch.setattr(pretraining, "pretrain_autoencoder", pretended)
    return seen


def learners(config: Config, folder: Path, *names: str) -> list[preparing.PreparedSection]:
    (folder / "work").mkdir()
    return [
        preparing.prepare_section(
            section(name, name[0], folder=folder, seed=i),
            config,
            folder / "work",
            pretrain_tiles=3 + i,
        )
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("names", "sources"),
    [(("A1", "B1", "B2"), ["A", "B", "B"]), (("A1", "A2"), ["A1", "A2"])],
)
def test_training_sections_are_validated_by_patient_else_by_section(
    config: Config,
    tmp_path: Path,
    no_training: list[tuple[list[int], list[str]]],
    names: tuple[str, ...],
    sources: list[str],
) -> None:
    sections = learners(config, tmp_path, *names)
    made = pretraining.train_encoder(
        config,
        None,
        sections,
        session(tmp_path),
    )
    assert no_training == [([3 + i for i in range(len(names))], sources)]
    wanted = stain.average_stains([part.stains for part in sections])
    assert made.reference.to_json() == wanted.to_json()
    assert made.trained_on == {
        "autoencoder": {
            "images": "the training sections' own tiles",
            "tiles": 7,
            "validation_sources": ["x"],
            "validation_mse": 0.25,
        }
    }


def test_outside_images_are_validated_by_their_source(
    config: Config, tmp_path: Path, no_training: list[tuple[list[int], list[str]]]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("01_1", "01_2", "02_1"):  # patient 01 twice
        write_picture(folder / f"{name}.png", he_picture(seed=len(name)))
    made = pretraining.train_encoder(config, folder, [], session(tmp_path))
    ((sizes, sources),) = no_training
    assert sum(sizes) == config.autoencoder.tiles
    assert sources == ["01", "01", "02"]
    assert made.trained_on["autoencoder"]["images"] == "3 images of images"


def test_a_folder_without_images_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        pretraining.train_encoder(
            config,
            tmp_path,
            [],
            session(tmp_path),
        )

"""Predictions a chunk at a time: the same as all at once, and taken up where they were cut off."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from scipy.spatial import cKDTree

from histospace_tf.cohort import features, head_inputs
from histospace_tf.config import Architecture, RegressorConfig
from histospace_tf.data_pipelines import datasets
from histospace_tf.models import regressor
from histospace_tf.slide_prediction import streaming
from made.tiles import group

pytestmark = pytest.mark.slow

SIDE, GENES = 8, 5


class Panel:
    """Stands for a gene panel: as many genes, a unit of its own."""

    def __len__(self) -> int:
        return GENES

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        return 2 * values + 1


def model(architecture: Architecture) -> Any:
    """A trunk that is told apart from its mirror image, and a head that is not linear."""
    keras.utils.set_random_seed(0)
    tile = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(tile)
    trunk = keras.Model(tile, keras.layers.GlobalMaxPooling2D()(maps))
    settings = RegressorConfig(architecture=architecture, hidden_units=8, factors=0)
    head = regressor.build_head((16,), GENES, settings)
    config = types.SimpleNamespace(tiles=types.SimpleNamespace(tile_px=SIDE))
    return types.SimpleNamespace(
        trunk=trunk, head=head, panel=Panel(), config=config, familiarity=Known()
    )


class Known:
    """Familiarity that tells tiles apart, whatever the order that they come in."""

    def of(self, tiles: np.ndarray) -> np.ndarray:
        return tiles.sum(axis=1).astype(np.float32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH_TILES", 4)
    monkeypatch.setattr(streaming, "CHUNK_TILES", 8)


def grid(columns: int, rows: int) -> np.ndarray:
    """Places row by row, with a hole and a lonely one far below."""
    y, x = np.mgrid[:rows, :columns] * 100.0
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    places = places[(places[:, 1] < 300) | (places[:, 1] > 500)]
    return np.concatenate([places, [[50.0, 5000.0]]])


def scattered(n: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 900, (n, 2))


def at_once(
    made: Any,
    tiles: datasets.StainedTiles,
    centres: np.ndarray,
    context: streaming.Context | None,
    symmetries: int,
) -> tuple[np.ndarray, np.ndarray]:
    kept = features.tile_features(made.trunk, [tiles], symmetries=symmetries, label="all")
    inputs = {"features": kept}
    known = kept[:, 0].sum(axis=1)
    if context is not None:
        inputs = head_inputs.context_inputs(
            kept, centres, context.slide, radius_px=context.radius_px
        )
    return made.panel.to_unit(features.predicted(made.head, inputs)), known


def context_of(radius_px: float) -> streaming.Context:
    random = np.random.default_rng(1)
    mean, std = random.normal(size=16), random.uniform(0.5, 1, 16)
    return streaming.Context((mean.astype(np.float32), std.astype(np.float32)), radius_px)


@pytest.mark.parametrize(
    ("centres", "radius_px", "symmetries"),
    [
        (grid(4, 9), 250.0, 8),
        (grid(4, 9), 100.0, 1),  # exactly the distance of neighbours
        (grid(3, 12)[::-1], 1e5, 2),  # every tile is everybody's neighbour; from the bottom up
        (scattered(25), 230.0, 2),
        (grid(4, 6), 10.0, 1),  # nobody has a neighbour
        (scattered(1), 100.0, 1),
        (scattered(8), 100.0, 1),
    ],
)
def test_chunks_give_what_all_at_once_gives(
    tmp_path: Path, centres: np.ndarray, radius_px: float, symmetries: int
) -> None:
    made, tiles, context = model("context"), group(len(centres)), context_of(radius_px)
    found, known = streaming.predicted(
        made, tiles, centres, symmetries=symmetries, context=context, work=tmp_path
    )
    expected, known_at_once = at_once(made, tiles, centres, context, symmetries)
    # Sums in another order: float32 noise.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert known is not None
    np.testing.assert_allclose(known, known_at_once, rtol=1e-5)
    assert found.dtype == np.float32
    assert not list(tmp_path.glob("features_*"))  # nothing waits for them


def test_a_head_without_context_needs_no_features_on_disk(tmp_path: Path) -> None:
    made, tiles, centres = model("pooled"), group(21), scattered(21)
    found = streaming.predicted(made, tiles, centres, symmetries=2, context=None, work=tmp_path)
    for one, expected in zip(found, at_once(made, tiles, centres, None, 2), strict=True):
        assert one is not None
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)
    kept = {path.name.split("_")[0] for path in tmp_path.iterdir()}
    assert kept == {"expression", "familiarity"}


def test_a_model_that_does_not_know_it_says_nothing_of_familiarity(tmp_path: Path) -> None:
    made, tiles, centres = model("pooled"), group(5), scattered(5)
    made.familiarity = None
    found = streaming.predicted(made, tiles, centres, symmetries=1, context=None, work=tmp_path)
    assert found[1] is None
    assert not list(tmp_path.glob("familiarity_*"))


@pytest.mark.parametrize("architecture", ["context", "pooled"])
@pytest.mark.parametrize("batches", [1, 6])
def test_a_run_that_was_cut_off_repeats_no_finished_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: Architecture, batches: int
) -> None:
    made, tiles, centres = model(architecture), group(30), scattered(30)
    context = context_of(200.0) if architecture == "context" else None
    whole_folder, cut_folder = tmp_path / "whole", tmp_path / "cut"
    whole_folder.mkdir()
    cut_folder.mkdir()
    settings: dict[str, Any] = {"symmetries": 2, "context": context}
    undisturbed = streaming.predicted(made, tiles, centres, work=whole_folder, **settings)
    computed: list[int] = []
    real = features.feature_batches
    left = batches

    def cut_off(*given: Any, rows: np.ndarray, **more: Any) -> Iterator[np.ndarray]:
        nonlocal left
        at = 0
        for batch in real(*given, rows=rows, **more):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            computed.extend(rows[at : at + len(batch)])
            at += len(batch)
            yield batch

    monkeypatch.setattr(features, "feature_batches", cut_off)
    with pytest.raises(KeyboardInterrupt):
        streaming.predicted(made, tiles, centres, work=cut_folder, **settings)
    finished = computed[: batches // 2 * 8]  # two batches a chunk
    computed.clear()
    left = 1000
    again = streaming.predicted(made, tiles, centres, work=cut_folder, **settings)
    same = np.testing.assert_array_equal  # the same batches, so to the last bit
    same(again[0], undisturbed[0])
    same(again[1], undisturbed[1])
    assert not set(finished) & set(computed)
    assert len(finished) + len(computed) == 30
    computed.clear()
    finished_already = streaming.predicted(made, tiles, centres, work=cut_folder, **settings)
    same(finished_already[0], undisturbed[0])
    same(finished_already[1], undisturbed[1])
    assert computed == []


def test_disk_holds_a_band_of_the_slide_and_its_height_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    centres = grid(4, 20)
    most = 0
    save = streaming._save

    def counted(path: Path, values: np.ndarray) -> None:
        nonlocal most
        save(path, values)
        most = max(most, len(list(tmp_path.glob("features_*"))))

    monkeypatch.setattr(streaming, "_save", counted)
    monkeypatch.setattr(streaming, "_SAID_FROM_BYTES", 0)
    streaming.predicted(
        model("context"),
        group(len(centres)),
        centres,
        symmetries=1,
        context=context_of(200.0),
        work=tmp_path,
    )
    chunks = streaming.plan(centres, radius_px=200.0)
    assert most == chunks.most_kept() == 3  # of 9: two rows a chunk, two rows either way
    assert "GB while this runs" in capsys.readouterr().err


def test_plan_finds_every_neighbour() -> None:
    centres = scattered(200)
    for radius in (5.0, 60.0, 400.0):
        chunks = streaming.plan(centres, radius_px=radius)
        assert sorted(chunks.order) == list(range(200))
        chunk_of = np.empty(200, int)
        chunk_of[chunks.order] = np.arange(200) // streaming.CHUNK_TILES
        for a, b in cKDTree(centres).query_pairs(radius):
            assert chunk_of[a] in chunks.within(chunk_of[b])
            assert chunk_of[b] in chunks.within(chunk_of[a])

"""Spots of a run in one row order: tiles, inputs and targets stay with their spots."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest

from histospace_tf.cohort import head_inputs, paired, sides
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import (
    datasets,
    expression,
    gene_panel,
    recolouring,
    splits,
    stain,
)
from histospace_tf.scores import colour_statistics
from histospace_tf.vocabulary import InputError, Section
from made.configs import tiny_config
from made.tissue import GENES, panel, section, spot_table

SIDE = 32
REFERENCE = stain.canonical_stains("macenko")


@pytest.fixture(scope="module")
def config() -> Config:
    return tiny_config(
        stain__method="macenko",
        tiles__tile_px=SIDE,
        tiles__mpp=1.0,
        target__genes=3,
        autoencoder__tile_px=16,
        autoencoder__tiles=10,
        context__slide_tiles=5,
        context__neighbour_um=45.0,
        regressor__symmetries=8,
    )


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> list[Section]:
    """Six, four and three spots, of patients A, A and B."""
    folder = tmp_path_factory.mktemp("images")
    return [
        section(name, name[0], folder=folder, seed=seed, spots_xy=shape)
        for seed, (name, shape) in enumerate([("A1", (3, 2)), ("A2", (2, 2)), ("B1", (3, 1))])
    ]


@pytest.fixture(scope="module")
def spots(
    sections: list[Section], config: Config, tmp_path_factory: pytest.TempPathFactory
) -> PairedSpots:
    work = tmp_path_factory.mktemp("work")
    uncut = PairedSpots.of(sections, config)
    return paired.cut_tiles(uncut, config, work / "tiles", pretrain_on=range(len(sections)))


@pytest.fixture(scope="module")
def trunk() -> keras.Model:
    """Three features: the means of red, green and blue over the tile's upper left quarter."""
    tile = keras.Input((None, None, 3), name="tile")
    corner = tile[:, : SIDE // 2, : SIDE // 2]
    return keras.Model(tile, keras.layers.GlobalAveragePooling2D()(corner))


HOLD_OUT_B = splits.Fold(np.arange(10), np.arange(10, 13), "patient", ("B",))


def test_rows_go_section_after_section(spots: PairedSpots, sections: list[Section]) -> None:
    assert len(spots) == 13
    assert list(spots.first) == [0, 6, 10, 13]
    assert list(spots.index.section) == ["A1"] * 6 + ["A2"] * 4 + ["B1"] * 3
    assert list(spots.index.patient) == ["A"] * 10 + ["B"] * 3
    np.testing.assert_array_equal(spots.index.centres_px[6:10], sections[1].spots.centres_px)
    np.testing.assert_array_equal(spots.index.gap_px, SIDE)


def test_some_rows_by_section(spots: PairedSpots, sections: list[Section]) -> None:
    among = np.array([1, 5, 7, 9])
    assert list(spots.rows_of(0, among)) == [1, 5]
    assert list(spots.rows_of(1, among)) == [7, 9]
    assert list(spots.rows_of(2, among)) == []
    assert spots.sections_in(among) == [0, 1]
    found = spots.spots_of(1, among)
    assert found.names == ("s1", "s3")
    np.testing.assert_array_equal(
        found.counts.toarray(), sections[1].spots.counts.toarray()[[1, 3]]
    )


def test_two_sections_of_one_name_and_two_patients_are_refused(config: Config) -> None:
    with pytest.raises(InputError, match="belongs to 2 patients"):
        PairedSpots.of([section("S", "A"), section("S", "B")], config)


@pytest.mark.parametrize(
    ("image_mpp", "tile_mpp", "wanted"),
    [
        (1.0, 1.0, SIDE),
        (0.5, 1.0, 2 * SIDE),
        (2.0, 1.0, SIDE / 2),
        (1.02, 1.0, SIDE),  # as tiles are cut: no resampling within 3 %
        (None, 1.0, SIDE),
        (0.5, None, SIDE),
    ],
)
def test_side_of_a_tile_in_the_image(
    config: Config, image_mpp: float | None, tile_mpp: float | None, wanted: float
) -> None:
    config = dataclasses.replace(config, tiles=dataclasses.replace(config.tiles, mpp=tile_mpp))
    assert paired.tile_px_in_image(section("A1", "A", mpp=image_mpp), config) == wanted


def test_pitch_of_spots_is_theirs_or_a_tile(config: Config) -> None:
    assert paired.spot_pitch_px(section("A1", "A", mpp=0.5), config) == 80
    assert paired.spot_pitch_px(section("A1", "A", mpp=None), config) == SIDE


def test_neighbours_are_within_microns_or_within_spots(config: Config) -> None:
    assert paired.neighbour_radius_px(0.5, 70, config) == 90
    assert paired.neighbour_radius_px(None, 70, config) == 105


def test_left_out_spots_are_reported(
    sections: list[Section], config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = dataclasses.replace(sections[0], spots=spot_table(np.array([[3.0, 50], [100, 50]])))
    config = changed(config, tiles__border="drop")
    cut = paired.cut_tiles(
        PairedSpots.of([edge], config), config, tmp_path / "tiles", pretrain_on=[]
    )
    (ready,) = cut.prepared
    assert len(cut) == 1
    assert "section A1: 1 of 2 spots (first: 's0')" in capsys.readouterr().err
    assert len(ready.pretrain_tiles) == 0


def test_pretraining_tiles_are_shared_out_over_sections(spots: PairedSpots) -> None:
    assert [len(ready.pretrain_tiles) for ready in spots.prepared] == [4, 4, 4]  # of 10 in all


def test_inputs_of_the_heads_stay_with_their_spots(
    spots: PairedSpots,
    trunk: keras.Model,
    config: Config,
    tmp_path: Path,
) -> None:
    inputs, statistics = head_inputs.of_spots(
        spots, trunk, REFERENCE, config, tmp_path / "features"
    )
    assert {name: values.shape for name, values in inputs.items()} == {
        "features": (13, 8, 3),
        "neighbour_features": (13, 3),
        "slide_mean": (13, 3),
        "slide_std": (13, 3),
    }
    for number, ready in enumerate(spots.prepared):
        rows = np.arange(spots.first[number], spots.first[number + 1])
        tiles = recolouring.normalise(np.asarray(ready.spot_tiles), ready.stains, REFERENCE)
        # Colour tables and the formula agree within one grey level.
        corner = tiles[:, : SIDE // 2, : SIDE // 2].mean(axis=(1, 2)) / 255
        np.testing.assert_allclose(inputs["features"][rows, 0], corner, atol=1.001 / 255)
        np.testing.assert_allclose(
            statistics[rows, 0], colour_statistics.of_tiles(tiles)[:, 0], atol=1.001
        )
        # Neighbours are spots of the same section at 40 px, averaged over all symmetries.
        wanted = head_inputs.neighbour_features(
            inputs["features"][rows].mean(axis=1), spots.index.centres_px[rows], radius_px=45
        )
        np.testing.assert_array_equal(inputs["neighbour_features"][rows], wanted)
        assert len(np.unique(inputs["slide_mean"][rows], axis=0)) == 1
    assert len(np.unique(inputs["slide_mean"], axis=0)) == 3


def test_features_are_read_again_and_context_is_left_out_where_not_needed(
    spots: PairedSpots,
    trunk: keras.Model,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = changed(config, regressor__architecture="pooled")
    arguments = (spots, trunk, REFERENCE, config, tmp_path / "features")
    first, colours = head_inputs.of_spots(*arguments)
    assert set(first) == {"features"}
    assert isinstance(first["features"], np.memmap)
    kept = {path.name for path in (tmp_path / "features").iterdir()}
    assert kept == {"colours.npy", "features.npy"}

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("features are computed again")

    monkeypatch.setattr(datasets, "tile_dataset", refused)
    again, same_colours = head_inputs.of_spots(*arguments)
    np.testing.assert_array_equal(first["features"], again["features"])
    np.testing.assert_array_equal(colours, same_colours)


def test_targets_are_zero_on_the_held_out_side_and_measured_everywhere(
    spots: PairedSpots, config: Config
) -> None:
    measured, learned, its_panel = sides.standardised(spots, HOLD_OUT_B, GENES, config)
    for number, part in enumerate(spots.sections):
        rows = slice(spots.first[number], spots.first[number + 1])
        wanted = expression.targets(
            part.spots, GENES, normalisation="library_size_log1p", target_sum=1e4
        )
        np.testing.assert_array_equal(measured[rows], wanted)
    assert not learned[10:].any()
    train = slice(0, 10)
    np.testing.assert_array_equal(
        learned[train],
        gene_panel.training_targets(
            measured[train], spots.index.section[train], its_panel, config.target
        ),
    )
    assert its_panel.genes == GENES


def test_the_training_side_holds_nothing_measured_of_the_held_out_side(
    spots: PairedSpots, config: Config
) -> None:
    nothing = cast(Any, None)
    encoded = EncodedSpots(spots, nothing, config, Path("unused"))
    side = sides.training_spots(encoded, HOLD_OUT_B, GENES, config)
    assert list(side.rows) == list(range(10))
    assert np.isfinite(side.measured[:10]).all()
    assert np.isnan(side.measured[10:]).all()
    assert not side.targets[10:].any()
    assert not side.weights[10:].any()
    np.testing.assert_array_equal(side.weights[:10], sides.spot_weights(spots, config)[:10])


def test_held_out_counts_change_neither_panel_nor_what_is_learned(
    spots: PairedSpots, config: Config
) -> None:
    other = dataclasses.replace(
        spots.sections[2], spots=spot_table(spots.sections[2].spots.centres_px, seed=77)
    )
    changed_spots = PairedSpots.of([*spots.sections[:2], other], config)
    one, another = (
        sides.standardised(s, HOLD_OUT_B, GENES, config) for s in (spots, changed_spots)
    )
    assert not np.array_equal(one[0], another[0])
    np.testing.assert_array_equal(one[1], another[1])
    assert one[2].to_json() == another[2].to_json()


def test_smoothing_touches_what_is_learned_and_not_what_is_measured(
    spots: PairedSpots, config: Config
) -> None:
    plain, sharp, _ = sides.standardised(spots, HOLD_OUT_B, GENES, config)
    config = changed(config, target__smooth_um=45.0, target__centre="none", target__scale=False)
    measured, learned, _ = sides.standardised(spots, HOLD_OUT_B, GENES, config)
    np.testing.assert_array_equal(measured, plain)
    assert not np.array_equal(learned, sharp)
    wanted = expression.smoothed(plain[6:10], spots.index.centres_px[6:10], radius_px=45)
    np.testing.assert_allclose(learned[6:10], wanted, rtol=1e-6)
    assert not learned[10:].any()


def test_smoothing_keeps_to_the_training_side_of_a_section(
    spots: PairedSpots, config: Config
) -> None:
    config = changed(config, target__smooth_um=45.0, target__centre="none", target__scale=False)
    block = splits.Fold(np.arange(3), np.arange(3, 6), "block", ("A1",))
    plain, learned, _ = sides.standardised(spots, block, GENES, config)
    wanted = expression.smoothed(plain[:3], spots.index.centres_px[:3], radius_px=45)
    np.testing.assert_allclose(learned[:3], wanted, rtol=1e-6)


def test_smoothing_without_a_scale_is_refused_by_the_sections_name(config: Config) -> None:
    spots = PairedSpots.of([section("A1", "A", mpp=None), section("B1", "B")], config)
    fold = splits.Fold(np.arange(6), np.arange(6, 12), "patient", ("B",))
    with pytest.raises(
        InputError, match=r"section 'A1': target\.smooth_um needs microns per pixel"
    ):
        sides.standardised(spots, fold, GENES, changed(config, target__smooth_um=100.0))


def test_a_spot_weighs_as_the_root_of_all_its_counts(spots: PairedSpots, config: Config) -> None:
    weights = sides.spot_weights(spots, config)
    counts = np.concatenate([part.spots.counts.toarray().sum(axis=1) for part in spots.sections])
    assert weights.dtype == np.float64
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights / weights[0], np.sqrt(counts / counts[0]))
    # Four times the counts weigh twice as much, whichever section they are in.
    deep = dataclasses.replace(spots.sections[1].spots, counts=4 * spots.sections[1].spots.counts)
    sections = list(spots.sections)
    sections[1] = dataclasses.replace(sections[1], spots=deep)
    deeper = sides.spot_weights(PairedSpots.of(sections, config), config)
    np.testing.assert_allclose(deeper[6:10] / deeper[0], 2 * weights[6:10] / weights[0])
    np.testing.assert_allclose(deeper[10:] / deeper[0], weights[10:] / weights[0])


def test_spots_weigh_alike_where_the_configuration_says_so(
    spots: PairedSpots, config: Config
) -> None:
    config = changed(config, regressor__spot_weights="equal")
    np.testing.assert_array_equal(sides.spot_weights(spots, config), np.ones(len(spots)))


@pytest.mark.parametrize("held_out", [True, False])
def test_parity_tiles_are_normalised_tiles_of_held_out_spots_where_there_are(
    spots: PairedSpots, tmp_path: Path, held_out: bool
) -> None:
    everything = splits.Fold(np.arange(13), np.arange(0), "none", ())
    path = tmp_path / "tiles.npz"
    fold = HOLD_OUT_B if held_out else everything
    paired.parity_tiles(spots, fold, panel(), REFERENCE, path)
    kept = np.load(path)
    found = kept["tile"]
    ready = spots.prepared[2 if held_out else 0]
    group = datasets.StainedTiles(ready.spot_tiles, ready.stains, REFERENCE)
    wanted = group.normalised(np.arange(len(group)))
    assert found.dtype == np.uint8
    # Colour tables and the formula agree within one grey level.
    assert np.abs(found.astype(int) - wanted).max() <= 1
    number = 2 if held_out else 0
    measured = expression.targets(
        spots.sections[number].spots, GENES, normalisation="library_size_log1p", target_sum=1e4
    )
    assert kept["measured"].dtype == np.float32
    np.testing.assert_array_equal(kept["measured"], measured)
    # Tiles for the ranges of 8-bit arithmetic are never of held-out spots.
    training = kept["training_tile"]
    assert len(training) == len(fold.train)
    first = datasets.StainedTiles(spots.prepared[0].spot_tiles, spots.prepared[0].stains, REFERENCE)
    assert np.abs(training[0].astype(int) - first.normalised(np.array([0]))[0]).max() <= 1

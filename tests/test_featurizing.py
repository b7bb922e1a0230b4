"""Our encoder's features written in TRIDENT's form, and read back as other tools' are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import bundle, featurizing, packaged
from histospace_tf.cli import main
from histospace_tf.cohort import features, preparing
from histospace_tf.data_pipelines import (
    datasets,
    patch_features,
    patch_matching,
    readers,
    slides,
    stain,
    tiles,
)
from histospace_tf.models import regressor
from histospace_tf.requests import FeaturesRequest, refusals
from histospace_tf.vocabulary import InputError
from made.bundles import tiny_bundle
from made.tissue import he_picture, write_picture

MPP, STEP_UM = 0.69, 100.0
NAMES = ("A1", "B1")


@pytest.fixture(scope="module")
def images(small_tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, one of them in a folder below, and one without tissue."""
    folder = tmp_path_factory.mktemp("slides")
    (folder / "below").mkdir()
    for name, place in zip(NAMES, (folder, folder / "below"), strict=True):
        (image,) = (small_tissue / "ST-imgs" / name[0] / name).glob("*.jpg")
        shutil.copy(image, place / f"{name}.jpg")
    write_picture(folder / "glass.png", np.full((700, 700, 3), 240, np.uint8))
    return folder


@pytest.fixture(scope="module")
def written(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command wrote, and what it printed."""
    out = tmp_path_factory.mktemp("features") / "ours"
    arguments = ["features", images, "--out", out, "--mpp", MPP, "--step-um", STEP_UM]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return out, done.output


def test_files_are_whole_and_named_as_slides_are(written: tuple[Path, str], images: Path) -> None:
    out, printed = written
    assert sorted(path.name for path in out.iterdir()) == ["A1.h5", "B1.h5"]
    assert f"left out: image {images / 'glass.png'}: no tissue found" in printed
    assert f"--features ours={out}" in printed


def test_attributes_are_tridents(written: tuple[Path, str]) -> None:
    with h5py.File(written[0] / "B1.h5") as file:
        assert set(file) == {"features", "coords"}
        assert file["coords"].dtype == np.int64
        coords = dict(file["coords"].attrs)
        assert file["features"].attrs["encoder"].startswith(f"{packaged.DEFAULT}, ")
        assert file["features"].attrs["savetodir"] == str(written[0])
    size, side = coords["patch_size"], coords["patch_size_level0"]
    finest, target = coords["level0_magnification"], coords["target_magnification"]
    assert (size, side) == (224, 448)  # 1.38 microns per pixel on a slide of 0.69
    assert round(size * finest / target) == side
    assert finest == pytest.approx(10 / MPP)
    assert coords["overlap"] == round(size - STEP_UM / 1.38)
    assert (coords["name"], coords["level0_width"]) == ("B1", 1336)


def test_vectors_are_the_trunks_of_the_tiles_that_the_reader_places(
    written: tuple[Path, str], images: Path
) -> None:
    read = patch_features.read_file(written[0] / "A1.h5")
    model = bundle.load(packaged.FOLDER / packaged.DEFAULT)
    cut = model.config.tiles
    with slides.open_slide(images / "A1.jpg", mpp=MPP) as slide:
        centres = tiles.grid_centres(
            slide,
            tile_px=cut.tile_px,
            mpp=cut.mpp,
            min_tissue=cut.min_tissue,
            step_px=STEP_UM / MPP,
        )
        np.testing.assert_array_equal(read.centres_px, centres)
        raw, _ = tiles.cut_tiles(
            slide, centres[:3], tile_px=cut.tile_px, mpp=cut.mpp, border="reflect"
        )
        own = preparing.slide_stains(slide, model.config)
    group = preparing.stained(raw, own, model.reference)
    seen = datasets.normalised_rows([group], np.arange(3)).astype(np.float32) / 255
    trunk = regressor.build_trunk(model.encoder, architecture="pooled")
    wanted = np.asarray(trunk(seen, training=False))
    np.testing.assert_allclose(read.values[:3], wanted, rtol=1e-3, atol=1e-4)  # other batches


def test_every_spot_lies_in_a_tile_that_was_written(
    written: tuple[Path, str], small_tissue: Path
) -> None:
    sections = [s for s in readers.read_cohort(small_tissue).sections if s.name in NAMES]
    files, others = patch_matching.files_of(written[0], sections)
    assert not others
    for section in sections:
        assert section.image is not None
        matched = patch_matching.match(
            section.name,
            section.spots,
            patch_features.read_file(files[section.name]),
            image_px=slides.image_size(section.image),
        )
        assert matched.has_patch.all()


def test_python_writes_vectors_of_a_model_whose_own_head_reads_maps(
    images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    model = tiny_bundle("global", tile_px=64)
    model = dataclasses.replace(model, reference=stain.canonical_stains())
    bundle.save(model, run / "bundle")
    out = tmp_path / "out"
    result = histospace_tf.features(images / "A1.jpg", out=out, model=run, mpp=MPP)
    assert list(result.tiles) == [Path("A1.h5")]
    read = patch_features.read_file(out / "A1.h5")
    assert read.values.shape == (result.tiles[Path("A1.h5")], regressor.FEATURES_PER_TILE)
    corners = read.corners_px
    assert corners is not None
    assert np.diff(np.unique(corners[:, 0])).min() == read.side_px  # tiles touch
    assert result.summary().startswith(f"{result.width} features for each of {len(read)} tiles")


def test_an_interrupted_run_is_gone_on_with_and_finished_slides_stay(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run = tmp_path / "out", tmp_path / "run"
    model = dataclasses.replace(
        tiny_bundle("pooled", tile_px=64), reference=stain.canonical_stains()
    )
    bundle.save(model, run / "bundle")
    request = FeaturesRequest(images, out=out, model=str(run), mpp=MPP)
    begun: list[str] = []
    real = features.tile_features

    def interrupted(*given: Any, **named: Any) -> np.ndarray:
        begun.append(named["label"].split()[0])
        if begun == ["A1", "B1"]:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(features, "tile_features", interrupted)
    with pytest.raises(KeyboardInterrupt):
        featurizing.featurize(request)
    assert not out.exists()
    kept = (tmp_path / "out.partial" / "A1.h5").read_bytes()
    with pytest.raises(InputError, match="`resume` goes on with it, `force` throws it away"):
        refusals.refuse(request)
    others: list[tuple[dict[str, Any], str]] = [
        ({"step_um": 90.0}, "had another --step-um; resume it with the settings"),
        ({"slides": images / "A1.jpg"}, "had another set of slides;"),
    ]
    for changed, words in others:
        with pytest.raises(InputError, match=words):
            featurizing.featurize(dataclasses.replace(request, resume=True, **changed))
    result = featurizing.featurize(dataclasses.replace(request, resume=True))
    assert begun == ["A1", "B1", "B1"]
    assert sorted(path.name for path in out.iterdir()) == ["A1.h5", "B1.h5"]
    assert (out / "A1.h5").read_bytes() == kept
    for path, n in result.tiles.items():
        assert patch_features.read_file(out / path).values.shape == (n, result.width)
    assert not (tmp_path / "out.partial").exists()


def test_what_cannot_be_written_is_refused_before_any_work(
    images: Path, written: tuple[Path, str], tmp_path: Path
) -> None:
    twice = tmp_path / "twice"
    for place in (twice / "a", twice / "b"):
        place.mkdir(parents=True)
        write_picture(place / "C1.png", he_picture())
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (images, {}, "does not say its microns per pixel"),
        (images, {"mpp": 6.0}, "too coarse"),
        (images, {"mpp": MPP, "step_um": -1.0}, "`step_um` -1"),
        (twice, {"mpp": MPP}, "both be written as C1.h5"),
        (tmp_path / "none", {}, "does not exist"),
        (images, {"mpp": MPP, "out": written[0]}, "exists already"),
        (images, {"mpp": MPP, "model": "none"}, "nor a packaged model"),
    ]
    for source, options, words in cases:
        out = options.pop("out", tmp_path / "out")
        with pytest.raises(InputError, match=words):
            refusals.refuse(FeaturesRequest(source, out=out, **options))
    with pytest.raises(InputError, match=r"glass.png: no tissue found"):
        histospace_tf.features(images / "glass.png", out=tmp_path / "out", mpp=MPP)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()

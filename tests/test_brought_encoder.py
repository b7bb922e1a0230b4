"""The recommended head on an encoder that somebody brings: a run, and what can be done with it.

The encoder's file stays where it was: a run knows it by its checksum.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from histospace_tf import bundle as bundles
from histospace_tf import bundle_file, exporting, fitting, predicting
from histospace_tf.cohort import encoder_sources as sources
from histospace_tf.config import changed
from histospace_tf.data_pipelines import readers, stain
from histospace_tf.foreign_encoders import opening
from histospace_tf.foreign_encoders.stated import stated
from histospace_tf.models import regressor
from histospace_tf.predictors import registry
from histospace_tf.requests import (
    EvaluateRequest,
    ExportRequest,
    FitRequest,
    PredictRequest,
    refusals,
)
from histospace_tf.vocabulary import InputError
from made import encoders
from made.configs import tiny_config
from made.tissue import GENES, panel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def brought_run(small_tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on an .onnx file, patient B held out."""
    folder = tmp_path_factory.mktemp("brought")
    file = encoders.onnx_file(folder / "theirs.onnx")
    fitting.fit(
        FitRequest(
            small_tissue,
            folder / "run",
            config=tiny_config(),
            hold_out=["B"],
            encoder=f"{file},mpp=2,pixels=imagenet",
        )
    )
    return folder / "run"


def test_a_run_has_the_encoders_tiles_and_says_which_it_is(brought_run: Path) -> None:
    config = json.loads((brought_run / "config.json").read_text())
    assert config["tiles"] | {"tile_px": encoders.SIDE, "mpp": 2} == config["tiles"]
    raw = {"method": "none", "cast": False, "luminosity": False}
    assert config["stain"] | raw == config["stain"]
    scores = json.loads((brought_run / "scores.json").read_text())
    assert {"model", "model_single_tile", "gene_mean"} <= set(scores["sections"]["B1"]["rows"])
    kept = {path.name for path in (brought_run / "bundle").iterdir()}
    assert kept == {
        "bundle.json",
        "familiarity.npz",
        "head.weights.h5",
        "single_tile_head.weights.h5",
    }
    record = bundle_file.brought_encoder(bundle_file.read(brought_run).trained_on)
    assert record is not None
    assert Path(record["source"]) == brought_run.parent / "theirs.onnx"
    assert record["parameters"] == encoders.KERNEL.size + encoders.BIAS.size
    card = (brought_run / "MODEL_CARD.md").read_text()
    assert "* Encoder: theirs.onnx, which was brought along" in card
    assert record["checksum"] in card
    assert "from H&E tiles of 32 x 32 px at 2 microns per pixel" in card
    model = bundles.load(brought_run)
    heads = sum(int(np.prod(v.shape)) for v in model.head.trainable_variables)
    assert model.n_parameters >= heads + record["parameters"]


def test_predict_gives_what_was_held_out_and_needs_the_encoders_file(
    brought_run: Path, small_tissue: Path, tmp_path: Path
) -> None:
    held = anndata.read_h5ad(brought_run / "predictions.h5ad")
    (section,) = [s for s in readers.read_cohort(small_tissue).sections if s.patient == "B"]
    places = pd.DataFrame(section.spots.centres_px, columns=["x", "y"])
    places["name"] = section.spots.names
    places.to_csv(tmp_path / "spots.csv", index=False)
    image = section.image
    assert image is not None
    # Another folder, to which the encoder did not move.
    run = shutil.copytree(brought_run, tmp_path / "elsewhere" / "run")

    def predicted() -> anndata.AnnData:
        return predicting.predict(
            PredictRequest(image, model=run, spots=tmp_path / "spots.csv", mpp=section.mpp)
        ).table

    np.testing.assert_allclose(np.asarray(predicted().X), np.asarray(held.X), atol=1e-3)
    file = brought_run.parent / "theirs.onnx"
    aside = file.rename(file.with_suffix(".aside"))
    opening.opened.cache_clear()
    try:
        with pytest.raises(InputError, match=r"'theirs.onnx', which .* is not at"):
            predicted()
        shutil.copy(aside, run / "bundle" / "theirs.onnx")
        np.testing.assert_allclose(np.asarray(predicted().X), np.asarray(held.X), atol=1e-3)
        encoders.onnx_file(run / "bundle" / "theirs.onnx", gives="vectors")
        opening.opened.cache_clear()
        with pytest.raises(InputError, match="is not the one that the model was trained on"):
            predicted()
    finally:
        aside.rename(file)


def test_what_an_onnx_encoder_cannot_be_is_said(brought_run: Path, tmp_path: Path) -> None:
    assert not {"saved_model", "tflite"} & {path.name for path in brought_run.iterdir()}
    with pytest.raises(InputError, match=r"the encoder theirs.onnx is an .onnx file, which no"):
        refusals.refuse(ExportRequest(brought_run, out=tmp_path))
    with pytest.raises(InputError, match="nothing can be exported"):
        exporting.export(bundles.load(brought_run), tmp_path / "out", parity_tiles=None)
    assert list(tmp_path.iterdir()) == []


def test_another_run_takes_it_over_with_its_tiles(brought_run: Path) -> None:
    source = sources.source(None, str(brought_run))
    config = sources.with_encoder_of(source, tiny_config())
    assert (config.tiles.tile_px, config.tiles.mpp) == (encoders.SIDE, 2)
    assert config.stain.method == "none"
    assert not source.has_autoencoder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "paper"}, "theirs.onnx gives vectors, .* `architecture` context or pooled"),
        ({"architecture": "global"}, "head of architecture 'global' reads maps"),
        ({"compare": ["paper"]}, "`compare` paper reads an encoder's maps"),
        ({"encoder": "theirs.onnx,mpp=1"}, "encoder 'theirs.onnx' does not exist"),
        ({"encoder": "EfficientNetB0"}, "does not say mpp and px"),
        ({"pretrain": "images"}, "`encoder` brings one; pass one of them"),
    ],
)
def test_what_does_not_go_with_it_is_refused_early(
    given: dict[str, object], message: str, small_tissue: Path, tmp_path: Path
) -> None:
    file = encoders.onnx_file(tmp_path / "theirs.onnx")
    asked = {"encoder": f"{file},mpp=2,pixels=imagenet", **given}
    with pytest.raises(InputError, match=message):
        refusals.refuse(EvaluateRequest(small_tissue, tmp_path / "out", **asked))  # type: ignore[arg-type]


def test_tiles_that_no_head_can_have_are_refused(tmp_path: Path) -> None:
    encoders.keras_model(side=None).save(tmp_path / "any.keras")
    source = sources.source(None, f"{tmp_path}/any.keras,px=36,mpp=1,pixels=0..1")
    with pytest.raises(InputError, match=r"any.keras': .*tile_px"):
        sources.with_encoder_of(source, tiny_config())


def test_normalised_colours_of_a_run_that_has_none_are_refused(tmp_path: Path) -> None:
    file = encoders.onnx_file(tmp_path / "theirs.onnx")
    text = f"{file},mpp=1,pixels=0..1,colours=normalised"
    none = tiny_config(stain__method="none")
    with pytest.raises(InputError, match=r'colours=normalised, and "stain.method" is none'):
        sources.with_encoder_of(sources.source(None, text), none)
    (probe,) = registry.compared([f"probe:{text}"])
    probe.refuse(tiny_config())
    with pytest.raises(InputError, match=r"`compare` probe:theirs.onnx: colours=normalised are"):
        probe.refuse(none)


def test_a_keras_encoder_goes_into_the_exports(tmp_path: Path) -> None:
    """`export` compares the files with Keras, in a new process."""
    encoders.keras_model().save(tmp_path / "own.keras")
    encoder = opening.opened(stated(f"{tmp_path}/own.keras,mpp=2,pixels=imagenet"))
    config = changed(
        tiny_config(), tiles__tile_px=encoders.SIDE, stain__method="none", regressor__factors=2
    )
    keras.utils.set_random_seed(0)
    shape, genes = (encoders.CHANNELS,), len(GENES)
    model = bundles.Bundle(
        config=config,
        panel=panel(),
        reference=stain.canonical_stains("none"),
        encoder=encoder.trunk,
        trunk=regressor.build_trunk(encoder.trunk, architecture="context"),
        head=regressor.build_head(shape, genes, config.regressor),
        single_tile_head=bundles.build_single_tile_head(shape, genes, config),
        trained_on={"brought_encoder": encoder.record},
    )
    bundles.save(model, tmp_path / "bundle")
    again = bundles.load(tmp_path / "bundle")
    tiles = np.random.default_rng(0).random((2, encoders.SIDE, encoders.SIDE, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(again.trunk(tiles)), np.asarray(model.trunk(tiles)))
    exporting.export(again, tmp_path / "out", parity_tiles=None, formats=["saved_model"])
    served = tf.saved_model.load(str(tmp_path / "out" / "saved_model" / "1"))
    levels = np.rint(tiles * 255).astype(np.uint8)
    found = served.signatures["embed"](tile=tf.constant(levels))["features"]
    pixels = (levels / np.float32(255) - [0.485, 0.456, 0.406]) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found, encoders.by_hand(pixels), rtol=1e-4)

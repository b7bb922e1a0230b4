"""Encoders that users bring: what a text states, what a file says, and what neither does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from histospace_tf.cohort import features
from histospace_tf.data_pipelines import datasets, stain
from histospace_tf.foreign_encoders import opening
from histospace_tf.foreign_encoders.stated import PIXELS, StatedEncoder, stated
from histospace_tf.vocabulary import InputError
from made import encoders

TILES = np.random.default_rng(0).random((3, encoders.SIDE, encoders.SIDE, 3), np.float32)
GIVEN = "mpp=0.5,pixels=0..1"


def features_of(text: str) -> np.ndarray:
    return np.asarray(opening.opened(stated(text)).trunk(TILES))


def as_taken(form: str) -> np.ndarray:
    mean, deviation = PIXELS[form]
    return (TILES - np.array(mean, np.float32)) / np.array(deviation, np.float32)


def test_a_text_states_all_of_an_encoder(tmp_path: Path) -> None:
    file = encoders.onnx_file(tmp_path / "uni,v2.onnx")
    assert stated(
        f"{file},px=32,mpp=0.25,pixels=0.7/0.6/0.7:0.2/0.3/0.2,colours=normalised,"
        "tokens=class+mean:5,output=maps,name=uni"
    ) == StatedEncoder(
        str(file),
        "onnx",
        "uni",
        px=32,
        mpp=0.25,
        mean=(0.7, 0.6, 0.7),
        deviation=(0.2, 0.3, 0.2),
        colours="normalised",
        tokens=(True, 5),
        output="maps",
    )
    plain = stated(f"{file}, mpp=image")
    assert (plain.name, plain.mpp, plain.px, plain.mean) == ("uni,v2.onnx", None, None, None)
    assert stated("EfficientNetB0,px=224,mpp=0.5").kind == "application"
    tokens = {text: stated(f"{file},mpp=1,tokens={text}").tokens for text in ("class", "mean")}
    assert tokens == {"class": (True, None), "mean": (False, 0)}
    assert stated(f"{file},mpp=1,tokens=class+mean").tokens == (True, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FILE", "does not say mpp of its tiles; state it, such as .*,mpp=0.5 .mpp: microns per"),
        ("EfficientNetB0", "does not say mpp and px of its tiles.*EfficientNetB0,mpp=0.5,px=224"),
        ("FILE,mmp=0.5", "no setting 'mmp'; did you mean mpp?"),
        ("FILE,mpp=0.5,mpp=1", "mpp is given twice"),
        ("FILE,mpp=0", "mpp=0; 0.05 to 50 um/px, or image, works"),
        ("FILE,mpp=0.5,px=22.4", "px=22.4; a whole number"),
        ("FILE,mpp=0.5,pixels=imagnet", "pixels=imagnet; imagenet, 0..1, .* works"),
        ("FILE,mpp=0.5,pixels=1/1:1/1", "pixels=1/1:1/1; "),
        ("FILE,mpp=0.5,pixels=0/0/0:1/1/0", "pixels=0/0/0:1/1/0; "),
        ("FILE,mpp=0.5,tokens=cls", "tokens=cls; class, mean, class"),
        ("FILE,mpp=0.5,colours=none", "colours=none; raw"),
        ("FILE,mpp=0.5,weights=random", "a .onnx file takes no weights"),
        ("FILE,mpp=0.5,name=a/b", "name=a/b; a name without '/'"),
        ("EfficientNetB0,px=224,mpp=0.5,pixels=0..1", "a Keras application takes no pixels"),
        ("EfficientNetB0,px=224,mpp=0.5,weights=absent.h5", "weights=absent.h5 is no file"),
        ("absent.onnx,mpp=0.5", "'absent.onnx' does not exist"),
        ("runs/uni,mpp=0.5", "no file or folder of that name holds one; a Keras application"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = encoders.onnx_file(tmp_path / "uni.onnx")
    with pytest.raises(InputError, match=message):
        stated(text.replace("FILE", str(file)))


@pytest.mark.parametrize("form", ["imagenet", "-1..1", "0..255"])
def test_every_form_of_file_gives_the_same_vectors(form: str, tmp_path: Path) -> None:
    """Channels first or last, maps or vectors, ONNX, Keras and SavedModel: by hand."""
    wanted = encoders.by_hand(as_taken(form))
    encoders.keras_model().save(tmp_path / "maps.keras")
    sources = [
        encoders.onnx_file(tmp_path / "maps.onnx"),
        encoders.onnx_file(tmp_path / "vectors.onnx", gives="vectors"),
        encoders.onnx_file(tmp_path / "last.onnx", channels_last=True, gives="vectors"),
        tmp_path / "maps.keras",
        encoders.saved_model(tmp_path / "saved"),
    ]
    for source in sources:
        found = features_of(f"{source},mpp=0.5,pixels={form}")
        # float32 sums of 64 places
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=str(source))


def test_tokens_are_the_first_the_mean_of_some_or_both(tmp_path: Path) -> None:
    file = encoders.onnx_file(tmp_path / "vit.onnx", gives="tokens")
    mean, ones = encoders.by_hand(TILES), np.ones((3, encoders.CHANNELS))
    text = f"{file},{GIVEN},tokens="
    places = (encoders.SIDE // 4) ** 2
    wanted = {
        "class": ones,
        "mean:1": mean,
        "mean": (places * mean + ones) / (places + 1),
        "class+mean": np.concatenate([ones, mean], axis=1),
    }
    for tokens, values in wanted.items():
        np.testing.assert_allclose(features_of(text + tokens), values, rtol=1e-4, err_msg=tokens)
    with pytest.raises(InputError, match=r"gives tokens \(n, 65, 5\); say which are its features"):
        features_of(f"{file},{GIVEN}")
    with pytest.raises(InputError, match="65 tokens; none is left from 65 on"):
        features_of(text + "mean:65")


def test_bytes_are_taken_as_levels(tmp_path: Path) -> None:
    file = encoders.onnx_file(tmp_path / "bytes.onnx", element="UINT8")
    wanted = encoders.by_hand(np.rint(TILES * 255))
    np.testing.assert_allclose(features_of(f"{file},mpp=1"), wanted, rtol=1e-4)
    with pytest.raises(InputError, match=r"takes bytes, which are pixels=0\.\.255"):
        features_of(f"{file},mpp=1,pixels=imagenet")


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    file = encoders.onnx_file(tmp_path / "two.onnx", outputs=2)
    found = features_of(f"{file},{GIVEN},output=maps")
    np.testing.assert_allclose(found, encoders.by_hand(TILES), rtol=1e-4)
    with pytest.raises(InputError, match="its outputs 'maps', 'conv', none is named; give output="):
        features_of(f"{file},{GIVEN}")
    with pytest.raises(InputError, match="there is no 'mops'"):
        features_of(f"{file},{GIVEN},output=mops")


@pytest.mark.parametrize(
    ("made", "extra", "message"),
    [
        ({"inputs": 2}, "", r"takes 2 inputs \('pixels', 'more0'\); one, the tile"),
        ({"batch": 1}, "", "takes 1 tile at a time, .* export it with a free first axis"),
        ({"gives": "cube"}, "", r"gives arrays \(n, 5, 8, 8, 1\); vectors"),
        ({"gives": "nan"}, "", "gives 10 NaN of 10 on made tiles"),
        ({"gives": "mixed"}, "", "other features beside another tile than alone"),
        ({}, ",px=64", r"takes arrays of shape \(n, 3, 32, 32\), and px=64 was given"),
        ({}, ",tokens=class", r"gives arrays \(n, 5, 8, 8\) and no tokens"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_one_line(
    made: dict[str, Any], extra: str, message: str, tmp_path: Path
) -> None:
    file = encoders.onnx_file(tmp_path / "odd.onnx", **made)
    with pytest.raises(InputError, match=message) as told:
        features_of(f"{file},{GIVEN}{extra}")
    assert "odd.onnx" in str(told.value)
    assert "\n" not in str(told.value)


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    encoders.keras_model(side=None).save(tmp_path / "any.keras")
    with pytest.raises(InputError, match=r"tiles of any size .* give px=N"):
        features_of(f"{tmp_path}/any.keras,{GIVEN}")
    with pytest.raises(InputError, match="does not say how it takes pixels; give pixels="):
        features_of(f"{tmp_path}/any.keras,mpp=0.5,px=32")
    found = features_of(f"{tmp_path}/any.keras,{GIVEN},px=32")
    np.testing.assert_allclose(found, encoders.by_hand(TILES), rtol=1e-4)


def _two_inputs(path: Path) -> None:
    tile = keras.Input((32, 32, 3))
    other = keras.Input((32, 32, 3))
    keras.Model([tile, other], keras.layers.Add()([tile, other])).save(path)


def _vectors_in(path: Path) -> None:
    taken = keras.Input((7,))
    keras.Model(taken, keras.layers.Dense(2)(taken)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"none"), "cannot be loaded by Keras"),
        (_two_inputs, "takes 2 inputs"),
        (_vectors_in, r"takes arrays of shape \(n, 7\); tiles"),
    ],
)
def test_a_keras_file_that_does_not_fit_is_one_line(
    make: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "odd.keras")
    with pytest.raises(InputError, match=message) as told:
        features_of(f"{tmp_path}/odd.keras,{GIVEN}")
    assert "\n" not in str(told.value)


def test_files_cut_off_and_unknown_names_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"none")
    for text, message in (
        (f"{tmp_path}/cut.onnx,{GIVEN}", "cannot be read as ONNX"),
        (f"{tmp_path}/saved,{GIVEN}", "cannot be loaded by TensorFlow"),
        ("EfficientNetX9,px=32,mpp=1", "Keras has no application of that name; .*EfficientNetB0"),
    ):
        with pytest.raises(InputError, match=message) as told:
            features_of(text)
        assert "\n" not in str(told.value)
    saved = encoders.saved_model(tmp_path / "whole")
    with pytest.raises(InputError, match="'serving_default', there is no 'embed'; give signature"):
        features_of(f"{saved},{GIVEN},signature=embed")


def test_without_onnxruntime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    file = encoders.onnx_file(tmp_path / "uni.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "histospace-tf\[onnx\]"'):
        features_of(f"{file},{GIVEN}")


def test_a_keras_application_has_its_own_pixels_and_says_where_its_weights_are_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VGG's preprocessing turns RGB round; its layers are cut off here to be compared by hand."""
    for name in ("VGG16", "EfficientNetB0", "MobileNetV2", "DenseNet121"):
        form = opening._keras_pixels(name)
        module = keras.applications.__dict__[name].__module__
        preprocess = __import__(module, fromlist=["preprocess_input"]).preprocess_input
        np.testing.assert_allclose(
            np.asarray(form(TILES)), preprocess(TILES * 255), rtol=1e-3, atol=1e-3
        )
    text = "MobileNetV3Small,px=32,mpp=0.5"
    encoder = opening.opened(stated(f"{text},weights=random"))
    assert "random weights" in capsys.readouterr().err
    assert encoder.trunk.output_shape == (None, 576)
    assert encoder.record["weights"] == "random"
    network = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    weights = tmp_path / "own.weights.h5"
    network.save_weights(weights)
    own = opening.opened(stated(f"{text},weights={weights}"))
    maps = np.asarray(network(TILES * 255, training=False))
    np.testing.assert_allclose(np.asarray(own.trunk(TILES)), maps.mean(axis=(1, 2)), rtol=1e-3)
    assert len(own.record["checksum"]) == 64
    weights.write_bytes(b"none")
    with pytest.raises(InputError, match=r"MobileNetV3Small' at 40 px with weights=.*own"):
        opening.opened(stated(f"MobileNetV3Small,px=40,mpp=0.5,weights={weights}"))


@pytest.mark.slow
def test_several_devices_give_the_same_features(tmp_path: Path) -> None:
    """Each replica has a copy of the encoder, whichever form it came in."""
    encoders.onnx_file(tmp_path / "maps.onnx")
    encoders.keras_model().save(tmp_path / "maps.keras")
    encoders.saved_model(tmp_path / "saved")
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["maps.keras", "maps.onnx", "saved"]


# Run as a program: TensorFlow's devices are settled once a process.
def _on_two_replicas(folder: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    tiles = np.rint(np.concatenate([TILES] * 7) * 255).astype(np.uint8)  # shares are not equal
    white = stain.canonical_stains("none")
    groups = [datasets.StainedTiles(tiles, white, white)]
    for source in sorted(folder.iterdir()):
        trunk = opening.opened(stated(f"{source},{GIVEN}")).trunk
        one, several = (
            features.tile_features(trunk, groups, symmetries=2, label="", strategy=each)
            for each in (None, strategy)
        )
        assert one.shape == (21, 2, encoders.CHANNELS)
        np.testing.assert_allclose(several, one, rtol=1e-4, err_msg=str(source))
        print(source.name)


if __name__ == "__main__":
    _on_two_replicas(Path(sys.argv[1]))

"""Images out of a TFDS dataset that was prepared on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from histospace_tf.data_pipelines import tfds_images
from histospace_tf.vocabulary import InputError
from made.pictures import read_picture


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Three images stored as dataset `small_he`."""
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="small_he",
        version="1.0.0",
        data_dir=tmp_path / "tfds",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(16, 24, 3), encoding_format="png")}
        ),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"image": images})},
        disable_shuffling=True,
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return images


def test_images_come_out_pixel_for_pixel(prepared: np.ndarray, tmp_path: Path) -> None:
    folder = tfds_images.write_images("tfds:small_he", tmp_path / "images", most=10)
    found = [read_picture(p) for p in sorted(folder.iterdir())]
    np.testing.assert_array_equal(found, prepared)


def test_no_more_images_than_asked_for(prepared: np.ndarray, tmp_path: Path) -> None:
    folder = tfds_images.write_images("tfds:small_he:train", tmp_path / "images", most=2)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("source", ["tfds:no_such_dataset_here", "tfds:small_he:no_such_split"])
def test_unknown_dataset_or_split_is_refused(
    prepared: np.ndarray, tmp_path: Path, source: str
) -> None:
    with pytest.raises(InputError, match="no such dataset is prepared"):
        tfds_images.write_images(source, tmp_path / "images", most=2)
    assert not (tmp_path / "images").exists()

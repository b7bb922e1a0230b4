"""H&E images from TensorFlow Datasets, for pre-training: `tfds:NAME` in place of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from histospace_tf import outputs
from histospace_tf.vocabulary import InputError

PREFIX = "tfds:"


def is_tfds(source: str | Path) -> bool:
    """Whether `source` names a dataset rather than a folder."""
    return str(source).startswith(PREFIX)


def write_images(source: str | Path, folder: Path, *, most: int) -> Path:
    """Writes the images of a TFDS dataset that is prepared on this machine as PNG files.

    Nothing is downloaded: prepare the dataset first (`tfds build NAME`). As in TFDS, it is in
    the folder that TFDS_DATA_DIR names or in ~/tensorflow_datasets.

    Args:
        source: "tfds:NAME" or "tfds:NAME:SPLIT"; NAME may hold a configuration and a version
            ("patch_camelyon", "name/config:1.0.0" is written "tfds:name/config/1.0.0:train").
            Without SPLIT, "train".
        folder: written completely or not at all; an existing one is used unchanged.
        most: how many images are written at most, the first ones.
    Returns:
        `folder`.
    Raises:
        InputError: the dataset is not on this machine, has no such split, or holds no images.
    """
    if folder.is_dir():
        return folder
    builder, split = _prepared(source)
    dataset = builder.as_dataset(split=split)
    total = min(most, builder.info.splits[split].num_examples)
    with outputs.whole_folder(folder) as draft:
        for number, example in enumerate(
            tqdm(dataset.take(most), total=total, desc="Reading TFDS", unit="image", delay=2)
        ):
            image = np.asarray(example["image"]) if "image" in example else None
            if image is None or image.ndim != 3 or image.dtype != np.uint8:
                raise InputError(
                    f'{source}: example {number} has no "image" of uint8 pixels; it has '
                    f"{', '.join(sorted(example))}"
                )
            colours = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_GRAY2BGR
            cv2.imwrite(str(draft / f"{number:06d}.png"), cv2.cvtColor(image, colours))
    return folder


def refuse_absent(source: str | Path) -> None:
    """Refuses a dataset that is not prepared on this machine.

    Raises:
        InputError: the dataset is not on this machine, or has no such split.
    """
    _prepared(source)


def _prepared(source: str | Path) -> tuple[Any, str]:
    """The dataset's builder and the split's name."""
    import tensorflow_datasets as tfds

    name, _, split = str(source).removeprefix(PREFIX).partition(":")
    data_dir = os.environ.get("TFDS_DATA_DIR")
    try:
        parts = name.split("/")
        if len(parts) > 1 and parts[-1][:1].isdigit():
            name = "/".join(parts[:-1]) + ":" + parts[-1]
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        builder.as_dataset(split=split or "train")
    except Exception as error:  # TFDS raises many kinds for a missing dataset, version or split
        raise InputError(
            f"{source}: no such dataset is prepared on this machine "
            f"({str(error).strip().splitlines()[0]}). `tfds build NAME` prepares one"
        ) from None
    return builder, split or "train"

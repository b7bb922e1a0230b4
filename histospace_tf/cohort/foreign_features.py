"""Vectors of all spots on an encoder that somebody brings, computed once and kept.

Such an encoder learns nothing from folds. Where it sees slides' raw colours, all folds share one
file of features beside the tiles; where it sees a fold's stain reference, the fold has its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from histospace_tf.cohort import features
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.foreign_encoders import opening
from histospace_tf.foreign_encoders.stated import StatedEncoder
from histospace_tf.vocabulary import InputError

_NO_PART = ("name", "source", "weights")  # of a record, in features: the checksum has


def of_spots(encoded: EncodedSpots, stated: StatedEncoder, record: Mapping[str, Any]) -> np.ndarray:
    """Features of every spot's tile, as it is.

    Args:
        encoded: all spots.
        stated: the encoder, which is opened only where its features are not kept already.
        record: of `opening.opened`.
    Returns:
        (n, f) float32, memory-mapped, in the order of `encoded.spots`.
    Raises:
        InputError: as `opening.opened`; a tile that the encoder makes no finite number of.
    """
    raw = stated.colours == "raw"
    folder = (encoded.spots.folder if raw else encoded.folder) / "foreign_encoders"
    folder.mkdir(parents=True, exist_ok=True)
    decides = {name: value for name, value in record.items() if name not in _NO_PART}
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    store = folder / f"{key}.npy"
    if not store.is_file():
        encoder = opening.opened(stated)
        features.tile_features(
            encoder.trunk,
            encoded.tiles(
                tile_px=encoder.px, mpp="image" if stated.mpp is None else stated.mpp, raw=raw
            ),
            symmetries=1,
            label=f"Features of {stated.name}",
            store=store,
            strategy=encoded.strategy,
        )
    values = np.load(store, mmap_mode="r")[:, 0]
    _refuse_gaps(values, encoded, stated)
    return values


def _refuse_gaps(values: np.ndarray, encoded: EncodedSpots, stated: StatedEncoder) -> None:
    first = encoded.spots.first
    for number, section in enumerate(encoded.spots.sections):
        whole = np.isfinite(values[first[number] : first[number + 1]]).all(axis=1)
        if not whole.all():
            spot = section.spots.names[int(np.argmin(whole))]
            raise InputError(
                f"encoder {stated.source!r} gives no finite numbers for {(~whole).sum()} of "
                f"{len(whole)} tiles of section {section.name!r} (first: spot {spot!r})"
            )

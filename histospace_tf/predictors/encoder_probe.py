"""`probe:ENCODER`: PCA and ridge on an encoder that somebody brings, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from histospace_tf.foreign_encoders import stated as texts
from histospace_tf.foreign_encoders.stated import StatedEncoder
from histospace_tf.predictors.probe import PREFIX, Probe
from histospace_tf.vocabulary import InputError

if TYPE_CHECKING:
    from histospace_tf.cohort.encoders import EncodedSpots
    from histospace_tf.config import Config

FORM = PREFIX + texts.FORM  # on a command line


class EncoderProbe(Probe):
    """A probe of one encoder; `open` loads it, before any long work."""

    def __init__(self, stated: StatedEncoder) -> None:
        super().__init__(stated.name, self._features)
        self.stated = stated

    def refuse(self, settings: Config) -> None:
        """Refuses normalised colours where the run changes none."""
        if self.stated.colours == "normalised" and settings.stain.method == "none":
            raise InputError(
                f"`compare` {self.name}: colours=normalised are those of the run, which leaves "
                "slides' colours as they are; colours=raw says so"
            )

    def open(self) -> None:
        """Opens the encoder and keeps what the manifest says of it.

        Raises:
            InputError: as `opening.opened`.
        """
        from histospace_tf.foreign_encoders import opening  # with TensorFlow

        self.about = {"encoder": opening.opened(self.stated).record}

    def _features(self, encoded: EncodedSpots) -> np.ndarray:
        from histospace_tf.cohort import foreign_features  # with TensorFlow

        return foreign_features.of_spots(encoded, self.stated, self.about["encoder"])


def named(text: str) -> EncoderProbe:
    """The probe that `--compare` names.

    Args:
        text: FORM.
    Raises:
        InputError: as `stated`; no encoder after the colon.
    """
    encoder = text.removeprefix(PREFIX)
    if not encoder:
        raise InputError(f"`compare` {text!r} names no encoder; {FORM} is the form")
    return EncoderProbe(texts.stated(encoder))

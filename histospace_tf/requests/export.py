"""What may be asked of a model that is to be written in other forms."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from histospace_tf.request_options import OnePath, Options, RunOrName, again, option
from histospace_tf.requests.prediction import ConvertRequest, run_of_model

if TYPE_CHECKING:
    from histospace_tf.request_options import Given

    Formats = Given[Sequence[str], tuple[str, ...]]
else:
    Formats = Annotated[Sequence[str], lambda names: tuple(names or _formats())]


def _formats() -> list[str]:
    from histospace_tf.exports import parity

    return list(parity.FORMATS)


class ExportRequest(Options):
    """Write a model as SavedModel, TensorFlow Lite and ONNX, and check each."""

    model: RunOrName = option(
        help="Run folder of fit, or a packaged model's name.", flag="RUN", kw_only=False
    )
    out: OnePath = option(help="Folder for a folder a format.", is_required=True)
    formats: Formats = option(
        default=(),
        help="What to write.",
        unset="all; onnx needs the extra onnx",
        legal=_formats,
        flag="--format",
    )
    keep_all: bool = option(
        default=False, help="Write .tflite variants that lose over 0.01 of mean r, too."
    )
    force: bool = again(ConvertRequest, "force")

    run = functools.cached_property(run_of_model)

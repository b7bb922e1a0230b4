"""What may be asked for: one frozen dataclass a verb, one field an option.

An option's type, default, legal values, unit and help text stand in its field and nowhere else (see
`request_options`). A request is checked by `refusals.refuse` before TensorFlow loads, and can be
pickled.
"""

from __future__ import annotations

import functools
import re

from histospace_tf.requests.bulk import BulkRequest
from histospace_tf.requests.data import (
    CheckRequest,
    NormalizeRequest,
    SimulateRequest,
    TissueRequest,
)
from histospace_tf.requests.export import ExportRequest
from histospace_tf.requests.prediction import (
    ConvertRequest,
    FeaturesRequest,
    PredictRequest,
    PredictSlidesRequest,
    ViewRequest,
)
from histospace_tf.requests.training import EvaluateRequest, FitRequest, ScoreRequest

EVERY = (
    FitRequest,
    BulkRequest,
    EvaluateRequest,
    ScoreRequest,
    PredictRequest,
    PredictSlidesRequest,
    ConvertRequest,
    ViewRequest,
    FeaturesRequest,
    ExportRequest,
    CheckRequest,
    TissueRequest,
    NormalizeRequest,
    SimulateRequest,
)
__all__ = [*(request.__name__ for request in EVERY), "with_flags"]


@functools.cache
def _flags() -> dict[str, str]:
    """The first class that has an argument says its flag."""
    return {each.name: each.on_command_line for kind in reversed(EVERY) for each in kind.listed()}


def with_flags(text: str) -> str:
    """`text` for the command line: arguments between backquotes, alone or with a value (`out=RUN`),
    become flags."""

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        return match[0] if name not in _flags() else " ".join(filter(None, [_flags()[name], value]))

    return re.sub(r"`(\w+)(?:=(\w+))?`", flag, text)

"""What may be asked for: one frozen dataclass a verb, one field an option.

An option's type, default, legal values, unit and help text stand in its field and nowhere else (see
`request_options`). A request is checked by `refusals.refuse` before TensorFlow loads, and can be
pickled.
"""

from histospace_tf import request_options
from histospace_tf.requests.data import CheckRequest, NormalizeRequest, SimulateRequest
from histospace_tf.requests.prediction import ConvertRequest, ExportRequest, PredictRequest
from histospace_tf.requests.training import EvaluateRequest, FitRequest, ScoreRequest

EVERY = (
    FitRequest,
    EvaluateRequest,
    ScoreRequest,
    PredictRequest,
    ConvertRequest,
    ExportRequest,
    CheckRequest,
    NormalizeRequest,
    SimulateRequest,
)
__all__ = [*(request.__name__ for request in EVERY), "with_flags"]


def with_flags(text: str) -> str:
    """`text` for the command line: arguments between backquotes become flags."""
    return request_options.with_flags(text, EVERY)

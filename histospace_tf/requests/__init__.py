"""What may be asked for: one frozen dataclass a verb, one field an option.

An option's type, default, legal values, unit and help text stand in its field and nowhere else (see
`fields`). `refusals.refuse` checks a request before TensorFlow loads. A request can be pickled.
"""

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
__all__ = [request.__name__ for request in EVERY]

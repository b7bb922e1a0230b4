"""What stands for the work of another process."""

from __future__ import annotations

import os
from typing import Any

from histospace_tf.requests import PredictRequest


def ends_on_b(one: PredictRequest) -> dict[str, Any]:
    """An outcome; the slide "b" ends its process, as the system does where memory runs out."""
    if one.slide.stem == "b":
        os._exit(9)
    return {"state": "predicted", "why": ""}

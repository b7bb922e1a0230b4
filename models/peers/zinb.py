"""Zero-inflated negative binomial counts: their log-likelihood, in Keras' operations.

A count is 0 with probability `dropout`; else it is negative binomial with a mean and a dispersion
d, of variance mean + mean^2 / d. Source: Eraslan et al., Single-cell RNA-seq denoising using a deep
count autoencoder, Nature Communications 10:390, 2019; bounds as in github.com/biomed-AI/Hist2ST,
NB_module.py.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

MEANS = (1e-5, 1e6)  # bounds
DISPERSIONS = (1e-4, 1e4)
_TINY = 1e-10
# Stirling's series is used from here on; below it, after as many steps of the recurrence.
_FROM = 8


@keras.saving.register_keras_serializable(package="histospace_tf")
def bounded_exp(x: Any) -> Any:
    """exp(x) within MEANS; its gradient is finite everywhere."""
    return ops.exp(ops.clip(x, *(math.log(bound) for bound in MEANS)))


@keras.saving.register_keras_serializable(package="histospace_tf")
def bounded_softplus(x: Any) -> Any:
    """log(1 + exp(x)) within DISPERSIONS."""
    return ops.clip(ops.softplus(x), *DISPERSIONS)


def log_gamma(x: Any) -> Any:
    """log of the gamma function of x > 0.

    log(sqrt(2 pi)) + (z - 1/2) log(z) - z + 1/(12 z) - 1/(360 z^3) + 1/(1260 z^5), the next term
    being below 3e-10 from z = 8 on; a smaller x is raised by gamma(x) = gamma(x + 1) / x.
    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 6.1.15 and 6.1.41.
    """
    is_small = x < _FROM
    below = ops.minimum(x, _FROM)  # keeps the product finite where it is not used
    product = below
    for step in range(1, _FROM):
        product = product * (below + step)
    z = ops.where(is_small, below + _FROM, x)
    inverse = 1 / z
    square = inverse * inverse
    tail = inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    series = 0.5 * math.log(2 * math.pi) + (z - 0.5) * ops.log(z) - z + tail
    return series - ops.where(is_small, ops.log(product), 0.0)


def negative_log_likelihood(counts: Any, mean: Any, dispersion: Any, dropout: Any) -> Any:
    """Of each count, the negative log of its probability.

    Args:
        counts: at least 0. mean: above 0, or 0 of a spot without counts.
        dispersion: above 0. dropout: from 0 to 1.
    Returns:
        Of the arguments' common shape.
    """
    missing = ops.log1p(mean / dispersion)  # -log of the share d / (d + mean)
    positive = (
        log_gamma(dispersion)
        + log_gamma(counts + 1)
        - log_gamma(counts + dispersion)
        + (dispersion + counts) * missing
        + counts * (ops.log(dispersion) - ops.log(mean + _TINY))
        - ops.log(1 - dropout + _TINY)
    )
    zero = -ops.log(dropout + (1 - dropout) * ops.exp(-dispersion * missing) + _TINY)
    return ops.where(counts > 0, positive, zero)

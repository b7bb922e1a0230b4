"""Networks that learn from slides with bulk expression alone: HE2RNA's and hist2RNA's.

A slide is all tissue tiles of its grid, as features of a frozen encoder. This module is read
without TensorFlow.
"""

from __future__ import annotations

ARCHITECTURES = ("he2rna", "hist2rna")
WITH_TILE_SCORES = ("he2rna",)  # the others see the mean over a slide's tiles
LEAST_PATIENTS = 3  # one is left out, and inner groups of the others choose epochs

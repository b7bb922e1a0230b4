"""Between which values a gene lies at each place of a prediction, as layers beside it.

layers["lower"], layers["upper"]    (n, g) float32 in var["unit"]: the prediction less and plus the
                                    gene's width, of `scores.intervals`; lower is 0 at least, as
                                    measured values are; NaN of a gene that no held-out spot had
uns["histospace_tf"]["intervals"]   what they are from and what they reached, in words
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np

from histospace_tf import bundle_file
from histospace_tf.scores import intervals
from histospace_tf.vocabulary import InputError


def refuse(level: float | None, run: Path) -> None:
    """Refuses intervals that a run cannot give.

    Args:
        level: share of values that they should hold; None: none are asked for.
        run: folder of a run or of its bundle.
    Raises:
        InputError: another level, or a run without intervals.csv.
    """
    if level is None:
        return
    if level not in intervals.LEVELS:
        known = ", ".join(f"{one:g}" for one in intervals.LEVELS)
        raise InputError(f"`intervals` {level:g}: widths are kept of {known} of a gene's values")
    folder = bundle_file.scored(run)
    if not (folder / intervals.FILE).is_file():
        raise InputError(
            f"`intervals`: {str(folder)!r} has no {intervals.FILE}, which `fit` with "
            "held-out spots, or with `evaluations`, writes"
        )


def add(table: anndata.AnnData, run: Path, level: float) -> None:
    """Adds them to a prediction.

    Raises:
        InputError: as `intervals.read` and `intervals.widths`.
    """
    known = intervals.read(bundle_file.scored(run) / intervals.FILE)
    width = intervals.widths(known, [str(gene) for gene in table.var_names], level)
    values, half = np.asarray(table.X), width.to_numpy(np.float32)
    table.layers["lower"] = np.maximum(values - half, 0).astype(np.float32)
    table.layers["upper"] = np.maximum(values + half, 0).astype(np.float32)
    table.uns["histospace_tf"]["intervals"] = intervals.worth(known, level)

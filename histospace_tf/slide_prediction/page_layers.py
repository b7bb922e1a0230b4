"""What a page of a slide can show, each by its name and as a map: the genes of X."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from histospace_tf.scores import gene_table

VALUE_BYTES = 12_000_000  # of all values of a page, before base64; what is beyond is left out


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """What is chosen by name and drawn as a map.

    name: as it is shown. key: its column in a table that is downloaded. unit: of its values.
    trust: of `gene_table.TRUST`. r: held out; NaN where not known. values: (n,) float64, NaN where
    nothing was predicted.
    """

    name: str
    key: str
    unit: str
    trust: str
    r: float
    values: np.ndarray


def layers_of(table: anndata.AnnData) -> list[Layer]:
    """Everything that a page can show of a prediction, most trusted first, then by r and name."""
    var = table.var
    known = "trust" in var
    trust = var["trust"].astype(str) if known else pd.Series(gene_table.UNKNOWN, index=var.index)
    r = var["gene_r"] if "gene_r" in var else pd.Series(np.nan, index=var.index)
    symbols = var["symbol"] if "symbol" in var else pd.Series("", index=var.index)
    values = np.asarray(table.X, np.float64)
    layers = [
        Layer(
            name=f"{symbol} ({gene})" if symbol and symbol != gene else str(gene),
            key=str(gene),
            unit=str(unit),
            trust=str(word),
            r=float(each_r),
            values=column,
        )
        for gene, symbol, unit, word, each_r, column in zip(
            var.index, symbols, var["unit"], trust, r, values.T, strict=True
        )
    ]
    order = {word: place for place, word in enumerate(gene_table.TRUST)}

    def rank(layer: Layer) -> tuple[int, float, str]:
        r = layer.r if np.isfinite(layer.r) else -2.0
        return order.get(layer.trust, len(order)), -r, layer.name

    return sorted(layers, key=rank)


def fitting(layers: Sequence[Layer], first: Sequence[str], *, places: int) -> list[Layer]:
    """The layers that one page has room for, in their order; those whose key is in `first` stay."""
    room = max(1, VALUE_BYTES // max(1, places))
    wanted = sorted(layers, key=lambda layer: layer.key not in first)[:room]
    return [layer for layer in layers if layer in wanted]

"""What a page of a slide can show, each by its name and as a map: genes, and sets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from histospace_tf.scores import gene_sets, gene_table

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

    @property
    def is_set(self) -> bool:
        """Whether it is a score of a gene set."""
        return self.unit == gene_sets.UNIT


def layers_of(table: anndata.AnnData) -> list[Layer]:
    """What a page can show of a prediction: sets, then genes; most trusted first, then by r.

    Args:
        table: a prediction; where a row of var has the unit of gene sets, it is one.
    """
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
            trust=str(word) if word in gene_table.TRUST else gene_table.UNKNOWN,
            r=float(each_r),
            values=column,
        )
        for gene, symbol, unit, word, each_r, column in zip(
            var.index, symbols, var["unit"], trust, r, values.T, strict=True
        )
    ]
    order = {word: place for place, word in enumerate(gene_table.TRUST)}

    def rank(layer: Layer) -> tuple[bool, int, float, str]:
        r = layer.r if np.isfinite(layer.r) else -2.0
        return not layer.is_set, order[layer.trust], -r, layer.name

    return sorted(layers, key=rank)


def fitting(layers: Sequence[Layer], first: Sequence[str], *, places: int) -> list[Layer]:
    """The layers that one page has room for, in their order; those whose key is in `first` stay."""
    room = max(1, VALUE_BYTES // max(1, places))
    named = set(first)
    wanted = sorted(layers, key=lambda layer: layer.key not in named)[:room]
    kept = {layer.key for layer in wanted}
    return [layer for layer in layers if layer.key in kept]

"""A prediction in memory, for tests of what is written from it."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd

from made.tissue import GENES, he_picture


def prediction(*, places: str = "grid", mpp: float | None = 1.0, n: int = 6) -> anndata.AnnData:
    """As `one_slide.predict_slide` makes it: `n` places on a made slide."""
    rng = np.random.default_rng(0)
    metadata: dict[str, str | float] = {"source_image": "slide.png", "places": places}
    if mpp is not None:
        metadata["mpp"] = mpp
    return anndata.AnnData(
        X=rng.uniform(0, 3, (n, len(GENES))).astype(np.float32),
        obs=pd.DataFrame(index=[f"tile{i}" for i in range(n)]),
        var=pd.DataFrame({"unit": "some unit"}, index=list(GENES)),
        obsm={"spatial": np.array([(60.0 + 40 * (i % 3), 50.0 + 40 * (i // 3)) for i in range(n)])},
        uns={
            "spatial": {
                "slide": {
                    "images": {"hires": he_picture()},
                    "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 40.0},
                    "metadata": metadata,
                }
            }
        },
    )


def with_trust(table: anndata.AnnData) -> anndata.AnnData:
    """`table` with a run's verdict on its four genes: the second and the last are trusted."""
    table.var["trust"] = ["no", "yes", "weak", "yes"]
    table.var["gene_r"] = [0.0, 0.5, 0.15, 0.4]
    return table

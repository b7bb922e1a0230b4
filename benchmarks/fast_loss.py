"""What `predict --fast` costs and saves: one symmetry in place of eight, on held-out sections.

    python benchmarks/fast_loss.py her2st eval/folds/B4 eval/folds/C4

Each RUN, a fold of `evaluate` or a run of `fit`, predicts the spots of the sections that it held
out, as `predict --spots` does, with all its symmetries and with one. Prints Markdown: mean r per
gene of both, the largest change of one gene's r, the largest difference of any value beside the
deviation of all, and how many times the processor seconds are (the network's trace included).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import anndata
import numpy as np
import pandas as pd

from histospace_tf import bundle
from histospace_tf.data_pipelines import readers, slides
from histospace_tf.scores import metrics
from histospace_tf.slide_prediction.one_slide import predict_slide
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import Section


def both(
    section: Section, spots: Path, model: bundle.Bundle
) -> tuple[np.ndarray, np.ndarray, float]:
    """Predictions with all symmetries and with one, and the ratio of their processor seconds."""
    assert section.image is not None
    found, seconds = [], []
    with slides.open_slide(section.image, mpp=section.mpp) as slide:
        for fast in (False, True):
            start = time.process_time()
            table = predict_slide(slide, model, where=Where(spots), fast=fast)
            seconds.append(time.process_time() - start)
            found.append(np.asarray(table.X))
    return found[0], found[1], seconds[0] / seconds[1]


def main() -> None:
    """Prints a row a held-out section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="what the runs were trained on")
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    sections = {section.name: section for section in readers.read_cohort(given.data).sections}
    print("| section | spots | gene_r, all | gene_r, one | worst gene | difference | time |")
    print("|---|---|---|---|---|---|---|")
    for run in given.runs:
        model = bundle.load(run)
        held = anndata.read_h5ad(run / "predictions.h5ad")
        for name in held.obs["section"].unique():
            part = held[held.obs["section"] == name]
            measured = np.asarray(part.layers["measured"])
            places = pd.DataFrame(part.obsm["spatial"], columns=["pixel_x", "pixel_y"])
            with tempfile.TemporaryDirectory() as folder:
                table = Path(folder) / "spots.csv"
                places.to_csv(table, index=False)
                every, one, ratio = both(sections[str(name)], table, model)
            each = metrics.gene_r_each(every, measured), metrics.gene_r_each(one, measured)
            print(
                f"| {name} | {len(measured)} | {metrics.gene_r(every, measured):.4f} | "
                f"{metrics.gene_r(one, measured):.4f} | {np.nanmin(each[1] - each[0]):+.3f} | "
                f"{np.abs(one - every).max():.2f} (of {every.std():.2f}) | {ratio:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

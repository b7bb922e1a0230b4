"""A model and pictures for the on-device example, and the check of what it gave.

    python on_device.py make FOLDER     tflite/, tile.png, image.png and what the package predicts
    python on_device.py check FOLDER    tile.csv and image.csv, which the example wrote, against it

Between the two, examples/on_device/predict.py runs in an environment without TensorFlow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def make(folder: Path) -> None:
    from histospace_tf import exporting
    from histospace_tf.data_pipelines import slides
    from histospace_tf.slide_prediction.one_slide import predict_slide
    from histospace_tf.slide_prediction.places import Where
    from made.bundles import device_bundle
    from made.exports import tiled_picture

    bundle = device_bundle()
    exporting.export(
        bundle, folder, parity_tiles=None, formats=["tflite"], keep_all=True, timed=False
    )
    for name, tiles in (("tile", 1), ("image", 3)):
        file = folder / f"{name}.png"
        centres = tiled_picture(file, tiles=tiles)
        centres.to_csv(folder / f"{name}_places.csv", index=False)
        with slides.open_slide(file, mpp=bundle.config.tiles.mpp) as slide:
            table = predict_slide(slide, bundle, where=Where(folder / f"{name}_places.csv"))
        pd.DataFrame(table.X, columns=table.var_names).to_csv(folder / f"{name}_right.csv")


def check(folder: Path) -> None:
    for name in ("tile", "image"):
        right = pd.read_csv(folder / f"{name}_right.csv", index_col=0)
        got = pd.read_csv(folder / f"{name}.csv")
        np.testing.assert_allclose(got[right.columns], right, atol=0.01)
        print(f"{name}: {len(got)} row(s), as the package predicts within 0.01")


{"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))

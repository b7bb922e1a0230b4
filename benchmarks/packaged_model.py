"""Makes the packaged model anew: two evaluations, the fit on everything, models/pretrained/NAME/.

    python benchmarks/packaged_model.py her2st her2st_counts breast_he --work DIR

her2st: HER2ST's imaged sections. her2st_counts: its other sections' counts, which join levels and
gene factors. breast_he: H&E images for the autoencoder, cut at the scale that the model works at.
What stands finished in DIR is not made again. About an hour on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import histospace_tf
from histospace_tf import outputs, packaged
from histospace_tf.reports import model_card, packaged_models

NAME = packaged.DEFAULT
# What a run folder holds that the package keeps.
KEPT = (
    "bundle",
    "baselines.npz",
    "genes.csv",
    "intervals.csv",
    "evaluations.json",
    "MODEL_CARD.md",
    "manifest.json",
    "tflite/histospace_dynamic.tflite",
)
# The images are scans at 40x. At the preset's 1.38 um/px one of 512 px holds no tile of 128 px.
SETTINGS = {"autoencoder": {"images_mpp": 0.25, "tile_px": 64}}
SOURCES = (
    "Licence of that data: the Zenodo record states it; it could not be read when this card was "
    "written (others quote CC BY 4.0). Confirm it there, and cite the paper.",
    "Images of the autoencoder: Naylor et al., IEEE TMI 2018 (50 of triple-negative breast cancer, "
    "Zenodo 2579118, CC BY 4.0); BreCaHAD, Aksac et al., BMC Research Notes 2019 (30, CC BY 4.0); "
    "BCSS, Amgad et al., Bioinformatics 2019 (3, CC0).",
    "What the autoencoder's training is worth: tiles were cut at the scale of use, and encoders "
    "that were never trained score as well, gene_r 0.284 to 0.303 by seed where sections are held "
    "out (docs/accuracy.md).",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("her2st", type=Path)
    parser.add_argument("her2st_counts", type=Path)
    parser.add_argument("breast_he", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the three runs")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    settings = given.work / "settings.json"
    settings.write_text(json.dumps(SETTINGS, indent=1))
    shared = {
        "counts": [given.her2st_counts],
        "pretrain": given.breast_he,
        "config": settings,
        "resume": True,
    }
    evaluations = []
    for split in ("patient", "section"):  # the first decides which genes are trusted
        folder = given.work / f"evaluation_by_{split}"
        if not folder.is_dir():
            histospace_tf.evaluate(
                given.her2st, folder, split=split, with_complexities=False, **shared
            )
        evaluations.append(folder)
    run = given.work / NAME
    if not run.is_dir():
        result = histospace_tf.fit(
            given.her2st,
            run,
            no_hold_out=True,
            evaluations=evaluations,
            **shared,
        )
        print(result.summary())
    model_card.write(run, name=NAME, sources=SOURCES)
    with outputs.whole_folder(packaged.FOLDER / NAME, force=True) as draft:
        for name in KEPT:
            kept = draft / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (run / name).is_dir() else shutil.copy)(run / name, kept)
        record = json.loads((draft / "manifest.json").read_text())
        del record["request"]  # paths of the machine that it was made on
        (draft / "manifest.json").write_text(json.dumps(record, indent=1))
    for model in packaged_models.models():
        print(model.summary())


if __name__ == "__main__":
    main()

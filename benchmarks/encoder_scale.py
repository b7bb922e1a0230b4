"""What an encoder's training is worth, at equal scale and on equal tiles (docs/accuracy.md).

    python benchmarks/encoder_scale.py her2st --pretrain breast_he --work DIR

Encoders that were never trained, trained on the images pixel for pixel, trained on the images at
the scale that they work at, and trained on each fold's own training sections. The same tiles,
stain reference, head and ridge for all; every section, and every patient, is left out in turn.
Encoders, features and finished rows stay in DIR and are read again. Prints Markdown. About half an
hour on 2 cores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import distribution, outputs, presets
from histospace_tf.cohort import encoders, paired, plans, pretraining, reading, sides
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.preparing import PreparedSection
from histospace_tf.cohort.pretraining import PretrainingTiles, TrainedEncoder
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import datasets, readers, splits
from histospace_tf.folds import held_out_predictions
from histospace_tf.models import autoencoder
from histospace_tf.predictors import ours
from histospace_tf.scores import metrics
from histospace_tf.training import Session
from histospace_tf.vocabulary import StainReference

SCAN_MPP = 0.25  # of the images: 40x
SMALL_TILE_PX = 64  # an image of 512 px at SCAN_MPP holds no tile of 128 px at the preset's scale
RECONSTRUCTED = 100  # tiles of each section


@dataclasses.dataclass(frozen=True)
class Row:
    """An encoder.

    images: "breast", "sections" (the training side's own tiles) or "" (never trained).
    mpp: of the breast images, None: cut pixel for pixel.
    """

    title: str
    images: str = ""
    mpp: float | None = None
    tile_px: int = 128
    seed: int = 0


ROWS = (
    *(Row(f"never trained, seed {seed}", seed=seed) for seed in range(3)),
    *(Row(f"breast images, pixel for pixel, seed {s}", "breast", seed=s) for s in range(2)),
    *(
        Row(f"breast images at 1.38 um/px, seed {s}", "breast", SCAN_MPP, SMALL_TILE_PX, s)
        for s in range(2)
    ),
    Row("each fold's own tiles, 128 px", "sections"),
    Row("each fold's own tiles, 64 px", "sections", tile_px=SMALL_TILE_PX),
)


def file_name(row: Row, fold: splits.Fold | None) -> str:
    """Of what is kept of a row, and of a fold where it has an encoder of its own."""
    return "_".join([outputs.file_name(row.title), *(() if fold is None else fold.held_out)])


class Bench:
    """Data and tiles, and encoders made when a row first needs them."""

    def __init__(self, data: Path, pretrain: Path, work: Path) -> None:
        self.settings = changed(presets.preset("recommended"), regressor__solver="ridge")
        self.pretrain, self.work = pretrain, work
        self.session = Session(distribution.strategy("single"), 0, True, work / "checkpoints")
        sections = reading.usable_sections(readers.read_cohort(data), self.settings)
        self.cut: dict[int, PairedSpots] = {}
        for tile_px in (128, SMALL_TILE_PX):
            settings = changed(self.settings, autoencoder__tile_px=tile_px)
            spots = PairedSpots.of(sections, settings)
            folder = work / f"tiles_{tile_px}"
            every = list(range(len(sections)))
            share = paired.pretrain_share(1, settings)
            self.cut[tile_px] = paired.cut_tiles(
                spots, settings, folder, pretrain_on=every, share=share
            )
        self.spots = self.cut[128]
        index = self.spots.index
        self.folds = {by: plans.outer_folds(index, by) for by in ("section", "patient")}

    def reference(self) -> StainReference:
        """Of all rows: the breast images'."""
        return pretraining.collect_tiles(self.settings, self.pretrain, []).reference

    def settings_of(self, row: Row) -> Config:
        """The preset with the row's autoencoder."""
        return changed(
            self.settings,
            seed=row.seed,
            autoencoder__tile_px=row.tile_px,
            autoencoder__images_mpp=row.mpp,
        )

    def tiles(self, row: Row, fold: splits.Fold | None) -> PretrainingTiles:
        """What the row's autoencoder learns from."""
        settings = self.settings_of(row)
        if row.images == "breast":
            return pretraining.collect_tiles(settings, self.pretrain, [])
        assert fold is not None
        return pretraining.collect_tiles(settings, None, self.learners(row, fold, settings))

    def learners(self, row: Row, fold: splits.Fold, settings: Config) -> list[PreparedSection]:
        spots = self.cut[row.tile_px]
        numbers = spots.sections_in(fold.train)
        share = paired.pretrain_share(len(numbers), settings)
        return [
            dataclasses.replace(ready, pretrain_tiles=ready.pretrain_tiles[:share])
            for ready in (spots.prepared[number] for number in numbers)
        ]

    def encoder(self, row: Row, fold: splits.Fold | None) -> tuple[keras.Model, dict[str, Any]]:
        """The row's autoencoder, trained on first call, and what it was trained on."""
        name = file_name(row, fold)
        weights, note = self.work / f"{name}.weights.h5", self.work / f"{name}.json"
        keras.utils.set_random_seed(row.seed)
        model = autoencoder.build_autoencoder(self.settings.autoencoder.variant)
        if not row.images:
            return model, {}
        if not note.is_file():
            settings, tiles = self.settings_of(row), self.tiles(row, fold)
            # As many pixels as the preset sees, whatever the tile's side.
            pixels = pretraining.TILES_SEEN * (128 / row.tile_px) ** 2
            epochs = max(1, round(pixels / (0.9 * sum(map(len, tiles.groups)))))
            settings = changed(settings, autoencoder__epochs=epochs)
            made = pretraining.pretrain_autoencoder(
                tiles.groups, tiles.sources, settings, self.session.within(name)
            )
            made.autoencoder.save_weights(weights)
            facts = {"tiles": made.tiles, "epochs": len(made.history), "mse": made.validation_loss}
            note.write_text(json.dumps(outputs.json_safe(facts)))
        model.load_weights(weights)
        return model, json.loads(note.read_text())

    def encoded(
        self, row: Row, fold: splits.Fold | None, model: keras.Model, reference: StainReference
    ) -> EncodedSpots:
        """All spots as the row's encoder shows them."""
        name = file_name(row, fold)
        encoder = TrainedEncoder(autoencoder.encoder_of(model), reference, [], {})
        return encoders.encoded(encoder, self.spots, self.settings, self.work / f"features_{name}")


def reconstruction(
    bench: Bench, model: keras.Model, reference: StainReference, numbers: list[int]
) -> float:
    """Mean squared error on spots' tiles at the scale of use, on [0, 1]."""
    groups = paired.stained_tiles(bench.spots, reference)
    rng = np.random.default_rng(0)
    errors = []
    for number in numbers:
        rows = np.sort(rng.choice(len(groups[number]), RECONSTRUCTED, replace=False))
        shown = datasets.normalised_rows([groups[number]], rows).astype(np.float32) / 255
        for part in np.array_split(shown, 10):
            errors.append(np.mean((np.asarray(model(part, training=False)) - part) ** 2))
    return float(np.mean(errors))


def scored(bench: Bench, row: Row, reference: StainReference) -> dict[str, Any]:
    """Both correlations of every section, by what was left out."""
    found: dict[str, Any] = {"section": {}, "patient": {}, "mse": []}
    shared = None
    if row.images != "sections":
        model, found["trained_on"] = bench.encoder(row, None)
        shared = bench.encoded(row, None, model, reference)
        every = list(range(len(bench.spots.sections)))
        found["mse"].append(reconstruction(bench, model, reference, every))
    for by, folds in bench.folds.items():
        for fold in folds:
            through = shared
            if through is None:
                model, found["trained_on"] = bench.encoder(row, fold)
                through = bench.encoded(row, fold, model, reference)
                held = bench.spots.sections_in(fold.test)
                found["mse"].append(reconstruction(bench, model, reference, held))
            genes = plans.training_panel(bench.spots, fold, bench.settings)
            training = sides.training_spots(through, fold, genes, bench.settings)
            head = ours.Model().fit(training, bench.settings, bench.session.within("head"))
            for held_out in held_out_predictions.predicted(
                through, fold.test, {"model": head}, training.panel
            ):
                values = held_out.predictions["model"]
                found[by][held_out.name] = {
                    "gene_r": metrics.gene_r(values, held_out.measured),
                    "spot_r": metrics.spot_r(values, held_out.measured),
                }
    found["mse"] = float(np.mean(found["mse"]))
    return found


def line(title: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    cells = []
    for by in ("section", "patient"):
        sections = found[by]
        mean = {key: np.mean([s[key] for s in sections.values()]) for key in ("gene_r", "spot_r")}
        cells += [f"**{mean['gene_r']:.3f}**", f"{mean['spot_r']:.3f}"]
        if by == "section":
            cells += [f"{s['gene_r']:.3f}" for s in sections.values()]
    facts = found.get("trained_on", {})
    cells += [str(facts.get("tiles", "")), str(facts.get("epochs", "")), f"{found['mse']:.4f}"]
    return f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pretrain", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.data, given.pretrain, given.work)
    names = " | ".join(section.name for section in bench.spots.sections)
    print(
        f"| encoder | sections: gene_r | spot_r | {names} | patients: gene_r | spot_r | tiles "
        "| epochs | MSE at 1.38 um/px |"
    )
    print("|---|" + "---|" * (len(bench.spots.sections) + 7))
    kept = given.work / "rows.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    reference = bench.reference()
    for row in ROWS:
        if row.title not in known:
            with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink):
                known[row.title] = outputs.json_safe(scored(bench, row, reference))
            kept.write_text(json.dumps(known, indent=1))
        print(line(row.title, known[row.title]), flush=True)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()

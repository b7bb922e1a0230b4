"""The ladder of docs/accuracy.md: what every step is worth on sections left out in turn.

    python benchmarks/ladder.py her2st --pretrain breast_he --work DIR

The autoencoders are trained on the images alone. Each step is one head for every section of DATA,
fitted on the other sections with everything chosen on inner groups of theirs, by the code of
`evaluate`; steps build on each other, or leave one thing out of the preset. Encoders, features and
finished steps stay in DIR and are read again. Prints Markdown. About an hour on 2 cores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from histospace_tf.cohort import reading

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import distribution, outputs, presets
from histospace_tf.cohort import encoders, paired, plans, pretraining, sides
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import readers, splits
from histospace_tf.folds import held_out_predictions
from histospace_tf.models import autoencoder
from histospace_tf.predictors import baselines, ours
from histospace_tf.presets import with_architecture
from histospace_tf.scores import metrics
from histospace_tf.training import Session

PAPER_MSE = {1: 0.0048, 2: 0.0034, 3: 0.002}
# Variant 1's sigmoid saturates for good at the preset's rate, so all three learn at half of it.
AUTOENCODERS = {"epochs": 1, "tiles": 2000, "learning_rate": 5e-4}
HEAD_EPOCHS = 8


@dataclasses.dataclass(frozen=True)
class Step:
    """One row: a configuration, and which encoder it stands on.

    encoder: "3" and the other variants' numbers, or "untrained".
    """

    title: str
    settings: Config
    encoder: str = "3"


def steps() -> list[Step]:
    """The rows, in order."""
    preset = presets.preset("recommended")
    chosen = {
        "regressor__epochs": HEAD_EPOCHS,
        "regressor__patience": HEAD_EPOCHS,
        "regressor__epoch_choice": "inner",
        "regressor__inner_folds": 1,
    }
    ridge = changed(preset, regressor__solver="ridge")
    one = {"regressor__symmetries": 1}
    alone = {"regressor__architecture": "pooled", **one}
    plain = {**alone, "regressor__factors": 0, "regressor__spot_weights": "equal"}
    trained = {
        "regressor__solver": "adam",
        "regressor__spot_weights": "equal",
        "regressor__batch_size": 32,
        **chosen,
        **alone,
    }
    return [
        Step("statistics of 155 um, ridge", changed(ridge, tiles__mpp=0.69, **plain)),
        Step("309 um", changed(ridge, **plain)),
        Step("+ five gene factors", changed(ridge, **{**plain, "regressor__factors": 5})),
        Step("+ spots weighed by counts", changed(ridge, **alone)),
        Step("+ slide's statistics, neighbours", changed(ridge, **one)),
        Step("+ eight symmetries", ridge),
        Step("+ Huber from the ridge: the preset", preset),
        Step("single tile, eight symmetries", with_architecture(ridge, "pooled")),
        Step("single tile, Huber from the ridge", with_architecture(preset, "pooled")),
        Step("one symmetry, untrained encoder", changed(ridge, **one), "untrained"),
        Step("one symmetry, AutoEncoder 1", changed(ridge, **one), "1"),
        Step("one symmetry, AutoEncoder 2", changed(ridge, **one), "2"),
        Step("one symmetry, no stain normalisation", changed(ridge, stain__method="none", **one)),
        Step("single tile, trained with MSE", changed(preset, **trained, regressor__loss="mse")),
        Step("single tile, RMSE", changed(preset, **{**trained, "regressor__loss": "rmse"})),
        Step("single tile, Huber", changed(preset, **{**trained, "regressor__loss": "huber"})),
    ]


class Bench:
    """Data, encoders and features, made when a step first needs them."""

    def __init__(self, data: Path, pretrain: Path, work: Path) -> None:
        self.sections = reading.usable_sections(
            readers.read_cohort(data), presets.preset("recommended")
        )
        self.pretrain, self.work = pretrain, work
        self.strategy = distribution.strategy("single")
        self.encoders: dict[str, TrainedEncoder] = {}
        self.losses: dict[str, float] = {}
        work.mkdir(parents=True, exist_ok=True)

    def encoder(self, name: str, settings: Config) -> TrainedEncoder:
        """Autoencoder `name` on the images, in the stain of `settings`; or its start."""
        key = f"autoencoder_{name}_{settings.stain.method}"
        if key in self.encoders:
            return self.encoders[key]
        variant = 3 if name == "untrained" else int(name)
        own = changed(
            presets.preset("recommended"),
            stain=settings.stain,
            autoencoder__variant=variant,
            **{f"autoencoder__{setting}": value for setting, value in AUTOENCODERS.items()},
        )
        kept = self.work / f"{key}.weights.h5"
        note = self.work / f"{key}.json"
        tiles = pretraining.collect_tiles(own, self.pretrain, [])
        if name == "untrained":
            keras.utils.set_random_seed(own.seed)
            found = TrainedEncoder(autoencoder.build_encoder(variant), tiles.reference, [], {})
        elif note.is_file():
            model = autoencoder.build_encoder(variant)
            model.load_weights(kept)
            found = TrainedEncoder(model, tiles.reference, [], json.loads(note.read_text()))
        else:
            session = Session(self.strategy, own.seed, True, self.work / key)
            found = pretraining.train_encoder_on(tiles, own, session)
            found.encoder.save_weights(kept)
            note.write_text(json.dumps(outputs.json_safe(found.trained_on)))
        if name != "untrained":
            self.losses[key] = found.trained_on["autoencoder"]["validation_mse"]
        self.encoders[key] = found
        return found

    def spots(self, settings: Config) -> PairedSpots:
        """Cut tiles; one folder for all steps of the same tiles."""
        folder = self.work / f"tiles_{settings.tiles.tile_px}_{settings.tiles.mpp}"
        folder = folder.with_name(f"{folder.name}_{settings.stain.method}")
        cutting = changed(settings, regressor=presets.preset("recommended").regressor)
        spots = PairedSpots.of(self.sections, settings)
        return paired.cut_tiles(spots, cutting, folder, pretrain_on=[])

    def encoded(self, step: Step, spots: PairedSpots) -> EncodedSpots:
        """What the step's heads read; one folder for all steps that read the same."""
        settings = step.settings
        encoder = self.encoder(step.encoder, settings)
        folder = self.work / "_".join(
            map(str, ("features", step.encoder, settings.tiles.mpp, settings.stain.method,
                      settings.regressor.symmetries))
        )  # fmt: skip
        return encoders.encoded(encoder, spots, settings, folder)


def scored(bench: Bench, step: Step) -> dict[str, Any]:
    """Both correlations of every section left out, the head's parameters, seconds of fitting."""
    settings = step.settings
    spots = bench.spots(settings)
    encoded = bench.encoded(step, spots)
    found: dict[str, Any] = {"sections": {}}
    start = time.perf_counter()
    for section in spots.sections:
        fold = splits.outer_fold(spots.index, [section.name])
        genes = plans.training_panel(spots, fold, settings)
        training = sides.training_spots(encoded, fold, genes, settings)
        session = Session(
            bench.strategy,
            settings.seed,
            False,
            bench.work / "checkpoints" / step.title / section.name,
        )
        with quiet():
            head = ours.Model().fit(training, settings, session)
        (held_out,) = held_out_predictions.predicted(
            encoded, fold.test, {"model": head}, training.panel
        )
        predicted, measured = held_out.predictions["model"], held_out.measured
        found["sections"][section.name] = {
            "gene_r": metrics.gene_r(predicted, measured),
            "spot_r": metrics.spot_r(predicted, measured),
            **head.choice,
        }
    found["seconds"] = time.perf_counter() - start
    learned_weights = [*encoded.encoder.encoder.trainable_variables, *head.head.trainable_variables]
    if settings.regressor.factors:
        learned_weights.append(head.head.get_layer("expression").kernel)
    found["parameters"] = sum(int(np.prod(variable.shape)) for variable in learned_weights)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps progress bars out of the Markdown."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink):
        yield


def baseline_rows(bench: Bench) -> dict[str, dict[str, Any]]:
    """Gene mean and colour ridge of the preset's tiles on the same folds."""
    settings = presets.preset("recommended")
    spots = bench.spots(settings)
    encoded = bench.encoded(Step("", settings), spots)
    entries = (baselines.GeneMean(), baselines.ColourRidge())
    rows: dict[str, dict[str, Any]] = {entry.label: {"sections": {}} for entry in entries}
    session = Session(bench.strategy, settings.seed, False, bench.work / "checkpoints")
    for section in spots.sections:
        fold = splits.outer_fold(spots.index, [section.name])
        genes = plans.training_panel(spots, fold, settings)
        training = sides.training_spots(encoded, fold, genes, settings)
        fitted = {entry.name: entry.fit(training, settings, session) for entry in entries}
        (held_out,) = held_out_predictions.predicted(encoded, fold.test, fitted, training.panel)
        for entry in entries:
            values = held_out.predictions[entry.name]
            rows[entry.label]["sections"][section.name] = {
                "gene_r": metrics.gene_r(values, held_out.measured),
                "spot_r": metrics.spot_r(values, held_out.measured),
            }
    return rows


def line(title: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    sections = row["sections"].values()
    means = [np.mean([s[key] for s in sections]) for key in ("gene_r", "spot_r")]
    cells = [f"**{means[0]:.3f}**", *(f"{s['gene_r']:.3f}" for s in sections), f"{means[1]:.3f}"]
    cells += [f"{row['parameters']:,}" if "parameters" in row else ""]
    cells += [f"{row['seconds']:.0f} s" if "seconds" in row else ""]
    return f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pretrain", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    bench = Bench(options.data, options.pretrain, options.work)
    names = [section.name for section in bench.sections]
    print(f"| step | mean gene_r | {' | '.join(names)} | mean spot_r | parameters | heads |")
    print("|---|---|" + "---|" * (len(names) + 3))
    for title, row in baseline_rows(bench).items():
        print(line(title, row), flush=True)
    results = options.work / "steps.json"
    known = json.loads(results.read_text()) if results.is_file() else {}
    for step in steps():
        if step.title not in known:
            known[step.title] = outputs.json_safe(scored(bench, step))
            results.write_text(json.dumps(known, indent=1))
        print(line(step.title, known[step.title]), flush=True)
    print("\n| autoencoder | validation MSE on held-out images | reported by the paper |")
    print("|---|---|---|")
    for variant, paper in PAPER_MSE.items():
        bench.encoder(str(variant), presets.preset("recommended"))
        print(f"| {variant} | {bench.losses[f'autoencoder_{variant}_vahadane']:.4f} | {paper} |")


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()

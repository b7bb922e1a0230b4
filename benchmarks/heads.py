"""Heads compared on inner groups alone: the tables at the top of docs/accuracy.md.

    python benchmarks/heads.py DATA --encoder RUN --work DIR

DATA is HER2ST's repository layout; RUN a run whose encoder saw none of its sections. For the folds
"C4 held out" and "B4 held out", sections of the training side are left out in turn; the held-out
ones take no part. Features are kept in DIR. Prints Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import baselines, bundle, features, head_training, metrics, paired, training
from histospace_tf.config import Config, RegressorConfig
from histospace_tf.data_pipelines import datasets, expression, readers
from histospace_tf.models import losses, regressor

OUTER = ("C4", "B4")
STRENGTHS = 10.0 ** np.arange(1.5, 4.6, 0.5)
# Inner sections that trained heads are compared on, by held-out section.
PAIRS = (("C4", "B4"), ("C4", "C3"), ("B4", "C3"), ("B4", "C6"))


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """The training side of one held-out section."""

    names: list[str]
    measured: dict[str, np.ndarray]


def kept(data: Path, run: Path, work: Path) -> tuple[Config, paired.PairedSpots, dict, np.ndarray]:
    """Everything that a head can see of every spot, and the colour statistics."""
    model = bundle.load(run)
    work.mkdir(parents=True, exist_ok=True)
    sections = readers.read_cohort(data).with_image()
    spots = paired.PairedSpots.of(sections, model.config)
    prepared = paired.cut_tiles(spots, model.config, work / "tiles", pretrain_on=[])
    inputs, statistics = paired.head_inputs(
        spots, prepared, model.trunk, model.reference, model.config, work / "features"
    )
    return model.config, spots, inputs, statistics


def standardised(values: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """As the "context" head does it."""
    deviation = np.maximum(inputs["slide_std"], regressor.SMALLEST_DEVIATION)
    limit = regressor.LARGEST_STANDARDISED
    return np.clip((values - inputs["slide_mean"]) / deviation, -limit, limit)


def ridge(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, *, factors: int | None
) -> Iterator[np.ndarray]:
    """Predictions for every strength; `factors`: principal axes of the fitted values that stay."""
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh((x - mean) @ (x - mean).T)
    rotated, kernel = vectors.T @ y, (x_new - mean) @ (x - mean).T @ vectors
    for strength in STRENGTHS:
        predicted = kernel / (values + strength) @ rotated
        if factors is not None:
            fitted = (values / (values + strength))[:, None] * rotated
            axes = np.linalg.svd(fitted, full_matrices=False)[2][:factors]
            predicted = predicted @ axes.T @ axes
        yield predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    config, spots, inputs, statistics = kept(options.data, options.encoder, options.work)
    section_of = spots.index.section
    names = [section.name for section in spots.sections]
    rows = {name: np.flatnonzero(section_of == name) for name in names}
    unit = {
        "normalisation": config.target.normalisation,
        "target_sum": config.target.target_sum,
    }
    sides = {}
    for outer in OUTER:
        side = [name for name in names if name != outer]
        tables = [section.spots for section in spots.sections if section.name != outer]
        genes = expression.choose_panel(tables, config.target)
        measured = {
            name: expression.targets(table, genes, **unit)
            for name, table in zip(side, tables, strict=True)
        }
        sides[outer] = Side(side, measured)

    def centred(side: Side, chosen: list[str]) -> tuple[np.ndarray, np.ndarray]:
        y = np.concatenate([side.measured[n] - side.measured[n].mean(axis=0) for n in chosen])
        scale = y.std(axis=0) + 1e-6
        return y / scale, scale

    def neighbours(microns: float, values: np.ndarray) -> np.ndarray:
        found = [
            features.neighbour_features(
                values[rows[section.name]],
                section.spots.centres_px,
                radius_px=microns / float(section.mpp or 1),
            )
            for section in spots.sections
        ]
        return np.concatenate(found)

    own = standardised(np.asarray(inputs["features"]).mean(axis=1), inputs)
    colour = np.concatenate(
        [
            (statistics[r] - statistics[r].mean(axis=0)) / (statistics[r].std(axis=0) + 1e-6)
            for r in rows.values()
        ]
    )
    near = {microns: neighbours(microns, own) for microns in (300, 500, 800)}
    cases: list[tuple[str, np.ndarray, int | None]] = [
        (f"{len(baselines.STATISTIC_NAMES)} colour statistics, ridge", colour, None),
        ("encoder statistics, standardised by the slide", own, None),
        ("+ neighbours within 300 um", np.hstack([own, near[300]]), None),
        ("+ neighbours within 500 um instead", np.hstack([own, near[500]]), None),
        ("300 um, 5 factors", np.hstack([own, near[300]]), 5),
        ("500 um, 12 factors", np.hstack([own, near[500]]), 12),
        ("500 um, 8 factors", np.hstack([own, near[500]]), 8),
        ("500 um, 5 factors", np.hstack([own, near[500]]), 5),
        ("500 um, 3 factors", np.hstack([own, near[500]]), 3),
        ("800 um, 5 factors", np.hstack([own, near[800]]), 5),
    ]
    print("| features and head | C4's training side | B4's training side |\n|---|---|---|")
    for title, x, factors in cases:
        cells = []
        for outer in OUTER:
            side, score = sides[outer], np.zeros(len(STRENGTHS))
            for left_out in side.names:
                chosen = [name for name in side.names if name != left_out]
                y, scale = centred(side, chosen)
                known = np.concatenate([x[rows[name]] for name in chosen]).astype(np.float64)
                predictions = ridge(known, y, x[rows[left_out]], factors=factors)
                score += [metrics.gene_r(p * scale, side.measured[left_out]) for p in predictions]
            cells.append(f"{score.max() / len(side.names):.3f}")
        print(f"| {title} | {' | '.join(cells)} |", flush=True)

    recommended = dataclasses.replace(config.regressor, epochs=15)
    changes: list[tuple[str, dict[str, object]]] = [
        ("every gene by itself, linear, Huber", {"factors": 0, "loss": "huber"}),
        (
            "every gene by itself, 256 hidden, Huber",
            {"factors": 0, "hidden_units": 256, "loss": "huber"},
        ),
        ("five factors, 256 hidden, dropout 0.5", {"hidden_units": 256, "dropout": 0.5}),
        ("five factors, linear, Huber", {"loss": "huber"}),
        ("five factors, linear, constant rate 3e-4", {"decay": "none", "learning_rate": 3e-4}),
        ("the preset, 15 epochs", {}),
        ("the preset, 40 epochs", {"epochs": 40}),
        ("its single-tile head, 15 epochs", {"architecture": "pooled"}),
    ]
    titles = " | ".join(f"{inner} (of {outer}'s)" for outer, inner in PAIRS)
    print(f"\n| head | mean of the last epoch | {titles} |\n|---|---|" + "---|" * len(PAIRS))
    for title, change in changes:
        settings = dataclasses.replace(recommended, **change)  # type: ignore[arg-type]
        scores = [
            trained_score(settings, inputs, rows, sides[outer], inner, centred)
            for outer, inner in PAIRS
        ]
        shown = " | ".join(f"{score:.3f}" for score in scores)
        print(f"| {title} | {np.mean(scores):.3f} | {shown} |", flush=True)


def trained_score(
    settings: RegressorConfig,
    inputs: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    side: Side,
    left_out: str,
    centred: Callable[[Side, list[str]], tuple[np.ndarray, np.ndarray]],
) -> float:
    """`gene_r` on one inner section of a head after its last epoch, as `train_head` builds it."""
    chosen = [name for name in side.names if name != left_out]
    y, scale = centred(side, chosen)
    order = np.concatenate([rows[name] for name in chosen])
    targets = np.zeros((sum(len(r) for r in rows.values()), y.shape[1]), np.float32)
    targets[order] = y
    wanted = head_training.inputs_of(settings, inputs)
    trained = training.train(
        lambda: head_training.build(settings, wanted, targets, order, seed=0),
        lambda epoch: datasets.feature_dataset(
            wanted, targets, batch_size=settings.batch_size, rows=order, order_seed=(0, epoch)
        ),
        loss=losses.loss(settings.loss, huber_delta=settings.huber_delta),
        learning_rate=head_training.learning_rate(settings, len(order)),
        weight_decay=settings.weight_decay,
        epochs=settings.epochs,
        verbose=0,
    )
    here = {name: values[rows[left_out]] for name, values in wanted.items()}
    used = 1 if settings.architecture == "pooled" else None
    predicted = features.predicted(trained.model, here, symmetries=used)
    return metrics.gene_r(predicted * scale, side.measured[left_out])


keras.utils.set_random_seed(0)
tf.get_logger().setLevel("ERROR")
main()

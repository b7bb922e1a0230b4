"""What the constants of simulated tissue give, by baselines alone. Prints JSON.

    python benchmarks/simulation.py [--seed S] [--patients N] [--data DIR]

Each patient is left out in turn; every figure is `gene_r`, the mean over genes of Pearson r over
the spots of the patient's section, then over patients, for 250 genes by mean. No trained model is
scored here: the constants were settled on these figures before there was one.

    colour_ridge        the package's baseline, 39 colour and gradient statistics of a 224 px tile
    texture_ridge       ridge on simple texture: energies of even Gabor filters, six directions at
                        five scales, in two channels of optical density, standardised by section
    oracle_ridge        ridge on the true shares of the cell types and the true atypia
    neighbour_oracle    the measured mean of a spot's neighbours
    resampling_ceiling  what counting noise leaves

Wanted: colour above 0.1 and clearly below texture, texture below the oracle, the oracle below the
ceiling. `truth_from_*`: r of the true shares themselves with what each ridge makes of them, which
says what a picture gives away by colour and what only by texture. `--data` scores a folder that
`histospace-tf simulate` wrote, in place of a new one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from histospace_tf.config import TargetConfig
from histospace_tf.data_pipelines import expression, gene_panel, readers, simulation, slides, tiles
from histospace_tf.predictors import baselines, marks
from histospace_tf.scores import colour_statistics, metrics

TARGET = TargetConfig()
UNIT: dict[str, Any] = {"normalisation": TARGET.normalisation, "target_sum": TARGET.target_sum}
NEIGHBOUR_UM = 300.0
Sections = dict[str, np.ndarray]  # section -> one row a spot


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration of simulated tissue, as JSON.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patients", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a simulated folder to score")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        seconds = None
        data = options.data
        if data is None:
            data = Path(scratch) / "tissue"
            began = time.perf_counter()
            simulation.simulate(data, patients=options.patients, seed=options.seed)
            seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"simulate_seconds": seconds} | figures(data), indent=1))


def figures(data: Path) -> dict[str, Any]:
    """All figures of a simulated folder, ready for JSON."""
    truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))
    sections = readers.read_cohort(data).sections
    panel = gene_panel.choose_panel([section.spots for section in sections], TARGET)
    measured, colour, texture, shares = {}, {}, {}, {}
    ceiling, neighbour = [], []
    for section in sections:
        name, spots = section.name, section.spots
        assert section.image is not None
        with slides.open_slide(section.image, mpp=simulation.MPP) as slide:
            cut, _ = tiles.cut_tiles(
                slide, spots.centres_px, tile_px=224, mpp=None, border="reflect"
            )
        measured[name] = expression.targets(spots, panel, **UNIT)
        colour[name] = colour_statistics.of_tiles(cut).astype(np.float64)
        texture[name] = within(np.array([list(texture_statistics(tile)) for tile in cut]))
        known = truth["sections"][name]
        share = np.array([known["shares"][spot] for spot in spots.names])
        atypia = np.array([known["atypia"][spot] for spot in spots.names])
        shares[name] = np.column_stack([share, atypia, atypia * share[:, 0]])
        column = {gene: at for at, gene in enumerate(spots.genes)}
        ceiling.append(
            metrics.resampling_ceiling(
                spots.counts, [column.get(gene, -1) for gene in panel], seed=0, **UNIT
            )["gene_r"]
        )
        near = marks.neighbour_oracle(
            measured[name], spots.centres_px, radius_px=NEIGHBOUR_UM / simulation.MPP
        )
        neighbour.append(metrics.gene_r(near, measured[name]))

    names = [*truth["cell_types"], "atypia", "atypia_x_tumour"]
    libraries = np.concatenate([np.asarray(s.spots.counts.sum(axis=1)).ravel() for s in sections])
    return {
        "spots": {section.name: len(section.spots) for section in sections},
        "library_size_median": float(np.median(libraries)),
        "mean_shares": dict(
            zip(names, np.concatenate(list(shares.values())).mean(axis=0).round(3), strict=True)
        ),
        "colour_ridge": summary(left_out(colour, measured)),
        "texture_ridge": summary(left_out(texture, measured)),
        "oracle_ridge": summary(left_out(shares, measured)),
        "neighbour_oracle": summary(neighbour),
        "resampling_ceiling": summary([r for r in ceiling if r is not None]),
        "truth_from_colour": dict(zip(names, each(colour, shares), strict=True)),
        "truth_from_texture": dict(zip(names, each(texture, shares), strict=True)),
    }


def predictions(features: Sections, wanted: Sections) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(predicted, true) of each section, learned on the others by the package's own ridge."""
    for held_out in features:
        others = [name for name in features if name != held_out]
        yield (
            baselines.colour_ridge(
                np.concatenate([features[name] for name in others]),
                np.concatenate([wanted[name] for name in others]),
                features[held_out],
                groups=np.repeat(others, [len(features[name]) for name in others]),
            ),
            wanted[held_out],
        )


def left_out(features: Sections, wanted: Sections) -> list[float]:
    return [metrics.gene_r(predicted, true) for predicted, true in predictions(features, wanted)]


def each(features: Sections, wanted: Sections) -> list[float]:
    """r of each column of `wanted`, mean over sections."""
    by_section = [metrics.gene_r_each(*pair) for pair in predictions(features, wanted)]
    return [round(float(r), 3) for r in np.nanmean(by_section, axis=0)]


def summary(scores: list[float]) -> dict[str, Any]:
    return {
        "gene_r": round(float(np.mean(scores)), 3),
        "each": [round(float(score), 3) for score in scores],
    }


def within(features: np.ndarray) -> np.ndarray:
    """Features standardised by their own section: no stain or scanner left in them."""
    return (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)


def texture_statistics(tile: np.ndarray) -> Iterator[float]:
    """Of each channel: mean, log deviation, and of each scale the log energy, its spread over
    directions, and how uneven and how sharp the responses are."""
    density = -np.log(tile.astype(np.float32) / 255 + 0.03)
    for channel in (density[..., 0], density[..., 1] - 0.6 * density[..., 0]):
        yield float(channel.mean())
        yield float(np.log(channel.std() + 1e-2))
        for bank in GABOR:
            step = 2 if bank[0].shape[0] > 15 else 1
            answers = np.stack([cv2.filter2D(channel, -1, f)[::step, ::step] for f in bank])
            energy = np.log((answers**2).mean(axis=(1, 2)) + 1e-6)
            positive, size = np.maximum(answers, 0), np.log(answers.std() + 1e-4)
            yield float(energy.mean())
            yield float(energy.std())
            yield float(np.log(positive.mean() + 1e-4) - size)
            yield float(np.log(np.percentile(positive, 98) + 1e-3) - size)
            yield float(np.log(answers.max(axis=0).mean() + 1e-4) - size)


def gabor_bank(sigma_px: float) -> list[np.ndarray]:
    """Even Gabor filters of six directions, without a mean, of absolute sum 1."""
    side = int(8 * sigma_px) | 1
    bank = []
    for turn in range(6):
        kernel = cv2.getGaborKernel(
            (side, side), sigma_px, np.pi * turn / 6, 4.4 * sigma_px, 1.0, 0
        )
        kernel = kernel - kernel.mean()
        bank.append((kernel / np.abs(kernel).sum()).astype(np.float32))
    return bank


GABOR = [gabor_bank(sigma_px) for sigma_px in (1.0, 1.6, 2.6, 4.2, 6.8)]


if __name__ == "__main__":
    main()

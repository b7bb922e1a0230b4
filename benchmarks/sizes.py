"""Parameters, bytes and speed of this model beside published ones. Prints two Markdown tables.

    python benchmarks/sizes.py RUN EXPORTED [--rounds N] [--spots N]

RUN is a finished run, EXPORTED what `histospace-tf export RUN --out EXPORTED` wrote. Every model is
counted with as many genes as RUN's, and only what a prediction needs: heads that training alone
uses are left out, and so are running statistics of batch normalisation.

The others are built without weights, for their sizes: `histospace_tf.models.peers` has ST-Net,
EfficientNet-B0, HisToGene and Hist2ST, and says where each configuration stands.

* HisToGene has 35 places, as in its tutorial. Hist2ST has the second biases of PyTorch's LSTM.
* DKAN: github.com/coffeeNtv/DKAN, config/her2st/her2st.yaml, models/DKAN.py, models/module.py.
  Counted by formula. It also reads features of each spot from the foundation model UNI and of each
  gene from BioBERT, neither of which is counted: no speed of it can be measured here.
* HistoSPACE: the "paper" preset of this package, of as many parameters as the authors' network,
  github.com/samrat-lab/HistoSPACE, my_model.py (2,403,194 with 250 genes).

Speed is tiles (spots) a second of one core: CPU seconds on a single thread, so that other work on
the machine counts little. A tile is looked at once; predict's symmetries are as many looks.
HisToGene and Hist2ST see a section at once, --spots of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from histospace_tf import bundle as bundles
from histospace_tf import presets
from histospace_tf.exports import tflite, tflite_checks
from histospace_tf.models import autoencoder, regressor
from histospace_tf.models.peers import efficientnet_b0, hist2st, histogene, st_net

_BATCH = 16
_FLOAT_BYTES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("run", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spots", type=int, default=325, help="of a section [default: HER2ST's]")
    chosen = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    bundle = bundles.load(chosen.run)
    genes, spots, rounds = len(bundle.panel), chosen.spots, chosen.rounds
    rng = np.random.default_rng(0)

    def speed(model: Any, inputs: Any, tiles: int) -> float:
        graph, fed = tf.function(model), tf.nest.map_structure(tf.constant, inputs)
        return per_second(lambda: graph(fed), tiles, rounds)

    def pictures(n: int, side: int) -> np.ndarray:
        return rng.uniform(size=(n, side, side, 3)).astype(np.float32)

    side = bundle.config.tiles.tile_px
    ours = assembled(bundle.trunk, bundle.single_tile_head, side)
    single = dataclasses.replace(bundle, head=bundle.single_tile_head).n_parameters
    rows = [
        ("this model, with slide context", side, bundle.n_parameters, None),
        ("its single-tile model", side, single, speed(ours, pictures(_BATCH, side), _BATCH)),
        (
            "the same, float32 .tflite",
            side,
            single,
            _lite_speed(chosen.exported, rounds),
        ),
    ]
    papers = paper(genes)
    paper_px = int(papers.input_shape[1])
    rows += [
        (
            "HistoSPACE (preset `paper`)",
            paper_px,
            parameters(papers),
            speed(papers, pictures(_BATCH, paper_px), _BATCH),
        ),
    ]
    for name, network in (("ST-Net", st_net), ("EfficientNet-B0", efficientnet_b0)):
        px = network.PUBLISHED.tile_px
        model = network.build(genes)
        rate = speed(model, pictures(_BATCH, px), _BATCH)
        rows.append((name, px, parameters(model), rate))
    section = {
        "tile": pictures(spots, 112)[None],
        "position": rng.integers(0, 35, (1, spots, 2)).astype(np.int32),
    }
    model = histogene.build(genes, dataclasses.replace(histogene.PUBLISHED, places=35))
    rows.append(("HisToGene", 112, parameters(model), speed(model, section, spots)))
    section["neighbours"] = hist2st.neighbours(section["position"][0])[None]
    model = hist2st.expression(hist2st.build(genes))
    count = parameters(model) + _HIST2ST_SECOND_BIASES
    rows.append(("Hist2ST", 112, count, speed(model, section, spots)))
    rows.append(("DKAN, less UNI and BioBERT", 224, _dkan(), None))
    print(f"{genes} genes, {spots} spots a section\n")
    print("| model | tile, px | parameters | float32, MB | tiles a second, one core |")
    print("|---|---|---|---|---|")
    for name, px, count, rate in rows:
        size = f"{count * _FLOAT_BYTES / 1e6:,.1f}"
        print(f"| {name} | {px} | {count:,} | {size} | {'-' if rate is None else f'{rate:.1f}'} |")
    _print_files(chosen.exported)


def _print_files(exported: Path) -> None:
    print("\n| file | bytes |\n|---|---|")
    folder = exported / "saved_model" / "1"
    inside = [file for file in folder.rglob("*") if file.is_file()]
    print(f"| saved_model/1/ (six signatures) | {sum(file.stat().st_size for file in inside):,} |")
    for file in [*sorted(exported.glob("tflite/*.tflite")), *exported.glob("onnx/*.onnx")]:
        print(f"| {file.relative_to(exported)} | {file.stat().st_size:,} |")


def per_second(run: Callable[[], object], tiles: int, rounds: int) -> float:
    """Tiles a CPU second: the median over the rounds, after one that is not counted."""
    run()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return tiles / statistics.median(seconds)


def parameters(model: keras.Model) -> int:
    kept = (weight for weight in model.weights if "moving_" not in weight.name)
    return sum(int(np.prod(weight.shape)) for weight in kept)


def _lite_speed(exported: Path, rounds: int) -> float:
    run = tflite_checks.LiteModel(exported / "tflite" / tflite.file_name("float32"), threads=1)
    tile = np.zeros((_BATCH, run.tile_px, run.tile_px, 3), np.uint8)
    return per_second(lambda: run(tile), _BATCH, rounds)


def paper(genes: int) -> keras.Model:
    config = presets.preset("paper")
    encoder = autoencoder.build_encoder(config.autoencoder.variant)
    trunk = regressor.build_trunk(encoder, architecture=config.regressor.architecture)
    shape = bundles.feature_shape(trunk, config.tiles.tile_px)
    head = regressor.build_head(shape, genes, config.regressor)
    return assembled(trunk, head, config.tiles.tile_px)


def assembled(trunk: keras.Model, head: keras.Model, tile_px: int) -> keras.Model:
    tile = keras.Input((tile_px, tile_px, 3), name="tile")
    return keras.Model(tile, head(trunk(tile)), name="regressor")


# PyTorch's LSTM has a second bias for each of its four gates, Keras' has none.
_HIST2ST_SECOND_BIASES = 2 * 4 * 1024


def _dkan() -> int:
    """DKAN's count from its configuration for HER2ST; its output is one number a gene's text."""
    width, hidden = 1024, 4 * 1024
    block = 4 * width**2 + width + 2 * 2 * width + _dense(width, hidden) + _dense(hidden, width)
    neighbour = 4 * (block + 4 * 5 * 5) + 2 * width  # with biases by distance, 4 heads
    everywhere = 5 * block + _dense(9, 1) * width + 2 * width
    fusion = block + 2 * width
    return (
        _RESNET18
        + _dense(512, width)
        + neighbour
        + everywhere
        + fusion
        + 4 * block  # image with gene texts
        + 3 * block  # gene texts among themselves
        + _dense(width, 1)
    )


# torchvision's resnet18, less its classifier.
_RESNET18 = 11_689_512 - 513_000


def _dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


if __name__ == "__main__":
    main()

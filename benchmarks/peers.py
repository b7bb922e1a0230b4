"""The paper's rivals beside this model, on the same folds (docs/peers.md).

    python benchmarks/peers.py her2st --work DIR [--counts her2st_counts] [--size published]

Evaluates the recommended preset on the packaged encoder with every section, then every patient,
left out; every rival is trained on the same folds, its epochs chosen on the same two inner groups
(four, the default, take twice as long). A probe, PCA and ridge as HEST-1k's benchmark makes them,
stands on the vectors of the packaged encoder and tells what its head adds. What stands finished in
DIR is not made again; --split makes one of the two evaluations, so that two processes can share
the work.

Training seconds are those of a rival's own trainings, inner groups included, and of nothing else,
the mean of a fold. Peak memory and speed are of a process of its own for each network: one training
step on HER2ST's largest section or a batch as published, then predictions on one thread. Prints
Markdown. Hours on 2 cores. (The paper's own model: benchmarks/paper.py.)
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

SPLITS = ("section", "patient")
TILE_NETWORKS = ("st_net", "efficientnet_b0")
SECTION_NETWORKS = ("histogene", "hist2st")
OWN = "model_single_tile"  # one network from tile to genes, as a rival is
PROBE = "packaged encoder"
OURS = ("model", "model_single_tile", "gene_mean", "colour_ridge", "neighbour_oracle")
GENES, SPOTS = 250, 283  # of a panel, and of the largest section
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("her2st", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--counts", type=Path, action="append", default=[])
    parser.add_argument("--size", choices=("small", "published"), default="small")
    parser.add_argument("--split", choices=SPLITS, action="append", default=[])
    parser.add_argument("--cost", help=argparse.SUPPRESS)  # of one network, in a process of its own
    given = parser.parse_args()
    if given.cost:
        print(json.dumps(measured_cost(given.cost, given.size)))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    evaluations = {split: evaluated(given, split) for split in given.split or SPLITS}
    for split, folder in evaluations.items():
        print("\n".join(score_table(folder, split, given.size)) + "\n", flush=True)
    if not given.split:
        print("\n".join(cost_table(given, evaluations)))


def evaluated(given: argparse.Namespace, split: str) -> Path:
    """An evaluation with every rival."""
    import histospace_tf

    out = given.work / f"{given.size}_by_{split}"
    if not out.is_dir():
        settings = given.work / "settings.json"
        chosen = {"peers": {"size": given.size}, "regressor": {"inner_folds": 2}}
        settings.write_text(json.dumps(chosen))
        probe = f"probe:{trunk_file(given)},mpp=1.38,px=224,pixels=0..1,colours=normalised"
        histospace_tf.evaluate(
            given.her2st,
            out,
            split=split,
            counts=given.counts,
            encoder="breast-her2st",
            config=settings,
            with_complexities=False,
            compare=[*TILE_NETWORKS, *SECTION_NETWORKS, f"{probe},name={PROBE}"],
            resume=True,
        )
    return out


def trunk_file(given: argparse.Namespace) -> Path:
    """The packaged model's vectors of a tile, as a .keras file."""
    path = given.work / "packaged_encoder.keras"
    if not path.is_file():
        from histospace_tf import bundle, packaged

        bundle.load(packaged.run_folder(Path(packaged.DEFAULT))).trunk.save(path)
    return path


def labelled(name: str, size: str) -> str:
    """What a predictor's rows are called: a network that others published with the size trained."""
    from histospace_tf.predictors import registry

    is_rival = name in (*TILE_NETWORKS, *SECTION_NETWORKS)
    return registry.label(name) + f", {size}" * is_rival


def score_table(folder: Path, split: str, size: str) -> list[str]:
    """A row per predictor: the means, and gene_r; spot_r of each section."""
    scores = json.loads((folder / "scores.json").read_text())
    sections = list(scores["sections"])
    head = (f"{split}s left out", "gene_r", "spot_r", "MSE", *sections)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, mean in scores["mean"].items():
        if mean is None or mean.get("mse") is None:
            continue
        each = []
        for section in sections:
            row = scores["sections"][section]["rows"][name]
            each.append(f"{row['gene_r']:.3f}; {row['spot_r']:.3f}" if row else "-")
        label = labelled(name, size)
        label = f"**{label}**" if name in OURS[:2] else label
        lines.append(
            f"| {label} | {mean['gene_r']:.3f} | {mean['spot_r']:.3f} | {mean['mse']:.3f} "
            f"| {' | '.join(each)} |"
        )
    return lines


def cost_table(given: argparse.Namespace, evaluations: dict[str, Path]) -> list[str]:
    """Parameters, bytes, training seconds, speed and memory of every network."""
    head = ("network", "parameters", "float32, MB", *(f"s a fold, {s}s out" for s in SPLITS),
            "epochs, by fold", "tiles a second, one core", "peak memory, GiB")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in (OWN, *TILE_NETWORKS, *SECTION_NETWORKS):
        cost = cost_of(given, name)
        seconds = [training_seconds(folder, name) for folder in evaluations.values()]
        chosen = json.loads((evaluations["section"] / "scores.json").read_text())["chosen"]
        epochs = [str(one["epochs"]) for one in chosen if one["predictor"] == name]
        lines.append(
            f"| {labelled(name, given.size)} | {cost['parameters']:,} "
            f"| {4 * cost['parameters'] / 1e6:,.1f} | {seconds[0]:,.0f} | {seconds[1]:,.0f} "
            f"| {', '.join(epochs)} | {cost['rate']:,.0f} | {cost['memory']:.2f} |"
        )
    return lines


def training_seconds(folder: Path, name: str) -> float:
    """Of a predictor's trainings, inner groups included: the mean of a fold."""
    history = pd.read_csv(folder / "history.csv", low_memory=False)
    stages = {OWN: ("pooled",)}.get(name, (name,))
    own = history[history["stage"].str.replace(r"_inner\d+$", "", regex=True).isin(stages)]
    return float(own["seconds"].sum() / own["fold"].nunique())


def cost_of(given: argparse.Namespace, name: str) -> dict[str, float]:
    """`measured_cost` in a process of its own, kept in a file."""
    kept = given.work / f"cost_{name}_{given.size}.json"
    if not kept.is_file():
        command = [sys.executable, __file__, given.her2st, "--work", given.work]
        command += ["--cost", name, "--size", given.size]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        kept.write_text(found.stdout.splitlines()[-1])
    values: dict[str, float] = json.loads(kept.read_text())
    return values


def measured_cost(name: str, size: str) -> dict[str, float]:
    """Parameters, tiles a CPU second on one thread, and GiB at the peak of a training step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import numpy as np
    import sizes  # beside this file
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    predictor, fed, learn = network(name, size)
    learn()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    graph = tf.function(predictor)
    inputs = tf.nest.map_structure(tf.constant, fed)
    tiles = int(np.prod(tf.nest.flatten(inputs)[-1].shape[:-3]))
    return {
        "parameters": own_parameters() if name == OWN else sizes.parameters(predictor),
        "rate": sizes.per_second(lambda: graph(inputs), tiles, ROUNDS),
        "memory": peak,
    }


def own_parameters() -> int:
    """Learned numbers of the packaged single-tile model, without the scale of its features."""
    from histospace_tf import bundle, packaged

    run = bundle.load(packaged.run_folder(Path(packaged.DEFAULT)))
    return dataclasses.replace(run, head=run.single_tile_head).n_parameters


def network(name: str, size: str) -> tuple[Any, Any, Any]:
    """A network, what it is fed, and a function that makes one training step."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)

    def pictures(*shape: int) -> np.ndarray:
        return rng.uniform(size=(*shape, 3)).astype(np.float32)

    if name == OWN:
        return _packaged(pictures)
    module = importlib.import_module(f"histospace_tf.models.peers.{name}")
    wanted = module.SMALL if size == "small" else module.PUBLISHED
    model = predictor = module.build(GENES, wanted)
    px, loss = wanted.tile_px, "mse"
    if name in TILE_NETWORKS:
        fed: Any = pictures(module.TRAINING.batch_size, px, px)
        targets = rng.uniform(size=(len(fed), GENES)).astype(np.float32)
    else:
        position = np.stack(np.divmod(np.arange(SPOTS), 17), axis=1).astype(np.int32)
        fed = {"position": position[None], "tile": pictures(1, SPOTS, px, px)}
        targets = rng.uniform(size=(SPOTS, GENES)).astype(np.float32)
        if name == "hist2st":
            fed["neighbours"] = module.neighbours(position)[None]
            targets = module.targets(targets, np.round(9 * targets))
            loss, predictor = module.Hist2STLoss(), module.expression(model)
        targets = targets[None]
    model.compile(optimizer=keras.optimizers.Adam(1e-5), loss=loss)
    return predictor, fed, lambda: model.train_on_batch(fed, targets)


def _packaged(pictures: Any) -> tuple[Any, Any, Any]:
    """The packaged single-tile model, whose head alone learns."""
    import numpy as np
    import sizes

    from histospace_tf import bundle, packaged

    run = bundle.load(packaged.run_folder(Path(packaged.DEFAULT)))
    model = sizes.assembled(run.trunk, run.single_tile_head, run.config.tiles.tile_px)
    px = int(model.input_shape[1])
    model.compile(optimizer="adam", loss="mse")
    fed = pictures(32, px, px)
    targets = np.zeros((32, model.output_shape[-1]), np.float32)
    return model, fed, lambda: model.train_on_batch(fed, targets)


if __name__ == "__main__":
    main()

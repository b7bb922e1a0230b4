"""Golden outputs: what every command writes, kept to be compared after the code was rebuilt.

    python benchmarks/golden.py make GOLDEN/before --data ../shared/data
    python benchmarks/golden.py make GOLDEN/after --data ../shared/data
    python benchmarks/golden.py compare GOLDEN/before GOLDEN/after

`make` runs `fit` on simulated tissue, `evaluate` of three simulated patients with a second head,
`evaluate --model`, `predict` of a slide with the packaged model, `export`, and `check --json` of
every folder in --data; what stands finished in the folder is not made again. About a quarter of an
hour on 2 cores. `compare` holds every number of two such folders together, to the bit: arrays,
tables, weights, JSON, pixels, and what exported networks answer. Dates, seconds, paths and versions
are left aside, and so are what commands print and the bytes of SavedModel graphs, which differ
between two equal runs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parents[1]
SEED = 20
# What two equal runs may differ in. A key of JSON or a column of CSV.
_ASIDE = re.compile(
    r"seconds|times?|date|started|versions|machine|request|path|source|created|bytes|_ms"
)
_DATES = re.compile(r"\d{4}-\d\d-\d\d(T[\d:.+]+)?|\d+ (s|min)\b|\d+\.\d+ (s|ms)\b")
_DATA = (
    "her2st",
    "mob",
    "breast_he/tnbc",
    "breast_he/brecahad",
    "breast_he/bcss",
    "her2st_counts",
    "slides",
    "stain",
    "visium/spaceranger_1.0.0",
    "visium/spaceranger_section1_outs",
    "visium/visium_hd_binned_outputs",
    "visium/visium_49_spots.h5ad",
)


def make(folder: Path, data: Path) -> None:
    """Runs every command whose output is not there yet."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tissue, unseen, run = folder / "tissue", folder / "unseen", folder / "run"
    slide = data.resolve() / "slides" / "CMU-1-Small-Region.svs"
    jobs: dict[Path, list[Any]] = {
        tissue: ["simulate", "--patients", 3, "--out", tissue],
        unseen: ["simulate", "--patients", 2, "--seed", 1, "--out", unseen],
        run: ["fit", "--out", run],
        folder / "evaluation": [
            *("evaluate", tissue, "--compare", "paper", "--epochs", 2, "--pretrain-epochs", 1),
            *("--genes", 50, "--out", folder / "evaluation"),
        ],
        folder / "scored": ["evaluate", unseen, "--model", run, "--out", folder / "scored"],
        folder / "slide.h5ad": ["predict", slide, "--out", folder / "slide.h5ad"],
        folder / "exported": ["export", run, "--out", folder / "exported"],
    }
    for out, arguments in jobs.items():
        if not out.exists():
            _run(arguments, folder / f"{out.stem}.txt")
    for name in _DATA:
        out = folder / "checks" / f"{name.replace('/', '_')}.json"
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            _run(["check", data.resolve() / name, "--json"], out, may_fail=True)
    answers = folder / "answers.npz"
    if not answers.exists():
        np.savez(answers, **_answers(folder / "exported"))


def _run(arguments: list[Any], log: Path, *, may_fail: bool = False) -> None:
    command = [sys.executable, "-m", "histospace_tf", *map(str, arguments)]
    print(" ".join(command[2:]), flush=True)
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode and not may_fail:
        raise SystemExit(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    log.write_text(done.stdout, encoding="utf-8")


def _answers(exported: Path) -> dict[str, np.ndarray]:
    """What exported networks say of random tiles."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    found = {}
    for file in sorted(exported.rglob("*.tflite")):
        network = Interpreter(str(file))
        network.allocate_tensors()
        first = network.get_input_details()[0]
        tile = np.random.default_rng(SEED).integers(0, 256, first["shape"], np.uint8)
        network.set_tensor(first["index"], tile)
        network.invoke()
        found[file.name] = network.get_tensor(network.get_output_details()[0]["index"])
    for graph in sorted(exported.rglob("saved_model.pb")):
        signatures = tf.saved_model.load(str(graph.parent)).signatures
        side = signatures["serving_default"].structured_input_signature[1]["tile"].shape[1]
        tiles = np.random.default_rng(SEED).integers(0, 256, (2, side, side, 3), np.uint8)
        for name in ("serving_default", "embed"):
            for key, value in signatures[name](tile=tf.constant(tiles)).items():
                found[f"{name}_{key}"] = value.numpy()
    return found


def contents(path: Path, top: Path) -> Any:
    """What a file holds, in a form that two equal runs share; None where nothing is compared.

    top: the golden folder, whose own path is left aside wherever it is named.
    """
    kind = path.suffix
    if kind in (".json", ".md", ".tsv"):
        text = path.read_text(encoding="utf-8").replace(str(top.resolve()), "GOLDEN")
        return _plain(json.loads(text)) if kind == ".json" else _DATES.sub("", text)
    if kind == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table[[name for name in table if not _ASIDE.search(name)]].to_dict("list")
    if kind in (".h5", ".h5ad"):
        with h5py.File(path) as file:
            return dict(_datasets(file))
    if kind == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if kind == ".npy":
        return np.load(path).tobytes()
    if kind in (".png", ".jpg"):
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes()
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if not _ASIDE.search(key)}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _datasets(file: h5py.File) -> Iterator[tuple[str, bytes]]:
    names: list[str] = []
    file.visit(names.append)
    for name in sorted(names):
        item = file[name]
        if isinstance(item, h5py.Dataset) and not _ASIDE.search(name):
            value = item[()]
            yield name, value.tobytes() if item.dtype != object else repr(np.ravel(value)).encode()


def compare(before: Path, after: Path) -> int:
    """Prints every file that differs or stands on one side alone; how many."""
    files = {
        side: {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
        for side, folder in (("before", before), ("after", after))
    }
    differ = 0
    for name in sorted(files["before"] ^ files["after"]):
        side = "before" if name in files["before"] else "after"
        print(f"{name}: {side} alone")
        differ += 1
    compared = 0
    for name in sorted(files["before"] & files["after"]):
        one, other = contents(before / name, before), contents(after / name, after)
        compared += one is not None
        if one != other:
            differ += 1
            print(f"{name}: {_first_difference(one, other)}")
    print(f"{compared} files compared, {differ} differ")
    return differ


def _first_difference(one: Any, other: Any, at: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if one.get(key) != other.get(key):
                return _first_difference(one.get(key), other.get(key), f"{at}/{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _first_difference(left, right, f"{at}[{number}]")
    return f"{at} {str(one)[:120]} -> {str(other)[:120]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make")
    maker.add_argument("folder", type=Path)
    maker.add_argument("--data", type=Path, required=True, help="folder of real test data")
    comparer = verbs.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.verb == "make":
        make(given.folder, given.data)
    else:
        sys.exit(1 if compare(given.before, given.after) else 0)


if __name__ == "__main__":
    main()

"""Time and memory of the .tflite variants, one tile at a time. Prints a table.

    python benchmarks/lite.py EXPORTED/tflite [--rounds N] [--threads 1 2 4]

EXPORTED is what `histospace-tf export RUN --out EXPORTED` wrote. Each figure is of a process of its
own, without TensorFlow where ai-edge-litert is installed (extra [edge]): the median over the rounds
after three that are not counted, and the process' peak memory less what Python, NumPy and the
runtime took before the model was loaded. Variants take turns, so that other work on the machine
meets all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from histospace_tf.exports import gate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    chosen = parser.parse_args()
    files = sorted(chosen.folder.glob("*.tflite"))
    if not files:
        parser.error(f"{chosen.folder} holds no .tflite")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {chosen.rounds} rounds of one tile")
    print(f"{'file':<28} {'bytes':>9}" + "".join(f"{f'{n} thread(s)':>16}" for n in chosen.threads))
    speeds = {
        (file, n): gate.speed(file, threads=n, rounds=chosen.rounds)
        for n in chosen.threads
        for file in files
    }
    for file in files:
        row = "".join(f"{speeds[file, n].words():>16}" for n in chosen.threads)
        print(f"{file.name:<28} {file.stat().st_size:>9,}{row}")


if __name__ == "__main__":
    main()

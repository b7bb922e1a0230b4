"""Time and processor seconds of `predict`, with this checkout and with an earlier one.

    git worktree add ../earlier COMMIT
    python benchmarks/predict_speed.py RUN SLIDE --against ../earlier --options="--fast"

Both predict the same slide in child processes, one after the other. The last lines say how much
less work the first one does and how far the two tables differ. Processor seconds (user and system)
are what to compare on a machine that others use, too; they include the start, which --start-up
SLIDE, a slide of a tile or two, measures and takes off.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata
import numpy as np

HERE = Path(__file__).resolve().parents[1]


def predicted(
    checkout: Path, run: Path, slide: Path, options: list[str]
) -> tuple[anndata.AnnData, float, float, int]:
    """What a checkout predicts, its seconds, its processor seconds and its peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.h5ad"
        command = [sys.executable, "-m", "histospace_tf", "predict", str(slide.resolve())]
        start = time.monotonic()
        child = subprocess.Popen(
            [*command, "--model", str(run.resolve()), "--out", str(out), *options],
            cwd=checkout,
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        if status:
            raise SystemExit(f"{checkout}: predict ended with status {status}")
        peak = used.ru_maxrss * 1024  # KiB on Linux
        return anndata.read_h5ad(out), seconds, used.ru_utime + used.ru_stime, peak


def main() -> None:
    """Prints a Markdown table with a row a checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of fit")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--against", type=Path, required=True, help="another checkout")
    parser.add_argument("--start-up", type=Path, help="a tiny slide, to take the start off")
    parser.add_argument("--options", default="", help='more for predict: --options="--fast"')
    given = parser.parse_args()
    options = shlex.split(given.options)
    tables, work = [], []
    print(
        "| checkout | places | seconds | processor seconds | of them start | places/s of one core |"
    )
    print("|---|---|---|---|---|---|")
    for name, checkout in (("this", HERE), ("other", given.against)):
        start = 0.0
        if given.start_up is not None:
            start = predicted(checkout, given.run, given.start_up, options)[2]
        table, seconds, used, peak = predicted(checkout, given.run, given.slide, options)
        tables.append(table)
        work.append((used, used - start))
        print(
            f"| {name} | {table.n_obs} | {seconds:.0f} | {used:.1f} | {start:.1f} | "
            f"{table.n_obs / (used - start):.1f} | {peak / 2**30:.2f} GiB |",
            flush=True,
        )
    (mine, mine_net), (other, other_net) = work
    print(f"\nProcessor seconds, other / this: {other / mine:.2f}")
    if given.start_up is not None:
        print(f"Without the start: {other_net / mine_net:.2f}")
    difference = np.abs(tables[0].X - tables[1].X).max()
    print(f"Largest difference: {difference:.2g} of a deviation of {tables[1].X.std():.2g}")


if __name__ == "__main__":
    main()

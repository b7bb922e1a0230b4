"""The README's table: one section of HER2ST held out at a time, every predictor beside the model.

    python benchmarks/her2st.py DATA --pretrain IMAGES --out DIR [--hold-out C4 --hold-out B4]

DATA is HER2ST's repository layout, IMAGES a folder of breast H&E. The runs are made with
`histospace-tf fit` and the options of the README (one epoch of the autoencoder, at most 15 of the
head; the second run takes the first one's encoder, which saw neither section's expression nor its
image) and stay in DIR; finished ones are read. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from histospace_tf import scoring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pretrain", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hold-out", action="append", default=None)
    options = parser.parse_args()
    sections = options.hold_out or ["C4", "B4"]
    first: Path | None = None
    for section in sections:
        run = options.out / section
        if not run.exists():
            source = (
                ["--pretrain", str(options.pretrain), "--pretrain-epochs", "1"]
                if first is None
                else ["--encoder", str(first)]
            )
            command = [sys.executable, "-m", "histospace_tf", "fit", str(options.data)]
            command += ["--out", str(run), "--hold-out", section, "--epochs", "15", *source]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        first = first or run
    print("| held out | predictor | gene_r | gene_r, smoothed target | spot_r | MSE |")
    print("|---|---|---|---|---|---|")
    for section in sections:
        scores = json.loads((options.out / section / "scores.json").read_text())
        rows = scores["sections"][section]["rows"]
        for name in scoring.ROWS:
            if rows.get(name):
                cells = (rows[name][k] for k in ("gene_r", "gene_r_smoothed", "spot_r", "mse"))
                shown = ("" if value is None else f"{value:.3f}" for value in cells)
                print(f"| {section} | {name.replace('_', ' ')} | {' | '.join(shown)} |")
    for section in sections:
        manifest = json.loads((options.out / section / "manifest.json").read_text())
        print(f"\n{section}: {manifest['parameters']:,} parameters, seconds {manifest['seconds']}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    if peak > 0.1:
        print(f"\npeak memory of a run: {peak:.2f} GiB")


main()

"""What intervals reach on patients and sections that were left out (docs/trust.md).

    python benchmarks/coverage.py EVALUATION ...

EVALUATION: a folder of `evaluate`, such as the two that benchmarks/packaged_model.py makes. Every
gene's interval comes from the other groups. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import anndata

from histospace_tf.scores import intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", type=Path, nargs="+")
    shares = " | ".join(f"{level:.0%}" for level in intervals.LEVELS)
    print(f"| left out | groups | genes | {shares} | half of an 80 % interval |")
    print("|---" * (4 + len(intervals.LEVELS)) + "|")
    for folder in parser.parse_args().evaluations:
        split = json.loads((folder / "scores.json").read_text())["split"]["outer"]
        found = intervals.of_held_out(anndata.read_h5ad(folder / "predictions.h5ad"), split)
        known = found.dropna(subset="reached_80")
        cells = []
        for level in intervals.LEVELS:
            low, middle, high = known[intervals.column("reached", level)].quantile([0.1, 0.5, 0.9])
            cells.append(f"{middle:.0%} ({low:.0%} to {high:.0%})")
        low, middle, high = known["width_80"].quantile([0.1, 0.5, 0.9])
        cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        groups = int(known["groups"].max())
        print(f"| {split}s | {groups} | {len(known)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""How the recommended preset was chosen: the first table of docs/accuracy.md.

    python benchmarks/choosing.py her2st --pretrain breast_he --work DIR

Ridges on kept features are fitted on three sections and scored on each of the other two, for all
ten choices of three: every score is a section's that took no part in its fit. A row is one way to
make features or to fit; its strength is the one that is best on average over all 20 scores. DIR may
be that of `ladder.py`, whose encoder and features are read. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ladder import Bench, Step

from histospace_tf import presets
from histospace_tf.cohort import head_inputs, sides
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import changed
from histospace_tf.data_pipelines import expression, gene_panel
from histospace_tf.models import autoencoder, layers
from histospace_tf.predictors import ridge_head
from histospace_tf.scores import metrics, ridge

Tables = dict[str, np.ndarray]
FITTED_ON = 3
STRENGTHS = [s for s in ridge_head.STRENGTHS if 50 <= s <= 5000]


class Choosing:
    """Spots, targets and the pairs of training sections and scored section."""

    def __init__(self, bench: Bench) -> None:
        self.preset = presets.preset("recommended")
        self.bench = bench
        self.spots = PairedSpots.of(bench.sections, self.preset)
        self.names = [section.name for section in self.spots.sections]
        self.patients = {section.name: section.patient for section in self.spots.sections}
        self.rows = {name: np.flatnonzero(self.spots.index.section == name) for name in self.names}
        self.sets = list(itertools.combinations(self.names, FITTED_ON))

    def measured(self, chosen: tuple[str, ...]) -> Tables:
        """Expression of every section on the panel of the chosen ones."""
        tables = {section.name: section.spots for section in self.spots.sections}
        target = self.preset.target
        genes = gene_panel.choose_panel([tables[name] for name in chosen], target)
        unit = {"normalisation": target.normalisation, "target_sum": target.target_sum}
        return {
            name: expression.targets(table, genes, **unit).astype(np.float64)
            for name, table in tables.items()
        }

    def statistics(self, *, mpp: float, encoder: str = "3", symmetries: int = 8) -> Tables:
        """Kept features of every section: (n, symmetries, f), and "NAME slide": (m, f)."""
        settings = changed(self.preset, tiles__mpp=mpp, regressor__symmetries=symmetries)
        spots = self.bench.spots(settings)
        inputs = self.bench.encoded(Step("", settings, encoder), spots).inputs(settings)
        found = {}
        for name, rows in self.rows.items():
            found[name] = np.asarray(inputs["features"][rows])
            found[f"{name} mean"] = inputs["slide_mean"][rows[0]]
            found[f"{name} std"] = inputs["slide_std"][rows[0]]
        return found

    def design(
        self,
        kept: Tables,
        *,
        radius_um: float = 400.0,
        limit: float = layers.LARGEST_STANDARDISED,
        only: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Tables:
        """What a linear head sees: standardised by the slide, neighbours beside; 0: without."""
        found = {}
        columns = slice(None) if only is None else only(kind_of_column())
        for section in self.spots.sections:
            name = section.name
            deviation = np.maximum(kept[f"{name} std"], layers.SMALLEST_DEVIATION)
            scaled = (kept[name] - kept[f"{name} mean"]) / deviation
            own = np.clip(scaled, -limit, limit).mean(axis=1)[:, columns]
            parts = [own]
            if radius_um:
                near = head_inputs.neighbour_features(
                    own, section.spots.centres_px, radius_px=radius_um / float(section.mpp or 1)
                )
                parts.append(near)
            found[name] = np.hstack(parts).astype(np.float64)
        return found

    def row(self, title: str, seen: Tables, *, factors: int = 5, weighted: bool = True) -> str:
        """Mean over all pairs, and by what they ask: another patient's section, or the same's."""
        choice = "sqrt_counts" if weighted else "equal"
        weights = sides.spot_weights(
            self.spots, changed(self.preset, regressor__spot_weights=choice)
        )
        scores: list[list[float]] = []
        kinds = []
        for chosen in self.sets:
            measured = self.measured(chosen)
            rows = np.concatenate([self.rows[name] for name in chosen])
            x = np.concatenate([seen[name] for name in chosen])
            y = np.concatenate([measured[name] - measured[name].mean(axis=0) for name in chosen])
            scale = y.std(axis=0) + 1e-6
            w = weights[rows] / weights[rows].mean()
            root = np.sqrt(w)[:, None]
            mean = np.average(x, axis=0, weights=w)
            x, y = (x - mean) * root, y / scale * root
            kernels = list(ridge.coefficients(x, y, STRENGTHS))
            axes = np.eye(y.shape[1])
            if factors:
                axes = np.linalg.eigh(y.T @ y)[1][:, ::-1][:, :factors]
            for name in self.names:
                if name in chosen:
                    continue
                scores.append(
                    [
                        metrics.gene_r(
                            (seen[name] - mean) @ kernel @ axes @ axes.T * scale,
                            measured[name],
                        )
                        for kernel in kernels
                    ]
                )
                known = {self.patients[other] for other in chosen}
                kinds.append("same patient" if self.patients[name] in known else "new patient")
        table, kind = np.array(scores), np.array(kinds)
        best = int(table.mean(axis=0).argmax())
        cells = [table[:, best].mean()]
        cells += [table[kind == k, best].mean() for k in ("new patient", "same patient")]
        return f"| {title} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |"


def kind_of_column() -> np.ndarray:
    """(f,) which of MapStatistics' statistics each feature is: 0 mean, 1 deviation, ..."""
    return np.concatenate(
        [
            np.repeat(np.arange(layers.STATISTICS), channels)
            for channels in autoencoder.BLOCK_CHANNELS
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pretrain", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    choosing = Choosing(Bench(options.data, options.pretrain, options.work))
    print(
        "| features and ridge | all 20 | new patient (4) | same patient (16) |\n|---|---|---|---|"
    )
    kept = choosing.statistics(mpp=1.38)
    seen = choosing.design(kept)
    quantiles = len(layers.QUANTILES)

    def show(title: str, tables: Tables, **how: float) -> None:
        print(choosing.row(title, tables, **how), flush=True)  # type: ignore[arg-type]

    show("the preset", seen)
    show("every spot weighs the same", seen, weighted=False)
    for factors in (0, 3, 8):
        show(f"{factors} factors" if factors else "every gene by itself", seen, factors=factors)
    for radius in (0, 300, 500, 800):
        title = f"neighbours within {radius} um" if radius else "no neighbours"
        show(title, choosing.design(kept, radius_um=radius))
    for limit in (2.0, 5.0):
        show(f"features cut at {limit:g} deviations", choosing.design(kept, limit=limit))
    show("mean and deviation alone", choosing.design(kept, only=lambda kind: kind < 2))
    show("no centre", choosing.design(kept, only=lambda kind: kind < 2 + quantiles))
    one = {name: values[:, :1] if values.ndim == 3 else values for name, values in kept.items()}
    show("one symmetry", choosing.design(one))
    narrow = choosing.statistics(mpp=0.69, symmetries=1)
    show("one symmetry, 155 um", choosing.design(narrow))
    untrained = choosing.statistics(mpp=1.38, encoder="untrained", symmetries=1)
    show("one symmetry, untrained encoder", choosing.design(untrained))


if __name__ == "__main__":
    main()

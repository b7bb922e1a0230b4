"""Learning rates of the small rivals, chosen on tissue that no table here scores.

    python benchmarks/peer_rates.py mob --work DIR

mob: two sections of a mouse's olfactory bulb. Each section in turn is predicted from the other, by
every small network of `models.peers` at every rate, its epochs chosen on inner groups as `evaluate`
does. The rate of the highest mean of both correlations is what `predictors.peers` should state; no
section of a benchmark's tables takes part. Finished rates stay in DIR. Prints Markdown. About an
hour on 2 cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from histospace_tf import bundle, distribution, packaged, presets
from histospace_tf.cohort import paired, plans, reading, sides
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.pretraining import TrainedEncoder
from histospace_tf.data_pipelines import readers
from histospace_tf.folds import held_out_predictions
from histospace_tf.predictors import peers
from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.scores import metrics
from histospace_tf.training import Session

RATES = {"sgd": (0.01, 0.03, 0.1, 0.3), "adam": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)}


class Bench:
    """The sections' spots, and the training sides of both folds."""

    def __init__(self, data: Path, work: Path) -> None:
        self.work = work
        settings = self.settings = presets.preset("recommended")
        sections = reading.usable_sections(readers.read_cohort(data), settings)
        spots = paired.PairedSpots.of(sections, settings)
        spots = paired.cut_tiles(spots, settings, work / "tiles", pretrain_on=[])
        run = bundle.load(packaged.run_folder(Path(packaged.DEFAULT)))
        encoder = TrainedEncoder(run.encoder, run.reference, [], {})
        self.encoded = EncodedSpots(spots, encoder, settings, work / "features")
        self.folds = plans.outer_folds(spots.index, "section")

    def scores(self, entry: PeerNetwork, rate: float) -> dict[str, list[float]]:
        """Both correlations and the epochs of each section left out."""
        entry.small = {**entry.small, "learning_rate": rate}
        found: dict[str, list[float]] = {"gene_r": [], "spot_r": [], "epochs": []}
        for number, fold in enumerate(self.folds):
            folder = self.work / "checkpoints" / f"{entry.name}_{rate:g}_{number}"
            session = Session(distribution.strategy("single"), self.settings.seed, True, folder)
            genes = plans.training_panel(self.encoded.spots, fold, self.settings)
            training = sides.training_spots(self.encoded, fold, genes, self.settings)
            fitted = entry.fit(training, self.settings, session)
            (held_out,) = held_out_predictions.predicted(
                self.encoded, fold.test, {entry.name: fitted}, training.panel
            )
            predicted = held_out.predictions[entry.name]
            assert predicted is not None
            assert fitted.choice is not None
            found["gene_r"].append(metrics.gene_r(predicted, held_out.measured))
            found["spot_r"].append(metrics.spot_r(predicted, held_out.measured))
            found["epochs"].append(fitted.choice["epochs"])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mob", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    kept = given.work / "rates.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    bench = Bench(given.mob, given.work)
    names = [fold.held_out[0] for fold in bench.folds]
    print(f"| network | rate | mean of both | {' | '.join(names)} (gene_r; spot_r; epochs) |")
    print("|---|---|---|" + "---|" * len(names))
    for entry in peers.ENTRIES:
        for rate in RATES[entry.module.TRAINING.optimizer]:
            key = f"{entry.name}, {rate:g}"
            if key not in known:
                with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink):
                    known[key] = bench.scores(entry, rate)
                kept.write_text(json.dumps(known, indent=1))
            found = known[key]
            mean = np.mean([found["gene_r"], found["spot_r"]])
            each = " | ".join(
                f"{r:.3f}; {s:.3f}; {e}"
                for r, s, e in zip(*(found[k] for k in ("gene_r", "spot_r", "epochs")), strict=True)
            )
            print(f"| {entry.label} | {rate:g} | {mean:.3f} | {each} |", flush=True)


if __name__ == "__main__":
    main()

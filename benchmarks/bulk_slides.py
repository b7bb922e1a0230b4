"""What is learned from bulk of slides alone, where images explain it and where they do not.

    python benchmarks/bulk_slides.py [--patients 14] [--spots 6] [--epochs N] [--seed 0]

Simulated slides, one of each patient, whose bulk is the sum of their spots; `fit --bulk` with both
networks, on the packaged encoder, patients left out. Twice the same images:

* levels of patients' own: every patient has its own level of each gene, as `simulate` draws them,
  and no image shows it;
* same levels: slides differ by how much of each tissue they hold, and by the two programmes that
  the simulator hides from images, alone.

"composition" is a ridge on what an image could at best say of the slides: the true shares of cell
types and the true atypia, their strength chosen as the mean feature ridge's is. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

import histospace_tf
from histospace_tf.data_pipelines import readers, simulation, splits
from histospace_tf.predictors import mean_feature_ridge
from histospace_tf.predictors.mean_feature_ridge import MeanFeatureRidge
from histospace_tf.scores import metrics
from histospace_tf.slide_level import ARCHITECTURES, cross_validation, networks

LEVELS = {"levels of patients' own": False, "same levels": True}
SHOWN = ("gene_r", "spot_r", "mse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=14, help="5 to 26")
    parser.add_argument("--spots", type=int, default=6, help="array positions a side")
    parser.add_argument("--epochs", type=int, help="at most; as published where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=ARCHITECTURES, help="one network alone")
    given = parser.parse_args()
    print(f"| bulk | predictor | {' | '.join(SHOWN)} | chosen |")
    print("|---|---|" + "---|" * (len(SHOWN) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        for title, same_levels in LEVELS.items():
            folder = Path(scratch) / str(same_levels)
            composition = write_slides(folder, given, same_levels=same_levels)
            for name, (row, words) in compared(folder, composition, given).items():
                values = " | ".join(f"{row[key]:.3f}" for key in SHOWN)
                print(f"| {title} | {name} | {values} | {words} |", flush=True)


def compared(
    folder: Path, composition: pd.DataFrame, given: argparse.Namespace
) -> dict[str, tuple[dict[str, Any], str]]:
    """Scores of each predictor on slides left out, and what inner groups chose."""
    rows = {}
    for architecture in [given.only] if given.only else ARCHITECTURES:
        run = folder / architecture
        histospace_tf.fit(
            folder / "slides",
            run,
            bulk=folder / "bulk.csv",
            architecture=architecture,
            mpp=simulation.MPP,
            epochs=given.epochs,
            seed=given.seed,
        )
        scores = json.loads((run / "scores.json").read_text())
        own = scores["bulk"]["rows"]
        rows[architecture] = own["model"], chosen(scores, architecture, "epochs")
    # The same beside either network.
    ridge = MeanFeatureRidge.name
    rows[MeanFeatureRidge.label] = own[ridge], chosen(scores, ridge, "strength")
    rows["gene mean"] = own["gene_mean"], ""
    table = anndata.read_h5ad(run / "slide_predictions.h5ad")
    rows["composition"] = of_composition(table, composition, given.seed), ""
    return rows


def chosen(scores: dict[str, Any], predictor: str, what: str) -> str:
    """What each fold chose."""
    values = [one[what] for one in scores["chosen"] if one["predictor"] == predictor]
    return f"{what} {', '.join(f'{value:g}' for value in values)}"


def write_slides(folder: Path, given: argparse.Namespace, *, same_levels: bool) -> pd.DataFrame:
    """Writes slides and bulk.csv.

    Returns:
        True shares of cell types and mean atypia, one row per slide.
    """
    simulation.simulate(
        folder / "tissue",
        patients=given.patients,
        spots_xy=(given.spots, given.spots),
        same_levels=same_levels,
        seed=given.seed,
    )
    truth = json.loads((folder / "tissue" / simulation.TRUTH).read_text())["sections"]
    (folder / "slides").mkdir()
    bulk, composition = [], {}
    for section in readers.read_cohort(folder / "tissue").sections:
        assert section.image is not None
        section.image.rename(folder / "slides" / f"{section.name}.jpg")
        sums = np.asarray(section.spots.counts.sum(axis=0)).ravel().astype(int)
        named = {"slide": section.name, "patient": section.patient}
        bulk.append({**named, **dict(zip(section.spots.genes, sums, strict=True))})
        known = truth[section.name]
        # A spot weighs as many counts as it has.
        weights = np.asarray(section.spots.counts.sum(axis=1)).ravel()
        shares = np.array([known["shares"][spot] for spot in section.spots.names])
        atypia = np.array([known["atypia"][spot] for spot in section.spots.names])
        composition[section.name] = [
            *np.average(shares, axis=0, weights=weights),
            np.average(shares[:, 0] * atypia, weights=weights),
        ]
    pd.DataFrame(bulk).fillna(0).convert_dtypes().to_csv(folder / "bulk.csv", index=False)
    return pd.DataFrame(composition).T


def of_composition(
    table: anndata.AnnData, composition: pd.DataFrame, seed: int
) -> dict[str, float | None]:
    """Scores of a ridge on the true composition, with the folds of `fit --bulk`."""
    measured = np.asarray(table.layers["measured"], np.float32)
    features = composition.loc[table.obs_names].to_numpy(np.float32)
    index = networks.slide_index(list(table.obs_names), list(table.obs["patient"]))
    folds = splits.inner_folds(index, np.arange(len(table)), folds=cross_validation.MOST_FOLDS)
    predicted = np.empty_like(measured)
    for fold in folds:
        level, scale = measured[fold.train].mean(axis=0), measured[fold.train].std(axis=0)
        scale = np.where(scale > 0, scale, 1)
        ridge = mean_feature_ridge.fit(
            features,
            (measured - level) / scale,
            fold.train,
            networks.inner_groups(index, fold.train),
            seed=seed,
        )
        predicted[fold.test] = ridge.predict(features[fold.test]) * scale + level
    return metrics.score_row(predicted, measured)


if __name__ == "__main__":
    main()

"""What counts without images teach, and how they should be weighed.

    python benchmarks/counts.py her2st_counts
    python benchmarks/counts.py her2st_counts --before EVALUATION --after EVALUATION

The first two tables are of counts alone, every patient left out in turn, and are what the rules of
`cohort.taught` rest on. Levels: spots of the patient left out against one row of numbers for all of
them. Gene factors: each spot's counts are drawn into two halves; one half, projected on five axes,
is held against the other, so that a higher r means axes that hold more of tissue and less of noise.
"Own" are the spots of one patient who stands for those with an image, "others" the further
patients. With --before and --after, two evaluations of the same data and settings are set beside
each other, the second with `--counts`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from histospace_tf import presets
from histospace_tf.data_pipelines import expression, gene_panel, readers
from histospace_tf.predictors import registry
from histospace_tf.scores import metrics
from histospace_tf.vocabulary import Section, SpotTable

TARGET = presets.preset("recommended").target
FACTORS = presets.preset("recommended").regressor.factors
ROWS = ("model", "model_single_tile", "gene_mean", "colour_ridge")
Values = dict[str, np.ndarray]


class Counts:
    """Sections of a folder, by name, and their patients."""

    def __init__(self, folder: Path) -> None:
        self.sections = {s.name: s for s in readers.read_cohort(folder, image=False).sections}
        self.of: dict[str, list[str]] = {}
        for name, section in self.sections.items():
            self.of.setdefault(section.patient, []).append(name)

    def without(self, *patients: str) -> list[str]:
        """Names of all other patients' sections."""
        return [name for name, one in self.sections.items() if one.patient not in patients]

    def panel(self, names: Sequence[str]) -> tuple[str, ...]:
        return gene_panel.choose_panel([self.sections[name].spots for name in names], TARGET)

    def values(self, names: Sequence[str], genes: Sequence[str]) -> Values:
        return {name: in_unit(self.sections[name].spots, genes) for name in names}


def in_unit(spots: SpotTable, genes: Sequence[str]) -> np.ndarray:
    return expression.targets(
        spots, genes, normalisation=TARGET.normalisation, target_sum=TARGET.target_sum
    ).astype(np.float64)


def levels(counts: Counts) -> Iterator[str]:
    """A row for each way to weigh, a column a patient left out."""

    def over(names: Sequence[str], values: Values) -> np.ndarray:
        return np.concatenate([values[name] for name in names]).mean(axis=0)

    ways: dict[str, Callable[[Mapping[str, Sequence[str]], Values], list[np.ndarray]]] = {
        "one other patient": lambda of, values: [over(names, values) for names in of.values()],
        "all others, by spot": lambda of, values: [
            over([name for names in of.values() for name in names], values)
        ],
        "all others, by section": lambda of, values: [
            np.mean([values[n].mean(axis=0) for names in of.values() for n in names], axis=0)
        ],
        "all others, by patient": lambda of, values: [
            np.mean([over(names, values) for names in of.values()], axis=0)
        ],
    }
    scores: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for held, names in counts.of.items():
        values = counts.values(list(counts.sections), counts.panel(counts.without(held)))
        others = {patient: own for patient, own in counts.of.items() if patient != held}
        for way, made in ways.items():
            rows = [(level, values[name]) for level in made(others, values) for name in names]
            spot_r = [metrics.spot_r(np.tile(level, (len(v), 1)), v) for level, v in rows]
            mse = [float(np.mean((v - level) ** 2)) for level, v in rows]
            scores[way].append((float(np.mean(spot_r)), float(np.mean(mse))))
    yield f"| spot_r, MSE | {' | '.join(counts.of)} | mean |"
    yield "|---" * (len(counts.of) + 2) + "|"
    for way, each in scores.items():
        cells = [f"{r:.3f}, {mse:.2f}" for r, mse in [*each, tuple(np.mean(each, axis=0))]]
        yield f"| {way} | {' | '.join(cells)} |"


def halves(section: Section, rng: np.random.Generator) -> tuple[SpotTable, SpotTable]:
    """Two tables into which each count fell by a coin, of the spots that have counts in both."""
    one, other = section.spots.counts.copy(), section.spots.counts.copy()
    one.data = rng.binomial(one.data.astype(int), 0.5).astype(np.float32)
    other.data = other.data - one.data
    both = np.logical_and(*(np.asarray(half.sum(axis=1)).ravel() > 0 for half in (one, other)))
    first, second = (
        dataclasses.replace(section.spots, counts=sparse.csr_matrix(half)).subset(both)
        for half in (one, other)
    )
    return first, second


def factors(counts: Counts) -> Iterator[str]:
    """A row for each way to weigh the patient that stands for those with an image."""
    rng = np.random.default_rng(0)
    drawn = {name: halves(section, rng) for name, section in counts.sections.items()}
    trials = {
        "of a patient never seen": [
            (counts.of[own], counts.of[held], counts.without(own, held))
            for own, held in itertools.permutations(counts.of, 2)
        ],
        "of another section of the own patient": [
            ([n for n in names if n != held], [held], counts.without(patient))
            for patient, names in counts.of.items()
            for held in names
            if len(names) > 1
        ],
    }
    shares = {"own": 1.0, "own and others, half each": 0.5, "others": 0.0}
    scores: dict[str, dict[str, list[float]]] = {way: {} for way in shares}
    for of_what, each in trials.items():
        for own, held, others in each:
            genes = counts.panel(own)
            values = counts.values([*own, *others], genes)
            centred = {name: v - v.mean(axis=0) for name, v in values.items()}
            scale = np.sqrt(np.mean(np.concatenate([centred[n] for n in own]) ** 2, axis=0))
            scale = np.maximum(scale, 1e-6)
            patients = [[n for n in names if n in others] for names in counts.of.values()]
            of_own = outer(counts, own, centred, scale)
            of_others = np.mean([outer(counts, p, centred, scale) for p in patients if p], axis=0)
            for way, share in shares.items():
                _, axes = np.linalg.eigh(share * of_own + (1 - share) * of_others)
                axes = axes[:, -FACTORS:]
                for name in held:
                    one, other = (in_unit(half, genes) for half in drawn[name])
                    kept = (one - one.mean(axis=0)) / scale @ axes @ axes.T
                    scores[way].setdefault(of_what, []).append(metrics.gene_r(kept, other))
    yield f"| r of halves on {FACTORS} axes | {' | '.join(trials)} |"
    yield "|---" * (len(trials) + 1) + "|"
    for way, by in scores.items():
        yield f"| {way} | {' | '.join(f'{np.mean(by[what]):.3f}' for what in trials)} |"


def outer(counts: Counts, names: Sequence[str], centred: Values, scale: np.ndarray) -> np.ndarray:
    """(g, g) mean outer product of standardised spots, weighed by the root of their counts."""
    values = np.concatenate([centred[name] for name in names]) / scale
    weights = np.sqrt(np.concatenate([counts.sections[n].spots.total_counts for n in names]))
    return (values * weights[:, None]).T @ values / weights.sum()


def compared(before: Path, after: Path) -> Iterator[str]:
    """A row a section and predictor: each score before -> after.

    Panels are the training images' own choice, so both evaluations must score the same genes.
    """
    folders = (before, after)
    old, new = (json.loads((folder / "scores.json").read_text()) for folder in folders)
    genes = [(folder / "gene_scores.csv").read_text().count("\n") for folder in folders]
    if genes[0] != genes[1] or set(old["sections"]) != set(new["sections"]):
        raise SystemExit(f"{before} and {after} score other sections or genes")
    yield "| section | predictor | gene_r | spot_r | MSE |"
    yield "|---|---|---|---|---|"
    for name in old["sections"]:
        for row in ROWS:
            cells = []
            for score in ("gene_r", "spot_r", "mse"):
                one, other = (each["sections"][name]["rows"][row][score] for each in (old, new))
                cells.append(f"{one:.3f} -> {other:.3f}")
            yield f"| {name} | {registry.label(row)} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=Path)
    parser.add_argument("--before", type=Path, help="evaluation without --counts")
    parser.add_argument("--after", type=Path, help="the same with --counts")
    given = parser.parse_args()
    if given.before and given.after:
        print("\n".join(compared(given.before, given.after)), flush=True)
        return
    counts = Counts(given.counts)
    print("\n".join(levels(counts)), end="\n\n", flush=True)
    print("\n".join(factors(counts)), flush=True)


if __name__ == "__main__":
    main()

"""How often chance passes for a finding, and how often intervals hold the truth. Prints Markdown.

    python benchmarks/p_values.py DATA [--maps N] [--seed S]

DATA is a folder in HER2ST's layout. Only the positions of its sections' spots are used: all maps
are made, so that their relation is known. Two to three minutes on two cores.

Unrelated maps: the share of them that `p` (shuffled single spots) and `p_spatial` (random maps) of
genes.csv put below 0.05; 5 % is right. Both maps of a pair are drawn alike, by themselves:

    smooth    a Gaussian field, correlated as exp(-(d / length)^2 / 2) at d spot distances
    skewed    its exponential: few high spots, many low ones
    patchy    1 in the highest fifth of its spots, 0 elsewhere
    gradient  one straight slope, its direction drawn
    hotspot   one round bump exp(-(d / length)^2 / 2) around a spot that is drawn

and noise of single spots is a share of each map's variance. The last two are hard cases. Sections:
DATA's smallest and largest. Chance: 5 % of 2,000 maps is +- 1 %, so ranges are a little too wide.

Intervals: how often the 95 % interval holds the mean r of such sections, over all maps made. Here
predicted = 0.6 measured + 0.8 another smooth field, each with noise; length 0 is spots that do not
depend on each other. Sections are DATA's smallest ones, of a patient each.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree, distance

from histospace_tf.data_pipelines import readers
from histospace_tf.scores import resampling

LEVEL = 0.05
PERMUTATIONS, BOOTSTRAPS = 1000, 400
NOISE_SHARES = (0.0, 0.25, 0.5)
LENGTHS: tuple[int, ...] = (2, 4, 8)  # spot distances
CASES = dict.fromkeys(("smooth", "skewed", "patchy"), LENGTHS)
CASES |= {"gradient": (0,), "hotspot": (2, 4)}
SECTIONS = (1, 2, 5)  # that an interval is made of
Random = np.random.Generator


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates of p and intervals, as Markdown.")
    parser.add_argument("data", type=Path, help="a folder in HER2ST's layout")
    parser.add_argument("--maps", type=int, default=2000, help="made maps a rate (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sections = readers.read_cohort(options.data).sections
    centres = sorted((in_pitches(section.spots.centres_px) for section in sections), key=len)
    if len(centres) < max(SECTIONS):
        parser.error(f"{options.data} has {len(centres)} sections, not {max(SECTIONS)}")
    random = np.random.default_rng(options.seed)
    print_unrelated([centres[0], centres[-1]], options.maps, random)
    print_intervals(centres[: max(SECTIONS)], options.maps, random)


def print_unrelated(centres: Sequence[np.ndarray], n: int, random: Random) -> None:
    names = [f"{name}, {len(at)} spots" for at in centres for name in ("p", "p_spatial")]
    print_head(f"Unrelated maps with p < {LEVEL}, %", "maps", "length", "noise share", *names)
    ranges = []
    for kind, lengths in CASES.items():
        rows = []
        for length, noise in product(lengths, NOISE_SHARES):
            row: list[float] = []
            for at in centres:
                pair = [noisy(made(kind, at, length, n, random), noise, random) for _ in range(2)]
                row += below_level(as_section(pair, at))
            print_row(kind, length, noise, *percent(row))
            rows.append(row)
        columns = (np.ravel([row[first::2] for row in rows]) for first in (0, 1))
        ranges.append([kind, *(" to ".join(percent([min(c), max(c)])) for c in columns)])
    print_head("Range over those rows, %", "maps", "p", "p_spatial")
    for cells in ranges:
        print_row(*cells)


def print_intervals(centres: Sequence[np.ndarray], n: int, random: Random) -> None:
    print_head("Intervals of k sections that hold the truth, %", "length", "noise share", *SECTIONS)
    for length, noise in product((0, *LENGTHS), (0.0, 0.5)):
        sections: list[resampling.SectionMaps] = []
        for at in centres:
            measured, other = (made("smooth", at, length, n, random) for _ in range(2))
            pair = [noisy(m, noise, random) for m in (0.6 * measured + 0.8 * other, measured)]
            sections.append(as_section(pair, at, f"patient {len(sections)}"))
        held = []
        for count in SECTIONS:
            truth = np.mean([np.sum(s.predicted * s.measured, axis=0) for s in sections[:count]])
            low, high = resampling.interval(sections[:count], seed=0, bootstraps=BOOTSTRAPS)
            held.append(float(np.mean((low <= truth) & (truth <= high))))
        print_row(length, noise, *percent(held))


def made(kind: str, at: np.ndarray, length: int, n: int, random: Random) -> np.ndarray:
    """(spots, n) maps without noise; smooth ones of variance one."""
    if kind == "gradient":
        turn = random.uniform(0, 2 * np.pi, n)
        return at @ np.stack([np.cos(turn), np.sin(turn)])
    alike = np.exp(-((distance.cdist(at, at) / (length or 1e-3)) ** 2) / 2)
    if kind == "hotspot":
        return alike[:, random.integers(len(at), size=n)]
    root = np.linalg.cholesky(alike + 1e-6 * np.eye(len(at)))  # rounding may make it singular
    field = root @ random.normal(size=(len(at), n))
    if kind == "patchy":
        return (field > np.quantile(field, 0.8, axis=0)).astype(np.float64)
    return np.exp(field) if kind == "skewed" else field


def noisy(maps: np.ndarray, share: float, random: Random) -> np.ndarray:
    unit = (maps - maps.mean(axis=0)) / maps.std(axis=0)
    return np.sqrt(1 - share) * unit + np.sqrt(share) * random.normal(size=maps.shape)


def as_section(pair: Sequence[np.ndarray], at: np.ndarray, who: str = "") -> resampling.SectionMaps:
    return resampling.section_maps(who, at, pair[0], pair[1], np.ones(pair[0].shape[1], bool))


def below_level(section: resampling.SectionMaps) -> list[float]:
    """Shares of maps with p and with p_spatial below LEVEL."""
    tests = (resampling.p_shuffled_spots, resampling.p_random_maps)
    p_values = [test([section], seed=0, permutations=PERMUTATIONS) for test in tests]
    return [float(np.mean(p < LEVEL)) for p in p_values]


def in_pitches(centres_px: np.ndarray) -> np.ndarray:
    return centres_px / np.median(cKDTree(centres_px).query(centres_px, k=2)[0][:, 1])


def percent(rates: Sequence[float]) -> list[str]:
    return [f"{100 * rate:.1f}" for rate in rates]


def print_head(title: str, *names: object) -> None:
    print(f"\n## {title}\n")
    print_row(*names)
    print_row(*["---:"] * len(names))


def print_row(*cells: object) -> None:
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


if __name__ == "__main__":
    main()

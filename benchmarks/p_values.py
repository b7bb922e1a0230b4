"""How often chance passes for a finding, and how often intervals hold the truth. Prints Markdown.

    python benchmarks/p_values.py DATA [--maps N] [--seed S]

DATA is a folder in HER2ST's layout. Of its sections only the spots' positions are used: all maps
are made, so that it is known what they have to do with each other. Two to three minutes.

Unrelated maps: the share of them that `p` (shuffled single spots) and `p_spatial` (random maps) of
genes.csv put below 0.05; 5 % is right. Both maps of a pair are drawn alike, by themselves:

    smooth    a Gaussian field, correlated as exp(-(d / length)^2 / 2) at d spot distances
    skewed    its exponential: few high spots, many low ones
    patchy    1 in the highest fifth of its spots, 0 elsewhere
    gradient  one straight slope, its direction drawn
    hotspot   one round bump exp(-(d / length)^2 / 2) around a spot that is drawn

to which independent noise of single spots adds the given share of the variance. The last two are
hard cases. The sections are DATA's smallest and largest.

One tissue cut four times: unrelated smooth fields which four sections of the smallest one's spots
share, each with noise of its own, said to be of one patient (true) or of four (wrong).

Intervals: how often the 95 % interval holds the mean r that such sections have, the mean over all
maps made. Here predicted = 0.6 measured + 0.8 another smooth field, each with noise; length 0 is
spots that do not depend on each other. Sections are DATA's smallest ones, of a patient each.

Of 2,000 maps a rate of 5 % is good to 1 percentage point, one of 80 % to 2.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree, distance

from histospace_tf import resampling
from histospace_tf.data_pipelines import readers

LEVEL = 0.05
RESAMPLES = 1000  # permutations and bootstraps
LENGTHS = (2, 3, 4, 6, 8)  # spot distances
NOISE_SHARES = (0.0, 0.25, 0.5)
INTERVAL_SECTIONS = (1, 2, 5)
Random = np.random.Generator


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates of p and intervals, as Markdown.")
    parser.add_argument("data", type=Path, help="a folder in HER2ST's layout")
    parser.add_argument("--maps", type=int, default=2000, help="made maps a rate (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sections = readers.read_cohort(options.data).sections
    centres = sorted((in_pitches(section.spots.centres_px) for section in sections), key=len)
    random = np.random.default_rng(options.seed)
    print_unrelated([centres[0], centres[-1]], options.maps, random)
    print_one_tissue(centres[0], options.maps, random)
    print_intervals(centres[: max(INTERVAL_SECTIONS)], options.maps, random)


def print_unrelated(centres: Sequence[np.ndarray], n: int, random: Random) -> None:
    names = [f"{name}, {len(at)} spots" for at in centres for name in ("p", "p_spatial")]
    print_head(f"Unrelated maps with p < {LEVEL}, %", "maps", "length", "noise share", *names)
    found: dict[str, list[list[float]]] = {}
    for kind, length, noise in kinds():
        row = []
        for at in centres:
            pair = [with_noise(made(kind, at, length, n, random), noise, random) for _ in range(2)]
            row += below_level([as_section(*pair, at)])
        print_row(kind, length or "", noise, *percent(row))
        found.setdefault("hard" if kind in ("gradient", "hotspot") else kind, []).append(row)
    for kind, rows in found.items():
        p, p_spatial = (percent(np.ravel([row[at::2] for row in rows])) for at in (0, 1))
        span = [f"{min(v, key=float)} to {max(v, key=float)} %" for v in (p, p_spatial)]
        print(f"\n{kind}: p {span[0]}, p_spatial {span[1]}")


def print_one_tissue(at: np.ndarray, n: int, random: Random) -> None:
    title = f"One tissue cut four times, {len(at)} spots: p_spatial < {LEVEL}, %"
    print_head(title, "length", "noise share", "as one patient", "as four")
    for length, noise in itertools.product((2, 4, 8), NOISE_SHARES):
        tissue = [made("smooth", at, length, n, random) for _ in range(2)]
        cuts = [[with_noise(maps, noise, random) for maps in tissue] for _ in range(4)]
        one = below_level([as_section(*cut, at, "A") for cut in cuts])[1]
        four = [as_section(*cut, at, name) for cut, name in zip(cuts, "ABCD", strict=True)]
        print_row(length, noise, *percent([one, below_level(four)[1]]))


def print_intervals(centres: Sequence[np.ndarray], n: int, random: Random) -> None:
    wanted = [f"{k} sections" if k > 1 else "1 section" for k in INTERVAL_SECTIONS]
    title = "95 % intervals that hold the truth, %"
    print_head(title, "length", "noise share", *wanted)
    for length, noise in itertools.product((0, 2, 4, 8), NOISE_SHARES):
        sections = []
        for number, at in enumerate(centres):
            measured, other = (made("smooth", at, length, n, random) for _ in range(2))
            pair = [
                with_noise(maps, noise, random) for maps in (0.6 * measured + 0.8 * other, measured)
            ]
            sections.append(as_section(*pair, at, str(number)))
        r = [np.mean(np.sum(s.predicted * s.measured, axis=0)) for s in sections]
        covered = []
        for k in INTERVAL_SECTIONS:
            low, high = resampling.interval(sections[:k], seed=0, bootstraps=RESAMPLES)
            covered.append(float(np.mean((low <= np.mean(r[:k])) & (np.mean(r[:k]) <= high))))
        print_row(length, noise, *percent(covered))


def kinds() -> Iterator[tuple[str, int, float]]:
    for kind in ("smooth", "skewed", "patchy"):
        yield from itertools.product([kind], LENGTHS, NOISE_SHARES)
    yield from itertools.product(["gradient"], [0], NOISE_SHARES)
    yield from itertools.product(["hotspot"], [2, 4], NOISE_SHARES)


def made(kind: str, at: np.ndarray, length: int, n: int, random: Random) -> np.ndarray:
    """(spots, n) maps without noise; smooth ones of variance one."""
    if kind == "gradient":
        turn = random.uniform(0, 2 * np.pi, n)
        return at @ np.stack([np.cos(turn), np.sin(turn)])
    apart = distance.cdist(at, at)
    alike = np.exp(-((apart / length) ** 2) / 2) if length else np.eye(len(at))
    if kind == "hotspot":
        return alike[:, random.integers(len(at), size=n)]
    root = np.linalg.cholesky(alike + 1e-6 * np.eye(len(at)))  # or rounding makes it singular
    field = root @ random.normal(size=(len(at), n))
    if kind == "patchy":
        return (field > np.quantile(field, 0.8, axis=0)).astype(np.float64)
    return np.exp(field) if kind == "skewed" else field


def with_noise(maps: np.ndarray, share: float, random: Random) -> np.ndarray:
    unit = (maps - maps.mean(axis=0)) / maps.std(axis=0)
    return np.sqrt(1 - share) * unit + np.sqrt(share) * random.normal(size=maps.shape)


def as_section(
    predicted: np.ndarray, measured: np.ndarray, at: np.ndarray, patient: str = "A"
) -> resampling.SectionMaps:
    scored = np.ones(measured.shape[1], bool)
    return resampling.section_maps(patient, at, predicted, measured, scored)


def below_level(sections: Sequence[resampling.SectionMaps]) -> list[float]:
    """Shares of maps below LEVEL: shuffled spots, random maps."""
    tests = (resampling.p_shuffled_spots, resampling.p_random_maps)
    return [float(np.mean(t(sections, seed=0, permutations=RESAMPLES) < LEVEL)) for t in tests]


def in_pitches(centres_px: np.ndarray) -> np.ndarray:
    """Centres in spot distances."""
    return centres_px / np.median(cKDTree(centres_px).query(centres_px, k=2)[0][:, 1])


def percent(rates: Sequence[float] | np.ndarray) -> list[str]:
    return [f"{100 * rate:.1f}" for rate in rates]


def print_head(title: str, *names: str) -> None:
    print(f"\n## {title}\n")
    print_row(*names)
    print_row(*["---:"] * len(names))


def print_row(*cells: object) -> None:
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


if __name__ == "__main__":
    main()

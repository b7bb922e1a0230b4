"""Speed of applying stains: this package against torchstain's NumPy Macenko. Prints JSON.

    python benchmarks/stain.py [--tiles N]

Both sides recolour the same tiles of 224 px to the same target, Macenko, in one process, taking
turns; every figure is a median over the turns, in megapixels a second. torchstain is fitted to the
target before the clock starts, and its `normalize` is called as its users call it, tile by tile:
that call estimates the tile's own stains each time, for it has no other. (It leaves the two single
stain images out, `stains=False`, which is its faster way.) Our side estimates a slide's stains
once. So there are several figures:

    torchstain_mp_per_s          `normalize`, each tile fitted as it goes
    torchstain_known_mp_per_s    its own concentrations and recolouring with the stains known, taken
                                 from its private parts: what it could reach

    ours_mp_per_s                applying known stains, as training does from the second epoch on:
                                 the slide's colour table has met the tiles' colours
    ours_first_pass_mp_per_s     the same from an empty table, built on the way
    ours_formula_mp_per_s        the formula worked out for every pixel, no table
    ours_with_fit_mp_per_s       one fit from all tiles' pixels, then the first pass
    ours_fit_each_tile_mp_per_s  a fit and the formula for each tile by itself, torchstain's way

`ratio` is ours_mp_per_s / torchstain_mp_per_s. torchstain's way has no cast and luminosity steps;
ours has both on. Tiles come from the test data's stain/source.png (HISTOSPACE_TEST_DATA, or
../shared/data beside the checkout), made ones where it is absent. Needs this package installed
(or PYTHONPATH=.) and torchstain: `pip install torchstain torch`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.vocabulary import StainReference

TILE_PX = 224
TURNS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of stain normalisation, as JSON.")
    parser.add_argument("--tiles", type=int, default=16, help="tiles of 224 px (default 16)")
    count = parser.parse_args().tiles
    if count < 1:
        sys.exit("--tiles: at least 1 is needed")
    try:
        from torchstain.numpy.normalizers import NumpyMacenkoNormalizer
    except ImportError as error:
        sys.exit(f"this benchmark needs torchstain ({error}): pip install torchstain torch")

    tiles, target, origin = tiles_and_target(count)
    reference = stain.fit_stains(target, method="macenko")
    source = stain.fit_stains(tiles, method="macenko")
    kept = recolouring.colour_table(source, reference)
    recolouring.apply_table(tiles, kept)
    theirs = NumpyMacenkoNormalizer()
    theirs.fit(target)
    its_source = NumpyMacenkoNormalizer()
    its_source.fit(np.concatenate(list(tiles)))

    routes: dict[str, Callable[[], object]] = {
        "ours": lambda: recolouring.apply_table(tiles, kept),
        "torchstain": lambda: [theirs.normalize(I=tile, stains=False) for tile in tiles],
        "torchstain_known": lambda: [known_to_torchstain(t, its_source, theirs) for t in tiles],
        "ours_first_pass": lambda: recolouring.apply_table(
            tiles, recolouring.colour_table(source, reference)
        ),
        "ours_formula": lambda: recolouring.normalise(tiles, source, reference),
        "ours_with_fit": lambda: with_fit(tiles, reference),
        "ours_fit_each_tile": lambda: [
            recolouring.normalise(tile, stain.fit_stains(tile, method="macenko"), reference)
            for tile in tiles
        ],
    }
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(TURNS + 1):
        for name, route in routes.items():
            start = time.perf_counter()
            route()
            if turn:  # the first turn only warms up
                seconds[name].append(time.perf_counter() - start)

    megapixels = tiles.size / 3 / 1e6
    speeds = {
        f"{name}_mp_per_s": megapixels / statistics.median(times) for name, times in seconds.items()
    }
    report = {
        **{name: round(speed, 2) for name, speed in speeds.items()},
        "ratio": round(speeds["ours_mp_per_s"] / speeds["torchstain_mp_per_s"], 2),
        "ratio_stains_known_to_both": round(
            speeds["ours_mp_per_s"] / speeds["torchstain_known_mp_per_s"], 2
        ),
        "ratio_first_pass": round(
            speeds["ours_first_pass_mp_per_s"] / speeds["torchstain_mp_per_s"], 2
        ),
        "route": {
            "ours": "colour table kept for the slide; stains fitted once",
            "torchstain": "NumpyMacenkoNormalizer.normalize, which fits each tile as it goes",
        },
        "method": "macenko",
        "cast_and_luminosity": {"ours": True, "torchstain": False},
        "tiles": len(tiles),
        "tile_px": TILE_PX,
        "distinct_colours": len(np.unique(tiles.reshape(-1, 3), axis=0)),
        "tiles_from": origin,
        "turns": TURNS,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    print(json.dumps(report, indent=2))


def with_fit(tiles: np.ndarray, reference: StainReference) -> np.ndarray:
    """A slide from nothing: its stains from its tiles' pixels, then every tile."""
    source = stain.fit_stains(tiles, method="macenko")
    return recolouring.apply_table(tiles, recolouring.colour_table(source, reference))


def known_to_torchstain(tile: np.ndarray, source: Any, target: Any) -> np.ndarray:
    """torchstain's `normalize` without its estimate: (h, w, 3) uint8 -> the same."""
    density, _ = source._NumpyMacenkoNormalizer__convert_rgb2od(tile.reshape(-1, 3))
    stains = source._NumpyMacenkoNormalizer__find_concentration(density, source.HERef)
    stains = stains * (target.maxCRef / source.maxCRef)[:, np.newaxis]
    colours = np.minimum(240 * np.exp(-target.HERef @ stains), 255)
    return np.reshape(colours.T, tile.shape).astype(np.uint8)


def tiles_and_target(count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """(count, 224, 224, 3) tiles and a target image, uint8 RGB, and where they are from."""
    named = os.environ.get("HISTOSPACE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if (folder / "stain" / "source.png").is_file():
        image, target = (
            cv2.cvtColor(cv2.imread(str(folder / "stain" / name)), cv2.COLOR_BGR2RGB)
            for name in ("source.png", "target.png")
        )
        origin = "stain/source.png, at random places"
    else:
        image, target = made_image(seed=0, strength=1.0), made_image(seed=1, strength=0.7)
        origin = "made, at random places"
    rng = np.random.default_rng(0)
    tops = rng.integers(0, image.shape[0] - TILE_PX, count)
    lefts = rng.integers(0, image.shape[1] - TILE_PX, count)
    tiles = [image[y : y + TILE_PX, x : x + TILE_PX] for y, x in zip(tops, lefts, strict=True)]
    return np.stack(tiles), target, origin


def made_image(*, seed: int, strength: float) -> np.ndarray:
    """(448, 576, 3) uint8: two smooth random stain maps under textbook H&E, with sensor noise."""
    rng = np.random.default_rng(seed)
    maps = [cv2.GaussianBlur(rng.random((448, 576)), (0, 0), 3) for _ in range(2)]
    stains = np.stack([np.maximum(m - m.mean(), 0) / m.std() for m in maps], axis=-1) * strength
    matrix = stain.canonical_stains().stain_matrix
    colours = 245 * np.exp(-stains @ matrix) + rng.normal(0, 2, (448, 576, 3))
    return np.clip(colours, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()

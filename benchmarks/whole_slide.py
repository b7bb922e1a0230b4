"""Predicts a made slide of any size in a child process; prints its peak memory and tiles a second.

    python benchmarks/whole_slide.py RUN IMAGE --work FOLDER --side 40960 --tissue 0.1

IMAGE is any H&E image; squares of it, flipped and turned, make the tissue of a tiled, pyramidal,
JPEG-compressed BigTIFF (as a scanner's export), round patches of it on glass. Two made slides whose
tissue differs tenfold should have nearly the same peak: memory does not grow with the slide.

With --stop SHARE a second prediction is ended by SIGKILL when that share of the slide is finished,
and taken up again with --resume; the share that was not repeated and the difference from the first
prediction are reported.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import cv2
import numpy as np
import tifffile

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.slide_prediction import streaming

CELL_PX = 1024  # squares that the slide is put together from
TILE_PX = 512
SHRINKS = (1, 4, 16, 64)
GLASS = (244, 242, 245)


def patterns(image: Path, *, seed: int, most: int = 24) -> list[np.ndarray]:
    """(CELL_PX, CELL_PX, 3) uint8 squares of tissue from an image, flipped and turned."""
    random = np.random.default_rng(seed)
    found = []
    with slides.open_slide(image) as slide:
        side = min(CELL_PX, slide.width_px, slide.height_px)
        for _ in range(400):
            left = int(random.integers(0, slide.width_px - side + 1))
            top = int(random.integers(0, slide.height_px - side + 1))
            square = slide.region(left, top, side, side, out_px=(CELL_PX, CELL_PX))
            if square.mean() < 215:  # mostly tissue
                found.append(np.rot90(square, int(random.integers(4))))
            if len(found) == most:
                break
    if not found:
        raise SystemExit(f"{image}: no square of {CELL_PX} px of it is tissue")
    return [np.ascontiguousarray(square) for square in found]


def layout(side: int, *, tissue: float, kinds: int, seed: int) -> np.ndarray:
    """(n, n) int: which pattern each square of a slide shows, -1 glass.

    Tissue lies in round patches, together about the share `tissue` of the slide.
    """
    random = np.random.default_rng(seed)
    n = -(-side // CELL_PX)
    y, x = np.mgrid[:n, :n] + 0.5
    inside = np.zeros((n, n), bool)
    while inside.mean() < tissue:
        radius = n * random.uniform(0.06, 0.16)
        centre_x, centre_y = random.uniform(0.1 * n, 0.9 * n, 2)
        inside |= (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
    return np.where(inside, random.integers(0, kinds, (n, n)), -1)


def tiles_of_level(
    cells: np.ndarray, squares: list[np.ndarray], *, side: int, shrink: int
) -> Iterator[np.ndarray]:
    """Tiles of one resolution, row by row."""
    cell = CELL_PX // shrink
    glass = np.full((cell, cell, 3), GLASS, np.uint8)
    small = [cv2.resize(s, (cell, cell), interpolation=cv2.INTER_AREA) for s in squares]
    small.append(glass)  # number -1
    n_tiles = -(-(side // shrink) // TILE_PX)
    step = max(cell, TILE_PX)  # what is put together at once
    for row in range(n_tiles):
        for column in range(n_tiles):
            top, left = row * TILE_PX, column * TILE_PX
            if cell >= TILE_PX:
                square = small[cells[min(top // cell, len(cells) - 1), left // cell]]
                inside = square[top % cell : top % cell + TILE_PX]
                yield np.ascontiguousarray(inside[:, left % cell : left % cell + TILE_PX])
                continue
            picture = np.full((step, step, 3), GLASS, np.uint8)
            for y in range(0, TILE_PX, cell):
                for x in range(0, TILE_PX, cell):
                    at = (top + y) // cell, (left + x) // cell
                    if max(at) < len(cells):
                        picture[y : y + cell, x : x + cell] = small[cells[at]]
            yield picture


def make_slide(path: Path, image: Path, *, side: int, tissue: float, mpp: float, seed: int) -> None:
    """Writes a pyramid of `side` x `side` px, a tile at a time."""
    squares = patterns(image, seed=seed)
    cells = layout(side, tissue=tissue, kinds=len(squares), seed=seed)
    draft = path.with_suffix(".draft.tif")
    with tifffile.TiffWriter(draft, bigtiff=True) as tiff:
        for shrink in SHRINKS:
            tiff.write(
                tiles_of_level(cells, squares, side=side, shrink=shrink),
                shape=(side // shrink, side // shrink, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                resolution=(1e4 / mpp / shrink, 1e4 / mpp / shrink),
                resolutionunit="CENTIMETER",
                subfiletype=0 if shrink == 1 else 1,
            )
    draft.rename(path)


def command_of(slide: Path, run: Path, out: Path, options: list[str]) -> list[str]:
    """The command line of a prediction."""
    words = [sys.executable, "-m", "histospace_tf", "predict", str(slide), "--model", str(run)]
    return [*words, "--out", str(out), *options]


def predict(command: list[str]) -> float:
    """Seconds that a prediction in a child process took."""
    start = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - start


def predict_till(command: list[str], finished: Path, files: int) -> float:
    """Kills a prediction once so many chunks are finished in its folder; seconds that it took."""
    start = time.monotonic()
    child = subprocess.Popen(command)
    while len(list(finished.glob("expression_*.npy"))) < files:
        if child.poll() is not None:
            raise SystemExit(f"predict ended with {child.returncode} before it was to be killed")
        time.sleep(0.05)
    child.kill()
    child.wait()
    return time.monotonic() - start


def stopped(slide: Path, run: Path, out: Path, options: list[str], share: float) -> None:
    """Kills and resumes a prediction; prints how it compares with the one in `out`."""
    whole = anndata.read_h5ad(out)
    again = out.with_name(f"{out.stem}_again.h5ad")
    finished = outputs.partial(again)
    files = max(1, int(share * -(-whole.n_obs // streaming.CHUNK_TILES)))
    first = predict_till(command_of(slide, run, again, [*options, "--force"]), finished, files)
    done = sum(len(np.load(path, mmap_mode="r")) for path in finished.glob("expression_*.npy"))
    second = predict(command_of(slide, run, again, [*options, "--resume"]))
    difference = np.abs(anndata.read_h5ad(again).X - whole.X).max()
    print(
        f"\nKilled after {first:.0f} s with {done} of {whole.n_obs} tiles finished, resumed in "
        f"{second:.0f} s; largest difference from the undisturbed prediction: {difference:.2g}"
    )


def main() -> None:
    """Makes the slide, predicts it, prints a line of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of fit")
    parser.add_argument("image", type=Path, help="H&E image that the tissue is made of")
    parser.add_argument("--work", type=Path, required=True, help="folder for slide and output")
    parser.add_argument("--side", type=int, default=40_960, help="pixels; a multiple of 1024")
    parser.add_argument("--tissue", type=float, default=0.1, help="share of the slide")
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=float, help="kill at this share, 0 to 1, then resume")
    parser.add_argument("--options", default="", help='more for predict: --options="--fast"')
    given = parser.parse_args()
    if given.side % CELL_PX:
        parser.error(f"--side {given.side}: a multiple of {CELL_PX} is needed")
    options = shlex.split(given.options)
    given.work.mkdir(parents=True, exist_ok=True)
    slide = given.work / f"made_{given.side}_{given.tissue:g}_{given.seed}.tif"
    if not slide.exists():
        start = time.monotonic()
        make_slide(
            slide,
            given.image,
            side=given.side,
            tissue=given.tissue,
            mpp=given.mpp,
            seed=given.seed,
        )
        print(f"made {slide} in {time.monotonic() - start:.0f} s", file=sys.stderr)
    out = given.work / f"{slide.stem}.h5ad"
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    seconds = predict(command_of(slide, given.run, out, [*options, "--force"]))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # KiB on Linux
    places = anndata.read_h5ad(out, backed="r").n_obs
    print("| slide | file | tiles | seconds | tiles/s | peak memory |\n|---|---|---|---|---|---|")
    print(
        f"| {given.side} x {given.side} px, {given.tissue:.0%} tissue | "
        f"{slide.stat().st_size / 1e6:.0f} MB | {places} | {seconds:.0f} | "
        f"{places / seconds:.1f} | {peak / 2**30:.2f} GiB |",
        flush=True,
    )
    if given.stop is not None:
        stopped(slide, given.run, out, options, given.stop)


if __name__ == "__main__":
    main()

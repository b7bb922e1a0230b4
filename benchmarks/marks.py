"""What is left out as pen marks and blur, of real slides and of drawn and blurred copies of them.

    python benchmarks/marks.py

First table: squares of 100 um of tissue on every image of the test data (HISTOSPACE_TEST_DATA, or
../shared/data beside the checkout), how many of them `marks.find` takes for inked and for blurred,
and how many measured spots of HER2ST and MOB have their centre in one of those.

Second table, on copies of the tissue of each HER2ST section and of OpenSlide's CMU-1 (up to 4,000
px a side): the same blurred by a Gaussian of 2 to 16 um with a camera's noise of one grey level
laid over it, and share of squares that are found.

Third table: the same with strokes of a pen 300 um wide, in four inks, across tissue and glass. Ink
takes its share of the light that tissue leaves. Found is of squares that the strokes cover by half
or more, false of those that they leave free, squares of tissue as it is found with the ink on it.

Prints Markdown. Needs this package installed (or PYTHONPATH=.). Some three minutes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from histospace_tf.data_pipelines import marks, readers, slides, tiles

SQUARE_UM, MIN_TISSUE = 100.0, 0.5
MOST_PX = 4000  # of a copy
BLURS_UM = (2, 4, 8, 16)
NOISE = 1.0  # grey levels
STROKE_UM = 300.0
# Share of light that passes, red, green, blue.
INKS = {
    "blue": (0.10, 0.20, 0.70),
    "green": (0.10, 0.55, 0.30),
    "black": (0.08, 0.08, 0.09),
    "red": (0.85, 0.08, 0.12),
}


def main() -> None:
    data = test_data()
    print("| images | squares | inked | blurred | measured spots | of them left out |")
    print("|---|---|---|---|---|---|")
    for name, paths, mpp in groups(data):
        print(of_group(name, paths, mpp), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copies = [(path, mpp, tissue_of(path, mpp)) for path, mpp in to_copy(data)]
        print("\n| copy | squares |" + "".join(f" {um} um |" for um in BLURS_UM))
        print("|---|---|" + "---|" * len(BLURS_UM))
        for path, mpp, picture in copies:
            print(of_blurs(Path(folder), path.name, picture, mpp), flush=True)
        print("\n| copy |" + "".join(f" {ink}: found, false |" for ink in INKS))
        print("|---|" + "---|" * len(INKS))
        for path, mpp, picture in copies:
            print(of_inks(Path(folder), path.name, picture, mpp), flush=True)


def test_data() -> Path:
    named = os.environ.get("HISTOSPACE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        sys.exit(f"the test data are not in {folder}; HISTOSPACE_TEST_DATA names them")
    return folder


def groups(data: Path) -> Iterator[tuple[str, list[Path], float]]:
    """Name, images, microns per pixel."""
    for path in sorted((data / "her2st" / "ST-imgs").glob("*/*/*.jpg")):
        yield f"HER2ST {path.parent.name}", [path], 0.69
    yield "OpenSlide CMU-1", [data / "slides" / "CMU-1-Small-Region.svs"], 0.499
    for path in sorted((data / "mob" / "ST-imgs").glob("*/*/*.jpg")):
        yield f"MOB {path.parent.name}", [path], 2.76
    for path in sorted((data / "mob" / "unpaired").glob("*.jpg")):
        yield f"MOB, unpaired {path.stem}", [path], 2.76
    for name in ("bcss", "brecahad", "tnbc"):
        every = sorted((data / "breast_he" / name).iterdir())
        yield f"{name.upper()}, {len(every)} images", every, 0.25


def to_copy(data: Path) -> Iterator[tuple[Path, float]]:
    for name, paths, mpp in groups(data):
        if name.startswith(("HER2ST", "OpenSlide")):
            yield paths[0], mpp


def squares_of(slide: slides.SlideImage) -> tuple[np.ndarray, int]:
    """Centres, and the side in pixels, as `predict` has them."""
    assert slide.mpp is not None
    pitch = SQUARE_UM / slide.mpp
    side = max(1, round(pitch))
    centres = tiles.grid_centres(
        slide, tile_px=side, mpp=None, min_tissue=MIN_TISSUE, step_px=pitch
    )
    return centres, side


def of_group(name: str, paths: list[Path], mpp: float) -> str:
    """One row of the first table."""
    squares = inked = blurred = spots = lost = 0
    for path in paths:
        with slides.open_slide(path, mpp=mpp) as slide:
            centres, side = squares_of(slide)
            marked = marks.find(slide, centres, side_px=side)
        squares += len(centres)
        inked += int(marked.inked.sum())
        blurred += int(marked.blurred.sum())
        for measured in spots_of(path):
            spots += len(measured)
            off = np.abs(measured[:, None] - centres[marked.either][None]).max(axis=2)
            lost += int((off <= side / 2).any(axis=1).sum())
    of_spots = f"{spots} | {lost}" if spots else "- | -"
    return (
        f"| {name} | {squares} | {inked} ({inked / squares:.1%}) | "
        f"{blurred} ({blurred / squares:.1%}) | {of_spots} |"
    )


def spots_of(image: Path) -> Iterator[np.ndarray]:
    """(n, 2) full-resolution pixels of the spots that were measured on an image."""
    if "ST-imgs" not in image.parts:
        return
    release = image.parents[image.parts[::-1].index("ST-imgs")]
    for section in readers.read_cohort(release).sections:
        if section.image is not None and section.image.resolve() == image.resolve():
            yield section.spots.centres_px


def tissue_of(path: Path, mpp: float) -> np.ndarray:
    """The part of an image around its tissue, at most MOST_PX a side, from the top left of it."""
    with slides.open_slide(path, mpp=mpp) as slide:
        rows, columns = np.nonzero(slide.tissue())
        _, scale = slide.overview()
        left, top = int(columns.min() * scale), int(rows.min() * scale)
        width = min(MOST_PX, slide.width_px - left)
        height = min(MOST_PX, slide.height_px - top)
        return slide.region(left, top, width, height)


def found(
    folder: Path, picture: np.ndarray, mpp: float
) -> tuple[np.ndarray, np.ndarray, marks.Marked]:
    """Centres, corners and marks of a picture's squares."""
    path = folder / "copy.tif"
    tifffile.imwrite(path, picture, photometric="rgb")
    with slides.open_slide(path, mpp=mpp) as slide:
        centres, side = squares_of(slide)
        marked = marks.find(slide, centres, side_px=side)
    return centres, np.ceil(centres - side / 2).astype(int), marked


def of_blurs(folder: Path, name: str, picture: np.ndarray, mpp: float) -> str:
    """One row of the second table. Squares are those of the copy as it is."""
    path = folder / "sharp.tif"
    tifffile.imwrite(path, picture, photometric="rgb")
    with slides.open_slide(path, mpp=mpp) as slide:
        centres, side = squares_of(slide)
    cells = []
    for um in BLURS_UM:
        noise = np.random.default_rng(um).normal(0, NOISE, picture.shape).astype(np.float32)
        soft = cv2.GaussianBlur(picture, (0, 0), um / mpp) + noise
        tifffile.imwrite(
            folder / "soft.tif", np.clip(np.rint(soft), 0, 255).astype(np.uint8), photometric="rgb"
        )
        with slides.open_slide(folder / "soft.tif", mpp=mpp) as slide:
            cells.append(marks.find(slide, centres, side_px=side).blurred.mean())
    return f"| {name} | {len(centres)} | " + " | ".join(f"{cell:.0%}" for cell in cells) + " |"


def of_inks(folder: Path, name: str, picture: np.ndarray, mpp: float) -> str:
    """One row of the third table."""
    height, width = picture.shape[:2]
    stroke = np.zeros((height, width), np.uint8)
    thick = round(STROKE_UM / mpp)
    cv2.line(stroke, (0, height // 3), (width, height // 2), 1, thick)
    cv2.ellipse(stroke, (width // 2, height // 2), (width // 3, height // 3), 20, 0, 250, 1, thick)
    edge = cv2.GaussianBlur(stroke.astype(np.float32), (0, 0), 10 / mpp)[..., None]
    side = round(SQUARE_UM / mpp)
    cells = []
    for ink in INKS.values():
        drawn = picture * (1 - edge * (1 - np.array(ink, np.float32)))
        _, corners, marked = found(folder, np.rint(drawn).astype(np.uint8), mpp)
        covered = np.array([stroke[y : y + side, x : x + side].mean() for x, y in corners])
        hit, clear = covered >= 0.5, covered == 0
        cells.append(f"{marked.either[hit].mean():.0%}, {marked.either[clear].mean():.1%}")
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

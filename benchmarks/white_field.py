"""What a white field takes away, and how much of a known one is recovered. Prints Markdown.

    python benchmarks/white_field.py [IMAGE ...]

Of each image, before (one white point) and after (its white field), in grey levels:

    glass in 4 x 4     range of the mean colour of glass over the sixteenths of the slide that hold
                       some, for red, green and blue
    in a tile          how far the field goes from its value at a tile's centre, where one share of
                       white serves the whole tile: 95th percentile of tissue tiles, at the corners
    holes, after, r    a check that the field never saw: smooth bright places inside tissue, where
                       glass shows through. Their deviation in green over the slide, before and
                       after, and their correlation with the field

Then known fields are laid over the same slides (a gradient of 20 %, a vignette of 25 %, a dark
corner of 25 %), and the error that is left is printed: what the field is off from the known one,
under tissue and on glass, mean and 95th percentile, beside what one white point is off.

Last, on slides made of the first image's glass, tissue is laid over more and more of it, in the
middle or from one side: the same mean errors under tissue by share of glass, of one white point in
brackets, and whether the field is on there.

Images are those of HER2ST in the test data (HISTOSPACE_TEST_DATA, or ../shared/data beside the
checkout) where none are given. Needs this package installed (or PYTHONPATH=.). A minute or two.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from histospace_tf.data_pipelines import slides, tiles
from histospace_tf.data_pipelines.slides import white_field
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.data_pipelines.slides.white_field import WhiteField

HOLE_PX = 300  # side of the squares that holes in tissue are looked for in
TILE_PX = 448  # 309 um on HER2ST
LEVELS = 230.0  # of glass: shares of white as grey levels
Fields = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a white field takes away, as Markdown.")
    parser.add_argument("images", nargs="*", type=Path)
    images = parser.parse_args().images or her2st()
    if not images:
        sys.exit("no image is given, and the test data are not there")
    print(
        "| image | glass | field | glass in 4 x 4, before | after | in a tile | holes | after | r |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    opened = []
    for path in images:
        with slides.open_slide(path) as slide:
            print(measured(slide))
            overview, tissue = slide.overview(white_field.OVERVIEW_PX)[0], slide.tissue()
            opened.append((path.name, overview, tissue))
    print("\n| image | known field | under tissue | one white point | on glass | one white point |")
    print("|---|---|---|---|---|---|")
    for name, overview, tissue in opened:
        for kind, known in known_fields(overview.shape).items():
            print(f"| {name} | {kind} | {' | '.join(recovered(overview, tissue, known))} |")
    kinds = list(known_fields(overview.shape))
    print(f"\n| tissue | glass | between its glass | field | {' | '.join(kinds)} |")
    print("|---|---|---|---|---|---|---|")
    _, overview, tissue = opened[0]
    for line in by_share_of_glass(without_tissue(overview, tissue)):
        print(line)


def her2st() -> list[Path]:
    named = os.environ.get("HISTOSPACE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return sorted((folder / "her2st" / "ST-imgs").glob("*/*/*.jpg"))


def field_of(overview: np.ndarray, tissue: np.ndarray) -> WhiteField:
    return white_field.estimated(overview, tissue, size_px=overview.shape[1::-1])


def measured(slide: slides.SlideImage) -> str:
    """One row of the first table."""
    overview, _ = slide.overview(white_field.OVERVIEW_PX)
    field = slide.light_evenly()
    slide.white_field = None  # holes are looked for in what was scanned
    about = field.record()
    if field.why_off:
        return f"| {slide.path.name} | {field.glass_share:.0%} | off: {field.why_off} | | | | | | |"
    glass = white_field.glass_mask(overview, slide.tissue())
    after = white_field.evened(overview, field.over_picture(overview.shape))
    ranges = [" ".join(f"{v:.1f}" for v in glass_range(p, glass)) for p in (overview, after)]
    centres = tiles.grid_centres(slide, tile_px=TILE_PX, mpp=None, min_tissue=0.5)
    corners = [(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]
    apart = [np.abs(field.at(centres + TILE_PX * np.array(c)) - field.at(centres)) for c in corners]
    within = np.percentile(LEVELS * np.max(apart, axis=(0, 2)), 95) if len(centres) else np.nan
    holes, shares = holes_in_tissue(slide, field)
    few = len(holes) < 10
    green = holes[:, 1]
    checked = ["", "", ""] if few else [
        f"{green.std():.1f}",
        f"{(green / shares[:, 1]).std():.1f}",
        f"{np.corrcoef(green, shares[:, 1])[0, 1]:.2f}",
    ]  # fmt: skip
    row = [
        slide.path.name,
        f"{field.glass_share:.0%}",
        f"up to {about['largest_grey_levels']}",
        *ranges,
        f"{within:.1f}",
        *checked,
    ]
    return f"| {' | '.join(row)} |"


def glass_range(picture: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """(3,) range, over a grid of 4 x 4, of the mean colour of glass where it is a twentieth."""
    means = []
    for rows in np.array_split(np.arange(picture.shape[0]), 4):
        for columns in np.array_split(np.arange(picture.shape[1]), 4):
            here = np.ix_(rows, columns)
            if glass[here].mean() > 0.05:
                means.append(picture[here][glass[here]].mean(axis=0))
    return np.ptp(means, axis=0)


def holes_in_tissue(slide: slides.SlideImage, field: WhiteField) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) median colours of holes in squares of tissue, and (n, 3) the field's shares there."""
    centres = tiles.grid_centres(slide, tile_px=HOLE_PX, mpp=None, min_tissue=0.95)
    cut, _ = tiles.cut_tiles(slide, centres, tile_px=HOLE_PX, mpp=None, border="reflect")
    colours, places = [], []
    for tile, centre in zip(cut, centres, strict=True):
        smooth = cv2.GaussianBlur(tile, (0, 0), 3).astype(np.float64)
        grey = tile.mean(axis=-1)
        variance = cv2.GaussianBlur(grey**2, (0, 0), 3) - cv2.GaussianBlur(grey, (0, 0), 3) ** 2
        hole = (variance < 16) & (smooth.min(axis=-1) > 0.8 * field.levels.min())
        if hole.mean() > 0.02:
            colours.append(np.median(smooth[hole], axis=0))
            places.append(centre)
    return np.array(colours).reshape(-1, 3), field.at(np.array(places).reshape(-1, 2))


def known_fields(shape: tuple[int, ...]) -> Fields:
    """(h, w, 3) shares of white by name, 1 at the brightest place."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    made = {
        "gradient 20 %": 1 - 0.2 * x,
        "vignette 25 %": 1 - 0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2),
        "corner 25 %": 1 - 0.25 * np.exp(-(x**2 + y**2) / 0.18),
    }
    return {name: np.repeat(share[..., None], 3, axis=-1) for name, share in made.items()}


def recovered(
    overview: np.ndarray, tissue: np.ndarray, known: np.ndarray, *, seen: np.ndarray | None = None
) -> list[str]:
    """Errors with a known field laid over a slide: "mean, 95th percentile" in grey levels, with the
    field under tissue, with one white point there; and both on glass.

    Args:
        seen: where the field is told that there is tissue; None: where it finds it.
    """
    own = field_of(overview, tissue).over_picture(overview.shape)
    shaded = np.rint(overview * known).astype(np.uint8)
    found = field_of(shaded, tissue_mask(shaded) if seen is None else seen)
    under = tissue if seen is None else seen
    errors = []
    for given in (found.over_picture(overview.shape) / own, 1.0):
        # One level over the slide is no error: the white point takes it away.
        off = known / given
        errors.append(LEVELS * np.abs(off / np.median(off[~under], axis=0) - 1))
    words = []
    for where in (under, ~under):
        for error in errors:
            words.append(f"{error[where].mean():.1f}, {np.percentile(error[where], 95):.1f}")
    return words


def without_tissue(overview: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The slide with glass in place of tissue: its white field, and a camera's noise."""
    field = field_of(overview, tissue)
    if field.why_off:
        sys.exit(f"the first image has no white field: {field.why_off}")
    near = cv2.dilate(tissue.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    glass = field.over_picture(overview.shape) * field.levels
    glass = glass + np.random.default_rng(1).normal(0, 3, overview.shape)
    empty = np.where(near[..., None], glass, overview)
    return np.rint(np.clip(empty, 0, 255)).astype(np.uint8)


def by_share_of_glass(empty: np.ndarray) -> Iterator[str]:
    """Rows of the last table."""
    y, x = (
        axis / side for axis, side in zip(np.indices(empty.shape[:2]), empty.shape, strict=False)
    )
    limits = white_field.MIN_GLASS_SHARE, white_field.MIN_REACH
    for share in (0.5, 0.3, 0.2, 0.15, 0.1):
        half = np.sqrt(1 - share) / 2
        covers = {
            "in the middle": (np.abs(x - 0.5) < half) & (np.abs(y - 0.5) < half),
            "from the right": x > share,
        }
        for name, tissue in covers.items():
            glass = white_field.glass_mask(empty, tissue)
            places, _, everywhere = white_field.cells(empty, glass)
            reach = white_field.reach_of(places, everywhere)
            is_on = glass.mean() >= limits[0] and reach >= limits[1]
            white_field.MIN_GLASS_SHARE, white_field.MIN_REACH = 0.0, 0.0  # on, to be measured
            errors = [
                recovered(empty, np.zeros_like(tissue), known, seen=tissue)[:2]
                for known in known_fields(empty.shape).values()
            ]
            white_field.MIN_GLASS_SHARE, white_field.MIN_REACH = limits
            state = "on" if is_on else "off"
            means = [" (".join(words.split(",")[0] for words in pair) + ")" for pair in errors]
            cells = [name, f"{glass.mean():.0%}", f"{reach:.0%}", state, *means]
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""Pen marks and blur on made slides: found, left out of grids with a warning, kept where asked."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from histospace_tf.data_pipelines import marks, slides
from histospace_tf.presets import preset
from histospace_tf.slide_prediction import places
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import InputError
from made.tissue import write_picture

CONFIG = preset("recommended")
SIZE, SIDE = 1200, 100  # of the slide and of a square, in pixels of 1 um
# Share of light that passes, red, green, blue.
INKS = {
    "blue": (0.1, 0.2, 0.7),
    "green": (0.1, 0.55, 0.3),
    "black": (0.08, 0.08, 0.09),
    "red": (0.85, 0.08, 0.12),
}


def tissue() -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: haematoxylin and eosin, fine grains and coarse; glass on the right."""
    random = np.random.default_rng(0)
    amounts = sum(
        random.uniform((0.1, 0.1), most, (SIZE // px, SIZE // px, 2))
        .repeat(px, axis=0)
        .repeat(px, axis=1)
        for px, most in ((4, (0.5, 0.3)), (40, (1.0, 0.8)))
    )
    density = amounts @ np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    picture = 240 * np.exp(-density)
    picture[:, 1000:] = 240
    noisy = picture + random.normal(0, 1, picture.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def grid(folder: Path, picture: np.ndarray, *, keep: bool = True) -> places.Places:
    path = write_picture(folder / "slide.png", picture)
    with slides.open_slide(path, mpp=1.0) as slide:
        return places.find(slide, CONFIG, Where(keep_marks=keep))


@pytest.mark.parametrize("ink", INKS)
def test_stroke_of_a_pen_is_found_and_nothing_beside_it(tmp_path: Path, ink: str) -> None:
    stroke = np.zeros((SIZE, SIZE, 1), np.float32)
    stroke[450:750] = 1
    drawn = np.rint(tissue() * (1 - stroke * (1 - np.array(INKS[ink])))).astype(np.uint8)
    every, left = (grid(tmp_path, drawn, keep=keep) for keep in (True, False))
    inside = (every.centres_px[:, 1] > 450) & (every.centres_px[:, 1] < 750)
    assert inside.sum() >= 10  # of black ink, which is neither textured nor coloured, the edges
    lost = set(every.names) - set(left.names)
    assert {name for name, is_in in zip(every.names, inside, strict=True) if is_in} <= lost
    touched = (every.centres_px[:, 1] > 390) & (every.centres_px[:, 1] < 810)
    assert lost <= {name for name, is_near in zip(every.names, touched, strict=True) if is_near}
    (warning,) = left.warnings
    assert f"{len(lost)} of {len(every.names)} squares of tissue" in warning
    assert "ink of a pen" in warning
    assert "`keep_marks`" in warning


def test_blurred_part_is_left_out_and_a_sharp_or_dim_one_is_not(tmp_path: Path) -> None:
    sharp = tissue()
    half = sharp.copy()
    half[600:] = cv2.GaussianBlur(sharp, (0, 0), 8)[600:]
    every, left = (grid(tmp_path, half, keep=keep) for keep in (True, False))
    in_half = every.centres_px[:, 1] > 600
    lost = set(every.names) - set(left.names)
    blurred = {n for n, is_in in zip(every.names, in_half, strict=True) if is_in}
    assert lost <= blurred
    assert len(lost) >= 0.95 * len(blurred)  # a square on the border of both may stay
    assert "show no detail" in left.warnings[0]
    for clean in (sharp, (sharp * 0.75).astype(np.uint8)):
        assert grid(tmp_path, clean, keep=False).warnings == ()
    with pytest.raises(InputError, match=r"no square is left.*100\.0%.*`keep_marks`"):
        grid(tmp_path, cv2.GaussianBlur(sharp[:, :1000], (0, 0), 8), keep=False)


def test_given_spots_are_kept_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "spots.csv"
    table.write_text("x_px,y_px\n300,300\n500,300\n300,500\n")
    path = write_picture(tmp_path / "slide.png", cv2.GaussianBlur(tissue(), (0, 0), 8))
    with slides.open_slide(path, mpp=1.0) as slide:
        assert len(places.find(slide, CONFIG, Where(spots=table)).names) == 3


def test_slide_that_is_coarse_or_of_unknown_scale_is_not_judged_for_blur(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "slide.png", cv2.GaussianBlur(tissue(), (0, 0), 8))
    centres = np.array([[300.0, 300.0], [700.0, 700.0]])
    for mpp, blurred in ((1.0, True), (4.0, False), (None, False)):
        with slides.open_slide(path, mpp=mpp) as slide:
            found = marks.find(slide, centres, side_px=SIDE)
            assert (found.blurred == blurred).all()
            assert not found.inked.any()
            nothing = marks.find(slide, np.zeros((0, 2)), side_px=SIDE)
            assert len(nothing.either) == 0


def test_specks_and_thin_lines_are_no_pen(tmp_path: Path) -> None:
    picture = tissue()
    picture[200:1000:100, 200:900:100] = 10  # as pigment
    cv2.line(picture, (100, 900), (900, 100), (15, 15, 15), 20)  # as a hair
    assert grid(tmp_path, picture, keep=False).warnings == ()

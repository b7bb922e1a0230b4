"""Whether a section's spots lie where its image shows tissue.

Used by `fit`, `evaluate`, `check` and `predict --spots`. Where only a few spots lie off the image,
those are left out and named, and the others are judged without them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from histospace_tf.data_pipelines.slides.image_checks import Thumbnail
from histospace_tf.data_pipelines.spots import placement, platforms
from histospace_tf.vocabulary import Problem, Section, named

MOST_LEFT_OUT = 0.1  # share of spots that are left out for lying off the image, and at least one
_MOST_OFF_TISSUE = 0.25  # share of spots off the tissue mask that is nothing unusual
# Shares of spots on tissue, and their gain, that make exchanged or mirrored coordinates sure, or
# likely. The imaged sections of HER2ST have all spots on tissue; exchanged or mirrored, 14 to 83 %.
_MOST, _CERTAIN_GAIN = 0.85, 0.3
_ALL, _LIKELY_GAIN = 0.97, 0.1
_SMALL_REACH = 0.4  # share of an image's width and height that shrunk coordinates stay within
_TISSUE_BEYOND = 0.7  # share of the tissue beyond the spots that makes that suspicious
_EXCHANGED = "x and y exchanged"


def on_image(
    where: str, names: Sequence[str], centres_px: np.ndarray, thumbnail: Thumbnail | None
) -> tuple[np.ndarray, list[Problem]]:
    """Finds the spots whose position is known and lies on the image.

    Args:
        where: the section or table, for problems.
        names, centres_px: n spots and their (n, 2) places, x first, some perhaps not finite.
        thumbnail: the image at low resolution; None where there is none.
    Returns:
        (n,) bool, and a warning that names the spots left out; an error where they are many.
    """
    placed = np.isfinite(centres_px).all(axis=1)
    problems = []
    if not placed.all():
        lost = [name for name, is_placed in zip(names, placed, strict=True) if not is_placed]
        few = len(lost) <= _few(len(names))
        problems.append(
            Problem(
                "warning" if few else "error",
                where,
                f"{len(lost)} of {len(names)} spots have no place ({named(lost, 5)}): a coordinate "
                "is not a finite number" + (": left out." if few else "."),
                "" if few else "Give their full-resolution pixels, or leave them out.",
            )
        )
    if thumbnail is None or not placed.any():
        return placed, problems
    off = placed & placement.outside(np.nan_to_num(centres_px), thumbnail.size_px)
    if off.any():
        problem = _off_image(where, names, centres_px, thumbnail, off, placed)
        return placed & ~off, [*problems, problem]
    return placed, problems


def placement_problems(
    where: str,
    names: Sequence[str],
    centres_px: np.ndarray,
    thumbnail: Thumbnail | None,
    *,
    mpp: float | None,
    spot_um: float | None = None,
    pitch_um: float | None = None,
) -> list[Problem]:
    """Checks the positions of spots that all lie on the image.

    Args:
        where: the section or table, for problems.
        names, centres_px: n spots and their (n, 2) places in full-resolution pixels, x first.
        thumbnail: the image at low resolution; None where there is none.
        mpp: microns per pixel; spot_um, pitch_um: diameter and printed distance; None: unknown.
    """
    problems = platforms.spacing_problems(
        where, names, centres_px, mpp=mpp, spot_um=spot_um, pitch_um=pitch_um
    )
    if thumbnail is None or not thumbnail.tissue.any() or not len(centres_px):
        return problems
    judged = ~platforms.far_off(centres_px)
    centres = centres_px[judged]
    shrunk = _shrunk(where, centres, thumbnail, pitch_um)
    if shrunk is not None:
        return [*problems, shrunk]
    off_tissue = _off_tissue(where, np.array(names)[judged], centres, thumbnail)
    return [*problems, off_tissue] if off_tissue is not None else problems


def section_placement(section: Section, thumbnail: Thumbnail | None) -> list[Problem]:
    """`placement_problems` of a section."""
    return placement_problems(
        f"section {section.name}",
        section.spots.names,
        section.spots.centres_px,
        thumbnail,
        mpp=section.mpp,
        spot_um=section.spot_diameter_um,
        pitch_um=section.spot_pitch_um,
    )


def _few(spots: int) -> float:
    """How many of some spots are few enough to be left out."""
    return max(1, MOST_LEFT_OUT * spots)


def _off_image(
    where: str,
    names: Sequence[str],
    centres_px: np.ndarray,
    thumbnail: Thumbnail,
    off: np.ndarray,
    placed: np.ndarray,
) -> Problem:
    """A warning where few spots lie off the image, else an error with what may be the cause."""
    width, height = thumbnail.size_px
    first = int(np.argmax(off))
    x, y = centres_px[first]
    outside = f"{off.sum()} of {placed.sum()} spots lie outside the {width} x {height} px image"
    at_first = f"first: {names[first]!r} at x {x:g}, y {y:g}"
    given, exchanged = centres_px[placed], centres_px[placed][:, ::-1]
    few = off.sum() <= _few(len(given)) and off.sum() < len(given)
    if not placement.outside(exchanged, thumbnail.size_px).any() and (
        not few or thumbnail.on_tissue(exchanged).mean() > thumbnail.on_tissue(given).mean()
    ):
        return Problem(
            "error",
            where,
            f"x and y look swapped: {outside} ({at_first}), and none would with {_EXCHANGED}.",
            "Pixel x is the column, pixel y the row.",
        )
    if few:
        who = [str(names[i]) for i in map(int, np.flatnonzero(off))]
        return Problem(
            "warning", where, f"{outside} ({named(who, 10)}; {at_first}): left out.",
            "Correct their coordinates to use them.",
        )  # fmt: skip
    times = float((given.max(axis=0) / thumbnail.size_px).max())
    if times > 2:
        return Problem(
            "error",
            where,
            f"{outside} ({at_first}); coordinates reach {times:.1f} times its size.",
            "The image looks like a smaller copy (hires, lowres): the full one is needed.",
        )
    return Problem(
        "error",
        where,
        f"{outside} ({at_first}).",
        "Are the coordinates full-resolution pixels, x first, and is this their image?",
    )


def _off_tissue(
    where: str, names: Sequence[str], centres: np.ndarray, thumbnail: Thumbnail
) -> Problem | None:
    """Spots off the tissue, and whether exchanged or mirrored coordinates would lie on it."""
    width, height = thumbnail.size_px
    on = thumbnail.on_tissue(centres)
    moved = {
        _EXCHANGED: centres[:, ::-1],
        "x counted from the right": [width - 1, 0] - centres * [1, -1],
        "y counted from the bottom": [0, height - 1] - centres * [-1, 1],
        "both counted from the lower right corner": [width - 1, height - 1] - centres,
    }
    shares = {how: float(thumbnail.on_tissue(places).mean()) for how, places in moved.items()}
    best = max(shares, key=lambda how: shares[how])
    gain = shares[best] - on.mean()
    certain = shares[best] >= _MOST and gain >= _CERTAIN_GAIN
    first = names[int(np.argmin(on))]
    off_tissue = f"{(~on).sum()} of {len(on)} spots (first: {str(first)!r}) lie off the tissue"
    if certain or (shares[best] >= _ALL and gain >= _LIKELY_GAIN):
        swapped = best == _EXCHANGED
        return Problem(
            "error" if certain and swapped else "warning",
            where,
            ("x and y look swapped: " if swapped else "coordinates look mirrored: ")
            + f"{off_tissue}, and with {best} {shares[best]:.0%} would lie on it.",
            "Coordinates are image column (x), then row (y), from the top left corner.",
        )
    if on.mean() >= 1 - _MOST_OFF_TISSUE:
        return None
    return Problem(
        "warning",
        where,
        f"{off_tissue}.",
        "Are the coordinates full-resolution pixels of this image, x first?",
    )


def _shrunk(
    where: str, centres: np.ndarray, thumbnail: Thumbnail, pitch_um: float | None
) -> Problem | None:
    """Recognises coordinates of a smaller copy of the image: they stay in its top left corner."""
    reach = centres.max(axis=0) / thumbnail.size_px
    if not (reach < _SMALL_REACH).all():
        return None
    beyond = thumbnail.tissue.copy()
    right, bottom = np.ceil(centres.max(axis=0) / thumbnail.scale).astype(int) + 1
    beyond[:bottom, :right] = False
    share = float(beyond.sum() / thumbnail.tissue.sum())
    if share < _TISSUE_BEYOND:
        return None
    # The scale says which it is, where the file states one: spots too near to each other.
    pitch_px = platforms.array_pitch_px(centres)
    certain = (
        pitch_um is not None
        and pitch_px is not None
        and thumbnail.stated_mpp is not None
        and pitch_px * thumbnail.stated_mpp < pitch_um / 2
    )
    return Problem(
        "error" if certain else "warning",
        where,
        f"the spots stay within {reach[0]:.0%} of the image's width and {reach[1]:.0%} of its "
        f"height, and {share:.0%} of the tissue lies beyond them.",
        "If they are pixels of a smaller copy, divide them by its scale (tissue_hires_scalef); if "
        "the slide holds more tissue, cut the image to the section.",
    )

"""Whether a section's spots, counts and image fit together, whatever reader it came from.

Every finding is about the section as it would be used: spots that a reader left out are not here.
Where all but a few spots fit, the few are named, and the rest is judged without them.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.data_pipelines.image_checks import Look, look_problems
from histospace_tf.vocabulary import Problem, Section, named

# Diameter and pitch in um: legacy Spatial Transcriptomics, Visium, Visium HD's bins side by side.
PLATFORMS_UM = ((100.0, 200.0), (55.0, 100.0), (2.0, 2.0), (8.0, 8.0), (16.0, 16.0))

FEW = 0.02  # share of spots that are named one by one, and at least one spot
_MOST_OFF_TISSUE = 0.25  # share of spots off the tissue mask that is nothing unusual
# Shares of spots on tissue, and their gain, that make exchanged or mirrored coordinates sure, or
# likely. The imaged sections of HER2ST have all spots on tissue; exchanged or mirrored, 14 to 83 %.
_MOST, _CERTAIN_GAIN = 0.85, 0.3
_ALL, _LIKELY_GAIN = 0.97, 0.1
_FAR = 8.0  # times the typical distance of neighbours: such a spot stands alone by mistake
_SPARSE = 1.5  # spread of the distances to the nearest spot; on a whole array all are one pitch
_PITCH_WITHIN = 0.2  # printed arrays are bent: legacy spots' nearest neighbours are 7 % too near
_DIAMETER_WITHIN = 0.15
_SCALE_WITHIN = 0.1
_SMALL_REACH = 0.4  # share of an image's width and height that shrunk coordinates stay within
_TISSUE_BEYOND = 0.7  # share of the tissue beyond the spots that makes that suspicious
_FEWEST_COUNTS, _FEWEST_SHARE = 10, 0.05  # of the section's median
_MOST_FEW_COUNTS = 0.1  # share of spots with few counts that is nothing unusual
STATUSES = ("sound", "few counts", "off tissue", "far from all others", "off the image")


def section_problems(section: Section, look: Look | None) -> list[Problem]:
    """Everything that is wrong with one section.

    Args:
        look: at its image; None where it has none.
    """
    where = f"section {section.name}"
    problems = [*_counts_problems(where, section), *_spacing_problems(where, section, look)]
    if look is not None:
        of_picture = look_problems(where, look)
        problems += of_picture
        if not any(problem.severity == "error" for problem in of_picture):
            problems += _place_problems(where, section, look)
    return problems


def spot_statuses(section: Section, look: Look | None) -> np.ndarray:
    """(n,) of STATUSES, the worst that holds for each spot."""
    spots = section.spots
    found = np.full(len(spots), STATUSES[0], dtype=object)
    found[_few_counts(spots.total_counts)] = STATUSES[1]
    if look is not None:
        found[~look.on_tissue(spots.centres_px)] = STATUSES[2]
    found[_far_off(spots.centres_px)] = STATUSES[3]
    if look is not None:
        found[_outside(spots.centres_px, look.size_px)] = STATUSES[4]
    return found


def _counts_problems(where: str, section: Section) -> list[Problem]:
    total, names = section.spots.total_counts, section.spots.names
    problems = []
    empty = total == 0
    if empty.any():
        which = [names[i] for i in np.flatnonzero(empty)]
        problems.append(
            Problem(
                "error",
                where,
                f"{empty.sum()} of {len(total)} spots have zero counts in all genes "
                f"({named(which, 3)}): their expression is unknown.",
                "Leave them out.",
            )
        )
    few = _few_counts(total) & ~empty
    if few.any():
        who = [f"{names[i]}: {total[i]:.0f}" for i in np.flatnonzero(few)]
        many = few.mean() > _MOST_FEW_COUNTS
        problems.append(
            Problem(
                "warning" if many else "note",
                where,
                f"{few.sum()} of {len(total)} spots have very few counts "
                f"({named(who, 3)}; the section's median is {np.median(total):.0f}).",
                "What stands there is mostly counting noise; consider leaving them out.",
            )
        )
    return problems


def _spacing_problems(where: str, section: Section, look: Look | None) -> list[Problem]:
    """Spot distances against the scale, a spot's size, and spots far from all others."""
    centres, mpp = section.spots.centres_px, section.mpp
    stated = None if look is None else look.stated_mpp
    problems = []
    if stated is not None and mpp is not None and abs(stated / mpp - 1) > _SCALE_WITHIN:
        problems.append(
            Problem(
                "warning",
                where,
                f"the image file states {stated:.3g} microns per pixel, the spots stand as if they "
                f"were {mpp:.3g}.",
                "Are the coordinates those of this very image, not of a smaller or larger copy?",
            )
        )
    if len(centres) < 4:
        return problems
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1]
    pitch_px = float(np.median(nearest))
    if pitch_px == 0:
        return [
            *problems,
            Problem("error", where, "most spots stand on one another.", "Check their coordinates."),
        ]
    far = _far_off(centres)
    if far.any():
        who = [
            f"{section.spots.names[i]} at x {centres[i, 0]:g}, y {centres[i, 1]:g}"
            for i in np.flatnonzero(far)
        ]
        problems.append(
            Problem(
                "warning",
                where,
                f"{far.sum()} of {len(far)} spots stand far from all others ({named(who, 3)}).",
                "Correct their coordinates or leave them out; the others are judged without them.",
            )
        )
    low, high = np.percentile(nearest, [10, 90])
    if mpp is None or high > _SPARSE * low:  # too few spots are left to tell the array's pitch
        return problems
    pitch_um = pitch_px * mpp
    if section.spot_pitch_um is not None and not (
        1 - _PITCH_WITHIN < pitch_um / section.spot_pitch_um < 1 + _PITCH_WITHIN
    ):
        problems.append(
            Problem(
                "warning",
                where,
                f"neighbouring spots are {pitch_px:.4g} px apart, {pitch_um:.4g} um at {mpp:.3g} "
                f"microns per pixel; {section.spot_pitch_um:g} um are printed.",
                "Are pixel size and coordinates those of this image?",
            )
        )
    elif section.spot_diameter_um is not None:
        share = section.spot_diameter_um / pitch_um
        known = sorted({diameter / pitch for diameter, pitch in PLATFORMS_UM})
        if all(abs(share / one - 1) > _DIAMETER_WITHIN for one in known):
            problems.append(
                Problem(
                    "warning",
                    where,
                    f"a spot of {section.spot_diameter_um / mpp:.4g} px "
                    f"({section.spot_diameter_um:.3g} um) among spots {pitch_px:.4g} px apart "
                    "fits no known platform (diameter and pitch in um: "
                    + ", ".join(f"{diameter:g}/{pitch:g}" for diameter, pitch in PLATFORMS_UM)
                    + ").",
                    "Check spot diameter and pixel size.",
                )
            )
    return problems


def _place_problems(where: str, section: Section, look: Look) -> list[Problem]:
    """Where spots lie on the image: off it, on a shrunk copy's coordinates, off tissue, swapped."""
    names, every = section.spots.names, section.spots.centres_px
    off = _outside(every, look.size_px)
    width, height = look.size_px
    if off.any():
        return [_off_image(where, section, look, off)]
    judged = ~_far_off(every)
    centres = every[judged]
    on = look.on_tissue(centres)
    shrunk = _shrunk(where, section, centres, look)
    if shrunk is not None:
        return [shrunk]
    moved = {
        "x and y exchanged": centres[:, ::-1],
        "x counted from the right": [width - 1, 0] - centres * [1, -1],
        "y counted from the bottom": [0, height - 1] - centres * [-1, 1],
        "both counted from the lower right corner": [width - 1, height - 1] - centres,
    }
    shares = {how: float(look.on_tissue(places).mean()) for how, places in moved.items()}
    best, gain = max(
        ((how, share - on.mean()) for how, share in shares.items()), key=lambda x: x[1]
    )
    certain = shares[best] >= _MOST and gain >= _CERTAIN_GAIN
    first = np.array(names)[judged][int(np.argmin(on))]
    seen = f"{(~on).sum()} of {len(on)} spots (first: {str(first)!r}) lie off the tissue"
    if certain or (shares[best] >= _ALL and gain >= _LIKELY_GAIN):
        swapped = best == "x and y exchanged"
        return [
            Problem(
                "error" if certain and swapped else "warning",
                where,
                ("x and y look swapped: " if swapped else "coordinates look mirrored: ")
                + f"{seen}, and with {best} {shares[best]:.0%} would lie on it.",
                "Coordinates are image column (x), then row (y), from the top left corner.",
            )
        ]
    if on.mean() >= 1 - _MOST_OFF_TISSUE:
        return []
    return [
        Problem(
            "warning",
            where,
            f"{seen}.",
            "Are the coordinates full-resolution pixels of this image, x first?",
        )
    ]


def _off_image(where: str, section: Section, look: Look, off: np.ndarray) -> Problem:
    centres, names = section.spots.centres_px, section.spots.names
    width, height = look.size_px
    first = int(np.argmax(off))
    x, y = centres[first]
    seen = (
        f"{off.sum()} of {len(off)} spots lie outside the {width} x {height} px image (first: "
        f"{names[first]!r} at x {x:g}, y {y:g})"
    )
    mend = "Are the coordinates full-resolution pixels, x first, and is this their image?"
    if off.sum() <= max(1, FEW * len(off)):
        mend = "All others fit: correct these or leave them out."
    elif not _outside(centres[:, ::-1], look.size_px).any():
        seen = f"x and y look swapped: {seen}, and none would with x and y exchanged"
        mend = "Coordinates are image column (x), then row (y)."
    else:
        times = float((centres.max(axis=0) / look.size_px).max())
        if times > 2:
            seen += f"; coordinates reach {times:.1f} times its size"
            mend = "The image looks like a smaller copy (hires, lowres): the full one is needed."
    return Problem("error", where, f"{seen}.", mend)


def _shrunk(where: str, section: Section, centres: np.ndarray, look: Look) -> Problem | None:
    """Coordinates of a smaller copy of the image: they stay in its top left corner."""
    reach = centres.max(axis=0) / look.size_px
    if not (reach < _SMALL_REACH).all():
        return None
    beyond = look.tissue.copy()
    right, bottom = np.ceil(centres.max(axis=0) / look.scale).astype(int) + 1
    beyond[:bottom, :right] = False
    share = float(beyond.sum() / look.tissue.sum())
    if share < _TISSUE_BEYOND:
        return None
    # The scale says which it is, where the file states one: spots too near to each other.
    pitch_um = section.spot_pitch_um
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1] if len(centres) > 1 else np.zeros(1)
    certain = (
        pitch_um is not None
        and look.stated_mpp is not None
        and float(np.median(nearest)) * look.stated_mpp < pitch_um / 2
    )
    return Problem(
        "error" if certain else "warning",
        where,
        f"the spots stay within {reach[0]:.0%} of the image's width and {reach[1]:.0%} of its "
        f"height, and {share:.0%} of the tissue lies beyond them.",
        "If they are pixels of a smaller copy, divide them by its scale (tissue_hires_scalef); if "
        "the slide holds more tissue, cut the image to the section.",
    )


def _far_off(centres: np.ndarray) -> np.ndarray:
    """(n,) bool: spots, a few at most, that are far from all others."""
    if len(centres) < 4:
        return np.zeros(len(centres), bool)
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1]
    far = nearest > _FAR * np.median(nearest)
    return far if far.sum() <= max(1, FEW * len(far)) else np.zeros(len(far), bool)


def _few_counts(total: np.ndarray) -> np.ndarray:
    return total < max(_FEWEST_COUNTS, _FEWEST_SHARE * float(np.median(total)))


def _outside(centres: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    inside = (centres >= -0.5) & (centres <= np.array(size) - 0.5)
    return np.asarray(~inside.all(axis=1))

"""Whether an image is the one that a section's previews were made from: its size and its content.

Spots' coordinates are pixels of the image that the previews were made from. Another image, or the
same one turned, cropped or shrunk, gives every spot a wrong tile.

What an image shows is compared as local contrast: grey levels less their blurred copy, over their
spread around there, so that glass around tissue, brightness, stain and outlines count for little.
On 16 real sections (HER2ST, mouse olfactory bulb) an image and its preview correlate by 0.97 or
more, by 0.75 or more after recolouring, the strongest compression, whitened glass or shrinking to
60 px; turned or mirrored by 0.48 at most, and the images of two neighbouring sections by 0.62.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines.slides.image_checks import Thumbnail
from histospace_tf.data_pipelines.spots import placement
from histospace_tf.data_pipelines.spots.previews import Preview, about, described
from histospace_tf.vocabulary import Problem

SAME = 0.75  # correlation from which on two pictures show the same
OTHER = 0.65  # below, they do not
_SMALL_PX = 100  # a smaller preview, perhaps of single pixels of the image, only raises doubt
SURELY_SAME = 0.97  # from here on nothing is moved by as much as a spot either
_COMPARED_PX, _PLACED_PX = 128, 512
_BLUR = 1 / 16  # of the compared side: contrast within it counts
_NOISE = 4.0  # grey levels; local contrast well below counts for little
# Grey levels, and correlation of neighbouring pixels (of tissue 0.25 to 0.9): below, a picture
# shows nothing.
_LEAST_CONTRAST, _LEAST_SMOOTHNESS = 0.5, 0.2
_SAME_SIZE = 0.02  # relative; a copy of 600 px says its original's size to 0.2 %
_PREVIEW_PX = 2  # by which a preview may be rounded
_MOVED_PX = 1.5  # of _PLACED_PX, to which places are found

FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda picture: picture,
    "turned by 90 degrees to the left": lambda picture: np.rot90(picture, 1),
    "turned by 180 degrees": lambda picture: np.rot90(picture, 2),
    "turned by 90 degrees to the right": lambda picture: np.rot90(picture, 3),
    "mirrored left to right": lambda picture: picture[:, ::-1],
    "mirrored top to bottom": lambda picture: picture[::-1],
    "with rows and columns exchanged": lambda picture: picture.swapaxes(0, 1),
    "with rows and columns exchanged, from the lower right corner": lambda picture: picture[
        ::-1, ::-1
    ].swapaxes(0, 1),
}
_AS_IT_IS = next(iter(FORMS))


def preview_problems(
    where: str,
    thumbnail: Thumbnail,
    known: Sequence[Preview],
    pixel_xy: np.ndarray,
    mpp: float | None,
    tile: TileConfig,
) -> list[Problem]:
    """Checks an image against the previews of the image that coordinates belong to.

    Args:
        where: the section, for problems.
        thumbnail: the image at low resolution.
        known: previews; those that are black, damaged or missing say less, or nothing.
        pixel_xy: (n, 2) spots in full-resolution pixels, x first.
        mpp: microns per full-resolution pixel, if known.
        tile: what is to be cut from it.
    """
    size = thumbnail.size_px
    what = f"image {thumbnail.path.name} has {size[0]} x {size[1]} px"
    for preview in known:
        if size == preview.size_px:
            finding = f"it is {described(preview, mpp, tile)}"
        elif _spots_fit_shrunk(preview, size, pixel_xy):
            finding = (
                f"spots fit on it only at {preview.scale:.3g} times their coordinates, the scale "
                f"of the {preview.name} preview: it is that or another smaller copy"
            )
        else:
            continue
        text = f"{what}: {finding}, not the image that the spots' coordinates belong to."
        return [Problem("error", where, text, f"Give the full-resolution image{about(preview)}.")]
    with_size = [preview for preview in known if preview.size_px is not None]
    shown = [preview for preview in with_size if _is_shown(preview)]
    if not _is_picture(thumbnail.overview):
        shown = []
    if not with_size:
        return []
    preview = (shown or with_size)[0]  # the finest that shows something
    full = preview.full_px
    assert full is not None
    ratio = np.array(size) / full
    is_copy = abs(ratio[0] / ratio[1] - 1) <= _SAME_SIZE < abs(ratio.mean() - 1)
    if is_copy and not (shown and _is_cut(preview, thumbnail)):
        return [
            Problem(
                "error",
                where,
                f"{what}: it is a copy at {ratio.mean():.3g} times the size of the image that the "
                f"spots' coordinates belong to (about {full[0]} x {full[1]} px, as the "
                f"{preview.name} preview and its scale factor tell).",
                "Give the full-resolution image.",
            )
        ]
    problem = (
        _by_content(where, thumbnail, preview) if shown else _by_size(where, what, size, preview)
    )
    return [] if problem is None else [problem]


def resemblance(preview: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """How similar an image is to a preview, in each of FORMS.

    Args:
        preview, image: (h, w, 3) uint8 RGB; of any two sizes, for both are stretched to a square.
    Returns:
        Form -> Pearson correlation of local contrast, of the image and the preview in that form;
        0 where one of them shows nothing.
    """
    side = min(_COMPARED_PX, *preview.shape[:2], *image.shape[:2])
    ours, theirs = (_local_contrast(picture, (side, side)) for picture in (image, preview))
    if not (_shows_something(ours) and _shows_something(theirs)):
        return dict.fromkeys(FORMS, 0.0)
    ours, theirs = _evened(ours), _evened(theirs)
    return {
        form: float(np.corrcoef(ours.ravel(), turned(theirs).ravel())[0, 1])
        for form, turned in FORMS.items()
    }


def offset(preview: Preview, thumbnail: Thumbnail) -> tuple[np.ndarray, float]:
    """Position of an image on the one that a preview was made from, assuming the same scale.

    Returns:
        (2,) full-resolution pixels, x first, exact to a 512th of the larger image's longer side;
        and the correlation of both images there.
    """
    full = preview.full_px
    if full is None or preview.picture is None:
        raise ValueError(f"the preview {preview.name} has no picture")
    px = max(*full, *thumbnail.size_px) / _PLACED_PX
    parts = [
        _evened(_local_contrast(picture, tuple(max(8, round(side / px)) for side in size)))
        for picture, size in ((preview.picture, full), (thumbnail.overview, thumbnail.size_px))
    ]
    whole, part = (part.astype(np.float32) for part in parts)
    sign = 1
    if part.size > whole.size:
        whole, part, sign = part, whole, -1
    inner = (np.minimum(whole.shape, part.shape) * 0.7).astype(int)
    top, left = (np.array(part.shape) - inner) // 2
    template = part[top : top + inner[0], left : left + inner[1]]
    pad = int(max(inner) // 2)
    scores = cv2.matchTemplate(
        cv2.copyMakeBorder(whole, pad, pad, pad, pad, cv2.BORDER_CONSTANT),
        template,
        cv2.TM_CCOEFF_NORMED,
    )
    scores[~(np.abs(scores) <= 1)] = 0  # where there is no contrast
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return sign * np.array([x - pad - left, y - pad - top]) * px, float(best)


def _by_content(where: str, thumbnail: Thumbnail, preview: Preview) -> Problem | None:
    """Compares the content of an image and a preview of about the same scale."""
    assert preview.picture is not None
    assert preview.full_px is not None
    assert preview.size_px is not None
    size, full = np.array(thumbnail.size_px), np.array(preview.full_px)
    what = f"image {thumbnail.path.name} ({size[0]} x {size[1]} px)"
    original = f"the {preview.name} preview"
    alike = resemblance(preview.picture, thumbnail.overview)
    same_size = (np.abs(size / full - 1) <= _PREVIEW_PX / np.array(preview.size_px)).all()
    inverted = alike[_AS_IT_IS] <= -SAME  # dark for light, as of another microscopy
    if same_size and (alike[_AS_IT_IS] >= SURELY_SAME or inverted):
        return None
    best = max(alike, key=lambda form: alike[form])
    if best != _AS_IT_IS and alike[best] >= SAME:
        return Problem(
            "error",
            where,
            f"{what} is {original} {best}: spots' coordinates belong to the image as the preview "
            f"shows it (correlation {alike[best]:.2f}, as it is {alike[_AS_IT_IS]:.2f}).",
            "Give the image as it was when the spots were placed. Where coordinates were turned, "
            "too, take the preview away.",
        )
    begins, correlation = offset(preview, thumbnail)
    if correlation >= SAME:
        within = max(_MOVED_PX * max(*size, *full) / _PLACED_PX, 1 / preview.scale)
        if (np.abs(begins) <= within).all():
            if (np.abs(size / full - 1) <= _SAME_SIZE).all():
                return None
            return Problem(
                "note",
                where,
                f"{what} has another size than {original} tells (about {full[0]} x {full[1]} px) "
                "and begins at the same corner: coordinates hold.",
            )
        x, y = (f"{value:.0f}" for value in begins)
        return Problem(
            "error",
            where,
            f"{what} begins at about x {x}, y {y} of the image that the spots' coordinates belong "
            f"to (about {full[0]} x {full[1]} px, as {original} shows it).",
            "Give the image as it was, not cropped or widened; or subtract that from coordinates.",
        )
    if alike[_AS_IT_IS] >= SAME and (np.abs(size / full - 1) <= _SAME_SIZE).all():
        return None
    finding = f"correlation up to {max(alike.values()):.2f} in eight forms; an image and its own "
    finding += "preview have 0.8 or more"
    advice = "Is it the image of another section?"
    is_small = min(preview.size_px) < _SMALL_PX
    if (np.abs(size / full - 1) > _SAME_SIZE).any():
        finding = f"about {full[0]} x {full[1]} px by the preview; {finding}"
        advice = "Was it cropped and scaled, or is it the image of another section?"
    return Problem(
        "error" if alike[_AS_IT_IS] < OTHER and not is_small else "warning",
        where,
        f"{what} does not show what {original} shows ({finding}).",
        f"{advice} If the preview is, take the preview away.",
    )


def _is_cut(preview: Preview, thumbnail: Thumbnail) -> bool:
    """Whether an image of a preview's proportions shows only a part of it."""
    assert preview.picture is not None
    whole = resemblance(preview.picture, thumbnail.overview)[_AS_IT_IS]
    return whole < SAME <= offset(preview, thumbnail)[1]


def _by_size(where: str, what: str, size: tuple[int, int], preview: Preview) -> Problem | None:
    """Compares sizes alone, where a preview shows nothing."""
    full = preview.full_px
    assert full is not None
    if (np.abs(np.array(size) / full - 1) <= _SAME_SIZE).all():
        return None
    hint = f"the {preview.name} preview tells about {full[0]} x {full[1]} px"
    if (np.abs(np.array(size[::-1]) / full - 1) <= _SAME_SIZE).all():
        return Problem(
            "error",
            where,
            f"{what}, and {hint}: it was turned by 90 degrees, or rows and columns were exchanged.",
            "Give the image as it was when the spots were placed.",
        )
    return Problem(
        "warning",
        where,
        f"{what}, and {hint}: it was cropped, or is another image.",
        "Coordinates hold only if nothing was cut off at its left and top.",
    )


def _spots_fit_shrunk(preview: Preview, size: tuple[int, int], pixel_xy: np.ndarray) -> bool:
    """Whether spots fit an image, and fill it, only at the scale of a missing preview."""
    if preview.size_px is not None or not placement.outside(pixel_xy, size).any():
        return False
    there = pixel_xy * preview.scale
    fills = (np.ptp(there, axis=0) > 0.25 * np.array(size)).any()
    return bool(fills and not placement.outside(there, size).any())


def _is_shown(preview: Preview) -> bool:
    """Whether a preview shows something."""
    return preview.picture is not None and not preview.black and _is_picture(preview.picture)


def _is_picture(picture: np.ndarray) -> bool:
    side = min(_COMPARED_PX, *picture.shape[:2])
    return side > 1 and _shows_something(_local_contrast(picture, (side, side)))


def _shows_something(contrast: np.ndarray) -> bool:
    """Whether local contrast is more than noise."""
    if contrast.std() < _LEAST_CONTRAST:
        return False
    right = np.corrcoef(contrast[:, 1:].ravel(), contrast[:, :-1].ravel())[0, 1]
    below = np.corrcoef(contrast[1:].ravel(), contrast[:-1].ravel())[0, 1]
    return bool((right + below) / 2 >= _LEAST_SMOOTHNESS)


def _local_contrast(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(h, w) float64: grey levels of a picture at `size`, width first, less their blurred copy."""
    width, height = size
    shrinks = width <= picture.shape[1] and height <= picture.shape[0]
    small = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    grey = small.astype(np.float64).mean(axis=2)
    blurred = cv2.GaussianBlur(grey, (0, 0), max(1.0, max(width, height) * _BLUR))
    return np.asarray(grey - blurred)


def _evened(contrast: np.ndarray) -> np.ndarray:
    """(h, w) float64: local contrast over its spread around there."""
    sigma = max(1.0, max(contrast.shape) * _BLUR)
    return np.asarray(contrast / np.sqrt(cv2.GaussianBlur(contrast**2, (0, 0), sigma) + _NOISE**2))

"""Which patches of other tools' files belong to which spots.

A folder holds one file per slide, named as the section or as its image is. A spot takes the patch
that its centre lies in: the nearest one, by the larger of the distances along x and y, no farther
than half a patch's side. Files that name spots (HEST's barcodes) are matched by name.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf.data_pipelines import patch_features
from histospace_tf.data_pipelines.patch_features import PatchFeatures
from histospace_tf.outputs import file_name
from histospace_tf.provenance import file_checksum
from histospace_tf.vocabulary import InputError, Section, SpotTable, named

# Of a section's spots. With fewer, its patches are of another slide or scale rather than sparse.
LEAST_SHARE = 0.5
USUAL_SHARE = 0.9  # below it, they may be: sections of one block lie much alike on their slides
# Of the sides of two slides' patches in microns. Magnifications differ by 2; scanners of one, whose
# microns per pixel are rounded to it, by up to a quarter.
MOST_SCALES_APART = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class MatchedPatches:
    """A slide's patches and those of a section's spots.

    patches: of the slide, all of them.
    patch_of: (n,) int, each spot's patch as a row of them; -1 for a spot that lies in none.
    centres_px: (m, 2) float64 of all patches, full-resolution pixels; of a file that names spots
        its spots', NaN for a barcode that is none of the section's.
    """

    section: str
    patches: PatchFeatures
    patch_of: np.ndarray
    centres_px: np.ndarray

    @property
    def has_patch(self) -> np.ndarray:
        """(n,) bool."""
        return self.patch_of >= 0

    def record(self) -> dict[str, Any]:
        """What was matched, for a manifest."""
        return {
            "file": self.patches.path.name,
            "checksum": file_checksum(self.patches.path),
            "patches": len(self.patches),
            "patch_px": self.patches.side_px,
            "features": self.patches.values.shape[1],
            "spots": len(self.patch_of),
            "spots_without": int((~self.has_patch).sum()),
        }

    def doubt(self) -> str:
        """A warning where so many spots have no patch that the file may be another slide's."""
        share = float(self.has_patch.mean())
        if share >= USUAL_SHARE:
            return ""
        return (
            f"Warning: section {self.section}: only {share:.0%} of its spots have a patch in "
            f"{str(self.patches.path)!r}; is that file of this section's slide?"
        )

    def line(self, mpp: float | None = None) -> str:
        """What was matched, for the user; with the image's microns per pixel, where known."""
        n, without = len(self.patch_of), int((~self.has_patch).sum())
        side, twice = self.patches.side_px, self.patches.twice
        size = "" if side is None else f" of {side:g} px"
        if side is not None and mpp is not None:
            size += f" ({side * mpp:.0f} um)"
        which = f"{len(self.patches)} patches{size} in {self.patches.path.name}"
        lacks = f"{without} of {n} spots lie in none" if without else f"all {n} spots have one"
        again = f"; {twice} stood there twice and count once" if twice else ""
        return f"section {self.section}: {which}, {lacks}{again}"


def files_of(folder: Path, sections: Sequence[Section]) -> tuple[dict[str, Path], list[Path]]:
    """Finds the file of each section, by the section's name or its image's.

    Case is ignored where nothing has exactly that name. An image's name counts where it is that of
    one section alone.

    Returns:
        Section's name -> its file, and the files that belong to none.
    Raises:
        InputError: no such folder, no file in it, a section without one or with several.
    """
    files = listed(folder)
    images = [s.image.name.lower() for s in sections if s.image is not None]
    shared = {name for name, times in Counter(images).items() if times > 1}
    of_section, lacking = {}, []
    for section in sections:
        names = [section.name, file_name(section.name)]
        if section.image is not None and section.image.name.lower() not in shared:
            stem = section.image.name.removesuffix(section.image.suffix)
            names += [stem.removesuffix(".ome"), stem, section.image.name]
        own = [f for f in files if f.stem in names] or [
            f for f in files if f.stem.lower() in {name.lower() for name in names}
        ]
        if len(own) > 1:
            raise InputError(
                f"folder {str(folder)!r} holds {len(own)} files of features for section "
                f"{section.name!r}: {named([f.name for f in own])}; leave one"
            )
        if own:
            of_section[section.name] = own[0]
        else:
            lacking.append((section.name, names))
    others = [file for file in files if file not in of_section.values()]
    if lacking:
        wanted = " or ".join(f"{name}.h5" for name in dict.fromkeys(lacking[0][1][1:3]))
        raise InputError(
            f"folder {str(folder)!r} holds no features of {len(lacking)} of {len(sections)} "
            f"sections: {named([name for name, _ in lacking])}. Name the first one's {wanted}; "
            f"files of no section: {named([f.name for f in others]) or 'none'}"
        )
    return of_section, others


def listed(folder: Path) -> list[Path]:
    """Files of features in a folder, or in CLAM's folder h5_files in it.

    Raises:
        InputError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise InputError(f"folder of features {str(folder)!r} does not exist, or is no folder")
    below = folder / patch_features.CLAM_FEATURES
    inside = _files(below if below.is_dir() else folder)
    if inside:
        return inside
    elsewhere = sorted(p for p in folder.iterdir() if p.is_dir() and _files(p))
    if elsewhere:
        advice = (
            f"its folders do: {named([str(p) for p in elsewhere], 3)}. Name the one with features"
        )
    elif any(folder.rglob("*.pt")):
        advice = "it holds .pt files, which have no coordinates; CLAM's .h5 files lie in h5_files"
    else:
        advice = "one file per slide is needed, named as the section or its image is"
    raise InputError(
        f"folder {str(folder)!r} holds no file of features "
        f"({', '.join(patch_features.SUFFIXES)} work): {advice}"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in patch_features.SUFFIXES
        and file.is_file()
        and not file.name.startswith(".")
    )


def match(
    section: str,
    spots: SpotTable,
    patches: PatchFeatures,
    *,
    image_px: tuple[int, int] | None = None,
) -> MatchedPatches:
    """Matches the patches of a slide to the spots of its section.

    Args:
        section: its name, for errors.
        spots: of the section.
        patches: of its slide.
        image_px: (width, height) of the section's image; None: unknown.
    Raises:
        InputError: the file is of an image of another size, a patch lies outside the image, fewer
            than LEAST_SHARE of the spots lie in one, or no barcode is a spot's name.
    """
    where = f"features {str(patches.path)!r}, section {section!r}"
    if patches.barcodes:
        row_of = {name: row for row, name in enumerate(patches.barcodes)}
        patch_of = np.array([row_of.get(name, -1) for name in spots.names], int)
        centres = np.full((len(patches), 2), np.nan)
        centres[patch_of[patch_of >= 0]] = spots.centres_px[patch_of >= 0]
        if _are_few(patch_of):
            raise InputError(
                f"{where}: only {(patch_of >= 0).sum()} of {len(spots)} spots are among its "
                f"barcodes, which begin with {named(patches.barcodes, 2)}; spots begin with "
                f"{named(spots.names, 2)}. Barcodes as the data name spots work, or coords in "
                "place of them"
            )
        return MatchedPatches(section, patches, patch_of, centres)
    own_centres, side = patches.centres_px, patches.side_px
    if own_centres is None or side is None:
        raise ValueError(f"{where}: neither coordinates nor barcodes")
    _refuse_outside(patches, image_px, where)
    distance, nearest = cKDTree(own_centres).query(spots.centres_px, p=np.inf)
    patch_of = np.where(distance <= side / 2, nearest, -1)
    if _are_few(patch_of):
        raise InputError(
            f"{where}: only {(patch_of >= 0).sum()} of {len(spots)} spots lie in one of its "
            f"{len(patches)} patches of {side:g} px, whose centres are {_extent(own_centres)}; "
            f"spots are {_extent(spots.centres_px)}. Features of this slide are needed, with "
            "coords in full-resolution pixels (level 0), x first"
        )
    return MatchedPatches(section, patches, patch_of, own_centres)


def _are_few(patch_of: np.ndarray) -> bool:
    return bool((patch_of >= 0).mean() < LEAST_SHARE)


def _extent(points: np.ndarray) -> str:
    low, high = points.min(axis=0), points.max(axis=0)
    return ", ".join(f"{axis} {low[i]:.0f} to {high[i]:.0f}" for i, axis in enumerate("xy"))


def _refuse_outside(patches: PatchFeatures, image_px: tuple[int, int] | None, where: str) -> None:
    if image_px is None or patches.corners_px is None or patches.side_px is None:
        return
    width, height = image_px
    if patches.size_px is not None and patches.size_px != image_px:
        raise InputError(
            f"{where}: its patches are of a slide of {patches.size_px[0]} x {patches.size_px[1]} "
            f"px (level0_width, level0_height), and the section's image has {width} x {height} px; "
            "features of that image are needed"
        )
    beyond = (patches.corners_px >= image_px) | (patches.corners_px + patches.side_px <= 0)
    off = np.asarray(beyond.any(axis=1))
    if off.any():
        x, y = patches.corners_px[int(np.argmax(off))]
        raise InputError(
            f"{where}: {off.sum()} of {len(off)} patches lie outside the {width} x {height} px "
            f"image (first: x {x:g}, y {y:g}). Features of this slide, with coords in "
            "full-resolution pixels (level 0), x first, are needed"
        )


def refuse_other_kinds(widths: Mapping[Path, int], sides_um: Mapping[Path, float]) -> None:
    """Refuses files of another encoder, or of patches of another scale, than the first one's.

    Args:
        widths: features for each patch, by file.
        sides_um: side of the patches in microns, of the files where it is known.
    Raises:
        InputError: naming two of them.
    """
    (first, width), *others = widths.items()
    for path, other in others:
        if other != width:
            raise InputError(
                f"features {str(path)!r} has {other} for each patch, and {str(first)!r} {width}; "
                "files of one encoder are needed"
            )
    for path, side in sides_um.items():
        first, own = next(iter(sides_um.items()))
        if max(side, own) > MOST_SCALES_APART * min(side, own):
            raise InputError(
                f"features {str(path)!r} has patches of {side:.0f} um, and {str(first)!r} of "
                f"{own:.0f} um; patches of one magnification are needed. If the images' microns "
                "per pixel are wrong, give `mpp`"
            )

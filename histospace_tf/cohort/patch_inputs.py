"""Features that other tools made of slides' patches, as predictors read them of every spot.

A spot has the features of the patch that it lies in (`patch_matching`). Slide context is as for our
own features: mean and deviation over all patches of the slide, and the mean of the other patches
within `context.neighbour_um`. A spot without a patch has a row of NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from histospace_tf import outputs, provenance
from histospace_tf.cohort import head_inputs, paired
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Config
from histospace_tf.data_pipelines import patch_features, patch_matching, slides
from histospace_tf.data_pipelines.patch_matching import MatchedPatches
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.vocabulary import Section, named

# Of a set of features: section's name -> its file.
Files = Mapping[str, Path]


@dataclasses.dataclass(frozen=True, eq=False)
class PatchInputs:
    """One set of features, of all spots of a cohort.

    title: the user's name for it.
    inputs: what the "context" head takes: "features" (n, 1, f), the others (n, f); float32,
        memory-mapped.
    record: for a manifest, by section: file, checksum, patches, their side, spots without one.
    """

    title: str
    inputs: dict[str, np.ndarray]
    record: dict[str, dict[str, Any]]

    @property
    def features(self) -> np.ndarray:
        """(n, f) float32; NaN where a spot has no patch."""
        return self.inputs["features"][:, 0]


def files_of(folders: Mapping[str, Path], spots: PairedSpots) -> dict[str, Files]:
    """The files of every set of features, by its name; says which belong to no section.

    Raises:
        InputError: as `patch_matching.files_of`.
    """
    files: dict[str, Files] = {}
    for title, folder in folders.items():
        own, others = patch_matching.files_of(folder, spots.sections)
        files[title] = own
        if others:
            say(f"{title}: {named([file.name for file in others])}: of no section, not used.")
    return files


def checksums(
    sections: Mapping[str, Mapping[str, str]], files: Mapping[str, Files]
) -> dict[str, dict[str, str]]:
    """The checksums of `sections`' files, and beside them those of their features."""
    return {
        name: dict(own)
        | {
            f"features {title}": provenance.file_checksum(of_section[name])
            for title, of_section in files.items()
            if name in of_section
        }
        for name, own in sections.items()
    }


def read(
    files: Mapping[str, Files], spots: PairedSpots, config: Config, folder: Path
) -> list[PatchInputs]:
    """Reads every set of features and matches it to the spots; says how many have no patch.

    Args:
        files: of `files_of`.
        spots: of the cohort.
        config: context.neighbour_um.
        folder: what is read by predictors is kept in it.
    Raises:
        InputError: as `patch_features.read_file`, `patch_matching.match` and
            `patch_matching.refuse_other_kinds`.
    """
    return [
        _read(title, own, spots, config, folder / outputs.file_name(title))
        for title, own in files.items()
    ]


def _read(
    title: str, files: Files, spots: PairedSpots, config: Config, folder: Path
) -> PatchInputs:
    folder.mkdir(parents=True, exist_ok=True)
    parts, record = [], {}
    widths: dict[Path, int] = {}
    sides_um: dict[Path, float] = {}
    for section in tqdm(spots.sections, desc=f"Features {title}", unit="section", delay=2):
        patches = patch_features.read_file(files[section.name])
        widths[patches.path] = patches.values.shape[1]
        mpp = _mpp(section)
        if mpp is not None and patches.side_px is not None:
            sides_um[patches.path] = patches.side_px * mpp
        patch_matching.refuse_other_kinds(widths, sides_um)
        size = None if section.image is None else slides.image_size(section.image)
        matched = patch_matching.match(section.name, section.spots, patches, image_px=size)
        say(f"{title}, {matched.line(mpp)}.")
        if matched.doubt():
            say(matched.doubt())
        radius_px = paired.neighbour_radius_px(mpp, paired.spot_pitch_px(section, config), config)
        parts.append(_of_section(matched, radius_px=radius_px))
        record[section.name] = matched.record()
    inputs = {}
    for name in regressor.CONTEXT_INPUTS:
        path = folder / f"{name}.npy"
        shape = (len(spots), *parts[0][name].shape[1:])
        outputs.write_npy(path, shape, np.float32, (part[name] for part in parts))
        inputs[name] = np.load(path, mmap_mode="r")
    return PatchInputs(title, inputs, record)


def _mpp(section: Section) -> float | None:
    if section.mpp is None and section.image is not None:
        return slides.stated_mpp(section.image)
    return section.mpp


def _of_section(matched: MatchedPatches, *, radius_px: float) -> dict[str, np.ndarray]:
    """What heads in slide context read of a section's spots, NaN without a patch."""
    values, has = matched.patches.values, matched.has_patch
    placed = np.isfinite(matched.centres_px).all(axis=1)  # all, but for barcodes of no spot
    own = (np.cumsum(placed) - 1)[matched.patch_of[has]]
    nothing = np.full((len(has), values.shape[1]), np.nan, np.float32)
    features, neighbours = nothing.copy(), nothing
    features[has] = values[matched.patch_of[has]]
    neighbours[has] = head_inputs.neighbour_features(
        values[placed], matched.centres_px[placed], radius_px=radius_px, rows=own
    )
    slide = head_inputs.slide_statistics(values)
    return head_inputs.in_context(features[:, None], neighbours, slide)

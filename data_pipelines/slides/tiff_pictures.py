"""Chooses the picture of a TIFF that is read: the largest one, labels, masks and copies aside.

A TIFF may hold many: the resolutions of a pyramid (as pages, or in SubIFDs), label, macro and
thumbnail of a slide, several scenes, focal planes, time points, channels. All are examined, and
those that are not read are named in a note.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from histospace_tf.data_pipelines.slides import tiff_metadata, tiff_tags
from histospace_tf.vocabulary import InputError, Problem, named

_OTHER = r"label|macro|thumb(?:nail)?|overview|preview"
_COMPARABLE = 0.25  # of the area of the picture taken: another one may be meant as well
_DIMENSIONS = {"Z": "focal planes", "T": "time points", "C": "channels"}
_COLOUR_NAMES = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_NO_NAME = re.compile(r"(channel|ch|c)?[\s:_-]*\d*([\s:_-]\d+)*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a file.

    levels: the pages of each stored resolution, finest first; several pages where channels are
        stored as a page each.
    sizes: length of every axis but height, width and samples, by its letter.
    number: of the series or page, from 0. name: as the file calls it, may be "".
    reduced, mask, other: it is marked as a smaller copy, as a mask, or as label, macro, ...
    """

    levels: tuple[tuple[Any, ...], ...]
    sizes: dict[str, int]
    number: int
    name: str
    reduced: bool
    mask: bool
    other: bool
    series: Any = None

    @property
    def key(self) -> Any:
        """The page whose tags hold for the finest resolution."""
        return self.levels[0][0].keyframe

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return int(self.key.imagewidth), int(self.key.imagelength)

    @property
    def area(self) -> int:
        """In pixels."""
        return self.size_px[0] * self.size_px[1]

    def __str__(self) -> str:
        kind = self.name or ("a mask" if self.mask else "a smaller copy" if self.reduced else "")
        return f"{self.size_px[0]} x {self.size_px[1]} px" + (f" ({kind})" if kind else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """The picture to read, and how.

    levels: as in `Picture`, without resolutions whose tags cannot be applied.
    colours: how the samples of each level become RGB.
    order: which of the pages (or samples) is red, green and blue; None: as they stand.
    """

    picture: Picture
    levels: tuple[tuple[Any, ...], ...]
    colours: tuple[tiff_tags.Colours, ...]
    order: tuple[int, ...] | None
    notes: tuple[Problem, ...]


def choose(path: Path, tiff: tifffile.TiffFile) -> Chosen:
    """Chooses the picture of an opened TIFF to read.

    Raises:
        InputError: none can be read as H&E: a stack, channels of fluorescence, a tag that cannot be
            honoured, or pixels that lie in other files.
    """
    pictures = _pictures(path, tiff)
    if not pictures:
        raise InputError(f"image {str(path)!r} holds no picture; copy or download it again")
    taken, copies, others = _largest(pictures)
    channels = tiff_metadata.channel_names(tiff, taken.key, taken.number)
    _refuse_stack(path, taken, [p for p in others if p.size_px == taken.size_px], channels)
    order = _order(path, taken, channels)
    levels: list[tuple[Any, ...]] = []
    colours: list[tiff_tags.Colours] = []
    for number, pages in enumerate([*taken.levels, *(copy.levels[0] for copy in copies)]):
        try:
            of_level = tiff_tags.colours(path, pages[0].keyframe)
        except InputError:
            if number == 0:
                raise
            continue
        alike = number == 0 or (len(pages), of_level.base) == (len(levels[0]), colours[0].base)
        if alike:
            levels.append(pages)
            colours.append(of_level)
    return Chosen(
        taken, tuple(levels), tuple(colours), order, _notes(path, taken, others, channels)
    )


def _pictures(path: Path, tiff: tifffile.TiffFile) -> list[Picture]:
    """Every picture: series where the file's own metadata say what belongs together, else pages."""
    if not (tiff.is_ome or tiff.is_imagej or tiff.is_shaped):
        return _of_pages(tiff)
    pictures = []
    for number, series in enumerate(tiff.series):
        levels: list[tuple[Any, ...]] = [tuple(level.pages) for level in series.levels]
        pages: list[Any] = [page for level in levels for page in level]
        if not pages or any(page is None for page in pages):
            raise InputError(
                f"image {str(path)!r}: pages that its metadata name are missing (series {number})"
            )
        if any(page.parent.filehandle.path != tiff.filehandle.path for page in pages):
            raise InputError(
                f"image {str(path)!r} is one of several files of one OME-TIFF: pixels of series "
                f"{number} lie in others. One file that holds the whole picture works"
            )
        key: Any = series.keyframe
        sizes = {
            axis: int(n)
            for axis, n in zip(series.axes, series.shape, strict=True)
            if axis not in "YXS" and n > 1
        }
        pictures.append(
            Picture(
                tuple(level for level in levels if _is_copy(level[0].keyframe, key)),
                sizes,
                number,
                series.name if tiff.is_ome else "",
                bool(int(key.subfiletype) & 1),
                bool(int(key.subfiletype) & 4) or int(key.photometric) == 4,
                re.search(rf"(?<![a-z])({_OTHER})(?![a-z])", series.name, re.I) is not None,
                series,
            )
        )
    return pictures


def _of_pages(tiff: tifffile.TiffFile) -> list[Picture]:
    pictures: list[Picture] = []
    every: list[Any] = list(tiff.pages)
    for page in every:
        inside = [] if page.subifds is None else list(page.pages or ())
        for part in (page, *inside):
            key: Any = part.keyframe
            smaller = part is not page and key.imagewidth < page.keyframe.imagewidth
            name = _kind_of_page(key)
            pictures.append(
                Picture(
                    ((part,),),
                    {"Z": int(key.imagedepth)} if int(key.imagedepth) > 1 else {},
                    len(pictures),
                    name,
                    bool(int(key.subfiletype) & 1) or smaller,
                    bool(int(key.subfiletype) & 4) or int(key.photometric) == 4,
                    bool(name),
                )
            )
    return pictures


def _kind_of_page(page: Any) -> str:
    """ "label", "macro", ... where a page's name or description says so, else ""."""
    described = str(page.description or "")[:5000]
    kind = re.search(r"<ImageType>(\w+)</ImageType>", described)  # PerkinElmer's QPTIFF
    lines = [kind.group(1)] if kind else [str(page.tags.valueof(285, default="")), described]
    for text in lines:
        match = re.search(rf"^\W*({_OTHER})(?![a-z])", text, re.IGNORECASE | re.MULTILINE)
        if match:
            return match.group(1).lower()
    return ""


def _is_copy(page: Any, first: Any) -> bool:
    """Whether a page's size is that of a smaller copy of `first`, within a pixel of rounding."""
    across = [(page.imagewidth + d) / first.imagewidth for d in (-1, 1)]
    down = [(page.imagelength + d) / first.imagelength for d in (-1, 1)]
    return across[0] <= down[1] and down[0] <= across[1]


def _largest(pictures: Sequence[Picture]) -> tuple[Picture, list[Picture], list[Picture]]:
    """The picture to take, smaller copies of it, and all others."""
    whole = [p for p in pictures if not (p.mask or p.reduced or p.other)]
    usable = whole or [p for p in pictures if not (p.mask or p.other)] or list(pictures)
    taken = max(usable, key=lambda picture: picture.area)
    copies = [
        p
        for p in pictures
        if p.reduced
        and not (p.mask or p.other)
        and p.area < taken.area
        and len(taken.levels) == 1 == len(taken.levels[0])
        and p.key.samplesperpixel == taken.key.samplesperpixel
        and _is_copy(p.key, taken.key)
    ]
    copies.sort(key=lambda picture: -picture.area)
    others = [p for p in pictures if p is not taken and not any(p is copy for copy in copies)]
    return taken, copies, others


def _refuse_stack(
    path: Path, taken: Picture, alike: Sequence[Picture], channels: Sequence[str]
) -> None:
    """Refuses focal planes, time points and pages of one size, and channels that are no colours."""
    pages = [p for p in alike if not (p.mask or p.reduced or p.other)] if not taken.series else []
    sizes = dict(taken.sizes) | ({"I": len(pages) + 1} if pages else {})
    shape = (*sizes.values(), *taken.key.shape)
    if taken.series is not None:
        shape, axes = tuple(taken.series.shape), taken.series.axes
    else:
        axes = "".join(sizes) + taken.key.axes
    where = f"image {str(path)!r}, shape {shape} ({axes})"
    stacked = {axis: n for axis, n in sizes.items() if axis != "C"}
    n_channels = sizes.get("C", 1)
    paged = set(stacked) == {"I"} and len(channels) > 1  # QPTIFF: a page is a channel
    if stacked and not paged:
        held = ", ".join(f"{n} {_DIMENSIONS.get(axis, 'pages')}" for axis, n in stacked.items())
        raise InputError(
            f"{where}, holds {held} of one size; one RGB or grey picture works. Save the one that "
            "is wanted as a file of its own"
        )
    in_colour = any(axis == "S" and n > 1 for axis, n in zip(axes, shape, strict=True))
    if paged or (n_channels > 1 and (n_channels != 3 or in_colour)):
        n_channels = stacked.get("I", n_channels)
        called = f" ({named(channels, 6)})" if any(channels) else ""
        raise InputError(
            f"{where}, is not H&E in RGB: it has {n_channels} channels{called}. Fluorescence "
            "cannot be read; an H&E image is needed"
        )


def _order(path: Path, taken: Picture, channels: Sequence[str]) -> tuple[int, ...] | None:
    """Where red, green and blue stand among channels that are stored apart.

    Raises:
        InputError: the channels are called otherwise.
    """
    if taken.sizes.get("C", 1) == 1 or all(_NO_NAME.fullmatch(name.strip()) for name in channels):
        return None
    colours = [_COLOUR_NAMES.get(name.strip().lower()) for name in channels[:3]]
    if sorted(c for c in colours if c is not None) != [0, 1, 2]:
        raise InputError(
            f"image {str(path)!r} is not H&E: its channels are {named(channels, 6)}. Fluorescence "
            "cannot be read; an H&E image in RGB is needed"
        )
    return tuple(int(i) for i in np.argsort([c for c in colours if c is not None]))


def _notes(
    path: Path, taken: Picture, others: Sequence[Picture], channels: Sequence[str]
) -> tuple[Problem, ...]:
    """Notes and warnings about the choice."""
    where = f"image {path.name}"
    notes = []
    rivals = [
        p
        for p in others
        if p.area >= _COMPARABLE * taken.area and not (p.mask or p.reduced or p.other)
    ]
    if others:
        left = named([f"{p.number}: {p}" for p in others], 6)
        notes.append(
            Problem(
                "warning" if rivals else "note",
                where,
                f"holds {len(others) + 1} pictures; the largest is read, number {taken.number}: "
                f"{taken}. Not read: {left}.",
                "If another one is meant, save it as a file of its own." if rivals else "",
            )
        )
    remarks = tiff_tags.remarks(taken.key)
    if taken.sizes.get("C") == 3:
        called = f" ({', '.join(channels)})" if any(channels) else ""
        remarks.append(f"its three channels{called} are taken as red, green and blue")
    notes += [Problem("note", where, f"{text}.") for text in remarks]
    return tuple(notes)

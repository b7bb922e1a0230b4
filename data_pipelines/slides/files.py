"""Image files of every format: which reader opens one, and what its header says."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from histospace_tf.data_pipelines.slides import plain_images, scanner_files, tiffs, zarr_images
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError, Problem

Header = tuple[tuple[int, int], tuple[float, float] | None]  # size, and as OpenedFile.mpp
_HEADERS: dict[tuple[Path, int, int, int], Header] = {}  # of files opened before, by their state
_MOST_HEADERS = 4096


class OpenedFile(Protocol):
    """One opened file of some format.

    kind: "jpeg", "png", "tiff", "ome-tiff", "ome-zarr", or OpenSlide's name of a scanner's format.
    levels: (width, height) of each stored resolution, finest first.
    mpp: (x, y) microns per pixel that the file states.
    notes: what was ignored when it was opened.
    """

    @property
    def kind(self) -> str: ...

    @property
    def levels(self) -> Sequence[tuple[int, int]]: ...

    @property
    def mpp(self) -> tuple[float, float] | None: ...

    @property
    def notes(self) -> Sequence[Problem]: ...

    def pixels(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a part that lies inside the image, perhaps a view.

        All numbers are in the level's pixels.
        """

    def close(self) -> object:
        """Releases the file and its pixels."""


def opened(path: Path) -> OpenedFile:
    """The file, opened by the reader of its format; nothing is decoded.

    Raises:
        InputError: as `slides.open_slide`.
    """
    state = _state(path)
    file = _opened(path)
    if state is not None:
        if len(_HEADERS) >= _MOST_HEADERS:
            _HEADERS.clear()
        _HEADERS[path, *state] = file.levels[0], file.mpp
    return file


def _opened(path: Path) -> OpenedFile:
    if zarr_images.is_zarr(path):
        return zarr_images.ZarrImage(path)
    tags = tiffs.first_tags(path)
    slide = scanner_files.opened(path, tags)
    if slide is not None:
        return slide
    return plain_images.PlainImage(path) if tags is None else tiffs.Tiff(path)


def header(path: Path) -> Header:
    """What a file states of itself; it is not opened again if it has not changed since it was.

    Raises:
        InputError: as `slides.open_slide`, except for damage that only decoding shows.
    """
    state = _state(path)
    if state is not None and (path, *state) in _HEADERS:
        return _HEADERS[path, *state]
    with reading(f"image {str(path)!r}"), contextlib.closing(opened(path)) as file:
        return file.levels[0], file.mpp


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file; None for a folder, whose content changes without it."""
    try:
        state = path.stat()
    except OSError:  # opening it says what is wrong
        return None
    return (state.st_ino, state.st_size, state.st_mtime_ns) if path.is_file() else None


def agreed_mpp(path: Path, stated: tuple[float, float] | None) -> float | None:
    """One scale for x and y.

    Raises:
        InputError: they differ by more than 5 %.
    """
    if stated is None:
        return None
    x, y = stated
    if abs(x - y) > 0.05 * max(x, y):
        raise InputError(
            f"slide {str(path)!r} states {x:g} microns per pixel along x and {y:g} along y; give "
            "the scale with `mpp`"
        )
    return (x + y) / 2

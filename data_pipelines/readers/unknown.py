"""What to tell somebody whose folder or file has no layout that is known here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import (
    folder_content,
    images,
    run_files,
    section_table,
)
from histospace_tf.vocabulary import InputError, named

# Folders within data that are passed by mistake: one level too deep.
_PART = re.compile(
    r".*spatial|.*_feature_bc_matrix|.*segmented_outputs|analysis|analysis_csv|outs|st-cnts"
    r"|st-spotfiles|st-imgs|st-pat|st|wsis|metadata|patches",
    re.IGNORECASE,
)
_ABOVE, _BELOW = 3, 3
_MOST_FOLDERS = 1000

LayoutOf = Callable[[Path], str | None]


def message(path: Path, layout_of: LayoutOf, looked_for: str) -> str:
    """What a path without a known layout is or holds, and what to pass instead.

    Args:
        path: a folder or file that exists.
        layout_of: says the layout of a path, None for none.
        looked_for: what layouts are recognised by, where nothing better can be said.
    """
    if path.is_file():
        return f"{str(path)!r} is a file; {_of_file(path, layout_of)}"
    inside = below(path, layout_of)
    if inside:
        hint = f"{str(inside[0])!r} has one: pass that"
        if len(inside) > 1:
            hint += f", or list all {len(inside)} in a {section_table.FILE} (section, path, image)"
        return f"folder {str(path)!r} has no layout that is known here; {hint}"
    above = above_of(path, layout_of)
    if above is not None:
        return (
            f"folder {str(path)!r} has no layout that is known here; the folder that holds it has "
            f"one: pass {str(above)!r}"
        )
    data = folder_content.what_lies_in(path)
    if data:
        said = " ".join(f"{p.message[0].upper()}{p.message[1:]} {p.mend}" for p in data)
        return f"folder {str(path)!r} has no layout that is known here. {said.rstrip('.')}"
    try:
        n_images = len(images.list_images(path))
    except InputError:
        n_images = 0
    if n_images:
        return (
            f"folder {str(path)!r} holds {n_images} image(s), and neither spots nor counts: there "
            "is nothing to learn expression from. --pretrain takes such a folder"
        )
    entries = [entry.name for entry in run_files.listed(path)]
    hint = f"it holds {named(entries, 3)}" if entries else "it is empty"
    return f"folder {str(path)!r} has no layout that is known here: {looked_for}; {hint}"


def above_of(path: Path, layout_of: LayoutOf) -> Path | None:
    """The data that a folder or file is a part of: the nearest of the folders above it."""
    path = path.absolute()
    if path.is_dir() and not _PART.fullmatch(path.name):
        return None
    return next((folder for folder in path.parents[:_ABOVE] if _is_whole(folder, layout_of)), None)


def _is_whole(folder: Path, layout_of: LayoutOf) -> bool:
    return layout_of(folder) not in (None, "runs")


def below(path: Path, layout_of: LayoutOf) -> list[Path]:
    """The nearest folders and files below with a layout, all of one depth."""
    level, looked_at = [path], 0
    for _ in range(_BELOW):
        level = [
            inside for folder in level if folder.is_dir() for inside in run_files.listed(folder)
        ]
        looked_at += len(level)
        if looked_at > _MOST_FOLDERS:
            return []
        known = [inside for inside in level if layout_of(inside)]
        if known:
            return known
    return []


def _of_file(path: Path, layout_of: LayoutOf) -> str:
    above = above_of(path, layout_of)
    if above is not None:
        return f"it is a part of {str(above)!r}: pass that folder"
    data = folder_content.what_lies_in(path)
    if data:
        return f"{data[0].message} {data[0].mend}".rstrip(".")
    if path.suffix.lower() in slides.SUFFIXES:
        return (
            "it is an image, without spots and counts: the folder that holds them as well is "
            "needed (--image names an image)"
        )
    return "the folder that holds the sections is needed, or a .h5ad"

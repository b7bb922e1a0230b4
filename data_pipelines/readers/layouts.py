"""Recognises the layout of data by their content, and advises on data without a known layout.

A layout is a module of `readers` with

    LOOKS_FOR                what it is recognised by, for messages
    recognises(path)         whether a folder or file has it
    find_sections(path)      -> (one Source per section, problems)
    CITATION                 where it is the layout of one data set
    ABSENT_IS_ZERO           True where its tables leave out genes without counts
    MAY_LACK_PATIENTS        True where its files need not name a section's patient
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import (
    folder_content,
    h5ad,
    her2st,
    hest,
    images,
    run_files,
    run_folder,
    section_table,
    spatialdata_zarr,
    stnet,
    visium,
    visium_hd,
)
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError, named

# Layouts by name; the first that recognises a path is taken.
LAYOUTS: dict[str, ModuleType] = {
    "table": section_table,
    "her2st": her2st,
    "stnet": stnet,
    "hest": hest,
    "visium_hd": visium_hd,
    "visium": visium,
    "spatialdata": spatialdata_zarr,
    "h5ad": h5ad,
    "runs": run_folder,
}
# Folders within data that users pass by mistake: one level too deep.
_PART = re.compile(
    r".*spatial|.*_feature_bc_matrix|.*segmented_outputs|analysis|analysis_csv|outs|st-cnts"
    r"|st-spotfiles|st-imgs|st-pat|st|wsis|metadata|patches",
    re.IGNORECASE,
)
_ABOVE, _BELOW = 3, 3
_MOST_FOLDERS = 1000


def layout_of(path: Path) -> str | None:
    """Name of the layout of a folder or file, one of LAYOUTS; None where it has none."""
    with reading(repr(str(path))):
        return next((name for name, module in LAYOUTS.items() if module.recognises(path)), None)


def layouts_below(path: Path) -> list[Path]:
    """The folder itself where it has a layout, else the nearest folders and files below."""
    return [path] if layout_of(path) else _below(path)


def citation(layout: str) -> str | None:
    """The citation of the data set that a layout is of; None for a general layout."""
    return getattr(LAYOUTS.get(layout), "CITATION", None)


def chosen_layout(path: Path, layout: str | None) -> str:
    """The layout to read a path by: `layout`, or the recognised one where that is None.

    Raises:
        InputError: no such path or layout, or the path has another layout or none.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}; one of {', '.join(LAYOUTS)} works")
    if not path.exists():
        raise InputError(f"data folder {str(path)!r} does not exist")
    recognised = layout_of(path)
    if layout is None and recognised is not None:
        return recognised
    if layout is not None and LAYOUTS[layout].recognises(path):
        return layout
    if layout is None:
        known_layouts = "; or ".join(f"{m.LOOKS_FOR} ({name})" for name, m in LAYOUTS.items())
        raise InputError(_advice(path, known_layouts))
    message = (
        f"{str(path)!r} does not have the layout {layout!r}: {LAYOUTS[layout].LOOKS_FOR} is looked "
        "for"
    )
    if recognised is not None:
        raise InputError(f"{message}. It looks like {recognised!r}: leave `layout` out")
    raise InputError(f"{message}; {_advice(path, 'no other fits either')}")


def _advice(path: Path, known_layouts: str) -> str:
    """What a path without a known layout holds, and what to pass instead.

    Args:
        path: a folder or file that exists.
        known_layouts: what layouts are recognised by, for data that hold nothing known.
    """
    if path.is_file():
        return f"{str(path)!r} is a file; {_of_file(path)}"
    inside = _below(path)
    if inside:
        hint = f"{str(inside[0])!r} has one: pass that"
        if len(inside) > 1:
            hint += f", or list all {len(inside)} in a {section_table.FILE} (section, path, image)"
        return f"folder {str(path)!r} has no layout that is known here; {hint}"
    above = _above(path)
    if above is not None:
        return (
            f"folder {str(path)!r} has no layout that is known here; the folder that holds it has "
            f"one: pass {str(above)!r}"
        )
    data = folder_content.what_lies_in(path)
    if data:
        sentences = " ".join(f"{p.message[0].upper()}{p.message[1:]} {p.advice}" for p in data)
        return f"folder {str(path)!r} has no layout that is known here. {sentences.rstrip('.')}"
    try:
        n_images = len(images.list_images(path))
    except InputError:
        n_images = 0
    if n_images:
        return (
            f"folder {str(path)!r} holds {n_images} image(s), and neither spots nor counts: there "
            "is nothing to learn expression from. `pretrain` takes such a folder"
        )
    entries = [entry.name for entry in run_files.listed(path)]
    hint = f"it holds {named(entries, 3)}" if entries else "it is empty"
    return f"folder {str(path)!r} has no layout that is known here: {known_layouts}; {hint}"


def _of_file(path: Path) -> str:
    above = _above(path)
    if above is not None:
        return f"it is a part of {str(above)!r}: pass that folder"
    data = folder_content.what_lies_in(path)
    if data:
        return f"{data[0].message} {data[0].advice}".rstrip(".")
    if path.suffix.lower() in slides.SUFFIXES:
        return (
            "it is an image, without spots and counts: the folder that holds them as well is "
            "needed (`image` names an image)"
        )
    return "the folder that holds the sections is needed, or a .h5ad"


def _above(path: Path) -> Path | None:
    """The nearest folder above a folder or file that is data which it is a part of."""
    path = path.absolute()
    if path.is_dir() and not _PART.fullmatch(path.name):
        return None
    return next((folder for folder in path.parents[:_ABOVE] if _is_whole(folder)), None)


def _is_whole(folder: Path) -> bool:
    return layout_of(folder) not in (None, "runs")


def _below(path: Path) -> list[Path]:
    """The nearest folders and files below with a layout, all at the same depth."""
    level, n_entries = [path], 0
    for _ in range(_BELOW):
        level = [
            inside for folder in level if folder.is_dir() for inside in run_files.listed(folder)
        ]
        n_entries += len(level)
        if n_entries > _MOST_FOLDERS:
            return []
        known = [inside for inside in level if layout_of(inside)]
        if known:
            return known
    return []

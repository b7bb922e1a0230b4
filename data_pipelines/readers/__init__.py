"""Paired data from files: one module a layout, all of them giving Sections.

`read_cohort` recognises a folder's layout by what is in it, or takes its name from LAYOUTS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from histospace_tf.data_pipelines.readers import her2st, legacy_st, stnet
from histospace_tf.data_pipelines.readers.images import ImageFile, list_images
from histospace_tf.vocabulary import Cohort, InputError, Problem, named

__all__ = ["LAYOUTS", "ImageFile", "Progress", "layout_of", "list_images", "read_cohort"]

# A module offers LOOKS_FOR (what its layout is recognised by, for messages), recognises(folder)
# and find_sections(folder) -> (files of each section, problems).
LAYOUTS: dict[str, ModuleType] = {"her2st": her2st, "stnet": stnet}

Progress = Callable[[int, int, str], object]  # sections done, sections in all, the next one's name


def layout_of(path: Path) -> str | None:
    """Name of the layout that a folder's content has; None if it is none of LAYOUTS."""
    return next((name for name, module in LAYOUTS.items() if module.recognises(path)), None)


def read_cohort(
    path: str | Path,
    *,
    layout: str | None = None,
    strict: bool = True,
    progress: Progress | None = None,
) -> Cohort:
    """All sections in a folder.

    Spots without counts, spots whose counts are all zero, and files that lack their counterpart are
    skipped, and each is named in the cohort's problems. A section without an image is kept with
    image None.

    Args:
        path: the folder.
        layout: one of LAYOUTS; None: recognised by content.
        strict: raise at the first error; otherwise every error becomes a problem, and the sections
            that are unusable are left out (perhaps all of them).
        progress: called before each section with (done, all, name), and once at the end.
    Raises:
        InputError: no such folder or layout, no section in it; with `strict`, the first error of
            a section (counts that are not numbers or negative or all zero, duplicate genes or
            spots, spots off the image, swapped axes, a damaged image, ...).
    """
    path = Path(path)
    layout = _chosen_layout(path, layout)
    files, problems = LAYOUTS[layout].find_sections(path)
    _raise_first_error(problems, strict)
    if not files and not any(problem.severity == "error" for problem in problems):
        found = f" ({problems[0]})" if problems else ""
        raise InputError(
            f"folder {str(path)!r} has the layout {layout!r} but holds no section with both counts "
            f"and spots{found}"
        )
    sections = []
    for done, section_files in enumerate(files):
        if progress is not None:
            progress(done, len(files), section_files.name)
        section, found_problems = legacy_st.read_section(section_files)
        _raise_first_error(found_problems, strict)
        problems = [*problems, *found_problems]
        if section is not None:
            sections.append(section)
    if progress is not None:
        progress(len(files), len(files), "")
    return Cohort(path, layout, tuple(sections), tuple(problems))


def _chosen_layout(path: Path, layout: str | None) -> str:
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}; one of {', '.join(LAYOUTS)} works")
    if not path.exists():
        raise InputError(f"data folder {str(path)!r} does not exist")
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is a file; the folder that holds the sections is needed")
    recognised = layout_of(path)
    if layout is not None:
        if not LAYOUTS[layout].recognises(path):
            raise InputError(
                f"folder {str(path)!r} does not have the layout {layout!r}: "
                f"{LAYOUTS[layout].LOOKS_FOR} is looked for"
                + (f". It looks like {recognised!r}" if recognised else "")
            )
        return layout
    if recognised is not None:
        return recognised
    inside = [p for p in sorted(path.iterdir()) if p.is_dir() and layout_of(p)]
    if inside:
        hint = f"; {str(inside[0])!r} has one: pass that"
    else:
        entries = [p.name for p in sorted(path.iterdir())]
        hint = f"; it holds {named(entries, 3)}" if entries else "; it is empty"
    looked_for = "; or ".join(f"{m.LOOKS_FOR} ({name})" for name, m in LAYOUTS.items())
    raise InputError(f"folder {str(path)!r} has no layout that is known here: {looked_for}{hint}")


def _raise_first_error(problems: list[Problem], strict: bool) -> None:
    for problem in problems:
        if strict and problem.severity == "error":
            raise InputError(str(problem))

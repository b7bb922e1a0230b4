"""H&E images in folders: those without expression, and those that have a section's name."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.slides import tiffs
from histospace_tf.vocabulary import InputError, Problem, named

_COPY = ".ome"  # NAME.ome.tif is named NAME, too


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One image and where it comes from.

    source: what a split must keep together: the patient where the name tells (files named "NN_k",
        as in Naylor et al.'s triple-negative set, are from patient NN), else the image itself. It
        includes the folder, so that two collections never share one by chance.
    """

    path: Path
    source: str


def list_images(path: str | Path) -> tuple[ImageFile, ...]:
    """The images in a folder and all folders below it, or the one image that `path` is.

    In a folder a file counts by its suffix (one of slides.SUFFIXES, in any case); hidden files and
    folders, and all other files, are passed over. One file may have any name. Whether an image can
    be read shows when it is opened.

    Returns:
        At least one, sorted by path.
    Raises:
        InputError: no such file or folder, or no image in it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"image folder {str(path)!r} does not exist")
    if path.is_file():
        if path.suffix.lower() not in slides.SUFFIXES and not _begins_as_image(path):
            raise InputError(f"{str(path)!r} is no image file: {', '.join(slides.SUFFIXES)} work")
        return (ImageFile(path, path.stem),)
    inside = [
        file
        for file in sorted(path.rglob("*"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    images = [
        file
        for file in inside
        if file.suffix.lower() in slides.SUFFIXES and (file.is_file() or not file.exists())
    ]  # a link to nowhere is told when it is opened
    if not images:
        others = [str(file.relative_to(path)) for file in inside if file.is_file()]
        found = f"it holds {named(others, 3)}" if others else "it is empty"
        raise InputError(
            f"folder {str(path)!r} holds no image ({', '.join(slides.SUFFIXES)} work); {found}"
        )
    return tuple(ImageFile(file, _source(file, path)) for file in images)


def _begins_as_image(path: Path) -> bool:
    """Whether a file without an image's suffix begins as a JPEG, PNG or TIFF."""
    try:
        with path.open("rb") as file:
            first = file.read(8)
    except OSError:
        return False
    return first.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or tiffs.is_tiff(path)


def image_named(folder: Path, section: str) -> tuple[Path | None, list[Problem]]:
    """The image in a folder that has a section's name, and an error where several have it.

    The suffix is an image's, or .ome and one. Capitals in the name count only where an image has
    the very same ones.
    """
    if not folder.is_dir():
        return None, []
    ends = {f"{middle}{suffix}" for middle in ("", _COPY) for suffix in slides.SUFFIXES}
    alike = [
        file
        for file in sorted(folder.iterdir())
        if file.name.lower().startswith(section.lower())
        and file.name[len(section) :].lower() in ends
        and file.is_file()
    ]
    found = [file for file in alike if file.name.startswith(section)] or alike
    if len(found) < 2:
        return (found[0] if found else None), []
    problem = Problem(
        "error",
        f"section {section}",
        f"{len(found)} images have its name: {named([file.name for file in found])}.",
        "Leave the full-resolution H&E alone there, or name it with --image or in the table "
        "sections.csv.",
    )
    return None, [problem]


def _source(file: Path, top: Path) -> str:
    patient = re.fullmatch(r"(\d+)_\d+", file.stem)
    own = patient.group(1) if patient else file.stem
    return "/".join((*file.relative_to(top).parent.parts, own))

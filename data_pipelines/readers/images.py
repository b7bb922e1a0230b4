"""H&E images in folders: those without expression, and those that belong to a section or a run.

Beside a run of Space Ranger lie pictures that it wrote itself (previews, the CytAssist instrument's
picture, drawings of its alignment); none of them is the full-resolution image that it was run on.
Data sets of 10x Genomics call the microscope's image NAME_tissue_image.tif and the instrument's
NAME_image.tif.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import run_files
from histospace_tf.data_pipelines.slides import tiffs
from histospace_tf.vocabulary import InputError, Problem, named

_COPY = ".ome"  # NAME.ome.tif is named NAME, too
_OWN = re.compile(
    r"(?:.*[_. -])?(?:cytassist_image|cyta_?image|aligned_tissue_image|aligned_fiducials"
    r"|detected_tissue_image|tissue_hires_image|tissue_lowres_image)\.(?:png|jpe?g|tiff?)(?:\.gz)?",
    re.IGNORECASE,
)
_MICROSCOPE = re.compile(r"(?P<name>.*?)_?tissue_image", re.IGNORECASE)
_PREVIEW = re.compile(r".*tissue_(?:hires|lowres)_image.*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One image and its source.

    source: what a split must keep together: the patient where the name states it (files named
        "NN_k", as in Naylor et al.'s triple-negative set, are from patient NN), else the image
        itself. It includes the folder, so that two collections never share one by chance.
    """

    path: Path
    source: str


def list_images(path: str | Path) -> tuple[ImageFile, ...]:
    """Lists the images in a folder and all folders below it, or the one image that `path` is.

    In a folder, images are recognised by suffix (one of slides.SUFFIXES, in any case); hidden files
    and folders, and all other files, are ignored. A single file may have any name. Images are not
    opened here.

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
    ]  # a broken link is refused when it is opened
    if not images:
        others = [str(file.relative_to(path)) for file in inside if file.is_file()]
        content = f"it holds {named(others, 3)}" if others else "it is empty"
        raise InputError(
            f"folder {str(path)!r} holds no image ({', '.join(slides.SUFFIXES)} work); {content}"
        )
    return tuple(ImageFile(file, _source(file, path)) for file in images)


def image_name(path: Path) -> str:
    """A file's name without its suffix: "a" of a.svs and of a.ome.tif."""
    return path.name.removesuffix(path.suffix).removesuffix(_COPY)


def _begins_as_image(path: Path) -> bool:
    """Whether a file begins as a JPEG, PNG or TIFF, whatever its suffix."""
    try:
        with path.open("rb") as file:
            first = file.read(8)
    except OSError:
        return False
    return first.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or tiffs.is_tiff(path)


def image_named(folder: Path, section: str) -> tuple[Path | None, list[Problem]]:
    """Finds the image in a folder that has a section's name; an error where several have it.

    The suffix is one of an image, perhaps behind .ome. Case is ignored unless an image has exactly
    the section's name.
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
    matches = [file for file in alike if file.name.startswith(section)] or alike
    if len(matches) < 2:
        return (matches[0] if matches else None), []
    problem = Problem(
        "error",
        f"section {section}",
        f"{len(matches)} images have its name: {named([file.name for file in matches])}.",
        "Leave the full-resolution H&E alone there, or name it with `image` or in the table "
        "sections.csv.",
    )
    return None, [problem]


def _source(file: Path, top: Path) -> str:
    """`ImageFile.source` of a file below the folder `top`."""
    patient = re.fullmatch(r"(\d+)_\d+", file.stem)
    own = patient.group(1) if patient else file.stem
    return "/".join((*file.relative_to(top).parent.parts, own))


def image_beside(
    name: str, folders: Sequence[Path], shared: Sequence[Path], prefix: str
) -> tuple[Path | None, list[Problem]]:
    """Finds the one image of a run in folders (not below them); an error where there are several.

    Args:
        name: the section, for problems.
        folders: where it may have any name.
        shared, prefix: folders where its name must begin with the prefix.
    """
    files = [file for folder in folders for file in _files(folder)]
    files += [f for folder in shared for f in _files(folder) if _owner(_stem(f), [prefix])]
    where = f"section {name}"
    own = [file for file in files if _OWN.fullmatch(file.name)]
    packed = [file for file in files if _is_packed_image(file) and file not in own]
    images = [file for file in files if _is_image(file) and file not in own]
    chosen, problems = _of_microscope(where, images)
    drawn = [file.name for file in own if not _PREVIEW.fullmatch(file.name)]
    if drawn:
        problems.append(
            Problem(
                "note",
                where,
                f"{named(drawn, 4)} beside the run: Space Ranger's own pictures, not the image "
                "that it was run on: not used.",
            )
        )
    if len(chosen) > 1:
        problems.append(
            Problem(
                "error",
                where,
                f"{len(chosen)} images stand beside the run: "
                f"{named([file.name for file in chosen])}.",
                "Leave the full-resolution H&E alone there, or name it with `image`.",
            )
        )
        return None, problems
    if not chosen and packed:
        problems.append(_packed(where, packed[0]))
    return (chosen[0] if chosen else None), problems


def images_by_prefix(
    names: Sequence[str], folders: Sequence[Path], skipped: Sequence[str]
) -> tuple[dict[str, Path | None], list[Problem]]:
    """Finds the image of each of several runs in one folder, by the prefix of its name.

    Args:
        names: prefixes of the runs, each once.
        folders: where images may be; skipped: prefixes of runs that are not read.
    """
    files = [
        file
        for folder in folders
        for file in _files(folder)
        if (_is_image(file) or _is_packed_image(file)) and not _OWN.fullmatch(file.name)
    ]
    of_name: dict[str, list[Path]] = {name: [] for name in names}
    strays = []
    for file in files:
        owner = _owner(_stem(file), [*names, *skipped])
        if owner is None:
            strays.append(file.name)
        elif owner in of_name:
            of_name[owner].append(file)
    images: dict[str, Path | None] = {}
    problems: list[Problem] = []
    for name, candidates in of_name.items():
        where = f"section {name}"
        chosen, more = _of_microscope(where, [file for file in candidates if _is_image(file)])
        problems += more
        images[name] = chosen[0] if len(chosen) == 1 else None
        if len(chosen) > 1:
            problems.append(
                Problem(
                    "error",
                    where,
                    f"{len(chosen)} images have its prefix: {named([f.name for f in chosen])}.",
                    "Leave the full-resolution H&E alone there, or name it in sections.csv.",
                )
            )
        elif not chosen and candidates:
            problems.append(_packed(where, candidates[0]))
    if strays:
        problems.append(
            Problem(
                "warning",
                str(folders[0]),
                f"{len(strays)} image(s) have the prefix of no section ({named(strays, 3)}): not "
                "used.",
                f"Let their names begin as the sections' do ({named(list(names), 2)}).",
            )
        )
    return images, problems


def _owner(stem: str, names: Sequence[str]) -> str | None:
    """The longest prefix that an image's name begins with; else the one of the same GSM number."""
    whole = stem.lower()
    begins = [
        name
        for name in names
        if whole.startswith(name.lower()) and not whole[len(name) : len(name) + 1].isalnum()
    ]
    if begins:
        return max(begins, key=len)
    fitting = [name for name in names if run_files.same_sample(name, stem)]
    return fitting[0] if len(fitting) == 1 else None


def _of_microscope(where: str, images: list[Path]) -> tuple[list[Path], list[Problem]]:
    """Removes the CytAssist's picture, NAME_image.tif, where NAME_tissue_image.tif is present."""
    for image in images:
        match = _MICROSCOPE.fullmatch(_stem(image))
        if match is None:
            continue
        instrument = f"{match['name']}_image".lower().lstrip("_")
        others = [file for file in images if _stem(file).lower() == instrument]
        if others:
            note = Problem(
                "note",
                where,
                f"{image.name} is taken as the microscope's image, and {others[0].name} as the "
                "CytAssist's picture: not used.",
                "`image` names another.",
            )
            return [file for file in images if file not in others], [note]
    return images, []


def _packed(where: str, file: Path) -> Problem:
    return Problem(
        "error",
        where,
        f"its image {file.name} is gzipped: pixels are read piece by piece, which that rules out.",
        f"Unpack it (gunzip -k {file.name}).",
    )


def _stem(file: Path) -> str:
    """A file's name without its suffix, such as .tif, .ome.tif or .tif.gz."""
    return re.sub(r"(?:\.ome)?\.[^.]*(?:\.gz)?$", "", file.name, flags=re.IGNORECASE)


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in slides.SUFFIXES


def _is_packed_image(file: Path) -> bool:
    return file.suffix.lower() == ".gz" and Path(file.stem).suffix.lower() in slides.SUFFIXES

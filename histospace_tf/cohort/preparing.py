"""A section or an H&E image -> stains and raw tiles, the image opened once.

Tiles are kept as .npy files in a work folder and memory-mapped, so a cohort of any size fits, and a
resumed run does not cut them again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from histospace_tf import outputs
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, recolouring, slides, stain, tiles
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.slides.white_field import WhiteField
from histospace_tf.vocabulary import (
    InputError,
    Problem,
    Section,
    SpotTable,
    StainReference,
)

PUBLISHED_PX = (slides.ENTRY_PX, slides.VIEWER_PX)
_CUT_TILES = 64  # held in memory at once: 10 MB of 224 px tiles


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedSection:
    """One section, cut.

    spots: those whose tiles could be cut, in the order of `spot_tiles`.
    mpp: microns per pixel of the image; None if unknown.
    stains: the slide's own colours.
    white_field: that its tiles were lit evenly by; None: none was asked for.
    spot_tiles: (n, s, s, 3) uint8, raw, around the spots.
    slide_tiles: (m, s, s, 3) uint8, raw, tissue tiles spread over the slide: its statistics.
    pretrain_tiles: (k, t, t, 3) uint8, raw, tissue tiles that do not overlap, for the autoencoder.
    overviews: of its image, by longest side in pixels.
    """

    name: str
    patient: str
    spots: SpotTable
    mpp: float | None
    spot_pitch_px: float | None
    stains: StainReference
    white_field: WhiteField | None
    spot_tiles: np.ndarray
    slide_tiles: np.ndarray
    pretrain_tiles: np.ndarray
    overviews: Mapping[int, slides.Overview]
    problems: tuple[Problem, ...]


def random_subset(centres: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """At most `most` of the rows of `centres`, drawn with the seed, in their order."""
    if len(centres) <= most:
        return centres
    return centres[np.sort(np.random.default_rng(seed).choice(len(centres), most, replace=False))]


def light_evenly(slide: slides.SlideImage, config: Config) -> WhiteField | None:
    """Lights a slide's tiles evenly where the configuration says so; before anything is cut."""
    return slide.light_evenly() if config.stain.white_field else None


def one_white_point(field: WhiteField) -> str:
    """What is said of a slide whose field is off."""
    return f"stain.white_field is off here, one white point serves the slide: {field.why_off}."


def slide_stains(slide: slides.SlideImage, config: Config) -> StainReference:
    """A slide's own colours, from pixels sampled all over it."""
    pixels = slide.sample_pixels(config.stain.sample_pixels * 4, seed=config.seed)
    return stain.fit_stains(
        pixels,
        method=config.stain.method,
        cast=config.stain.cast,
        luminosity=config.stain.luminosity,
        seed=config.seed,
        sample=config.stain.sample_pixels,
    )


def prepare_section(
    section: Section, config: Config, folder: Path, *, pretrain_tiles: int
) -> PreparedSection:
    """Opens a section's image once and cuts everything that a run needs of it.

    Args:
        section: with an image.
        config: tile size, border policy, stain method, ...
        folder: work folder for the .npy files; what is there already is used.
        pretrain_tiles: how many tiles for the autoencoder at most; 0: none.
    Raises:
        InputError: the image cannot be read or be H&E, or holds no tissue.
    """
    if section.image is None:
        raise InputError(f"section {section.name!r} has no image")
    stem = outputs.file_name(section.name)
    mark = folder / f"{stem}.json"
    kinds = ("spots", "slide", "pretrain", *map(str, PUBLISHED_PX))
    names = {kind: folder / f"{stem}_{kind}.npy" for kind in kinds}
    problems = []
    if not all(file.is_file() for file in (mark, *names.values())):
        with slides.open_slide(section.image, mpp=section.mpp) as slide:
            # Notes and warnings were said when the section was read.
            of_picture = image_checks.slide_problems(f"section {section.name!r}", slide)
            image_checks.refuse_errors(of_picture)
            light_evenly(slide, config)
            _cut(slide, section, config, names, mark, pretrain_tiles)
    values = json.loads(mark.read_text(encoding="utf-8"))
    kept = np.asarray(values["kept"], bool)
    if not kept.all():
        lost = [name for name, k in zip(section.spots.names, kept, strict=True) if not k]
        problems.append(
            Problem(
                "note",
                f"section {section.name}",
                f"{len(lost)} of {len(kept)} spots (first: {lost[0]!r}) have tiles that reach over "
                'the image\'s edge and are left out (tiles.border "drop").',
            )
        )
    lit = values.get("white_field")  # absent: cut by a version that had none
    field = WhiteField.from_json(lit) if lit else None
    if field is not None and field.why_off:
        problems.append(Problem("note", f"section {section.name}", one_white_point(field)))
    return PreparedSection(
        name=section.name,
        patient=section.patient,
        spots=section.spots.subset(kept),
        mpp=values["mpp"],
        spot_pitch_px=section.spot_pitch_px,
        stains=StainReference.from_json(values["stains"]),
        white_field=field,
        spot_tiles=np.load(names["spots"], mmap_mode="r"),
        slide_tiles=np.load(names["slide"], mmap_mode="r"),
        pretrain_tiles=np.load(names["pretrain"], mmap_mode="r"),
        overviews={
            px: slides.Overview(np.load(names[str(px)], mmap_mode="r"), scale, values["mpp"])
            for px, scale in zip(PUBLISHED_PX, values["scales"], strict=True)
        },
        problems=tuple(problems),
    )


def kept_overview(prepared: Sequence[PreparedSection]) -> slides.OverviewOf:
    """Overviews that were kept when sections were cut, so that no image is opened again."""
    by_name = {section.name: section.overviews for section in prepared}

    def overview(section: Section, max_px: int) -> slides.Overview:
        return by_name[section.name][max_px]

    return overview


def further_tiles(
    section: Section, config: Config, folder: Path, *, tile_px: int, mpp: float | None
) -> np.ndarray:
    """Tiles around a section's spots of another size or scale than the run's, cut once.

    Args:
        section: whose spots' own tiles could be cut.
        config: its border policy; "drop" leaves no more spots out, and reflects here.
        folder: that keeps them.
        tile_px, mpp: side, and microns per pixel.
    Returns:
        (n, tile_px, tile_px, 3) uint8, raw, memory-mapped.
    """
    assert section.image is not None
    scale = "own" if mpp is None else f"{mpp:g}um"
    path = folder / f"{outputs.file_name(section.name)}_{tile_px}px_{scale}.npy"
    if not path.is_file():
        border = "reflect" if config.tiles.border == "drop" else config.tiles.border
        with slides.open_slide(section.image, mpp=section.mpp) as slide:
            light_evenly(slide, config)
            centres = section.spots.centres_px
            _write(tiles.LazyTiles(slide, centres, tile_px, mpp, border), path)
    return np.load(path, mmap_mode="r")


def _cut(
    slide: slides.SlideImage,
    section: Section,
    config: Config,
    names: dict[str, Path],
    mark: Path,
    pretrain_tiles: int,
) -> None:
    """Cuts a section's tiles into files; `mark` is written last."""
    side, mpp = config.tiles.tile_px, config.tiles.mpp
    spots, border = section.spots.centres_px, config.tiles.border
    kept = tiles.have_tiles(slide, spots, tile_px=side, mpp=mpp, border=border)
    if not kept.any():
        raise InputError(
            f"section {section.name!r}: no spot's tile of {side} px fits the image of "
            f'{slide.width_px} x {slide.height_px} px; tiles.border "reflect" or "white" works'
        )
    _write(tiles.LazyTiles(slide, spots[kept], side, mpp, border), names["spots"])
    grids = {"slide": (side, config.context.slide_tiles)}
    grids["pretrain"] = (config.autoencoder.tile_px, pretrain_tiles)
    for kind, (tile_px, most) in grids.items():
        centres = np.zeros((0, 2))
        if most and not (kind == "slide" and config.regressor.architecture != "context"):
            centres = tiles.grid_centres(
                slide, tile_px=tile_px, mpp=mpp, min_tissue=config.tiles.min_tissue
            )
            if not len(centres):
                raise InputError(
                    f"section {section.name!r}: no tissue found in {section.image}; is it an H&E "
                    f"image at full resolution? (tiles.min_tissue is {config.tiles.min_tissue})"
                )
        chosen = random_subset(centres, most, seed=config.seed)
        _write(tiles.LazyTiles(slide, chosen, tile_px, mpp, "reflect"), names[kind])
    scales = []
    for px in PUBLISHED_PX:
        picture, scale = slide.overview(px)
        outputs.write_npy(names[str(px)], picture.shape, np.uint8, [picture])
        scales.append(scale)
    values = {
        "scales": scales,
        "stains": slide_stains(slide, config).to_json(),
        "white_field": slide.white_field.to_json() if slide.white_field else None,
        "mpp": slide.mpp,
        "kept": kept.tolist(),
    }
    with outputs.whole_file(mark) as draft:
        draft.write_text(json.dumps(values), encoding="utf-8")


def _write(cut: tiles.LazyTiles, path: Path) -> None:
    """Cuts tiles into a file, _CUT_TILES at a time."""
    rows = np.arange(len(cut))
    parts = (cut[rows[start : start + _CUT_TILES]] for start in range(0, len(cut), _CUT_TILES))
    outputs.write_npy(path, cut.shape, np.uint8, parts)


def stained(
    tiles_of: datasets.Tiles, source: StainReference, reference: StainReference
) -> datasets.StainedTiles:
    """A slide's raw tiles with a colour table that takes them to the reference."""
    return datasets.StainedTiles(
        tiles_of, source, reference, recolouring.colour_table(source, reference)
    )

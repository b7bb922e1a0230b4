"""What may be asked of a trained model and of what it predicted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from histospace_tf.request_options import (
    OnePath,
    OptionalPath,
    OptionalRunOrName,
    Options,
    Paths,
    again,
    option,
    unchanged,
)
from histospace_tf.slide_prediction import GRID_STEP_UM, SLIDE_ENDINGS, OutputFiles

if TYPE_CHECKING:
    from histospace_tf.data_pipelines.readers.slide_lists import ListedSlide


def run_of_model(request: Any) -> Path:
    """The run folder that `model` of a request means.

    Raises:
        InputError: neither a folder nor a packaged model's name.
    """
    from histospace_tf import packaged

    return packaged.run_folder(request.model)


def _checksum(file: Path | None) -> str | None:
    from histospace_tf import provenance

    return provenance.file_checksum(file) if file is not None and file.is_file() else None


def _checksums(files: Sequence[Path]) -> list[str | None]:
    return [_checksum(file) for file in files]


def _packaged_default() -> str:
    from histospace_tf import packaged

    return f"{packaged.DEFAULT}, packaged"


class PredictRequest(OutputFiles):
    """Predict expression on a new H&E image or slide."""

    slide: OnePath = option(help="H&E image or whole-slide file.", flag="SLIDE", kw_only=False)
    model: OptionalRunOrName = option(
        default=None,
        help="Run folder of fit, or a packaged model's name.",
        unset=_packaged_default,
    )
    out: OptionalPath = option(default=None, help=".h5ad to write.", is_required=True)
    spots: OptionalPath = option(
        default=None,
        help="Table with columns pixel_x, pixel_y, or QuPath's centroids; Space Ranger's "
        "tissue_positions; or an .h5ad's spots.",
        unset="a grid",
        resumed=_checksum,
    )
    regions: OptionalPath = option(
        default=None,
        help="Predict within drawn regions alone, and write OUT.regions.csv: QuPath's GeoJSON, "
        "NDPA or ASAP's XML.",
        unset="the whole slide",
        resumed=_checksum,
    )
    tissue: OptionalPath = option(
        default=None,
        help="Outline of the tissue as QuPath's GeoJSON, such as `histospace-tf tissue` writes and "
        "a person corrects.",
        unset="found",
        resumed=_checksum,
    )
    mpp: float | None = option(
        default=None,
        help="Microns per pixel, where the image does not say.",
        unit="um/px",
        resumed=unchanged,
    )
    step_um: float | None = option(
        default=None,
        help="Distance of the grid's tiles in microns.",
        unset=f"{GRID_STEP_UM:g}",
        unit="um",
        resumed=unchanged,
    )
    gene_sets: Paths = option(
        default=(),
        help="GMT file of gene sets: a score per place and set, in obsm['gene_sets'].",
        metavar="FILE.gmt",
        resumed=_checksums,
    )
    intervals: float | None = option(
        default=None,
        help="Also write between which values a gene lies, in layers lower and upper: 0.5, 0.8, "
        "0.9 or 0.95 of a held-out spot's values.",
        unset="none",
    )
    _shared: ClassVar[None]
    fast: bool = option(
        default=False,
        help="No averaging over flips and rotations of a tile.",
        resumed=unchanged,
    )
    keep_marks: bool = option(
        default=False,
        help="Predict squares under ink of a pen, and out of focus, too.",
        resumed=unchanged,
    )
    server: str | None = option(
        default=None,
        help="HOST:PORT[/NAME[/versions/N]] of TF Serving with the model.",
        unset="none",
        resumed=lambda server: server is not None,
    )
    resume: bool = option(default=False, help="Go on from an interrupted prediction.")
    force: bool = option(default=False, help="Replace finished and interrupted outputs.")

    run = functools.cached_property(run_of_model)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that a prediction is made of, the model aside."""
        files = self.slide, self.spots, self.regions, self.tissue
        return tuple(file for file in files if file is not None)


class PredictSlidesRequest(OutputFiles):
    """Predict expression on many slides; every file option names a folder of files by slide."""

    slides: Paths = option(
        help="H&E images or whole-slide files, folders of them, quoted patterns, or tables with a "
        "column slide (and mpp, patient, spots, regions, tissue).",
        flag="SLIDES",
        kw_only=False,
    )
    model: OptionalRunOrName = again(PredictRequest, "model")
    out: OptionalPath = option(
        default=None, help=".h5ad to write; of many slides, a folder.", is_required=True
    )
    spots: OptionalPath = again(PredictRequest, "spots")
    regions: OptionalPath = again(PredictRequest, "regions")
    tissue: OptionalPath = again(PredictRequest, "tissue")
    mpp: float | None = again(PredictRequest, "mpp")
    step_um: float | None = again(PredictRequest, "step_um")
    gene_sets: Paths = again(PredictRequest, "gene_sets")
    intervals: float | None = again(PredictRequest, "intervals")
    _shared: ClassVar[None]
    fast: bool = again(PredictRequest, "fast")
    keep_marks: bool = again(PredictRequest, "keep_marks")
    server: str | None = again(PredictRequest, "server")
    jobs: int = option(default=1, help="Slides to predict at once, a process each.")
    resume: bool = option(
        default=False, help="Go on from an interrupted prediction; finished slides stay."
    )
    force: bool = again(PredictRequest, "force")

    run = functools.cached_property(run_of_model)

    def one(self, slide: ListedSlide) -> PredictRequest:
        """What is asked of one slide."""
        assert self.out is not None
        files = {
            name: folder / f"{slide.name}{SLIDE_ENDINGS[name]}"
            for name, folder in self.paths().items()
        }
        return PredictRequest(
            slide.path,
            model=str(self.run),
            out=self.out / f"{slide.name}.h5ad",
            spots=slide.spots or self.spots,
            regions=slide.regions or _of_slide(self.regions, slide.name),
            tissue=slide.tissue or _of_slide(self.tissue, slide.name),
            mpp=slide.mpp_or(self.mpp),
            step_um=None if slide.spots is not None else self.step_um,
            gene_sets=self.gene_sets,
            intervals=self.intervals,
            fast=self.fast,
            keep_marks=self.keep_marks,
            server=self.server,
            show=self.show,
            aggregate=self.aggregate,
            resume=self.resume,
            force=self.force,
            **files,
        )


def _of_slide(folder: Path | None, name: str) -> Path | None:
    """The file of a slide in a folder of files by slide; may be one that is not there."""
    if folder is None:
        return None
    from histospace_tf.data_pipelines.readers import region_files

    files = [folder / f"{name}{suffix}" for suffix in region_files.SUFFIXES]
    return next((file for file in files if file.is_file()), files[0])


def prediction_of(*places: Any, **given: Any) -> PredictRequest | PredictSlidesRequest:
    """What the command line asks for: one slide into one file, or slides into a folder.

    It is one file where one slide is named and `out` has a suffix, .h5ad.
    """
    from histospace_tf.data_pipelines.readers import slide_lists

    asked = PredictSlidesRequest(*places, **given)
    is_file = asked.out is None or (asked.out.suffix and not asked.out.is_dir())
    if len(asked.slides) != 1 or not is_file or not slide_lists.is_one_slide(asked.slides[0]):
        return asked
    same = {each.name: getattr(asked, each.name) for each in PredictRequest.listed()[1:]}
    return PredictRequest(asked.slides[0], **same)


class ConvertRequest(OutputFiles):
    """Write a finished prediction in other formats."""

    prediction: OnePath = option(help=".h5ad that predict wrote.", flag="PREDICTION", kw_only=False)
    gene_sets: Paths = option(
        default=(),
        help="GMT file of gene sets to score, in place of those that the prediction has.",
        metavar="FILE.gmt",
    )
    _shared: ClassVar[None]
    force: bool = option(default=False, help="Replace finished outputs.")


class ViewRequest(Options):
    """Write a page on which a finished prediction is looked at; of a folder, one per slide."""

    prediction: OnePath = option(
        help=".h5ad that predict wrote, or a folder of them.", flag="PREDICTION", kw_only=False
    )
    out: OptionalPath = option(
        default=None,
        help=".html to write; of a folder, a folder for pages.",
        unset="beside the prediction, under its name",
    )
    open_browser: bool = option(default=False, help="Open it in the browser.", flag="--open")
    force: bool = again(ConvertRequest, "force")


class FeaturesRequest(Options):
    """Write our encoder's features of slides' tissue tiles, in TRIDENT's form."""

    slides: OnePath = option(
        help="H&E image, whole-slide file, or folder of them.", flag="SLIDES", kw_only=False
    )
    out: OnePath = option(help="Folder to write, one .h5 per slide.", is_required=True)
    model: OptionalRunOrName = again(PredictRequest, "model")
    mpp: float | None = option(
        default=None,
        help="Microns per pixel, where the images do not say.",
        unit="um/px",
        resumed=unchanged,
    )
    step_um: float | None = option(
        default=None,
        help="Distance of the grid's tiles in microns.",
        unset="one tile, so that tiles touch",
        unit="um",
        resumed=unchanged,
    )
    resume: bool = option(
        default=False, help="Go on from an interrupted run; finished slides stay."
    )
    force: bool = option(default=False, help="Replace a finished or interrupted folder.")

    run = functools.cached_property(run_of_model)

"""An H&E image and a run -> predicted expression as AnnData.

Expression is predicted for the tiles of a tissue grid, or around given spots. Slide context comes
from the slide's own tissue tiles and from neighbours within a distance in microns, so given spots
and a grid agree. While a slide is worked on, finished tiles lie in OUT.partial beside the output;
`resume` goes on from there after an interrupt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata
import pandas as pd

import histospace_tf
from histospace_tf import (
    bundle,
    bundle_file,
    distribution,
    inherited_scores,
    network_model,
    outputs,
    packaged,
    provenance,
    runs,
)
from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import regions, slides
from histospace_tf.data_pipelines.genes import matching
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.spots import scale
from histospace_tf.network_model import NetworkModel
from histospace_tf.outputs import say
from histospace_tf.requests import PredictRequest, refusals
from histospace_tf.scores import gene_table
from histospace_tf.slide_level import model_file, slide_model
from histospace_tf.slide_level import prediction as slide_level_prediction
from histospace_tf.slide_level.slide_model import SlideModel
from histospace_tf.slide_prediction import (
    OF_SLIDES,
    aggregation,
    interval_layers,
    one_slide,
    serving_client,
    set_scores,
    spot_tables,
    summaries,
    written_files,
)
from histospace_tf.slide_prediction.places import Where
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError, printable


@dataclasses.dataclass(frozen=True, eq=False)
class PredictResult:
    """What was predicted and written: `out`, and beside it the files of `written_files`."""

    table: anndata.AnnData
    out: Path
    written: tuple[Path, ...]

    def summary(self) -> str:
        """What was written and what to do with it, as text."""
        about = self.table.uns["histospace_tf"]
        if about.get("slide_level_alone"):
            return "\n".join(
                [
                    f"The slide as a whole, {self.table.n_vars} genes, in {about['unit']}: "
                    f"{about['architecture']} says nothing of places on it.",
                    summaries.trust(self.table),
                    f"  {self.out}",
                    *(f"  {path}" for path in self.written),
                ]
            )
        pages = [path for path in self.written if path.suffix == ".html"]
        lines = [
            f"{self.table.n_obs} places x {self.table.n_vars} genes, "
            f"in {self.table.var['unit'].iloc[0]}",
            *([OF_SLIDES] if "trained_on_slides" in about else []),
            *summaries.lines(self.table),
            f"  {self.out}",
            *(f"  {path}" for path in self.written),
            "",
            f"Next: open {pages[0]} in a browser"
            if pages
            else f"Next: histospace-tf view {shlex.quote(str(self.out))} --open",
        ]
        return "\n".join(lines)


def predict(
    request: PredictRequest, model: Bundle | NetworkModel | SlideModel | None = None
) -> PredictResult:
    """Predicts expression on a new image.

    Args:
        request: of one slide.
        model: its run's, as `opened` gives it, where several slides share it.
    Returns:
        `one_slide.predict_slide`'s table as written; without `out` it is not. Where the run has a
        genes.csv, var holds how well each gene was predicted on its held-out spots: trust ("yes",
        "weak", "no"; "unknown" for a gene without) and gene_r (NaN without). With `aggregate`,
        uns["pseudo_bulk"] is the table of `slide_prediction.aggregation`; with `gene_sets`, obsm
        and uns have what `slide_prediction.set_scores` says.
    Raises:
        InputError: an unreadable image, an unknown scale, no tissue, an unknown gene, an
            interrupted prediction of another slide or model, ...
    """
    if request.out is None:
        with tempfile.TemporaryDirectory(prefix="histospace_tf_") as scratch:
            out = Path(scratch) / "prediction.h5ad"
            return predict(dataclasses.replace(request, out=out), model)
    refusals.refuse(request)
    slide, run, out, spots = request.slide, request.run, request.out, request.spots
    mpp, fast, server = request.mpp, request.fast, request.server
    resume, force = request.resume, request.force
    is_alone = model is None
    model = model or opened(run)
    sets = set_scores.on_panel(request.gene_sets, model.panel.genes, ids=model.panel.id_of)
    if sets is not None and is_alone:
        for note in sets.notes:
            say(note)
    trust, evidence = _trust(run, model.panel.genes)
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(slides.open_slide(slide, mpp=mpp))
        size = image.width_px, image.height_px
        doubts: list[str] = []
        if request.tissue is not None:
            tissue = regions.read_tissue(request.tissue, slide, size)
            image.outline = regions.joined(tissue.regions)
            doubts += tissue.problems
        doubts += _doubts(slide, image, spots)
        where = Where(spots=spots, step_um=request.step_um, keep_marks=request.keep_marks)
        if request.regions is not None:
            drawn = regions.read(request.regions, slide, size)
            where = dataclasses.replace(where, regions=drawn.regions)
            doubts += drawn.problems
        for doubt in doubts:
            say(f"Warning: {doubt}")
        if server is not None and isinstance(model, Bundle):
            model = stack.enter_context(serving_client.connected(server, model))
        # By the words that an error uses for what has changed.
        started = {
            "slide": provenance.identity(slide),
            "model": checksums(run),
            "version of histospace-tf": histospace_tf.__version__,
            **request.resumed(by_flag=True),
        }
        with _scratch(out, started, resume=resume, force=force) as work:
            if not isinstance(model, SlideModel):
                table = one_slide.predict_slide(image, model, where=where, fast=fast, work=work)
            else:
                seed = model.encoder.config.seed
                session = Session(distribution.strategy("single"), seed, resume, work)
                table = slide_level_prediction.predict_slide(
                    image, model, session, where=where, work=work
                )
            table.uns["histospace_tf"]["model"] = packaged.name_of(run)
            about = table.uns["histospace_tf"]
            about["keep_marks"] = request.keep_marks
            about["tissue"] = "found" if request.tissue is None else printable(str(request.tissue))
            about["warnings"] = printable("\n".join(filter(None, [*doubts, about["warnings"]])))
            table.uns["histospace_tf"]["network"] = "Keras" if server is None else "TF Serving"
            symbols = matching.symbols([str(name) for name in table.var_names])
            table.var["symbol"] = [symbol or "" for symbol in symbols]
            if trust is not None:
                for column in trust:
                    table.var[column] = trust[column].to_numpy()
                about["trust_from"] = printable(evidence.words)
                about["trust_of_new_patients"] = evidence.new_patients
            if sets is not None:
                set_scores.add(table, sets, run=bundle_file.scored(run))
                about_sets = table.uns[set_scores.KEY]
                about_sets["trust"] = evidence.of_a_new_slide(about_sets["trust"])
            if request.intervals is not None:
                interval_layers.add(table, run, request.intervals)
            if request.aggregate and not isinstance(model, SlideModel):
                table.uns[aggregation.KEY] = aggregation.of_prediction(table)
            with outputs.whole_file(out) as draft:
                outputs.write_h5ad(table, draft)
    written = written_files.write_all(table, request, force=force, beside=out)
    return PredictResult(table, out, tuple(written))


def opened(run: Path) -> Bundle | NetworkModel | SlideModel:
    """A run's model, ready to predict: a network of whole sections or of slides as it is, any
    other as a bundle."""
    if model_file.is_there(run):
        return slide_model.load(run)
    network = bundle_file.read(run).network
    if network is not None and network.sees_sections:
        return network_model.load(run)
    return bundle.load(run)


def _doubts(slide: Path, image: slides.SlideImage, spots: Path | None) -> list[str]:
    """Why maps of this image may mean little, as `check` would say it.

    Raises:
        InputError: it cannot be H&E.
    """
    mpp = image.mpp
    problems = image_checks.refuse_errors(image_checks.slide_problems(f"image {slide}", image))
    for problem in problems:
        if problem.severity == "note":
            say(str(problem))
    doubts = [str(problem) for problem in problems if problem.severity == "warning"]
    if mpp is not None and mpp > image_checks.COARSE_MPP:
        doubts.append(
            f"image {slide}: at {mpp:g} microns per pixel a nucleus is under 4 px. Take the "
            "full-resolution file."
        )
    try:
        stated = image.stated_mpp
    except InputError:  # a scale that cannot be one; --mpp is there to replace it
        stated = None
    if stated is not None and mpp is not None and abs(stated / mpp - 1) > scale.AGREES_WITHIN:
        doubts.append(
            f"image {slide}: the file states {stated:.3g} microns per pixel, and {mpp:g} of `mpp` "
            "are taken."
        )
    of_array = spot_tables.array_mpp(spots) if spots is not None else None
    if of_array is not None and mpp is not None and abs(of_array / mpp - 1) > scale.AGREES_WITHIN:
        doubts.append(
            f"image {slide}: {mpp:g} microns per pixel are taken, and the array in {spots} tells "
            f"{of_array:.3g}. Do they belong together? `mpp` settles it."
        )
    return doubts


def checksums(run: Path) -> dict[str, str]:
    """SHA-256 of every file of a run's bundle."""
    folder = next(
        (run / name for name in ("bundle", model_file.FOLDER) if (run / name).is_dir()), run
    )
    return {path.name: provenance.file_checksum(path) for path in sorted(folder.glob("*.*"))}


@contextlib.contextmanager
def _scratch(out: Path, started: dict[str, Any], *, resume: bool, force: bool) -> Iterator[Path]:
    """Yields the folder of finished tiles; it goes when all is done, and stays for `resume` if not.

    A user's mistake that is found before any tile is done leaves no folder either.
    """
    work = outputs.partial(out)
    missing = [folder for folder in work.parents if not folder.exists()]
    runs.take_up(out, started, resume=resume, force=force)
    try:
        yield work
    except InputError as error:
        if any(work.glob("*.npy")):
            kept = "finished tiles are kept, `resume` goes on from them"
            raise InputError(f"{error} ({kept})") from None
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise
    shutil.rmtree(work, ignore_errors=True)


def _trust(
    run: Path, genes: Sequence[str]
) -> tuple[pd.DataFrame | None, inherited_scores.Evidence]:
    """The run's own genes.csv on `genes`, as of a new slide, and what it is from; None where it has
    none. `run` may be its bundle."""
    path = bundle_file.scored(run) / "genes.csv"
    if not path.is_file():
        return None, inherited_scores.Evidence()
    table, evidence = gene_table.trust_of(genes, path), inherited_scores.evidence(path.parent)
    table["trust"] = evidence.of_a_new_slide(table["trust"])
    return table, evidence

"""Many slides and a run -> a prediction of each, and a table of all.

    OUT/NAME.h5ad       as of `predicting.predict`, with whatever else is asked for beside it
    OUT/summary.csv     one row per slide: whether it was predicted, why not, where, and warnings
    OUT/cohort.h5ad     one row per slide: `slide_prediction.cohort_table`
    OUT/cohort.csv      its means, with slide and patient, for a spreadsheet or R
    OUT/regions.csv     one row per region of a slide, where there are any: `region_table`
    PAGES/index.html    with `page`: the slides of summary.csv, each with a link to its page
    OUT/cohort.json     what the predictions were made with, for `resume`

A slide that fails leaves the others unharmed. Every file appears whole or not at all, and
summary.csv grows with each slide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import anndata
import keras
import pandas as pd
from tqdm import tqdm

import histospace_tf
from histospace_tf import faults, outputs, predicting
from histospace_tf.outputs import say
from histospace_tf.requests import PredictRequest, PredictSlidesRequest, cohort_refusals, refusals
from histospace_tf.slide_prediction import (
    aggregation,
    cohort_table,
    page_index,
    region_table,
    set_scores,
    written_files,
)
from histospace_tf.slide_prediction.cohort_record import TABLE, Record
from histospace_tf.vocabulary import CheckError, InputError

DONE, KEPT, FAILED = "predicted", "predicted before", "failed"
_LISTED = 10  # failures that the summary names
_FORGOTTEN_EVERY = 16  # slides; letting go costs a part of a second
_DONE = itertools.count(1)  # slides that this process has worked on


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one slide: a row of summary.csv.

    state: DONE, KEPT or FAILED. why: of a failure. seconds: that it took.
    """

    name: str
    slide: str
    patient: str
    state: str
    why: str = ""
    output: str = ""
    places: int = 0
    seconds: float = 0.0
    warnings: str = ""

    @property
    def told(self) -> str:
        """Why it failed, with the slide's path."""
        return self.why if self.slide in self.why else f"{self.slide}: {self.why}"


@dataclasses.dataclass(frozen=True, eq=False)
class SlidesResult:
    """Predictions of many slides: the folder, what became of each, the table (None of none), and
    the list of the pages, where there are some."""

    out: Path
    outcomes: tuple[Outcome, ...]
    table: anndata.AnnData | None
    index: Path | None = None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The slides that have no prediction."""
        return tuple(one for one in self.outcomes if one.state == FAILED)

    def summary(self) -> str:
        """What was written, what failed and why, as text."""
        times = {s: sum(o.state == s for o in self.outcomes) for s in (DONE, KEPT, FAILED)}
        lines = [", ".join(f"{n} {state}" for state, n in times.items() if n) + f" in {self.out}"]
        lines += [f"  failed: {one.told}" for one in self.failed[:_LISTED]]
        if len(self.failed) > _LISTED:
            lines.append(f"  ... and {len(self.failed) - _LISTED} more: summary.csv")
        lines.append(f"  {self.out / 'summary.csv'}")
        lines += [f"  {self.index}: to open in a browser"] if self.index else []
        if self.table is not None:
            shape = f"{self.table.n_obs} slides x {self.table.n_vars} genes"
            lines += [f"  {self.out / TABLE}: {shape}", f"  {self.out / 'cohort.csv'}"]
            regions = self.out / "regions.csv"
            lines += [f"  {regions}"] if regions.is_file() else []
            lines += ["", cohort_table.WORTH]
        return "\n".join(lines)


def predict(request: PredictSlidesRequest) -> SlidesResult:
    """Predicts every slide, each into a file of its own, and writes the cohort's table.

    Raises:
        InputError: what concerns all slides, as `cohort_refusals.refuse`; predictions in the folder
            that were made with another model or other options. What concerns one slide is its
            outcome.
    """
    refusals.refuse(request)
    out = request.out
    assert out is not None
    listed = cohort_refusals.checked(request, refusals.refuse)
    started = {
        "model": predicting.checksums(request.run),
        "version of histospace-tf": histospace_tf.__version__,
        **request.resumed(by_flag=True),
    }
    record = Record.taken_up(out, started, resume=request.resume)
    if request.gene_sets:
        panel = cohort_refusals.model_of(request.run).panel
        sets = set_scores.on_panel(request.gene_sets, panel.genes, ids=panel.id_of)
        for note in sets.notes if sets else ():
            say(note)
    outcomes = {
        slide: Outcome(
            slide.name,
            str(slide.path),
            slide.patient,
            FAILED,
            faults.one_line(outputs.WORDING.get()(slide.why_not)),
        )
        for slide in listed
    }
    named = {slide.name: slide for slide in listed if not slide.why_not}
    asked = {}
    for name, slide in named.items():
        one = request.one(slide)
        if record.holds(_file(one), one.sources):
            _write_missing(one)
            outcomes[slide] = dataclasses.replace(outcomes[slide], **_finished(one, KEPT))
        else:  # what was made of another file is replaced
            is_begun = request.resume and outputs.partial(_file(one)).exists()
            asked[name] = dataclasses.replace(one, resume=is_begun, force=True)
    with tqdm(total=len(listed), unit="slide", desc="Slides", disable=len(asked) < 2) as bar:
        bar.update(len(listed) - len(asked))
        for name, found in _predicted(asked, request.jobs):
            found["why"] = outputs.WORDING.get()(found["why"])
            outcome = dataclasses.replace(outcomes[named[name]], **found)
            outcomes[named[name]] = outcome
            if outcome.state == FAILED:
                say(f"Failed: {outcome.told}")
            else:
                record.add(_file(asked[name]), asked[name].sources)
            _write_summary(out, outcomes.values())
            bar.update()
    _write_summary(out, outcomes.values())
    index = None
    if request.page is not None:
        rows = [dataclasses.asdict(outcome) for outcome in outcomes.values()]
        index = page_index.write(request.page, rows, predictions=out)
    table = _write_tables(out, outcomes.values())
    return SlidesResult(out, tuple(outcomes.values()), table, index)


def _file(one: PredictRequest) -> Path:
    assert one.out is not None
    return one.out


def _write_missing(one: PredictRequest) -> None:
    """Writes what an interrupt kept from being written beside a finished prediction."""
    files = list(one.paths().values())
    if one.aggregate:
        files.append(aggregation.bulk_file(_file(one)))
    if one.regions is not None:
        files.append(region_table.region_file(_file(one)))
    if not all(path.exists() for path in files):
        written_files.write_all(anndata.read_h5ad(_file(one)), one, force=True, beside=_file(one))


def _predicted(
    asked: Mapping[str, PredictRequest], jobs: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What became of each slide as it is done, by name: fields of `Outcome`."""
    if jobs == 1 or len(asked) < 2:
        yield from ((name, _outcome(one)) for name, one in asked.items())
        return
    left = dict(asked)
    with contextlib.suppress(BrokenProcessPool), _workers(min(jobs, len(asked))) as pool:
        running = {pool.submit(_outcome, one): name for name, one in asked.items()}
        for future in as_completed(running):
            name, found = running[future], future.result()
            del left[name]
            yield name, found
    for name, one in left.items():  # a process ended, as where memory ran out: each by itself now
        try:
            with _workers(1) as pool:
                found = pool.submit(_outcome, one).result()
        except BrokenProcessPool:
            why = "its process was ended from outside, as where memory ran out; fewer jobs may help"
            found = {"state": FAILED, "why": why}
        yield name, found


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that share the cores and show no bars of their own."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    own = {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)  # a new process reads them as it starts
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _outcome(one: PredictRequest) -> dict[str, Any]:
    """Predicts one slide: fields of `Outcome`. A full disk ends all, anything else this slide."""
    begun = time.monotonic()
    try:
        predicting.predict(one, _model(one.run))
    except (InputError, CheckError) as error:
        return {"state": FAILED, "why": faults.one_line(error)}
    except Exception as error:
        if faults.is_no_room(error):
            raise
        logging.getLogger(__name__).debug("%s", one.slide, exc_info=error)
        return {"state": FAILED, "why": faults.in_words(error)}
    finally:
        _forget_now_and_then()
    return {**_finished(one, DONE), "seconds": round(time.monotonic() - begun, 1)}


def _forget_now_and_then() -> None:
    """Lets go of what Keras and TensorFlow keep of slides that are done, some 60 MB each."""
    if next(_DONE) % _FORGOTTEN_EVERY == 0:
        keras.utils.clear_session()


@functools.lru_cache(maxsize=1)  # every slide has the same one
def _model(run: Path) -> Any:
    return predicting.opened(run)


def _finished(one: PredictRequest, state: str) -> dict[str, Any]:
    table = anndata.read_h5ad(_file(one), backed="r")
    about = table.uns["histospace_tf"]
    places = 0 if about.get("slide_level_alone") else table.n_obs
    table.file.close()
    return {
        "state": state,
        "why": "",
        "output": str(_file(one)),
        "places": places,
        "warnings": str(about.get("warnings", "")),
    }


def _write_summary(out: Path, outcomes: Iterable[Outcome]) -> None:
    with outputs.whole_file(out / "summary.csv") as draft:
        pd.DataFrame([dataclasses.asdict(one) for one in outcomes]).to_csv(draft, index=False)


def _write_tables(out: Path, outcomes: Iterable[Outcome]) -> anndata.AnnData | None:
    """Writes the cohort's table in both forms; None where nothing was predicted."""
    predicted = [
        cohort_table.Predicted(one.name, Path(one.output), one.slide, one.patient)
        for one in outcomes
        if one.state != FAILED
    ]
    if not predicted:
        return None
    table = cohort_table.of_predictions(predicted)
    with outputs.whole_file(out / TABLE) as draft:
        outputs.write_h5ad(table, draft)
    with outputs.whole_file(out / "cohort.csv") as draft:
        whole = pd.concat([table.obs, set_scores.with_sets(table).to_df()], axis=1)
        whole.rename_axis("name").to_csv(draft)
    of_regions = cohort_table.of_regions(predicted)
    if of_regions is None:
        (out / "regions.csv").unlink(missing_ok=True)  # of an earlier prediction
    else:
        with outputs.whole_file(out / "regions.csv") as draft:
            of_regions.to_csv(draft, index=False)
    return table

"""A finished prediction, or a folder of them -> pages to look at, in a browser where asked for."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from histospace_tf import outputs
from histospace_tf.faults import one_line, reading
from histospace_tf.outputs import say
from histospace_tf.requests import ViewRequest
from histospace_tf.slide_prediction import SLIDE_ENDINGS, OutputFiles, page_index, written_files
from histospace_tf.slide_prediction.cohort_record import TABLE
from histospace_tf.vocabulary import InputError

SUMMARY = "summary.csv"
_ROW: Mapping[str, Any] = {"patient": "", "places": 0, "why": "", "warnings": ""}


def view(request: ViewRequest) -> Path:
    """Writes the page of a prediction; one that is there and newer is opened as it is.

    Of a folder, writes the page of every prediction that has none, and the list of all.

    Returns:
        The page; of a folder, the list.
    Raises:
        InputError: a file that is no prediction, a finished page that is not to be opened or is
            older than the prediction, a page of another ending than .html; a folder without
            predictions.
    """
    if request.prediction.is_dir():
        page = _pages(request)
    else:
        page = _page(request)
    if request.open_browser and not webbrowser.open(page.resolve().as_uri()):
        say(f"No browser was found; open {page} in one.")
    return page


def _page(request: ViewRequest) -> Path:
    prediction, page = request.prediction, request.out or request.prediction.with_suffix(".html")
    if page.suffix != ".html":
        raise InputError(f"`out` {str(page)!r}: a name that ends in .html is needed")
    if request.open_browser and not request.force and _is_newer(page, prediction):
        say(f"{page} is there, and newer than the prediction; `force` writes it again.")
    else:
        written_files.convert(prediction, OutputFiles(page=page), force=request.force)
    return page


def _pages(request: ViewRequest) -> Path:
    """The pages of a folder, and their list; what hinders one leaves the others unharmed."""
    folder, pages = request.prediction, request.out or request.prediction
    if pages.suffix == ".html" or pages.is_file():
        raise InputError(f"`out` {str(pages)!r}: of many predictions a folder is needed")
    slides = _slides(folder)
    pages.mkdir(parents=True, exist_ok=True)
    for slide in slides:
        prediction = folder / f"{slide['name']}.h5ad"
        page = pages / f"{slide['name']}{SLIDE_ENDINGS['page']}"
        if slide["why"] or (not request.force and _is_newer(page, prediction)):
            continue
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
            written_files.convert(prediction, OutputFiles(page=page), force=request.force)
        except InputError as error:
            slide["why"], slide["state"] = one_line(outputs.WORDING.get()(str(error))), "failed"
            say(f"Failed: {slide['why']}")
    index = page_index.write(pages, slides, predictions=folder)
    if index is None:
        raise InputError(
            f"{str(pages / page_index.FILE)!r} is a slide's page; name another folder by `out`"
        )
    return index


def _slides(folder: Path) -> list[dict[str, Any]]:
    """Rows of a folder's summary.csv, then predictions that it does not list."""
    slides: list[dict[str, Any]] = []
    summary = folder / SUMMARY
    if summary.is_file():
        with reading(f"summary {str(summary)!r}"):
            table = pd.read_csv(summary, keep_default_na=False)
            lacking = {"name", "state", *_ROW} - set(table)
            if lacking:
                raise InputError(f"{str(summary)!r} lacks column {min(lacking)!r}")
            table["places"] = pd.to_numeric(table["places"], errors="coerce").fillna(0).astype(int)
            slides = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    listed = {str(slide["name"]) for slide in slides}
    files = sorted(folder.rglob("*.h5ad"))
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    slides += [
        {**_ROW, "name": name, "state": "predicted"}
        for name in names
        if name not in listed and name != Path(TABLE).stem
    ]
    if not any((folder / f"{slide['name']}.h5ad").is_file() for slide in slides):
        raise InputError(
            f"{str(folder)!r} holds no prediction; a folder that `predict SLIDES... --out` wrote "
            "works, and a prediction's .h5ad"
        )
    return slides


def _is_newer(page: Path, prediction: Path) -> bool:
    both = page.is_file() and prediction.is_file()
    return both and page.stat().st_mtime >= prediction.stat().st_mtime

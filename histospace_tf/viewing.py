"""A finished prediction -> a page to look at, opened in the browser where that is asked for."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from histospace_tf.outputs import say
from histospace_tf.requests import ViewRequest
from histospace_tf.slide_prediction import OutputFiles, written_files
from histospace_tf.vocabulary import InputError


def view(request: ViewRequest) -> Path:
    """Writes the page of a prediction; one that is there and newer is opened as it is.

    Returns:
        The page.
    Raises:
        InputError: a file that is no prediction, a finished page that is not to be opened or is
            older than the prediction, a page of another ending than .html.
    """
    prediction, page = request.prediction, request.out or request.prediction.with_suffix(".html")
    if page.suffix != ".html":
        raise InputError(f"`out` {str(page)!r}: a name that ends in .html is needed")
    if request.open_browser and not request.force and _is_newer(page, prediction):
        say(f"{page} is there, and newer than the prediction; `force` writes it again.")
    else:
        written_files.convert(prediction, OutputFiles(page=page), force=request.force)
    if request.open_browser and not webbrowser.open(page.resolve().as_uri()):
        say(f"No browser was found; open {page} in one.")
    return page


def _is_newer(page: Path, prediction: Path) -> bool:
    both = page.is_file() and prediction.is_file()
    return both and page.stat().st_mtime >= prediction.stat().st_mtime

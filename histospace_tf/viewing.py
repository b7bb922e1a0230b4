"""A finished prediction -> a page to look at, opened in the browser where that is asked for."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from histospace_tf.outputs import say
from histospace_tf.requests import ViewRequest
from histospace_tf.slide_prediction import OutputFiles, written_files


def view(request: ViewRequest) -> Path:
    """Writes the page of a prediction.

    Returns:
        The page.
    Raises:
        InputError: a file that is no prediction, a finished page.
    """
    page = request.out or request.prediction.with_suffix(".html")
    files = OutputFiles(page=page)
    written_files.convert(request.prediction, files, force=request.force)
    if request.open_browser and not webbrowser.open(page.resolve().as_uri()):
        say(f"No browser was found; open {page} in one.")
    return page

"""slide_model.json: all of a slide-level model but its weights, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from histospace_tf import bundle_file, presets
from histospace_tf.config import Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.faults import reading
from histospace_tf.slide_level import ARCHITECTURES
from histospace_tf.vocabulary import InputError, StainReference

FOLDER, FILE = "slide_model", "slide_model.json"
FORMAT = 1
_PARTS = ("architecture", "config", "panel", "reference", "trained_on")


@dataclasses.dataclass(frozen=True, eq=False)
class SlideModelFile:
    """What slide_model.json says, and its folder."""

    folder: Path
    architecture: str
    config: Config
    panel: GenePanel
    reference: StainReference
    trained_on: dict[str, Any]

    @property
    def mpp(self) -> float | None:
        """Microns per pixel that the model looks at; None: each image's own scale."""
        return self.config.tiles.mpp


def is_there(run: Path) -> bool:
    """Whether a run folder holds a slide-level model, or is one's own folder."""
    return _folder(run).joinpath(FILE).is_file()


def read(run: Path) -> SlideModelFile:
    """slide_model.json of a run folder, or of its folder slide_model.

    Raises:
        InputError: it cannot be read, was written in another form, or a part of it is missing.
    """
    folder = _folder(run)
    file = folder / FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is not readable: {error}") from None
    bundle_file.refuse_other_form(values, file, form=FORMAT, parts=_PARTS)
    if values["architecture"] not in ARCHITECTURES:
        raise InputError(f"{file}: no network {values['architecture']!r} is known here")
    with reading(f"model {str(file)!r}"):
        return SlideModelFile(
            folder=folder,
            architecture=values["architecture"],
            config=presets.from_json(values["config"], FILE),
            panel=GenePanel.from_json(values["panel"]),
            reference=StainReference.from_json(values["reference"]),
            trained_on=dict(values["trained_on"]),
        )


def _folder(run: Path) -> Path:
    return run if (run / FILE).is_file() else run / FOLDER

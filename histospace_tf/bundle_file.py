"""bundle.json: all of a bundle but its weights, read without TensorFlow (see `bundle`)."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import histospace_tf
from histospace_tf import presets
from histospace_tf.config import Architecture, Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError, StainReference

FORMAT = 3
_PARTS = ("config", "panel", "reference", "trained_on")
OWN_TILES = "the training sections' own tiles"  # of an autoencoder, as trained_on words it
# The architecture that is trained beside one that needs slide context.
SINGLE_TILE: dict[Architecture, Architecture] = {"context": "pooled"}


@dataclasses.dataclass(frozen=True, eq=False)
class BundleFile:
    """What bundle.json says.

    folder: the folder of bundle.json. The other fields are those of `bundle.Bundle`.
    """

    folder: Path
    config: Config
    panel: GenePanel
    reference: StainReference
    trained_on: dict[str, Any]


def read(run: Path) -> BundleFile:
    """bundle.json of a run folder, or of a bundle folder itself; read again only where it changed.

    Raises:
        InputError: there is none, it was written in another form, or a part of it is missing.
    """
    folder = run if (run / "bundle.json").is_file() else run / "bundle"
    file = folder / "bundle.json"
    try:
        state = file.stat()
        return _parsed(file, (state.st_ino, state.st_size, state.st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        if (run / "slide_model").is_dir():
            raise InputError(
                f"{str(run)!r} holds a network that learned from slides as a whole; `predict` "
                "takes it, and nothing else does"
            ) from None
        raise InputError(
            f"{str(run)!r} holds no model: bundle/bundle.json is missing; "
            "a folder that `histospace-tf fit --out RUN` wrote works"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is not readable: {error}") from None


@functools.lru_cache(maxsize=4)
def _parsed(file: Path, state: tuple[int, int, int]) -> BundleFile:
    """A file in one state: inode, size and time of its last change."""
    values = json.loads(file.read_text(encoding="utf-8"))
    refuse_other_form(values, file, form=FORMAT, parts=_PARTS)
    with reading(f"model {str(file)!r}"):
        return BundleFile(
            folder=file.parent,
            config=presets.from_json(values["config"], "bundle.json"),
            panel=GenePanel.from_json(values["panel"]),
            reference=StainReference.from_json(values["reference"]),
            trained_on=dict(values["trained_on"]),
        )


def refuse_other_form(values: Any, file: Path, *, form: int, parts: Sequence[str]) -> None:
    """Refuses what a model's JSON file holds, where it is not of this form or not whole.

    Args:
        values: as parsed. form: the "format" that is read here. parts: keys that it needs.
    Raises:
        InputError: another format, or the first part that is missing.
    """
    found = values.get("format") if isinstance(values, dict) else None
    if found != form:
        raise InputError(
            f"{file} has format {found!r}; this version ({histospace_tf.__version__}) reads "
            f"format {form}"
        )
    lacking = [name for name in parts if name not in values]
    if lacking:
        raise InputError(f"{file} is not whole: {lacking[0]!r} is missing")


def needs_context(config: Config) -> bool:
    """Whether the configuration's head needs slide context."""
    return config.regressor.architecture in SINGLE_TILE


def encoder_run(trained_on: Mapping[str, Any]) -> Mapping[str, Any]:
    """trained_on of the run that trained the encoder: its own, or another's that it came from."""
    return encoder_run(trained_on["encoder"]) if "encoder" in trained_on else trained_on


def brought_encoder(trained_on: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of an encoder that somebody brought, what decides its features; None: it is one of ours."""
    return encoder_run(trained_on).get("brought_encoder")


def why_no_export(trained_on: Mapping[str, Any]) -> str | None:
    """Why a model cannot be exported, as a message; None: it can."""
    brought = brought_encoder(trained_on)
    if brought is None or brought["kind"] in ("application", "keras"):
        return None
    kind = {"onnx": "an .onnx file", "saved_model": "a SavedModel"}[brought["kind"]]
    return (
        f"the encoder {brought['name']} is {kind}, which no export can hold; `predict` works where "
        "that file is"
    )


def encoder_origin(trained_on: Mapping[str, Any]) -> str:
    """The images that the encoder was trained on, in words; of one that was brought, its name."""
    brought = brought_encoder(trained_on)
    if brought is not None:
        return f"{brought['name']}, checksum {brought['checksum']}"
    return str(encoder_run(trained_on).get("autoencoder", {}).get("images", ""))


def encoder_images(trained_on: Mapping[str, Any]) -> set[str]:
    """Checksums of the sections' images that trained the autoencoder, perhaps in another run."""
    if encoder_origin(trained_on) != OWN_TILES:
        return set()
    return {sums["image"] for sums in encoder_run(trained_on)["checksums"].values()}

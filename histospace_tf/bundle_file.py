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


@dataclasses.dataclass(frozen=True)
class NetworkRecord:
    """A network that others published, as a run's model (`network_model`).

    name: of its module in `models.peers`; label: for readers.
    size: what its module's `Size` holds.
    cut_px: side of a tile in an image of `mpp` microns per pixel, the training images' scale; the
        network is shown it in size["tile_px"] pixels.
    pitch_um: distance of the spots that it was trained on.
    symmetries: of a tile, that predictions are averaged over.
    factor: what turns its output into the panel's unit.
    """

    name: str
    label: str
    size: dict[str, Any]
    cut_px: int
    mpp: float
    pitch_um: float
    symmetries: int
    factor: float

    @property
    def tile_px(self) -> int:
        """Side of the tiles that it takes."""
        return int(self.size["tile_px"])

    @property
    def sees_sections(self) -> bool:
        """Whether it sees all spots of a section at once, and not one tile at a time."""
        return "places" in self.size

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NetworkRecord:
        size = {name: tuple(v) if isinstance(v, list) else v for name, v in values["size"].items()}
        return cls(**{**values, "size": size})


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
    network: NetworkRecord | None = None

    @property
    def mpp(self) -> float | None:
        """Microns per pixel that the model looks at; None: each image's own scale."""
        return self.config.tiles.mpp if self.network is None else self.network.mpp


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


def scored(run: Path) -> Path:
    """The folder of a run's scores: `run` may be its bundle."""
    return run.resolve().parent if (run / "bundle.json").is_file() else run


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
            network=NetworkRecord.from_json(values["network"]) if "network" in values else None,
        )


def write(folder: Path, model: Any, *, unit: str) -> None:
    """Writes bundle.json.

    Args:
        folder: that holds the weights.
        model: a `bundle.Bundle` or `network_model.NetworkModel`. unit: its panel's in words.
    """
    values = {
        "format": FORMAT,
        "version": histospace_tf.__version__,
        "unit": unit,
        "config": model.config.to_json(),
        "panel": model.panel.to_json(),
        "reference": model.reference.to_json(),
        "trained_on": model.trained_on,
        "parameters": model.n_parameters,
    }
    if model.network is not None:
        values["network"] = dataclasses.asdict(model.network)
    (folder / "bundle.json").write_text(json.dumps(values, indent=1), encoding="utf-8")


def refuse_network(file: BundleFile, what: str) -> None:
    """Refuses a run whose model is a network that others published, for want of an encoder.

    Args:
        what: the option or verb that needs one, for the message.
    """
    if file.network is not None:
        raise InputError(
            f"{what}: the model in {str(file.folder)!r} is {file.network.label}, one network "
            "without an encoder of its own; a run of `fit` with our encoder works"
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


def why_no_export(
    trained_on: Mapping[str, Any], network: NetworkRecord | None = None
) -> str | None:
    """Why a model cannot be exported, as a message; None: it can."""
    if network is not None and network.sees_sections:
        return (
            f"{network.label} sees all places of a section at once, and exports take a tile at a "
            "time; `predict` takes the run"
        )
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

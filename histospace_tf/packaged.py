"""Trained models that come with the package: models/pretrained/NAME/, the core of a run folder.

bundle/          all that predict and export need
baselines.npz    the training side's, to score the model on other data
genes.csv        held-out r of every gene, and whether to trust it
evaluations.json scores on patients and sections that were held out
MODEL_CARD.md    data, scores, use and limits
manifest.json    versions, seed, checksums
tflite/          a quantised file for devices
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import histospace_tf
from histospace_tf.outputs import say
from histospace_tf.vocabulary import InputError, named, printable

FOLDER = Path(histospace_tf.__file__).parent / "models" / "pretrained"
DEFAULT = "breast-her2st"
# Predictors that a list of models shows, of score_table.ROWS, and their headings.
ROWS = {
    "model": "model",
    "model_single_tile": "single tile",
    "gene_mean": "gene mean",
    "colour_ridge": "colour ridge",
}


@dataclasses.dataclass(frozen=True)
class Packaged:
    """A packaged model, in numbers.

    unit: of its predictions; mpp: microns per pixel of its tiles; trust: genes by trust.
    scores: gene_r and spot_r, means over held-out sections, by what was held out and predictor.
    leaking: patients on both sides, by what was held out.
    bytes: of all its files.
    """

    name: str
    folder: Path
    genes: int
    unit: str
    tile_px: int
    mpp: float | None
    parameters: int
    patients: int
    sections: int
    spots: int
    trust: dict[str, int]
    scores: dict[str, dict[str, dict[str, float]]]
    leaking: dict[str, list[str]]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    def summary(self) -> str:
        """A few lines for a terminal."""
        default = "  [predict's default]" if self.name == DEFAULT else ""
        scale = f"{self.mpp:g} um/px" if self.mpp else "the image's own scale"
        table = [f"  {'gene_r, spot_r':<16}" + "".join(f"{words:>15}" for words in ROWS.values())]
        for split, rows in self.scores.items():
            cells = [f"{rows[row]['gene_r']:.3f}, {rows[row]['spot_r']:.3f}" for row in ROWS]
            table.append(f"  {'new ' + split + 's':<16}" + "".join(f"{cell:>15}" for cell in cells))
        for split, patients in self.leaking.items():
            if patients:
                table.append(f"  New {split}s: of patient {', '.join(patients)}, others were seen.")
        return "\n".join(
            [
                f"{self.name}{default}",
                f"  {self.genes} genes in {self.unit}, of which {self.trust.get('yes', 0)} are "
                "trusted",
                f"  trained on {self.spots:,} spots of {self.sections} sections, {self.patients} "
                "patients; research only",
                f"  tiles of {self.tile_px} px at {scale}, {self.parameters:,} parameters, "
                f"{self.bytes / 1e6:.2f} MB",
                f"  {self.folder}",
                "",
                *table,
            ]
        )


def names() -> list[str]:
    """Names of the packaged models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/bundle"))


def run_folder(model: str | Path | None) -> Path:
    """The run folder that a user means: a path, a packaged model's name, or None: the default.

    What exists as a path is taken as one. A default is said.

    Raises:
        InputError: neither a path nor a name.
    """
    if model is None:
        say(
            f"No --model: the packaged model {DEFAULT!r} predicts (`histospace-tf models "
            f"{DEFAULT}` says what it is good for). Research only."
        )
        return FOLDER / DEFAULT
    path = Path(model)
    if path.exists():
        return path
    if str(model) in names():
        return FOLDER / str(model)
    raise InputError(
        f"{str(model)!r} is no folder that `histospace-tf fit --out RUN` wrote, nor a packaged "
        f"model; packaged are {named(names())}"
    )


def name_of(run: Path) -> str:
    """What to call a model in records: a packaged one's name, another's path."""
    return printable(run.name if run.parent == FOLDER else str(run))


def card(name: str) -> str:
    """A packaged model's card, as Markdown.

    Raises:
        InputError: no packaged model of that name.
    """
    if name not in names():
        raise InputError(f"no packaged model {name!r}; there are {named(names())}")
    return (FOLDER / name / "MODEL_CARD.md").read_text(encoding="utf-8")


def models() -> list[Packaged]:
    """All packaged models."""
    return [_described(FOLDER / name) for name in names()]


def _described(folder: Path) -> Packaged:
    import pandas as pd  # not for `--help`

    def read(name: str) -> dict[str, Any]:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))

    bundle, evaluations = read("bundle/bundle.json"), read("evaluations.json")
    training, tiles = bundle["trained_on"], bundle["config"]["tiles"]
    trust = pd.read_csv(folder / "genes.csv", usecols=["trust"])["trust"].value_counts()

    def scores(mean: dict[str, Any]) -> dict[str, dict[str, float]]:
        return {row: {key: mean[row][key] for key in ("gene_r", "spot_r")} for row in ROWS}

    return Packaged(
        name=folder.name,
        folder=folder,
        genes=len(bundle["panel"]["genes"]),
        unit=bundle["unit"],
        tile_px=tiles["tile_px"],
        mpp=tiles["mpp"],
        parameters=bundle["parameters"],
        patients=len(training["patients"]),
        sections=len(training["sections"]),
        spots=training["spots"],
        trust={str(word): int(count) for word, count in trust.items()},
        scores={split: scores(scored["mean"]) for split, scored in evaluations.items()},
        leaking={
            split: list(scored["split"].get("patient_on_both_sides", []))
            for split, scored in evaluations.items()
        },
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )

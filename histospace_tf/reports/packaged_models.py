"""The list of packaged models, for a terminal or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histospace_tf import packaged
from histospace_tf.predictors import registry


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
        default = "  [predict's default]" if self.name == packaged.DEFAULT else ""
        scale = f"{self.mpp:g} um/px" if self.mpp else "the image's own scale"
        names = registry.in_order(name for rows in self.scores.values() for name in rows)
        labels = [registry.label(name) for name in names]
        table = [_line("gene_r, spot_r", labels)]
        for split, rows in self.scores.items():
            each = [rows.get(name) for name in names]
            cells = [f"{row['gene_r']:.3f}, {row['spot_r']:.3f}" if row else "-" for row in each]
            table.append(_line(f"new {split}s", cells))
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


def _line(title: str, cells: Sequence[str]) -> str:
    return f"  {title:<16}" + "".join(f"{cell:>19}" for cell in cells)


def models() -> list[Packaged]:
    """All packaged models."""
    return [_described(packaged.FOLDER / name) for name in packaged.names()]


def _described(folder: Path) -> Packaged:
    def read(name: str) -> dict[str, Any]:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))

    bundle, evaluations = read("bundle/bundle.json"), read("evaluations.json")
    training, tiles = bundle["trained_on"], bundle["config"]["tiles"]
    trust = pd.read_csv(folder / "genes.csv", usecols=["trust"])["trust"].value_counts()

    def scores(mean: dict[str, Any]) -> dict[str, dict[str, float]]:
        return {
            entry.name: {key: row[key] for key in ("gene_r", "spot_r")}
            for entry in registry.always()
            if entry.kind != "mark" and not entry.knows_patient and (row := mean.get(entry.name))
        }

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

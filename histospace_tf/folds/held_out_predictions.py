"""Every predictor asked about the spots that a fold held out; kept until all folds are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histospace_tf import outputs
from histospace_tf.cohort import paired
from histospace_tf.cohort.encoders import EncodedSpots
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.cohort.sides import SpotsOfSection
from histospace_tf.config import Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.predictors import registry
from histospace_tf.predictors.held_out import PredictedSection
from histospace_tf.predictors.predictor import Fitted
from histospace_tf.vocabulary import InputError


def predicted(
    encoded: EncodedSpots,
    rows: np.ndarray,
    fitted: Mapping[str, Fitted],
    panel: GenePanel,
    *,
    fold: str = "",
) -> list[PredictedSection]:
    """Asks every predictor about the sections that the rows `rows` belong to.

    What was measured there is shown to those alone that say that they read it.

    Args:
        encoded: all spots. rows: of them, those that were held out.
        fitted: by name.
        panel: that they predict.
        fold: name of the fold.
    Raises:
        InputError: a predictor gives an array of another shape, or numbers that are not finite.
    """
    entries = {
        name: registry.entry(name) or registry.FROM_FILE for name in registry.in_order(fitted)
    }
    sections = []
    for number in encoded.spots.sections_in(rows):
        table = encoded.spots.spots_of(number, rows)
        blind = SpotsOfSection(encoded, number, encoded.spots.rows_of(number, rows), panel)
        knowing = dataclasses.replace(blind, table=table)
        predictions = {}
        for name, entry in entries.items():
            if not entry.predicts:
                continue
            values = fitted[name].predict(knowing if entry.reads_held_out else blind)
            values = None if values is None else np.asarray(values)
            _refuse_misfit(name, values, blind)
            predictions[name] = values
        sections.append(
            _section(encoded.spots, number, rows, panel, encoded.config, predictions, fold)
        )
    return sections


def _refuse_misfit(name: str, values: np.ndarray | None, spots: SpotsOfSection) -> None:
    wanted = (len(spots), len(spots.panel))
    if values is None:
        return
    if np.shape(values) != wanted:
        raise InputError(
            f"predictor {name!r}, section {spots.name!r}: an array of shape {np.shape(values)}, "
            f"where (spots, genes) is {wanted}"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"predictor {name!r}, section {spots.name!r}: {(~np.isfinite(values)).sum()} of "
            f"{values.size} values are not finite numbers"
        )


def _section(
    spots: PairedSpots,
    number: int,
    rows: np.ndarray,
    panel: GenePanel,
    config: Config,
    predictions: Mapping[str, np.ndarray | None],
    fold: str,
) -> PredictedSection:
    section = spots.sections[number]
    return PredictedSection(
        name=section.name,
        patient=section.patient,
        spots=spots.spots_of(number, rows),
        spot_pitch_px=paired.spot_pitch_px(section, config),
        panel=panel,
        predictions={name: predictions[name] for name in registry.in_order(predictions)},
        fold=fold,
    )


def write(sections: Iterable[PredictedSection], path: Path) -> None:
    """Keeps the predictions of a fold in a .npz file, by section and predictor."""
    arrays: dict[str, Any] = {}
    for number, section in enumerate(sections):
        for name, values in section.predictions.items():
            arrays[f"{number}/{name}"] = np.zeros(0) if values is None else values
    with outputs.whole_file(path) as draft:
        np.savez(draft, **arrays)


def read(
    path: Path, spots: PairedSpots, rows: np.ndarray, panel: GenePanel, config: Config, *, fold: str
) -> list[PredictedSection]:
    """What `write` wrote.

    Args:
        path: of a fold.
        spots: all spots. rows: of them, those that the fold held out.
        panel, fold: the fold's panel and its name.
        config: of the run.
    """
    sections = []
    with np.load(path) as file:
        for at, number in enumerate(spots.sections_in(rows)):
            kept = {
                name.partition("/")[2]: file[name]
                for name in file.files
                if name.startswith(f"{at}/")
            }
            predictions = {name: values if values.size else None for name, values in kept.items()}
            sections.append(_section(spots, number, rows, panel, config, predictions, fold))
    return sections

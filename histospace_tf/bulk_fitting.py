"""Slides with bulk expression alone -> a network on a frozen encoder, scored by patients left out.

Weak supervision, as HE2RNA's and hist2RNA's: no place on a slide is measured, only its whole. The
encoder is another run's, or a packaged model's, with its tiles and stain reference.

RUN/scores.json             "bulk": both correlations and errors, beside those of a ridge on the
                            mean of a slide's features and the gene mean's
RUN/bulk_scores.csv         one row per gene
RUN/slide_predictions.h5ad  one row per slide, predicted while its patient was left out
RUN/slide_model/            all that `predict` needs, trained on all slides
RUN/config.json, manifest.json, history.csv, report.html
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from histospace_tf import (
    bundle,
    bundle_file,
    distribution,
    outputs,
    provenance,
    publishing,
    reporting,
    runs,
)
from histospace_tf.data_pipelines.readers import bulk_tables, list_images
from histospace_tf.data_pipelines.readers.bulk_tables import BulkTable
from histospace_tf.outputs import say
from histospace_tf.reports import score_table
from histospace_tf.requests import BulkRequest, refusals
from histospace_tf.slide_level import cross_validation, slide_model, slide_tiles
from histospace_tf.slide_level.cross_validation import CrossValidated, FittedSlides, NetworkSettings
from histospace_tf.slide_level.slide_model import SlideModel
from histospace_tf.slide_level.slide_tiles import SlideEncoder
from histospace_tf.training import Session
from histospace_tf.vocabulary import InputError, named


@dataclasses.dataclass(frozen=True, eq=False)
class BulkResult:
    """What a training on slides wrote."""

    out: Path
    scores: dict[str, Any]
    parameters: int

    def summary(self) -> str:
        """The table of scores, the files, as text."""
        genes = self.scores["target"]["genes"]
        return "\n".join(
            [
                score_table.table(self.scores),
                *score_table.notes(self.scores),
                "",
                f"{self.parameters:,} parameters, {genes} genes",
                *runs.listed(self.out),
                "",
                "Next: histospace-tf predict SLIDE --aggregate --out slide.h5ad --model "
                f"{self.out}",
            ]
        )


def fit(request: BulkRequest) -> BulkResult:
    """Trains a network on slides with bulk expression, and scores it by patients left out.

    Raises:
        InputError: a mistake in slides, table or settings.
    """
    refusals.refuse(request)
    out = request.out
    model = slide_tiles.slide_encoder(request.encoder, request.settings)
    config = model.config
    strategy = distribution.strategy(config.strategy)
    if distribution.described(strategy)["workers"] > 1:
        raise InputError("fit with `bulk` runs on one machine; `strategy` single or mirrored works")
    checksum = provenance.file_checksum(request.bulk)
    started = {
        "config": config.to_json(),
        **request.resumed(),
        "bulk": checksum,
        "bulk_unit": request.unit,
        "architecture": request.network,
        "epochs": request.epochs,
        "batch_size": request.batch_size,
    }
    with runs.filled(
        out, started, strategy=strategy, resume=request.resume, force=request.force
    ) as work:
        session = Session(strategy, config.seed, request.resume, work / "checkpoints")
        clock = session.clock
        table = bulk_tables.read(request.bulk, unit=request.unit)
        images, left = bulk_tables.matched(table, list_images(request.data))
        for problem in (*table.problems, *left):
            say(str(problem))
        checksums = {name: {"image": provenance.file_checksum(p)} for name, p in images.items()}
        _say_seen(model, checksums)
        runs.refuse_other_data(work, checksums)
        clock.lap("read")
        features = _features(images, model, work / "features", session, mpp=request.mpp)
        clock.lap("features")
        settings = NetworkSettings(request.network, request.epochs, request.batch_size)
        validated = cross_validation.cross_validated(
            table, features, config.target, settings, session, unit=bundle.unit(config.target)
        )
        clock.lap("folds")
        say(f"Training on all {len(table)} slides.")
        every = np.arange(len(table))
        fitted = cross_validation.fit(
            table, features, every, config.target, settings, session.within("all")
        )
        clock.lap("network")
        trained_on = _trained_on(request, table, model, checksums, checksum)
        slide_model.save(SlideModel(fitted.network, fitted.panel, model, trained_on), work)
        scores = _scores(validated, fitted)
        runs.write_json(work / "scores.json", scores)
        if len(validated.genes):
            validated.genes.to_csv(work / "bulk_scores.csv", index=False)
        outputs.write_h5ad(validated.table, work / "slide_predictions.h5ad")
        manifest = {
            "versions": provenance.versions(),
            "machine": {
                **provenance.machine(),
                "devices": distribution.described(strategy),
            },
            "seed": config.seed,
            "split": scores["split"],
            "chosen": scores["chosen"],
            "problems": [str(problem) for problem in (*table.problems, *left)],
            "panel": list(fitted.panel.genes),
            "tiles": {name: len(one) for name, one in zip(images, features, strict=True)},
            "trained_on": trained_on,
            "parameters": fitted.network.n_parameters,
            "request": request.record(),
        }
        history = pd.concat(
            [
                *(
                    pd.DataFrame(fold.history).assign(fold=f"fold{number}")
                    for number, fold in enumerate(validated.folds, start=1)
                ),
                pd.DataFrame(fitted.training.history).assign(fold=""),
            ],
            ignore_index=True,
        )
        publishing.records(work, config, manifest, clock=clock, history=history)
        reporting.render(work)
    return BulkResult(out, scores, fitted.network.n_parameters)


def _say_seen(model: SlideEncoder, checksums: dict[str, dict[str, str]]) -> None:
    known = bundle_file.encoder_images(model.trained_on)
    seen = [name for name, sums in checksums.items() if sums["image"] in known]
    if seen:
        say(f"The encoder was trained on tiles of slide {named(seen)}, without expression.")


def _features(
    images: dict[str, Path],
    model: SlideEncoder,
    folder: Path,
    session: Session,
    *,
    mpp: float | None,
) -> list[np.ndarray]:
    """(tiles, f) of every slide, kept in `folder` and memory-mapped."""
    folder.mkdir(exist_ok=True)
    features = []
    with tqdm(total=len(images), desc="Slides", unit="slide", delay=2) as bar:
        for number, (name, image) in enumerate(images.items()):
            store = folder / f"{number:05d}_{outputs.file_name(name)}.npy"
            features.append(
                slide_tiles.slide_features(image, model, session, name=name, mpp=mpp, store=store)
            )
            bar.update(1)
    return features


def _trained_on(
    request: BulkRequest,
    table: BulkTable,
    model: SlideEncoder,
    checksums: dict[str, dict[str, str]],
    of_table: str,
) -> dict[str, Any]:
    return {
        "slides": list(table.slides.names),
        "patients": sorted(set(table.patients)),
        "checksums": checksums,
        "bulk": {
            "file": request.bulk.name,
            "checksum": of_table,
            "unit": request.unit,
        },
        "encoder": model.trained_on,
    }


def _scores(validated: CrossValidated, fitted: FittedSlides) -> dict[str, Any]:
    """scores.json: no section is in it, only slides as a whole."""
    inner = sorted({group.kind for fold in validated.folds for group in fold.inner})
    return outputs.json_safe(
        {
            "target": {
                "normalisation": fitted.panel.normalisation,
                "target_sum": fitted.panel.target_sum,
                "genes": len(fitted.panel),
            },
            "split": {
                "outer": "patient",
                "inner": ", ".join(inner),
                "held_out": [list(fold.sides.held_out) for fold in validated.folds],
                "patient_on_both_sides": [],
            },
            "sections": {},
            "mean": {},
            "pooled": None,
            "bulk": validated.bulk,
            "chosen": [choice for fold in validated.folds for choice in fold.chosen],
        }
    )

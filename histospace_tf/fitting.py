"""The main job: paired sections -> a scored, exported model in a run folder.

While it runs, everything lies in RUN.partial beside RUN; that folder becomes RUN when all is done.
`resume` goes on from RUN.partial: finished parts are read, a cut-off training goes on at its epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import (
    bundle,
    distribution,
    export,
    features,
    head_training,
    maps,
    metrics,
    outputs,
    paired,
    pretraining,
    provenance,
    scoring,
)
from histospace_tf.bundle import Bundle
from histospace_tf.config import Config
from histospace_tf.data_pipelines import expression, readers, simulation, splits, tfds_images
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.paired import PairedSpots
from histospace_tf.pretraining import TrainedEncoder
from histospace_tf.vocabulary import Cohort, InputError, Section

SIMULATED_PATIENTS = 5
# Parts of a partial run that a finished one does not keep.
SCRATCH = ("tiles", "features", "checkpoints", "tfds_images", "started.json")


@dataclasses.dataclass(frozen=True, eq=False)
class FitResult:
    """What a run wrote."""

    out: Path
    scores: dict[str, Any]
    parameters: int

    def summary(self) -> str:
        """The table of scores, the files and the next command, as text."""
        lines = []
        if self.scores["sections"]:
            lines += [scoring.table(self.scores), scoring.FOOTNOTE, ""]
        lines.append(f"{self.parameters:,} parameters, {self.scores['target']['genes']} genes")
        files = sorted(self.out.iterdir()) if self.out.is_dir() else []  # not yet, on a worker
        lines += [f"  {p}{'/' * p.is_dir()}" for p in files]
        lines += ["", f"Next: histospace-tf predict SLIDE --model {self.out} --out slide.h5ad"]
        return "\n".join(lines)


def fit(
    config: Config,
    data: Path | None,
    out: Path,
    *,
    pretrain: Path | None = None,
    encoder: Path | None = None,
    hold_out: Sequence[str] = (),
    no_hold_out: bool = False,
    layout: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> FitResult:
    """Trains on a data folder, scores the held-out spots, writes the run folder `out`.

    Args:
        config: every setting; `config.preset(...)` and `config.changed(...)` make one.
        data: folder of paired sections; None: simulated tissue, written to `out`/simulated_tissue.
        out: the run folder.
        pretrain: folder of H&E images for the autoencoder, or "tfds:NAME", a TFDS dataset with
            images; None: the training sections' own tiles.
        encoder: run folder to take the trained encoder from, in place of training one.
        hold_out: patients or sections to score on; empty: the patient (or section) with the fewest
            spots, or a block of the only section's spots.
        no_hold_out: train on everything and score nothing.
        layout: of `readers.LAYOUTS`; None: recognised by content.
        resume: go on from an interrupted run.
        force: replace a finished run, or throw an interrupted one away.
    Raises:
        InputError: a mistake in data, names or settings.
    """
    if pretrain is not None and encoder is not None:
        raise InputError("--pretrain trains an encoder and --encoder brings one; pass one of them")
    if no_hold_out and hold_out:
        raise InputError("--hold-out and --no-hold-out exclude each other")
    outputs.refuse_finished(out, force=force)
    if pretrain is not None and not tfds_images.is_tfds(pretrain):
        readers.list_images(pretrain)
    strategy = distribution.strategy(config.strategy)  # several workers: before any other work
    donor = bundle.load(encoder) if encoder is not None else None
    if donor is not None:
        config = _with_encoder_of(donor, config)
    started = {
        "config": config.to_json(),
        "data": str(data),
        "pretrain": str(pretrain),
        "encoder": str(encoder),
        "hold_out": sorted(hold_out),
        "no_hold_out": no_hold_out,
    }
    missing = [folder for folder in out.parents if not folder.exists()]
    partial = out.with_name(f"{out.name}.partial")
    if distribution.is_chief(strategy):
        work = partial
        _open_partial(partial, started, resume=resume, force=force)
    else:  # another worker computes the same, for its share of every batch, and keeps none of it
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.worker.", dir=out.parent))
    try:
        parameters, scores = _run(
            config,
            data,
            work,
            strategy=strategy,
            checkpoints=partial / "checkpoints",
            pretrain=pretrain,
            donor=donor,
            choose=_Choice(tuple(hold_out), no_hold_out),
            layout=layout,
            resume=resume,
        )
    except InputError:
        if not (work / "checkpoints").exists():  # nothing yet to go on from
            shutil.rmtree(work, ignore_errors=True)
            with contextlib.suppress(OSError):
                for folder in missing:
                    folder.rmdir()
        raise
    finally:
        if work != partial:
            shutil.rmtree(work, ignore_errors=True)
    if work == partial:
        outputs.put_in_place(work, out)
    return FitResult(out=out, scores=scores, parameters=parameters)


def _run(
    config: Config,
    data: Path | None,
    work: Path,
    *,
    strategy: tf.distribute.Strategy,
    checkpoints: Path,
    pretrain: Path | None,
    donor: Bundle | None,
    choose: _Choice,
    layout: str | None,
    resume: bool,
) -> tuple[int, dict[str, Any]]:
    """Every stage in turn; fills `work`. Returns the number of parameters and the scores."""
    clock = provenance.Clock()

    cohort = _read(data, work, layout=layout, seed=config.seed)
    spots = PairedSpots.of(usable_sections(cohort), config)
    # Told before an image is opened: a mistake in the names of the split or of the panel.
    fold = choose.fold(spots)
    _training_panel(spots, fold, config)
    clock.lap("read")

    pretrained = pretrain is not None or donor is not None
    learners = [] if pretrained else spots.sections_in(fold.train)
    prepared = paired.cut_tiles(spots, config, work / "tiles", pretrain_on=learners)
    # Border policy "drop" leaves spots out, so rows are counted after it.
    kept = [
        dataclasses.replace(section, spots=ready.spots)
        for section, ready in zip(spots.sections, prepared, strict=True)
    ]
    spots = PairedSpots.of(kept, config)
    fold = choose.fold(spots)
    if len(fold.test):
        splits.refuse_leak(spots.index, fold, by=fold.kind)
    _announce(spots, fold)
    genes = _training_panel(spots, fold, config)
    say(f"Panel: {len(genes)} genes by {config.target.panel}, {len(fold.train)} training spots.")
    clock.lap("tiles")

    if donor is not None:
        encoder = TrainedEncoder(donor.encoder, donor.reference, [], {"encoder": donor.trained_on})
    else:
        if pretrain is not None and tfds_images.is_tfds(pretrain):
            pretrain = tfds_images.write_images(
                pretrain, work / "tfds_images", most=config.autoencoder.tiles
            )
        encoder = pretraining.train_encoder(
            config,
            pretrain,
            [prepared[number] for number in learners],
            strategy=strategy,
            checkpoint=checkpoints / "autoencoder",
            resume=resume,
        )
    clock.lap("autoencoder")

    trunk = regressor.build_trunk(encoder.encoder, architecture=config.regressor.architecture)
    inputs, statistics = paired.head_inputs(
        spots, prepared, trunk, encoder.reference, config, work / "features"
    )
    clock.lap("features")

    measured, learned, panel = paired.targets(spots, fold, genes, config)
    heads = head_training.train_heads(
        inputs,
        learned,
        spots.index,
        fold.train,
        config,
        strategy=strategy,
        checkpoint=checkpoints,
        resume=resume,
    )
    clock.lap("heads")

    model = Bundle(
        config=config,
        panel=panel,
        reference=encoder.reference,
        encoder=encoder.encoder,
        trunk=trunk,
        head=heads[0].head,
        single_tile_head=heads[-1].head,
        trained_on={
            "sections": [spots.sections[n].name for n in spots.sections_in(fold.train)],
            "patients": sorted({str(name) for name in spots.index.patient[fold.train]}),
            "spots": len(fold.train),
            "simulated": simulation.is_simulated(cohort.source),
            **encoder.trained_on,
        },
    )
    split = {
        "outer": fold.kind,
        "inner": heads[0].inner[0].kind,
        "held_out": list(fold.held_out),
        "patient_on_both_sides": list(splits.leaking_patients(spots.index, fold)),
    }
    scores = _scored(model, spots, fold, inputs, statistics, measured, learned, split, work)
    clock.lap("scores")

    bundle.save(model, work / "bundle")
    parity_tiles = work / "parity_tiles.npz"
    paired.parity_tiles(spots, prepared, fold, encoder.reference, parity_tiles)
    if distribution.is_chief(strategy):
        say("Exporting to SavedModel and TensorFlow Lite, and checking both in a new process.")
        export.export(model, work, parity_tiles=parity_tiles, force=True)
    clock.lap("export")

    history = encoder.history + [row for trained in heads for row in trained.history]
    pd.DataFrame(history).to_csv(work / "history.csv", index=False)
    _write_json(work / "config.json", config.to_json())
    _write_json(work / "scores.json", scores)
    manifest = {
        "versions": provenance.versions(),
        "machine": {**provenance.machine(), "devices": distribution.described(strategy)},
        "seed": config.seed,
        "data": {"layout": cohort.layout, "checksums": provenance.checksums(spots.sections)},
        "problems": [str(problem) for problem in cohort.problems],
        "split": split,
        "inner_folds": [
            {
                "kind": inner.kind,
                "held_out": list(inner.held_out),
                "train": len(inner.train),
                "test": len(inner.test),
            }
            for inner in heads[0].inner
        ],
        "epochs": {"head": heads[0].epochs, "single_tile_head": heads[-1].epochs},
        "panel": list(panel.genes),
        "trained_on": model.trained_on,
        "parameters": model.n_parameters,
        "seconds": clock.seconds,
    }
    _write_json(work / "manifest.json", manifest)
    for name in SCRATCH:
        path = work / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return model.n_parameters, scores


def usable_sections(cohort: Cohort) -> list[Section]:
    """Sections with an image; the others are skipped aloud.

    Raises:
        InputError: none is left.
    """
    for section in cohort.sections:
        if section.image is None:
            say(f"section {section.name}: no image, skipped ({len(section.spots)} spots)")
    found = list(cohort.with_image())
    if not found:
        raise InputError(
            f"{cohort.source}: none of {len(cohort.sections)} section(s) has an image; "
            "full-resolution H&E images are needed"
        )
    return found


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What the user asked to hold out."""

    hold_out: tuple[str, ...]
    nothing: bool

    def fold(self, spots: PairedSpots) -> splits.Fold:
        if self.nothing:
            return splits.Fold(np.arange(len(spots)), np.arange(0), "none", ())
        return splits.outer_fold(spots.index, self.hold_out)


def _open_partial(work: Path, started: dict[str, Any], *, resume: bool, force: bool) -> None:
    """Makes RUN.partial, or takes it up again."""
    mark = work / "started.json"
    if work.exists() and not resume:
        if not force:
            raise InputError(
                f"an interrupted run stands in {str(work)!r}: "
                "--resume goes on with it, --force throws it away"
            )
        shutil.rmtree(work)
    if work.exists() and mark.is_file():
        before = json.loads(mark.read_text(encoding="utf-8"))
        changed = [name for name in started if before.get(name) != started[name]]
        if changed:
            raise InputError(
                f"the interrupted run in {str(work)!r} had another {', '.join(changed)}; "
                "resume it with the settings that it was started with, or pass --force"
            )
        say(f"Going on with {work}.")
    work.mkdir(parents=True, exist_ok=True)
    _write_json(mark, started)


def _read(data: Path | None, work: Path, *, layout: str | None, seed: int) -> Cohort:
    if data is None:
        data = work / "simulated_tissue"
        if not data.exists():
            say("No DATA given: tissue is simulated, of patients that never were.")
            with tqdm(total=SIMULATED_PATIENTS, desc="Simulating", unit="patient", delay=2) as bar:
                simulation.simulate(
                    data, patients=SIMULATED_PATIENTS, seed=seed, progress=bar.update
                )
    cohort = readers.read_cohort(data, layout=layout)
    for problem in cohort.problems:
        say(str(problem))
    return cohort


def _training_panel(spots: PairedSpots, fold: splits.Fold, config: Config) -> tuple[str, ...]:
    tables = [spots.spots_of(number, fold.train) for number in spots.sections_in(fold.train)]
    return expression.choose_panel(tables, config.target)


def _announce(spots: PairedSpots, fold: splits.Fold) -> None:
    """Says what is held out, and whether a patient stands on both sides."""
    if not len(fold.test):
        say("Nothing is held out: the model is not scored.")
        return
    say(f"Held out ({fold.kind}): {', '.join(fold.held_out)}, {len(fold.test)} spots.")
    leaking = splits.leaking_patients(spots.index, fold)
    if leaking:
        say(
            f"Patient {', '.join(leaking)} is on both sides: the scores hold for more tissue of "
            "patients that were trained on, not for new patients."
        )


def _with_encoder_of(donor: Bundle, config: Config) -> Config:
    """The configuration that goes with another run's encoder."""
    if donor.reference.method != config.stain.method:
        raise InputError(
            f"--encoder: its stain method is {donor.reference.method!r}, this run's "
            f"{config.stain.method!r}; the same is needed"
        )
    return dataclasses.replace(config, autoencoder=donor.config.autoencoder)


def _scored(
    model: Bundle,
    spots: PairedSpots,
    fold: splits.Fold,
    inputs: dict[str, np.ndarray],
    statistics: np.ndarray,
    measured: np.ndarray,
    learned: np.ndarray,
    split: dict[str, Any],
    work: Path,
) -> dict[str, Any]:
    """Scores the held-out spots; writes gene_scores.csv, predictions.h5ad and their maps."""
    train = fold.train
    side = scoring.TrainingSide(
        measured=measured[train],
        learned=learned[train],
        statistics=statistics[train],
        patients=spots.index.patient[train],
        sections=spots.index.section[train],
    )
    entries, gene_tables, predictions = {}, [], []
    for number in spots.sections_in(fold.test):
        section, rows = spots.sections[number], spots.rows_of(number, fold.test)
        here = {name: values[rows] for name, values in inputs.items()}
        held = scoring.HeldOutSection(
            name=section.name,
            patient=section.patient,
            spots=spots.spots_of(number, fold.test),
            spot_pitch_px=paired.spot_pitch_px(section, model.config),
            statistics=statistics[rows],
            model=model.panel.to_unit(features.predicted(model.head, here)),
            model_single_tile=model.panel.to_unit(
                features.predicted(model.single_tile_head, here, symmetries=1)
            ),
        )
        entries[section.name], genes = scoring.score_section(
            held, side, model.panel, seed=model.config.seed
        )
        gene_tables.append(genes)
        predictions.append(
            scoring.prediction_table(held, measured[rows], model.panel, bundle.unit(model.panel))
        )
        if len(predictions) == 1:
            maps.held_out_figure(
                predictions[0],
                section,
                genes=maps.genes_to_show(genes),
                path=work / "held_out_maps.png",
            )
    if entries:
        pd.concat(gene_tables).to_csv(work / "gene_scores.csv", index=False)
        outputs.write_h5ad(scoring.joined(predictions), work / "predictions.h5ad")
    return scoring.scores(entries, model.config.target, model.panel, split)


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(metrics.json_safe(values), indent=1) + "\n", encoding="utf-8")

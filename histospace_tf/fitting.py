"""The main job: paired sections -> a scored, exported model in a run folder.

While it runs, everything lies in RUN.partial beside RUN; that folder becomes RUN when all is done.
`resume` goes on from RUN.partial: finished parts are read, a cut-off training goes on at its epoch.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from histospace_tf import (
    baselines,
    bundle,
    distribution,
    export,
    features,
    head_training,
    maps,
    metrics,
    outputs,
    preparing,
    pretraining,
    provenance,
    scoring,
)
from histospace_tf.bundle import Bundle
from histospace_tf.config import Config
from histospace_tf.data_pipelines import datasets, expression, readers, simulation, splits, stain
from histospace_tf.models import regressor
from histospace_tf.outputs import say
from histospace_tf.paired import PairedSpots, neighbour_radius_px, spot_pitch_px
from histospace_tf.preparing import PreparedSection
from histospace_tf.vocabulary import Cohort, GenePanel, InputError, Section, StainReference

PARITY_TILES = 16
SIMULATED_PATIENTS = 5
# Parts of a partial run that a finished one does not keep.
SCRATCH = ("tiles", "features", "checkpoints", "encoder", "started.json")


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
        lines += [f"  {p}{'/' * p.is_dir()}" for p in sorted(self.out.iterdir())]
        lines += ["", f"Next: histospace-tf predict SLIDE --model {self.out} --out slide.h5ad"]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedEncoder:
    """What the encoder stage hands on."""

    encoder: Any
    reference: StainReference
    history: list[dict[str, object]]
    trained_on: dict[str, Any]


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
        pretrain: folder of H&E images for the autoencoder; None: the training sections' own tiles.
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
    work = _work_folder(out, started, resume=resume, force=force)
    clock = provenance.Clock()
    strategy = distribution.strategy(config.strategy)

    cohort = _read(data, work, layout=layout, seed=config.seed)
    spots = PairedSpots.of(usable_sections(cohort), config)
    # Told before an image is opened: a mistake in the names of the split or of the panel.
    choose = _Choice(tuple(hold_out), no_hold_out)
    _training_panel(spots, choose.fold(spots), config)
    clock.lap("read")

    prepared = _cut(spots, config, work / "tiles", pretrain_tiles=not (pretrain or encoder))
    # Border policy "drop" leaves spots out, so rows are counted after it.
    kept = [
        dataclasses.replace(section, spots=ready.spots)
        for section, ready in zip(spots.sections, prepared, strict=True)
    ]
    spots = PairedSpots.of(kept, config)
    fold = choose.fold(spots)
    _announce(spots, fold)
    genes = _training_panel(spots, fold, config)
    say(f"Panel: {len(genes)} genes by {config.target.panel}, {len(fold.train)} training spots.")
    clock.lap("tiles")

    if donor is not None:
        made = TrainedEncoder(donor.encoder, donor.reference, [], {"encoder": donor.trained_on})
    else:
        learners = [prepared[number] for number in spots.sections_in(fold.train)]
        made = _train_encoder(config, pretrain, learners, work, strategy, resume=resume)
    clock.lap("autoencoder")

    trunk = regressor.build_trunk(made.encoder, architecture=config.regressor.architecture)
    inputs, statistics = _features(spots, prepared, trunk, made.reference, config, work)
    clock.lap("features")

    measured, learned, panel = _targets(spots, fold, genes, config)
    heads = _train_heads(inputs, learned, spots, fold, config, strategy, work, resume=resume)
    head, single = heads[0], heads[-1]
    clock.lap("heads")

    model = Bundle(
        config=config,
        panel=panel,
        reference=made.reference,
        encoder=made.encoder,
        trunk=trunk,
        head=head.head,
        single_tile_head=single.head,
        trained_on={
            "sections": [spots.sections[n].name for n in spots.sections_in(fold.train)],
            "patients": sorted({str(name) for name in spots.index.patient[fold.train]}),
            "spots": len(fold.train),
            "simulated": data is None,
            **made.trained_on,
        },
    )
    side = scoring.TrainingSide(
        measured=measured[fold.train],
        learned=learned[fold.train],
        statistics=statistics[fold.train],
        patients=spots.index.patient[fold.train],
        sections=spots.index.section[fold.train],
    )
    split = {
        "outer": fold.kind,
        "inner": head.inner[0].kind,
        "held_out": list(fold.held_out),
        "patient_on_both_sides": list(splits.leaking_patients(spots.index, fold)),
    }
    scores = _score(model, spots, fold, inputs, statistics, measured, side, split, work)
    clock.lap("scores")

    bundle.save(model, work / "bundle")
    _parity_tiles(spots, prepared, fold, made.reference, work / "parity_tiles.npz")
    export.export(model, work, parity_tiles=work / "parity_tiles.npz", force=True)
    clock.lap("export")

    history = made.history + [row for trained in heads for row in trained.history]
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
                "kind": f.kind,
                "held_out": list(f.held_out),
                "train": len(f.train),
                "test": len(f.test),
            }
            for f in head.inner
        ],
        "epochs": {"head": head.epochs, "single_tile_head": single.epochs},
        "panel": list(panel.genes),
        "trained_on": model.trained_on,
        "parameters": model.n_parameters,
        "seconds": clock.seconds,
    }
    _write_json(work / "manifest.json", manifest)
    for name in SCRATCH:
        path = work / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    outputs.put_in_place(work, out)
    return FitResult(out=out, scores=scores, parameters=model.n_parameters)


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


def _work_folder(out: Path, started: dict[str, Any], *, resume: bool, force: bool) -> Path:
    """RUN.partial, new or taken up again."""
    work = out.with_name(f"{out.name}.partial")
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
    return work


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


def _cut(
    spots: PairedSpots, config: Config, folder: Path, *, pretrain_tiles: bool
) -> list[PreparedSection]:
    folder.mkdir(exist_ok=True)
    share = -(-config.autoencoder.tiles // len(spots.sections)) if pretrain_tiles else 0
    prepared = []
    for section in tqdm(spots.sections, desc="Cutting tiles", unit="section", delay=2):
        ready = preparing.prepare_section(section, config, folder, pretrain_tiles=share)
        for problem in ready.problems:
            say(str(problem))
        prepared.append(ready)
    return prepared


def _with_encoder_of(donor: Bundle, config: Config) -> Config:
    """The configuration that goes with another run's encoder."""
    if donor.reference.method != config.stain.method:
        raise InputError(
            f"--encoder: its stain method is {donor.reference.method!r}, this run's "
            f"{config.stain.method!r}; the same is needed"
        )
    return dataclasses.replace(config, autoencoder=donor.config.autoencoder)


def _train_encoder(
    config: Config,
    pretrain: Path | None,
    learners: Sequence[PreparedSection],
    work: Path,
    strategy: tf.distribute.Strategy,
    *,
    resume: bool,
) -> TrainedEncoder:
    """The autoencoder on outside images, or on the training sections' own tiles."""
    if pretrain is not None:
        images = readers.list_images(pretrain)
        with tqdm(total=len(images), desc="Cutting images", unit="image", delay=2) as bar:
            cut = preparing.prepare_images(
                [(image.path, image.source) for image in images], config, progress=bar.update
            )
        parts = [(part.tiles, part.stains, part.source) for part in cut]
        origin = f"{len(images)} images of {pretrain.name}"
    else:
        by_patient = len({section.patient for section in learners}) > 1
        parts = [
            (part.pretrain_tiles, part.stains, part.patient if by_patient else part.name)
            for part in learners
        ]
        origin = "the training sections' own tiles"
    reference = stain.average_stains([stains for _, stains, _ in parts])
    # No colour tables: there may be hundreds of images, of few tiles each.
    groups = [datasets.StainedTiles(tiles, stains, reference) for tiles, stains, _ in parts]
    say(f"Autoencoder: {sum(map(len, groups))} tiles of {origin}.")
    made = pretraining.pretrain(
        groups,
        [source for _, _, source in parts],
        config,
        strategy=strategy,
        checkpoint=work / "checkpoints" / "autoencoder",
        resume=resume,
    )
    trained_on = {
        "autoencoder": {
            "images": origin,
            "tiles": made.tiles,
            "validation_sources": list(made.validation_sources),
            "validation_mse": made.validation_loss,
        }
    }
    return TrainedEncoder(made.encoder, reference, made.history, trained_on)


def _features(
    spots: PairedSpots,
    prepared: Sequence[PreparedSection],
    trunk: Any,
    reference: StainReference,
    config: Config,
    work: Path,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of the heads for all spots, and the colour statistics of their tiles."""
    folder = work / "features"
    folder.mkdir(exist_ok=True)
    in_context = bundle.config_needs(config)
    parts, statistics = [], []
    for section, ready in zip(spots.sections, prepared, strict=True):
        group = preparing.stained(ready.spot_tiles, ready.stains, reference)
        found = features.tile_features(
            trunk,
            [group],
            symmetries=config.regressor.symmetries,
            label=f"Features of {section.name}",
            store=folder / f"{section.name}_spots.npy",
        )
        part = {"features": found}
        if in_context:
            slide = features.tile_features(
                trunk,
                [preparing.stained(ready.slide_tiles, ready.stains, reference)],
                symmetries=1,
                label=f"Slide statistics of {section.name}",
                store=folder / f"{section.name}_slide.npy",
            )
            pitch = spot_pitch_px(section, config)
            part = features.context_inputs(
                found,
                section.spots.centres_px,
                features.slide_statistics(slide[:, 0]),
                radius_px=neighbour_radius_px(ready.mpp, pitch, config),
            )
        parts.append(part)
        rows = np.arange(len(group))
        statistics.append(
            np.concatenate(
                [
                    baselines.colour_statistics(datasets.normalised_rows([group], some))
                    for some in np.array_split(rows, -(-len(rows) // 256))
                ]
            )
        )
    inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return inputs, np.concatenate(statistics)


def _targets(
    spots: PairedSpots, fold: splits.Fold, genes: Sequence[str], config: Config
) -> tuple[np.ndarray, np.ndarray, GenePanel]:
    """Measured values in the unit, what heads learn (zero on the held-out side), and the panel."""
    target, train = config.target, fold.train
    unit: dict[str, Any] = {
        "normalisation": target.normalisation,
        "target_sum": target.target_sum,
    }
    measured = np.concatenate(
        [expression.targets(section.spots, genes, **unit) for section in spots.sections]
    )
    wanted = measured
    if target.smooth_um:
        wanted = measured.copy()
        for number in spots.sections_in(train):
            section, rows = spots.sections[number], spots.rows_of(number, train)
            if section.mpp is None:
                raise InputError(
                    f"section {section.name!r}: target.smooth_um needs microns per pixel, "
                    "which are unknown"
                )
            wanted[rows] = expression.smoothed(
                measured[rows],
                spots.index.centres_px[rows],
                radius_px=target.smooth_um / section.mpp,
            )
    groups = spots.index.section[train]
    panel = expression.fit_panel(wanted[train], groups, genes, target)
    learned = np.zeros_like(measured)
    learned[train] = expression.training_targets(wanted[train], groups, panel, target)
    return measured, learned, panel


def _train_heads(
    inputs: dict[str, np.ndarray],
    learned: np.ndarray,
    spots: PairedSpots,
    fold: splits.Fold,
    config: Config,
    strategy: tf.distribute.Strategy,
    work: Path,
    *,
    resume: bool,
) -> list[head_training.TrainedHead]:
    """The head and, where that needs slide context, the single-tile head after it."""
    heads = []
    own = config.regressor.architecture
    for architecture in dict.fromkeys((own, bundle.SINGLE_TILE.get(own, own))):
        trained = head_training.train_head(
            inputs,
            learned,
            spots.index,
            fold.train,
            dataclasses.replace(config.regressor, architecture=architecture),
            seed=config.seed,
            strategy=strategy,
            checkpoint=work / "checkpoints",
            resume=resume,
        )
        say(f'Head "{architecture}": {trained.epochs} epochs, chosen on inner groups.')
        heads.append(trained)
    return heads


def _score(
    model: Bundle,
    spots: PairedSpots,
    fold: splits.Fold,
    inputs: dict[str, np.ndarray],
    statistics: np.ndarray,
    measured: np.ndarray,
    side: scoring.TrainingSide,
    split: dict[str, Any],
    work: Path,
) -> dict[str, Any]:
    """Scores the held-out spots; writes gene_scores.csv, predictions.h5ad and their maps."""
    entries, gene_tables, predictions = {}, [], []
    for number in spots.sections_in(fold.test):
        section, rows = spots.sections[number], spots.rows_of(number, fold.test)
        here = {name: values[rows] for name, values in inputs.items()}
        held = scoring.HeldOutSection(
            name=section.name,
            patient=section.patient,
            spots=spots.spots_of(number, fold.test),
            spot_pitch_px=spot_pitch_px(section, model.config),
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
        scoring.joined(predictions).write_h5ad(work / "predictions.h5ad", compression="gzip")
    return scoring.scores(entries, model.config.target, model.panel, split)


def _parity_tiles(
    spots: PairedSpots,
    prepared: Sequence[PreparedSection],
    fold: splits.Fold,
    reference: StainReference,
    path: Path,
) -> None:
    """A few stain-normalised tiles, of held-out spots where there are some."""
    among = fold.test if len(fold.test) else fold.train
    number = spots.sections_in(among)[0]
    rows = spots.rows_of(number, among) - spots.first[number]
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, PARITY_TILES).astype(int))]
    ready = prepared[number]
    group = preparing.stained(ready.spot_tiles, ready.stains, reference)
    np.savez_compressed(path, tile=datasets.normalised_rows([group], chosen))


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(metrics.json_safe(values), indent=1) + "\n", encoding="utf-8")

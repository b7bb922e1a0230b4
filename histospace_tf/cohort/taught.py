"""What sections without an image teach a fold: levels and gene factors, never a held-out patient's.

A head learns where in a section a gene is high, which takes an image. How high a gene is in a
patient never seen is best guessed by the mean over many patients, and which genes rise and fall
together shows in counts alone. `benchmarks/counts.py` measures the rules below on patients of whom
there are counts alone, each left out in turn.

* Levels: the mean over patients, with an image or without, of each one's mean over spots.
* Gene factors: principal axes of the training spots' targets and of each patient's without an
  image, all patients alike, but so that the training spots count at least half.
* Where a held-out section's patient is trained on, nothing joins: the patient's own spots say more.
* Genes of the panel, their scale, and everything that reads an image stay the training spots' own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from histospace_tf.cohort import paired
from histospace_tf.cohort.count_sections import CountSection, named_patients, summary
from histospace_tf.cohort.paired import PairedSpots
from histospace_tf.config import Config
from histospace_tf.data_pipelines import expression, gene_panel, splits
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.data_pipelines.patients import same_as
from histospace_tf.vocabulary import SpotTable, named

# Of the training spots' counts, in genes that a section does not measure: above it, its library
# sizes do not compare with theirs.
MOST_LACKING = 0.1
OF_NEW_PATIENTS = ("patient", "none")  # kinds of folds that count for patients never seen


@dataclasses.dataclass(frozen=True, eq=False)
class Joining:
    """Sections without an image on the training side of a fold.

    sections: that join; left_out: why others do not, by name.
    """

    sections: tuple[CountSection, ...]
    left_out: dict[str, str]

    def __bool__(self) -> bool:
        return bool(self.sections)

    def __str__(self) -> str:
        joined = summary(one.section for one in self.sections)
        return f"{joined} without an image join levels and gene factors"

    def lines(self) -> list[str]:
        """What joins, and what does not and why, as lines."""
        why: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            why.setdefault(reason, []).append(name)
        return [
            *([f"{self}."] if self else []),
            *(
                f"Counts of section {', '.join(names)} do not join: {r}."
                for r, names in why.items()
            ),
        ]

    def of_split(self, fold: splits.Fold) -> dict[str, Any]:
        """The entry of a split in scores.json; empty where nothing joins."""
        if not self:
            return {}
        own = {key: value for key, value in self.record().items() if key != "checksums"}
        return {"counts": [{"held_out": list(fold.held_out), **own}]}

    def record(self) -> dict[str, Any]:
        """As manifests and bundles hold it."""
        sections = [one.section for one in self.sections]
        return {
            "sections": [section.name for section in sections],
            "patients": named_patients(sections),
            "spots": sum(len(section.spots) for section in sections),
            "checksums": {one.section.name: one.checksum for one in self.sections},
        }


def joining(spots: PairedSpots, fold: splits.Fold, genes: Sequence[str], config: Config) -> Joining:
    """Which of `spots.counts` join a fold's training side.

    Those of a held-out patient never do, and no section that does not measure all of the panel.
    """
    held = {same_as(str(name)) for name in np.unique(spots.index.patient[fold.test])}
    joined, left_out = [], {}
    for one in spots.counts:
        name, patient = one.section.name, one.section.patient
        lacking = [gene for gene in genes if gene in one.lacks]
        if fold.kind not in OF_NEW_PATIENTS:
            left_out[name] = "a held-out section's patient is trained on, whose spots say more"
        elif same_as(patient) in held:
            left_out[name] = f"patient {patient!r} is held out"
        elif lacking:
            left_out[name] = (
                f"{len(lacking)} of {len(genes)} genes of the panel ({named(lacking, 3)}) are not "
                "measured there"
            )
        elif (share := _share_of_counts(spots, fold, one.lacks)) > MOST_LACKING:
            left_out[name] = (
                f"genes that hold {share:.0%} of the training spots' counts are not measured "
                "there, so that library sizes do not compare"
            )
        elif config.target.smooth_um and one.section.mpp is None:
            left_out[name] = "target.smooth_um needs microns per pixel, which are unknown"
        else:
            joined.append(one)
    return Joining(tuple(joined), left_out)


def _share_of_counts(spots: PairedSpots, fold: splits.Fold, lacks: frozenset[str]) -> float:
    if not lacks:
        return 0.0
    tables = [spots.spots_of(number, fold.train) for number in spots.sections_in(fold.train)]
    total = sum(float(table.counts.sum(dtype=np.float64)) for table in tables)
    return sum(float(table.with_genes(lacks).counts.sum(dtype=np.float64)) for table in tables) / (
        total or 1.0
    )


def levels(
    joined: Joining, measured: np.ndarray, patients: np.ndarray, panel: GenePanel
) -> np.ndarray:
    """The mean of every gene over patients.

    Args:
        measured: (n, g) training spots in the panel's unit; patients: (n,) whose they are.
    Returns:
        (g,) float32.
    """
    of: dict[str, list[np.ndarray]] = {}
    for name in np.unique(patients):
        of.setdefault(same_as(str(name)), []).append(measured[patients == name])
    for one in joined.sections:
        values = panel.measured(one.section.spots)
        of.setdefault(same_as(one.section.patient), []).append(values)
    means = [np.concatenate(parts).mean(axis=0, dtype=np.float64) for parts in of.values()]
    return np.mean(means, axis=0).astype(np.float32)


def axes(joined: Joining, panel: GenePanel, config: Config) -> dict[str, np.ndarray]:
    """Which genes rise and fall together in each patient without an image.

    Args:
        panel: as fitted on the training spots, before `levels`.
    Returns:
        Patient, as `patients.same_as` writes it -> (g, g) float64: weighted mean over spots of the
        outer product of a spot's standardised target with itself.
    """
    sums: dict[str, np.ndarray] = {}
    weights: dict[str, float] = {}
    for one in joined.sections:
        section, patient = one.section, same_as(one.section.patient)
        values = panel.measured(section.spots)
        if config.target.smooth_um:
            values = expression.smoothed(
                values, section.spots.centres_px, radius_px=paired.smoothing_px(section, config)
            )
        groups = np.full(len(values), section.name)
        learned = gene_panel.training_targets(values, groups, panel, config.target)
        learned = learned.astype(np.float64)
        each = depth_weights(section.spots, config)
        sums[patient] = sums.get(patient, 0.0) + (learned * each[:, None]).T @ learned
        weights[patient] = weights.get(patient, 0.0) + float(each.sum())
    return {patient: sums[patient] / weights[patient] for patient in sums}


def beside(
    of_patients: Mapping[str, np.ndarray],
    patients: np.ndarray,
    rows: np.ndarray,
    *,
    weights: np.ndarray,
) -> np.ndarray | None:
    """What joins the gene factors of some training spots, for `regressor.gene_factors`.

    Args:
        of_patients: of `axes`.
        patients: (n,) of all spots; rows: those training spots.
        weights: (n,) of all spots, zero but for the training side: its patients without a row are
            an inner fold's, and their counts do not join.
    Returns:
        (g, g), at the weight that it has beside the spots' own; None where nothing joins.
    """
    own, trained = (
        {same_as(str(name)) for name in np.unique(patients[at])} for at in (rows, weights > 0)
    )
    out = trained - own
    joined = [values for patient, values in of_patients.items() if patient not in out]
    if not joined:
        return None
    share = max(0.5, len(own) / (len(own) + len(joined)))
    return np.mean(joined, axis=0) * (1 - share) / share


def depth_weights(spots: SpotTable, config: Config) -> np.ndarray:
    """(n,) float64: how much each spot counts in a fit, before weights are made to average 1.

    A spot's counts are Poisson: one of few counts is mostly noise, so with "sqrt_counts" it weighs
    less. The square root, because tissue differs from model to model by more than counting noise.
    """
    if config.regressor.spot_weights == "equal":
        return np.ones(len(spots))
    return np.sqrt(spots.total_counts)

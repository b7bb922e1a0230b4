"""What a model must beat: no image, colour alone, and the measured neighbours.

Targets and predictions are (spots, genes) in the panel's unit. Every baseline but the neighbour
oracle is a function of the training side, and the ridge of the test tiles' pixels too: `fit` learns
all of them from the training spots, and a run keeps them (`Fitted`), so that they can be scored on
other data with nothing fitted again.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from histospace_tf import outputs
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.scores import ridge
from histospace_tf.scores.ridge import Ridge, checked_targets
from histospace_tf.vocabulary import InputError, named

FILE = "baselines.npz"  # of a run folder
NEIGHBOURS = 8  # that surround a spot of a square grid
NEIGHBOUR_PITCHES = 1.5  # the 8 lie within 1.42 pitches


def colour_ridge(
    train_stats: np.ndarray,
    train_targets: np.ndarray,
    test_stats: np.ndarray,
    *,
    groups: np.ndarray,
) -> np.ndarray:
    """`ridge.fit` on the training side, applied to the test side.

    Args:
        train_stats: (n, s); train_targets: (n, g); test_stats: (m, s).
        groups: (n,) section name of every training spot.
    Returns:
        (m, g) float32 in the targets' unit. Nothing of the test side is fitted.
    Raises:
        InputError: as `ridge.fit` and `Ridge.predict`.
    """
    return ridge.fit(train_stats, train_targets, groups=groups).predict(test_stats)


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """All that the baselines of a run learned, from its training spots alone.

    genes: g names.
    mean: (g,) float32, of every gene over the training spots, in the panel's unit.
    patients: p names; patient_means: (p, g) float32, of every patient's training spots.
    ridge: from colour statistics to the panel's unit.
    neighbours, neighbour_pitches: how many neighbours the oracle averages, and how far they lie.
    """

    genes: tuple[str, ...]
    mean: np.ndarray
    patients: tuple[str, ...]
    patient_means: np.ndarray
    ridge: Ridge
    neighbours: int = NEIGHBOURS
    neighbour_pitches: float = NEIGHBOUR_PITCHES

    def predictions(
        self,
        patient: str,
        statistics: np.ndarray,
        measured: np.ndarray,
        centres_px: np.ndarray,
        *,
        spot_pitch_px: float,
    ) -> dict[str, np.ndarray | None]:
        """Every baseline's prediction for the spots of one section.

        Args:
            patient: the section's; "patient_mean" is None where none of theirs was trained on.
            statistics: (n, s) of `colour_statistics`, stain-normalised as in training.
            measured: (n, g) in the panel's unit; read by "neighbour_oracle" alone.
            centres_px: (n, 2); spot_pitch_px: distance of neighbouring spots.
        Returns:
            (n, g) float32 each: gene_mean, patient_mean, colour_ridge, neighbour_oracle.
        """
        n = len(measured)
        own = self.patients.index(patient) if patient in self.patients else None
        return {
            "gene_mean": np.tile(self.mean, (n, 1)),
            "patient_mean": None if own is None else np.tile(self.patient_means[own], (n, 1)),
            "colour_ridge": self.ridge.predict(statistics),
            "neighbour_oracle": neighbour_oracle(
                measured,
                centres_px,
                radius_px=self.neighbour_pitches * spot_pitch_px,
                neighbours=self.neighbours,
            ),
        }

    def on_genes(self, genes: Sequence[str]) -> Fitted:
        """The same for some of the genes, in the order given.

        Raises:
            InputError: a gene that was not trained on.
        """
        at = {gene: column for column, gene in enumerate(self.genes)}
        unknown = [gene for gene in genes if gene not in at]
        if unknown:
            raise InputError(f"the baselines do not know {named(unknown)}")
        columns = [at[gene] for gene in genes]
        return dataclasses.replace(
            self,
            genes=tuple(genes),
            mean=self.mean[columns],
            patient_means=self.patient_means[:, columns],
            ridge=dataclasses.replace(
                self.ridge,
                coefficients=np.ascontiguousarray(self.ridge.coefficients[:, columns]),
                intercept=self.ridge.intercept[columns],
            ),
        )

    def save(self, path: Path) -> None:
        """Writes them as RUN/baselines.npz (FILE), whole or not at all."""
        values: dict[str, Any] = {
            "genes": np.array(self.genes, str),
            "mean": self.mean,
            "patients": np.array(self.patients, str),
            "patient_means": self.patient_means,
            "neighbours": self.neighbours,
            "neighbour_pitches": self.neighbour_pitches,
        }
        values |= {
            f"ridge_{f.name}": getattr(self.ridge, f.name) for f in dataclasses.fields(Ridge)
        }
        with outputs.whole_file(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **values)


def fit(
    measured: np.ndarray,
    learned: np.ndarray,
    statistics: np.ndarray,
    *,
    patients: np.ndarray,
    sections: np.ndarray,
    panel: GenePanel,
) -> Fitted:
    """Fits every baseline to the training spots.

    Args:
        measured: (n, g) in the panel's unit.
        learned: (n, g) the standardised targets that the model learns; the ridge learns them too.
        statistics: (n, s) of `colour_statistics`.
        patients, sections: (n,) names.
        panel: its `to_unit` turns the ridge's output into the unit.
    Raises:
        InputError: no training spots, shapes that do not agree, values that are not finite.
    """
    colour = ridge.fit(statistics, learned, groups=sections)
    scale, mean = (np.asarray(values, np.float64) for values in (panel.scale, panel.mean))
    names = tuple(str(name) for name in np.unique(patients))
    means = [patient_mean(measured, patients, name, 1) for name in names]
    return Fitted(
        genes=panel.genes,
        mean=gene_mean(measured, 1)[0],
        patients=names,
        patient_means=np.concatenate([mean for mean in means if mean is not None]),
        ridge=dataclasses.replace(
            colour,
            coefficients=colour.coefficients * scale,
            intercept=colour.intercept * scale + mean,
        ),
    )


def load(run: Path) -> Fitted:
    """The baselines of a run folder, or of the file itself.

    Raises:
        InputError: the run has none (an older version wrote it), or the file is not whole.
    """
    path = run / FILE if run.is_dir() else run
    again = "run `histospace-tf fit` again"
    try:
        with np.load(path, allow_pickle=False) as values:
            kept = {f.name: values[f"ridge_{f.name}"] for f in dataclasses.fields(Ridge)}
            return Fitted(
                genes=tuple(str(gene) for gene in values["genes"]),
                mean=values["mean"],
                patients=tuple(str(name) for name in values["patients"]),
                patient_means=values["patient_means"],
                ridge=Ridge(**kept | {"strength": float(kept["strength"])}),
                neighbours=int(values["neighbours"]),
                neighbour_pitches=float(values["neighbour_pitches"]),
            )
    except FileNotFoundError:
        raise InputError(
            f"{str(run)!r} holds no {FILE}, so its baselines cannot be scored on other data: the "
            f"run is incomplete, or an older version wrote it; {again}"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not readable: {error}; {again}") from None


def gene_mean(train_targets: np.ndarray, n: int) -> np.ndarray:
    """The mean of every gene over the training spots, for each of `n` spots: no image at all.

    Returns:
        (n, g) float32, all rows equal.
    Raises:
        InputError: no training spots.
    """
    targets = checked_targets(train_targets)
    return np.tile(targets.mean(axis=0).astype(np.float32), (n, 1))


def patient_mean(
    train_targets: np.ndarray, train_patients: np.ndarray, patient: str, n: int
) -> np.ndarray | None:
    """`gene_mean` over the training spots of one patient; None where there is none of theirs.

    Where the split holds out patients this is always None; where it holds out sections it says how
    far knowing the patient alone goes.

    Raises:
        InputError: no training spots, or patients that do not go with them.
    """
    targets = checked_targets(train_targets)
    if np.shape(train_patients) != (len(targets),):
        raise InputError(
            f"{len(targets)} training spots, but patients of shape {np.shape(train_patients)}"
        )
    of_patient = np.asarray(train_patients) == patient
    return gene_mean(targets[of_patient], n) if of_patient.any() else None


def neighbour_oracle(
    measured: np.ndarray, centres_px: np.ndarray, *, radius_px: float, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Measured mean of a spot's nearest neighbours: what smoothness of the tissue alone explains.

    It reads the held-out section's expression, so it is a mark to compare with and no predictor.

    Args:
        measured: (n, g) of one section; centres_px: (n, 2) full-resolution pixels.
        radius_px: farthest that a neighbour may be, inclusive, in the same pixels.
        neighbours: at most so many, the nearest; 8 surround a spot of a square grid.
    Returns:
        (n, g) float32. The spot itself is left out; one without neighbours gets the section's mean.
    Raises:
        InputError: shapes that do not agree, a radius that is not above zero.
    """
    measured = checked_targets(measured)
    n = len(measured)
    if centres_px.shape != (n, 2):
        raise InputError(f"{n} spots need ({n}, 2) centres, not {centres_px.shape}")
    if not radius_px > 0 or neighbours < 1:
        raise InputError(
            f"radius of {radius_px!r} px and {neighbours} neighbours: both must be above zero"
        )
    nearest = range(1, min(neighbours + 1, n) + 1)  # a list of ranks keeps the answer 2-D
    distance, found = cKDTree(centres_px).query(centres_px, k=list(nearest))
    # A spot that shares its place with others need not come first among its own neighbours.
    near = (found != np.arange(n)[:, None]) & (distance <= radius_px)
    near &= np.cumsum(near, axis=1) <= neighbours
    total, how_many = np.zeros_like(measured), near.sum(axis=1)
    for is_near, index in zip(near.T, found.T, strict=True):
        total[is_near] += measured[index[is_near]]
    total[how_many == 0] = measured.mean(axis=0)
    return (total / np.maximum(how_many, 1)[:, None]).astype(np.float32)

"""One row per gene: how well its map is predicted, how sure that is, whether to trust it.

Everything is measured on held-out spots, within sections: `gene_r` is the mean over sections of
Pearson's r over the spots of a section (`metrics.gene_r_each`), sections count alike. A section
does not score a gene that its model lacks (NaN) or that is constant as measured.

Neighbouring spots resemble each other and sections of a patient repeat each other, so shuffling
single spots finds too much: `p` does that because papers report it, and 17 to 46 % of unrelated
smooth maps pass its 0.05. `p_spatial` allows for both, and trust rests on it. resampling.py says
how each is made and how often each is wrong. False finds among genes: Benjamini & Hochberg, J. R.
Stat. Soc. B 57, 1995; Holm, Scand. J. Stat. 6, 1979.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import stats

from histospace_tf.scores import metrics, resampling
from histospace_tf.vocabulary import InputError, named, repeats

TRUST_LEVEL = 0.05  # share of false finds that is put up with (Benjamini-Hochberg, p_spatial)
TRUST_R = 0.2  # with a smaller r a map does not look like its gene
UNKNOWN = "unknown"  # trust of a gene that was never scored
TRUST = ("yes", "weak", "no", UNKNOWN)


@dataclasses.dataclass(frozen=True, eq=False)
class _Section:
    """Held-out spots of one section; both maps (n, g), NaN columns where a gene is absent."""

    name: str
    patient: str
    centres_px: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray


def gene_table(
    table: anndata.AnnData,
    *,
    seed: int = 0,
    bootstraps: int = 1000,
    permutations: int = 10_000,
    baselines: Sequence[str] = (),
) -> pd.DataFrame:
    """Scores every gene of held-out predictions and says which ones to trust.

    Args:
        table: `predictions.h5ad`: X predicted, layers["measured"] in the same unit, obs section and
            patient, obsm["spatial"] full-resolution pixels. A gene that a section lacks is NaN in
            all spots of it.
        seed: decides the resampling; results do not depend on the order of genes.
        bootstraps: resamples for the interval.
        permutations: for both p values. With 10,000 the smallest p is 1e-4, and 250 genes can pass
            Holm's 0.05; with 1,000 none ever could.
        baselines: layers of other predictions; those that the table lacks are left out.
    Returns:
        One row per gene, in the table's order: gene; sections, patients and spots that scored it;
        gene_r;
        lowest_patient_r, the mean r over sections of the patient where that is lowest; low, high;
        p, p_bh, p_holm; p_spatial, p_spatial_bh; share_positive, the share of sections with r > 0;
        BASELINE_r of each baseline; trust. Numbers are NaN for a gene that no section
        scored. trust is

        * "yes": p_spatial_bh < TRUST_LEVEL, low > 0, r > 0 in every section,
          lowest_patient_r >= TRUST_R, and two patients or more, where the table has two. Each
          guards against another mistake: chance, a few lucky blocks of spots, one section that
          carries the mean, a relation that is too faint to be of use, or holds in one patient
          alone.
        * "weak": gene_r > 0, low > 0 and p_spatial < TRUST_LEVEL for itself alone: a hint.
        * "no": the rest, well predicted or not: the data do not show it.
        * "unknown": no section scored it.
    Raises:
        InputError: a part of the table is missing or of another shape, a gene is NaN in some spots
            of a section alone, a value is infinite, a section has two patients, no resamples.
    """
    sections = _sections(table)
    r = _each_r(sections)
    scored = ~np.isnan(r)
    maps = [
        resampling.section_maps(
            section.patient, section.centres_px, section.predicted, section.measured, ok
        )
        for section, ok in zip(sections, scored, strict=True)
    ]
    low, high = resampling.interval(maps, seed=seed, bootstraps=bootstraps)
    p = resampling.p_shuffled_spots(maps, seed=seed, permutations=permutations)
    p_spatial = resampling.p_random_maps(maps, seed=seed, permutations=permutations)
    sizes = np.array([len(section.centres_px) for section in sections])
    patients = np.array([section.patient for section in sections])
    columns: dict[str, object] = {
        "gene": [str(gene) for gene in table.var_names],
        "sections": scored.sum(axis=0),
        "patients": np.sum([scored[patients == who].any(axis=0) for who in set(patients)], axis=0),
        "spots": (scored * sizes[:, None]).sum(axis=0),
        "gene_r": _mean_of_scored(r),
        "lowest_patient_r": _lowest_patient(r, patients),
        "low": low,
        "high": high,
        "p": p,
        "p_bh": _adjusted(p, stats.false_discovery_control),
        "p_holm": _adjusted(p, resampling.holm),
        "p_spatial": p_spatial,
        "p_spatial_bh": _adjusted(p_spatial, stats.false_discovery_control),
        "share_positive": _mean_of_scored(np.where(scored, r > 0, np.nan)),
    }
    for name in baselines:
        if name in table.layers:
            columns[f"{name}_r"] = _mean_of_scored(_each_r(_sections(table, name)))
    genes = pd.DataFrame(columns)
    genes["trust"] = _trust(genes, least_patients=min(2, len(set(patients))))
    return genes


def trust_of(genes: Sequence[str], path: Path) -> pd.DataFrame:
    """What an evaluation's genes.csv says of `genes`: columns trust and gene_r, indexed by gene.

    A gene without a row has trust "unknown" and gene_r NaN.

    Raises:
        InputError: the file cannot be read, lacks a column, has a gene twice or another trust.
    """
    try:  # "NA" may be a gene
        table = pd.read_csv(
            path,
            dtype={"gene": str, "trust": str, "gene_r": float},
            keep_default_na=False,
            na_values={"gene_r": ["", "nan"]},
        )
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table of genes: {error}") from None
    missing = [name for name in ("gene", "gene_r", "trust") if name not in table]
    if missing:
        raise InputError(
            f"{path}: column {named(missing)} is missing from {named(list(table), 8)}; "
            "an evaluation's genes.csv has it"
        )
    strange = sorted(set(table["trust"]) - set(TRUST))
    if strange:
        raise InputError(f"{path}: trust {named(strange)}; one of {named(TRUST)} is needed")
    if twice := repeats(list(table["gene"])):
        raise InputError(f"{path}: {named(twice)} named more than once; one row per gene is needed")
    rows = table.set_index("gene").reindex(list(genes))[["trust", "gene_r"]]
    return rows.fillna({"trust": UNKNOWN})


def _sections(table: anndata.AnnData, layer: str | None = None) -> list[_Section]:
    """The table's sections in order of appearance, `layer` (None: X) as what was predicted."""
    lacking = [
        *(f"obs[{name!r}]" for name in ("section", "patient") if name not in table.obs),
        *(["layers['measured']"] if "measured" not in table.layers else []),
        *(["obsm['spatial']"] if "spatial" not in table.obsm else []),
    ]
    if lacking:
        raise InputError(
            f"table of predictions: {', '.join(lacking)} is missing; predictions.h5ad has it"
        )
    if twice := repeats(list(table.var_names)):
        raise InputError(f"table of predictions: genes named more than once: {named(twice)}")
    if not table.n_obs or not table.n_vars:
        raise InputError(f"table of predictions: {table.n_obs} spots x {table.n_vars} genes")
    centres = np.asarray(table.obsm["spatial"], np.float64)
    if centres.shape != (table.n_obs, 2) or not np.isfinite(centres).all():
        raise InputError(
            f"obsm['spatial']: finite ({table.n_obs}, 2) centres are needed, not {centres.shape}"
        )
    predicted = table.to_df(layer).to_numpy(np.float64)
    measured = table.to_df("measured").to_numpy(np.float64)
    names = table.obs["section"].astype(str).to_numpy()
    patients = table.obs["patient"].astype(str).to_numpy()
    sections = []
    for name in dict.fromkeys(names):
        rows = names == name
        if len(set(patients[rows])) > 1:
            raise InputError(
                f"section {name!r} has patients {named(sorted(set(patients[rows])))}; one is needed"
            )
        for what, values in ((layer or "predicted", predicted), ("measured", measured)):
            absent = np.isnan(values[rows])
            bad = np.isinf(values[rows]).any(axis=0) | (absent.any(axis=0) & ~absent.all(axis=0))
            if bad.any():
                gene = table.var_names[int(np.argmax(bad))]
                raise InputError(
                    f"section {name!r}, gene {gene!r}: {what} is infinite, or NaN in some spots "
                    "alone; NaN in all of them says that the gene is absent there"
                )
        pair = (predicted[rows], measured[rows])
        sections.append(_Section(name, patients[rows][0], centres[rows], *pair))
    return sections


def _each_r(sections: Sequence[_Section]) -> np.ndarray:
    """(sections, g) r; NaN where a gene is absent or constant as measured."""
    r = np.full((len(sections), sections[0].measured.shape[1]), np.nan)
    for row, section in zip(r, sections, strict=True):
        there = np.isfinite(section.predicted[0]) & np.isfinite(section.measured[0])
        row[there] = metrics.gene_r_each(section.predicted[:, there], section.measured[:, there])
    return r


def _adjusted(p: np.ndarray, method: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`method` over the genes that have a p value."""
    adjusted = np.full_like(p, np.nan)
    some = ~np.isnan(p)
    if some.any():
        adjusted[some] = method(p[some])
    return adjusted


def _mean_of_scored(values: np.ndarray) -> np.ndarray:
    """(g,) mean over sections without NaN; NaN where nothing is left."""
    some = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(some, values, 0.0).sum(axis=0) / some.sum(axis=0)


def _lowest_patient(r: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """(g,) of each patient's mean r over sections, the lowest; NaN where no section scored."""
    means = np.stack([_mean_of_scored(r[patients == who]) for who in dict.fromkeys(patients)])
    lowest = np.where(np.isnan(means), np.inf, means).min(axis=0)
    return np.where(np.isinf(lowest), np.nan, lowest)


def _trust(genes: pd.DataFrame, *, least_patients: int) -> np.ndarray:
    """The rule of `gene_table`."""
    sure = (genes["low"] > 0) & (genes["gene_r"] > 0)
    weak = sure & (genes["p_spatial"] < TRUST_LEVEL)
    yes = sure & (genes["p_spatial_bh"] < TRUST_LEVEL) & (genes["share_positive"] == 1)
    yes &= (genes["lowest_patient_r"] >= TRUST_R) & (genes["patients"] >= least_patients)
    return np.select([genes["sections"] == 0, yes, weak], [UNKNOWN, "yes", "weak"], "no")

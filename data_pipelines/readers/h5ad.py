"""AnnData files (.h5ad) of one section or several, as scanpy and squidpy write them.

    layers["counts"], X or raw.X      raw counts: the first of them that is there and holds them
    obsm["spatial"]                   full-resolution pixels, x first
    obs array_row, array_col          places on the array, where known
    obs in_tissue                     0: skipped
    uns["spatial"][library]           scale factors and previews, where there are some
    <the file's name>.tif             the full-resolution image beside it, put there by the user

Several sections: a column library_id, section, section_id or sample_id of obs tells them apart, or
any column that holds the names in uns["spatial"].

Tried on a real file of 49 Visium spots and on made ones.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.readers import measured, tissue_positions
from histospace_tf.data_pipelines.readers.previews import Preview
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.vocabulary import InputError, Problem, named

LOOKS_FOR = 'a file .h5ad with obsm["spatial"]'
_SECTION_COLUMNS = ("library_id", "section", "section_id", "sample_id")
_PATIENT_COLUMNS = ("patient", "patient_id", "donor", "donor_id")
_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id")


def recognises(path: Path) -> bool:
    """Whether a path is a file .h5ad."""
    return path.suffix.lower() == ".h5ad" and path.is_file()


def find_sections(path: Path) -> tuple[list[Source], list[Problem]]:
    """The sections in a file; one that is not told apart is named by the file.

    Raises:
        InputError: the file is damaged, or no column tells its sections apart.
    """
    try:
        with h5py.File(path) as h5:
            obs = anndata.io.read_elem(h5["obs"])
            libraries = list(h5["uns/spatial"]) if "uns/spatial" in h5 else []
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as AnnData ({error})") from None
    column = _section_column(path, obs, libraries)
    if column is None:
        image = _image_beside(path)
        patient = _patient(obs) or path.stem
        return [H5adSection(name=path.stem, patient=patient, image=image, file=path)], []
    sources: list[Source] = []
    for name in pd.unique(obs[column].astype(str)):
        patient = _patient(obs[obs[column].astype(str) == name]) or name
        sources.append(H5adSection(name=name, patient=patient, file=path, column=column))
    return sources, []


def _section_column(path: Path, obs: pd.DataFrame, libraries: list[str]) -> str | None:
    for column in _SECTION_COLUMNS:
        if column in obs and obs[column].nunique() > 1:
            return column
    if len(libraries) < 2:
        return None
    for column in obs:
        if obs[column].nunique() > 1 and set(obs[column].astype(str)) <= set(libraries):
            return str(column)
    raise InputError(
        f'{str(path)!r} has {len(libraries)} sections in uns["spatial"] ({named(libraries, 3)}), '
        "and no column of obs tells whose a spot is; a column library_id works"
    )


def _patient(obs: pd.DataFrame) -> str | None:
    for column in _PATIENT_COLUMNS:
        if column in obs and obs[column].nunique() == 1:
            return str(obs[column].iloc[0])
    return None


def _image_beside(path: Path) -> Path | None:
    found = [
        file
        for file in sorted(path.parent.iterdir())
        if file.stem == path.stem and file.suffix.lower() in slides.SUFFIXES
    ]
    return found[0] if len(found) == 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class H5adSection(measured.MeasuredSource):
    """One section of a file.

    column: of obs, that holds `key` or, without one, the section's name in its spots; None: all.
    spot_um, pitch_um, stated_by: where somebody else states them.
    """

    file: Path
    column: str | None = None
    key: str | None = None
    spot_um: float | None = None
    pitch_um: float | None = None
    stated_mpp: float | None = None
    stated_by: str = ""

    def _measured(self, where: str, problems: list[Problem]) -> measured.Measured:
        try:
            data = anndata.read_h5ad(self.file)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{str(self.file)!r} cannot be read as AnnData ({error})") from None
        if self.column is not None:
            data = data[(data.obs[self.column].astype(str) == (self.key or self.name)).to_numpy()]
        if "in_tissue" in data.obs:
            in_tissue = data.obs["in_tissue"].astype(int).to_numpy() != 0
            if not in_tissue.all():
                problems.append(
                    Problem(
                        "note",
                        where,
                        f"{(~in_tissue).sum()} of {len(in_tissue)} spots are not under tissue "
                        "(in_tissue is 0): skipped.",
                    )
                )
                data = data[in_tissue]
        if "spatial" not in data.obsm:
            raise InputError(
                f'{str(self.file)!r} has no obsm["spatial"], the spots\' pixels; it has obsm '
                f"{named(list(data.obsm), 5) or 'nothing'}"
            )
        counts, var, origin = _raw_counts(data, self.file)
        if origin != "X":
            problems.append(Problem("note", where, f"raw counts are taken from {origin}."))
        genes, ids, more = _genes(where, var)
        problems += more
        library = _library(data, self.key or self.name)
        scales = tissue_positions.scales_of(library.get("scalefactors", {}))
        array_xy, platform = self._array(data, scales)
        # A platform whose spots are the nominal 65 um: Space Ranger's Visium.
        nominal = scales.spot_diameter_px if scales.bin_um is None and not self.pitch_um else None
        return measured.Measured(
            names=tuple(map(str, data.obs_names)),
            pixel_xy=np.asarray(data.obsm["spatial"], np.float64)[:, :2],
            array_xy=array_xy,
            counts=sparse.csr_matrix(counts, dtype=np.float32),
            counts_from=f"{self.file.name}, {origin}",
            genes=genes,
            gene_ids=ids,
            platform=platform or (measured.VISIUM if nominal else None),
            stated_mpp=self.stated_mpp or scales.mpp,
            stated_by=self.stated_by or "microns_per_pixel of the file's scale factors",
            spot_diameter_px=nominal,
            shrunk=_previews(library, scales),
        )

    def _array(
        self, data: anndata.AnnData, scales: tissue_positions.Scales
    ) -> tuple[np.ndarray | None, measured.Platform | None]:
        array_xy = None
        if {"array_row", "array_col"} <= set(data.obs):
            array_xy = data.obs[["array_col", "array_row"]].to_numpy(np.float64)
        if scales.bin_um is not None:
            return array_xy, measured.visium_hd(scales.bin_um)
        # Of Visium's array, every second place is there: column and row are both even or both odd.
        hexagonal = array_xy is not None and (array_xy.sum(axis=1) % 2 == 0).all()
        if hexagonal and self.pitch_um in (None, measured.VISIUM.pitch_um):
            return array_xy, measured.VISIUM
        if self.pitch_um is None:
            return None, None
        spot_um = self.spot_um or self.pitch_um
        return array_xy, measured.Platform(spot_um, self.pitch_um, (self.pitch_um, self.pitch_um))


def _raw_counts(data: anndata.AnnData, file: Path) -> tuple[Any, pd.DataFrame, str]:
    """(n, g) raw counts, the genes they belong to, and where they were found.

    Raises:
        InputError: nothing in the file holds whole numbers.
    """
    options = [("X", data.X, data.var)]
    if "counts" in data.layers:
        options.insert(0, ('layers["counts"]', data.layers["counts"], data.var))
    if data.raw is not None:
        options.append(("raw.X", data.raw.X, data.raw.var))
    seen = []
    for origin, values, var in options:
        if values is None:
            continue
        stored = values.data if sparse.issparse(values) else np.asarray(values)
        if (stored % 1 == 0).all():
            return values, var, origin
        fraction = float(stored[stored % 1 != 0].flat[0])
        seen.append(f"{origin} holds {fraction:.4g} (its largest value is {stored.max():.4g})")
    raise InputError(
        f"{str(file)!r} holds no raw counts: {'; '.join(seen) or 'X is empty'}; counts are whole "
        'numbers. Values that were normalised cannot be used: put the counts into layers["counts"]'
    )


def _genes(where: str, var: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...], list[Problem]]:
    """Names of the genes as the file has them, made unique, and their Ensembl ids."""
    names = [str(name) for name in var.index]
    column = next((name for name in _ID_COLUMNS if name in var), None)
    ids = names if column is None else [str(value) for value in var[column]]
    genes, problems = measured.unique_genes(where, names, ids)
    return genes, () if column is None else tuple(ids), problems


def _library(data: anndata.AnnData, name: str) -> dict[str, Any]:
    """The entry of uns["spatial"] that belongs to a section; empty where there is none."""
    libraries = data.uns.get("spatial", {})
    if name in libraries:
        return libraries[name]
    return next(iter(libraries.values())) if len(libraries) == 1 else {}


def _previews(library: dict[str, Any], scales: tissue_positions.Scales) -> tuple[Preview, ...]:
    images = library.get("images", {})
    found = []
    for name, scale in scales.shrunk.items():
        size, black = None, False
        if name in images:
            height, width = np.shape(images[name])[:2]
            size, black = (int(width), int(height)), not np.asarray(images[name]).any()
        found.append(Preview(name, scale, size, black))
    return tuple(found)

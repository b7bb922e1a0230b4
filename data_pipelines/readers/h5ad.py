"""AnnData (.h5ad, or a folder .zarr) of one section or several, as scanpy and squidpy write them.

    layers["counts"], X or raw.X      raw counts: the first of them that holds some
    obsm["spatial"]                   full-resolution pixels, x first
    obs array_row, array_col          places on the array, where known
    obs in_tissue                     0 or False: skipped
    uns["spatial"][library]           scale factors and previews, where there are some
    <the file's name>.tif, .ome.tif   the full-resolution image beside it, put there by the user

Several sections are separated by a column of obs that holds the names of the libraries in
uns["spatial"], or by the column that the user names. Otherwise the file is one section.

Tried on a real file of 49 Visium spots and on made ones.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import anndata
import numpy as np
import pandas as pd

from histospace_tf.data_pipelines.readers import (
    anndata_counts,
    anndata_files,
    anndata_obs,
    images,
    measured,
)
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.spots import platforms, previews
from histospace_tf.data_pipelines.spots.scale import StatedScale
from histospace_tf.vocabulary import InputError, Problem, named

MAY_LACK_PATIENTS = True
LOOKS_FOR = 'AnnData, a file .h5ad or a folder .zarr, with obsm["spatial"]'


def recognises(path: Path) -> bool:
    """Whether a path is a file .h5ad or a zarr folder of AnnData."""
    return anndata_files.is_anndata(path)


def find_sections(
    path: Path, *, section_column: str | None = None
) -> tuple[list[Source], list[Problem]]:
    """Finds the sections in a file; a single one has the file's name.

    Args:
        path: a file .h5ad or a folder .zarr.
        section_column: column of obs whose values are sections; None: as uns["spatial"] names them.
    Raises:
        InputError: the file is damaged, or no column separates its sections.
    """
    obs, libraries, places = anndata_files.read_obs(path)
    try:
        column, problems = anndata_obs.section_column(obs, libraries, places, asked=section_column)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None
    problems = [dataclasses.replace(problem, where=path.name) for problem in problems]
    values = None if column is None else anndata_obs.as_text(obs[column])
    names = [] if values is None else [v for v in dict.fromkeys(values) if v is not None]
    if values is None or column is None or (len(names) == 1 and section_column is None):
        image, more = images.image_named(path.parent, path.stem)
        patient, unclear = patient_of(obs, path.stem)
        keep_all = len(libraries) < 2  # spots without a name can be of no other library
        source = H5adSection(
            name=path.stem,
            image=image,
            file=path,
            column=None if keep_all else column,
            key=names[0] if names else None,
            patient=patient,
            unclear_patient=unclear,
        )
        return [source], [*problems, *more, *([] if keep_all else _nameless(path, obs, column))]
    sources: list[Source] = []
    for name in names:
        patient, unclear = patient_of(obs[values == name], name)
        sources.append(
            H5adSection(
                name=name,
                patient=patient,
                file=path,
                column=column,
                unclear_patient=unclear,
                is_only=len(names) == 1,
            )
        )
    return sources, [*problems, *_nameless(path, obs, column)]


def _nameless(path: Path, obs: pd.DataFrame, column: str | None) -> list[Problem]:
    """A warning of spots without a value in the column of sections."""
    if column is None:
        return []
    lost = [
        str(name)
        for name, value in zip(obs.index, anndata_obs.as_text(obs[column]), strict=True)
        if value is None
    ]
    if not lost:
        return []
    return [
        Problem(
            "warning",
            path.name,
            f"{len(lost)} of {len(obs)} spots have no value in obs[{column!r}] "
            f"({named(lost, 3)}): left out.",
        )
    ]


def patient_of(obs: pd.DataFrame, section: str) -> tuple[str, str]:
    """The patient of a section, and "".

    Without a column of patients it is the section itself; where several are named it is "", and the
    second value says why.
    """
    column, names = anndata_obs.patients(obs)
    if len(names) > 1:
        unclear = (
            f"obs[{column!r}] names {len(names)} patients ({named(names, 3)}); a section is of "
            "one. If these are several sections, `section_column` NAME tells them apart"
        )
        return "", unclear
    return (names[0] if names else section), ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class H5adSection(measured.MeasuredSource):
    """One section of a file.

    column: column of obs that holds `key` (or the section's name) in its spots; None: all spots.
    spot_um, pitch_um, stated: size, distance and scale, where something else than the file
        states them.
    unclear_patient: why `patient` is empty, where it is.
    is_only: the file holds no other section.
    """

    chooses_image: ClassVar[bool] = True

    file: Path
    column: str | None = None
    key: str | None = None
    spot_um: float | None = None
    pitch_um: float | None = None
    stated: StatedScale | None = None
    unclear_patient: str = ""
    is_only: bool = True

    def _measured(self, where: str, problems: list[Problem]) -> measured.Measured:
        if not self.patient:
            raise InputError(self.unclear_patient)
        data = anndata_files.read(self.file)
        if self.column is not None:
            data = data[anndata_obs.as_text(data.obs[self.column]) == (self.key or self.name)]
        name = self.key or self.name
        library = anndata_files.library_of(data, name, is_only=self.is_only)
        if not library and (others := list(anndata_files.libraries(data.uns))):
            text = f'uns["spatial"] has no entry {name!r}, only {named(others, 3)}, whose scale '
            text += "factors and previews may be another section's: not used."
            problems.append(Problem("warning", where, text))
        scales = previews.scale_factors_of(anndata_files.part(library, "scalefactors"))
        stated = self.stated or StatedScale(
            None, "from microns_per_pixel of the file's scale factors"
        )
        spots = measured_of(
            data,
            scales,
            where=where,
            problems=problems,
            file=self.file,
            spot_um=self.spot_um,
            pitch_um=self.pitch_um,
            stated=dataclasses.replace(stated, mpp=stated.mpp or scales.mpp),
        )
        return dataclasses.replace(spots, shrunk=anndata_files.previews_of(library, scales))


def measured_of(
    data: anndata.AnnData,
    scales: previews.ScaleFactors,
    *,
    where: str,
    problems: list[Problem],
    file: Path,
    spot_um: float | None = None,
    pitch_um: float | None = None,
    stated: StatedScale,
) -> measured.Measured:
    """Takes the spots under tissue and their raw counts from one section's table.

    Args:
        data: obsm["spatial"] in full-resolution pixels, x first.
        scales: its scale factors, unknown ones None.
        where: the section, for problems; problems: the list that they are added to.
        file: for messages.
        spot_um, pitch_um: size and distance of spots, where known.
        stated: scale that the data state.
    Raises:
        InputError: no spot is under tissue, or there are no raw counts.
    """
    names = [str(name) for name in data.obs_names]
    inside, more = anndata_obs.under_tissue(data.obs, names, where)
    problems += more
    if not inside.all():
        data = data[inside]
    gene_counts, origin = anndata_counts.gene_counts(where, str(file), data)
    problems += gene_counts.problems
    places = np.asarray(data.obsm["spatial"], np.float64)
    if places.ndim != 2 or places.shape[1] < 2:
        raise InputError(f'obsm["spatial"] has shape {places.shape}; (spots, 2) is needed')
    if places.shape[1] > 2:
        text = f'obsm["spatial"] has {places.shape[1]} columns: the first two, x and y, are read.'
        problems.append(Problem("note", where, text))
    array_xy, platform = _array(data, scales, spot_um=spot_um, pitch_um=pitch_um)
    # Of an unknown platform: `measured` finds out which one it can be.
    nominal = scales.spot_diameter_px if scales.bin_um is None and not pitch_um else None
    return measured.Measured(
        names=tuple(map(str, data.obs_names)),
        pixel_xy=places[:, :2],
        array_xy=array_xy,
        counts=gene_counts.counts,
        counts_from=f"{file.name}, {origin}",
        genes=gene_counts.genes,
        gene_ids=gene_counts.gene_ids,
        platform=platform,
        stated=stated,
        spot_diameter_px=nominal,
        labels=anndata_obs.labels(data.obs),
    )


def _array(
    data: anndata.AnnData,
    scales: previews.ScaleFactors,
    *,
    spot_um: float | None,
    pitch_um: float | None,
) -> tuple[np.ndarray | None, platforms.Platform | None]:
    array_xy = None
    if {"array_row", "array_col"} <= set(data.obs):
        numbers = [
            pd.to_numeric(data.obs[name].astype(object), errors="coerce")
            for name in ("array_col", "array_row")
        ]
        array_xy = np.column_stack([n.to_numpy(np.float64, na_value=np.nan) for n in numbers])
        if not np.isfinite(array_xy).all():
            array_xy = None  # some spots have no array position: the array is unknown
    if scales.bin_um is not None:
        return array_xy, platforms.visium_hd(scales.bin_um)
    # Of Visium's array, every second place is there: column and row are both even or both odd.
    hexagonal = array_xy is not None and (array_xy.sum(axis=1) % 2 == 0).all()
    if hexagonal and pitch_um in (None, platforms.VISIUM.pitch_um):
        return array_xy, platforms.VISIUM
    if pitch_um is None:
        return None, None
    return array_xy, platforms.Platform(spot_um or pitch_um, pitch_um, (pitch_um, pitch_um))

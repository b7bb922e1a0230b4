"""The nouns of the package, validated when made. Floor 0: NumPy and SciPy alone.

Coordinates are full-resolution image pixels, x (column) first, y (row) second, origin at the top
left corner of the image, pixel centres at whole numbers.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

Normalisation = Literal["library_size_log1p", "library_size_log10"]
StainMethod = Literal["vahadane", "macenko", "reinhard", "none"]
NORMALISATIONS: tuple[str, ...] = typing.get_args(Normalisation)
STAIN_METHODS: tuple[str, ...] = typing.get_args(StainMethod)


class InputError(ValueError):
    """A user's mistake: the message names the value and what would work."""


class CheckError(RuntimeError):
    """Something made here failed its own check: the message names it and the numbers."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One finding about a data set.

    severity: "note" (handled), "warning" (usable, look at it) or "error" (unusable).
    """

    severity: str
    where: str  # section, file or gene that it is about
    message: str  # what is wrong, with numbers and names
    advice: str = ""  # what the user can do about it

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" {self.advice}" if self.advice else "")


@dataclasses.dataclass(frozen=True, eq=False)
class SpotTable:
    """Measured spots of one section.

    names: n spot names, unique within the section, as the data writes them ("24x13", a barcode).
    centres_px: (n, 2) float64, full-resolution pixels, x first.
    counts: (n, g) CSR float32, non-negative.
    genes: g gene names, unique; one name is one gene in all sections of a cohort.
    gene_ids: their ids (Ensembl's without version), "" for a gene without one; () where there is
        none at all.
    """

    names: tuple[str, ...]
    centres_px: np.ndarray
    counts: sparse.csr_matrix
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, g = len(self.names), len(self.genes)
        if self.centres_px.shape != (n, 2):
            raise InputError(f"{n} spots need ({n}, 2) centres, not {self.centres_px.shape}")
        if self.gene_ids and len(self.gene_ids) != g:
            raise InputError(f"{g} genes, but {len(self.gene_ids)} gene ids")
        if not np.isfinite(self.centres_px).all():
            bad = self.names[int(np.argmin(np.isfinite(self.centres_px).all(axis=1)))]
            raise InputError(f"spot {bad!r} has a coordinate that is not a finite number")
        if self.counts.shape != (n, g):
            raise InputError(f"{n} spots and {g} genes, but counts of shape {self.counts.shape}")
        for what, names in (("spot", self.names), ("gene", self.genes)):
            repeated = repeats(names)
            if repeated:
                raise InputError(
                    f"{len(repeated)} {what} name(s) are repeated (first: {repeated[0]!r}); "
                    f"{what} names must be unique within a section"
                )
        if self.counts.nnz:
            lowest = float(self.counts.data.min())
            if not np.isfinite(self.counts.data).all() or lowest < 0:
                spot, gene = self._first_bad_count()
                raise InputError(
                    f"spot {spot!r}, gene {gene!r}: a count is negative or not finite; "
                    "raw, non-negative counts are needed"
                )

    def _first_bad_count(self) -> tuple[str, str]:
        table = self.counts.tocoo()
        at = int(np.argmax(~(np.isfinite(table.data) & (table.data >= 0))))
        return self.names[table.row[at]], self.genes[table.col[at]]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def id_of(self) -> dict[str, str]:
        """Gene name -> its id, for the genes that have one."""
        return ids_by_name(self.genes, self.gene_ids)

    @property
    def total_counts(self) -> np.ndarray:
        """(n,) float64: a spot's counts over all genes of the table."""
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64)).ravel()

    def with_genes(self, kept: Collection[str]) -> SpotTable:
        """The same spots with those of their genes that are in `kept`, in the table's order."""
        columns = [at for at, gene in enumerate(self.genes) if gene in kept]
        return dataclasses.replace(
            self,
            counts=self.counts[:, columns],
            genes=tuple(self.genes[at] for at in columns),
            gene_ids=tuple(self.gene_ids[at] for at in columns) if self.gene_ids else (),
        )

    def subset(self, index: np.ndarray) -> SpotTable:
        """The spots at `index` (integers or a boolean mask), in that order."""
        rows = np.arange(len(self))[index]
        return SpotTable(
            names=tuple(self.names[i] for i in rows),
            centres_px=self.centres_px[rows],
            counts=self.counts[rows],
            genes=self.genes,
            gene_ids=self.gene_ids,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """One tissue section: an H&E image and its measured spots.

    image: full-resolution image file; None where the release has none (such a section can be
        clustered and counted, never tiled).
    mpp: microns per pixel of that image; None if unknown.
    spot_diameter_um, spot_pitch_um: size of a spot and distance between neighbours' centres.
    labels: column of the data's own table of spots -> spot -> its label, "" for none.
    """

    name: str
    patient: str
    image: Path | None
    spots: SpotTable
    mpp: float | None = None
    spot_diameter_um: float | None = None
    spot_pitch_um: float | None = None
    labels: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mpp is not None and not 0.01 < self.mpp < 100:
            raise InputError(
                f"section {self.name!r}: {self.mpp} microns per pixel is not a plausible image "
                "scale; slides are between 0.1 and 10"
            )

    @property
    def spot_pitch_px(self) -> float | None:
        """Distance between neighbouring spots' centres in full-resolution pixels, if known."""
        if self.spot_pitch_um is None or self.mpp is None:
            return None
        return self.spot_pitch_um / self.mpp


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A section that an error makes unusable, its patient, and why."""

    name: str
    patient: str
    why: str


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """Sections read from one place, and everything that was noticed on the way.

    absent_is_zero: a gene that a section's table lacks has no counts there; otherwise it was not
        measured there.
    left_out: sections that are not among `sections` because of an error.
    """

    source: Path
    layout: str
    sections: tuple[Section, ...]
    problems: tuple[Problem, ...] = ()
    absent_is_zero: bool = False
    left_out: tuple[LeftOut, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        return tuple(sorted({section.patient for section in self.sections}))

    def with_image(self) -> tuple[Section, ...]:
        """The sections that have an image, in order."""
        return tuple(section for section in self.sections if section.image is not None)


@dataclasses.dataclass(frozen=True, eq=False)
class StainReference:
    """Colours of one slide, or of the slides that a model was trained on, to recolour to.

    method: one of STAIN_METHODS; "none" leaves colours as they are.
    white_point: (3,) float, RGB, 99th percentile of each channel (colour-cast removal).
    luminosity: float in (0, 255], 95th percentile of CIE L scaled to 0..255, after cast removal.
    stain_matrix: (2, 3) float, unit rows in optical density: haematoxylin, then eosin.
    max_concentration: (2,) float, 99th percentile of each stain's concentration.
    lab_mean, lab_std: (3,) float, OpenCV's 8-bit CIE Lab (Reinhard alone).
    """

    method: str
    white_point: np.ndarray
    luminosity: float
    stain_matrix: np.ndarray
    max_concentration: np.ndarray
    lab_mean: np.ndarray
    lab_std: np.ndarray

    def __post_init__(self) -> None:
        if self.method not in STAIN_METHODS:
            raise InputError(
                f"stain method {self.method!r} is unknown; one of {', '.join(STAIN_METHODS)}"
            )
        shapes = {
            "white_point": (3,),
            "stain_matrix": (2, 3),
            "max_concentration": (2,),
            "lab_mean": (3,),
            "lab_std": (3,),
        }
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape or not np.isfinite(values).all():
                raise InputError(f"stain {name}: finite numbers of shape {shape} are needed")
        if not np.isfinite(self.luminosity):
            raise InputError("stain luminosity: a finite number is needed")

    def to_json(self) -> dict[str, Any]:
        return json_values(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> StainReference:
        return cls(
            method=values["method"],
            luminosity=float(values["luminosity"]),
            **{
                name: np.asarray(values[name], np.float64)
                for name in (
                    "white_point",
                    "stain_matrix",
                    "max_concentration",
                    "lab_mean",
                    "lab_std",
                )
            },
        )


def repeats(names: Sequence[str]) -> list[str]:
    """Names that appear more than once, in order of first appearance."""
    return [name for name, times in Counter(names).items() if times > 1]


def named(items: Sequence[str], limit: int = 5) -> str:
    """At most `limit` quoted items for a message, and how many more there are."""
    shown = ", ".join(repr(item) for item in items[:limit])
    return shown + (f" and {len(items) - limit} more" if len(items) > limit else "")


def printable(text: str) -> str:
    """`text` as any file takes it: what is no Unicode is spelled out (a file name in Latin-1 bytes:
    "gr\\udcf6sse")."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def ids_by_name(genes: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """Gene name -> its id, for the genes that have one; `ids` may be empty."""
    return {gene: one for gene, one in zip(genes, ids, strict=True) if one} if ids else {}


def json_values(record: Any) -> dict[str, Any]:
    """A dataclass' fields as JSON-ready values; arrays become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [float(v) if v.ndim == 0 else v.tolist() for v in value]
        return list(value) if isinstance(value, tuple) else value

    fields = {f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}
    json.dumps(fields)
    return fields

"""The layout of HEST-1k: one AnnData file, one slide and one record per section.

    st/TENX99.h5ad                    raw counts, obsm["spatial"], obs array_row and array_col
    wsis/TENX99.tif                   full-resolution H&E
    metadata/TENX99.json              patient, pixel_size_um_estimated, inter_spot_dist, ...
    HEST_v1_0_0.csv                   the same with one row per section, where a .json is missing

Written from a description of the set and tried on files made after it, not on the set itself.

Source of the data: Jaume et al., HEST-1k, NeurIPS 2024.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from histospace_tf.data_pipelines import patients, text_tables
from histospace_tf.data_pipelines.readers import h5ad, images
from histospace_tf.data_pipelines.readers.sources import Source
from histospace_tf.data_pipelines.spots.scale import StatedScale
from histospace_tf.vocabulary import InputError, Problem

LOOKS_FOR = "folders st (with .h5ad files) and wsis or metadata"


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    has_more = (folder / "wsis").is_dir() or (folder / "metadata").is_dir()
    return has_more and any((folder / "st").glob("*.h5ad"))


def find_sections(folder: Path) -> tuple[list[Source], list[Problem]]:
    """Finds one section per file of st/, named by it.

    Raises:
        InputError: a record is not JSON, or the table not CSV.
    """
    tables = sorted(folder.glob("HEST_v*.csv"), key=_version)
    table, notes = _table(tables[-1]) if tables else ({}, ())
    sources: list[Source] = []
    problems = [Problem("note", tables[-1].name, f"{note}.") for note in notes]
    for file in sorted((folder / "st").glob("*.h5ad")):
        name = file.stem
        record = _record(folder / "metadata" / f"{name}.json") or table.get(name, {})
        patient = _patient(record)
        if patient is None:
            lacks = (
                "its metadata name no patient"
                if record
                else f"there is no metadata/{name}.json and no row in a HEST_v*.csv"
            )
            problems.append(
                Problem(
                    "warning",
                    f"section {name}",
                    f"{lacks}: it counts as a patient of its own, and may be of any other.",
                    "Sections of one patient on both sides of a split make scores too good.",
                )
            )
        image, more = images.image_named(folder / "wsis", name)
        problems += more
        sources.append(
            h5ad.H5adSection(
                name=name,
                patient=patient or name,
                image=image,
                file=file,
                key="ST",
                spot_um=_number(record, "spot_diameter"),
                pitch_um=_number(record, "inter_spot_dist"),
                stated=StatedScale(
                    _number(record, "pixel_size_um_estimated"),
                    "from pixel_size_um_estimated of its metadata",
                ),
            )
        )
    return sources, problems


def _version(file: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", file.stem)))


def _patient(record: dict[str, Any]) -> str | None:
    """Patient with the name of its data set, because many data sets have a "Patient 1"."""
    patient = patients.stated(str(record.get("patient") or ""))
    if patient is None:
        return None
    title = str(record.get("dataset_title") or "").strip()
    return f"{title}: {patient}" if title else patient


def _number(record: dict[str, Any], name: str) -> float | None:
    try:
        value = float(record.get(name) or 0)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"metadata {str(path)!r} are not JSON: {error}") from None


def _table(path: Path) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Reads records by section, and notes on the table's text."""
    table = text_tables.read_table(path, "metadata")
    column = table.column("id")
    if column is None:
        raise InputError(f"metadata {str(path)!r} have no column 'id', which names the section")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.cells]
    return dict(zip(table.texts(column), rows, strict=True)), table.notes

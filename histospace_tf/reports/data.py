"""What a report shows, read from an evaluation's or a run's folder. Every file but scores.json may
be absent; what is there must be sound.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import cv2
import numpy as np
import pandas as pd

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.predictors import ours, registry
from histospace_tf.reports import maps
from histospace_tf.scores import gene_sets, intervals, metrics
from histospace_tf.vocabulary import InputError, Section

QUALITY = 85  # of JPEG and WebP
MODEL = ours.Model.name


@dataclasses.dataclass(frozen=True, eq=False)
class Overview:
    """A section's whole image, small.

    picture: (h, w, 3) uint8 RGB; px_per_overview_px: full-resolution pixels per picture pixel.
    mpp: microns per full-resolution pixel; spot_px: a spot's diameter in full-resolution pixels.
    """

    picture: np.ndarray
    px_per_overview_px: float
    mpp: float | None = None
    spot_px: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """One folder's content, one field per file; None or empty where the file is absent."""

    folder: Path
    scores: Mapping[str, Any]
    gene_scores: pd.DataFrame | None = None
    genes: pd.DataFrame | None = None
    intervals: pd.DataFrame | None = None
    gene_sets: pd.DataFrame | None = None
    predictions: anndata.AnnData | None = None
    clusters: Mapping[str, Any] | None = None
    history: pd.DataFrame | None = None
    reconstructions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stain_panel: np.ndarray | None = None
    overviews: Mapping[str, Overview] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    manifest: Mapping[str, Any] | None = None


def read(folder: Path) -> Results:
    """Everything in `folder` that a report can show.

    Raises:
        InputError: no such folder, no scores.json in it, or a file in it that cannot be read;
            names the file.
    """
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; name one that fit or evaluate wrote")
    scores = _json(folder / "scores.json")
    if scores is None:
        raise InputError(
            f"{str(folder)!r} has no scores.json, so nothing was scored there; name a folder that "
            "evaluate wrote, or fit with held-out sections"
        )
    if not isinstance(scores.get("sections"), dict) or not isinstance(scores.get("mean"), dict):
        raise InputError(f"{str(folder / 'scores.json')!r} lacks its 'sections' or its 'mean'")
    widths = folder / intervals.FILE
    return Results(
        folder=folder,
        scores=scores,
        gene_scores=_csv(folder / "gene_scores.csv", needed=("gene", "section")),
        genes=_csv(folder / "genes.csv", needed=("gene",)),
        intervals=intervals.read(widths) if widths.is_file() else None,
        gene_sets=_csv(folder / gene_sets.FILE, needed=("set", "set_r", "trust")),
        predictions=_predictions(folder / "predictions.h5ad"),
        clusters=_json(folder / "clusters.json"),
        history=_csv(folder / "history.csv", needed=("stage", "epoch", "loss")),
        reconstructions=_arrays(folder / "reconstructions.npz"),
        stain_panel=_picture(folder / "stain_panel.png"),
        overviews=_overviews(folder / "overviews"),
        config=_json(folder / "config.json"),
        manifest=_json(folder / "manifest.json"),
    )


def write_overviews(
    sections: Sequence[Section],
    folder: Path,
    overview_of: slides.OverviewOf,
) -> None:
    """Small pictures of the sections' images: FOLDER/overviews/NAME.jpg, and overviews.json.

    Args:
        sections: those without an image are left out.
        folder: an evaluation's or a run's folder; overviews that stand there are replaced.
        overview_of: gives their overviews of slides.VIEWER_PX.
    Raises:
        InputError: two sections' names give the same file name.
    """
    entries: dict[str, Any] = {}
    with outputs.whole_folder(folder / "overviews", force=True) as draft:
        for section in sections:
            if section.image is None:
                continue
            file = outputs.file_name(section.name) + ".jpg"
            if (draft / file).exists():
                raise InputError(f"section {section.name!r}: another one's overview is {file!r}")
            picture, scale, mpp = overview_of(section, slides.VIEWER_PX)
            (draft / file).write_bytes(encoded(picture, ".jpg"))
            entries[section.name] = {
                "px_per_overview_px": scale,
                "mpp": mpp,
                "spot_px": maps.spot_diameter_px(
                    section.spot_diameter_um, mpp, section.spots.centres_px
                ),
                "file": file,
            }
        (draft / "overviews.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")


def encoded(picture: np.ndarray, suffix: str, *, quality: int = QUALITY) -> bytes:
    """(h, w, 3) uint8 RGB as the bytes of a ".jpg", ".webp" or ".png" file."""
    kind = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}.get(suffix)
    options = [] if kind is None else [kind, quality]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), options)
    assert done
    return data.tobytes()


def predictors(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the rows that have scores, in the order of tables."""
    blocks = [entry.get("rows") or {} for entry in scores["sections"].values()]
    whole = scores.get("bulk") or {}
    blocks += [scores["mean"] or {}, scores.get("pooled") or {}, whole.get("rows") or {}]
    return tuple(registry.in_order(n for rows in blocks for n, row in rows.items() if row))


def mean_gene_r(results: Results) -> pd.DataFrame:
    """r per gene, its mean over sections: one row per gene, best first, one column per predictor.

    From gene_scores.csv, else the model's alone from the predictions; empty where both are absent.
    """
    table = results.gene_scores
    if table is None:
        table = _scored(results.predictions) if results.predictions is not None else None
    if table is None or MODEL not in table:
        return pd.DataFrame({MODEL: []}, index=pd.Index([], name="gene"), dtype=float)
    columns = [name for name in table if name not in ("gene", "section", "fold")]
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    means = numbers.groupby(table["gene"].astype(str), sort=False).mean()
    return means.dropna(axis=1, how="all").sort_values(MODEL, ascending=False, kind="stable")


def section_gene_r(results: Results, section: str) -> dict[str, float]:
    """The model's r per gene in one section, from gene_scores.csv; empty where that is absent."""
    table = results.gene_scores
    if table is None or MODEL not in table:
        return {}
    rows = table[table["section"].astype(str) == section]
    numbers = pd.to_numeric(rows[MODEL], errors="coerce")
    return dict(zip(rows["gene"].astype(str), numbers, strict=True))


def section_rows(predictions: anndata.AnnData) -> dict[str, np.ndarray]:
    """Row numbers of each section, in order of first appearance."""
    names = predictions.obs["section"].astype(str).to_numpy()
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names)}


def _scored(predictions: anndata.AnnData) -> pd.DataFrame:
    parts = []
    for name, rows in section_rows(predictions).items():
        predicted, measured = (values[rows] for values in both(predictions))
        there = np.isfinite(predicted).all(axis=0) & np.isfinite(measured).all(axis=0)
        r = np.full(predictions.n_vars, np.nan)
        if there.any():
            r[there] = metrics.gene_r_each(predicted[:, there], measured[:, there])
        parts.append(pd.DataFrame({"gene": predictions.var_names, "section": name, MODEL: r}))
    return pd.concat(parts)


def spot_px(overview: Overview | None, centres: np.ndarray) -> float:
    """A spot's diameter in full-resolution pixels; half the typical distance where not stated."""
    if overview is not None and overview.spot_px:
        return float(overview.spot_px)
    return maps.spot_diameter_px(None, None, centres)


def both(predictions: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, measured), each (n, g) in the target's unit."""
    return np.asarray(predictions.X), np.asarray(predictions.layers["measured"])


def positive_label(results: Results, section: str | None = None) -> str | None:
    """The label that stands for cancer in a section, or in any, where clusters.json names it."""
    entries = (results.clusters or {}).get("sections") or {}
    for entry in entries.values() if section is None else [entries.get(section) or {}]:
        for value in entry.values():
            if isinstance(value, Mapping) and value.get("positive"):
                return str(value["positive"])
    return None


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no sound JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{str(path)!r} holds a {type(values).__name__}; an object is needed")
    return values


def _csv(path: Path, *, needed: Sequence[str]) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        # keep_default_na would read a gene called "NA" or "NULL" as missing
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{str(path)!r} is no sound table: {error}") from error
    lacking = [name for name in needed if name not in table]
    if lacking:
        raise InputError(f"{str(path)!r} lacks column {lacking[0]!r}; it has {list(table)}")
    return table if len(table) else None


def _predictions(path: Path) -> anndata.AnnData | None:
    if not path.is_file():
        return None
    try:
        table = anndata.read_h5ad(path)
    except Exception as error:  # anndata and h5py raise many kinds on a damaged file
        raise InputError(f"{str(path)!r} cannot be read as AnnData: {error}") from error
    lacking = [
        what
        for what, there in (
            ("layers['measured']", "measured" in table.layers),
            ("obs['section']", "section" in table.obs),
            ("obsm['spatial']", "spatial" in table.obsm),
        )
        if not there
    ]
    if lacking:
        raise InputError(f"{str(path)!r} lacks {', '.join(lacking)}")
    return table


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if "tiles" not in arrays:
        raise InputError(f"{str(path)!r} lacks the array 'tiles'; it has {sorted(arrays)}")
    return arrays


def _picture(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f"{str(path)!r} is no picture that can be read")
    return np.ascontiguousarray(picture[..., ::-1])


def _overviews(folder: Path) -> dict[str, Overview]:
    overviews = {}
    for name, entry in (_json(folder / "overviews.json") or {}).items():
        path = folder / entry.get("file", f"{name}.jpg")
        picture = _picture(path)
        if picture is None:
            raise InputError(f"overview of section {name!r} is missing: no file {str(path)!r}")
        overviews[name] = Overview(
            picture=picture,
            px_per_overview_px=float(entry["px_per_overview_px"]),
            mpp=entry.get("mpp"),
            spot_px=entry.get("spot_px"),
        )
    return overviews

"""Runs of Space Ranger on a given image, made for tests in all their forms."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import anndata
import cv2
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

GENES = ("ERBB2", "GNAS", "ACTB", "IGKC", "TBCE", "TBCE", "KRT8", "CD74")  # one symbol twice
POSITIONS = {
    "list": "tissue_positions_list.csv",
    "csv": "tissue_positions.csv",
    "parquet": "tissue_positions.parquet",
}
MATRICES = ("h5", "mtx", "mtx.gz")
MPP = 0.7
_HIRES_PX, _LOWRES_PX = 200, 60


def noise_picture(seed: int = 3) -> np.ndarray:
    """(500, 600, 3) uint8: noise, dark all over as tissue is."""
    return np.random.default_rng(seed).integers(90, 180, (500, 600, 3), dtype=np.uint8)


def made_picture() -> np.ndarray:
    """(h, w, 3) uint8: dark tissue on the left, bright glass on the right."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(90, 180, (700, 900, 3), dtype=np.uint8)
    pixels[:, 650:] = 240
    return pixels


def made_spots(
    picture: np.ndarray, *, mpp: float = MPP, bin_um: float | None = None, margin_um: float = 60.0
) -> pd.DataFrame:
    """A Visium array (with `bin_um`: Visium HD's bins) that fills an image.

    Columns as in tissue_positions.csv, and total, a spot's expected counts: more where it is dark.
    A spot is under tissue where the image is not bright.
    """
    height, width = picture.shape[:2]
    step_x, step_y = (50.0, 50.0 * 3**0.5) if bin_um is None else (bin_um, bin_um)
    columns = int((width * mpp - 2 * margin_um) / step_x) + 1
    rows = int((height * mpp - 2 * margin_um) / step_y) + 1
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 10)
    spots = []
    for row in range(rows):
        for column in range(columns):
            if bin_um is None and (row + column) % 2:
                continue
            x, y = (margin_um + column * step_x) / mpp, (margin_um + row * step_y) / mpp
            brightness = int(grey[round(y), round(x)])
            name = f"{''.join('ACGT'[(row * 977 + column) // 4**i % 4] for i in range(8))}-1"
            if bin_um is not None:
                name = f"s_{int(bin_um):03d}um_{row:05d}_{column:05d}-1"
            spots.append((name, int(brightness < 225), row, column, y, x, 20 + 255 - brightness))
    return pd.DataFrame(
        spots,
        columns=[
            "barcode",
            "in_tissue",
            "array_row",
            "array_col",
            "pxl_row_in_fullres",
            "pxl_col_in_fullres",
            "total",
        ],
    )


def made_counts(
    spots: pd.DataFrame, *, seed: int = 0, genes: Sequence[str] = GENES
) -> sparse.csr_matrix:
    """(n, g) whole counts; every second gene follows the image."""
    rng = np.random.default_rng(seed)
    share = np.linspace(0.5, 2, len(genes))
    dark = spots["total"].to_numpy() / spots["total"].mean()
    mean = share * np.where(np.arange(len(genes)) % 2 == 0, dark[:, None] ** 2, 1) * 8
    counts = rng.poisson(mean)
    counts[:, 2] += 1  # no spot without counts
    return sparse.csr_matrix(counts.astype(np.int32))


def write_run(
    folder: Path,
    picture: np.ndarray,
    *,
    positions: str = "list",
    matrix: str = "h5",
    kind: str = "filtered",
    image: str | None = "tissue.png",
    mpp: float = MPP,
    bin_um: float | None = None,
    seed: int = 0,
    genes: Sequence[str] = GENES,
) -> Path:
    """Writes a run's outs/ into `folder`, which is returned.

    Args:
        picture: (h, w, 3) uint8 RGB, the full-resolution image.
        positions: of POSITIONS; matrix: of MATRICES; kind: "filtered" or "raw".
        image: name of the full-resolution image beside the run; None: it is left out.
        mpp: microns per pixel of `picture`; bin_um: side of Visium HD's bins, else Visium.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spots = made_spots(picture, mpp=mpp, bin_um=bin_um)
    write_spatial(folder / "spatial", spots, picture, positions=positions, mpp=mpp, bin_um=bin_um)
    kept = spots[spots["in_tissue"] == 1] if kind == "filtered" else spots
    counts = made_counts(kept, seed=seed, genes=genes)
    name = f"{kind}_feature_bc_matrix"
    ids = [f"ENSG{i:011d}" for i in range(len(genes))]
    if matrix == "h5":
        write_h5(folder / f"{name}.h5", list(kept["barcode"]), genes, ids, counts)
    else:
        write_mtx(folder / name, list(kept["barcode"]), genes, ids, counts, end=matrix[3:])
    if image is not None:
        cv2.imwrite(str(folder / image), picture[..., ::-1])
    return folder


def write_spatial(
    folder: Path,
    spots: pd.DataFrame,
    picture: np.ndarray,
    *,
    positions: str,
    mpp: float,
    bin_um: float | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = spots.drop(columns="total")
    file = folder / POSITIONS[positions]
    if positions == "parquet":
        table.to_parquet(file)
    else:
        table.to_csv(file, index=False, header=positions == "csv")
    scales = {
        "spot_diameter_fullres": 65.0 / mpp if bin_um is None else bin_um / mpp,
        "fiducial_diameter_fullres": 105.0 / mpp,
    }
    for name, longest in (("hires", _HIRES_PX), ("lowres", _LOWRES_PX)):
        scale = longest / max(picture.shape[:2])
        scales[f"tissue_{name}_scalef"] = scale
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"tissue_{name}_image.png"), small[..., ::-1])
    if bin_um is not None:
        scales |= {"bin_size_um": bin_um, "microns_per_pixel": mpp}
    (folder / "scalefactors_json.json").write_text(json.dumps(scales))


def write_h5(
    file: Path,
    barcodes: Sequence[str],
    genes: Sequence[str],
    ids: Sequence[str],
    counts: sparse.csr_matrix,
    *,
    kinds: Sequence[str] | None = None,
) -> None:
    with h5py.File(file, "w") as h5:
        matrix = h5.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes, "S")
        matrix["data"], matrix["indices"] = counts.data, counts.indices
        matrix["indptr"], matrix["shape"] = counts.indptr, np.array(counts.shape[::-1])
        matrix["features/name"], matrix["features/id"] = np.array(genes, "S"), np.array(ids, "S")
        every = kinds or ["Gene Expression"] * len(ids)
        matrix["features/feature_type"] = np.array(every, "S")


def write_mtx(
    folder: Path,
    barcodes: Sequence[str],
    genes: Sequence[str],
    ids: Sequence[str],
    counts: sparse.csr_matrix,
    *,
    end: str = "",
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{i}\t{g}\tGene Expression" for i, g in zip(ids, genes, strict=True)]
    out = io.BytesIO()
    scipy.io.mmwrite(out, counts.T.tocoo())
    texts = {
        "features.tsv": "\n".join(lines).encode() + b"\n",
        "barcodes.tsv": "\n".join(barcodes).encode() + b"\n",
        "matrix.mtx": out.getvalue(),
    }
    for name, data in texts.items():
        (folder / f"{name}{end}").write_bytes(gzip.compress(data) if end else data)


def made_h5ad(
    picture: np.ndarray, *, library: str = "A1", mpp: float = MPP, seed: int = 0
) -> anndata.AnnData:
    """The same as scanpy reads a run: counts in X, places in obsm, scale factors in uns."""
    spots = made_spots(picture, mpp=mpp).set_index("barcode")
    obs = spots[["in_tissue", "array_row", "array_col"]]
    genes = [g if GENES[:i].count(g) == 0 else f"{g}-1" for i, g in enumerate(GENES)]
    data = anndata.AnnData(
        made_counts(spots, seed=seed).astype(np.float32),
        obs=obs,
        var=pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(len(genes))]}, index=genes),
    )
    data.obsm["spatial"] = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    scale = _HIRES_PX / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data.uns["spatial"] = {
        library: {
            "images": {"hires": small},
            "scalefactors": {"spot_diameter_fullres": 65 / mpp, "tissue_hires_scalef": scale},
        }
    }
    return data

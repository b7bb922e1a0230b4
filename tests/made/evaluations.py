"""The folder of a finished evaluation, every file in it, with names that try to break a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from histospace_tf.reports import data
from histospace_tf.scores import intervals
from histospace_tf.vocabulary import Section, SpotTable
from made.pictures import overview_at
from made.tissue import he_picture

HOSTILE = "<b>&\"'</script>$x^2$"
GENES = ("GNAS", "ERBB2", HOSTILE, *(f"GENE{i}" for i in range(9)))
SECTIONS = ("A1", "B<1>")
SIDE = 4
ROWS = ("model", "model_single_tile", "gene_mean", "colour_ridge", "other <i>", "neighbour_oracle")


def row(gene_r: float | None) -> dict[str, float | None]:
    keys = ("gene_r_median", "gene_r_smoothed", "spot_r", "mse", "mae")
    return {"gene_r": gene_r, **dict.fromkeys(keys, 0.5), "constant_genes": 0}


def scores() -> dict[str, Any]:
    rows = {name: row(0.1 * place) for place, name in enumerate(ROWS)}
    rows["model"] = row(0.321)
    entries = {
        name: {
            "patient": name[0],
            "spots": SIDE**2,
            "rows": {**rows, "patient_mean": None},
            "depth": {"measured": 0.2, "model": 0.15},
        }
        for name in SECTIONS
    }
    split = {"outer": "patient", "inner": "section", "held_out": [[n] for n in SECTIONS]}
    return {
        "target": {"normalisation": "library_size_log1p", "genes": len(GENES)},
        "split": {**split, "patient_on_both_sides": []},
        "sections": entries,
        "mean": {**rows, "patient_mean": None},
        "pooled": rows,
    }


def history() -> pd.DataFrame:
    stages = [f"{kind}_{v}" for kind in ("autoencoder", "head") for v in (1, 2, 3)]
    rows = []
    for stage in ["autoencoder", *stages, "context_inner1", "context_inner2", "context"]:
        for epoch in (1, 2, 3):
            head = "autoencoder" not in stage
            rows.append(
                {
                    "stage": stage,
                    "epoch": epoch,
                    "loss": 1 / epoch,
                    "val_loss": None if stage == "context" else 1.1 / epoch,
                    "val_gene_r": 0.1 * epoch if head else None,
                    "val_spot_r": 0.2 * epoch if head else None,
                }
            )
    return pd.concat([pd.DataFrame(rows), ridge_history()], ignore_index=True)


def ridge_history() -> pd.DataFrame:
    """Of heads in closed form: a row a strength, without epoch or loss."""
    rows = [
        {
            "stage": f"pooled_inner{fold}",
            "strength": strength,
            "val_gene_r": 0.3 - 0.01 * fold,
            "val_spot_r": 0.5 - 0.01 * fold,
        }
        for fold in (1, 2)
        for strength in (10.0, 100.0, 1000.0)
    ]
    rows.append({"stage": "pooled", "strength": 100.0})
    return pd.DataFrame(rows)


def predictions() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    n = SIDE**2 * len(SECTIONS)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    centres = np.tile(np.stack([x.ravel(), y.ravel()], axis=1) * 20.0 + 15, (len(SECTIONS), 1))
    measured = rng.uniform(0, 3, (n, len(GENES))).astype(np.float32)
    predicted = (measured + rng.normal(0, 1, measured.shape)).astype(np.float32)
    predicted[SIDE**2 :, 1] = np.nan  # a gene that the second fold's panel lacks
    theirs = np.where(np.arange(n)[:, None] < SIDE**2, measured, np.nan).astype(np.float32)
    section = np.repeat(SECTIONS, SIDE**2)
    label = ["invasive cancer" if i % 3 else "" for i in range(n)]
    obs = pd.DataFrame(
        {
            "section": section,
            "patient": [name[0] for name in section],
            "spot": [f"{i}x{HOSTILE}" for i in range(n)],
            "cluster_measured": [str(i % 2) for i in range(n)],
            "cluster_predicted": [str((i // 2) % 2) for i in range(n)],
            "label": label,
        },
        index=[f"spot{i}" for i in range(n)],
    )
    return anndata.AnnData(
        X=predicted,
        obs=obs,
        var=pd.DataFrame({"unit": "ln(1 + counts)"}, index=list(GENES)),
        obsm={"spatial": centres},
        layers={"measured": measured, "colour_ridge": measured[:, ::-1], "other <i>": theirs},
    )


def clusters() -> dict[str, Any]:
    match = {
        "contingency": {"0": {"invasive cancer": 3, HOSTILE: 1}, "1": {"invasive cancer": 2}},
        "positive": "invasive cancer",
        "positive_cluster": 0,
        "spots": 6,
        "matched": 4,
        "share": 4 / 6,
        "constant_share": 5 / 6,
        "adjusted_rand": 0.1,
    }
    sections = {
        "A1": {"spots": 16, "predicted_against_labels": match},
        "Z9": {"spots": 2, "note": "too few for 2 clusters"},
    }
    return {"method": "k-means", "sections": sections}


def section(name: str, image: Path | None) -> Section:

    spots = SpotTable(("1x1",), np.array([[9.0, 9.0]]), sparse.csr_matrix((1, 1)), ("G",))
    return Section(name, name[0], image, spots, mpp=5.0, spot_diameter_um=60.0)


def write_folder(folder: Path) -> Path:
    """Every file that an evaluation writes."""
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(scores()))
    table = predictions()
    table.write_h5ad(folder / "predictions.h5ad")
    rng = np.random.default_rng(1)
    r = pd.DataFrame(
        {"gene": g, "section": s, "model": rng.uniform(-0.2, 0.6), "colour_ridge": 0.1}
        for s in SECTIONS
        for g in GENES
    )
    r.to_csv(folder / "gene_scores.csv", index=False)
    trust = ["yes", "weak", "no"] * 4
    pd.DataFrame(
        {"gene": GENES, "gene_r": np.linspace(0.5, -0.1, len(GENES)), "p": 1e-5, "trust": trust}
    ).to_csv(folder / "genes.csv", index=False)
    intervals.of_held_out(table, "patient").to_csv(folder / intervals.FILE, index=False)
    history().to_csv(folder / "history.csv", index=False)
    tiles = rng.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "reconstructions.npz", tiles=tiles, variant_1=tiles, variant_2=tiles // 2)
    (folder / "stain_panel.png").write_bytes(data.encoded(tiles[0], ".png"))
    (folder / "clusters.json").write_text(json.dumps(clusters()))
    (folder / "config.json").write_text(json.dumps({"preset": HOSTILE, "stain": {"cast": True}}))
    (folder / "manifest.json").write_text(json.dumps({"versions": {"numpy": "2"}}))
    image = folder / "he.png"
    image.write_bytes(data.encoded(he_picture(), ".png"))
    data.write_overviews([section(name, image) for name in SECTIONS], folder, overview_at(90))
    return folder

"""Simulated tissue with known truth, written like a real release: the built-in data set.

`plan` and `histology` draw a section with known cells, `expression` says what cells express and
counts it under spots, and this module places the spots and writes HER2ST's repository layout:

    ST-imgs/A/A1/simulated_A1_HE.jpg           full-resolution H&E
    ST-cnts/A1.tsv.gz                          spots x genes; a gene without counts is left out
    ST-spotfiles/A1_selection.tsv              spots under tissue and their pixels
    ST-pat/lbl/A1_labeled_coordinates.tsv      the commonest tissue of each spot
    truth.json                                 settings, and the cell types' shares of each spot

The constants here and in the other modules were chosen by baselines without any trained model;
`benchmarks/simulation.py` prints them.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from histospace_tf import outputs
from histospace_tf.data_pipelines.simulation import expression, histology
from histospace_tf.data_pipelines.simulation.plan import CELL_TYPES, PLAN_PX, TUMOUR
from histospace_tf.data_pipelines.spots.platforms import LEGACY_ST
from histospace_tf.vocabulary import InputError

MPP = 0.69  # microns per pixel
MARGIN_PX = 230  # from the outermost spots to the image's edge
TRUTH = "truth.json"  # ignored by the reader of the layout
SPOTS_XY = (9, 10)  # array positions across and down; those under tissue are kept
GRID_JITTER = 0.03  # standard deviation of a spot's place, in steps of the array
MIN_COVER = 0.5  # share of a spot's disc that tissue must cover
JPEG_QUALITY = 88

CELL_RNA = {"tumour": 1.0, "stroma": 0.4, "immune": 0.4, "fat": 2.0, "gland": 0.8}

LABELS = {
    "tumour": "invasive cancer",
    "stroma": "connective tissue",
    "immune": "immune infiltrate",
    "fat": "adipose tissue",
    "gland": "breast glands",
}
DEFAULT_PATIENTS = 5
PATIENTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_simulated(folder: Path) -> bool:
    """Whether `simulate` wrote this folder."""
    return (folder / TRUTH).is_file()


def simulate(
    out: str | Path,
    *,
    patients: int = DEFAULT_PATIENTS,
    sections_per_patient: int = 1,
    spots_xy: tuple[int, int] = SPOTS_XY,
    same_levels: bool = False,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Writes a simulated data set into the folder `out`, whole or not at all.

    Args:
        out: folder to make; one that exists must be empty unless `force` is set.
        patients: 2 to 26, named A, B, C, ...; each has its own stain, scanner and gene
            levels.
        sections_per_patient: 1 to 9, named A1, A2, ...
        spots_xy: array positions across and down, each 3 to 60.
        same_levels: all patients express alike, so that their sections differ by tissue alone; the
            images are the same either way.
        seed: whole number, at least 0. The same seed gives the same files, byte by byte.
        progress: called with 1 after each section.
    Raises:
        InputError: a number outside its range, or `out` holds something and `force` is not set.
    """
    out = Path(out)
    _refuse_outside("patients", patients, 2, len(PATIENTS))
    _refuse_outside("sections_per_patient", sections_per_patient, 1, 9)
    for side in spots_xy:
        _refuse_outside("spots_xy", side, 3, 60)
    _refuse_outside("seed", seed, 0, 2**31 - 1)
    biology = expression.biology(CELL_TYPES)
    truth: dict[str, object] = {
        "patients": patients,
        "sections_per_patient": sections_per_patient,
        "spots_xy": list(spots_xy),
        "same_levels": same_levels,
        "seed": seed,
        "mpp": MPP,
        "cell_types": list(CELL_TYPES),
    }
    sections: dict[str, object] = {}
    with outputs.whole_folder(out, force=force) as folder:
        for number, patient in enumerate(PATIENTS[:patients]):
            rng = np.random.default_rng([seed, number])
            appearance = histology.draw_appearance(rng)
            levels = biology.levels
            if not same_levels:
                levels = levels * expression.patient_levels(rng, biology)
            for section in range(1, sections_per_patient + 1):
                sections[f"{patient}{section}"] = _write_section(
                    folder,
                    np.random.default_rng([seed, number, section]),
                    patient=patient,
                    name=f"{patient}{section}",
                    spots_xy=spots_xy,
                    appearance=appearance,
                    biology=biology,
                    levels=levels,
                )
                progress(1)
        text = json.dumps(truth | {"sections": sections}, indent=1) + "\n"
        (folder / TRUTH).write_text(text, encoding="utf-8")


def _write_section(
    folder: Path,
    rng: np.random.Generator,
    *,
    patient: str,
    name: str,
    spots_xy: tuple[int, int],
    appearance: histology.Appearance,
    biology: expression.Biology,
    levels: np.ndarray,
) -> dict[str, object]:
    """Draws, measures and writes one section.

    Returns:
        Its truth, as in truth.json.
    """
    pitch = LEGACY_ST.pitch_um / MPP
    width, height = (
        int(np.ceil((2 * MARGIN_PX + (side - 1) * pitch) / PLAN_PX)) * PLAN_PX for side in spots_xy
    )
    tissue = histology.draw_tissue(rng, width=width, height=height, appearance=appearance)
    array, placed, centres = _place_spots(rng, spots_xy, pitch, tissue)
    rna, atypia = _cells_under(centres, tissue)
    counts = expression.counts_of_spots(rng, rna, atypia, centres, biology, levels)

    image_folder = folder / "ST-imgs" / patient / name
    image_folder.mkdir(parents=True)
    ok, data = cv2.imencode(
        ".jpg",
        cv2.cvtColor(tissue.image, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
    )
    if not ok:
        raise OSError(f"section {name}: the image could not be encoded as JPEG")
    (image_folder / f"simulated_{name}_HE.jpg").write_bytes(data.tobytes())

    names = [f"{x}x{y}" for x, y in array]
    counted = np.flatnonzero(counts.sum(axis=0))
    lines = ["\t".join(["", *(biology.genes[g] for g in counted)])]
    lines += [
        "\t".join([spot, *map(str, row)])
        for spot, row in zip(names, counts[:, counted].tolist(), strict=True)
    ]
    _write(folder / "ST-cnts" / f"{name}.tsv.gz", lines)

    rows = list(zip(array.tolist(), placed.tolist(), centres.tolist(), strict=True))
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    lines += [
        f"{x}\t{y}\t{new_x:.3f}\t{new_y:.3f}\t{pixel_x:.2f}\t{pixel_y:.2f}\t1"
        for (x, y), (new_x, new_y), (pixel_x, pixel_y) in rows
    ]
    _write(folder / "ST-spotfiles" / f"{name}_selection.tsv", lines)

    shares = rna / rna.sum(axis=1, keepdims=True)
    lines = ["Row.names\tx\ty\tpixel_x\tpixel_y\tlabel"]
    lines += [
        f"{pixel_x:.0f}x{pixel_y:.0f}\t{new_x:.3f}\t{new_y:.3f}\t{pixel_x:.2f}\t{pixel_y:.2f}\t"
        f"{LABELS[CELL_TYPES[kind]]}"
        for (_, (new_x, new_y), (pixel_x, pixel_y)), kind in zip(
            rows, np.argmax(shares, axis=1).tolist(), strict=True
        )
    ]
    _write(folder / "ST-pat" / "lbl" / f"{name}_labeled_coordinates.tsv", lines)
    return {
        "white_point": [round(float(v), 2) for v in appearance.white],
        "stains": np.round(appearance.stains, 4).tolist(),
        "shares": dict(zip(names, np.round(shares, 4).tolist(), strict=True)),
        "atypia": {s: round(float(a), 4) for s, a in zip(names, atypia, strict=True)},
    }


def _place_spots(
    rng: np.random.Generator,
    spots_xy: tuple[int, int],
    pitch_px: float,
    tissue: histology.Tissue,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places the spots under tissue.

    Returns:
        (n, 2) array positions; (n, 2) places on the array, moved a little; (n, 2) full-resolution
        pixels.
    """
    first = rng.integers(3, 9, size=2)
    yy, xx = np.mgrid[: spots_xy[1], : spots_xy[0]]
    array = np.stack([xx.ravel(), yy.ravel()], 1) + first
    placed = array + rng.normal(0, GRID_JITTER, array.shape)
    # A table holds 2 digits of a pixel: the truth is taken from what is written.
    centres = np.round(MARGIN_PX + (placed - first) * pitch_px, 2)

    reach = LEGACY_ST.spot_um / MPP / 2 / PLAN_PX
    side = 2 * int(reach) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.float32)
    cover = cv2.filter2D(tissue.covered.astype(np.float32), -1, disc / disc.sum())
    at = np.clip((centres / PLAN_PX).astype(int), 0, np.array(cover.shape[::-1]) - 1)
    kept = cover[at[:, 1], at[:, 0]] >= MIN_COVER
    if kept.sum() < 2:  # an outline can miss a tiny array: then its middle is measured
        kept = np.argsort(np.argsort(-cover[at[:, 1], at[:, 0]], kind="stable")) < 2
    return array[kept], placed[kept], centres[kept]


def _cells_under(centres: np.ndarray, tissue: histology.Tissue) -> tuple[np.ndarray, np.ndarray]:
    """(n, types) RNA of each cell type under each spot; (n,) mean atypia of tumour cells there."""
    weight = np.array([CELL_RNA[name] for name in CELL_TYPES])
    radius = LEGACY_ST.spot_um / MPP / 2
    rna, atypia = np.zeros((len(centres), len(CELL_TYPES))), np.zeros(len(centres))
    for spot, centre in enumerate(centres):
        under = ((tissue.cells_px - centre) ** 2).sum(axis=1) < radius**2
        kinds = tissue.kinds[under]
        rna[spot] = np.bincount(kinds, minlength=len(CELL_TYPES)) * weight
        tumour = kinds == TUMOUR
        if tumour.any():
            atypia[spot] = tissue.atypia[under][tumour].mean()
    # A spot over bare fibres or one vacuole still holds a little of its surroundings.
    return rna + 0.02 * (rna.mean(axis=0) + 1e-3), atypia


def _write(path: Path, lines: list[str]) -> None:
    """Writes lines as UTF-8, compressed where the name ends in .gz, without a time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = ("\n".join(lines) + "\n").encode()
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as packed:
            packed.write(data)
        data = buffer.getvalue()
    path.write_bytes(data)


def _refuse_outside(what: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{what} is {value!r}; a whole number from {low} to {high} works")

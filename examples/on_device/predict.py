"""Predicts spatial gene expression on a device: NumPy, Pillow and ai-edge-litert, no TensorFlow.

    pip install numpy pillow ai-edge-litert
    python predict.py histospace_float16.tflite image.png --mpp 0.5 --out expression.csv

One file, to be copied: it does not import histospace_tf. Genes, unit, scale and stain reference
come from the metadata inside the .tflite. An image is cut into touching tiles of the model's size;
those that are at least half tissue are predicted, one row of the CSV each. An image of one tile
gives one row whatever it shows.

Colours are brought to the model's reference by the image's own white, luminosity and two stains
(Macenko et al., ISBI 2009; Vahadane et al., IEEE TMI 35(8), 2016), as histospace_tf does. They are
estimated from this image, so give one that shows some glass and some tissue, or name it with
--stains-of: a tile by itself says little about its slide. Tiles of `histospace-tf normalize` or of
parity_tiles.npz are normalised already: --normalised.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

TISSUE_DENSITY = 0.15  # mean optical density from which a pixel is tissue
SPARSITY = 0.02  # Vahadane's lambda
# Textbook H&E, for an image in which no two stains are found.
CANONICAL = {
    "white": np.full(3, 255.0),
    "luminosity": 255.0,
    "matrix": np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]),
    "strength": np.array([1.6, 0.9]),
}
CANONICAL["matrix"] /= np.linalg.norm(CANONICAL["matrix"], axis=1, keepdims=True)
FEWEST_PIXELS = 100  # of tissue, to estimate stains from
SMALLEST_ANGLE = np.cos(np.radians(6))  # stains closer than this cannot be told apart
# sRGB to CIE XYZ (D65), each row divided by white's.
TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
TO_XYZ /= TO_XYZ.sum(axis=1, keepdims=True)
BATCH = 8


class Model:
    """A .tflite of `histospace-tf export`: its metadata, and tiles -> expression."""

    def __init__(self, file: Path, threads: int = 1) -> None:
        with zipfile.ZipFile(file) as archive:
            self.about = json.loads(archive.read("metadata.json"))
        self.side: int = self.about["tile_px"]
        self.genes: list[str] = self.about["genes"]
        self._lite = Interpreter(model_path=str(file), num_threads=threads)
        self._in = self._lite.get_input_details()[0]["index"]
        self._out = self._lite.get_output_details()[0]["index"]

    def expression(self, tiles: np.ndarray) -> np.ndarray:
        """(n, side, side, 3) uint8, normalised -> (n, genes) float32 in the model's unit."""
        self._lite.resize_tensor_input(self._in, tiles.shape, strict=True)
        self._lite.allocate_tensors()
        self._lite.set_tensor(self._in, np.ascontiguousarray(tiles))
        self._lite.invoke()
        return self._lite.get_tensor(self._out).copy()


def symmetries(tiles: np.ndarray) -> list[np.ndarray]:
    """The eight flips and rotations of (n, s, s, 3) tiles."""
    turned = [np.rot90(tiles, k, axes=(1, 2)) for k in range(4)]
    return turned + [tile[:, :, ::-1] for tile in turned]


# Stains. Pixels are (n, 3); `settings` is the metadata's "stain".


def without_cast(pixels: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Levels in [0, 255] with the slide's white made white."""
    return np.minimum(pixels * (255 / white), 255)


def lab(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f of X, Y, Z (n, 3), and CIE L in [0, 100] (n, 1), of sRGB levels."""
    v = colours / 255
    t = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ TO_XYZ.T
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return f, 116 * f[:, 1:2] - 16


def brightened(colours: np.ndarray, luminosity: float) -> np.ndarray:
    """CIE L scaled so that `luminosity` (0 to 255) becomes full; a and b stay."""
    if luminosity == 255:
        return colours
    f, light = lab(colours)
    f = f + (np.minimum(light * 255 / luminosity, 100) + 16) / 116 - f[:, 1:2]
    t = np.where(f <= 6 / 29, (f - 16 / 116) / 7.787, f**3)
    v = np.clip(t @ np.linalg.inv(TO_XYZ).T, 0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def density(colours: np.ndarray) -> np.ndarray:
    """Optical density, 0 for white."""
    return -np.log(np.maximum(colours, 1) / 255)


def concentrations(dense: np.ndarray, matrix: np.ndarray, sparsity: float = 0) -> np.ndarray:
    """(n, 2), the non-negative least squares solution of dense = c @ matrix, unit rows."""
    d0, d1 = (dense @ matrix.T - sparsity).T
    k = matrix[0] @ matrix[1]
    c0, c1 = (d0 - k * d1) / (1 - k * k), (d1 - k * d0) / (1 - k * k)
    c0, c1 = np.where(c1 < 0, d0, c0), np.where(c0 < 0, d1, c1)
    return np.maximum(np.stack([c0, c1], axis=1), 0)


def in_order(matrix: np.ndarray) -> np.ndarray | None:
    """Unit, non-negative rows, haematoxylin first; None where they cannot be told apart."""
    matrix = np.maximum(matrix, 0)
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    if (length < 1e-6).any():
        return None
    matrix = matrix / length
    if matrix[0] @ matrix[1] > SMALLEST_ANGLE:
        return None
    return matrix if matrix[0, 0] >= matrix[1, 0] else matrix[::-1]


def macenko(dense: np.ndarray) -> np.ndarray | None:
    """Directions at the 1st and 99th percentile of the angle in the plane of two components."""
    plane = np.linalg.eigh(np.cov(dense.T))[1][:, [2, 1]]
    plane = plane * np.where(dense.mean(axis=0) @ plane < 0, -1, 1)
    x, y = (dense @ plane).T
    ends = np.percentile(np.arctan2(y, x), [1, 99])
    return in_order(np.array([plane @ [np.cos(angle), np.sin(angle)] for angle in ends]))


def vahadane(dense: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """Sparse non-negative factorisation, begun at Macenko's stains."""
    matrix = matrix.copy()
    for _ in range(300):
        before = matrix.copy()
        codes = concentrations(dense, matrix, SPARSITY)
        gram, cross = codes.T @ codes, codes.T @ dense
        for j in range(2):
            if gram[j, j] <= 0:
                return None
            row = np.maximum(matrix[j] + (cross[j] - gram[j] @ matrix) / gram[j, j], 0)
            if not row.any():
                return None
            matrix[j] = row / np.linalg.norm(row)
        if matrix[0] @ matrix[1] > SMALLEST_ANGLE:
            return None
        if np.abs(matrix - before).max() < 1e-6:
            break
    return in_order(matrix)


def fitted(image: np.ndarray, settings: dict) -> dict | None:
    """An image's own colours: white, luminosity, stains; None where it shows too little tissue."""
    pixels = image.reshape(-1, 3)
    most = settings["sample_pixels"]
    pixels = pixels[:: max(1, len(pixels) // (8 * most))]
    white, luminosity = np.full(3, 255.0), 255.0
    if settings["cast"]:
        found = np.percentile(pixels, 99, axis=0)
        white = found if found.min() >= 50 else white
    colours = without_cast(pixels, white)
    if settings["luminosity"]:
        level = 2.55 * np.percentile(lab(colours)[1], 95)
        luminosity = min(level, 255.0) if level >= 50 else 255.0
    dense = density(brightened(colours, luminosity))
    tissue = np.flatnonzero(dense.mean(axis=1) >= TISSUE_DENSITY)
    if len(tissue) < FEWEST_PIXELS:
        return None
    if len(tissue) > most:
        tissue = np.sort(np.random.default_rng(0).choice(tissue, most, replace=False))
    dense, method = dense[tissue], settings["reference"]["method"]
    stains = {"white": white, "luminosity": luminosity}
    if method == "none":
        return stains
    if method not in ("macenko", "vahadane"):
        sys.exit(f"stain method {method!r} is not in this example; normalise first: --normalised")
    matrix = macenko(dense)
    if method == "vahadane" and matrix is not None:
        matrix = vahadane(dense, matrix)
    if matrix is None:
        return None
    strength = np.percentile(concentrations(dense, matrix), 99, axis=0)
    return {**stains, "matrix": matrix, "strength": np.maximum(strength, 0.2)}


def normalised(image: np.ndarray, stains: dict, reference: dict) -> np.ndarray:
    """Recolours (h, w, 3) uint8 from its own stains to the model's."""
    rows = np.empty_like(image)
    for row, pixels in enumerate(image):  # a row at a time: little memory
        colours = brightened(without_cast(pixels, stains["white"]), stains["luminosity"])
        if "matrix" in stains:
            ratio = np.array(reference["max_concentration"]) / stains["strength"]
            amounts = concentrations(density(colours), stains["matrix"]) * ratio
            colours = 255 * np.exp(-amounts @ np.array(reference["stain_matrix"]))
        rows[row] = np.rint(np.clip(colours, 0, 255)).astype(np.uint8)
    return rows


def corners(image: np.ndarray, side: int, least: float) -> list[tuple[int, int]]:
    """(left, top) of touching tiles of which at least the share `least` is tissue."""
    height, width = image.shape[:2]
    white = np.maximum(np.percentile(image.reshape(-1, 3), 99, axis=0), 180)
    lefts = range((width % side) // 2, width - side + 1, side)
    tops = range((height % side) // 2, height - side + 1, side)
    found = []
    for top in tops:
        for left in lefts:
            tile = image[top : top + side, left : left + side].reshape(-1, 3)
            dark = density(without_cast(tile, white)).mean(axis=1) >= TISSUE_DENSITY
            if dark.mean() >= least or len(lefts) * len(tops) == 1:
                found.append((left, top))
    return found


def read(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        sys.exit(f"{path}: not an image that Pillow reads ({error})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Gene expression of an H&E image, on a device.")
    parser.add_argument("model", type=Path, help=".tflite of histospace-tf export")
    parser.add_argument("image", type=Path, help="PNG, JPEG or TIFF; a tile or a small image")
    parser.add_argument("--mpp", type=float, help="microns per pixel of the image")
    parser.add_argument("--out", type=Path, help="CSV to write: x, y, then a column a gene")
    parser.add_argument("--normalised", action="store_true", help="colours are the model's already")
    parser.add_argument("--stains-of", type=Path, help="image of the slide to take the stains from")
    parser.add_argument("--average", action="store_true", help="average 8 flips and rotations")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()

    try:
        model = Model(chosen.model, chosen.threads)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{chosen.model}: not a .tflite of `histospace-tf export` ({error})")
    about, image = model.about, read(chosen.image)
    scale = about["microns_per_pixel"]
    if scale is not None and chosen.mpp is None:
        sys.exit(f"the model works at {scale:g} microns per pixel; give the image's with --mpp")
    side = model.side
    if scale is not None and abs(scale / chosen.mpp - 1) > 0.02:
        side = max(1, round(model.side * scale / chosen.mpp))
    if min(image.shape[:2]) < side:
        sys.exit(f"{chosen.image}: {image.shape[1]} x {image.shape[0]} px; a tile takes {side} px")
    places = corners(image, side, about["min_tissue"])
    if not places:
        sys.exit(f"{chosen.image}: no tile of {side} px is {about['min_tissue']:.0%} tissue")
    stains = None
    if not chosen.normalised:
        of = chosen.stains_of or chosen.image
        stains = fitted(read(of) if chosen.stains_of else image, about["stain"])
        if stains is None:
            print(f"{of}: no two stains found; taken as textbook H&E", file=sys.stderr)
            stains = CANONICAL

    start, parts = time.perf_counter(), []
    for first in range(0, len(places), BATCH):
        tiles = []
        for left, top in places[first : first + BATCH]:
            tile = image[top : top + side, left : left + side]
            if side != model.side:
                small = Image.fromarray(tile).resize((model.side,) * 2, Image.Resampling.BOX)
                tile = np.asarray(small)
            tiles.append(normalised(tile, stains, about["stain"]["reference"]) if stains else tile)
        batch = np.stack(tiles)
        shown = symmetries(batch) if chosen.average else [batch]
        parts.append(np.mean([model.expression(tile) for tile in shown], axis=0))
    expression = np.concatenate(parts)
    each = (time.perf_counter() - start) / len(places)

    print(
        f"{len(places)} tiles x {len(model.genes)} genes, in {about['unit']}; {each:.2f} s a tile"
    )
    highest = np.argsort(-expression.mean(axis=0))[:5]
    print(", ".join(f"{model.genes[g]} {expression[:, g].mean():.2f}" for g in highest))
    if chosen.out:
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["x", "y", *model.genes])
            middle = (side - 1) / 2
            for (left, top), row in zip(places, expression, strict=True):
                table.writerow([left + middle, top + middle, *(f"{value:.6g}" for value in row)])
        print(chosen.out)


if __name__ == "__main__":
    main()
